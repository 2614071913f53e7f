//! The life of an alert, as a pure step: readings and times in, what to tell out.
//!
//! One [`Life`] per subject of a rule: idle, pending (breached, not yet for long enough), active,
//! acknowledged, resolved. Always: only a reading raises or clears; silence and gaps do neither. A gap
//! restarts a hold. A person is told of `active`, `acknowledged` and `resolved`; `pending` is the time a
//! breach is watched before anyone is bothered (about half of bedside alarms end within 15 s:
//! Görges 2009, Anesth Analg 108:1546).

use serde::{Deserialize, Serialize};

/// How urgent. The three of IEC 60601-1-8; we only carry the word and claim no conformance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Awareness.
    Low,
    /// Prompt response.
    Medium,
    /// Immediate response.
    High,
}

impl Priority {
    /// Reads `high`, `medium` or `low`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "high" => Some(Self::High),
            "medium" => Some(Self::Medium),
            "low" => Some(Self::Low),
            _ => None,
        }
    }

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// What a rule says about time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A breach must have held this long, in milliseconds of event time.
    pub hold_ms: i64,
    /// A clear must have held this long.
    pub clear_hold_ms: i64,
    /// Two readings further apart than this do not belong to one hold.
    pub max_gap_ms: i64,
    /// Stays until a person has acknowledged it, even when the readings are well again.
    pub latch: bool,
}

/// One reading as a rule sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Event time in milliseconds; of a reading ahead of the clock, when it was heard.
    pub at: i64,
    /// Whether its own time was ahead of the clock, and so says nothing about which reading is newer.
    pub ahead: bool,
    /// The value, where the rule names one.
    pub value: Option<f64>,
    /// Whether the limit is broken.
    pub breach: bool,
    /// Whether it is well again; between the two lies the hysteresis.
    pub clear: bool,
    /// The record it came in.
    pub source: Evidence,
}

/// One reading that raised an alert: where it stands in the log and what it said.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Partition of the source topic, of the first one where there are several.
    pub partition: i32,
    /// Offset there, or -1 for a result row that no single record stands for.
    pub offset: i64,
    /// Event time in milliseconds.
    pub ts: i64,
    /// The value.
    pub value: Option<f64>,
}

/// An alert keeps the first and the last so many readings that raised it.
const EVIDENCE_ENDS: usize = 32;

/// Readings that raised an alert, bounded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvidenceList {
    /// The readings, oldest first; from the middle some may be missing.
    pub readings: Vec<Evidence>,
    /// How many there were.
    pub total: u64,
}

impl EvidenceList {
    fn push(&mut self, evidence: Evidence) {
        self.total += 1;
        if self.readings.len() == 2 * EVIDENCE_ENDS {
            self.readings.remove(EVIDENCE_ENDS);
        }
        self.readings.push(evidence);
    }
}

/// Who acknowledged, when, and what they said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The person or system.
    pub by: String,
    /// By the node's clock, in milliseconds.
    pub at: i64,
    /// Their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An alert that is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// When the breach began, in milliseconds.
    pub since: i64,
    /// When the alert was raised, in milliseconds.
    pub raised: i64,
    /// The readings that raised it.
    pub evidence: EvidenceList,
    /// Who has seen it.
    pub acknowledged: Option<Acknowledgement>,
    /// Since when the readings have been well again.
    pub clearing: Option<i64>,
    /// Well again, and only waiting for somebody to look (a latched alert).
    pub latched: bool,
}

/// Where a subject stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing is wrong.
    #[default]
    Idle,
    /// Breached, and watched.
    Pending {
        /// Since when, in milliseconds.
        since: i64,
        /// The readings so far.
        evidence: EvidenceList,
    },
    /// An alert is open.
    Open(Box<Open>),
}

/// What a person is to be told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// An alert is raised.
    Active(Open),
    /// Somebody has seen it.
    Acknowledged(Open),
    /// It is over.
    Resolved(Open),
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Stepped {
    /// Nothing to tell.
    Quiet,
    /// The reading is not newer than the subject's last: it is counted and does not step.
    NotNewer,
    /// Something to tell.
    Tell(Told),
}

/// One subject of one rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Life {
    /// The subject's last reading whose time is believed, in milliseconds.
    pub last: Option<i64>,
    /// When its last reading ahead of the clock was heard, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<i64>,
    /// Where it stands.
    pub phase: Phase,
}

impl Life {
    /// One reading comes in. One that is ahead of the clock steps as it comes, and never makes another old: a
    /// device with a wrong clock must not silence its patient.
    pub fn step(&mut self, reading: &Reading, terms: &Terms) -> Stepped {
        if !reading.ahead && self.last.is_some_and(|last| reading.at <= last) {
            return Stepped::NotNewer;
        }
        let gap = self.latest().is_some_and(|latest| reading.at - latest > terms.max_gap_ms);
        if reading.ahead {
            self.heard = self.heard.max(Some(reading.at));
        } else {
            self.last = Some(reading.at);
        }
        match std::mem::take(&mut self.phase) {
            Phase::Idle => self.watch(reading, terms, None),
            Phase::Pending { since, evidence } => self.watch(reading, terms, Some((since, evidence)).filter(|_| !gap)),
            Phase::Open(open) => self.follow(*open, reading, terms, gap),
        }
    }

    /// Nothing is open: is it breached, and for long enough?
    fn watch(&mut self, reading: &Reading, terms: &Terms, held: Option<(i64, EvidenceList)>) -> Stepped {
        if !reading.breach {
            return Stepped::Quiet;
        }
        let (since, mut evidence) = held.unwrap_or((reading.at, EvidenceList::default()));
        evidence.push(reading.source);
        if reading.at - since < terms.hold_ms {
            self.phase = Phase::Pending { since, evidence };
            return Stepped::Quiet;
        }
        let open = Open { since, raised: reading.at, evidence, acknowledged: None, clearing: None, latched: false };
        self.phase = Phase::Open(Box::new(open.clone()));
        Stepped::Tell(Told::Active(open))
    }

    /// An alert is open: is it well again, and for long enough?
    fn follow(&mut self, mut open: Open, reading: &Reading, terms: &Terms, gap: bool) -> Stepped {
        if reading.breach || !reading.clear {
            open.clearing = None;
            open.latched = false;
            self.phase = Phase::Open(Box::new(open));
            return Stepped::Quiet;
        }
        let since = open.clearing.filter(|_| !gap).unwrap_or(reading.at);
        open.clearing = Some(since);
        if reading.at - since < terms.clear_hold_ms {
            self.phase = Phase::Open(Box::new(open));
            return Stepped::Quiet;
        }
        if terms.latch && open.acknowledged.is_none() {
            open.latched = true;
            self.phase = Phase::Open(Box::new(open));
            return Stepped::Quiet;
        }
        Stepped::Tell(Told::Resolved(open))
    }

    /// Somebody has seen the alert. Twice is once; nothing open is nothing to tell. A latched alert that is
    /// well again ends with it.
    pub fn acknowledge(&mut self, acknowledgement: Acknowledgement) -> Vec<Told> {
        let Phase::Open(open) = &mut self.phase else { return Vec::new() };
        if open.acknowledged.is_some() {
            return Vec::new();
        }
        open.acknowledged = Some(acknowledgement);
        let mut told = vec![Told::Acknowledged((**open).clone())];
        if open.latched {
            told.push(Told::Resolved((**open).clone()));
            self.phase = Phase::Idle;
        }
        told
    }

    /// When the subject was last heard of.
    #[must_use]
    pub fn latest(&self) -> Option<i64> {
        self.last.max(self.heard)
    }

    /// Whether nothing is known that a later reading would need.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { hold_ms: 15_000, clear_hold_ms: 10_000, max_gap_ms: 30_000, latch: false };

    /// Plays `(second, value)` readings of SpO2 with the limits 88 and 90, and tells what was told when.
    fn play(terms: &Terms, readings: &[(i64, f64)]) -> String {
        let believed: Vec<_> = readings.iter().map(|(second, value)| (*second, *value, false)).collect();
        play_mixed(terms, &believed)
    }

    /// The same with `(second heard, value, whether ahead of the clock)`.
    fn play_mixed(terms: &Terms, readings: &[(i64, f64, bool)]) -> String {
        let mut life = Life::default();
        let mut told = Vec::new();
        for (second, value, ahead) in readings {
            let source = Evidence { partition: 0, offset: *second, ts: second * 1000, value: Some(*value) };
            let (at, ahead, breach, clear) = (second * 1000, *ahead, *value < 88.0, *value >= 90.0);
            let reading = Reading { at, ahead, value: Some(*value), breach, clear, source };
            match life.step(&reading, terms) {
                Stepped::Quiet => {}
                Stepped::NotNewer => told.push(format!("{second} not newer")),
                Stepped::Tell(Told::Active(open)) => {
                    told.push(format!("{second} active since {} by {}", open.since / 1000, open.evidence.total));
                }
                Stepped::Tell(Told::Acknowledged(_)) => told.push(format!("{second} acknowledged")),
                Stepped::Tell(Told::Resolved(_)) => told.push(format!("{second} resolved")),
            }
        }
        told.join(", ")
    }

    #[test]
    fn a_breach_is_told_once_it_has_held_and_not_a_reading_earlier() {
        assert_eq!(play(&TERMS, &[(0, 85.0), (5, 85.0), (14, 85.0)]), "");
        assert_eq!(play(&TERMS, &[(0, 85.0), (5, 85.0), (15, 85.0)]), "15 active since 0 by 3");
    }

    #[test]
    fn a_single_good_reading_ends_the_watching() {
        assert_eq!(play(&TERMS, &[(0, 85.0), (5, 95.0), (10, 85.0), (20, 85.0), (25, 85.0)]), "25 active since 10 by 3");
    }

    #[test]
    fn a_hold_is_met_by_a_reading_and_never_by_a_gap() {
        assert_eq!(play(&TERMS, &[(0, 85.0), (31, 85.0)]), "", "the gap restarts the hold");
        assert_eq!(play(&TERMS, &[(0, 85.0), (30, 85.0)]), "30 active since 0 by 2", "exactly max.gap still belongs together");
    }

    #[test]
    fn between_the_limits_an_alert_neither_rises_nor_clears() {
        let up = [(0, 85.0), (15, 85.0)];
        let readings = [&up[..], &[(16, 89.0), (17, 91.0), (20, 89.0), (21, 91.0), (30, 91.0), (31, 91.0)]].concat();
        assert_eq!(play(&TERMS, &readings), "15 active since 0 by 2, 31 resolved");
    }

    #[test]
    fn a_gap_does_not_clear_what_is_active_and_restarts_the_clearing() {
        let readings = [(0, 85.0), (15, 85.0), (20, 95.0), (60, 95.0), (69, 95.0), (70, 95.0)];
        assert_eq!(play(&TERMS, &readings), "15 active since 0 by 2, 70 resolved");
    }

    #[test]
    fn a_reading_that_is_not_newer_does_not_step() {
        assert_eq!(play(&TERMS, &[(10, 85.0), (10, 95.0), (9, 95.0), (25, 85.0)]), "10 not newer, 9 not newer, 25 active since 10 by 2");
    }

    #[test]
    fn a_reading_ahead_of_the_clock_makes_no_other_old() {
        let readings = [(10, 95.0, true), (9, 85.0, false), (10, 85.0, false), (24, 85.0, false)];
        assert_eq!(play_mixed(&TERMS, &readings), "24 active since 9 by 3");
    }

    #[test]
    fn a_device_that_is_always_ahead_raises_and_clears_by_when_it_is_heard() {
        let readings = [(0, 85.0, true), (10, 85.0, true), (15, 85.0, true), (15, 95.0, true), (26, 95.0, true)];
        assert_eq!(play_mixed(&TERMS, &readings), "15 active since 0 by 3, 26 resolved");
        assert_eq!(play_mixed(&TERMS, &[(0, 85.0, true), (31, 85.0, true)]), "", "a gap restarts its hold too");
    }

    #[test]
    fn a_device_ahead_beside_one_that_is_right_silences_neither() {
        // The right one is two seconds on its way, so each of its readings is older than what was heard last.
        let readings = [(2, 85.0, true), (1, 85.0, false), (12, 85.0, true), (11, 85.0, false), (18, 85.0, true), (17, 85.0, false)];
        assert_eq!(play_mixed(&TERMS, &readings), "18 active since 2 by 5");
    }

    #[test]
    fn without_holds_the_first_breach_tells_and_the_first_clear_ends() {
        let now = Terms { hold_ms: 0, clear_hold_ms: 0, ..TERMS };
        assert_eq!(
            play(&now, &[(0, 85.0), (1, 85.0), (2, 95.0), (500, 80.0)]),
            "0 active since 0 by 1, 2 resolved, 500 active since 500 by 1"
        );
    }

    #[test]
    fn a_latched_alert_waits_for_a_person() {
        let terms = Terms { hold_ms: 0, clear_hold_ms: 0, latch: true, ..TERMS };
        let mut life = Life::default();
        let source = Evidence { partition: 0, offset: 0, ts: 0, value: None };
        let reading = |at, breach| Reading { at, ahead: false, value: None, breach, clear: !breach, source };
        assert!(matches!(life.step(&reading(0, true), &terms), Stepped::Tell(Told::Active(_))));
        assert_eq!(life.step(&reading(1, false), &terms), Stepped::Quiet);
        let seen = Acknowledgement { by: "nurse".to_owned(), at: 5, reason: None };
        assert_eq!(life.acknowledge(seen.clone()).len(), 2, "acknowledged, and with it resolved");
        assert!(life.is_idle());
        assert!(life.acknowledge(seen).is_empty(), "twice is once");
    }

    #[test]
    fn evidence_is_bounded_and_counts_on() {
        let mut list = EvidenceList::default();
        for offset in 0..1000 {
            list.push(Evidence { partition: 0, offset, ts: offset, value: None });
        }
        assert_eq!(list.total, 1000);
        assert_eq!(list.readings.len(), 64);
        assert_eq!((list.readings[0].offset, list.readings[31].offset, list.readings[63].offset), (0, 31, 999));
    }
}
