//! Alerts over HTTP: the open ones, the last that ended, and acknowledging.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, App};
use crate::alerts::{AcknowledgeCommand, AlertState, DeskAlert};

/// How long an acknowledgement may take to become durable.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which alerts.
#[derive(Deserialize)]
pub struct Which {
    /// `open` (the default), `active`, `acknowledged` or `resolved`.
    #[serde(default)]
    state: Option<String>,
    /// At most so many.
    #[serde(default)]
    limit: Option<usize>,
}

/// `GET /api/v1/alerts`.
pub async fn list(State(app): State<Arc<App>>, Query(which): Query<Which>) -> Result<Json<Vec<DeskAlert>>, ApiError> {
    let limit = which.limit.unwrap_or(1000).min(1000);
    let of = |state: AlertState| app.desk.open().into_iter().filter(|a| a.state == state).collect::<Vec<_>>();
    let mut found = match which.state.as_deref() {
        None | Some("open") => app.desk.open(),
        Some("active") => of(AlertState::Active),
        Some("acknowledged") => of(AlertState::Acknowledged),
        Some("resolved") => app.desk.ended(limit),
        Some(_) => return Err(ApiError::new(StatusCode::BAD_REQUEST, "HTTP-0001", "state is one of open, active, acknowledged, resolved")),
    };
    found.truncate(limit);
    Ok(Json(found))
}

/// Who acknowledges, and what they say.
#[derive(Deserialize)]
pub struct Seen {
    /// A person or system; required.
    by: String,
    /// Their words.
    #[serde(default)]
    reason: Option<String>,
}

/// `POST /api/v1/alerts/{id}/ack`: answers once the acknowledgement is durable.
pub async fn acknowledge(State(app): State<Arc<App>>, Path(id): Path<String>, Json(seen): Json<Seen>) -> Result<Json<Value>, ApiError> {
    if seen.by.trim().is_empty() {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "HTTP-0002", "say who acknowledges: {\"by\": \"..\"}"));
    }
    let alert = app
        .desk
        .get(&id)
        .ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "ALERT-0001", "there is no open alert with this id; it may be over by now"))?;
    if alert.state == AlertState::Acknowledged {
        return Ok(Json(json!({ "id": id, "state": "acknowledged", "by": alert.acknowledged_by })));
    }
    let mut changes = app.desk.changes();
    let command = AcknowledgeCommand { id: id.clone(), subject: alert.subject.clone(), by: seen.by.clone(), reason: seen.reason };
    let body = serde_json::to_string(&command).expect("a command is plain data");
    app.engine
        .external(&alert.rule, body)
        .await
        .map_err(|e| ApiError::new(StatusCode::CONFLICT, "ALERT-0002", format!("the rule's task does not take it: {}", e.message)))?;
    // It is durable; the desk reads it back from the topic a moment later.
    let shown = tokio::time::timeout(PATIENCE, async {
        while let Ok(change) = changes.recv().await {
            if change.id == id && change.state != AlertState::Active {
                return Some(change);
            }
        }
        None
    });
    match shown.await {
        Ok(Some(change)) => Ok(Json(json!({ "id": id, "state": change.state.as_str(), "by": change.acknowledged_by }))),
        _ => Err(ApiError::new(
            StatusCode::CONFLICT,
            "ALERT-0003",
            "the alert was over before the acknowledgement reached it, or its rule is just moving to another process: look again",
        )),
    }
}
