//! Topics made, removed and widened: CreateTopics, DeleteTopics, CreatePartitions.

use std::collections::{BTreeMap, BTreeSet};

use super::dispatch::Caller;
use crate::broker::{BrokerError, DescribedConfig, MORE_NODES, NewTopic, TopicConfig};
use crate::record::{TopicId, TopicName};
use crate::wire::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreatePartitionsTopicResult, CreateTopicsRequest, CreateTopicsResponse, DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest,
    DeleteTopicsResponse, error_code,
};

fn error(code: i16, message: impl Into<String>) -> (i16, String) {
    (code, message.into())
}

fn told(error: &BrokerError) -> (i16, String) {
    (error.code(), error.to_string())
}

/// A name that clients may make, widen or remove.
fn name(text: &str) -> Result<TopicName, (i16, String)> {
    let name = TopicName::new(text).map_err(|e| error(error_code::INVALID_TOPIC_EXCEPTION, e.to_string()))?;
    if name.is_written_by_node_alone() {
        return Err(error(error_code::INVALID_TOPIC_EXCEPTION, "this name is the node's own: only it makes, widens and deletes the topic"));
    }
    Ok(name)
}

/// Partitions that one request may ask for (Kafka's limit).
const MAX_PARTITIONS_PER_REQUEST: i64 = 10_000;

/// The names that a list names more than once.
fn repeated<T: Ord>(all: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts.into_iter().filter(|(_, count)| *count > 1).map(|(one, _)| one).collect()
}

pub(super) async fn create(caller: &Caller, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let twice = repeated(request.topics.iter().map(|topic| topic.name.clone()));
    let default = caller.peer.broker.config().default_partitions;
    let asked: i64 = request.topics.iter().map(|topic| partitions_asked(topic, default)).sum();
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut answered = BTreeSet::new();
    for topic in request.topics {
        let text = topic.name.clone();
        if !answered.insert(text.clone()) {
            continue;
        }
        let made = if twice.contains(&text) {
            Err(error(error_code::INVALID_REQUEST, "the request names this topic twice"))
        } else if asked > MAX_PARTITIONS_PER_REQUEST {
            Err(error(
                error_code::POLICY_VIOLATION,
                format!("one request may ask for {MAX_PARTITIONS_PER_REQUEST} partitions, not {asked}"),
            ))
        } else {
            create_one(caller, topic, request.validate_only).await
        };
        topics.push(match made {
            Ok((topic_id, partitions, config)) => CreatableTopicResult {
                name: text,
                topic_id,
                num_partitions: partitions,
                replication_factor: 1,
                configs: Some(created_configs(caller, &config)),
                ..Default::default()
            },
            Err((error_code, message)) => CreatableTopicResult {
                name: text,
                error_code,
                error_message: Some(message),
                configs: Some(Vec::new()),
                ..Default::default()
            },
        });
    }
    CreateTopicsResponse { topics, ..Default::default() }
}

fn partitions_asked(topic: &CreatableTopic, default: i32) -> i64 {
    match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => i64::from(default),
        (0, count) => i64::from(count.max(0)),
        (assigned, _) => i64::try_from(assigned).unwrap_or(i64::MAX),
    }
}

fn created_configs(caller: &Caller, config: &TopicConfig) -> Vec<CreatableTopicConfigs> {
    let told = |one: DescribedConfig| CreatableTopicConfigs {
        // What the client has set is told here as it came, as in Kafka.
        value: config.set.get(&one.name).cloned().or(one.value),
        name: one.name,
        read_only: one.read_only,
        config_source: one.source as i8,
        is_sensitive: false,
    };
    caller.peer.broker.config().describe_topic(config).into_iter().map(told).collect()
}

/// Judges in Kafka's order: the name, the settings, where the partitions should lie, how many there are.
async fn create_one(caller: &Caller, mut topic: CreatableTopic, only_check: bool) -> Result<(TopicId, i32, TopicConfig), (i16, String)> {
    let broker = &caller.peer.broker;
    let name = name(&topic.name)?;
    let mut configs = BTreeMap::new();
    let mut null = None;
    for config in std::mem::take(&mut topic.configs) {
        match config.value {
            Some(value) => drop(configs.insert(config.name, value)),
            None => null = Some(config.name),
        }
    }
    let mut new = NewTopic { name, partitions: None, configs };
    match (null, broker.check_topic_name(&new)) {
        (_, Err(why @ (BrokerError::TopicExists(_) | BrokerError::InvalidTopic(_)))) => return Err(told(&why)),
        (Some(null), _) => return Err(error(error_code::INVALID_CONFIG, format!("topic config {null} has no value"))),
        (None, checked) => checked.map_err(|e| told(&e))?,
    }
    new.partitions = if topic.assignments.is_empty() {
        if topic.replication_factor < -1 || topic.replication_factor == 0 {
            return Err(told(&BrokerError::InvalidReplicationFactor(topic.replication_factor)));
        }
        if topic.num_partitions < -1 || topic.num_partitions == 0 {
            return Err(error(error_code::INVALID_PARTITIONS, format!("a topic cannot have {} partitions", topic.num_partitions)));
        }
        if topic.replication_factor > 1 {
            return Err(told(&BrokerError::InvalidReplicationFactor(topic.replication_factor)));
        }
        Some(topic.num_partitions).filter(|n| *n != -1)
    } else {
        assigned(&topic, broker.config().node_id)?
    };
    if only_check {
        let (count, config) = broker.check_topic(&new).map_err(|e| told(&e))?;
        return Ok((TopicId::default(), count, config));
    }
    let made = broker.create_topic(new).await.map_err(|e| told(&e))?;
    Ok((made.id(), made.partition_count(), (*made.config()).clone()))
}

/// How many partitions are assigned by hand.
fn assigned(topic: &CreatableTopic, node: i32) -> Result<Option<i32>, (i16, String)> {
    let invalid = |why: &str| Err(error(error_code::INVALID_REPLICA_ASSIGNMENT, why));
    if topic.replication_factor != -1 || topic.num_partitions != -1 {
        return Err(error(error_code::INVALID_REQUEST, "with replica assignments there is no partition count and no replication factor"));
    }
    let mut numbers = BTreeSet::new();
    for one in &topic.assignments {
        if !numbers.insert(one.partition_index) {
            return invalid(&format!("partition {} is assigned twice", one.partition_index));
        }
        check_replicas(&one.broker_ids, node)?;
    }
    if !numbers.iter().copied().zip(0..).all(|(number, expected)| number == expected) {
        return invalid("partitions are numbered from 0 on without a gap");
    }
    Ok(i32::try_from(numbers.len()).ok())
}

/// Checks brokers that should hold a partition: this node, once.
pub(super) fn check_replicas(brokers: &[i32], node: i32) -> Result<(), (i16, String)> {
    let invalid = |why: String| Err(error(error_code::INVALID_REPLICA_ASSIGNMENT, why));
    match brokers {
        [] => invalid("a partition is held by one broker at least".to_owned()),
        [one] if *one == node => Ok(()),
        all => match all.iter().find(|one| **one != node) {
            Some(other) => invalid(format!("there is no broker {other}: this node, {node}, is the only one. {MORE_NODES}")),
            None => invalid(format!("broker {node} cannot hold a partition twice")),
        },
    }
}

pub(super) async fn delete(caller: &Caller, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let asked: Vec<DeleteTopicState> = if caller.version() >= 6 {
        request.topics
    } else {
        request.topic_names.into_iter().map(|name| DeleteTopicState { name: Some(name), ..Default::default() }).collect()
    };
    let broker = &caller.peer.broker;
    let judged = judge(&asked, |name| broker.topic_named(name).map(|topic| topic.id()));
    let mut responses = Vec::with_capacity(asked.len());
    for (one, judged) in asked.into_iter().zip(judged) {
        let found = match judged {
            Judged::Answered => continue,
            Judged::Refused(response) => {
                responses.push(response);
                continue;
            }
            Judged::Wanted => match &one.name {
                Some(text) if broker.topic_named(text).is_none() => {
                    Err(error(error_code::UNKNOWN_TOPIC_OR_PARTITION, "there is no such topic"))
                }
                Some(text) => name(text).map(|name| (broker.topic(&name).map(|t| t.id()), name)),
                None => match broker.topic_by_id(one.topic_id) {
                    Some(topic) => name(topic.name().as_str()).map(|name| (Some(topic.id()), name)),
                    None => Err(error(error_code::UNKNOWN_TOPIC_ID, "there is no topic of this id")),
                },
            },
        };
        let (name, topic_id, outcome) = match found {
            Ok((id, name)) => {
                let outcome = broker.delete_topic(&name).await.map_err(|e| told(&e));
                (Some(name.as_str().to_owned()), id.unwrap_or_default(), outcome)
            }
            Err(why) => (one.name, one.topic_id, Err(why)),
        };
        responses.push(match outcome {
            Ok(()) => DeletableTopicResult { name, topic_id, ..Default::default() },
            Err((error_code, message)) => DeletableTopicResult { name, topic_id, error_code, error_message: Some(message) },
        });
    }
    DeleteTopicsResponse { responses, ..Default::default() }
}

/// What one line of a DeleteTopics request comes to before anything is deleted.
enum Judged {
    /// The topic is to be looked for and deleted.
    Wanted,
    Refused(DeletableTopicResult),
    /// Another line answers for it.
    Answered,
}

/// A topic may be named by its name or by its id, and once: as in Kafka two lines with one name are answered as one, so
/// are two with one id, and a name whose topic is there by its id too is answered with both.
fn judge(asked: &[DeleteTopicState], id_of: impl Fn(&str) -> Option<TopicId>) -> Vec<Judged> {
    let refused = |name: Option<&String>, topic_id, why: &str| {
        let error_message = Some(why.to_owned());
        Judged::Refused(DeletableTopicResult { name: name.cloned(), topic_id, error_code: error_code::INVALID_REQUEST, error_message })
    };
    let names = || asked.iter().filter(|one| one.topic_id.is_nil()).filter_map(|one| one.name.as_ref());
    let ids = || asked.iter().filter(|one| one.name.is_none() && !one.topic_id.is_nil()).map(|one| one.topic_id);
    let (twice_named, twice_by_id, by_id) = (repeated(names()), repeated(ids()), ids().collect::<BTreeSet<_>>());
    let named: BTreeSet<_> = names().filter(|name| !twice_named.contains(name)).filter_map(|name| id_of(name)).collect();
    let (mut told_names, mut told_ids) = (BTreeSet::new(), BTreeSet::new());
    let one = |one: &DeleteTopicState| match (&one.name, one.topic_id) {
        (Some(name), id) if !id.is_nil() => refused(Some(name), id, "a topic is named or identified, not both"),
        (None, id) if id.is_nil() => refused(None, id, "the topic is neither named nor identified"),
        (Some(name), _) if twice_named.contains(name) && !told_names.insert(name.clone()) => Judged::Answered,
        (Some(name), id) if twice_named.contains(name) => refused(Some(name), id, "the request names this topic twice"),
        (Some(name), _) => match id_of(name).filter(|id| by_id.contains(id)) {
            Some(id) => refused(Some(name), id, "the request names this topic and identifies it too"),
            None => Judged::Wanted,
        },
        (None, id) if twice_by_id.contains(&id) && !told_ids.insert(id) => Judged::Answered,
        (None, id) if twice_by_id.contains(&id) => refused(None, id, "the request identifies this topic twice"),
        (None, id) if named.contains(&id) => Judged::Answered,
        (None, _) => Judged::Wanted,
    };
    asked.iter().map(one).collect()
}

pub(super) async fn create_partitions(caller: &Caller, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let twice = repeated(request.topics.iter().map(|topic| topic.name.clone()));
    let mut answered = BTreeSet::new();
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let text = topic.name.clone();
        if !answered.insert(text.clone()) {
            continue;
        }
        let outcome = if twice.contains(&text) {
            Err(error(error_code::INVALID_REQUEST, "the request names this topic twice"))
        } else {
            widen(caller, topic, request.validate_only).await
        };
        let (error_code, error_message) = match outcome {
            Ok(()) => (error_code::NONE, None),
            Err((code, message)) => (code, Some(message)),
        };
        results.push(CreatePartitionsTopicResult { name: text, error_code, error_message });
    }
    CreatePartitionsResponse { results, ..Default::default() }
}

async fn widen(caller: &Caller, topic: CreatePartitionsTopic, only_check: bool) -> Result<(), (i16, String)> {
    let broker = &caller.peer.broker;
    let Some(there) = broker.topic_named(&topic.name) else {
        return Err(error(error_code::UNKNOWN_TOPIC_OR_PARTITION, "there is no such topic"));
    };
    let name = name(&topic.name)?;
    broker.check_partitions(&name, topic.count).map_err(|e| told(&e))?;
    if let Some(assignments) = &topic.assignments {
        let more = topic.count - there.partition_count();
        if i32::try_from(assignments.len()).ok() != Some(more) {
            let why = format!("there are {more} new partitions and {} assignments", assignments.len());
            return Err(error(error_code::INVALID_REPLICA_ASSIGNMENT, why));
        }
        for one in assignments {
            check_replicas(&one.broker_ids, broker.config().node_id)?;
        }
    }
    if !only_check {
        broker.create_partitions(&name, topic.count).await.map_err(|e| told(&e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::CreatableReplicaAssignment;

    fn topic(assignments: &[(i32, &[i32])]) -> CreatableTopic {
        let assignments = assignments
            .iter()
            .map(|(partition_index, brokers)| CreatableReplicaAssignment {
                partition_index: *partition_index,
                broker_ids: brokers.to_vec(),
            })
            .collect();
        CreatableTopic { num_partitions: -1, replication_factor: -1, assignments, ..Default::default() }
    }

    #[test]
    fn an_assignment_by_hand_gives_every_partition_to_this_node_once() {
        assert_eq!(assigned(&topic(&[(1, &[7]), (0, &[7])]), 7).unwrap(), Some(2));
        for bad in [
            &[(0, &[7][..]), (2, &[7])][..],
            &[(-1, &[7])],
            &[(0, &[7]), (0, &[7])],
            &[(0, &[])],
            &[(0, &[8])],
            &[(0, &[7, 8])],
            &[(0, &[7, 7])],
        ] {
            assert_eq!(assigned(&topic(bad), 7).unwrap_err().0, error_code::INVALID_REPLICA_ASSIGNMENT, "{bad:?}");
        }
        let counted = CreatableTopic { num_partitions: 1, ..topic(&[(0, &[7])]) };
        assert_eq!(assigned(&counted, 7).unwrap_err().0, error_code::INVALID_REQUEST);
        assert!(check_replicas(&[8], 7).unwrap_err().1.contains("Apache Kafka"));
    }

    #[test]
    fn a_topic_is_deleted_by_its_name_or_its_id_and_once() {
        let id = |n: u8| TopicId([n; 16]);
        let by_name = |name: &str| DeleteTopicState { name: Some(name.to_owned()), ..Default::default() };
        let by_id = |n| DeleteTopicState { topic_id: id(n), ..Default::default() };
        let both = |name: &str, n| DeleteTopicState { topic_id: id(n), ..by_name(name) };
        let told = |asked: &[DeleteTopicState]| {
            let one = |judged| match judged {
                Judged::Wanted => "wanted".to_owned(),
                Judged::Answered => "-".to_owned(),
                Judged::Refused(told) => format!("{}/{}", told.name.unwrap_or_default(), told.topic_id.0[0]),
            };
            judge(asked, |name| (name == "a").then(|| id(1))).into_iter().map(one).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&[by_name("a"), by_id(2), by_name("b")]), "wanted wanted wanted");
        assert_eq!(told(&[both("a", 1), DeleteTopicState::default(), by_id(1)]), "a/1 /0 wanted");
        assert_eq!(told(&[by_name("a"), by_name("b"), by_name("a"), by_id(1)]), "a/0 wanted - wanted");
        assert_eq!(told(&[by_id(1), by_id(1), by_id(2)]), "/1 - wanted");
        assert_eq!(told(&[by_id(1), by_name("a")]), "- a/1");
        assert_eq!(told(&[by_id(1), by_name("a"), by_id(1)]), "/1 a/1 -");
    }

    #[test]
    fn what_a_list_says_twice_is_found() {
        assert_eq!(repeated(["a", "b", "a", "c"].into_iter()), BTreeSet::from(["a"]));
    }
}
