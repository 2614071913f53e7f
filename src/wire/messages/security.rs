//! Who a client is and what it may do: SaslHandshake, SaslAuthenticate, DescribeAcls, CreateAcls, DeleteAcls,
//! DescribeUserScramCredentials, AlterUserScramCredentials, DescribeClientQuotas, AlterClientQuotas.

use bytes::Bytes;

messages! {
    /// Chooses how to authenticate.
    SaslHandshakeRequest {
        mechanism: String [0..],
    }

    /// Whether that way is offered.
    SaslHandshakeResponse {
        error_code: i16 [0..],
        mechanisms: Vec<String> [0..],
    }

    /// One message of the authentication from the client.
    SaslAuthenticateRequest {
        auth_bytes: Bytes [0..],
    }

    /// One message of the authentication from the broker.
    SaslAuthenticateResponse {
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        auth_bytes: Bytes [0..],
        /// After so long the client has to authenticate again; 0 for never.
        session_lifetime_ms: i64 [1..],
    }
}

messages! {
    /// Asks for access rules that match.
    DescribeAclsRequest {
        /// 1 any, 2 topic, 3 group, 4 cluster, 5 transactional id, 6 delegation token, 7 user.
        resource_type_filter: i8 [0..],
        resource_name_filter: Option<String> [0..] null [0..],
        /// 1 any, 2 match, 3 literal, 4 prefixed.
        pattern_type_filter: i8 [1..] = 3,
        principal_filter: Option<String> [0..] null [0..],
        host_filter: Option<String> [0..] null [0..],
        /// 1 any, 2 all, 3 read and so on.
        operation: i8 [0..],
        /// 1 any, 2 deny, 3 allow.
        permission_type: i8 [0..],
    }

    /// Access rules.
    DescribeAclsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        resources: Vec<DescribeAclsResource> [0..],
    }

    /// The rules of one resource.
    DescribeAclsResource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        pattern_type: i8 [1..] = 3,
        acls: Vec<AclDescription> [0..],
    }

    /// One rule.
    AclDescription {
        principal: String [0..],
        host: String [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }

    /// Asks to make access rules.
    CreateAclsRequest {
        creations: Vec<AclCreation> [0..],
    }

    /// One rule to make.
    AclCreation {
        resource_type: i8 [0..],
        resource_name: String [0..],
        resource_pattern_type: i8 [1..] = 3,
        principal: String [0..],
        host: String [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }

    /// What became of the rules to make.
    CreateAclsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<AclCreationResult> [0..],
    }

    /// What became of one.
    AclCreationResult {
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
    }

    /// Asks to remove the access rules that match.
    DeleteAclsRequest {
        filters: Vec<DeleteAclsFilter> [0..],
    }

    /// Which rules to remove.
    DeleteAclsFilter {
        resource_type_filter: i8 [0..],
        resource_name_filter: Option<String> [0..] null [0..],
        pattern_type_filter: i8 [1..] = 3,
        principal_filter: Option<String> [0..] null [0..],
        host_filter: Option<String> [0..] null [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }

    /// Which rules were removed.
    DeleteAclsResponse {
        throttle_time_ms: i32 [0..],
        filter_results: Vec<DeleteAclsFilterResult> [0..],
    }

    /// The rules that one filter removed.
    DeleteAclsFilterResult {
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        matching_acls: Vec<DeleteAclsMatchingAcl> [0..],
    }

    /// One removed rule.
    DeleteAclsMatchingAcl {
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        resource_type: i8 [0..],
        resource_name: String [0..],
        pattern_type: i8 [1..] = 3,
        principal: String [0..],
        host: String [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
}

messages! {
    /// Asks which limits clients have.
    DescribeClientQuotasRequest {
        components: Vec<DescribeQuotasComponent> [0..],
        /// Whether an entity may have no other parts than the asked ones.
        strict: bool [0..],
    }

    /// One part of the entities asked for.
    DescribeQuotasComponent {
        entity_type: String [0..],
        /// 0 this name, 1 the default, 2 any.
        match_type: i8 [0..],
        /// The word of Kafka's definition is `match`.
        match_name: Option<String> [0..] null [0..],
    }

    /// Limits.
    DescribeClientQuotasResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        entries: Option<Vec<DescribeQuotasEntry>> [0..] null [0..],
    }

    /// The limits of one entity.
    DescribeQuotasEntry {
        entity: Vec<QuotasEntity> [0..],
        values: Vec<QuotasValue> [0..],
    }

    /// One part of an entity: a kind, and its name or nothing for the default.
    QuotasEntity {
        entity_type: String [0..],
        entity_name: Option<String> [0..] null [0..],
    }

    /// One limit.
    QuotasValue {
        key: String [0..],
        value: f64 [0..],
    }

    /// Asks to change the limits of clients.
    AlterClientQuotasRequest {
        entries: Vec<AlterQuotasEntry> [0..],
        validate_only: bool [0..],
    }

    /// The changes for one entity.
    AlterQuotasEntry {
        entity: Vec<QuotasEntity> [0..],
        ops: Vec<QuotasOperation> [0..],
    }

    /// One change.
    QuotasOperation {
        key: String [0..],
        value: f64 [0..],
        remove: bool [0..],
    }

    /// What became of the changes.
    AlterClientQuotasResponse {
        throttle_time_ms: i32 [0..],
        entries: Vec<AlterQuotasResult> [0..],
    }

    /// What became of the changes for one entity.
    AlterQuotasResult {
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        entity: Vec<QuotasEntity> [0..],
    }
}

messages! {
    /// Asks which users can authenticate with SCRAM.
    DescribeUserScramCredentialsRequest {
        /// `None` and empty ask for all.
        users: Option<Vec<ScramUserName>> [0..] null [0..],
    }

    /// One user asked for.
    ScramUserName {
        name: String [0..],
    }

    /// Users with SCRAM.
    DescribeUserScramCredentialsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        results: Vec<DescribeUserScramCredentialsResult> [0..],
    }

    /// One user.
    DescribeUserScramCredentialsResult {
        user: String [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        credential_infos: Vec<ScramCredentialInfo> [0..],
    }

    /// One of a user's ways.
    ScramCredentialInfo {
        /// 1 SCRAM-SHA-256, 2 SCRAM-SHA-512.
        mechanism: i8 [0..],
        iterations: i32 [0..],
    }

    /// Asks to set and remove users' SCRAM credentials.
    AlterUserScramCredentialsRequest {
        deletions: Vec<ScramCredentialDeletion> [0..],
        upsertions: Vec<ScramCredentialUpsertion> [0..],
    }

    /// A credential to remove.
    ScramCredentialDeletion {
        name: String [0..],
        mechanism: i8 [0..],
    }

    /// A credential to set.
    ScramCredentialUpsertion {
        name: String [0..],
        mechanism: i8 [0..],
        iterations: i32 [0..],
        salt: Bytes [0..],
        salted_password: Bytes [0..],
    }

    /// What became of the credentials.
    AlterUserScramCredentialsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<AlterUserScramCredentialsResult> [0..],
    }

    /// What became of one user's.
    AlterUserScramCredentialsResult {
        user: String [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
    }
}
