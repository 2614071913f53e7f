//! `vitalsql check`: statements against a catalogue in memory, planned and never run.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::RuleFactory;
use super::changing::{check_readers, check_reads, check_upserts};
use super::statements::{check_kept, derived_sink};
use crate::sql::catalog::{Catalog, Change, Existing};
use crate::sql::error::{Code, SqlError};
use crate::sql::lower::{Purpose, QueryPlan, Source, plan};
use crate::sql::parse::parse_script;
use crate::sql::statement::{Parsed, Select, Statement};
use crate::time::Timestamp;

/// How many partitions a topic is taken to have; more than one, so that keys matter.
const PARTITIONS: i32 = 4;

/// Checks scripts, each against what the ones before it have made.
pub struct Checker {
    catalog: Catalog,
    rules: Box<dyn RuleFactory>,
}

impl Checker {
    /// A checker that knows nothing yet.
    #[must_use]
    pub fn new(rules: Box<dyn RuleFactory>) -> Self {
        Self { catalog: Catalog::new(), rules }
    }

    /// Checks a script; answers how many statements it has.
    pub fn check(&mut self, text: &str) -> Result<usize, SqlError> {
        let statements = parse_script(text)?;
        for parsed in &statements {
            self.statement(parsed).map_err(|e| parsed.locate(e))?;
        }
        Ok(statements.len())
    }

    fn statement(&mut self, parsed: &Parsed) -> Result<(), SqlError> {
        match &parsed.statement {
            Statement::CreateQuery(query) => {
                let planned = self.plan(&query.select, Purpose::ExactlyOnce)?;
                check_reads(&self.catalog, &query.name.text, &query.select)?;
                check_readers(&self.catalog, &query.name.text, &planned, &query.insert_into)?;
                if self.catalog.relation(&query.insert_into.text).is_none() {
                    for derived in parse_script(&derived_sink(query, &planned, PARTITIONS)?)? {
                        self.create(&derived)?;
                    }
                }
                if let Some(def) = self.catalog.relation(&query.insert_into.text) {
                    check_upserts(&planned, def, &query.insert_columns)?;
                }
                self.create(parsed)
            }
            Statement::CreateView(view) => {
                let planned = self.plan(&view.select, Purpose::ExactlyOnce)?;
                check_reads(&self.catalog, &view.name.text, &view.select)?;
                check_readers(&self.catalog, &view.name.text, &planned, &view.name)?;
                check_kept(&planned, &planned.schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>())?;
                let change = self.catalog.create(parsed, Existing::Replace, Timestamp(0))?;
                let (Change::Create(entry) | Change::Replace { new: entry, .. }) = &change else { return Ok(()) };
                let entry = Arc::new(entry.with_view(super::views::results_of(view, &planned, PARTITIONS))?);
                if let Some(def) = &entry.stream {
                    def.schema(1).map_err(|e| e.at(view.name.place))?;
                }
                self.catalog.apply(&Change::Create(entry));
                Ok(())
            }
            Statement::CreateAlert(alert) => {
                let planned = self.plan(&alert.select, Purpose::ExactlyOnce)?;
                planned.check_alert()?;
                check_reads(&self.catalog, &alert.name.text, &alert.select)?;
                self.rules.check(&planned.schema).map_err(|why| SqlError::new(Code::BadDefinition, why))?;
                self.create(parsed)
            }
            Statement::CreateStream(_) | Statement::CreateTable(_) => {
                self.create(parsed)?;
                // What is computed is typed now.
                if let Some((_, name)) = parsed.statement.creates()
                    && let Some(def) = self.catalog.relation(&name.text)
                {
                    def.source(PARTITIONS).shape()?;
                }
                Ok(())
            }
            Statement::Select(select) if select.emit == crate::sql::statement::Emit::Changes => {
                self.plan(select, Purpose::Watch).map(|_| ())
            }
            Statement::Select(select) => {
                for name in &self.catalog.expanded(select)?.reads {
                    self.catalog.relation_or_error(name)?;
                }
                Ok(())
            }
            Statement::CreatePlainView(view) => {
                for name in &self.catalog.expanded(&view.select)?.reads {
                    self.catalog.relation_or_error(name)?;
                }
                self.create(parsed)
            }
            Statement::Drop(drop) => {
                let change = self.catalog.drop_object(drop)?;
                self.catalog.apply(&change);
                Ok(())
            }
            Statement::CreateFunction(_) | Statement::CreateSavepoint(_) => self.create(parsed),
            Statement::CreateLike(like) => {
                Err(SqlError::new(Code::BadDefinition, "LIKE SAMPLE needs a node to look at the topic's records")
                    .at(like.topic_place)
                    .hint("run it once, and keep the statement that it prints"))
            }
            _ => Ok(()),
        }
    }

    fn create(&mut self, parsed: &Parsed) -> Result<(), SqlError> {
        let change = self.catalog.create(parsed, Existing::Replace, Timestamp(0))?;
        self.catalog.apply(&change);
        Ok(())
    }

    fn plan(&self, select: &Select, purpose: Purpose) -> Result<QueryPlan, SqlError> {
        let written = select;
        let select = &self.catalog.expanded(select)?;
        let mut sources: BTreeMap<String, Source> = BTreeMap::new();
        for name in &select.reads {
            sources.insert(name.text.clone(), self.catalog.relation_or_error(name)?.source(PARTITIONS));
        }
        let find = |name: &str| sources.get(name).cloned();
        let alone = |view: &Select| plan(view, &find, Purpose::Watch).err();
        plan(select, &find, purpose).map_err(|error| self.catalog.as_written(written, error, &alone))
    }
}
