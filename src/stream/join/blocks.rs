//! Numbered rows in columns.
//!
//! Rows are numbered in the order in which they come; a number is never used again. Their columns lie in blocks that
//! grow geometrically, so that a state of many small commits is put together from a few blocks and each row is copied a
//! few times only. A block that nobody has looked into for a while may go to the disk, and comes back when somebody does.
//! Always: blocks follow one another without a gap.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat, interleave};
use arrow::datatypes::{Field, Schema};

use crate::stream::rowwise::{arrow_error, take_column};
use crate::stream::{Parked, SpillSpace, StreamError};

/// Blocks of this many rows are not joined to others any more.
const FULL_BLOCK: usize = 32_768;
/// Blocks that come back from the disk stay in memory until there are so many bytes of them; of others only the rows that are
/// asked for do. Until they are looked over again. Few in tests, so that they go both ways.
const RETURNED_BYTES: usize = if cfg!(test) { 4096 } else { 16 << 20 };

/// The rows.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The number behind the last row.
    end: u64,
    /// How many columns they have.
    width: usize,
    blocks: VecDeque<Block>,
    /// Counts up whenever blocks are asked to go to the disk.
    round: u64,
    /// How many bytes have come back since.
    returned: Cell<usize>,
}

#[derive(Debug)]
struct Block {
    start: u64,
    len: usize,
    /// `None` where it lies on the disk alone.
    columns: RefCell<Option<Vec<ArrayRef>>>,
    /// What it is on the disk: it never changes, so that it is written once.
    parked: Option<Arc<Parked>>,
    /// When somebody last looked into it, in rounds.
    looked: Cell<u64>,
}

/// A block as it is saved.
pub(super) enum Kept {
    /// In memory: the columns of the rows that are kept.
    Here(Vec<ArrayRef>, usize),
    /// On the disk: the file, and how many of its last rows are kept.
    Parked(Arc<Parked>, usize),
}

impl Kept {
    /// How many rows are kept.
    pub(super) const fn len(&self) -> usize {
        let (Self::Here(_, len) | Self::Parked(_, len)) = self;
        *len
    }
}

impl Block {
    fn new(start: u64, len: usize, columns: Vec<ArrayRef>, round: u64) -> Self {
        Self { start, len, columns: RefCell::new(Some(columns)), parked: None, looked: Cell::new(round) }
    }

    /// This block and the one behind it in one, where both are in memory and small enough.
    fn joined(&self, next: &Self, round: u64) -> Result<Option<Self>, StreamError> {
        if self.len > 2 * next.len || self.len + next.len > FULL_BLOCK || self.parked.is_some() || next.parked.is_some() {
            return Ok(None);
        }
        let (one, other) = (self.columns.borrow(), next.columns.borrow());
        let (Some(one), Some(other)) = (one.as_ref(), other.as_ref()) else { return Ok(None) };
        let columns = one.iter().zip(other).map(|(a, b)| concat(&[a.as_ref(), b.as_ref()]));
        let columns = columns.collect::<Result<_, _>>().map_err(|e| arrow_error("the rows of a join", &e))?;
        Ok(Some(Self::new(self.start, self.len + next.len, columns, round)))
    }

    /// Its columns, read from the disk where they lie there alone; and whether they do.
    fn columns(&self) -> Result<(Vec<ArrayRef>, bool), StreamError> {
        if let Some(columns) = &*self.columns.borrow() {
            return Ok((columns.clone(), false));
        }
        let parked = self.parked.as_ref().ok_or_else(|| StreamError::Spill("a block of rows is nowhere".to_owned()))?;
        let batch = parked.load()?;
        if batch.num_rows() != self.len {
            return Err(StreamError::Spill("its file has other rows than were written".to_owned()));
        }
        Ok((batch.columns().to_vec(), true))
    }

    fn bytes(&self) -> usize {
        self.columns.borrow().iter().flatten().map(bytes_of).sum()
    }
}

/// By slice: blocks may share their memory.
fn bytes_of(column: &ArrayRef) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
}

impl Blocks {
    /// The number that the next row gets.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Adds rows.
    pub(super) fn push(&mut self, columns: &[ArrayRef], len: usize) -> Result<(), StreamError> {
        if len == 0 {
            return Ok(());
        }
        self.blocks.push_back(Block::new(self.end, len, columns.to_vec(), self.round));
        self.end += len as u64;
        self.width = columns.len();
        while let [.., before, last] = self.blocks.make_contiguous()
            && let Some(joined) = before.joined(last, self.round)?
        {
            self.blocks.pop_back();
            self.blocks.pop_back();
            self.blocks.push_back(joined);
        }
        Ok(())
    }

    /// Takes so many rows that lie on the disk, behind all others.
    pub(super) fn push_parked(&mut self, parked: Arc<Parked>, len: usize, width: usize) {
        self.width = width;
        let (columns, looked) = (RefCell::new(None), Cell::new(0));
        self.blocks.push_back(Block { start: self.end, len, columns, parked: Some(parked), looked });
        self.end += len as u64;
    }

    /// How many columns the rows have.
    pub(super) const fn width(&self) -> usize {
        self.width
    }

    /// Lets go of blocks that lie wholly before a row.
    pub(super) fn trim(&mut self, before: u64) {
        while self.blocks.front().is_some_and(|block| block.start + block.len as u64 <= before) {
            self.blocks.pop_front();
        }
    }

    /// Which block holds a row, and where in it.
    fn place(&self, row: u64) -> (usize, usize) {
        let block = self.blocks.partition_point(|block| block.start <= row) - 1;
        (block, (row - self.blocks[block].start) as usize)
    }

    /// The first `width` columns of some rows; NULL where there is no row, of the type that `null` says.
    pub(super) fn rows(&self, rows: &[Option<u64>], width: usize, null: impl Fn(usize) -> ArrayRef) -> Result<Vec<ArrayRef>, StreamError> {
        let nobody = usize::MAX;
        // Which blocks are looked into, and the place of each among them.
        let (mut looked_into, mut sources_of) = (Vec::new(), vec![nobody; self.blocks.len()]);
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(row) = row else {
                places.push((nobody, 0));
                continue;
            };
            let (block, at) = self.place(*row);
            if sources_of[block] == nobody {
                sources_of[block] = looked_into.len();
                looked_into.push(block);
            }
            places.push((sources_of[block], at));
        }
        let count = looked_into.len();
        let mut sources = Vec::with_capacity(count);
        for (source, block) in looked_into.into_iter().enumerate() {
            sources.push(self.look(block, source, &mut places)?);
        }
        let mut any_null = false;
        for (source, _) in places.iter_mut().filter(|(source, _)| *source == nobody) {
            (*source, any_null) = (count, true);
        }
        let column = |at: usize| {
            let null = any_null.then(|| null(at));
            let sources: Vec<&dyn Array> = sources.iter().map(|block| block[at].as_ref()).chain(null.as_deref()).collect();
            interleave(&sources, &places).map_err(|e| arrow_error("the rows of a join", &e))
        };
        (0..width).map(column).collect()
    }

    /// The columns of a block for the places that are in it. Where it came from the disk and there is much that did, only the
    /// rows of these places are kept, which are then other places.
    fn look(&self, block: usize, source: usize, places: &mut [(usize, usize)]) -> Result<Vec<ArrayRef>, StreamError> {
        let of = &self.blocks[block];
        of.looked.set(self.round);
        let (columns, came_back) = of.columns()?;
        if !came_back {
            return Ok(columns);
        }
        let bytes: usize = columns.iter().map(bytes_of).sum();
        if self.returned.get() + bytes <= RETURNED_BYTES {
            self.returned.set(self.returned.get() + bytes);
            *of.columns.borrow_mut() = Some(columns.clone());
            return Ok(columns);
        }
        let mut picked = Vec::new();
        for (_, at) in places.iter_mut().filter(|place| place.0 == source) {
            let now = picked.len();
            picked.push(std::mem::replace(at, now) as u32);
        }
        let picked = UInt32Array::from(picked);
        columns.iter().map(|column| take_column(column, &picked)).collect()
    }

    /// What is kept from row `base` on, block by block.
    pub(super) fn kept(&self, base: u64) -> impl Iterator<Item = Kept> {
        self.blocks.iter().filter_map(move |block| {
            let gone = base.saturating_sub(block.start).min(block.len as u64) as usize;
            let left = block.len - gone;
            match (&block.parked, &*block.columns.borrow()) {
                _ if left == 0 => None,
                (Some(parked), _) => Some(Kept::Parked(Arc::clone(parked), left)),
                (None, Some(columns)) => Some(Kept::Here(columns.iter().map(|column| column.slice(gone, left)).collect(), left)),
                (None, None) => None,
            }
        })
    }

    /// Lets full blocks go to the disk that nobody has looked into since it was last asked, those first that nobody has looked into
    /// for the longest; see `Operator::spill`.
    pub(super) fn spill(&mut self, want: usize, space: &SpillSpace) -> Result<usize, StreamError> {
        let round = self.round;
        self.round += 1;
        self.returned.set(0);
        // The last one is still growing.
        let full = self.blocks.len().saturating_sub(1);
        let mut cold: Vec<&mut Block> =
            self.blocks.iter_mut().take(full).filter(|block| block.looked.get() < round && block.columns.borrow().is_some()).collect();
        cold.sort_by_key(|block| block.looked.get());
        let mut freed = 0;
        for block in cold {
            if freed >= want {
                break;
            }
            let bytes = block.bytes();
            if block.parked.is_none() {
                let Some(columns) = block.columns.get_mut() else { continue };
                if columns.is_empty() {
                    continue;
                }
                let Some(parked) = space.park(&batch_of(columns)?)? else { break };
                block.parked = Some(parked);
            }
            *block.columns.get_mut() = None;
            freed += bytes;
        }
        Ok(freed)
    }

    /// About how many bytes they take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes() + size_of::<Block>()).sum()
    }

    /// How many bytes they take on the disk.
    pub(super) fn spilled_bytes(&self) -> u64 {
        self.blocks.iter().filter_map(|block| block.parked.as_ref()).map(|parked| parked.bytes()).sum()
    }
}

/// Columns as a batch, under their places.
pub(super) fn batch_of(columns: &[ArrayRef]) -> Result<RecordBatch, StreamError> {
    let fields: Vec<Field> =
        columns.iter().enumerate().map(|(at, column)| Field::new(format!("c{at}"), column.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.to_vec()).map_err(|e| arrow_error("the rows of a join", &e))
}
