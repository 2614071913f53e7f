//! The operator of ROW_NUMBER within partitions that come to an end.
//!
//! Each PARTITION BY holds a time that says until when its rows come: the end of a window, or the event time itself. When
//! the watermark has passed it, the partition's rows leave, numbered in the order asked for; rows that are alike in it are
//! in order of (time, partition, offset). Where only the first n are wanted, no more than n rows of a partition are kept.
//! Always: a row is late only where its partition had ended by the watermark of its own input partition just before it;
//! the rows that leave carry the time at which their partition ended, and what leaves together is in order of that time,
//! then of the key.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};

use super::store::{Spot, Store};
use crate::record::PartitionId;
use crate::stream::keyed::KeyTable;
use crate::stream::over::OverExpiry;
use crate::stream::rowwise::{arrow_error, evaluate_flat, row_by_row};
use crate::stream::source::millis;
use crate::stream::window::{as_type, ints, ints_of};
use crate::stream::{Aside, AsideRow, Expr, NO_OFFSET, NO_TIME, Operator, Output, Rows, Scope, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// Rows leave in batches of about this many.
const BATCH_ROWS: usize = 8192;

/// One column of ORDER BY.
#[derive(Clone, Debug)]
pub struct RankOrder {
    /// The value.
    pub value: Arc<dyn Expr>,
    /// Its type.
    pub of: DataType,
    /// Greatest first.
    pub descending: bool,
    /// NULLs before all others.
    pub nulls_first: bool,
}

/// All that the operator is made of.
#[derive(Clone, Debug)]
pub struct RankSpec {
    /// Which partitions meet here.
    pub scope: Scope,
    /// PARTITION BY.
    pub keys: Vec<Arc<dyn Expr>>,
    /// ORDER BY.
    pub order: Vec<RankOrder>,
    /// Which key says until when a partition's rows come.
    pub expiry: OverExpiry,
    /// How many of a partition are wanted.
    pub limit: Option<usize>,
    /// The input's columns, then the row's number.
    pub schema: SchemaRef,
}

/// A row that is kept.
#[derive(Debug)]
struct Member {
    order: Box<[u8]>,
    at: i64,
    partition: i32,
    offset: i64,
    spot: Spot,
}

impl Member {
    fn place(&self) -> (&[u8], i64, i32, i64) {
        (&self.order, self.at, self.partition, self.offset)
    }
}

/// The operator.
pub struct Rank {
    spec: RankSpec,
    converter: RowConverter,
    table: KeyTable,
    /// The rows of each slot, in order where only some are wanted.
    groups: Vec<Vec<Member>>,
    /// The slots whose partitions end at a time.
    ends: BTreeMap<i64, Vec<u32>>,
    store: Store,
    kept: usize,
    mark: i64,
}

/// What is evaluated of a batch.
struct Evaluated {
    keys: Vec<ArrayRef>,
    order: Vec<ArrayRef>,
    ends: Int64Array,
}

impl Rank {
    /// Checks that the schema has room for the number, and that the order can be kept.
    pub fn new(spec: RankSpec) -> Result<Self, StreamError> {
        if spec.schema.fields().is_empty() || spec.expiry.key >= spec.keys.len() {
            return Err(StreamError::Limit("ROW_NUMBER has no column in its schema, or no end of its partitions".to_owned()));
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
            groups: Vec::new(),
            ends: BTreeMap::new(),
            store: Store::default(),
            kept: 0,
            mark: i64::MIN,
        })
    }

    fn evaluated(&self, batch: &RecordBatch) -> Result<Evaluated, StreamError> {
        let keys = self.spec.keys.iter().map(|key| evaluate_flat(key.as_ref(), batch)).collect::<Result<Vec<_>, _>>()?;
        let order = self.spec.order.iter().map(|order| evaluate_flat(order.value.as_ref(), batch)).collect::<Result<_, _>>()?;
        let ends = millis(&keys[self.spec.expiry.key])?;
        Ok(Evaluated { keys, order, ends })
    }

    /// Takes rows in; each with its own place in the order, so that any order of arrival gives the same.
    fn take_in(&mut self, rows: &Rows, of: &Evaluated, out: &mut Output) -> Result<(), StreamError> {
        let encoded = self.table.encode(&of.keys)?;
        let order = self.converter.convert_columns(&of.order).map_err(|e| arrow_error("ORDER BY", &e))?;
        let chunk = self.store.next();
        let mut added: Vec<u32> = Vec::new();
        for row in 0..rows.len() {
            let end = of.ends.is_valid(row).then(|| of.ends.value(row).saturating_add(self.spec.expiry.plus_ms));
            let Some(end) = end.filter(|end| rows.times[row] != NO_TIME && *end >= rows.before[row].max(self.mark)) else {
                out.aside.push(AsideRow { partition: rows.partition, offset: rows.offsets[row], why: Aside::Late });
                continue;
            };
            let (slot, new) = self.table.slot(encoded.key(row));
            if new {
                if self.groups.len() <= slot as usize {
                    self.groups.resize_with(slot as usize + 1, Vec::new);
                }
                self.ends.entry(end).or_default().push(slot);
            }
            let group = &mut self.groups[slot as usize];
            let place = (order.row(row).data(), rows.times[row], rows.partition.0, rows.offsets[row]);
            let behind = match self.spec.limit {
                None => group.len(),
                Some(limit) => {
                    if group.len() >= limit && group.last().is_none_or(|last| place >= last.place()) {
                        continue;
                    }
                    group.partition_point(|member| member.place() <= place)
                }
            };
            let spot = (chunk, added.len() as u32);
            added.push(row as u32);
            group.insert(behind, Member { order: place.0.into(), at: place.1, partition: place.2, offset: place.3, spot });
            self.kept += 1;
            if self.spec.limit.is_some_and(|limit| group.len() > limit) {
                group.pop();
                self.kept -= 1;
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
        let members = self.groups.iter_mut().flatten();
        let mut spots = Vec::with_capacity(self.kept);
        for (row, member) in members.enumerate() {
            spots.push(std::mem::replace(&mut member.spot, (0, row as u32)));
        }
        self.store.keep(&spots)
    }

    /// The partitions that have ended before the watermark leave.
    fn close(&mut self, out: &mut Output) -> Result<(), StreamError> {
        let open = self.ends.split_off(&self.mark);
        let ended = std::mem::replace(&mut self.ends, open);
        let (mut spots, mut numbers, mut times): (Vec<Spot>, Vec<u64>, Vec<i64>) = Default::default();
        for (end, mut slots) in ended {
            slots.sort_by(|a, b| self.table.key(*a).cmp(&self.table.key(*b)));
            for slot in slots {
                let mut group = std::mem::take(&mut self.groups[slot as usize]);
                if self.spec.limit.is_none() {
                    group.sort_by(|a, b| a.place().cmp(&b.place()));
                }
                self.kept -= group.len();
                for (number, member) in group.into_iter().enumerate() {
                    spots.push(member.spot);
                    numbers.push(number as u64 + 1);
                    times.push(end);
                }
                self.table.drop_slot(slot);
                if spots.len() >= BATCH_ROWS {
                    self.hand_on(&std::mem::take(&mut spots), std::mem::take(&mut numbers), std::mem::take(&mut times), out)?;
                }
            }
        }
        if !spots.is_empty() {
            self.hand_on(&spots, numbers, times, out)?;
        }
        self.tidy()
    }

    fn hand_on(&self, spots: &[Spot], numbers: Vec<u64>, times: Vec<i64>, out: &mut Output) -> Result<(), StreamError> {
        let mut columns = self.store.gather(spots)?;
        let number: ArrayRef = Arc::new(UInt64Array::from(numbers));
        columns.push(as_type(number, self.spec.schema.field(columns.len()))?);
        let batch = RecordBatch::try_new(Arc::clone(&self.spec.schema), columns).map_err(|e| arrow_error("the ranked rows", &e))?;
        let partition = match self.spec.scope {
            Scope::Partition(partition) => partition,
            Scope::Merged => PartitionId(0),
        };
        let offsets = std::iter::repeat_n(NO_OFFSET, times.len()).collect();
        out.rows.push(Rows { batch, partition, offsets, times: times.clone().into(), before: times.into(), heard: None, gone: false });
        Ok(())
    }
}

impl Operator for Rank {
    fn name(&self) -> &'static str {
        "rank"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
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
        self.close(out)
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        self.ends.range(..now.0).next_back().map(|(end, _)| Timestamp(end.saturating_add(1)))
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        state.put("mark", ints(vec![("mark", vec![self.mark])])?);
        // Slots and their rows, in order of their end and then of the slot: restored, they are numbered in this order.
        let slots: Vec<(i64, u32)> = self.ends.iter().flat_map(|(end, slots)| slots.iter().map(|slot| (*end, *slot))).collect();
        if slots.is_empty() {
            return Ok(());
        }
        let names = self.table.decode(slots.iter().filter_map(|(_, slot)| self.table.key(*slot).map(AsRef::as_ref)))?;
        let mut fields = vec![Field::new("end", DataType::Int64, false)];
        fields.extend(names.iter().enumerate().map(|(at, column)| Field::new(format!("k{at}"), column.data_type().clone(), true)));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(slots.iter().map(|(end, _)| *end).collect::<Int64Array>())];
        columns.extend(names);
        let error = |e| arrow_error("the ranked rows' state", &e);
        state.put("keys", RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(error)?);
        let members = || slots.iter().enumerate().flat_map(|(key, (_, slot))| self.groups[*slot as usize].iter().map(move |m| (key, m)));
        let spots: Vec<Spot> = members().map(|(_, member)| member.spot).collect();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(members().map(|(key, _)| key as i64).collect::<Int64Array>()),
            Arc::new(members().map(|(_, member)| member.at).collect::<Int64Array>()),
            Arc::new(members().map(|(_, member)| member.offset).collect::<Int64Array>()),
            Arc::new(members().map(|(_, member)| member.partition).collect::<Int32Array>()),
        ];
        columns.extend(self.store.gather(&spots)?);
        let field = |(at, column): (usize, &ArrayRef)| Field::new(format!("c{at}"), column.data_type().clone(), at > 3);
        let fields: Vec<Field> = columns.iter().enumerate().map(field).collect();
        state.put("rows", RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(error)?);
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = |why: &str| StreamError::Restore { operator: "ROW_NUMBER".to_owned(), why: why.to_owned() };
        let mark = state.get("mark").next().ok_or_else(|| misfit("the mark is missing"))?;
        self.mark = ints_of(mark, 0).and_then(|m| m.first().copied()).ok_or_else(|| misfit("the mark is empty"))?;
        let Some(keys) = state.get("keys").next() else { return Ok(()) };
        let rows = state.get("rows").next().ok_or_else(|| misfit("the rows are missing"))?;
        let input = self.spec.schema.fields().len() - 1;
        if keys.num_columns() != self.spec.keys.len() + 1 || rows.num_columns() != input + 4 {
            return Err(misfit("the rows have another number of columns"));
        }
        let ends = ints_of(keys, 0).ok_or_else(|| misfit("the keys have no ends"))?;
        let encoded = self.table.encode(&keys.columns()[1..])?;
        for (row, end) in ends.iter().enumerate() {
            let (slot, new) = self.table.slot(encoded.key(row));
            if !new {
                return Err(misfit("a key is there twice"));
            }
            self.groups.push(Vec::new());
            self.ends.entry(*end).or_default().push(slot);
        }
        let numbers = |place: usize| ints_of(rows, place).ok_or_else(|| misfit("a row has no place"));
        let (slots, times, offsets) = (numbers(0)?, numbers(1)?, numbers(2)?);
        let partitions = rows.column(3).as_any().downcast_ref::<Int32Array>().ok_or_else(|| misfit("a row has no partition"))?;
        let schema = Arc::new(Schema::new(self.spec.schema.fields()[..input].to_vec()));
        let batch = RecordBatch::try_new(schema, rows.columns()[4..].to_vec()).map_err(|_| misfit("the rows have other columns"))?;
        let order = self.evaluated(&batch)?.order;
        let order = self.converter.convert_columns(&order).map_err(|e| arrow_error("ORDER BY", &e))?;
        let chunk = self.store.add(batch.columns(), (0..batch.num_rows() as u32).collect())?;
        for row in 0..batch.num_rows() {
            let group = usize::try_from(slots[row]).ok().and_then(|slot| self.groups.get_mut(slot));
            let member = Member {
                order: order.row(row).data().into(),
                at: times[row],
                partition: partitions.value(row),
                offset: offsets[row],
                spot: (chunk, row as u32),
            };
            group.ok_or_else(|| misfit("a row belongs to no key"))?.push(member);
            self.kept += 1;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let order: usize = self.groups.iter().flatten().map(|member| member.order.len()).sum();
        let groups = self.groups.len() * size_of::<Vec<Member>>() + self.kept * size_of::<Member>();
        self.store.bytes() + self.table.bytes() + groups + order + self.ends.len() * 48
    }
}
