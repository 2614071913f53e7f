//! Groups of results that change against a plain grouping of what those results leave, under any cut, interleaving, commit and
//! restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::tests::{carried, carried_through, inputs, operator};
use super::*;
use crate::record::PartitionId;
use crate::stream::doubles::{Below, Column, Kind, aggregate};
use crate::stream::stateless::FilterProject;
use crate::stream::{Operator, Scope, WindowColumn};

/// By how many values a key has: how many such keys there are whose sum is below `most`, and their sums in order.
fn regroup(scope: Scope, most: f64) -> Regroup {
    let fields = [("n", DataType::Int64), ("keys", DataType::Int64), ("sums", DataType::Utf8)];
    let schema = Arc::new(Schema::new(fields.map(|(name, of)| Field::new(name, of, true)).to_vec()));
    let below = Arc::new(Schema::new(vec![
        Field::new("key", DataType::Utf8, true),
        Field::new("count", DataType::Int64, false),
        Field::new("sum", DataType::Float64, true),
        Field::new("words", DataType::Utf8, true),
    ]));
    Regroup::new(RegroupSpec {
        scope,
        from: vec![0],
        between: vec![FilterProject::new(Some(Arc::new(Below(2, most))), None, below)],
        keys: vec![Arc::new(Column(1))],
        folds: vec![aggregate(Kind::Count, Arc::new(Column(2)), None), aggregate(Kind::Words, Arc::new(Column(2)), None)],
        schema: Arc::clone(&schema),
        shown: Shown { steps: Vec::new(), keys: vec![(0, WindowColumn::Key(0))], schema },
    })
    .unwrap()
}

/// The same of the rows of the groups below.
fn grouped(rows: &BTreeMap<String, String>, most: f64) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for row in rows.values() {
        let cells: Vec<&str> = row.splitn(3, ' ').collect();
        let Some(sum) = cells[1].parse::<f64>().ok().filter(|sum| *sum < most) else { continue };
        let of = found.entry(cells[0].to_owned()).or_default();
        of.0 += 1;
        of.1.push_str(&format!("{sum}."));
    }
    found.into_iter().map(|(n, (keys, sums))| (n, format!("{keys} {sums}"))).collect()
}

#[test]
fn a_group_is_what_the_rows_that_hold_come_to_however_they_came() {
    let mut moved = 0;
    for seed in 0..4 {
        for (partitions, ttl_ms, most) in [(1, None, 40.0), (3, None, 90.0), (1, Some(12), 30.0), (3, Some(20), 60.0)] {
            let (_, stamped, marks) = inputs(seed, partitions, 4);
            let scope = if partitions == 1 { Scope::Partition(PartitionId(0)) } else { Scope::Merged };
            let below = || Box::new(operator(scope, GroupLife::Open { ttl_ms }, GroupEmit::OnUpdate, None)) as Box<dyn Operator>;
            let left = carried(&below, &stamped, &[0], 0, &marks).rows;
            let expected = grouped(&left, most);
            for run in 0..12 {
                let make = || vec![below(), Box::new(regroup(scope, most)) as Box<dyn Operator>];
                let reader = carried_through(&make, &stamped, &[0], run, &marks);
                assert_eq!(reader.rows, expected, "seed {seed}, {partitions} partitions, {ttl_ms:?}, run {run}");
                moved += reader.said.iter().filter(|said| said.ends_with("gone")).count();
            }
        }
    }
    assert!(moved > 0, "no group was ever left by its last row");
}
