//! Rights to rights: DescribeAcls, CreateAcls, DeleteAcls, DescribeClientQuotas, AlterClientQuotas,
//! DescribeUserScramCredentials, AlterUserScramCredentials.

use std::collections::BTreeSet;

use super::super::dispatch::Caller;
use super::{Verdict, refusal};
use crate::broker::security::Operation;
use crate::wire::*;

const DENIED: i16 = error_code::CLUSTER_AUTHORIZATION_FAILED;

pub(super) fn describe_acls(caller: &Caller, request: DescribeAclsRequest) -> Verdict {
    if caller.gate.cluster(Operation::Describe) {
        return Verdict::whole(request);
    }
    Verdict::refused(DescribeAclsResponse { error_code: DENIED, error_message: refusal(), ..Default::default() })
}

pub(super) fn create_acls(caller: &Caller, request: CreateAclsRequest) -> Verdict {
    if caller.gate.cluster(Operation::Alter) {
        return Verdict::whole(request);
    }
    let refused = |_: &AclCreation| AclCreationResult { error_code: DENIED, error_message: refusal() };
    Verdict::refused(CreateAclsResponse { results: request.creations.iter().map(refused).collect(), ..Default::default() })
}

pub(super) fn delete_acls(caller: &Caller, request: DeleteAclsRequest) -> Verdict {
    if caller.gate.cluster(Operation::Alter) {
        return Verdict::whole(request);
    }
    let refused = |_: &DeleteAclsFilter| DeleteAclsFilterResult { error_code: DENIED, error_message: refusal(), matching_acls: Vec::new() };
    Verdict::refused(DeleteAclsResponse { filter_results: request.filters.iter().map(refused).collect(), ..Default::default() })
}

pub(super) fn describe_quotas(caller: &Caller, request: DescribeClientQuotasRequest) -> Verdict {
    if caller.gate.cluster(Operation::DescribeConfigs) {
        return Verdict::whole(request);
    }
    Verdict::refused(DescribeClientQuotasResponse { error_code: DENIED, error_message: refusal(), ..Default::default() })
}

pub(super) fn alter_quotas(caller: &Caller, request: AlterClientQuotasRequest) -> Verdict {
    if caller.gate.cluster(Operation::AlterConfigs) {
        return Verdict::whole(request);
    }
    let refused = |entry: AlterQuotasEntry| AlterQuotasResult { error_code: DENIED, error_message: refusal(), entity: entry.entity };
    Verdict::refused(AlterClientQuotasResponse { entries: request.entries.into_iter().map(refused).collect(), ..Default::default() })
}

pub(super) fn describe_users(caller: &Caller, request: DescribeUserScramCredentialsRequest) -> Verdict {
    if caller.gate.cluster(Operation::Describe) {
        return Verdict::whole(request);
    }
    Verdict::refused(DescribeUserScramCredentialsResponse { error_code: DENIED, error_message: refusal(), ..Default::default() })
}

pub(super) fn alter_users(caller: &Caller, request: AlterUserScramCredentialsRequest) -> Verdict {
    if caller.gate.cluster(Operation::Alter) {
        return Verdict::whole(request);
    }
    let users: BTreeSet<String> =
        request.deletions.into_iter().map(|one| one.name).chain(request.upsertions.into_iter().map(|one| one.name)).collect();
    let refused = |user| AlterUserScramCredentialsResult { user, error_code: DENIED, error_message: refusal() };
    Verdict::refused(AlterUserScramCredentialsResponse { results: users.into_iter().map(refused).collect(), ..Default::default() })
}
