//! Sessions against their definition, and their properties under seeded chance.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::{SessionAggregate, SessionSpec};
use crate::record::PartitionId;
use crate::stream::doubles::{Below, Column, How, Kind, PLAIN, Partition, Reading, aggregate, check_always, readings, run, time_type};
use crate::stream::{Chain, Expr, Scope, WindowColumn};

pub(super) const ONE: Scope = Scope::Partition(PartitionId(0));

pub(super) fn operator(gap_ms: i64, scope: Scope) -> SessionAggregate {
    let value = || Arc::new(Column(2)) as Arc<dyn Expr>;
    let spec = SessionSpec {
        gap_ms,
        scope,
        keys: vec![Arc::new(Column(0))],
        folds: vec![
            aggregate(Kind::Count, value(), None),
            aggregate(Kind::Sum, value(), Some(Arc::new(Below(2, 5.0)))),
            aggregate(Kind::Words, value(), None),
        ],
        columns: vec![
            WindowColumn::Key(0),
            WindowColumn::WindowStart,
            WindowColumn::WindowEnd,
            WindowColumn::WindowTime,
            WindowColumn::Agg(0),
            WindowColumn::Agg(2),
        ],
        schema: Arc::new(Schema::new(vec![
            Field::new("key", DataType::Utf8, true),
            Field::new("from", time_type(), false),
            Field::new("to", time_type(), false),
            Field::new("at", time_type(), false),
            Field::new("count", DataType::Int64, true),
            Field::new("words", DataType::Utf8, true),
        ])),
    };
    SessionAggregate::new(spec).unwrap()
}

pub(super) fn chain(gap_ms: i64, scope: Scope) -> Chain {
    Chain::new(vec![Box::new(operator(gap_ms, scope))])
}

fn told(gap: i64, delay: i64, readings: &[Reading]) -> (Vec<String>, Vec<String>) {
    let partitions = [Partition::new(0, delay, readings)];
    let told = check_always(&|| chain(gap, ONE), &partitions, false);
    // A single partition is the merged case with one.
    assert_eq!(check_always(&|| chain(gap, Scope::Merged), &partitions, true), told);
    (told.rows, told.others)
}

fn a(at: i64, value: f64) -> Reading {
    ("ann", Some(at), Some(value))
}

#[test]
fn rows_exactly_one_gap_apart_belong_together_and_the_end_is_the_last_and_the_gap() {
    let (rows, others) = told(10, 0, &[a(0, 1.0), a(10, 2.0), a(21, 3.0), ("bob", Some(25), Some(4.0))]);
    assert_eq!(rows, ["ann 0 20 19 2 1.2.", "ann 21 31 30 1 3.", "bob 25 35 34 1 4."]);
    assert!(others.is_empty());
}

#[test]
fn a_row_between_two_sessions_joins_them_into_one() {
    let (rows, _) = told(5, 100, &[a(0, 1.0), a(10, 2.0), a(20, 3.0), a(15, 5.0), a(5, 4.0)]);
    // 15 joins the sessions of 10 and 20, and 5 the one of 0 with theirs; what is joined stands behind.
    assert_eq!(rows, ["ann 0 25 24 5 1.4.2.5.3."]);
}

#[test]
fn a_row_is_late_only_where_even_the_joined_session_would_have_ended() {
    // The watermark is 30 before each of the last three: 21 touches the open session at 30; 10 touches none that is open,
    // and ends at 20; 19 would end at 29, but touches what 21 has become part of.
    let (rows, others) = told(10, 0, &[a(0, 1.0), a(30, 2.0), a(21, 3.0), a(10, 4.0), a(19, 5.0)]);
    assert_eq!(rows, ["ann 0 10 9 1 1.", "ann 19 40 39 3 2.3.5."]);
    assert_eq!(others, ["p0@3 late"]);
    let (rows, others) = told(10, 0, &[a(0, 1.0), a(11, 2.0), a(5, 3.0)]);
    // 5 touches both; the one of 0 had ended at 10, before the watermark of 11.
    assert_eq!((rows.len(), others.len()), (2, 0));
    assert_eq!(rows, ["ann 0 10 9 1 1.", "ann 5 21 20 2 2.3."]);
}

#[test]
fn a_session_that_ends_with_the_watermark_is_still_open() {
    let (rows, others) = told(10, 0, &[a(0, 1.0), ("bob", Some(10), Some(9.0)), a(10, 2.0)]);
    assert_eq!(rows, ["ann 0 20 19 2 1.2.", "bob 10 20 19 1 9."]);
    assert!(others.is_empty());
}

/// The sessions of one partition's readings, straight from the contract.
fn by_definition(gap: i64, delay: i64, readings: &[Reading]) -> (Vec<(i64, i64, &'static str, i64)>, usize) {
    let (mut mark, mut late) = (i64::MIN, 0);
    let mut sessions: BTreeMap<&'static str, Vec<(i64, i64, i64)>> = BTreeMap::new();
    for (key, at, value) in readings {
        let Some(at) = *at else {
            late += 1;
            continue;
        };
        let own = sessions.entry(key).or_default();
        let (mut from, mut to, mut count) = (at, at, i64::from(value.is_some()));
        let touched: Vec<usize> =
            (0..own.len()).filter(|i| own[*i].1 + gap >= mark && at <= own[*i].1 + gap && own[*i].0 - gap <= at).collect();
        for i in &touched {
            (from, to, count) = (from.min(own[*i].0), to.max(own[*i].1), count + own[*i].2);
        }
        if to + gap < mark {
            late += 1;
        } else {
            for i in touched.iter().rev() {
                own.remove(*i);
            }
            own.push((from, to, count));
        }
        mark = mark.max(at - delay);
    }
    let all = sessions.iter().flat_map(|(key, own)| own.iter().map(move |(from, to, count)| (to + gap, *from, *key, *count)));
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    (all, late)
}

#[test]
fn sessions_agree_with_their_definition_and_do_not_depend_on_cuts_interleaving_or_restarts() {
    let mut seen_late = 0;
    for seed in 0..6 {
        for (gap, delay, disorder) in [(3, 2, 4), (8, 0, 10), (15, 6, 30)] {
            let input = readings(seed, 150, 5, disorder);
            let (rows, others) = told(gap, delay, &input);
            let (expected, late) = by_definition(gap, delay, &input);
            let mut found: Vec<(i64, i64, &str, i64)> = rows
                .iter()
                .map(|row| {
                    let cells: Vec<&str> = row.split(' ').collect();
                    let number = |i: usize| cells[i].parse::<i64>().unwrap();
                    (number(2), number(1), cells[0], number(4))
                })
                .collect();
            assert!(found.is_sorted_by_key(|row| row.0), "they leave in order of their end");
            found.sort_unstable();
            assert_eq!(found, expected, "seed {seed}, gap {gap}, delay {delay}, disorder {disorder}");
            assert_eq!(others.len(), late);
            seen_late += late;
        }
    }
    assert!(seen_late > 50, "{seen_late}");
}

#[test]
fn merged_partitions_give_the_same_sessions_however_they_interleave() {
    for seed in 0..10 {
        let partition = |p: i32| Partition::new(p, 4, &readings(seed * 10 + p as u64, 90, 5, 12));
        let told = check_always(&|| chain(6, Scope::Merged), &[partition(0), partition(1), partition(2)], true);
        assert!(!told.rows.is_empty());
    }
}

#[test]
fn many_sessions_at_once_are_finished_and_saved_in_blocks() {
    let input: Vec<Reading> = (0..1300).map(|n| a(n * 20, f64::from(n as i32 % 7) + 0.5)).collect();
    let partitions = [Partition::new(0, 13_000, &input)];
    let told = run(&|| chain(10, ONE), &partitions, PLAIN);
    for seed in 0..4 {
        // So few cuts that all of them are there at once.
        let how = How { seed, batch: 400, interrupt: true, merged: false, spill: seed % 2 == 1 };
        assert_eq!(run(&|| chain(10, ONE), &partitions, how), told, "carried through as {how:?}");
    }
    assert_eq!(told.rows.len(), 1300);
    assert_eq!(told.rows[1299], format!("ann 25980 25990 25989 1 {}.", f64::from(1299 % 7) + 0.5));
}

#[test]
fn what_other_queries_know_of_the_keys_of_a_chunk_changes_nothing() {
    let names: Vec<&'static str> = (0..30).map(|n| &*Box::leak(format!("p{n}").into_boxed_str())).collect();
    let mut seen_late = 0;
    for seed in 0..6 {
        // A key whose first rows are late is let go of with each of them, and comes back in the same chunk.
        let timed = readings(seed, 600, 3, 60).into_iter().filter(|(_, at, _)| at.is_some());
        let named = timed.enumerate().map(|(n, (_, at, value))| (names[(n * n + n / 7) % (n / 40 + 3).min(30)], at, value));
        let input: Vec<Reading> = named.collect();
        let fresh = || [Partition::new(0, 5, &input)];
        let alone = run(&|| chain(4, ONE), &fresh(), PLAIN);
        let together = fresh();
        for query in 0..3 {
            assert_eq!(run(&|| chain(4, ONE), &together, PLAIN), alone, "seed {seed}, query {query}");
        }
        seen_late += alone.others.len();
    }
    assert!(seen_late > 100, "{seen_late}");
}
