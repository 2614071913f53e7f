//! The last value of every key, in columns.
//!
//! A key's value is a place in one of a few arrays. Always: arrays are copied together when most of what they hold has
//! been overtaken, so that a value is moved a few times only.

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::DataType;

use crate::stream::StreamError;
use crate::stream::rowwise::arrow_error;

/// Arrays are copied together when they hold so many values more than twice as many as there are keys.
const SPARE: usize = 16_384;
/// Or when there are so many of them, and one more for so many keys.
const MANY: (usize, usize) = (64, 64);

/// Where a value is: an array, and a row of it.
pub(super) type Spot = (u32, u32);

/// The values.
#[derive(Debug)]
pub(super) struct Kept {
    of: DataType,
    arrays: Vec<ArrayRef>,
    held: usize,
    spots: Vec<Option<Spot>>,
}

impl Kept {
    pub(super) const fn new(of: DataType) -> Self {
        Self { of, arrays: Vec::new(), held: 0, spots: Vec::new() }
    }

    pub(super) fn grow(&mut self, slots: usize) {
        if self.spots.len() < slots {
            self.spots.resize(slots, None);
        }
    }

    pub(super) fn forget(&mut self, slot: u32) {
        self.spots[slot as usize] = None;
    }

    /// Takes in an array whose values may be kept; answers its number.
    pub(super) fn add(&mut self, array: ArrayRef) -> u32 {
        self.held += array.len();
        self.arrays.push(array);
        (self.arrays.len() - 1) as u32
    }

    pub(super) fn keep(&mut self, slot: u32, spot: Spot) {
        self.spots[slot as usize] = Some(spot);
    }

    pub(super) fn spot(&self, slot: u32) -> Option<Spot> {
        self.spots[slot as usize]
    }

    /// The values at these spots; NULL for none.
    pub(super) fn gather(&self, spots: &[Option<Spot>]) -> Result<ArrayRef, StreamError> {
        let nothing = new_null_array(&self.of, 1);
        let mut sources: Vec<&dyn Array> = self.arrays.iter().map(AsRef::as_ref).collect();
        sources.push(nothing.as_ref());
        let place = |spot: &Option<Spot>| spot.map_or((self.arrays.len(), 0), |(array, row)| (array as usize, row as usize));
        let picked: Vec<(usize, usize)> = spots.iter().map(place).collect();
        if picked.is_empty() {
            return Ok(arrow::array::new_empty_array(&self.of));
        }
        interleave(&sources, &picked).map_err(|e| arrow_error("the last values of the keys", &e))
    }

    /// Copies the arrays together where it is time to.
    pub(super) fn tidy(&mut self) -> Result<(), StreamError> {
        let keys = self.spots.len();
        if self.held <= 2 * keys + SPARE && self.arrays.len() <= MANY.0 + keys / MANY.1 {
            return Ok(());
        }
        let all = self.gather(&self.spots)?;
        for (row, spot) in self.spots.iter_mut().enumerate() {
            if let Some(spot) = spot {
                *spot = (0, row as u32);
            }
        }
        self.held = all.len();
        self.arrays = vec![all];
        Ok(())
    }

    /// The values of these slots.
    pub(super) fn save(&self, slots: &[u32]) -> Result<ArrayRef, StreamError> {
        self.gather(&slots.iter().map(|slot| self.spot(*slot)).collect::<Vec<_>>())
    }

    /// Takes back what [`Kept::save`] gave, for slots 0, 1, 2 ..
    pub(super) fn restore(&mut self, values: &ArrayRef) -> Option<()> {
        if *values.data_type() != self.of {
            return None;
        }
        self.held = values.len();
        self.arrays = vec![ArrayRef::clone(values)];
        self.spots = (0..values.len()).map(|row| values.is_valid(row).then_some((0, row as u32))).collect();
        Some(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.arrays.iter().map(|array| array.get_array_memory_size()).sum::<usize>() + self.spots.len() * size_of::<Option<Spot>>()
    }
}
