//! One entry of the WAL to and from bytes.
//!
//! `magic u32 | body length u32 | crc32c of all that follows u32 | sync number u64 | sequence u64 | kind u8 | body`, little
//! endian. A group's body is, for each append, `topic id 16 | partition i32 | received i64 | batch length u32 | batch`. An entry
//! is there whole or not at all; the sync number says which entries were made durable together.

use std::io::IoSlice;

use bytes::Bytes;

use super::PartitionKey;
use super::store::Append;
use crate::record::{Batch, Offset, PartitionId, TopicId};
use crate::time::Timestamp;

/// Where an entry begins.
pub(super) const MAGIC: u32 = 0x5651_4c57;
/// The bytes in front of an entry's body.
pub(super) const HEAD_BYTES: usize = 4 + 4 + 4 + 8 + 8 + 1;
const PART_BYTES: usize = 16 + 4 + 8 + 4;
const KIND_GROUP: u8 = 1;
const KIND_START: u8 = 2;

/// What an entry says.
#[derive(Debug)]
pub(super) enum Entry {
    /// Batches that belong together.
    Group(Vec<(PartitionKey, Timestamp, Batch)>),
    /// Records of a partition below this offset are gone.
    Start(PartitionKey, Offset),
}

/// An entry's heads, ready to be written between the batches' own bytes.
pub(super) struct Encoded {
    heads: Vec<u8>,
    parts: usize,
}

impl Encoded {
    /// The heads of a group.
    pub(super) fn group(sync: u64, sequence: u64, appends: &[Append]) -> Self {
        let body: usize = appends.iter().map(|a| PART_BYTES + a.batch.len_bytes()).sum();
        let mut heads = head(sync, sequence, KIND_GROUP, body);
        let mut crc = crc32c::crc32c(&heads[12..]);
        for append in appends {
            let at = heads.len();
            put_key(&mut heads, append.to.key());
            heads.extend_from_slice(&append.received.0.to_le_bytes());
            heads.extend_from_slice(&(append.batch.len_bytes() as u32).to_le_bytes());
            crc = crc32c::crc32c_append(crc, &heads[at..]);
            for chunk in append.batch.chunks() {
                crc = crc32c::crc32c_append(crc, chunk);
            }
        }
        heads[8..12].copy_from_slice(&crc.to_le_bytes());
        Self { heads, parts: appends.len() }
    }

    /// A start that moved.
    pub(super) fn start(sync: u64, sequence: u64, key: PartitionKey, to: Offset) -> Self {
        let mut heads = head(sync, sequence, KIND_START, 16 + 4 + 8);
        put_key(&mut heads, key);
        heads.extend_from_slice(&to.0.to_le_bytes());
        let crc = crc32c::crc32c(&heads[12..]);
        heads[8..12].copy_from_slice(&crc.to_le_bytes());
        Self { heads, parts: 0 }
    }

    /// The pieces to write, in order.
    pub(super) fn pieces<'a>(&'a self, appends: &'a [Append], into: &mut Vec<IoSlice<'a>>) {
        if self.parts == 0 {
            into.push(IoSlice::new(&self.heads));
            return;
        }
        let mut at = 0;
        for (i, append) in appends.iter().enumerate() {
            let end = HEAD_BYTES + (i + 1) * PART_BYTES;
            into.push(IoSlice::new(&self.heads[at..end]));
            at = end;
            into.extend(append.batch.chunks().map(IoSlice::new));
        }
    }
}

fn head(sync: u64, sequence: u64, kind: u8, body: usize) -> Vec<u8> {
    let mut heads = Vec::with_capacity(HEAD_BYTES + 64);
    heads.extend_from_slice(&MAGIC.to_le_bytes());
    heads.extend_from_slice(&(body as u32).to_le_bytes());
    heads.extend_from_slice(&[0; 4]);
    heads.extend_from_slice(&sync.to_le_bytes());
    heads.extend_from_slice(&sequence.to_le_bytes());
    heads.push(kind);
    heads
}

fn put_key(into: &mut Vec<u8>, key: PartitionKey) {
    into.extend_from_slice(&key.topic.0);
    into.extend_from_slice(&key.partition.0.to_le_bytes());
}

/// An entry that was read.
#[derive(Debug)]
pub(super) struct Decoded {
    /// Which sync made it durable.
    pub sync: u64,
    /// Counts up by one an entry.
    pub sequence: u64,
    /// What it says.
    pub entry: Entry,
    /// How many bytes it takes.
    pub length: usize,
}

/// Reads the entry at `pos`. `None` where there is no whole, right entry; the caller decides what that means.
pub(super) fn decode(bytes: &Bytes, pos: usize) -> Option<Decoded> {
    let head = bytes.get(pos..pos + HEAD_BYTES)?;
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    if u32_at(0) != MAGIC {
        return None;
    }
    let body = u32_at(4) as usize;
    let end = (pos + HEAD_BYTES).checked_add(body).filter(|end| *end <= bytes.len())?;
    if crc32c::crc32c(&bytes[pos + 12..end]) != u32_at(8) {
        return None;
    }
    let (sync, sequence, kind) = (u64_at(12), u64_at(20), head[28]);
    let mut rest = bytes.slice(pos + HEAD_BYTES..end);
    let entry = match kind {
        KIND_START => {
            let key = take_key(&mut rest)?;
            Entry::Start(key, Offset(i64::from_le_bytes(take(&mut rest, 8)?.as_ref().try_into().ok()?)))
        }
        KIND_GROUP => {
            let mut parts = Vec::new();
            while !rest.is_empty() {
                let key = take_key(&mut rest)?;
                let received = i64::from_le_bytes(take(&mut rest, 8)?.as_ref().try_into().ok()?);
                let length = u32::from_le_bytes(take(&mut rest, 4)?.as_ref().try_into().ok()?) as usize;
                // The entry's checksum covers the batch; its own is checked once more, before it is believed.
                let batch = Batch::parse(take(&mut rest, length)?).ok()?;
                parts.push((key, Timestamp(received), batch));
            }
            Entry::Group(parts)
        }
        _ => return None,
    };
    Some(Decoded { sync, sequence, entry, length: end - pos })
}

fn take(from: &mut Bytes, n: usize) -> Option<Bytes> {
    (n <= from.len()).then(|| from.split_to(n))
}

fn take_key(from: &mut Bytes) -> Option<PartitionKey> {
    let topic = TopicId(take(from, 16)?.as_ref().try_into().ok()?);
    let partition = PartitionId(i32::from_le_bytes(take(from, 4)?.as_ref().try_into().ok()?));
    Some(PartitionKey { topic, partition })
}
