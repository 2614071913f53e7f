//! What can be wrong with bytes that claim to be a Kafka message.
//!
//! Always says where (the message and field of the table) and what. Never holds the bytes themselves,
//! which may be a patient's. Made by the readers of this room, judged by `server`.

use super::frame::RequestHeader;

/// A message that cannot be read: the field it failed in, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct WireError {
    /// Message and field, such as `ProduceRequest.topics`.
    pub place: &'static str,
    /// What is wrong there.
    pub fault: Fault,
}

/// The ways in which bytes can fail to be a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes end inside the value.
    #[error("needs {needed} bytes where {left} are left")]
    Short {
        /// Bytes the value takes.
        needed: usize,
        /// Bytes that remain.
        left: usize,
    },
    /// An array claims more elements than could fit into what remains.
    #[error("claims {claimed} elements where {left} bytes are left")]
    Count {
        /// Elements claimed.
        claimed: u64,
        /// Bytes that remain.
        left: usize,
    },
    /// A length or count below the -1 that stands for null.
    #[error("has the negative length {0}")]
    Negative(i64),
    /// Null where this version of the field has no null.
    #[error("is null where null is not allowed")]
    Null,
    /// A byte that should say whether a struct is there, and says neither.
    #[error("says by {0} whether it is there, where 1 and -1 can be said")]
    Presence(i8),
    /// A string above Kafka's 32,767 bytes.
    #[error("is a string of {0} bytes, more than 32767")]
    TooLong(usize),
    /// A string that is not UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
    /// A variable-length integer of more than 32 bits.
    #[error("is a variable-length integer of more than 32 bits")]
    Varint,
    /// A tagged field whose declared size is not the size of its value.
    #[error("is a tagged field whose size is off by {0} bytes")]
    TagSize(usize),
    /// Decoding on would take more memory than any honest message needs.
    #[error("has more elements than a message may have")]
    TooManyElements,
    /// An API this node does not know, in a place where that cannot be answered.
    #[error("names api {key} version {version}, which is not known here")]
    UnknownApi {
        /// The API's number.
        key: i16,
        /// The version asked for.
        version: i16,
    },
}

impl WireError {
    /// A fault whose place is not known yet.
    pub(super) const fn new(fault: Fault) -> Self {
        Self { place: "", fault }
    }

    /// Notes the place, unless a field further in has done so.
    pub(super) fn at(mut self, place: &'static str) -> Self {
        if self.place.is_empty() {
            self.place = place;
        }
        self
    }
}

impl From<Fault> for WireError {
    fn from(fault: Fault) -> Self {
        Self::new(fault)
    }
}

/// A request that cannot be served, with its header where that much could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not read a request: {reason}")]
pub struct DecodeFailure {
    /// The header, or as much of it as there was (`client_id` may be missing); `None` when not even
    /// key, version and correlation id were there.
    pub header: Option<RequestHeader>,
    /// Why, and so what to do: Kafka closes the connection in every case but an ApiVersions request of
    /// an unsupported version, which [`unsupported_api_versions`](super::unsupported_api_versions)
    /// answers.
    pub reason: FailureReason,
}

/// Why a request cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailureReason {
    /// The API is not one of [`APIS`](super::APIS).
    #[error("api {key} is not served")]
    UnknownApi {
        /// The API's number.
        key: i16,
    },
    /// The API is served, this version of it is not.
    #[error("version {version} of api {key} is not served")]
    UnsupportedVersion {
        /// The API's number.
        key: i16,
        /// The version asked for.
        version: i16,
    },
    /// The bytes are not a message of this API and version.
    #[error("malformed: {0}")]
    Malformed(#[from] WireError),
}
