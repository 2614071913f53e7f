//! Series that come as a whole: at a scrape somebody says all of them, and what is not said again is gone.
//!
//! For what is counted elsewhere and comes and goes, as queries do: the series of a dropped query disappear, and a counter
//! that begins anew at its source begins anew here, which is what Prometheus expects of one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::SECONDS;
use super::durations::DurationCounts;

/// One metric and its series as they were last told.
#[derive(Clone)]
pub struct Told {
    desc: Arc<Desc>,
    kind: MetricType,
    series: Arc<Mutex<Vec<Metric>>>,
}

impl Told {
    pub(super) fn new(kind: MetricType, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Self> {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())?;
        Ok(Self { desc: Arc::new(desc), kind, series: Arc::default() })
    }

    /// These are its series now, each with the values of its labels, in their order.
    pub fn tell<'a, const N: usize>(&self, series: impl Iterator<Item = ([&'a str; N], f64)>) {
        let one = |(labels, value): ([&str; N], f64)| {
            let mut metric = self.labelled(&labels);
            if self.kind == MetricType::COUNTER {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            metric
        };
        *self.series.lock() = series.map(one).collect();
    }

    /// The same of a histogram.
    pub fn durations<'a, const N: usize>(&self, series: impl Iterator<Item = ([&'a str; N], DurationCounts)>) {
        let one = |(labels, counts): ([&str; N], DurationCounts)| {
            let mut metric = self.labelled(&labels);
            let mut below = 0;
            let bucket = |(bound, count): (&f64, &u64)| {
                below += count;
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(below);
                bucket
            };
            let buckets = SECONDS.iter().zip(&counts.buckets).map(bucket).collect();
            let mut histogram = Histogram::default();
            histogram.set_bucket(buckets);
            histogram.set_sample_count(counts.count());
            histogram.set_sample_sum(counts.seconds);
            metric.set_histogram(histogram);
            metric
        };
        *self.series.lock() = series.map(one).collect();
    }

    fn labelled(&self, values: &[&str]) -> Metric {
        assert_eq!(values.len(), self.desc.variable_labels.len(), "{} has other labels", self.desc.fq_name);
        let pair = |(name, value): (&String, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut labels: Vec<LabelPair> = self.desc.variable_labels.iter().zip(values).map(pair).collect();
        labels.sort_by(|a, b| a.name().cmp(b.name()));
        Metric::from_label(labels)
    }
}

impl Collector for Told {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(self.kind);
        family.set_metric(self.series.lock().clone());
        vec![family]
    }
}
