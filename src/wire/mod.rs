//! Kafka messages to and from bytes, from one declarative table.
//!
//! Owns the layout of every message the node speaks: each is a plain struct, described once with the
//! versions of its fields (in `messages`, in the language of `table`), and the description gives both
//! directions, so that the server reads requests and a client reads responses with the same
//! text. [`APIS`] is the list of what is served and in which versions; ApiVersions answers from it and
//! [`decode_request`] refuses by it.
//!
//! Always: a count or a length from outside is compared with the bytes that remain before anything is
//! allocated, elements are charged to a budget, nothing recurses deeper than the table does, and bytes
//! that make no sense are an error that says where. Record data is never copied on the way in (slices
//! of the frame) nor, by [`encode_response_chunks`], on the way out.
//!
//! Facts about the layouts come from Apache Kafka's message definitions (Apache-2.0); the tests compare
//! every API and version with an independent implementation. Called by `server`, `broker`, and tests.

#[macro_use]
mod table;

mod api;
mod error;
pub mod error_code;
mod frame;
mod messages;
mod read;
mod stored;
mod supported;
#[cfg(test)]
mod tests;
mod value;
mod write;

pub use api::{APIS, Api, ApiKey, Request, Response};
pub use error::{DecodeFailure, FailureReason, Fault, WireError};
pub use frame::{
    RequestHeader, api_versions, decode_request, decode_response, encode_request, encode_response, encode_response_chunks,
    unsupported_api_versions,
};
pub use messages::*;
pub use stored::{read_stored, write_stored};
pub use supported::supported_apis;
pub use value::{MAX_STRING, RecordsOut, Wire};
