//! What may be kept, and what goes: whole segments from the front, by age and by size.
//!
//! Age counts from when records were received, not from their timestamps: a recording of last year that is
//! replayed today is not deleted tomorrow, and a clock in the future keeps nothing for ever. What the node's clock was set
//! forward by while it ran is nobody's age ([`Ages`]). A pin (a running query that still needs its input) stops both.

use super::LogError;
use super::materialise::roll;
use super::partition::PartitionLog;
use super::segment::Segment;
use crate::record::Offset;
use crate::time::Ages;

/// What may be kept of one partition. The default keeps everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionLimits {
    /// For how long, in milliseconds since a record was received.
    pub retention_ms: Option<i64>,
    /// How many bytes.
    pub retention_bytes: Option<u64>,
    /// From here on somebody still needs it.
    pub pin: Option<Offset>,
}

/// How many of the segments may go, from the front. The last one stays: it is written to.
pub(super) fn expired(segments: &[Segment], ages: &Ages, limits: &RetentionLimits) -> usize {
    let closed = &segments[..segments.len().saturating_sub(1)];
    let mut bytes: u64 = segments.iter().map(|s| s.length).sum();
    let mut gone = 0;
    for segment in closed {
        let pinned = limits.pin.is_some_and(|pin| segment.next > pin);
        let old = limits.retention_ms.is_some_and(|ms| ages.of(segment.last_received) > ms);
        // Kafka's rule: a segment goes while what is left is still at least the limit.
        let much = limits.retention_bytes.is_some_and(|most| bytes.saturating_sub(segment.length) >= most);
        if pinned || !(old || much) {
            break;
        }
        bytes -= segment.length;
        gone += 1;
    }
    gone
}

/// Whether the last segment must be closed so that what is in it can go in time.
pub(super) fn must_roll(last: &Segment, segment_ms: i64, ages: &Ages, limits: &RetentionLimits) -> bool {
    let age = ages.of(last.first_received);
    let idle = ages.of(last.last_received);
    last.length > 0 && (age > segment_ms || limits.retention_ms.is_some_and(|ms| idle > ms))
}

impl PartitionLog {
    /// Applies the limits; answers how many bytes went.
    pub(super) fn enforce(&self, ages: &Ages, limits: &RetentionLimits) -> Result<u64, LogError> {
        let mut inner = self.inner.lock();
        let segment_ms = inner.config.segment_ms;
        if inner.unwritten > 0 {
            // What is only in memory and the WAL has an age too: into a segment with it, which the next round can close.
            let received = inner.tail[inner.tail.len() - inner.unwritten].received;
            let age = ages.of(received.0);
            if age > segment_ms || limits.retention_ms.is_some_and(|ms| age > ms) {
                self.shared.work.lock().urgent = true;
                self.shared.work_wake.notify_one();
            }
        } else if let Some(last) = inner.segments.last().filter(|last| must_roll(last, segment_ms, ages, limits)) {
            // Not the end that is visible: what is behind it may be in the segment already.
            let next = last.next.max(inner.start);
            let closed = roll(&mut inner, next);
            drop(inner);
            closed.save(self.shared.disk.as_ref());
            inner = self.inner.lock();
        }
        let gone = expired(&inner.segments, ages, limits);
        if gone == 0 {
            return Ok(0);
        }
        let to = inner.segments[gone].base;
        drop(inner);
        let before = self.size_bytes();
        let moved = self.advance_start(to);
        match moved {
            // Deleted while we looked.
            Err(_) if self.is_removed() => Ok(0),
            other => other.map(|()| before.saturating_sub(self.size_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn segment(base: i64, length: u64, received: i64) -> Segment {
        Segment { next: Offset(base + 10), length, first_received: received, last_received: received, ..Segment::new(Offset(base)) }
    }

    #[test]
    fn age_and_size_take_whole_segments_from_the_front_and_a_pin_stops_them() {
        let segments = [segment(0, 100, 0), segment(10, 100, 50), segment(20, 100, 90)];
        let gone = |ms, bytes, pin: Option<i64>| {
            let limits = RetentionLimits { retention_ms: ms, retention_bytes: bytes, pin: pin.map(Offset) };
            expired(&segments, &Ages::at(Timestamp(100)), &limits)
        };
        assert_eq!(gone(None, None, None), 0);
        assert_eq!(gone(Some(99), None, None), 1);
        assert_eq!(gone(Some(0), None, None), 2, "the last one stays");
        assert_eq!(gone(None, Some(200), None), 1);
        assert_eq!(gone(None, Some(201), None), 0);
        assert_eq!(gone(Some(0), None, Some(15)), 1, "needed from 15 on");
    }

    #[test]
    fn a_clock_that_is_set_forward_by_hours_deletes_nothing_before_its_time() {
        const HOUR: i64 = 3_600_000;
        let mut ages = Ages::default();
        ages.look(Timestamp(HOUR), Timestamp(HOUR));
        ages.look(Timestamp(9 * HOUR), Timestamp(2 * HOUR));
        let segments = [segment(0, 100, 0), segment(10, 100, HOUR), segment(20, 100, 9 * HOUR), segment(30, 100, 9 * HOUR)];
        let gone = |ages: &Ages, ms| expired(&segments, ages, &RetentionLimits { retention_ms: Some(ms), ..RetentionLimits::default() });
        assert_eq!((gone(&Ages::at(Timestamp(9 * HOUR)), 2 * HOUR), gone(&ages, 2 * HOUR), gone(&ages, 2 * HOUR - 1)), (2, 0, 1));
        assert_eq!((must_roll(&segments[1], HOUR, &ages, &RetentionLimits::default()), gone(&ages, -1)), (false, 3));
        // What came after it grows old as ever.
        ages.look(Timestamp(11 * HOUR), Timestamp(4 * HOUR));
        assert_eq!(gone(&ages, HOUR), 3);
    }
}
