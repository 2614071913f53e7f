//! Bytes to Arrow rows and back.
//!
//! [`StreamSchema`] says what the records of a stream look like, [`Decoder`] turns record batches into rows,
//! [`Encoder`] turns rows into the values of a stream's records. Always: a record that is no row is one dead letter and never costs
//! its neighbours anything, and no reason for it shows a value. Called by `stream`, `sql` and `alerts`.

mod avro;
mod base64;
mod column;
mod csv;
mod debezium;
mod decoder;
mod encode;
mod framed;
mod guess;
mod json;
mod number;
mod protobuf;
mod schema;
#[cfg(test)]
mod strangers;
mod temporal;
mod text;

pub use csv::{CsvRule, csv_fields};
pub use decoder::{BadRecord, Decoded, Decoder, Tombstone};
pub use encode::{Encoded, Encoder, EncoderError};
pub use guess::{FieldGuess, columns_of_schema};
pub use json::{JsonEncoder, MAX_DEPTH};
pub use schema::{FieldSource, FieldSpec, Format, KeyRule, Metadata, NULL_KEY, Partitioner, RegistryRule, SchemaError, StreamSchema};
