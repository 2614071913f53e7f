//! Messages as values of records: two bytes of version, then the message in its flexible form.
//!
//! Kafka stores the state of its coordinators this way. Called by `broker` for what it keeps in internal topics.

use bytes::Bytes;

use super::error::WireError;
use super::read::{Reader, Shape};
use super::value::Wire;
use super::write::Writer;

/// There is one version of all of them.
const SHAPE: Shape = Shape { version: 0, flexible: true };

/// The value of a record that holds this message.
#[must_use]
pub fn write_stored(message: &impl Wire) -> Vec<u8> {
    let mut to = Writer::frame(SHAPE);
    to.put(&SHAPE.version.to_be_bytes());
    message.write(&mut to, false);
    // A frame begins with its length, a record's value does not.
    to.finish().concat().split_off(4)
}

/// Reads the message out of the value of a record, whose version, which is in front, the caller has read.
pub fn read_stored<T: Wire>(behind_version: &[u8]) -> Result<T, WireError> {
    T::read(&mut Reader::new(Bytes::copy_from_slice(behind_version), SHAPE), false)
}
