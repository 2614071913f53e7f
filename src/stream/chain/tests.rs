//! A chain of several operators: the same however it is cut and restarted, and what each of them counts and is told.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::record::PartitionId;
use crate::stream::doubles::{Below, Column, Kind, Numbering, Partition, aggregate, check_always, reading_schema, readings, time_type};
use crate::stream::{
    Absent, AbsentColumn, AbsentSpec, Expr, FilterProject, Keyed, KeyedFunction, KeyedSpec, Scope, WindowAggregate, WindowAggregateSpec,
    WindowColumn, WindowRule,
};

/// Readings of at least nothing, each beside the one before it, summed up by windows, and the keys that
/// have had no window for long.
fn whole(scope: Scope) -> Chain {
    let key = || Arc::new(Column(0)) as Arc<dyn Expr>;
    let filter = FilterProject::new(Some(Arc::new(Below(2, 9.0))), None, reading_schema());
    let mut fields: Vec<Field> = reading_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new("before", DataType::Float64, true));
    let lag = KeyedFunction::Lag { value: Arc::new(Column(2)), n: 1, default: None };
    let keyed = Keyed::new(KeyedSpec { keys: vec![key()], functions: vec![lag], schema: Arc::new(Schema::new(fields)) });
    let windows = WindowAggregate::new(WindowAggregateSpec {
        rule: WindowRule::hop(4, 10, 1).unwrap(),
        scope,
        keys: vec![key()],
        keys_factory: Some(Arc::new(Numbering(vec![DataType::Utf8]))),
        folds: vec![aggregate(Kind::Words, Arc::new(Column(3)), None)],
        columns: vec![WindowColumn::Key(0), WindowColumn::WindowTime, WindowColumn::Agg(0)],
        schema: Arc::new(Schema::new(vec![
            Field::new("key", DataType::Utf8, true),
            Field::new("at", time_type(), false),
            Field::new("words", DataType::Utf8, true),
        ])),
    });
    let absent = Absent::new(AbsentSpec {
        scope,
        keys: vec![key()],
        interval_ms: 6,
        returns: true,
        columns: vec![AbsentColumn::Key(0), AbsentColumn::At, AbsentColumn::Absent],
        schema: Arc::new(Schema::new(vec![
            Field::new("key", DataType::Utf8, true),
            Field::new("at", time_type(), false),
            Field::new("absent", DataType::Boolean, false),
        ])),
    });
    Chain::new(vec![Box::new(filter), Box::new(keyed.unwrap()), Box::new(windows.unwrap()), Box::new(absent.unwrap())])
}

#[test]
fn a_whole_chain_gives_the_same_for_any_cut_interleaving_and_restart() {
    for seed in 0..3 {
        let partition = |p: i32| Partition::new(p, 8, &readings(seed * 10 + p as u64, 80, 6, 12));
        let one = check_always(&|| whole(Scope::Partition(PartitionId(0))), &[partition(0)], false);
        assert!(one.rows.iter().any(|row| row.ends_with("false")), "some key has come back: {:?}", one.rows);
        let merged = check_always(&|| whole(Scope::Merged), &[partition(0), partition(1)], true);
        // Only what the source brought late is late: what operators make is late for none behind them.
        assert!(merged.others.iter().all(|line| !line.contains("@-1")));
    }
}

struct HoldsBack;

impl Operator for HoldsBack {
    fn schema(&self) -> SchemaRef {
        reading_schema()
    }
    fn rows(&mut self, _: &Rows, _: &mut Output) -> Result<(), StreamError> {
        Ok(())
    }
    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        out.watermark = Some(at.plus(-5));
        Ok(())
    }
    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        Some(now.plus(-1))
    }
}

struct Notes(Arc<std::sync::Mutex<Vec<i64>>>, &'static str);

impl Operator for Notes {
    fn schema(&self) -> SchemaRef {
        reading_schema()
    }
    fn rows(&mut self, _: &Rows, _: &mut Output) -> Result<(), StreamError> {
        Ok(())
    }
    fn watermark(&mut self, at: Timestamp, _: &mut Output) -> Result<(), StreamError> {
        self.0.lock().unwrap().push(at.0);
        Ok(())
    }
    fn external(&mut self, body: &str, at: Timestamp, _: &mut Output) -> Result<(), StreamError> {
        assert_eq!(body, self.1);
        self.0.lock().unwrap().push(at.0);
        Ok(())
    }
}

#[test]
fn a_watermark_held_back_is_what_the_next_operators_see() {
    let (first, second) = (Arc::default(), Arc::default());
    let mut chain =
        Chain::new(vec![Box::new(Notes(Arc::clone(&first), "")), Box::new(HoldsBack), Box::new(Notes(Arc::clone(&second), ""))]);
    chain.watermark(Timestamp(20), &mut Output::default()).unwrap();
    assert_eq!((first.lock().unwrap().clone(), second.lock().unwrap().clone()), (vec![20], vec![15]));
    assert_eq!(chain.due(Timestamp(9)), Some(Timestamp(8)));
}

#[test]
fn each_operator_counts_its_own_rows_and_time() {
    let mut chain = whole(Scope::Partition(PartitionId(0)));
    assert_eq!(chain.names(), ["source", "filter", "over", "window", "absent"]);
    let stats: Vec<Arc<OperatorStats>> = chain.names().iter().map(|_| Arc::default()).collect();
    chain.count_into(&mut stats.iter().cloned());
    let rows = Partition::new(0, 8, &readings(1, 80, 6, 12)).rows().clone();
    let mut out = Output::default();
    chain.rows(&rows, &mut out).unwrap();
    chain.watermark(Timestamp(100), &mut out).unwrap();
    let weight = chain.weigh();
    chain.watermark(Timestamp::MAX, &mut out).unwrap();
    let figures: Vec<_> = stats.iter().map(|stats| stats.figures("", 0.0)).collect();
    assert_eq!(figures[1].rows_in, 80);
    assert!(figures[1].rows_out < 80 && figures[1].rows_out > 60, "{figures:?}");
    for (one, next) in figures[1..].iter().zip(&figures[2..]) {
        assert_eq!(one.rows_out, next.rows_in, "what one hands on the next one takes");
    }
    assert_eq!(figures[4].rows_out, out.rows.iter().map(|rows| rows.len() as u64).sum::<u64>());
    assert_eq!(figures.iter().map(|of| of.late).sum::<u64>(), out.aside.len() as u64);
    assert!(figures[1..].iter().all(|of| of.busy > Duration::ZERO), "{figures:?}");
    assert!(figures[2].watermark.is_some() && figures[0].watermark.is_none(), "the source's is told by the task");
    assert_eq!(figures[1].state_bytes, 0);
    assert_eq!(weight.bytes as u64, figures.iter().map(|of| of.state_bytes).sum::<u64>());
    assert_eq!(weight.most as u64, figures[weight.place].state_bytes);
    assert!(weight.most > 0);
}

#[test]
fn a_step_from_outside_reaches_every_operator() {
    let notes = Arc::default();
    let mut chain =
        Chain::new(vec![Box::new(Notes(Arc::clone(&notes), "ack")), Box::new(HoldsBack), Box::new(Notes(Arc::clone(&notes), "ack"))]);
    chain.external("ack", Timestamp(3), &mut Output::default()).unwrap();
    assert_eq!(*notes.lock().unwrap(), [3, 3]);
}

#[test]
fn a_part_of_a_state_that_no_operator_knows_is_an_error_that_names_it() {
    let chain = || whole(Scope::Partition(PartitionId(0)));
    let mut before = chain();
    before.rows(Partition::new(0, 8, &readings(1, 80, 6, 12)).rows(), &mut Output::default()).unwrap();
    let mut saved = StateWriter::default();
    before.save(&mut saved).unwrap();
    chain().restore(&StateReader::of(saved.parts.clone())).unwrap();
    for (place, operator) in ["filter", "over", "window", "absent"].into_iter().enumerate() {
        let mut parts = saved.parts.clone();
        let some = parts[0].1.clone();
        parts.push((format!("{place}/of a later version"), some));
        let error = chain().restore(&StateReader::of(parts)).unwrap_err().to_string();
        assert!(
            error.contains(operator) && error.contains("part \"of a later version\"") && error.contains("the version that wrote it"),
            "{error}"
        );
    }
}
