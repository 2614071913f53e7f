//! The classic consumer group: FindCoordinator, JoinGroup, SyncGroup, Heartbeat, LeaveGroup, and the
//! views of it: DescribeGroups, ListGroups, DeleteGroups.

use bytes::Bytes;

messages! {
    /// Asks who coordinates a group or a transaction.
    FindCoordinatorRequest {
        key: String [0..=3],
        /// 0 a group, 1 a transaction, 2 a share group.
        key_type: i8 [1..],
        coordinator_keys: Vec<String> [4..],
    }

    /// Who coordinates. One answer to version 3, a list from version 4.
    FindCoordinatorResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..=3],
        error_message: Option<String> [1..=3] null [1..],
        node_id: i32 [0..=3],
        host: String [0..=3],
        port: i32 [0..=3],
        coordinators: Vec<Coordinator> [4..],
    }

    /// Who coordinates one key.
    Coordinator {
        key: String [4..],
        node_id: i32 [4..],
        host: String [4..],
        port: i32 [4..],
        error_code: i16 [4..],
        error_message: Option<String> [4..] null [4..],
    }
}

messages! {
    /// Asks to be a member of a group.
    JoinGroupRequest {
        group_id: String [0..],
        session_timeout_ms: i32 [0..],
        /// -1 where the version does not say: the session timeout counts.
        rebalance_timeout_ms: i32 [1..] = -1,
        /// Empty for a new member.
        member_id: String [0..],
        group_instance_id: Option<String> [5..] null [5..],
        protocol_type: String [0..],
        protocols: Vec<JoinGroupRequestProtocol> [0..],
        reason: Option<String> [8..] null [8..],
    }

    /// An assignor the member speaks, and what it tells about itself.
    JoinGroupRequestProtocol {
        name: String [0..],
        metadata: Bytes [0..],
    }

    /// The generation a member has joined.
    JoinGroupResponse {
        throttle_time_ms: i32 [2..],
        error_code: i16 [0..],
        generation_id: i32 [0..] = -1,
        protocol_type: Option<String> [7..] null [7..],
        /// Written as empty where it is `None` before version 7.
        protocol_name: Option<String> [0..] null [7..],
        leader: String [0..],
        skip_assignment: bool [9..],
        member_id: String [0..],
        /// All members for the leader, none for the others.
        members: Vec<JoinGroupResponseMember> [0..],
    }

    /// A member, as told to the leader.
    JoinGroupResponseMember {
        member_id: String [0..],
        group_instance_id: Option<String> [5..] null [5..],
        metadata: Bytes [0..],
    }
}

messages! {
    /// Brings the leader's assignment, and asks for one's own.
    SyncGroupRequest {
        group_id: String [0..],
        generation_id: i32 [0..],
        member_id: String [0..],
        group_instance_id: Option<String> [3..] null [3..],
        protocol_type: Option<String> [5..] null [5..],
        protocol_name: Option<String> [5..] null [5..],
        assignments: Vec<SyncGroupRequestAssignment> [0..],
    }

    /// What the leader assigns to one member.
    SyncGroupRequestAssignment {
        member_id: String [0..],
        assignment: Bytes [0..],
    }

    /// What a member is assigned.
    SyncGroupResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
        protocol_type: Option<String> [5..] null [5..],
        protocol_name: Option<String> [5..] null [5..],
        assignment: Bytes [0..],
    }

    /// Says that a member is alive.
    HeartbeatRequest {
        group_id: String [0..],
        generation_id: i32 [0..],
        member_id: String [0..],
        group_instance_id: Option<String> [3..] null [3..],
    }

    /// Whether the member's generation still stands.
    HeartbeatResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
    }

    /// Says that members leave: one to version 2, a list from version 3.
    LeaveGroupRequest {
        group_id: String [0..],
        member_id: String [0..=2],
        members: Vec<MemberIdentity> [3..],
    }

    /// A member that leaves.
    MemberIdentity {
        member_id: String [3..],
        group_instance_id: Option<String> [3..] null [3..],
        reason: Option<String> [5..] null [5..],
    }

    /// Whether the members have left.
    LeaveGroupResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
        members: Vec<MemberResponse> [3..],
    }

    /// Whether one member has left.
    MemberResponse {
        member_id: String [3..],
        group_instance_id: Option<String> [3..] null [3..],
        error_code: i16 [3..],
    }
}

messages! {
    /// Asks for the state of groups.
    DescribeGroupsRequest {
        groups: Vec<String> [0..],
        include_authorized_operations: bool [3..],
    }

    /// The state of groups.
    DescribeGroupsResponse {
        throttle_time_ms: i32 [1..],
        groups: Vec<DescribedGroup> [0..],
    }

    /// The state of one group.
    DescribedGroup {
        error_code: i16 [0..],
        error_message: Option<String> [6..] null [6..],
        group_id: String [0..],
        group_state: String [0..],
        protocol_type: String [0..],
        protocol_data: String [0..],
        members: Vec<DescribedGroupMember> [0..],
        authorized_operations: i32 [3..] = i32::MIN,
    }

    /// One member of a described group.
    DescribedGroupMember {
        member_id: String [0..],
        group_instance_id: Option<String> [4..] null [4..],
        client_id: String [0..],
        client_host: String [0..],
        member_metadata: Bytes [0..],
        member_assignment: Bytes [0..],
    }

    /// Asks for the names of all groups.
    ListGroupsRequest {
        states_filter: Vec<String> [4..],
        types_filter: Vec<String> [5..],
    }

    /// The names of groups.
    ListGroupsResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
        groups: Vec<ListedGroup> [0..],
    }

    /// One group of a list.
    ListedGroup {
        group_id: String [0..],
        protocol_type: String [0..],
        group_state: String [4..],
        group_type: String [5..],
    }

    /// Asks to remove groups that have no members.
    DeleteGroupsRequest {
        groups_names: Vec<String> [0..],
    }

    /// Which groups are gone.
    DeleteGroupsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<DeletableGroupResult> [0..],
    }

    /// Whether one group is gone.
    DeletableGroupResult {
        group_id: String [0..],
        error_code: i16 [0..],
    }
}
