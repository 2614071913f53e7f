//! The codec against itself, against an independent implementation, and against hostile bytes.

mod chance;
mod golden;
mod hostile;
mod oracle;
mod round_trip;
mod tree;

pub use chance::Chance;

use super::frame::shape;
use super::{APIS, ApiKey, Request, RequestHeader, Response, encode_request, encode_response};
use bytes::Bytes;

/// Every API in every version that is served.
fn every_version() -> impl Iterator<Item = (ApiKey, i16)> {
    APIS.iter().flat_map(|api| (api.min..=api.max).map(|version| (api.key, version)))
}

fn header(key: ApiKey, version: i16) -> RequestHeader {
    RequestHeader { api_key: key.code(), api_version: version, correlation_id: 0x0102_0304, client_id: Some("probe".to_owned()) }
}

/// A random request as the frame behind its length bytes.
fn request_frame(key: ApiKey, version: i16, chance: &mut Chance) -> (RequestHeader, Request, Bytes) {
    let header = header(key, version);
    let request = Request::sample(key, chance, shape(key, version));
    let frame = encode_request(&header, &request);
    (header, request, behind_length(&frame))
}

/// A random response as the frame behind its length bytes.
fn response_frame(key: ApiKey, version: i16, chance: &mut Chance) -> (RequestHeader, Response, Bytes) {
    let header = header(key, version);
    let response = Response::sample(key, chance, shape(key, version));
    let frame = encode_response(&header, &response);
    (header, response, behind_length(&frame))
}

/// Checks the length in front and takes it off.
fn behind_length(frame: &Bytes) -> Bytes {
    let length = u32::from_be_bytes(frame[..4].try_into().expect("four bytes"));
    assert_eq!(length as usize, frame.len() - 4, "the frame's length is what its first bytes say");
    frame.slice(4..)
}
