//! What compaction leaves of a batch: Kafka's rules, as pure steps.
//!
//! Always: of the records before the map's end the last one of each key stays, and a deletion mark stays until its time; what lies at or
//! behind the map's end stays as it is; records of aborted transactions go; a transaction's marker goes only when none of its batches is
//! left, and then not before its time either; a batch that carries the last sequence of a producer that may still write stays, if need be
//! without records. The rules are those of Kafka's `Cleaner` and `CleanedTransactionMetadata` (4.x). Called by `compact`.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use crate::record::{Batch, BatchError, ControlMarker, Offset};

/// The last that a producer which may still write has in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastOfProducer {
    /// Its epoch.
    pub epoch: i16,
    /// The last offset of its last batch of records; `None` where its last batch is a transaction's marker.
    pub last_data: Option<Offset>,
}

/// The last offset of each key, within bounds. Keys are known by 128 bits of a hash with secret keys: two of them are not taken for one.
pub(super) struct KeyMap {
    hashers: [RandomState; 2],
    last: HashMap<Hash, i64, BuildHasherDefault<Taken>>,
    most: usize,
}

type Hash = (u64, u64);

/// Takes the first half of a hash as it is.
#[derive(Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, half: u64) {
        self.0 ^= half;
    }
}

impl KeyMap {
    /// What one key takes, at the worst moment of the table's growth about.
    const ENTRY_BYTES: usize = 64;

    pub(super) fn new(bytes: usize) -> Self {
        Self { hashers: [RandomState::new(), RandomState::new()], last: HashMap::default(), most: (bytes / Self::ENTRY_BYTES).max(1) }
    }

    fn hash(&self, key: &[u8]) -> Hash {
        (self.hashers[0].hash_one(key), self.hashers[1].hash_one(key))
    }

    /// Notes a later record of a key.
    pub(super) fn put(&mut self, key: &[u8], offset: Offset) {
        self.last.insert(self.hash(key), offset.0);
    }

    /// The last offset of a key, where it is known.
    pub(super) fn last(&self, key: &[u8]) -> Option<Offset> {
        self.last.get(&self.hash(key)).copied().map(Offset)
    }

    /// Whether so many more keys fit.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.last.len() + more <= self.most
    }

    pub(super) fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.last.clear();
    }
}

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aborted {
    pub producer: i64,
    pub first: Offset,
}

/// Which transactions a stretch of the log holds, as it is read forward.
#[derive(Clone, Debug, Default)]
pub(super) struct Transactions {
    /// The first offset of those that have no marker yet, by producer.
    pub open: BTreeMap<i64, Offset>,
    pub aborted: Vec<Aborted>,
}

impl Transactions {
    pub(super) fn note(&mut self, batch: &Batch) -> Result<(), BatchError> {
        let header = batch.header();
        if header.is_control() {
            let marker = marker(batch)?;
            if matches!(marker, Some(ControlMarker::Abort | ControlMarker::Commit))
                && let Some(first) = self.open.remove(&header.producer_id)
                && marker == Some(ControlMarker::Abort)
            {
                self.aborted.push(Aborted { producer: header.producer_id, first });
            }
        } else if header.is_transactional() {
            self.open.entry(header.producer_id).or_insert(batch.base_offset());
        }
        Ok(())
    }
}

/// The marker in a control batch; none where compaction has taken it.
fn marker(batch: &Batch) -> Result<Option<ControlMarker>, BatchError> {
    let records = batch.records()?;
    let first = records.iter().next().transpose()?;
    Ok(first.and_then(|record| ControlMarker::read(record.key)))
}

/// Which batches belong to aborted transactions and which markers still have batches, as the log is read forward from its beginning.
pub(super) struct Walk {
    aborted: VecDeque<Aborted>,
    /// Producers in an aborted transaction, and whether a batch of it was seen.
    in_aborted: HashMap<i64, bool>,
    /// Producers of which batches were seen since their last marker.
    in_other: HashSet<i64>,
    /// Where the markers of aborted transactions lie that may go now.
    pub gone_aborts: Vec<Offset>,
}

impl Walk {
    pub(super) fn new(aborted: &[Aborted]) -> Self {
        let mut aborted = aborted.to_vec();
        aborted.sort_by_key(|one| one.first);
        Self { aborted: aborted.into(), in_aborted: HashMap::new(), in_other: HashSet::new(), gone_aborts: Vec::new() }
    }

    fn begin_up_to(&mut self, last: Offset) {
        while let Some(next) = self.aborted.front().copied().filter(|next| next.first <= last) {
            self.aborted.pop_front();
            self.in_aborted.insert(next.producer, false);
        }
    }

    /// Whether a batch of records is to go because its transaction was aborted.
    pub(super) fn is_aborted(&mut self, batch: &Batch) -> bool {
        self.begin_up_to(batch.last_offset());
        let producer = batch.header().producer_id;
        if !batch.header().is_transactional() {
            return false;
        }
        if let Some(seen) = self.in_aborted.get_mut(&producer) {
            *seen = true;
            return true;
        }
        self.in_other.insert(producer);
        false
    }

    /// Whether a marker has no batches any more, so that it may go when its time has come.
    pub(super) fn is_alone(&mut self, batch: &Batch) -> Result<bool, BatchError> {
        self.begin_up_to(batch.last_offset());
        let producer = batch.header().producer_id;
        Ok(match marker(batch)? {
            Some(ControlMarker::Abort) => {
                let seen = self.in_aborted.remove(&producer).unwrap_or(false);
                // Of a transaction whose records went in an earlier round, a batch may be left for its producer's sake.
                let left = self.in_other.remove(&producer);
                !seen && !left
            }
            Some(ControlMarker::Commit) => !self.in_other.remove(&producer),
            Some(ControlMarker::Other(_)) => false,
            None => true,
        })
    }
}

/// What decides over a batch.
pub(super) struct Terms<'a> {
    pub map: &'a KeyMap,
    /// Records from here on are not in the map.
    pub map_end: Offset,
    /// Now, in milliseconds.
    pub now: i64,
    pub delete_retention_ms: i64,
    pub producers: &'a BTreeMap<i64, LastOfProducer>,
}

/// What stays of a batch.
pub(super) enum Left {
    /// All of it, byte for byte.
    Same,
    /// This.
    Other(Batch),
    Nothing,
}

impl Terms<'_> {
    /// Decides over the next batch of the log.
    pub(super) fn judge(&self, batch: &Batch, walk: &mut Walk) -> Result<Left, BatchError> {
        let header = batch.header();
        let horizon = header.delete_horizon();
        let gone = || if self.is_last_of_producer(batch) { Left::Other(batch.emptied()) } else { Left::Nothing };
        if header.is_control() {
            let alone = walk.is_alone(batch)?;
            if alone && header.count > 0 && horizon.is_some_and(|at| at <= self.now) && marker(batch)? == Some(ControlMarker::Abort) {
                walk.gone_aborts.push(batch.base_offset());
            }
            if header.count == 0 || (alone && horizon.is_some_and(|at| at <= self.now)) {
                return Ok(if header.count == 0 && self.is_last_of_producer(batch) { Left::Same } else { gone() });
            }
            return if alone && horizon.is_none() { self.filtered(batch, self.horizon(), |_| true) } else { Ok(Left::Same) };
        }
        if walk.is_aborted(batch) {
            return Ok(if header.count == 0 && self.is_last_of_producer(batch) { Left::Same } else { gone() });
        }
        let records = batch.records()?;
        let marks_go = horizon.is_some_and(|at| at <= self.now);
        let (mut stay, mut marks) = (0, false);
        for record in &records {
            let record = record?;
            if self.stays(record.offset, record.key, record.value.is_some() || !marks_go) {
                stay += 1;
                marks |= record.value.is_none();
            }
        }
        if stay == 0 {
            return Ok(if header.count == 0 && self.is_last_of_producer(batch) { Left::Same } else { gone() });
        }
        let set = marks && horizon.is_none();
        if stay == header.count && !set {
            return Ok(Left::Same);
        }
        let horizon = if set { self.horizon() } else { horizon };
        self.filtered(batch, horizon, |record| self.stays(record.offset, record.key, record.value.is_some() || !marks_go))
    }

    fn horizon(&self) -> Option<i64> {
        Some(self.now.saturating_add(self.delete_retention_ms))
    }

    fn filtered(
        &self,
        batch: &Batch,
        horizon: Option<i64>,
        stays: impl FnMut(&crate::record::RecordRef<'_>) -> bool,
    ) -> Result<Left, BatchError> {
        Ok(batch.filtered(horizon, stays)?.map_or(Left::Nothing, Left::Other))
    }

    fn stays(&self, offset: Offset, key: Option<&[u8]>, counts: bool) -> bool {
        if offset >= self.map_end {
            return true;
        }
        // What has no key cannot be the last of one: it is of a time when the topic was not compacted.
        let Some(key) = key else { return false };
        counts && self.map.last(key).is_none_or(|last| offset >= last)
    }

    fn is_last_of_producer(&self, batch: &Batch) -> bool {
        let header = batch.header();
        if !header.has_producer() {
            return false;
        }
        self.producers.get(&header.producer_id).is_some_and(|last| match last.last_data {
            Some(offset) => batch.last_offset() == offset,
            None => header.is_control() && header.producer_epoch == last.epoch,
        })
    }
}
