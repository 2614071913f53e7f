//! Compaction of one partition: of each key the last record stays.
//!
//! Two passes: the first reads what is new and notes the last offset of each key, within bounded memory; the second reads the closed
//! segments from the beginning and writes what stays into files of their own, several small ones into one. Always: the new files are
//! whole and safe before they take the place of the old ones, which happens in one moment under the partition's lock; the old ones go
//! when a checkpoint that does not name them is durable, so that a crash at any point leaves the old files or the new ones, never a
//! mixture; what is not decided (an open transaction) or still needed is not touched; the last segment never is. Runs on a
//! thread of the caller's, one partition at a time. Called by `broker::compact`.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::LogError;
use super::clean::{Aborted, KeyMap, Left, Terms, Transactions, Walk};
use super::disk::{Disk, DiskFile};
use super::partition::{Inner, PartitionLog};
use super::segment::{Head, Segment, Stored, delete_files};
use super::shared::{Shared, Trouble};
use crate::record::{Batch, Offset};
use crate::time::Timestamp;

pub use super::clean::LastOfProducer;

/// What a file's name ends with while it is written.
pub(super) const UNFINISHED: &str = "unfinished";
/// So much is written at once.
const WRITE_BYTES: usize = 1 << 20;
/// Beyond the closed segments, so much is read at once.
const READ_BYTES: usize = 1 << 20;

/// How a partition is compacted. Ages count from when a record was received.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactionRules {
    /// Nothing from here on is touched: it is not decided, or somebody reads it as it was written.
    pub upper: Offset,
    /// How long a deletion mark stays after a compaction first passed over it.
    pub delete_retention_ms: i64,
    /// Younger records stay.
    pub min_lag_ms: i64,
    /// Older records are reason enough to begin.
    pub max_lag_ms: i64,
    /// Otherwise more than this part of the log must be new.
    pub min_dirty_ratio: f64,
    /// What producers that may still write have last written.
    pub producers: BTreeMap<i64, LastOfProducer>,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of the segments it went through.
    pub bytes_before: u64,
    /// Bytes of what is left of them.
    pub bytes_after: u64,
    /// Up to here no key comes twice now.
    pub clean_to: Offset,
}

/// The closed segments, from the first to the last that may be compacted.
struct Plan {
    dir: String,
    sources: Vec<Segment>,
    from: Offset,
    to: Offset,
    segment_bytes: u64,
}

/// The keys of what is new, and how far they reach.
struct Keys {
    map: KeyMap,
    end: Offset,
    aborted: Vec<Aborted>,
}

/// What one pass did.
struct Pass {
    clean_to: Offset,
    /// Bytes that went.
    saved: i64,
    /// Whether nothing is left to do.
    is_last: bool,
}

/// New files that take the place of old ones.
struct Made {
    old: Vec<Segment>,
    new: Segment,
}

impl PartitionLog {
    /// Whether there is enough to do.
    #[must_use]
    pub fn wants_compaction(&self, now: Timestamp, rules: &CompactionRules) -> bool {
        let inner = self.inner.lock();
        let (sources, from) = compactable(&inner, now, rules);
        is_worth_it(sources, from, now, rules)
    }

    /// Compacts, where there is enough to do. Blocks, for as long as there is much. Before the markers of aborted transactions go,
    /// `forget` hears where they lie: who still told readers of these transactions would hide later ones of the same producer.
    pub fn compact(
        &self,
        now: Timestamp,
        rules: &CompactionRules,
        mut forget: impl FnMut(&[Offset]) -> Result<(), LogError>,
    ) -> Result<Option<Compacted>, LogError> {
        let _one_at_a_time = self.shared.compacting.lock();
        if !self.wants_compaction(now, rules) {
            return Ok(None);
        }
        let before = compactable(&self.inner.lock(), now, rules).0.iter().map(|s| s.length).sum();
        let mut done: Option<Compacted> = None;
        loop {
            match self.compact_once(now, rules, &mut forget) {
                Ok(Some(Pass { clean_to, saved, is_last })) => {
                    let left = done.map_or(before, |done| done.bytes_after);
                    done = Some(Compacted { bytes_before: before, bytes_after: left.saturating_add_signed(-saved), clean_to });
                    if is_last {
                        return Ok(done);
                    }
                }
                Ok(None) => return Ok(done),
                Err(_) if self.is_removed() => return Ok(done),
                Err(error) => return Err(error),
            }
        }
    }

    /// As much as there is room for keys.
    fn compact_once(
        &self,
        now: Timestamp,
        rules: &CompactionRules,
        forget: &mut dyn FnMut(&[Offset]) -> Result<(), LogError>,
    ) -> Result<Option<Pass>, LogError> {
        let plan = {
            let inner = self.inner.lock();
            let (sources, from) = compactable(&inner, now, rules);
            let Some(last) = sources.last().filter(|last| last.next > from) else { return Ok(None) };
            let dir = inner.dir.clone().unwrap_or_default();
            Plan { dir, to: last.next, from, sources: sources.to_vec(), segment_bytes: inner.config.segment_bytes }
        };
        let Some(keys) = self.keys(&plan)? else { return Ok(None) };
        let terms = Terms {
            map: &keys.map,
            map_end: keys.end,
            now: now.0,
            delete_retention_ms: rules.delete_retention_ms,
            producers: &rules.producers,
        };
        let count = plan.sources.partition_point(|s| s.base < keys.end);
        let mut walk = Walk::new(&keys.aborted);
        let mut made: Vec<Made> = Vec::new();
        let written = groups(&plan.sources[..count], plan.segment_bytes).into_iter().try_for_each(|old| {
            made.extend(self.rewrite(&plan.dir, old, &terms, &mut walk)?);
            Ok(())
        });
        let swapped = written
            .and_then(|()| if made.is_empty() { Ok(()) } else { sync(&self.shared, &plan.dir, self.shared.disk.sync_dir(&plan.dir)) })
            .and_then(|()| if walk.gone_aborts.is_empty() { Ok(()) } else { forget(&walk.gone_aborts) })
            .map(|()| self.swap(&made, keys.end));
        match swapped {
            Ok(true) => {}
            // What was made is of no use: retention or a deletion was quicker, or there was no room.
            other => {
                made.iter().for_each(|one| discard(self.shared.disk.as_ref(), &one.new.stem(&plan.dir)));
                return other.map(|_| None);
            }
        }
        let length = |segments: &[Segment]| segments.iter().map(|s| s.length as i64).sum::<i64>();
        let saved = made.iter().map(|one| length(&one.old) - one.new.length as i64).sum();
        Ok(Some(Pass { clean_to: keys.end, saved, is_last: keys.end >= plan.to }))
    }

    fn must_stop(&self) -> Result<(), LogError> {
        if self.shared.ending.load(Ordering::Acquire) {
            return Err(LogError::Closed);
        }
        if self.is_removed() {
            return Err(LogError::Removed(self.key()));
        }
        self.shared.failure().map_or(Ok(()), |why| Err(LogError::Failed(why)))
    }

    /// The first pass. `None` where nothing new is decided.
    fn keys(&self, plan: &Plan) -> Result<Option<Keys>, LogError> {
        let mut keys = Keys { map: KeyMap::new(self.shared.config.compaction_bytes), end: plan.from, aborted: Vec::new() };
        let mut to = plan.to;
        loop {
            let mut found = self.scan(plan, to, &mut keys)?;
            let open_at_end = found.open.clone();
            self.scan_on(keys.end, &open_at_end, &mut found)?;
            let undecided = found.open.iter().filter(|(producer, first)| open_at_end.get(producer) == Some(first)).map(|(_, first)| *first);
            let stable = undecided.min().unwrap_or(keys.end);
            if stable <= plan.from {
                return Ok(None);
            }
            // What was aborted before the stretch's end was noted as if it counted: once more, knowing it.
            let knows_all = found.aborted.iter().all(|one| keys.aborted.contains(one));
            if stable >= keys.end && knows_all {
                return Ok((keys.end > plan.from).then_some(keys));
            }
            to = stable.min(keys.end);
            keys.aborted = found.aborted;
            keys.map.clear();
        }
    }

    /// Notes keys from the plan's beginning up to `to`, or as far as there is room.
    fn scan(&self, plan: &Plan, to: Offset, keys: &mut Keys) -> Result<Transactions, LogError> {
        let mut found = Transactions::default();
        let mut walk = Walk::new(&keys.aborted);
        keys.end = plan.from;
        let mut is_full = false;
        for source in plan.sources.iter().filter(|s| s.next > plan.from && s.base < to) {
            if is_full {
                break;
            }
            let mut reached = source.next.min(to);
            self.batches(&plan.dir, source, |batch, place| {
                if is_full || batch.next_offset() <= plan.from || batch.base_offset() >= to {
                    return Ok(());
                }
                let counts = !batch.header().is_control() && !walk.is_aborted(&batch);
                if batch.header().is_control() {
                    walk.is_alone(&batch).map_err(LogError::batch(place.to_owned()))?;
                }
                let more = usize::try_from(batch.header().count).unwrap_or(0);
                if counts && !keys.map.has_room(more) && !keys.map.is_empty() {
                    is_full = true;
                    reached = batch.base_offset().max(plan.from);
                    return Ok(());
                }
                found.note(&batch).map_err(LogError::batch(place.to_owned()))?;
                if counts {
                    let records = batch.records().map_err(LogError::batch(place.to_owned()))?;
                    for record in &records {
                        let record = record.map_err(LogError::batch(place.to_owned()))?;
                        if let Some(key) = record.key.filter(|_| record.offset >= plan.from) {
                            keys.map.put(key, record.offset);
                        }
                    }
                }
                Ok(())
            })?;
            keys.end = reached;
        }
        Ok(found)
    }

    /// Reads on behind `from` until the transactions that were open there are decided, or the log ends.
    fn scan_on(&self, from: Offset, open: &BTreeMap<i64, Offset>, found: &mut Transactions) -> Result<(), LogError> {
        let mut at = from;
        while open.iter().any(|(producer, first)| found.open.get(producer) == Some(first)) && at < self.durable_end() {
            self.must_stop()?;
            let fetched = self.read(at, READ_BYTES)?;
            for batch in fetched.batches() {
                let place = || LogError::batch("a batch behind the compacted ones".to_owned());
                let batch = batch.map_err(place())?;
                if batch.base_offset() >= at {
                    found.note(&batch).map_err(place())?;
                }
            }
            if fetched.next <= at {
                break;
            }
            at = fetched.next;
        }
        Ok(())
    }

    fn batches(&self, dir: &str, source: &Segment, mut each: impl FnMut(Batch, &str) -> Result<(), LogError>) -> Result<(), LogError> {
        let path = source.path(dir);
        // A handle of its own: a long read must not push others out.
        let file = self.shared.disk.open(&path, false).map_err(LogError::io(format!("open {path}")))?;
        let stored = Stored { file: file.as_ref(), path: &path, segment: source };
        stored.batches(|_, batch| {
            self.must_stop()?;
            each(batch, &path)
        })
    }

    /// The second pass over a run of segments that go into one. `None` where they stay as they are.
    fn rewrite(&self, dir: &str, old: &[Segment], terms: &Terms<'_>, walk: &mut Walk) -> Result<Option<Made>, LogError> {
        let (Some(first), Some(last)) = (old.first(), old.last()) else { return Ok(None) };
        let version = old.iter().map(|s| s.version).max().unwrap_or(0) + 1;
        let named = Segment { next: last.next, version, ..Segment::new(first.base) };
        let mut writer = Writer {
            shared: &self.shared,
            dir,
            stem: named.stem(dir),
            segment: Segment::new(first.base),
            file: None,
            waiting: Vec::new(),
            bytes: 0,
        };
        let written = self.write_left(dir, old, terms, walk, &mut writer).and_then(|()| writer.finish());
        let segment = match written {
            Ok(Some(segment)) => segment,
            Ok(None) => return Ok(None),
            Err(error) => {
                discard(self.shared.disk.as_ref(), &writer.stem);
                return Err(error);
            }
        };
        let new = Segment {
            next: last.next,
            version,
            first_received: old.iter().map(|s| s.first_received).min().unwrap_or(i64::MAX),
            last_received: old.iter().map(|s| s.last_received).max().unwrap_or(i64::MIN),
            flushed: segment.length,
            dirty: false,
            index: None,
            ..segment
        };
        Ok(Some(Made { old: old.to_vec(), new }))
    }

    fn write_left(&self, dir: &str, old: &[Segment], terms: &Terms<'_>, walk: &mut Walk, writer: &mut Writer<'_>) -> Result<(), LogError> {
        // A segment of which everything stays keeps its file: it is written anew from the first difference on.
        if old.len() > 1 {
            writer.begin(old)?;
        }
        for source in old {
            self.batches(dir, source, |batch, place| match terms.judge(&batch, walk).map_err(LogError::batch(place.to_owned()))? {
                Left::Same => writer.take(batch),
                Left::Other(batch) => writer.differs(old).and_then(|()| writer.take(batch)),
                Left::Nothing => writer.differs(old),
            })?;
        }
        Ok(())
    }

    /// Puts the new files in the place of the old ones, all of them in one moment, or none. Answers whether it did.
    fn swap(&self, made: &[Made], clean_to: Offset) -> bool {
        let Some(me) = self.me() else { return false };
        let mut cache = self.shared.cache.lock();
        let mut inner = self.inner.lock();
        if self.is_removed() {
            return false;
        }
        let mut segments = inner.segments.clone();
        let (mut gone, mut unused) = (Vec::new(), Vec::new());
        let dir = inner.dir.clone().unwrap_or_default();
        for Made { old, new } in made {
            let at = segments.iter().position(|here| here.is_file_of(&old[0]));
            match at.and_then(|at| Some((at, segments.get(at..at + old.len())?))) {
                Some((at, there)) if there.iter().zip(old).all(|(here, old)| here.is_file_of(old) && here.length == old.length) => {
                    gone.extend(old.iter().map(|s| (dir.clone(), s.clone())));
                    segments.splice(at..at + old.len(), [new.clone()]);
                }
                // Its records were all deleted meanwhile.
                _ if old.iter().all(|old| !segments.iter().any(|here| here.is_file_of(old))) => unused.push(new.stem(&dir)),
                // Some were: what is left of them would bring back what the others had taken away.
                _ => return false,
            }
        }
        let size = |segments: &[Segment]| segments.iter().map(|s| s.length).sum::<u64>();
        let (before, after) = (size(&inner.segments), size(&segments));
        if after > before {
            self.grow(after - before);
        } else {
            self.shrink(before - after);
        }
        inner.segments = segments;
        inner.clean_to = inner.clean_to.max(clean_to);
        // Readers get what is left, not what is still in memory of before.
        let written = inner.tail.len() - inner.unwritten;
        let stale = inner.tail.iter().take(written).take_while(|t| t.batch.next_offset() <= clean_to).count();
        inner.tail.drain(..stale);
        cache.forget_first(&me, stale);
        drop(inner);
        drop(cache);
        unused.iter().for_each(|stem| discard(self.shared.disk.as_ref(), stem));
        let has_gone = !gone.is_empty();
        self.shared.replaced.lock().extend(gone);
        // Also where nothing was replaced: how far the log is clean is worth remembering, but not worth a checkpoint.
        if has_gone {
            self.shared.work.lock().cut = true;
            self.shared.work_wake.notify_one();
        }
        true
    }
}

/// The closed segments that may be compacted, and where the new part of them begins.
fn compactable<'a>(inner: &'a Inner, now: Timestamp, rules: &CompactionRules) -> (&'a [Segment], Offset) {
    let closed = &inner.segments[..inner.segments.len().saturating_sub(1)];
    let is_old_enough = |s: &Segment| rules.min_lag_ms <= 0 || s.last_received <= now.0.saturating_sub(rules.min_lag_ms);
    let count = closed.iter().take_while(|s| s.next <= rules.upper && is_old_enough(s)).count();
    (&closed[..count], inner.clean_to.max(inner.start))
}

fn is_worth_it(sources: &[Segment], from: Offset, now: Timestamp, rules: &CompactionRules) -> bool {
    let (clean, new) = sources.split_at(sources.partition_point(|s| s.next <= from));
    let bytes = |segments: &[Segment]| segments.iter().map(|s| s.length).sum::<u64>();
    let (clean_bytes, new_bytes) = (bytes(clean), bytes(new));
    if new_bytes == 0 {
        return false;
    }
    let is_late = new.iter().any(|s| now.0.saturating_sub(s.first_received) > rules.max_lag_ms);
    is_late || new_bytes as f64 / (clean_bytes + new_bytes) as f64 > rules.min_dirty_ratio
}

/// Cuts a run of segments into runs that each fit into one.
fn groups(sources: &[Segment], segment_bytes: u64) -> Vec<&[Segment]> {
    let mut all = Vec::new();
    let mut rest = sources;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|s| {
            bytes += s.length;
            // An index counts offsets and places in four bytes.
            bytes <= segment_bytes && s.next.0 - first.base.0 <= i64::from(i32::MAX)
        });
        let count = fitting.count().max(1);
        let (group, behind) = rest.split_at(count);
        all.push(group);
        rest = behind;
    }
    all
}

/// What is left, on its way into a file of its own.
struct Writer<'a> {
    shared: &'a Arc<Shared>,
    dir: &'a str,
    /// The path of the file to be, without its ending.
    stem: String,
    segment: Segment,
    /// There from the first difference on.
    file: Option<Arc<dyn DiskFile>>,
    waiting: Vec<Batch>,
    bytes: usize,
}

impl Writer<'_> {
    fn unfinished(&self) -> String {
        format!("{}.{UNFINISHED}", self.stem)
    }

    fn begin(&mut self, old: &[Segment]) -> Result<(), LogError> {
        let bytes: u64 = old.iter().map(|s| s.length).sum();
        let disk = self.shared.disk.as_ref();
        let state = self.shared.guard.state(disk);
        let needed = state.needed_bytes.saturating_add(bytes);
        if state.ran_out || state.free_bytes < needed {
            return Err(LogError::DiskFull { free: state.free_bytes, needed });
        }
        let path = self.unfinished();
        let file = disk.open(&path, true).map_err(LogError::io(format!("make {path}")))?;
        file.truncate(0).map_err(LogError::io(format!("make {path}")))?;
        self.file = Some(file);
        Ok(())
    }

    /// From here on the new file is not the old one: what was passed over goes into it first.
    fn differs(&mut self, old: &[Segment]) -> Result<(), LogError> {
        if self.file.is_some() {
            return Ok(());
        }
        self.begin(old)?;
        let path = old[0].path(self.dir);
        let from = self.shared.disk.open(&path, false).map_err(LogError::io(format!("open {path}")))?;
        let mut at = 0;
        while at < self.segment.length {
            let mut bytes = vec![0; (self.segment.length - at).min(WRITE_BYTES as u64) as usize];
            let got = from.read_at(&mut bytes, at).map_err(LogError::io(format!("read {path}")))?;
            if got < bytes.len() {
                return Err(LogError::Corrupt { place: format!("{path} at {at}"), why: "it was longer a moment ago".to_owned() });
            }
            self.write(&[IoSlice::new(&bytes)], at)?;
            at += got as u64;
        }
        Ok(())
    }

    fn write(&self, pieces: &[IoSlice<'_>], at: u64) -> Result<(), LogError> {
        let Some(file) = &self.file else { return Ok(()) };
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        file.write_at(pieces, at).map_err(LogError::io(format!("write {}", self.unfinished())))?;
        // Little by little, so that the syncs of the WAL do not queue behind a heap.
        file.flush_soon(at, bytes.max(1) as u64);
        Ok(())
    }

    fn take(&mut self, batch: Batch) -> Result<(), LogError> {
        self.segment.grew(Head::of(&batch), 0);
        if self.file.is_none() {
            return Ok(());
        }
        self.bytes += batch.len_bytes();
        self.waiting.push(batch);
        if self.bytes >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let waiting = std::mem::take(&mut self.waiting);
        let pieces: Vec<IoSlice<'_>> = waiting.iter().flat_map(Batch::chunks).map(IoSlice::new).collect();
        let at = self.segment.length - std::mem::take(&mut self.bytes) as u64;
        if pieces.is_empty() { Ok(()) } else { self.write(&pieces, at) }
    }

    /// Makes it safe and gives it its name. `None` where nothing differed.
    fn finish(&mut self) -> Result<Option<Segment>, LogError> {
        self.flush()?;
        let Some(file) = self.file.take() else { return Ok(None) };
        let (unfinished, path) = (self.unfinished(), format!("{}.log", self.stem));
        let disk = self.shared.disk.as_ref();
        sync(self.shared, &unfinished, file.sync())?;
        self.shared.files.forget(&path);
        disk.rename(&unfinished, &path).map_err(LogError::io(format!("make {path}")))?;
        if let Some(index) = self.segment.index.take()
            && let Err(error) = index.save(disk, &self.stem)
        {
            tracing::debug!(stem = self.stem, %error, "an index was not written; it will be made again");
        }
        Ok(Some(self.segment.clone()))
    }
}

/// What a sync came to. One that failed is final for the log, although these files could be made again: the system tells of a lost write
/// once, and whoever syncs the same folder next would hear that all is well.
fn sync(shared: &Shared, what: &str, synced: std::io::Result<()>) -> Result<(), LogError> {
    match synced.map_err(Trouble::of_sync(format!("sync {what}"))) {
        Ok(()) => Ok(()),
        Err(Trouble::NoRoom(error)) => Err(error),
        Err(Trouble::Final(error)) => {
            shared.fail(error.to_string());
            Err(error)
        }
    }
}

/// Deletes a file that nobody came to use. If that fails, the next start does.
fn discard(disk: &dyn Disk, stem: &str) {
    let unfinished = disk.remove_file(&format!("{stem}.{UNFINISHED}")).map_err(LogError::io("delete an unfinished file"));
    if let Err(error) = unfinished.and_then(|()| delete_files(disk, stem)) {
        tracing::debug!(stem, %error, "a file that was not used stays until the next start");
    }
}
