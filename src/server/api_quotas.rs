//! Limits of clients from outside: DescribeClientQuotas, AlterClientQuotas.
//!
//! Always: each entity is judged by itself, and its limits change all together or not at all. Called by `dispatch`.

use std::collections::{BTreeMap, BTreeSet};

use super::api_security::{Refused, invalid, told};
use super::dispatch::Caller;
use crate::broker::security::{EntityName, QuotaEntity, QuotaKey};
use crate::wire::*;

const USER: &str = "user";
const CLIENT: &str = "client-id";
const IP: &str = "ip";
/// Kafka's number for a part that is matched by its name.
const EXACT: i8 = 0;
/// Kafka's number for a part that may have any name, the last there is.
const ANY: i8 = 2;

/// The entity that its parts make.
fn entity(parts: &[QuotasEntity]) -> Result<QuotaEntity, Refused> {
    let mut entity = QuotaEntity::default();
    for part in parts {
        let place = match part.entity_type.as_str() {
            USER => &mut entity.user,
            CLIENT => &mut entity.client,
            IP => &mut entity.ip,
            other => return invalid(format!("limits are for a user, a client-id or an ip, not for \"{other}\"")),
        };
        if place.is_some() {
            return invalid(format!("the entity has two parts of type {}", part.entity_type));
        }
        *place = Some(match part.entity_name.as_deref() {
            None => EntityName::Default,
            Some("") => return invalid(format!("a part of type {} has an empty name", part.entity_type)),
            Some(name) => EntityName::Named(name.to_owned()),
        });
    }
    match (&entity.user, &entity.client, &entity.ip) {
        (None, None, None) => invalid("the entity has no part"),
        (None, None, Some(EntityName::Named(ip))) if ip.parse::<std::net::IpAddr>().is_err() => invalid(format!("{ip} is not an address")),
        (None, None, Some(_)) | (_, _, None) => Ok(entity),
        _ => invalid("an ip stands alone"),
    }
}

/// What an entity's limits are after the changes.
fn changed(before: BTreeMap<QuotaKey, f64>, entity: &QuotaEntity, ops: &[QuotasOperation]) -> Result<BTreeMap<QuotaKey, f64>, Refused> {
    let mut values = before;
    for op in ops {
        let key = QuotaKey::from_name(&op.key).filter(|key| key.is_of_addresses() == entity.ip.is_some());
        // What there is not can always be removed.
        if key.is_none() && op.remove {
            continue;
        }
        let Some(key) = key else { return invalid(format!("there is no limit \"{}\" for this entity", op.key)) };
        if op.remove {
            values.remove(&key);
            continue;
        }
        if !op.value.is_finite() {
            return invalid(format!("{} is a number", op.key));
        }
        if key.is_whole() && (op.value % 1.0).abs() > 1e-6 {
            return invalid(format!("{} is a whole number", op.key));
        }
        if op.value <= 0.0 {
            return invalid(format!("{} is more than nothing", op.key));
        }
        values.insert(key, op.value);
    }
    Ok(values)
}

pub(super) async fn alter(caller: &Caller, request: AlterClientQuotasRequest) -> AlterClientQuotasResponse {
    let security = caller.gate.security();
    let quotas = security.quotas();
    let mut seen = BTreeSet::new();
    let mut changes = Vec::new();
    let mut entries = Vec::with_capacity(request.entries.len());
    for entry in request.entries {
        let outcome = entity(&entry.entity).and_then(|entity| {
            if !seen.insert(entity.clone()) {
                return invalid("the request changes an entity twice");
            }
            let after = changed(quotas.of(&entity), &entity, &entry.ops)?;
            changes.push((entity, after));
            Ok(())
        });
        let (error_code, error_message) = outcome.map_or_else(|(code, why)| (code, Some(why)), |()| (error_code::NONE, None));
        entries.push(AlterQuotasResult { error_code, error_message, entity: entry.entity });
    }
    if !request.validate_only
        && let Err(error) = security.alter_quotas(changes).await
    {
        let (code, why) = told(&error);
        for entry in entries.iter_mut().filter(|entry| entry.error_code == error_code::NONE) {
            (entry.error_code, entry.error_message) = (code, Some(why.clone()));
        }
    }
    AlterClientQuotasResponse { entries, ..Default::default() }
}

/// Whether one part of an entity is as asked.
fn fits(asked: &DescribeQuotasComponent, is: Option<&EntityName>) -> bool {
    const DEFAULT: i8 = 1;
    match (asked.match_type, is) {
        (_, None) => false,
        (EXACT, Some(name)) => matches!(name, EntityName::Named(name) if Some(name) == asked.match_name.as_ref()),
        (DEFAULT, Some(name)) => *name == EntityName::Default,
        (_, Some(_)) => true,
    }
}

fn find(caller: &Caller, request: &DescribeClientQuotasRequest) -> Result<Vec<DescribeQuotasEntry>, Refused> {
    let mut asked: BTreeMap<&str, &DescribeQuotasComponent> = BTreeMap::new();
    for one in &request.components {
        if one.entity_type.is_empty() {
            return invalid("a part of an entity has a type");
        }
        if ![USER, CLIENT, IP].contains(&one.entity_type.as_str()) {
            let why = format!("limits are for a user, a client-id or an ip, not for \"{}\"", one.entity_type);
            return Err((error_code::UNSUPPORTED_VERSION, why));
        }
        if !(EXACT..=ANY).contains(&one.match_type) {
            return invalid(format!("there is no match type {}", one.match_type));
        }
        if (one.match_type == EXACT) != one.match_name.is_some() {
            return invalid("an exact match names what it matches, and no other does");
        }
        if asked.insert(&one.entity_type, one).is_some() {
            return invalid(format!("the request asks for {} twice", one.entity_type));
        }
    }
    if asked.contains_key(IP) && asked.len() > 1 {
        return invalid("an ip stands alone");
    }
    let quotas = caller.gate.security().quotas();
    let mut found = Vec::new();
    for (entity, values) in quotas.iter() {
        let parts: Vec<(&str, &EntityName)> = [(USER, &entity.user), (CLIENT, &entity.client), (IP, &entity.ip)]
            .into_iter()
            .filter_map(|(kind, name)| Some((kind, name.as_ref()?)))
            .collect();
        let is = |kind: &str| parts.iter().find(|(of, _)| *of == kind).map(|(_, name)| *name);
        let all_fit = asked.iter().all(|(kind, one)| fits(one, is(kind)));
        let no_others = !request.strict || parts.iter().all(|(kind, _)| asked.contains_key(kind));
        if all_fit && no_others {
            let name = |name: &EntityName| match name {
                EntityName::Default => None,
                EntityName::Named(name) => Some(name.clone()),
            };
            let part = |(kind, of): &(&str, &EntityName)| QuotasEntity { entity_type: (*kind).to_owned(), entity_name: name(of) };
            found.push(DescribeQuotasEntry {
                entity: parts.iter().map(part).collect(),
                values: values.iter().map(|(key, value)| QuotasValue { key: key.name().to_owned(), value: *value }).collect(),
            });
        }
    }
    Ok(found)
}

pub(super) fn describe(caller: &Caller, request: &DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    match find(caller, request) {
        Ok(entries) => DescribeClientQuotasResponse { entries: Some(entries), ..Default::default() },
        Err((error_code, why)) => DescribeClientQuotasResponse { error_code, error_message: Some(why), ..Default::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(entity_type: &str, name: Option<&str>) -> QuotasEntity {
        QuotasEntity { entity_type: entity_type.to_owned(), entity_name: name.map(str::to_owned) }
    }

    #[test]
    fn an_entity_is_made_of_parts_that_go_together() {
        for good in [&[part("user", None)][..], &[part("user", Some("a")), part("client-id", None)], &[part("ip", Some("::1"))]] {
            assert!(entity(good).is_ok(), "{good:?}");
        }
        for bad in [
            &[][..],
            &[part("user", Some(""))],
            &[part("user", None), part("user", Some("a"))],
            &[part("user", None), part("ip", None)],
            &[part("ip", Some("host name"))],
            &[part("group", None)],
        ] {
            assert_eq!(entity(bad).unwrap_err().0, error_code::INVALID_REQUEST, "{bad:?}");
        }
    }

    #[test]
    fn limits_are_numbers_of_their_kind() {
        let user = entity(&[part("user", None)]).unwrap();
        let op = |key: &str, value: f64| QuotasOperation { key: key.to_owned(), value, remove: false };
        assert_eq!(changed(BTreeMap::new(), &user, &[op("producer_byte_rate", 5.0), op("request_percentage", 0.5)]).unwrap().len(), 2);
        for (key, value) in
            [("producer_byte_rate", 0.5), ("producer_byte_rate", f64::NAN), ("connection_creation_rate", 1.0), ("no_such", 1.0)]
        {
            assert!(changed(BTreeMap::new(), &user, &[op(key, value)]).is_err(), "{key} {value}");
        }
        let removed = QuotasOperation { remove: true, ..op("producer_byte_rate", 0.0) };
        assert!(changed(BTreeMap::from([(QuotaKey::ProducerByteRate, 1.0)]), &user, &[removed]).unwrap().is_empty());
    }
}
