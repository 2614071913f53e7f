//! The sets of a GROUP BY with GROUPING SETS, ROLLUP or CUBE, as DataFusion counts them.
//!
//! DataFusion brings all three, alone or beside other keys, to one list of sets, and gives each a number: a bit for every key
//! that does not count, the last key's the lowest, and above them how often the same set came before. `grouping()` and
//! `grouping_id()` are read off that number. Always: the numbers here are those. Called by `analyze` for windows and by `lower`
//! for groups without one.

use std::collections::HashMap;

use arrow::datatypes::DataType;
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::expr::GroupingSet as Written;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr};

use crate::stream::GroupingSet;

/// The name under which DataFusion knows the number of a set.
pub const GROUPING_ID: &str = Aggregate::INTERNAL_GROUPING_ID;

/// So many keys at most.
const MOST_KEYS: usize = 16;
/// So many sets at most: each row counts in all of them.
const MOST_SETS: usize = 1024;

/// Which keys count in which sets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sets {
    /// The sets, over the keys in their order.
    pub sets: Vec<GroupingSet>,
    /// The type of their numbers.
    pub id: DataType,
}

impl Sets {
    /// The keys of an aggregate, each once, and its sets where it has any.
    pub fn of(aggregate: &Aggregate) -> DfResult<(Vec<Expr>, Option<Self>)> {
        let keys: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
        let [Expr::GroupingSet(written)] = aggregate.group_expr.as_slice() else { return Ok((keys, None)) };
        if keys.len() > MOST_KEYS {
            return plan_err!("GROUPING SETS, ROLLUP and CUBE take up to {MOST_KEYS} keys, and here are {}", keys.len());
        }
        let written = match written {
            Written::GroupingSets(sets) => sets.clone(),
            Written::Rollup(of) => (0..=of.len()).rev().map(|count| of[..count].to_vec()).collect(),
            Written::Cube(of) => {
                let set = |bits: u32| of.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, key)| key.clone()).collect();
                (0..1_u32 << of.len().min(MOST_KEYS)).map(set).collect()
            }
        };
        if written.len() > MOST_SETS {
            return plan_err!("GROUPING SETS, ROLLUP and CUBE make up to {MOST_SETS} sets, and here are {}", written.len());
        }
        let mut seen: HashMap<Vec<bool>, u64> = HashMap::new();
        let set = |written: &Vec<Expr>| {
            let counts: Vec<bool> = keys.iter().map(|key| written.contains(key)).collect();
            let before = seen.entry(counts.clone()).or_default();
            let bits = counts.iter().fold(0, |bits, counts| bits << 1 | u64::from(!counts));
            let id = *before << keys.len() | bits;
            *before += 1;
            GroupingSet { counts, id }
        };
        let sets = written.iter().map(set).collect();
        Ok((keys.clone(), Some(Self { sets, id: aggregate.schema.field_with_unqualified_name(GROUPING_ID)?.data_type().clone() })))
    }

    /// The same over these of the keys alone.
    #[must_use]
    pub fn over(&self, keys: &[usize]) -> Self {
        let set = |set: &GroupingSet| GroupingSet { counts: keys.iter().map(|key| set.counts[*key]).collect(), id: set.id };
        Self { sets: self.sets.iter().map(set).collect(), id: self.id.clone() }
    }

    /// Whether a key counts in every set.
    #[must_use]
    pub fn always(&self, key: usize) -> bool {
        self.sets.iter().all(|set| set.counts[key])
    }

    /// Whether the keys that count in two sets are the same.
    #[must_use]
    pub fn repeats(&self) -> bool {
        self.sets.iter().enumerate().any(|(at, set)| self.sets[..at].iter().any(|before| before.counts == set.counts))
    }

    /// The sets as one writes them.
    #[must_use]
    pub fn text(&self, keys: &[String]) -> String {
        let set = |set: &GroupingSet| {
            let counted = keys.iter().zip(&set.counts).filter(|(_, counts)| **counts).map(|(key, _)| key.as_str());
            format!("({})", counted.collect::<Vec<_>>().join(", "))
        };
        self.sets.iter().map(set).collect::<Vec<_>>().join(", ")
    }
}
