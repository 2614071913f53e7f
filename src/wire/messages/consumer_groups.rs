//! The consumer group of KIP-848: ConsumerGroupHeartbeat, ConsumerGroupDescribe.

use crate::record::TopicId;

messages! {
    /// Keeps a member in its group, tells what it wants and has, and asks what it should have.
    ConsumerGroupHeartbeatRequest {
        group_id: String [0..],
        /// Made by the client from version 1; before, empty for a new member.
        member_id: String [0..],
        /// 0 joins, -1 leaves, -2 says that a static member will be back.
        member_epoch: i32 [0..],
        instance_id: Option<String> [0..] null [0..],
        rack_id: Option<String> [0..] null [0..],
        /// -1 where it has not changed; so are the null fields below.
        rebalance_timeout_ms: i32 [0..] = -1,
        subscribed_topic_names: Option<Vec<String>> [0..] null [0..],
        subscribed_topic_regex: Option<String> [1..] null [1..],
        server_assignor: Option<String> [0..] null [0..],
        topic_partitions: Option<Vec<MemberTopicPartitions>> [0..] null [0..],
    }

    /// Partitions of a topic that a member has, or should have.
    MemberTopicPartitions {
        topic_id: TopicId [0..],
        partitions: Vec<i32> [0..],
    }

    /// Whether the member is still in its group, and what it should have where that has changed.
    ConsumerGroupHeartbeatResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        member_id: Option<String> [0..] null [0..],
        member_epoch: i32 [0..],
        heartbeat_interval_ms: i32 [0..],
        assignment: Option<MemberAssignment> [0..] null [0..],
    }

    /// What a member should have.
    MemberAssignment {
        topic_partitions: Vec<MemberTopicPartitions> [0..],
    }
}

nullable! { MemberAssignment }

messages! {
    /// Asks for the state of consumer groups.
    ConsumerGroupDescribeRequest {
        group_ids: Vec<String> [0..],
        include_authorized_operations: bool [0..],
    }

    /// The state of consumer groups.
    ConsumerGroupDescribeResponse {
        throttle_time_ms: i32 [0..],
        groups: Vec<DescribedConsumerGroup> [0..],
    }

    /// The state of one group.
    DescribedConsumerGroup {
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        group_id: String [0..],
        group_state: String [0..],
        group_epoch: i32 [0..],
        assignment_epoch: i32 [0..],
        assignor_name: String [0..],
        members: Vec<DescribedConsumerMember> [0..],
        authorized_operations: i32 [0..] = i32::MIN,
    }

    /// One member of a described group.
    DescribedConsumerMember {
        member_id: String [0..],
        instance_id: Option<String> [0..] null [0..],
        rack_id: Option<String> [0..] null [0..],
        member_epoch: i32 [0..],
        client_id: String [0..],
        client_host: String [0..],
        subscribed_topic_names: Vec<String> [0..],
        subscribed_topic_regex: Option<String> [0..] null [0..],
        assignment: DescribedAssignment [0..],
        target_assignment: DescribedAssignment [0..],
        /// 0 speaks the classic protocol, 1 this one.
        member_type: i8 [1..] = -1,
    }

    /// What a member has, or should have.
    DescribedAssignment {
        topic_partitions: Vec<DescribedTopicPartitions> [0..],
    }

    /// Partitions of a topic in a description.
    DescribedTopicPartitions {
        topic_id: TopicId [0..],
        topic_name: String [0..],
        partitions: Vec<i32> [0..],
    }
}
