//! Limits of clients: who has which, and how far someone is over one. Pure; time is passed in.
//!
//! A limit belongs to an entity: a user, a client id, both, or the address connections come from; each part is a name or
//! the default for all that have none. The nearest one holds, in Kafka's order (documentation, "Quotas"). What is over a
//! limit becomes time: a client is answered, and then not listened to until its rate is its limit again. Always: a client
//! that was silent may take ten seconds' worth at once, as Kafka's eleven one-second samples let it. Called by
//! `security`.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What may be taken at once by who was silent, in seconds of the limit.
const BURST_SECONDS: f64 = 10.0;
/// Meters that are kept; beyond it those at rest go.
const MANY_METERS: usize = 10_000;
/// Nobody is put off for longer.
const LONGEST: Duration = Duration::from_secs(600);

/// A part of an entity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntityName {
    /// Everyone who has no limit under their name.
    Default,
    /// One.
    Named(String),
}

/// Whom a limit is for. At least one part is there; the address stands alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QuotaEntity {
    /// Which user.
    pub user: Option<EntityName>,
    /// Which client id.
    pub client: Option<EntityName>,
    /// Which address.
    pub ip: Option<EntityName>,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum QuotaKey {
    /// Bytes a second of Produce requests.
    ProducerByteRate,
    /// Bytes a second of Fetch responses.
    ConsumerByteRate,
    /// Time on threads, in hundredths of one thread.
    RequestPercentage,
    /// Partitions made and removed a second.
    ControllerMutationRate,
    /// Connections a second.
    ConnectionCreationRate,
}

impl QuotaKey {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ProducerByteRate,
        Self::ConsumerByteRate,
        Self::RequestPercentage,
        Self::ControllerMutationRate,
        Self::ConnectionCreationRate,
    ];

    /// Kafka's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProducerByteRate => "producer_byte_rate",
            Self::ConsumerByteRate => "consumer_byte_rate",
            Self::RequestPercentage => "request_percentage",
            Self::ControllerMutationRate => "controller_mutation_rate",
            Self::ConnectionCreationRate => "connection_creation_rate",
        }
    }

    /// What Kafka's name stands for.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Whether it is counted in whole numbers.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        matches!(self, Self::ProducerByteRate | Self::ConsumerByteRate | Self::ConnectionCreationRate)
    }

    /// Whether it is a limit of addresses.
    #[must_use]
    pub const fn is_of_addresses(self) -> bool {
        matches!(self, Self::ConnectionCreationRate)
    }
}

/// Whose use is added up: those who share a limit share a meter, in Kafka's way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Measured {
    key: QuotaKey,
    user: String,
    client: String,
}

/// The limits that are set.
#[derive(Clone, Debug, Default)]
pub struct Quotas {
    set: BTreeMap<QuotaEntity, BTreeMap<QuotaKey, f64>>,
}

impl Quotas {
    /// Whether there is no limit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// All limits, by entity.
    pub fn iter(&self) -> impl Iterator<Item = (&QuotaEntity, &BTreeMap<QuotaKey, f64>)> {
        self.set.iter()
    }

    /// The limits of one entity.
    #[must_use]
    pub fn of(&self, entity: &QuotaEntity) -> BTreeMap<QuotaKey, f64> {
        self.set.get(entity).cloned().unwrap_or_default()
    }

    /// Replaces the limits of one entity.
    pub fn put(&mut self, entity: QuotaEntity, values: BTreeMap<QuotaKey, f64>) {
        if values.is_empty() {
            self.set.remove(&entity);
        } else {
            self.set.insert(entity, values);
        }
    }

    /// The limit of someone, and who else counts towards it.
    #[must_use]
    pub fn limit(&self, key: QuotaKey, user: &str, client: &str) -> Option<(f64, Measured)> {
        use EntityName::{Default, Named};
        let both = |of_user: Option<EntityName>, of_client: Option<EntityName>, by_user: bool, by_client: bool| {
            let limit = *self.set.get(&QuotaEntity { user: of_user, client: of_client, ip: None })?.get(&key)?;
            let part = |is: bool, name: &str| if is { name.to_owned() } else { String::new() };
            Some((limit, Measured { key, user: part(by_user, user), client: part(by_client, client) }))
        };
        let (u, c) = (|| Some(Named(user.to_owned())), || Some(Named(client.to_owned())));
        both(u(), c(), true, true)
            .or_else(|| both(u(), Some(Default), true, true))
            .or_else(|| both(u(), None, true, false))
            .or_else(|| both(Some(Default), c(), true, true))
            .or_else(|| both(Some(Default), Some(Default), true, true))
            .or_else(|| both(Some(Default), None, true, false))
            .or_else(|| both(None, c(), false, true))
            .or_else(|| both(None, Some(Default), false, true))
    }

    /// The limit of connections from an address.
    #[must_use]
    pub fn limit_of_address(&self, address: &str) -> Option<(f64, Measured)> {
        let key = QuotaKey::ConnectionCreationRate;
        let of = |ip| self.set.get(&QuotaEntity { ip: Some(ip), ..QuotaEntity::default() })?.get(&key).copied();
        let limit = of(EntityName::Named(address.to_owned())).or_else(|| of(EntityName::Default))?;
        Some((limit, Measured { key, user: address.to_owned(), client: String::new() }))
    }
}

/// How much of a limit someone has used and not worked off.
#[derive(Clone, Copy, Debug)]
struct Meter {
    debt: f64,
    at: Instant,
}

impl Meter {
    /// Adds to it; answers for how long to wait.
    fn add(&mut self, limit: f64, amount: f64, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.debt = (self.debt - limit * passed).max(0.0) + amount;
        let over = self.debt - limit * BURST_SECONDS;
        if over <= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(over / limit).unwrap_or(LONGEST).min(LONGEST)
    }
}

/// What everyone with a limit has used.
#[derive(Debug, Default)]
pub struct Meters(HashMap<Measured, (Meter, f64)>);

impl Meters {
    /// Adds to what someone has used; answers for how long not to listen to them.
    pub fn add(&mut self, (limit, who): (f64, Measured), amount: f64, now: Instant) -> Duration {
        if limit <= 0.0 {
            return LONGEST;
        }
        if self.0.len() >= MANY_METERS && !self.0.contains_key(&who) {
            self.0.retain(|_, (meter, limit)| meter.debt > *limit * now.saturating_duration_since(meter.at).as_secs_f64());
            if self.0.len() >= MANY_METERS {
                // Nobody is at rest: a new one waits for the next round rather than for memory.
                return Duration::ZERO;
            }
        }
        let (meter, of) = self.0.entry(who).or_insert((Meter { debt: 0.0, at: now }, limit));
        *of = limit;
        meter.add(limit, amount, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(user: Option<&str>, client: Option<&str>) -> QuotaEntity {
        let name = |text: &str| if text == "*" { EntityName::Default } else { EntityName::Named(text.to_owned()) };
        QuotaEntity { user: user.map(name), client: client.map(name), ip: None }
    }

    #[test]
    fn the_nearest_limit_holds_in_kafkas_order() {
        let order = [
            (Some("u"), Some("c")),
            (Some("u"), Some("*")),
            (Some("u"), None),
            (Some("*"), Some("c")),
            (Some("*"), Some("*")),
            (Some("*"), None),
            (None, Some("c")),
            (None, Some("*")),
        ];
        let key = QuotaKey::ProducerByteRate;
        for from in 0..order.len() {
            let mut quotas = Quotas::default();
            for (i, (user, client)) in order.iter().enumerate().skip(from) {
                quotas.put(entity(*user, *client), BTreeMap::from([(key, i as f64)]));
            }
            let (limit, who) = quotas.limit(key, "u", "c").unwrap();
            assert_eq!(limit, from as f64);
            let shared = (order[from].0.is_some(), order[from].1.is_some());
            assert_eq!((who.user == "u", who.client == "c"), shared);
            assert!(quotas.limit(QuotaKey::ConsumerByteRate, "u", "c").is_none());
        }
    }

    #[test]
    fn what_is_over_the_limit_becomes_time_and_time_works_it_off() {
        let mut quotas = Quotas::default();
        quotas.put(entity(Some("u"), None), BTreeMap::from([(QuotaKey::ProducerByteRate, 100.0)]));
        let mut meters = Meters::default();
        let start = Instant::now();
        let mut add = |amount: f64, after: u64| {
            let limit = quotas.limit(QuotaKey::ProducerByteRate, "u", "any").unwrap();
            meters.add(limit, amount, start + Duration::from_secs(after)).as_secs()
        };
        assert_eq!(add(1000.0, 0), 0, "ten seconds' worth at once");
        assert_eq!(add(200.0, 0), 2);
        assert_eq!(add(0.0, 1), 1);
        assert_eq!(add(100.0, 2), 1);
        assert_eq!(add(0.0, 1000), 0);
        assert_eq!(add(1e30, 1000), LONGEST.as_secs());
    }

    #[test]
    fn an_address_has_a_limit_of_its_own_or_the_default() {
        let mut quotas = Quotas::default();
        let put = |quotas: &mut Quotas, ip, value| {
            quotas.put(QuotaEntity { ip: Some(ip), ..QuotaEntity::default() }, BTreeMap::from([(QuotaKey::ConnectionCreationRate, value)]));
        };
        put(&mut quotas, EntityName::Default, 5.0);
        put(&mut quotas, EntityName::Named("10.0.0.1".to_owned()), 7.0);
        assert_eq!(quotas.limit_of_address("10.0.0.1").unwrap().0, 7.0);
        assert_eq!(quotas.limit_of_address("10.0.0.2").unwrap().0, 5.0);
        quotas.put(QuotaEntity { ip: Some(EntityName::Default), ..QuotaEntity::default() }, BTreeMap::new());
        assert!(quotas.limit_of_address("10.0.0.2").is_none());
    }

    #[test]
    fn meters_at_rest_make_room_for_others() {
        let mut meters = Meters::default();
        let start = Instant::now();
        let who = |n: usize| Measured { key: QuotaKey::ProducerByteRate, user: n.to_string(), client: String::new() };
        for n in 0..MANY_METERS {
            meters.add((1.0, who(n)), 5.0, start);
        }
        meters.add((1.0, who(MANY_METERS)), 5.0, start);
        assert_eq!(meters.0.len(), MANY_METERS);
        meters.add((1.0, who(MANY_METERS)), 5.0, start + Duration::from_secs(6));
        assert_eq!(meters.0.len(), 1);
    }
}
