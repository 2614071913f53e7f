//! The life of a group's member: JoinGroup, SyncGroup, Heartbeat, LeaveGroup. What differs between versions is
//! settled here; the rest is the group's.

use super::dispatch::Caller;
use crate::broker::group::{GroupId, HeartbeatRequest as Beat, JoinReply, JoinRequest, Leaving, SyncReply, SyncRequest, Token};
use crate::wire::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember, LeaveGroupRequest,
    LeaveGroupResponse, MemberResponse, SyncGroupRequest, SyncGroupResponse, error_code,
};

/// The name of a group that may have members.
pub(super) fn group_id(name: &str) -> Result<GroupId, i16> {
    GroupId::new(name).filter(|_| !name.is_empty()).ok_or(error_code::INVALID_GROUP_ID)
}

pub(super) async fn join(caller: &Caller, request: JoinGroupRequest) -> JoinGroupResponse {
    let version = caller.version();
    let reply = match group_id(&request.group_id) {
        Err(code) => JoinReply::refused(code, &request.member_id),
        Ok(id) => {
            let request = JoinRequest {
                token: Token(0),
                member_id: request.member_id,
                instance_id: request.group_instance_id,
                client_id: caller.header.client_id.clone().unwrap_or_default(),
                client_host: format!("/{}", caller.peer.remote.ip()),
                protocol_type: request.protocol_type,
                protocols: request.protocols.into_iter().map(|p| (p.name, p.metadata)).collect(),
                session_timeout_ms: request.session_timeout_ms,
                rebalance_timeout_ms: if version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms },
                require_known_member_id: version >= 4,
                supports_skip_assignment: version >= 9,
                nonce: uuid::Uuid::new_v4().to_string(),
            };
            caller.peer.broker.groups().join(&id, request).await
        }
    };
    let member = |m: crate::broker::group::JoinedMember| JoinGroupResponseMember {
        member_id: m.member_id,
        group_instance_id: m.instance_id,
        metadata: m.metadata,
    };
    JoinGroupResponse {
        error_code: reply.error,
        generation_id: reply.generation,
        protocol_type: reply.protocol_type,
        protocol_name: reply.protocol,
        leader: reply.leader,
        skip_assignment: reply.skip_assignment,
        member_id: reply.member_id,
        members: reply.members.into_iter().map(member).collect(),
        ..Default::default()
    }
}

pub(super) async fn sync(caller: &Caller, request: SyncGroupRequest) -> SyncGroupResponse {
    // From version 5 on a member says which protocol it follows.
    if caller.version() >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return SyncGroupResponse { error_code: error_code::INCONSISTENT_GROUP_PROTOCOL, ..Default::default() };
    }
    // From version 5 on a member says what it believes the group to be.
    let is_silent = caller.version() >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none());
    let reply = match group_id(&request.group_id) {
        _ if is_silent => SyncReply::refused(error_code::INCONSISTENT_GROUP_PROTOCOL),
        Err(code) => SyncReply::refused(code),
        Ok(id) => {
            let request = SyncRequest {
                token: Token(0),
                member_id: request.member_id,
                instance_id: request.group_instance_id,
                generation: request.generation_id,
                protocol_type: request.protocol_type,
                protocol: request.protocol_name,
                assignments: request.assignments.into_iter().map(|a| (a.member_id, a.assignment)).collect(),
            };
            caller.peer.broker.groups().sync(&id, request).await
        }
    };
    SyncGroupResponse {
        error_code: reply.error,
        protocol_type: reply.protocol_type,
        protocol_name: reply.protocol,
        assignment: reply.assignment,
        ..Default::default()
    }
}

pub(super) fn heartbeat(caller: &Caller, request: HeartbeatRequest) -> HeartbeatResponse {
    let beat = Beat { member_id: request.member_id, instance_id: request.group_instance_id, generation: request.generation_id };
    let error_code = match group_id(&request.group_id) {
        Ok(id) => caller.peer.broker.groups().heartbeat(&id, &beat),
        Err(code) => code,
    };
    HeartbeatResponse { error_code, ..Default::default() }
}

pub(super) async fn leave(caller: &Caller, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let single = caller.version() < 3;
    let leaving = if single {
        vec![Leaving { member_id: request.member_id, instance_id: None }]
    } else {
        request.members.into_iter().map(|m| Leaving { member_id: m.member_id, instance_id: m.group_instance_id }).collect()
    };
    let id = match group_id(&request.group_id) {
        Ok(id) => id,
        Err(error_code) => return LeaveGroupResponse { error_code, ..Default::default() },
    };
    let reply = caller.peer.broker.groups().leave(&id, leaving).await;
    if single {
        return LeaveGroupResponse { error_code: reply.single_error(), ..Default::default() };
    }
    let member = |(m, error_code): (Leaving, i16)| MemberResponse { member_id: m.member_id, group_instance_id: m.instance_id, error_code };
    LeaveGroupResponse { error_code: reply.error, members: reply.members.into_iter().map(member).collect(), ..Default::default() }
}
