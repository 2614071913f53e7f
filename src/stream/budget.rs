//! What the tasks of one query may hold together, from when on what is needed last goes to the disk, and what becomes of a query that
//! would hold more.
//!
//! Always: a task that finds the limit passed commits nothing more, and neither do its siblings: the query stands at its
//! last commit, and goes on from there once somebody has given it more or made it hold less. Shared by the tasks of a
//! query, made by `sql`'s engine at each start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;

use super::operator::StreamError;
use super::spill::{SpillSpace, Spilling};

/// Above this share of the limit there is a warning ..
const NEAR: f64 = 0.8;
/// .. and no second one before it has fallen below this.
const FAR: f64 = 0.7;

/// Why a query stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full {
    /// The operator that held most in the task that found it.
    pub operator: String,
    /// What it held there.
    pub operator_bytes: u64,
    /// What all tasks held.
    pub bytes: u64,
    /// What they may hold.
    pub max: u64,
    /// Why no more of it could be put on the disk.
    pub refusal: Option<String>,
}

/// The limit of one query and what its tasks hold.
#[derive(Debug)]
pub struct StateBudget {
    query: String,
    max: Option<u64>,
    spilling: Option<Spilling>,
    held: AtomicU64,
    is_near: AtomicBool,
    full: watch::Sender<Option<Full>>,
}

impl StateBudget {
    /// A query may hold so many bytes; `None` for any number.
    #[must_use]
    pub fn new(query: &str, max: Option<u64>) -> Arc<Self> {
        Self::spilling(query, max, None)
    }

    /// The same; what is needed last goes to the disk before the query holds more than three quarters of what it may.
    #[must_use]
    pub fn spilling(query: &str, max: Option<u64>, spilling: Option<Spilling>) -> Arc<Self> {
        let most = max.map_or(u64::MAX, |max| max / 4 * 3);
        let spilling = spilling.map(|of| Spilling { above: of.above.min(most), ..of });
        let full = watch::channel(None).0;
        Arc::new(Self { query: query.to_owned(), max, spilling, held: AtomicU64::new(0), is_near: AtomicBool::new(false), full })
    }

    /// The room on the disk, where there is some.
    #[must_use]
    pub fn space(&self) -> Option<&SpillSpace> {
        self.spilling.as_ref().map(|of| &of.space)
    }

    /// Why no more of its state could be put on the disk when that was last asked for.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.space().and_then(SpillSpace::refusal)
    }

    /// What the query may hold.
    #[must_use]
    pub const fn max(&self) -> Option<u64> {
        self.max
    }

    /// What its tasks hold.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether it comes near its limit.
    #[must_use]
    pub fn is_near(&self) -> bool {
        self.is_near.load(Ordering::Relaxed)
    }

    fn changed(&self) {
        let Some(max) = self.max else { return };
        let (held, of_max) = (self.held(), |share: f64| (max as f64 * share) as u64);
        if held < of_max(FAR) {
            self.is_near.store(false, Ordering::Relaxed);
        } else if held >= of_max(NEAR) && !self.is_near.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                query = %self.query, held = %shown_bytes(held), limit = %shown_bytes(max),
                "the state of a query comes near its limit; at the limit the query stops"
            );
        }
    }
}

/// The part of one task. What it held is given back with it.
pub(super) struct Share {
    of: Arc<StateBudget>,
    held: u64,
    /// What the query held in memory when something was last put on the disk, and a little more: below it nothing is.
    eased: u64,
    full: watch::Receiver<Option<Full>>,
}

impl Share {
    pub(super) fn new(of: &Arc<StateBudget>) -> Self {
        Self { of: Arc::clone(of), held: 0, eased: 0, full: of.full.subscribe() }
    }

    /// How many of the `bytes` that the task holds should go to the disk, and where: its part of what the query has too many.
    pub(super) fn excess(&self, bytes: u64) -> Option<(usize, SpillSpace)> {
        let Spilling { space, above } = self.of.spilling.as_ref()?;
        let sum = self.sum_with(bytes);
        if sum <= (*above).max(self.eased) && !self.is_too_much(bytes) {
            return None;
        }
        // A little more than has to go, so that it need not be asked again at once.
        let too_many = sum - (above / 4 * 3).min(sum);
        let own = u128::from(bytes) * u128::from(too_many) / u128::from(sum.max(1));
        Some((usize::try_from(own).unwrap_or(usize::MAX), space.clone()))
    }

    /// What could go has gone, and the task holds so much now: nothing more is asked for before the query has grown again.
    pub(super) fn eased(&mut self, bytes: u64) {
        let above = self.of.spilling.as_ref().map_or(0, |of| of.above);
        self.eased = self.sum_with(bytes).saturating_add(above / 8);
    }

    /// Whether the query holds more than it may where this task holds so much.
    pub(super) fn is_too_much(&self, bytes: u64) -> bool {
        self.of.max.is_some_and(|max| self.sum_with(bytes) > max)
    }

    /// What the query holds where this task holds so much.
    fn sum_with(&self, bytes: u64) -> u64 {
        self.of.held().saturating_sub(self.held).saturating_add(bytes)
    }

    /// The task holds so much now, most of it in the operator that `most` names. An error where the query holds too much.
    pub(super) fn holds(&mut self, bytes: u64, most: &dyn Fn() -> String, most_bytes: u64) -> Result<(), StreamError> {
        let before = std::mem::replace(&mut self.held, bytes);
        // Two steps, the greater one first, so that the sum never falls below what is held.
        self.of.held.fetch_add(bytes, Ordering::Relaxed);
        let sum = self.of.held.fetch_sub(before, Ordering::Relaxed) - before;
        self.of.changed();
        if let Some(max) = self.of.max.filter(|max| sum > *max) {
            let full = Full { operator: most(), operator_bytes: most_bytes, bytes: sum, max, refusal: self.of.refusal() };
            self.of.full.send_if_modified(|known| {
                known.is_none() && {
                    *known = Some(full);
                    true
                }
            });
        }
        self.check()
    }

    /// An error where a task of the query has found that it holds too much.
    pub(super) fn check(&self) -> Result<(), StreamError> {
        self.full.borrow().as_ref().map_or(Ok(()), |full| Err(StreamError::Full(full.clone())))
    }

    /// Completes once a task of the query has found that.
    pub(super) async fn found_full(&self) {
        let mut full = self.full.clone();
        // The sender lives in the budget that this share holds.
        let _ = full.wait_for(Option::is_some).await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.held.fetch_sub(self.held, Ordering::Relaxed);
        self.of.changed();
    }
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (bytes, max, own) = (shown_bytes(self.bytes), shown_bytes(self.max), shown_bytes(self.operator_bytes));
        write!(
            f,
            "its state has grown to {bytes} and may take {max} ('state.max'); most of it, {own} in the task that found this, is held by \
             operator {}. Nothing is lost: it stands at its last commit and goes on from there. Give it more (CREATE OR REPLACE the same \
             statement WITH ('state.max' = '{}'), or raise engine.state_max), or let it hold less: shorter windows or frames, fewer keys, \
             or 'state.ttl' where groups are kept",
            self.operator,
            shown_bytes(self.max.saturating_mul(2)).replace(' ', "")
        )?;
        self.refusal.as_ref().map_or(Ok(()), |why| write!(f, ". No more of it could be put on the disk: {why}"))
    }
}

/// A number of bytes for people: `1536` is `1.5 KiB`.
#[must_use]
pub fn shown_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_of_a_query_share_its_limit_and_all_of_them_stop_at_it() {
        let budget = StateBudget::new("q", Some(1000));
        let (mut one, mut other) = (Share::new(&budget), Share::new(&budget));
        one.holds(600, &|| "1-window".to_owned(), 600).unwrap();
        assert!(!budget.is_near());
        other.holds(300, &|| "1-window".to_owned(), 300).unwrap();
        assert!(budget.is_near() && budget.held() == 900);
        other.holds(90, &|| "1-window".to_owned(), 90).unwrap();
        assert!(!budget.is_near(), "it has fallen below the line");
        let error = other.holds(401, &|| "1-window".to_owned(), 400).unwrap_err().to_string();
        assert!(error.contains("grown to 1001 B"), "{error}");
        assert!(
            error.contains("may take 1000 B") && error.contains("operator 1-window") && error.contains("'state.max' = '2KiB'"),
            "{error}"
        );
        assert_eq!(one.check().unwrap_err().to_string(), error, "and the others say the same");
        drop(other);
        assert_eq!(budget.held(), 600);
        assert!(one.check().is_err(), "also when there is room again: what failed has not been committed");
    }

    #[test]
    fn each_task_lets_its_part_of_what_is_too_much_go_to_the_disk_and_none_is_asked_again_before_there_is_more() {
        let space = SpillSpace::on(Box::new(crate::stream::spill::tests::Shelf::default()), 1 << 20, 0);
        let with = |max| StateBudget::spilling("q", max, Some(Spilling { space: space.clone(), above: 1000 }));
        let budget = with(Some(4000));
        let (mut one, mut other) = (Share::new(&budget), Share::new(&budget));
        let hold = |share: &mut Share, bytes| share.holds(bytes, &|| "1-window".to_owned(), bytes);
        assert!(one.excess(1000).is_none());
        hold(&mut one, 900).unwrap();
        // 1200 together, 750 are wanted: of each as much in a hundred.
        let (want, _) = other.excess(300).unwrap();
        assert_eq!(want, 112);
        other.eased(250);
        hold(&mut other, 250).unwrap();
        assert!(other.excess(375).is_none(), "150 more are not an eighth more");
        assert!(other.excess(376).is_some());
        assert_eq!(one.excess(900).unwrap().0, 900 * 400 / 1150, "each task looks by itself");
        one.eased(u64::MAX / 2);
        assert!(one.excess(3700).is_none() && one.excess(3800).is_some(), "at the limit it is asked all the same");
        assert!(Share::new(&with(Some(1200))).excess(901).is_some(), "at three quarters of what it may hold at the latest");
        assert!(Share::new(&StateBudget::new("q", Some(10))).excess(11).is_none());
    }

    #[test]
    fn without_a_limit_nothing_is_ever_full() {
        let budget = StateBudget::new("q", None);
        let mut share = Share::new(&budget);
        share.holds(u64::MAX / 2, &|| "1-window".to_owned(), 1).unwrap();
        assert!(!budget.is_near());
    }

    #[test]
    fn bytes_are_told_in_the_unit_that_fits() {
        let told = [0, 1023, 1024, 1536, 1 << 20, (1 << 30) - 1, 1 << 30, 5 << 40].map(shown_bytes);
        assert_eq!(told, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "1 MiB", "1 GiB", "1 GiB", "5 TiB"]);
    }
}
