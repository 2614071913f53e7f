//! Patterns in the rows of a key, in event time: `MATCH_RECOGNIZE`.
//!
//! `program` makes instructions of a pattern, `matcher` follows them for one key, `read` finds the rows and aggregates
//! that conditions and measures speak of, `tally` is those aggregates, `keys` is what is kept of each key, `outbox`
//! makes rows of what was found, and `operator` puts them together.

mod keys;
mod matcher;
mod operator;
mod outbox;
mod program;
mod read;
mod spec;
mod tally;
#[cfg(test)]
mod tests;

pub use operator::MatchRecognize;
pub use program::Pattern;
pub use spec::{
    MAX_VARIABLES, PatternColumn, PatternCondition, PatternEnd, PatternRead, PatternSkip, PatternSpec, PatternVariable, TallyFunction,
};
