//! A classic group with its members as a record of `__consumer_offsets`, in version 3 of Kafka's `GroupMetadataValue`.
//!
//! Always: who is written down as a member had its assignment made, so that a restart tells nobody to join again; a group on
//! its way from one generation to the next is written down without members, or not at all. Called by `stored`.

use bytes::Bytes;

use super::message::GroupId;
use super::stored::{Fields, GroupRecord, StoredError, group_key, put_bytes, put_i16, put_i32, put_i64, put_nullable_text, put_text};
use crate::time::Timestamp;

/// A record above this many bytes is written without members: they join again after a restart.
const MOST_BYTES: usize = 4 << 20;

/// What is kept of a group besides its offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredGroup {
    /// What its members are.
    pub protocol_type: String,
    /// The last generation.
    pub generation: i32,
    /// The chosen protocol.
    pub protocol: Option<String>,
    /// Who assigns.
    pub leader: Option<String>,
    /// When the last member left; `None` while it has members.
    pub empty_since: Option<Timestamp>,
    /// Its members, where they have their assignments.
    pub members: Vec<StoredMember>,
}

/// What is kept of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMember {
    /// Its id.
    pub member_id: String,
    /// Its name, where it is static.
    pub instance_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// How long it may take to join again.
    pub rebalance_timeout_ms: i32,
    /// Silence after which it is dropped.
    pub session_timeout_ms: i32,
    /// What it sent for the chosen protocol.
    pub subscription: Bytes,
    /// What it was assigned.
    pub assignment: Bytes,
}

/// The record of a group.
pub(super) fn group_record(group: &GroupId, stored: &StoredGroup) -> GroupRecord {
    let size = |member: &StoredMember| 64 + member.member_id.len() + member.subscription.len() + member.assignment.len();
    let fits = stored.members.iter().map(size).sum::<usize>() <= MOST_BYTES;
    let members: &[StoredMember] = if fits { &stored.members } else { &[] };
    let mut value = Vec::new();
    put_i16(&mut value, 3);
    put_text(&mut value, &stored.protocol_type);
    put_i32(&mut value, stored.generation);
    put_nullable_text(&mut value, stored.protocol.as_deref());
    put_nullable_text(&mut value, stored.leader.as_deref());
    put_i64(&mut value, stored.empty_since.map_or(-1, |at| at.0));
    put_i32(&mut value, i32::try_from(members.len()).expect("what fits into a record can be counted"));
    for member in members {
        put_text(&mut value, &member.member_id);
        put_nullable_text(&mut value, member.instance_id.as_deref());
        put_text(&mut value, &member.client_id);
        put_text(&mut value, &member.client_host);
        put_i32(&mut value, member.rebalance_timeout_ms);
        put_i32(&mut value, member.session_timeout_ms);
        put_bytes(&mut value, &member.subscription);
        put_bytes(&mut value, &member.assignment);
    }
    GroupRecord { key: group_key(group), value: Some(value) }
}

/// The record that a group is no more.
pub(super) fn group_tombstone(group: &GroupId) -> GroupRecord {
    GroupRecord { key: group_key(group), value: None }
}

/// Reads the value of a group's record.
pub(super) fn read_group(value: &[u8]) -> Result<StoredGroup, StoredError> {
    let mut value = Fields(value);
    let version = value.i16()?;
    if !(0..=3).contains(&version) {
        return Err(StoredError::Version(version));
    }
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let mut stored = StoredGroup {
        protocol_type: value.text()?.to_owned(),
        generation: value.i32()?,
        protocol: owned(value.nullable_text()?),
        leader: owned(value.nullable_text()?),
        empty_since: if version >= 2 { Some(Timestamp(value.i64()?)).filter(|at| at.0 >= 0) } else { None },
        members: Vec::new(),
    };
    // Every member takes bytes of its own, so the count cannot ask for more than there is.
    for _ in 0..value.i32()? {
        stored.members.push(StoredMember {
            member_id: value.text()?.to_owned(),
            instance_id: if version >= 3 { owned(value.nullable_text()?) } else { None },
            client_id: value.text()?.to_owned(),
            client_host: value.text()?.to_owned(),
            rebalance_timeout_ms: if version >= 1 { value.i32()? } else { -1 },
            session_timeout_ms: value.i32()?,
            subscription: Bytes::copy_from_slice(value.bytes()?),
            assignment: Bytes::copy_from_slice(value.bytes()?),
        });
        let member = stored.members.last_mut().expect("just put there");
        if version == 0 {
            member.rebalance_timeout_ms = member.session_timeout_ms;
        }
    }
    Ok(stored)
}
