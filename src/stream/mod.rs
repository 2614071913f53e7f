//! Streaming operators: time, windows, state, and the task that runs them.
//!
//! This room owns event time. It names crate `arrow` and, through the traits in `operator`, borrows
//! expressions and aggregates from `sql`, which stands above it.

mod absent;
mod budget;
mod chain;
mod checkpoint;
#[cfg(test)]
mod doubles;
mod element;
mod feed;
mod gap;
mod grouping;
mod heard;
mod inputs;
mod intake;
mod join;
mod keyed;
mod letters;
mod operator;
mod operator_stats;
mod over;
mod pattern;
mod peers;
mod rank;
mod rowwise;
mod session;
mod sink;
mod snapshot;
mod source;
mod spill;
mod stateless;
mod stats;
mod task;
mod time_spent;
mod update;
mod window;

pub use absent::{Absent, AbsentColumn, AbsentSpec};
pub use budget::{Full, StateBudget, shown_bytes};
pub use chain::Chain;
pub use checkpoint::Decision;
pub use element::{Aside, AsideRow, Deletion, FailedRow, NO_OFFSET, NO_TIME, Output, Rows};
pub use feed::{Chunk, Feed, Follower, Following};
pub use gap::{GapColumn, GapFill, GapSpec};
pub use grouping::{GroupingSet, GroupingSets, GroupingSpec};
pub use inputs::SourceSpec;
pub use intake::{BadRecords, Intake};
pub use join::{AsOf, AsOfSpec, Interval, IntervalSpec, Join, JoinKind, Side, TableSide, Union};
pub use keyed::{Keyed, KeyedFunction, KeyedSpec};
pub use letters::{HEADER_FROM, HEADER_OFFSET, HEADER_PARTITION, HEADER_REASON, HEADER_TIMESTAMP, HEADER_TOPIC, LetterBox, Letters};
pub use operator::{Expr, Fold, FoldFactory, Keys, KeysFactory, Operator, Scope, StatePart, StateReader, StateWriter, StreamError};
pub use operator_stats::OperatorFigures;
pub use over::{Ahead, AheadSpec, Lead, LeadCall, LeadSpec, Over, OverArgument, OverCall, OverExpiry, OverFrame, OverFunction, OverSpec};
pub use pattern::{
    MAX_VARIABLES, MatchRecognize, Pattern, PatternColumn, PatternCondition, PatternEnd, PatternRead, PatternSkip, PatternSpec,
    PatternVariable, TallyFunction,
};
pub use peers::{PartsSink, PeersSpec};
pub use rank::{Rank, RankOrder, RankSpec};
pub use session::{SessionAggregate, SessionSpec};
pub use sink::{ChannelSink, Outputs, RecordSink, Sink, Standing, TopicSink};
pub use source::{AheadJudge, AheadRows, FAR_AHEAD_MS, Piece, Stamper, TimeRule, millis};
pub use spill::{Parked, SpillDisk, SpillFolder, SpillSpace, Spilling};
pub use stateless::FilterProject;
pub use stats::{InputProgress, Refill, TaskCounts, TaskStats};
pub use task::{
    Control, Delivery, Origin, Pace, Phase, Saved, SavedInput, StartAt, Task, TaskSpec, checkpoint_place, hand_over, has_begun, plan_of,
    save, start_of,
};
pub use time_spent::{Doing, TimeShares};
pub use update::{GroupEmit, GroupLife, Regroup, RegroupSpec, Shown, Top, TopSpec, UpdateAggregate, UpdateSpec};
pub use window::{
    ExpandColumn, Statistic, Statistics, WindowAggregate, WindowAggregateSpec, WindowCollect, WindowColumn, WindowCombine, WindowExpand,
    WindowRule,
};
