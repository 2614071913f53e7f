//! Settings read: DescribeConfigs and ListConfigResources.
//!
//! Always: every setting there is of a topic, the broker or a group is told, with its default, its source and what
//! would hold if that were not set. Called by `dispatch`.

use super::dispatch::Caller;
use crate::broker::{ConfigKind, ConfigSource, ConfigSynonym, DescribedConfig};
use crate::record::TopicName;
use crate::wire::{
    ConfigResource, DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym, ListConfigResourcesRequest, ListConfigResourcesResponse, error_code,
};

/// Kafka's numbers for kinds of resources.
pub(super) mod resource {
    pub(in crate::server) const TOPIC: i8 = 2;
    pub(in crate::server) const BROKER: i8 = 4;
    pub(in crate::server) const BROKER_LOGGER: i8 = 8;
    pub(in crate::server) const CLIENT_METRICS: i8 = 16;
    pub(in crate::server) const GROUP: i8 = 32;
    pub(in crate::server) const ALL: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
}

pub(super) fn describe(caller: &Caller, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let (synonyms, documentation) = (request.include_synonyms, request.include_documentation);
    // One resource of a kind there is not, and Kafka answers for none of them.
    if let Some(strange) = request.resources.iter().map(|resource| resource.resource_type).find(|kind| !resource::ALL.contains(kind)) {
        let refused = |one: DescribeConfigsResource| DescribeConfigsResult {
            error_code: error_code::INVALID_REQUEST,
            error_message: Some(format!("resources of type {strange} have no settings")),
            resource_type: one.resource_type,
            resource_name: one.resource_name,
            ..Default::default()
        };
        return DescribeConfigsResponse { results: request.resources.into_iter().map(refused).collect(), ..Default::default() };
    }
    let results = request
        .resources
        .into_iter()
        .map(|resource| {
            let (resource_type, resource_name) = (resource.resource_type, resource.resource_name.clone());
            match settings(caller, resource) {
                Ok(configs) => {
                    let configs = configs.into_iter().map(|one| told(one, synonyms, documentation)).collect();
                    // Kafka says nothing in an empty message, not in none.
                    DescribeConfigsResult {
                        error_message: Some(String::new()),
                        resource_type,
                        resource_name,
                        configs,
                        ..Default::default()
                    }
                }
                Err((error_code, why)) => {
                    DescribeConfigsResult { error_code, error_message: Some(why), resource_type, resource_name, ..Default::default() }
                }
            }
        })
        .collect();
    DescribeConfigsResponse { results, ..Default::default() }
}

fn told(one: DescribedConfig, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    let synonym = |s: ConfigSynonym| DescribeConfigsSynonym { name: s.name, value: Some(s.value), source: s.source as i8 };
    DescribeConfigsResourceResult {
        name: one.name,
        value: one.value,
        read_only: one.read_only,
        config_source: one.source as i8,
        is_sensitive: false,
        synonyms: if synonyms { one.synonyms.into_iter().map(synonym).collect() } else { Vec::new() },
        config_type: one.kind.code(),
        documentation: documentation.then(|| one.doc.to_owned()),
    }
}

fn settings(caller: &Caller, resource: DescribeConfigsResource) -> Result<Vec<DescribedConfig>, (i16, String)> {
    let broker = &caller.peer.broker;
    let config = broker.config();
    let name = resource.resource_name;
    let mut configs = match resource.resource_type {
        resource::TOPIC => {
            let topic = TopicName::new(&name).map_err(|e| (error_code::INVALID_TOPIC_EXCEPTION, e.to_string()))?;
            let topic =
                broker.topic(&topic).ok_or_else(|| (error_code::UNKNOWN_TOPIC_OR_PARTITION, format!("there is no topic \"{name}\"")))?;
            config.describe_topic(&topic.config())
        }
        resource::BROKER if name.is_empty() => config.describe_cluster(),
        resource::BROKER => {
            this_node(caller, &name)?;
            let mut configs = config.describe_broker();
            let listener = format!("PLAINTEXT://{}:{}", caller.peer.host(), caller.peer.port());
            configs.extend(["advertised.listeners", "listeners"].map(|name| listener_setting(name, &listener)));
            configs
        }
        resource::BROKER_LOGGER => {
            this_node(caller, &name)?;
            Vec::new()
        }
        resource::CLIENT_METRICS if !name.is_empty() => Vec::new(),
        resource::GROUP if !name.is_empty() => broker.describe_group_configs(&name),
        resource::CLIENT_METRICS | resource::GROUP => return Err((error_code::INVALID_REQUEST, "the resource has no name".to_owned())),
        other => return Err((error_code::INVALID_REQUEST, format!("resources of type {other} have no settings"))),
    };
    // No names at all means all of them, as null does.
    if let Some(wanted) = resource.configuration_keys.filter(|wanted| !wanted.is_empty()) {
        configs.retain(|config| wanted.contains(&config.name));
    }
    Ok(configs)
}

/// Checks that a text is this node's number.
pub(super) fn this_node(caller: &Caller, name: &str) -> Result<(), (i16, String)> {
    let node = caller.peer.broker.config().node_id;
    match name.parse::<i32>() {
        Ok(number) if number == node => Ok(()),
        Ok(_) => Err((error_code::INVALID_REQUEST, format!("there is no broker {name}; this is broker {node}"))),
        Err(_) => Err((error_code::INVALID_REQUEST, format!("a broker is named by its number, and \"{name}\" is none"))),
    }
}

/// The listener a client has come to is the one it is told.
fn listener_setting(name: &str, value: &str) -> DescribedConfig {
    DescribedConfig {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        source: ConfigSource::Start,
        read_only: true,
        kind: ConfigKind::List,
        doc: "Where clients connect to: the address they dialled.",
        synonyms: vec![ConfigSynonym { name: name.to_owned(), value: value.to_owned(), source: ConfigSource::Start }],
    }
}

/// What has settings that are its own or could have.
pub(super) fn list(caller: &Caller, request: &ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    let broker = &caller.peer.broker;
    let mut wanted: Vec<i8> = match caller.version() {
        0 => vec![resource::CLIENT_METRICS],
        _ if request.resource_types.is_empty() => resource::ALL.to_vec(),
        _ => request.resource_types.clone(),
    };
    if wanted.iter().any(|one| !resource::ALL.contains(one)) {
        return ListConfigResourcesResponse { error_code: error_code::UNSUPPORTED_VERSION, ..Default::default() };
    }
    wanted.sort_unstable();
    wanted.dedup();
    let names = |of: i8| match of {
        resource::TOPIC => broker.topics().iter().map(|topic| topic.name().as_str().to_owned()).collect(),
        resource::BROKER | resource::BROKER_LOGGER => vec![broker.config().node_id.to_string()],
        resource::GROUP => broker.groups_with_configs(),
        _ => Vec::new(),
    };
    let config_resources = wanted
        .into_iter()
        .flat_map(|of| names(of).into_iter().map(move |resource_name| ConfigResource { resource_name, resource_type: of }))
        .collect();
    ListConfigResourcesResponse { config_resources, ..Default::default() }
}
