//! Every metric: name, unit, labels, help. Declared here and nowhere else.
//!
//! Names follow Prometheus' rules: base units, `_total` for counters, labels from small sets (topic,
//! query, rule, api, ward, ..). No patient, bed or device is ever a label: labels are stored in many places
//! that patient data must not reach. Counters that a room already keeps are brought over at a scrape by
//! `node`, with [`raise`]; what comes and goes, as queries do, comes as a whole ([`Told`]).

mod durations;
mod told;

use std::sync::Arc;
use std::time::Instant;

pub use durations::{DurationCounts, Durations};
pub use told::Told;

use prometheus::proto::MetricType;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Buckets for how long things take, from a quarter of a millisecond to half a minute: an alert that waits for
/// its stream's order takes five seconds, one that waits for the clock ten or more.
const SECONDS: [f64; 16] = [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

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
    pub query_rows_in: Told,
    /// Rows a query has written.
    pub query_rows_out: Told,
    /// Rows that were late for a query.
    pub query_late_rows: Told,
    /// Rows whose expression failed in a query.
    pub query_failed_rows: Told,
    /// Rows ahead of the clock, which did not move the watermark.
    pub query_ahead_rows: Told,
    /// Commits of a query.
    pub query_commits: Told,
    /// How long they took.
    pub query_commit_seconds: Told,
    /// Snapshots of a query.
    pub query_snapshots: Told,
    /// How far a query's watermark is behind the clock.
    pub query_watermark_gap_seconds: Told,
    /// Records a query has still to read.
    pub query_input_lag: Told,
    /// Bytes of state a query holds.
    pub query_state_bytes: Told,
    /// Bytes of state a query has on the disk.
    pub query_spilled_bytes: Told,
    /// Bytes of state a query may hold.
    pub query_state_max_bytes: Told,
    /// 1 for the state a query is in.
    pub query_state: Told,
    /// Tasks of a query.
    pub query_tasks: Told,
    /// How long a query's tasks have worked.
    pub query_busy_seconds: Told,
    /// How long they have waited for input.
    pub query_idle_seconds: Told,
    /// How long they have waited for a commit or a slow reader.
    pub query_backpressured_seconds: Told,
    /// Rows an operator has taken.
    pub operator_rows_in: Told,
    /// Rows an operator has handed on.
    pub operator_rows_out: Told,
    /// Rows that were late for an operator.
    pub operator_late_rows: Told,
    /// Rows that failed in an operator.
    pub operator_failed_rows: Told,
    /// How long an operator has worked.
    pub operator_busy_seconds: Told,
    /// Bytes of state an operator holds.
    pub operator_state_bytes: Told,
    /// Bytes of state an operator has on the disk.
    pub operator_spilled_bytes: Told,
    /// How far an operator's watermark is behind the clock, in the task that is furthest behind.
    pub operator_watermark_gap_seconds: Told,
    /// The same in the task that is least behind.
    pub operator_watermark_gap_least_seconds: Told,
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
            query_rows_in: counters_told(&r, "vitalsql_query_rows_in_total", "Rows read by a query.", &["query"]),
            query_rows_out: counters_told(&r, "vitalsql_query_rows_out_total", "Rows written by a query.", &["query"]),
            query_late_rows: counters_told(&r, "vitalsql_query_late_rows_total", "Rows that were late for a query.", &["query"]),
            query_failed_rows: counters_told(&r, "vitalsql_query_failed_rows_total", "Rows whose expression failed.", &["query"]),
            query_ahead_rows: counters_told(
                &r,
                "vitalsql_query_ahead_rows_total",
                "Rows ahead of the clock, which did not move the watermark.",
                &["query"],
            ),
            query_commits: counters_told(&r, "vitalsql_query_commits_total", "Commits of a query.", &["query"]),
            query_commit_seconds: histograms_told(
                &r,
                "vitalsql_query_commit_duration_seconds",
                "How long a commit of a query took to be durable.",
                &["query"],
            ),
            query_snapshots: counters_told(&r, "vitalsql_query_snapshots_total", "Snapshots of a query's state.", &["query"]),
            query_watermark_gap_seconds: gauges_told(
                &r,
                "vitalsql_query_watermark_gap_seconds",
                "How far a query's watermark is behind the clock.",
                &["query"],
            ),
            query_input_lag: gauges_told(
                &r,
                "vitalsql_query_input_lag_records",
                "Records a query has still to read, where that is known.",
                &["query"],
            ),
            query_state_bytes: gauges_told(&r, "vitalsql_query_state_bytes", "Bytes of state a query holds in memory.", &["query"]),
            query_spilled_bytes: gauges_told(&r, "vitalsql_query_spilled_bytes", "Bytes of state a query has put on the disk.", &["query"]),
            query_state_max_bytes: gauges_told(
                &r,
                "vitalsql_query_state_max_bytes",
                "Bytes of state a query may hold in memory; at that it stops.",
                &["query"],
            ),
            query_state: gauges_told(&r, "vitalsql_query_state", "1 for the state a query is in.", &["query", "state"]),
            query_tasks: gauges_told(&r, "vitalsql_query_tasks", "Tasks of a query.", &["query"]),
            query_busy_seconds: counters_told(
                &r,
                "vitalsql_query_busy_seconds_total",
                "Time the tasks of a query have worked.",
                &["query"],
            ),
            query_idle_seconds: counters_told(
                &r,
                "vitalsql_query_idle_seconds_total",
                "Time the tasks of a query have waited for input.",
                &["query"],
            ),
            query_backpressured_seconds: counters_told(
                &r,
                "vitalsql_query_backpressured_seconds_total",
                "Time the tasks of a query have waited for a commit or a slow reader.",
                &["query"],
            ),
            operator_rows_in: counters_told(
                &r,
                "vitalsql_operator_rows_in_total",
                "Rows taken by an operator of a query.",
                &["query", "operator"],
            ),
            operator_rows_out: counters_told(
                &r,
                "vitalsql_operator_rows_out_total",
                "Rows handed on by an operator.",
                &["query", "operator"],
            ),
            operator_late_rows: counters_told(
                &r,
                "vitalsql_operator_late_rows_total",
                "Rows that were late for an operator.",
                &["query", "operator"],
            ),
            operator_failed_rows: counters_told(
                &r,
                "vitalsql_operator_failed_rows_total",
                "Rows that failed in an operator.",
                &["query", "operator"],
            ),
            operator_busy_seconds: counters_told(
                &r,
                "vitalsql_operator_busy_seconds_total",
                "Time an operator has worked, over all tasks.",
                &["query", "operator"],
            ),
            operator_state_bytes: gauges_told(
                &r,
                "vitalsql_operator_state_bytes",
                "Bytes of state an operator holds in memory.",
                &["query", "operator"],
            ),
            operator_spilled_bytes: gauges_told(
                &r,
                "vitalsql_operator_spilled_bytes",
                "Bytes of state an operator has put on the disk.",
                &["query", "operator"],
            ),
            operator_watermark_gap_seconds: gauges_told(
                &r,
                "vitalsql_operator_watermark_gap_seconds",
                "How far an operator's watermark is behind the clock, in the task furthest behind.",
                &["query", "operator"],
            ),
            operator_watermark_gap_least_seconds: gauges_told(
                &r,
                "vitalsql_operator_watermark_gap_least_seconds",
                "How far an operator's watermark is behind the clock, in the task least behind.",
                &["query", "operator"],
            ),
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

fn counters_told(r: &Registry, name: &str, help: &str, labels: &[&str]) -> Told {
    registered(r, Told::new(MetricType::COUNTER, name, help, labels))
}

fn gauges_told(r: &Registry, name: &str, help: &str, labels: &[&str]) -> Told {
    registered(r, Told::new(MetricType::GAUGE, name, help, labels))
}

fn histograms_told(r: &Registry, name: &str, help: &str, labels: &[&str]) -> Told {
    registered(r, Told::new(MetricType::HISTOGRAM, name, help, labels))
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
        metrics.query_late_rows.tell([(["vitals_1m"], 3.0)].into_iter());
        let text = metrics.render();
        assert!(text.contains("vitalsql_build_info{version="), "{text}");
        assert!(text.contains("vitalsql_query_late_rows_total{query=\"vitals_1m\"} 3"), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }

    #[test]
    fn series_that_are_not_told_again_are_gone_and_a_counter_may_begin_anew() {
        let metrics = Metrics::new();
        metrics.operator_rows_in.tell([(["a", "1-window"], 5.0), (["b", "1-window"], 7.0)].into_iter());
        let taken = Durations::default();
        taken.observe(std::time::Duration::from_millis(2));
        metrics.query_commit_seconds.durations([(["a"], taken.counts())].into_iter());
        let text = metrics.render();
        assert!(text.contains("# TYPE vitalsql_operator_rows_in_total counter"), "{text}");
        assert!(text.contains("vitalsql_operator_rows_in_total{operator=\"1-window\",query=\"a\"} 5"), "{text}");
        assert!(text.contains("vitalsql_query_commit_duration_seconds_bucket{query=\"a\",le=\"0.001\"} 0"), "{text}");
        assert!(text.contains("vitalsql_query_commit_duration_seconds_bucket{query=\"a\",le=\"0.0025\"} 1"), "{text}");
        assert!(text.contains("vitalsql_query_commit_duration_seconds_bucket{query=\"a\",le=\"+Inf\"} 1"), "{text}");
        assert!(text.contains("vitalsql_query_commit_duration_seconds_sum{query=\"a\"} 0.002"), "{text}");
        metrics.operator_rows_in.tell([(["b", "1-window"], 2.0)].into_iter());
        metrics.query_commit_seconds.durations::<1>(std::iter::empty());
        let text = metrics.render();
        assert!(!text.contains("query=\"a\""), "{text}");
        assert!(text.contains("vitalsql_operator_rows_in_total{operator=\"1-window\",query=\"b\"} 2"), "{text}");
    }

    #[test]
    fn a_counter_kept_elsewhere_is_brought_over_and_never_goes_back() {
        let metrics = Metrics::new();
        raise(&metrics.log_groups, 5);
        raise(&metrics.log_groups, 4);
        assert_eq!(metrics.log_groups.get(), 5);
    }
}
