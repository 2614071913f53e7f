//! A state as the records of a snapshot, and back, one part at a time.
//!
//! A state is `(name length, name, IPC length, IPC stream)` for each of its parts, cut into records of [`PART_BYTES`], and then the
//! manifest that says how many there are and what checksum they have together. Always: on either way no more than the part at work is
//! in memory beside the state itself; parts that lay on the disk when they were written lie there again once they are read,
//! where there is room. Called by `task` and `checkpoint`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::checkpoint::{KEY_MANIFEST, KEY_PART, KeyAndValue, Manifest, PART_BYTES, corrupt};
use super::operator::{PARKED, StatePart, StateReader, StateWriter, StreamError};
use super::spill::{Parked, SpillSpace, parked};

/// Records that were read are held in pieces of so many bytes ..
const PIECE_BYTES: usize = 32 << 20;
/// .. of which those behind the first few are put on the disk.
const PIECES_HERE: usize = 8;

/// The records of a snapshot: its parts, and the manifest as the last, whose `parts` and `crc` are filled in here.
pub(super) struct SnapshotRecords {
    /// `None` once it has been told.
    manifest: Option<Manifest>,
    parts: std::vec::IntoIter<(String, StatePart)>,
    bytes: Vec<u8>,
    /// What lies before this in `bytes` has been told.
    from: usize,
}

impl SnapshotRecords {
    pub(super) fn new(manifest: Manifest, state: StateWriter) -> Self {
        let manifest = Manifest { parts: 0, crc: 0, ..manifest };
        Self { manifest: Some(manifest), parts: state.parts.into_iter(), bytes: Vec::new(), from: 0 }
    }

    fn next_record(&mut self) -> Result<Option<KeyAndValue>, StreamError> {
        let Some(manifest) = &mut self.manifest else { return Ok(None) };
        while self.bytes.len() - self.from < PART_BYTES {
            let Some((name, part)) = self.parts.next() else { break };
            self.bytes.drain(..self.from);
            self.from = 0;
            encode(&name, &part, &mut self.bytes)?;
        }
        let len = PART_BYTES.min(self.bytes.len() - self.from);
        if len > 0 {
            let part = self.bytes[self.from..self.from + len].to_vec();
            self.from += len;
            manifest.parts += 1;
            manifest.crc = crc32c::crc32c_append(manifest.crc, &part);
            return Ok(Some((KEY_PART, part)));
        }
        let manifest = self.manifest.take();
        Ok(manifest.map(|manifest| (KEY_MANIFEST, serde_json::to_vec(&manifest).expect("a manifest is plain data"))))
    }
}

impl Iterator for SnapshotRecords {
    type Item = Result<KeyAndValue, StreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().transpose()
    }
}

fn encode(name: &str, part: &StatePart, bytes: &mut Vec<u8>) -> Result<(), StreamError> {
    bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
    let place = bytes.len();
    bytes.extend_from_slice(&[0; 8]);
    match part {
        StatePart::Batch(batch) => parked::encode(batch, bytes)?,
        StatePart::Parked(parked) => bytes.extend_from_slice(&parked.stored()?),
    }
    let len = (bytes.len() - place - 8) as u64;
    bytes[place..place + 8].copy_from_slice(&len.to_le_bytes());
    Ok(())
}

/// Parts of snapshots as they are read, of which a manifest says whether they count.
#[derive(Default)]
pub(super) struct Gathered {
    pieces: VecDeque<Piece>,
    /// How many records they are.
    count: usize,
    /// The last ones, in memory.
    last: Vec<Vec<u8>>,
    last_bytes: usize,
}

/// Records one behind the other.
struct Piece {
    /// The length of each, and its checksum.
    records: Vec<(usize, u32)>,
    bytes: Bytes,
}

enum Bytes {
    Here(Vec<u8>),
    Parked(Parked),
}

impl Gathered {
    /// How many records there are.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Takes one more record.
    pub(super) fn push(&mut self, record: &[u8], space: Option<&SpillSpace>) {
        self.count += 1;
        self.last_bytes += record.len();
        self.last.push(record.to_vec());
        if self.last_bytes >= PIECE_BYTES {
            self.close(space.filter(|_| self.pieces.len() >= PIECES_HERE));
        }
    }

    /// Makes one piece of what was gathered last.
    fn close(&mut self, space: Option<&SpillSpace>) {
        let records = std::mem::take(&mut self.last);
        self.last_bytes = 0;
        let (bytes, records) = (records.concat(), records.iter().map(|record| (record.len(), crc32c::crc32c(record))).collect());
        let bytes = match space.and_then(|space| space.park_stored(&bytes)) {
            Some(parked) => Bytes::Parked(parked),
            None => Bytes::Here(bytes),
        };
        self.pieces.push_back(Piece { records, bytes });
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The state that the last `records` of them are, whose checksum must be `crc`; afterwards there are none.
    pub(super) fn take(&mut self, records: usize, crc: u32, space: Option<&SpillSpace>) -> Result<StateReader, StreamError> {
        self.close(None);
        let mut all = std::mem::take(self);
        let stray = all.count.saturating_sub(records);
        // Before any of it is believed.
        let own = all.pieces.iter().flat_map(|piece| &piece.records).skip(stray);
        if own.fold(0, |sum, (len, of)| crc32c::crc32c_combine(sum, *of, *len)) != crc {
            return Err(corrupt("a snapshot fails its checksum"));
        }
        let mut bytes = Incoming { all: std::mem::take(&mut all.pieces), stray, buffer: Vec::new(), from: 0 };
        let mut state = StateReader::default();
        while bytes.has_more()? {
            let name_len = u32::from_le_bytes(bytes.take(4)?.try_into().expect("four bytes")) as usize;
            let name = String::from_utf8(bytes.take(name_len)?.to_vec()).map_err(|e| corrupt(&e.to_string()))?;
            let ipc_len = u64::from_le_bytes(bytes.take(8)?.try_into().expect("eight bytes"));
            let ipc = bytes.take(usize::try_from(ipc_len).map_err(|e| corrupt(&e.to_string()))?)?;
            // An operator's own name may stand behind its place in the chain.
            let may_lie = name.rsplit('/').next().is_some_and(|name| name.starts_with(PARKED));
            let lies = space.filter(|_| may_lie).and_then(|space| space.park_stored(ipc));
            let part = match lies {
                Some(parked) => StatePart::Parked(Arc::new(parked)),
                None => StatePart::Batch(parked::decode(ipc).map_err(|e| corrupt(&e.to_string()))?),
            };
            state.parts.push((name, part));
        }
        Ok(state)
    }
}

/// The bytes of some records, in order, without those of stray records before them.
struct Incoming {
    all: VecDeque<Piece>,
    stray: usize,
    buffer: Vec<u8>,
    from: usize,
}

impl Incoming {
    /// Brings the next piece, if there is one.
    fn fill(&mut self) -> Result<bool, StreamError> {
        let Some(piece) = self.all.pop_front() else { return Ok(false) };
        let strays = self.stray.min(piece.records.len());
        self.stray -= strays;
        let skipped: usize = piece.records[..strays].iter().map(|(len, _)| len).sum();
        if strays == piece.records.len() {
            return Ok(true);
        }
        let bytes = match piece.bytes {
            Bytes::Here(bytes) => bytes,
            Bytes::Parked(parked) => parked.stored()?,
        };
        self.buffer.drain(..self.from);
        self.from = 0;
        self.buffer.extend_from_slice(&bytes[skipped..]);
        Ok(true)
    }

    fn has_more(&mut self) -> Result<bool, StreamError> {
        while self.from == self.buffer.len() {
            if !self.fill()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take(&mut self, n: usize) -> Result<&[u8], StreamError> {
        while self.buffer.len() - self.from < n {
            if !self.fill()? {
                return Err(corrupt("a snapshot ends too early"));
            }
        }
        self.from += n;
        Ok(&self.buffer[self.from - n..self.from])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::stream::spill::tests::{Fault, Shelf};

    fn batch(rows: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new((0..rows).map(|row| row * 7).collect::<Int64Array>());
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    }

    fn manifest() -> Manifest {
        let (fingerprint, partitions, topics) = (String::new(), BTreeMap::new(), Vec::new());
        Manifest { epoch: 1, fingerprint, partitions, topics, merged: 0, parts: 9, crc: 9, origin: None }
    }

    /// Parts of these numbers of rows, every other one on the disk.
    fn state(rows: &[i64], space: &SpillSpace) -> StateWriter {
        let mut state = StateWriter::default();
        for (at, rows) in rows.iter().enumerate() {
            match at % 2 {
                0 => state.put("here", batch(*rows)),
                _ => state.put_parked("there", space.park(&batch(*rows)).unwrap().unwrap()),
            }
        }
        // As a chain does.
        state.parts.iter_mut().for_each(|(name, _)| *name = format!("3/{name}"));
        state
    }

    /// The rows of each part, in order, and which of them lie on the disk.
    fn told(state: &StateReader) -> Vec<(&str, usize, bool)> {
        let one = |(name, part): &'_ (String, StatePart)| match part {
            StatePart::Batch(batch) => (batch.num_rows(), false),
            StatePart::Parked(parked) => {
                assert!(name.ends_with("parked:there"));
                (parked.load().unwrap().num_rows(), true)
            }
        };
        state.parts.iter().map(|part| (part.0.as_str(), one(part).0, one(part).1)).collect()
    }

    #[test]
    fn a_state_comes_back_part_by_part_behind_records_that_do_not_count() {
        let mut chance = ChaCha8Rng::seed_from_u64(7);
        for round in 0..12 {
            let (from, to) = (Shelf::default(), Shelf::default());
            let rows: Vec<i64> = (0..chance.random_range(0..6)).map(|_| chance.random_range(0..200_000)).collect();
            let written = state(&rows, &from.space());
            let records: Vec<KeyAndValue> = SnapshotRecords::new(manifest(), written).map(Result::unwrap).collect();
            let (last, parts) = records.split_last().unwrap();
            assert!(last.0 == KEY_MANIFEST && parts.iter().all(|(key, part)| *key == KEY_PART && part.len() <= PART_BYTES));
            assert!(parts.iter().rev().skip(1).all(|(_, part)| part.len() == PART_BYTES));
            let manifest: Manifest = serde_json::from_slice(&last.1).unwrap();
            assert_eq!((manifest.parts, manifest.epoch), (parts.len(), 1));
            assert_eq!(from.files(), 0, "whoever has written it holds nothing any more");

            let space = to.space();
            let space = (round % 3 > 0).then_some(&space);
            let mut gathered = Gathered::default();
            let stray = chance.random_range(0..4);
            (0..stray).for_each(|_| gathered.push(&[7; 1000], space));
            for (_, part) in parts {
                gathered.push(part, space);
                // Now and then what is gathered goes to the disk, as it does when there is much.
                if chance.random_bool(0.3) {
                    gathered.close(space);
                }
            }
            assert_eq!(gathered.len(), parts.len() + stray);
            let read = gathered.take(manifest.parts, manifest.crc, space).unwrap();
            assert_eq!(gathered.len(), 0);
            let expected: Vec<(&str, usize, bool)> = (rows.iter().enumerate())
                .map(|(at, rows)| match at % 2 {
                    0 => ("3/here", *rows as usize, false),
                    _ => ("3/parked:there", *rows as usize, space.is_some()),
                })
                .collect();
            assert_eq!(told(&read), expected);
            drop(read);
            assert_eq!(to.files(), 0);
        }
    }

    #[test]
    fn a_state_whose_bytes_have_changed_on_the_way_is_refused() {
        let shelf = Shelf::default();
        let space = shelf.space();
        let records: Vec<KeyAndValue> = SnapshotRecords::new(manifest(), state(&[9, 9], &space)).map(Result::unwrap).collect();
        let manifest: Manifest = serde_json::from_slice(&records[1].1).unwrap();
        let mut gathered = Gathered::default();
        gathered.push(&records[0].1, None);
        assert!(gathered.take(1, manifest.crc ^ 1, None).unwrap_err().to_string().contains("checksum"));
        let short = &records[0].1[..records[0].1.len() - 1];
        gathered.push(short, None);
        assert!(gathered.take(1, crc32c::crc32c(short), None).unwrap_err().to_string().contains("too early"));
        // So is one whose part on the disk is not there any more when it is to be written.
        let lost = state(&[9, 9], &space);
        shelf.set(Fault::Gone);
        let error = SnapshotRecords::new(manifest, lost).find_map(Result::err).unwrap();
        assert!(matches!(error, StreamError::Spill(_)), "{error}");
        assert_eq!(shelf.files(), 0);
    }
}
