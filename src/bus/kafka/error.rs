//! What librdkafka's errors mean to the engine.
//!
//! Always: what trying again can mend is `Retriable`; what somebody has to act on says what and where; no text carries a
//! setting's value or a record. Called by the other files of this folder.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::bus::BusError;

/// Whether the error says that the topic or the partition is not there.
pub(super) fn is_missing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId)
    )
}

/// The error of what was tried.
pub(super) fn told(what: &str, error: &KafkaError) -> BusError {
    told_code(what, error.rdkafka_error_code(), &said(error))
}

/// As [`told`], from the code and a text.
pub(super) fn told_code(what: &str, code: Option<Code>, said: &str) -> BusError {
    let text = format!("{what}: {said}");
    match code {
        Some(Code::TopicAuthorizationFailed) => BusError::Invalid(format!("{text}. The cluster's access rules (ACLs) must allow it")),
        Some(Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::TransactionalIdAuthorizationFailed) => {
            BusError::Invalid(format!(
                "{text}. The cluster's access rules (ACLs) must allow the application id as a prefix of groups, transactional ids and topics"
            ))
        }
        Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) => {
            BusError::Invalid(format!("{text}. The topic's max.message.bytes is smaller than the record"))
        }
        Some(Code::InvalidTimestamp) => {
            BusError::Invalid(format!("{text}. The topic's message.timestamp.after.max.ms refuses a time ahead of the broker's clock"))
        }
        Some(
            Code::InvalidTopic
            | Code::PolicyViolation
            | Code::InvalidReplicationFactor
            | Code::InvalidConfig
            | Code::InvalidPartitions
            | Code::InvalidRequest
            | Code::UnsupportedVersion
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::Authentication,
        ) => BusError::Invalid(text),
        _ => BusError::Retriable(text),
    }
}

/// What an error says, without the value of a setting, which may be a password, and with what to do where this build has no OpenSSL.
pub(super) fn said(error: &KafkaError) -> String {
    let said = match error {
        KafkaError::ClientConfig(_, why, key, _) => format!("setting {key}: {why}"),
        KafkaError::Transaction(error) => error.string(),
        _ => match error.rdkafka_error_code() {
            Some(code) => code.to_string(),
            None => error.to_string(),
        },
    };
    if !cfg!(feature = "kafka-tls") && said.to_ascii_lowercase().contains("openssl") {
        return format!(
            "{said}. TLS and SCRAM to a Kafka cluster need a build with cargo's feature `kafka-tls` (cargo build --release --features kafka-tls)"
        );
    }
    said
}
