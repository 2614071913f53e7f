//! Conditions, measures and patterns, and the operator made of them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};

use super::{TS, VALUE};
use crate::stream::doubles::{Column, reading_schema, time_type};
use crate::stream::pattern::{
    MatchRecognize, Pattern, PatternColumn, PatternCondition, PatternEnd, PatternRead, PatternSkip, PatternSpec, PatternVariable,
    TallyFunction,
};
use crate::stream::{Chain, Expr, Operator, Output, Rows, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// What a condition compares.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Read(usize),
    Number(f64),
}

/// `left < right`, NULL where one of them is.
#[derive(Debug)]
pub(super) struct Less(Side, Side);

impl Expr for Less {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, StreamError> {
        let numbers = |side: Side| match side {
            Side::Read(at) => cast(batch.column(at), &DataType::Float64).unwrap().as_primitive::<Float64Type>().clone(),
            Side::Number(number) => Float64Array::from(vec![number; batch.num_rows()]),
        };
        let (left, right) = (numbers(self.0), numbers(self.1));
        Ok(Arc::new(left.iter().zip(right.iter()).map(|(l, r)| Some(l? < r?)).collect::<BooleanArray>()))
    }
    fn text(&self) -> String {
        format!("{:?} < {:?}", self.0, self.1)
    }
}

/// 1 divided by what is read is positive; nothing that is not zero fails.
#[derive(Debug)]
pub(super) struct Inverse;

impl Expr for Inverse {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, StreamError> {
        let values = cast(batch.column(0), &DataType::Float64).unwrap();
        let values = values.as_primitive::<Float64Type>();
        if values.iter().any(|value| value == Some(0.0)) {
            return Err(StreamError::Evaluate { what: "?".to_owned(), why: "Divide by zero: secret 0".to_owned() });
        }
        Ok(Arc::new(values.iter().map(|value| Some(1.0 / value? > 0.0)).collect::<BooleanArray>()))
    }
    fn text(&self) -> String {
        "1 / value > 0".to_owned()
    }
}

pub(super) const fn row(of: Option<usize>, from: PatternEnd, skip: u32, back: u32) -> PatternRead {
    PatternRead::Row { argument: VALUE, of, from, skip, back, is_final: false }
}

pub(super) fn tally(function: TallyFunction, of: Option<usize>, is_final: bool) -> PatternRead {
    let (argument, to) = match function {
        TallyFunction::Count => (None, DataType::Int64),
        _ => (Some(VALUE), DataType::Float64),
    };
    PatternRead::Tally { function, argument, of, to, is_final }
}

pub(super) fn less(reads: Vec<PatternRead>, left: Side, right: Side) -> PatternCondition {
    PatternCondition { reads, value: Arc::new(Less(left, right)) }
}

pub(super) fn below(limit: f64) -> PatternCondition {
    less(vec![row(None, PatternEnd::Last, 0, 0)], Side::Read(0), Side::Number(limit))
}

pub(super) fn at_least(limit: f64) -> PatternCondition {
    less(vec![row(None, PatternEnd::Last, 0, 0)], Side::Number(limit - 1e-9), Side::Read(0))
}

pub(super) fn variable(name: &str, local: Option<PatternCondition>, history: Option<PatternCondition>) -> PatternVariable {
    PatternVariable { name: name.to_owned(), local, history }
}

pub(super) fn one(number: usize) -> Pattern {
    Pattern::Variable(number)
}

pub(super) fn repeat(of: Pattern, least: u32, most: Option<u32>, reluctant: bool) -> Pattern {
    Pattern::Repeat { of: Box::new(of), least, most, reluctant }
}

pub(super) fn measure(read: PatternRead) -> PatternCondition {
    PatternCondition { reads: vec![read], value: Arc::new(Column(0)) }
}

/// The key; the times of the first and last row; how many rows, and of the first variable; the sum and the greatest of the
/// last variable's values; the value before the last row; the last row's variable; the number of the match.
pub(super) fn measures(last: usize, is_final: bool) -> Vec<(PatternCondition, DataType)> {
    let time = |from| PatternRead::Row { argument: TS, of: None, from, skip: 0, back: 0, is_final };
    let back = PatternRead::Row { argument: VALUE, of: None, from: PatternEnd::Last, skip: 0, back: 1, is_final };
    vec![
        (measure(time(PatternEnd::First)), time_type()),
        (measure(time(PatternEnd::Last)), time_type()),
        (measure(tally(TallyFunction::Count, None, is_final)), DataType::Int64),
        (measure(tally(TallyFunction::Count, Some(0), is_final)), DataType::Int64),
        (measure(tally(TallyFunction::Sum, Some(last), is_final)), DataType::Float64),
        (measure(tally(TallyFunction::Max, Some(last), is_final)), DataType::Float64),
        (measure(back), DataType::Float64),
        (measure(PatternRead::Classifier { is_final }), DataType::Utf8),
        (measure(PatternRead::Number), DataType::Int64),
    ]
}

/// A pattern, and what it takes for its variables.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub pattern: Pattern,
    pub variables: Vec<PatternVariable>,
    pub within_ms: Option<i64>,
    pub skip: PatternSkip,
    pub all_rows: bool,
    /// Whether measures are final where all rows come out.
    pub is_final: bool,
}

pub(super) fn spec(case: &Case) -> PatternSpec {
    let (measures, types): (Vec<_>, Vec<_>) = measures(case.variables.len() - 1, case.is_final).into_iter().unzip();
    let mut fields = vec![Field::new("key", DataType::Utf8, true)];
    let mut columns = vec![PatternColumn::Key(0)];
    if case.all_rows {
        fields.push(Field::new("value", DataType::Float64, true));
        columns.push(PatternColumn::Argument(VALUE));
    }
    for (at, of) in types.into_iter().enumerate() {
        fields.push(Field::new(format!("m{at}"), of, true));
        columns.push(PatternColumn::Measure(at));
    }
    PatternSpec {
        keys: vec![Arc::new(Column(0))],
        arguments: vec![(Arc::new(Column(1)), time_type()), (Arc::new(Column(2)), DataType::Float64)],
        variables: case.variables.clone(),
        pattern: case.pattern.clone(),
        within_ms: case.within_ms,
        skip: case.skip,
        all_rows: case.all_rows,
        measures,
        columns,
        input: reading_schema(),
        schema: Arc::new(Schema::new(fields)),
    }
}

pub(super) fn operator(case: &Case) -> MatchRecognize {
    MatchRecognize::new(spec(case)).unwrap()
}

/// The operator, and how far it has said that time has come.
struct Watched {
    of: MatchRecognize,
    told: i64,
}

impl Operator for Watched {
    fn schema(&self) -> SchemaRef {
        self.of.schema()
    }
    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        self.of.rows(rows, out)?;
        assert!(out.rows.is_empty(), "nothing comes out before time has come");
        Ok(())
    }
    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        self.of.watermark(at, out)?;
        let times = out.rows.iter().flat_map(|rows| rows.times.iter());
        assert!(times.min().is_none_or(|least| *least >= self.told), "a row came out behind the watermark that was handed on");
        let told = out.watermark.map_or(at.0, |told| told.0);
        assert!(self.told <= told && told <= at.0, "time goes on: {} {told} {}", self.told, at.0);
        self.told = told;
        Ok(())
    }
    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        self.of.save(state)
    }
    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        self.of.restore(state)
    }
    fn state_bytes(&self) -> usize {
        self.of.state_bytes()
    }
}

pub(super) fn chain(case: &Case) -> Chain {
    Chain::new(vec![Box::new(Watched { of: operator(case), told: i64::MIN })])
}
