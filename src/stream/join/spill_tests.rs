//! Rows of a join on the disk: they are found as they would be, or the query stops.

use super::tests::{chain, one, spec, two};
use super::*;
use crate::stream::doubles::{How, PLAIN, Partition, Reading, Told, run_beside, run_sources};
use crate::stream::spill::tests::{Fault, Shelf};
use crate::stream::{StateReader, StateWriter};

#[test]
fn rows_on_the_disk_meet_whom_they_would_have_met() {
    let (mut written, mut read) = (0, 0);
    for seed in 0..10 {
        for kind in [JoinKind::Inner, JoinKind::Full, JoinKind::Semi(Side::Left), JoinKind::Anti(Side::Right)] {
            let of = spec(kind, -60, 40, None);
            let (left, right) = (two(seed * 2, 120, 12), two(seed * 2 + 1, 120, 12));
            let sources: [&[Partition]; 2] = [&left, &right];
            let plain = run_sources(&|| chain(&of), &sources, How { merged: true, ..PLAIN });
            let shelf = Shelf::default();
            let how = How { seed, batch: 1 + seed as usize * 2, interrupt: seed % 2 == 0, merged: true, spill: true };
            assert_eq!(run_beside(&shelf, &|| chain(&of), &sources, how), plain, "{kind:?} as {how:?}");
            (written, read) = (written + shelf.used().0, read + shelf.used().1);
        }
    }
    assert!(written > 200 && read > 200, "{written} files were written and {read} read");
}

/// A full join that holds so many rows on the left, in several blocks, none of which has met anybody.
fn filled(rows: i64) -> Interval {
    let mut on = Interval::new(spec(JoinKind::Full, -1_000_000, 1_000_000, None)).unwrap();
    let mut out = Output::default();
    // Each less than half of the one before it, so that none is joined to another.
    for [from, to] in [[0, 20], [20, 28], [28, 31], [31, 32]].map(|range| range.map(|of| of * rows / 32)) {
        let readings: Vec<Reading> = (from..to).map(|at| (["ann", "bob"][at as usize % 2], Some(at), Some(at as f64))).collect();
        on.rows(Side::Left, one(&readings)[0].rows(), &mut out).unwrap();
        on.watermark(Timestamp(to), &mut out).unwrap();
    }
    assert!(out.rows.is_empty());
    on
}

/// A row of the right that meets all of bob's, and then the end.
fn ended(on: &mut Interval, at: i64) -> Result<Vec<Rows>, StreamError> {
    let mut out = Output::default();
    on.rows(Side::Right, one(&[("bob", Some(at), Some(7.0))])[0].rows(), &mut out)?;
    on.watermark(Timestamp(at + 1), &mut out)?;
    on.watermark(Timestamp::MAX, &mut out)?;
    Ok(out.rows)
}

fn told(rows: Result<Vec<Rows>, StreamError>) -> Told {
    let mut told = Told::default();
    told.take(Output { rows: rows.unwrap(), ..Output::default() });
    told
}

#[test]
fn blocks_that_come_back_come_whole_while_there_are_few_and_row_by_row_where_there_are_many() {
    for rows in [64, 4096] {
        let expected = told(ended(&mut filled(rows), rows + 5));
        let shelf = Shelf::default();
        let space = shelf.space();
        let mut on = filled(rows);
        let held = on.state_bytes();
        assert_eq!(on.spill(usize::MAX, &space).unwrap(), 0, "all of them have just been made");
        let freed = on.spill(usize::MAX, &space).unwrap();
        assert!(freed > 0 && on.state_bytes() + freed == held, "{held} bytes, {freed} freed, {} left", on.state_bytes());
        assert_eq!(on.spilled_bytes(), space.used());
        let files = shelf.files();
        assert!(files >= 2, "{files}");
        assert_eq!(told(ended(&mut on, rows + 5)), expected);
        assert!(shelf.used().1 >= files, "each was read");
        assert_eq!((shelf.files(), on.spilled_bytes()), (0, 0), "and deleted once its rows were gone");
    }
}

#[test]
fn a_block_is_written_once_and_goes_again_without_being_written() {
    let shelf = Shelf::default();
    let space = shelf.space();
    let mut on = filled(32);
    on.spill(usize::MAX, &space).unwrap();
    on.spill(usize::MAX, &space).unwrap();
    let written = shelf.used().0;
    let before = on.state_bytes();
    let mut out = Output::default();
    on.rows(Side::Right, one(&[("bob", Some(40), Some(7.0))])[0].rows(), &mut out).unwrap();
    on.watermark(Timestamp(41), &mut out).unwrap();
    assert!(shelf.used().1 > 0 && on.state_bytes() > before, "they have come back");
    assert_eq!(on.spill(usize::MAX, &space).unwrap(), 0, "and were looked into just now");
    assert!(on.spill(usize::MAX, &space).unwrap() > 0);
    assert_eq!(shelf.used().0, written);
}

#[test]
fn a_state_is_saved_without_bringing_what_lies_on_the_disk_and_restored_with_it() {
    let shelf = Shelf::default();
    let space = shelf.space();
    let (mut on, mut plain) = (filled(64), filled(64));
    for _ in 0..2 {
        on.spill(usize::MAX, &space).unwrap();
    }
    let mut state = StateWriter::default();
    on.save(&mut state).unwrap();
    assert_eq!(shelf.used().1, 0, "no file was read");
    let new = || Interval::new(spec(JoinKind::Full, -1_000_000, 1_000_000, None)).unwrap();
    let mut again = new();
    again.restore(&StateReader::of(state.parts.clone())).unwrap();
    assert_eq!(again.spilled_bytes(), on.spilled_bytes());
    drop(on);
    assert_eq!(told(ended(&mut again, 70)), told(ended(&mut plain, 70)));
    // What does not fit is refused and not believed.
    for gone in ["left.marks", "parked:left.rows"] {
        let place = state.parts.iter().position(|(name, _)| name == gone).unwrap();
        let mut parts = state.parts.clone();
        parts.remove(place);
        let error = new().restore(&StateReader::of(parts)).unwrap_err();
        assert!(error.to_string().contains("could not restore"), "{error}");
    }
}

#[test]
fn a_full_disk_changes_nothing_and_a_file_that_is_not_whole_is_an_error() {
    let shelf = Shelf::default();
    let space = shelf.space();
    let expected = told(ended(&mut filled(64), 70));
    shelf.set(Fault::Full);
    let mut full = filled(64);
    for _ in 0..3 {
        assert_eq!(full.spill(usize::MAX, &space).unwrap(), 0);
    }
    assert_eq!(told(ended(&mut full, 70)), expected);
    for fault in [Fault::Gone, Fault::Torn, Fault::Flipped] {
        shelf.set(Fault::Nothing);
        let mut on = filled(64);
        for _ in 0..2 {
            on.spill(usize::MAX, &space).unwrap();
        }
        shelf.set(fault);
        assert!(matches!(ended(&mut on, 70), Err(StreamError::Spill(_))), "{fault:?}");
    }
    assert_eq!(shelf.files(), 0);
}
