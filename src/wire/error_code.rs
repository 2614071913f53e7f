//! Kafka's error codes, by Kafka's names and numbers.
//!
//! The numbers are the protocol's (`Errors` of Apache Kafka); the sentences say what they mean here.
//! Used wherever an answer to a Kafka client is made.

/// The codes, their names, and whether a client may simply try again.
macro_rules! codes {
    ($( $(#[$doc:meta])* $name:ident = $code:literal $(, $retriable:ident)?; )+) => {
        $( $(#[$doc])* pub const $name: i16 = $code; )+

        /// Kafka's name of a code, for logs and messages.
        #[must_use]
        pub const fn name(code: i16) -> &'static str {
            match code {
                $( $name => stringify!($name), )+
                _ => "UNKNOWN",
            }
        }

        /// Whether the same request may succeed later.
        #[must_use]
        pub const fn is_retriable(code: i16) -> bool {
            match code {
                $( $name => codes!(@retriable $($retriable)?), )+
                _ => false,
            }
        }
    };
    (@retriable) => { false };
    (@retriable retriable) => { true };
}

codes! {
    /// Something went wrong in the broker that has no better name.
    UNKNOWN_SERVER_ERROR = -1;
    /// All is well.
    NONE = 0;
    /// The offset lies outside what the partition holds.
    OFFSET_OUT_OF_RANGE = 1;
    /// A batch fails its checksum or cannot be one.
    CORRUPT_MESSAGE = 2, retriable;
    /// No such topic or partition here.
    UNKNOWN_TOPIC_OR_PARTITION = 3, retriable;
    /// The fetch size makes no sense.
    INVALID_FETCH_SIZE = 4;
    /// The partition has no leader right now.
    LEADER_NOT_AVAILABLE = 5, retriable;
    /// This broker does not lead the partition.
    NOT_LEADER_OR_FOLLOWER = 6, retriable;
    /// The time allowed for the request has passed.
    REQUEST_TIMED_OUT = 7, retriable;
    /// The broker is not there.
    BROKER_NOT_AVAILABLE = 8;
    /// The replica is not there.
    REPLICA_NOT_AVAILABLE = 9, retriable;
    /// The batch is larger than the topic allows.
    MESSAGE_TOO_LARGE = 10;
    /// The controller has moved on.
    STALE_CONTROLLER_EPOCH = 11;
    /// The metadata of a committed offset is too long.
    OFFSET_METADATA_TOO_LARGE = 12;
    /// The connection broke before the answer.
    NETWORK_EXCEPTION = 13, retriable;
    /// The coordinator still reads its state.
    COORDINATOR_LOAD_IN_PROGRESS = 14, retriable;
    /// There is no coordinator right now.
    COORDINATOR_NOT_AVAILABLE = 15, retriable;
    /// Another broker coordinates this group.
    NOT_COORDINATOR = 16, retriable;
    /// The name is not one a topic can have, or the topic may not be used so.
    INVALID_TOPIC_EXCEPTION = 17;
    /// The batch is larger than a segment.
    RECORD_LIST_TOO_LARGE = 18;
    /// Too few replicas are in step to accept the write.
    NOT_ENOUGH_REPLICAS = 19, retriable;
    /// The write was accepted, then too few replicas were in step.
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20, retriable;
    /// acks is none of -1, 0 and 1.
    INVALID_REQUIRED_ACKS = 21;
    /// The generation is not the group's current one.
    ILLEGAL_GENERATION = 22;
    /// No protocol is spoken by all members.
    INCONSISTENT_GROUP_PROTOCOL = 23;
    /// The group's name is not valid.
    INVALID_GROUP_ID = 24;
    /// The group has no such member.
    UNKNOWN_MEMBER_ID = 25;
    /// The session timeout is outside the broker's bounds.
    INVALID_SESSION_TIMEOUT = 26;
    /// The group is rebalancing: join again.
    REBALANCE_IN_PROGRESS = 27;
    /// The offsets to commit are too large.
    INVALID_COMMIT_OFFSET_SIZE = 28;
    /// The principal may not do this to the topic.
    TOPIC_AUTHORIZATION_FAILED = 29;
    /// The principal may not do this to the group.
    GROUP_AUTHORIZATION_FAILED = 30;
    /// The principal may not do this to the cluster.
    CLUSTER_AUTHORIZATION_FAILED = 31;
    /// A record's timestamp is outside the allowed window.
    INVALID_TIMESTAMP = 32;
    /// The SASL mechanism is not offered.
    UNSUPPORTED_SASL_MECHANISM = 33;
    /// The request does not fit the state of the SASL exchange.
    ILLEGAL_SASL_STATE = 34;
    /// The version of the API is not served.
    UNSUPPORTED_VERSION = 35;
    /// A topic of this name exists.
    TOPIC_ALREADY_EXISTS = 36;
    /// The number of partitions is not valid.
    INVALID_PARTITIONS = 37;
    /// The replication factor is not valid.
    INVALID_REPLICATION_FACTOR = 38;
    /// The replica assignment is not valid.
    INVALID_REPLICA_ASSIGNMENT = 39;
    /// A setting or its value is not valid.
    INVALID_CONFIG = 40;
    /// This broker is not the controller.
    NOT_CONTROLLER = 41, retriable;
    /// The request contradicts itself or breaks a rule.
    INVALID_REQUEST = 42;
    /// The format of the records cannot do this.
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43;
    /// A policy forbids it.
    POLICY_VIOLATION = 44;
    /// A producer's sequence number skips ahead.
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45;
    /// A producer's sequence number was seen before.
    DUPLICATE_SEQUENCE_NUMBER = 46;
    /// A producer's epoch is an old one.
    INVALID_PRODUCER_EPOCH = 47;
    /// The transaction is not in a state for this.
    INVALID_TXN_STATE = 48;
    /// The producer id does not belong to the transactional id.
    INVALID_PRODUCER_ID_MAPPING = 49;
    /// The transaction timeout is above the broker's limit.
    INVALID_TRANSACTION_TIMEOUT = 50;
    /// Another change to the transaction is under way.
    CONCURRENT_TRANSACTIONS = 51;
    /// The transaction coordinator is an old one.
    TRANSACTION_COORDINATOR_FENCED = 52;
    /// The principal may not use the transactional id.
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53;
    /// Security is switched off.
    SECURITY_DISABLED = 54;
    /// Not tried, because another part of the request failed.
    OPERATION_NOT_ATTEMPTED = 55;
    /// The broker could not store the data: the disk failed or is full.
    KAFKA_STORAGE_ERROR = 56, retriable;
    /// There is no such log directory.
    LOG_DIR_NOT_FOUND = 57;
    /// The SASL authentication failed.
    SASL_AUTHENTICATION_FAILED = 58;
    /// The producer id is not known, perhaps expired.
    UNKNOWN_PRODUCER_ID = 59;
    /// The partition is being moved.
    REASSIGNMENT_IN_PROGRESS = 60;
    /// Delegation tokens are switched off.
    DELEGATION_TOKEN_AUTH_DISABLED = 61;
    /// There is no such delegation token.
    DELEGATION_TOKEN_NOT_FOUND = 62;
    /// The delegation token belongs to someone else.
    DELEGATION_TOKEN_OWNER_MISMATCH = 63;
    /// Delegation tokens may not be asked for here.
    DELEGATION_TOKEN_REQUEST_NOT_ALLOWED = 64;
    /// The principal may not do this to the delegation token.
    DELEGATION_TOKEN_AUTHORIZATION_FAILED = 65;
    /// The delegation token has expired.
    DELEGATION_TOKEN_EXPIRED = 66;
    /// The kind of principal is not known.
    INVALID_PRINCIPAL_TYPE = 67;
    /// The group still has members.
    NON_EMPTY_GROUP = 68;
    /// There is no such group.
    GROUP_ID_NOT_FOUND = 69;
    /// There is no such fetch session.
    FETCH_SESSION_ID_NOT_FOUND = 70, retriable;
    /// The fetch session's epoch is not the expected one.
    INVALID_FETCH_SESSION_EPOCH = 71, retriable;
    /// The leader has no listener of the name the client came by.
    LISTENER_NOT_FOUND = 72, retriable;
    /// Deleting topics is switched off.
    TOPIC_DELETION_DISABLED = 73;
    /// The client's leader epoch is older than the broker's.
    FENCED_LEADER_EPOCH = 74, retriable;
    /// The client's leader epoch is newer than the broker's.
    UNKNOWN_LEADER_EPOCH = 75, retriable;
    /// The compression codec is not supported here.
    UNSUPPORTED_COMPRESSION_TYPE = 76;
    /// The broker's epoch is an old one.
    STALE_BROKER_EPOCH = 77;
    /// The offset is not known yet, right after an election.
    OFFSET_NOT_AVAILABLE = 78, retriable;
    /// Join again with the member id in this answer.
    MEMBER_ID_REQUIRED = 79;
    /// The preferred leader is not there.
    PREFERRED_LEADER_NOT_AVAILABLE = 80, retriable;
    /// The group has as many members as it may have.
    GROUP_MAX_SIZE_REACHED = 81;
    /// Another member has taken over this static identity.
    FENCED_INSTANCE_ID = 82;
    /// No replica is fit to lead.
    ELIGIBLE_LEADERS_NOT_AVAILABLE = 83, retriable;
    /// There is nothing to elect.
    ELECTION_NOT_NEEDED = 84, retriable;
    /// No partition is being moved.
    NO_REASSIGNMENT_IN_PROGRESS = 85;
    /// Members of the group are subscribed to the topic.
    GROUP_SUBSCRIBED_TO_TOPIC = 86;
    /// A record breaks a rule of the broker or topic.
    INVALID_RECORD = 87;
    /// Offsets of an open transaction are not settled yet.
    UNSTABLE_OFFSET_COMMIT = 88, retriable;
    /// The quota of the operation is used up for now.
    THROTTLING_QUOTA_EXCEEDED = 89, retriable;
    /// A newer producer has taken over.
    PRODUCER_FENCED = 90;
    /// There is no such resource.
    RESOURCE_NOT_FOUND = 91;
    /// The resource is named twice or exists.
    DUPLICATE_RESOURCE = 92;
    /// The credential does not meet the rules.
    UNACCEPTABLE_CREDENTIAL = 93;
    /// The set of voters does not agree.
    INCONSISTENT_VOTER_SET = 94;
    /// The version to update to is not valid.
    INVALID_UPDATE_VERSION = 95;
    /// The feature could not be updated.
    FEATURE_UPDATE_FAILED = 96;
    /// The principal could not be read.
    PRINCIPAL_DESERIALIZATION_FAILURE = 97;
    /// There is no such snapshot.
    SNAPSHOT_NOT_FOUND = 98;
    /// The position is outside the snapshot.
    POSITION_OUT_OF_RANGE = 99;
    /// There is no topic of this id.
    UNKNOWN_TOPIC_ID = 100, retriable;
    /// The broker id is taken.
    DUPLICATE_BROKER_REGISTRATION = 101;
    /// The broker id is not registered.
    BROKER_ID_NOT_REGISTERED = 102;
    /// The topic's id does not fit its name in the log.
    INCONSISTENT_TOPIC_ID = 103, retriable;
    /// The cluster's id is another one.
    INCONSISTENT_CLUSTER_ID = 104;
    /// There is no such transactional id.
    TRANSACTIONAL_ID_NOT_FOUND = 105;
    /// The fetch session knows topics by another kind of id.
    FETCH_SESSION_TOPIC_ID_ERROR = 106, retriable;
    /// The replica may not be in step.
    INELIGIBLE_REPLICA = 107;
    /// A new leader has been elected.
    NEW_LEADER_ELECTED = 108;
    /// The offset has moved to tiered storage.
    OFFSET_MOVED_TO_TIERED_STORAGE = 109;
    /// The member's epoch is an old one: join again.
    FENCED_MEMBER_EPOCH = 110;
    /// The static identity is still held by another member.
    UNRELEASED_INSTANCE_ID = 111;
    /// No member and no broker knows the assignor.
    UNSUPPORTED_ASSIGNOR = 112;
    /// The member's epoch is behind: heartbeat, then try again.
    STALE_MEMBER_EPOCH = 113;
    /// The endpoint is of the other kind (broker or controller).
    MISMATCHED_ENDPOINT_TYPE = 114;
    /// The kind of endpoint is not supported.
    UNSUPPORTED_ENDPOINT_TYPE = 115;
    /// There is no controller of this id.
    UNKNOWN_CONTROLLER_ID = 116;
    /// There is no such telemetry subscription.
    UNKNOWN_SUBSCRIPTION_ID = 117;
    /// The telemetry is too large.
    TELEMETRY_TOO_LARGE = 118;
    /// The registration is not valid.
    INVALID_REGISTRATION = 119;
    /// The transaction can only be aborted.
    TRANSACTION_ABORTABLE = 120;
    /// The record is not in a state for this acknowledgement.
    INVALID_RECORD_STATE = 121;
    /// There is no such share session.
    SHARE_SESSION_NOT_FOUND = 122, retriable;
    /// The share session's epoch is not the expected one.
    INVALID_SHARE_SESSION_EPOCH = 123, retriable;
    /// The share coordinator's state epoch is an old one.
    FENCED_STATE_EPOCH = 124;
    /// The voter's key is not the expected one.
    INVALID_VOTER_KEY = 125;
    /// The voter is in the set already.
    DUPLICATE_VOTER = 126;
    /// The voter is not in the set.
    VOTER_NOT_FOUND = 127;
    /// The regular expression is not valid.
    INVALID_REGULAR_EXPRESSION = 128;
    /// The client should bootstrap again.
    REBOOTSTRAP_REQUIRED = 129;
}
