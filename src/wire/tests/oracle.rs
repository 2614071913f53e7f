//! The codec against the crate kafka-protocol, which is generated from Kafka's own definitions.
//!
//! Bytes we write are read by the oracle to the last one, mean the same field by field (names, values
//! and the defaults of fields a version lacks), and are written by it as the same bytes. What the
//! oracle writes on its own we read and write as the same bytes.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::super::frame::shape;
use super::super::read::Reader;
use super::super::write::Writer;
use super::super::{APIS, ApiKey, Request, Response};
use super::tree::{Tree, differences};
use super::{Chance, request_frame, response_frame};

fn their_key(key: ApiKey) -> theirs::ApiKey {
    theirs::ApiKey::try_from(key.code()).expect("the oracle knows every API we serve")
}

/// Versions that are newer than the oracle: our own round trips, and a real client, have to do for them.
const BEYOND: &[(ApiKey, i16)] =
    &[(ApiKey::OffsetCommit, 10), (ApiKey::OffsetFetch, 10), (ApiKey::DescribeLogDirs, 5), (ApiKey::ListOffsets, 11)];

/// Every API in every version that is served and that the oracle knows.
fn every_version() -> impl Iterator<Item = (ApiKey, i16)> {
    super::every_version().filter(|both| !BEYOND.contains(both))
}

/// The message alone, without length and header.
fn body(write: impl FnOnce(&mut Writer), key: ApiKey, version: i16) -> Bytes {
    let mut to = Writer::frame(shape(key, version));
    write(&mut to);
    Bytes::from(to.finish().concat()).slice(4..)
}

#[test]
fn requests_mean_the_same_to_the_oracle() {
    for (key, version) in every_version() {
        for seed in 0..60 {
            let at = format!("{key:?} v{version} request, seed {seed}");
            let ours = Request::sample(key, &mut Chance(seed), shape(key, version));
            let bytes = body(|to| ours.write(to), key, version);
            let mut rest = bytes.clone();
            let read = theirs::RequestKind::decode(their_key(key), &mut rest, version).unwrap_or_else(|e| panic!("{at}: {e:#}"));
            assert!(rest.is_empty(), "{at}: {} bytes left", rest.len());
            let differ = differences(&Tree::of(&format!("{ours:?}")), &Tree::of(&format!("{read:?}")));
            assert!(differ.is_empty(), "{at}: {differ:#?}\nours {ours:?}\ntheirs {read:?}");
            let mut again = BytesMut::new();
            read.encode(&mut again, version).unwrap_or_else(|e| panic!("{at}: {e:#}"));
            assert_eq!(again, bytes, "{at}");
        }
    }
}

#[test]
fn responses_mean_the_same_to_the_oracle() {
    for (key, version) in every_version() {
        for seed in 0..60 {
            let at = format!("{key:?} v{version} response, seed {seed}");
            let ours = Response::sample(key, &mut Chance(seed), shape(key, version));
            let bytes = body(|to| ours.write(to), key, version);
            let mut rest = bytes.clone();
            let read = theirs::ResponseKind::decode(their_key(key), &mut rest, version).unwrap_or_else(|e| panic!("{at}: {e:#}"));
            assert!(rest.is_empty(), "{at}: {} bytes left", rest.len());
            let differ = differences(&Tree::of(&format!("{ours:?}")), &Tree::of(&format!("{read:?}")));
            assert!(differ.is_empty(), "{at}: {differ:#?}\nours {ours:?}\ntheirs {read:?}");
            let mut again = BytesMut::new();
            read.encode(&mut again, version).unwrap_or_else(|e| panic!("{at}: {e:#}"));
            assert_eq!(again, bytes, "{at}");
        }
    }
}

/// The oracle's own default message of every API, as a starting point that is not ours.
macro_rules! their_defaults {
    ($($name:ident $request:ident $response:ident),+ $(,)?) => {
        fn their_default(key: ApiKey) -> (theirs::RequestKind, theirs::ResponseKind) {
            match key {
                $( ApiKey::$name => (
                    theirs::RequestKind::$name(theirs::$request::default()),
                    theirs::ResponseKind::$name(theirs::$response::default()),
                ), )+
            }
        }
    };
}

their_defaults! {
    Produce ProduceRequest ProduceResponse, Fetch FetchRequest FetchResponse, ListOffsets ListOffsetsRequest ListOffsetsResponse,
    Metadata MetadataRequest MetadataResponse, OffsetCommit OffsetCommitRequest OffsetCommitResponse,
    OffsetFetch OffsetFetchRequest OffsetFetchResponse, FindCoordinator FindCoordinatorRequest FindCoordinatorResponse,
    JoinGroup JoinGroupRequest JoinGroupResponse, Heartbeat HeartbeatRequest HeartbeatResponse,
    LeaveGroup LeaveGroupRequest LeaveGroupResponse, SyncGroup SyncGroupRequest SyncGroupResponse,
    DescribeGroups DescribeGroupsRequest DescribeGroupsResponse, ListGroups ListGroupsRequest ListGroupsResponse,
    ApiVersions ApiVersionsRequest ApiVersionsResponse, CreateTopics CreateTopicsRequest CreateTopicsResponse,
    DeleteTopics DeleteTopicsRequest DeleteTopicsResponse, DeleteRecords DeleteRecordsRequest DeleteRecordsResponse,
    InitProducerId InitProducerIdRequest InitProducerIdResponse,
    OffsetForLeaderEpoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse,
    DescribeConfigs DescribeConfigsRequest DescribeConfigsResponse, CreatePartitions CreatePartitionsRequest CreatePartitionsResponse,
    AddPartitionsToTxn AddPartitionsToTxnRequest AddPartitionsToTxnResponse,
    AddOffsetsToTxn AddOffsetsToTxnRequest AddOffsetsToTxnResponse, EndTxn EndTxnRequest EndTxnResponse,
    WriteTxnMarkers WriteTxnMarkersRequest WriteTxnMarkersResponse,
    TxnOffsetCommit TxnOffsetCommitRequest TxnOffsetCommitResponse,
    DescribeProducers DescribeProducersRequest DescribeProducersResponse,
    DescribeTransactions DescribeTransactionsRequest DescribeTransactionsResponse,
    ListTransactions ListTransactionsRequest ListTransactionsResponse,
    AlterConfigs AlterConfigsRequest AlterConfigsResponse,
    IncrementalAlterConfigs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
    AlterReplicaLogDirs AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse,
    DescribeLogDirs DescribeLogDirsRequest DescribeLogDirsResponse, ElectLeaders ElectLeadersRequest ElectLeadersResponse,
    AlterPartitionReassignments AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse,
    ListPartitionReassignments ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse,
    ListConfigResources ListConfigResourcesRequest ListConfigResourcesResponse,
    DescribeTopicPartitions DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse,
    OffsetDelete OffsetDeleteRequest OffsetDeleteResponse,
    ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse,
    ConsumerGroupDescribe ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse,
    SaslHandshake SaslHandshakeRequest SaslHandshakeResponse, SaslAuthenticate SaslAuthenticateRequest SaslAuthenticateResponse,
    DescribeAcls DescribeAclsRequest DescribeAclsResponse, CreateAcls CreateAclsRequest CreateAclsResponse,
    DeleteAcls DeleteAclsRequest DeleteAclsResponse,
    DescribeClientQuotas DescribeClientQuotasRequest DescribeClientQuotasResponse,
    AlterClientQuotas AlterClientQuotasRequest AlterClientQuotasResponse,
    DescribeUserScramCredentials DescribeUserScramCredentialsRequest DescribeUserScramCredentialsResponse,
    AlterUserScramCredentials AlterUserScramCredentialsRequest AlterUserScramCredentialsResponse,
    DeleteGroups DeleteGroupsRequest DeleteGroupsResponse, DescribeCluster DescribeClusterRequest DescribeClusterResponse,
    DescribeQuorum DescribeQuorumRequest DescribeQuorumResponse,
}

#[test]
fn what_the_oracle_writes_by_default_is_read_and_written_alike() {
    for (key, version) in every_version() {
        let (request, response) = their_default(key);
        let mut bytes = BytesMut::new();
        request.encode(&mut bytes, version).unwrap_or_else(|e| panic!("{key:?} v{version}: {e:#}"));
        let mut from = Reader::new(bytes.clone().freeze(), shape(key, version));
        let ours = Request::read(key, &mut from).unwrap_or_else(|e| panic!("{key:?} v{version}: {e}"));
        assert_eq!(from.left(), 0, "{key:?} v{version}");
        assert_eq!(body(|to| ours.write(to), key, version), bytes, "{key:?} v{version} request");

        let mut bytes = BytesMut::new();
        response.encode(&mut bytes, version).unwrap_or_else(|e| panic!("{key:?} v{version}: {e:#}"));
        let mut from = Reader::new(bytes.clone().freeze(), shape(key, version));
        let ours = Response::read(key, &mut from).unwrap_or_else(|e| panic!("{key:?} v{version}: {e}"));
        assert_eq!(from.left(), 0, "{key:?} v{version}");
        assert_eq!(body(|to| ours.write(to), key, version), bytes, "{key:?} v{version} response");
    }
}

/// Changes some bytes of a message: mostly into small ones, which keep counts and lengths in reach.
fn disturbed(bytes: &Bytes, chance: &mut Chance) -> Bytes {
    let mut bytes = bytes.to_vec();
    for _ in 0..=chance.below(3) {
        if !bytes.is_empty() {
            let at = chance.below(bytes.len());
            bytes[at] = if chance.one_in(2) { chance.below(4) as u8 } else { chance.word() as u8 };
        }
    }
    bytes.into()
}

/// Whether a message carries tagged fields that are not in the table: the oracle keeps them, we do not.
fn has_unknown_tags(debug: &str) -> bool {
    debug.replace("unknown_tagged_fields: {}", "").contains("unknown_tagged_fields")
}

#[test]
fn what_we_accept_of_disturbed_messages_the_oracle_reads_and_writes_alike() {
    let mut chance = Chance(11);
    let (mut compared, mut total) = (0, 0);
    for (key, version) in every_version() {
        for _ in 0..400 {
            total += 2;
            let bytes = body(|to| Request::sample(key, &mut chance, shape(key, version)).write(to), key, version);
            let bytes = disturbed(&bytes, &mut chance);
            // Only what our reader accepts goes to the oracle, whose counts are not bounded.
            let mut from = Reader::new(bytes.clone(), shape(key, version));
            if let Ok(ours) = Request::read(key, &mut from) {
                let mut rest = bytes.clone();
                let read = theirs::RequestKind::decode(their_key(key), &mut rest, version)
                    .unwrap_or_else(|e| panic!("{key:?} v{version}: only we accept {ours:?}: {e:#}"));
                assert_eq!(rest.len(), from.left(), "{key:?} v{version} {ours:?}");
                let mut again = BytesMut::new();
                if !has_unknown_tags(&format!("{read:?}")) && read.encode(&mut again, version).is_ok() {
                    assert_eq!(body(|to| ours.write(to), key, version), again, "{key:?} v{version} {ours:?}");
                    compared += 1;
                }
            }

            let bytes = body(|to| Response::sample(key, &mut chance, shape(key, version)).write(to), key, version);
            let bytes = disturbed(&bytes, &mut chance);
            let mut from = Reader::new(bytes.clone(), shape(key, version));
            if let Ok(ours) = Response::read(key, &mut from) {
                let mut rest = bytes.clone();
                let read = theirs::ResponseKind::decode(their_key(key), &mut rest, version)
                    .unwrap_or_else(|e| panic!("{key:?} v{version}: only we accept {ours:?}: {e:#}"));
                assert_eq!(rest.len(), from.left(), "{key:?} v{version} {ours:?}");
                let mut again = BytesMut::new();
                // The oracle repeats null records, which we write as empty.
                let null_records = format!("{read:?}").contains("records: None");
                if !null_records && !has_unknown_tags(&format!("{read:?}")) && read.encode(&mut again, version).is_ok() {
                    assert_eq!(body(|to| ours.write(to), key, version), again, "{key:?} v{version} {ours:?}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared * 4 > total, "{compared} of {total} compared");
}

#[test]
fn headers_mean_the_same_to_the_oracle() {
    for (key, version) in every_version() {
        let (ours, _, frame) = request_frame(key, version, &mut Chance(1));
        let header_version = their_key(key).request_header_version(version);
        let mut rest = frame.clone();
        let read = theirs::RequestHeader::decode(&mut rest, header_version).expect("a header");
        assert_eq!(
            (read.request_api_key, read.request_api_version, read.correlation_id, read.client_id.as_ref().map(|id| id.as_str())),
            (ours.api_key, ours.api_version, ours.correlation_id, ours.client_id.as_deref())
        );
        theirs::RequestKind::decode(their_key(key), &mut rest, version).expect("the message follows the header at once");
        assert!(rest.is_empty());
        let mut again = BytesMut::new();
        read.encode(&mut again, header_version).expect("a header");
        assert_eq!(again, frame[..again.len()]);

        let (ours, _, frame) = response_frame(key, version, &mut Chance(1));
        let mut rest = frame.clone();
        let read = theirs::ResponseHeader::decode(&mut rest, their_key(key).response_header_version(version)).expect("a header");
        assert_eq!(read.correlation_id, ours.correlation_id);
        theirs::ResponseKind::decode(their_key(key), &mut rest, version).expect("the message follows the header at once");
        assert!(rest.is_empty(), "{key:?} v{version}");
    }
}

#[test]
fn ranges_lie_within_what_the_oracle_knows() {
    for api in APIS {
        let known = their_key(api.key).valid_versions();
        let newest = every_version().filter(|(key, _)| *key == api.key).map(|(_, version)| version).max();
        assert!(known.min <= api.min && newest <= Some(known.max), "{}", api.name);
        assert_eq!(format!("{:?}", their_key(api.key)).trim_end_matches("Key"), api.name);
    }
    let codes: BTreeSet<_> = APIS.iter().map(|api| api.key.code()).collect();
    assert_eq!(codes.len(), APIS.len());
}
