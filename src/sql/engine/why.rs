//! `WHY QUERY`: what a query waits for, in words, and what to do about it. A pure function of its status.

use super::running::QueryState;
use super::status::QueryStatus;
use crate::sql::lower::{Placement, QueryPlan};
use crate::stream::InputProgress;
use crate::time::Timestamp;

/// Says why a query is silent, or that it is not.
pub(super) fn explain(status: &QueryStatus, plan: &QueryPlan, now: Timestamp) -> String {
    match status.state {
        QueryState::Paused => return format!("it is paused: RESUME {} {}", status.kind.as_str().to_uppercase(), status.name),
        QueryState::Failed => return format!("it has failed: {}", status.error.clone().unwrap_or_default()),
        QueryState::Starting if status.refill.goes_on => {
            return format!(
                "it was replaced, and its state is being made again from its input: {} of {} records are read",
                status.refill.read, status.refill.records
            );
        }
        QueryState::Starting => return "it is being restored from its checkpoint; look again in a moment".to_owned(),
        QueryState::Running => {}
    }
    let mut lines = Vec::new();
    if status.counts.rows_in == 0 && status.lag == 0 {
        lines.push(format!("its stream \"{}\" has brought nothing: is anything written to its topic, and with the right names and types? Bad records go to the dead-letter topic", status.source));
    }
    if status.lag > 0 {
        lines.push(format!("it has still {} records to read", status.lag));
    }
    let behind = |at: Timestamp| now.since(at) as f64 / 1000.0;
    if plan.waits {
        if plan.placement == Placement::Merged {
            let active = status.inputs.iter().filter(|i| !i.idle);
            if let Some(input) = active.min_by_key(|i| i.watermark) {
                let partition = place(plan, input);
                let held = if input.watermark == Timestamp::MIN {
                    "which has brought no row yet".to_owned()
                } else {
                    format!("whose watermark is {} ({:.0} s behind the clock)", input.watermark, behind(input.watermark))
                };
                lines.push(format!("it merges its partitions, and waits for partition {partition}, {held}; 'watermark.idle-timeout' on the stream says how long it may hold the others"));
            }
        } else {
            for input in &status.inputs {
                let partition = place(plan, input);
                if input.watermark > Timestamp::MIN {
                    lines.push(format!(
                        "partition {partition}: watermark {} ({:.0} s behind the clock); windows that end later are open",
                        input.watermark,
                        behind(input.watermark)
                    ));
                }
            }
        }
        if let Some(every) = plan.every {
            lines.push(format!("its results change, and are told every {every:?}"));
        }
        if plan.timeout.is_none() && !plan.is_changing() {
            lines.push("it has no TIMEOUT: the last windows of a silent partition stay open until its next row. EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '10' SECOND closes them by the clock".to_owned());
        }
    }
    if status.counts.late > 0 {
        lines.push(format!("{} rows came late, for windows that were closed already", status.counts.late));
    }
    if status.counts.failed > 0 {
        lines.push(format!("{} rows failed in an expression and are in topic {}.dlq", status.counts.failed, status.name));
    }
    if lines.is_empty() {
        lines.push(format!("nothing is wrong: it has read {} rows and written {}", status.counts.rows_in, status.counts.rows_out));
    }
    lines.join("\n")
}

/// Which partition, and of what, where more than one is read.
fn place(plan: &QueryPlan, input: &InputProgress) -> String {
    match plan.inputs.as_slice() {
        [_] => input.partition.to_string(),
        several => several.get(input.source).map_or_else(String::new, |of| format!("{} of \"{}\"", input.partition, of.stream)),
    }
}
