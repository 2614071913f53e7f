//! Materialized views: queries that keep a topic of their own up to date, which is read under the view's name.
//!
//! Where the results change, the topic is a compacted one and holds the latest row of each key; else it holds every row, as a stream's
//! does. Always: nobody but the view writes its topic. What a view's results are is found when it is created, and kept with it: the
//! statement alone does not say it. Called where statements are run.

use std::sync::Arc;

use super::changing::{check_readers, check_reads};
use super::delivery::check_delivery;
use super::statements::{check_kept, derived};
use super::{Engine, Outcome, storage};
use crate::record::{PartitionId, TopicPartition};
use crate::sql::catalog::{Catalog, Change, Entry, Existing, StreamDef, ViewDef};
use crate::sql::error::{Code, SqlError};
use crate::sql::lower::{Purpose, QueryPlan};
use crate::sql::statement::{CreateQuery, Name, Parsed};

impl Engine {
    pub(super) async fn create_view(
        self: &Arc<Self>,
        view: &CreateQuery,
        parsed: &Parsed,
        existing: Existing,
    ) -> Result<Outcome, SqlError> {
        let change = self.catalog.read().create(parsed, existing, self.clock.now())?;
        let (old, new) = match &change {
            Change::Create(entry) => (None, entry),
            Change::Replace { old, new } => (Some(Arc::clone(old)), new),
            other => return Ok(Outcome::Done(other.message())),
        };
        // Everything that can be wrong is found before anything is written.
        let planned = self.planned(&view.select, Purpose::ExactlyOnce).await?;
        {
            let catalog = self.catalog.read();
            check_reads(&catalog, &view.name.text, &view.select)?;
            check_readers(&catalog, &view.name.text, &planned.plan, &view.name)?;
            check_delivery(&new.statement, &planned.plan)?;
            if let Some(old) = &old {
                check_unused(&catalog, old, &view.name)?;
            }
        }
        check_kept(&planned.plan, &names_of(&planned.plan))?;
        let entry = Arc::new(new.with_view(results_of(view, &planned.plan, planned.partitions()))?);
        let def = Arc::clone(entry.stream.as_ref().ok_or_else(|| SqlError::new(Code::Internal, "a view without results"))?);
        def.schema(1).map_err(|e| e.at(view.name.place))?;
        def.source(1).shape()?;
        match &old {
            Some(old) => {
                self.retire(old).await?;
                self.clear(old).await?;
            }
            None => {
                self.clear_leavings(&entry).await?;
                self.check_free(&def, &view.name).await?;
            }
        }
        self.topic_of(&def).await?;
        let change = match old {
            Some(old) => Change::Replace { old, new: Arc::clone(&entry) },
            None => Change::Create(Arc::clone(&entry)),
        };
        if let Some(record) = change.record() {
            self.record(&record.key, record.value.as_deref()).await?;
        }
        self.catalog.write().apply(&change);
        self.views_changed.send_replace(());
        self.launch_as(&entry, Some(planned)).await?;
        self.await_opened(&entry.name).await;
        Ok(Outcome::Done(change.message()))
    }

    /// Nobody runs the view any more. Where other processes may run it, it is dropped before they are to see its new version.
    async fn retire(&self, old: &Arc<Entry>) -> Result<(), SqlError> {
        if self.bus.company().is_some()
            && let Some(record) = Change::Drop(Arc::clone(old)).record()
        {
            self.record(&record.key, record.value.as_deref()).await?;
        }
        self.halt(&old.name).await;
        self.all_have_followed().await
    }

    /// What a view has written and where it stood: it begins again, or is gone.
    pub(super) async fn clear(&self, view: &Entry) -> Result<(), SqlError> {
        self.forget_checkpoints(view).await?;
        self.forget_feeds(&view.name);
        if let Some(def) = &view.stream {
            self.bus.delete_topic(&def.topic).await.map_err(|e| storage(&e))?;
        }
        Ok(())
    }

    /// A view does not mix its rows with what others have written.
    async fn check_free(&self, def: &StreamDef, name: &Name) -> Result<(), SqlError> {
        let partitions = self.bus.partitions(&def.topic).await.map_err(|e| storage(&e))?;
        for partition in 0..partitions.unwrap_or(0) {
            let bounds = self.bus.bounds(&TopicPartition::new(def.topic.clone(), PartitionId(partition))).await.map_err(|e| storage(&e))?;
            if bounds.start < bounds.end {
                return Err(SqlError::new(Code::NameTaken, format!("there is a topic \"{}\" already, and it holds records", def.topic))
                    .at(name.place)
                    .hint("a view keeps its rows in a topic that is called as it is: choose another name, or delete the topic"));
            }
        }
        Ok(())
    }
}

/// A view is made anew from the beginning: whoever has read some of it would read it twice.
fn check_unused(catalog: &Catalog, old: &Entry, name: &Name) -> Result<(), SqlError> {
    let users: Vec<String> = catalog.users(old).iter().map(|user| format!("{} \"{}\"", user.kind.word(), user.name)).collect();
    if users.is_empty() {
        return Ok(());
    }
    let message = format!("view \"{}\" is read by {}, and its rows are made anew when it is replaced", old.name, users.join(", "));
    Err(SqlError::new(Code::InUse, message).at(name.place).hint("drop what reads it first, or create the new one under another name"))
}

fn names_of(plan: &QueryPlan) -> Vec<String> {
    plan.schema.fields().iter().map(|field| field.name().clone()).collect()
}

/// What a view's results are.
pub(super) fn results_of(view: &CreateQuery, plan: &QueryPlan, partitions: i32) -> ViewDef {
    let names = names_of(plan);
    // Rows that change are told apart by their records' keys, whatever the columns hold.
    let results = derived(&view.name.text, plan, &names, partitions, !plan.is_changing());
    ViewDef { results, key: plan.is_changing().then(|| plan.key_columns.clone()) }
}
