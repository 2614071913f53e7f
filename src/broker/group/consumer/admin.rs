//! What operators ask of a consumer group.

use super::ConsumerGroup;
use super::member::Member;
use super::message::OwnedPartitions;
use super::reconcile::told;
use crate::broker::group::message::GroupState;

/// An answer of ConsumerGroupDescribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConsumer {
    /// Where it stands.
    pub state: GroupState,
    /// Its epoch.
    pub epoch: i32,
    /// The epoch its target was made for.
    pub target_epoch: i32,
    /// Who makes the target.
    pub assignor: String,
    /// Its members.
    pub members: Vec<DescribedConsumerMember>,
}

/// A member in an answer of ConsumerGroupDescribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConsumerMember {
    /// Its id.
    pub member_id: String,
    /// Its name, where it is static.
    pub instance_id: Option<String>,
    /// Where it stands.
    pub rack_id: Option<String>,
    /// The epoch it has reached.
    pub epoch: i32,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// The topics it wants by name.
    pub names: Vec<String>,
    /// What the names of topics it wants look like.
    pub pattern: Option<String>,
    /// What it has, or has not yet said that it let go.
    pub assigned: OwnedPartitions,
    /// What it should have.
    pub target: OwnedPartitions,
    /// Whether it speaks the classic protocol.
    pub is_classic: bool,
}

fn everything(member: &Member) -> OwnedPartitions {
    let mut all = told(&member.assigned);
    for (topic, of) in told(&member.revoking) {
        let partitions = all.entry(topic).or_default();
        partitions.extend(of);
        partitions.sort_unstable();
    }
    all
}

impl ConsumerGroup {
    /// The group and its members.
    pub(in crate::broker::group) fn describe(&self) -> DescribedConsumer {
        let member = |member: &Member| DescribedConsumerMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            rack_id: member.rack_id.clone(),
            epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            names: member.names.iter().cloned().collect(),
            pattern: member.pattern().map(str::to_owned),
            assigned: everything(member),
            target: self
                .target
                .get(&member.id)
                .into_iter()
                .flatten()
                .filter(|(_, of)| !of.is_empty())
                .map(|(topic, of)| (*topic, of.iter().copied().collect()))
                .collect(),
            is_classic: member.classic.is_some(),
        };
        DescribedConsumer {
            state: self.state(),
            epoch: self.epoch,
            target_epoch: self.target_epoch,
            assignor: self.assignor().to_owned(),
            members: self.members.values().map(member).collect(),
        }
    }

    /// Whether any member subscribes to a topic.
    pub(in crate::broker::group) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscriptions.contains_key(topic) || self.patterns.all_topics().any(|name| name == topic)
    }
}
