//! Streaming operators: time, windows, state, and the task that runs them.
//!
//! This room owns event time. It names crate `arrow` and, through the traits in `operator`, borrows
//! expressions and aggregates from `sql`, which stands above it.
//!
//! # What may be larger than memory
//!
//! Above [`Spilling::above`] bytes a task asks its operators to put on the disk what no row has come for of late (`spill`). What comes
//! out is the same, and so is what a restored state goes on with, whether it was on the disk or not, there and here.
//!
//! | operator | on the disk | in memory all the same |
//! |---|---|---|
//! | [`WindowAggregate`], [`WindowCombine`], [`WindowCollect`] | panes | those that rows come for; a window while it is put together |
//! | [`SessionAggregate`] | the sessions of a key | some 50 bytes a key; in a task that merges partitions, rows whose turn has not come |
//! | [`UpdateAggregate`] | groups that have nothing to say before their end | some 50 bytes a group; rows that correct what has not come to its turn |
//! | [`GroupingSets`] | what the aggregate in it puts there | what that keeps |
//! | [`Interval`] | blocks of rows | the key and time of each row |
//! | all others: [`Over`], [`Ahead`], [`Lead`], [`Keyed`], [`Rank`], [`Top`], [`Regroup`], [`AsOf`], [`MatchRecognize`], [`Absent`], [`GapFill`] | nothing | all |
//!
//! A query whose tasks still hold more than it may ends with [`StreamError::Full`], which names the operator that holds most.

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
