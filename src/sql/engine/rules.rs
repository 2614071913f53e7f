//! How the engine gets its rules: a seam to the alarm desk, which stands above this room.

use arrow::datatypes::SchemaRef;

use crate::record::TopicName;
use crate::sql::options::AlertOptions;
use crate::stream::{Operator, Sink, StreamError};

/// An alert, as CREATE ALERT states it.
#[derive(Clone, Debug)]
pub struct RuleSpec {
    /// Its name.
    pub name: String,
    /// Counts up with each CREATE OR REPLACE.
    pub version: u64,
    /// What stood in WITH.
    pub options: AlertOptions,
}

/// Makes rules. Implemented by `alerts`, handed in by `node`.
pub trait RuleFactory: Send + Sync {
    /// What is wrong with the columns of a rule's SELECT.
    fn check(&self, input: &SchemaRef) -> Result<(), String>;
    /// The operator of a rule over rows of `input`.
    fn operator(&self, rule: &RuleSpec, input: &SchemaRef) -> Result<Box<dyn Operator>, StreamError>;
    /// What writes a rule's records.
    fn sink(&self, rule: &RuleSpec) -> Box<dyn Sink>;
    /// The topic that the records go to.
    fn topic(&self) -> TopicName;
}
