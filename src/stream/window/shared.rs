//! One numbering of a column's texts for all queries that group by it: [`grouping`].
//!
//! Queries over one topic read the same chunks, and most of them group by the same column: the patient. Each numbers its own groups,
//! but which rows of a chunk are of one patient is found once, and a patient has a number by which each finds its group without reading
//! the text. Always: a column is known again by its memory, which is held for as long as it is known, so that no other can lie there; a
//! column that only one query asks for is not looked at twice; within a generation a number is one text's.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use foldhash::fast::RandomState;
use parking_lot::Mutex;

/// In fewer rows there is nothing to gain.
const LEAST_ROWS: usize = 256;
/// Columns with more memory are not held.
const MOST_BYTES: usize = 1 << 20;
/// So many columns are known.
const KNOWN: usize = 16;
/// So many texts have numbers, and so many bytes; then they begin anew.
const MOST_NAMES: usize = 1 << 16;
const MOST_NAME_BYTES: usize = 4 << 20;

/// Which rows of a column have the same text.
pub(in crate::stream) struct Grouping {
    /// The place of each row's text ..
    pub places: Vec<u32>,
    /// .. among those that there are, in the order in which they come first.
    pub texts: ArrayRef,
    /// The number of each of these, the same in every column ..
    pub names: Vec<u32>,
    /// .. of the same generation; all of them are below ..
    pub generation: u64,
    /// .. this one.
    pub end: u32,
}

/// The numbers of texts.
#[derive(Default)]
pub(in crate::stream) struct Names {
    generation: u64,
    numbers: HashMap<Option<Box<str>>, u32, RandomState>,
    bytes: usize,
}

impl Names {
    fn of(&mut self, texts: &StringArray) -> Vec<u32> {
        if self.numbers.len() + texts.len() > MOST_NAMES || self.bytes + texts.value_data().len() > MOST_NAME_BYTES {
            *self = Self { generation: self.generation + 1, ..Self::default() };
        }
        let number = |text: Option<&str>| {
            let next = self.numbers.len() as u32;
            *self.numbers.entry(text.map(Box::from)).or_insert_with(|| {
                self.bytes += text.map_or(0, str::len);
                next
            })
        };
        texts.iter().map(number).collect()
    }
}

impl Grouping {
    /// Where most texts come once there is none.
    pub(in crate::stream) fn of(column: &StringArray, known_names: &mut Names) -> Option<Self> {
        let mut known: HashMap<Option<&str>, u32, RandomState> = HashMap::default();
        let mut firsts: Vec<u32> = Vec::new();
        let mut places = Vec::with_capacity(column.len());
        for (row, text) in column.iter().enumerate() {
            let place = *known.entry(text).or_insert_with(|| {
                firsts.push(row as u32);
                firsts.len() as u32 - 1
            });
            places.push(place);
        }
        if firsts.len() > column.len() / 2 {
            return None;
        }
        let texts = take(column, &UInt32Array::from(firsts), None).ok()?;
        let names = known_names.of(texts.as_string());
        let end = names.iter().max().map_or(0, |last| last + 1);
        Some(Self { places, texts, names, generation: known_names.generation, end })
    }
}

/// A column that was asked for.
struct Seen {
    column: StringArray,
    found: Found,
}

enum Found {
    /// Nobody has asked for it again.
    Nothing,
    /// It has been grouped; `None` where that is not worth while.
    Grouped(Option<Arc<Grouping>>),
}

/// The columns that were asked for last, and the names in them.
struct Recent(Mutex<Option<Known>>);

#[derive(Default)]
struct Known {
    seen: VecDeque<Seen>,
    names: Names,
}

static RECENT: Recent = Recent::new();

/// The grouping of a column of texts that another query has asked for too.
pub(in crate::stream) fn grouping(column: &ArrayRef) -> Option<Arc<Grouping>> {
    RECENT.grouping(column)
}

impl Recent {
    const fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn grouping(&self, column: &ArrayRef) -> Option<Arc<Grouping>> {
        if column.data_type() != &DataType::Utf8 || column.len() < LEAST_ROWS || column.get_buffer_memory_size() > MOST_BYTES {
            return None;
        }
        let column = column.as_string::<i32>();
        let mut known = self.0.lock();
        let Known { seen, names } = known.get_or_insert_default();
        let Some(known) = seen.iter_mut().rev().find(|known| is_same(&known.column, column)) else {
            if seen.len() == KNOWN {
                seen.pop_front();
            }
            seen.push_back(Seen { column: column.clone(), found: Found::Nothing });
            return None;
        };
        if matches!(known.found, Found::Nothing) {
            // The others wait for it: they would all do the same.
            known.found = Found::Grouped(Grouping::of(column, names).map(Arc::new));
        }
        if let Found::Grouped(grouping) = &known.found { grouping.clone() } else { None }
    }
}

/// Whether two columns are the same memory.
fn is_same(a: &StringArray, b: &StringArray) -> bool {
    let nulls = |of: &StringArray| of.nulls().map(|nulls| (nulls.buffer().as_ptr(), nulls.offset()));
    a.len() == b.len()
        && std::ptr::eq(a.value_offsets().as_ptr(), b.value_offsets().as_ptr())
        && std::ptr::eq(a.value_data().as_ptr(), b.value_data().as_ptr())
        && nulls(a) == nulls(b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_grouping(texts: &[Option<String>]) {
        let recent = Recent::new();
        let grouping = |column: &ArrayRef| recent.grouping(column);
        let column: ArrayRef = Arc::new(texts.iter().map(Option::as_deref).collect::<StringArray>());
        assert!(grouping(&column).is_none(), "for one who asks nothing is done");
        let few = texts.iter().collect::<std::collections::HashSet<_>>().len() <= texts.len() / 2;
        let Some(found) = grouping(&column) else {
            assert!(!few || texts.len() < LEAST_ROWS);
            return;
        };
        assert!(few);
        let named = found.texts.as_string::<i32>();
        let back: Vec<Option<&str>> = found.places.iter().map(|place| named.iter().nth(*place as usize).unwrap()).collect();
        assert_eq!(back, texts.iter().map(Option::as_deref).collect::<Vec<_>>());
        let mut firsts: Vec<Option<&str>> = Vec::new();
        for text in texts.iter().map(Option::as_deref) {
            if !firsts.contains(&text) {
                firsts.push(text);
            }
        }
        assert_eq!(named.iter().collect::<Vec<_>>(), firsts);
        assert!(Arc::ptr_eq(&found, &grouping(&column).unwrap()), "it is found once");
        let slice = column.slice(0, column.len() - 1);
        assert!(grouping(&slice).is_none(), "a part of a column is another column");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn rows_are_grouped_by_their_text_in_order_of_first_sight(
            texts in proptest::collection::vec(proptest::option::of("[a-c\\u{e9}]{0,3}"), 200..400),
        ) {
            check_grouping(&texts);
        }
    }

    #[test]
    fn a_column_in_which_most_texts_come_once_is_left_alone() {
        check_grouping(&(0..300).map(|n| Some(n.to_string())).collect::<Vec<_>>());
        check_grouping(&(0..300).map(|n| Some((n / 3).to_string())).collect::<Vec<_>>());
    }
}
