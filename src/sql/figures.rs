//! Figures as `EXPLAIN ANALYZE` prints them: a line an operator, then what the tasks spend their time on. Pure functions of
//! what was counted. Called by the engine for running queries and by `batch` for history.

use std::fmt::Write as _;
use std::time::Duration;

use crate::metrics::DurationCounts;
use crate::stream::{OperatorFigures, TimeShares, shown_bytes};
use crate::time::Timestamp;

/// The columns of the table behind the operator's name.
const HEADS: [&str; 8] = ["rows in", "rows out", "late", "failed", "busy", "state", "watermark", "behind"];

/// What stands behind the state where an operator has put some of it on the disk.
const SPILLED: &str = "on the disk";

/// The same of history, which is over: state is what was held at most.
const HISTORY_HEADS: [&str; 6] = ["rows in", "rows out", "late", "failed", "busy", "most state"];

/// A line an operator. `now` is the clock, behind which a watermark stands; `None` for history, which has none.
pub fn operator_table(operators: &[OperatorFigures], now: Option<Timestamp>) -> String {
    let heads = if now.is_some() { &HEADS[..] } else { &HISTORY_HEADS[..] };
    let mut head: Vec<String> = ["operator"].iter().chain(heads).map(|head| (*head).to_owned()).collect();
    let spilled = now.is_some() && operators.iter().any(|of| of.spilled_bytes > 0);
    let behind_state = 1 + heads.iter().take_while(|head| **head != "watermark").count();
    if spilled {
        head.insert(behind_state, SPILLED.to_owned());
    }
    let line = |of: &OperatorFigures| {
        let busy = if now.is_some() { percent(of.busy_share) } else { shown_time(of.busy) };
        let counts = [of.rows_in, of.rows_out, of.late, of.failed].map(|count| count.to_string());
        let mut cells = vec![of.name.clone()];
        cells.extend(counts);
        cells.extend([busy, shown_bytes(if now.is_some() { of.state_bytes } else { of.most_bytes })]);
        if spilled {
            cells.push(if of.spilled_bytes > 0 { shown_bytes(of.spilled_bytes) } else { String::new() });
        }
        if let Some(now) = now {
            let (at, behind) = of.watermark.map_or_else(Default::default, |(least, greatest)| watermarks(least, greatest, now));
            cells.extend([at, behind]);
        }
        cells
    };
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(operators.iter().map(line)).collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut out = String::new();
    for cells in &lines {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            // Names to the left, figures to the right. Writing to a String cannot fail.
            let _ = if column == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// What the tasks do, and how long commits take.
pub fn task_lines(time: &TimeShares, commits: &DurationCounts, snapshots: u64) -> String {
    let [busy, idle, backpressured] = time.recent.map(percent);
    let mut out = format!("tasks    {}: busy {busy}, idle {idle}, back-pressured {backpressured} of late\n", time.tasks);
    // Writing to a String cannot fail.
    let _ = write!(out, "commits  {}", commits.count());
    if let Some(mean) = commits.mean() {
        let _ = write!(out, ", {} on average", shown_time(mean));
    }
    if let Some(within) = commits.within(0.99) {
        let _ = write!(out, ", 99 in 100 within {}", shown_time(within));
    }
    let _ = writeln!(out, "; snapshots {snapshots}");
    out
}

/// Bytes of state beside what they may be, and those on the disk.
pub fn state_line(bytes: u64, max: Option<u64>, spilled: u64) -> String {
    let mut line = match max {
        Some(max) => format!("state    {} of {} ({})", shown_bytes(bytes), shown_bytes(max), percent(bytes as f64 / max as f64)),
        None => format!("state    {}, without a limit", shown_bytes(bytes)),
    };
    if spilled > 0 {
        // Writing to a String cannot fail.
        let _ = write!(line, "; {} more on the disk", shown_bytes(spilled));
    }
    line.push('\n');
    line
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A duration with three figures: `1.25 ms`, `980 us`, `2.1 s`.
pub fn shown_time(of: Duration) -> String {
    let seconds = of.as_secs_f64();
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "us"),
    };
    let digits = if value >= 100.0 { 0 } else { usize::from(value < 10.0) + 1 };
    format!("{value:.digits$} {unit}")
}

/// Where watermarks stand and how far behind the clock: one, or the least and the greatest.
fn watermarks(least: Timestamp, greatest: Timestamp, now: Timestamp) -> (String, String) {
    let at = |at: Timestamp| if at == Timestamp::MAX { "the end".to_owned() } else { at.to_string() };
    let behind = |at: Timestamp| if at == Timestamp::MAX { String::new() } else { format!("{:.1} s", now.since(at) as f64 / 1000.0) };
    if least == greatest {
        return (at(least), behind(least));
    }
    (format!("{} .. {}", at(least), at(greatest)), format!("{} .. {}", behind(least), behind(greatest)))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn operator(name: &str, rows: (u64, u64), late: u64, bytes: u64, at: Option<(i64, i64)>) -> OperatorFigures {
        OperatorFigures {
            name: name.to_owned(),
            rows_in: rows.0,
            rows_out: rows.1,
            late,
            failed: 0,
            busy: Duration::from_micros(rows.0 * 3),
            busy_share: rows.0 as f64 / 40_000.0,
            state_bytes: bytes,
            spilled_bytes: 0,
            most_bytes: bytes * 2,
            watermark: at.map(|(least, greatest)| (Timestamp(least), Timestamp(greatest))),
        }
    }

    fn check(found: &str, expected: &Expect) {
        expected.assert_eq(found);
    }

    #[test]
    fn operators_stand_below_one_another() {
        let all = [
            operator("0-source", (12_345, 12_345), 0, 0, Some((1_767_225_600_000, 1_767_225_630_000))),
            operator("1-window", (12_345, 17), 3, 5 << 20, Some((1_767_225_600_000, 1_767_225_600_000))),
            operator("2-sink", (17, 17), 0, 0, None),
        ];
        let now = Timestamp(1_767_225_660_500);
        check(
            &operator_table(&all, Some(now)),
            &expect![[r#"
                operator  rows in  rows out  late  failed    busy  state                                     watermark            behind
                0-source    12345     12345     0       0  30.9 %    0 B  2026-01-01T00:00:00Z .. 2026-01-01T00:00:30Z  60.5 s .. 30.5 s
                1-window    12345        17     3       0  30.9 %  5 MiB                          2026-01-01T00:00:00Z            60.5 s
                2-sink         17        17     0       0   0.0 %    0 B
            "#]],
        );
        check(
            &operator_table(&all, None),
            &expect![[r#"
                operator  rows in  rows out  late  failed     busy  most state
                0-source    12345     12345     0       0  37.0 ms         0 B
                1-window    12345        17     3       0  37.0 ms      10 MiB
                2-sink         17        17     0       0  51.0 us         0 B
            "#]],
        );
    }

    #[test]
    fn what_lies_on_the_disk_has_a_column_where_there_is_some() {
        let window = OperatorFigures { spilled_bytes: 3 << 20, ..operator("1-window", (12_345, 17), 3, 5 << 20, Some((0, 0))) };
        check(
            &operator_table(&[operator("0-source", (12_345, 12_345), 0, 0, Some((0, 0))), window], Some(Timestamp(500))),
            &expect![[r#"
                operator  rows in  rows out  late  failed    busy  state  on the disk             watermark  behind
                0-source    12345     12345     0       0  30.9 %    0 B               1970-01-01T00:00:00Z   0.5 s
                1-window    12345        17     3       0  30.9 %  5 MiB        3 MiB  1970-01-01T00:00:00Z   0.5 s
            "#]],
        );
    }

    #[test]
    fn times_have_three_figures() {
        let told = [4, 980, 1_250, 15_320, 999_900, 2_100_000, 75_000_000].map(|us| shown_time(Duration::from_micros(us)));
        assert_eq!(told, ["4.00 us", "980 us", "1.25 ms", "15.3 ms", "1000 ms", "2.10 s", "75.0 s"]);
    }

    #[test]
    fn state_is_told_beside_its_limit() {
        check(&state_line(200 << 20, Some(256 << 20), 0), &expect!["state    200 MiB of 256 MiB (78.1 %)\n"]);
        check(&state_line(12, None, 0), &expect!["state    12 B, without a limit\n"]);
        check(&state_line(12, None, 3 << 20), &expect!["state    12 B, without a limit; 3 MiB more on the disk\n"]);
    }
}
