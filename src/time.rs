//! Time as the whole house sees it: `Timestamp`, `Span` and the node's `Clock`.
//!
//! Event time is always milliseconds since the Unix epoch, UTC, and may be negative: a recording may
//! be older than 1970. Only the outermost layers hold a [`Clock`]; everything below takes the time as
//! an argument, so that it can be replayed and tested with a table.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};

/// A point in event time or wall time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Before everything: the watermark of a partition that has not seen a row.
    pub const MIN: Self = Self(i64::MIN);
    /// After everything: the watermark that the end of a bounded input sets.
    pub const MAX: Self = Self(i64::MAX);

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// This time moved by `ms` milliseconds, held inside the range of an `i64`.
    #[must_use]
    pub const fn plus(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time; negative where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads ISO 8601: a date, or a date and time with `T` or a blank between them, up to nanoseconds
    /// (cut to milliseconds), with `Z`, an offset, or neither (which means UTC).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(t) = DateTime::parse_from_rfc3339(text) {
            return Some(Self(t.timestamp_millis()));
        }
        for form in ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z"] {
            if let Ok(t) = DateTime::parse_from_str(text, form) {
                return Some(Self(t.timestamp_millis()));
            }
        }
        for form in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
            if let Ok(t) = NaiveDateTime::parse_from_str(text, form) {
                return Some(Self(t.and_utc().timestamp_millis()));
            }
        }
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        Some(Self(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis()))
    }
}

/// ISO 8601 in UTC with `Z`, milliseconds only where there are any.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_millis(self.0) {
            Some(t) if self.0.rem_euclid(1000) == 0 => f.write_str(&t.to_rfc3339_opts(SecondsFormat::Secs, true)),
            Some(t) => f.write_str(&t.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// One interval of event time: `start <= at < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first millisecond inside.
    pub start: Timestamp,
    /// The first millisecond after.
    pub end: Timestamp,
}

impl Span {
    /// Whether `at` lies inside.
    #[must_use]
    pub const fn contains(self, at: Timestamp) -> bool {
        self.start.0 <= at.0 && at.0 < self.end.0
    }
}

/// The node's wall clock. With a speed other than 1 it runs that many times as fast as the machine's,
/// from the moment it was made: the demo's ward then lives through an hour in minutes.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Timestamp,
    since: Instant,
    runs: Runs,
}

/// What a clock goes by.
#[derive(Clone, Copy, Debug)]
enum Runs {
    /// The machine's clock, which may be set while we run.
    AsSet,
    /// The time that has passed, so many times as fast.
    Times(f64),
    /// A test, which has two hands: what the machine's clock shows, and how much time has passed.
    #[cfg(test)]
    ByHand(&'static [std::sync::atomic::AtomicI64; 2], usize),
}

impl Clock {
    /// The machine's own time.
    #[must_use]
    pub fn system() -> Self {
        Self { origin: Timestamp(system_millis()), since: Instant::now(), runs: Runs::AsSet }
    }

    /// A clock that shows the machine's time now and runs `speed` times as fast from here on.
    ///
    /// # Panics
    /// Where `speed` is not a positive finite number: the command line has checked it.
    #[must_use]
    pub fn running(speed: f64) -> Self {
        assert!(speed.is_finite() && speed > 0.0, "a clock's speed is a positive number");
        let runs = if speed == 1.0 { Runs::AsSet } else { Runs::Times(speed) };
        Self { runs, ..Self::system() }
    }

    /// The same, showing `at` now, whatever the machine's clock says.
    #[must_use]
    pub fn starting_at(self, at: Timestamp) -> Self {
        Self { origin: at, since: Instant::now(), runs: Runs::Times(self.speed()) }
    }

    /// A clock for what must not be hurried or held up: it shows the machine's time now, and from here on counts
    /// the time that passes, however fast this clock runs and however the machine's is set.
    #[must_use]
    pub fn steady(&self) -> Self {
        #[cfg(test)]
        if let Runs::ByHand(hands, _) = self.runs {
            return Self { runs: Runs::ByHand(hands, 1), ..*self };
        }
        Self { runs: Runs::Times(1.0), ..Self::system() }
    }

    /// This clock as it would run if nobody set it.
    #[must_use]
    pub fn unset(&self) -> Self {
        if matches!(self.runs, Runs::Times(_)) { *self } else { self.steady() }
    }

    /// A clock that a test moves: what the machine's clock shows, and how much time has passed.
    #[cfg(test)]
    pub(crate) fn by_hand(hands: &'static [std::sync::atomic::AtomicI64; 2]) -> Self {
        Self { runs: Runs::ByHand(hands, 0), ..Self::system() }
    }

    /// What the clock shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self.runs {
            Runs::AsSet => Timestamp(system_millis()),
            Runs::Times(speed) => self.origin.plus((self.since.elapsed().as_secs_f64() * speed * 1000.0) as i64),
            #[cfg(test)]
            Runs::ByHand(hands, which) => Timestamp(hands[which].load(std::sync::atomic::Ordering::Relaxed)),
        }
    }

    /// How long a span of this clock's time takes on the machine.
    #[must_use]
    pub fn real(&self, span: Duration) -> Duration {
        if self.speed() == 1.0 { span } else { span.div_f64(self.speed()) }
    }

    /// How many times as fast as the machine's clock this one runs.
    #[must_use]
    pub const fn speed(&self) -> f64 {
        match self.runs {
            Runs::Times(speed) => speed,
            _ => 1.0,
        }
    }
}

/// How old things are by a clock that may be set: what it was set forward by is not their age.
///
/// Knows what it was shown: the clock, and one beside it that nobody sets. What was stamped before the clock was set
/// forward by more than a minute counts as so much younger; where it is set back, so much of that is forgotten. Where it was set more
/// than once, things may count as younger than they are, never as older.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    now: i64,
    /// How far the clock was ahead of the one beside it, at the last look.
    ahead: Option<i64>,
    /// The last time that it has shown.
    latest: i64,
    /// The last stamp from before each time it was set forward, and by how much; in order.
    jumps: Vec<(i64, i64)>,
}

impl Ages {
    /// A smaller step is the usual correction of a clock, and counts as time.
    const STEP_MS: i64 = 60_000;

    /// By a clock that shows `now` and was never set.
    #[must_use]
    pub const fn at(now: Timestamp) -> Self {
        Self { now: now.0, ahead: None, latest: now.0, jumps: Vec::new() }
    }

    /// Has heard of a stamp: the clock has shown it once, perhaps under another process.
    pub const fn hear(&mut self, stamp: i64) {
        if stamp > self.latest {
            self.latest = stamp;
        }
    }

    /// Looks at the clock, and at the one beside it. Answers by how much the clock was set since the last look, where it was.
    pub fn look(&mut self, now: Timestamp, steady: Timestamp) -> Option<i64> {
        self.now = now.0;
        let ahead = now.since(steady);
        let before = self.ahead.replace(ahead);
        let step = before.map_or(0, |before| ahead.saturating_sub(before));
        // It ran on until it was set, at the latest until now.
        self.latest = self.latest.max(before.map_or(i64::MIN, |before| steady.0.saturating_add(before)));
        if step > Self::STEP_MS {
            // Also what it stamped when it was ahead once before.
            self.jumps.push((now.0.saturating_sub(step).max(self.latest), step));
        } else if step < -Self::STEP_MS {
            let mut back = step.saturating_neg();
            while back > 0
                && let Some((_, by)) = self.jumps.last_mut()
            {
                let undone = back.min(*by);
                (*by, back) = (*by - undone, back - undone);
                if *by == 0 {
                    self.jumps.pop();
                }
            }
        }
        self.latest = self.latest.max(now.0);
        (step.saturating_abs() > Self::STEP_MS).then_some(step)
    }

    /// What the clock shows.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        Timestamp(self.now)
    }

    /// How old something is that was stamped so.
    #[must_use]
    pub fn of(&self, stamp: i64) -> i64 {
        let set: i64 = self.jumps.iter().filter(|(before, _)| stamp <= *before).map(|(_, by)| *by).fold(0, i64::saturating_add);
        self.now.saturating_sub(stamp).saturating_sub(set)
    }

    /// The stamp of something that is so old, whenever it was stamped: what is stamped later is younger.
    #[must_use]
    pub fn stamp_of(&self, age_ms: i64) -> Timestamp {
        let set = self.jumps.iter().map(|(_, by)| *by).fold(0, i64::saturating_add);
        Timestamp(self.now.saturating_sub(set).saturating_sub(age_ms))
    }
}

fn system_millis() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

/// Why a duration could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{text}\" is not a duration: write a number and a unit, as in 500ms, 15s, 2m, 1h, 30d")]
pub struct BadDuration {
    /// What was written.
    pub text: String,
}

/// Reads a duration as our options and flags spell it: `250ms`, `15s`, `2m`, `1h`, `30d`, also `1h30m`.
pub fn parse_duration(text: &str) -> Result<Duration, BadDuration> {
    let bad = || BadDuration { text: text.to_owned() };
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit_ms = match &rest[..letters] {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" | "min" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return Err(bad()),
        };
        let ms = number * unit_ms;
        if !ms.is_finite() || ms > 1e15 {
            return Err(bad());
        }
        total += Duration::from_micros((ms * 1000.0).round() as u64);
        rest = rest[letters..].trim_start();
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_times_are_read_with_and_without_a_zone() {
        let at = |text| Timestamp::parse(text).map(Timestamp::millis);
        assert_eq!(at("1970-01-01T00:00:01Z"), Some(1000));
        assert_eq!(at("1970-01-01T01:00:01+01:00"), Some(1000));
        assert_eq!(at("1970-01-01T01:00:01+0100"), Some(1000));
        assert_eq!(at("1970-01-01 00:00:01.2345"), Some(1234));
        assert_eq!(at("1969-12-31T23:59:59"), Some(-1000));
        assert_eq!(at("1970-01-02"), Some(86_400_000));
        assert_eq!(at("yesterday"), None);
    }

    #[test]
    fn times_print_in_utc_with_milliseconds_only_where_there_are_any() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp(-1).to_string(), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_a_clock_was_set_forward_by_is_nobodys_age() {
        const HOUR: i64 = 3_600_000;
        let mut ages = Ages::default();
        let mut look = |now: i64, steady: i64| ages.look(Timestamp(now), Timestamp(steady));
        assert_eq!((look(10 * HOUR, 10 * HOUR), look(11 * HOUR + 60_000, 11 * HOUR)), (None, None), "a correction");
        // Five hours forward, seen an hour later.
        assert_eq!(look(17 * HOUR + 60_000, 12 * HOUR), Some(5 * HOUR));
        let now = 17 * HOUR + 60_000;
        assert_eq!((ages.of(10 * HOUR), ages.of(now - 60_000), ages.of(now + 5)), (2 * HOUR + 60_000, 60_000, -5));
        assert_eq!(ages.stamp_of(HOUR), Timestamp(11 * HOUR + 60_000));
        // And back: nothing is left of it.
        assert_eq!(ages.look(Timestamp(13 * HOUR), Timestamp(13 * HOUR)), Some(-5 * HOUR - 60_000));
        assert_eq!((ages.of(10 * HOUR), ages.stamp_of(HOUR)), (3 * HOUR, Timestamp(12 * HOUR)));
        // Back first: what was stamped before is from the future, and no older for it.
        assert_eq!(ages.look(Timestamp(4 * HOUR), Timestamp(14 * HOUR)), Some(-10 * HOUR));
        assert_eq!(ages.of(13 * HOUR), -9 * HOUR);
        // Forward again, not as far as it was once: what it stamped then is as young.
        assert_eq!((ages.look(Timestamp(16 * HOUR), Timestamp(15 * HOUR)), ages.of(17 * HOUR)), (Some(11 * HOUR), -12 * HOUR));
        // Ahead, back, and further ahead: also what it stamped last while it was ahead for the first time.
        let mut ages = Ages::default();
        for (now, steady) in [(HOUR, HOUR), (51 * HOUR, HOUR), (2 * HOUR, 2 * HOUR), (83 * HOUR, 3 * HOUR)] {
            ages.look(Timestamp(now), Timestamp(steady));
        }
        assert_eq!(ages.of(52 * HOUR), -49 * HOUR);
        assert_eq!(ages.look(Timestamp(i64::MAX), Timestamp(14 * HOUR)).is_some(), ages.of(i64::MIN) > 0, "no overflow");
    }

    #[test]
    fn a_steady_clock_is_not_set_and_not_hurried() {
        static HANDS: [std::sync::atomic::AtomicI64; 2] = [const { std::sync::atomic::AtomicI64::new(5) }; 2];
        let clock = Clock::by_hand(&HANDS);
        let steady = clock.steady();
        HANDS[0].store(1 << 40, std::sync::atomic::Ordering::Relaxed);
        assert_eq!((clock.now().0, steady.now().0, steady.steady().now().0), (1 << 40, 5, 5));
        assert_eq!((Clock::running(60.0).speed(), Clock::running(60.0).steady().speed()), (60.0, 1.0));
    }

    #[test]
    fn a_clock_that_starts_at_a_time_goes_on_from_there_as_fast_as_it_is_to() {
        for speed in [1.0, 1000.0] {
            let (clock, begun) = (Clock::running(speed).starting_at(Timestamp(1 << 40)), Instant::now());
            let shown = clock.now().since(Timestamp(1 << 40));
            let most = (begun.elapsed().as_secs_f64() * speed * 1000.0) as i64 + 1000;
            assert!((0..=most).contains(&shown), "{shown} of at most {most} ms");
            assert_eq!(clock.speed(), speed);
        }
    }

    #[test]
    fn durations_take_a_number_and_a_unit() {
        assert_eq!(parse_duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("0.5s"), Ok(Duration::from_millis(500)));
        for bad in ["", "15", "s", "15 parsecs", "-1s", "1e99d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
