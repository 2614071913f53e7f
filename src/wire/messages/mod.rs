//! The table: every message the node speaks, field by field, in the versions that are served.
//!
//! Always: fields stand in the order of the wire, with Kafka's names in snake case, and the versions of
//! Kafka's own message definitions. A struct that only one message holds is named after it.

mod admin;
mod cluster;
mod data;
mod groups;
mod offsets;

pub use admin::*;
pub use cluster::*;
pub use data::*;
pub use groups::*;
pub use offsets::*;
