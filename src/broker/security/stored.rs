//! What `__security` holds, record by record: keys say what a record is about, values what holds.
//!
//! Always: a value that was written is read back as the same, and a record that cannot be read is not passed over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Acl, Credential, QuotaEntity, QuotaKey, ScramMechanism, State};
use crate::broker::journal::Entry;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stored {
    /// A rule, and whether it holds.
    Acl(Acl, bool),
    /// A user's way to authenticate; `None` where it is gone.
    User(String, ScramMechanism, Option<Credential>),
    /// The limits of an entity.
    Quota(QuotaEntity, BTreeMap<QuotaKey, f64>),
    /// What decoys are made with.
    Secret(Vec<u8>),
}

#[derive(Serialize, Deserialize)]
enum Key {
    Acl(Acl),
    User { name: String, mechanism: ScramMechanism },
    Quota(QuotaEntity),
    Secret,
}

fn bytes(of: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(of).expect("what is stored has names for keys and finite numbers")
}

impl Stored {
    /// As the journal keeps it.
    pub(super) fn entry(&self) -> Entry {
        match self {
            Self::Acl(acl, holds) => (bytes(&Key::Acl(acl.clone())), holds.then(|| b"{}".to_vec())),
            Self::User(name, mechanism, credential) => {
                (bytes(&Key::User { name: name.clone(), mechanism: *mechanism }), credential.as_ref().map(bytes))
            }
            Self::Quota(entity, values) => {
                let named: BTreeMap<&str, f64> = values.iter().map(|(key, value)| (key.name(), *value)).collect();
                (bytes(&Key::Quota(entity.clone())), (!named.is_empty()).then(|| bytes(&named)))
            }
            Self::Secret(secret) => (bytes(&Key::Secret), Some(bytes(secret))),
        }
    }

    /// From the journal.
    pub(super) fn read(key: &[u8], value: Option<&[u8]>) -> Option<Self> {
        Some(match serde_json::from_slice(key).ok()? {
            Key::Acl(acl) => Self::Acl(acl, value.is_some()),
            Key::User { name, mechanism } => Self::User(name, mechanism, value.map(serde_json::from_slice).transpose().ok()?),
            Key::Quota(entity) => {
                let named: BTreeMap<String, f64> = value.map(serde_json::from_slice).transpose().ok()?.unwrap_or_default();
                let values: Option<_> = named.into_iter().map(|(key, value)| Some((QuotaKey::from_name(&key)?, value))).collect();
                Self::Quota(entity, values?)
            }
            Key::Secret => Self::Secret(serde_json::from_slice(value?).ok()?),
        })
    }

    /// Puts it into effect.
    pub(super) fn apply(self, state: &mut State) {
        match self {
            Self::Acl(acl, true) => drop(state.acls.insert(acl)),
            Self::Acl(acl, false) => drop(state.acls.remove(&acl)),
            Self::User(name, mechanism, Some(credential)) => drop(state.users.entry(name).or_default().insert(mechanism, credential)),
            Self::User(name, mechanism, None) => {
                if let Some(credentials) = state.users.get_mut(&name) {
                    credentials.remove(&mechanism);
                    if credentials.is_empty() {
                        state.users.remove(&name);
                    }
                }
            }
            Self::Quota(entity, values) => state.quotas.put(entity, values),
            Self::Secret(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::{EntityName, Operation, Pattern, Permission, ResourceType};
    use super::*;

    #[test]
    fn what_is_written_is_read_back_as_the_same() {
        let acl = Acl {
            resource: ResourceType::Topic,
            pattern: Pattern::Prefixed,
            name: "vit".to_owned(),
            principal: "User:ä\"b".to_owned(),
            host: "*".to_owned(),
            operation: Operation::DescribeConfigs,
            permission: Permission::Deny,
        };
        let entity = QuotaEntity { user: Some(EntityName::Default), client: Some(EntityName::Named("c".to_owned())), ip: None };
        let credential = Credential::from_salted(ScramMechanism::Sha512, b"salted", b"salt".to_vec(), NonZeroU32::MIN);
        for one in [
            Stored::Acl(acl.clone(), true),
            Stored::Acl(acl, false),
            Stored::User("alice".to_owned(), ScramMechanism::Sha256, Some(credential)),
            Stored::User("alice".to_owned(), ScramMechanism::Sha512, None),
            Stored::Quota(entity.clone(), BTreeMap::from([(QuotaKey::ProducerByteRate, 1.5)])),
            Stored::Quota(entity, BTreeMap::new()),
            Stored::Secret(vec![1, 2, 255]),
        ] {
            let (key, value) = one.entry();
            assert_eq!(Stored::read(&key, value.as_deref()), Some(one));
        }
        assert_eq!(Stored::read(b"else", None), None);
        assert_eq!(Stored::read(br#"{"User":{"name":"a","mechanism":"Sha256"}}"#, Some(b"else")), None);
    }
}
