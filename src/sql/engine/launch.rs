//! Starting a query or alert: its topics, its feeds, its tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tokio::sync::watch;

use super::changing::check_upserts;
use super::growth::{keeps_keys, repartitioned};
use super::phases::Tasks;
use super::running::{OpenTask, Turn, Watched};
use super::savepoint::origin_of;
use super::statements::check_keys;
use super::{Engine, RuleSpec, Running, RunningInput, StreamIntake, storage};
use crate::bus::{TaskId, TopicSpec, checkpoint_topic, shift};
use crate::format::{Encoder, EncoderError};
use crate::record::{PartitionId, TopicName, TopicPartition};
use crate::sql::catalog::{Entry, StreamDef};
use crate::sql::error::{Code, SqlError};
use crate::sql::lower::{Placement, Purpose, QueryPlan, Source, plan};
use crate::sql::options::{BadRecords as BadOption, Start};
use crate::sql::statement::{CreateQuery, Kind, Name, Select, Statement};
use crate::stream::{
    BadRecords, Chain, Delivery, Feed, Following, Intake, LetterBox, Letters, Origin, Pace, Phase, Scope, Sink, SourceSpec, StartAt,
    StateBudget, StreamError, Task, TaskSpec, TaskStats, TopicSink,
};

/// A plan with what it reads, found in the catalogue.
pub(super) struct Planned {
    pub(super) plan: QueryPlan,
    /// As the plan's inputs.
    pub(super) inputs: Vec<PlannedInput>,
}

/// One stream or table that a plan reads.
#[derive(Clone)]
pub(super) struct PlannedInput {
    pub(super) stream: Arc<StreamDef>,
    pub(super) partitions: i32,
}

/// What one task reads: its scope, and of each input the partitions that are its own.
pub(super) type Own = (Scope, Vec<Vec<Arc<Feed>>>);

impl Planned {
    /// How many partitions the first stream has, by which the tasks are cut.
    pub(super) fn partitions(&self) -> i32 {
        self.inputs.first().map_or(1, |input| input.partitions)
    }
}

impl Engine {
    /// Plans a continuous SELECT. Makes the topic of the stream it reads where that is not there yet.
    pub(super) async fn planned(&self, select: &Select, purpose: Purpose) -> Result<Planned, SqlError> {
        let written = select;
        let select = &self.catalog.read().expanded(select)?;
        let mut sources: BTreeMap<String, Source> = BTreeMap::new();
        for name in &select.reads {
            let def = Arc::clone(self.catalog.read().relation_or_error(name)?);
            let partitions = self.topic_of(&def).await?;
            sources.insert(name.text.clone(), def.source(partitions));
        }
        let find = |name: &str| sources.get(name).cloned();
        let alone = |view: &Select| plan(view, &find, Purpose::Watch).err();
        let plan = plan(select, &find, purpose).map_err(|error| self.catalog.read().as_written(written, error, &alone))?;
        let mut inputs = Vec::with_capacity(plan.inputs.len());
        for input in &plan.inputs {
            let stream = self.catalog.read().relation(&input.stream).cloned();
            let stream = stream.ok_or_else(|| SqlError::new(Code::NoSuchName, format!("there is no stream \"{}\"", input.stream)))?;
            let partitions = sources.get(&input.stream).map_or(1, |s| s.partitions);
            inputs.push(PlannedInput { stream, partitions });
        }
        Ok(Planned { plan, inputs })
    }

    /// What each task of a plan reads: of every input the partitions that are its own.
    pub(super) fn cut(&self, planned: &Planned) -> Result<Vec<Own>, SqlError> {
        let feeds = planned.inputs.iter().map(|input| self.feeds_of(&input.stream, input.partitions)).collect::<Result<Vec<_>, _>>()?;
        if planned.plan.placement == Placement::Merged {
            return Ok(vec![(Scope::Merged, feeds)]);
        }
        let task = |partition: usize| {
            let own = feeds
                .iter()
                .zip(&planned.plan.inputs)
                .map(|(feeds, input)| if input.is_whole { feeds.clone() } else { feeds.get(partition).into_iter().cloned().collect() });
            (Scope::Partition(PartitionId(partition as i32)), own.collect())
        };
        Ok((0..planned.partitions() as usize).map(task).collect())
    }

    /// The partitions of a stream's topic, which is made where it is not there.
    pub(super) async fn topic_of(&self, def: &StreamDef) -> Result<i32, SqlError> {
        let mut configs = self.options.topic_configs.clone();
        if def.kind == Kind::Table {
            configs = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        }
        let partitions = def.options.partitions.unwrap_or(self.options.default_partitions);
        self.ensure(&def.topic, partitions, configs).await
    }

    async fn ensure(&self, topic: &TopicName, partitions: i32, configs: BTreeMap<String, String>) -> Result<i32, SqlError> {
        self.bus.ensure_topic(topic, &TopicSpec { partitions, configs }).await.map_err(|e| storage(&e))
    }

    /// The feeds of a stream whose topic has so many partitions.
    pub(super) fn feeds_of(&self, def: &StreamDef, partitions: i32) -> Result<Vec<Arc<Feed>>, SqlError> {
        let mut feeds = self.feeds.lock();
        (0..partitions)
            .map(|partition| {
                if let Some(feed) = feeds.get(&(def.name.clone(), partition)) {
                    return Ok(Arc::clone(feed));
                }
                let schema = Arc::new(def.schema(partitions)?);
                let place = TopicPartition::new(def.topic.clone(), PartitionId(partition));
                let strict = def.options.bad_records == BadOption::Fail;
                let feed = Arc::new(Feed::new(Arc::clone(&self.bus), place, schema, strict));
                feeds.insert((def.name.clone(), partition), Arc::clone(&feed));
                Ok(feed)
            })
            .collect()
    }

    /// Forgets a stream's feeds: it was replaced or dropped.
    pub(super) fn forget_feeds(&self, stream: &str) {
        self.feeds.lock().retain(|(name, _), _| name != stream);
    }

    /// Starts it from its last checkpoint, or from that of an older version: where it stood is kept, and the
    /// state where it fits, else it is made again. Where it has just been planned, that is the plan.
    pub(super) async fn try_launch(self: &Arc<Self>, entry: &Arc<Entry>, known: Option<Planned>) -> Result<(), SqlError> {
        let select = match &*entry.statement {
            Statement::CreateQuery(q) | Statement::CreateView(q) => &q.select,
            Statement::CreateAlert(a) => &a.select,
            _ => return Err(SqlError::new(Code::Internal, "only queries and alerts run")),
        };
        let planned = match known {
            Some(planned) => planned,
            None => self.planned(select, Purpose::ExactlyOnce).await?,
        };
        let (sink_name, sink) = self.sink_of(entry, &planned).await?;
        let inputs = planned.inputs.iter().map(|input| RunningInput {
            stream: input.stream.name.clone(),
            topic: input.stream.topic.clone(),
            partitions: input.partitions,
        });
        let budget = StateBudget::spilling(&entry.name, self.state_max(entry), self.options.spilling.clone());
        let mut running = Running {
            entry: Arc::clone(entry),
            inputs: inputs.collect(),
            sink: sink_name,
            tasks: Vec::new(),
            phases: None,
            budget: Arc::clone(&budget),
        };
        if !entry.paused {
            let streams = running.streams();
            self.hold_intakes(&streams).await?;
            match self.tasks_of(entry, planned, sink, &budget).await {
                Ok(Tasks { all, phases }) => (running.tasks, running.phases) = (all, phases),
                Err(error) => {
                    self.release_intakes(&streams).await;
                    return Err(error);
                }
            }
        }
        self.running.lock().insert(entry.name.clone(), running);
        Ok(())
    }

    /// Stops a query or alert, with a last commit and a snapshot; what it leaves stays.
    pub(super) async fn halt(&self, name: &str) {
        let running = self.running.lock().remove(name);
        if let Some(mut running) = running {
            let held = running.tasks.iter().any(|t| !t.is_note());
            running.stop().await;
            if held {
                self.release_intakes(&running.streams()).await;
            }
        }
    }

    /// Where an entry's results go, and what makes a sink for one task.
    async fn sink_of(&self, entry: &Entry, planned: &Planned) -> Result<(String, MakeSink), SqlError> {
        match &*entry.statement {
            Statement::CreateAlert(alert) => {
                self.rules.check(&planned.plan.schema).map_err(|why| SqlError::new(Code::BadDefinition, why))?;
                let rule = RuleSpec { name: entry.name.clone(), version: entry.version, options: alert.options.clone() };
                let rules = Arc::clone(&self.rules);
                let made = move || -> Pin<Box<dyn Future<Output = _> + Send>> { Box::pin(std::future::ready(Ok(rules.sink(&rule)))) };
                Ok((self.rules.topic().to_string(), Arc::new(made)))
            }
            Statement::CreateQuery(query) | Statement::CreateView(query) => {
                let def = Arc::clone(self.catalog.read().relation_or_error(&query.insert_into)?);
                let partitions = self.topic_of(&def).await?;
                let schema = sink_schema(&planned.plan, &def, &query.insert_columns)?;
                let keys = key_columns(&planned.plan, &def, &schema);
                check_upserts(&planned.plan, &def, &query.insert_columns)?;
                let (topic, upserts) = (def.topic.clone(), planned.plan.is_changing());
                let stream = Arc::new(def.schema(partitions)?);
                // Made as a task opens: where it needs a schema registry that does not answer, the task tries again.
                let make: MakeSink = Arc::new(move || {
                    let (stream, schema, topic, keys) = (Arc::clone(&stream), Arc::clone(&schema), topic.clone(), keys.clone());
                    Box::pin(async move {
                        let encoder = Encoder::open(&stream, &schema).await.map_err(|e| match e {
                            EncoderError::Registry(error) => StreamError::Registry(error),
                            EncoderError::Schema(error) => StreamError::Limit(error.to_string()),
                        })?;
                        let sink = TopicSink::new(topic, partitions, encoder, keys);
                        Ok(Box::new(if upserts { sink.upserts() } else { sink }) as Box<dyn Sink>)
                    })
                });
                Ok((query.insert_into.text.clone(), make))
            }
            _ => Err(SqlError::new(Code::Internal, "only queries and alerts have a sink")),
        }
    }

    /// Which columns make the record key of a query's results, and how many partitions these have or will have.
    pub(super) async fn results_of(&self, query: &CreateQuery, planned: &Planned) -> Result<(Vec<usize>, i32), SqlError> {
        let plan = &planned.plan;
        let Some(def) = self.catalog.read().relation(&query.insert_into.text).cloned() else {
            let places = plan.key_columns.iter().filter_map(|name| plan.schema.index_of(name).ok());
            return Ok((places.collect(), planned.partitions()));
        };
        let schema = sink_schema(plan, &def, &query.insert_columns)?;
        Ok((key_columns(plan, &def, &schema), self.topic_of(&def).await?))
    }

    /// Whether a query's rows can be written to its stream; a schema registry is asked to take their schema.
    pub(super) async fn check_sink(&self, query: &CreateQuery, planned: &Planned) -> Result<(), SqlError> {
        let def = Arc::clone(self.catalog.read().relation_or_error(&query.insert_into)?);
        let partitions = self.topic_of(&def).await?;
        let schema = sink_schema(&planned.plan, &def, &query.insert_columns)?;
        encoder(&def, partitions, &schema).await.map(drop).map_err(|e| e.at(query.insert_into.place))
    }

    async fn tasks_of(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        planned: Planned,
        sink: MakeSink,
        budget: &Arc<StateBudget>,
    ) -> Result<Tasks, SqlError> {
        if let Some(phases) = self.phases_of(entry, &planned).await? {
            return self.start_phases(entry, planned, phases, sink, budget).await;
        }
        self.check_whole(entry).await?;
        let scopes = self.cut(&planned)?;
        let Planned { plan, inputs } = planned;
        let owner: Arc<str> = entry.owner(plan.placement == Placement::Merged).into();
        let configs = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned()), ("segment.bytes".to_owned(), "4194304".to_owned())]);
        let count = scopes.len() as i32;
        if let Some(company) = self.bus.company() {
            company.make_room(count).await.map_err(|e| storage(&e))?;
        }
        let there = self.ensure(&checkpoint_topic(&owner), count, configs.clone()).await?;
        self.hand_over(entry, &owner, &scopes).await?;
        if there > count || (there < count && keeps_keys(entry, &plan)) {
            return Err(repartitioned(&inputs[0].stream, there, count));
        }
        let mut sources = Vec::with_capacity(inputs.len());
        for (input, of) in inputs.iter().zip(&plan.inputs) {
            sources.push(SourceSpec {
                inputs: Vec::new(),
                time: of.time.clone(),
                idle_timeout: input.stream.options.idle_timeout,
                start: StartAt::Earliest,
                is_table: input.stream.kind == Kind::Table,
                letters: self.letters_of(entry, &input.stream, input.partitions).await?,
            });
        }
        let (start, pace) = self.start_and_pace(entry);
        let delivery = self.delivery(entry, &plan);
        let fingerprint = self.fingerprint(entry, &plan);
        let origin = origin_of(entry, &plan);
        let plan = Arc::new(plan);
        let mut tasks = Vec::new();
        for (index, (scope, feeds)) in scopes.into_iter().enumerate() {
            // A partition that came later is read from its beginning, however the query began; a table always is.
            let start = if index as i32 >= there { StartAt::Earliest } else { start };
            let own = sources.iter().zip(feeds).map(|(source, inputs)| SourceSpec {
                inputs,
                start: if source.is_table { StartAt::Earliest } else { start },
                ..source.clone()
            });
            let (me, of, plan) = (Arc::clone(self), Arc::clone(entry), Arc::clone(&plan));
            let work = Work {
                id: TaskId { owner: Arc::clone(&owner), index: index as i32 },
                sources: own.collect(),
                scope,
                timeout: plan.timeout,
                every: plan.every,
                fingerprint: fingerprint.clone(),
                pace,
                delivery,
                origin: origin.clone(),
                phase: None,
                chain: Arc::new(move || me.chain_of(&of, &plan, scope)),
                sink: Arc::clone(&sink),
            };
            tasks.push(self.start_task(work, budget));
        }
        Ok(Tasks { all: tasks, phases: None })
    }

    /// Starts one task, and who watches over it.
    pub(super) fn start_task(self: &Arc<Self>, work: Work, budget: &Arc<StateBudget>) -> Watched {
        let stats = Arc::new(TaskStats::default());
        let (name, task) = (work.id.to_string(), work.id.clone());
        let (me, counted, budget) = (Arc::clone(self), Arc::clone(&stats), Arc::clone(budget));
        let open: OpenTask = Arc::new(move || {
            let spec = TaskSpec {
                id: work.id.clone(),
                sources: work.sources.clone(),
                scope: work.scope,
                timeout: work.timeout,
                every: work.every,
                fingerprint: work.fingerprint.clone(),
                pace: work.pace,
                delivery: work.delivery,
                budget: Arc::clone(&budget),
                origin: work.origin.clone(),
                phase: work.phase.clone(),
            };
            let chain = (work.chain)();
            let (bus, clock, sink, stats) = (Arc::clone(&me.bus), me.clock, (work.sink)(), Arc::clone(&counted));
            let me = Arc::clone(&me);
            Box::pin(async move {
                // What has changed before the task became ours is known before it is opened.
                me.catalogue_is_current().await?;
                Task::open(spec, chain?, sink.await?, bus, clock, stats).await
            })
        });
        let bus = Arc::clone(&self.bus);
        let turn: Turn = Arc::new(move || {
            let (bus, task) = (Arc::clone(&bus), task.clone());
            Box::pin(async move { shift(bus.as_ref(), &task).await })
        });
        Watched::start(&self.runtime, name, stats, turn, open)
    }

    /// Where a task without a checkpoint begins, and how long things take in it.
    pub(super) fn start_and_pace(&self, entry: &Entry) -> (StartAt, Pace) {
        let (start, commit_interval) = match &*entry.statement {
            Statement::CreateQuery(q) | Statement::CreateView(q) => (q.options.start.clone(), q.options.commit_interval),
            Statement::CreateAlert(a) => (a.options.start.clone(), None),
            _ => (Start::Earliest, None),
        };
        let start = match start {
            // The process that runs it may open it a while after the statement was answered.
            Start::Latest if self.bus.company().is_some() => StartAt::At(entry.created),
            start => start_at(&start),
        };
        let pace = Pace {
            commit_interval: commit_interval.unwrap_or(self.options.commit_interval),
            snapshot_interval: self.options.snapshot_interval,
            following: if matches!(&*entry.statement, Statement::CreateAlert(_)) { Following::First } else { Following::Together },
            ..Pace::default()
        };
        (start, pace)
    }

    /// How many bytes of state a query or alert may hold: what it says, else what the node says.
    pub(super) fn state_max(&self, entry: &Entry) -> Option<u64> {
        let said = match &*entry.statement {
            Statement::CreateQuery(q) | Statement::CreateView(q) => q.options.state_max,
            Statement::CreateAlert(a) => a.options.state_max,
            _ => None,
        };
        said.unwrap_or(self.options.state_max)
    }

    pub(super) fn fingerprint(&self, entry: &Entry, plan: &QueryPlan) -> String {
        match &*entry.statement {
            // A rule's state is its alerts, which a new version goes on with; what it reads must be the same.
            Statement::CreateAlert(_) => format!("alert {}", plan.fingerprint()),
            _ => plan.fingerprint(),
        }
    }

    pub(super) fn chain_of(&self, entry: &Entry, plan: &QueryPlan, scope: Scope) -> Result<Chain, StreamError> {
        let made = |e: SqlError| StreamError::Limit(e.message);
        let mut chain = plan.chain(scope).map_err(made)?;
        if let Statement::CreateAlert(alert) = &*entry.statement {
            let rule = RuleSpec { name: entry.name.clone(), version: entry.version, options: alert.options.clone() };
            chain.push(self.rules.operator(&rule, &plan.schema)?);
        }
        Ok(chain)
    }

    /// The letter boxes of a query: the stream's late topic, and dead letters of its own.
    pub(super) async fn letters_of(&self, entry: &Entry, stream: &StreamDef, partitions: i32) -> Result<Letters, SqlError> {
        let configs = &self.options.topic_configs;
        let late = match &stream.options.late_topic {
            Some(topic) => Some(LetterBox { topic: topic.clone(), partitions: self.ensure(topic, partitions, configs.clone()).await? }),
            None => None,
        };
        let name = format!("{}.dlq", entry.name);
        let failed = match TopicName::new(&name) {
            Ok(topic) => {
                let partitions = self.ensure(&topic, 1, configs.clone()).await?;
                Some(LetterBox { topic, partitions })
            }
            // A quoted name that no topic can have: failed rows are counted only.
            Err(_) => None,
        };
        Ok(Letters { query: entry.name.clone(), source: stream.topic.clone(), late, failed })
    }

    /// Holds the intakes of all these streams, or none.
    async fn hold_intakes(self: &Arc<Self>, streams: &BTreeSet<String>) -> Result<(), SqlError> {
        let mut held = BTreeSet::new();
        for stream in streams {
            if let Err(error) = self.hold_intake(stream).await {
                self.release_intakes(&held).await;
                return Err(error);
            }
            held.insert(stream.clone());
        }
        Ok(())
    }

    async fn release_intakes(&self, streams: &BTreeSet<String>) {
        for stream in streams {
            self.release_intake(stream).await;
        }
    }

    /// Starts a stream's intake with its first user.
    async fn hold_intake(self: &Arc<Self>, stream: &str) -> Result<(), SqlError> {
        if let Some(intake) = self.intakes.lock().get_mut(stream) {
            intake.users += 1;
            return Ok(());
        }
        let Some(def) = self.catalog.read().relation(stream).cloned() else { return Ok(()) };
        let partitions = self.topic_of(&def).await?;
        let owner: Arc<str> = format!("intake.{stream}").into();
        let configs = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned()), ("segment.bytes".to_owned(), "1048576".to_owned())]);
        self.ensure(&checkpoint_topic(&owner), partitions, configs).await?;
        let bad = match def.options.bad_records {
            BadOption::Dlq => {
                let there = self.ensure(&def.dlq_topic, partitions, self.options.topic_configs.clone()).await?;
                BadRecords::DeadLetter(LetterBox { topic: def.dlq_topic.clone(), partitions: there })
            }
            // With fail the feed ends at a bad record, for this reader as for the others.
            BadOption::Skip | BadOption::Fail => BadRecords::Skip,
        };
        let count = Arc::clone(self.bad.lock().entry(stream.to_owned()).or_insert_with(|| Arc::new(AtomicU64::new(0))));
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Vec::new();
        for feed in self.feeds_of(&def, partitions)? {
            let intake = Intake {
                id: TaskId { owner: Arc::clone(&owner), index: feed.partition().partition.0 },
                stream: stream.to_owned(),
                feed,
                bad: bad.clone(),
                count: Arc::clone(&count),
                bus: Arc::clone(&self.bus),
                clock: self.clock,
            };
            let stopped = stopped.clone();
            tasks.push(self.runtime.spawn(async move {
                let name = intake.id.to_string();
                if let Err(error) = intake.attend(stopped).await {
                    tracing::error!(task = %name, %error, "an intake stopped");
                }
            }));
        }
        self.intakes.lock().insert(stream.to_owned(), StreamIntake { users: 1, stop, tasks });
        Ok(())
    }

    async fn release_intake(&self, stream: &str) {
        let last = {
            let mut intakes = self.intakes.lock();
            let Some(intake) = intakes.get_mut(stream) else { return };
            intake.users -= 1;
            if intake.users == 0 { intakes.remove(stream) } else { None }
        };
        if let Some(intake) = last {
            intake.stop().await;
        }
    }
}

/// What one task of a query or alert is made of.
pub(super) struct Work {
    pub(super) id: TaskId,
    pub(super) sources: Vec<SourceSpec>,
    pub(super) scope: Scope,
    pub(super) timeout: Option<Duration>,
    pub(super) every: Option<Duration>,
    pub(super) fingerprint: String,
    pub(super) pace: Pace,
    pub(super) delivery: Delivery,
    pub(super) origin: Option<Origin>,
    pub(super) phase: Option<Phase>,
    /// Makes its operators, each time it is opened.
    pub(super) chain: Arc<dyn Fn() -> Result<Chain, StreamError> + Send + Sync>,
    pub(super) sink: MakeSink,
}

/// Makes a sink for one task.
pub(super) type MakeSink = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Box<dyn Sink>, StreamError>> + Send>> + Send + Sync>;

fn start_at(start: &Start) -> StartAt {
    match start {
        // A partition, or a stream, that the savepoint does not know is read from its beginning.
        Start::Earliest | Start::Savepoint(_) => StartAt::Earliest,
        Start::Latest => StartAt::Latest,
        Start::At(at) => StartAt::At(*at),
    }
}

/// What writes rows of `rows` to the stream's topic.
pub(super) async fn encoder(def: &StreamDef, partitions: i32, rows: &SchemaRef) -> Result<Encoder, SqlError> {
    Encoder::open(&def.schema(partitions)?, rows).await.map_err(|e| match &e {
        EncoderError::Registry(error) if error.is_passing() => SqlError::new(Code::Storage, e.to_string())
            .hint("see that the registry runs and can be reached from the node, then run the statement again"),
        EncoderError::Registry(_) => SqlError::new(Code::BadDefinition, e.to_string())
            .hint("change the columns to what the subject allows, or choose another with 'schema.registry.subject'"),
        EncoderError::Schema(_) => SqlError::new(Code::BadDefinition, e.to_string()),
    })
}

/// What the columns of the results are called where they are written: as they are, or by position where INSERT INTO lists them.
pub(super) fn written_names(plan: &QueryPlan, listed: &[Name]) -> Result<Vec<String>, SqlError> {
    let columns = plan.schema.fields();
    if listed.is_empty() {
        return Ok(columns.iter().map(|f| f.name().clone()).collect());
    }
    if listed.len() != columns.len() {
        let message = format!("INSERT INTO lists {} columns and the SELECT gives {}", listed.len(), columns.len());
        return Err(SqlError::new(Code::BadDefinition, message).at(listed[0].place));
    }
    Ok(listed.iter().map(|n| n.text.clone()).collect())
}

/// The columns as the sink's stream names them.
fn sink_schema(plan: &QueryPlan, def: &StreamDef, listed: &[Name]) -> Result<SchemaRef, SqlError> {
    let written = def.written();
    let names = written_names(plan, listed)?;
    let mut fields = Vec::new();
    for (name, field) in names.iter().zip(plan.schema.fields()) {
        let known = written.fields().iter().map(|f| f.name().as_str());
        let target = written.field_with_name(name).map_err(|_| {
            let there = written.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
            SqlError::no_such("column", name, known).note(format!("the SELECT gives it, and stream \"{}\" has: {there}", def.name))
        })?;
        let same_kind = target.data_type() == field.data_type() || (target.data_type().is_numeric() && field.data_type().is_numeric());
        let both_times = matches!(target.data_type(), arrow::datatypes::DataType::Timestamp(..))
            && matches!(field.data_type(), arrow::datatypes::DataType::Timestamp(..));
        let both_texts = target.data_type().is_string() && field.data_type().is_string();
        if !same_kind && !both_times && !both_texts {
            let message = format!(
                "column \"{name}\" of stream \"{}\" is {} and the SELECT gives {}",
                def.name,
                crate::sql::types::sql_type(target.data_type()),
                crate::sql::types::sql_type(field.data_type())
            );
            return Err(SqlError::new(Code::TypeMismatch, message).hint("CAST it in the SELECT"));
        }
        fields.push(field.as_ref().clone().with_name(name));
    }
    if let Some(missing) = written.fields().iter().find(|f| !f.is_nullable() && !names.contains(f.name())) {
        let message = format!("column \"{}\" of stream \"{}\" is NOT NULL and the SELECT does not give it", missing.name(), def.name);
        return Err(SqlError::new(Code::BadDefinition, message));
    }
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    check_keys(key_columns(plan, def, &schema).into_iter().map(|at| schema.field(at)))?;
    Ok(schema)
}

/// Which columns make the record's key: what the sink's stream promises, else the plan's own key.
fn key_columns(plan: &QueryPlan, def: &StreamDef, schema: &SchemaRef) -> Vec<usize> {
    let named: Vec<&String> =
        if def.key_columns().is_empty() { plan.key_columns.iter().collect() } else { def.key_columns().iter().collect() };
    let places: Vec<usize> =
        named.iter().filter_map(|name| schema.index_of(name).ok().or_else(|| plan.schema.index_of(name).ok())).collect();
    if places.len() == named.len() { places } else { Vec::new() }
}
