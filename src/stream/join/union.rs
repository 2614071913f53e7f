//! UNION ALL: the rows of two sources one beside the other, as they come.
//!
//! Nothing waits here. Always: a row keeps its time, its offset and the mark before it, and its partition is told from
//! those of all other sources, so that whatever stands behind sees as many partitions as the sources have together, and
//! does not depend on how they interleave.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::{Join, Side};
use crate::stream::inputs;
use crate::stream::rowwise::arrow_error;
use crate::stream::{Output, Rows, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// The union of two chains.
#[derive(Debug)]
pub struct Union {
    /// How many sources lie on the left.
    left: usize,
    schema: SchemaRef,
}

impl Union {
    /// Rows of both sides, each with columns of the types of `schema`; on the left they come from so many sources.
    #[must_use]
    pub const fn new(left: usize, schema: SchemaRef) -> Self {
        Self { left, schema }
    }
}

impl Join for Union {
    fn name(&self) -> &'static str {
        "union"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn rows(&mut self, side: Side, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), rows.batch.columns().to_vec());
        let batch = batch.map_err(|e| arrow_error("the rows of UNION ALL", &e))?;
        let partition = if side == Side::Right { inputs::behind(rows.partition, self.left) } else { rows.partition };
        out.rows.push(Rows { batch, partition, ..rows.clone() });
        Ok(())
    }

    fn watermark(&mut self, _at: Timestamp, _out: &mut Output) -> Result<(), StreamError> {
        Ok(())
    }

    fn due(&self, _now: Timestamp) -> Option<Timestamp> {
        None
    }

    fn hold_ms(&self) -> i64 {
        0
    }

    fn save(&mut self, _state: &mut StateWriter) -> Result<(), StreamError> {
        Ok(())
    }

    fn restore(&mut self, _state: &StateReader) -> Result<(), StreamError> {
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::stream::doubles::{Column, Kind, Numbering, Partition, Told, aggregate, check_sources, reading_schema, readings, time_type};
    use crate::stream::{
        Chain, Expr, Operator, Scope, SessionAggregate, SessionSpec, WindowAggregate, WindowAggregateSpec, WindowColumn, WindowRule,
    };

    fn union(left: Chain, right: Chain, operators: Vec<Box<dyn Operator>>) -> Chain {
        let sources = left.sources();
        Chain::joined(left, right, Box::new(Union::new(sources, reading_schema())), operators)
    }

    const COLUMNS: [WindowColumn; 5] =
        [WindowColumn::Key(0), WindowColumn::WindowStart, WindowColumn::WindowEnd, WindowColumn::Agg(0), WindowColumn::Agg(1)];

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("key", DataType::Utf8, true),
            Field::new("from", time_type(), false),
            Field::new("to", time_type(), false),
            Field::new("count", DataType::Int64, true),
            Field::new("words", DataType::Utf8, true),
        ]))
    }

    fn windows() -> Box<dyn Operator> {
        let value = || Arc::new(Column(2)) as Arc<dyn Expr>;
        Box::new(
            WindowAggregate::new(WindowAggregateSpec {
                rule: WindowRule::hop(5, 10, 0).unwrap(),
                scope: Scope::Merged,
                keys: vec![Arc::new(Column(0))],
                keys_factory: Some(Arc::new(Numbering(vec![DataType::Utf8]))),
                folds: vec![aggregate(Kind::Count, value(), None), aggregate(Kind::Words, value(), None)],
                columns: COLUMNS.to_vec(),
                schema: schema(),
            })
            .unwrap(),
        )
    }

    fn sessions() -> Box<dyn Operator> {
        let value = || Arc::new(Column(2)) as Arc<dyn Expr>;
        Box::new(
            SessionAggregate::new(SessionSpec {
                gap_ms: 4,
                scope: Scope::Merged,
                keys: vec![Arc::new(Column(0))],
                folds: vec![aggregate(Kind::Count, value(), None), aggregate(Kind::Words, value(), None)],
                columns: COLUMNS.to_vec(),
                schema: schema(),
            })
            .unwrap(),
        )
    }

    /// Three sources as the partitions of one.
    fn as_one(inputs: &[Partition], make: fn() -> Box<dyn Operator>) -> Told {
        check_sources(&|| Chain::new(vec![make()]), &[inputs], true)
    }

    #[test]
    fn the_sources_of_a_union_are_as_the_partitions_of_one_source() {
        for seed in 0..4 {
            for make in [windows as fn() -> Box<dyn Operator>, sessions] {
                let input = |p: u64| readings(seed * 10 + p, 60, 3, 12);
                let apart: Vec<Partition> = (0..3).map(|p| Partition::new(0, 4, &input(p))).collect();
                let whole: Vec<Partition> = (0..3).map(|p| Partition::new(p as i32, 4, &input(p))).collect();
                let sources: Vec<&[Partition]> = apart.iter().map(std::slice::from_ref).collect();
                let chain = || union(union(Chain::default(), Chain::default(), Vec::new()), Chain::default(), vec![make()]);
                let told = check_sources(&chain, &sources, true);
                let expected = as_one(&whole, make);
                assert_eq!(told.rows, expected.rows, "seed {seed}");
                assert!(!told.rows.is_empty());
                assert_eq!(told.others.len(), expected.others.len());
            }
        }
    }
}
