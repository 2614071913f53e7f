//! Who reads a partition, and which of its decoded chunks are kept for whom: [`Company`].
//!
//! Queries that have much to read go through it together, so that one decodes a chunk and all take it: who would run ahead waits for
//! those close behind. Nobody waits where little lies ready, nor for one who stands still or is far behind. Always: a chunk that is
//! kept is let go of before another that is needed sooner.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Chunk;
use crate::record::Offset;

/// How many decoded chunks are kept.
const KEPT_CHUNKS: usize = 4;
/// Who is further behind than this many bytes of the log is not waited for.
const NEAR_BYTES: f64 = 67_108_864.0;
/// Who has not moved for this long stands still.
const STILL: Duration = Duration::from_millis(200);

/// The kept chunks of a partition and its followers.
#[derive(Default)]
pub(super) struct Company {
    chunks: Vec<Arc<Chunk>>,
    followers: BTreeMap<u64, Place>,
    next_number: u64,
    /// About how many bytes a record takes.
    record_bytes: f64,
}

/// Where a follower stands.
struct Place {
    /// The offset that it asks for next.
    wants: Offset,
    /// When it asked last.
    moved: Instant,
    /// Whether much lies ready behind what it was given last.
    is_behind: bool,
    /// Whether it waits for others.
    waits: bool,
}

impl Place {
    /// Whether it goes on reading, or would.
    fn goes_on(&self, now: Instant) -> bool {
        self.is_behind && (self.waits || now.duration_since(self.moved) < STILL)
    }
}

impl Company {
    /// A new follower's number.
    pub(super) fn join(&mut self, now: Instant) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        // It is nowhere before it has asked for something.
        let place = Place { wants: Offset(i64::MAX), moved: now, is_behind: true, waits: false };
        self.followers.insert(number, place);
        number
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.followers.remove(&number);
    }

    /// A follower asks for an offset.
    pub(super) fn asks(&mut self, number: u64, from: Offset, now: Instant) {
        if let Some(place) = self.followers.get_mut(&number) {
            (place.wants, place.moved) = (from, now);
        }
    }

    /// A follower has been given a chunk, or learnt that there is none.
    pub(super) fn given(&mut self, number: u64, chunk: Option<&Chunk>, now: Instant) {
        if let Some(place) = self.followers.get_mut(&number) {
            (place.moved, place.waits) = (now, false);
            place.is_behind = chunk.is_some_and(Chunk::is_full);
            place.wants = chunk.map_or(place.wants, |chunk| chunk.next);
        }
    }

    /// The kept chunk that holds an offset.
    pub(super) fn find(&self, from: Offset) -> Option<&Arc<Chunk>> {
        self.chunks.iter().rev().find(|chunk| chunk.from <= from && from < chunk.next)
    }

    /// How many kept chunks lie behind one.
    pub(super) fn behind(&self, chunk: &Chunk) -> usize {
        self.chunks.iter().filter(|later| later.from > chunk.from).count()
    }

    /// Whether a follower who would have `from` decoded had better wait: somebody close behind it has to decode what lies between, or
    /// needs all the chunks there are room for. It is noted as waiting, or not.
    pub(super) fn waits(&mut self, number: u64, from: Offset, now: Instant) -> bool {
        let waits = self.find(from).is_none() && self.must_wait(number, from, now);
        if let Some(place) = self.followers.get_mut(&number) {
            place.waits = waits;
        }
        waits
    }

    fn must_wait(&self, number: u64, from: Offset, now: Instant) -> bool {
        if !self.followers.get(&number).is_some_and(|place| place.is_behind) {
            return false;
        }
        let near = |place: &Place| place.wants < from && (from.0 - place.wants.0) as f64 * self.record_bytes <= NEAR_BYTES;
        let others = self.followers.iter().filter(|(other, place)| **other != number && near(place) && place.goes_on(now));
        let others: Vec<&Place> = others.map(|(_, place)| place).collect();
        let needed = || self.chunks.iter().filter(|chunk| others.iter().any(|place| place.wants < chunk.next)).count();
        others.iter().any(|place| self.find(place.wants).is_none()) || (!others.is_empty() && needed() >= KEPT_CHUNKS)
    }

    /// Keeps a chunk, for which the one that is needed last goes.
    pub(super) fn keep(&mut self, chunk: &Arc<Chunk>, now: Instant) {
        let records = (chunk.next.0 - chunk.from.0).max(1);
        self.record_bytes = chunk.raw_bytes() as f64 / records as f64;
        if self.chunks.len() == KEPT_CHUNKS {
            let last = (0..KEPT_CHUNKS).max_by_key(|at| (self.until_needed(&self.chunks[*at], now), Reverse(*at)));
            last.map(|at| self.chunks.remove(at));
        }
        self.chunks.push(Arc::clone(chunk));
    }

    /// How many records the next who needs a chunk has to read before it.
    fn until_needed(&self, chunk: &Chunk, now: Instant) -> i64 {
        let before = self.followers.values().filter(|place| place.wants < chunk.next && place.goes_on(now));
        before.map(|place| (chunk.from.0 - place.wants.0).max(0)).min().unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use arrow::array::RecordBatch;
    use arrow::buffer::ScalarBuffer;
    use arrow::datatypes::Schema;

    use super::*;
    use crate::record::BatchBuilder;

    /// A chunk of a hundred offsets and a megabyte, or of little.
    fn chunk(number: i64, is_full: bool) -> Arc<Chunk> {
        let mut records = BatchBuilder::new();
        let value = vec![b'x'; if is_full { 1 << 20 } else { 10 }];
        records.push(0, None, Some(&value), &[]);
        let (from, next) = (Offset(number * 100), Offset(number * 100 + 100));
        let raw = vec![records.finish()];
        let rows = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let offsets = ScalarBuffer::from(Vec::new());
        Arc::new(Chunk { from, next, rows, offsets, bad: Vec::new(), tombstones: Vec::new(), raw, stamped: OnceLock::new() })
    }

    /// A company whose followers, one a task, have been given these chunks last, which are kept no longer.
    fn company(given: &[i64], now: Instant) -> (Company, Vec<u64>) {
        let mut company = Company { record_bytes: 10_000.0, ..Company::default() };
        let numbers = given.iter().map(|last| {
            let number = company.join(now);
            company.given(number, Some(&chunk(*last, true)), now);
            number
        });
        let numbers = numbers.collect();
        (company, numbers)
    }

    #[test]
    fn who_is_ahead_waits_for_those_close_behind_who_have_to_decode() {
        let now = Instant::now();
        let (mut company, of) = company(&[3, 1], now);
        assert!(company.waits(of[0], Offset(400), now));
        assert!(!company.waits(of[1], Offset(200), now), "who is last goes on");
        // It has come.
        company.keep(&chunk(2, true), now);
        company.keep(&chunk(3, true), now);
        company.given(of[1], Some(&chunk(3, true)), now);
        assert!(!company.waits(of[0], Offset(400), now));
    }

    #[test]
    fn nobody_waits_at_the_end_nor_for_who_is_there_or_stands_still_or_far_behind() {
        let now = Instant::now();
        let waits = |last: i64, change: &dyn Fn(&mut Company, u64, u64) -> Instant| {
            let (mut company, of) = company(&[last, 1], now);
            let at = change(&mut company, of[0], of[1]);
            company.waits(of[0], Offset(last * 100 + 100), at)
        };
        assert!(waits(3, &|_, _, _| now));
        assert!(waits(60, &|_, _, _| now));
        assert!(!waits(90, &|_, _, _| now), "90 MB ahead");
        assert!(!waits(3, &|_, _, _| now + STILL), "the other stands still");
        assert!(!waits(3, &|company, _, last| {
            company.leave(last);
            now
        }));
        assert!(!waits(3, &|company, first, _| {
            company.given(first, Some(&chunk(3, false)), now);
            now
        }));
        assert!(!waits(3, &|company, _, last| {
            company.given(last, Some(&chunk(1, false)), now);
            now
        }));
    }

    #[test]
    fn who_waits_for_one_behind_it_is_waited_for_however_long() {
        let now = Instant::now();
        let (mut company, of) = company(&[5, 3, 1], now);
        assert!(company.waits(of[1], Offset(400), now));
        let later = now + STILL;
        company.asks(of[2], Offset(200), later);
        assert!(company.waits(of[1], Offset(400), later));
        assert!(company.waits(of[0], Offset(600), later));
    }

    #[test]
    fn as_many_chunks_are_decoded_ahead_of_the_last_as_are_kept() {
        let now = Instant::now();
        let (mut company, of) = company(&[0, 0], now);
        let mut ahead = 0;
        for number in 1.. {
            if company.waits(of[0], Offset(number * 100), now) {
                break;
            }
            company.keep(&chunk(number, true), now);
            company.given(of[0], Some(&chunk(number, true)), now);
            ahead += 1;
        }
        assert_eq!(ahead, KEPT_CHUNKS);
        assert!((1..=4).all(|number| company.find(Offset(number * 100)).is_some()), "the last finds all of them");
        company.given(of[1], Some(&chunk(1, true)), now);
        assert!(!company.waits(of[0], Offset(500), now), "one is needed no longer");
    }

    #[test]
    fn the_chunk_that_is_needed_last_goes() {
        let now = Instant::now();
        let (mut company, of) = company(&[9, 0], now);
        for number in [10, 1, 2, 3] {
            company.keep(&chunk(number, true), now);
        }
        company.given(of[0], Some(&chunk(10, true)), now);
        // Of these, one who has it all before it needs chunk 10 last.
        company.keep(&chunk(4, true), now);
        assert!(company.find(Offset(1000)).is_none());
        company.given(of[1], Some(&chunk(1, true)), now);
        company.keep(&chunk(5, true), now);
        assert!(company.find(Offset(100)).is_none(), "nobody needs it");
        assert!((2..=5).all(|number| company.find(Offset(number * 100)).is_some()));
    }
}
