//! Topics made, removed and widened: CreateTopics, DeleteTopics, CreatePartitions.

use std::collections::{BTreeMap, BTreeSet};

use super::api_configs;
use super::dispatch::Caller;
use crate::broker::{BrokerError, NewTopic, TopicConfig};
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
    if name.is_internal() {
        return Err(error(error_code::INVALID_TOPIC_EXCEPTION, "names that begin with two underscores are the node's own"));
    }
    Ok(name)
}

pub(super) async fn create(caller: &Caller, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for topic in &request.topics {
        *counts.entry(topic.name.clone()).or_default() += 1;
    }
    let mut topics = Vec::with_capacity(counts.len());
    let mut answered = BTreeSet::new();
    for topic in request.topics {
        let text = topic.name.clone();
        if !answered.insert(text.clone()) {
            continue;
        }
        let made = if counts.get(&text).is_some_and(|n| *n > 1) {
            Err(error(error_code::INVALID_REQUEST, "the request names this topic twice"))
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

fn created_configs(caller: &Caller, config: &TopicConfig) -> Vec<CreatableTopicConfigs> {
    api_configs::topic_values(caller.peer.broker.config(), config)
        .into_iter()
        .map(|(spec, value, source)| CreatableTopicConfigs {
            name: spec.name.to_owned(),
            value: Some(value),
            read_only: false,
            config_source: source as i8,
            is_sensitive: false,
        })
        .collect()
}

async fn create_one(caller: &Caller, topic: CreatableTopic, only_check: bool) -> Result<(TopicId, i32, TopicConfig), (i16, String)> {
    let broker = &caller.peer.broker;
    let node = broker.config().node_id;
    let name = name(&topic.name)?;
    let partitions = if topic.assignments.is_empty() {
        if !matches!(topic.replication_factor, -1 | 1) {
            return Err(told(&BrokerError::InvalidReplicationFactor(topic.replication_factor)));
        }
        Some(topic.num_partitions).filter(|n| *n != -1)
    } else {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            return Err(error(
                error_code::INVALID_REQUEST,
                "with replica assignments there is no partition count and no replication factor",
            ));
        }
        let numbers: BTreeSet<i32> = topic.assignments.iter().map(|a| a.partition_index).collect();
        let count = topic.assignments.len();
        if numbers.len() != count || numbers.first() != Some(&0) || numbers.last().copied() != i32::try_from(count - 1).ok() {
            return Err(error(error_code::INVALID_REPLICA_ASSIGNMENT, "partitions are numbered from 0 on without a gap"));
        }
        if topic.assignments.iter().any(|a| a.broker_ids != [node]) {
            return Err(error(error_code::INVALID_REPLICA_ASSIGNMENT, format!("the only broker is {node}")));
        }
        i32::try_from(count).ok()
    };
    let mut configs = BTreeMap::new();
    for config in topic.configs {
        // Null is the default.
        if let Some(value) = config.value {
            configs.insert(config.name, value);
        }
    }
    let new = NewTopic { name, partitions, configs };
    if only_check {
        let (count, config) = broker.check_topic(&new).map_err(|e| told(&e))?;
        return Ok((TopicId::default(), count, config));
    }
    let made = broker.create_topic(new).await.map_err(|e| told(&e))?;
    Ok((made.id(), made.partition_count(), (*made.config()).clone()))
}

pub(super) async fn delete(caller: &Caller, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let asked: Vec<DeleteTopicState> = if caller.version() >= 6 {
        request.topics
    } else {
        request.topic_names.into_iter().map(|name| DeleteTopicState { name: Some(name), ..Default::default() }).collect()
    };
    let mut responses = Vec::with_capacity(asked.len());
    for one in asked {
        let broker = &caller.peer.broker;
        let found = match &one.name {
            Some(text) if TopicName::new(text).is_err() => Err(error(error_code::UNKNOWN_TOPIC_OR_PARTITION, "there is no such topic")),
            Some(_) if !one.topic_id.is_nil() => Err(error(error_code::INVALID_REQUEST, "a topic is named or identified, not both")),
            Some(text) => name(text).map(|name| (broker.topic(&name).map(|t| t.id()), name)),
            None => match broker.topic_by_id(one.topic_id) {
                Some(topic) => name(topic.name().as_str()).map(|name| (Some(topic.id()), name)),
                None => Err(error(error_code::UNKNOWN_TOPIC_ID, "there is no topic of this id")),
            },
        };
        let text = one.name.clone();
        let (name, topic_id, outcome) = match found {
            Ok((id, name)) => {
                let outcome = broker.delete_topic(&name).await.map_err(|e| told(&e));
                (Some(name.as_str().to_owned()), id.unwrap_or_default(), outcome)
            }
            Err(why) => (text, one.topic_id, Err(why)),
        };
        responses.push(match outcome {
            Ok(()) => DeletableTopicResult { name, topic_id, ..Default::default() },
            Err((error_code, message)) => DeletableTopicResult { name, topic_id, error_code, error_message: Some(message) },
        });
    }
    DeleteTopicsResponse { responses, ..Default::default() }
}

pub(super) async fn create_partitions(caller: &Caller, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for topic in &request.topics {
        *counts.entry(topic.name.clone()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(counts.len());
    for topic in request.topics {
        let text = topic.name.clone();
        match counts.insert(text.clone(), 0) {
            // Answered already.
            Some(0) => continue,
            Some(1) => {}
            _ => {
                let error_message = Some("the request names this topic twice".to_owned());
                results.push(CreatePartitionsTopicResult { name: text, error_code: error_code::INVALID_REQUEST, error_message });
                continue;
            }
        }
        let (error_code, error_message) = match widen(caller, topic, request.validate_only).await {
            Ok(()) => (error_code::NONE, None),
            Err((code, message)) => (code, Some(message)),
        };
        results.push(CreatePartitionsTopicResult { name: text, error_code, error_message });
    }
    CreatePartitionsResponse { results, ..Default::default() }
}

async fn widen(caller: &Caller, topic: CreatePartitionsTopic, only_check: bool) -> Result<(), (i16, String)> {
    let broker = &caller.peer.broker;
    let node = broker.config().node_id;
    let name = name(&topic.name)?;
    broker.check_partitions(&name, topic.count).map_err(|e| told(&e))?;
    if let Some(assignments) = &topic.assignments {
        let has = broker.topic(&name).map_or(0, |t| t.partition_count());
        if i32::try_from(assignments.len()).ok() != Some(topic.count - has) || assignments.iter().any(|a| a.broker_ids != [node]) {
            return Err(error(error_code::INVALID_REPLICA_ASSIGNMENT, format!("one assignment for each new partition, to broker {node}")));
        }
    }
    if !only_check {
        broker.create_partitions(&name, topic.count).await.map_err(|e| told(&e))?;
    }
    Ok(())
}
