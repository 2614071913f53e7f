//! From a request to the function that serves it. Every API of the table is here, Produce aside, which the
//! connection serves in two steps.

use super::authorize::{self, Gate, Verdict};
use super::{
    Peer, api_alter_configs, api_cluster, api_configs, api_consumer_groups, api_fetch, api_groups, api_log_dirs, api_members, api_offsets,
    api_partitions, api_places, api_producers, api_quorum, api_quotas, api_replicas, api_security, api_topics, api_txn, audit,
};
use crate::broker::security::Principal;
use crate::wire::{ProduceResponse, Request, RequestHeader, Response};

/// Who asks, and how.
pub(super) struct Caller {
    pub(super) peer: Peer,
    /// The header of the request that is being served.
    pub(super) header: RequestHeader,
    /// Name and version of the client's software, where it has told them.
    pub(super) software: Option<(String, String)>,
    /// Who it is and what it may do.
    pub(super) gate: Gate,
    /// Why the connection is to be closed in place of an answer, where a handler says so.
    pub(super) hang_up: Option<&'static str>,
}

impl Caller {
    pub(super) fn new(peer: Peer) -> Self {
        let host = peer.remote.ip().to_canonical().to_string();
        let gate = Gate::new(std::sync::Arc::clone(peer.broker.security()), Principal::anonymous(), &host);
        Self { peer, header: RequestHeader::default(), software: None, gate, hang_up: None }
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

/// Serves a request, as far as its sender has a right to it. What was changed is in the audit trail before it is
/// answered.
pub(super) async fn serve(caller: &mut Caller, request: Request) -> Response {
    let change = audit::before(caller, &request);
    let request = api_offsets::name_topics(caller, request);
    let response = match authorize::check(caller, request) {
        Verdict::Refused(response) => *response,
        Verdict::Served(request, None) => serve_allowed(caller, *request).await,
        Verdict::Served(request, Some(finish)) => {
            let mut response = serve_allowed(caller, *request).await;
            finish(&mut response);
            response
        }
    };
    if let Some(change) = change {
        let event = audit::after(caller, change, &response);
        if let Err(error) = caller.gate.security().record(event).await {
            tracing::error!(%error, "a change is not in the audit trail");
        }
    }
    response
}

/// Serves what its sender has a right to.
async fn serve_allowed(caller: &mut Caller, request: Request) -> Response {
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
        Request::DescribeQuorum(request) => api_quorum::describe(caller, request).into(),
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
        Request::OffsetDelete(request) => api_offsets::delete(caller, request).await.into(),
        Request::ConsumerGroupHeartbeat(request) => api_consumer_groups::heartbeat(caller, request).await.into(),
        Request::ConsumerGroupDescribe(request) => api_consumer_groups::describe(caller, request).into(),
        Request::CreateTopics(request) => api_topics::create(caller, request).await.into(),
        Request::DeleteTopics(request) => api_topics::delete(caller, request).await.into(),
        Request::CreatePartitions(request) => api_topics::create_partitions(caller, request).await.into(),
        Request::DescribeConfigs(request) => api_configs::describe(caller, request).into(),
        Request::AlterConfigs(request) => api_alter_configs::alter(caller, request).await.into(),
        Request::IncrementalAlterConfigs(request) => api_alter_configs::alter_incrementally(caller, request).await.into(),
        Request::ListConfigResources(request) => api_configs::list(caller, &request).into(),
        Request::DescribeLogDirs(request) => api_log_dirs::describe(caller, request).into(),
        Request::AlterReplicaLogDirs(request) => api_log_dirs::alter(caller, request).into(),
        Request::ElectLeaders(request) => api_replicas::elect_leaders(caller, request).into(),
        Request::AlterPartitionReassignments(request) => api_replicas::reassign(caller, request).into(),
        Request::ListPartitionReassignments(_) => api_replicas::reassignments().into(),
        Request::DescribeTopicPartitions(request) => api_partitions::describe(caller, request).into(),
        Request::InitProducerId(request) => api_txn::init_producer_id(caller, request).await.into(),
        Request::AddPartitionsToTxn(request) => api_txn::add_partitions(caller, request).await.into(),
        Request::AddOffsetsToTxn(request) => api_txn::add_offsets(caller, request).await.into(),
        Request::EndTxn(request) => api_txn::end(caller, request).await.into(),
        Request::TxnOffsetCommit(request) => api_txn::commit_offsets(caller, request).await.into(),
        Request::WriteTxnMarkers(request) => api_producers::write_markers(caller, request).await.into(),
        Request::DescribeProducers(request) => api_producers::describe_producers(caller, request).await.into(),
        Request::DescribeTransactions(request) => api_producers::describe_transactions(caller, request).into(),
        Request::ListTransactions(request) => api_producers::list_transactions(caller, &request).into(),
        Request::SaslHandshake(_) => api_security::handshake().into(),
        Request::SaslAuthenticate(_) => api_security::authenticate().into(),
        Request::DescribeAcls(request) => api_security::describe_acls(caller, request).into(),
        Request::CreateAcls(request) => api_security::create_acls(caller, request).await.into(),
        Request::DeleteAcls(request) => api_security::delete_acls(caller, request).await.into(),
        Request::DescribeClientQuotas(request) => api_quotas::describe(caller, &request).into(),
        Request::AlterClientQuotas(request) => api_quotas::alter(caller, request).await.into(),
        Request::DescribeUserScramCredentials(request) => api_security::describe_users(caller, request).into(),
        Request::AlterUserScramCredentials(request) => api_security::alter_users(caller, request).await.into(),
    }
}
