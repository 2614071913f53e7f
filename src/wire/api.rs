//! Which APIs are served, in which versions, and which message belongs to which.
//!
//! Always: every version between `min` and `max` is read and written by the table in `messages`, and
//! nothing outside is advertised, Produce aside. The ranges follow what clients speak, from aiokafka
//! and librdkafka at the old end to platformatic at the new one. Called by `server` and `frame`.

use super::error::WireError;
use super::messages::*;
use super::read::Reader;
#[cfg(test)]
use super::read::Shape;
use super::value::Wire;
use super::write::Writer;

/// One line of [`APIS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// The API.
    pub key: ApiKey,
    /// Kafka's name for it.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// The oldest version that is served.
    pub min: i16,
    /// The newest version that is served.
    pub max: i16,
    /// The oldest version that is advertised. Differs from `min` for Produce only: librdkafka takes a
    /// broker without Produce 0 for one that cannot decompress, and silently stops compressing
    /// (KAFKA-18659).
    pub advertised_min: i16,
    /// The version from which lengths are compact and structs end in tagged fields.
    pub flexible_from: i16,
}

impl Api {
    /// Whether requests of this version are served.
    #[must_use]
    pub const fn serves(&self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// Whether this version has compact lengths and tagged fields.
    #[must_use]
    pub const fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }
}

impl ApiKey {
    /// Kafka's number for it.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Kafka's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.api().name
    }
}

apis! {
    /// Appends record batches.
    0 Produce: ProduceRequest => ProduceResponse, serve [3, 13], advertise 0, flexible 9;
    /// Reads record batches.
    1 Fetch: FetchRequest => FetchResponse, serve [4, 18], advertise 4, flexible 12;
    /// Finds offsets by time, and the ends of partitions.
    2 ListOffsets: ListOffsetsRequest => ListOffsetsResponse, serve [1, 11], advertise 1, flexible 6;
    /// Tells topics, partitions and brokers.
    3 Metadata: MetadataRequest => MetadataResponse, serve [0, 13], advertise 0, flexible 9;
    /// Stores a group's positions.
    8 OffsetCommit: OffsetCommitRequest => OffsetCommitResponse, serve [2, 10], advertise 2, flexible 8;
    /// Reads a group's positions.
    9 OffsetFetch: OffsetFetchRequest => OffsetFetchResponse, serve [1, 10], advertise 1, flexible 6;
    /// Tells which broker coordinates a group or a transaction.
    10 FindCoordinator: FindCoordinatorRequest => FindCoordinatorResponse, serve [0, 6], advertise 0, flexible 3;
    /// Enters a consumer group.
    11 JoinGroup: JoinGroupRequest => JoinGroupResponse, serve [0, 9], advertise 0, flexible 6;
    /// Keeps a member alive.
    12 Heartbeat: HeartbeatRequest => HeartbeatResponse, serve [0, 4], advertise 0, flexible 4;
    /// Leaves a consumer group.
    13 LeaveGroup: LeaveGroupRequest => LeaveGroupResponse, serve [0, 5], advertise 0, flexible 4;
    /// Hands out a group's assignment.
    14 SyncGroup: SyncGroupRequest => SyncGroupResponse, serve [0, 5], advertise 0, flexible 4;
    /// Tells the state and members of groups.
    15 DescribeGroups: DescribeGroupsRequest => DescribeGroupsResponse, serve [0, 6], advertise 0, flexible 5;
    /// Lists groups.
    16 ListGroups: ListGroupsRequest => ListGroupsResponse, serve [0, 5], advertise 0, flexible 3;
    /// Chooses how to authenticate.
    17 SaslHandshake: SaslHandshakeRequest => SaslHandshakeResponse, serve [0, 1], advertise 0, flexible 2;
    /// Tells what is served.
    18 ApiVersions: ApiVersionsRequest => ApiVersionsResponse, serve [0, 4], advertise 0, flexible 3;
    /// Makes topics.
    19 CreateTopics: CreateTopicsRequest => CreateTopicsResponse, serve [2, 7], advertise 2, flexible 5;
    /// Removes topics.
    20 DeleteTopics: DeleteTopicsRequest => DeleteTopicsResponse, serve [1, 6], advertise 1, flexible 4;
    /// Moves the start of partitions forward.
    21 DeleteRecords: DeleteRecordsRequest => DeleteRecordsResponse, serve [0, 2], advertise 0, flexible 2;
    /// Gives an idempotent producer its identity.
    22 InitProducerId: InitProducerIdRequest => InitProducerIdResponse, serve [0, 5], advertise 0, flexible 2;
    /// Tells where a leader epoch ended.
    23 OffsetForLeaderEpoch: OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse, serve [2, 4], advertise 2, flexible 4;
    /// Takes partitions into a transaction.
    24 AddPartitionsToTxn: AddPartitionsToTxnRequest => AddPartitionsToTxnResponse, serve [0, 3], advertise 0, flexible 3;
    /// Takes a group's offsets into a transaction.
    25 AddOffsetsToTxn: AddOffsetsToTxnRequest => AddOffsetsToTxnResponse, serve [0, 4], advertise 0, flexible 3;
    /// Ends a transaction.
    26 EndTxn: EndTxnRequest => EndTxnResponse, serve [0, 4], advertise 0, flexible 3;
    /// Ends what a producer has open in partitions, past its coordinator.
    27 WriteTxnMarkers: WriteTxnMarkersRequest => WriteTxnMarkersResponse, serve [1, 1], advertise 1, flexible 1;
    /// Stores a group's positions when a transaction commits.
    28 TxnOffsetCommit: TxnOffsetCommitRequest => TxnOffsetCommitResponse, serve [0, 4], advertise 0, flexible 3;
    /// Tells access rules.
    29 DescribeAcls: DescribeAclsRequest => DescribeAclsResponse, serve [1, 3], advertise 1, flexible 2;
    /// Makes access rules.
    30 CreateAcls: CreateAclsRequest => CreateAclsResponse, serve [1, 3], advertise 1, flexible 2;
    /// Removes access rules.
    31 DeleteAcls: DeleteAclsRequest => DeleteAclsResponse, serve [1, 3], advertise 1, flexible 2;
    /// Reads the settings of topics and brokers.
    32 DescribeConfigs: DescribeConfigsRequest => DescribeConfigsResponse, serve [1, 4], advertise 1, flexible 4;
    /// Replaces the settings of topics, brokers and groups.
    33 AlterConfigs: AlterConfigsRequest => AlterConfigsResponse, serve [0, 2], advertise 0, flexible 2;
    /// Moves partitions between the directories of a broker.
    34 AlterReplicaLogDirs: AlterReplicaLogDirsRequest => AlterReplicaLogDirsResponse, serve [1, 2], advertise 1, flexible 2;
    /// Tells what lies in the directories of a broker.
    35 DescribeLogDirs: DescribeLogDirsRequest => DescribeLogDirsResponse, serve [1, 5], advertise 1, flexible 2;
    /// Authenticates.
    36 SaslAuthenticate: SaslAuthenticateRequest => SaslAuthenticateResponse, serve [0, 2], advertise 0, flexible 2;
    /// Adds partitions to topics.
    37 CreatePartitions: CreatePartitionsRequest => CreatePartitionsResponse, serve [0, 3], advertise 0, flexible 2;
    /// Removes groups.
    42 DeleteGroups: DeleteGroupsRequest => DeleteGroupsResponse, serve [0, 2], advertise 0, flexible 2;
    /// Elects leaders of partitions.
    43 ElectLeaders: ElectLeadersRequest => ElectLeadersResponse, serve [0, 2], advertise 0, flexible 2;
    /// Changes single settings of topics, brokers and groups.
    44 IncrementalAlterConfigs: IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse, serve [0, 1], advertise 0, flexible 1;
    /// Moves partitions between brokers.
    45 AlterPartitionReassignments: AlterPartitionReassignmentsRequest => AlterPartitionReassignmentsResponse, serve [0, 1], advertise 0, flexible 0;
    /// Tells which partitions are being moved.
    46 ListPartitionReassignments: ListPartitionReassignmentsRequest => ListPartitionReassignmentsResponse, serve [0, 0], advertise 0, flexible 0;
    /// Removes a group's positions.
    47 OffsetDelete: OffsetDeleteRequest => OffsetDeleteResponse, serve [0, 0], advertise 0, flexible 1;
    /// Tells the limits of clients.
    48 DescribeClientQuotas: DescribeClientQuotasRequest => DescribeClientQuotasResponse, serve [0, 1], advertise 0, flexible 1;
    /// Changes the limits of clients.
    49 AlterClientQuotas: AlterClientQuotasRequest => AlterClientQuotasResponse, serve [0, 1], advertise 0, flexible 1;
    /// Tells users who can authenticate with SCRAM.
    50 DescribeUserScramCredentials: DescribeUserScramCredentialsRequest => DescribeUserScramCredentialsResponse, serve [0, 0], advertise 0, flexible 0;
    /// Sets and removes users' SCRAM credentials.
    51 AlterUserScramCredentials: AlterUserScramCredentialsRequest => AlterUserScramCredentialsResponse, serve [0, 0], advertise 0, flexible 0;
    /// Tells who keeps the cluster's metadata.
    55 DescribeQuorum: DescribeQuorumRequest => DescribeQuorumResponse, serve [0, 2], advertise 0, flexible 0;
    /// Tells the brokers of the cluster.
    60 DescribeCluster: DescribeClusterRequest => DescribeClusterResponse, serve [0, 2], advertise 0, flexible 0;
    /// Tells who writes to partitions with a sequence.
    61 DescribeProducers: DescribeProducersRequest => DescribeProducersResponse, serve [0, 0], advertise 0, flexible 0;
    /// Tells what transactional ids are doing.
    65 DescribeTransactions: DescribeTransactionsRequest => DescribeTransactionsResponse, serve [0, 0], advertise 0, flexible 0;
    /// Lists transactional ids.
    66 ListTransactions: ListTransactionsRequest => ListTransactionsResponse, serve [0, 2], advertise 0, flexible 0;
    /// Keeps a member in its group, and assigns it (KIP-848).
    68 ConsumerGroupHeartbeat: ConsumerGroupHeartbeatRequest => ConsumerGroupHeartbeatResponse, serve [0, 1], advertise 0, flexible 0;
    /// Tells the state and members of groups of KIP-848.
    69 ConsumerGroupDescribe: ConsumerGroupDescribeRequest => ConsumerGroupDescribeResponse, serve [0, 1], advertise 0, flexible 0;
    /// Tells what has settings of its own.
    74 ListConfigResources: ListConfigResourcesRequest => ListConfigResourcesResponse, serve [0, 1], advertise 0, flexible 0;
    /// Tells topics and their partitions, a page at a time.
    75 DescribeTopicPartitions: DescribeTopicPartitionsRequest => DescribeTopicPartitionsResponse, serve [0, 0], advertise 0, flexible 0;
}
