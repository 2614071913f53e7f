//! A simulated ward: seeded, driven by event time, with the truth written down beside it.
//!
//! Each bed is a patient (baseline, day rhythm, slow and fast noise), a course of events (scenarios that
//! matter and controls that do not), and a device that samples, rounds, errs and loses signal. Always: the
//! same seed, beds and times give the same readings, on every machine. Values are plausible, not calibrated;
//! nothing here is a real patient.

mod device;
mod patient;
mod scenario;

pub use scenario::{Course, Episode, Scenario};

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use crate::time::Timestamp;
use device::Device;
use patient::Patient;

/// How a ward is made.
#[derive(Clone, Debug)]
pub struct WardOptions {
    /// The same seed gives the same ward.
    pub seed: u64,
    /// How many beds.
    pub beds: usize,
    /// The moment the courses are counted from: a scripted episode begins so long after (or before) it.
    pub origin: Timestamp,
    /// Whether the first beds follow the demonstration's script.
    pub scripted: bool,
}

/// One thing the ward says: a reading, or the truth about one.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// The patient, which is the record's key.
    pub patient_id: String,
    /// The JSON object.
    pub body: Vec<u8>,
}

/// What a second in the ward brings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Second {
    /// What the monitors send.
    pub readings: Vec<Said>,
    /// What is really going on: begins and ends of episodes and artefacts.
    pub truth: Vec<Said>,
}

/// A ward.
pub struct Ward {
    beds: Vec<Bed>,
}

struct Bed {
    patient_id: String,
    ward: &'static str,
    bed: String,
    patient: Patient,
    course: Course,
    device: Device,
}

/// The wards that beds are spread over, and how many of each eight beds they take.
const WARDS: &[(&str, usize)] = &[("ICU-1", 3), ("ICU-2", 3), ("WARD-5", 2)];

impl Ward {
    /// Makes a ward.
    #[must_use]
    pub fn new(options: &WardOptions) -> Self {
        let mut numbers = vec![0_usize; WARDS.len()];
        let beds = (0..options.beds)
            .map(|index| {
                let mut chance = ChaCha8Rng::seed_from_u64(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64));
                let slot = index % 8;
                let ward = if slot < WARDS[0].1 {
                    0
                } else if slot < WARDS[0].1 + WARDS[1].1 {
                    1
                } else {
                    2
                };
                numbers[ward] += 1;
                let intensive = ward < 2;
                let patient_id = format!("SIM-{:08X}", chance.random::<u32>());
                let script = if options.scripted { scenario::script(index) } else { Vec::new() };
                Bed {
                    patient_id,
                    ward: WARDS[ward].0,
                    bed: format!("{}-{:02}", WARDS[ward].0, numbers[ward]),
                    patient: Patient::new(&mut chance, intensive),
                    course: Course::new(script, options.origin, &mut chance),
                    device: Device::new(intensive, index, chance),
                }
            })
            .collect();
        Self { beds }
    }

    /// The next second, at `at`. Seconds must be asked for in order.
    pub fn tick(&mut self, at: Timestamp) -> Second {
        let mut second = Second::default();
        for bed in &mut self.beds {
            bed.tick(at, &mut second);
        }
        second
    }

    /// The patients' ids, for tests that must never find them where they do not belong.
    #[must_use]
    pub fn patient_ids(&self) -> Vec<String> {
        self.beds.iter().map(|b| b.patient_id.clone()).collect()
    }
}

impl Bed {
    fn tick(&mut self, at: Timestamp, second: &mut Second) {
        let effects = self.course.at(at, &mut self.patient.chance);
        let state = self.patient.at(at, &effects);
        let (reading, artefact) = self.device.sample(at, &state, &effects);
        for change in self.course.changes() {
            second.truth.push(self.said(&json!({
                "patient_id": self.patient_id, "ward": self.ward, "bed": self.bed, "ts": at.to_string(),
                "what": "episode", "scenario": change.scenario.as_str(), "phase": if change.began { "begins" } else { "ends" },
            })));
        }
        if let Some(artefact) = artefact {
            second.truth.push(self.said(&json!({
                "patient_id": self.patient_id, "ward": self.ward, "bed": self.bed, "ts": at.to_string(),
                "what": "artefact", "artefact": artefact,
            })));
        }
        let Some(reading) = reading else { return };
        let mut row = Map::new();
        row.insert("patient_id".to_owned(), json!(self.patient_id));
        row.insert("bed".to_owned(), json!(self.bed));
        row.insert("ward".to_owned(), json!(self.ward));
        row.insert("ts".to_owned(), json!(at.to_string()));
        for (name, value) in reading.columns() {
            row.insert(name.to_owned(), value);
        }
        second.readings.push(self.said(&Value::Object(row)));
    }

    fn said(&self, body: &Value) -> Said {
        Said { patient_id: self.patient_id.clone(), body: serde_json::to_vec(body).expect("plain data") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ward(seed: u64) -> Ward {
        Ward::new(&WardOptions { seed, beds: 24, origin: Timestamp(0), scripted: true })
    }

    fn run(seed: u64, seconds: i64) -> Vec<Second> {
        let mut ward = ward(seed);
        (-600..seconds).map(|s| ward.tick(Timestamp(s * 1000))).collect()
    }

    fn column(second: &Second, bed: &str, name: &str) -> Option<f64> {
        let rows = second.readings.iter().map(|r| serde_json::from_slice::<Value>(&r.body).expect("JSON"));
        rows.filter(|r| r["bed"] == bed).find_map(|r| r[name].as_f64())
    }

    #[test]
    fn the_same_seed_gives_the_same_ward_and_another_seed_another() {
        assert_eq!(run(42, 30), run(42, 30));
        assert_ne!(run(42, 30), run(43, 30));
    }

    #[test]
    fn the_script_desaturates_one_bed_around_the_origin() {
        let seconds = run(42, 60);
        let spo2: Vec<f64> = seconds[600..].iter().filter_map(|s| column(s, scenario::DESATURATION_BED, "spo2")).collect();
        assert!(spo2.len() >= 30, "the probe stays on: {}", spo2.len());
        assert!(spo2.iter().take(20).all(|v| *v < 88.0), "{spo2:?}");
    }

    #[test]
    fn the_script_silences_one_bed_and_brings_it_back() {
        let mut ward = ward(42);
        let silent = |second: &Second| !second.readings.iter().any(|r| String::from_utf8_lossy(&r.body).contains(scenario::SILENT_BED));
        let seconds: Vec<Second> = (-60..200).map(|s| ward.tick(Timestamp(s * 1000))).collect();
        assert!(!silent(&seconds[60]), "speaks at the origin");
        assert!((60 + 45..60 + 100).all(|s| silent(&seconds[s])), "is silent for a while");
        assert!(!silent(&seconds[259]), "and speaks again");
    }

    #[test]
    fn values_stay_within_what_a_body_can_do() {
        for second in run(7, 1200) {
            for reading in &second.readings {
                let row: Value = serde_json::from_slice(&reading.body).expect("JSON");
                for (name, low, high) in [
                    ("heart_rate", 0.0, 300.0),
                    ("spo2", 40.0, 100.0),
                    ("resp_rate", 0.0, 100.0),
                    ("temp_c", 28.0, 44.0),
                    ("map", 20.0, 250.0),
                ] {
                    if let Some(v) = row[name].as_f64() {
                        assert!((low..=high).contains(&v), "{name} {v}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_truth_names_what_begins() {
        let truth: Vec<String> = run(42, 60).iter().flat_map(|s| &s.truth).map(|t| String::from_utf8_lossy(&t.body).into_owned()).collect();
        assert!(truth.iter().any(|t| t.contains("desaturation") && t.contains("begins")), "{truth:?}");
    }
}
