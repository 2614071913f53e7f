//! Which lanes this process holds, and since when: [`Shares`].
//!
//! A lane is held from when the consumer group has assigned it *and* its transactional id has been taken over (then whoever held it before
//! can write nothing more) until the group revokes it or somebody else takes the id over. Always: a task runs on a lane that is held,
//! or is told to end; giving a lane up waits for the tasks on it, for a while. Each taking over has a number of its own, larger than all
//! before: what a lane's thread does for an older one, because it had much to do, changes nothing. Changed by the group's thread and the lanes'.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::Shift;

/// The lanes of this process.
#[derive(Default)]
pub(super) struct Shares {
    lanes: Mutex<BTreeMap<i32, Share>>,
    /// How often a lane was to be taken over: the last one's number.
    turns: AtomicU64,
    /// A task has ended.
    ended: Condvar,
    /// Counts changes.
    changed: watch::Sender<u64>,
    /// Why the group cannot be joined.
    trouble: Mutex<Option<String>>,
}

struct Share {
    standing: Standing,
    /// Cancelled when the tasks that run by it are to end.
    over: CancellationToken,
    /// How many run.
    tasks: Arc<Mutex<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Assigned; its id is to be taken over from then on.
    Assigned(Instant),
    /// Its id is being taken over, as the taking of this number.
    Taking(u64),
    /// Ours, by the taking of this number.
    Held(u64),
    /// On its way to another process.
    Leaving,
}

impl Share {
    fn lose(&mut self, again_after: Duration) {
        self.standing = Standing::Assigned(Instant::now() + again_after);
        self.over.cancel();
        self.over = CancellationToken::new();
    }
}

/// Counts a task while it runs.
struct Running {
    tasks: Arc<Mutex<usize>>,
    shares: Arc<Shares>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Under the lock that whoever waits holds when it looks.
        let _lanes = self.shares.lanes.lock();
        *self.tasks.lock() -= 1;
        self.shares.ended.notify_all();
    }
}

impl Shares {
    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Hears of changes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The group has assigned these.
    pub(super) fn assign(&self, lanes: &BTreeSet<i32>) {
        let mut held = self.lanes.lock();
        for lane in lanes {
            held.entry(*lane).or_insert_with(|| Share {
                standing: Standing::Assigned(Instant::now()),
                over: CancellationToken::new(),
                tasks: Arc::default(),
            });
        }
        drop(held);
        *self.trouble.lock() = None;
        self.tell();
    }

    /// Those whose id is to be taken over now, each with the number of its taking.
    pub(super) fn to_take(&self) -> Vec<(i32, u64)> {
        let (mut lanes, now) = (self.lanes.lock(), Instant::now());
        let due = lanes.iter_mut().filter(|(_, share)| matches!(share.standing, Standing::Assigned(from) if from <= now));
        due.map(|(lane, share)| {
            let turn = self.turns.fetch_add(1, Ordering::Relaxed) + 1;
            share.standing = Standing::Taking(turn);
            (*lane, turn)
        })
        .collect()
    }

    /// The number of the last taking: of all lanes that are assigned, and of those that were.
    pub(super) fn last_turn(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Whether this taking is still wanted.
    pub(super) fn wants(&self, lane: i32, turn: u64) -> bool {
        self.lanes.lock().get(&lane).is_some_and(|share| share.standing == Standing::Taking(turn))
    }

    /// The id is ours: whoever held the lane before can write nothing more. Answers whether it was still wanted.
    pub(super) fn hold(&self, lane: i32, turn: u64) -> bool {
        let mut lanes = self.lanes.lock();
        let Some(share) = lanes.get_mut(&lane).filter(|share| share.standing == Standing::Taking(turn)) else { return false };
        share.standing = Standing::Held(turn);
        drop(lanes);
        *self.trouble.lock() = None;
        self.tell();
        true
    }

    /// The id is not ours (any more): the tasks of the lane end, and it is taken over again after a while if it is still assigned then. Where it
    /// has been given up since this taking, that has happened already.
    pub(super) fn lose(&self, lane: i32, turn: u64, again_after: Duration) {
        let mut lanes = self.lanes.lock();
        if let Some(share) = lanes.get_mut(&lane).filter(|share| [Standing::Taking(turn), Standing::Held(turn)].contains(&share.standing)) {
            share.lose(again_after);
        }
        drop(lanes);
        self.tell();
    }

    /// As [`Self::lose`], of all lanes that are assigned.
    pub(super) fn lose_all(&self, again_after: Duration) {
        let mut lanes = self.lanes.lock();
        for share in lanes.values_mut().filter(|share| share.standing != Standing::Leaving) {
            share.lose(again_after);
        }
        drop(lanes);
        self.tell();
    }

    /// The group takes these away: their tasks end, and are waited for.
    pub(super) fn give_up(&self, given: &BTreeSet<i32>, patience: Duration) {
        let until = Instant::now() + patience;
        let mut lanes = self.lanes.lock();
        for share in lanes.iter_mut().filter(|(lane, _)| given.contains(lane)).map(|(_, share)| share) {
            share.standing = Standing::Leaving;
            share.over.cancel();
        }
        self.tell();
        let busy = |lanes: &BTreeMap<i32, Share>| given.iter().filter_map(|lane| lanes.get(lane)).any(|share| *share.tasks.lock() > 0);
        while busy(&lanes) {
            if self.ended.wait_until(&mut lanes, until).timed_out() {
                if !patience.is_zero() {
                    tracing::warn!(lanes = ?given, "tasks that another process runs from now on take long to end: what they had begun is done again there");
                }
                break;
            }
        }
        lanes.retain(|lane, _| !given.contains(lane));
        drop(lanes);
        self.tell();
    }

    /// The lanes that are ours, each with a number that is another one when it has become ours anew.
    pub(super) fn held(&self) -> BTreeMap<i32, u64> {
        let lanes = self.lanes.lock();
        let held = lanes.iter().filter_map(|(lane, share)| match share.standing {
            Standing::Held(turn) => Some((*lane, turn)),
            _ => None,
        });
        held.collect()
    }

    /// All that are assigned.
    pub(super) fn assigned(&self) -> BTreeSet<i32> {
        self.lanes.lock().keys().copied().collect()
    }

    /// Whether a lane is ours.
    pub(super) fn holds(&self, lane: i32) -> bool {
        self.lanes.lock().get(&lane).is_some_and(|share| matches!(share.standing, Standing::Held(_)))
    }

    /// Completes once a lane is ours.
    pub(super) async fn shift(self: &Arc<Self>, lane: i32) -> Shift {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            {
                let lanes = self.lanes.lock();
                if let Some(share) = lanes.get(&lane).filter(|share| matches!(share.standing, Standing::Held(_))) {
                    *share.tasks.lock() += 1;
                    let running = Running { tasks: Arc::clone(&share.tasks), shares: Arc::clone(self) };
                    return Shift::until(share.over.clone(), running);
                }
            }
            // The sender lives as long as this does.
            let _ = changed.changed().await;
        }
    }

    /// Notes why the group cannot be joined.
    pub(super) fn note_trouble(&self, why: String) {
        let mut trouble = self.trouble.lock();
        if trouble.as_ref() != Some(&why) {
            tracing::warn!(reason = %why, "the tasks cannot be shared out");
            *trouble = Some(why);
        }
    }

    /// Why the group cannot be joined.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(lanes: &[i32]) -> BTreeSet<i32> {
        lanes.iter().copied().collect()
    }

    fn is_ready(shares: &Arc<Shares>, lane: i32) -> bool {
        futures::FutureExt::now_or_never(shares.shift(lane)).is_some()
    }

    /// Takes over all that is due.
    fn take(shares: &Shares) -> Vec<i32> {
        let due = shares.to_take();
        assert!(due.iter().all(|(lane, turn)| shares.wants(*lane, *turn) && shares.hold(*lane, *turn)));
        due.into_iter().map(|(lane, _)| lane).collect()
    }

    #[tokio::test]
    async fn a_lane_is_ours_once_its_id_is() {
        let shares = Arc::new(Shares::default());
        shares.assign(&set(&[0, 1]));
        assert!(!is_ready(&shares, 0));
        assert_eq!(shares.to_take(), [(0, 1), (1, 2)]);
        assert_eq!(shares.to_take(), [], "it is being taken");
        assert!(shares.hold(0, 1) && !shares.hold(0, 1) && !shares.hold(7, 1));
        assert!(is_ready(&shares, 0) && !is_ready(&shares, 1) && !is_ready(&shares, 7));
        assert_eq!((shares.held(), shares.assigned()), (BTreeMap::from([(0, 1)]), set(&[0, 1])));
    }

    #[tokio::test]
    async fn a_taking_from_before_a_lane_went_and_came_back_changes_nothing() {
        let shares = Arc::new(Shares::default());
        shares.assign(&set(&[0]));
        let before = shares.to_take()[0].1;
        shares.give_up(&set(&[0]), Duration::ZERO);
        assert!(!shares.wants(0, before) && shares.last_turn() == before);
        shares.assign(&set(&[0]));
        let now = shares.to_take()[0].1;
        assert!(!shares.hold(0, before) && !shares.wants(0, before) && shares.wants(0, now));
        shares.lose(0, before, Duration::ZERO);
        assert!(shares.hold(0, now));
        shares.lose(0, before, Duration::ZERO);
        assert!(is_ready(&shares, 0) && shares.last_turn() == now);
        shares.lose(0, now, Duration::ZERO);
        assert!(!is_ready(&shares, 0));
        assert_eq!(take(&shares), [0]);
        assert!(is_ready(&shares, 0));
    }

    #[tokio::test]
    async fn who_has_lost_an_id_ends_and_begins_again_when_it_is_ours_again() {
        let shares = Arc::new(Shares::default());
        shares.assign(&set(&[0]));
        take(&shares);
        let shift = shares.shift(0).await;
        shares.lose_all(Duration::from_secs(3600));
        assert!(shift.is_over() && !is_ready(&shares, 0));
        assert_eq!(shares.to_take(), [], "not before a while");
        shares.lose_all(Duration::ZERO);
        assert_eq!(take(&shares), [0]);
        assert!(is_ready(&shares, 0));
        assert!(!shares.shift(0).await.is_over());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn giving_a_lane_up_waits_for_its_tasks_and_not_for_ever() {
        let shares = Arc::new(Shares::default());
        shares.assign(&set(&[0, 1]));
        take(&shares);
        let shift = shares.shift(0).await;
        let ends = tokio::spawn(async move {
            shift.over().await;
            drop(shift);
        });
        let given = Arc::clone(&shares);
        tokio::task::spawn_blocking(move || given.give_up(&set(&[0]), Duration::from_secs(3600))).await.unwrap();
        ends.await.unwrap();
        assert_eq!(shares.assigned(), set(&[1]));
        let stays = shares.shift(1).await;
        shares.give_up(&set(&[1]), Duration::ZERO);
        assert!(stays.is_over() && shares.assigned().is_empty());
        // It comes back while the task of before has not ended: that one counts for the old share alone.
        shares.assign(&set(&[1]));
        drop(stays);
        shares.give_up(&set(&[1]), Duration::from_secs(3600));
    }
}
