//! Frames written out by hand from Kafka's protocol guide, and the answers that are rules of their own.

use bytes::Bytes;

use super::super::frame::shape;
use super::super::read::Reader;
use super::super::*;
use super::{Chance, behind_length, every_version, header, request_frame, response_frame};

fn check_request(frame: &[u8], want: &(RequestHeader, Request)) {
    assert_eq!(decode_request(Bytes::copy_from_slice(frame)).as_ref(), Ok(want));
    assert_eq!(encode_request(&want.0, &want.1)[4..], *frame);
}

#[test]
fn an_api_versions_request_of_version_3_is_read() {
    let frame = b"\x00\x12\x00\x03\x00\x00\x00\x01\x00\x07rdkafka\x00\x0blibrdkafka\x072.12.1\x00";
    let request = ApiVersionsRequest { client_software_name: "librdkafka".to_owned(), client_software_version: "2.12.1".to_owned() };
    let header = RequestHeader { api_key: 18, api_version: 3, correlation_id: 1, client_id: Some("rdkafka".to_owned()) };
    check_request(frame, &(header, request.into()));
}

#[test]
fn a_metadata_request_tells_all_topics_from_none() {
    let header = |api_version| RequestHeader { api_key: 3, api_version, correlation_id: 9, client_id: None };
    let ask = |topics: Option<Vec<MetadataRequestTopic>>| Request::from(MetadataRequest { topics, ..Default::default() });
    let old = MetadataRequest { topics: Some(vec![]), ..Default::default() };
    check_request(b"\0\x03\0\0\0\0\0\x09\xff\xff\0\0\0\0", &(header(0), old.into()));
    check_request(b"\0\x03\0\x01\0\0\0\x09\xff\xff\xff\xff\xff\xff", &(header(1), ask(None)));
    check_request(b"\0\x03\0\x01\0\0\0\x09\xff\xff\0\0\0\0", &(header(1), ask(Some(vec![]))));
    check_request(b"\0\x03\0\x0c\0\0\0\x09\xff\xff\0\0\x01\0\0", &(header(12), ask(None)));
    check_request(b"\0\x03\0\x0c\0\0\0\x09\xff\xff\0\x01\x01\0\0", &(header(12), ask(Some(vec![]))));
}

#[test]
fn an_api_versions_response_has_no_tags_in_its_header_in_any_version() {
    let response: Response = ApiVersionsResponse { api_keys: api_versions(), ..Default::default() }.into();
    for version in 0..=4 {
        let frame = encode_response(&header(ApiKey::ApiVersions, version), &response);
        assert_eq!(frame[4..8], [1, 2, 3, 4]);
        assert_eq!(frame[8..10], [0, 0], "the error code follows the correlation id at once");
        let served = u8::try_from(APIS.len()).expect("one byte counts them");
        let count: &[u8] = if version < 3 { &[0, 0, 0, served] } else { &[served + 1] };
        assert_eq!(frame[10..10 + count.len()], *count);
    }
}

#[test]
fn other_flexible_responses_have_a_tag_buffer_in_their_header() {
    let response: Response = HeartbeatResponse { error_code: error_code::REBALANCE_IN_PROGRESS, ..Default::default() }.into();
    assert_eq!(encode_response(&header(ApiKey::Heartbeat, 3), &response)[..], *b"\0\0\0\x0a\x01\x02\x03\x04\0\0\0\0\0\x1b");
    assert_eq!(encode_response(&header(ApiKey::Heartbeat, 4), &response)[..], *b"\0\0\0\x0c\x01\x02\x03\x04\0\0\0\0\0\0\x1b\0");
}

#[test]
fn an_api_versions_request_from_the_future_is_answered_in_version_0_with_the_range() {
    let frame = Bytes::from_static(b"\x00\x12\x00\x05\x00\x00\x00\x2a\x00\x01c\x00whatever the future holds");
    let failure = decode_request(frame).expect_err("version 5 is not served");
    assert_eq!(failure.reason, FailureReason::UnsupportedVersion { key: 18, version: 5 });
    let header = failure.header.expect("its header is readable");
    assert_eq!((header.correlation_id, header.client_id.as_deref()), (42, Some("c")));
    assert_eq!(unsupported_api_versions(&header)[..], *b"\0\0\0\x10\0\0\0\x2a\0\x23\0\0\0\x01\0\x12\0\0\0\x04");
}

#[test]
fn produce_is_advertised_from_0_and_served_from_3() {
    let produce = api_versions().into_iter().find(|api| api.api_key == 0).expect("Produce is served");
    assert_eq!((produce.min_version, produce.max_version), (0, 13));
    for version in [-1, 0, 2, 14] {
        let failure = decode_request(behind_length(&encode_request(&header(ApiKey::Produce, version), &ProduceRequest::default().into())));
        assert_eq!(failure.expect_err("not served").reason, FailureReason::UnsupportedVersion { key: 0, version });
    }
}

#[test]
fn an_unknown_api_keeps_its_header() {
    let failure = decode_request(Bytes::from_static(b"\x03\xe7\0\x01\0\0\0\x07\0\x02me")).expect_err("999 is no API");
    assert_eq!(failure.reason, FailureReason::UnknownApi { key: 999 });
    let want = RequestHeader { api_key: 999, api_version: 1, correlation_id: 7, client_id: Some("me".to_owned()) };
    assert_eq!(failure.header, Some(want));
}

/// Replaces the empty tag buffer that ends a flexible message by two unknown tags, one of them empty.
fn with_unknown_tags(frame: &Bytes) -> Bytes {
    let (last, rest) = frame.split_last().expect("a frame is never empty");
    assert_eq!(*last, 0, "an empty tag buffer ends a message without tags");
    [rest, &[2, 99, 3, 0xca, 0xfe, 0xee, 0xff, 0x01, 0]].concat().into()
}

#[test]
fn unknown_tagged_fields_are_skipped_wherever_they_stand() {
    for (key, version) in every_version().filter(|(key, version)| key.api().is_flexible(*version)) {
        // Seeds whose message ends without tags of its own; most messages have none at all.
        for seed in 0..10 {
            let (header, request, frame) = request_frame(key, version, &mut Chance(seed));
            if matches!(&request, Request::Fetch(fetch) if fetch.cluster_id.is_some()) {
                continue;
            }
            let tagged = with_unknown_tags(&frame);
            let at = 8 + 2 + "probe".len();
            let tagged: Bytes = [&tagged[..at], &[1, 5, 1, 0xaa], &tagged[at + 1..]].concat().into();
            assert_eq!(decode_request(tagged), Ok((header, request)), "{key:?} v{version} seed {seed}");
        }
        let empty = Response::read(key, &mut Reader::new(vec![0; 200].into(), shape(key, version)));
        if let Ok(response) = empty {
            let frame = behind_length(&encode_response(&header(key, version), &response));
            let read = decode_response(key, version, with_unknown_tags(&frame));
            assert_eq!(read, Ok((0x0102_0304, response)), "{key:?} v{version}");
        }
    }
}

#[test]
fn bytes_behind_a_message_are_ignored() {
    for (key, version) in every_version() {
        let (header, request, frame) = request_frame(key, version, &mut Chance(7));
        let longer = [&frame[..], b"more"].concat().into();
        assert_eq!(decode_request(longer), Ok((header, request)), "{key:?} v{version}");
        let (_, response, frame) = response_frame(key, version, &mut Chance(7));
        let longer = [&frame[..], b"more"].concat().into();
        assert_eq!(decode_response(key, version, longer).map(|(_, r)| r), Ok(response), "{key:?} v{version}");
    }
}

#[test]
fn the_table_of_apis_is_in_order_and_finds_itself() {
    assert!(APIS.is_sorted_by(|a, b| a.key < b.key));
    for api in APIS {
        assert_eq!(ApiKey::from_code(api.key.code()), Some(api.key));
        assert_eq!(api.key.api(), api);
        assert!(api.advertised_min <= api.min && api.min <= api.max);
    }
    assert_eq!(ApiKey::from_code(4), None, "LeaderAndIsr is for brokers of old");
}

#[test]
fn error_codes_have_kafkas_names() {
    assert_eq!(error_code::NONE, 0);
    assert_eq!(error_code::name(35), "UNSUPPORTED_VERSION");
    assert_eq!(error_code::name(-1), "UNKNOWN_SERVER_ERROR");
    assert_eq!(error_code::name(1000), "UNKNOWN");
    assert!(error_code::is_retriable(error_code::KAFKA_STORAGE_ERROR));
    assert!(!error_code::is_retriable(error_code::MESSAGE_TOO_LARGE));
}
