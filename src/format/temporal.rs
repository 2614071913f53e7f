//! Times as text: ISO 8601 read and written by hand, in UTC.
//!
//! Always: what [`write_timestamp`] writes, [`read_timestamp`] reads back to the same value. A zone in
//! the text is honoured, none means UTC; digits finer than the unit are cut off. Called per value by the
//! JSON decoder and encoder, so nothing here allocates.

use arrow::datatypes::TimeUnit;

use super::number::Number;

const DAY_SECONDS: i64 = 86_400;
/// 0000-01-01 and the day after 9999-12-31, in days since 1970: what four digits of a year can say.
const FIRST_DAY: i64 = -719_528;
const END_DAY: i64 = 2_932_897;

/// How many of a unit one second has.
pub(super) const fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Days since 1970 of a date of the proleptic Gregorian calendar; `None` where there is no such day.
const fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > last {
        return None;
    }
    // Years that begin in March, in eras of 400 years: the leap day is then the last of a year.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// Year, month and day of a day since 1970.
const fn date_of(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// Two digits at `at`.
#[inline]
fn two(text: &[u8], at: usize) -> Option<i64> {
    let (tens, ones) = (text.get(at)?.wrapping_sub(b'0'), text.get(at + 1)?.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
}

/// The date at the front, as days since 1970.
#[inline]
fn date_part(text: &[u8]) -> Option<i64> {
    if text.get(4) != Some(&b'-') || text.get(7) != Some(&b'-') {
        return None;
    }
    days_of(two(text, 0)? * 100 + two(text, 2)?, two(text, 5)?, two(text, 8)?)
}

/// The time of day at the front: seconds, nanoseconds, and what stands behind.
#[inline]
fn clock_part(text: &[u8]) -> Option<(i64, i64, &[u8])> {
    if text.get(2) != Some(&b':') {
        return None;
    }
    let (hour, minute) = (two(text, 0)?, two(text, 3)?);
    if hour > 23 || minute > 59 {
        return None;
    }
    let mut seconds = hour * 3_600 + minute * 60;
    if text.get(5) != Some(&b':') {
        return Some((seconds, 0, &text[5..]));
    }
    let second = two(text, 6)?;
    // 60 is a leap second, which counts as the first of the next minute.
    if second > 60 {
        return None;
    }
    seconds += second;
    let mut rest = &text[8..];
    let mut nanos = 0;
    if let Some((b'.' | b',', fraction)) = rest.split_first() {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let mut worth = 100_000_000;
        for digit in fraction[..digits].iter().take(9) {
            nanos += i64::from(digit - b'0') * worth;
            worth /= 10;
        }
        rest = &fraction[digits..];
    }
    Some((seconds, nanos, rest))
}

/// A zone as seconds east of UTC. Nothing means UTC.
#[inline]
fn zone_part(text: &[u8]) -> Option<i64> {
    let east = match text.first() {
        None => return Some(0),
        Some(b'Z' | b'z') => return (text.len() == 1).then_some(0),
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(_) => return None,
    };
    let minute = match text.len() {
        3 => 0,
        5 => two(text, 3)?,
        6 if text[3] == b':' => two(text, 4)?,
        _ => return None,
    };
    let hour = two(text, 1)?;
    (hour <= 23 && minute <= 59).then_some(east * (hour * 3_600 + minute * 60))
}

/// The way nearly all producers write: `2026-03-12T08:15:01Z`, with or without `.250`. The same result as the
/// long way, without its many checks; `None` says nothing about the text.
#[inline(always)]
fn common_form(text: &[u8], unit: TimeUnit) -> Option<i64> {
    let (clock, fraction) = match text.len() {
        20 => (text.first_chunk::<19>()?, 0),
        24 => {
            let [b'.', a, b, c, _] = text.last_chunk::<5>()? else { return None };
            let (a, b, c) = (a.wrapping_sub(b'0'), b.wrapping_sub(b'0'), c.wrapping_sub(b'0'));
            if a > 9 || b > 9 || c > 9 {
                return None;
            }
            (text.first_chunk::<19>()?, i64::from(a) * 100 + i64::from(b) * 10 + i64::from(c))
        }
        _ => return None,
    };
    let separators = [clock[4], clock[7], clock[10], clock[13], clock[16]] == *b"--T::";
    if !separators || text.last() != Some(&b'Z') {
        return None;
    }
    let mut bad = false;
    let mut two = |at: usize| {
        let (tens, ones) = (clock[at].wrapping_sub(b'0'), clock[at + 1].wrapping_sub(b'0'));
        bad |= tens > 9 || ones > 9;
        i64::from(tens) * 10 + i64::from(ones)
    };
    let (year, month, day) = (two(0) * 100 + two(2), two(5), two(8));
    let (hour, minute, second) = (two(11), two(14), two(17));
    if bad || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days_of(year, month, day)? * DAY_SECONDS + hour * 3_600 + minute * 60 + second;
    match unit {
        TimeUnit::Second => Some(seconds),
        TimeUnit::Millisecond => Some(seconds * 1_000 + fraction),
        TimeUnit::Microsecond => Some(seconds * 1_000_000 + fraction * 1_000),
        // May not fit: the long way says so.
        TimeUnit::Nanosecond => None,
    }
}

/// Reads a date, or a date and time with `T` or a blank between them, as a count of `unit`s since 1970.
/// `None` where the text is no such time, or the unit cannot hold it.
#[inline]
pub(super) fn read_timestamp(text: &[u8], unit: TimeUnit) -> Option<i64> {
    if let Some(time) = common_form(text, unit) {
        return Some(time);
    }
    let days = date_part(text)?;
    if text.len() == 10 {
        return (days * DAY_SECONDS).checked_mul(per_second(unit));
    }
    if !matches!(text[10], b'T' | b't' | b' ') {
        return None;
    }
    let (seconds, nanos, rest) = clock_part(&text[11..])?;
    let zone = zone_part(rest)?;
    let per_second = per_second(unit);
    let seconds = days * DAY_SECONDS + seconds - zone;
    seconds.checked_mul(per_second)?.checked_add(nanos / (1_000_000_000 / per_second))
}

/// Whether a time can be written with a year of four digits: times beyond are mistakes of unit, not readings.
#[inline]
pub(super) const fn has_four_digit_year(value: i64, unit: TimeUnit) -> bool {
    let days = value.div_euclid(per_second(unit)).div_euclid(DAY_SECONDS);
    FIRST_DAY <= days && days < END_DAY
}

/// A time that was written as a number counting `unit`s, as a count of `own`. Seconds may have a fraction, which is cut
/// to the column's unit as that of a text is.
pub(super) fn from_number(written: &Number<'_>, own: TimeUnit, unit: TimeUnit) -> Result<i64, &'static str> {
    let time = if unit == TimeUnit::Second && !written.plain {
        written.scaled_down(i64::from(per_second(own).ilog10())).and_then(|t| i64::try_from(t).ok())
    } else {
        in_unit(written.integer().ok_or("expected a whole number of the timestamp's unit")?, unit, own)
    };
    time.filter(|t| has_four_digit_year(*t, own)).ok_or("time out of range")
}

/// A count of one unit in another, cut where that is coarser; `None` where it does not fit.
pub(super) const fn in_unit(count: i64, from: TimeUnit, to: TimeUnit) -> Option<i64> {
    let (from, to) = (per_second(from), per_second(to));
    if from <= to { count.checked_mul(to / from) } else { Some(count.div_euclid(from / to)) }
}

/// Reads `YYYY-MM-DD` as days since 1970.
pub(super) fn read_date(text: &[u8]) -> Option<i32> {
    if text.len() != 10 {
        return None;
    }
    i32::try_from(date_part(text)?).ok()
}

/// Reads `HH:MM[:SS[.fraction]]` as a count of `unit`s since midnight.
pub(super) fn read_time(text: &[u8], unit: TimeUnit) -> Option<i64> {
    let (seconds, nanos, rest) = clock_part(text)?;
    let per_second = per_second(unit);
    (rest.is_empty() && seconds < DAY_SECONDS).then(|| seconds * per_second + nanos / (1_000_000_000 / per_second))
}

/// Two digits of a number below 100.
#[inline]
const fn pair(value: i64) -> [u8; 2] {
    [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]
}

fn put_date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = date_of(days);
    let ([a, b], [c, d]) = (pair(year / 100), pair(year % 100));
    let ([e, f], [g, h]) = (pair(month), pair(day));
    out.extend_from_slice(&[a, b, c, d, b'-', e, f, b'-', g, h]);
}

/// A clock time, with as many groups of three digits behind the second as it takes to say all of it.
fn put_clock(out: &mut Vec<u8>, seconds: i64, nanos: i64) {
    let [a, b] = pair(seconds / 3_600);
    let [c, d] = pair(seconds / 60 % 60);
    let [e, f] = pair(seconds % 60);
    out.extend_from_slice(&[a, b, b':', c, d, b':', e, f]);
    if nanos == 0 {
        return;
    }
    let group = |value: i64| {
        let [tens, ones] = pair(value % 100);
        [b'0' + (value / 100 % 10) as u8, tens, ones]
    };
    out.push(b'.');
    out.extend_from_slice(&group(nanos / 1_000_000));
    if nanos % 1_000_000 != 0 {
        out.extend_from_slice(&group(nanos / 1_000 % 1_000));
        if nanos % 1_000 != 0 {
            out.extend_from_slice(&group(nanos % 1_000));
        }
    }
}

/// Writes a time in UTC with `Z`, a fraction only where there is one. False, and nothing written, where
/// its year does not have four digits.
pub(super) fn write_timestamp(out: &mut Vec<u8>, value: i64, unit: TimeUnit) -> bool {
    let per_second = per_second(unit);
    let (seconds, fraction) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    let (days, of_day) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
    if !(FIRST_DAY..END_DAY).contains(&days) {
        return false;
    }
    put_date(out, days);
    out.push(b'T');
    put_clock(out, of_day, fraction * (1_000_000_000 / per_second));
    out.push(b'Z');
    true
}

/// Writes a day since 1970 as `YYYY-MM-DD`. False where its year does not have four digits.
pub(super) fn write_date(out: &mut Vec<u8>, days: i32) -> bool {
    let days = i64::from(days);
    if !(FIRST_DAY..END_DAY).contains(&days) {
        return false;
    }
    put_date(out, days);
    true
}

/// Writes a time of day. False where it is none.
pub(super) fn write_time(out: &mut Vec<u8>, value: i64, unit: TimeUnit) -> bool {
    let per_second = per_second(unit);
    if !(0..DAY_SECONDS * per_second).contains(&value) {
        return false;
    }
    put_clock(out, value / per_second, value % per_second * (1_000_000_000 / per_second));
    true
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, SecondsFormat};
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::time::Timestamp;

    fn ms(text: &str) -> Option<i64> {
        read_timestamp(text.as_bytes(), TimeUnit::Millisecond)
    }

    #[test]
    fn a_time_is_read_with_and_without_zone_fraction_and_seconds() {
        for (text, expected) in [
            ("1970-01-01T00:00:01Z", 1_000),
            ("1970-01-01t00:00:01z", 1_000),
            ("1970-01-01 00:00:01", 1_000),
            ("1970-01-01T01:00:01+01:00", 1_000),
            ("1970-01-01T01:00:01+0100", 1_000),
            ("1970-01-01T01:00:01+01", 1_000),
            ("1969-12-31T19:00:01-05:00", 1_000),
            ("1970-01-01T00:00:00.5Z", 500),
            ("1970-01-01T00:00:00,5Z", 500),
            ("1970-01-01T00:00:00.123999999999Z", 123),
            ("1970-01-01T00:01", 60_000),
            ("1970-01-02", 86_400_000),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2024-02-29T12:00:00Z", 1_709_208_000_000),
            ("1972-06-30T23:59:60Z", 78_796_800_000),
            ("0000-01-01", -62_167_219_200_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            assert_eq!(ms(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "1970",
            "1970-01",
            "1970-1-01",
            "1970-01-01T",
            "1970-01-01Z",
            "1970-13-01",
            "1970-00-01",
            "1970-01-32",
            "1970-02-29",
            "1900-02-29",
            "1970-01-01T24:00:00",
            "1970-01-01T00:60:00",
            "1970-01-01T00:00:61",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00 Z",
            "1970-01-01T00:00:00+1",
            "1970-01-01T00:00:00+01:",
            "1970-01-01T00:00:00+24:00",
            "1970-01-01T00:00:00ZZ",
            "1970-01-01X00:00:00",
            "+970-01-01",
            "197O-01-01",
            "1970-01-01T0000",
            " 1970-01-01",
            "1970-01-01 ",
            "1970-01-01T00:00:0",
        ] {
            assert_eq!(ms(text), None, "{text}");
        }
        assert_eq!(read_timestamp(b"2263-01-01", TimeUnit::Nanosecond), None, "64 bits of nanoseconds end in 2262");
        assert!(read_timestamp(b"2262-01-01", TimeUnit::Nanosecond).is_some());
    }

    #[test]
    fn every_time_is_written_as_chrono_does_and_read_back() {
        let mut chance = rand::rngs::StdRng::seed_from_u64(7);
        for _ in 0..20_000 {
            let seconds: i64 = chance.random_range(-62_167_219_200..253_402_300_800);
            let millis = if chance.random_bool(0.3) { 0 } else { chance.random_range(0..1_000) };
            let value = seconds * 1_000 + millis;
            let mut out = Vec::new();
            assert!(write_timestamp(&mut out, value, TimeUnit::Millisecond));
            let at = DateTime::from_timestamp_millis(value).unwrap();
            let form = if millis == 0 { SecondsFormat::Secs } else { SecondsFormat::Millis };
            assert_eq!(String::from_utf8(out.clone()).unwrap(), at.to_rfc3339_opts(form, true));
            assert_eq!(read_timestamp(&out, TimeUnit::Millisecond), Some(value));
            assert_eq!(Timestamp::parse(std::str::from_utf8(&out).unwrap()), Some(Timestamp(value)));
        }
    }

    #[test]
    fn each_unit_keeps_its_digits() {
        for (unit, value, text) in [
            (TimeUnit::Second, 1, "1970-01-01T00:00:01Z"),
            (TimeUnit::Microsecond, 1_000_001, "1970-01-01T00:00:01.000001Z"),
            (TimeUnit::Microsecond, 1_500_000, "1970-01-01T00:00:01.500Z"),
            (TimeUnit::Nanosecond, -1, "1969-12-31T23:59:59.999999999Z"),
        ] {
            let mut out = Vec::new();
            assert!(write_timestamp(&mut out, value, unit));
            assert_eq!(String::from_utf8(out).unwrap(), text);
            assert_eq!(read_timestamp(text.as_bytes(), unit), Some(value));
        }
        assert!(!write_timestamp(&mut Vec::new(), i64::MAX, TimeUnit::Millisecond));
        assert!(!write_timestamp(&mut Vec::new(), i64::MIN, TimeUnit::Second));
    }

    #[test]
    fn dates_and_times_of_day_stand_alone() {
        assert_eq!(read_date(b"1970-01-02"), Some(1));
        assert_eq!(read_date(b"1970-01-02T00:00:00"), None);
        assert_eq!(read_time(b"00:01:00.5", TimeUnit::Millisecond), Some(60_500));
        assert_eq!(read_time(b"23:59:60", TimeUnit::Millisecond), None);
        assert_eq!(read_time(b"00:01Z", TimeUnit::Millisecond), None);
        let mut out = Vec::new();
        assert!(write_date(&mut out, -1) && write_time(&mut out, 60_500, TimeUnit::Millisecond));
        assert_eq!(out, b"1969-12-3100:01:00.500");
    }
}
