//! The key of a join: which rows of the two sides may belong together at all.
//!
//! Owns [`JoinKeys`], which numbers the keys of both sides in one table, and counts the rows that use a number, so
//! that it is free again when the last of them goes. Always: a row with NULL in its key has no number, where
//! NULL equals nothing.

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;

use crate::stream::StreamError;
use crate::stream::keyed::KeyTable;

/// The number of a row whose key equals nothing.
pub(super) const NOBODY: u32 = u32::MAX;

/// The keys in use.
#[derive(Debug, Default)]
pub(super) struct JoinKeys {
    table: KeyTable,
    users: Vec<u32>,
    null_equals_null: bool,
}

impl JoinKeys {
    pub(super) fn new(null_equals_null: bool) -> Self {
        Self { null_equals_null, ..Self::default() }
    }

    /// The number of each row's key; each is used once more.
    pub(super) fn take(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>, StreamError> {
        let encoded = self.table.encode(columns)?;
        let nulls = self.nulls(columns);
        let mut slots = Vec::with_capacity(rows);
        for row in 0..rows {
            if nulls.iter().any(|nulls| nulls.is_null(row)) {
                slots.push(NOBODY);
                continue;
            }
            let (slot, _) = self.table.slot(encoded.key(row));
            if self.users.len() <= slot as usize {
                self.users.resize(slot as usize + 1, 0);
            }
            self.users[slot as usize] += 1;
            slots.push(slot);
        }
        Ok(slots)
    }

    /// The number of each row's key, where it is in use; using it no more than before.
    pub(super) fn find(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>, StreamError> {
        let encoded = self.table.encode(columns)?;
        let nulls = self.nulls(columns);
        let is_null = |row: usize| nulls.iter().any(|nulls| nulls.is_null(row));
        let slot = |row: usize| if is_null(row) { NOBODY } else { self.table.find(encoded.key(row)).unwrap_or(NOBODY) };
        Ok((0..rows).map(slot).collect())
    }

    fn nulls(&self, columns: &[ArrayRef]) -> Vec<NullBuffer> {
        if self.null_equals_null { Vec::new() } else { columns.iter().filter_map(|column| column.logical_nulls()).collect() }
    }

    /// A row that used this number is gone.
    pub(super) fn release(&mut self, slot: u32) {
        if slot == NOBODY {
            return;
        }
        let users = &mut self.users[slot as usize];
        *users -= 1;
        if *users == 0 {
            self.table.drop_slot(slot);
        }
    }

    /// How many numbers there are, free ones included.
    pub(super) const fn count(&self) -> usize {
        self.table.slot_count()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.table.bytes() + self.users.len() * 4
    }
}
