//! Aggregates over frames, `OVER (PARTITION BY .. ORDER BY ts RANGE .. | ROWS ..)`, and LEAD, in event time.

mod ahead;
#[cfg(test)]
mod ahead_tests;
mod exact;
mod frame;
mod function;
mod lead;
#[cfg(test)]
mod lead_tests;
mod operator;
mod past;
mod prepare;
mod slide;
#[cfg(test)]
mod tests;

pub use ahead::{Ahead, AheadSpec};
pub use frame::OverFrame;
pub use lead::{Lead, LeadCall, LeadSpec};
pub use operator::{Over, OverArgument, OverCall, OverExpiry, OverFunction, OverSpec};
pub(super) use past::{Kind, Lane, NOTHING, Native, Past, Worth};
pub(super) use prepare::{Prepared, prepared};
