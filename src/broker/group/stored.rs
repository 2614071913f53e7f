//! Groups as records of the internal topic `__consumer_offsets`, in Kafka's own versioned forms.
//!
//! Keys: version 0 and 1 an offset (group, topic, partition), version 2 a group. Values: offsets are
//! written in version 3, or 1 where the client set an expiry of its own, and read in 0 to 3; groups are
//! written in version 3 without members (members join again after a restart) and with the time the group
//! became empty, which their offsets' age counts from, or -1 while it has members. A null value is a
//! tombstone. Field order and versions: Kafka's `OffsetCommitKey/Value.json`, `GroupMetadataKey/Value.json`.

use std::collections::BTreeMap;

use super::GroupConfig;
use super::commit::Committed;
use super::machine::Group;
use super::message::GroupId;
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

/// What is kept of a group besides its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGroup {
    /// What its members are.
    pub protocol_type: String,
    /// The last generation.
    pub generation: i32,
    /// When the last member left; `None` while it has members.
    pub empty_since: Option<Timestamp>,
}

/// What a record says. `None` in it means that it is no longer so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredEntry {
    /// An offset.
    Offset(GroupId, TopicPartition, Option<Committed>),
    /// A group.
    Group(GroupId, Option<StoredGroup>),
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

/// The record of a group.
pub(super) fn group_record(group: &GroupId, stored: &StoredGroup) -> GroupRecord {
    let mut value = Vec::new();
    put_i16(&mut value, 3);
    put_text(&mut value, &stored.protocol_type);
    put_i32(&mut value, stored.generation);
    put_i16(&mut value, -1); // protocol
    put_i16(&mut value, -1); // leader
    put_i64(&mut value, stored.empty_since.map_or(-1, |at| at.0));
    put_i32(&mut value, 0); // members
    GroupRecord { key: group_key(group), value: Some(value) }
}

/// The record that a group is no more.
pub(super) fn group_tombstone(group: &GroupId) -> GroupRecord {
    GroupRecord { key: group_key(group), value: None }
}

fn offset_key(group: &GroupId, of: &TopicPartition) -> Vec<u8> {
    let mut key = Vec::new();
    put_i16(&mut key, KEY_OFFSET);
    put_text(&mut key, group.as_str());
    put_text(&mut key, of.topic.as_str());
    put_i32(&mut key, of.partition.0);
    key
}

fn group_key(group: &GroupId) -> Vec<u8> {
    let mut key = Vec::new();
    put_i16(&mut key, KEY_GROUP);
    put_text(&mut key, group.as_str());
    key
}

fn put_i16(out: &mut Vec<u8>, value: i16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_i16(out, i16::try_from(text.len()).expect("texts were checked where they came in"));
    out.extend_from_slice(text.as_bytes());
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
        KEY_GROUP => Ok(StoredEntry::Group(key.group()?, value.map(read_group).transpose()?)),
        other => Ok(StoredEntry::Other(other)),
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

fn read_group(value: &[u8]) -> Result<StoredGroup, StoredError> {
    let mut value = Fields(value);
    let version = value.i16()?;
    if !(0..=3).contains(&version) {
        return Err(StoredError::Version(version));
    }
    let protocol_type = value.text()?.to_owned();
    let generation = value.i32()?;
    value.nullable_text()?;
    value.nullable_text()?;
    let empty_since = if version >= 2 { Some(Timestamp(value.i64()?)).filter(|at| at.0 >= 0) } else { None };
    Ok(StoredGroup { protocol_type, generation, empty_since })
}

/// Takes fields off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoredError> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(StoredError::Damaged("it is cut off"))?;
        self.0 = rest;
        Ok(*first)
    }

    fn i16(&mut self) -> Result<i16, StoredError> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, StoredError> {
        self.take().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, StoredError> {
        self.take().map(i64::from_be_bytes)
    }

    fn nullable_text(&mut self) -> Result<Option<&'a str>, StoredError> {
        let Ok(length) = usize::try_from(self.i16()?) else { return Ok(None) };
        let (text, rest) = self.0.split_at_checked(length).ok_or(StoredError::Damaged("a text is cut off"))?;
        self.0 = rest;
        std::str::from_utf8(text).map(Some).map_err(|_| StoredError::Damaged("a text is not UTF-8"))
    }

    fn text(&mut self) -> Result<&'a str, StoredError> {
        self.nullable_text()?.ok_or(StoredError::Damaged("a text is missing"))
    }

    fn group(&mut self) -> Result<GroupId, StoredError> {
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
    offsets: BTreeMap<TopicPartition, (Committed, Offset)>,
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
            StoredEntry::Group(id, stored) => self.groups.entry(id).or_default().group = stored,
            StoredEntry::Other(_) => {}
        }
        Ok(())
    }

    /// The groups that are left, all of them empty as of `now`, and the records that say so of those that
    /// had members: without them the age of their offsets would begin anew at every start.
    #[must_use]
    pub fn finish(self, config: GroupConfig, now: Timestamp) -> (Vec<Group>, Vec<GroupRecord>) {
        let (mut groups, mut records) = (Vec::new(), Vec::new());
        for (id, Replayed { group, offsets }) in self.groups {
            if group.is_none() && offsets.is_empty() {
                continue;
            }
            let mut restored = match group {
                Some(mut stored) => {
                    if stored.empty_since.is_none() {
                        stored.empty_since = Some(now);
                        records.push(group_record(&id, &stored));
                    }
                    Group::restored(id, config, now, stored)
                }
                None => Group::new(id, config, now),
            };
            for (of, (committed, at)) in offsets {
                restored.restore_offset(of, committed, at);
            }
            groups.push(restored);
        }
        (groups, records)
    }
}
