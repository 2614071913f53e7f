//! What queries and their operators have done, alerts, wards and the broker, brought over to the metrics at a scrape.
//!
//! Always: every series is told anew, so that those of a dropped query are gone; and labels are names of queries, and places
//! and kinds of operators, of which a query has at most [`MOST_OPERATORS`] series.

use std::sync::atomic::Ordering;

use super::Inner;
use crate::metrics::raise;
use crate::sql::QueryStatus;
use crate::stream::OperatorFigures;
use crate::time::Timestamp;

/// What stands further behind in a query's chain shares one series.
const MOST_OPERATORS: usize = 64;
/// The name of that series.
const REST: &str = "rest";

impl Inner {
    /// Brings everything over that is not counted there as it happens.
    pub(super) async fn bring_over(&self) {
        let m = &self.metrics;
        let now = self.clock.now();
        self.tell_queries(now).await;
        for (stream, bad) in self.engine.bad_records() {
            raise(&m.dead_letters.with_label_values(&[stream.as_str()]), bad);
        }
        m.alerts_active.reset();
        for alert in self.desk.open() {
            m.alerts_active.with_label_values(&[alert.rule.as_str(), alert.priority.as_str(), alert.state.as_str()]).inc();
        }
        for (target, stats) in &self.notify {
            for (outcome, count) in
                [("delivered", &stats.delivered), ("failed_attempt", &stats.failed_attempts), ("given_up", &stats.given_up)]
            {
                raise(&m.notifications.with_label_values(&[target.as_str(), outcome]), count.load(Ordering::Relaxed));
            }
        }
        for (ward, numbers) in self.board.wards(now) {
            let label = [ward.as_str()];
            m.ward_beds.with_label_values(&label).set(numbers.beds);
            m.ward_beds_silent.with_label_values(&label).set(numbers.silent);
            m.ward_beds_high_risk.with_label_values(&label).set(numbers.high_risk);
            for (vital, (sum, count)) in numbers.vitals {
                // A mean over a handful would be somebody's value.
                if count >= 5 {
                    m.ward_vital_mean.with_label_values(&[ward.as_str(), vital]).set(sum / count as f64);
                }
            }
        }
        self.broker.export(m);
    }

    /// Brings over the figures of all queries.
    async fn tell_queries(&self, now: Timestamp) {
        let m = &self.metrics;
        let queries = self.engine.statuses().await;
        let each =
            |value: &dyn Fn(&QueryStatus) -> f64| queries.iter().map(|q| ([q.name.as_str()], value(q))).collect::<Vec<_>>().into_iter();
        let behind = |at: Timestamp| now.since(at) as f64 / 1000.0;
        m.query_rows_in.tell(each(&|q| q.counts.rows_in as f64));
        m.query_rows_out.tell(each(&|q| q.counts.rows_out as f64));
        m.query_late_rows.tell(each(&|q| q.counts.late as f64));
        m.query_failed_rows.tell(each(&|q| q.counts.failed as f64));
        m.query_ahead_rows.tell(each(&|q| q.counts.ahead as f64));
        m.query_commits.tell(each(&|q| q.counts.commits as f64));
        m.query_commit_seconds.durations(queries.iter().map(|q| ([q.name.as_str()], q.commit_times)));
        m.query_snapshots.tell(each(&|q| q.counts.snapshots as f64));
        m.query_state_bytes.tell(each(&|q| q.counts.state_bytes as f64));
        m.query_spilled_bytes.tell(each(&|q| q.counts.spilled_bytes as f64));
        let capped = queries.iter().filter_map(|q| Some(([q.name.as_str()], q.state_max? as f64)));
        m.query_state_max_bytes.tell(capped);
        m.query_input_lag.tell(queries.iter().filter_map(|q| Some(([q.name.as_str()], q.lag? as f64))));
        m.query_watermark_gap_seconds.tell(queries.iter().filter_map(|q| Some(([q.name.as_str()], behind(q.watermark?)))));
        m.query_state.tell(queries.iter().map(|q| ([q.name.as_str(), q.state.as_str()], 1.0)));
        m.query_tasks.tell(each(&|q| f64::from(q.time.tasks)));
        m.query_busy_seconds.tell(each(&|q| q.time.busy));
        m.query_idle_seconds.tell(each(&|q| q.time.idle));
        m.query_backpressured_seconds.tell(each(&|q| q.time.backpressured));

        let operators: Vec<(&str, OperatorFigures)> =
            queries.iter().flat_map(|q| bounded(&q.operators).into_iter().map(|operator| (q.name.as_str(), operator))).collect();
        let each = |value: &dyn Fn(&OperatorFigures) -> Option<f64>| {
            operators.iter().filter_map(|(query, of)| Some(([*query, of.name.as_str()], value(of)?))).collect::<Vec<_>>().into_iter()
        };
        m.operator_rows_in.tell(each(&|of| Some(of.rows_in as f64)));
        m.operator_rows_out.tell(each(&|of| Some(of.rows_out as f64)));
        m.operator_late_rows.tell(each(&|of| Some(of.late as f64)));
        m.operator_failed_rows.tell(each(&|of| Some(of.failed as f64)));
        m.operator_busy_seconds.tell(each(&|of| Some(of.busy.as_secs_f64())));
        m.operator_state_bytes.tell(each(&|of| Some(of.state_bytes as f64)));
        m.operator_spilled_bytes.tell(each(&|of| Some(of.spilled_bytes as f64)));
        // A stream that has ended, as a replayed one does, has no time any more.
        let known = |at: Timestamp| (at < Timestamp::MAX).then(|| behind(at));
        m.operator_watermark_gap_seconds.tell(each(&|of| known(of.watermark?.0)));
        m.operator_watermark_gap_least_seconds.tell(each(&|of| known(of.watermark?.1)));
    }
}

/// The operators of a query, the last of very many added up.
fn bounded(operators: &[OperatorFigures]) -> Vec<OperatorFigures> {
    if operators.len() <= MOST_OPERATORS {
        return operators.to_vec();
    }
    let (shown, rest) = operators.split_at(MOST_OPERATORS - 1);
    let mut shown = shown.to_vec();
    let mut sum = OperatorFigures { name: REST.to_owned(), ..rest[0].clone() };
    rest[1..].iter().for_each(|of| sum.add(of));
    shown.push(sum);
    shown
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_query_of_very_many_operators_has_a_bounded_number_of_series_and_none_of_its_rows_is_left_out() {
        let one = |at: usize| OperatorFigures {
            name: format!("{at}-filter"),
            rows_in: 1,
            rows_out: 1,
            late: 0,
            failed: 0,
            busy: Duration::ZERO,
            busy_share: 0.0,
            state_bytes: 10,
            spilled_bytes: 0,
            most_bytes: 10,
            watermark: None,
        };
        let all: Vec<_> = (0..1000).map(one).collect();
        let shown = bounded(&all);
        assert_eq!((shown.len(), shown.iter().map(|of| of.rows_in).sum::<u64>()), (MOST_OPERATORS, 1000));
        assert_eq!((shown[0].name.as_str(), shown[MOST_OPERATORS - 1].name.as_str()), ("0-filter", "rest"));
        assert_eq!(bounded(&all[..MOST_OPERATORS]), all[..MOST_OPERATORS]);
    }
}
