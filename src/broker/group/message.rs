//! What a group is asked and what it answers: plain structs, close to Kafka's messages of every version.
//!
//! No wire types: the server fills a field that its version lacks with what that version means.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::consumer::Committer;
use super::stored::GroupRecord;
use crate::record::{Offset, TopicPartition};
use crate::wire::error_code;

/// Names a caller that may have to wait for its reply. The caller makes it up; each is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// The name of a group. Short enough for every form it is stored and sent in. It may be empty: very old
/// consumers commit offsets under the empty name, though they cannot join.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(Arc<str>);

impl GroupId {
    /// Checks and keeps a name. `None` where it is too long to be stored.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        i16::try_from(name.len()).is_ok().then(|| Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a group stands. Prints as Kafka names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupState {
    /// It has no members; it may hold offsets.
    Empty,
    /// It waits for all its members to join.
    PreparingRebalance,
    /// It waits for the leader's assignment.
    CompletingRebalance,
    /// Its members work.
    Stable,
    /// It has changed and its target is still to be made (KIP-848).
    Assigning,
    /// Its members are on the way to their targets (KIP-848).
    Reconciling,
    /// It is gone; who still holds it must look it up again.
    Dead,
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// By which protocol a group lives. Prints as Kafka names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKind {
    /// Its members join and one of them assigns.
    Classic,
    /// Its members send heartbeats and the group assigns (KIP-848).
    Consumer,
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        })
    }
}

/// What a call made happen, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this to the caller that joined with the token.
    Join(Token, JoinReply),
    /// Send this to the caller that synced with the token.
    Sync(Token, SyncReply),
    /// Append this to `__consumer_offsets`. Nobody waits for it.
    Store(GroupRecord),
}

/// A member, or one to be, asks to be in the next generation.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Names the waiting caller.
    pub token: Token,
    /// The member's id, or empty where it has none yet.
    pub member_id: String,
    /// The name of a static member (version 5 on).
    pub instance_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// `consumer`, `connect`, ...
    pub protocol_type: String,
    /// The ways of assigning it knows, the best first, each with its metadata.
    pub protocols: Vec<(String, Bytes)>,
    /// Silence after which it is dropped.
    pub session_timeout_ms: i32,
    /// How long it may take to join again (version 0: the session timeout).
    pub rebalance_timeout_ms: i32,
    /// Whether a new dynamic member must come back with the id it is given (version 4 on).
    pub require_known_member_id: bool,
    /// Whether it understands `skip_assignment` (version 9 on).
    pub supports_skip_assignment: bool,
    /// What makes a new member id unique: a fresh UUID.
    pub nonce: String,
}

/// The answer to a [`JoinRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinReply {
    /// 0, or why not.
    pub error: i16,
    /// The generation, or -1.
    pub generation: i32,
    /// The group's protocol type, `None` on an error.
    pub protocol_type: Option<String>,
    /// The chosen protocol, `None` on an error (an empty text before version 7).
    pub protocol: Option<String>,
    /// Who assigns, or empty.
    pub leader: String,
    /// Whether the leader may keep the assignment it has.
    pub skip_assignment: bool,
    /// The caller's id.
    pub member_id: String,
    /// All members, for the leader; empty for the others.
    pub members: Vec<JoinedMember>,
}

impl JoinReply {
    /// The answer that says no.
    #[must_use]
    pub fn refused(error: i16, member_id: &str) -> Self {
        Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: Vec::new(),
        }
    }
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: String,
    /// Its name, where it is static.
    pub instance_id: Option<String>,
    /// What it sent for the chosen protocol.
    pub metadata: Bytes,
}

/// A member asks for its assignment; the leader brings all of them.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// Names the waiting caller.
    pub token: Token,
    /// Who asks.
    pub member_id: String,
    /// Its name, where it is static.
    pub instance_id: Option<String>,
    /// The generation it joined.
    pub generation: i32,
    /// The protocol type it believes in (version 5 on).
    pub protocol_type: Option<String>,
    /// The protocol it believes in (version 5 on).
    pub protocol: Option<String>,
    /// Member ids and what each is to do, from the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// The answer to a [`SyncRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncReply {
    /// 0, or why not.
    pub error: i16,
    /// The group's protocol type, `None` on an error.
    pub protocol_type: Option<String>,
    /// The chosen protocol, `None` on an error.
    pub protocol: Option<String>,
    /// What the member is to do.
    pub assignment: Bytes,
}

impl SyncReply {
    /// The answer that says no.
    #[must_use]
    pub const fn refused(error: i16) -> Self {
        Self { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// A member says that it lives.
#[derive(Clone, Debug)]
pub struct HeartbeatRequest {
    /// Who.
    pub member_id: String,
    /// Its name, where it is static.
    pub instance_id: Option<String>,
    /// The generation it is in.
    pub generation: i32,
}

/// One member that leaves, by id, or by name alone where an administrator removes a static member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Its id, or empty.
    pub member_id: String,
    /// Its name, where it is static.
    pub instance_id: Option<String>,
}

/// The answer to members that leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveReply {
    /// 0, or why nothing could be done at all.
    pub error: i16,
    /// Each member and how it went. Before version 3 there is one, and its error is the answer's.
    pub members: Vec<(Leaving, i16)>,
}

impl LeaveReply {
    /// The one error of a version before 3.
    #[must_use]
    pub fn single_error(&self) -> i16 {
        if self.error != error_code::NONE { self.error } else { self.members.first().map_or(error_code::NONE, |(_, error)| *error) }
    }
}

/// A consumer commits how far it has come.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// Who, or empty for a consumer that uses the group as storage only.
    pub member_id: String,
    /// Its name, where it is static.
    pub instance_id: Option<String>,
    /// The generation it is in, or -1.
    pub generation: i32,
    /// Whether the client knows member epochs, and with them groups that do not exist (version 9 on).
    pub knows_epochs: bool,
    /// How long to keep the offsets (versions 2 to 4), where the client says.
    pub retention_ms: Option<i64>,
    /// What is committed.
    pub offsets: Vec<CommitOffset>,
}

impl CommitRequest {
    pub(super) fn committer(&self) -> Committer<'_> {
        Committer {
            member_id: &self.member_id,
            instance_id: self.instance_id.as_deref(),
            epoch: self.generation,
            transactional: false,
            knows_epochs: self.knows_epochs,
        }
    }
}

/// A producer commits inside its transaction how far its consumer has come.
#[derive(Clone, Debug)]
pub struct TxnCommitRequest {
    /// Whose transaction. That it is open, and with which epoch, the caller has checked.
    pub producer_id: i64,
    /// Which member of the group consumed, or empty where the producer does not say.
    pub member_id: String,
    /// Its name, where it is static.
    pub instance_id: Option<String>,
    /// The generation, or member epoch, it consumed in, or -1.
    pub generation: i32,
    /// What is committed.
    pub offsets: Vec<CommitOffset>,
}

impl TxnCommitRequest {
    pub(super) fn committer(&self) -> Committer<'_> {
        Committer {
            member_id: &self.member_id,
            instance_id: self.instance_id.as_deref(),
            epoch: self.generation,
            transactional: true,
            knows_epochs: true,
        }
    }
}

/// One partition's committed offset.
#[derive(Clone, Debug)]
pub struct CommitOffset {
    /// Of which partition.
    pub of: TopicPartition,
    /// The next record to read.
    pub offset: Offset,
    /// The leader epoch of the last record read, or -1.
    pub leader_epoch: i32,
    /// What the consumer wants to remember.
    pub metadata: Option<String>,
}
