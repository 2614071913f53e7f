//! Functions that remember each key's past: `OVER (PARTITION BY .. ORDER BY ts)`, in event time.

mod buffer;
mod cold;
#[cfg(test)]
mod cold_tests;
mod machine;
mod memory;
mod named;
mod operator;
mod table;
#[cfg(test)]
mod tests;

pub(super) use buffer::{Buffer, Held};
pub(super) use cold::{ColdKey, ColdKeys, ColdRow, keys_of_file};
pub(super) use named::RowKeys;
pub use operator::{Keyed, KeyedFunction, KeyedSpec};
pub(super) use table::KeyTable;
