//! Protocol Buffers behind Confluent's frame: a zero, the schema's id in four bytes, which of the schema's messages it is,
//! the message.
//!
//! `schema` compiles the registry's text with `protox` and finds the message, `decode` finds once how its fields become
//! columns and then reads the wire format straight into them, `encode` writes rows as a message made of the stream's columns.

mod decode;
mod encode;
mod guess;
mod schema;
#[cfg(test)]
mod tests;
mod wire;

pub(super) use decode::Plan;
pub(super) use encode::{ProtobufWriter, message_schema};
pub(super) use guess::columns;
pub(super) use schema::{Compiled, frame_len};
