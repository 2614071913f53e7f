//! The board: the latest of every bed, as the page's tiles.
//!
//! A view over stream `vitals`, fed from the rows that the queries decode anyway. Always: a value carries
//! its age; a bed that has not been heard of for [`SILENT_MS`] is silent, whatever its last values were and
//! whatever its device's clock said; a missing vital is never scored as normal. Patients appear as tags.

use std::collections::{HashMap, VecDeque};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type};
use parking_lot::RwLock;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::clinical::{Acvpu, News2Input, news2};
use crate::stream::{FAR_AHEAD_MS, millis};
use crate::time::Timestamp;

/// A bed not heard of for this long is silent.
pub const SILENT_MS: i64 = 30_000;
/// A bed not heard of for this long is no longer shown.
const FORGOTTEN_MS: i64 = 6 * 3_600_000;
/// The sparkline covers this long, one point each [`SPARK_STEP_MS`].
const SPARK_MS: i64 = 300_000;
const SPARK_STEP_MS: i64 = 5_000;

/// The vitals a tile shows, and how long a value of each stays fresh (clinical.md 1.1: five minutes for what
/// is measured continuously, an hour for pressure, half a day for what is charted).
const VITALS: &[(&str, i64)] = &[
    ("heart_rate", 300_000),
    ("resp_rate", 300_000),
    ("spo2", 300_000),
    ("etco2", 300_000),
    ("sbp", 3_600_000),
    ("dbp", 3_600_000),
    ("map", 3_600_000),
    ("temp_c", 12 * 3_600_000),
];
const CHARTED_MS: i64 = 12 * 3_600_000;

/// What a tile shows.
#[derive(Clone, Debug, Serialize)]
pub struct Tile {
    /// Tells tiles apart; not a patient's id.
    pub key: String,
    /// What is shown of the patient.
    pub tag: String,
    /// The bed.
    pub bed: Option<String>,
    /// The ward.
    pub ward: Option<String>,
    /// Seconds since the last reading.
    pub age_s: f64,
    /// Not heard of for too long.
    pub silent: bool,
    /// The priority of the gravest open alert.
    pub alert: Option<&'static str>,
    /// Latest values, with their age.
    pub values: Map<String, Value>,
    /// The last minutes.
    pub spark: Map<String, Value>,
    /// NEWS2 of the fresh values.
    pub news2: Value,
}

/// A point of a sparkline: its slot, the pulse and the saturation.
type Point = (i64, Option<f64>, Option<f64>);

#[derive(Default)]
struct Bed {
    bed: Option<String>,
    ward: Option<String>,
    heard: i64,
    latest: HashMap<&'static str, (f64, i64)>,
    on_oxygen: Option<(bool, i64)>,
    acvpu: Option<(Acvpu, i64)>,
    scale: Option<(i32, i64)>,
    spark: VecDeque<Point>,
}

/// The beds.
#[derive(Default)]
pub struct Board {
    beds: RwLock<HashMap<String, Bed>>,
}

/// What a ward looks like in numbers; no bed in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WardNumbers {
    /// Beds heard of within five minutes.
    pub beds: i64,
    /// Beds shown as silent.
    pub silent: i64,
    /// Beds with a NEWS2 of at least 7.
    pub high_risk: i64,
    /// Sum and count of the fresh values, by vital.
    pub vitals: HashMap<&'static str, (f64, i64)>,
}

/// A short tag for a patient: tells beds apart on a screen without showing who lies there.
#[must_use]
pub fn tag(patient: &str) -> String {
    let digest = Sha256::digest(patient.as_bytes());
    format!("{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2])
}

impl Board {
    /// Takes rows of stream `vitals` that came by `now`. Columns that are not there are not shown. A reading from
    /// after `now` is as old as `now`, so that a clock that once ran ahead cannot keep a silent bed looking alive;
    /// one that no query believes is not shown.
    pub fn take(&self, batch: &RecordBatch, now: Timestamp) {
        let text = |name: &str| batch.column_by_name(name).and_then(|c| cast(c, &DataType::Utf8).ok());
        let Some(times) = batch.column_by_name("ts").and_then(|c| millis(c).ok()) else { return };
        // Older than any vital stays fresh is nothing to show; of a recording that is read into the topic there is much of it.
        let oldest = now.0.saturating_sub(CHARTED_MS);
        if times.iter().flatten().all(|at| at < oldest) {
            return;
        }
        let Some(patients) = text("patient_id") else { return };
        let patients = patients.as_string::<i32>();
        let (bed, ward, acvpu) = (text("bed"), text("ward"), text("acvpu"));
        let text_at = |column: &Option<ArrayRef>, row: usize| {
            column.as_ref().map(|c| c.as_string::<i32>()).filter(|c| c.is_valid(row)).map(|c| c.value(row).to_owned())
        };
        let numbers: Vec<(&'static str, ArrayRef)> = VITALS
            .iter()
            .filter_map(|(name, _)| batch.column_by_name(name).and_then(|c| cast(c, &DataType::Float64).ok()).map(|c| (*name, c)))
            .collect();
        let oxygen = batch.column_by_name("on_oxygen").and_then(|c| c.as_boolean_opt().cloned());
        let scale = batch.column_by_name("spo2_scale").and_then(|c| cast(c, &DataType::Int32).ok());
        let mut beds = self.beds.write();
        for row in 0..batch.num_rows() {
            if patients.is_null(row) || times.is_null(row) {
                continue;
            }
            if times.value(row).saturating_sub(now.0) > FAR_AHEAD_MS || times.value(row) < oldest {
                continue;
            }
            let at = times.value(row).min(now.0);
            let known = match beds.get_mut(patients.value(row)) {
                Some(known) => known,
                None => beds.entry(patients.value(row).to_owned()).or_default(),
            };
            if at < known.heard {
                continue;
            }
            known.heard = at;
            known.bed = text_at(&bed, row).or(known.bed.take());
            known.ward = text_at(&ward, row).or(known.ward.take());
            for (name, column) in &numbers {
                let column = column.as_primitive::<Float64Type>();
                if column.is_valid(row) {
                    known.latest.insert(name, (column.value(row), at));
                }
            }
            if let Some(oxygen) = oxygen.as_ref().filter(|c| c.is_valid(row)) {
                known.on_oxygen = Some((oxygen.value(row), at));
            }
            if let Some(level) = text_at(&acvpu, row).as_deref().and_then(Acvpu::parse) {
                known.acvpu = Some((level, at));
            }
            if let Some(scale) = scale.as_ref().map(|c| c.as_primitive::<Int32Type>()).filter(|c| c.is_valid(row)) {
                known.scale = Some((scale.value(row), at));
            }
            known.point(at);
        }
    }

    /// The tiles at `now`; `alert` tells a patient's gravest open alert.
    pub fn tiles(&self, now: Timestamp, alert: impl Fn(&str) -> Option<&'static str>) -> Vec<Tile> {
        let beds = self.beds.read();
        let mut tiles: Vec<Tile> =
            beds.iter().filter(|(_, b)| now.0 - b.heard < FORGOTTEN_MS).map(|(id, b)| b.tile(id, now, alert(id))).collect();
        tiles.sort_by(|a, b| (&a.bed, &a.key).cmp(&(&b.bed, &b.key)));
        tiles
    }

    /// The bed a patient lies in.
    #[must_use]
    pub fn bed_of(&self, patient: &str) -> Option<String> {
        self.beds.read().get(patient)?.bed.clone()
    }

    /// Each ward in numbers.
    #[must_use]
    pub fn wards(&self, now: Timestamp) -> HashMap<String, WardNumbers> {
        let mut wards: HashMap<String, WardNumbers> = HashMap::new();
        for bed in self.beds.read().values() {
            let Some(ward) = &bed.ward else { continue };
            let age = now.0 - bed.heard;
            if age >= FORGOTTEN_MS {
                continue;
            }
            let numbers = wards.entry(ward.clone()).or_default();
            numbers.beds += i64::from(age < 300_000);
            numbers.silent += i64::from(age > SILENT_MS);
            let score = news2(&bed.input(now));
            numbers.high_risk += i64::from(score.total.is_some_and(|total| total >= 7));
            for (name, ttl) in VITALS {
                if let Some((value, at)) = bed.latest.get(name)
                    && now.0 - at <= *ttl
                {
                    let sum = numbers.vitals.entry(name).or_default();
                    *sum = (sum.0 + value, sum.1 + 1);
                }
            }
        }
        wards
    }

    /// Forgets beds that are long gone.
    pub fn sweep(&self, now: Timestamp) {
        self.beds.write().retain(|_, b| now.0 - b.heard < FORGOTTEN_MS);
    }
}

impl Bed {
    fn point(&mut self, at: i64) {
        let slot = at.div_euclid(SPARK_STEP_MS);
        let fresh = |name: &str| self.latest.get(name).filter(|(_, seen)| at - seen < SPARK_STEP_MS).map(|(value, _)| *value);
        let point = (slot, fresh("heart_rate"), fresh("spo2"));
        match self.spark.back_mut() {
            Some(last) if last.0 == slot => *last = point,
            _ => self.spark.push_back(point),
        }
        while self.spark.front().is_some_and(|(first, ..)| slot - first >= SPARK_MS / SPARK_STEP_MS) {
            self.spark.pop_front();
        }
    }

    fn input(&self, now: Timestamp) -> News2Input {
        let fresh = |name: &str| {
            let ttl = VITALS.iter().find(|(n, _)| *n == name).map_or(0, |(_, ttl)| *ttl);
            self.latest.get(name).filter(|(_, at)| now.0 - at <= ttl).map(|(value, _)| *value)
        };
        let charted = |at: i64| now.0 - at <= CHARTED_MS;
        News2Input {
            resp_rate: fresh("resp_rate"),
            spo2: fresh("spo2"),
            on_oxygen: self.on_oxygen.filter(|(_, at)| charted(*at)).map(|(v, _)| v),
            spo2_scale: self.scale.filter(|(_, at)| charted(*at)).map(|(v, _)| v),
            sbp: fresh("sbp"),
            heart_rate: fresh("heart_rate"),
            consciousness: self.acvpu.filter(|(_, at)| charted(*at)).map(|(v, _)| v),
            temp_c: fresh("temp_c"),
        }
    }

    fn tile(&self, patient: &str, now: Timestamp, alert: Option<&'static str>) -> Tile {
        let seconds = |at: i64| ((now.0 - at) as f64 / 1000.0).max(0.0);
        let values = VITALS.iter().filter_map(|(name, ttl)| {
            let (value, at) = self.latest.get(name)?;
            Some(((*name).to_owned(), json!({ "value": value, "age_s": seconds(*at), "stale": now.0 - at > *ttl })))
        });
        let newest = now.0.div_euclid(SPARK_STEP_MS);
        let slots = SPARK_MS / SPARK_STEP_MS;
        let line = |pick: fn(&Point) -> Option<f64>| {
            let mut line = vec![Value::Null; slots as usize];
            for point in &self.spark {
                let back = newest - point.0;
                if let (true, Some(value)) = ((0..slots).contains(&back), pick(point)) {
                    line[(slots - 1 - back) as usize] = json!(value);
                }
            }
            Value::Array(line)
        };
        let mut spark = Map::new();
        spark.insert("heart_rate".to_owned(), line(|p| p.1));
        spark.insert("spo2".to_owned(), line(|p| p.2));
        let score = news2(&self.input(now));
        let tag = tag(patient);
        Tile {
            key: tag.clone(),
            tag,
            bed: self.bed.clone(),
            ward: self.ward.clone(),
            age_s: seconds(self.heard),
            silent: now.0 - self.heard > SILENT_MS,
            alert,
            values: values.collect(),
            spark,
            news2: json!({
                "total": score.total, "risk": score.risk.map(|r| r.as_str()), "complete": score.complete, "missing": score.missing,
                "score_min": score.score_min, "score_max": score.score_max,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    /// A board that has heard `(seconds from now, heart rate)` of one bed, each when it was sent or, where that is later, now.
    fn board(readings: &[(i64, f64)]) -> Board {
        let board = Board::default();
        for (second, heart_rate) in readings {
            let at = NOW + second * 1000;
            read(&board, at, *heart_rate, at.min(NOW));
        }
        board
    }

    /// One reading of `at`, which comes at `now`.
    fn read(board: &Board, at: i64, heart_rate: f64, now: i64) {
        let columns: [(&str, ArrayRef); 4] = [
            ("patient_id", Arc::new(StringArray::from(vec!["p"]))),
            ("bed", Arc::new(StringArray::from(vec!["1-01"]))),
            ("heart_rate", Arc::new(Float64Array::from(vec![heart_rate]))),
            ("ts", Arc::new(TimestampMillisecondArray::from(vec![at]))),
        ];
        board.take(&RecordBatch::try_from_iter(columns).expect("equal lengths"), Timestamp(now));
    }

    /// What a tile shows some seconds from now: the heart rate, its age, and whether it is silent.
    fn check_tile(readings: &[(i64, f64)], seconds: i64, expected: &str) {
        let tiles = board(readings).tiles(Timestamp(NOW + seconds * 1000), |_| None);
        let tile = &tiles[0];
        let shown = format!("{} {} s{}", tile.values["heart_rate"]["value"], tile.age_s, if tile.silent { " silent" } else { "" });
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_bed_that_says_nothing_for_half_a_minute_is_silent() {
        check_tile(&[(-2, 70.0), (-1, 71.0)], 0, "71.0 1 s");
        check_tile(&[(-2, 70.0), (-1, 71.0)], 30, "71.0 31 s silent");
    }

    #[test]
    fn a_reading_from_ten_years_ahead_is_not_shown_and_stops_nothing() {
        check_tile(&[(-2, 70.0), (-1, 71.0), (10 * 365 * 86_400, 300.0)], 0, "71.0 1 s");
        check_tile(&[(10 * 365 * 86_400, 300.0), (0, 72.0)], 1, "72.0 1 s");
        assert!(board(&[(10 * 365 * 86_400, 300.0)]).tiles(Timestamp(NOW), |_| None).is_empty());
    }

    #[test]
    fn a_bed_whose_clock_runs_an_hour_ahead_is_heard_and_falls_silent_all_the_same() {
        check_tile(&[(3600, 70.0)], 0, "70.0 0 s");
        check_tile(&[(3600, 70.0)], 31, "70.0 31 s silent");
    }

    #[test]
    fn what_is_older_than_any_value_stays_fresh_is_not_looked_at() {
        let hours = |hours: i64| NOW - hours * 3_600_000;
        let board = Board::default();
        read(&board, hours(13), 70.0, NOW);
        assert!(board.beds.read().is_empty());
        read(&board, hours(11), 71.0, NOW);
        assert_eq!(board.beds.read()["p"].heard, hours(11));
    }

    #[test]
    fn a_missing_vital_is_not_scored_as_normal() {
        let tiles = board(&[(0, 70.0)]).tiles(Timestamp(NOW), |_| None);
        assert_eq!((&tiles[0].news2["complete"], &tiles[0].news2["total"]), (&json!(false), &Value::Null));
    }
}
