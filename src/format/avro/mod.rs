//! Avro behind Confluent's frame: a zero, the schema's id in four bytes, the value in Avro's binary encoding.
//!
//! `schema` reads a writer's schema, `decode` finds once how its fields become columns and then reads values straight into
//! them, `encode` writes rows under a schema made of the stream's columns. Why not the `arrow-avro` crate: it reads whole
//! batches, and a value that is broken spoils the batch's builders, while here one bad record may cost nothing but itself.

mod cursor;
mod decode;
mod encode;
mod guess;
mod schema;
#[cfg(test)]
mod tests;

pub(super) use decode::{Plan, double, whole_number};
pub(super) use encode::{AvroWriter, record_schema};
pub(super) use guess::columns;
