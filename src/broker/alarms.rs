//! When groups and transactions are to be looked at again: any number of them behind one timer.
//!
//! Always: each name has at most one alarm, and its owner knows for when ([`Alarms::set`] keeps both in step); nothing is
//! polled. Called by the coordinators.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::time::Timestamp;

/// The alarms of all names.
pub(super) struct Alarms<Name> {
    set: Mutex<BTreeSet<(Timestamp, Name)>>,
    /// Told when an alarm comes before all others.
    earlier: Notify,
}

impl<Name> Default for Alarms<Name> {
    fn default() -> Self {
        Self { set: Mutex::default(), earlier: Notify::new() }
    }
}

impl<Name: Ord + Clone> Alarms<Name> {
    /// Has the name called at `next`, or before. `alarm` is when it is called by now, kept by who owns the name, who takes it
    /// away when the call comes.
    pub(super) fn set(&self, name: &Name, alarm: &mut Option<Timestamp>, next: Timestamp) {
        // A later time needs nothing: at the alarm there is, its owner is asked again.
        if alarm.is_some_and(|alarm| alarm <= next) {
            return;
        }
        let mut set = self.set.lock();
        if let Some(old) = alarm.replace(next) {
            set.remove(&(old, name.clone()));
        }
        let is_first = set.first().is_none_or(|(first, _)| next < *first);
        set.insert((next, name.clone()));
        drop(set);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// The names whose time has come, once there are some; `None` when stopped.
    pub(super) async fn due(&self, now: impl Fn() -> Timestamp, stop: &CancellationToken) -> Option<Vec<Name>> {
        loop {
            if stop.is_cancelled() {
                return None;
            }
            let due = self.take_due(now());
            if !due.is_empty() {
                return Some(due);
            }
            let next = self.set.lock().first().map(|(at, _)| *at);
            let wait = next.map(|at| Duration::from_millis(u64::try_from(at.since(now())).unwrap_or_default()));
            tokio::select! {
                () = stop.cancelled() => return None,
                () = self.earlier.notified() => {}
                () = async {
                    match wait {
                        // One more millisecond: clocks round down.
                        Some(span) => tokio::time::sleep(span + Duration::from_millis(1)).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
    }

    /// Has the clock looked at again, which a test has moved.
    #[cfg(test)]
    pub(super) fn look_again(&self) {
        self.earlier.notify_one();
    }

    fn take_due(&self, now: Timestamp) -> Vec<Name> {
        let mut set = self.set.lock();
        let mut due = Vec::new();
        while set.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(set.pop_first().map(|(_, name)| name));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_moves_forward_and_never_back() {
        let alarms = Alarms::default();
        let mut alarm = None;
        let at = Timestamp;
        alarms.set(&"group", &mut alarm, at(50));
        alarms.set(&"group", &mut alarm, at(80));
        assert_eq!(alarm, Some(at(50)), "at 50 it is asked what else it waits for");
        alarms.set(&"group", &mut alarm, at(20));
        assert_eq!(alarm, Some(at(20)));
        assert_eq!(alarms.take_due(at(19)), Vec::<&str>::new());
        assert_eq!(alarms.take_due(at(20)), ["group"]);
        assert_eq!(alarms.take_due(at(100)), Vec::<&str>::new(), "once");
    }

    #[tokio::test]
    async fn an_earlier_alarm_wakes_who_waits_for_a_later_one() {
        let (alarms, stop) = (Alarms::default(), CancellationToken::new());
        let now = || Timestamp(0);
        alarms.set(&"in an hour", &mut None, Timestamp(3_600_000));
        let (due, ()) = tokio::join!(alarms.due(now, &stop), async {
            tokio::task::yield_now().await;
            alarms.set(&"now", &mut None, Timestamp(0));
        });
        assert_eq!(due, Some(vec!["now"]));
        let (stopped, ()) = tokio::join!(alarms.due(now, &stop), async {
            tokio::task::yield_now().await;
            stop.cancel();
        });
        assert_eq!(stopped, None);
    }
}
