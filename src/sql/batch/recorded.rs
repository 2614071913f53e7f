//! Windows over a real recording against what an independent program found in it (`../shared/data`, where it is there).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
use flate2::read::GzDecoder;
use futures::TryStreamExt;

use super::select_history;
use super::tests::Memory;
use crate::bus::{Bus, partition_for_key};
use crate::sql::catalog::{Catalog, Existing};
use crate::sql::parse_statement;
use crate::sql::statement::Statement;
use crate::sql::workspace::Workspace;
use crate::time::Timestamp;

const VITALS: [&str; 4] = ["heart_rate", "pulse_rate", "resp_rate", "spo2"];

fn recording() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/bidmc");
    if !folder.join("replay_all.ndjson.gz").exists() {
        eprintln!("skipped: no recording at {}", folder.display());
        return None;
    }
    Some(folder)
}

/// The numbers of one vital in one window: count, sum, mean, least, greatest, standard deviation.
type Row = (i64, [Option<f64>; 5]);

fn ask(folder: &Path, window: &str) -> BTreeMap<(String, String, String), Row> {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(folder.join("replay_all.ndjson.gz")).unwrap()).read_to_string(&mut text).unwrap();
    let records = text.lines().map(|line| {
        let patient = line.split('"').nth(3).unwrap();
        ("bidmc", partition_for_key(patient.as_bytes(), 4), patient, line)
    });
    let log: Arc<dyn Bus> = Arc::new(Memory::holding(records, 500));
    let mut catalog = Catalog::new();
    let columns = VITALS.map(|vital| format!("{vital} DOUBLE")).join(", ");
    let stream = format!(
        "CREATE STREAM bidmc (patient_id VARCHAR NOT NULL, ts TIMESTAMP(3) NOT NULL, {columns}, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH ('key' = 'patient_id')"
    );
    catalog.apply(&catalog.create(&parse_statement(&stream).unwrap(), Existing::AsWritten, Timestamp(0)).unwrap());
    let folds = VITALS.map(|v| format!("count({v}), sum({v}), avg({v}), min({v}), max({v}), stddev({v})")).join(", ");
    let names = ["patient_id", "window_start"].join(", ");
    let list =
        folds.split("), ").enumerate().map(|(i, fold)| format!("{}) AS a{i}", fold.trim_end_matches(')'))).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT {names}, count(*) AS n, {list} FROM TABLE({window}) GROUP BY patient_id, window_start, window_end");
    let Statement::Select(select) = parse_statement(&sql).unwrap_or_else(|e| panic!("{}", e.render(&sql))).statement else {
        panic!("{sql}")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let workspace = Workspace::open(64 << 20, None).unwrap();
    let batches: Vec<RecordBatch> = runtime.block_on(async {
        select_history(&select, &catalog, &log, Timestamp(0), &workspace).await.unwrap().rows.try_collect().await.unwrap()
    });
    let mut found = BTreeMap::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let patient = batch.column(0).as_string::<i32>().value(row).to_owned();
            let start = Timestamp(batch.column(1).as_primitive::<TimestampMillisecondType>().value(row)).to_string();
            let count = |at: usize| batch.column(at).as_primitive::<Int64Type>().value(row);
            let number = |at: usize| batch.column(at).is_valid(row).then(|| batch.column(at).as_primitive::<Float64Type>().value(row));
            found.insert((patient.clone(), "*".to_owned(), start.clone()), (count(2), [None; 5]));
            for (i, vital) in VITALS.iter().enumerate() {
                let at = 3 + 6 * i;
                if count(at) > 0 {
                    let numbers = [1, 2, 3, 4, 5].map(|n| number(at + n));
                    found.insert((patient.clone(), (*vital).to_owned(), start.clone()), (count(at), numbers));
                }
            }
        }
    }
    found
}

/// Every row of the file, and no other, to a relative 1e-9. `columns` says which of our numbers the file's columns are.
fn check(folder: &Path, file: &str, window: &str, columns: &[usize]) {
    let found = ask(folder, window);
    let text = std::fs::read_to_string(folder.join("expected").join(file)).unwrap();
    let mut expected = BTreeSet::new();
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let key = (cells[0].to_owned(), cells[1].to_owned(), cells[2].to_owned());
        let (n, numbers) = found.get(&key).unwrap_or_else(|| panic!("no row for {line}"));
        assert_eq!(n.to_string(), cells[4], "{line}");
        for (cell, column) in cells[5..].iter().zip(columns) {
            let number = numbers[*column];
            match cell.parse::<f64>() {
                Ok(wanted) => {
                    let got = number.unwrap_or_else(|| panic!("NULL for {wanted} in {line}"));
                    assert!((got - wanted).abs() <= 1e-9 * wanted.abs().max(1.0), "{got} for {wanted} in {line}");
                }
                Err(_) => assert_eq!(number, None, "{line}"),
            }
        }
        expected.insert(key);
    }
    let more: Vec<_> = found.keys().filter(|key| !expected.contains(key)).collect();
    assert!(more.is_empty(), "rows nobody expected: {more:?}");
}

#[test]
fn tumbling_windows_over_a_real_recording_are_those_of_an_independent_program() {
    let Some(folder) = recording() else { return };
    check(&folder, "tumbling_60s.csv", "TUMBLE(TABLE bidmc, DESCRIPTOR(ts), INTERVAL '60' SECOND)", &[0, 1, 2, 3, 4]);
}

#[test]
fn hopping_windows_over_a_real_recording_are_those_of_an_independent_program() {
    let Some(folder) = recording() else { return };
    check(&folder, "hopping_300s_by_60s.csv", "HOP(TABLE bidmc, DESCRIPTOR(ts), INTERVAL '60' SECOND, INTERVAL '300' SECOND)", &[1, 2, 3]);
}
