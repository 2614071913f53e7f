//! Bytes that mean harm, or nothing: an error, never a panic, never memory beyond what the frame earns.

use bytes::Bytes;

use super::super::read::ELEMENT_BUDGET;
use super::super::*;
use super::{Chance, every_version, request_frame, response_frame};

fn fault(frame: &[u8]) -> WireError {
    match decode_request(Bytes::copy_from_slice(frame)).expect_err("the frame is broken").reason {
        FailureReason::Malformed(e) => e,
        other => panic!("{other}"),
    }
}

#[test]
fn a_metadata_body_that_claims_two_thousand_million_topics_is_refused() {
    let e = fault(b"\0\x03\0\x01\0\0\0\x01\xff\xff\x7f\xff\xff\xff");
    assert_eq!(e.to_string(), "MetadataRequest.topics: claims 2147483647 elements where 0 bytes are left");
    let e = fault(b"\0\x03\0\x09\0\0\0\x01\xff\xff\0\xff\xff\xff\xff\x0f\0\0\0\0");
    assert_eq!(e.to_string(), "MetadataRequest.topics: claims 4294967294 elements where 4 bytes are left");
}

#[test]
fn lengths_that_make_no_sense_say_so() {
    assert_eq!(fault(b"\0\x03\0\x01\0\0\0\x01\xff\xff\xff\xff\xff\xfe").fault, Fault::Negative(-2));
    assert_eq!(fault(b"\0\x03\0\0\0\0\0\x01\xff\xff\xff\xff\xff\xff").fault, Fault::Null);
    assert_eq!(fault(b"\0\x03\0\x09\0\0\0\x01\xff\xff\0\xff\xff\xff\xff\x1f").fault, Fault::Varint);
    assert_eq!(fault(b"\0\x03\0\x09\0\0\0\x01\xff\xff\0\x80\x80\x80\x80\x80\x01").fault, Fault::Varint);
    assert_eq!(fault(b"\0\x0c\0\0\0\0\0\x01\xff\xff\0\x02\xff\xfe").fault, Fault::NotUtf8);
    assert_eq!(fault(b"\0\x03\0\x01\0\0\0\x01\xff\xfe").place, "RequestHeader.client_id");
    let short = decode_request(Bytes::from_static(b"\0\x03\0\x01\0\0\0")).expect_err("too short");
    assert_eq!(short.header, None);
    // A tagged field of known tag and wrong size: Fetch 12, cluster_id.
    let mut fetch = Vec::from(b"\0\x01\0\x0c\0\0\0\x01\xff\xff\0");
    fetch.extend([0; 25]);
    fetch.extend([1, 1, 1, 1, 0, 5, 2, b'c', 0, 0, 0]);
    assert_eq!(fault(&fetch).fault, Fault::TagSize(3));
}

#[test]
fn a_frame_of_nothing_but_smallest_elements_stops_at_the_budget() {
    let size = size_of::<MetadataRequestTopic>();
    let frame = |count: usize| {
        let mut frame = Vec::from(b"\0\x03\0\x01\0\0\0\x01\xff\xff");
        frame.extend(u32::try_from(count).expect("small").to_be_bytes());
        frame.resize(frame.len() + 2 * count, 0);
        frame
    };
    assert!(decode_request(frame(ELEMENT_BUDGET / size).into()).is_ok());
    assert_eq!(fault(&frame(ELEMENT_BUDGET / size + 1)).fault, Fault::TooManyElements);
}

#[test]
fn a_message_cut_anywhere_is_an_error() {
    for (key, version) in every_version() {
        for seed in 0..4 {
            let (_, _, frame) = request_frame(key, version, &mut Chance(seed));
            for length in 0..frame.len() {
                assert!(decode_request(frame.slice(..length)).is_err(), "{key:?} v{version} seed {seed} cut at {length}");
            }
            let (_, _, frame) = response_frame(key, version, &mut Chance(seed));
            for length in 0..frame.len() {
                assert!(decode_response(key, version, frame.slice(..length)).is_err(), "{key:?} v{version} seed {seed} cut at {length}");
            }
        }
    }
}

#[test]
fn a_huge_count_at_any_place_of_any_message_is_survived() {
    for (key, version) in every_version() {
        let (_, _, frame) = request_frame(key, version, &mut Chance(3));
        for at in 8..frame.len() {
            for huge in [&b"\x7f\xff\xff\xff"[..], b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\x0f", b"\x80\0\0\0", b"\x7f\xff"] {
                let mut bytes = frame.to_vec();
                let end = (at + huge.len()).min(bytes.len());
                bytes.splice(at..end, huge.iter().copied());
                let _ = decode_request(bytes.into());
            }
        }
    }
}

#[test]
fn two_hundred_thousand_random_frames_are_survived() {
    let versions: Vec<_> = every_version().collect();
    let mut chance = Chance(2026);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..100_000 {
        // Noise behind a good header, rich in zeros so that it gets somewhere.
        let (key, version) = versions[chance.below(versions.len())];
        let mut frame = [key.code().to_be_bytes(), version.to_be_bytes()].concat();
        frame.extend(b"\0\0\0\x01\0\x01c");
        let length = chance.below(120);
        frame.extend((0..length).map(|_| if chance.one_in(2) { chance.below(4) as u8 } else { chance.word() as u8 }));
        match decode_request(frame.into()) {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
        // A good frame with some bytes changed.
        let (key, version) = versions[chance.below(versions.len())];
        let (_, _, frame) = request_frame(key, version, &mut chance);
        let mut frame = frame.to_vec();
        for _ in 0..=chance.below(4) {
            let at = chance.below(frame.len());
            frame[at] = chance.word() as u8;
        }
        match decode_request(frame.into()) {
            Ok((_, request)) => assert!(request.key().code() >= 0),
            Err(failure) => assert!(!failure.to_string().is_empty()),
        }
    }
    assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused: the noise reaches both");
}

#[test]
fn random_responses_are_survived() {
    let versions: Vec<_> = every_version().collect();
    let mut chance = Chance(7);
    for _ in 0..30_000 {
        let (key, version) = versions[chance.below(versions.len())];
        let (_, _, frame) = response_frame(key, version, &mut chance);
        let mut frame = frame.to_vec();
        for _ in 0..=chance.below(4) {
            let at = chance.below(frame.len());
            frame[at] = chance.word() as u8;
        }
        let _ = decode_response(key, version, frame.into());
    }
}
