//! The alarm desk: rules, the life of an alert, who is told.
//!
//! A rule is an operator in its own task, so that its state, the alert record and the position in the
//! input are one commit. The desk and the notifier are readers of topic `alerts`, like anybody else.

mod desk;
mod life;
mod notify;
mod record;
mod rule;
mod rules;
#[cfg(test)]
mod tests;

pub use desk::{Desk, DeskAlert};
pub use life::{Acknowledgement, Evidence, EvidenceList, Life, Open, Phase, Priority, Reading, Stepped, Terms, Told};
pub use notify::{Notifier, NotifyStats, Target, Targets};
pub use record::{ALERTS_TOPIC, AlertRecord, AlertSink, AlertState, EvidenceRecord, NOTICE, RESERVED, alert_id};
pub use rule::{AcknowledgeCommand, Rule, RuleOperator, StepOrder, check_columns};
pub use rules::Rules;
