//! What one phase writes for the next: parts and marks, as bytes.
//!
//! A record begins with its kind and the number of the upstream task (its input partition). A *part* goes on with the pane's start, the end of the
//! first window it counts in, how many groups it has, and those as one Arrow IPC stream: the key columns, then the states of each aggregate. A
//! *mark* goes on with the end of the last window for which nothing more comes from that task. Numbers are little-endian. Read by the same
//! version of the same plan alone: another one begins with other topics.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use super::super::pane::Frozen;
use super::super::split::Place;
use crate::stream::StreamError;
use crate::stream::rowwise::arrow_error;

/// The column of the partition that a part goes to ..
pub(in crate::stream) const TO: usize = 0;
/// .. and that of its bytes.
pub(in crate::stream) const VALUE: usize = 1;

const PART: u8 = 1;
const MARK: u8 = 2;

/// What a record says.
#[derive(Debug)]
pub(super) enum Said {
    /// Groups of one pane of one upstream task.
    Part { from: i32, place: Place, groups: Frozen },
    /// Nothing more comes from that task for windows that end here or before.
    Mark { from: i32, end: i64 },
}

/// The bytes of a mark.
pub(in crate::stream) fn mark(from: i32, end: i64) -> Vec<u8> {
    let mut bytes = vec![MARK];
    bytes.extend(from.to_le_bytes());
    bytes.extend(end.to_le_bytes());
    bytes
}

/// The bytes of a part.
pub(super) fn part(from: i32, place: Place, groups: &Frozen) -> Result<Vec<u8>, StreamError> {
    let mut bytes = vec![PART];
    bytes.extend(from.to_le_bytes());
    bytes.extend(place.start.to_le_bytes());
    bytes.extend(place.first_end.to_le_bytes());
    bytes.extend((groups.groups as u64).to_le_bytes());
    if groups.columns.is_empty() {
        return Ok(bytes);
    }
    let error = |e: ArrowError| arrow_error("a window's part", &e);
    let field = |(at, column): (usize, &ArrayRef)| Field::new(format!("c{at}"), column.data_type().clone(), true);
    let schema = Arc::new(Schema::new(groups.columns.iter().enumerate().map(field).collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), groups.columns.clone()).map_err(error)?;
    let mut writer = StreamWriter::try_new(&mut bytes, &schema).map_err(error)?;
    writer.write(&batch).and_then(|()| writer.finish()).map_err(error)?;
    drop(writer);
    Ok(bytes)
}

/// Reads a record; `width` is how many columns its groups have.
pub(super) fn read(mut bytes: &[u8], width: usize) -> Result<Said, StreamError> {
    let [kind] = take(&mut bytes)?;
    let from = i32::from_le_bytes(take(&mut bytes)?);
    match kind {
        MARK => Ok(Said::Mark { from, end: i64::from_le_bytes(take(&mut bytes)?) }),
        PART => {
            let place = Place { start: i64::from_le_bytes(take(&mut bytes)?), first_end: i64::from_le_bytes(take(&mut bytes)?) };
            let groups = usize::try_from(u64::from_le_bytes(take(&mut bytes)?)).map_err(|_| misfit("it has too many groups"))?;
            let mut columns = Vec::new();
            if width > 0 {
                let mut reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|e| arrow_error("a window's part", &e))?;
                let batch = reader.next().ok_or_else(|| misfit("it has no groups"))?.map_err(|e| arrow_error("a window's part", &e))?;
                columns = batch.columns().to_vec();
            }
            if columns.len() != width || columns.iter().any(|column| column.len() != groups) {
                return Err(misfit("its groups have another shape than the query's"));
            }
            Ok(Said::Part { from, place, groups: Frozen { columns, groups } })
        }
        _ => Err(misfit("it is neither a part nor a mark")),
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], StreamError> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or_else(|| misfit("it is cut short"))?;
    *bytes = rest;
    Ok(*taken)
}

pub(super) fn misfit(why: &str) -> StreamError {
    StreamError::Limit(format!("a record of the query's own topic is not what it wrote: {why}"))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringArray};

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_what_is_cut_short_is_an_error() {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(vec![Some("a"), None])), Arc::new(Float64Array::from(vec![Some(0.1), Some(-0.0)]))];
        let (place, groups) = (Place { start: -7, first_end: 3 }, Frozen { columns, groups: 2 });
        let bytes = part(4, place, &groups).unwrap();
        let Said::Part { from, place: read_place, groups: read_groups } = read(&bytes, 2).unwrap() else { panic!("no part") };
        assert_eq!((from, read_place, read_groups.columns, read_groups.groups), (4, place, groups.columns, 2));
        assert!(read(&bytes, 3).is_err(), "another number of columns");
        assert!((0..bytes.len() / 2).all(|len| read(&bytes[..len], 2).is_err()));
        let none = part(4, place, &Frozen { columns: Vec::new(), groups: 1 }).unwrap();
        assert!(matches!(read(&none, 0), Ok(Said::Part { groups: Frozen { groups: 1, .. }, .. })));
        let marked = mark(2, i64::MAX);
        assert!(matches!(read(&marked, 2), Ok(Said::Mark { from: 2, end: i64::MAX })));
        assert!((0..marked.len()).all(|len| read(&marked[..len], 2).is_err()));
        assert!(read(&[9; 40], 0).is_err());
    }
}
