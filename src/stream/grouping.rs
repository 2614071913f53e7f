//! GROUPING SETS, ROLLUP and CUBE: each row once for every set of keys it is grouped by.
//!
//! [`GroupingSets`] stands around an aggregate and has no state of its own. The aggregate below sees each row's copies one
//! after the other, with the keys that do not count in a set NULL, and the number of the set as one key more: so a key that is
//! NULL and one that does not count stay apart. Always: what is late or fails does so for all copies alike, and goes aside
//! once; copies keep their row's place, time and mark, so no result depends on how rows were cut into batches.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array, UInt64Array};
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::operator::{Expr, FoldFactory, Operator, StateReader, StateWriter, StreamError};
use super::rowwise::{arrow_error, evaluate, evaluate_flat, row_by_row, take_column};
use super::stateless::condition_of;
use super::{Output, Rows, SpillSpace};
use crate::time::Timestamp;

/// One set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupingSet {
    /// Which of the keys count in it.
    pub counts: Vec<bool>,
    /// Its number.
    pub id: u64,
}

/// All that the operator is made of, the aggregate below it aside.
#[derive(Clone, Debug)]
pub struct GroupingSpec {
    /// How many columns the rows have.
    pub width: usize,
    /// The keys of all sets.
    pub keys: Vec<Arc<dyn Expr>>,
    /// The sets; at least one.
    pub sets: Vec<GroupingSet>,
    /// The type of their numbers.
    pub id: DataType,
    /// Keys more, behind the number: a value for each set.
    pub marks: Vec<Vec<i64>>,
}

impl GroupingSpec {
    /// What the aggregate below goes by: the keys, then the number of the set, then its marks.
    #[must_use]
    pub fn inner_keys(&self) -> Vec<Arc<dyn Expr>> {
        (0..=self.keys.len() + self.marks.len()).map(|key| Arc::new(Appended(self.width + key)) as Arc<dyn Expr>).collect()
    }
}

/// A column that was put behind those of the rows.
#[derive(Debug)]
struct Appended(usize);

impl Expr for Appended {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, StreamError> {
        let column = batch.columns().get(self.0);
        column.map(ArrayRef::clone).ok_or_else(|| StreamError::Limit("a key of grouping sets is missing".to_owned()))
    }

    fn text(&self) -> String {
        format!("key {}", self.0)
    }
}

/// The operator.
pub struct GroupingSets {
    spec: GroupingSpec,
    folds: Vec<Arc<dyn FoldFactory>>,
    inner: Box<dyn Operator>,
}

impl GroupingSets {
    /// Puts the sets around an aggregate of these folds, whose keys are [`GroupingSpec::inner_keys`].
    pub fn new(spec: GroupingSpec, folds: Vec<Arc<dyn FoldFactory>>, inner: Box<dyn Operator>) -> Result<Self, StreamError> {
        let wrong = spec.sets.iter().any(|set| set.counts.len() != spec.keys.len());
        if spec.sets.is_empty() || wrong || spec.marks.iter().any(|mark| mark.len() != spec.sets.len()) {
            return Err(StreamError::Limit("grouping sets have other keys than their aggregate".to_owned()));
        }
        Ok(Self { spec, folds, inner })
    }

    /// The keys of rows that the aggregate can take. Whatever it computes is computed here too, so that a row fails as it came, and once.
    fn keys_of(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, StreamError> {
        for fold in &self.folds {
            for argument in fold.arguments() {
                evaluate(argument.as_ref(), batch)?;
            }
            if let Some(filter) = fold.filter() {
                condition_of(filter.as_ref(), batch)?;
            }
        }
        self.spec.keys.iter().map(|key| evaluate_flat(key.as_ref(), batch)).collect()
    }

    /// The copies of rows.
    fn copies(&self, rows: &Rows, keys: &[ArrayRef]) -> Result<Rows, StreamError> {
        let error = |e| arrow_error("the grouping sets of rows", &e);
        let (sets, count) = (&self.spec.sets, rows.len());
        let picked: Vec<u32> = (0..count as u32).flat_map(|row| std::iter::repeat_n(row, sets.len())).collect();
        let picked = UInt32Array::from(picked);
        let mut columns = rows.batch.columns().iter().map(|column| take_column(column, &picked)).collect::<Result<Vec<_>, _>>()?;
        let mut fields: Vec<Arc<Field>> = rows.batch.schema().fields().iter().cloned().collect();
        for (place, key) in keys.iter().enumerate() {
            let out: BooleanArray = (0..count).flat_map(|_| sets.iter().map(|set| Some(!set.counts[place]))).collect();
            let column = nullif(take_column(key, &picked)?.as_ref(), &out).map_err(error)?;
            fields.push(Arc::new(Field::new(format!("__key_{place}"), column.data_type().clone(), true)));
            columns.push(column);
        }
        let ids = UInt64Array::from_iter_values((0..count).flat_map(|_| sets.iter().map(|set| set.id)));
        columns.push(cast(&ids, &self.spec.id).map_err(error)?);
        fields.push(Arc::new(Field::new("__grouping_id", self.spec.id.clone(), true)));
        for (place, mark) in self.spec.marks.iter().enumerate() {
            columns.push(Arc::new(Int64Array::from_iter_values((0..count).flat_map(|_| mark.iter().copied()))));
            fields.push(Arc::new(Field::new(format!("__mark_{place}"), DataType::Int64, false)));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(picked.len()));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(error)?;
        Ok(rows.picked(batch, |values| picked.values().iter().map(|row| values[*row as usize]).collect()))
    }
}

/// The first of every so many.
fn once<T>(of: Vec<T>, every: usize) -> Result<impl Iterator<Item = T>, StreamError> {
    if !of.len().is_multiple_of(every) {
        return Err(StreamError::Limit("the copies of a row do not share its fate".to_owned()));
    }
    Ok(of.into_iter().step_by(every))
}

impl Operator for GroupingSets {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        let good = row_by_row(rows, &mut |batch| self.keys_of(batch), &mut out.failed)?;
        for (rows, keys) in good {
            let copies = self.copies(&rows, &keys)?;
            let mut made = Output::default();
            self.inner.rows(&copies, &mut made)?;
            out.rows.append(&mut made.rows);
            out.aside.extend(once(made.aside, self.spec.sets.len())?);
            // What still fails is a result.
            out.failed.append(&mut made.failed);
            out.watermark = made.watermark.or(out.watermark);
        }
        Ok(())
    }

    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        self.inner.watermark(at, out)
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        self.inner.due(now)
    }

    fn has_changes(&self) -> bool {
        self.inner.has_changes()
    }

    fn flush(&mut self, out: &mut Output) -> Result<bool, StreamError> {
        self.inner.flush(out)
    }

    fn external(&mut self, body: &str, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        self.inner.external(body, at, out)
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        self.inner.save(state)
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        self.inner.restore(state)
    }

    fn reach_ms(&self) -> Option<i64> {
        self.inner.reach_ms()
    }

    fn outlives_plan(&self) -> bool {
        self.inner.outlives_plan()
    }

    fn hold(&mut self, is_held: bool) {
        self.inner.hold(is_held);
    }

    fn state_bytes(&self) -> usize {
        self.inner.state_bytes()
    }

    fn spill(&mut self, want: usize, space: &SpillSpace) -> Result<usize, StreamError> {
        self.inner.spill(want, space)
    }

    fn spilled_bytes(&self) -> u64 {
        self.inner.spilled_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::PartitionId;
    use crate::stream::doubles::{
        Column, How, Hundredth, Kind, Numbering, PLAIN, Partition, Reading, aggregate, check_always, readings, run, run_beside, time_type,
    };
    use crate::stream::spill::tests::Shelf;
    use crate::stream::{Chain, Scope, WindowAggregate, WindowAggregateSpec, WindowColumn, WindowRule};

    /// Whether a value is there, so that a key of the readings may be NULL.
    #[derive(Debug)]
    struct Low;

    impl Expr for Low {
        fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, StreamError> {
            use arrow::array::{AsArray, StringArray};
            use arrow::datatypes::Float64Type;
            let values = batch.column(2).as_primitive::<Float64Type>();
            Ok(Arc::new(values.iter().map(|value| value.map(|v| if v < 5.0 { "low" } else { "high" })).collect::<StringArray>()))
        }
        fn text(&self) -> String {
            "low".to_owned()
        }
    }

    /// `GROUPING SETS ((key, low), (key), (low), ())` in windows.
    fn chain(rule: WindowRule, scope: Scope, argument: Arc<dyn Expr>) -> Chain {
        let sets = [[true, true], [true, false], [false, true], [false, false]];
        let sets = sets.iter().enumerate().map(|(id, counts)| GroupingSet { counts: counts.to_vec(), id: id as u64 }).collect();
        let spec = GroupingSpec { width: 3, keys: vec![Arc::new(Column(0)), Arc::new(Low)], sets, id: DataType::UInt8, marks: Vec::new() };
        let folds = vec![aggregate(Kind::Words, argument, None)];
        let columns = vec![WindowColumn::WindowEnd, WindowColumn::Key(2), WindowColumn::Key(0), WindowColumn::Key(1), WindowColumn::Agg(0)];
        let fields = vec![
            Field::new("window_end", time_type(), false),
            Field::new("id", DataType::UInt8, true),
            Field::new("key", DataType::Utf8, true),
            Field::new("low", DataType::Utf8, true),
            Field::new("words", DataType::Utf8, true),
        ];
        let inner = WindowAggregate::new(WindowAggregateSpec {
            rule,
            scope,
            keys: spec.inner_keys(),
            keys_factory: Some(Arc::new(Numbering(vec![DataType::Utf8, DataType::Utf8, DataType::UInt8]))),
            folds: folds.clone(),
            columns,
            schema: Arc::new(Schema::new(fields)),
        });
        Chain::new(vec![Box::new(GroupingSets::new(spec, folds, Box::new(inner.unwrap())).unwrap())])
    }

    const ONE: Scope = Scope::Partition(PartitionId(0));

    #[test]
    fn each_row_counts_in_every_set_and_null_stays_apart_from_what_does_not_count() {
        let rule = WindowRule::tumble(10, 0).unwrap();
        let input = [Partition::new(0, 100, &[("ann", Some(1), Some(1.0)), ("bob", Some(2), None), ("ann", Some(3), Some(7.0))])];
        let told = check_always(&|| chain(rule, ONE, Arc::new(Column(2))), &input, false);
        let expected = [
            "10 0 ann low 1.0.",
            "10 1 ann - 1.0.7.0.",
            "10 2 - low 1.0.",
            "10 3 - - 1.0.7.0.",
            "10 0 bob - ",
            "10 1 bob - ",
            "10 2 - - ",
            "10 0 ann high 7.0.",
            "10 2 - high 7.0.",
        ];
        let expected: Vec<String> = expected.iter().map(|line| line.replace("1.0", "1").replace("7.0", "7")).collect();
        assert_eq!(told.rows, expected);
        assert!(told.others.is_empty());
    }

    #[test]
    fn a_row_that_is_late_or_fails_goes_aside_once() {
        let rule = WindowRule::tumble(10, 0).unwrap();
        let a = |at: i64, value: f64| ("ann", Some(at), Some(value));
        let input = [Partition::new(0, 0, &[a(1, 2.0), a(2, 0.0), a(25, 4.0), a(3, 5.0), ("ann", None, Some(1.0))])];
        let told = check_always(&|| chain(rule, ONE, Arc::new(Hundredth(2))), &input, false);
        assert_eq!(told.others, ["p0@1 could not evaluate 100 / value: division by zero", "p0@3 late", "p0@4 late"]);
        assert_eq!(told.rows.len(), 8);
    }

    /// What the rows of one partition come to: for each window and set the values in order.
    fn model(rows: &[Reading], delay: i64, rule: (i64, i64)) -> BTreeMap<(i64, u64, String, String), String> {
        let (slide, size) = rule;
        let (mut found, mut mark) = (BTreeMap::new(), i64::MIN);
        for (key, at, value) in rows {
            if let Some(at) = at {
                let mut start = at.div_euclid(slide) * slide;
                while start + size > *at {
                    if start + size > mark {
                        let low = value.map_or("-", |value| if value < 5.0 { "low" } else { "high" });
                        for (id, (by_key, by_low)) in [(true, true), (true, false), (false, true), (false, false)].into_iter().enumerate() {
                            let group = |counts: bool, name: &str| if counts { name.to_owned() } else { "-".to_owned() };
                            let of = (start + size, id as u64, group(by_key, key), group(by_low, low));
                            let words: &mut String = found.entry(of).or_default();
                            if let Some(value) = value {
                                words.push_str(&format!("{value}."));
                            }
                        }
                    }
                    start -= slide;
                }
                mark = mark.max(at - delay);
            }
        }
        found
    }

    #[test]
    fn under_any_cut_the_sets_hold_what_a_plain_count_gives() {
        for seed in 0..6 {
            let (slide, size) = [(10, 10), (5, 20), (20, 10)][seed as usize % 3];
            let rule = WindowRule::hop(slide, size, 0).unwrap();
            let rows = readings(seed, 60, 4, 12);
            let input = [Partition::new(0, 5, &rows)];
            let told = check_always(&|| chain(rule, ONE, Arc::new(Column(2))), &input, false);
            let shown = |((end, id, key, low), words): ((i64, u64, String, String), String)| format!("{end} {id} {key} {low} {words}");
            // Where windows overlap, rows are merged pane by pane: which they are counts here, not in which order.
            let unordered = |line: &String| {
                let mut parts: Vec<&str> = line.split(' ').collect();
                let mut words: Vec<char> = parts.pop().unwrap_or_default().chars().collect();
                words.sort_unstable();
                format!("{} {}", parts.join(" "), words.into_iter().collect::<String>())
            };
            let expected: Vec<String> = model(&rows, 5, (slide, size)).into_iter().map(shown).collect();
            let mut expected: Vec<String> = expected.iter().map(unordered).collect();
            let mut found: Vec<String> = told.rows.iter().map(unordered).collect();
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "seed {seed}");
            assert!(told.others.windows(2).all(|two| two[0] != two[1]), "a late row goes aside once: {:?}", told.others);
        }
    }

    #[test]
    fn merged_partitions_give_one_result_whatever_the_interleaving() {
        for seed in 0..4 {
            let rule = WindowRule::hop(5, 15, 0).unwrap();
            let input: Vec<Partition> = (0..3).map(|p| Partition::new(p, 5, &readings(seed * 10 + p as u64, 30, 4, 12))).collect();
            let told = check_always(&|| chain(rule, Scope::Merged, Arc::new(Column(2))), &input, true);
            assert!(!told.rows.is_empty());
        }
    }

    #[test]
    fn what_the_sets_hold_lies_on_the_disk_as_other_windows_do() {
        let rule = WindowRule::hop(5, 40, 0).unwrap();
        let input = [Partition::new(0, 5, &readings(7, 120, 4, 12))];
        let made = || chain(rule, ONE, Arc::new(Column(2)));
        let shelf = Shelf::default();
        let told = run_beside(&shelf, &made, &[&input], How { seed: 1, batch: 4, spill: true, ..PLAIN });
        assert_eq!(told, run(&made, &input, PLAIN));
        assert!(shelf.used().0 > 10 && shelf.used().1 > 10, "{:?} files written and read", shelf.used());
    }
}
