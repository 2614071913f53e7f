//! Joins against models that are too plain to be wrong, cut, interleaved, committed and restarted at random places.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};

use super::*;
use crate::stream::doubles::{
    Below, Column, Hundredth, Kind, Numbering, Partition, Reading, Told, aggregate, check_sources, reading_schema, readings, time_type,
};
use crate::stream::{Chain, Expr, NO_TIME, Operator, Scope, WindowAggregate, WindowAggregateSpec, WindowColumn, WindowRule};

const KINDS: [JoinKind; 8] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
    JoinKind::Semi(Side::Left),
    JoinKind::Semi(Side::Right),
    JoinKind::Anti(Side::Left),
    JoinKind::Anti(Side::Right),
];

/// Both sides' columns, as many as come out.
fn joined_schema(kind: JoinKind) -> SchemaRef {
    let of = |side: Side| {
        let shown = if kind.shows(side) { reading_schema().fields().to_vec() } else { Vec::new() };
        shown.into_iter().map(move |field| Arc::new(field.as_ref().clone().with_name(format!("{}.{}", side.word(), field.name()))))
    };
    Arc::new(Schema::new(of(Side::Left).chain(of(Side::Right)).collect::<Vec<_>>()))
}

pub(super) fn spec(kind: JoinKind, least_ms: i64, greatest_ms: i64, condition: Option<Arc<dyn Expr>>) -> IntervalSpec {
    let key = || vec![Arc::new(Column(0)) as Arc<dyn Expr>];
    IntervalSpec {
        kind,
        inputs: [reading_schema(), reading_schema()],
        keys: [key(), key()],
        null_equals_null: false,
        least_ms,
        greatest_ms,
        condition,
        schema: joined_schema(kind),
    }
}

pub(super) fn chain(spec: &IntervalSpec) -> Chain {
    Chain::joined(Chain::default(), Chain::default(), Box::new(Interval::new(spec.clone()).unwrap()), Vec::new())
}

/// One reading as a model sees it: its place in the order that both sides share, and its cells.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    time: i64,
    side: Side,
    partition: i32,
    offset: i64,
    key: String,
    value: Option<f64>,
}

impl Seen {
    fn place(&self) -> (i64, usize, i32, i64) {
        (self.time, self.side as usize, self.partition, self.offset)
    }

    fn cells(&self) -> String {
        format!("{} {} {}", self.key, self.time, self.value.map_or("-".to_owned(), |value| format!("{value:?}")))
    }
}

/// The readings of a side that are not late.
fn seen(side: Side, partitions: &[Partition]) -> Vec<Seen> {
    let mut all = Vec::new();
    for rows in partitions.iter().map(Partition::rows) {
        let values = rows.batch.column(2).as_primitive::<Float64Type>();
        for row in (0..rows.len()).filter(|row| rows.times[*row] != NO_TIME && rows.times[*row] >= rows.before[*row]) {
            all.push(Seen {
                time: rows.times[row],
                side,
                partition: rows.partition.0,
                offset: rows.offsets[row],
                key: rows.batch.column(0).as_string::<i32>().value(row).to_owned(),
                value: values.iter().nth(row).unwrap(),
            });
        }
    }
    all.sort_by_key(Seen::place);
    all
}

const NONE: &str = "- - -";

/// Every pair, looked at one by one.
fn model(of: &IntervalSpec, below: Option<f64>, left: &[Partition], right: &[Partition]) -> Vec<String> {
    let (left, right) = (seen(Side::Left, left), seen(Side::Right, right));
    let pairs = |l: &Seen, r: &Seen| {
        let apart = r.time - l.time;
        let fits = below.is_none_or(|below| r.value.is_some_and(|value| value < below));
        l.key == r.key && (of.least_ms..=of.greatest_ms).contains(&apart) && fits
    };
    // Each line with its place: when it is found, whether by silence, and then the order within.
    let mut lines = Vec::new();
    for l in &left {
        for r in right.iter().filter(|r| pairs(l, r)) {
            let (later, earlier) = if l.place() < r.place() { (r, l) } else { (l, r) };
            let place = ((later.time, 0), later.place(), earlier.place());
            match of.kind {
                JoinKind::Semi(Side::Left) => lines.push((place, l.place(), l.cells())),
                JoinKind::Semi(Side::Right) => lines.push((place, r.place(), r.cells())),
                JoinKind::Anti(_) => {}
                _ => lines.push((place, l.place(), format!("{} {}", l.cells(), r.cells()))),
            }
        }
    }
    if let JoinKind::Semi(_) = of.kind {
        // Each once, where it found its first.
        lines.sort();
        let mut met = std::collections::BTreeSet::new();
        lines.retain(|(_, row, _)| met.insert(*row));
    }
    let none = (i64::MIN, 0, 0, 0);
    for (side, rows) in [(Side::Left, &left), (Side::Right, &right)].into_iter().filter(|(side, _)| of.kind.gives_unmatched(*side)) {
        for row in rows {
            let alone = match side {
                Side::Left => !right.iter().any(|r| pairs(row, r)),
                Side::Right => !left.iter().any(|l| pairs(l, row)),
            };
            let reach = if side == Side::Left { of.greatest_ms.max(0) } else { (-of.least_ms).max(0) };
            let text = match (of.kind, side) {
                (JoinKind::Anti(_), _) => row.cells(),
                (_, Side::Left) => format!("{} {NONE}", row.cells()),
                (_, Side::Right) => format!("{NONE} {}", row.cells()),
            };
            if alone {
                let (time, _, partition, offset) = row.place();
                let order = (side as i64, 0, 0, 0);
                lines.push((((row.time + reach, 1), order, (time, 0, partition, offset)), none, text));
            }
        }
    }
    lines.sort();
    lines.into_iter().map(|(.., text)| text).collect()
}

pub(super) fn two(seed: u64, count: usize, delay: i64) -> Vec<Partition> {
    (0..2_u64).map(|p| Partition::new(p as i32, delay, &readings(seed * 10 + p, count, 6, 20))).collect()
}

#[test]
fn an_interval_join_of_every_kind_is_what_its_model_says_however_it_is_carried_through() {
    for (seed, (least, greatest)) in [(-10, 0), (-5, 5), (0, 0), (3, 12), (-20, -8), (4, 2)].into_iter().enumerate() {
        for (at, kind) in KINDS.into_iter().enumerate() {
            let below = ((seed + at) % 2 == 1).then_some(5.0);
            let (left, right) = (two(seed as u64, 60, 12), two(100 + seed as u64, 60, 15));
            let condition = below.map(|below| Arc::new(Below(5, below)) as Arc<dyn Expr>);
            let of = spec(kind, least, greatest, condition);
            let told = check_sources(&|| chain(&of), &[&left, &right], true);
            assert_eq!(told.rows, model(&of, below, &left, &right), "{kind:?} {least}..{greatest} {below:?}");
            assert!(told.others.iter().any(|line| line.ends_with("late")), "the readings are such that some are late");
        }
    }
}

pub(super) fn one(readings: &[Reading]) -> [Partition; 1] {
    [Partition::new(0, 0, readings)]
}

fn told(of: &IntervalSpec, left: &[Reading], right: &[Reading]) -> Told {
    check_sources(&|| chain(of), &[&one(left), &one(right)], false)
}

#[test]
fn both_ends_of_the_range_belong_to_it_and_the_rows_beyond_do_not() {
    let of = spec(JoinKind::Inner, -10, 5, None);
    let left = [("ann", Some(100), Some(1.0))];
    let right = [("ann", Some(89), Some(2.0)), ("ann", Some(90), Some(3.0)), ("ann", Some(105), Some(4.0)), ("ann", Some(106), Some(5.0))];
    assert_eq!(told(&of, &left, &right).rows, ["ann 100 1.0 ann 90 3.0", "ann 100 1.0 ann 105 4.0"]);
}

#[test]
fn a_row_without_a_partner_comes_out_when_none_can_come_any_more_and_not_before() {
    let of = spec(JoinKind::Left, 0, 10, None);
    let mut on = chain(&of);
    let mut out = Output::default();
    on.rows_of(0, one(&[("ann", Some(100), None)])[0].rows(), &mut out).unwrap();
    on.watermark(Timestamp(110), &mut out).unwrap();
    assert!(out.rows.is_empty(), "a row of the time 110 may still come");
    assert_eq!(on.due(Timestamp(110)), None);
    assert_eq!(on.due(Timestamp(111)), Some(Timestamp(111)), "the clock may say so once 110 is over");
    on.watermark(Timestamp(111), &mut out).unwrap();
    assert_eq!(out.rows.iter().map(Rows::len).sum::<usize>(), 1);
    assert_eq!((out.rows[0].times[0], out.rows[0].before[0]), (100, 100));
    assert_eq!(on.due(Timestamp(500)), None, "nothing is left");
}

#[test]
fn null_equals_null_only_where_it_is_said() {
    let mut of = spec(JoinKind::Full, 0, 0, None);
    of.keys = [vec![Arc::new(Column(2))], vec![Arc::new(Column(2))]];
    let rows = [("ann", Some(1), None), ("bob", Some(1), Some(2.0))];
    assert_eq!(told(&of, &rows, &rows).rows, ["bob 1 2.0 bob 1 2.0", "ann 1 - - - -", "- - - ann 1 -"]);
    of.null_equals_null = true;
    assert_eq!(told(&of, &rows, &rows).rows, ["ann 1 - ann 1 -", "bob 1 2.0 bob 1 2.0"]);
}

#[test]
fn a_pair_whose_condition_fails_is_a_dead_letter_and_the_pairs_beside_it_go_on() {
    #[derive(Debug)]
    struct Positive(Hundredth);
    impl Expr for Positive {
        fn evaluate(&self, batch: &arrow::array::RecordBatch) -> Result<arrow::array::ArrayRef, StreamError> {
            let share = self.0.evaluate(batch)?;
            let share = share.as_primitive::<Float64Type>();
            Ok(Arc::new(share.iter().map(|value| value.map(|v| v > 0.0)).collect::<arrow::array::BooleanArray>()))
        }
        fn text(&self) -> String {
            "100 / value > 0".to_owned()
        }
    }
    let of = spec(JoinKind::Left, 0, 0, Some(Arc::new(Positive(Hundredth(5)))));
    let left = [("ann", Some(1), Some(7.0)), ("bob", Some(1), Some(8.0))];
    let right = [("ann", Some(1), Some(0.0)), ("bob", Some(1), Some(4.0))];
    let found = told(&of, &left, &right);
    assert_eq!(found.rows, ["bob 1 8.0 bob 1 4.0", "ann 1 7.0 - - -"]);
    assert_eq!(found.others, ["p0@-1 could not evaluate 100 / value > 0: division by zero"]);
}

#[test]
fn windows_behind_a_join_lose_nothing_and_say_the_same_however_it_is_carried_through() {
    let of = spec(JoinKind::Left, -8, 8, None);
    let windowed = || {
        let fields = vec![
            Field::new("key", DataType::Utf8, true),
            Field::new("start", time_type(), false),
            Field::new("words", DataType::Utf8, true),
        ];
        let window = WindowAggregate::new(WindowAggregateSpec {
            rule: WindowRule::tumble(20, 0).unwrap(),
            scope: Scope::Merged,
            keys: vec![Arc::new(Column(0))],
            keys_factory: Some(Arc::new(Numbering(vec![DataType::Utf8]))),
            folds: vec![aggregate(Kind::Words, Arc::new(Column(5)), None)],
            columns: vec![WindowColumn::Key(0), WindowColumn::WindowStart, WindowColumn::Agg(0)],
            schema: Arc::new(Schema::new(fields)),
        });
        let behind: Vec<Box<dyn Operator>> = vec![Box::new(window.unwrap())];
        Chain::joined(Chain::default(), Chain::default(), Box::new(Interval::new(of.clone()).unwrap()), behind)
    };
    let (left, right) = (two(7, 80, 12), two(8, 80, 12));
    let told = check_sources(&windowed, &[&left, &right], true);
    let words = model(&of, None, &left, &right).iter().filter(|line| !line.ends_with('-')).count();
    let counted: usize = told.rows.iter().map(|row| row.split(' ').nth(2).map_or(0, |words| words.matches('.').count() / 2)).sum();
    assert_eq!(counted, words, "every pair lies in one window");
}

#[test]
fn what_is_kept_does_not_grow_with_what_has_passed() {
    let of = spec(JoinKind::Full, -50, 50, None);
    let mut on = chain(&of);
    let mut most = [0; 2];
    for round in 0..400_i64 {
        let mut rows = Vec::new();
        for i in 0..50 {
            rows.push((["ann", "bob", "cleo", "dan"][i as usize % 4], Some(round * 50 + i), Some(1.0)));
        }
        let part = one(&rows);
        let (offsets, mut out) = (vec![0; 50], Output::default());
        for side in 0..2 {
            on.rows_of(side, &Rows { offsets: offsets.clone().into(), ..part[0].rows().clone() }, &mut out).unwrap();
        }
        on.watermark(Timestamp(round * 50 + 49), &mut out).unwrap();
        let half = usize::from(round >= 200);
        most[half] = most[half].max(on.state_bytes());
    }
    assert!(most[1] <= most[0] * 11 / 10, "{most:?}");
}

/// A table's row or deletion, or a lookup.
mod as_of {
    use std::collections::BTreeMap;

    use super::*;
    use crate::stream::{AheadJudge, Piece, TableSide};

    fn spec(keeps_left: bool, is_strict: bool, below: Option<f64>) -> AsOfSpec {
        let key = || vec![Arc::new(Column(0)) as Arc<dyn Expr>];
        AsOfSpec {
            keeps_left,
            is_strict,
            inputs: [reading_schema(), reading_schema()],
            keys: [key(), key()],
            condition: below.map(|below| Arc::new(Below(5, below)) as Arc<dyn Expr>),
            table: None,
            ttl_ms: None,
            schema: joined_schema(JoinKind::Inner),
        }
    }

    fn chain(spec: &AsOfSpec) -> Chain {
        Chain::joined(Chain::default(), Chain::default(), Box::new(AsOf::new(spec.clone()).unwrap()), Vec::new())
    }

    /// For each left reading, the latest right one before it.
    fn model(of: &AsOfSpec, below: Option<f64>, left: &[Seen], right: &[Seen]) -> Vec<String> {
        let mut lines = Vec::new();
        for l in left {
            let fits = |r: &&Seen| r.key == l.key && (r.time < l.time || (r.time == l.time && !of.is_strict));
            let is_young = |r: &&Seen| of.ttl_ms.is_none_or(|ttl| l.time - r.time <= ttl);
            let latest =
                right.iter().rfind(fits).filter(is_young).filter(|r| below.is_none_or(|below| r.value.is_some_and(|value| value < below)));
            match latest {
                Some(r) => lines.push(format!("{} {}", l.cells(), r.cells())),
                None if of.keeps_left => lines.push(format!("{} {NONE}", l.cells())),
                None => {}
            }
        }
        lines
    }

    #[test]
    fn each_row_meets_the_latest_one_before_it_however_it_is_carried_through() {
        for seed in 0..4 {
            for (keeps_left, is_strict) in [(false, false), (true, false), (false, true), (true, true)] {
                for below in [None, Some(5.0)] {
                    let (left, right) = (two(seed, 70, 12), two(50 + seed, 40, 15));
                    let of = spec(keeps_left, is_strict, below);
                    let told = check_sources(&|| chain(&of), &[&left, &right], true);
                    let expected = model(&of, below, &seen(Side::Left, &left), &seen(Side::Right, &right));
                    assert_eq!(told.rows, expected, "{keeps_left} {is_strict} {below:?}");
                }
            }
        }
    }

    #[test]
    fn a_row_meets_none_that_is_older_than_the_time_to_live_however_it_is_carried_through() {
        for seed in 0..4 {
            for (keeps_left, ttl) in [(true, 0), (false, 5), (true, 5), (true, 1500)] {
                // Steps that leave room for sweeps, which come once a second of event time.
                let (step, disorder) = if ttl == 1500 { (900, 1500) } else { (4, 12) };
                let side = |seed: u64, count| -> Vec<Partition> {
                    let of = |p: i32| Partition::new(p, disorder - 4, &readings(seed * 10 + p as u64, count, step, disorder));
                    vec![of(0), of(1)]
                };
                let (left, right) = (side(seed, 70), side(50 + seed, 40));
                let of = AsOfSpec { ttl_ms: Some(ttl), ..spec(keeps_left, false, None) };
                let told = check_sources(&|| chain(&of), &[&left, &right], true);
                let (left, right) = (seen(Side::Left, &left), seen(Side::Right, &right));
                assert_eq!(told.rows, model(&of, None, &left, &right), "{keeps_left} {ttl}");
                let for_ever = spec(keeps_left, false, None);
                assert_ne!(told.rows, model(&for_ever, None, &left, &right), "some row was too old: seed {seed}, {ttl}");
            }
        }
    }

    #[test]
    fn a_key_that_does_not_come_again_is_let_go_of_with_the_time_to_live() {
        let most = |ttl_ms: Option<i64>, keys: i64| {
            let mut most = 0;
            let mut on = chain(&AsOfSpec { ttl_ms, ..spec(true, false, None) });
            for key in 0..keys {
                let name: &'static str = format!("patient number {key}").leak();
                let mut out = Output::default();
                on.rows_of(1, one(&[(name, Some(key * 1000), Some(1.0))])[0].rows(), &mut out).unwrap();
                on.watermark(Timestamp(key * 1000 + 1), &mut out).unwrap();
                most = most.max(on.state_bytes());
            }
            most
        };
        assert!(most(None, 8000) > 3 * most(None, 2000));
        let (few, many) = (most(Some(5000), 2000), most(Some(5000), 8000));
        assert!(many < few + few / 4, "at most {few} bytes over 2000 keys, {many} over 8000");
    }

    #[test]
    fn only_the_latest_row_of_each_key_is_kept() {
        let of = spec(true, false, None);
        let mut on = chain(&of);
        let mut most = [0; 2];
        for round in 0..200_i64 {
            let rows: Vec<Reading> = (0..50).map(|i| (["ann", "bob"][i as usize % 2], Some(round * 50 + i), Some(1.0))).collect();
            let (part, mut out) = (one(&rows), Output::default());
            on.rows_of(1, part[0].rows(), &mut out).unwrap();
            on.watermark(Timestamp(round * 50 + 50), &mut out).unwrap();
            let half = usize::from(round >= 100);
            most[half] = most[half].max(on.state_bytes());
        }
        assert!(most[1] <= most[0] * 11 / 10, "{most:?}");
    }

    /// What a table's partition says: a version (with `Some`) or that the key is gone, each with its time.
    fn pieces(said: &[(&'static str, i64, Option<f64>)]) -> Vec<Piece> {
        let mut watermark = i64::MIN;
        let mut pieces = Vec::new();
        for (offset, (key, time, value)) in (0..).zip(said) {
            match value {
                Some(value) => {
                    let rows = one(&[(key, Some(*time), Some(*value))])[0].rows().clone();
                    pieces.push(Piece::Rows(Rows { offsets: vec![offset].into(), before: vec![watermark].into(), ..rows }));
                    watermark = watermark.max(*time);
                }
                None => pieces.push(Piece::Deletion(Deletion {
                    partition: crate::record::PartitionId(0),
                    offset,
                    time: *time,
                    before: watermark,
                    key: key.as_bytes().to_vec(),
                })),
            }
        }
        pieces
    }

    fn table() -> AsOfSpec {
        let table = TableSide { primary_key: vec![0], key_types: vec![DataType::Utf8], most_bytes: None };
        AsOfSpec { table: Some(table), ..spec(true, false, None) }
    }

    #[test]
    fn a_version_holds_from_its_time_to_the_next_or_to_its_deletion_and_a_late_one_is_not_lost() {
        let said = [
            ("ann", 100, Some(1.0)),
            ("bob", 110, Some(2.0)),
            ("ann", 120, Some(3.0)),
            // It comes behind 120, so it holds from there on, and the one that came at 120 is overtaken.
            ("ann", 90, Some(4.0)),
            ("bob", 130, None),
            ("bob", 140, Some(5.0)),
        ];
        let asked = [("ann", 99), ("ann", 100), ("ann", 119), ("ann", 120), ("bob", 129), ("bob", 130), ("bob", 140), ("cleo", 150)];
        let left = one(&asked.map(|(key, time)| (key, Some(time), None)));
        for (restart, cut) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut on = chain(&table());
            let mut out = Output::default();
            on.rows_of(0, left[0].rows(), &mut out).unwrap();
            let mut watermark = i64::MIN;
            for (piece, (_, time, value)) in pieces(&said).iter().zip(&said) {
                on.piece_of(1, piece, &mut out).unwrap();
                if cut && value.is_some() {
                    watermark = watermark.max(*time);
                    on.watermark(Timestamp(watermark), &mut out).unwrap();
                }
                if restart {
                    let mut state = StateWriter::default();
                    on.save(&mut state).unwrap();
                    on = chain(&table());
                    on.restore(&StateReader::of(state.parts)).unwrap();
                }
            }
            on.watermark(Timestamp::MAX, &mut out).unwrap();
            let mut found = BTreeMap::new();
            for rows in &out.rows {
                let (keys, values) = (rows.batch.column(0).as_string::<i32>(), rows.batch.column(5).as_primitive::<Float64Type>());
                for row in 0..rows.len() {
                    found.insert((rows.times[row], keys.value(row).to_owned()), values.iter().nth(row).unwrap());
                }
            }
            let found: Vec<String> = found.into_iter().map(|((time, key), value)| format!("{key} {time} {value:?}")).collect();
            let expected = [
                "ann 99 None",
                "ann 100 Some(1.0)",
                "ann 119 Some(1.0)",
                "ann 120 Some(4.0)",
                "bob 129 Some(2.0)",
                "bob 130 None",
                "bob 140 Some(5.0)",
                "cleo 150 None",
            ];
            assert_eq!(found, expected, "restarted {restart}, cut {cut}");
            assert!(out.aside.is_empty(), "a table loses nothing");
        }
    }

    #[test]
    fn a_table_that_is_read_whole_is_refused_when_it_is_too_large() {
        let mut of = table();
        of.table.as_mut().unwrap().most_bytes = Some(512);
        let mut on = chain(&of);
        let mut out = Output::default();
        let rows: Vec<Reading> = ["ann", "bob", "cleo", "dan"].map(|key| (key, Some(1), Some(1.0))).into();
        on.rows_of(1, one(&rows)[0].rows(), &mut out).unwrap();
        on.watermark(Timestamp(2), &mut out).unwrap();
        let texts: Vec<String> = (0..100).map(|n| format!("key {n}")).collect();
        let texts: Vec<&'static str> = texts.into_iter().map(|text| &*text.leak()).collect();
        let many: Vec<Reading> = texts.into_iter().map(|text| (text, Some(3), Some(1.0))).collect();
        on.rows_of(1, one(&many)[0].rows(), &mut out).unwrap();
        let error = on.watermark(Timestamp(4), &mut out).unwrap_err();
        assert!(error.to_string().contains("read whole by every task"), "{error}");
    }

    #[test]
    fn rows_and_deletions_of_a_chunk_keep_their_order() {
        use crate::format::Tombstone;
        use crate::record::{Offset, PartitionId};
        use crate::stream::{Stamper, TimeRule};
        let rule = TimeRule { time: Some(Arc::new(Column(1))), watermark: Some(Arc::new(Column(1))), max_future_ms: None };
        let part = one(&[("ann", Some(5), None), ("ann", Some(7), None), ("ann", Some(9), None)]);
        let gone = Tombstone { offset: Offset(2), timestamp: 8, key: b"ann".to_vec() };
        let mut stamper = Stamper::new(rule, PartitionId(3));
        let offsets = vec![0, 1, 3].into();
        let said = stamper.pieces(&part[0].rows().batch, &offsets, &[&gone], AheadJudge::Nobody, &mut Vec::new()).unwrap();
        let said: Vec<String> = said
            .iter()
            .map(|piece| match piece {
                Piece::Rows(rows) => format!("{:?} before {:?}", rows.offsets.to_vec(), rows.before.to_vec()),
                Piece::Deletion(gone) => format!("{} gone at {} before {}", gone.offset, gone.time, gone.before),
            })
            .collect();
        assert_eq!(said, [format!("[0, 1] before [{}, 5]", i64::MIN), "2 gone at 8 before 7".to_owned(), "[3] before [7]".to_owned()]);
    }
}
