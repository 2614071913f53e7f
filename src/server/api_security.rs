//! Access rules and users from outside: DescribeAcls, CreateAcls, DeleteAcls, DescribeUserScramCredentials,
//! AlterUserScramCredentials; and SASL where there is nothing to say.
//!
//! Numbers that stand for nothing close the connection, as Kafka does. Called by `dispatch`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use super::dispatch::Caller;
use crate::broker::BrokerError;
use crate::broker::security::{
    Acl, AclFilter, CLUSTER, Credential, MAX_ITERATIONS, MIN_ITERATIONS, Operation, Pattern, PatternFilter, Permission, ResourceType,
    ScramMechanism, UserChange,
};
use crate::wire::*;

/// Kafka's numbers for "unknown", "any" and "what applies".
const UNKNOWN: i8 = 0;
const ANY: i8 = 1;
const MATCH: i8 = 2;

/// A code and what is wrong.
pub(super) type Refused = (i16, String);

pub(super) fn invalid<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err((error_code::INVALID_REQUEST, why.into()))
}

pub(super) fn told(error: &BrokerError) -> Refused {
    (error.code(), error.to_string())
}

/// There is nothing to authenticate, or it is done.
pub(super) fn handshake() -> SaslHandshakeResponse {
    SaslHandshakeResponse { error_code: error_code::ILLEGAL_SASL_STATE, mechanisms: Vec::new() }
}

pub(super) fn authenticate() -> SaslAuthenticateResponse {
    let error_message = Some("SaslAuthenticate request received after successful authentication".to_owned());
    SaslAuthenticateResponse { error_code: error_code::ILLEGAL_SASL_STATE, error_message, ..Default::default() }
}

/// What is wrong with the numbers of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Odd {
    /// One says "unknown", which Kafka takes for a broken request.
    Nothing,
    /// One has no meaning yet: no rule can be meant.
    Unheard,
}

/// The number of a filter: `Ok(None)` for any.
fn wanted<T>(code: i8, read: impl Fn(i8) -> Option<T>) -> Result<Option<T>, Odd> {
    match code {
        ANY => Ok(None),
        other => read(other).map(Some).ok_or(Odd::Unheard),
    }
}

/// A filter as two APIs send it.
struct Filter {
    resource: i8,
    name: Option<String>,
    pattern: i8,
    principal: Option<String>,
    host: Option<String>,
    operation: i8,
    permission: i8,
}

fn filter(from: Filter) -> Result<AclFilter, Odd> {
    if [from.resource, from.pattern, from.operation, from.permission].contains(&UNKNOWN) {
        return Err(Odd::Nothing);
    }
    Ok(AclFilter {
        resource: wanted(from.resource, ResourceType::from_code)?,
        pattern: match from.pattern {
            ANY => PatternFilter::Any,
            MATCH => PatternFilter::Match,
            other => PatternFilter::Exactly(Pattern::from_code(other).ok_or(Odd::Unheard)?),
        },
        name: from.name,
        principal: from.principal,
        host: from.host,
        operation: wanted(from.operation, Operation::from_code)?,
        permission: wanted(from.permission, Permission::from_code)?,
    })
}

const NONSENSE: &str = "a filter of access rules with a number that stands for nothing";

pub(super) fn describe_acls(caller: &mut Caller, request: DescribeAclsRequest) -> DescribeAclsResponse {
    let asked = Filter {
        resource: request.resource_type_filter,
        name: request.resource_name_filter,
        pattern: request.pattern_type_filter,
        principal: request.principal_filter,
        host: request.host_filter,
        operation: request.operation,
        permission: request.permission_type,
    };
    let filter = match filter(asked) {
        Ok(filter) => filter,
        Err(Odd::Unheard) => return DescribeAclsResponse::default(),
        Err(Odd::Nothing) => {
            caller.hang_up = Some(NONSENSE);
            return DescribeAclsResponse::default();
        }
    };
    let mut resources: BTreeMap<(i8, String, i8), Vec<AclDescription>> = BTreeMap::new();
    for acl in caller.gate.security().find_acls(&filter) {
        let one = AclDescription {
            principal: acl.principal,
            host: acl.host,
            operation: acl.operation.code(),
            permission_type: acl.permission.code(),
        };
        resources.entry((acl.resource.code(), acl.name, acl.pattern.code())).or_default().push(one);
    }
    let resource =
        |((resource_type, resource_name, pattern_type), acls)| DescribeAclsResource { resource_type, resource_name, pattern_type, acls };
    DescribeAclsResponse { resources: resources.into_iter().map(resource).collect(), ..Default::default() }
}

fn creation(from: AclCreation) -> Result<Acl, Refused> {
    let Some(resource) = ResourceType::from_code(from.resource_type) else {
        return invalid("an access rule is about one kind of resource");
    };
    let Some(pattern) = Pattern::from_code(from.resource_pattern_type) else { return invalid("a rule's name is literal or prefixed") };
    let Some(operation) = Operation::from_code(from.operation) else { return invalid("an access rule is about one operation, or all") };
    let Some(permission) = Permission::from_code(from.permission_type) else { return invalid("an access rule allows or denies") };
    if resource == ResourceType::Cluster && from.resource_name != CLUSTER {
        return invalid(format!("the only cluster is \"{CLUSTER}\""));
    }
    if from.resource_name.is_empty() {
        return invalid("an access rule names its resource");
    }
    if from.principal.split_once(':').is_none_or(|(kind, _)| kind.is_empty()) {
        return invalid("a principal is a type and a name with a colon between them, as in User:alice");
    }
    let acl = Acl { resource, pattern, name: from.resource_name, principal: from.principal, host: from.host, operation, permission };
    Ok(acl)
}

pub(super) async fn create_acls(caller: &mut Caller, request: CreateAclsRequest) -> CreateAclsResponse {
    let is_nonsense =
        |one: &AclCreation| [one.resource_type, one.resource_pattern_type, one.operation, one.permission_type].contains(&UNKNOWN);
    if request.creations.iter().any(is_nonsense) {
        caller.hang_up = Some("an access rule with a number that stands for nothing");
        return CreateAclsResponse::default();
    }
    let judged: Vec<Result<Acl, Refused>> = request.creations.into_iter().map(creation).collect();
    let good = judged.iter().filter_map(|one| one.as_ref().ok().cloned()).collect();
    let made = caller.gate.security().create_acls(good).await.map_err(|e| told(&e));
    let result = |one: Result<Acl, Refused>| match one.map(drop).and_then(|()| made.clone()) {
        Ok(()) => AclCreationResult::default(),
        Err((error_code, why)) => AclCreationResult { error_code, error_message: Some(why) },
    };
    CreateAclsResponse { results: judged.into_iter().map(result).collect(), ..Default::default() }
}

pub(super) async fn delete_acls(caller: &mut Caller, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let asked = request.filters.into_iter().map(|one| {
        filter(Filter {
            resource: one.resource_type_filter,
            name: one.resource_name_filter,
            pattern: one.pattern_type_filter,
            principal: one.principal_filter,
            host: one.host_filter,
            operation: one.operation,
            permission: one.permission_type,
        })
    });
    let judged: Vec<Result<AclFilter, Odd>> = asked.collect();
    if judged.contains(&Err(Odd::Nothing)) {
        caller.hang_up = Some(NONSENSE);
        return DeleteAclsResponse::default();
    }
    let filters: Vec<AclFilter> = judged.iter().filter_map(|one| one.as_ref().ok().cloned()).collect();
    let matching = |acl: Acl| DeleteAclsMatchingAcl {
        error_code: error_code::NONE,
        error_message: None,
        resource_type: acl.resource.code(),
        resource_name: acl.name,
        pattern_type: acl.pattern.code(),
        principal: acl.principal,
        host: acl.host,
        operation: acl.operation.code(),
        permission_type: acl.permission.code(),
    };
    let refused = |(error_code, why): Refused| DeleteAclsFilterResult { error_code, error_message: Some(why), matching_acls: Vec::new() };
    let outcome = caller.gate.security().delete_acls(&filters).await.map_err(|e| told(&e));
    let mut gone = outcome.as_ref().map_or_else(|_| Vec::new(), Clone::clone).into_iter();
    let result = |one: Result<AclFilter, Odd>| match (one, &outcome) {
        (Err(_), _) => refused((error_code::INVALID_REQUEST, "a filter with a number that stands for nothing".to_owned())),
        (Ok(_), Err(why)) => refused(why.clone()),
        (Ok(_), Ok(_)) => {
            let matching_acls = gone.next().unwrap_or_default().into_iter().map(matching).collect();
            DeleteAclsFilterResult { matching_acls, ..Default::default() }
        }
    };
    let filter_results = judged.into_iter().map(result).collect();
    DeleteAclsResponse { filter_results, ..Default::default() }
}

pub(super) fn describe_users(caller: &Caller, request: DescribeUserScramCredentialsRequest) -> DescribeUserScramCredentialsResponse {
    let users = caller.gate.security().users();
    let asked: Vec<String> = match request.users {
        Some(asked) if !asked.is_empty() => asked.into_iter().map(|one| one.name).collect(),
        _ => users.keys().cloned().collect(),
    };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &asked {
        *counts.entry(name).or_default() += 1;
    }
    let mut done = BTreeSet::new();
    let mut results = Vec::new();
    for user in &asked {
        if !done.insert(user) {
            continue;
        }
        let refused = |error_code, why: String| DescribeUserScramCredentialsResult {
            user: user.clone(),
            error_code,
            error_message: Some(why),
            ..Default::default()
        };
        results.push(match users.get(user) {
            _ if counts.get(user.as_str()).is_some_and(|n| *n > 1) => {
                refused(error_code::DUPLICATE_RESOURCE, format!("the request asks for user {user} twice"))
            }
            None => refused(error_code::RESOURCE_NOT_FOUND, format!("user {user} has no SCRAM credential")),
            Some(credentials) => {
                let info = |(mechanism, credential): (&ScramMechanism, &Credential)| ScramCredentialInfo {
                    mechanism: mechanism.code(),
                    iterations: i32::try_from(credential.iterations()).unwrap_or(i32::MAX),
                };
                let credential_infos = credentials.iter().map(info).collect();
                DescribeUserScramCredentialsResult { user: user.clone(), credential_infos, ..Default::default() }
            }
        });
    }
    DescribeUserScramCredentialsResponse { results, ..Default::default() }
}

/// What is wrong with one change, if anything.
fn judge(name: &str, mechanism: i8) -> Result<ScramMechanism, Refused> {
    if name.is_empty() {
        return Err((error_code::UNACCEPTABLE_CREDENTIAL, "a user has a name".to_owned()));
    }
    ScramMechanism::from_code(mechanism)
        .ok_or_else(|| (error_code::UNSUPPORTED_SASL_MECHANISM, "there is no such SCRAM mechanism".to_owned()))
}

fn upsertion(one: &ScramCredentialUpsertion) -> Result<UserChange, Refused> {
    let unacceptable = |why: String| Err((error_code::UNACCEPTABLE_CREDENTIAL, why));
    let mechanism = judge(&one.name, one.mechanism)?;
    if one.iterations < MIN_ITERATIONS {
        return unacceptable(format!("too few iterations: at least {MIN_ITERATIONS} are taken"));
    }
    if one.iterations > MAX_ITERATIONS {
        return unacceptable(format!("too many iterations: at most {MAX_ITERATIONS} are taken"));
    }
    if one.salt.is_empty() || one.salted_password.is_empty() {
        return unacceptable("a credential has a salt and a salted password".to_owned());
    }
    let iterations = u32::try_from(one.iterations).ok().and_then(NonZeroU32::new).expect("at least the fewest");
    let credential = Credential::from_salted(mechanism, &one.salted_password, one.salt.to_vec(), iterations);
    Ok(UserChange { user: one.name.clone(), mechanism, credential: Some(credential) })
}

/// One change that a request asks for.
enum Change<'a> {
    Deletion(&'a ScramCredentialDeletion),
    Upsertion(&'a ScramCredentialUpsertion),
}

pub(super) async fn alter_users(caller: &Caller, request: AlterUserScramCredentialsRequest) -> AlterUserScramCredentialsResponse {
    let security = caller.gate.security();
    // In Kafka's order: the first thing that is wrong with a user's changes stands, and a second change is wrong.
    let deletion = |one: &ScramCredentialDeletion| {
        judge(&one.name, one.mechanism).and_then(|mechanism| match security.credential(&one.name, mechanism) {
            Some(_) => Ok(UserChange { user: one.name.clone(), mechanism, credential: None }),
            None => Err((error_code::RESOURCE_NOT_FOUND, "the user has no such credential".to_owned())),
        })
    };
    let deletions = request.deletions.iter().map(|one| (one.name.as_str(), Change::Deletion(one)));
    let asked = deletions.chain(request.upsertions.iter().map(|one| (one.name.as_str(), Change::Upsertion(one))));
    let mut users: BTreeSet<&str> = BTreeSet::new();
    let mut refused: BTreeMap<String, Refused> = BTreeMap::new();
    let mut changes = Vec::new();
    for (user, change) in asked {
        let is_second = !users.insert(user);
        if refused.contains_key(user) {
            continue;
        }
        let judged = match change {
            _ if is_second => Err((error_code::DUPLICATE_RESOURCE, "the request changes a user twice".to_owned())),
            Change::Deletion(one) => deletion(one),
            Change::Upsertion(one) => upsertion(one),
        };
        match judged {
            Ok(change) => changes.push(change),
            Err(why) => drop(refused.insert(user.to_owned(), why)),
        }
    }
    changes.retain(|change| !refused.contains_key(&change.user));
    let made = security.alter_users(changes).await.map_err(|e| told(&e));
    let result = |user: &str| {
        let outcome = refused.get(user).cloned().map_or_else(|| made.clone(), Err);
        let (error_code, error_message) = outcome.map_or_else(|(code, why)| (code, Some(why)), |()| (error_code::NONE, None));
        AlterUserScramCredentialsResult { user: user.to_owned(), error_code, error_message }
    };
    AlterUserScramCredentialsResponse { results: users.into_iter().map(result).collect(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_makes_no_sense_is_the_requests_fault() {
        let good = AclCreation {
            resource_type: 2,
            resource_name: "t".to_owned(),
            resource_pattern_type: 3,
            principal: "User:a".to_owned(),
            host: "*".to_owned(),
            operation: 3,
            permission_type: 3,
        };
        assert!(creation(good.clone()).is_ok());
        for bad in [
            AclCreation { resource_type: 4, ..good.clone() },
            AclCreation { resource_name: String::new(), ..good.clone() },
            AclCreation { principal: "alice".to_owned(), ..good.clone() },
            AclCreation { operation: 1, ..good.clone() },
            AclCreation { resource_pattern_type: 2, ..good.clone() },
            AclCreation { permission_type: 1, ..good },
        ] {
            assert_eq!(creation(bad).unwrap_err().0, error_code::INVALID_REQUEST);
        }
    }
}
