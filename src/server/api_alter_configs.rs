//! Settings changed: AlterConfigs, which replaces all of a thing's settings, and IncrementalAlterConfigs, which
//! changes single ones.
//!
//! Always: each resource is judged by itself, and its settings change all together or not at all; errors come in
//! Kafka's order (4.3): what is wrong with the request, then with a value, then whether the topic exists. Called by
//! `dispatch`.

use std::collections::{BTreeMap, BTreeSet};

use super::api_configs::{resource, this_node};
use super::dispatch::Caller;
use crate::broker::{BrokerError, ConfigChange, ConfigEdit, ConfigKind, ConfigOwner, topic_config_spec};
use crate::record::TopicName;
use crate::wire::{
    AlterConfigsRequest, AlterConfigsResourceResponse, AlterConfigsResponse, AlterableConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, IncrementalAlterableConfig, error_code,
};

/// Kafka's numbers for changes.
mod operation {
    pub(super) const SET: i8 = 0;
    pub(super) const DELETE: i8 = 1;
    pub(super) const APPEND: i8 = 2;
    pub(super) const SUBTRACT: i8 = 3;
}

type Refused = (i16, String);

fn refused<T>(code: i16, why: impl Into<String>) -> Result<T, Refused> {
    Err((code, why.into()))
}

/// A resource as both APIs name it, and what to do to it.
struct Wanted {
    resource_type: i8,
    resource_name: String,
    edit: Result<ConfigEdit, Refused>,
}

pub(super) async fn alter(caller: &Caller, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let wanted = request.resources.into_iter().map(|one| Wanted {
        resource_type: one.resource_type,
        resource_name: one.resource_name,
        edit: replacement(one.configs),
    });
    AlterConfigsResponse { responses: alter_all(caller, wanted.collect(), request.validate_only).await, ..Default::default() }
}

pub(super) async fn alter_incrementally(caller: &Caller, request: IncrementalAlterConfigsRequest) -> IncrementalAlterConfigsResponse {
    let wanted = request.resources.into_iter().map(|one| Wanted {
        resource_type: one.resource_type,
        resource_name: one.resource_name,
        edit: changes(one.configs),
    });
    IncrementalAlterConfigsResponse { responses: alter_all(caller, wanted.collect(), request.validate_only).await, ..Default::default() }
}

fn replacement(configs: Vec<AlterableConfig>) -> Result<ConfigEdit, Refused> {
    let mut all = BTreeMap::new();
    for config in configs {
        let Some(value) = config.value else { return refused(error_code::INVALID_REQUEST, format!("{} has no value", config.name)) };
        if all.insert(config.name, value).is_some() {
            return refused(error_code::INVALID_REQUEST, "the request names a setting twice");
        }
    }
    Ok(ConfigEdit::Replace(all))
}

fn changes(configs: Vec<IncrementalAlterableConfig>) -> Result<ConfigEdit, Refused> {
    let names: BTreeSet<&str> = configs.iter().map(|config| config.name.as_str()).collect();
    if names.len() != configs.len() {
        return refused(error_code::INVALID_REQUEST, "the request names a setting twice");
    }
    let mut all = Vec::with_capacity(configs.len());
    for IncrementalAlterableConfig { name, config_operation, value } in configs {
        let change = match (config_operation, value) {
            (operation::DELETE, _) => ConfigChange::Remove,
            (_, None) => return refused(error_code::INVALID_REQUEST, format!("{name} has no value")),
            (operation::SET, Some(value)) => ConfigChange::Set(value),
            (operation::APPEND, Some(words)) => ConfigChange::Append(words),
            (operation::SUBTRACT, Some(words)) => ConfigChange::Subtract(words),
            (other, Some(_)) => return refused(error_code::INVALID_REQUEST, format!("{other} is no operation on {name}")),
        };
        all.push((name, change));
    }
    Ok(ConfigEdit::Change(all))
}

/// Whether words are added only to lists, and taken away from them; in Kafka that is judged before there need be such a topic.
fn check_lists(edit: &ConfigEdit) -> Result<(), Refused> {
    let ConfigEdit::Change(all) = edit else { return Ok(()) };
    let is_list = |name: &str| topic_config_spec(name).is_some_and(|spec| spec.kind == ConfigKind::List);
    let of_words = |change: &ConfigChange| matches!(change, ConfigChange::Append(_) | ConfigChange::Subtract(_));
    match all.iter().find(|(name, change)| of_words(change) && !is_list(name)) {
        None => Ok(()),
        Some((name, _)) => refused(error_code::INVALID_CONFIG, format!("{name} is no list, to which words could be added or taken away")),
    }
}

async fn alter_all(caller: &Caller, wanted: Vec<Wanted>, only_check: bool) -> Vec<AlterConfigsResourceResponse> {
    let mut counts: BTreeMap<(i8, String), usize> = BTreeMap::new();
    for one in &wanted {
        *counts.entry((one.resource_type, one.resource_name.clone())).or_default() += 1;
    }
    let mut responses = Vec::with_capacity(wanted.len());
    for Wanted { resource_type, resource_name, edit } in wanted {
        let outcome = if counts.get(&(resource_type, resource_name.clone())).is_some_and(|n| *n > 1) {
            refused(error_code::INVALID_REQUEST, "the request names this resource twice")
        } else {
            alter_one(caller, resource_type, &resource_name, edit, only_check).await
        };
        let (error_code, error_message) = match outcome {
            Ok(()) => (error_code::NONE, None),
            Err((code, why)) => (code, Some(why)),
        };
        responses.push(AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name });
    }
    responses
}

async fn alter_one(
    caller: &Caller,
    resource_type: i8,
    name: &str,
    edit: Result<ConfigEdit, Refused>,
    only_check: bool,
) -> Result<(), Refused> {
    let broker = &caller.peer.broker;
    let told = |error: BrokerError| (error.code(), error.to_string());
    match resource_type {
        resource::TOPIC => {
            let edit = edit?;
            check_lists(&edit)?;
            if name.is_empty() {
                return refused(
                    error_code::INVALID_REQUEST,
                    "topics have no settings for all of them; the broker's settings are their defaults",
                );
            }
            let topic = TopicName::new(name).map_err(|e| (error_code::INVALID_TOPIC_EXCEPTION, e.to_string()))?;
            if topic.is_internal() {
                return refused(error_code::INVALID_TOPIC_EXCEPTION, "the node's own topics keep their settings");
            }
            broker.alter_topic(&topic, edit, only_check).await.map_err(told)
        }
        resource::BROKER => {
            let edit = edit?;
            let owner = if name.is_empty() {
                ConfigOwner::Cluster
            } else {
                this_node(caller, name)?;
                ConfigOwner::Broker
            };
            let outcome = broker.alter_configs(owner, edit, only_check).await;
            outcome.map_err(|error| match error {
                // What is wrong with a broker's setting is the request's fault, in Kafka's words.
                BrokerError::InvalidConfig(why) => (error_code::INVALID_REQUEST, why),
                error => told(error),
            })
        }
        resource::GROUP => {
            let edit = edit?;
            if name.is_empty() {
                return refused(
                    error_code::INVALID_REQUEST,
                    "groups have no settings for all of them; the broker's settings are their defaults",
                );
            }
            broker.alter_configs(ConfigOwner::Group(name.to_owned()), edit, only_check).await.map_err(told)
        }
        resource::BROKER_LOGGER => {
            this_node(caller, name)?;
            match edit? {
                ConfigEdit::Replace(all) if all.is_empty() => Ok(()),
                ConfigEdit::Change(all) if all.is_empty() => Ok(()),
                _ => refused(error_code::INVALID_CONFIG, "this node has no loggers that clients could set"),
            }
        }
        resource::CLIENT_METRICS => refused(error_code::INVALID_REQUEST, "this node takes no metrics from its clients"),
        other => refused(error_code::INVALID_REQUEST, format!("resources of type {other} have no settings")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &str, config_operation: i8, value: Option<&str>) -> IncrementalAlterableConfig {
        IncrementalAlterableConfig { name: name.to_owned(), config_operation, value: value.map(str::to_owned) }
    }

    #[test]
    fn words_are_added_to_lists_only() {
        let code = |name: &str, operation: i8| {
            let edit = changes(vec![change(name, operation, Some("delete"))]).unwrap();
            check_lists(&edit).map_or_else(|refused| refused.0, |()| error_code::NONE)
        };
        assert_eq!(code("cleanup.policy", operation::APPEND), error_code::NONE);
        assert_eq!(code("segment.bytes", operation::SET), error_code::NONE);
        for operation in [operation::APPEND, operation::SUBTRACT] {
            assert_eq!(code("segment.bytes", operation), error_code::INVALID_CONFIG);
            assert_eq!(code("no.such.setting", operation), error_code::INVALID_CONFIG);
        }
    }

    #[test]
    fn a_change_that_makes_no_sense_is_the_requests_fault() {
        let good = changes(vec![change("a", 0, Some("1")), change("b", 1, None), change("c", 2, Some("x")), change("d", 3, Some("y"))]);
        let ConfigEdit::Change(all) = good.unwrap() else { panic!("single settings change") };
        assert_eq!(all[1], ("b".to_owned(), ConfigChange::Remove));
        for bad in [
            vec![change("a", 0, None)],
            vec![change("a", 2, None)],
            vec![change("a", 9, Some("1"))],
            vec![change("a", 0, Some("1")), change("a", 0, Some("2"))],
        ] {
            assert_eq!(changes(bad).unwrap_err().0, error_code::INVALID_REQUEST);
        }
        let twice = ["1", "2"].map(|value| AlterableConfig { name: "a".to_owned(), value: Some(value.to_owned()) });
        assert_eq!(replacement(twice.to_vec()).unwrap_err().0, error_code::INVALID_REQUEST);
        assert_eq!(replacement(vec![AlterableConfig::default()]).unwrap_err().0, error_code::INVALID_REQUEST);
    }
}
