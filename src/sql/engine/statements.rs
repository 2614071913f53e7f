//! One statement: what it changes, what it answers.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::changing::{check_readers, check_reads, check_upserts};
use super::delivery::{self, check_delivery};
use super::launch::{Planned, PlannedInput, encoder, written_names};
use super::{Engine, Outcome, storage};
use crate::bus::{TaskId, TopicBatch, partition_for_key};
use crate::record::{BatchBuilder, PartitionId, TopicPartition};
use crate::sql::batch::{analyze_history, explain_history, insert_values, select_history};
use crate::sql::catalog::{Catalog, Change, Entry, Existing};
use crate::sql::error::{Code, SqlError};
use crate::sql::lower::{PlanInput, Purpose, QueryPlan};
use crate::sql::macros;
use crate::sql::parse::parse_statement;
use crate::sql::show::{TaskLine, derived_stream, describe_schema, describe_stream, lines, show_all, show_create};
use crate::sql::statement::{CreateQuery, DropObject, Emit, Explain, Insert, Kind, Name, Parsed, Select, Show, Statement};
use crate::sql::types::{not_kept, sql_type};
use crate::stream::{
    ChannelSink, Delivery, Feed, Following, Letters, Pace, Sink, SourceSpec, StartAt, StateBudget, Task, TaskSpec, TaskStats, TopicSink,
};

/// Batches that may wait for a slow reader.
pub(super) const BACKLOG: usize = 8;

impl Engine {
    pub(super) async fn statement(self: &Arc<Self>, parsed: &Parsed, existing: Existing) -> Result<Outcome, SqlError> {
        match &parsed.statement {
            Statement::CreateStream(_)
            | Statement::CreateTable(_)
            | Statement::CreateQuery(_)
            | Statement::CreateAlert(_)
            | Statement::CreatePlainView(_)
            | Statement::CreateFunction(_) => {
                let _one = self.exclusive().await?;
                self.create(parsed, existing).await
            }
            Statement::CreateLike(like) => {
                let _one = self.exclusive().await?;
                self.create_like(like, existing).await
            }
            Statement::CreateView(view) => {
                let _one = self.exclusive().await?;
                self.create_view(view, parsed, existing).await
            }
            Statement::CreateSavepoint(savepoint) => {
                let _one = self.exclusive().await?;
                self.create_savepoint(savepoint, parsed, existing).await
            }
            Statement::Restore(restore) => {
                let _one = self.exclusive().await?;
                self.restore(restore).await
            }
            Statement::DescribeSavepoint(name) => self.describe_savepoint(name).await,
            Statement::Subscribe(subscribe) => self.subscribe(subscribe).await,
            Statement::Drop(drop) if drop.kind == Kind::Savepoint => {
                let _one = self.exclusive().await?;
                self.drop_savepoint(drop).await
            }
            Statement::Drop(drop) => {
                let _one = self.exclusive().await?;
                self.drop_object(drop).await
            }
            Statement::Pause(kind, name) => {
                let _one = self.exclusive().await?;
                self.pause(*kind, name, true).await
            }
            Statement::Resume(kind, name) => {
                let _one = self.exclusive().await?;
                self.pause(*kind, name, false).await
            }
            Statement::Select(select) if select.emit == Emit::Changes => self.watch(select).await,
            Statement::Select(select) => self.history(select).await,
            Statement::Insert(insert) => self.insert(insert).await,
            Statement::Show(Show::All(kind)) => self.show(*kind).await,
            Statement::Show(Show::Create { kind, name }) => {
                let catalog = self.catalog.read();
                let entry = match kind {
                    Some(Kind::Savepoint) => catalog.savepoint(name)?.0,
                    kind => catalog.find_kind(*kind, name)?,
                };
                Ok(rows(lines("statement", &show_create(entry))))
            }
            Statement::Describe(name) => self.describe(name).await,
            Statement::Explain(explain) => self.explain(explain).await,
            Statement::WhyQuery(name) => self.why(name).await,
        }
    }

    pub(super) async fn create(self: &Arc<Self>, parsed: &Parsed, existing: Existing) -> Result<Outcome, SqlError> {
        // A plan is made once: what is looked up for it does not change before the query starts.
        let mut known = match &parsed.statement {
            Statement::CreateQuery(query) => self.make_sink(query, parsed, existing).await?,
            _ => None,
        };
        let change = self.catalog.read().create(parsed, existing, self.clock.now())?;
        let (change, begins) = self.with_origin(change)?;
        let entry = match &change {
            Change::Create(entry) | Change::Replace { new: entry, .. } => Arc::clone(entry),
            other => return Ok(Outcome::Done(other.message())),
        };
        if matches!(change, Change::Create(_)) {
            self.clear_leavings(&entry).await?;
        }
        // What holds results that change.
        let mut updates = None;
        // Everything that can be wrong is found before anything is written.
        match &*entry.statement {
            Statement::CreateQuery(q) => {
                let planned = match known.take() {
                    Some(planned) => planned,
                    None => self.planned(&q.select, Purpose::ExactlyOnce).await?,
                };
                {
                    let catalog = self.catalog.read();
                    check_upserts(&planned.plan, catalog.relation_or_error(&q.insert_into)?, &q.insert_columns)?;
                    check_reads(&catalog, &entry.name, &q.select)?;
                    check_readers(&catalog, &entry.name, &planned.plan, &q.insert_into)?;
                }
                updates = planned.plan.is_changing().then(|| q.insert_into.text.clone());
                check_delivery(&entry.statement, &planned.plan)?;
                self.check_sink(q, &planned).await?;
                self.check_tasks(&entry, &planned).await?;
                if begins {
                    self.check_origin(&entry, &planned).await?;
                }
                known = Some(planned);
            }
            Statement::CreateAlert(a) => {
                let planned = self.planned(&a.select, Purpose::ExactlyOnce).await?;
                planned.plan.check_alert()?;
                check_delivery(&entry.statement, &planned.plan)?;
                check_reads(&self.catalog.read(), &entry.name, &a.select)?;
                self.rules.check(&planned.plan.schema).map_err(|why| SqlError::new(Code::BadDefinition, why))?;
                self.check_tasks(&entry, &planned).await?;
                if begins {
                    self.check_origin(&entry, &planned).await?;
                }
                known = Some(planned);
            }
            Statement::CreatePlainView(view) => {
                let schema = self.columns_of(&view.select).await?;
                if !view.columns.is_empty() && view.columns.len() != schema.fields().len() {
                    let message =
                        format!("view \"{}\" names {} columns, and its query has {}", view.name, view.columns.len(), schema.fields().len());
                    return Err(SqlError::new(Code::BadDefinition, message).at(view.columns[0].place));
                }
            }
            _ => {
                if let Some(def) = &entry.stream {
                    let partitions = self.topic_of(def).await?;
                    def.source(partitions).shape()?;
                }
            }
        }
        if let Some(record) = change.record() {
            self.record(&record.key, record.value.as_deref()).await?;
        }
        self.catalog.write().apply(&change);
        let replaced = matches!(change, Change::Replace { .. });
        if matches!(entry.kind, Kind::Query | Kind::Alert) {
            if replaced {
                self.halt(&entry.name).await;
            }
            self.launch_as(&entry, known).await?;
            self.await_opened(&entry.name).await;
            if begins {
                return Ok(Outcome::Done(format!("{}{}", change.message(), self.begins_with(&entry))));
            }
            if replaced {
                return Ok(Outcome::Done(format!("{}{}", change.message(), self.goes_on_with(&entry.name, updates.as_deref()))));
            }
        } else if replaced {
            let failed = self.restart_users(&entry).await;
            if !failed.is_empty() {
                return Ok(Outcome::Done(format!("{}; these do not start with it: {}", change.message(), failed.join(", "))));
            }
        }
        Ok(Outcome::Done(change.message()))
    }

    /// A stream or function has changed: whoever reads, writes or calls it starts again with the new one. Answers who cannot, which is shown as
    /// failed from then on.
    pub(super) async fn restart_users(self: &Arc<Self>, entry: &Arc<Entry>) -> Vec<String> {
        let users: Vec<Arc<Entry>> = {
            let catalog = self.catalog.read();
            catalog.running_users(entry).into_iter().cloned().collect()
        };
        for user in &users {
            self.halt(&user.name).await;
        }
        if entry.stream.is_some() {
            self.forget_feeds(&entry.name);
        }
        let mut failed = Vec::new();
        for user in &users {
            if let Err(error) = self.launch(user).await {
                failed.push(format!("{} \"{}\" ({})", user.kind.word(), user.name, error.message));
            }
        }
        failed
    }

    /// `INSERT INTO` a name that is not there makes a stream of it. Answers the plan, where it had to be made for that.
    async fn make_sink(self: &Arc<Self>, query: &CreateQuery, parsed: &Parsed, existing: Existing) -> Result<Option<Planned>, SqlError> {
        if self.catalog.read().relation(&query.insert_into.text).is_some() {
            return Ok(None);
        }
        let planned = self.planned(&query.select, Purpose::ExactlyOnce).await?;
        // The query itself must be one that would be taken, or the stream would be left behind.
        check_reads(&self.catalog.read(), &query.name.text, &query.select)?;
        check_readers(&self.catalog.read(), &query.name.text, &planned.plan, &query.insert_into)?;
        check_delivery(&parsed.statement, &planned.plan)?;
        self.phases(&parsed.statement, &planned)?;
        let made = parse_statement(&derived_sink(query, &planned.plan, planned.partitions())?)?;
        let change = self.catalog.read().create(&made, Existing::AsWritten, self.clock.now())?;
        let tried = {
            let mut tried = self.catalog.read().clone();
            tried.apply(&change);
            tried.create(parsed, existing, self.clock.now())?
        };
        if let (Change::Create(entry) | Change::Replace { new: entry, .. }, true) = self.with_origin(tried)? {
            self.check_origin(&entry, &planned).await?;
        }
        if let Change::Create(entry) = &change
            && let Some(def) = &entry.stream
        {
            self.topic_of(def).await?;
        }
        if let Some(record) = change.record() {
            self.record(&record.key, record.value.as_deref()).await?;
        }
        self.catalog.write().apply(&change);
        Ok(Some(planned))
    }

    async fn drop_object(self: &Arc<Self>, drop: &DropObject) -> Result<Outcome, SqlError> {
        let change = self.catalog.read().drop_object(drop)?;
        if let Change::Drop(entry) = &change {
            if let Some(record) = change.record() {
                self.record(&record.key, record.value.as_deref()).await?;
            }
            self.catalog.write().apply(&change);
            if entry.is_task() {
                self.halt(&entry.name).await;
                self.all_have_followed().await?;
            }
            match entry.kind {
                Kind::View => {
                    self.views_changed.send_replace(());
                    self.clear(entry).await?;
                }
                Kind::Query | Kind::Alert => self.forget_checkpoints(entry).await?,
                Kind::Function | Kind::PlainView | Kind::Savepoint => {}
                Kind::Stream | Kind::Table => self.forget_feeds(&entry.name),
            }
        }
        Ok(Outcome::Done(change.message()))
    }

    async fn pause(self: &Arc<Self>, kind: Kind, name: &Name, paused: bool) -> Result<Outcome, SqlError> {
        let change = self.catalog.read().pause(kind, name, paused)?;
        if let Change::Unchanged(entry) = &change
            && !paused
            && self.has_failed(&entry.name)
        {
            // Whatever it failed of may have been mended.
            self.halt(&entry.name).await;
            self.launch(entry).await?;
            self.await_opened(&entry.name).await;
            return Ok(Outcome::Done(format!("{} \"{}\" is tried again", entry.kind.word(), entry.name)));
        }
        if let Change::Pause(entry) = &change {
            self.start_again(&change, entry).await?;
        }
        Ok(Outcome::Done(change.message()))
    }

    /// Writes a change down and lets what it changes go on as it says.
    pub(super) async fn start_again(self: &Arc<Self>, change: &Change, entry: &Arc<Entry>) -> Result<(), SqlError> {
        if let Some(record) = change.record() {
            self.record(&record.key, record.value.as_deref()).await?;
        }
        self.catalog.write().apply(change);
        self.halt(&entry.name).await;
        self.launch(entry).await?;
        self.await_opened(&entry.name).await;
        Ok(())
    }

    async fn history(self: &Arc<Self>, select: &Select) -> Result<Outcome, SqlError> {
        let catalog = self.catalog.read().clone();
        let written = select;
        let select = &self.readable(&catalog, written).await?;
        let history = select_history(select, &catalog, &self.bus, self.clock.now(), &self.options.workspace).await;
        let history = history.map_err(|error| catalog.as_written(written, error, &|_| None))?;
        let (tx, rows_rx) = mpsc::channel(BACKLOG);
        let mut found = history.rows;
        self.runtime.spawn(async move {
            while let Some(batch) = found.next().await {
                let last = batch.is_err();
                if tx.send(batch).await.is_err() || last {
                    break;
                }
            }
        });
        Ok(Outcome::Stream { schema: history.schema, rows_rx })
    }

    /// A SELECT over stored data as it is planned, the topics of all it reads there.
    async fn readable(&self, catalog: &Catalog, select: &Select) -> Result<Select, SqlError> {
        let select = catalog.expanded(select)?;
        for name in &select.reads {
            let def = Arc::clone(catalog.relation_or_error(name)?);
            self.topic_of(&def).await?;
        }
        Ok(select)
    }

    /// The columns of a SELECT, over what is stored or, where that has no answer, as a stream.
    async fn columns_of(&self, select: &Select) -> Result<Schema, SqlError> {
        let catalog = self.catalog.read().clone();
        let expanded = self.readable(&catalog, select).await?;
        match select_history(&expanded, &catalog, &self.bus, self.clock.now(), &self.options.workspace).await {
            Ok(history) => Ok(history.schema.as_ref().clone()),
            Err(error) => match self.planned(select, Purpose::Watch).await {
                Ok(planned) => Ok(planned.plan.schema.as_ref().clone()),
                Err(_) => Err(catalog.as_written(select, error, &|_| None)),
            },
        }
    }

    /// `EMIT CHANGES`: tasks that leave no trace, as long as somebody reads.
    async fn watch(self: &Arc<Self>, select: &Select) -> Result<Outcome, SqlError> {
        let planned = self.planned(select, Purpose::Watch).await?;
        let scopes = self.cut(&planned)?;
        let Planned { plan, inputs } = planned;
        let budget = StateBudget::spilling("EMIT CHANGES", self.options.state_max, self.options.spilling.clone());
        let (batches_tx, mut batches) = mpsc::channel::<RecordBatch>(BACKLOG);
        let mut tasks = Vec::new();
        for (index, (scope, feeds)) in scopes.into_iter().enumerate() {
            let sources = inputs.iter().zip(&plan.inputs).zip(feeds).map(|((input, of), inputs)| watched(input, of, inputs));
            let spec = TaskSpec {
                id: TaskId { owner: format!("watch.{}", uuid::Uuid::new_v4().simple()).into(), index: index as i32 },
                sources: sources.collect(),
                scope,
                timeout: plan.timeout,
                every: plan.every,
                fingerprint: String::new(),
                // Its reader may be slow.
                pace: Pace { commit_interval: self.options.commit_interval, following: Following::Alone, ..Pace::default() },
                delivery: Delivery::ExactlyOnce,
                budget: Arc::clone(&budget),
                origin: None,
                phase: None,
            };
            let sink: Box<dyn Sink> = Box::new(ChannelSink::new(batches_tx.clone()));
            let task = Task::watch(spec, plan.chain(scope)?, sink, Arc::clone(&self.bus), self.clock, Arc::new(TaskStats::default()));
            tasks.push(task.await.map_err(|e| SqlError::new(Code::Execution, e.to_string()))?);
        }
        drop(batches_tx);
        let (tx, rows_rx) = mpsc::channel(BACKLOG);
        for task in tasks {
            let tx = tx.clone();
            self.runtime.spawn(async move {
                // Dropping the control would stop the task: it is held as long as somebody reads.
                let (control, told) = mpsc::channel(1);
                tokio::select! {
                    ended = task.run(told) => if let Err(error) = ended {
                        // Where nobody reads any more there is nobody to tell.
                        let _ = tx.send(Err(SqlError::new(Code::Execution, error.to_string()))).await;
                    },
                    () = tx.closed() => {}
                }
                drop(control);
            });
        }
        self.runtime.spawn(async move {
            while let Some(batch) = batches.recv().await {
                if tx.send(Ok(batch)).await.is_err() {
                    break;
                }
            }
        });
        Ok(Outcome::Stream { schema: plan.watched_schema(), rows_rx })
    }

    async fn insert(&self, insert: &Insert) -> Result<Outcome, SqlError> {
        let def = Arc::clone(self.catalog.read().relation_or_error(&insert.into)?);
        if self.catalog.read().is_of_a_view(&def.topic) {
            let why = format!("\"{}\" is a view's, which its own SELECT alone writes", insert.into);
            return Err(SqlError::new(Code::BadDefinition, why).at(insert.into.place).hint("insert into what the view reads"));
        }
        if def.topic.is_written_by_node_alone() {
            let why = format!("topic \"{}\" is written by the node alone", def.topic);
            return Err(SqlError::new(Code::BadDefinition, why).at(insert.into.place));
        }
        let partitions = self.topic_of(&def).await?;
        let schema = def.written();
        let mut values = insert.values.clone();
        macros::expand(&mut values, &*self.catalog.read())?;
        let batch = insert_values(&values, &schema, &insert.columns, self.clock.now()).await?;
        let encoded = encoder(&def, partitions, &schema).await?.encode(&batch);
        let keys: Vec<usize> = def.key_columns().iter().filter_map(|k| schema.index_of(k).ok()).collect();
        let keys = TopicSink::keys_of(&batch, &keys).map_err(|e| SqlError::new(Code::Execution, e.to_string()))?;
        let now = self.clock.now();
        let mut outputs: std::collections::BTreeMap<PartitionId, BatchBuilder> = std::collections::BTreeMap::new();
        for (row, key) in keys.iter().enumerate() {
            let value = encoded.row(row).map_err(|why| SqlError::new(Code::Execution, format!("row {}: {why}", row + 1)))?;
            let partition = key.as_deref().map_or(PartitionId(row as i32 % partitions.max(1)), |k| partition_for_key(k, partitions));
            outputs.entry(partition).or_default().push(now.0, key.as_deref(), Some(value), &[]);
        }
        let outputs = outputs.into_iter().map(|(p, records)| TopicBatch { to: TopicPartition::new(def.topic.clone(), p), records });
        self.bus.append(outputs.collect()).await.map_err(|e| storage(&e))?;
        Ok(Outcome::Done(format!("inserted {} rows into \"{}\"", batch.num_rows(), def.name)))
    }

    async fn show(&self, kind: Kind) -> Result<Outcome, SqlError> {
        let statuses = self.statuses().await;
        let catalog = self.catalog.read();
        let shown = show_all(&catalog, kind, |name| {
            let Some(status) = statuses.iter().find(|s| s.name == name) else { return TaskLine::default() };
            TaskLine {
                state: status.shown_state(),
                rows_in: status.counts.rows_in,
                rows_out: status.counts.rows_out,
                late: status.counts.late,
                watermark: status.watermark,
                lag: status.lag,
                error: status.error.clone(),
            }
        });
        Ok(rows(shown))
    }

    async fn describe(&self, name: &Name) -> Result<Outcome, SqlError> {
        let entry = Arc::clone(self.catalog.read().find(name)?);
        if let Some(def) = &entry.stream {
            let partitions = self.topic_of(def).await?;
            let shape = def.source(partitions).shape()?;
            return Ok(rows(describe_stream(def, |column| shape.schema.field_with_name(column).ok().map(|f| f.data_type().clone()))));
        }
        if let Statement::CreatePlainView(view) = &*entry.statement {
            let mut schema = self.columns_of(&view.select).await?;
            if view.columns.len() == schema.fields().len() {
                let renamed = schema.fields().iter().zip(&view.columns).map(|(field, name)| field.as_ref().clone().with_name(&name.text));
                schema = Schema::new(renamed.collect::<Vec<_>>());
            }
            return Ok(rows(describe_schema(&schema)));
        }
        let select = select_of(&entry)?;
        let planned = self.planned(select, Purpose::ExactlyOnce).await?;
        Ok(rows(describe_schema(&planned.plan.schema)))
    }

    async fn explain(&self, explain: &Explain) -> Result<Outcome, SqlError> {
        let text = match explain {
            Explain::Select { analyze: true, select } => {
                let catalog = self.catalog.read().clone();
                let select = &self.readable(&catalog, select).await?;
                analyze_history(select, &catalog, &self.bus, self.clock.now(), &self.options.workspace).await?
            }
            Explain::Select { select, .. } => match self.planned(select, Purpose::Watch).await {
                Ok(planned) => planned.plan.explain(),
                // What cannot run over a stream is explained as what it is over stored data.
                Err(error) if select.emit == Emit::Changes => return Err(error),
                Err(_) => {
                    let catalog = self.catalog.read().clone();
                    explain_history(&catalog.expanded(select)?, &catalog, &self.bus, self.clock.now()).await?
                }
            },
            Explain::Query { analyze, name } => {
                let entry = self.task_named(name)?;
                let planned = self.planned(select_of(&entry)?, Purpose::ExactlyOnce).await?;
                let phases = self.phases_of(&entry, &planned).await?;
                let mut text = self.explain_tasks(&entry, &planned, phases.as_ref()).await?;
                text.push_str(&delivery::line(self.delivery(&entry, &planned.plan), &planned.plan, phases.is_some()));
                if let Some(status) = self.status_of(&entry.name).await {
                    text.push_str(&format!("sink     {}\nstate    {}\n", status.sink, status.state.as_str()));
                    if *analyze {
                        text.push_str(&super::why::figures(&status, self.clock.now()));
                    }
                }
                text
            }
        };
        Ok(rows(lines("plan", &text)))
    }

    /// The query, view or alert of a name; a stream may have the same one.
    fn task_named(&self, name: &Name) -> Result<Arc<Entry>, SqlError> {
        let catalog = self.catalog.read();
        let tasks = [Kind::Query, Kind::Alert, Kind::View];
        let found = tasks.into_iter().find_map(|kind| catalog.get(kind, &name.text));
        Ok(Arc::clone(found.map_or_else(|| catalog.find(name), Ok)?))
    }

    /// Why a query is silent: what it waits for, and what to do.
    async fn why(&self, name: &Name) -> Result<Outcome, SqlError> {
        let entry = self.task_named(name)?;
        let status = self.status_of(&entry.name).await;
        let Some(status) = status else {
            return Err(SqlError::new(Code::NoSuchName, format!("\"{}\" is not a query or alert", entry.name)));
        };
        let planned = self.planned(select_of(&entry)?, Purpose::ExactlyOnce).await?;
        Ok(rows(lines("why", &super::why::explain(&status, &planned.plan, self.clock.now()))))
    }
}

pub(super) fn select_of(entry: &Entry) -> Result<&Select, SqlError> {
    match &*entry.statement {
        Statement::CreateQuery(q) | Statement::CreateView(q) => Ok(&q.select),
        Statement::CreateAlert(a) => Ok(&a.select),
        _ => Err(SqlError::new(Code::NoSuchName, format!("\"{}\" is a {}, not a query or alert", entry.name, entry.kind.word()))),
    }
}

/// What somebody watches: from now on, a table from its beginning, and nothing is written.
pub(super) fn watched(input: &PlannedInput, of: &PlanInput, inputs: Vec<Arc<Feed>>) -> SourceSpec {
    let is_table = input.stream.kind == Kind::Table;
    SourceSpec {
        inputs,
        time: of.time.clone(),
        idle_timeout: input.stream.options.idle_timeout,
        start: if is_table { StartAt::Earliest } else { StartAt::Latest },
        is_table,
        letters: Letters { query: String::new(), source: input.stream.topic.clone(), late: None, failed: None },
    }
}

pub(super) fn rows(batch: RecordBatch) -> Outcome {
    Outcome::Rows { schema: batch.schema(), batches: vec![batch] }
}

/// The CREATE STREAM of a stream that a query makes by writing to it.
pub(super) fn derived_sink(query: &CreateQuery, plan: &QueryPlan, partitions: i32) -> Result<String, SqlError> {
    let names = written_names(plan, &query.insert_columns)?;
    check_kept(plan, &names)?;
    Ok(derived(&query.insert_into.text, plan, &names, partitions, true))
}

/// Whether columns can hold the results.
pub(super) fn check_kept(plan: &QueryPlan, names: &[String]) -> Result<(), SqlError> {
    let mut results = plan.schema.fields().iter().zip(names);
    let keys = plan.key_columns.iter().filter_map(|key| plan.schema.field_with_name(key).ok());
    check_keys(keys)?;
    results.find_map(|(field, name)| not_kept(name, field.data_type())).map_or(Ok(()), Err)
}

/// Whether a record's key, which is text, can be made of these columns.
pub(super) fn check_keys<'a>(mut columns: impl Iterator<Item = &'a Field>) -> Result<(), SqlError> {
    let nested = |of: &DataType| of.is_nested() || of.is_binary();
    let Some(column) = columns.find(|column| nested(column.data_type())) else { return Ok(()) };
    let message = format!("column \"{}\" cannot be a key: it is {}", column.name(), sql_type(column.data_type()));
    Err(SqlError::new(Code::BadType, message).hint("group by its parts, each a column of its own: text, numbers, dates or times"))
}

/// The CREATE STREAM of a topic that holds the results under these names of their columns, and says what their key is or not.
pub(super) fn derived(into: &str, plan: &QueryPlan, names: &[String], partitions: i32, says_key: bool) -> String {
    let fields: Vec<Field> = plan.schema.fields().iter().zip(names).map(|(field, name)| field.as_ref().clone().with_name(name)).collect();
    let partitions = partitions.to_string();
    let mut options = vec![("topic", into), ("partitions", partitions.as_str())];
    if let [key] = plan.key_columns.as_slice()
        && let Some(key) = plan.schema.index_of(key).ok().and_then(|at| names.get(at)).filter(|_| says_key)
    {
        options.push(("key", key));
    }
    let time = plan.event_time.as_ref().and_then(|time| Some((names.get(time.column)?, time.watermark(names.get(time.column)?))));
    let time = time.as_ref().map(|(name, watermark)| (name.as_str(), watermark.as_str()));
    derived_stream(into, &Schema::new(fields), time, &options)
}
