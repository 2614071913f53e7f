//! JSON objects to rows and back.
//!
//! `scan` knows the grammar, `shape` the names, `decode` brings values into columns, `encode` writes rows.

mod decode;
mod encode;
mod scan;
mod shape;
#[cfg(test)]
mod tests;

pub(super) use decode::Reader;
pub use encode::JsonEncoder;
pub(super) use encode::Writer;
pub use scan::MAX_DEPTH;
pub(super) use scan::{Fault, Read};
pub(super) use shape::Shape;
