//! Queries whose windowed aggregate runs in two phases: when one does, its topics, its tasks.
//!
//! The first phase has a task for each partition of the stream, the second one for each partition of the query's own topic, by group. Owns the names
//! of those tasks and topics, all of which are gone with the query. Always: such a query goes on only with what it has: under another plan, in
//! another number of partitions, or as one task it would need what half of it has handed over to the other, and is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;

use super::launch::{MakeSink, Planned, Work};
use super::running::Watched;
use super::{Engine, storage};
use crate::bus::{TaskId, TopicSpec, checkpoint_topic};
use crate::format::{FieldSpec, Format, StreamSchema};
use crate::record::{PartitionId, TopicName, TopicPartition};
use crate::sql::catalog::Entry;
use crate::sql::error::{Code, SqlError};
use crate::sql::lower::{Phases, Placement, QueryPlan};
use crate::sql::options::{QueryOptions, Repartition, Start};
use crate::sql::statement::Statement;
use crate::stream::{
    Delivery, Feed, Letters, PartsSink, PeersSpec, Phase, Scope, Sink, SourceSpec, StartAt, StateBudget, TimeRule, plan_of,
};

/// The tasks of a query, those of a first phase before those of the second.
pub(super) struct Tasks {
    pub(super) all: Vec<Watched>,
    /// How many are of the first phase and which topic the second one reads, where there are two.
    pub(super) phases: Option<(usize, TopicName)>,
}

/// What a statement says of it.
fn options(statement: &Statement) -> Option<&QueryOptions> {
    match statement {
        Statement::CreateQuery(q) | Statement::CreateView(q) => Some(&q.options),
        _ => None,
    }
}

/// The topic of a query's parts.
pub(super) fn parts_topic(entry: &Entry) -> TopicName {
    TopicName::new(&format!("__parts.{}", entry.owner(false))).expect("owners are made of checked names")
}

/// The topic in which the tasks of its first phase tell each other how they stand.
fn peers_topic(entry: &Entry) -> TopicName {
    TopicName::new(&format!("__peers.{}", entry.owner(false))).expect("owners are made of checked names")
}

/// All topics of a query's or alert's own that may be there.
pub(super) fn own_topics(entry: &Entry) -> Vec<TopicName> {
    let mut topics: Vec<TopicName> = owners(entry).iter().map(|owner| checkpoint_topic(owner)).collect();
    topics.extend([parts_topic(entry), peers_topic(entry)]);
    topics
}

/// All names its tasks may have.
pub(super) fn owners(entry: &Entry) -> Vec<String> {
    let mut owners = [true, false].map(|is_merged| entry.owner(is_merged)).to_vec();
    owners.dedup();
    owners.extend(entry.phase_owners());
    owners
}

/// How the groups of a query are shared out among the tasks of its second phase.
///
/// Rows with one record key come from one of these, in their order, and so do all rows of one partition of the results, as long as that has as
/// many as there were when the query was made: what reads them finds them as it finds those of one task. Where the record key is not
/// made of groups one task writes them all.
struct Sharing {
    /// By which keys of the aggregate.
    by: Vec<usize>,
    /// Among how many tasks.
    targets: i32,
}

fn fingerprints(plan: &QueryPlan, upstream: i32, by: &[usize], targets: i32) -> [String; 2] {
    let (plan, by) = (plan.fingerprint(), by.iter().map(ToString::to_string).collect::<Vec<_>>().join("."));
    [format!("collect {by} {targets} {plan}"), format!("combine {upstream} {plan}")]
}

/// Where a query may be cut in two; else why not.
fn cut(options: &QueryOptions, planned: &Planned) -> Result<Phases, String> {
    if let Start::Savepoint(_) = &options.start {
        return Err("it begins from a savepoint, which holds the state of one task".to_owned());
    }
    planned.plan.phases()
}

/// Why a query in two phases does not go on with another form.
fn refused(entry: &Entry, why: &str) -> SqlError {
    let message = format!("{} \"{}\" {why}: what it has gathered cannot be taken over", entry.kind.word(), entry.name);
    SqlError::new(Code::InUse, message).hint("DROP it and CREATE it again; it then begins where its 'start' option says")
}

impl Engine {
    /// Where a query or view is cut in two, if it is; an error where it is to be and cannot. One that may run either way goes on as the one
    /// task it has been, whatever it could be by now.
    pub(super) async fn phases_of(&self, entry: &Entry, planned: &Planned) -> Result<Option<Phases>, SqlError> {
        let phases = self.phases(&entry.statement, planned)?;
        let may_be_whole = options(&entry.statement).is_some_and(|options| options.repartition == Repartition::Auto);
        if phases.is_some() && may_be_whole && self.ran_whole(entry).await? {
            return Ok(None);
        }
        Ok(phases)
    }

    /// Whether it has run as other queries do.
    async fn ran_whole(&self, entry: &Entry) -> Result<bool, SqlError> {
        for is_merged in [true, false] {
            if self.partitions_of(&checkpoint_topic(&entry.owner(is_merged))).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The same by what the statement says alone.
    pub(super) fn phases(&self, statement: &Statement, planned: &Planned) -> Result<Option<Phases>, SqlError> {
        let Some(options) = options(statement) else { return Ok(None) };
        if options.repartition == Repartition::Merged || planned.plan.placement == Placement::Partition {
            return Ok(None);
        }
        match (cut(options, planned), options.repartition) {
            (Ok(phases), _) => Ok(Some(phases)),
            (Err(why), Repartition::Topic) => {
                let error = SqlError::new(Code::BadOption, format!("option 'repartition' cannot be 'topic' here, because {why}"));
                Err(error.at(options.given.place("repartition")).hint("leave it out: one task over all partitions gives the same results"))
            }
            (Err(_), _) => Ok(None),
        }
    }

    /// A savepoint keeps the state of tasks, and of a query in two phases half of that lies between them.
    pub(super) async fn check_savepoint(&self, entry: &Entry, planned: &Planned) -> Result<(), SqlError> {
        if self.phases_of(entry, planned).await?.is_none() {
            return Ok(());
        }
        let message = format!(
            "{} \"{}\" runs in two phases ('repartition'): part of what it has gathered lies in topic {}, which no savepoint holds",
            entry.kind.word(),
            entry.name,
            parts_topic(entry)
        );
        let hint = "it needs none to be paused, resumed or restarted; where one is wanted, DROP it and CREATE it without 'repartition'";
        Err(SqlError::new(Code::BadDefinition, message).hint(hint))
    }

    /// The lines of EXPLAIN that say how the tasks of a query are cut that brings partitions together, and why.
    pub(super) async fn explain_tasks(&self, entry: &Entry, planned: &Planned, phases: Option<&Phases>) -> Result<String, SqlError> {
        let Some(options) = options(&entry.statement).filter(|_| planned.plan.placement == Placement::Merged) else {
            return Ok(planned.plan.explain());
        };
        let count = planned.partitions();
        if phases.is_some() {
            let groups = self.targets_of(entry, &self.sharing(entry, planned).await?).await?;
            let line = format!(
                "tasks    {count} by partition, which aggregate what is theirs; behind topic {}, {groups} by group\n",
                parts_topic(entry)
            );
            return Ok(planned.plan.explain_as("one task a partition, then by group") + &line);
        }
        let why = match (cut(options, planned), options.repartition) {
            (Ok(_), Repartition::Auto) => "not in two phases, because it has run in one task before".to_owned(),
            (Ok(_), _) => "'repartition' = 'topic' would give it one a partition, and more by group".to_owned(),
            (Err(why), Repartition::Auto) => format!("not in two phases, because {why}"),
            (Err(_), _) => return Ok(planned.plan.explain()),
        };
        Ok(planned.plan.explain() + &format!("tasks    1 over all {count} partitions; {why}\n"))
    }

    /// Whether a new version in two phases can go on where the old one stands; asked before anything is written.
    pub(super) async fn check_phases(&self, entry: &Entry, planned: &Planned) -> Result<(), SqlError> {
        let sharing = self.check_partitions(entry, planned).await?;
        let (there, wanted) = (self.targets_of(entry, &sharing).await?, sharing.targets);
        if there != wanted {
            return Err(refused(
                entry,
                &format!("shares its groups out among {there} tasks, and its results now go to {wanted} partitions"),
            ));
        }
        let plans = fingerprints(&planned.plan, planned.partitions(), &sharing.by, there);
        for (owner, plan) in entry.phase_owners().into_iter().zip(plans) {
            if self.partitions_of(&checkpoint_topic(&owner)).await?.is_none() {
                continue;
            }
            let task = TaskId { owner: owner.as_str().into(), index: 0 };
            let before = plan_of(self.bus.as_ref(), &task).await.map_err(|e| SqlError::new(Code::Storage, e.to_string()))?;
            if before.is_some_and(|before| before != plan) {
                return Err(refused(entry, "runs in two phases and would go by another plan"));
            }
        }
        Ok(())
    }

    /// The same for whoever starts it, whatever has become of the topic of its results meanwhile; and how its groups are shared out. That
    /// another plan does not go on is each task's to say, by its checkpoint.
    async fn check_partitions(&self, entry: &Entry, planned: &Planned) -> Result<Sharing, SqlError> {
        if self.ran_whole(entry).await? {
            return Err(refused(entry, "did not run in two phases before"));
        }
        let [first, _] = entry.phase_owners();
        let count = planned.partitions();
        let sharing = self.sharing(entry, planned).await?;
        match self.partitions_of(&checkpoint_topic(&first)).await? {
            Some(there) if there != count => {
                Err(refused(entry, &format!("was started over {there} partitions, and its stream has {count}")))
            }
            _ => Ok(sharing),
        }
    }

    /// How the groups are to be shared out, by where the results go.
    async fn sharing(&self, entry: &Entry, planned: &Planned) -> Result<Sharing, SqlError> {
        let (columns, partitions) = match &*entry.statement {
            Statement::CreateQuery(query) | Statement::CreateView(query) => self.results_of(query, planned).await?,
            _ => (Vec::new(), 1),
        };
        let by = planned.plan.shared_by(&columns).unwrap_or_default();
        let targets = if by.is_empty() { 1 } else { partitions };
        Ok(Sharing { by, targets })
    }

    /// Among how many tasks they are: as they were where there are some.
    async fn targets_of(&self, entry: &Entry, sharing: &Sharing) -> Result<i32, SqlError> {
        Ok(self.partitions_of(&parts_topic(entry)).await?.unwrap_or(sharing.targets))
    }

    /// The same where the new version does not run in two phases.
    pub(super) async fn check_whole(&self, entry: &Entry) -> Result<(), SqlError> {
        let [first, _] = entry.phase_owners();
        match self.partitions_of(&checkpoint_topic(&first)).await? {
            Some(_) => Err(refused(entry, "ran in two phases before")),
            None => Ok(()),
        }
    }

    async fn partitions_of(&self, topic: &TopicName) -> Result<Option<i32>, SqlError> {
        self.bus.partitions(topic).await.map_err(|e| storage(&e))
    }

    /// Starts the tasks of both phases.
    pub(super) async fn start_phases(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        planned: Planned,
        phases: Phases,
        sink: MakeSink,
        budget: &Arc<StateBudget>,
    ) -> Result<Tasks, SqlError> {
        let sharing = self.check_partitions(entry, &planned).await?;
        let count = planned.partitions();
        let input = planned.inputs[0].clone();
        let topics = self.make_topics(entry, &planned, &sharing).await?;
        let plan = Arc::new(planned.plan);
        let letters = self.letters_of(entry, &input.stream, input.partitions).await?;
        let [first_owner, second_owner] = entry.phase_owners().map(Arc::<str>::from);
        let [first_plan, second_plan] = fingerprints(&plan, count, &sharing.by, topics.targets);
        let (start, pace) = self.start_and_pace(entry);
        let mut all = Vec::new();
        for (index, feed) in self.feeds_of(&input.stream, input.partitions)?.into_iter().enumerate() {
            let me = index as i32;
            let scope = Scope::Partition(PartitionId(me));
            let source = SourceSpec {
                inputs: vec![feed],
                time: plan.inputs[0].time.clone(),
                idle_timeout: input.stream.options.idle_timeout,
                start,
                is_table: false,
                letters: letters.clone(),
            };
            let (of, by, targets) = (Arc::clone(&plan), sharing.by.clone(), topics.targets);
            let (parts, peers) = (topics.parts.clone(), topics.peers.clone());
            let spec = peers.clone().map(|place| PeersSpec { place, me, count });
            all.push(self.start_task(
                Work {
                    id: TaskId { owner: Arc::clone(&first_owner), index: me },
                    sources: vec![source],
                    scope,
                    timeout: plan.timeout,
                    every: None,
                    fingerprint: first_plan.clone(),
                    pace,
                    // What is handed over twice would count twice.
                    delivery: Delivery::ExactlyOnce,
                    origin: None,
                    phase: Some(Phase::First(spec)),
                    chain: Arc::new(move || of.first_phase(&phases, scope, &by, targets)),
                    sink: Arc::new(move || {
                        let sink = PartsSink::new(parts.clone(), targets, me, peers.clone(), phases.rule);
                        Box::pin(std::future::ready(Ok(Box::new(sink) as Box<dyn Sink>)))
                    }),
                },
                budget,
            ));
        }
        let delivery = self.delivery(entry, &plan);
        for index in 0..topics.targets {
            let scope = Scope::Partition(PartitionId(index));
            let source = SourceSpec {
                inputs: vec![self.parts_feed(&topics.parts, index)?],
                time: TimeRule { time: None, watermark: None, max_future_ms: None },
                idle_timeout: None,
                start: StartAt::Earliest,
                is_table: false,
                letters: Letters { late: None, ..letters.clone() },
            };
            let of = Arc::clone(&plan);
            all.push(self.start_task(
                Work {
                    id: TaskId { owner: Arc::clone(&second_owner), index },
                    sources: vec![source],
                    scope,
                    timeout: None,
                    every: None,
                    fingerprint: second_plan.clone(),
                    pace,
                    delivery,
                    origin: None,
                    phase: Some(Phase::Second),
                    chain: Arc::new(move || of.second_phase(&phases, scope, count)),
                    sink: Arc::clone(&sink),
                },
                budget,
            ));
        }
        Ok(Tasks { all, phases: Some((count as usize, topics.parts)) })
    }

    /// The topics of a query in two phases, made where they are not there.
    async fn make_topics(&self, entry: &Entry, planned: &Planned, sharing: &Sharing) -> Result<Topics, SqlError> {
        let count = planned.partitions();
        let make = async |topic: &TopicName, partitions: i32| {
            let configs = [("retention.ms", "-1"), ("segment.bytes", "4194304")].map(|(name, value)| (name.to_owned(), value.to_owned()));
            let spec = TopicSpec { partitions, configs: BTreeMap::from(configs) };
            self.bus.ensure_topic(topic, &spec).await.map_err(|e| storage(&e))
        };
        let [first, second] = entry.phase_owners();
        if let Some(company) = self.bus.company() {
            company.make_room(count.max(sharing.targets)).await.map_err(|e| storage(&e))?;
        }
        let parts = parts_topic(entry);
        let targets = make(&parts, sharing.targets).await?;
        let has_clocks = planned.plan.timeout.is_some() || planned.inputs[0].stream.options.idle_timeout.is_some();
        let mut peers = None;
        if has_clocks {
            let topic = peers_topic(entry);
            make(&topic, 1).await?;
            peers = Some(TopicPartition::new(topic, PartitionId(0)));
        }
        make(&checkpoint_topic(&first), count).await?;
        make(&checkpoint_topic(&second), targets).await?;
        Ok(Topics { parts, targets, peers })
    }

    fn parts_feed(&self, parts: &TopicName, partition: i32) -> Result<Arc<Feed>, SqlError> {
        let bytes = StreamSchema::new(Format::Raw, vec![FieldSpec::new("value", DataType::Binary)]);
        let bytes = bytes.map_err(|e| SqlError::new(Code::Internal, e.to_string()))?;
        let place = TopicPartition::new(parts.clone(), PartitionId(partition));
        Ok(Arc::new(Feed::new(Arc::clone(&self.bus), place, Arc::new(bytes), true)))
    }
}

/// The topics between the phases of a query.
struct Topics {
    parts: TopicName,
    /// How many partitions those have.
    targets: i32,
    /// Where the tasks of the first phase tell each other how they stand, where the clock has a say.
    peers: Option<TopicPartition>,
}
