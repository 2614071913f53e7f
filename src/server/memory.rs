//! Memory for requests that are being read or served, and for answers that wait to be read: a budget each for all
//! connections, counted as bytes arrive.
//!
//! Always: what is held never exceeds the budget, and a claimed length takes nothing; of the budget, one whole frame is set
//! aside as a lane in which one request at a time is read to its end when there is nothing else left, so that half-sent
//! requests, however many, neither stop each other for good nor anyone else. Who sends too slowly for what it holds is let
//! go, the sooner where others wait; who reads too slowly, only then ([`Pace`]). Called by `connection`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::frame::MAX_FRAME;

/// A request up to this size is not counted: all connections together may hold so much each.
pub(super) const SMALL_REQUEST: usize = 16 << 10;
/// A request of which no byte comes for so long is given up.
const STALLED: Duration = Duration::from_secs(30);
/// From then on a request is judged by its rate.
const GRACE: Duration = Duration::from_secs(60);
/// The least rate, in bytes a second.
const SLOWEST: u64 = 50 << 10;
/// The same where others wait for memory.
const PRESSED_GRACE: Duration = Duration::from_secs(2);
const PRESSED_SLOWEST: u64 = 256 << 10;

/// What all connections share.
pub(super) struct Memory {
    /// In KiB.
    pool: Arc<Semaphore>,
    /// The frame that is set aside.
    lane: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// What one request holds until it is served.
pub(super) struct Held {
    of: Arc<Memory>,
    pool: Option<OwnedSemaphorePermit>,
    lane: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// A budget of so many bytes; less than one frame is taken for one frame.
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        let kib = (bytes.saturating_sub(MAX_FRAME) >> 10).min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Arc::new(Self { pool: Arc::new(Semaphore::new(kib)), lane: Arc::new(Semaphore::new(1)), waiting: AtomicUsize::new(0) })
    }

    /// A request that holds nothing yet.
    pub(super) fn hold(self: &Arc<Self>) -> Held {
        Held { of: Arc::clone(self), pool: None, lane: None }
    }

    /// Whether someone waits for memory.
    pub(super) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Counts a request that waits, however the wait ends.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Held {
    /// Waits until the request may hold so many bytes more. In all they are no more than one frame.
    pub(super) async fn grow(&mut self, bytes: usize) {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        if self.lane.is_some() || kib == 0 {
            return;
        }
        let pool = &self.of.pool;
        let got = match Arc::clone(pool).try_acquire_many_owned(kib) {
            Ok(got) => got,
            Err(_) => {
                self.of.waiting.fetch_add(1, Ordering::Relaxed);
                let _waiting = Waiting(&self.of.waiting);
                tokio::select! {
                    biased;
                    got = Arc::clone(pool).acquire_many_owned(kib) => got.expect("the pool is never closed"),
                    lane = Arc::clone(&self.of.lane).acquire_owned() => {
                        self.lane = Some(lane.expect("the lane is never closed"));
                        // The lane is as wide as a frame: what was held besides is for others.
                        self.pool = None;
                        return;
                    }
                }
            }
        };
        match &mut self.pool {
            Some(held) => held.merge(got),
            none => *none = Some(got),
        }
    }
}

/// How fast a request comes in. Time in which it waited for memory does not count against it.
pub(super) struct Pace {
    reading: Duration,
    since: Instant,
    last_byte: Instant,
}

impl Pace {
    pub(super) const fn new(now: Instant) -> Self {
        Self { reading: Duration::ZERO, since: now, last_byte: now }
    }

    /// Bytes have come.
    pub(super) const fn heard(&mut self, now: Instant) {
        self.last_byte = now;
    }

    /// The request waits for memory from now on.
    pub(super) fn pause(&mut self, now: Instant) {
        self.reading += now.saturating_duration_since(self.since);
    }

    /// It has its memory.
    pub(super) const fn resume(&mut self, now: Instant) {
        self.since = now;
        self.last_byte = now;
    }

    /// Why a request of which so many bytes have come is given up, if it is. `short` says that others wait for memory.
    pub(super) fn verdict(&self, received: usize, now: Instant, short: bool) -> Option<&'static str> {
        if now.saturating_duration_since(self.last_byte) >= STALLED {
            return Some("the rest of a request did not come");
        }
        if self.is_below(received, now, GRACE, SLOWEST) {
            return Some("a request came too slowly");
        }
        (short && self.is_in_the_way(received, now)).then_some("a request came too slowly, and others waited for memory")
    }

    /// Whether something of which so many bytes have moved holds memory for too long, where others wait for it.
    pub(super) fn is_in_the_way(&self, moved: usize, now: Instant) -> bool {
        self.is_below(moved, now, PRESSED_GRACE, PRESSED_SLOWEST)
    }

    fn is_below(&self, moved: usize, now: Instant, grace: Duration, rate: u64) -> bool {
        let took = self.reading + now.saturating_duration_since(self.since);
        took >= grace && (moved as u128) < u128::from(rate) * took.as_millis() / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn half_sent_requests_take_the_pool_and_the_next_ones_pass_one_at_a_time() {
        let memory = Memory::new(MAX_FRAME + 10 * MIB);
        let mut half = memory.hold();
        half.grow(10 * MIB).await;
        assert!(!memory.is_short());
        let (mut second, mut third) = (memory.hold(), memory.hold());
        second.grow(MIB).await;
        second.grow(50 * MIB).await;
        {
            let third_waits = third.grow(MIB);
            tokio::pin!(third_waits);
            assert!(futures::poll!(&mut third_waits).is_pending() && memory.is_short());
            drop(second);
            third_waits.await;
        }
        assert!(!memory.is_short());
        // The pool is free again, and the lane too.
        drop((half, third));
        assert_eq!((memory.pool.available_permits(), memory.lane.available_permits()), (10 << 10, 1));
    }

    #[tokio::test]
    async fn many_that_hold_half_each_all_come_to_their_end() {
        let memory = Memory::new(MAX_FRAME + 20 * MIB);
        let mut all = Vec::new();
        for _ in 0..20 {
            let mut held = memory.hold();
            held.grow(MIB).await;
            all.push(held);
        }
        let ends = all.into_iter().map(|mut held| async move { held.grow(MIB).await });
        futures::future::join_all(ends).await;
        assert_eq!((memory.pool.available_permits(), memory.is_short()), (20 << 10, false));
    }

    #[tokio::test]
    async fn whoever_leaves_while_it_waits_waits_no_more() {
        let memory = Memory::new(MAX_FRAME);
        let (mut first, mut second) = (memory.hold(), memory.hold());
        first.grow(1).await;
        {
            let waits = second.grow(1);
            tokio::pin!(waits);
            assert!(futures::poll!(&mut waits).is_pending() && memory.is_short());
        }
        assert!(!memory.is_short());
        drop(first);
        second.grow(1).await;
    }

    #[test]
    fn who_sends_slowly_is_let_go_and_the_sooner_where_others_wait() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        for (received, last_byte, now, short, given_up) in [
            (0, 0, 29, false, false),
            (100 * MIB, 0, 30, false, true),
            (50 << 10, 59, 59, false, false),
            ((50 * 60) << 10, 60, 60, false, false),
            ((49 * 60) << 10, 60, 60, false, true),
            (1, 1, 1, true, false),
            (1, 2, 2, true, true),
            (512 << 10, 2, 2, true, false),
            (511 << 10, 2, 2, false, false),
        ] {
            let mut pace = Pace::new(begin);
            pace.heard(at(last_byte));
            assert_eq!(pace.verdict(received, at(now), short).is_some(), given_up, "{received} bytes, {now} s, {short}");
        }
    }

    #[test]
    fn waiting_for_memory_is_not_slowness() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        pace.pause(begin + Duration::from_secs(1));
        pace.resume(begin + Duration::from_secs(500));
        assert_eq!(pace.verdict(1, begin + Duration::from_millis(500_900), true), None);
        assert!(pace.verdict(1, begin + Duration::from_secs(501), true).is_some());
    }
}
