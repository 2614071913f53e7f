//! Sessions on the disk: they come out as they would have, or not at all.

use super::SessionAggregate;
use super::tests::{ONE, chain, operator};
use crate::stream::doubles::{How, PLAIN, Partition, Reading, readings_of, run, run_beside};
use crate::stream::spill::tests::{Fault, Shelf};
use crate::stream::{Operator, Output, Scope, StatePart, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

#[test]
fn sessions_on_the_disk_are_those_in_memory() {
    let (mut written, mut read) = (0, 0);
    for seed in 0..4 {
        for (gap, delay, disorder) in [(6, 2, 4), (40, 20, 30)] {
            let partition = |p: i32| Partition::new(p, delay, &readings_of(40, seed * 10 + p as u64, 160, 2, disorder));
            for (scope, merged, partitions) in
                [(ONE, false, vec![partition(0)]), (Scope::Merged, true, vec![partition(0), partition(1), partition(2)])]
            {
                let plain = run(&|| chain(gap, scope), &partitions, How { merged, ..PLAIN });
                for interrupt in [false, true] {
                    let shelf = Shelf::default();
                    let how = How { seed, batch: 1 + seed as usize * 3, interrupt, merged, spill: true };
                    assert_eq!(run_beside(&shelf, &|| chain(gap, scope), &[&partitions], how), plain, "gap {gap} as {how:?}");
                    (written, read) = (written + shelf.used().0, read + shelf.used().1);
                }
            }
        }
    }
    assert!(written > 1000 && read > 1000, "{written} files were written and {read} read");
}

/// Sessions of many keys, one of which has two that a late row has joined, and one two that stand apart.
fn filled() -> SessionAggregate {
    let mut one = operator(10, ONE);
    let mut rows: Vec<Reading> = readings_of(60, 1, 400, 0, 0);
    rows.iter_mut().enumerate().for_each(|(at, reading)| reading.1 = Some(at as i64 / 40));
    rows.extend([("ann", Some(0), Some(1.0)), ("ann", Some(20), Some(2.0)), ("ann", Some(10), Some(3.0))]);
    rows.extend([("bob", Some(0), Some(4.0)), ("bob", Some(50), Some(5.0))]);
    one.rows(Partition::new(0, 1000, &rows).rows(), &mut Output::default()).unwrap();
    one
}

fn row(key: &'static str, at: i64) -> Partition {
    Partition::new(0, 1000, &[(key, Some(at), Some(9.0))])
}

fn ended(of: &mut SessionAggregate) -> Result<Vec<String>, StreamError> {
    let mut out = Output::default();
    of.watermark(Timestamp::MAX, &mut out)?;
    let line = |batch: &arrow::array::RecordBatch, row: usize| {
        let cells = batch.columns().iter().map(|column| arrow::util::display::array_value_to_string(column, row).unwrap());
        cells.collect::<Vec<_>>().join(" ")
    };
    Ok(out.rows.iter().flat_map(|rows| (0..rows.len()).map(|row| line(&rows.batch, row))).collect())
}

#[test]
fn what_a_row_has_just_come_for_stays_and_what_goes_is_about_what_was_asked_for() {
    let shelf = Shelf::default();
    let space = shelf.space();
    let (mut one, mut plain) = (filled(), filled());
    let held = one.state_bytes();
    assert_eq!((one.spill(usize::MAX, &space).unwrap(), one.spilled_bytes()), (0, 0), "all of them have just been made");
    assert_eq!(one.spill(0, &space).unwrap(), 0);
    one.rows(row("ann", 25).rows(), &mut Output::default()).unwrap();
    plain.rows(row("ann", 25).rows(), &mut Output::default()).unwrap();
    let freed = one.spill(held / 8, &space).unwrap();
    assert!(freed > held / 16 && freed < held / 4, "{freed} of {held}");
    one.spill(usize::MAX, &space).unwrap();
    assert!(one.state_bytes() < held / 2 && one.spilled_bytes() == space.used(), "{} of {held}", one.state_bytes());
    // Who is due is known as before.
    for now in [0, 9, 10, 15, 20, 35, 36, 60, 61, 100] {
        assert_eq!(one.due(Timestamp(now)), plain.due(Timestamp(now)), "at {now}");
    }
    // A row for one of them brings it back, and it goes on.
    let before = one.state_bytes();
    for (key, at) in [("bob", 41), ("bob", 3), ("cleo", 7), ("key 7", 12)] {
        one.rows(row(key, at).rows(), &mut Output::default()).unwrap();
        plain.rows(row(key, at).rows(), &mut Output::default()).unwrap();
    }
    assert!(one.state_bytes() > before);
    assert_eq!(ended(&mut one).unwrap(), ended(&mut plain).unwrap());
    assert_eq!((shelf.files(), one.spilled_bytes()), (0, 0));
}

#[test]
fn a_state_with_sessions_on_the_disk_is_restored_with_them_there_or_in_memory() {
    let shelf = Shelf::default();
    let space = shelf.space();
    let expected = ended(&mut filled()).unwrap();
    let mut one = filled();
    one.spill(0, &space).unwrap();
    one.spill(usize::MAX, &space).unwrap();
    let mut state = StateWriter::default();
    one.save(&mut state).unwrap();
    assert_eq!(shelf.used().1, 0, "no file was read");
    let parts = state.parts;
    let mut there = operator(10, ONE);
    there.restore(&StateReader::of(parts.clone())).unwrap();
    assert!(there.spilled_bytes() > 0 && there.spilled_bytes() == one.spilled_bytes());
    // A node that puts nothing on the disk reads the same state.
    let here = |part: &StatePart| match part {
        StatePart::Parked(parked) => StatePart::Batch(parked.load().unwrap()),
        StatePart::Batch(batch) => StatePart::Batch(batch.clone()),
    };
    let loaded = parts.iter().map(|(name, part)| (name.clone(), here(part))).collect();
    let mut without = operator(10, ONE);
    without.restore(&StateReader::of(loaded)).unwrap();
    assert_eq!((without.spilled_bytes(), without.due(Timestamp(15))), (0, one.due(Timestamp(15))));
    drop(parts);
    for of in [&mut one, &mut there, &mut without] {
        assert_eq!(ended(of).unwrap(), expected);
    }
    assert_eq!(shelf.files(), 0);
}

#[test]
fn a_full_disk_changes_nothing_and_a_file_that_is_not_whole_is_an_error() {
    let shelf = Shelf::default();
    let space = shelf.space();
    let expected = ended(&mut filled()).unwrap();
    let mut full = filled();
    shelf.set(Fault::Full);
    for _ in 0..3 {
        full.spill(usize::MAX, &space).unwrap();
        assert_eq!(full.spilled_bytes(), 0);
    }
    assert_eq!(ended(&mut full).unwrap(), expected);
    for fault in [Fault::Gone, Fault::Torn, Fault::Flipped] {
        shelf.set(Fault::Nothing);
        let (mut fires, mut takes) = (filled(), filled());
        for one in [&mut fires, &mut takes] {
            for _ in 0..2 {
                one.spill(usize::MAX, &space).unwrap();
            }
            assert!(one.spilled_bytes() > 0);
        }
        shelf.set(fault);
        assert!(matches!(ended(&mut fires), Err(StreamError::Spill(_))), "{fault:?}");
        let mut out = Output::default();
        assert!(matches!(takes.rows(row("ann", 5).rows(), &mut out), Err(StreamError::Spill(_))), "{fault:?}");
        assert!(out.rows.is_empty() && out.failed.is_empty() && out.aside.is_empty());
    }
    assert_eq!(shelf.files(), 0);
}
