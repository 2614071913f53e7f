//! UNION ALL of streams: the rows of each, under the names of the first.
//!
//! Always: what the columns of the result say of time is what they say on every side; a task has partitions of one number
//! of all of them, where each side's key is in the same column. Called by `walk`.

use std::sync::Arc;

use datafusion::logical_expr::Union;

use super::flow::JoinStep;
use super::join::joined;
use super::lineage::Lineage;
use super::walk::{Lowered, Walk, refused};

impl Walk<'_> {
    /// The rows of all inputs.
    pub(super) fn union(&self, union: &Union) -> Lowered {
        let mut chains = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let chain = self.lower(input)?;
            let is_same =
                input.schema().fields().iter().zip(union.schema.fields()).all(|(is, should)| is.data_type() == should.data_type());
            if !is_same {
                return Err(refused("UNION ALL of columns of other types", "CAST them to the types of the first SELECT"));
            }
            chains.push(chain);
        }
        let schema = union.schema.inner();
        let together = chains.into_iter().reduce(|left, right| {
            let local = left.local && right.local && left.partitions == right.partitions;
            let columns = left.columns.iter().zip(&right.columns).map(|(left, right)| both(left, right, local)).collect();
            joined(left, right, JoinStep::Union(Arc::clone(schema)), local, columns)
        });
        together.ok_or_else(|| refused("a UNION of nothing", "read FROM a stream"))
    }
}

/// What a column says that comes from both sides.
fn both(left: &Lineage, right: &Lineage, local: bool) -> Lineage {
    let same = |of: fn(&Lineage) -> Option<i64>| of(left).filter(|value| of(right) == Some(*value));
    Lineage {
        time: left.time && right.time,
        behind_ms: same(|of| of.behind_ms),
        span_ms: same(|of| of.span_ms),
        placed: left.placed && right.placed && local,
        key: left.key && right.key,
        until: left.until.zip(right.until).map(|(left, right)| left.max(right)),
        ..Lineage::default()
    }
}
