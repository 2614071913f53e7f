//! Groups on the disk: what is told of them, and in which order, is what would have been told.

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::tests::{ONE, operator, until_its_window_ends};
use super::*;
use crate::stream::doubles::{Partition, readings_of};
use crate::stream::spill::tests::{Fault, Shelf};
use crate::stream::{Operator, Output, Scope, SpillSpace, StatePart, StateReader, StateWriter, StreamError, WindowRule};
use crate::time::Timestamp;

/// Everything that came out, a line each, in order.
fn lines(out: &Output) -> Vec<String> {
    let cell = |batch: &RecordBatch, column: usize, row: usize| array_value_to_string(batch.column(column), row).unwrap();
    let mut lines = Vec::new();
    for rows in &out.rows {
        for row in 0..rows.len() {
            let cells: Vec<String> = (0..rows.batch.num_columns()).map(|column| cell(&rows.batch, column, row)).collect();
            let gone = if rows.gone { "gone " } else { "" };
            lines.push(format!("{gone}{} at {}", cells.join(" "), rows.times[row]));
        }
    }
    assert!(out.failed.is_empty());
    lines.extend(out.aside.iter().map(|row| format!("p{}@{} {:?}", row.partition.0, row.offset, row.why)));
    lines
}

fn again(of: &mut UpdateAggregate, make: &dyn Fn() -> UpdateAggregate, brings: bool) -> UpdateAggregate {
    let mut state = StateWriter::default();
    of.save(&mut state).unwrap();
    let mut parts = state.parts;
    for (_, part) in parts.iter_mut().filter(|_| brings) {
        if let StatePart::Parked(parked) = part {
            *part = StatePart::Batch(parked.load().unwrap());
        }
    }
    let mut restored = make();
    restored.restore(&StateReader::of(parts)).unwrap();
    restored
}

/// Carries the partitions through: cut, with the watermarks and flushes that the seed says. Where there is room on the disk, what can be
/// there is, and the operator is restored now and then: from what lies there, or where there is none any more.
fn told(make: &dyn Fn() -> UpdateAggregate, partitions: &[Partition], seed: u64, space: Option<&SpillSpace>) -> Vec<String> {
    let (mut chance, mut other) = (ChaCha8Rng::seed_from_u64(seed), ChaCha8Rng::seed_from_u64(seed + 1000));
    let (mut on, mut told) = (make(), Vec::new());
    let mut at = vec![0; partitions.len()];
    let mut merged = i64::MIN;
    loop {
        let left: Vec<usize> = (0..partitions.len()).filter(|p| at[*p] < partitions[*p].rows().len()).collect();
        let Some(partition) = left.get(chance.random_range(0..left.len().max(1))).copied() else { break };
        let most = partitions[partition].rows().len() - at[partition];
        let len = chance.random_range(1..=most.min(1 + seed as usize % 3 * 6));
        let mut out = Output::default();
        on.rows(&partitions[partition].rows().slice(at[partition], len), &mut out).unwrap();
        at[partition] += len;
        let mark = partitions.iter().zip(&at).map(|(of, at)| of.mark(*at)).min().unwrap();
        if mark > merged && (partitions.len() == 1 || chance.random_bool(0.5)) {
            merged = mark;
            on.watermark(Timestamp(mark), &mut out).unwrap();
        }
        let now = merged.saturating_add(chance.random_range(1..30));
        told.push(format!("due {:?}", on.due(Timestamp(now))));
        if chance.random_bool(0.3) {
            while on.flush(&mut out).unwrap() {}
        }
        told.extend(lines(&out));
        let Some(space) = space else { continue };
        for _ in 0..other.random_range(0..4) {
            on.spill(usize::MAX, space).unwrap();
        }
        if other.random_bool(0.1) {
            on = again(&mut on, make, other.random_bool(0.3));
        }
    }
    for at in [merged.saturating_add(5), i64::MAX] {
        let mut out = Output::default();
        on.watermark(Timestamp(at), &mut out).unwrap();
        while on.flush(&mut out).unwrap() {}
        told.extend(lines(&out));
    }
    told
}

fn check(make: &dyn Fn(Scope) -> UpdateAggregate, seeds: std::ops::Range<u64>, what: &str) {
    let (mut written, mut read, mut rows) = (0, 0, 0);
    for seed in seeds {
        for count in [1, 3] {
            let input = |p: i32| Partition::new(p, 4, &readings_of(40, seed * 10 + p as u64, 240 / count as usize, 2, 25));
            let partitions: Vec<Partition> = (0..count).map(input).collect();
            let scope = if count == 1 { ONE } else { Scope::Merged };
            let shelf = Shelf::default();
            let space = shelf.space();
            let expected = told(&|| make(scope), &partitions, seed, None);
            let found = told(&|| make(scope), &partitions, seed, Some(&space));
            let differs = expected.iter().zip(&found).position(|(a, b)| a != b);
            if let Some(at) = differs {
                panic!("{what}, seed {seed}, {count} partitions: line {at} is {} and not {}", found[at], expected[at]);
            }
            assert_eq!(found.len(), expected.len(), "{what}, seed {seed}, {count} partitions");
            (written, read, rows) = (written + shelf.used().0, read + shelf.used().1, rows + expected.len());
            assert_eq!((shelf.files(), space.used()), (0, 0), "{what}");
        }
    }
    assert!(written > 100 && read > 100, "{what}: {written} files were written and {read} read for {rows} lines");
}

#[test]
fn groups_without_an_end_are_told_as_they_would_be() {
    for most in [None, Some(8.0)] {
        let life = GroupLife::Open { ttl_ms: None };
        check(&|scope| operator(scope, life, GroupEmit::OnUpdate, most), 0..3, &format!("{most:?}"));
    }
}

#[test]
fn groups_that_are_let_go_are_told_as_they_would_be() {
    for (ttl, most) in [(7, None), (30, Some(8.0)), (60, None)] {
        let life = GroupLife::Open { ttl_ms: Some(ttl) };
        check(&|scope| operator(scope, life, GroupEmit::OnUpdate, most), 0..3, &format!("{ttl} ms, {most:?}"));
    }
}

#[test]
fn windows_that_speak_early_or_once_more_are_told_as_they_would_be() {
    for (slide, size, grace_ms, emit, most) in
        [(10, 10, 0, GroupEmit::OnUpdate, None), (5, 20, 15, GroupEmit::OnClose, Some(8.0)), (20, 20, 40, GroupEmit::OnUpdate, None)]
    {
        let life = GroupLife::Window { rule: WindowRule::hop(slide, size, 0).unwrap(), grace_ms };
        check(&|scope| operator(scope, life, emit, most), 0..3, &format!("{slide} of {size}, {grace_ms} more, {emit:?}"));
    }
}

#[test]
fn groups_with_a_time_in_their_key_are_told_as_they_would_be() {
    check(&until_its_window_ends, 0..4, "until their windows end");
}

/// Groups that have been told.
fn filled() -> UpdateAggregate {
    let mut one = operator(ONE, GroupLife::Open { ttl_ms: None }, GroupEmit::OnUpdate, None);
    one.rows(Partition::new(0, 1000, &readings_of(80, 1, 400, 1, 0)).rows(), &mut Output::default()).unwrap();
    one.flush(&mut Output::default()).unwrap();
    one
}

fn row(of: &mut UpdateAggregate, key: &'static str) -> Result<Vec<String>, StreamError> {
    let mut out = Output::default();
    of.rows(Partition::new(0, 1000, &[(key, Some(500), Some(0.5))]).rows(), &mut out)?;
    of.flush(&mut out)?;
    Ok(lines(&out))
}

#[test]
fn what_has_just_changed_or_is_to_be_told_stays_and_what_goes_is_about_what_was_asked_for() {
    let shelf = Shelf::default();
    let space = shelf.space();
    let (mut one, mut plain) = (filled(), filled());
    let held = one.state_bytes();
    assert_eq!((one.spill(usize::MAX, &space).unwrap(), one.spilled_bytes()), (0, 0), "all of them have just been made");
    assert_eq!(one.spill(0, &space).unwrap(), 0);
    let all = one.groups.kept;
    one.spill(held / 8, &space).unwrap();
    assert!((all / 2..all - 5).contains(&one.groups.kept), "{} of {all} are here", one.groups.kept);
    let late = Partition::new(0, 1000, &[("key 7", Some(600), Some(2.0))]);
    for of in [&mut one, &mut plain] {
        of.rows(late.rows(), &mut Output::default()).unwrap();
    }
    for _ in 0..3 {
        one.spill(usize::MAX, &space).unwrap();
    }
    assert_eq!((one.groups.kept, one.has_changes()), (1, true), "it has something to say");
    assert!(one.spilled_bytes() == space.used() && one.state_bytes() < held, "{} of {held}", one.state_bytes());
    for key in ["key 7", "key 8", "never", "key 79", "key 8"] {
        assert_eq!(row(&mut one, key).unwrap(), row(&mut plain, key).unwrap());
    }
    // All of them, in one commit and in the order of their rows.
    let all = readings_of(80, 2, 300, 1, 0);
    let told = [&mut one, &mut plain].map(|of| {
        let mut out = Output::default();
        of.rows(Partition::new(0, 1000, &all).rows(), &mut out).unwrap();
        of.flush(&mut out).unwrap();
        lines(&out)
    });
    assert!(told[0] == told[1] && told[0].len() > 70);
}

#[test]
fn a_full_disk_changes_nothing_and_a_file_that_is_not_whole_is_an_error() {
    let shelf = Shelf::default();
    let space = shelf.space();
    shelf.set(Fault::Full);
    let (mut full, mut plain) = (filled(), filled());
    for _ in 0..3 {
        assert_eq!(full.spill(usize::MAX, &space).unwrap(), 0);
    }
    assert_eq!(row(&mut full, "key 5").unwrap(), row(&mut plain, "key 5").unwrap());
    for fault in [Fault::Gone, Fault::Torn, Fault::Flipped] {
        shelf.set(Fault::Nothing);
        let mut one = filled();
        for _ in 0..2 {
            one.spill(usize::MAX, &space).unwrap();
        }
        assert!(one.spilled_bytes() > 0);
        shelf.set(fault);
        assert!(matches!(row(&mut one, "key 5"), Err(StreamError::Spill(_))), "{fault:?}");
    }
    assert_eq!(shelf.files(), 0);
}

#[test]
fn what_is_told_in_one_commit_keeps_its_order_over_a_restart() {
    let make = || operator(ONE, GroupLife::Open { ttl_ms: Some(100) }, GroupEmit::OnUpdate, None);
    let mut one = make();
    let rows = |of: &mut UpdateAggregate, rows: &[(&'static str, i64)]| {
        let rows: Vec<_> = rows.iter().map(|(key, at)| (*key, Some(*at), Some(1.0))).collect();
        of.rows(Partition::new(0, 1000, &rows).rows(), &mut Output::default()).unwrap();
    };
    rows(&mut one, &[("dan", 0), ("ann", 0), ("cleo", 150)]);
    one.flush(&mut Output::default()).unwrap();
    rows(&mut one, &[("dan", 0), ("cleo", 150), ("ann", 90)]);
    let mut other = again(&mut one, &make, false);
    for of in [&mut one, &mut other] {
        // Dan goes, and zoe takes his place among the groups, but not in what is told.
        of.watermark(Timestamp(120), &mut Output::default()).unwrap();
        rows(of, &[("bob", 150), ("zoe", 150)]);
        let mut out = Output::default();
        of.flush(&mut out).unwrap();
        let told = lines(&out);
        let keys: Vec<&str> = told.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(keys, ["cleo", "ann", "bob", "zoe"]);
    }
}
