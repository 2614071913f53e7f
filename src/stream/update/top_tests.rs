//! The first rows of each key against their definition, under any cut, interleaving, commit and restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::tests::{carried, inputs};
use super::*;
use crate::record::PartitionId;
use crate::stream::doubles::{Below, Column, Partition, Reading, reading_schema};
use crate::stream::rank::RankOrder;
use crate::stream::stateless::FilterProject;
use crate::stream::{Expr, Operator, Output, Scope, WindowColumn};
use crate::time::Timestamp;

fn schema() -> SchemaRef {
    let mut fields: Vec<Field> = reading_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new("number", DataType::UInt64, false));
    Arc::new(Schema::new(fields))
}

/// The greatest values of each key, NULLs first; only those below `most` are shown.
fn operator(scope: Scope, limit: usize, ttl_ms: Option<i64>, most: Option<f64>) -> Box<dyn Operator> {
    let below = most.map(|most| FilterProject::new(Some(Arc::new(Below(2, most))), None, schema()));
    let key: Arc<dyn Expr> = Arc::new(Column(0));
    Box::new(
        Top::new(TopSpec {
            scope,
            keys: vec![key],
            order: vec![RankOrder { value: Arc::new(Column(2)), of: DataType::Float64, descending: true, nulls_first: true }],
            limit,
            ttl_ms,
            schema: schema(),
            shown: Shown {
                steps: below.into_iter().collect(),
                keys: vec![(0, WindowColumn::Key(0)), (3, WindowColumn::Agg(0))],
                schema: schema(),
            },
        })
        .unwrap(),
    )
}

type Kept = (Option<f64>, i64, usize, usize);

/// What is left, and what is late, by definition.
fn by_definition(
    inputs: &[Vec<Reading>],
    marks: &[Vec<i64>],
    limit: usize,
    ttl: Option<i64>,
    most: Option<f64>,
) -> (BTreeMap<String, String>, Vec<String>) {
    let end = marks.iter().map(|marks| *marks.last().unwrap()).min().unwrap();
    let (mut parts, mut late) = (BTreeMap::<(String, usize), (i64, Vec<Kept>)>::new(), Vec::new());
    for (p, input) in inputs.iter().enumerate() {
        for (offset, (key, at, value)) in input.iter().enumerate() {
            let (mark, time) = (marks[p][offset], at.unwrap_or(i64::MIN));
            if ttl.is_some_and(|ttl| at.is_none_or(|at| at + ttl < mark)) {
                late.push(format!("p{p}@{offset}"));
                continue;
            }
            let part = parts.entry(((*key).to_owned(), p)).or_insert((time, Vec::new()));
            if ttl.is_some_and(|ttl| part.0 + ttl < mark) {
                *part = (time, Vec::new());
            }
            part.0 = part.0.max(time);
            part.1.push((*value, time, p, offset));
        }
    }
    parts.retain(|_, (last, _)| ttl.is_none_or(|ttl| *last + ttl >= end));
    let mut rankings: BTreeMap<String, Vec<Kept>> = BTreeMap::new();
    for ((key, _), (_, rows)) in parts {
        rankings.entry(key).or_default().extend(rows);
    }
    let mut left = BTreeMap::new();
    for (key, mut rows) in rankings {
        let rank = |value: Option<f64>| value.unwrap_or(f64::INFINITY);
        rows.sort_by(|a, b| rank(b.0).total_cmp(&rank(a.0)).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
        for (place, (value, at, ..)) in rows.iter().take(limit).enumerate() {
            if most.is_none_or(|most| value.is_some_and(|value| value < most)) {
                let at = if *at == i64::MIN { "0".to_owned() } else { at.to_string() };
                left.insert(format!("{key} {}", place + 1), format!("{at} {}", value.map_or_else(String::new, |v| format!("{v:?}"))));
            }
        }
    }
    late.sort();
    (left, late)
}

#[test]
fn each_place_of_a_ranking_has_its_row_and_is_gone_without_one() {
    let (mut seen_late, mut seen_gone) = (0, 0);
    for seed in 0..4 {
        for (partitions, limit, ttl, most) in [
            (1, 1, None, None),
            (3, 3, None, None),
            (1, 4, Some(6), None),
            (3, 2, Some(6), None),
            (1, 3, None, Some(9.0)),
            (3, 5, Some(9), Some(8.0)),
        ] {
            let (inputs, stamped, marks) = inputs(seed, partitions, 3);
            let (expected, late) = by_definition(&inputs, &marks, limit, ttl, most);
            let scope = if partitions == 1 { Scope::Partition(PartitionId(0)) } else { Scope::Merged };
            for run in 0..12 {
                let reader = carried(&|| operator(scope, limit, ttl, most), &stamped, &[0, 3], run, &marks);
                assert_eq!(reader.rows, expected, "seed {seed}, {partitions} partitions, {limit} of {ttl:?} below {most:?}, run {run}");
                assert_eq!(reader.late, late);
                seen_gone += reader.said.iter().filter(|line| line.ends_with("gone")).count();
            }
            seen_late += late.len();
        }
    }
    assert!(seen_late > 50 && seen_gone > 50, "{seen_late} {seen_gone}");
}

#[test]
fn a_place_is_told_only_when_another_row_takes_it() {
    let mut one = operator(Scope::Partition(PartitionId(0)), 3, None, None);
    let mut said = Vec::new();
    for (at, value) in [(1, 5.0), (2, 1.0), (3, 3.0), (4, 0.5), (5, 9.0), (6, 3.0)] {
        let mut out = Output::default();
        one.rows(Partition::new(0, 0, &[("ann", Some(at), Some(value))]).rows(), &mut out).unwrap();
        one.flush(&mut out).unwrap();
        said.push(out.rows.iter().map(crate::stream::Rows::len).sum::<usize>());
        assert!(!one.has_changes());
    }
    assert_eq!(said, [1, 1, 2, 0, 3, 0]);
}

#[test]
fn no_more_rows_are_held_than_are_wanted_and_a_silent_key_is_let_go() {
    let held = |rows: i64, ttl: Option<i64>| {
        let mut one = operator(Scope::Partition(PartitionId(0)), 2, ttl, None);
        for n in 0..rows {
            let key = if ttl.is_some() { ["ann", "bob", "cleo", "dan"][n as usize % 4] } else { "ann" };
            let mut out = Output::default();
            one.rows(Partition::new(0, 0, &[(key, Some(n * 10), Some(n as f64))]).rows(), &mut out).unwrap();
            one.watermark(Timestamp(n * 10), &mut out).unwrap();
            one.flush(&mut out).unwrap();
        }
        one.state_bytes()
    };
    for ttl in [None, Some(5)] {
        let (few, many) = (held(600, ttl), held(6000, ttl));
        assert!(many < 2 * few, "{few} bytes after 600 rows, {many} after 6000");
    }
}
