//! Slots by the number under which all queries know a text.
//!
//! Queries over one topic read the same chunks, in which `window::shared` finds once which rows have one text, and numbers the texts.
//! [`Named`] remembers which slot a number stands for, so that most rows are not looked up by their text. Always: a number that is
//! known here stands for the key that has the slot now; it is forgotten with that key, and with the numbers when they begin anew.

use std::sync::Arc;

use arrow::array::Array;

use super::table::Encoded;
use crate::stream::window::Grouping;

/// Nothing is known.
const NOTHING: u32 = u32::MAX;
/// A number is remembered where it is no greater than so many times the slots there are, and ..
const SPARSE: usize = 4;
/// .. so many more: a table for many texts of which few are here would be larger than the state.
const SMALL: usize = 1024;

/// The keys of a batch's rows.
pub(in crate::stream) enum RowKeys {
    /// Each row is looked up by its key.
    Each(Encoded),
    /// Which rows have one text is known, and the texts have numbers; the texts encoded.
    Grouped(Arc<Grouping>, Encoded),
}

impl RowKeys {
    /// All keys among so many rows, and how many of them are encoded.
    pub(in crate::stream) fn texts(&self, rows: usize) -> (&Encoded, usize) {
        match self {
            Self::Each(encoded) => (encoded, rows),
            Self::Grouped(grouping, texts) => (texts, grouping.texts.len()),
        }
    }
}

/// The slots of numbers, and the numbers of slots.
#[derive(Debug, Default)]
pub(super) struct Named {
    generation: u64,
    slots: Vec<u32>,
    names: Vec<u32>,
}

impl Named {
    /// The slot of a number, where it is known.
    pub(super) fn slot(&mut self, generation: u64, name: u32) -> Option<u32> {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
        self.slots.get(name as usize).copied().filter(|slot| *slot != NOTHING)
    }

    /// A number of the generation that was asked for last stands for this slot, one of so many.
    pub(super) fn learn(&mut self, name: u32, slot: u32, slots: usize) {
        if name as usize > SPARSE * slots + SMALL {
            return;
        }
        for (table, place, value) in [(&mut self.slots, name, slot), (&mut self.names, slot, name)] {
            if table.len() <= place as usize {
                table.resize(place as usize + 1, NOTHING);
            }
            table[place as usize] = value;
        }
    }

    /// A slot's key is gone.
    pub(super) fn forget(&mut self, slot: u32) {
        let Some(name) = self.names.get_mut(slot as usize) else { return };
        let name = std::mem::replace(name, NOTHING);
        if let Some(known) = self.slots.get_mut(name as usize) {
            *known = NOTHING;
        }
    }

    /// About how many bytes it takes.
    pub(super) const fn bytes(&self) -> usize {
        (self.slots.capacity() + self.names.capacity()) * size_of::<u32>()
    }
}
