//! One batch on the disk.

use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use super::space::SpillSpace;
use crate::stream::StreamError;
use crate::stream::rowwise::arrow_error;

/// A batch that lies on the disk as an Arrow IPC stream; its file is deleted when nobody holds it any more.
#[derive(Debug)]
pub struct Parked {
    pub(super) space: SpillSpace,
    pub(super) number: u64,
    pub(super) len: u64,
    pub(super) crc: u32,
}

impl Parked {
    /// How many bytes it takes on the disk.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.len
    }

    /// What was written, as it was written.
    pub fn stored(&self) -> Result<Vec<u8>, StreamError> {
        let bytes = self.space.disk().read(self.number, self.len).map_err(|e| lost(&e.to_string()))?;
        if bytes.len() as u64 != self.len {
            return Err(lost(&format!("its file has {} bytes, and {} were written", bytes.len(), self.len)));
        }
        if crc32c::crc32c(&bytes) != self.crc {
            return Err(lost("its file fails its checksum"));
        }
        Ok(bytes)
    }

    /// The batch.
    pub fn load(&self) -> Result<RecordBatch, StreamError> {
        decode(&self.stored()?).map_err(|e| lost(&e.to_string()))
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.space.disk().remove(self.number);
        self.space.release(self.len);
    }
}

fn lost(why: &str) -> StreamError {
    StreamError::Spill(why.to_owned())
}

/// A batch as an Arrow IPC stream.
pub(in crate::stream) fn encode(batch: &RecordBatch, into: &mut Vec<u8>) -> Result<(), StreamError> {
    let error = |e| arrow_error("an operator's state", &e);
    let mut writer = StreamWriter::try_new(into, &batch.schema()).map_err(error)?;
    writer.write(batch).and_then(|()| writer.finish()).map_err(error)
}

/// The same back.
pub(in crate::stream) fn decode(bytes: &[u8]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let reader = StreamReader::try_new(Cursor::new(bytes), None)?;
    let schema = reader.schema();
    let mut batches = reader.collect::<Result<Vec<_>, _>>()?;
    if batches.len() == 1 { Ok(batches.remove(0)) } else { concat_batches(&schema, &batches) }
}
