//! Numbers keys, and lets go of them again.
//!
//! A key is the row encoding of its columns. Its slot is dense and is used again after the key has been
//! dropped, so what an operator remembers lies in plain vectors by slot. Always: a slot in use belongs to
//! exactly one key.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::row::{RowConverter, SortField};

use crate::stream::StreamError;
use crate::stream::rowwise::arrow_error;

/// The keys of one operator.
#[derive(Debug, Default)]
pub(in crate::stream) struct KeyTable {
    converter: Option<RowConverter>,
    slots: HashMap<Arc<[u8]>, u32>,
    keys: Vec<Option<Arc<[u8]>>>,
    free: Vec<u32>,
    bytes: usize,
}

/// The encoded keys of one batch.
pub(in crate::stream) enum Encoded {
    /// There are no key columns: all rows have the one empty key.
    Same,
    /// One key a row.
    Rows(arrow::row::Rows),
}

impl Encoded {
    pub(in crate::stream) fn key(&self, row: usize) -> &[u8] {
        match self {
            Self::Same => &[],
            Self::Rows(rows) => rows.row(row).data(),
        }
    }
}

impl KeyTable {
    /// Encodes the key columns of a batch.
    pub(in crate::stream) fn encode(&mut self, columns: &[ArrayRef]) -> Result<Encoded, StreamError> {
        if columns.is_empty() {
            return Ok(Encoded::Same);
        }
        let error = |e| arrow_error("the PARTITION BY columns", &e);
        let converter = match &mut self.converter {
            Some(converter) => converter,
            none => {
                let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
                none.insert(RowConverter::new(fields).map_err(error)?)
            }
        };
        Ok(Encoded::Rows(converter.convert_columns(columns).map_err(error)?))
    }

    /// The slot of a key, and whether it is new.
    pub(in crate::stream) fn slot(&mut self, key: &[u8]) -> (u32, bool) {
        if let Some(slot) = self.slots.get(key) {
            return (*slot, false);
        }
        let key: Arc<[u8]> = key.into();
        self.bytes += 2 * key.len() + 64;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.keys.push(None);
                (self.keys.len() - 1) as u32
            }
        };
        self.keys[slot as usize] = Some(Arc::clone(&key));
        self.slots.insert(key, slot);
        (slot, true)
    }

    /// The slot of a key that is there.
    pub(in crate::stream) fn find(&self, key: &[u8]) -> Option<u32> {
        self.slots.get(key).copied()
    }

    /// Lets go of a key.
    pub(in crate::stream) fn drop_slot(&mut self, slot: u32) {
        if let Some(key) = self.keys.get_mut(slot as usize).and_then(Option::take) {
            self.slots.remove(&key);
            self.free.push(slot);
            self.bytes = self.bytes.saturating_sub(2 * key.len() + 64);
        }
    }

    /// The encoded key in a slot.
    pub(in crate::stream) fn key(&self, slot: u32) -> Option<&Arc<[u8]>> {
        self.keys.get(slot as usize)?.as_ref()
    }

    /// How many slots there are, free ones included.
    pub(in crate::stream) const fn slot_count(&self) -> usize {
        self.keys.len()
    }

    /// The slots in use, in order.
    pub(in crate::stream) fn in_use(&self) -> Vec<u32> {
        (0..self.keys.len() as u32).filter(|slot| self.keys[*slot as usize].is_some()).collect()
    }

    /// Encoded keys as columns again.
    pub(in crate::stream) fn decode<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, StreamError> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let parser = converter.parser();
        converter.convert_rows(keys.map(|key| parser.parse(key))).map_err(|e| arrow_error("the PARTITION BY columns", &e))
    }

    /// About how many bytes the keys take.
    pub(in crate::stream) const fn bytes(&self) -> usize {
        self.bytes
    }
}
