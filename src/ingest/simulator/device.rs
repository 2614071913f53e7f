//! A bedside monitor: what it samples and how often, how it rounds and errs, when it loses its signal.
//!
//! Pulse, breathing and saturation come each second; a cuff measures every quarter of an hour (an arterial
//! line each second on some intensive beds); temperature each minute; consciousness is charted. Artefacts
//! (motion dips, doubled rates, a flush of the line) and short losses come by chance, and each is told to
//! the truth when it begins.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::patient::{State, normal};
use super::scenario::Effects;
use crate::time::Timestamp;

/// How often the cuff measures.
const CUFF_S: i64 = 900;
/// How often nurses chart consciousness and oxygen.
const CHART_S: i64 = 600;

/// A disturbance under way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Disturbance {
    /// The saturation probe moves: values dip.
    Motion { depth: f64 },
    /// The ECG counts double.
    DoubleCount,
    /// The line is flushed: systolic and diastolic are alike.
    Flush,
    /// The signal is lost for a while.
    Loss,
}

/// What the monitor sends at one moment; nothing where nothing was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    heart_rate: Option<f64>,
    pulse_rate: Option<f64>,
    resp_rate: Option<f64>,
    spo2: Option<f64>,
    sbp: Option<f64>,
    dbp: Option<f64>,
    map: Option<f64>,
    temp_c: Option<f64>,
    etco2: Option<f64>,
    fio2: Option<f64>,
    on_oxygen: Option<bool>,
    acvpu: Option<char>,
    spo2_scale: Option<i32>,
}

impl Reading {
    /// The columns of the wide form, NULL where nothing was measured.
    pub fn columns(&self) -> [(&'static str, Value); 13] {
        [
            ("heart_rate", json!(self.heart_rate)),
            ("pulse_rate", json!(self.pulse_rate)),
            ("resp_rate", json!(self.resp_rate)),
            ("spo2", json!(self.spo2)),
            ("sbp", json!(self.sbp)),
            ("dbp", json!(self.dbp)),
            ("map", json!(self.map)),
            ("temp_c", json!(self.temp_c)),
            ("etco2", json!(self.etco2)),
            ("fio2", json!(self.fio2)),
            ("on_oxygen", json!(self.on_oxygen)),
            ("acvpu", json!(self.acvpu)),
            ("spo2_scale", json!(self.spo2_scale)),
        ]
    }
}

/// A bedside monitor.
#[derive(Debug)]
pub struct Device {
    line: bool,
    capnograph: bool,
    /// Seconds by which this bed's slow measurements are shifted against the others'.
    phase: i64,
    disturbance: Option<(Disturbance, u32)>,
    chance: ChaCha8Rng,
}

impl Device {
    /// The monitor of bed `index`.
    pub const fn new(intensive: bool, index: usize, chance: ChaCha8Rng) -> Self {
        let line = intensive && index % 2 == 1;
        Self { line, capnograph: intensive && index % 3 != 2, phase: (index as i64 * 37) % CUFF_S, disturbance: None, chance }
    }

    /// What is sent at `at`, and the name of an artefact that begins.
    pub fn sample(&mut self, at: Timestamp, state: &State, effects: &Effects) -> (Option<Reading>, Option<&'static str>) {
        let artefact = self.disturb();
        if effects.silent {
            return (None, None);
        }
        let disturbance = self.disturbance.map(|(what, _)| what);
        if disturbance == Some(Disturbance::Loss) {
            return (None, artefact);
        }
        let second = at.millis().div_euclid(1000) + self.phase;
        let every = |period: i64| second.rem_euclid(period) == 0;
        let mut err = |value: f64, sd: f64| value + sd * normal(&mut self.chance);
        let heart = err(state.heart_rate, 0.7);
        let pulse = err(state.heart_rate, 0.9);
        let mut spo2 = err(state.spo2, 0.3);
        let mut reading = Reading {
            heart_rate: Some(heart.round().clamp(0.0, 300.0)),
            resp_rate: Some(err(state.resp_rate, 0.6).round().clamp(0.0, 100.0)),
            ..Reading::default()
        };
        match disturbance {
            Some(Disturbance::Motion { depth }) => spo2 -= depth,
            Some(Disturbance::DoubleCount) => reading.heart_rate = Some((heart * 2.0).round().min(300.0)),
            _ => {}
        }
        if !effects.probe_off {
            reading.spo2 = Some(spo2.round().clamp(40.0, 100.0));
            reading.pulse_rate = Some(pulse.round().clamp(0.0, 300.0));
        }
        if self.capnograph {
            reading.etco2 = Some(err(state.etco2, 0.8).round().clamp(5.0, 100.0));
        }
        if self.line || every(CUFF_S) {
            let (sbp, dbp) = (err(state.sbp, 1.5).round(), err(state.dbp, 1.2).round());
            let flush = disturbance == Some(Disturbance::Flush);
            let (sbp, dbp) = if flush { (sbp + 60.0, sbp + 55.0) } else { (sbp, dbp.min(sbp - 8.0)) };
            reading.sbp = Some(sbp.min(290.0));
            reading.dbp = Some(dbp.clamp(20.0, 245.0));
            reading.map = Some(((sbp + 2.0 * dbp) / 3.0).round().clamp(25.0, 249.0));
        }
        if every(60) {
            reading.temp_c = Some((err(state.temp_c, 0.05) * 10.0).round() / 10.0);
        }
        if every(CHART_S) || every(60) && state.acvpu != 'A' {
            reading.acvpu = Some(state.acvpu);
            reading.on_oxygen = Some(state.on_oxygen);
            reading.fio2 = Some((state.fio2 * 100.0).round() / 100.0);
            reading.spo2_scale = Some(state.spo2_scale);
        }
        (Some(reading), artefact)
    }

    /// Disturbances come and go: about one motion an hour, the others more rarely.
    fn disturb(&mut self) -> Option<&'static str> {
        if let Some((what, left)) = self.disturbance {
            self.disturbance = (left > 1).then(|| (what, left - 1));
            return None;
        }
        let draw: f64 = self.chance.random();
        let (what, name, seconds) = if draw < 1.0 / 3600.0 {
            let depth = 8.0 + 12.0 * self.chance.random::<f64>();
            (Disturbance::Motion { depth }, "motion", self.chance.random_range(4..14))
        } else if draw < 1.3 / 3600.0 {
            (Disturbance::DoubleCount, "double_count", self.chance.random_range(3..9))
        } else if draw < 1.5 / 3600.0 && self.line {
            (Disturbance::Flush, "flush", self.chance.random_range(3..6))
        } else if draw > 1.0 - 1.0 / 3600.0 {
            // Gaps are log-normal with a median of eight seconds, mostly too short to be told of.
            let seconds = (8.0 * (0.6 * normal(&mut self.chance)).exp()).clamp(2.0, 25.0);
            (Disturbance::Loss, "loss", seconds as u32)
        } else {
            return None;
        };
        self.disturbance = Some((what, seconds));
        Some(name)
    }
}
