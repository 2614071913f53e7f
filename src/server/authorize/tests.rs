//! The whole table of APIs, asked by someone who has not said who it is, by someone without rights, and by someone
//! with some: what each is told, API by API.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::walk::request;
use crate::broker::security::{Acl, Operation, Pattern, Permission, ResourceType};
use crate::broker::{Broker, BrokerConfig, NewTopic, TestDisk};
use crate::record::{TopicId, TopicName};
use crate::server::{Limits, ListenerTerms, Mechanism, SaslTerms, Server};
use crate::wire::*;

struct Door {
    server: Server,
    broker: Arc<Broker>,
    stop: CancellationToken,
}

impl Door {
    /// A listener that asks who a client is, over a broker with topics `a` and `b` and user mallory.
    async fn open() -> Self {
        let mut config = BrokerConfig::default();
        config.security.allow_everyone = false;
        let broker = TestDisk::default().broker_with(config).await;
        for name in ["a", "b"] {
            broker.create_topic(NewTopic::named(TopicName::new(name).unwrap())).await.unwrap();
        }
        broker.security().introduce("mallory", "m").await.unwrap();
        let sasl = SaslTerms { mechanisms: Mechanism::ALL.to_vec(), max_reauth: None };
        let terms = ListenerTerms { sasl: Some(sasl), ..ListenerTerms::plaintext() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let server = Server::open(vec![(listener, terms)], &broker, &stop, Limits::default());
        Self { server, broker, stop }
    }

    async fn allow(&self, rules: &[(ResourceType, &str, Operation)]) {
        let rule = |(resource, name, operation): &(ResourceType, &str, Operation)| Acl {
            resource: *resource,
            pattern: Pattern::Literal,
            name: (*name).to_owned(),
            principal: "User:mallory".to_owned(),
            host: "*".to_owned(),
            operation: *operation,
            permission: Permission::Allow,
        };
        self.broker.security().create_acls(rules.iter().map(rule).collect()).await.unwrap();
    }

    async fn stranger(&self) -> Client {
        Client(TcpStream::connect(self.server.address()).await.unwrap())
    }

    async fn mallory(&self) -> Client {
        let mut client = self.stranger().await;
        client.ask(1, SaslHandshakeRequest { mechanism: "PLAIN".to_owned() }).await.unwrap();
        let told = client.ask(2, SaslAuthenticateRequest { auth_bytes: Bytes::from_static(b"\0mallory\0m") }).await.unwrap();
        let Response::SaslAuthenticate(told) = told else { panic!("{told:?}") };
        assert_eq!(told.error_code, error_code::NONE);
        client
    }

    async fn close(self) {
        self.stop.cancel();
        self.server.stopped().await;
        self.broker.close().await.unwrap();
    }
}

struct Client(TcpStream);

impl Client {
    /// The answer, or nothing where the connection was closed in place of one.
    async fn ask(&mut self, version: i16, request: impl Into<Request>) -> Option<Response> {
        let request = request.into();
        let key = request.key();
        let header = RequestHeader { api_key: key.code(), api_version: version, correlation_id: 1, client_id: Some("test".to_owned()) };
        self.0.write_all(&encode_request(&header, &request)).await.ok()?;
        let length = self.0.read_i32().await.ok()?;
        let mut frame = BytesMut::zeroed(usize::try_from(length).unwrap());
        self.0.read_exact(&mut frame).await.ok()?;
        Some(decode_response(key, version, frame.freeze()).unwrap().1)
    }
}

fn version(api: &Api) -> i16 {
    // From here on topics go by ids, which a client learns only where it may see them.
    const IDS: [(ApiKey, i16); 4] = [(ApiKey::Produce, 13), (ApiKey::Fetch, 13), (ApiKey::OffsetCommit, 10), (ApiKey::OffsetFetch, 10)];
    IDS.iter().find(|(key, _)| *key == api.key).map_or(api.max, |(_, ids)| api.max.min(ids - 1))
}

/// Every error code in a response, in order, and the names that come with it.
fn codes(response: &Response) -> String {
    let debug = format!("{response:?}");
    let mut out = String::new();
    for part in debug.split("error_code: ").skip(1) {
        let code = part.split([',', ' ', '}']).next().unwrap_or_default();
        let _ = write!(out, "{}{code}", if out.is_empty() { "" } else { " " });
    }
    out
}

#[tokio::test]
async fn who_has_not_said_who_it_is_is_answered_nothing() {
    let door = Door::open().await;
    door.allow(&[(ResourceType::Topic, "a", Operation::All)]).await;
    for api in APIS {
        let may_ask = matches!(api.key, ApiKey::ApiVersions | ApiKey::SaslHandshake);
        for version in api.min..=api.max {
            let mut client = door.stranger().await;
            let told = client.ask(version, request(api.key, version)).await;
            assert_eq!(told.is_some(), may_ask, "{} {version}", api.name);
        }
        // Nor is it after it has begun to say so.
        let mut client = door.stranger().await;
        client.ask(1, SaslHandshakeRequest { mechanism: "SCRAM-SHA-256".to_owned() }).await.unwrap();
        let told = client.ask(version(api), request(api.key, version(api))).await;
        let failed = matches!(&told, Some(Response::SaslAuthenticate(r)) if r.error_code == error_code::SASL_AUTHENTICATION_FAILED);
        assert!(told.is_none() || failed, "{}: {told:?}", api.name);
    }
    door.close().await;
}

/// What a user without a right is told by each API: the codes of Apache Kafka 4.3.1, asked the same.
#[rustfmt::skip]
const WITHOUT_RIGHTS: &[(ApiKey, &str)] = &[
    (ApiKey::Produce, "29 29"), (ApiKey::Fetch, "0 29 29"), (ApiKey::ListOffsets, "29 29"), (ApiKey::Metadata, "29 29 0"),
    (ApiKey::OffsetCommit, "30 30"), (ApiKey::OffsetFetch, "0 30 30"), (ApiKey::FindCoordinator, "0 30 30"), (ApiKey::JoinGroup, "30"),
    (ApiKey::Heartbeat, "30"), (ApiKey::LeaveGroup, "30"), (ApiKey::SyncGroup, "23"), (ApiKey::DescribeGroups, "30 30"),
    (ApiKey::ListGroups, "0"), (ApiKey::SaslHandshake, "34"), (ApiKey::ApiVersions, "0"), (ApiKey::CreateTopics, "29 0"),
    (ApiKey::DeleteTopics, "29 29"), (ApiKey::DeleteRecords, "29 29"), (ApiKey::InitProducerId, "31"),
    (ApiKey::OffsetForLeaderEpoch, "29 29"), (ApiKey::AddPartitionsToTxn, "0 53 53"), (ApiKey::AddOffsetsToTxn, "53"),
    (ApiKey::EndTxn, "53"), (ApiKey::WriteTxnMarkers, "31 31"), (ApiKey::TxnOffsetCommit, "53 53"), (ApiKey::DescribeAcls, "31"),
    (ApiKey::CreateAcls, "31"), (ApiKey::DeleteAcls, "31"), (ApiKey::DescribeConfigs, "29 31 30"), (ApiKey::AlterConfigs, "29 31 30"),
    (ApiKey::AlterReplicaLogDirs, "31 31"), (ApiKey::DescribeLogDirs, "31"), (ApiKey::SaslAuthenticate, "34"),
    (ApiKey::CreatePartitions, "29 29"), (ApiKey::DeleteGroups, "30 30"), (ApiKey::ElectLeaders, "31 31 31"),
    (ApiKey::IncrementalAlterConfigs, "29 31 30"), (ApiKey::AlterPartitionReassignments, "31 31 31"),
    (ApiKey::ListPartitionReassignments, "31"), (ApiKey::OffsetDelete, "30"), (ApiKey::DescribeClientQuotas, "31"),
    (ApiKey::AlterClientQuotas, "31"), (ApiKey::DescribeUserScramCredentials, "31"), (ApiKey::AlterUserScramCredentials, "31"),
    (ApiKey::DescribeCluster, "0"), (ApiKey::DescribeQuorum, "31"), (ApiKey::DescribeProducers, "29 29"), (ApiKey::DescribeTransactions, "53 53"),
    (ApiKey::ListTransactions, "0"), (ApiKey::ConsumerGroupHeartbeat, "30"), (ApiKey::ConsumerGroupDescribe, "30 30"),
    (ApiKey::ListConfigResources, "31"), (ApiKey::DescribeTopicPartitions, "29 29"),
];

#[tokio::test]
async fn who_has_no_right_is_told_so_by_every_api_with_kafkas_code() {
    let door = Door::open().await;
    let mut client = door.mallory().await;
    for api in APIS {
        let told = client.ask(version(api), request(api.key, version(api))).await.expect("an answer");
        let (_, want) = WITHOUT_RIGHTS.iter().find(|(key, _)| *key == api.key).unwrap_or_else(|| panic!("{} has no line", api.name));
        assert_eq!(codes(&told), *want, "{}: {told:?}", api.name);
        if let Response::Metadata(MetadataResponse { topics, .. }) = told {
            assert!(topics.iter().all(|topic| topic.partitions.is_empty() && topic.topic_id.is_nil()));
        }
    }
    // Lists leave out what may not be seen.
    let all = MetadataRequest { topics: None, ..Default::default() };
    let Some(Response::Metadata(told)) = client.ask(12, all).await else { panic!() };
    assert_eq!(told.topics, []);
    let Some(Response::DescribeTopicPartitions(told)) = client.ask(0, DescribeTopicPartitionsRequest::default()).await else { panic!() };
    assert_eq!(told.topics, []);
    door.close().await;
}

#[tokio::test]
async fn of_two_topics_the_one_that_is_allowed_is_served_and_the_other_is_not() {
    let door = Door::open().await;
    door.allow(&[
        (ResourceType::Topic, "a", Operation::Read),
        (ResourceType::Topic, "a", Operation::Write),
        (ResourceType::Group, "a", Operation::Read),
        (ResourceType::TransactionalId, "a", Operation::Write),
        (ResourceType::Topic, "c", Operation::Create),
    ])
    .await;
    let mut client = door.mallory().await;
    let mut told = async |key: ApiKey| {
        let api = key.api();
        codes(&client.ask(version(api), request(key, version(api))).await.expect("an answer"))
    };
    for (key, want) in [
        (ApiKey::Produce, "87 29"),
        (ApiKey::Fetch, "0 0 29"),
        (ApiKey::ListOffsets, "0 29"),
        (ApiKey::OffsetCommit, "0 29"),
        (ApiKey::OffsetFetch, "0 0 29 0 30"),
        (ApiKey::FindCoordinator, "0 0 30"),
        (ApiKey::OffsetForLeaderEpoch, "0 29"),
        // Read and write imply that a topic is seen, and nothing else.
        (ApiKey::DeleteRecords, "29 29"),
        (ApiKey::DeleteTopics, "29 29"),
        (ApiKey::CreateTopics, "0 29"),
        (ApiKey::InitProducerId, "0"),
        (ApiKey::AddPartitionsToTxn, "0 55 29"),
        (ApiKey::AddOffsetsToTxn, "30"),
        (ApiKey::TxnOffsetCommit, "30 30"),
        (ApiKey::DescribeGroups, "0 30"),
        (ApiKey::DescribeProducers, "0 29"),
        (ApiKey::DescribeTransactions, "105 53"),
    ] {
        assert_eq!(told(key).await, want, "{}", key.name());
    }
    // What no topic can be called is told to be such to whoever asks.
    let topics = ["b", "sl/ash"].map(|name| DescribeProducersTopicRequest { name: name.to_owned(), partition_indexes: vec![0] });
    let Some(Response::DescribeProducers(told)) = client.ask(0, DescribeProducersRequest { topics: topics.into() }).await else { panic!() };
    let told: Vec<_> = told.topics.iter().map(|topic| (topic.name.as_str(), topic.partitions[0].error_code)).collect();
    assert_eq!(told, [("sl/ash", 17), ("b", 29)]);
    let Some(Response::Metadata(told)) = client.ask(10, request(ApiKey::Metadata, 10)).await else { panic!() };
    let seen: Vec<_> = told.topics.iter().map(|topic| (topic.name.as_deref().unwrap(), topic.error_code)).collect();
    assert_eq!(seen, [("a", 0), ("b", 29)]);
    let bits = |operations: &[Operation]| operations.iter().fold(0, |bits, operation| bits | 1 << operation.code());
    assert_eq!(told.topics[0].topic_authorized_operations, bits(&[Operation::Read, Operation::Write, Operation::Describe]));
    assert_eq!(told.cluster_authorized_operations, 0);
    // Beside what a version cannot ask for, nothing is told, and of no topic whether it may be seen.
    let topic = |name: &str, topic_id| MetadataRequestTopic { name: Some(name.to_owned()), topic_id };
    let topics = vec![topic("a", TopicId::default()), topic("b", door.broker.topic_named("b").unwrap().id())];
    let asked = MetadataRequest { topics: Some(topics), include_cluster_authorized_operations: true, ..Default::default() };
    let Some(Response::Metadata(told)) = client.ask(10, asked).await else { panic!() };
    let seen: Vec<_> = told.topics.iter().map(|topic| (topic.name.as_deref().unwrap(), topic.error_code)).collect();
    assert_eq!((seen.as_slice(), told.cluster_authorized_operations), ([("a", 42), ("b", 42)].as_slice(), i32::MIN));
    // A page that begins at what may not be seen begins behind it; a cursor that leads nowhere is refused before rights are looked at.
    let mut page = async |names: &[&str], at: &str| {
        let topics = names.iter().map(|name| DescribeTopicPartitionsTopic { name: (*name).to_owned() }).collect();
        let cursor = Some(PartitionCursor { topic_name: at.to_owned(), partition_index: 0 });
        let asked = DescribeTopicPartitionsRequest { topics, cursor, response_partition_limit: 10 };
        let Some(Response::DescribeTopicPartitions(told)) = client.ask(0, asked).await else { panic!() };
        told.topics.into_iter().map(|topic| (topic.name.unwrap(), topic.error_code)).collect::<Vec<_>>()
    };
    let named = |of: &[(&str, i16)]| of.iter().map(|(name, code)| ((*name).to_owned(), *code)).collect::<Vec<_>>();
    assert_eq!(page(&["0", "a", "b"], "0").await, named(&[("a", 0), ("0", 29), ("b", 29)]));
    assert_eq!(page(&["a", "b"], "b").await, named(&[("b", 29)]));
    assert_eq!(page(&["b"], "elsewhere").await, named(&[("b", 42)]));
    door.close().await;
}

#[tokio::test]
async fn the_audit_trail_and_the_nodes_own_topics_cannot_be_written_or_deleted_by_anyone() {
    let door = Door::open().await;
    door.allow(&[
        (ResourceType::Topic, "*", Operation::All),
        (ResourceType::Cluster, "kafka-cluster", Operation::All),
        (ResourceType::Group, "*", Operation::All),
    ])
    .await;
    let mut client = door.mallory().await;
    let name = "__audit".to_owned();
    let partitions = vec![ProducePartition { index: 0, records: Some(Bytes::new()) }];
    let topics = vec![ProduceTopic { name: name.clone(), partitions, ..Default::default() }];
    let requests: [(i16, Request); 5] = [
        (9, ProduceRequest { acks: 1, topics, ..Default::default() }.into()),
        (5, DeleteTopicsRequest { topic_names: vec![name.clone()], ..Default::default() }.into()),
        (
            2,
            DeleteRecordsRequest {
                topics: vec![DeleteRecordsTopic {
                    name: name.clone(),
                    partitions: vec![DeleteRecordsPartition { partition_index: 0, offset: -1 }],
                }],
                ..Default::default()
            }
            .into(),
        ),
        (
            1,
            IncrementalAlterConfigsRequest {
                resources: vec![IncrementalAlterConfigsResource {
                    resource_type: 2,
                    resource_name: name.clone(),
                    configs: vec![IncrementalAlterableConfig {
                        name: "retention.ms".to_owned(),
                        config_operation: 0,
                        value: Some("1".to_owned()),
                    }],
                }],
                ..Default::default()
            }
            .into(),
        ),
        (
            3,
            CreatePartitionsRequest {
                topics: vec![CreatePartitionsTopic { name: name.clone(), count: 2, ..Default::default() }],
                ..Default::default()
            }
            .into(),
        ),
    ];
    for (version, request) in requests {
        let key = request.key();
        let told = codes(&client.ask(version, request).await.expect("an answer"));
        assert!(!told.split(' ').any(|code| code == "0"), "{}: {told}", key.name());
    }
    // What was asked is in the trail.
    let Some(Response::Fetch(told)) = client
        .ask(
            12,
            FetchRequest {
                topics: vec![FetchTopic {
                    topic: name,
                    partitions: vec![FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() }],
                    ..Default::default()
                }],
                ..Default::default()
            },
        )
        .await
    else {
        panic!()
    };
    let bytes = told.responses[0].partitions[0].records.to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("\"operation\":\"DeleteRecords\",\"resource\":\"__audit\""), "{text}");
    door.close().await;
}

#[tokio::test]
async fn nobody_but_the_node_writes_alerts() {
    let door = Door::open().await;
    door.broker.create_topic(NewTopic::named(TopicName::new("alerts").unwrap())).await.unwrap();
    door.allow(&[(ResourceType::Topic, "*", Operation::All), (ResourceType::Cluster, "kafka-cluster", Operation::All)]).await;
    let mut client = door.mallory().await;
    let name = "alerts".to_owned();
    let mut forged = crate::record::BatchBuilder::new();
    forged.push(0, Some(b"bed 1"), Some(b"{}"), &[]);
    let partitions = vec![ProducePartition { index: 0, records: Some(forged.finish().to_bytes()) }];
    let topics = vec![ProduceTopic { name: name.clone(), partitions, ..Default::default() }];
    let trimmed = vec![DeleteRecordsPartition { partition_index: 0, offset: -1 }];
    let requests: [(i16, Request); 4] = [
        (9, ProduceRequest { acks: 1, topics, ..Default::default() }.into()),
        (5, DeleteTopicsRequest { topic_names: vec![name.clone()], ..Default::default() }.into()),
        (
            2,
            DeleteRecordsRequest { topics: vec![DeleteRecordsTopic { name: name.clone(), partitions: trimmed }], ..Default::default() }
                .into(),
        ),
        (
            3,
            CreatePartitionsRequest { topics: vec![CreatePartitionsTopic { name, count: 2, ..Default::default() }], ..Default::default() }
                .into(),
        ),
    ];
    for (version, request) in requests {
        let key = request.key();
        let told = codes(&client.ask(version, request).await.expect("an answer"));
        assert!(!told.split(' ').any(|code| code == "0"), "{}: {told}", key.name());
    }
    door.close().await;
}

#[tokio::test]
async fn a_request_that_is_refused_for_an_impossible_batch_needs_no_right() {
    let door = Door::open().await;
    let mut client = door.mallory().await;
    let asked = |magic: u8| {
        let mut good = crate::record::BatchBuilder::new();
        good.push(0, None, Some(b"x"), &[]);
        let good = good.finish().to_bytes();
        let mut bad = good.to_vec();
        bad[16] = magic;
        let topic = |name: &str, records: Bytes| ProduceTopic {
            name: name.to_owned(),
            partitions: vec![ProducePartition { index: 0, records: Some(records) }],
            ..Default::default()
        };
        ProduceRequest { acks: 1, topics: vec![topic("a", good), topic("b", bad.into())], ..Default::default() }
    };
    assert_eq!(codes(&client.ask(9, asked(116)).await.expect("an answer")), "2 2");
    assert_eq!(codes(&client.ask(9, asked(2)).await.expect("an answer")), "29 29");
    door.close().await;
}

#[tokio::test]
async fn an_id_of_nothing_is_no_topic_and_a_name_of_nothing_is_one_that_may_not_be_seen() {
    let door = Door::open().await;
    let mut client = door.mallory().await;
    let fetch = || FetchRequest {
        topics: vec![FetchTopic { partitions: vec![FetchPartition::default()], ..Default::default() }],
        ..Default::default()
    };
    assert_eq!(codes(&client.ask(13, fetch()).await.expect("an answer")), "0 100");
    assert_eq!(codes(&client.ask(12, fetch()).await.expect("an answer")), "0 29");
    let metadata = |names: &[(&str, TopicId)]| {
        let topic = |(name, topic_id): &(&str, TopicId)| MetadataRequestTopic { name: Some((*name).to_owned()), topic_id: *topic_id };
        MetadataRequest { topics: Some(names.iter().map(topic).collect()), ..Default::default() }
    };
    assert_eq!(codes(&client.ask(12, metadata(&[("", TopicId::default())])).await.expect("an answer")), "29 0");
    // Beside an id no name counts.
    let both = metadata(&[("a", TopicId::default()), ("", TopicId([7; 16]))]);
    assert_eq!(codes(&client.ask(12, both).await.expect("an answer")), "100 0");
    // What an id stands for is not told to who may not see it.
    let known = metadata(&[("", door.broker.topic_named("a").unwrap().id())]);
    let Some(Response::Metadata(told)) = client.ask(12, known).await else { panic!() };
    assert_eq!((told.topics[0].error_code, &told.topics[0].name), (29, &None));
    door.close().await;
}
