//! Finding records by their time.
//!
//! The answer is exact, as Kafka's is: the first record whose timestamp is at or after the one asked for. The sparse index says
//! where to begin, the batches' heads which batch, and only that one is unpacked.

use std::ops::ControlFlow;

use super::LogError;
use super::partition::PartitionLog;
use super::segment::{Segment, Stored};
use crate::record::{Batch, Offset};

impl PartitionLog {
    /// The first visible record whose timestamp is at or after `timestamp`, and that timestamp. May read from the disk.
    pub fn offset_at(&self, timestamp: i64) -> Result<Option<(Offset, i64)>, LogError> {
        let (dir, segments, tail, start, visible) = {
            let inner = self.inner.lock();
            let visible = self.durable_end();
            let may_have = |s: &&Segment| s.length > 0 && s.max_timestamp >= timestamp && s.next > inner.start;
            let segments: Vec<Segment> = inner.segments.iter().filter(may_have).cloned().collect();
            let unwritten = inner.tail.iter().skip(inner.tail.len() - inner.unwritten);
            let tail: Vec<Batch> =
                unwritten.map(|t| t.batch.clone()).filter(|b| b.max_timestamp() >= timestamp && b.next_offset() <= visible).collect();
            (inner.dir.clone().unwrap_or_default(), segments, tail, inner.start, visible)
        };
        for segment in &segments {
            match self.segment_at(&dir, segment, timestamp, start) {
                Ok(None) => {}
                // Retention was quicker: what is asked for lies behind.
                Err(_) if self.start() >= segment.next => {}
                // Compaction was: what took its place has the same.
                Err(_) if self.is_replaced(segment) => return self.offset_at(timestamp),
                // What is durable and not yet visible is nobody's to see.
                other => return other.map(|found| found.filter(|(offset, _)| *offset < visible)),
            }
        }
        for batch in &tail {
            if let Some(found) = first_at(batch, timestamp, start, "a batch in memory")? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn segment_at(&self, dir: &str, segment: &Segment, timestamp: i64, start: Offset) -> Result<Option<(Offset, i64)>, LogError> {
        let path = segment.path(dir);
        let file = self.shared.files.open(self.shared.disk.as_ref(), &path, false).map_err(LogError::io(format!("open {path}")))?;
        let stored = Stored { file: file.as_ref(), path: &path, segment };
        let mut from = self.index_of(dir, segment, true)?.before_time(segment.base, timestamp);
        if from.pos > 0 {
            let mut leads_there = false;
            let looked = stored.heads(from.pos, |_, head| {
                leads_there = head.first == from.first;
                ControlFlow::Break(())
            });
            if looked.is_err() || !leads_there {
                from = self.index_of(dir, segment, false)?.before_time(segment.base, timestamp);
            }
        }
        let mut pos = from.pos;
        let mut reached = false;
        loop {
            let mut hit = None;
            stored.heads(pos, |at, head| {
                reached |= head.max_timestamp >= timestamp;
                if head.max_timestamp < timestamp || head.next <= start {
                    return ControlFlow::Continue(());
                }
                hit = Some((at, head));
                ControlFlow::Break(())
            })?;
            let Some((at, head)) = hit else {
                // One of them did when they were written.
                return if reached { Ok(None) } else { Err(stored.misses_time(timestamp)) };
            };
            if !segment.has_place_for(head.first.max(segment.base), head) {
                return Err(stored.foreign(at, head));
            }
            if let Some(found) = first_at(&stored.batch(at, head.length)?, timestamp, start, &path)? {
                return Ok(Some(found));
            }
            // Its head promised more than it holds.
            pos = at + head.length;
        }
    }

    /// The record with the largest timestamp (the first such), and that timestamp. May read from the disk.
    pub fn max_timestamp(&self) -> Result<Option<(Offset, i64)>, LogError> {
        let largest = {
            let inner = self.inner.lock();
            let visible = self.durable_end();
            let stored = inner.segments.iter().filter(|s| s.length > 0 && s.next > inner.start).map(|s| s.max_timestamp).max();
            let memory = inner.tail.iter().filter(|t| t.batch.next_offset() <= visible).map(|t| t.batch.max_timestamp()).max();
            stored.max(memory)
        };
        match largest {
            Some(at) => match self.offset_at(at)? {
                None => self.largest_behind_start(),
                found => Ok(found),
            },
            None => Ok(None),
        }
    }

    /// The largest timestamp where the largest of a segment lies below the start: record by record, which is rare.
    fn largest_behind_start(&self) -> Result<Option<(Offset, i64)>, LogError> {
        let mut largest: Option<(Offset, i64)> = None;
        let mut at = self.start();
        while at < self.durable_end() {
            let fetched = self.read(at, 1 << 20)?;
            for batch in fetched.batches() {
                let corrupt = || LogError::batch(format!("a batch of {}", self.key().topic));
                let batch = batch.map_err(corrupt())?;
                let records = batch.records().map_err(corrupt())?;
                for record in records.iter() {
                    let record = record.map_err(corrupt())?;
                    if record.offset >= at && largest.is_none_or(|(_, timestamp)| record.timestamp > timestamp) {
                        largest = Some((record.offset, record.timestamp));
                    }
                }
            }
            if fetched.next <= at {
                break;
            }
            at = fetched.next;
        }
        Ok(largest)
    }
}

/// The first record of a batch at or after a time, at or behind `start`.
fn first_at(batch: &Batch, timestamp: i64, start: Offset, place: &str) -> Result<Option<(Offset, i64)>, LogError> {
    if batch.max_timestamp() < timestamp || batch.next_offset() <= start {
        return Ok(None);
    }
    let records = batch.records().map_err(LogError::batch(place.to_owned()))?;
    for record in records.iter() {
        let record = record.map_err(LogError::batch(place.to_owned()))?;
        if record.timestamp >= timestamp && record.offset >= start {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}
