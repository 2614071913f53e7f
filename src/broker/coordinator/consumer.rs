//! The coordinator's part in groups of KIP-848: heartbeats, descriptions, and deleting single offsets of any group.
//! Called by `server`.

use super::{Coordinator, STATE_BYTES, entries};
use crate::broker::catalogue::Catalogue;
use crate::broker::group::{Beat, BeatRefusal, BeatReply, ConsumerConfig, DescribedConsumer, Group, GroupId, Topics};
use crate::record::{TopicId, TopicName, TopicPartition};
use crate::wire::error_code;

impl Topics for Catalogue {
    fn by_name(&self, name: &str) -> Option<(TopicId, i32)> {
        self.topic(name).map(|topic| (topic.id(), topic.partition_count()))
    }

    fn name_of(&self, id: TopicId) -> Option<String> {
        self.topic_by_id(id).map(|topic| topic.name().as_str().to_owned())
    }

    fn names(&self) -> Vec<String> {
        // Of the internal topics the one that Kafka has too: a pattern of everything should not match the rest.
        let is_seen = |name: &TopicName| !name.is_internal() || name.as_str() == "__consumer_offsets";
        self.topics().iter().filter(|topic| is_seen(topic.name())).map(|topic| topic.name().as_str().to_owned()).collect()
    }

    fn version(&self) -> u64 {
        self.changes()
    }
}

impl Coordinator {
    /// A member of a group of KIP-848 says that it lives. What the answer says is durable when this returns.
    pub async fn consumer_heartbeat(&self, id: &GroupId, beat: &Beat) -> Result<BeatReply, BeatRefusal> {
        beat.check()?;
        let permit = self.journal.room(STATE_BYTES).await;
        let (reply, stored) = self.within(id, |inner, now| {
            inner.group.set_consumer_config(self.consumer_config(id));
            let (reply, effects) = inner.group.consumer_heartbeat(now, beat, &*self.topics);
            (reply, self.carry_out(inner, effects, permit))
        });
        stored.told(id).await;
        reply
    }

    /// What is set for a group, and else for all.
    fn consumer_config(&self, id: &GroupId) -> ConsumerConfig {
        let all = self.settings.groups().consumer;
        let set = |name, default| {
            let value = self.settings.group_number(id.as_str(), name);
            value.and_then(|value| i32::try_from(value).ok()).unwrap_or(default)
        };
        ConsumerConfig {
            session_timeout_ms: set("consumer.session.timeout.ms", all.session_timeout_ms),
            heartbeat_interval_ms: set("consumer.heartbeat.interval.ms", all.heartbeat_interval_ms),
            assignment_interval_ms: set("consumer.assignment.interval.ms", all.assignment_interval_ms),
        }
    }

    /// One group of KIP-848 and its members; `None` where there is no such group.
    #[must_use]
    pub fn describe_consumer(&self, id: &GroupId) -> Option<DescribedConsumer> {
        self.look(id, Group::describe_consumer).flatten()
    }

    /// Whether a client that says this of itself may fetch the group's offsets; answers Kafka's error where not.
    pub fn check_fetch(&self, id: &GroupId, member_id: Option<&str>, epoch: i32) -> Result<(), i16> {
        self.look(id, |group| group.check_fetch(member_id, epoch)).unwrap_or(Ok(()))
    }

    /// Deletes single offsets. Answers each one's error, or one for all.
    pub async fn delete_offsets(&self, id: &GroupId, of: &[TopicPartition]) -> Result<Vec<i16>, i16> {
        let permit = self.journal.room(STATE_BYTES + of.len() * 128).await;
        let deleted = self.within_existing(id, |inner, _| {
            let (errors, records) = inner.group.delete_offsets(of)?;
            if records.is_empty() {
                return Ok((errors, None));
            }
            match self.journal.submit(&entries(records), permit) {
                Ok((_, submitted)) => Ok((errors, Some(submitted))),
                Err(error) => {
                    tracing::warn!(group = %id, %error, "the deletion of positions could not be stored");
                    Err(error_code::COORDINATOR_NOT_AVAILABLE)
                }
            }
        });
        let (errors, submitted) = deleted.unwrap_or(Err(error_code::GROUP_ID_NOT_FOUND))?;
        if let Some(submitted) = submitted {
            submitted.await.map_err(|_| error_code::COORDINATOR_NOT_AVAILABLE)?;
        }
        Ok(errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::group::{CommitOffset, CommitRequest, GroupKind, GroupState, OwnedPartitions};
    use crate::broker::{Broker, NewTopic, TestDisk};
    use crate::record::{Offset, PartitionId};

    fn beat(member: &str, epoch: i32) -> Beat {
        Beat {
            member_id: member.to_owned(),
            epoch,
            instance_id: None,
            rack_id: None,
            rebalance_timeout_ms: if epoch == 0 { 10_000 } else { -1 },
            names: (epoch == 0).then(|| vec!["t".to_owned()]),
            pattern: None,
            assignor: None,
            owned: (epoch == 0).then(OwnedPartitions::new),
            client_id: String::new(),
            client_host: String::new(),
            makes_own_id: true,
            nonce: String::new(),
        }
    }

    fn commit(member: &str, epoch: i32) -> CommitRequest {
        let of = TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(0));
        CommitRequest {
            member_id: member.to_owned(),
            instance_id: None,
            generation: epoch,
            knows_epochs: true,
            retention_ms: None,
            offsets: vec![CommitOffset { of, offset: Offset(7), leader_epoch: -1, metadata: None }],
        }
    }

    #[tokio::test]
    async fn a_crash_takes_no_member_no_partition_and_no_offset() {
        let disk = TestDisk::default();
        let broker = disk.broker().await;
        broker.create_topic(NewTopic::named(TopicName::new("t").unwrap())).await.unwrap();
        let id = GroupId::new("g").unwrap();
        let told = broker.groups().consumer_heartbeat(&id, &beat("a", 0)).await.unwrap();
        assert_eq!((told.epoch, told.assignment.map(|of| of.into_values().collect::<Vec<_>>())), (2, Some(vec![vec![0, 1, 2, 3]])));
        broker.groups().commit(&id, commit("a", 2)).await.unwrap();
        let before = broker.groups().describe_consumer(&id).unwrap();
        let disk = disk.crash();
        let broker = disk.broker().await;
        assert_eq!(broker.groups().describe_consumer(&id), Some(before));
        let listed = broker.groups().list().remove(0);
        assert_eq!((listed.kind, listed.state), (GroupKind::Consumer, GroupState::Stable));
        let told = broker.groups().consumer_heartbeat(&id, &beat("a", 2)).await.unwrap();
        assert_eq!((told.epoch, told.assignment), (2, None));
        assert_eq!(broker.groups().commit(&id, commit("b", 2)).await, Err(error_code::UNKNOWN_MEMBER_ID));
        check_deletes(&broker, &id).await;
        let disk = disk.crash();
        assert!(disk.broker().await.groups().list().is_empty());
    }

    /// Offsets go once nobody reads their topic, and the group once it is empty.
    async fn check_deletes(broker: &Broker, id: &GroupId) {
        let of = [TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(0))];
        let groups = broker.groups();
        assert_eq!(groups.delete_offsets(id, &of).await, Ok(vec![error_code::GROUP_SUBSCRIBED_TO_TOPIC]));
        assert_eq!(groups.delete(id).await, error_code::NON_EMPTY_GROUP);
        groups.consumer_heartbeat(id, &beat("a", -1)).await.unwrap();
        assert_eq!(groups.delete_offsets(id, &of).await, Ok(vec![error_code::NONE]));
        assert_eq!(groups.committed(id, &of[0]), None);
        assert_eq!(groups.delete(id).await, error_code::NONE);
        assert_eq!(groups.delete(id).await, error_code::GROUP_ID_NOT_FOUND);
    }
}
