//! What is written to the topic `alerts`: one JSON record a change of state, keyed by the subject.
//!
//! The record carries everything a reader needs to understand it alone: rule and version, the value, since
//! when, and the readings that raised it. Extra columns of the rule's SELECT (ward, bed) stand beside ours.

use arrow::array::{Array, AsArray};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::life::{Acknowledgement, Evidence, Open, Priority};
use crate::bus::partition_for_key;
use crate::record::{TopicName, TopicPartition};
use crate::stream::{FailedRow, NO_TIME, Outputs, Rows, Sink, StreamError};
use crate::time::Timestamp;

/// Every alert says so.
pub const NOTICE: &str = "not a medical device";

pub use crate::record::ALERTS_TOPIC;

/// Where an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// Raised, and nobody has seen it.
    Active,
    /// Somebody has seen it.
    Acknowledged,
    /// Over.
    Resolved,
}

impl AlertState {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }
}

/// One record of topic `alerts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertRecord {
    /// Stable: made of rule, subject and the event time the breach began at, so that a replay repeats it.
    pub id: String,
    /// The rule.
    pub rule: String,
    /// Counts up with each CREATE OR REPLACE of the rule.
    pub rule_version: u64,
    /// How urgent.
    pub priority: Priority,
    /// Where it stands.
    pub state: AlertState,
    /// Whom it is about.
    pub subject: String,
    /// Event time of this change of state.
    pub ts: String,
    /// The value of the reading that brought the change about.
    pub value: Option<f64>,
    /// Event time at which the breach began.
    pub since: String,
    /// Event time at which the alert was raised.
    pub raised: String,
    /// The readings that raised it; from the middle of a long run some are left out.
    pub evidence: Vec<EvidenceRecord>,
    /// How many readings raised it.
    pub evidence_total: u64,
    /// Who has seen it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<String>,
    /// When, by the node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_at: Option<String>,
    /// What they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_reason: Option<String>,
    /// When the record was written, by the node's clock.
    #[serde(default)]
    pub recorded_at: String,
    /// The event was already old when it was found: recorded, and nobody was called.
    #[serde(default)]
    pub stale: bool,
    /// Says that this is not a medical device.
    pub notice: String,
    /// The webhooks that are to be told, as the rule says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<String>,
    /// The other columns of the rule's SELECT.
    #[serde(flatten)]
    pub columns: Map<String, Value>,
}

/// A reading that raised an alert, as it stands in the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidenceRecord {
    /// Partition of the source topic, of the first one where there are several.
    pub partition: i32,
    /// Offset there; left out for a result row that no single record stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// Event time.
    pub ts: String,
    /// The value.
    pub value: Option<f64>,
}

impl From<&Evidence> for EvidenceRecord {
    fn from(from: &Evidence) -> Self {
        Self {
            partition: from.partition,
            offset: (from.offset >= 0).then_some(from.offset),
            ts: Timestamp(from.ts).to_string(),
            value: from.value,
        }
    }
}

/// The names a rule's SELECT may not use for extra columns, because the record uses them itself.
pub const RESERVED: &[&str] = &[
    "id",
    "rule",
    "rule_version",
    "priority",
    "state",
    "since",
    "raised",
    "evidence",
    "evidence_total",
    "acknowledged_by",
    "acknowledged_at",
    "acknowledged_reason",
    "recorded_at",
    "stale",
    "notice",
    "notify",
];

impl AlertRecord {
    /// Fills in what an open alert knows of itself.
    pub fn take_open(&mut self, open: &Open) {
        self.since = Timestamp(open.since).to_string();
        self.raised = Timestamp(open.raised).to_string();
        self.evidence = open.evidence.readings.iter().map(EvidenceRecord::from).collect();
        self.evidence_total = open.evidence.total;
        if let Some(Acknowledgement { by, at, reason }) = &open.acknowledged {
            self.acknowledged_by = Some(by.clone());
            self.acknowledged_at = Some(Timestamp(*at).to_string());
            self.acknowledged_reason.clone_from(reason);
        }
    }
}

/// The id of an alert: the same for the same rule, subject and beginning, whoever finds it and when.
#[must_use]
pub fn alert_id(rule: &str, subject: &str, since: i64) -> String {
    let mut hash = Sha256::new();
    for part in [rule.as_bytes(), subject.as_bytes(), &since.to_be_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize()[..12].iter().fold(String::with_capacity(24), |mut id, byte| {
        use std::fmt::Write;
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// Writes alert records to their topic, stamped with when and whether the event was already old.
pub struct AlertSink {
    topic: TopicName,
    partitions: i32,
    notify_max_age_ms: i64,
}

impl AlertSink {
    /// Records go to `topic`, which has `partitions` partitions.
    #[must_use]
    pub const fn new(topic: TopicName, partitions: i32, notify_max_age_ms: i64) -> Self {
        Self { topic, partitions, notify_max_age_ms }
    }
}

impl Sink for AlertSink {
    fn rows(&mut self, rows: &Rows, now: Timestamp, out: &mut Outputs) -> Result<Vec<FailedRow>, StreamError> {
        let values = rows.batch.column(0).as_string::<i32>();
        for row in 0..values.len() {
            let mut record: AlertRecord = serde_json::from_str(values.value(row))
                .map_err(|e| StreamError::Evaluate { what: "an alert record".to_owned(), why: e.to_string() })?;
            record.recorded_at = now.to_string();
            // An acknowledgement is about now, whatever the age of the reading.
            record.stale = record.state != AlertState::Acknowledged
                && rows.times[row] != NO_TIME
                && now.since(Timestamp(rows.times[row])) > self.notify_max_age_ms;
            let key = record.subject.as_bytes();
            let to = TopicPartition::new(self.topic.clone(), partition_for_key(key, self.partitions));
            let value = serde_json::to_vec(&record).expect("an alert record is plain data");
            out.push(&to, now.0, Some(key), Some(&value), &[]);
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_rules_subjects_and_beginnings_apart_and_repeats_itself() {
        let id = alert_id("spo2_low", "p1", 0);
        assert_eq!(id, alert_id("spo2_low", "p1", 0));
        assert_eq!(id.len(), 24);
        for other in [alert_id("spo2_lo", "wp1", 0), alert_id("spo2_low", "p2", 0), alert_id("spo2_low", "p1", 1)] {
            assert_ne!(id, other);
        }
    }
}
