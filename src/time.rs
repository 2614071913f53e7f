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
    speed: f64,
}

impl Clock {
    /// The machine's own time.
    #[must_use]
    pub fn system() -> Self {
        Self::running(1.0)
    }

    /// A clock that shows the machine's time now and runs `speed` times as fast from here on.
    ///
    /// # Panics
    /// Where `speed` is not a positive finite number: the command line has checked it.
    #[must_use]
    pub fn running(speed: f64) -> Self {
        assert!(speed.is_finite() && speed > 0.0, "a clock's speed is a positive number");
        Self { origin: Timestamp(system_millis()), since: Instant::now(), speed }
    }

    /// What the clock shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        if self.speed == 1.0 {
            // The machine's clock may be set while we run; at normal speed we follow it.
            return Timestamp(system_millis());
        }
        let passed = self.since.elapsed().as_secs_f64() * self.speed * 1000.0;
        self.origin.plus(passed as i64)
    }

    /// How long a span of this clock's time takes on the machine.
    #[must_use]
    pub fn real(&self, span: Duration) -> Duration {
        if self.speed == 1.0 { span } else { span.div_f64(self.speed) }
    }

    /// How many times as fast as the machine's clock this one runs.
    #[must_use]
    pub const fn speed(&self) -> f64 {
        self.speed
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
    fn durations_take_a_number_and_a_unit() {
        assert_eq!(parse_duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("0.5s"), Ok(Duration::from_millis(500)));
        for bad in ["", "15", "s", "15 parsecs", "-1s", "1e99d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
