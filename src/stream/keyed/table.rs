//! Numbers keys, and lets go of them again.
//!
//! A key is the row encoding of its columns; one column of text, as most keys are, is its own text, without a copy. A key's slot
//! is dense and is used again after the key has been dropped, so what an operator remembers lies in plain vectors by slot.
//! Always: a slot in use belongs to exactly one key, and encoded keys stand in the order of their columns' values, NULL first.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use foldhash::fast::RandomState;

use super::named::{Named, RowKeys};
use crate::stream::StreamError;
use crate::stream::rowwise::arrow_error;
use crate::stream::window::{Grouping, grouping};

/// Stands in front of a text that is empty or begins with it, so that no text is as NULL is, which is nothing at all.
const MARK: u8 = 0;

/// The keys of one operator.
#[derive(Debug, Default)]
pub(in crate::stream) struct KeyTable {
    coder: Option<Coder>,
    slots: HashMap<Arc<[u8]>, u32, RandomState>,
    keys: Vec<Option<Arc<[u8]>>>,
    free: Vec<u32>,
    named: Named,
    bytes: usize,
}

/// How keys are encoded.
#[derive(Debug)]
enum Coder {
    /// One column of text.
    Text,
    /// Any columns.
    Rows(RowConverter),
}

/// The encoded keys of one batch.
pub(in crate::stream) enum Encoded {
    /// There are no key columns: all rows have the one empty key.
    Same,
    /// One key a row.
    Rows(arrow::row::Rows),
    /// One text a row; and those that need the mark in front of them, by their rows, in order.
    Text(StringArray, Vec<(usize, Vec<u8>)>),
}

impl Encoded {
    fn text(column: &StringArray) -> Self {
        let needs_mark = |row: &usize| column.is_valid(*row) && matches!(column.value(*row).as_bytes().first(), None | Some(&MARK));
        let marked = (0..column.len()).filter(needs_mark).map(|row| (row, [&[MARK], column.value(row).as_bytes()].concat()));
        let marked = marked.collect();
        Self::Text(column.clone(), marked)
    }

    pub(in crate::stream) fn key(&self, row: usize) -> &[u8] {
        match self {
            Self::Same => &[],
            Self::Rows(rows) => rows.row(row).data(),
            Self::Text(column, _) if column.is_null(row) => &[],
            Self::Text(column, marked) => match marked.binary_search_by_key(&row, |(row, _)| *row) {
                Ok(at) => &marked[at].1,
                Err(_) => column.value(row).as_bytes(),
            },
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
        let coder = match &mut self.coder {
            Some(coder) => coder,
            none => none.insert(match columns {
                [only] if only.data_type() == &DataType::Utf8 => Coder::Text,
                _ => {
                    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
                    Coder::Rows(RowConverter::new(fields).map_err(error)?)
                }
            }),
        };
        match (coder, columns) {
            (Coder::Text, [only]) if only.data_type() == &DataType::Utf8 => Ok(Encoded::text(only.as_string())),
            (Coder::Text, _) => Err(StreamError::Limit("the PARTITION BY columns have changed their type".to_owned())),
            (Coder::Rows(converter), _) => Ok(Encoded::Rows(converter.convert_columns(columns).map_err(error)?)),
        }
    }

    /// The keys of a batch's rows, to be asked for one after the other by [`KeyTable::slot_of`]. For columns as the source gave them,
    /// which other queries read too: what an operator makes anew for itself is like no other's.
    pub(in crate::stream) fn row_keys(&mut self, columns: &[ArrayRef]) -> Result<RowKeys, StreamError> {
        let shared = if let [only] = columns { grouping(only) } else { None };
        self.row_keys_as(columns, shared)
    }

    fn row_keys_as(&mut self, columns: &[ArrayRef], shared: Option<Arc<Grouping>>) -> Result<RowKeys, StreamError> {
        Ok(match shared {
            Some(grouping) => {
                let texts = self.encode(std::slice::from_ref(&grouping.texts))?;
                RowKeys::Grouped(grouping, texts)
            }
            None => RowKeys::Each(self.encode(columns)?),
        })
    }

    /// The slot of a row's key, and whether it is new.
    pub(in crate::stream) fn slot_of(&mut self, keys: &RowKeys, row: usize) -> (u32, bool) {
        let (grouping, texts) = match keys {
            RowKeys::Each(encoded) => return self.slot(encoded.key(row)),
            RowKeys::Grouped(grouping, texts) => (grouping, texts),
        };
        let place = grouping.places[row] as usize;
        let name = grouping.names[place];
        if let Some(slot) = self.named.slot(grouping.generation, name) {
            return (slot, false);
        }
        let (slot, is_new) = self.slot(texts.key(place));
        self.named.learn(name, slot, self.keys.len());
        (slot, is_new)
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
            self.named.forget(slot);
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
        match &self.coder {
            None => Ok(Vec::new()),
            Some(Coder::Rows(converter)) => {
                let parser = converter.parser();
                converter.convert_rows(keys.map(|key| parser.parse(key))).map_err(|e| arrow_error("the PARTITION BY columns", &e))
            }
            Some(Coder::Text) => {
                let mut texts = StringBuilder::new();
                for key in keys {
                    let text = key.strip_prefix(&[MARK]).unwrap_or(key);
                    texts.append_option((!key.is_empty()).then(|| std::str::from_utf8(text).expect("a key is the text of a row")));
                }
                Ok(vec![Arc::new(texts.finish())])
            }
        }
    }

    /// About how many bytes the keys take.
    pub(in crate::stream) const fn bytes(&self) -> usize {
        self.bytes + self.named.bytes()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use proptest::prelude::*;

    use super::*;
    use crate::stream::window::Names;

    fn check_keys(texts: &[Option<&str>]) {
        let column: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        let mut table = KeyTable::default();
        let encoded = table.encode(std::slice::from_ref(&column)).unwrap();
        let slots: Vec<u32> = (0..texts.len()).map(|row| table.slot(encoded.key(row)).0).collect();
        for (a, first) in texts.iter().enumerate() {
            for (b, other) in texts.iter().enumerate() {
                assert_eq!(encoded.key(a).cmp(encoded.key(b)), first.cmp(other), "{first:?} and {other:?}");
                assert_eq!(slots[a] == slots[b], first == other, "{first:?} and {other:?}");
            }
        }
        let back = table.decode(slots.iter().filter_map(|slot| table.key(*slot).map(AsRef::as_ref))).unwrap();
        assert_eq!(back, [column]);
    }

    #[test]
    fn no_text_is_as_null_or_as_another() {
        check_keys(&[
            None,
            Some(""),
            Some("\0"),
            Some("\0\0"),
            Some("\0a"),
            Some("a"),
            Some("a\0"),
            Some("\u{7f}"),
            Some("ä"),
            Some("a"),
            None,
        ]);
    }

    proptest! {
        #[test]
        fn texts_come_back_and_stand_in_their_order(texts in proptest::collection::vec(proptest::option::of("[\0ab\u{e9}]{0,4}"), 0..20)) {
            check_keys(&texts.iter().map(Option::as_deref).collect::<Vec<_>>());
        }
    }

    /// Chunks of rows, each with the numbers that queries share or without, go through two tables that let go of other keys meanwhile:
    /// they number them as tables do which look up every row.
    fn check_shared(chunks: &[(Vec<u8>, bool)], elsewhere: &[u8]) {
        let text = |key: &u8| match key {
            0 => None,
            1 => Some(String::new()),
            _ => Some(format!("p{key}")),
        };
        let texts = |keys: &[u8]| keys.iter().map(text).collect::<StringArray>();
        let mut names = Names::default();
        // Another query has given numbers before.
        Grouping::of(&texts(elsewhere), &mut names);
        let mut queries: [(KeyTable, KeyTable); 2] = Default::default();
        for (number, (keys, shared)) in chunks.iter().enumerate() {
            let column = texts(keys);
            let grouping = if *shared { Grouping::of(&column, &mut names).map(Arc::new) } else { None };
            let column: ArrayRef = Arc::new(column);
            for (query, (by_number, by_text)) in queries.iter_mut().enumerate() {
                let grouped = by_number.row_keys_as(std::slice::from_ref(&column), grouping.clone()).unwrap();
                assert_eq!(matches!(grouped, RowKeys::Grouped(..)), grouping.is_some());
                let encoded = by_text.encode(std::slice::from_ref(&column)).unwrap();
                for row in 0..column.len() {
                    let found = by_number.slot_of(&grouped, row);
                    assert_eq!(found, by_text.slot(encoded.key(row)), "chunk {number}, query {query}, row {row}");
                    assert_eq!(by_number.key(found.0), by_text.key(found.0));
                    // Some keys go at once, others of those that have been there for long.
                    let gone = (row * 7 + number + query * 3) % 5;
                    if gone < 2 {
                        let slot = if gone == 0 { found.0 } else { (row * 13 % by_text.slot_count()) as u32 };
                        by_number.drop_slot(slot);
                        by_text.drop_slot(slot);
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn slots_by_number_are_those_by_text(
            chunks in proptest::collection::vec((proptest::collection::vec(0..40u8, 80..200), any::<bool>()), 1..8),
            elsewhere in proptest::collection::vec(20..60u8, 80..90),
        ) {
            check_shared(&chunks, &elsewhere);
        }
    }

    #[test]
    fn a_key_that_is_gone_and_comes_back_in_a_chunk_has_a_slot_of_its_own() {
        let column: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("a"), None, Some("b"), Some("a"), Some("b"), None]));
        let grouping = Grouping::of(column.as_string(), &mut Names::default()).map(Arc::new);
        let mut table = KeyTable::default();
        let keys = table.row_keys_as(&[column], grouping).unwrap();
        assert!(matches!(keys, RowKeys::Grouped(..)));
        assert_eq!([0, 1, 2, 3].map(|row| table.slot_of(&keys, row)), [(0, true), (1, true), (0, false), (1, false)]);
        table.drop_slot(0);
        // The slot of "a" is now that of "b".
        assert_eq!([4, 5, 6, 7].map(|row| table.slot_of(&keys, row)), [(0, true), (2, true), (0, false), (1, false)]);
        assert_eq!([0, 1, 2].map(|slot| table.key(slot).map(|key| key.to_vec())), [Some(b"b".to_vec()), Some(vec![]), Some(b"a".to_vec())]);
    }

    #[test]
    fn numbers_that_begin_anew_stand_for_other_slots() {
        let column = |texts: &[&str]| texts.iter().flat_map(|text| [*text; 2]).map(Some).collect::<StringArray>();
        let many: Vec<String> = (0..40_000).map(|n| format!("p{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut names = Names::default();
        let mut table = KeyTable::default();
        let mut slots = |texts: &[&str]| {
            let column: ArrayRef = Arc::new(column(texts));
            let grouping = Grouping::of(column.as_string(), &mut names).map(Arc::new);
            let keys = table.row_keys_as(&[ArrayRef::clone(&column)], grouping).unwrap();
            (0..column.len()).step_by(2).map(|row| table.slot_of(&keys, row).0).collect::<Vec<_>>()
        };
        assert_eq!(slots(&["a", "b"]), [0, 1]);
        let found = slots(&many);
        assert_eq!((found[0], found[39_999]), (2, 40_001));
        // More texts than there are numbers for: these have others now.
        let others: Vec<String> = (0..40_000).map(|n| format!("q{n}")).collect();
        slots(&others.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(slots(&["b", "c", "a"]), [1, 80_002, 0]);
    }

    #[test]
    fn several_columns_and_other_types_are_keys_too() {
        let columns: [ArrayRef; 2] =
            [Arc::new(StringArray::from(vec![Some("a"), None])), Arc::new(Int64Array::from(vec![Some(1), Some(2)]))];
        let mut table = KeyTable::default();
        let encoded = table.encode(&columns).unwrap();
        let slots = [table.slot(encoded.key(0)).0, table.slot(encoded.key(1)).0];
        assert_eq!(table.decode(slots.iter().filter_map(|slot| table.key(*slot).map(AsRef::as_ref))).unwrap(), columns);
        table.drop_slot(slots[0]);
        assert_eq!((table.find(encoded.key(0)), table.find(encoded.key(1))), (None, Some(slots[1])));
    }
}
