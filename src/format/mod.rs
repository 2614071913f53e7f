//! Bytes to Arrow rows and back.
//!
//! [`StreamSchema`] says what the records of a stream look like, [`Decoder`] turns record batches into rows,
//! [`JsonEncoder`] turns rows into JSON. Always: a record that is no row is one dead letter and never costs
//! its neighbours anything, and no reason for it shows a value. Called by `stream`, `sql` and `alerts`.

mod base64;
mod column;
mod decoder;
mod json;
mod number;
mod schema;
mod temporal;

pub use decoder::{BadRecord, Decoded, Decoder, Tombstone};
pub use json::{Encoded, JsonEncoder, MAX_DEPTH};
pub use schema::{FieldSource, FieldSpec, Format, KeyRule, Metadata, Partitioner, SchemaError, StreamSchema};
