//! Stories over a real socket: a client of our own speaks `wire` to a server in this process.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Server;
use crate::broker::Broker;
use crate::broker::TestDisk;
use crate::record::{Batch, BatchBuilder};
use crate::wire::*;

/// A server and what it runs on.
struct Door {
    server: Server,
    broker: Arc<Broker>,
    stop: CancellationToken,
}

impl Door {
    async fn open() -> Self {
        let broker = TestDisk::default().broker().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let server = Server::start(listener, Arc::clone(&broker), stop.clone(), 100);
        Self { server, broker, stop }
    }

    async fn client(&self) -> Client {
        Client { stream: TcpStream::connect(self.server.address()).await.unwrap(), next: 0 }
    }
}

struct Client {
    stream: TcpStream,
    next: i32,
}

impl Client {
    async fn send(&mut self, version: i16, request: impl Into<Request>) -> i32 {
        self.next += 1;
        let request = request.into();
        let header = RequestHeader {
            api_key: request.key().code(),
            api_version: version,
            correlation_id: self.next,
            client_id: Some("test".to_owned()),
        };
        self.stream.write_all(&encode_request(&header, &request)).await.unwrap();
        self.next
    }

    async fn frame(&mut self) -> Option<Bytes> {
        let length = self.stream.read_i32().await.ok()?;
        let mut frame = BytesMut::zeroed(usize::try_from(length).unwrap());
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(frame.freeze())
    }

    async fn receive(&mut self, key: ApiKey, version: i16) -> (i32, Response) {
        decode_response(key, version, self.frame().await.expect("a response")).unwrap()
    }

    async fn ask(&mut self, version: i16, request: impl Into<Request>) -> Response {
        let request = request.into();
        let key = request.key();
        let sent = self.send(version, request).await;
        let (correlation, response) = self.receive(key, version).await;
        assert_eq!(sent, correlation);
        response
    }

    /// Whether the server has closed the connection.
    async fn is_closed(&mut self) -> bool {
        matches!(tokio::time::timeout(Duration::from_secs(10), self.stream.read_u8()).await, Ok(Err(_)))
    }
}

fn metadata(topic: &str) -> MetadataRequest {
    MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { name: Some(topic.to_owned()), ..Default::default() }]),
        ..Default::default()
    }
}

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(crate::time::Clock::system().now().0, None, Some(value.as_bytes()), &[]);
    builder.finish().to_bytes()
}

fn produce(acks: i16, topic: &str, records: Bytes) -> ProduceRequest {
    let partitions = vec![ProducePartition { index: 0, records: Some(records) }];
    ProduceRequest {
        acks,
        timeout_ms: 1000,
        topics: vec![ProduceTopic { name: topic.to_owned(), partitions, ..Default::default() }],
        ..Default::default()
    }
}

fn fetch(topic: &str, offset: i64, max_wait_ms: i32) -> FetchRequest {
    let partitions = vec![FetchPartition { partition: 0, fetch_offset: offset, partition_max_bytes: 1 << 20, ..Default::default() }];
    FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        topics: vec![FetchTopic { topic: topic.to_owned(), partitions, ..Default::default() }],
        ..Default::default()
    }
}

fn values(response: &Response) -> Vec<String> {
    let Response::Fetch(response) = response else { panic!("{response:?}") };
    let mut bytes = response.responses[0].partitions[0].records.to_bytes();
    let mut all = Vec::new();
    while let Some(batch) = Batch::split(&mut bytes).unwrap() {
        for record in &batch.records().unwrap() {
            all.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
    }
    all
}

#[tokio::test]
async fn a_topic_is_made_by_naming_it_and_what_is_written_is_read() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let Response::Metadata(told) = client.ask(9, metadata("t")).await else { panic!() };
    assert_eq!((told.topics[0].error_code, told.topics[0].partitions.len()), (0, 4));
    let dialled = door.server.address();
    assert_eq!((told.brokers[0].host.as_str(), told.brokers[0].port), ("127.0.0.1", i32::from(dialled.port())));
    let Response::Metadata(told) = client.ask(9, metadata("no/name")).await else { panic!() };
    assert_eq!(told.topics[0].error_code, error_code::INVALID_TOPIC_EXCEPTION);
    for version in 3..=11 {
        let Response::Produce(told) = client.ask(version, produce(-1, "t", batch(&version.to_string()))).await else { panic!() };
        let partition = &told.responses[0].partitions[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, i64::from(version) - 3));
    }
    for version in 4..=12 {
        let answer = client.ask(version, fetch("t", 2, 0)).await;
        assert_eq!(values(&answer), ["5", "6", "7", "8", "9", "10", "11"]);
    }
}

#[tokio::test]
async fn pipelined_requests_are_applied_and_answered_in_order() {
    let door = Door::open().await;
    let mut client = door.client().await;
    client.ask(9, metadata("t")).await;
    let mut sent = Vec::new();
    for i in 0..200 {
        sent.push((ApiKey::Produce, 9, client.send(9, produce(-1, "t", batch(&i.to_string()))).await));
        if i % 50 == 0 {
            sent.push((ApiKey::Metadata, 12, client.send(12, metadata("t")).await));
        }
    }
    let mut next = 0;
    for (key, version, correlation) in sent {
        let (got, response) = client.receive(key, version).await;
        assert_eq!(got, correlation);
        if let Response::Produce(told) = response {
            assert_eq!(told.responses[0].partitions[0].base_offset, next);
            next += 1;
        }
    }
    let wanted: Vec<_> = (0..200).map(|i| i.to_string()).collect();
    assert_eq!(values(&client.ask(12, fetch("t", 0, 0)).await), wanted);
}

#[tokio::test]
async fn without_acknowledgement_there_is_no_response_and_an_error_closes_the_connection() {
    let door = Door::open().await;
    let mut client = door.client().await;
    client.ask(9, metadata("t")).await;
    client.send(9, produce(0, "t", batch("a"))).await;
    // The next response is the fetch's.
    assert_eq!(values(&client.ask(12, fetch("t", 0, 10_000)).await), ["a"]);
    client.send(9, produce(0, "nope", batch("a"))).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_fetch_waits_for_records_of_another_connection() {
    let door = Door::open().await;
    let (mut reader, mut writer) = (door.client().await, door.client().await);
    writer.ask(9, metadata("t")).await;
    reader.send(12, fetch("t", 0, 20_000)).await;
    writer.ask(9, produce(1, "t", batch("late"))).await;
    let (_, answer) = reader.receive(ApiKey::Fetch, 12).await;
    assert_eq!(values(&answer), ["late"]);
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_and_of_anything_else_is_not() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let mut request = encode_request(
        &RequestHeader { api_key: 18, api_version: 4, correlation_id: 9, client_id: None },
        &ApiVersionsRequest { client_software_name: "x".to_owned(), client_software_version: "1".to_owned() }.into(),
    )
    .to_vec();
    request[7] = 99;
    client.stream.write_all(&request).await.unwrap();
    let (correlation, answer) = client.receive(ApiKey::ApiVersions, 0).await;
    let Response::ApiVersions(answer) = answer else { panic!() };
    assert_eq!((correlation, answer.error_code), (9, error_code::UNSUPPORTED_VERSION));
    assert_eq!(answer.api_keys.iter().map(|a| (a.api_key, a.max_version)).collect::<Vec<_>>(), [(18, 4)]);
    // The connection goes on.
    let named = ApiVersionsRequest { client_software_name: "bad name".to_owned(), client_software_version: "1".to_owned() };
    let Response::ApiVersions(answer) = client.ask(3, named).await else { panic!() };
    assert_eq!(answer.error_code, error_code::INVALID_REQUEST);
    let Response::ApiVersions(answer) = client.ask(0, ApiVersionsRequest::default()).await else { panic!() };
    assert_eq!(answer.api_keys.len(), APIS.len());
    // Produce 2 is advertised and not served.
    client.stream.write_all(&[0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 1]).await.unwrap();
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn hostile_bytes_close_their_connection_and_nothing_else() {
    let door = Door::open().await;
    let mut good = door.client().await;
    good.ask(9, metadata("t")).await;
    let hostile: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        &[0, 0, 0, 0],
        &[0, 0, 0, 2, 0, 3],
        // Metadata v1 that claims 2^31 - 1 topics.
        &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff],
        &[0, 0, 0, 10, 0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
    ];
    for bytes in hostile {
        let mut client = door.client().await;
        client.stream.write_all(bytes).await.unwrap();
        assert!(client.is_closed().await, "{bytes:?}");
    }
    // A batch that claims 2^31 - 1 records.
    let mut claims = batch("x").to_vec();
    claims[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    claims[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
    let crc = crc32c::crc32c(&claims[21..]);
    claims[17..21].copy_from_slice(&crc.to_be_bytes());
    let Response::Produce(told) = good.ask(9, produce(-1, "t", claims.into())).await else { panic!() };
    assert_eq!(told.responses[0].partitions[0].error_code, error_code::INVALID_RECORD);
}

#[tokio::test]
async fn a_member_joins_syncs_commits_and_leaves() {
    let door = Door::open().await;
    let mut client = door.client().await;
    client.ask(9, metadata("t")).await;
    let protocols = vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata: Bytes::from_static(b"meta") }];
    let mut join = JoinGroupRequest {
        group_id: "g".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols,
        ..Default::default()
    };
    let Response::JoinGroup(first) = client.ask(5, join.clone()).await else { panic!() };
    assert_eq!(first.error_code, error_code::MEMBER_ID_REQUIRED);
    join.member_id = first.member_id;
    let Response::JoinGroup(joined) = client.ask(5, join).await else { panic!() };
    assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, 1, 1));
    let member_id = joined.member_id;
    let sync = SyncGroupRequest {
        group_id: "g".to_owned(),
        generation_id: 1,
        member_id: member_id.clone(),
        assignments: vec![SyncGroupRequestAssignment { member_id: member_id.clone(), assignment: Bytes::from_static(b"all") }],
        ..Default::default()
    };
    let Response::SyncGroup(synced) = client.ask(3, sync).await else { panic!() };
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
    let commit = OffsetCommitRequest {
        group_id: "g".to_owned(),
        generation_id_or_member_epoch: 1,
        member_id: member_id.clone(),
        topics: ["t", "unknown"]
            .map(|name| OffsetCommitRequestTopic {
                name: name.to_owned(),
                topic_id: crate::record::TopicId::default(),
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: 2,
                    committed_offset: 41,
                    committed_leader_epoch: 0,
                    committed_metadata: Some("note".to_owned()),
                }],
            })
            .to_vec(),
        ..Default::default()
    };
    let Response::OffsetCommit(told) = client.ask(8, commit).await else { panic!() };
    let errors: Vec<_> = told.topics.iter().map(|t| t.partitions[0].error_code).collect();
    assert_eq!(errors, [error_code::UNKNOWN_TOPIC_OR_PARTITION, 0]);
    let ask = OffsetFetchRequest { group_id: "g".to_owned(), topics: None, ..Default::default() };
    let Response::OffsetFetch(told) = client.ask(7, ask).await else { panic!() };
    let position = &told.topics[0].partitions[0];
    assert_eq!((position.partition_index, position.committed_offset, position.metadata.as_deref()), (2, 41, Some("note")));
    let beat = HeartbeatRequest { group_id: "g".to_owned(), generation_id: 1, member_id: member_id.clone(), ..Default::default() };
    let Response::Heartbeat(told) = client.ask(4, beat).await else { panic!() };
    assert_eq!(told.error_code, 0);
    let leave = LeaveGroupRequest { group_id: "g".to_owned(), member_id, ..Default::default() };
    let Response::LeaveGroup(told) = client.ask(2, leave).await else { panic!() };
    assert_eq!(told.error_code, 0);
    let describe = DescribeGroupsRequest { groups: vec!["g".to_owned(), "none".to_owned()], ..Default::default() };
    let Response::DescribeGroups(told) = client.ask(5, describe).await else { panic!() };
    let states: Vec<_> = told.groups.iter().map(|g| g.group_state.as_str()).collect();
    assert_eq!(states, ["Empty", "Dead"]);
}

#[tokio::test]
async fn a_stop_closes_idle_and_waiting_connections_and_answers_what_was_asked_before() {
    let door = Door::open().await;
    let (mut idle, mut waiting, mut writer) = (door.client().await, door.client().await, door.client().await);
    writer.ask(9, metadata("t")).await;
    idle.ask(9, metadata("t")).await;
    waiting.send(12, fetch("t", 0, 600_000)).await;
    writer.send(9, produce(-1, "t", batch("last"))).await;
    let (_, answer) = writer.receive(ApiKey::Produce, 9).await;
    assert!(matches!(answer, Response::Produce(_)));
    door.stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), door.server.stopped()).await.expect("every connection ends");
    assert!(idle.is_closed().await && writer.is_closed().await);
    assert_eq!(door.broker.stats().connections(), 0);
    door.broker.close().await.unwrap();
}

#[tokio::test]
async fn a_transaction_over_a_socket_is_read_when_it_is_committed_and_only_its_producer_ends_it() {
    let door = Door::open().await;
    let mut client = door.client().await;
    client.ask(4, metadata("t")).await;
    let init = InitProducerIdRequest { transactional_id: Some("tx".to_owned()), transaction_timeout_ms: 60_000, ..Default::default() };
    let Response::InitProducerId(producer) = client.ask(4, init).await else { panic!("another response") };
    let (producer_id, producer_epoch) = (producer.producer_id, producer.producer_epoch);
    let topics = vec![AddPartitionsToTxnTopic { name: "t".to_owned(), partitions: vec![0, 99] }];
    let add = AddPartitionsToTxnRequest { transactional_id: "tx".to_owned(), producer_id, producer_epoch, topics };
    let told = |response: &Response| {
        let Response::AddPartitionsToTxn(response) = response else { panic!("{response:?}") };
        response.results_by_topic[0].results_by_partition.iter().map(|p| p.partition_error_code).collect::<Vec<_>>()
    };
    let refused = client.ask(3, add.clone()).await;
    assert_eq!(told(&refused), [error_code::OPERATION_NOT_ATTEMPTED, error_code::UNKNOWN_TOPIC_OR_PARTITION]);
    let mut good = add;
    good.topics[0].partitions.pop();
    assert_eq!(told(&client.ask(0, good).await), [error_code::NONE]);
    let mut builder = BatchBuilder::new().with_producer(producer_id, producer_epoch, 0).transactional();
    builder.push(crate::time::Clock::system().now().0, None, Some(b"kept"), &[]);
    let request = ProduceRequest { transactional_id: Some("tx".to_owned()), ..produce(-1, "t", builder.finish().to_bytes()) };
    let Response::Produce(placed) = client.ask(8, request).await else { panic!("another response") };
    assert_eq!(placed.responses[0].partitions[0].error_code, error_code::NONE);
    let committed = || FetchRequest { isolation_level: 1, ..fetch("t", 0, 0) };
    assert!(values(&client.ask(11, committed()).await).is_empty());
    let end = |producer_epoch| EndTxnRequest { transactional_id: "tx".to_owned(), producer_id, producer_epoch, committed: true };
    let code = |response: Response| {
        let Response::EndTxn(response) = response else { panic!("{response:?}") };
        response.error_code
    };
    assert_eq!(code(client.ask(1, end(producer_epoch + 1)).await), error_code::INVALID_PRODUCER_EPOCH);
    assert_eq!(code(client.ask(4, end(producer_epoch + 1)).await), error_code::PRODUCER_FENCED);
    assert_eq!(code(client.ask(4, end(producer_epoch)).await), error_code::NONE);
    let Response::Fetch(fetched) = client.ask(11, committed()).await else { panic!("another response") };
    let part = &fetched.responses[0].partitions[0];
    assert_eq!((part.high_watermark, part.last_stable_offset, part.aborted_transactions.clone()), (2, 2, Some(Vec::new())));
}

#[tokio::test]
async fn a_topic_made_again_is_not_read_or_written_by_its_old_id() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let id_of = async |client: &mut Client| {
        let Response::Metadata(told) = client.ask(12, metadata("t")).await else { panic!() };
        told.topics[0].topic_id
    };
    let first = id_of(&mut client).await;
    let outcome = async |client: &mut Client, id| {
        let mut write = produce(-1, "", batch("a"));
        write.topics[0].topic_id = id;
        let Response::Produce(written) = client.ask(13, write).await else { panic!() };
        let mut read = fetch("", 0, 0);
        read.topics[0].topic_id = id;
        let Response::Fetch(fetched) = client.ask(17, read).await else { panic!() };
        assert_eq!((written.responses[0].topic_id, fetched.responses[0].topic_id), (id, id));
        (written.responses[0].partitions[0].error_code, fetched.responses[0].partitions[0].error_code)
    };
    assert_eq!(outcome(&mut client, first).await, (0, 0));
    let topics = vec![DeleteTopicState { topic_id: first, ..Default::default() }];
    client.ask(6, DeleteTopicsRequest { topics, ..Default::default() }).await;
    let second = id_of(&mut client).await;
    assert_ne!(first, second);
    let unknown = error_code::UNKNOWN_TOPIC_ID;
    assert_eq!(outcome(&mut client, first).await, (unknown, unknown));
    assert_eq!(outcome(&mut client, second).await, (0, 0));
    let Response::Fetch(session) = client.ask(17, FetchRequest { session_id: 5, session_epoch: 1, ..Default::default() }).await else {
        panic!()
    };
    assert_eq!(session.error_code, error_code::FETCH_SESSION_ID_NOT_FOUND);
}
