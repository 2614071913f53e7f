//! What the broker can answer that is not success, each with the Kafka error a client is told.

use crate::log::LogError;
use crate::record::{TopicName, TopicPartition};
use crate::wire::error_code;

/// What to do where one node is not enough.
pub const MORE_NODES: &str = "To have copies on several machines, run VitalSQL over Apache Kafka.";

/// Why the broker did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// There is no such topic, or no such partition in it.
    #[error("there is no topic or partition {0}")]
    UnknownPartition(TopicPartition),
    /// There is no such topic.
    #[error("there is no topic \"{0}\"")]
    UnknownTopic(TopicName),
    /// A topic of that name exists.
    #[error("topic \"{0}\" already exists")]
    TopicExists(TopicName),
    /// The name is not one a client may use.
    #[error("{0}")]
    InvalidTopic(String),
    /// The partition count cannot be.
    #[error("{0}")]
    InvalidPartitions(String),
    /// There is one node, so there is one replica.
    #[error("replication factor {0}: this is one node, so 1 (or -1, the default) is what there is. {MORE_NODES}")]
    InvalidReplicationFactor(i16),
    /// A setting's name or value is wrong.
    #[error("{0}")]
    InvalidConfig(String),
    /// The request makes no sense as a whole.
    #[error("{0}")]
    InvalidRequest(String),
    /// The log cannot do it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What an internal topic holds cannot be read.
    #[error("internal topic {topic} cannot be read: {why}")]
    Internal {
        /// Which.
        topic: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl BrokerError {
    /// Kafka's code for it.
    #[must_use]
    pub fn code(&self) -> i16 {
        match self {
            Self::UnknownPartition(_) | Self::UnknownTopic(_) => error_code::UNKNOWN_TOPIC_OR_PARTITION,
            Self::TopicExists(_) => error_code::TOPIC_ALREADY_EXISTS,
            Self::InvalidTopic(_) => error_code::INVALID_TOPIC_EXCEPTION,
            Self::InvalidPartitions(_) => error_code::INVALID_PARTITIONS,
            Self::InvalidReplicationFactor(_) => error_code::INVALID_REPLICATION_FACTOR,
            Self::InvalidConfig(_) => error_code::INVALID_CONFIG,
            Self::InvalidRequest(_) => error_code::INVALID_REQUEST,
            Self::Log(error) => log_code(error),
            Self::Internal { .. } => error_code::UNKNOWN_SERVER_ERROR,
        }
    }
}

/// What a client is told where the log says no. Storage errors are retriable for a client.
#[must_use]
pub fn log_code(error: &LogError) -> i16 {
    match error {
        LogError::OutOfRange { .. } => error_code::OFFSET_OUT_OF_RANGE,
        _ => error_code::KAFKA_STORAGE_ERROR,
    }
}
