//! Live events: the ward each second, alerts when they change, queries every two seconds, over SSE.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::App;
use super::board::tag;
use crate::bus::Whereabouts;
use crate::sql::QueryStatus;

/// `GET /api/v1/events`.
pub async fn stream(State(app): State<Arc<App>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    // A page that does not keep up loses its place in the queue, not our memory.
    let (tx, rx) = mpsc::channel(16);
    tokio::spawn(async move {
        app.metrics.sse_clients.inc();
        feed(&app, &tx).await;
        app.metrics.sse_clients.dec();
    });
    let events = futures::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|event| (Ok(event), rx)) });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(10)))
}

async fn feed(app: &App, tx: &mpsc::Sender<Event>) {
    let mut changes = app.desk.changes();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count = 0_u64;
    if tx.send(event("alerts", &alerts(app))).await.is_err() {
        return;
    }
    loop {
        let sent = tokio::select! {
            () = app.stop.cancelled() => return,
            () = tx.closed() => return,
            change = changes.recv() => match change {
                // Many changes at once are shown once.
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                    while changes.try_recv().is_ok() {}
                    tx.send(event("alerts", &alerts(app))).await
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            },
            _ = second.tick() => {
                count += 1;
                let sent = tx.send(event("ward", &ward(app))).await;
                if sent.is_ok() && count % 2 == 1 {
                    tx.send(event("queries", &query_rows(app).await)).await
                } else {
                    sent
                }
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

fn event(name: &str, body: &Value) -> Event {
    Event::default().event(name).data(body.to_string())
}

/// The open alerts as the page shows them: a tag instead of the subject.
fn alerts(app: &App) -> Value {
    let open = app.desk.open();
    let shown = open.iter().map(|a| {
        json!({
            "id": a.id, "rule": a.rule, "rule_version": a.rule_version, "priority": a.priority, "state": a.state, "value": a.value,
            "since": a.since, "stale": a.stale, "acknowledged_by": a.acknowledged_by, "tag": tag(&a.subject),
            "bed": a.columns.get("bed").cloned().or_else(|| app.board.bed_of(&a.subject).map(Value::from)),
        })
    });
    Value::Array(shown.collect())
}

/// The beds as the page shows them.
pub fn ward(app: &App) -> Value {
    let mut gravest = std::collections::HashMap::new();
    for alert in app.desk.open() {
        let entry = gravest.entry(alert.subject.clone()).or_insert(alert.priority);
        *entry = (*entry).max(alert.priority);
    }
    let now = app.clock.now();
    json!({ "now": now.to_string(), "tiles": app.board.tiles(now, |patient| gravest.get(patient).map(|p| p.as_str())) })
}

/// The queries as the page and `GET /api/v1/queries` show them.
pub async fn query_rows(app: &App) -> Value {
    let now = app.clock.now();
    let rows = app.engine.statuses().await.into_iter().map(|q| {
        json!({
            "name": q.name, "kind": q.kind.as_str(), "version": q.version, "state": q.state.as_str(), "error": q.error,
            "source": q.source, "sink": q.sink, "rows_in": q.counts.rows_in, "rows_out": q.counts.rows_out, "late": q.counts.late,
            "tasks": q.tasks, "elsewhere": elsewhere(&q), "failed": q.counts.failed, "lag": q.lag, "state_bytes": q.counts.state_bytes, "spilled_bytes": q.counts.spilled_bytes,
            "watermark": q.watermark.map(|w| w.to_string()), "watermark_gap_s": q.watermark.map(|w| now.since(w) as f64 / 1000.0),
        })
    });
    Value::Array(rows.collect())
}

/// Where those of a query's tasks run that do not run here.
fn elsewhere(query: &QueryStatus) -> Value {
    let place = |(place, tasks): &(Whereabouts, Vec<i32>)| {
        let process = match place {
            Whereabouts::At(process) => Some(process.as_str()),
            Whereabouts::Here | Whereabouts::Nowhere => None,
        };
        json!({ "process": process, "tasks": tasks })
    };
    Value::Array(query.elsewhere.iter().map(place).collect())
}
