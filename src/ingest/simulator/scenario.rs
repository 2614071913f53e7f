//! What happens to a patient: episodes that matter, controls that do not, and their trajectories.
//!
//! A [`Course`] is a patient's list of episodes; at each second it answers what they do to the body and to
//! the device ([`Effects`]). Shapes follow published descriptions (sepsis: Quinten 2018, PMC6045840;
//! haemorrhage: ATLS classes; opioid depression: PRODIGY, Khanna 2020); the sizes are ours.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::time::Timestamp;

/// The bed whose patient desaturates around the origin of a scripted ward.
#[cfg(test)]
pub const DESATURATION_BED: &str = "ICU-1-02";
/// The bed whose monitor falls silent in a scripted ward.
#[cfg(test)]
pub const SILENT_BED: &str = "ICU-2-01";

/// A kind of episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Oxygen saturation falls and stays low for some minutes.
    Desaturation,
    /// Hours: breathing first, then pulse and temperature, then pressure.
    Sepsis,
    /// Tens of minutes: pulse up, pulse pressure down, then pressure down.
    Haemorrhage,
    /// Tens of minutes: breathing slows, carbon dioxide rises, saturation lags.
    OpioidDepression,
    /// Benign: a walk raises the pulse for some minutes.
    Ambulation,
    /// Benign: suctioning, a short dip and a fast pulse.
    Suctioning,
    /// The monitor sends nothing at all.
    Silence,
    /// One probe is off: its values are missing, the others go on.
    ProbeOff,
}

impl Scenario {
    /// The word in the truth.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Desaturation => "desaturation",
            Self::Sepsis => "sepsis",
            Self::Haemorrhage => "haemorrhage",
            Self::OpioidDepression => "opioid_depression",
            Self::Ambulation => "ambulation",
            Self::Suctioning => "suctioning",
            Self::Silence => "silence",
            Self::ProbeOff => "probe_off",
        }
    }
}

/// One episode in a course.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// What happens.
    pub scenario: Scenario,
    /// When, in seconds after the course's origin; may be before it.
    pub begins_s: f64,
    /// How long, in seconds.
    pub lasts_s: f64,
}

/// What the episodes do at one moment, added to the patient's own values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effects {
    /// Added to the heart rate.
    pub heart_rate: f64,
    /// Added to the breathing rate.
    pub resp_rate: f64,
    /// Added to the saturation.
    pub spo2: f64,
    /// Added to the systolic pressure.
    pub sbp: f64,
    /// Added to the diastolic pressure.
    pub dbp: f64,
    /// Added to the temperature.
    pub temp_c: f64,
    /// Added to the end-tidal carbon dioxide.
    pub etco2: f64,
    /// How clouded the mind is: 0 alert, 1 confused, 2 answers to voice, 3 to pain.
    pub clouded: f64,
    /// The monitor sends nothing.
    pub silent: bool,
    /// The saturation probe is off.
    pub probe_off: bool,
}

/// An episode began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub scenario: Scenario,
    /// Began, or ended.
    pub began: bool,
}

/// A patient's episodes.
#[derive(Debug)]
pub struct Course {
    origin: Timestamp,
    episodes: Vec<Episode>,
    under_way: Vec<bool>,
    changes: Vec<Change>,
    next_benign_s: Option<f64>,
}

/// What the beds of a scripted ward go through, counted from its origin.
pub fn script(bed: usize) -> Vec<Episode> {
    let episode = |scenario, begins_s, lasts_s| vec![Episode { scenario, begins_s, lasts_s }];
    match bed {
        // Below 88 % from about five seconds before the origin: an alert that wants 15 s comes at about ten.
        1 => episode(Scenario::Desaturation, -20.0, 240.0),
        3 => episode(Scenario::Silence, 40.0, 120.0),
        5 => episode(Scenario::Haemorrhage, 120.0, 2400.0),
        8 => episode(Scenario::Sepsis, -3600.0, 6.0 * 3600.0),
        10 => episode(Scenario::OpioidDepression, 300.0, 1800.0),
        12 => episode(Scenario::Ambulation, 60.0, 300.0),
        14 => episode(Scenario::ProbeOff, 90.0, 180.0),
        17 => episode(Scenario::Suctioning, 30.0, 25.0),
        _ => Vec::new(),
    }
}

impl Course {
    /// A course of scripted episodes; benign ones come by chance on top, about one in two hours.
    pub fn new(episodes: Vec<Episode>, origin: Timestamp, chance: &mut ChaCha8Rng) -> Self {
        let under_way = vec![false; episodes.len()];
        let next_benign_s = Some(600.0 + chance.random::<f64>() * 7200.0);
        Self { origin, episodes, under_way, changes: Vec::new(), next_benign_s }
    }

    /// What the episodes do at `at`.
    pub fn at(&mut self, at: Timestamp, chance: &mut ChaCha8Rng) -> Effects {
        let now_s = at.since(self.origin) as f64 / 1000.0;
        if let Some(due) = self.next_benign_s.filter(|due| now_s >= *due) {
            let scenario = if chance.random_bool(0.5) { Scenario::Ambulation } else { Scenario::Suctioning };
            let lasts_s = if scenario == Scenario::Ambulation { 300.0 } else { 25.0 };
            self.episodes.push(Episode { scenario, begins_s: now_s, lasts_s });
            self.under_way.push(false);
            self.next_benign_s = Some(due.max(now_s) + 1800.0 + chance.random::<f64>() * 7200.0);
        }
        let mut effects = Effects::default();
        for (episode, was) in self.episodes.iter().zip(&mut self.under_way) {
            let since = now_s - episode.begins_s;
            let is = (0.0..episode.lasts_s).contains(&since);
            if is != *was {
                self.changes.push(Change { scenario: episode.scenario, began: is });
                *was = is;
            }
            if is {
                effects.add(episode, since);
            }
        }
        effects
    }

    /// What has begun and ended since the last call.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }
}

/// From 0 to 1 over `rise` seconds, and back over the last `fall` seconds of an episode.
fn swell(since: f64, lasts: f64, rise: f64, fall: f64) -> f64 {
    let up = (since / rise.max(1.0)).min(1.0);
    let down = ((lasts - since) / fall.max(1.0)).min(1.0);
    up.min(down).max(0.0)
}

impl Effects {
    fn add(&mut self, episode: &Episode, since: f64) {
        let lasts = episode.lasts_s;
        let part = since / lasts;
        match episode.scenario {
            Scenario::Desaturation => {
                let depth = swell(since, lasts, 12.0, 40.0);
                self.spo2 -= 14.0 * depth;
                self.heart_rate += 12.0 * depth;
                self.resp_rate += 6.0 * depth;
            }
            Scenario::Sepsis => {
                self.resp_rate += 10.0 * (part * 2.5).min(1.0);
                self.heart_rate += 35.0 * (part * 1.6).min(1.0);
                self.temp_c += 2.0 * (part * 1.8).min(1.0);
                let late = ((part - 0.5) * 2.0).clamp(0.0, 1.0);
                self.sbp -= 40.0 * late;
                self.dbp -= 22.0 * late;
                self.spo2 -= 5.0 * part;
                self.clouded += (part - 0.8).max(0.0) * 5.0;
            }
            Scenario::Haemorrhage => {
                self.heart_rate += 55.0 * part;
                self.resp_rate += 12.0 * part;
                // The pulse pressure narrows first; the pressure falls when a third is lost.
                self.dbp += 6.0 * (part * 2.0).min(1.0) - 30.0 * (part - 0.5).max(0.0) * 2.0;
                self.sbp -= 15.0 * (part * 2.0).min(1.0) + 50.0 * (part - 0.5).max(0.0) * 2.0;
                self.clouded += (part - 0.7).max(0.0) * 4.0;
            }
            Scenario::OpioidDepression => {
                let depth = swell(since, lasts, lasts * 0.6, 120.0);
                self.resp_rate -= 12.0 * depth;
                self.etco2 += 24.0 * depth;
                self.heart_rate -= 12.0 * depth;
                // The saturation lags by two minutes.
                self.spo2 -= 14.0 * swell(since - 120.0, lasts, lasts * 0.6, 120.0);
                self.clouded += 2.0 * depth;
            }
            Scenario::Ambulation => {
                let effort = swell(since, lasts, 60.0, 120.0);
                self.heart_rate += 25.0 * effort;
                self.resp_rate += 5.0 * effort;
            }
            Scenario::Suctioning => {
                let dip = swell(since, lasts, 8.0, 10.0);
                self.spo2 -= 7.0 * dip;
                self.heart_rate += 15.0 * dip;
            }
            Scenario::Silence => self.silent = true,
            Scenario::ProbeOff => self.probe_off = true,
        }
    }
}
