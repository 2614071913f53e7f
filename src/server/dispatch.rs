//! From a request to the function that serves it. Every API of the table is here, Produce aside, which the
//! connection serves in two steps.

use super::{Peer, api_cluster, api_configs, api_fetch, api_groups, api_members, api_offsets, api_places, api_topics};
use crate::wire::{ProduceResponse, Request, RequestHeader, Response};

/// Who asks, and how.
pub(super) struct Caller {
    pub(super) peer: Peer,
    /// The header of the request that is being served.
    pub(super) header: RequestHeader,
    /// Name and version of the client's software, where it has told them.
    pub(super) software: Option<(String, String)>,
}

impl Caller {
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer, header: RequestHeader::default(), software: None }
    }

    /// The version of the request.
    pub(super) const fn version(&self) -> i16 {
        self.header.api_version
    }

    /// The client's software, for log lines. Its characters were checked when it told it.
    pub(super) fn software(&self) -> String {
        self.software.as_ref().map_or_else(|| "unknown".to_owned(), |(name, version)| format!("{name} {version}"))
    }
}

/// Serves a request.
pub(super) async fn serve(caller: &mut Caller, request: Request) -> Response {
    match request {
        // The connection does not send it here: it has to keep the order of batches.
        Request::Produce(_) => ProduceResponse::default().into(),
        Request::Fetch(request) => api_fetch::fetch(caller, request).await.into(),
        Request::ListOffsets(request) => api_places::list_offsets(caller, request).await.into(),
        Request::OffsetForLeaderEpoch(request) => api_places::offset_for_leader_epoch(caller, request).into(),
        Request::DeleteRecords(request) => api_places::delete_records(caller, request).await.into(),
        Request::Metadata(request) => api_cluster::metadata(caller, request).await.into(),
        Request::ApiVersions(request) => api_cluster::api_versions(caller, request).into(),
        Request::DescribeCluster(request) => api_cluster::describe_cluster(caller, &request).into(),
        Request::FindCoordinator(request) => api_groups::find_coordinator(caller, request).into(),
        Request::JoinGroup(request) => api_members::join(caller, request).await.into(),
        Request::SyncGroup(request) => api_members::sync(caller, request).await.into(),
        Request::Heartbeat(request) => api_members::heartbeat(caller, request).into(),
        Request::LeaveGroup(request) => api_members::leave(caller, request).await.into(),
        Request::OffsetCommit(request) => api_offsets::commit(caller, request).await.into(),
        Request::OffsetFetch(request) => api_offsets::fetch(caller, request).into(),
        Request::DescribeGroups(request) => api_groups::describe(caller, request).into(),
        Request::ListGroups(request) => api_groups::list(caller, &request).into(),
        Request::DeleteGroups(request) => api_groups::delete(caller, request).await.into(),
        Request::CreateTopics(request) => api_topics::create(caller, request).await.into(),
        Request::DeleteTopics(request) => api_topics::delete(caller, request).await.into(),
        Request::CreatePartitions(request) => api_topics::create_partitions(caller, request).await.into(),
        Request::DescribeConfigs(request) => api_configs::describe(caller, request).into(),
        Request::InitProducerId(request) => api_cluster::init_producer_id(caller, &request).await.into(),
    }
}
