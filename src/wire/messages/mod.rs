//! The table: every message the node speaks, field by field, in the versions that are served.
//!
//! Always: fields stand in the order of the wire, with Kafka's names in snake case, and the versions of
//! Kafka's own message definitions. A struct that only one message holds is named after it.

mod admin;
mod cluster;
mod consumer_groups;
mod data;
mod groups;
mod log_dirs;
mod offsets;
mod quorum;
mod replicas;
mod security;
mod stored_groups;
mod txn;

pub use admin::*;
pub use cluster::*;
pub use consumer_groups::*;
pub use data::*;
pub use groups::*;
pub use log_dirs::*;
pub use offsets::*;
pub use quorum::*;
pub use replicas::*;
pub use security::*;
pub use stored_groups::*;
pub use txn::*;
