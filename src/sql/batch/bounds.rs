//! What a SELECT may hold, and what becomes of one that needs more.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use futures::TryStreamExt;

use super::select_history;
use super::tests::{Memory, catalog};
use crate::bus::Bus;
use crate::record::PartitionId;
use crate::sql::error::{Code, SqlError};
use crate::sql::parse_statement;
use crate::sql::statement::Statement;
use crate::sql::workspace::{Spill, Workspace};
use crate::time::Timestamp;

const ROWS: usize = 700;
/// Less than the sorted rows take.
const MEMORY: usize = 24 << 20;

/// Every row beside every row, some 40 MB to be sorted.
const SORT: &str =
    "SELECT a.hr * 1000 + b.hr AS place, a.patient_id AS one, b.patient_id AS other FROM vitals a CROSS JOIN vitals b ORDER BY place";

fn sorted(workspace: &Workspace) -> Result<Vec<RecordBatch>, SqlError> {
    let rows: Vec<(String, String)> = (0..ROWS)
        .map(|n| {
            let patient = format!("a-patient-with-a-long-name-{n:05}");
            let row = format!(r#"{{"patient_id":"{patient}","hr":{},"ts":{n}}}"#, n * 389 % ROWS);
            (patient, row)
        })
        .collect();
    let records = rows.iter().map(|(patient, row)| ("vitals", PartitionId(0), patient.as_str(), row.as_str()));
    let bus: Arc<dyn Bus> = Arc::new(Memory::holding(records, 100));
    let Statement::Select(select) = parse_statement(SORT)?.statement else { panic!("not a SELECT") };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { select_history(&select, &catalog(), &bus, Timestamp(0), workspace).await?.rows.try_collect().await })
}

#[test]
fn a_select_that_needs_more_memory_than_there_is_fails_and_says_which_setting_bounds_it() {
    let error = sorted(&Workspace::open(MEMORY, None).unwrap()).unwrap_err();
    assert_eq!(error.code, Code::Limit, "{error}");
    assert!(error.to_string().contains("sql.memory"), "{error}");
}

#[test]
fn with_room_on_the_disk_it_goes_through_and_leaves_nothing_there() {
    let dir = tempfile::tempdir().unwrap();
    let spill = Spill { dir: dir.path().join("spill"), bytes: 1 << 30 };
    std::fs::create_dir(&spill.dir).unwrap();
    std::fs::write(spill.dir.join("of-an-earlier-process"), "rows").unwrap();
    let workspace = Workspace::open(MEMORY, Some(&spill)).unwrap();
    assert!(!spill.dir.join("of-an-earlier-process").exists());
    let rows = sorted(&workspace).unwrap();
    let places: Vec<f64> = rows.iter().flat_map(|b| b.column(0).as_primitive::<Float64Type>().values().to_vec()).collect();
    assert_eq!(places.len(), ROWS * ROWS);
    assert!(places.is_sorted());
    drop(workspace);
    assert_eq!(std::fs::read_dir(&spill.dir).unwrap().count(), 0);
}

#[test]
fn the_room_on_the_disk_is_bounded_too() {
    let dir = tempfile::tempdir().unwrap();
    let spill = Spill { dir: dir.path().join("spill"), bytes: 1 << 20 };
    let error = sorted(&Workspace::open(MEMORY, Some(&spill)).unwrap()).unwrap_err();
    assert_eq!(error.code, Code::Limit, "{error}");
    assert!(error.to_string().contains("sql.spill_bytes"), "{error}");
}
