//! The first rows of each key in an order, kept up to date: ROW_NUMBER over partitions that do not end.
//!
//! Every place of a key's ranking is a row of the results: it is told when another row takes it, and is gone where nobody
//! has it any more. Rows that are alike in the order asked for are in order of (time, partition, offset). Always: what a key
//! has is a function of each partition's rows in their order; of each input partition no more rows are kept than are wanted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};

use super::shown::Shown;
use crate::record::PartitionId;
use crate::stream::keyed::KeyTable;
use crate::stream::rank::{RankOrder, Spot, Store};
use crate::stream::rowwise::{arrow_error, evaluate_flat, row_by_row};
use crate::stream::window::{WindowColumn, as_type};
use crate::stream::{Aside, AsideRow, Expr, NO_OFFSET, NO_TIME, Operator, Output, Rows, Scope, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// So many keys speak in one commit at most.
const TURN_KEYS: usize = 50_000;
/// Keys are told so many at a time.
const BATCH_KEYS: usize = 2048;

/// All that the operator is made of.
#[derive(Debug)]
pub struct TopSpec {
    /// Which partitions meet here.
    pub scope: Scope,
    /// PARTITION BY.
    pub keys: Vec<Arc<dyn Expr>>,
    /// ORDER BY.
    pub order: Vec<RankOrder>,
    /// How many of a key are wanted; at least one.
    pub limit: usize,
    /// A key is let go when no row has come for so many milliseconds of event time.
    pub ttl_ms: Option<i64>,
    /// The input's columns, then the row's number.
    pub schema: SchemaRef,
    /// What the rows go through. Of its keys [`WindowColumn::Agg`] is the row's number.
    pub shown: Shown,
}

/// A row that is kept.
#[derive(Debug)]
pub(super) struct Member {
    pub order: Box<[u8]>,
    pub at: i64,
    pub partition: i32,
    pub offset: i64,
    /// Counts up with each row that is kept.
    pub id: i64,
    pub spot: Spot,
}

impl Member {
    fn place(&self) -> (&[u8], i64, i32, i64) {
        (&self.order, self.at, self.partition, self.offset)
    }
}

/// The rows of one input partition, in order.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub partition: i32,
    /// The greatest time of its rows, kept or not.
    pub last: i64,
    pub members: Vec<Member>,
}

/// What one key has.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    /// In order of partition.
    pub parts: Vec<Part>,
    /// The row that was last told of each place, and whether the reader has it.
    pub told: Vec<(i64, bool)>,
    /// Whether it may have changed since: not, yes, or its turn has come.
    pub due: u8,
}

/// The operator.
pub struct Top {
    pub(super) spec: TopSpec,
    pub(super) converter: RowConverter,
    pub(super) table: KeyTable,
    pub(super) rankings: Vec<Ranking>,
    pub(super) store: Store,
    pub(super) kept: usize,
    pub(super) next: i64,
    pub(super) mark: i64,
    expiries: BTreeMap<i64, Vec<(u32, i32)>>,
    changed: Vec<u32>,
    pub(super) turn: VecDeque<u32>,
}

/// What is evaluated of a batch.
pub(super) struct Evaluated {
    keys: Vec<ArrayRef>,
    pub order: Vec<ArrayRef>,
}

impl Top {
    /// Checks that the schema has room for the number, and that the order can be kept.
    pub fn new(spec: TopSpec) -> Result<Self, StreamError> {
        if spec.schema.fields().is_empty() || spec.limit == 0 {
            return Err(StreamError::Limit("ROW_NUMBER has no column in its schema, or no row is wanted".to_owned()));
        }
        let field = |order: &RankOrder| {
            let options = SortOptions { descending: order.descending, nulls_first: order.nulls_first };
            SortField::new_with_options(order.of.clone(), options)
        };
        let converter = RowConverter::new(spec.order.iter().map(field).collect()).map_err(|e| arrow_error("ORDER BY", &e))?;
        Ok(Self {
            spec,
            converter,
            table: KeyTable::default(),
            rankings: Vec::new(),
            store: Store::default(),
            kept: 0,
            next: 0,
            mark: i64::MIN,
            expiries: BTreeMap::new(),
            changed: Vec::new(),
            turn: VecDeque::new(),
        })
    }

    pub(super) fn evaluated(&self, batch: &RecordBatch) -> Result<Evaluated, StreamError> {
        let keys = self.spec.keys.iter().map(|key| evaluate_flat(key.as_ref(), batch)).collect::<Result<Vec<_>, _>>()?;
        let order = self.spec.order.iter().map(|order| evaluate_flat(order.value.as_ref(), batch)).collect::<Result<_, _>>()?;
        Ok(Evaluated { keys, order })
    }

    fn take_in(&mut self, rows: &Rows, of: &Evaluated, out: &mut Output) -> Result<(), StreamError> {
        let encoded = self.table.encode(&of.keys)?;
        let order = self.converter.convert_columns(&of.order).map_err(|e| arrow_error("ORDER BY", &e))?;
        let chunk = self.store.next();
        let mut added: Vec<u32> = Vec::new();
        for row in 0..rows.len() {
            let (at, mark) = (rows.times[row], rows.before[row].max(self.mark));
            // A row so old that its key would be let go at once is late.
            if self.spec.ttl_ms.is_some_and(|ttl| at == NO_TIME || at.saturating_add(ttl) < mark) {
                out.aside.push(AsideRow { partition: rows.partition, offset: rows.offsets[row], why: Aside::Late });
                continue;
            }
            let (slot, _) = self.table.slot(encoded.key(row));
            if self.rankings.len() <= slot as usize {
                self.rankings.resize_with(slot as usize + 1, Ranking::default);
            }
            let ranking = &mut self.rankings[slot as usize];
            let place = ranking.parts.partition_point(|part| part.partition < rows.partition.0);
            if ranking.parts.get(place).is_none_or(|part| part.partition != rows.partition.0) {
                ranking.parts.insert(place, Part { partition: rows.partition.0, last: at, members: Vec::new() });
                if let Some(ttl) = self.spec.ttl_ms {
                    self.expiries.entry(at.saturating_add(ttl)).or_default().push((slot, rows.partition.0));
                }
            }
            let part = &mut ranking.parts[place];
            let mut changes = false;
            if self.spec.ttl_ms.is_some_and(|ttl| part.last.saturating_add(ttl) < mark) {
                self.kept -= part.members.len();
                part.members.clear();
                part.last = at;
                changes = true;
            }
            part.last = part.last.max(at);
            let own = (order.row(row).data(), at, rows.partition.0, rows.offsets[row]);
            let behind = part.members.partition_point(|member| member.place() <= own);
            if behind < self.spec.limit {
                let spot = (chunk, added.len() as u32);
                added.push(row as u32);
                part.members.insert(behind, Member { order: own.0.into(), at, partition: own.2, offset: own.3, id: self.next, spot });
                self.next += 1;
                self.kept += 1;
                if part.members.len() > self.spec.limit {
                    part.members.pop();
                    self.kept -= 1;
                }
                changes = true;
            }
            if changes && ranking.due == 0 {
                ranking.due = 1;
                self.changed.push(slot);
            }
        }
        if !added.is_empty() {
            self.store.add(rows.batch.columns(), added)?;
        }
        self.tidy()
    }

    fn tidy(&mut self) -> Result<(), StreamError> {
        if !self.store.is_untidy(self.kept) {
            return Ok(());
        }
        let members = self.rankings.iter_mut().flat_map(|ranking| &mut ranking.parts).flat_map(|part| &mut part.members);
        let mut spots = Vec::with_capacity(self.kept);
        for (row, member) in members.enumerate() {
            spots.push(std::mem::replace(&mut member.spot, (0, row as u32)));
        }
        self.store.keep(&spots)
    }

    /// The rows that a key has now, in order.
    fn first(&self, slot: u32) -> Vec<&Member> {
        let mut members: Vec<&Member> = self.rankings[slot as usize].parts.iter().flat_map(|part| &part.members).collect();
        members.sort_unstable_by(|a, b| a.place().cmp(&b.place()));
        members.truncate(self.spec.limit);
        members
    }

    /// Tells the places that others have taken.
    fn tell(&mut self, slots: &[u32], out: &mut Output) -> Result<(), StreamError> {
        let (mut spots, mut numbers, mut times): (Vec<Spot>, Vec<u64>, Vec<i64>) = Default::default();
        let (mut whose, mut ids): (Vec<(u32, usize)>, Vec<i64>) = Default::default();
        let mut gone: Vec<(u32, usize)> = Vec::new();
        for slot in slots {
            let first = self.first(*slot);
            let told = &self.rankings[*slot as usize].told;
            for (place, member) in first.iter().enumerate() {
                if told.get(place).is_none_or(|(id, _)| *id != member.id) {
                    spots.push(member.spot);
                    numbers.push(place as u64 + 1);
                    times.push(member.at);
                    whose.push((*slot, place));
                    ids.push(member.id);
                }
            }
            let left = first.len();
            gone.extend((left..told.len()).filter(|place| told[*place].1).map(|place| (*slot, place)));
            let ranking = &mut self.rankings[*slot as usize];
            ranking.told.truncate(left);
            ranking.due = 0;
        }
        if !spots.is_empty() {
            let mut columns = self.store.gather(&spots)?;
            let number: ArrayRef = Arc::new(UInt64Array::from(numbers));
            columns.push(as_type(number, self.spec.schema.field(columns.len()))?);
            let batch = RecordBatch::try_new(Arc::clone(&self.spec.schema), columns).map_err(|e| arrow_error("the ranked rows", &e))?;
            let passed = self.spec.shown.pass(&placed(self.spec.scope, batch, times), out)?;
            for (((slot, place), id), passed) in whose.into_iter().zip(ids).zip(passed) {
                let told = &mut self.rankings[slot as usize].told;
                if told.len() == place {
                    told.push((id, passed));
                } else if std::mem::replace(&mut told[place], (id, passed)).1 && !passed {
                    gone.push((slot, place));
                }
            }
        }
        self.say_gone(&gone, out)
    }

    fn say_gone(&self, places: &[(u32, usize)], out: &mut Output) -> Result<(), StreamError> {
        if places.is_empty() {
            return Ok(());
        }
        let keys = self.table.decode(places.iter().filter_map(|(slot, _)| self.table.key(*slot).map(AsRef::as_ref)))?;
        let numbers: ArrayRef = Arc::new(places.iter().map(|(_, place)| *place as u64 + 1).collect::<UInt64Array>());
        let like = placed(self.spec.scope, RecordBatch::new_empty(Arc::clone(&self.spec.shown.schema)), vec![NO_TIME; places.len()]);
        let column = |what: WindowColumn| match what {
            WindowColumn::Key(key) => keys.get(key).cloned().ok_or_else(|| StreamError::Limit("a ranking has no such key".to_owned())),
            _ => Ok(ArrayRef::clone(&numbers)),
        };
        self.spec.shown.gone(&like, column, out)
    }

    /// What one input partition has brought for a key goes when no row has come for too long.
    fn expire(&mut self, at: i64, out: &mut Output) -> Result<(), StreamError> {
        let Some(ttl) = self.spec.ttl_ms else { return Ok(()) };
        let later = self.expiries.split_off(&at);
        let mut gone: Vec<u32> = Vec::new();
        for (slot, partition) in std::mem::replace(&mut self.expiries, later).into_values().flatten() {
            let ranking = &mut self.rankings[slot as usize];
            let Some(place) = ranking.parts.iter().position(|part| part.partition == partition) else { continue };
            let until = ranking.parts[place].last.saturating_add(ttl);
            if until >= at {
                self.expiries.entry(until).or_default().push((slot, partition));
                continue;
            }
            self.kept -= ranking.parts.remove(place).members.len();
            if ranking.parts.is_empty() {
                gone.push(slot);
            } else if ranking.due == 0 {
                ranking.due = 1;
                self.changed.push(slot);
            }
        }
        for slots in gone.chunks(BATCH_KEYS) {
            self.tell(slots, out)?;
        }
        for slot in gone {
            self.rankings[slot as usize] = Ranking::default();
            self.table.drop_slot(slot);
        }
        self.tidy()
    }

    /// Looks at a part again once it may have lived long enough.
    pub(super) fn watch(&mut self, slot: u32, partition: i32, last: i64) {
        if let Some(ttl) = self.spec.ttl_ms {
            self.expiries.entry(last.saturating_add(ttl)).or_default().push((slot, partition));
        }
    }

    /// A key that is owed a word, once more: a state that was restored.
    pub(super) fn owe(&mut self, slot: u32) {
        self.changed.push(slot);
    }

    pub(super) fn sort(&self, slots: &mut [u32]) {
        slots.sort_unstable_by(|a, b| self.table.key(*a).cmp(&self.table.key(*b)));
    }
}

fn placed(scope: Scope, batch: RecordBatch, times: Vec<i64>) -> Rows {
    let partition = match scope {
        Scope::Partition(partition) => partition,
        Scope::Merged => PartitionId(0),
    };
    let offsets = vec![NO_OFFSET; times.len()].into();
    Rows { batch, partition, offsets, before: times.clone().into(), times: times.into(), heard: None, gone: false }
}

impl Operator for Top {
    fn name(&self) -> &'static str {
        "top"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.shown.schema)
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        let evaluated = row_by_row(rows, &mut |batch| self.evaluated(batch), &mut out.failed)?;
        for (rows, of) in evaluated {
            self.take_in(&rows, &of, out)?;
        }
        Ok(())
    }

    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        self.mark = self.mark.max(at.0);
        self.expire(at.0, out)
    }

    fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.turn.is_empty()
    }

    fn flush(&mut self, out: &mut Output) -> Result<bool, StreamError> {
        if self.turn.is_empty() {
            let mut changed = std::mem::take(&mut self.changed);
            // A key that has gone is on the list still; one that came in its place may be twice.
            changed.retain(|slot| {
                let due = &mut self.rankings[*slot as usize].due;
                let is_due = *due == 1;
                *due += u8::from(is_due);
                is_due
            });
            if changed.len() > TURN_KEYS {
                // Which of them speak in this commit must not depend on how partitions interleaved.
                self.sort(&mut changed);
            }
            self.turn.extend(changed);
        }
        let count = self.turn.len().min(TURN_KEYS);
        let turn: Vec<u32> = self.turn.drain(..count).filter(|slot| self.rankings[*slot as usize].due == 2).collect();
        for slots in turn.chunks(BATCH_KEYS) {
            self.tell(slots, out)?;
        }
        Ok(!self.turn.is_empty())
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        self.write(state)
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        self.read(state)
    }

    fn state_bytes(&self) -> usize {
        let key = |ranking: &Ranking| {
            let members = ranking.parts.iter().map(|part| part.members.iter().map(|m| m.order.len() + size_of::<Member>()).sum::<usize>());
            members.sum::<usize>() + ranking.parts.len() * size_of::<Part>() + ranking.told.len() * 16
        };
        let rankings = self.rankings.iter().map(key).sum::<usize>() + self.rankings.len() * size_of::<Ranking>();
        self.store.bytes() + self.table.bytes() + rankings + self.expiries.len() * 64
    }
}
