//! The HTTP door: API, metrics, health, live events, and the page.
//!
//! Thin: it asks the engine, the desk and the board, and turns their answers into JSON. Always: patient data
//! never stands in a URL; an alert is named by its opaque id, a bed's tile by a tag; who asks for something may have it
//! (`visitor`), and what a request brings has come whole, and in time, before a handler sees it. Started by `node`.

mod alerts;
mod board;
mod events;
mod listener;
mod sql;
mod visitor;

pub use board::{Board, Tile};
pub use visitor::{Token, Tokens};

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::alerts::Desk;
use crate::broker::security::Security;
use crate::metrics::Metrics;
use crate::server::Tls;
use crate::sql::Engine;
use crate::time::Clock;

/// The page, in one file that works offline.
const PAGE: &str = include_str!("page.html");

/// What a request may bring.
const MOST_BYTES: usize = 2 << 20;
/// How long it may take to bring it.
const BODY: Duration = Duration::from_secs(30);
/// Requests that bring much at the same time; what says that it brings no more than [`LITTLE`] does not wait.
static BODIES: Semaphore = Semaphore::const_new(32);
const LITTLE: u64 = 16 << 10;

/// A future in a box, for the one trait of this room.
pub type HostFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One part of the node, and whether it is ready.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Which part.
    pub name: &'static str,
    /// Whether it is ready.
    pub ok: bool,
    /// What it waits for, or what is wrong.
    pub detail: String,
}

/// A topic, as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: usize,
    /// How many records it holds.
    pub records: i64,
    /// How many bytes they take.
    pub bytes: u64,
    /// One of the node's own.
    pub internal: bool,
}

/// What this room asks of the node that it stands in.
pub trait Host: Send + Sync {
    /// Brings the metrics up to date, just before a scrape.
    fn refresh_metrics(&self) -> HostFuture<'_, ()>;
    /// How ready each part is.
    fn readiness(&self) -> Vec<Check>;
    /// The topics.
    fn topics(&self) -> Vec<TopicInfo>;
}

/// Who may come in.
pub struct Access {
    /// The tokens that open the door; where there are none, nobody is asked who they are.
    pub tokens: Tokens,
    /// The access rules.
    pub security: Arc<Security>,
    /// Whether the door may be reached by any name although it has no tokens.
    pub any_host: bool,
    /// With TLS.
    pub tls: Option<Arc<Tls>>,
}

/// What the handlers share.
pub struct App {
    /// Who may come in.
    pub access: Access,
    /// Runs SQL.
    pub engine: Arc<Engine>,
    /// The open alerts.
    pub desk: Arc<Desk>,
    /// The beds.
    pub board: Arc<Board>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// The node's clock.
    pub clock: Clock,
    /// The node.
    pub host: Arc<dyn Host>,
    /// Ends live streams when the node stops.
    pub stop: CancellationToken,
}

/// An answer that says what went wrong.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    /// An error with a status, a stable code and a message.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": { "code": self.code, "message": self.message } }))).into_response()
    }
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/metrics", get(scrape))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .route("/api/v1/sql", post(sql::run))
        .route("/api/v1/queries", get(queries))
        .route("/api/v1/topics", get(topics))
        .route("/api/v1/ward", get(ward))
        .route("/api/v1/alerts", get(alerts::list))
        .route("/api/v1/alerts/{id}/ack", post(alerts::acknowledge))
        .route("/api/v1/events", get(events::stream))
        .fallback(async || {
            ApiError::new(StatusCode::NOT_FOUND, "HTTP-0404", "there is nothing here; the page is at /, the API under /api/v1/")
        })
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(from_fn(whole))
        .layer(from_fn_with_state(Arc::clone(&app), visitor::admit))
        .layer(map_response(explained))
        .with_state(app)
}

/// Gives the refusals that come from below our handlers (a body that is no JSON, one that is too long, another method)
/// the form that all of our errors have.
async fn explained(response: Response) -> Response {
    let status = response.status();
    let told = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/"));
    if !status.is_client_error() || told {
        return response;
    }
    let code = match status {
        StatusCode::METHOD_NOT_ALLOWED => "HTTP-0405",
        StatusCode::PAYLOAD_TOO_LARGE => "HTTP-0413",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "HTTP-0415",
        StatusCode::UNPROCESSABLE_ENTITY => "HTTP-0422",
        _ => "HTTP-0400",
    };
    let said = to_bytes(response.into_body(), 1 << 16).await.ok().and_then(|said| String::from_utf8(said.into()).ok()).unwrap_or_default();
    let message = match status {
        StatusCode::PAYLOAD_TOO_LARGE => format!("a request may bring {} MiB: send it in parts", MOST_BYTES >> 20),
        StatusCode::METHOD_NOT_ALLOWED => "this address takes another method: the header Allow says which".to_owned(),
        _ if said.is_empty() => status.canonical_reason().unwrap_or("refused").to_lowercase(),
        _ => said,
    };
    ApiError::new(status, code, message).into_response()
}

/// Waits until all that a request brings has come, within limits of size and time.
async fn whole(request: Request, next: Next) -> Response {
    let said =
        request.headers().get(header::CONTENT_LENGTH).map(|length| length.to_str().ok().and_then(|length| length.parse::<u64>().ok()));
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let is_little = !chunked && said.is_none_or(|said| said.is_some_and(|said| said <= LITTLE));
    let come = async {
        let _turn = if is_little { None } else { BODIES.acquire().await.ok() };
        let (parts, body) = request.into_parts();
        to_bytes(body, MOST_BYTES).await.map(|bytes| Request::from_parts(parts, Body::from(bytes)))
    };
    match tokio::time::timeout(BODY, come).await {
        Ok(Ok(request)) => next.run(request).await,
        // The one other reason is a connection that broke, which nobody is told of.
        Ok(Err(_)) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => ApiError::new(StatusCode::REQUEST_TIMEOUT, "HTTP-0408", "the rest of the request did not come in time").into_response(),
    }
}

/// Serves at most so many connections at a time, until the token is cancelled; live streams end with it.
pub async fn serve(listener: TcpListener, most: usize, app: Arc<App>) {
    let (tls, stop) = (app.access.tls.clone(), app.stop.clone());
    listener::serve(listener, tls, most, router(app), stop).await;
}

/// Opens the listener.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn scrape(State(app): State<Arc<App>>) -> impl IntoResponse {
    app.host.refresh_metrics().await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render())
}

async fn ready(State(app): State<Arc<App>>) -> impl IntoResponse {
    let checks = app.host.readiness();
    let status = if checks.iter().all(|c| c.ok) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let lines = checks.iter().map(|c| {
        format!(
            "[{}] {}{}\n",
            if c.ok { "+" } else { "-" },
            c.name,
            if c.detail.is_empty() { String::new() } else { format!(": {}", c.detail) }
        )
    });
    (status, lines.collect::<String>())
}

async fn queries(State(app): State<Arc<App>>) -> impl IntoResponse {
    Json(events::query_rows(&app).await)
}

async fn topics(State(app): State<Arc<App>>) -> impl IntoResponse {
    Json(app.host.topics())
}

async fn ward(State(app): State<Arc<App>>) -> impl IntoResponse {
    Json(events::ward(&app))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_explained(status: StatusCode, body: &'static str, expected: &str) {
        let response = (status, body).into_response();
        let shown = futures::executor::block_on(async {
            let answer = explained(response).await;
            let status = answer.status();
            let said = to_bytes(answer.into_body(), 1 << 16).await.expect("in memory");
            format!("{} {}", status.as_u16(), String::from_utf8_lossy(&said))
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn every_refusal_says_why_in_the_same_form() {
        check_explained(StatusCode::BAD_REQUEST, "no JSON", r#"400 {"error":{"code":"HTTP-0400","message":"no JSON"}}"#);
        let other = r#"405 {"error":{"code":"HTTP-0405","message":"this address takes another method: the header Allow says which"}}"#;
        check_explained(StatusCode::METHOD_NOT_ALLOWED, "", other);
        let long = r#"413 {"error":{"code":"HTTP-0413","message":"a request may bring 2 MiB: send it in parts"}}"#;
        check_explained(StatusCode::PAYLOAD_TOO_LARGE, "length limit exceeded", long);
        check_explained(StatusCode::OK, "fine", "200 fine");
    }
}
