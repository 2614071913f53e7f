//! Who may ask for what: the one table of the right that each API needs, and what is told to those who lack it.
//!
//! Before a request is served, [`check`] takes out of it what its sender has no right to; after it was served, what was
//! taken out is put into the response with Kafka's error, and what the sender may not see leaves it. Always: an API that
//! is served has its line here (the match has no catch-all); what may not be seen is told in the same way whether it
//! exists or not; whoever is not limited at all passes without a look at the request. Rights and codes are those of Apache
//! Kafka 4.3 (its documentation, "Authorization and ACLs", lists them by API). Called by `dispatch` and `connection`.

mod admin;
mod data;
mod groups;
mod security;
#[cfg(test)]
mod tests;
mod transactions;
#[cfg(test)]
mod walk;

use std::sync::Arc;

use super::dispatch::Caller;
use crate::broker::security::{Asking, AuditEvent, CLUSTER, Operation, Principal, ResourceType, Security};
use crate::wire::{Request, Response};

/// What puts into a response what was taken out of its request.
pub(super) type Finish = Box<dyn FnOnce(&mut Response) + Send>;

/// What becomes of a request.
pub(super) enum Verdict {
    /// It is answered at once.
    Refused(Box<Response>),
    /// It is served, perhaps less than was asked.
    Served(Box<Request>, Option<Finish>),
}

impl Verdict {
    fn refused(response: impl Into<Response>) -> Self {
        Self::Refused(Box::new(response.into()))
    }

    fn whole(request: impl Into<Request>) -> Self {
        Self::Served(Box::new(request.into()), None)
    }

    /// Served, and then finished.
    fn finished(request: impl Into<Request>, finish: impl FnOnce(&mut Response) + Send + 'static) -> Self {
        Self::Served(Box::new(request.into()), Some(Box::new(finish)))
    }
}

/// Somebody and their rights.
#[derive(Clone)]
pub(super) struct Gate {
    security: Arc<Security>,
    principal: Principal,
    host: Arc<str>,
}

impl Gate {
    pub(super) fn new(security: Arc<Security>, principal: Principal, host: &str) -> Self {
        Self { security, principal, host: host.into() }
    }

    pub(super) const fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(super) const fn security(&self) -> &Arc<Security> {
        &self.security
    }

    /// Somebody else from the same place.
    pub(super) fn of(&self, principal: Principal) -> Self {
        Self { principal, ..self.clone() }
    }

    fn asking(&self) -> Asking<'_> {
        Asking { principal: self.principal.as_str(), host: &self.host }
    }

    pub(super) fn is_unlimited(&self) -> bool {
        self.security.is_unlimited(self.principal.as_str())
    }

    /// Whether something may be done. That it may not goes into the audit trail.
    fn may(&self, operation: Operation, resource: ResourceType, name: &str) -> bool {
        let allowed = self.sees(operation, resource, name);
        if !allowed {
            let what = vec![("operation", format!("{operation:?}")), ("resource", format!("{resource:?}")), ("name", name.to_owned())];
            self.security.note(self.event("authorization", "denied", what));
        }
        allowed
    }

    /// Whether something may be done, where nobody is to hear of it: what may not be seen is left out.
    fn sees(&self, operation: Operation, resource: ResourceType, name: &str) -> bool {
        self.security.allows(self.asking(), operation, resource, name)
    }

    fn cluster(&self, operation: Operation) -> bool {
        self.may(operation, ResourceType::Cluster, CLUSTER)
    }

    fn topic(&self, operation: Operation, name: &str) -> bool {
        self.may(operation, ResourceType::Topic, name)
    }

    fn group(&self, operation: Operation, name: &str) -> bool {
        self.may(operation, ResourceType::Group, name)
    }

    fn transaction(&self, operation: Operation, id: &str) -> bool {
        self.may(operation, ResourceType::TransactionalId, id)
    }

    /// Whether there is a topic at all that may be written to.
    fn writes_somewhere(&self) -> bool {
        self.security.allows_any(self.asking(), Operation::Write, ResourceType::Topic)
    }

    /// Everything that may be done to something, a bit for each operation.
    fn operations(&self, resource: ResourceType, name: &str) -> i32 {
        use Operation::{Alter, AlterConfigs, ClusterAction, Create, Delete, Describe, DescribeConfigs, IdempotentWrite, Read, Write};
        let possible: &[Operation] = match resource {
            ResourceType::Topic => &[Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs],
            ResourceType::Group => &[Read, Delete, Describe, DescribeConfigs, AlterConfigs],
            ResourceType::Cluster => &[Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite],
            ResourceType::TransactionalId => &[Describe, Write],
            ResourceType::DelegationToken | ResourceType::User => &[Describe],
        };
        let allowed = possible.iter().filter(|operation| self.sees(**operation, resource, name));
        allowed.fold(0, |bits, operation| bits | 1 << operation.code())
    }

    /// What a client is told it may do to the cluster, where it asks.
    fn cluster_operations(&self) -> i32 {
        if self.sees(Operation::Describe, ResourceType::Cluster, CLUSTER) { self.operations(ResourceType::Cluster, CLUSTER) } else { 0 }
    }

    pub(super) fn event(&self, kind: &'static str, outcome: &'static str, what: Vec<(&'static str, String)>) -> AuditEvent {
        AuditEvent { kind, outcome, principal: self.principal.as_str().to_owned(), host: self.host.to_string(), what }
    }
}

/// Takes out of a request what its sender has no right to.
pub(super) fn check(caller: &Caller, request: Request) -> Verdict {
    if caller.gate.is_unlimited() {
        return Verdict::whole(request);
    }
    match request {
        Request::Produce(request) => data::produce(caller, request),
        Request::Fetch(request) => data::fetch(caller, request),
        Request::ListOffsets(request) => data::list_offsets(caller, request),
        Request::Metadata(request) => data::metadata(caller, request),
        Request::OffsetForLeaderEpoch(request) => data::offset_for_leader_epoch(caller, request),
        Request::DeleteRecords(request) => data::delete_records(caller, request),
        Request::DescribeTopicPartitions(request) => data::describe_topic_partitions(caller, request),
        Request::DescribeCluster(request) => data::describe_cluster(caller, request),
        Request::DescribeQuorum(request) => admin::describe_quorum(caller, request),
        Request::OffsetCommit(request) => groups::offset_commit(caller, request),
        Request::OffsetFetch(request) => groups::offset_fetch(caller, request),
        Request::FindCoordinator(request) => groups::find_coordinator(caller, request),
        Request::JoinGroup(request) => groups::join(caller, request),
        Request::Heartbeat(request) => groups::heartbeat(caller, request),
        Request::LeaveGroup(request) => groups::leave(caller, request),
        Request::SyncGroup(request) => groups::sync(caller, request),
        Request::DescribeGroups(request) => groups::describe(caller, request),
        Request::ListGroups(request) => groups::list(caller, request),
        Request::DeleteGroups(request) => groups::delete(caller, request),
        Request::OffsetDelete(request) => groups::delete_offsets(caller, request),
        Request::ConsumerGroupHeartbeat(request) => groups::consumer_heartbeat(caller, request),
        Request::ConsumerGroupDescribe(request) => groups::consumer_describe(caller, request),
        // What everyone may ask, before and after saying who they are.
        request @ (Request::ApiVersions(_) | Request::SaslHandshake(_) | Request::SaslAuthenticate(_)) => Verdict::whole(request),
        Request::CreateTopics(request) => admin::create_topics(caller, request),
        Request::DeleteTopics(request) => admin::delete_topics(caller, request),
        Request::CreatePartitions(request) => admin::create_partitions(caller, request),
        Request::DescribeConfigs(request) => admin::describe_configs(caller, request),
        Request::AlterConfigs(request) => admin::alter_configs(caller, request),
        Request::IncrementalAlterConfigs(request) => admin::incremental_alter_configs(caller, request),
        Request::ListConfigResources(request) => admin::list_config_resources(caller, request),
        Request::DescribeLogDirs(request) => admin::describe_log_dirs(caller, request),
        Request::AlterReplicaLogDirs(request) => admin::alter_replica_log_dirs(caller, request),
        Request::ElectLeaders(request) => admin::elect_leaders(caller, request),
        Request::AlterPartitionReassignments(request) => admin::alter_reassignments(caller, request),
        Request::ListPartitionReassignments(request) => admin::list_reassignments(caller, request),
        Request::InitProducerId(request) => transactions::init_producer_id(caller, request),
        Request::AddPartitionsToTxn(request) => transactions::add_partitions(caller, request),
        Request::AddOffsetsToTxn(request) => transactions::add_offsets(caller, request),
        Request::EndTxn(request) => transactions::end(caller, request),
        Request::WriteTxnMarkers(request) => transactions::write_markers(caller, request),
        Request::TxnOffsetCommit(request) => transactions::commit_offsets(caller, request),
        Request::DescribeProducers(request) => transactions::describe_producers(caller, request),
        Request::DescribeTransactions(request) => transactions::describe(caller, request),
        Request::ListTransactions(request) => transactions::list(caller, request),
        Request::DescribeAcls(request) => security::describe_acls(caller, request),
        Request::CreateAcls(request) => security::create_acls(caller, request),
        Request::DeleteAcls(request) => security::delete_acls(caller, request),
        Request::DescribeClientQuotas(request) => security::describe_quotas(caller, request),
        Request::AlterClientQuotas(request) => security::alter_quotas(caller, request),
        Request::DescribeUserScramCredentials(request) => security::describe_users(caller, request),
        Request::AlterUserScramCredentials(request) => security::alter_users(caller, request),
    }
}

/// What is told, beside the code, to who lacks a right.
fn refusal() -> Option<String> {
    Some("not authorized".to_owned())
}
