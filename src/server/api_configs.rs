//! DescribeConfigs: the settings of topics and of the broker.

use super::dispatch::Caller;
use crate::broker::{BrokerConfig, TOPIC_CONFIGS, TopicConfig, TopicConfigSpec};
use crate::record::TopicName;
use crate::wire::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
    DescribeConfigsSynonym, error_code,
};

/// Kafka's numbers for kinds of resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Where a value comes from, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub(super) enum Source {
    /// Set on the topic.
    Topic = 1,
    /// Set for the broker when it was started.
    Broker = 4,
    /// Nobody set it.
    Default = 5,
}

/// Every setting of a topic, its value, and where that comes from.
pub(super) fn topic_values(broker: &BrokerConfig, config: &TopicConfig) -> Vec<(&'static TopicConfigSpec, String, Source)> {
    TOPIC_CONFIGS
        .iter()
        .map(|spec| match config.set.get(spec.name) {
            Some(value) => (spec, value.clone(), Source::Topic),
            None => {
                let (value, source) = default_of(broker, spec);
                (spec, value, source)
            }
        })
        .collect()
}

fn default_of(broker: &BrokerConfig, spec: &TopicConfigSpec) -> (String, Source) {
    let value = broker.topic_default(spec.name).unwrap_or_default();
    let source = if value == spec.default { Source::Default } else { Source::Broker };
    (value, source)
}

pub(super) fn describe(caller: &Caller, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let (synonyms, documentation) = (request.include_synonyms, request.include_documentation);
    let results = request
        .resources
        .into_iter()
        .map(|resource| {
            let (resource_type, resource_name) = (resource.resource_type, resource.resource_name.clone());
            match settings(caller, resource) {
                Ok(mut configs) => {
                    for config in &mut configs {
                        if !synonyms {
                            config.synonyms.clear();
                        }
                        if !documentation {
                            config.documentation = None;
                        }
                    }
                    DescribeConfigsResult { resource_type, resource_name, configs, ..Default::default() }
                }
                Err((error_code, why)) => {
                    DescribeConfigsResult { error_code, error_message: Some(why), resource_type, resource_name, ..Default::default() }
                }
            }
        })
        .collect();
    DescribeConfigsResponse { results, ..Default::default() }
}

fn settings(caller: &Caller, resource: DescribeConfigsResource) -> Result<Vec<DescribeConfigsResourceResult>, (i16, String)> {
    let broker = &caller.peer.broker;
    let name = resource.resource_name;
    let mut configs = match resource.resource_type {
        TOPIC => {
            let topic = TopicName::new(&name).map_err(|e| (error_code::INVALID_TOPIC_EXCEPTION, e.to_string()))?;
            let topic =
                broker.topic(&topic).ok_or_else(|| (error_code::UNKNOWN_TOPIC_OR_PARTITION, format!("there is no topic \"{name}\"")))?;
            topic_settings(broker.config(), &topic.config())
        }
        BROKER => {
            let node = broker.config().node_id;
            if !name.is_empty() && name != node.to_string() {
                return Err((error_code::INVALID_REQUEST, format!("there is no broker \"{name}\"; this is broker {node}")));
            }
            let mut configs = broker_settings(broker.config());
            let listener = format!("PLAINTEXT://{}:{}", caller.peer.host(), caller.peer.port());
            configs.extend(["advertised.listeners", "listeners"].map(|name| listener_setting(name, &listener)));
            configs
        }
        other => return Err((error_code::INVALID_REQUEST, format!("resources of type {other} have no settings here"))),
    };
    if let Some(wanted) = resource.configuration_keys {
        configs.retain(|config| wanted.contains(&config.name));
    }
    Ok(configs)
}

fn topic_settings(broker: &BrokerConfig, config: &TopicConfig) -> Vec<DescribeConfigsResourceResult> {
    topic_values(broker, config)
        .into_iter()
        .map(|(spec, value, source)| {
            let synonym = |name: &str, value: &str, source| DescribeConfigsSynonym {
                name: name.to_owned(),
                value: Some(value.to_owned()),
                source: source as i8,
            };
            let mut synonyms = Vec::new();
            if source == Source::Topic {
                synonyms.push(synonym(spec.name, &value, Source::Topic));
            }
            let (ours, its_source) = default_of(broker, spec);
            if its_source == Source::Broker {
                synonyms.push(synonym(spec.broker_name, &ours, Source::Broker));
            }
            synonyms.push(synonym(spec.broker_name, spec.default, Source::Default));
            DescribeConfigsResourceResult {
                name: spec.name.to_owned(),
                value: Some(value),
                read_only: false,
                config_source: source as i8,
                is_sensitive: false,
                synonyms,
                config_type: spec.kind.code(),
                documentation: Some(spec.doc.to_owned()),
            }
        })
        .collect()
}

/// The listener a client has come to is the one it is told.
fn listener_setting(name: &str, value: &str) -> DescribeConfigsResourceResult {
    const TEXT: i8 = 2;
    DescribeConfigsResourceResult {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        read_only: true,
        config_source: Source::Broker as i8,
        is_sensitive: false,
        synonyms: vec![DescribeConfigsSynonym { name: name.to_owned(), value: Some(value.to_owned()), source: Source::Broker as i8 }],
        config_type: TEXT,
        documentation: Some("Where clients connect to: the address they dialled.".to_owned()),
    }
}

fn broker_settings(config: &BrokerConfig) -> Vec<DescribeConfigsResourceResult> {
    let defaults = BrokerConfig::default().described();
    config
        .described()
        .into_iter()
        .map(|one| {
            let default = defaults.iter().find(|d| d.name == one.name).map(|d| d.value.clone()).unwrap_or_default();
            let source = if default == one.value { Source::Default } else { Source::Broker };
            let mut synonyms = vec![DescribeConfigsSynonym { name: one.name.clone(), value: Some(default), source: Source::Default as i8 }];
            if source == Source::Broker {
                let ours = DescribeConfigsSynonym { name: one.name.clone(), value: Some(one.value.clone()), source: Source::Broker as i8 };
                synonyms.insert(0, ours);
            }
            DescribeConfigsResourceResult {
                name: one.name,
                value: Some(one.value),
                read_only: true,
                config_source: source as i8,
                is_sensitive: false,
                synonyms,
                config_type: one.kind.code(),
                documentation: Some(one.doc.to_owned()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_topics_settings_are_all_told_with_where_they_come_from() {
        let broker = BrokerConfig { segment_bytes: 1 << 20, ..BrokerConfig::default() };
        let set = BTreeMap::from([("retention.ms".to_owned(), "1000".to_owned())]);
        let all = topic_settings(&broker, &TopicConfig::read(set, &broker).unwrap());
        assert_eq!(all.len(), TOPIC_CONFIGS.len());
        let told = |name: &str| {
            let one = all.iter().find(|c| c.name == name).unwrap();
            let synonyms: Vec<_> = one.synonyms.iter().map(|s| (s.name.as_str(), s.value.as_deref().unwrap(), s.source)).collect();
            (one.value.clone().unwrap(), one.config_source, synonyms)
        };
        assert_eq!(told("retention.ms"), ("1000".to_owned(), 1, vec![("retention.ms", "1000", 1), ("log.retention.ms", "604800000", 5)]));
        let segment = vec![("log.segment.bytes", "1048576", 4), ("log.segment.bytes", "1073741824", 5)];
        assert_eq!(told("segment.bytes"), ("1048576".to_owned(), 4, segment));
        assert_eq!(told("preallocate").1, 5);
    }
}
