//! The coordinator of consumer groups, as a pure state machine: [`Group`].
//!
//! A group is of one type at a time: classic (its members join, and one of them assigns) or, in `consumer`, of
//! KIP-848 (its members send heartbeats, and the group assigns). Offsets are the same for both.
//!
//! Owns who is in a group, which generation it is in, who waits for whom, and what offsets it committed.
//! No clock, no sockets, no log: the time and the requests come in, effects come out. A caller that has
//! to wait is known by the [`Token`] it gave; its reply comes as an [`Effect`] of a later call.
//!
//! Always: at most one leader a generation; all of a generation see the same protocol; nobody waits
//! longer than the longest rebalance timeout in the group. Called by the broker's coordinator, which
//! holds one lock a group, sends the replies, appends the records to `__consumer_offsets`, and calls
//! [`Group::tick`] when [`Group::next_deadline`] has come.

mod admin;
mod commit;
mod consumer;
mod machine;
mod member;
mod message;
mod migrate;
mod rebalance;
#[cfg(test)]
mod simulation;
mod stored;
mod stored_classic;
mod subscription;
#[cfg(test)]
mod tests;
mod transactional;

pub use admin::{Described, DescribedMember, Listed};
pub use commit::{CommitPlan, Committed};
pub use consumer::{Beat, BeatRefusal, BeatReply, ConsumerConfig, DescribedConsumer, DescribedConsumerMember, OwnedPartitions, Topics};
pub use machine::Group;
pub use message::{
    CommitOffset, CommitRequest, Effect, GroupId, GroupKind, GroupState, HeartbeatRequest, JoinReply, JoinRequest, JoinedMember,
    LeaveReply, Leaving, SyncReply, SyncRequest, Token, TxnCommitRequest,
};
pub use stored::{GroupRecord, Replay, StoredEntry, StoredError, read_stored};
pub use stored_classic::{StoredGroup, StoredMember};
pub use transactional::{TxnCommitPlan, TxnOutcome};

/// What an operator may set about groups. The defaults are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// How long an empty group waits for more members after the first came, so that a service that starts
    /// with many consumers is assigned once. 0 assigns at once.
    pub initial_rebalance_delay_ms: i64,
    /// The shortest session timeout a member may ask for.
    pub min_session_timeout_ms: i32,
    /// The longest session timeout a member may ask for.
    pub max_session_timeout_ms: i32,
    /// How many members, and members to be, a group may have.
    pub max_size: usize,
    /// How long a member that just joined may wait for its first generation.
    pub new_member_join_timeout_ms: i64,
    /// The longest metadata text that may be committed with an offset.
    pub offset_metadata_max_bytes: usize,
    /// How long offsets are kept after the group became empty.
    pub offsets_retention_ms: i64,
    /// Of groups of KIP-848.
    pub consumer: ConsumerConfig,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 3_000,
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 30 * 60 * 1_000,
            // Kafka has no limit; ours keeps a client that only ever joins from filling the memory.
            max_size: 10_000,
            new_member_join_timeout_ms: 5 * 60 * 1_000,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            consumer: ConsumerConfig::default(),
        }
    }
}
