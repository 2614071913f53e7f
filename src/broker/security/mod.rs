//! Who may do what: users, access rules, limits and the audit trail.
//!
//! Owns the internal topics `__security` (not shown to clients: what is kept of passwords is in it) and `__audit`. Always:
//! a change is durable, and noted in the audit trail, before it is answered; whoever asks sees one whole state. Decisions
//! are pure (`acl`, `scram`, `quotas`, `principal`); here is what keeps them. Called by `server`.

mod acl;
mod audit;
mod principal;
mod quotas;
mod scram;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

pub use acl::{
    ANYONE, Acl, AclFilter, Acls, Asking, CLUSTER, Operation, Pattern, PatternFilter, Permission, ResourceType, Ruling, WILDCARD,
};
pub use audit::{AUDIT_BYTES, AUDIT_TOPIC, AuditEvent, Chain, ChainFault};
pub use principal::{Principal, PrincipalRules};
pub use quotas::{EntityName, QuotaEntity, QuotaKey, Quotas};
pub use scram::{Credential, MAX_ITERATIONS, MIN_ITERATIONS, ScramError, ScramExchange, ScramMechanism};

pub(super) use audit::Audit;

use quotas::Meters;
use stored::Stored;

use super::catalogue::internal_id;
use super::error::BrokerError;
use super::journal::{Entry, Journal};
use crate::log::Log;
use crate::time::Clock;

/// How often the hash of a password is repeated, for users that the configuration names and for decoys.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");
/// Rules that there may be.
const MAX_ACLS: usize = 100_000;
/// Users, and entities with limits, that there may be of each.
const MAX_OTHERS: usize = 100_000;

/// What the operator says about access.
#[derive(Clone, Debug)]
pub struct SecurityTerms {
    /// Who may do everything: `User:admin`.
    pub super_users: BTreeSet<String>,
    /// Whether everyone may do what no rule is about.
    pub allow_everyone: bool,
}

impl Default for SecurityTerms {
    fn default() -> Self {
        Self { super_users: BTreeSet::new(), allow_everyone: true }
    }
}

/// A user's ways to authenticate.
pub type Credentials = BTreeMap<ScramMechanism, Credential>;

/// A change of one user's ways to authenticate; `None` removes it.
pub struct UserChange {
    /// Whose.
    pub user: String,
    /// Which way.
    pub mechanism: ScramMechanism,
    /// From now on.
    pub credential: Option<Credential>,
}

/// Everything that is decided by, at one moment.
#[derive(Clone, Debug, Default)]
struct State {
    acls: Acls,
    users: BTreeMap<String, Credentials>,
    quotas: Quotas,
}

/// Users, access rules, limits and the audit trail.
pub struct Security {
    terms: SecurityTerms,
    journal: Arc<Journal>,
    audit: Arc<Audit>,
    state: RwLock<Arc<State>>,
    meters: Mutex<Meters>,
    /// What decoys are made with: known to nobody outside, the same after a restart.
    secret: Vec<u8>,
    /// Held across a change, which waits for the disk.
    change: tokio::sync::Mutex<()>,
}

impl Security {
    /// Reads everything back. Blocks.
    pub(super) fn open(log: &Arc<Log>, terms: SecurityTerms, clock: Clock) -> Result<Self, BrokerError> {
        let mut state = State::default();
        let mut secret = None;
        let mut unreadable = 0_u64;
        let journal = Journal::open(log, "__security", internal_id(b"security"), clock, |_, key, value| {
            match key.and_then(|key| Stored::read(key, value)) {
                Some(Stored::Secret(bytes)) => secret = Some(bytes),
                Some(other) => other.apply(&mut state),
                None => unreadable += 1,
            }
        })?;
        if unreadable > 0 {
            // What cannot be read may have been a rule that denies.
            let why = format!("{unreadable} records are of a kind this version does not know");
            return Err(BrokerError::Internal { topic: "__security", why });
        }
        let is_new = secret.is_none();
        let secret =
            secret.unwrap_or_else(|| uuid::Uuid::new_v4().as_bytes().iter().chain(uuid::Uuid::new_v4().as_bytes()).copied().collect());
        let audit = Arc::new(Audit::open(log, clock)?);
        let security = Self {
            terms,
            journal,
            audit,
            state: RwLock::new(Arc::new(state)),
            meters: Mutex::default(),
            secret,
            change: tokio::sync::Mutex::default(),
        };
        if is_new {
            futures::executor::block_on(security.journal.append(&[Stored::Secret(security.secret.clone()).entry()]))?;
        }
        Ok(security)
    }

    pub(super) const fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    pub(super) const fn audit(&self) -> &Arc<Audit> {
        &self.audit
    }

    fn now(&self) -> Arc<State> {
        Arc::clone(&self.state.read())
    }

    /// Whether someone may do everything, so that nothing has to be asked.
    #[must_use]
    pub fn is_unlimited(&self, principal: &str) -> bool {
        (self.terms.allow_everyone && self.state.read().acls.is_empty()) || self.terms.super_users.contains(principal)
    }

    /// Whether someone may do something to a resource.
    #[must_use]
    pub fn allows(&self, who: Asking<'_>, operation: Operation, resource: ResourceType, name: &str) -> bool {
        if self.terms.super_users.contains(who.principal) {
            return true;
        }
        match self.now().acls.rule(who, operation, resource, name) {
            Ruling::Allowed => true,
            Ruling::Denied => false,
            Ruling::Silent => self.terms.allow_everyone,
        }
    }

    /// Whether someone may do something to at least one resource of a kind.
    #[must_use]
    pub fn allows_any(&self, who: Asking<'_>, operation: Operation, resource: ResourceType) -> bool {
        // Who may do it to a name that no rule is about may do it to one at least.
        self.allows(who, operation, resource, "hardcode") || self.now().acls.rule_for_any(who, operation, resource)
    }

    /// Notes something in the audit trail.
    pub fn note(&self, event: AuditEvent) {
        self.audit.note(event);
    }

    /// Writes something to the audit trail, durably when this returns.
    pub async fn record(&self, event: AuditEvent) -> Result<(), BrokerError> {
        self.audit.write(event).await
    }

    /// The rules that a filter means.
    #[must_use]
    pub fn find_acls(&self, filter: &AclFilter) -> Vec<Acl> {
        self.now().acls.iter().filter(|acl| filter.matches(acl)).collect()
    }

    /// Makes rules; those that are there already stay.
    pub async fn create_acls(&self, all: Vec<Acl>) -> Result<(), BrokerError> {
        let _one = self.change.lock().await;
        let mut state = (*self.now()).clone();
        let new: Vec<Acl> = all.into_iter().filter(|acl| state.acls.insert(acl.clone())).collect();
        if state.acls.len() > MAX_ACLS {
            return Err(BrokerError::InvalidRequest(format!("there may be {MAX_ACLS} access rules")));
        }
        self.change_to(state, new.into_iter().map(|acl| Stored::Acl(acl, true).entry()).collect()).await
    }

    /// Removes the rules that each filter means. Answers which.
    pub async fn delete_acls(&self, filters: &[AclFilter]) -> Result<Vec<Vec<Acl>>, BrokerError> {
        let _one = self.change.lock().await;
        let mut state = (*self.now()).clone();
        let found: Vec<Vec<Acl>> = filters.iter().map(|filter| state.acls.iter().filter(|acl| filter.matches(acl)).collect()).collect();
        let gone: Vec<Entry> =
            found.iter().flatten().filter(|acl| state.acls.remove(acl)).map(|acl| Stored::Acl(acl.clone(), false).entry()).collect();
        self.change_to(state, gone).await?;
        Ok(found)
    }

    /// Every user and how they can authenticate.
    #[must_use]
    pub fn users(&self) -> BTreeMap<String, Credentials> {
        self.now().users.clone()
    }

    /// What is kept of a user's password.
    #[must_use]
    pub fn credential(&self, user: &str, mechanism: ScramMechanism) -> Option<Credential> {
        self.now().users.get(user)?.get(&mechanism).cloned()
    }

    /// What a user who does not exist is led through an exchange with.
    #[must_use]
    pub fn decoy(&self, user: &str, mechanism: ScramMechanism) -> Credential {
        Credential::decoy(mechanism, &self.secret, user, ITERATIONS)
    }

    /// Changes users' ways to authenticate, all together.
    pub async fn alter_users(&self, changes: Vec<UserChange>) -> Result<(), BrokerError> {
        let _one = self.change.lock().await;
        let mut state = (*self.now()).clone();
        let mut entries = Vec::with_capacity(changes.len());
        for UserChange { user, mechanism, credential } in changes {
            let stored = Stored::User(user, mechanism, credential);
            entries.push(stored.entry());
            stored.apply(&mut state);
        }
        if state.users.len() > MAX_OTHERS {
            return Err(BrokerError::InvalidRequest(format!("there may be {MAX_OTHERS} users")));
        }
        self.change_to(state, entries).await
    }

    /// Makes a user of the configuration, unless there is one of that name. Answers whether it was made.
    pub async fn introduce(&self, user: &str, password: &str) -> Result<bool, BrokerError> {
        if self.now().users.contains_key(user) {
            return Ok(false);
        }
        let (name, password) = (user.to_owned(), password.to_owned());
        let made = tokio::task::spawn_blocking(move || {
            ScramMechanism::ALL.map(|mechanism| {
                let salt = uuid::Uuid::new_v4().as_bytes().to_vec();
                let credential = Credential::from_password(mechanism, &password, salt, ITERATIONS);
                UserChange { user: name.clone(), mechanism, credential: Some(credential) }
            })
        });
        let made = made.await.map_err(|e| BrokerError::Internal { topic: "__security", why: e.to_string() })?;
        self.alter_users(made.into()).await?;
        Ok(true)
    }

    /// The limits that are set.
    #[must_use]
    pub fn quotas(&self) -> Quotas {
        self.now().quotas.clone()
    }

    /// Replaces the limits of entities, all together.
    pub async fn alter_quotas(&self, changes: Vec<(QuotaEntity, BTreeMap<QuotaKey, f64>)>) -> Result<(), BrokerError> {
        let _one = self.change.lock().await;
        let mut state = (*self.now()).clone();
        let mut entries = Vec::with_capacity(changes.len());
        for (entity, values) in changes {
            let stored = Stored::Quota(entity, values);
            entries.push(stored.entry());
            stored.apply(&mut state);
        }
        if state.quotas.iter().count() > MAX_OTHERS {
            return Err(BrokerError::InvalidRequest(format!("there may be {MAX_OTHERS} entities with limits")));
        }
        self.change_to(state, entries).await
    }

    /// Whether anyone has a limit.
    #[must_use]
    pub fn has_quotas(&self) -> bool {
        !self.state.read().quotas.is_empty()
    }

    /// Adds to what someone has used; answers for how long not to listen to them.
    #[must_use]
    pub fn used(&self, key: QuotaKey, user: &str, client: &str, amount: f64, at: Instant) -> Duration {
        match self.now().quotas.limit(key, user, client) {
            Some(limit) => self.meters.lock().add(limit, amount, at),
            None => Duration::ZERO,
        }
    }

    /// Counts a connection from an address; answers for how long it is to wait.
    #[must_use]
    pub fn connected(&self, address: &str, at: Instant) -> Duration {
        match self.now().quotas.limit_of_address(address) {
            Some(limit) => self.meters.lock().add(limit, 1.0, at),
            None => Duration::ZERO,
        }
    }

    async fn change_to(&self, state: State, entries: Vec<Entry>) -> Result<(), BrokerError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.journal.append(&entries).await?;
        *self.state.write() = Arc::new(state);
        Ok(())
    }
}
