//! `WHY QUERY`: what a query waits for, in words, and what to do about it; and the figures of `EXPLAIN ANALYZE QUERY`. Pure
//! functions of its status.

use super::running::QueryState;
use super::status::QueryStatus;
use crate::bus::Whereabouts;
use crate::sql::figures::{operator_table, state_line, task_lines};
use crate::sql::lower::{Placement, QueryPlan};
use crate::stream::{InputProgress, shown_bytes};
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
        QueryState::Elsewhere => return places(status).join("\n"),
        QueryState::Running => {}
    }
    let mut lines = places(status);
    if status.counts.rows_in == 0 && status.lag == Some(0) {
        lines.push(format!("its stream \"{}\" has brought nothing: is anything written to its topic, and with the right names and types? Bad records go to the dead-letter topic", status.source));
    }
    match status.lag {
        Some(0) => {}
        Some(lag) => lines.push(format!("it has still {lag} records to read")),
        None => lines.push("the log does not say how much there is still to read: is it well?".to_owned()),
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
    if let Some(max) = status.state_max.filter(|_| status.is_near_max) {
        let (bytes, max) = (shown_bytes(status.counts.state_bytes), shown_bytes(max));
        lines.push(format!("its state takes {bytes} and may take {max}, at which it stops: replace it WITH ('state.max' = '..') of more, or let it hold less (EXPLAIN ANALYZE QUERY {} shows which operator holds it)", status.name));
    }
    if let Some(why) = status.refusal.as_ref().filter(|_| status.is_near_max) {
        lines.push(format!("no more of its state could be put on the disk: {why}"));
    }
    if status.counts.late > 0 {
        lines.push(format!("{} rows came late, for windows that were closed already", status.counts.late));
    }
    if status.counts.failed > 0 {
        lines.push(format!("{} rows failed in an expression and are in topic {}.dlq", status.counts.failed, status.name));
    }
    if lines.len() == status.elsewhere.len() {
        lines.push(format!("nothing is wrong: it has read {} rows and written {}", status.counts.rows_in, status.counts.rows_out));
    }
    lines.join("\n")
}

/// What it has done and holds: its operators, its tasks.
pub(super) fn figures(status: &QueryStatus, now: Timestamp) -> String {
    let c = &status.counts;
    let mut text = format!(
        "figures  rows in {}, out {}, late {}, failed {}, ahead of the clock {}; lag {}\n",
        c.rows_in,
        c.rows_out,
        c.late,
        c.failed,
        c.ahead,
        status.lag.map_or_else(|| "not known".to_owned(), |lag| format!("{lag} records"))
    );
    text.push_str(&state_line(c.state_bytes, status.state_max, c.spilled_bytes));
    if status.time.tasks > 0 {
        text.push_str(&task_lines(&status.time, &status.commit_times, c.snapshots));
    }
    if status.operators.is_empty() {
        text.push_str("no operator has run since it was started\n");
    } else {
        text.push_str(&operator_table(&status.operators, Some(now)));
    }
    text
}

/// Where those of its tasks run that do not run here.
fn places(status: &QueryStatus) -> Vec<String> {
    let line = |(place, tasks): &(Whereabouts, Vec<i32>)| {
        let which = tasks.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
        let (which, are) = if tasks.len() == 1 { (format!("task {which}"), "is") } else { (format!("tasks {which}"), "are") };
        match place {
            Whereabouts::At(process) => format!("{which} of {} {are} run by process {process}: ask there", status.tasks),
            Whereabouts::Here => format!("{which} of {} {are} about to be run here", status.tasks),
            Whereabouts::Nowhere => format!(
                "{which} of {} {are} run by nobody just now: another process takes them over once the session of the one that ran them has ended",
                status.tasks
            ),
        }
    };
    status.elsewhere.iter().map(line).collect()
}

/// Which partition, and of what, where more than one is read.
fn place(plan: &QueryPlan, input: &InputProgress) -> String {
    match plan.inputs.as_slice() {
        [_] => input.partition.to_string(),
        several => several.get(input.source).map_or_else(String::new, |of| format!("{} of \"{}\"", input.partition, of.stream)),
    }
}
