//! The entries of a windowed aggregate: each the groups of one pane, in memory as accumulators or as columns, or on the disk.
//!
//! What goes to the disk goes as columns, small entries several to a file. Always: an entry that is open takes rows, whatever form
//! it has: it becomes accumulators again with the next one; one that is not open is only read, and stays where it is until its
//! last window has fired.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema};

use super::aggregate::PaneKey;
use super::pane::{Frozen, Live, Maker};
use crate::stream::rowwise::arrow_error;
use crate::stream::spill::Parked;
use crate::stream::{SpillSpace, StreamError};

/// Entries are put into one file until it has about so many bytes.
const FILE_BYTES: usize = 1 << 20;

/// One entry.
pub(super) struct Entry {
    pub form: Form,
    /// Whether it takes rows.
    pub open: bool,
    /// When the last row came for it, in rounds of what goes to the disk.
    pub touched: u64,
}

/// What it is kept as.
pub(super) enum Form {
    Live(Live),
    Frozen(Frozen),
    /// Some rows of a file.
    Parked(Lying),
}

/// Where on the disk an entry lies.
#[derive(Clone)]
pub(super) struct Lying {
    pub file: Arc<Parked>,
    pub from: usize,
    pub groups: usize,
}

impl Entry {
    /// The entry as accumulators that take rows.
    pub(super) fn live(&mut self, maker: &mut Maker) -> Result<&mut Live, StreamError> {
        if !self.open {
            // Entries close when their first window fires, and rows behind that have a later first window.
            return Err(StreamError::Limit("a row came for a window that has fired".to_owned()));
        }
        if !matches!(self.form, Form::Live(_)) {
            let frozen = self.form.columns(maker.frozen_width(), &mut None)?;
            let mut live = maker.live()?;
            maker.merge(&mut live, &frozen)?;
            self.form = Form::Live(live);
        }
        match &mut self.form {
            Form::Live(live) => Ok(live),
            Form::Frozen(_) | Form::Parked(_) => unreachable!("it has just been made live"),
        }
    }

    /// About how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let own = match &self.form {
            Form::Live(live) => live.bytes(),
            // By slice: entries that were restored share their memory.
            Form::Frozen(frozen) => {
                let of = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
                frozen.columns.iter().map(of).sum()
            }
            Form::Parked(_) => 0,
        };
        own + size_of::<(PaneKey, Self)>()
    }
}

/// The file that was read last, for the next entry in it.
pub(super) type Loaded = Option<(Arc<Parked>, RecordBatch)>;

impl Form {
    /// The columns, so many, of an entry that is not live.
    pub(super) fn columns(&self, width: usize, loaded: &mut Loaded) -> Result<Frozen, StreamError> {
        match self {
            Self::Frozen(frozen) => Ok(frozen.clone()),
            Self::Parked(lying) => lying.load(width, loaded),
            Self::Live(_) => Err(StreamError::Limit("accumulators are no columns".to_owned())),
        }
    }
}

impl Lying {
    fn load(&self, width: usize, loaded: &mut Loaded) -> Result<Frozen, StreamError> {
        let batch = match loaded {
            Some((file, batch)) if Arc::ptr_eq(file, &self.file) => batch,
            _ => &loaded.insert((Arc::clone(&self.file), self.file.load()?)).1,
        };
        let frozen = slice_of(batch, self.from, self.groups).filter(|frozen| frozen.columns.len() == width);
        frozen.ok_or_else(|| StreamError::Spill("its file has other groups than were written".to_owned()))
    }
}

/// Some groups of a batch that [`groups_batch`] made.
pub(super) fn slice_of(batch: &RecordBatch, from: usize, groups: usize) -> Option<Frozen> {
    let fits = batch.num_columns() > 0 && from.checked_add(groups).is_some_and(|end| end <= batch.num_rows());
    fits.then(|| Frozen { columns: batch.columns()[1..].iter().map(|column| column.slice(from, groups)).collect(), groups })
}

/// The groups of entries one behind the other.
pub(super) fn groups_batch(entries: &[&Frozen], width: usize) -> Result<RecordBatch, StreamError> {
    let error = |e| arrow_error("the windows' state", &e);
    let rows = entries.iter().map(|frozen| frozen.groups).sum();
    // A column that is always there keeps the number of rows where there are neither keys nor aggregates.
    let mut fields = vec![Field::new("group", DataType::Boolean, false)];
    let mut columns: Vec<ArrayRef> = vec![Arc::new(BooleanArray::from(vec![true; rows]))];
    for place in 0..width {
        let parts: Vec<&dyn Array> = entries.iter().map(|frozen| frozen.columns[place].as_ref()).collect();
        let column = concat(&parts).map_err(error)?;
        fields.push(Field::new(format!("c{place}"), column.data_type().clone(), true));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(error)
}

/// Puts entries on the disk one after the other, until enough memory is free or there is no room.
pub(super) struct Packing<'a> {
    pub maker: &'a Maker,
    pub space: &'a SpillSpace,
    waiting: Vec<(&'a mut Entry, Frozen)>,
    bytes: usize,
    /// About how many bytes are free.
    pub freed: usize,
    /// Whether there is no room for more.
    pub is_full: bool,
}

impl<'a> Packing<'a> {
    pub(super) const fn new(maker: &'a Maker, space: &'a SpillSpace) -> Self {
        Self { maker, space, waiting: Vec::new(), bytes: 0, freed: 0, is_full: false }
    }

    /// How many bytes are free, or will be with the next file.
    pub(super) const fn promised(&self) -> usize {
        self.freed + self.bytes
    }

    /// Takes an entry that is in memory.
    pub(super) fn take(&mut self, entry: &'a mut Entry) -> Result<(), StreamError> {
        self.bytes += entry.bytes() - size_of::<(PaneKey, Entry)>();
        let frozen = match &mut entry.form {
            Form::Live(live) => self.maker.freeze(live)?,
            Form::Frozen(frozen) => frozen.clone(),
            Form::Parked(_) => return Ok(()),
        };
        entry.form = Form::Frozen(frozen.clone());
        self.waiting.push((entry, frozen));
        if self.bytes >= FILE_BYTES { self.close() } else { Ok(()) }
    }

    /// Writes what waits.
    pub(super) fn close(&mut self) -> Result<(), StreamError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let waiting = std::mem::take(&mut self.waiting);
        let bytes = std::mem::take(&mut self.bytes);
        let frozen: Vec<&Frozen> = waiting.iter().map(|(_, frozen)| frozen).collect();
        let Some(file) = self.space.park(&groups_batch(&frozen, self.maker.frozen_width())?)? else {
            // They stay as columns, which take rows again as well.
            self.is_full = true;
            return Ok(());
        };
        let mut from = 0;
        for (entry, Frozen { groups, .. }) in waiting {
            entry.form = Form::Parked(Lying { file: Arc::clone(&file), from, groups });
            from += groups;
        }
        self.freed += bytes;
        Ok(())
    }
}
