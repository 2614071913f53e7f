//! Panes on the disk: they come out as they would have, or not at all.

use super::tests::{ONE, chain, operator};
use super::*;
use crate::stream::doubles::{How, PLAIN, Partition, readings, run, run_beside};
use crate::stream::spill::tests::{Fault, Shelf};
use crate::stream::{Operator, Output, Scope, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// A window of ten panes, with a row in each of the first eight.
fn filled() -> WindowAggregate {
    let mut one = operator(WindowRule::hop(10, 100, 0).unwrap(), ONE, true);
    let rows: Vec<_> = (0..8).map(|pane| ("ann", Some(pane * 10), Some(pane as f64 / 2.0))).collect();
    one.rows(Partition::new(0, 1000, &rows).rows(), &mut Output::default()).unwrap();
    one
}

fn rows(out: &Output) -> Vec<String> {
    let line = |batch: &arrow::array::RecordBatch, row: usize| {
        let cells = batch.columns().iter().map(|column| arrow::util::display::array_value_to_string(column, row).unwrap());
        cells.collect::<Vec<_>>().join(" ")
    };
    out.rows.iter().flat_map(|rows| (0..rows.len()).map(|row| line(&rows.batch, row))).collect()
}

fn ended(of: &mut WindowAggregate) -> Result<Vec<String>, StreamError> {
    let mut out = Output::default();
    of.watermark(Timestamp::MAX, &mut out)?;
    Ok(rows(&out))
}

#[test]
fn windows_of_panes_on_the_disk_are_those_of_panes_in_memory() {
    let (mut written, mut read) = (0, 0);
    for seed in 0..10 {
        for rule in [WindowRule::hop(3, 30, 1), WindowRule::tumble(10, 0), WindowRule::cumulate(5, 40, 0)] {
            let rule = rule.unwrap();
            let partition = |p: i32| Partition::new(p, 9, &readings(seed * 10 + p as u64, 120, 4, 14));
            for (scope, merged, partitions) in
                [(ONE, false, vec![partition(0)]), (Scope::Merged, true, vec![partition(0), partition(1), partition(2)])]
            {
                let plain = run(&|| chain(rule, scope, true), &partitions, How { merged, ..PLAIN });
                let shelf = Shelf::default();
                let how = How { seed, batch: 1 + seed as usize * 3, interrupt: seed % 2 == 0, merged, spill: true };
                assert_eq!(run_beside(&shelf, &|| chain(rule, scope, true), &[&partitions], how), plain, "{rule:?} as {how:?}");
                (written, read) = (written + shelf.used().0, read + shelf.used().1);
            }
        }
    }
    assert!(written > 200 && read > 200, "{written} files were written and {read} read");
}

#[test]
fn what_a_row_has_just_come_for_stays_and_what_goes_is_no_more_than_was_asked_for() {
    let shelf = Shelf::default();
    let space = shelf.space();
    let mut one = filled();
    let held = one.state_bytes();
    assert_eq!((one.spill(usize::MAX, &space).unwrap(), one.spilled_bytes()), (0, 0), "all of them have just been made");
    assert_eq!(one.spill(0, &space).unwrap(), 0);
    one.rows(Partition::new(0, 1000, &[("ann", Some(5), Some(1.0)), ("bob", Some(15), Some(1.0))]).rows(), &mut Output::default()).unwrap();
    let freed = one.spill(1, &space).unwrap();
    assert!(freed > 0 && freed < held / 8, "one is enough: {freed} of {held}");
    assert_eq!(shelf.files(), 1);
    let freed = freed + one.spill(usize::MAX, &space).unwrap();
    assert_eq!(shelf.files(), 2, "small ones share a file");
    assert!(one.state_bytes() + freed >= held && one.state_bytes() < held);
    assert_eq!(one.spilled_bytes(), space.used());
    // A row for one of them brings it back, and it goes on.
    let before = one.state_bytes();
    one.rows(Partition::new(0, 1000, &[("bob", Some(75), Some(1.0))]).rows(), &mut Output::default()).unwrap();
    assert!(one.state_bytes() > before);
    let mut plain = filled();
    for row in [("ann", Some(5), Some(1.0)), ("bob", Some(15), Some(1.0)), ("bob", Some(75), Some(1.0))] {
        plain.rows(Partition::new(0, 1000, &[row]).rows(), &mut Output::default()).unwrap();
    }
    assert_eq!(ended(&mut one).unwrap(), ended(&mut plain).unwrap());
    assert_eq!((shelf.files(), one.spilled_bytes()), (0, 0));
}

#[test]
fn a_state_is_saved_and_restored_without_bringing_what_lies_on_the_disk() {
    let shelf = Shelf::default();
    let space = shelf.space();
    let mut one = filled();
    let mut plain = filled();
    for _ in 0..2 {
        one.spill(usize::MAX, &space).unwrap();
    }
    let files = shelf.files();
    let mut state = StateWriter::default();
    one.save(&mut state).unwrap();
    let mut again = operator(WindowRule::hop(10, 100, 0).unwrap(), ONE, true);
    again.restore(&StateReader::of(state.parts.clone())).unwrap();
    assert_eq!((shelf.files(), shelf.used().1), (files, 0), "no file was read, and none written");
    assert_eq!(again.spilled_bytes(), one.spilled_bytes());
    drop(one);
    assert_eq!(ended(&mut again).unwrap(), ended(&mut plain).unwrap());
    // What does not fit is refused and not believed.
    let all = state.parts;
    for gone in ["file", "lying"] {
        let parts: Vec<_> = all.iter().filter(|(name, _)| !name.ends_with(gone)).cloned().collect();
        assert!(parts.len() < all.len());
        let restored = operator(WindowRule::hop(10, 100, 0).unwrap(), ONE, true).restore(&StateReader::of(parts));
        assert_eq!(restored.is_err(), gone == "file", "without {gone}");
    }
    let mut other = operator(WindowRule::hop(10, 100, 0).unwrap(), ONE, false);
    let error = other.restore(&StateReader::of(all)).map(|()| ended(&mut other)).unwrap().unwrap_err();
    assert!(error.to_string().contains("other groups"), "{error}");
}

#[test]
fn a_full_disk_changes_nothing_and_a_file_that_is_not_whole_is_an_error() {
    let shelf = Shelf::default();
    let space = shelf.space();
    let expected = ended(&mut filled()).unwrap();
    let mut full = filled();
    shelf.set(Fault::Full);
    for _ in 0..3 {
        assert_eq!(full.spill(usize::MAX, &space).unwrap(), 0);
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
        let late = Partition::new(0, 1000, &[("ann", Some(5), Some(1.0))]);
        let mut out = Output::default();
        assert!(matches!(takes.rows(late.rows(), &mut out), Err(StreamError::Spill(_))), "{fault:?}");
        assert!(out.rows.is_empty() && out.failed.is_empty() && out.aside.is_empty());
    }
    assert_eq!(shelf.files(), 0);
}
