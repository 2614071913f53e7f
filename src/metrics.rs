//! Every metric: name, unit, labels, help. Declared here and nowhere else.
//!
//! Names follow Prometheus' rules: base units, `_total` for counters, labels from small sets (topic,
//! query, rule, api, ward, ..). No patient, bed or device is ever a label: labels are stored in many places
//! that patient data must not reach. Counters that a room already keeps are brought over at a scrape by
//! `node`, with [`raise`].

use std::sync::Arc;
use std::time::Instant;

use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Buckets for how long things take, from a quarter of a millisecond to half a minute: an alert that waits for
/// its stream's order takes five seconds, one that waits for the clock ten or more.
const SECONDS: &[f64] = &[0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// APIs whose series are there, at zero, before the first client: a panel or a rule that finds nothing cannot be
/// told from one that is broken.
const FIRST_APIS: [&str; 3] = ["Produce", "Fetch", "Metadata"];

/// All metrics of one node.
pub struct Metrics {
    registry: Registry,
    started: Instant,
    /// Records taken in, by topic.
    pub broker_records_in: IntCounterVec,
    /// Bytes taken in, by topic.
    pub broker_bytes_in: IntCounterVec,
    /// Bytes handed to consumers, by topic.
    pub broker_bytes_out: IntCounterVec,
    /// Kafka requests served, by API.
    pub broker_requests: IntCounterVec,
    /// How long a Kafka request took, by API.
    pub broker_request_seconds: HistogramVec,
    /// Open Kafka connections.
    pub broker_connections: IntGauge,
    /// Bytes a topic holds.
    pub log_size_bytes: IntGaugeVec,
    /// How long a sync of the write-ahead log took.
    pub log_sync_seconds: Histogram,
    /// Append groups that rode on one sync.
    pub log_groups: IntCounter,
    /// Bytes waiting to become durable or to reach their segment.
    pub log_pending_bytes: IntGauge,
    /// Free bytes on the data directory's disk.
    pub log_disk_free_bytes: IntGauge,
    /// How far a consumer group is behind, by group and topic.
    pub consumer_group_lag: IntGaugeVec,
    /// Rows a query has read.
    pub query_rows_in: IntCounterVec,
    /// Rows a query has written.
    pub query_rows_out: IntCounterVec,
    /// Rows that were late for a query.
    pub query_late_rows: IntCounterVec,
    /// Rows whose expression failed in a query.
    pub query_failed_rows: IntCounterVec,
    /// Rows ahead of the clock, which did not move the watermark.
    pub query_ahead_rows: IntCounterVec,
    /// Commits of a query.
    pub query_commits: IntCounterVec,
    /// Snapshots of a query.
    pub query_snapshots: IntCounterVec,
    /// How far a query's watermark is behind the clock.
    pub query_watermark_gap_seconds: GaugeVec,
    /// Records a query has still to read.
    pub query_input_lag: IntGaugeVec,
    /// Bytes of state at the last snapshot.
    pub query_state_bytes: IntGaugeVec,
    /// 1 for the state a query is in.
    pub query_state: IntGaugeVec,
    /// Records that were no row of their stream.
    pub dead_letters: IntCounterVec,
    /// Alert records written, by rule, priority and state.
    pub alerts: IntCounterVec,
    /// Alerts open now, by rule, priority and state.
    pub alerts_active: IntGaugeVec,
    /// From the raising reading's event time to the durable alert.
    pub alert_latency_seconds: HistogramVec,
    /// Notices, by outcome.
    pub notifications: IntCounterVec,
    /// Beds heard of in the last while, by ward.
    pub ward_beds: IntGaugeVec,
    /// Beds whose sensors are silent, by ward.
    pub ward_beds_silent: IntGaugeVec,
    /// Beds with a NEWS2 of 7 or more, by ward.
    pub ward_beds_high_risk: IntGaugeVec,
    /// Mean of the latest values of a ward, by vital; the unit is the vital's canonical one.
    pub ward_vital_mean: GaugeVec,
    /// Pages that listen for live events.
    pub sse_clients: IntGauge,
    resident_memory: IntGauge,
    cpu_seconds: Counter,
    open_fds: IntGauge,
    uptime: Gauge,
}

impl Metrics {
    /// A fresh set, registered.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let r = Registry::new();
        let build = int_gauges(&r, "vitalsql_build_info", "The running version; always 1.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let made = Self {
            started: Instant::now(),
            broker_records_in: counters(&r, "vitalsql_broker_records_in_total", "Records taken in.", &["topic"]),
            broker_bytes_in: counters(&r, "vitalsql_broker_bytes_in_total", "Bytes of record batches taken in.", &["topic"]),
            broker_bytes_out: counters(&r, "vitalsql_broker_bytes_out_total", "Bytes of record batches handed to consumers.", &["topic"]),
            broker_requests: counters(&r, "vitalsql_broker_requests_total", "Kafka requests served.", &["api"]),
            broker_request_seconds: histograms(&r, "vitalsql_broker_request_duration_seconds", "How long a Kafka request took.", &["api"]),
            broker_connections: int_gauge(&r, "vitalsql_broker_connections", "Open Kafka connections."),
            log_size_bytes: int_gauges(&r, "vitalsql_log_size_bytes", "Bytes a topic holds on disk.", &["topic"]),
            log_sync_seconds: histogram(&r, "vitalsql_log_sync_duration_seconds", "How long a sync of the write-ahead log took."),
            log_groups: counter(&r, "vitalsql_log_append_groups_total", "Append groups made durable."),
            log_pending_bytes: int_gauge(&r, "vitalsql_log_pending_bytes", "Bytes on their way to the disk or to their segment."),
            log_disk_free_bytes: int_gauge(&r, "vitalsql_log_disk_free_bytes", "Free bytes on the data directory's disk."),
            consumer_group_lag: int_gauges(
                &r,
                "vitalsql_consumer_group_lag_records",
                "Records a consumer group has still to read.",
                &["group", "topic"],
            ),
            query_rows_in: counters(&r, "vitalsql_query_rows_in_total", "Rows read by a query.", &["query"]),
            query_rows_out: counters(&r, "vitalsql_query_rows_out_total", "Rows written by a query.", &["query"]),
            query_late_rows: counters(&r, "vitalsql_query_late_rows_total", "Rows that were late for a query.", &["query"]),
            query_failed_rows: counters(&r, "vitalsql_query_failed_rows_total", "Rows whose expression failed.", &["query"]),
            query_ahead_rows: counters(
                &r,
                "vitalsql_query_ahead_rows_total",
                "Rows ahead of the clock, which did not move the watermark.",
                &["query"],
            ),
            query_commits: counters(&r, "vitalsql_query_commits_total", "Commits of a query.", &["query"]),
            query_snapshots: counters(&r, "vitalsql_query_snapshots_total", "Snapshots of a query's state.", &["query"]),
            query_watermark_gap_seconds: gauges(
                &r,
                "vitalsql_query_watermark_gap_seconds",
                "How far a query's watermark is behind the clock.",
                &["query"],
            ),
            query_input_lag: int_gauges(&r, "vitalsql_query_input_lag_records", "Records a query has still to read.", &["query"]),
            query_state_bytes: int_gauges(&r, "vitalsql_query_state_bytes", "Bytes of a query's state at its last snapshot.", &["query"]),
            query_state: int_gauges(&r, "vitalsql_query_state", "1 for the state a query is in.", &["query", "state"]),
            dead_letters: counters(&r, "vitalsql_dead_letter_records_total", "Records that were no row of their stream.", &["stream"]),
            alerts: counters(&r, "vitalsql_alerts_total", "Alert records written.", &["rule", "priority", "state"]),
            alerts_active: int_gauges(&r, "vitalsql_alerts_active", "Alerts open now.", &["rule", "priority", "state"]),
            alert_latency_seconds: histograms(
                &r,
                "vitalsql_alert_latency_seconds",
                "From the raising reading's event time to the durable alert.",
                &["rule"],
            ),
            notifications: counters(&r, "vitalsql_notifications_total", "Notices sent to webhooks.", &["target", "outcome"]),
            ward_beds: int_gauges(&r, "vitalsql_ward_beds", "Beds heard of within the last five minutes.", &["ward"]),
            ward_beds_silent: int_gauges(&r, "vitalsql_ward_beds_silent", "Beds not heard of for over thirty seconds.", &["ward"]),
            ward_beds_high_risk: int_gauges(&r, "vitalsql_ward_beds_high_risk", "Beds with a NEWS2 of 7 or more.", &["ward"]),
            ward_vital_mean: gauges(
                &r,
                "vitalsql_ward_vital_mean",
                "Mean of the beds' latest values, in the vital's canonical unit; wards of fewer than five beds are left out.",
                &["ward", "vital"],
            ),
            sse_clients: int_gauge(&r, "vitalsql_sse_clients", "Pages that listen for live events."),
            resident_memory: int_gauge(&r, "process_resident_memory_bytes", "Resident memory."),
            cpu_seconds: float_counter(&r, "process_cpu_seconds_total", "User and system time spent."),
            open_fds: int_gauge(&r, "process_open_fds", "Open file descriptors."),
            uptime: gauge(&r, "vitalsql_uptime_seconds", "Time since the node started."),
            registry: r,
        };
        for api in FIRST_APIS {
            made.broker_requests.with_label_values(&[api]);
            made.broker_request_seconds.with_label_values(&[api]);
        }
        Arc::new(made)
    }

    /// The text exposition format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let process = process();
        self.resident_memory.set(process.resident_bytes as i64);
        self.cpu_seconds.inc_by((process.cpu_seconds - self.cpu_seconds.get()).max(0.0));
        self.open_fds.set(process.open_fds as i64);
        self.uptime.set(self.started.elapsed().as_secs_f64());
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text).expect("writing to a string succeeds");
        text
    }
}

/// Brings a counter up to a total that is kept elsewhere.
pub fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn registered<T: prometheus::core::Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<T>) -> T {
    let collector = made.expect("the names and labels of this file are valid");
    registry.register(Box::new(collector.clone())).expect("the names of this file are unique");
    collector
}

fn counters(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(r, IntCounterVec::new(Opts::new(name, help), labels))
}

fn counter(r: &Registry, name: &str, help: &str) -> IntCounter {
    registered(r, IntCounter::new(name, help))
}

fn float_counter(r: &Registry, name: &str, help: &str) -> Counter {
    registered(r, Counter::new(name, help))
}

fn gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    registered(r, GaugeVec::new(Opts::new(name, help), labels))
}

fn gauge(r: &Registry, name: &str, help: &str) -> Gauge {
    registered(r, Gauge::new(name, help))
}

fn int_gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(r, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn int_gauge(r: &Registry, name: &str, help: &str) -> IntGauge {
    registered(r, IntGauge::new(name, help))
}

fn histograms(r: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    registered(r, HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels))
}

fn histogram(r: &Registry, name: &str, help: &str) -> Histogram {
    registered(r, Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec())))
}

/// What the system knows of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Resident memory.
    pub resident_bytes: u64,
    /// User and system time.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_fds: u64,
}

/// Reads `/proc`; zeros where there is none.
#[must_use]
pub fn process() -> Process {
    let mut known = Process::default();
    if let Ok(status) = std::fs::read_to_string("/proc/self/status")
        && let Some(line) = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))
        && let Some(kib) = line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok())
    {
        known.resident_bytes = kib * 1024;
    }
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
        && let Some((_, rest)) = stat.rsplit_once(')')
    {
        // Fields 14 and 15 of proc(5), counted from the state behind the name; 100 ticks a second.
        let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
        known.cpu_seconds = ticks / 100.0;
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        known.open_fds = entries.count() as u64;
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_names_the_build_and_the_process() {
        let metrics = Metrics::new();
        metrics.query_late_rows.with_label_values(&["vitals_1m"]).inc_by(3);
        let text = metrics.render();
        assert!(text.contains("vitalsql_build_info{version="), "{text}");
        assert!(text.contains("vitalsql_query_late_rows_total{query=\"vitals_1m\"} 3"), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }

    #[test]
    fn a_counter_kept_elsewhere_is_brought_over_and_never_goes_back() {
        let metrics = Metrics::new();
        raise(&metrics.log_groups, 5);
        raise(&metrics.log_groups, 4);
        assert_eq!(metrics.log_groups.get(), 5);
    }
}
