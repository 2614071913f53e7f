//! One member of a group: what it asked for, whether it waits, and until when it is believed alive.

use bytes::Bytes;

use super::message::{JoinRequest, JoinedMember, Token};
use crate::time::Timestamp;

/// A member. Changed by its group only.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout_ms: i64,
    pub(super) rebalance_timeout_ms: i64,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// Who waits for the join to be answered.
    pub(super) join: Option<Token>,
    /// Who waits for the sync to be answered.
    pub(super) sync: Option<Token>,
    /// Has joined the generation and not yet asked for its assignment.
    pub(super) owes_sync: bool,
    /// Has not been in a generation yet.
    pub(super) is_new: bool,
    /// When it is given up, unless it waits for us.
    pub(super) deadline: Timestamp,
}

impl Member {
    /// A member with what `request` says, not waiting yet.
    pub(super) fn new(id: String, request: &JoinRequest, deadline: Timestamp) -> Self {
        let mut member = Self {
            id,
            instance_id: request.instance_id.clone(),
            client_id: String::new(),
            client_host: String::new(),
            session_timeout_ms: 0,
            rebalance_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            join: None,
            sync: None,
            owes_sync: false,
            is_new: true,
            deadline,
        };
        member.update(request);
        member
    }

    /// Takes over what a later request says.
    pub(super) fn update(&mut self, request: &JoinRequest) {
        self.client_id.clone_from(&request.client_id);
        self.client_host.clone_from(&request.client_host);
        self.session_timeout_ms = i64::from(request.session_timeout_ms);
        // A timeout of nothing or less would let a rebalance end before it began.
        self.rebalance_timeout_ms = i64::from(request.rebalance_timeout_ms).max(1);
        // Copied, because a slice would keep the whole request frame in memory.
        self.protocols = request.protocols.iter().map(|(name, data)| (name.clone(), Bytes::copy_from_slice(data))).collect();
    }

    /// Whether it knows this way of assigning.
    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// Whether it would say the same again.
    pub(super) fn matches(&self, protocols: &[(String, Bytes)]) -> bool {
        self.protocols == protocols
    }

    /// What it sent for this protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, data)| data.clone()).unwrap_or_default()
    }

    /// It gave a sign of life.
    pub(super) fn touch(&mut self, now: Timestamp) {
        self.deadline = now.plus(self.session_timeout_ms);
    }

    /// When it is given up. While it waits for us its silence is our doing, except where it never got into
    /// a generation: then nobody can tell whether it is still there.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        let waits = self.join.is_some() || self.sync.is_some();
        (self.is_new || !waits).then_some(self.deadline)
    }

    /// As the leader sees it.
    pub(super) fn joined(&self, protocol: &str) -> JoinedMember {
        JoinedMember { member_id: self.id.clone(), instance_id: self.instance_id.clone(), metadata: self.metadata(protocol) }
    }
}
