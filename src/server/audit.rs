//! What goes into the audit trail of what administrators do: which request, about what, and what became of it.
//!
//! Always: names and codes only; what lies in topics, and what proves who someone is, stays out. Called by `dispatch`.

use super::dispatch::Caller;
use crate::broker::security::AuditEvent;
use crate::wire::{ApiKey, Request, Response, error_code};

/// What is written of the names a request holds.
const LONGEST: usize = 1000;

/// What a request wants to change; nothing where it changes nothing.
pub(super) struct Change {
    api: ApiKey,
    what: String,
}

fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for name in names {
        if out.len() + name.len() > LONGEST {
            out.push_str(", and more");
            break;
        }
        if !out.is_empty() {
            out.push_str(", ");
        }
        out.push_str(name);
    }
    out
}

/// Looks at a request before it is served.
pub(super) fn before(caller: &Caller, request: &Request) -> Option<Change> {
    let what = match request {
        Request::CreateTopics(r) if !r.validate_only => joined(r.topics.iter().map(|t| t.name.as_str())),
        Request::DeleteTopics(r) => {
            let named = r.topics.iter().filter_map(|t| match &t.name {
                Some(name) => Some(name.clone()),
                None => Some(caller.peer.broker.topic_by_id(t.topic_id)?.name().as_str().to_owned()),
            });
            let names: Vec<String> = named.chain(r.topic_names.iter().cloned()).collect();
            joined(names.iter().map(String::as_str))
        }
        Request::CreatePartitions(r) if !r.validate_only => joined(r.topics.iter().map(|t| t.name.as_str())),
        Request::DeleteRecords(r) => joined(r.topics.iter().map(|t| t.name.as_str())),
        Request::OffsetDelete(r) => r.group_id.clone(),
        Request::DeleteGroups(r) => joined(r.groups_names.iter().map(String::as_str)),
        Request::AlterConfigs(r) if !r.validate_only => joined(r.resources.iter().map(|one| one.resource_name.as_str())),
        Request::IncrementalAlterConfigs(r) if !r.validate_only => joined(r.resources.iter().map(|one| one.resource_name.as_str())),
        Request::CreateAcls(r) => {
            let of = |a: &crate::wire::AclCreation| {
                let (kind, operation, permission) = (a.resource_type, a.operation, a.permission_type);
                format!("{} {permission} {operation} {kind}:{}:{}", a.principal, a.resource_pattern_type, a.resource_name)
            };
            let rules: Vec<String> = r.creations.iter().map(of).collect();
            joined(rules.iter().map(String::as_str))
        }
        Request::DeleteAcls(r) => {
            let of = |f: &crate::wire::DeleteAclsFilter| {
                let (name, principal) =
                    (f.resource_name_filter.as_deref().unwrap_or("any"), f.principal_filter.as_deref().unwrap_or("any"));
                format!("{principal} {} {} {}:{name}", f.permission_type, f.operation, f.resource_type_filter)
            };
            let filters: Vec<String> = r.filters.iter().map(of).collect();
            joined(filters.iter().map(String::as_str))
        }
        Request::AlterClientQuotas(r) if !r.validate_only => {
            joined(r.entries.iter().flat_map(|e| &e.entity).map(|part| part.entity_name.as_deref().unwrap_or("default")))
        }
        Request::AlterUserScramCredentials(r) => {
            joined(r.deletions.iter().map(|d| d.name.as_str()).chain(r.upsertions.iter().map(|u| u.name.as_str())))
        }
        Request::WriteTxnMarkers(r) => joined(r.markers.iter().flat_map(|m| &m.topics).map(|t| t.name.as_str())),
        _ => return None,
    };
    Some(Change { api: request.key(), what })
}

/// The codes of a response to such a request.
fn codes(response: &Response) -> Vec<i16> {
    match response {
        Response::CreateTopics(r) => r.topics.iter().map(|t| t.error_code).collect(),
        Response::DeleteTopics(r) => r.responses.iter().map(|t| t.error_code).collect(),
        Response::CreatePartitions(r) => r.results.iter().map(|t| t.error_code).collect(),
        Response::DeleteRecords(r) => r.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).collect(),
        Response::OffsetDelete(r) => {
            let of = r.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code);
            if r.error_code == error_code::NONE { of.collect() } else { vec![r.error_code] }
        }
        Response::DeleteGroups(r) => r.results.iter().map(|g| g.error_code).collect(),
        Response::AlterConfigs(r) => r.responses.iter().map(|one| one.error_code).collect(),
        Response::IncrementalAlterConfigs(r) => r.responses.iter().map(|one| one.error_code).collect(),
        Response::CreateAcls(r) => r.results.iter().map(|one| one.error_code).collect(),
        Response::DeleteAcls(r) => r.filter_results.iter().map(|one| one.error_code).collect(),
        Response::AlterClientQuotas(r) => r.entries.iter().map(|one| one.error_code).collect(),
        Response::AlterUserScramCredentials(r) => r.results.iter().map(|one| one.error_code).collect(),
        Response::WriteTxnMarkers(r) => {
            r.markers.iter().flat_map(|m| &m.topics).flat_map(|t| &t.partitions).map(|p| p.error_code).collect()
        }
        _ => Vec::new(),
    }
}

/// Says what became of it.
pub(super) fn after(caller: &Caller, change: Change, response: &Response) -> AuditEvent {
    let codes = codes(response);
    let mut failed: Vec<i16> = codes.iter().copied().filter(|code| *code != error_code::NONE).collect();
    let outcome = if failed.is_empty() {
        "success"
    } else if failed.len() < codes.len() {
        "partly"
    } else {
        "failure"
    };
    failed.sort_unstable();
    failed.dedup();
    let mut what = vec![("operation", change.api.name().to_owned()), ("resource", change.what)];
    if !failed.is_empty() {
        what.push(("errors", joined(failed.iter().map(|code| error_code::name(*code)))));
    }
    caller.gate.event("administration", outcome, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_until_there_are_too_many() {
        assert_eq!(joined(["a", "b"].into_iter()), "a, b");
        let long = "x".repeat(300);
        let all = joined(std::iter::repeat_n(long.as_str(), 10));
        assert!(all.len() < LONGEST + 100 && all.ends_with("and more"));
    }
}
