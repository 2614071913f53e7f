//! A patient: a baseline, a day's rhythm, and noise that remembers.
//!
//! Baselines are drawn once; on top lie a cosine over the day (SBP/DBP dip 8/4 mmHg at night: Davidson 2021,
//! PMC8063456) and, for each vital, a slow and a fast Ornstein-Uhlenbeck process. Values are true values:
//! what a device makes of them is the device's affair.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::scenario::Effects;
use crate::time::Timestamp;

/// What is true of a patient at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// Beats a minute.
    pub heart_rate: f64,
    /// Breaths a minute.
    pub resp_rate: f64,
    /// Per cent.
    pub spo2: f64,
    /// mmHg.
    pub sbp: f64,
    /// mmHg.
    pub dbp: f64,
    /// Degrees Celsius.
    pub temp_c: f64,
    /// mmHg.
    pub etco2: f64,
    /// Fraction of oxygen breathed in.
    pub fio2: f64,
    /// On extra oxygen.
    pub on_oxygen: bool,
    /// The NEWS2 scale that a clinician has prescribed: 1 or 2.
    pub spo2_scale: i32,
    /// A, C, V, P or U.
    pub acvpu: char,
}

/// Noise that falls back to zero with time constant `tau` seconds and stands at `sd` in the long run.
#[derive(Clone, Copy, Debug)]
struct Wander {
    tau: f64,
    sd: f64,
    value: f64,
}

impl Wander {
    const fn new(tau: f64, sd: f64) -> Self {
        Self { tau, sd, value: 0.0 }
    }

    fn step(&mut self, seconds: f64, chance: &mut ChaCha8Rng) -> f64 {
        let keep = (-seconds / self.tau).exp();
        self.value = self.value * keep + self.sd * (1.0 - keep * keep).sqrt() * normal(chance);
        self.value
    }
}

/// A draw from the standard normal distribution (Box and Muller 1958).
pub fn normal(chance: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - chance.random::<f64>(), chance.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// A patient.
#[derive(Debug)]
pub struct Patient {
    heart_rate: f64,
    resp_rate: f64,
    spo2: f64,
    sbp: f64,
    dbp: f64,
    temp_c: f64,
    etco2: f64,
    fio2: f64,
    spo2_scale: i32,
    heart_slow: Wander,
    heart_fast: Wander,
    breath: Wander,
    saturation: Wander,
    pressure: Wander,
    warmth: Wander,
    last: Option<Timestamp>,
    /// The patient's own chance, which the course draws from too.
    pub chance: ChaCha8Rng,
}

impl Patient {
    /// Draws a patient.
    pub fn new(chance: &mut ChaCha8Rng, intensive: bool) -> Self {
        let mut around = |mean: f64, sd: f64, low: f64, high: f64| (mean + sd * normal(chance)).clamp(low, high);
        let heart_rate = around(80.0, 10.0, 55.0, 105.0);
        let resp_rate = around(16.0, 2.0, 12.0, 20.0);
        let spo2 = around(97.0, 1.0, 95.0, 99.5);
        let sbp = around(120.0, 12.0, 100.0, 150.0);
        let dbp = (sbp - around(45.0, 5.0, 35.0, 60.0)).clamp(55.0, 95.0);
        let temp_c = around(36.9, 0.25, 36.2, 37.6);
        let etco2 = around(38.0, 2.0, 33.0, 43.0);
        let oxygen = chance.random_bool(if intensive { 0.5 } else { 0.2 });
        let scale_two = chance.random_bool(0.08);
        Self {
            heart_rate,
            resp_rate,
            spo2: if scale_two { spo2 - 7.0 } else { spo2 },
            sbp,
            dbp,
            temp_c,
            etco2,
            fio2: if oxygen { 0.28 + 0.04 * f64::from(chance.random_range(0..5_u32)) } else { 0.21 },
            spo2_scale: if scale_two { 2 } else { 1 },
            heart_slow: Wander::new(600.0, 4.0),
            heart_fast: Wander::new(10.0, 1.5),
            breath: Wander::new(30.0, 1.2),
            saturation: Wander::new(60.0, 0.6),
            pressure: Wander::new(300.0, 4.0),
            warmth: Wander::new(3600.0, 0.1),
            last: None,
            chance: ChaCha8Rng::from_rng(chance),
        }
    }

    /// What is true at `at`.
    pub fn at(&mut self, at: Timestamp, effects: &Effects) -> State {
        let seconds = self.last.map_or(60.0, |last| (at.since(last) as f64 / 1000.0).clamp(0.0, 86_400.0));
        self.last = Some(at);
        let chance = &mut self.chance;
        let heart_noise = self.heart_slow.step(seconds, chance) + self.heart_fast.step(seconds, chance);
        let (breath, saturation) = (self.breath.step(seconds, chance), self.saturation.step(seconds, chance));
        let (pressure, warmth) = (self.pressure.step(seconds, chance), self.warmth.step(seconds, chance));
        // 1 at four in the afternoon, -1 at four in the morning.
        let hour = at.millis().rem_euclid(86_400_000) as f64 / 3_600_000.0;
        let day = ((hour - 16.0) / 24.0 * std::f64::consts::TAU).cos();
        let temp_c = self.temp_c + 0.3 * day + warmth + effects.temp_c;
        // The pulse follows the temperature, about seven beats a degree.
        let fever = (temp_c - 37.5).max(0.0) * 7.0;
        let sbp = self.sbp + 4.0 * day + pressure + effects.sbp;
        let dbp = self.dbp + 2.0 * day + 0.5 * pressure + effects.dbp;
        State {
            heart_rate: (self.heart_rate + 4.0 * day + heart_noise + fever + effects.heart_rate).clamp(25.0, 210.0),
            resp_rate: (self.resp_rate + day + breath + effects.resp_rate).clamp(2.0, 60.0),
            spo2: (self.spo2 + saturation + effects.spo2).clamp(55.0, 100.0),
            sbp: sbp.clamp(50.0, 240.0),
            dbp: dbp.clamp(25.0, 140.0).min(sbp.clamp(50.0, 240.0) - 12.0),
            temp_c: temp_c.clamp(33.0, 42.0),
            etco2: (self.etco2 + 0.3 * breath + effects.etco2).clamp(12.0, 90.0),
            fio2: self.fio2,
            on_oxygen: self.fio2 > 0.21,
            spo2_scale: self.spo2_scale,
            acvpu: match effects.clouded {
                c if c < 0.8 => 'A',
                c if c < 1.6 => 'C',
                c if c < 2.6 => 'V',
                _ => 'P',
            },
        }
    }
}
