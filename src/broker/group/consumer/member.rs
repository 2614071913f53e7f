//! One member of a consumer group: what it wants, what it has, and until when it is believed alive.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::ConsumerConfig;
use super::message::Beat;
use crate::record::TopicId;
use crate::time::Timestamp;

/// A static member that left and will be back.
pub(super) const AWAY: i32 = -2;

/// Partitions, each with the epoch at which the member got it.
pub(super) type Held = BTreeMap<TopicId, BTreeMap<i32, i32>>;

/// How a member stands to its target. The numbers are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has what it should have.
    Stable = 0,
    /// It has to give partitions up first.
    Unrevoked = 1,
    /// It waits for partitions that others still have.
    Unreleased = 2,
}

/// A member that speaks the classic protocol in a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Classic {
    pub(super) session_timeout_ms: i32,
    pub(super) protocols: Vec<(String, Bytes)>,
}

/// A member. Changed by its group only.
#[derive(Clone, Debug)]
pub(in crate::broker::group) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) rack_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) names: BTreeSet<String>,
    pub(super) regex: Option<String>,
    pub(super) assignor: Option<String>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) classic: Option<Classic>,
    pub(super) epoch: i32,
    pub(super) previous_epoch: i32,
    pub(super) stage: Stage,
    pub(super) assigned: Held,
    pub(super) revoking: Held,
    /// When it is fenced unless it is heard of.
    pub(super) session_ends: Option<Timestamp>,
    /// When it is fenced unless it has given up what it must (a classic one: unless it has joined again).
    pub(super) rebalance_ends: Option<Timestamp>,
    /// A classic one: when it is fenced unless it asked for its assignment.
    pub(super) sync_ends: Option<Timestamp>,
}

impl Member {
    pub(super) fn new(id: String) -> Self {
        Self {
            id,
            instance_id: None,
            rack_id: None,
            client_id: String::new(),
            client_host: String::new(),
            names: BTreeSet::new(),
            regex: None,
            assignor: None,
            rebalance_timeout_ms: -1,
            classic: None,
            epoch: 0,
            previous_epoch: -1,
            stage: Stage::Stable,
            assigned: Held::new(),
            revoking: Held::new(),
            session_ends: None,
            rebalance_ends: None,
            sync_ends: None,
        }
    }

    /// Takes over what a heartbeat says of the member.
    pub(super) fn update(&mut self, beat: &Beat) {
        let keep = |ours: &mut Option<String>, theirs: &Option<String>| {
            if theirs.is_some() {
                ours.clone_from(theirs);
            }
        };
        keep(&mut self.instance_id, &beat.instance_id);
        keep(&mut self.rack_id, &beat.rack_id);
        keep(&mut self.assignor, &beat.assignor);
        keep(&mut self.regex, &beat.pattern);
        if beat.rebalance_timeout_ms != -1 {
            self.rebalance_timeout_ms = beat.rebalance_timeout_ms;
        }
        if let Some(names) = &beat.names {
            self.names = names.iter().cloned().collect();
        }
        self.client_id.clone_from(&beat.client_id);
        self.client_host.clone_from(&beat.client_host);
        self.classic = None;
        self.sync_ends = None;
    }

    /// Whether `self` says the same of itself as `other`: what is stored of it besides its partitions.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.instance_id == other.instance_id
            && self.rack_id == other.rack_id
            && self.client_id == other.client_id
            && self.client_host == other.client_host
            && self.names == other.names
            && self.regex == other.regex
            && self.assignor == other.assignor
            && self.rebalance_timeout_ms == other.rebalance_timeout_ms
            && self.classic == other.classic
    }

    /// Whether `self` stands where `other` does, with the same partitions.
    pub(super) fn stands_the_same(&self, other: &Self) -> bool {
        self.epoch == other.epoch
            && self.previous_epoch == other.previous_epoch
            && self.stage == other.stage
            && self.assigned == other.assigned
            && self.revoking == other.revoking
    }

    /// The pattern it subscribes by.
    pub(super) fn pattern(&self) -> Option<&str> {
        self.regex.as_deref().filter(|regex| !regex.is_empty())
    }

    /// Every partition that is in its hands.
    pub(super) fn held(&self) -> impl Iterator<Item = (TopicId, i32)> + use<> {
        let all = |held: &Held| held.iter().flat_map(|(topic, of)| of.keys().map(|p| (*topic, *p))).collect::<Vec<_>>();
        all(&self.assigned).into_iter().chain(all(&self.revoking))
    }

    pub(super) fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.stage == Stage::Stable && self.epoch == epoch
    }

    /// How long its silence is borne.
    pub(super) fn session_timeout_ms(&self, config: &ConsumerConfig) -> i64 {
        self.classic.as_ref().map_or(config.session_timeout_ms, |classic| classic.session_timeout_ms).into()
    }

    /// It gave a sign of life.
    pub(super) fn touch(&mut self, now: Timestamp, config: &ConsumerConfig) {
        self.session_ends = Some(now.plus(self.session_timeout_ms(config)));
    }

    /// Its time begins anew, after it was read back.
    pub(super) fn begin(&mut self, now: Timestamp, config: &ConsumerConfig) {
        self.touch(now, config);
        if self.stage == Stage::Unrevoked {
            self.rebalance_ends = Some(now.plus(self.rebalance_timeout_ms.max(0).into()));
        }
    }

    /// When it is fenced, for one reason or another.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Timestamp> + use<> {
        [self.session_ends, self.rebalance_ends, self.sync_ends].into_iter().flatten()
    }
}
