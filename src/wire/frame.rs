//! Whole frames: the headers of requests and responses, and the message behind them.
//!
//! Always: a frame that cannot be read is an error with as much of its header as was readable; a frame
//! that is written begins with its length. The limit on a frame's size is the caller's, who reads the
//! four length bytes. Called by `server` for every request, and by clients in tests.

use bytes::Bytes;

use super::api::{APIS, ApiKey, Request, Response};
use super::error::{DecodeFailure, FailureReason, Fault, WireError};
use super::error_code;
use super::messages::{ApiVersion, ApiVersionsResponse};
use super::read::{Reader, Shape};
use super::value::Wire;
use super::write::Writer;

/// What every request begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API's number, which may be one that is not served.
    pub api_key: i16,
    /// The version of the API.
    pub api_version: i16,
    /// Chosen by the client, repeated in the response.
    pub correlation_id: i32,
    /// The name the client gives itself.
    pub client_id: Option<String>,
}

/// The header's own strings keep their old two-byte lengths in every version.
const PLAIN: Shape = Shape { version: 0, flexible: false };

/// The shape of messages of this API and version.
pub(super) const fn shape(key: ApiKey, version: i16) -> Shape {
    Shape { version, flexible: key.api().is_flexible(version) }
}

/// Whether a response carries tagged fields in its header. ApiVersions never does: the client that
/// reads it does not know yet what the broker speaks (KIP-511).
fn response_header_is_flexible(key: ApiKey, version: i16) -> bool {
    key != ApiKey::ApiVersions && key.api().is_flexible(version)
}

/// Reads a request, without the four length bytes. Records stay slices of `frame`. Bytes behind the
/// message are ignored, as Kafka does.
pub fn decode_request(frame: Bytes) -> Result<(RequestHeader, Request), DecodeFailure> {
    let mut from = Reader::new(frame, PLAIN);
    let mut header = RequestHeader::default();
    if let Err(e) = read_numbers(&mut from, &mut header) {
        return Err(DecodeFailure { header: None, reason: e.at("RequestHeader").into() });
    }
    let client_id = Option::<String>::read(&mut from, true).map(|id| header.client_id = id);
    let request = read_body(&mut from, &header, client_id);
    match request {
        Ok(request) => Ok((header, request)),
        Err(reason) => Err(DecodeFailure { header: Some(header), reason }),
    }
}

fn read_numbers(from: &mut Reader, header: &mut RequestHeader) -> Result<(), WireError> {
    header.api_key = i16::read(from, false)?;
    header.api_version = i16::read(from, false)?;
    header.correlation_id = i32::read(from, false)?;
    Ok(())
}

/// What follows the client id. Key and version are judged first, since an API we do not know may have
/// another header.
fn read_body(from: &mut Reader, header: &RequestHeader, client_id: Result<(), WireError>) -> Result<Request, FailureReason> {
    let (key, version) = (header.api_key, header.api_version);
    let Some(api_key) = ApiKey::from_code(key) else {
        return Err(FailureReason::UnknownApi { key });
    };
    if !api_key.api().serves(version) {
        return Err(FailureReason::UnsupportedVersion { key, version });
    }
    client_id.map_err(|e| e.at("RequestHeader.client_id"))?;
    from.shape = shape(api_key, version);
    if from.shape.flexible {
        from.tags(|_, _| Ok(false))?;
    }
    Ok(Request::read(api_key, from)?)
}

/// Reads a response to a request of this API and version, without the four length bytes: its
/// correlation id and the message.
pub fn decode_response(key: ApiKey, version: i16, frame: Bytes) -> Result<(i32, Response), WireError> {
    if !key.api().serves(version) {
        return Err(WireError { place: "response", fault: Fault::UnknownApi { key: key.code(), version } });
    }
    let mut from = Reader::new(frame, PLAIN);
    let correlation_id = i32::read(&mut from, false).map_err(|e| e.at("ResponseHeader.correlation_id"))?;
    from.shape = shape(key, version);
    if response_header_is_flexible(key, version) {
        from.tags(|_, _| Ok(false))?;
    }
    Ok((correlation_id, Response::read(key, &mut from)?))
}

/// Writes a request as a frame with its length in front. The header's key and version decide the
/// layout; the key is taken from the request itself.
#[must_use]
pub fn encode_request(header: &RequestHeader, request: &Request) -> Bytes {
    let key = request.key();
    let mut to = Writer::frame(PLAIN);
    key.code().write(&mut to, false);
    header.api_version.write(&mut to, false);
    header.correlation_id.write(&mut to, false);
    header.client_id.write(&mut to, true);
    to.shape = shape(key, header.api_version);
    if to.shape.flexible {
        to.unsigned_varint(0);
    }
    request.write(&mut to);
    join(to.finish())
}

/// Writes the response to the request of `header` as a frame with its length in front, in one piece.
/// Copies record data: for answers to Fetch use [`encode_response_chunks`].
#[must_use]
pub fn encode_response(header: &RequestHeader, response: &Response) -> Bytes {
    join(encode_response_chunks(header, response))
}

/// Writes the response to the request of `header` as pieces for a vectored write, its length in front.
/// Record data is shared and not copied (pieces of a few bytes aside).
#[must_use]
pub fn encode_response_chunks(header: &RequestHeader, response: &Response) -> Vec<Bytes> {
    let (key, version) = (response.key(), header.api_version);
    let mut to = Writer::frame(shape(key, version));
    header.correlation_id.write(&mut to, false);
    if response_header_is_flexible(key, version) {
        to.unsigned_varint(0);
    }
    response.write(&mut to);
    to.finish()
}

fn join(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        1 => pieces.remove(0),
        _ => pieces.concat().into(),
    }
}

/// What ApiVersions answers: every line of [`APIS`] with its advertised range.
#[must_use]
pub fn api_versions() -> Vec<ApiVersion> {
    APIS.iter().map(|api| ApiVersion { api_key: api.key.code(), min_version: api.advertised_min, max_version: api.max }).collect()
}

/// The frame that answers an ApiVersions request of a version we do not speak: layout of version 0,
/// UNSUPPORTED_VERSION, and the range of ApiVersions itself, from which the client picks another
/// (KIP-511).
#[must_use]
pub fn unsupported_api_versions(header: &RequestHeader) -> Bytes {
    let mut api_keys = api_versions();
    api_keys.retain(|api| api.api_key == ApiKey::ApiVersions.code());
    let response = ApiVersionsResponse { error_code: error_code::UNSUPPORTED_VERSION, api_keys, ..Default::default() };
    let header = RequestHeader { api_version: 0, ..header.clone() };
    encode_response(&header, &response.into())
}
