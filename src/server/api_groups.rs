//! Groups from outside: FindCoordinator, DescribeGroups, ListGroups, DeleteGroups.

use std::collections::BTreeSet;

use super::dispatch::Caller;
use crate::broker::group::{Described, DescribedMember as Member, GroupId};
use crate::wire::{
    Coordinator, DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    DescribedGroup, DescribedGroupMember, FindCoordinatorRequest, FindCoordinatorResponse, ListGroupsRequest, ListGroupsResponse,
    ListedGroup, error_code,
};

/// Everything a group's administrator may do: read, delete, describe, and describe and alter settings.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// Any group, also the nameless one that very old consumers commit to.
fn any_group(name: &str) -> Result<GroupId, i16> {
    GroupId::new(name).ok_or(error_code::INVALID_GROUP_ID)
}

/// This node coordinates every group and every transaction.
pub(super) fn find_coordinator(caller: &Caller, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let refusal = match request.key_type {
        0 | 1 => None,
        _ => Some((error_code::INVALID_REQUEST, "only groups and transactions have a coordinator here")),
    };
    let found = |key: String| match refusal {
        None => Coordinator {
            key,
            node_id: caller.peer.broker.config().node_id,
            host: caller.peer.host(),
            port: caller.peer.port(),
            error_code: error_code::NONE,
            error_message: None,
        },
        Some((error_code, why)) => {
            Coordinator { key, node_id: -1, host: String::new(), port: -1, error_code, error_message: Some(why.to_owned()) }
        }
    };
    if caller.version() >= 4 {
        let coordinators = request.coordinator_keys.into_iter().map(found).collect();
        return FindCoordinatorResponse { coordinators, ..Default::default() };
    }
    let one = found(request.key);
    FindCoordinatorResponse {
        error_code: one.error_code,
        error_message: one.error_message,
        node_id: one.node_id,
        host: one.host,
        port: one.port,
        ..Default::default()
    }
}

pub(super) fn describe(caller: &Caller, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let version = caller.version();
    let authorized_operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { i32::MIN };
    let groups = request
        .groups
        .into_iter()
        .map(|name| match any_group(&name).map(|id| (caller.peer.broker.groups().describe(&id), id)) {
            Err(error_code) => DescribedGroup { error_code, group_id: name, ..Default::default() },
            Ok((Some(group), _)) => described(group, authorized_operations),
            Ok((None, id)) => {
                let is_newer = caller.peer.broker.groups().describe_consumer(&id).is_some();
                let unknown = described(Described::unknown(id), authorized_operations);
                if version < 6 {
                    return unknown;
                }
                let error_message = Some(format!("Group {name} {}", if is_newer { "is not a classic group." } else { "not found." }));
                let authorized_operations = i32::MIN;
                DescribedGroup { error_code: error_code::GROUP_ID_NOT_FOUND, error_message, authorized_operations, ..unknown }
            }
        })
        .collect();
    DescribeGroupsResponse { groups, ..Default::default() }
}

fn described(group: Described, authorized_operations: i32) -> DescribedGroup {
    let member = |m: Member| DescribedGroupMember {
        member_id: m.member_id,
        group_instance_id: m.instance_id,
        client_id: m.client_id,
        client_host: m.client_host,
        member_metadata: m.metadata,
        member_assignment: m.assignment,
    };
    DescribedGroup {
        error_code: error_code::NONE,
        error_message: None,
        group_id: group.id.as_str().to_owned(),
        group_state: group.state.to_string(),
        protocol_type: group.protocol_type,
        protocol_data: group.protocol,
        members: group.members.into_iter().map(member).collect(),
        authorized_operations,
    }
}

pub(super) fn list(caller: &Caller, request: &ListGroupsRequest) -> ListGroupsResponse {
    let wanted = |filter: &[String], value: &str| filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(value));
    let groups = caller
        .peer
        .broker
        .groups()
        .list()
        .into_iter()
        .map(|group| ListedGroup {
            group_id: group.id.as_str().to_owned(),
            protocol_type: group.protocol_type,
            group_state: group.state.to_string(),
            group_type: group.kind.to_string(),
        })
        .filter(|group| wanted(&request.states_filter, &group.group_state) && wanted(&request.types_filter, &group.group_type))
        .collect();
    ListGroupsResponse { groups, ..Default::default() }
}

pub(super) async fn delete(caller: &Caller, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    let mut seen = BTreeSet::new();
    // A group that is named twice is one.
    for name in request.groups_names.into_iter().filter(|name| seen.insert(name.clone())) {
        let error_code = match any_group(&name) {
            Ok(id) => caller.peer.broker.groups().delete(&id).await,
            Err(code) => code,
        };
        results.push(DeletableGroupResult { group_id: name, error_code });
    }
    DeleteGroupsResponse { results, ..Default::default() }
}
