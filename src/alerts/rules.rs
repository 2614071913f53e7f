//! The desk's side of the engine's seam: rules made from what CREATE ALERT states.

use arrow::datatypes::SchemaRef;

use super::life::{Priority, Terms};
use super::record::{ALERTS_TOPIC, AlertSink};
use super::rule::{Rule, RuleOperator, StepOrder, check_columns};
use crate::record::TopicName;
use crate::sql::{AlertOrder, AlertPriority, RuleFactory, RuleSpec};
use crate::stream::{Operator, Sink, StreamError};

/// Makes the rules of a node whose alerts topic has so many partitions.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Partitions of topic `alerts`.
    pub partitions: i32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { partitions: 1 }
    }
}

impl RuleFactory for Rules {
    fn check(&self, input: &SchemaRef) -> Result<(), String> {
        check_columns(input)
    }

    fn operator(&self, rule: &RuleSpec, input: &SchemaRef) -> Result<Box<dyn Operator>, StreamError> {
        let options = &rule.options;
        let millis = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        let made = Rule {
            name: rule.name.clone(),
            version: rule.version,
            priority: match options.priority {
                AlertPriority::High => Priority::High,
                AlertPriority::Medium => Priority::Medium,
                AlertPriority::Low => Priority::Low,
            },
            terms: Terms {
                hold_ms: millis(options.hold),
                clear_hold_ms: millis(options.clear_hold),
                max_gap_ms: millis(options.max_gap),
                latch: options.latch,
            },
            order: match options.order {
                AlertOrder::Arrival => StepOrder::Arrival,
                AlertOrder::Watermark => StepOrder::Watermark,
            },
            notify: options.notify.clone(),
        };
        Ok(Box::new(RuleOperator::new(made, input)?))
    }

    fn sink(&self, rule: &RuleSpec) -> Box<dyn Sink> {
        let max_age = i64::try_from(rule.options.notify_max_age.as_millis()).unwrap_or(i64::MAX);
        Box::new(AlertSink::new(self.topic(), self.partitions, max_age))
    }

    fn topic(&self) -> TopicName {
        TopicName::new(ALERTS_TOPIC).expect("a constant name")
    }
}
