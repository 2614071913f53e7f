//! Groups as records of the internal topic `__consumer_offsets`, in Kafka's own versioned forms.
//!
//! Keys: version 0 and 1 an offset (group, topic, partition), version 2 a group, version 22000 an offset of a
//! transaction that is not over (producer, group, topic, partition). Values: offsets are
//! written in version 3, or 1 where the client set an expiry of its own, and read in 0 to 3; of classic
//! groups tells `stored_classic`. A null value is a tombstone. Field order and versions: Kafka's
//! `OffsetCommitKey/Value.json`, `GroupMetadataKey/Value.json`.

use std::collections::BTreeMap;

use super::GroupConfig;
use super::commit::Committed;
use super::consumer::{ConsumerEntry, ConsumerReplay, read_consumer};
use super::machine::Group;
use super::message::GroupId;
use super::stored_classic::{StoredGroup, group_record, read_group};
use crate::record::{NameError, Offset, PartitionId, TopicName, TopicPartition};
use crate::time::Timestamp;

/// A record to append to `__consumer_offsets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// What it is about.
    pub key: Vec<u8>,
    /// What holds from now on; `None` where nothing does.
    pub value: Option<Vec<u8>>,
}

/// What a record says. `None` in it means that it is no longer so.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredEntry {
    /// An offset.
    Offset(GroupId, TopicPartition, Option<Committed>),
    /// An offset of a producer's transaction that is not over.
    Pending(GroupId, i64, TopicPartition, Option<Committed>),
    /// A group.
    Group(GroupId, Option<StoredGroup>),
    /// Something about a consumer group of KIP-848.
    Consumer(GroupId, ConsumerEntry),
    /// A key of a version we do not write, which is passed over.
    Other(i16),
}

/// Why a stored record cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoredError {
    /// It has no key.
    #[error("a record of __consumer_offsets has no key")]
    NoKey,
    /// It ends too early, or a text is not UTF-8.
    #[error("a record of __consumer_offsets is damaged: {0}")]
    Damaged(&'static str),
    /// A value of a version we do not know.
    #[error("a record of __consumer_offsets has a value of version {0}")]
    Version(i16),
    /// A topic's name cannot be.
    #[error("a record of __consumer_offsets names no topic")]
    Topic(#[from] NameError),
}

const KEY_OFFSET: i16 = 1;
const KEY_GROUP: i16 = 2;
/// Our own: Kafka writes pending offsets as batches of the transaction instead.
const KEY_PENDING: i16 = 22_000;

/// The record of a committed offset.
pub(super) fn offset_record(group: &GroupId, of: &TopicPartition, committed: &Committed) -> GroupRecord {
    let mut value = Vec::new();
    match committed.expires_at {
        None => {
            put_i16(&mut value, 3);
            put_i64(&mut value, committed.offset.0);
            put_i32(&mut value, committed.leader_epoch);
            put_text(&mut value, &committed.metadata);
            put_i64(&mut value, committed.committed_at.0);
        }
        // Only version 1 has an expiry; Kafka drops the leader epoch for it too.
        Some(expires_at) => {
            put_i16(&mut value, 1);
            put_i64(&mut value, committed.offset.0);
            put_text(&mut value, &committed.metadata);
            put_i64(&mut value, committed.committed_at.0);
            put_i64(&mut value, expires_at.0);
        }
    }
    GroupRecord { key: offset_key(group, of), value: Some(value) }
}

/// The record that an offset is no more.
pub(super) fn offset_tombstone(group: &GroupId, of: &TopicPartition) -> GroupRecord {
    GroupRecord { key: offset_key(group, of), value: None }
}

/// The record of an offset that holds once the producer's transaction commits.
pub(super) fn pending_record(group: &GroupId, producer_id: i64, of: &TopicPartition, committed: &Committed) -> GroupRecord {
    GroupRecord { key: pending_key(group, producer_id, of), ..offset_record(group, of, committed) }
}

/// The record that an offset is no longer pending.
pub(super) fn pending_tombstone(group: &GroupId, producer_id: i64, of: &TopicPartition) -> GroupRecord {
    GroupRecord { key: pending_key(group, producer_id, of), value: None }
}

fn offset_key(group: &GroupId, of: &TopicPartition) -> Vec<u8> {
    let mut key = Vec::new();
    put_i16(&mut key, KEY_OFFSET);
    put_text(&mut key, group.as_str());
    put_text(&mut key, of.topic.as_str());
    put_i32(&mut key, of.partition.0);
    key
}

fn pending_key(group: &GroupId, producer_id: i64, of: &TopicPartition) -> Vec<u8> {
    let mut key = Vec::new();
    put_i16(&mut key, KEY_PENDING);
    put_i64(&mut key, producer_id);
    put_text(&mut key, group.as_str());
    put_text(&mut key, of.topic.as_str());
    put_i32(&mut key, of.partition.0);
    key
}

pub(super) fn group_key(group: &GroupId) -> Vec<u8> {
    let mut key = Vec::new();
    put_i16(&mut key, KEY_GROUP);
    put_text(&mut key, group.as_str());
    key
}

pub(super) fn put_i16(out: &mut Vec<u8>, value: i16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_i16(out, i16::try_from(text.len()).expect("texts were checked where they came in"));
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_nullable_text(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text),
        None => put_i16(out, -1),
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_i32(out, i32::try_from(bytes.len()).expect("what fits into a request can be counted"));
    out.extend_from_slice(bytes);
}

/// Reads a record of `__consumer_offsets`.
pub fn read_stored(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<StoredEntry, StoredError> {
    let mut key = Fields(key.ok_or(StoredError::NoKey)?);
    match key.i16()? {
        0 | KEY_OFFSET => {
            let group = key.group()?;
            let topic = TopicName::new(key.text()?)?;
            let of = TopicPartition::new(topic, PartitionId(key.i32()?));
            Ok(StoredEntry::Offset(group, of, value.map(read_offset).transpose()?))
        }
        KEY_PENDING => {
            let producer_id = key.i64()?;
            let group = key.group()?;
            let topic = TopicName::new(key.text()?)?;
            let of = TopicPartition::new(topic, PartitionId(key.i32()?));
            Ok(StoredEntry::Pending(group, producer_id, of, value.map(read_offset).transpose()?))
        }
        KEY_GROUP => Ok(StoredEntry::Group(key.group()?, value.map(read_group).transpose()?)),
        other => Ok(match read_consumer(other, &mut key, value)? {
            Some((group, entry)) => StoredEntry::Consumer(group, entry),
            None => StoredEntry::Other(other),
        }),
    }
}

fn read_offset(value: &[u8]) -> Result<Committed, StoredError> {
    let mut value = Fields(value);
    let version = value.i16()?;
    if !(0..=3).contains(&version) {
        return Err(StoredError::Version(version));
    }
    Ok(Committed {
        offset: Offset(value.i64()?),
        leader_epoch: if version == 3 { value.i32()? } else { -1 },
        metadata: value.text()?.to_owned(),
        committed_at: Timestamp(value.i64()?),
        expires_at: if version == 1 { Some(Timestamp(value.i64()?)).filter(|at| at.0 >= 0) } else { None },
    })
}

/// Takes fields off the front.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoredError> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(StoredError::Damaged("it is cut off"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn i16(&mut self) -> Result<i16, StoredError> {
        self.take().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, StoredError> {
        self.take().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, StoredError> {
        self.take().map(i64::from_be_bytes)
    }

    pub(super) fn nullable_text(&mut self) -> Result<Option<&'a str>, StoredError> {
        let Ok(length) = usize::try_from(self.i16()?) else { return Ok(None) };
        let (text, rest) = self.0.split_at_checked(length).ok_or(StoredError::Damaged("a text is cut off"))?;
        self.0 = rest;
        std::str::from_utf8(text).map(Some).map_err(|_| StoredError::Damaged("a text is not UTF-8"))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, StoredError> {
        self.nullable_text()?.ok_or(StoredError::Damaged("a text is missing"))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], StoredError> {
        let length = usize::try_from(self.i32()?).map_err(|_| StoredError::Damaged("bytes are missing"))?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(StoredError::Damaged("bytes are cut off"))?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn group(&mut self) -> Result<GroupId, StoredError> {
        GroupId::new(self.text()?).ok_or(StoredError::Damaged("a group's name is too long"))
    }
}

/// Reads the whole of a partition of `__consumer_offsets` back into groups.
#[derive(Debug, Default)]
pub struct Replay {
    groups: BTreeMap<GroupId, Replayed>,
}

#[derive(Debug, Default)]
struct Replayed {
    group: Option<StoredGroup>,
    consumer: ConsumerReplay,
    offsets: BTreeMap<TopicPartition, (Committed, Offset)>,
    pending: BTreeMap<(i64, TopicPartition), (Committed, Offset)>,
}

impl Replay {
    /// Takes the next record, which lies at `at`.
    pub fn take(&mut self, at: Offset, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), StoredError> {
        match read_stored(key, value)? {
            StoredEntry::Offset(id, of, Some(committed)) => {
                self.groups.entry(id).or_default().offsets.insert(of, (committed, at));
            }
            StoredEntry::Offset(id, of, None) => {
                if let Some(replayed) = self.groups.get_mut(&id) {
                    replayed.offsets.remove(&of);
                }
            }
            StoredEntry::Pending(id, producer_id, of, Some(committed)) => {
                self.groups.entry(id).or_default().pending.insert((producer_id, of), (committed, at));
            }
            StoredEntry::Pending(id, producer_id, of, None) => {
                if let Some(replayed) = self.groups.get_mut(&id) {
                    replayed.pending.remove(&(producer_id, of));
                }
            }
            StoredEntry::Group(id, stored) => self.groups.entry(id).or_default().group = stored,
            StoredEntry::Consumer(id, entry) => self.groups.entry(id).or_default().consumer.take(entry),
            StoredEntry::Other(_) => {}
        }
        Ok(())
    }

    /// The groups that are left, their members with a whole session from `now` to be heard of. Those that were on their
    /// way to their first generation are empty; the records say so, or the age of their offsets would begin anew at
    /// every start.
    #[must_use]
    pub fn finish(self, config: GroupConfig, now: Timestamp) -> (Vec<Group>, Vec<GroupRecord>) {
        let (mut groups, mut records) = (Vec::new(), Vec::new());
        for (id, Replayed { group, consumer, offsets, pending }) in self.groups {
            let consumer = consumer.finish(id.clone(), config.consumer, config.max_size, now);
            if group.is_none() && consumer.is_none() && offsets.is_empty() && pending.is_empty() {
                continue;
            }
            let mut restored = match group {
                Some(mut stored) if consumer.is_none() => {
                    if stored.empty_since.is_none() && stored.members.is_empty() {
                        stored.empty_since = Some(now);
                        records.push(group_record(&id, &stored));
                    }
                    Group::restored(id, config, now, stored)
                }
                _ => Group::new(id, config, now),
            };
            restored.restore_consumer(consumer);
            for (of, (committed, at)) in offsets {
                restored.restore_offset(of, committed, at);
            }
            for ((producer_id, of), (committed, at)) in pending {
                // Where the topic was rewritten, the order of its records is that of their keys; the times of the
                // commits still tell which came later.
                let is_older = restored.committed(&of).is_some_and(|other| other.committed_at > committed.committed_at);
                let at = if is_older { Offset(-1) } else { at };
                restored.restore_pending(producer_id, of, committed, at);
            }
            groups.push(restored);
        }
        (groups, records)
    }
}
