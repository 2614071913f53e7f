//! What a node does all the time: the alarm desk and the board read, webhooks are told, alerts counted, retention looks.
//!
//! Always: each of these ends when the node stops, and none of them holds up another.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use super::Inner;
use crate::alerts::{AlertState, Notifier, Target};
use crate::config::{Config, Webhook};
use crate::stream::{Feed, StartAt, start_of};
use crate::time::Timestamp;

/// How often retention and compaction look, and the board forgets. Kafka's cleaner rests as long (`log.cleaner.backoff.ms`).
const HOUSEKEEPING: Duration = Duration::from_secs(10);

impl Inner {
    /// Begins all of it.
    pub(super) fn start_tasks(
        self: &Arc<Self>,
        config: &Config,
        alert_partitions: i32,
        stopped: &watch::Receiver<bool>,
    ) -> Vec<JoinHandle<()>> {
        let mut tasks = Vec::new();
        let (me, stop) = (Arc::clone(self), stopped.clone());
        tasks.push(tokio::spawn(async move {
            if let Err(error) = me.desk.run(me.bus.as_ref(), alert_partitions, stop).await {
                tracing::error!(%error, "the alarm desk stopped reading");
            }
        }));
        let (me, stop) = (Arc::clone(self), stopped.clone());
        tasks.push(tokio::spawn(async move { me.follow_vitals(stop).await }));
        let (me, stop) = (Arc::clone(self), stopped.clone());
        tasks.push(tokio::spawn(async move { me.count_alerts(stop).await }));
        let (me, stop) = (Arc::clone(self), stopped.clone());
        tasks.push(tokio::spawn(async move { me.keep_house(stop).await }));
        for (name, hook) in &config.webhooks {
            let stats = self.notify.get(name).cloned().unwrap_or_default();
            let notifier = Notifier {
                name: name.clone(),
                target: Arc::new(HttpTarget::new(hook)),
                bus: Arc::clone(&self.bus),
                clock: self.clock,
                stats,
            };
            let stop = stopped.clone();
            tasks.push(tokio::spawn(async move {
                if let Err(error) = notifier.attend(alert_partitions, stop).await {
                    tracing::error!(%error, "a notifier stopped");
                }
            }));
        }
        tasks
    }

    /// Feeds the board from stream `vitals`, once there is one. It is a view: what it cannot keep up with, it leaves out.
    async fn follow_vitals(&self, mut stop: watch::Receiver<bool>) {
        loop {
            let feeds = self.engine.feeds("vitals").await;
            if !feeds.is_empty() {
                let follow = feeds.iter().map(|feed| self.follow(feed));
                tokio::select! {
                    _ = futures::future::join_all(follow) => {}
                    changed = stop.changed() => if changed.is_err() || *stop.borrow() { return },
                }
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                changed = stop.changed() => if changed.is_err() || *stop.borrow() { return },
            }
        }
    }

    /// Reads one partition until something fails; the caller begins again.
    async fn follow(&self, feed: &Feed) {
        let since = self.clock.now().plus(-900_000);
        let Ok(start) = start_of(self.bus.as_ref(), feed.partition(), StartAt::At(since)).await else {
            return;
        };
        let mut position = start;
        loop {
            match feed.poll_ahead(position).await {
                Ok(Some(chunk)) => {
                    self.board.take(&chunk.rows, self.clock.now());
                    position = chunk.next;
                }
                Ok(None) => {
                    if self.bus.wait(feed.partition(), position).await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    async fn count_alerts(&self, mut stop: watch::Receiver<bool>) {
        let mut changes = self.desk.changes();
        loop {
            let change = tokio::select! {
                change = changes.recv() => change,
                changed = stop.changed() => {
                    if changed.is_err() || *stop.borrow() {
                        return;
                    }
                    continue;
                }
            };
            match change {
                Ok(alert) => {
                    self.metrics.alerts.with_label_values(&[alert.rule.as_str(), alert.priority.as_str(), alert.state.as_str()]).inc();
                    if alert.state == AlertState::Active
                        && !alert.stale
                        && let (Some(event), Some(recorded)) = (Timestamp::parse(&alert.ts), Timestamp::parse(&alert.recorded_at))
                    {
                        let seconds = recorded.since(event).max(0) as f64 / 1000.0;
                        self.metrics.alert_latency_seconds.with_label_values(&[alert.rule.as_str()]).observe(seconds);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    async fn keep_house(&self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(HOUSEKEEPING) => {}
                changed = stop.changed() => if changed.is_err() || *stop.borrow() { return },
            }
            self.board.sweep(self.clock.now());
            self.engine.follow_growth().await;
            if let Err(error) = self.broker.enforce_retention().await {
                tracing::warn!(%error, "retention could not be enforced");
            }
        }
    }
}

/// A webhook over HTTP.
struct HttpTarget {
    url: String,
    bearer: Option<PathBuf>,
    agent: ureq::Agent,
}

impl HttpTarget {
    fn new(hook: &Webhook) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build();
        Self { url: hook.url.clone(), bearer: hook.bearer_token_file.clone(), agent: ureq::Agent::new_with_config(config) }
    }
}

impl Target for HttpTarget {
    fn send(&self, body: &[u8]) -> Result<(), String> {
        let mut request = self.agent.post(&self.url).content_type("application/json");
        if let Some(path) = &self.bearer {
            // Read each time: a rotated token needs no restart.
            let token = std::fs::read_to_string(path).map_err(|e| format!("could not read the token file: {e}"))?;
            request = request.header("authorization", format!("Bearer {}", token.trim()));
        }
        request.send(body).map(|_| ()).map_err(|e| e.to_string())
    }
}
