//! What we write we read back, records without a copy.

use bytes::Bytes;

use super::super::*;
use super::{Chance, behind_length, every_version, header, request_frame, response_frame};

#[test]
fn every_request_in_every_version_comes_back_as_it_went() {
    for (key, version) in every_version() {
        for seed in 0..60 {
            let (header, request, frame) = request_frame(key, version, &mut Chance(seed));
            let (read_header, read) = decode_request(frame).unwrap_or_else(|e| panic!("{key:?} v{version} seed {seed}: {e}"));
            assert_eq!((read_header, read), (header, request), "{key:?} v{version} seed {seed}");
        }
    }
}

#[test]
fn every_response_in_every_version_comes_back_as_it_went() {
    for (key, version) in every_version() {
        for seed in 0..60 {
            let (header, response, frame) = response_frame(key, version, &mut Chance(seed));
            let read = decode_response(key, version, frame).unwrap_or_else(|e| panic!("{key:?} v{version} seed {seed}: {e}"));
            assert_eq!(read, (header.correlation_id, response), "{key:?} v{version} seed {seed}");
        }
    }
}

#[test]
fn records_of_a_produce_request_are_slices_of_the_frame() {
    let records = Bytes::from(vec![7; 1000]);
    let partitions = vec![ProducePartition { index: 3, records: Some(records) }];
    let topics = vec![ProduceTopic { name: "t".to_owned(), partitions, ..Default::default() }];
    for version in 3..=11 {
        let request = ProduceRequest { acks: -1, topics: topics.clone(), ..Default::default() };
        let frame = behind_length(&encode_request(&header(ApiKey::Produce, version), &request.into()));
        let range = frame.as_ptr_range();
        let (_, Request::Produce(read)) = decode_request(frame).expect("a valid frame") else { panic!("another API") };
        let slice = read.topics[0].partitions[0].records.as_ref().expect("records were there").as_ptr_range();
        assert!(range.start <= slice.start && slice.end <= range.end, "version {version} copied its records");
    }
}

#[test]
fn records_of_a_fetch_response_leave_without_a_copy_and_in_order() {
    let [a, b] = [Bytes::from(vec![1; 5000]), Bytes::from(vec![2; 300])];
    let head = Bytes::from_static(b"a head of some bytes");
    let partition = |records| FetchPartitionResponse { records, ..Default::default() };
    let partitions = vec![partition(RecordsOut(vec![head, a.clone()])), partition(RecordsOut::default()), partition(b.clone().into())];
    let responses = vec![FetchTopicResponse { topic: "t".to_owned(), partitions, ..Default::default() }];
    for version in 4..=12 {
        let response: Response = FetchResponse { responses: responses.clone(), ..Default::default() }.into();
        let header = header(ApiKey::Fetch, version);
        let pieces = encode_response_chunks(&header, &response);
        let shared: Vec<_> = pieces.iter().filter(|p| p.as_ptr() == a.as_ptr() || p.as_ptr() == b.as_ptr()).map(Bytes::len).collect();
        assert_eq!(shared, [5000, 300], "version {version}");
        let frame = Bytes::from(pieces.concat());
        assert_eq!(frame, encode_response(&header, &response));
        assert_eq!(decode_response(ApiKey::Fetch, version, behind_length(&frame)), Ok((header.correlation_id, response)));
    }
}

/// A response as a client of `version` reads it.
fn response_through<T>(response: impl Into<Response>, version: i16, view: impl Fn(Response) -> T) -> T {
    let response = response.into();
    let key = response.key();
    let frame = behind_length(&encode_response(&header(key, version), &response));
    view(decode_response(key, version, frame).expect("what we wrote").1)
}

/// A request as a broker reads it at `version`.
fn request_through<T>(request: impl Into<Request>, version: i16, view: impl Fn(Request) -> T) -> T {
    let request = request.into();
    let frame = behind_length(&encode_request(&header(request.key(), version), &request));
    view(decode_request(frame).expect("what we wrote").1)
}

macro_rules! view {
    ($kind:ident::$name:ident, $message:ident => $view:expr) => {
        |any| match any {
            $kind::$name($message) => $view,
            other => panic!("{:?} is another API", other.key()),
        }
    };
}

#[test]
fn null_is_said_from_the_version_that_can_say_it_and_is_empty_before() {
    let join = |v| response_through(JoinGroupResponse::default(), v, view!(Response::JoinGroup, m => m.protocol_name.is_none()));
    assert_eq!([6, 7].map(join), [false, true]);

    let topics = vec![MetadataResponseTopic::default()];
    let response = MetadataResponse { topics, ..Default::default() };
    let name = |v| response_through(response.clone(), v, view!(Response::Metadata, m => m.topics[0].name.is_none()));
    assert_eq!([0, 11, 12, 13].map(name), [false, false, true, true]);
    let cluster = |v| response_through(response.clone(), v, view!(Response::Metadata, m => m.cluster_id.is_none()));
    assert_eq!([2, 13].map(cluster), [true, true]);

    let topics = |v| request_through(MetadataRequest::default(), v, view!(Request::Metadata, m => m.topics.is_none()));
    assert_eq!([0, 1, 9].map(topics), [false, true, true]);
    let asked = MetadataRequest { topics: Some(vec![MetadataRequestTopic::default()]), ..Default::default() };
    let name = |v| request_through(asked.clone(), v, view!(Request::Metadata, m => m.topics.is_some_and(|t| t[0].name.is_none())));
    assert_eq!([9, 10].map(name), [false, true]);

    let topics = |v| request_through(OffsetFetchRequest::default(), v, view!(Request::OffsetFetch, m => m.topics.is_none()));
    assert_eq!([1, 2, 7].map(topics), [false, true, true]);

    let gone = DeleteTopicsResponse { responses: vec![DeletableTopicResult::default()], ..Default::default() };
    let name = |v| response_through(gone.clone(), v, view!(Response::DeleteTopics, m => m.responses[0].name.is_none()));
    assert_eq!([1, 5, 6].map(name), [false, false, true]);

    let find =
        |v| response_through(FindCoordinatorResponse::default(), v, view!(Response::FindCoordinator, m => m.error_message.is_none()));
    assert_eq!([1, 3].map(find), [true, true]);

    let made = CreateTopicsResponse { topics: vec![CreatableTopicResult::default()], ..Default::default() };
    let configs = |v| response_through(made.clone(), v, view!(Response::CreateTopics, m => m.topics[0].configs.is_none()));
    assert_eq!([5, 7].map(configs), [true, true]);
}

#[test]
fn a_string_too_long_for_kafka_is_cut_between_characters_when_written_and_refused_when_read() {
    let text = "é".repeat(MAX_STRING);
    for version in [3, 4] {
        let response: Response = FindCoordinatorResponse {
            error_message: Some(text.clone()),
            coordinators: vec![Coordinator { error_message: Some(text.clone()), ..Default::default() }],
            ..Default::default()
        }
        .into();
        let frame = behind_length(&encode_response(&header(ApiKey::FindCoordinator, version), &response));
        let Ok((_, Response::FindCoordinator(read))) = decode_response(ApiKey::FindCoordinator, version, frame) else { panic!("not read") };
        let read = if version == 3 { read.error_message } else { read.coordinators[0].error_message.clone() };
        assert_eq!(read.map(|m| m.len()), Some(MAX_STRING - 1), "version {version}");
    }
    let mut frame = behind_length(&encode_request(&header(ApiKey::Heartbeat, 4), &HeartbeatRequest::default().into())).to_vec();
    let group_at = frame.len() - 8;
    assert_eq!(frame[group_at..], [1, 0, 0, 0, 0, 1, 0, 0]);
    let mut long = vec![0x81, 0x80, 0x02];
    long.extend(vec![b'g'; MAX_STRING + 1]);
    frame.splice(group_at..=group_at, long);
    let failure = decode_request(frame.into()).expect_err("32768 bytes are too many");
    assert_eq!(failure.reason, WireError { place: "HeartbeatRequest.group_id", fault: Fault::TooLong(MAX_STRING + 1) }.into());
}
