//! The WAL's bytes: the head of a file, and one entry to and from bytes.
//!
//! A file begins with `magic 8 | number u64 | seed u64 | crc32c u32`, 64 bytes in all. An entry is
//! `magic u32 | crc32c of the head's rest u32 | body length u32 | crc32c of the body u32 | sync u64 | sequence u64 | kind u8`, the body,
//! and zeros up to a multiple of 8; all little endian. A group's body is, for each append, `topic id 16 | partition i32 | received i64 |
//! batch length u32 | batch`. Always: an entry is there whole or not at all. The file's seed, a random number, goes into every
//! checksum: what an earlier life of the file left behind is no entry, and no record can be made to look like one.
//! The sync number says which entries were made durable together.

use std::io::IoSlice;

use bytes::Bytes;

use super::PartitionKey;
use super::store::Append;
use crate::record::{Batch, Offset, PartitionId, TopicId};
use crate::time::Timestamp;

/// The bytes in front of a file's entries.
pub(super) const FILE_HEAD_BYTES: usize = 64;
const FILE_MAGIC: [u8; 8] = *b"VQLWAL2\n";

/// Where an entry begins.
const MAGIC: [u8; 4] = *b"VQLE";
/// The bytes in front of an entry's body.
const HEAD_BYTES: usize = 4 + 4 + 4 + 4 + 8 + 8 + 1;
const PART_BYTES: usize = 16 + 4 + 8 + 4;
const ALIGN: usize = 8;
const ZEROS: [u8; ALIGN] = [0; ALIGN];
const KIND_GROUP: u8 = 1;
const KIND_START: u8 = 2;
const KIND_REMOVE: u8 = 3;

/// More than this no group may hold: an entry's length has four bytes.
pub(super) const MAX_GROUP_BYTES: usize = 1 << 30;

/// The head of a file.
pub(super) fn file_head(number: u64, seed: u64) -> [u8; FILE_HEAD_BYTES] {
    let mut head = [0; FILE_HEAD_BYTES];
    head[..8].copy_from_slice(&FILE_MAGIC);
    head[8..16].copy_from_slice(&number.to_le_bytes());
    head[16..24].copy_from_slice(&seed.to_le_bytes());
    let crc = crc32c::crc32c(&head[..24]);
    head[24..28].copy_from_slice(&crc.to_le_bytes());
    head
}

/// What the head of a file tells.
pub(super) enum Head {
    /// It is the file it is named as.
    Of {
        /// What goes into its checksums.
        seed: u64,
    },
    /// It was never used under this name: nothing was ever confirmed in it.
    Unused,
    /// It was used, and its head is not what was written.
    Damaged,
}

/// Reads the head of the file with this number.
pub(super) fn head(bytes: &[u8], number: u64) -> Head {
    let Some(head) = bytes.get(..FILE_HEAD_BYTES) else { return Head::Unused };
    let (of, seed) = (u64_at(head, 8), u64_at(head, 16));
    let is_whole = head == file_head(of, seed);
    match (is_whole, of == number) {
        (true, true) => Head::Of { seed },
        // Named before its head was durable, in either order.
        (true, false) => Head::Unused,
        _ if head.iter().all(|byte| *byte == 0) => Head::Unused,
        _ => Head::Damaged,
    }
}

/// What an entry says.
#[derive(Debug)]
pub(super) enum Entry {
    /// Batches that belong together.
    Group(Vec<(PartitionKey, Timestamp, Batch)>),
    /// Records of a partition below this offset are gone.
    Start(PartitionKey, Offset),
    /// A partition is gone.
    Remove(PartitionKey),
}

/// Which entry it is, and in which file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The file's seed.
    pub seed: u64,
    /// Which sync makes it durable.
    pub sync: u64,
    /// Counts up by one an entry, for ever.
    pub sequence: u64,
}

/// An entry's heads, ready to be written between the batches' own bytes.
pub(super) struct Encoded {
    heads: Vec<u8>,
    parts: usize,
    padding: usize,
}

impl Encoded {
    /// The heads of a group.
    pub(super) fn group(mark: Mark, appends: &[Append]) -> Self {
        let body: usize = appends.iter().map(|a| PART_BYTES + a.batch.len_bytes()).sum();
        let mut heads = Vec::with_capacity(HEAD_BYTES + PART_BYTES * appends.len());
        heads.resize(HEAD_BYTES, 0);
        let mut crc = crc32c::crc32c(&mark.seed.to_le_bytes());
        for append in appends {
            let at = heads.len();
            put_key(&mut heads, append.to.key());
            heads.extend_from_slice(&append.received.0.to_le_bytes());
            heads.extend_from_slice(&u32_of(append.batch.len_bytes()).to_le_bytes());
            crc = crc32c::crc32c_append(crc, &heads[at..]);
            for chunk in append.batch.chunks() {
                crc = crc32c::crc32c_append(crc, chunk);
            }
        }
        Self::sealed(mark, KIND_GROUP, heads, body, crc, appends.len())
    }

    /// A start that moved.
    pub(super) fn start(mark: Mark, key: PartitionKey, to: Offset) -> Self {
        let mut heads = vec![0; HEAD_BYTES];
        put_key(&mut heads, key);
        heads.extend_from_slice(&to.0.to_le_bytes());
        Self::plain(mark, KIND_START, heads)
    }

    /// A partition that went.
    pub(super) fn remove(mark: Mark, key: PartitionKey) -> Self {
        let mut heads = vec![0; HEAD_BYTES];
        put_key(&mut heads, key);
        Self::plain(mark, KIND_REMOVE, heads)
    }

    fn plain(mark: Mark, kind: u8, heads: Vec<u8>) -> Self {
        let body = heads.len() - HEAD_BYTES;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&mark.seed.to_le_bytes()), &heads[HEAD_BYTES..]);
        Self::sealed(mark, kind, heads, body, crc, 0)
    }

    fn sealed(mark: Mark, kind: u8, mut heads: Vec<u8>, body: usize, body_crc: u32, parts: usize) -> Self {
        heads[..4].copy_from_slice(&MAGIC);
        heads[8..12].copy_from_slice(&u32_of(body).to_le_bytes());
        heads[12..16].copy_from_slice(&body_crc.to_le_bytes());
        heads[16..24].copy_from_slice(&mark.sync.to_le_bytes());
        heads[24..32].copy_from_slice(&mark.sequence.to_le_bytes());
        heads[32] = kind;
        let crc = head_crc(mark.seed, &heads);
        heads[4..8].copy_from_slice(&crc.to_le_bytes());
        Self { heads, parts, padding: padding(HEAD_BYTES + body) }
    }

    /// The pieces to write, in order.
    pub(super) fn pieces<'a>(&'a self, appends: &'a [Append], into: &mut Vec<IoSlice<'a>>) {
        if self.parts == 0 {
            into.push(IoSlice::new(&self.heads));
        }
        let mut at = 0;
        for (i, append) in appends.iter().enumerate().take(self.parts) {
            let end = HEAD_BYTES + (i + 1) * PART_BYTES;
            into.push(IoSlice::new(&self.heads[at..end]));
            at = end;
            into.extend(append.batch.chunks().map(IoSlice::new));
        }
        if self.padding > 0 {
            into.push(IoSlice::new(&ZEROS[..self.padding]));
        }
    }
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(ALIGN) - length
}

fn u32_of(length: usize) -> u32 {
    u32::try_from(length).expect("a group's size is checked when it is handed over")
}

fn head_crc(seed: u64, head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&seed.to_le_bytes()), &head[8..HEAD_BYTES])
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

/// Sync and sequence of an entry whose head is right, whatever became of its body.
pub(super) fn head_at(bytes: &[u8], pos: usize, seed: u64) -> Option<(u64, u64)> {
    let head = bytes.get(pos..)?.get(..HEAD_BYTES)?;
    (head[..4] == MAGIC && head_crc(seed, head) == u32_at(head, 4)).then(|| (u64_at(head, 16), u64_at(head, 24)))
}

/// Reads the entry at `pos`. `None` where there is no whole, right entry; the caller decides what that means.
pub(super) fn decode(bytes: &Bytes, pos: usize, seed: u64) -> Option<Decoded> {
    let (sync, sequence) = head_at(bytes, pos, seed)?;
    let head = &bytes[pos..pos + HEAD_BYTES];
    let length = u32_at(head, 8) as usize;
    let end = (pos + HEAD_BYTES).checked_add(length).filter(|end| *end <= bytes.len())?;
    let seeded = crc32c::crc32c(&seed.to_le_bytes());
    if crc32c::crc32c_append(seeded, &bytes[pos + HEAD_BYTES..end]) != u32_at(head, 12) {
        return None;
    }
    let kind = head[32];
    let mut rest = bytes.slice(pos + HEAD_BYTES..end);
    let entry = match kind {
        KIND_START => Entry::Start(take_key(&mut rest)?, Offset(take_i64(&mut rest)?)),
        KIND_REMOVE => Entry::Remove(take_key(&mut rest)?),
        KIND_GROUP => {
            let mut parts = Vec::new();
            while !rest.is_empty() {
                let key = take_key(&mut rest)?;
                let received = take_i64(&mut rest)?;
                let length = u32::from_le_bytes(take(&mut rest, 4)?.as_ref().try_into().ok()?) as usize;
                // The entry's checksum covers the batch, which had passed its own when it was written.
                let batch = Batch::parse_vouched(take(&mut rest, length)?).ok()?;
                parts.push((key, Timestamp(received), batch));
            }
            Entry::Group(parts)
        }
        _ => return None,
    };
    let length = HEAD_BYTES + length;
    Some(Decoded { sync, sequence, entry, length: length + padding(length) })
}

/// The places behind `from` where an entry may begin, by its magic.
pub(super) fn places_behind(bytes: &[u8], from: usize) -> impl Iterator<Item = usize> + '_ {
    let first = (from + 1).next_multiple_of(ALIGN);
    let rest = bytes.get(first..).unwrap_or_default();
    rest.chunks_exact(ALIGN).enumerate().filter(|(_, chunk)| chunk[..4] == MAGIC).map(move |(i, _)| first + i * ALIGN)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn take(from: &mut Bytes, n: usize) -> Option<Bytes> {
    (n <= from.len()).then(|| from.split_to(n))
}

fn take_i64(from: &mut Bytes) -> Option<i64> {
    Some(i64::from_le_bytes(take(from, 8)?.as_ref().try_into().ok()?))
}

fn take_key(from: &mut Bytes) -> Option<PartitionKey> {
    let topic = TopicId(take(from, 16)?.as_ref().try_into().ok()?);
    let partition = i32::from_le_bytes(take(from, 4)?.as_ref().try_into().ok()?);
    // There are none below zero: their folder's name would be another's.
    (partition >= 0).then_some(PartitionKey { topic, partition: PartitionId(partition) })
}
