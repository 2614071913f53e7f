//! Savepoints: taken, begun from, dropped.
//!
//! A savepoint is made by the process that runs the statement, out of what the tasks have committed (see `stream`'s own `savepoint`): whoever
//! runs them goes on, and may die meanwhile. Its topic is named in the catalogue first, then written, then the catalogue says that it is
//! whole; dropped the other way round. One statement that changes anything runs at a time, over all processes: whoever has that right and
//! sees a savepoint that is not whole knows that nobody is making it any more, and clears it away. A query that begins from one is
//! started as any other: its entry in the catalogue names the savepoint, and each of its tasks begins there unless its checkpoint says
//! that it has. Called where statements are run.

use std::sync::Arc;

use super::growth::{keeps_keys, repartitioned};
use super::launch::Planned;
use super::statements::{rows, select_of, watched};
use super::{Engine, Outcome, storage};
use crate::bus::{BusError, TaskId, TopicSpec, checkpoint_topic};
use crate::record::{Offset, PartitionId, TopicName, TopicPartition};
use crate::sql::catalog::{Change, Entry, Existing, SAVEPOINT_FORMAT, SavedPlace, SavepointDef};
use crate::sql::error::{Code, SqlError};
use crate::sql::lower::{Placement, Purpose, QueryPlan};
use crate::sql::options::SavepointState;
use crate::sql::show::describe_savepoint;
use crate::sql::statement::{CreateSavepoint, DropObject, Kind, Name, Parsed, Restore, Statement};
use crate::stream::{Delivery, Following, Origin, Pace, Saved, StateBudget, StreamError, TaskSpec, has_begun, save};

/// How often a task's checkpoint is read again that was trimmed while it was read.
const TRIES: u32 = 10;

/// The savepoint that the tasks of a plan begin from.
pub(super) fn origin_of(entry: &Entry, plan: &QueryPlan) -> Option<Origin> {
    let origin = entry.origin.as_ref()?;
    Some(Origin {
        name: origin.savepoint.clone(),
        owner: origin.owner.clone(),
        tasks: origin.tasks,
        // What an alert remembers goes on however its tasks are cut.
        is_cut_alike: entry.kind == Kind::Alert || origin.merged == (plan.placement == Placement::Merged),
        mark: origin.mark.clone(),
    })
}

impl Engine {
    /// `CREATE SAVEPOINT s FOR QUERY q`.
    pub(super) async fn create_savepoint(
        self: &Arc<Self>,
        asked: &CreateSavepoint,
        parsed: &Parsed,
        existing: Existing,
    ) -> Result<Outcome, SqlError> {
        self.clear_torn().await?;
        let change = self.catalog.read().create(parsed, existing, self.clock.now())?;
        let Change::Create(entry) = &change else { return Ok(Outcome::Done(change.message())) };
        let found = self.catalog.read().get(asked.kind, &asked.of.text).cloned();
        let of = found.ok_or_else(|| SqlError::new(Code::Internal, "what the savepoint is of was there just now"))?;
        let planned = self.planned(select_of(&of)?, Purpose::ExactlyOnce).await?;
        self.check_savepoint(&of, &planned).await.map_err(|e| e.at(asked.of.place))?;
        let owner = of.owner(planned.plan.placement == Placement::Merged);
        let tasks = self.bus.partitions(&checkpoint_topic(&owner)).await.map_err(|e| storage(&e))?.unwrap_or(0);
        if tasks == 0 {
            return Err(not_begun(&of, asked));
        }
        let torn = SavepointDef {
            whole: false,
            // Another name each time: what a process may still write that was overtaken does not get among it.
            owner: format!("savepoint.{}.{:08x}", entry.name, uuid::Uuid::new_v4().as_u128() as u32),
            format: SAVEPOINT_FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            text: of.text.clone(),
            version: of.version,
            tasks,
            merged: planned.plan.placement == Placement::Merged,
            fingerprint: String::new(),
            plan: planned.plan.explain(),
            topics: planned.inputs.iter().map(|input| input.stream.topic.to_string()).collect(),
            places: Vec::new(),
            bytes: 0,
        };
        self.write_savepoint(&entry.with_savepoint(torn.clone())).await?;
        match self.keep(&of, planned, &owner, torn, asked).await {
            Ok(def) => {
                let (bytes, positions) = (def.bytes, def.positions());
                self.write_savepoint(&entry.with_savepoint(def)).await?;
                Ok(Outcome::Done(format!("{} at {positions}; it has {bytes} bytes", change.message())))
            }
            Err(error) => {
                // Where even this fails the next statement about savepoints, or the next start, does it.
                if let Err(left) = self.clear_torn().await {
                    tracing::warn!(savepoint = %entry.name, reason = %left.message, "what was made of a savepoint is still there");
                }
                Err(error)
            }
        }
    }

    /// Writes the state of every task of `of` to the savepoint's topic.
    async fn keep(
        self: &Arc<Self>,
        of: &Arc<Entry>,
        planned: Planned,
        owner: &str,
        mut def: SavepointDef,
        asked: &CreateSavepoint,
    ) -> Result<SavepointDef, SqlError> {
        let topic = checkpoint_topic(&def.owner);
        let configs = [("retention.ms", "-1"), ("segment.bytes", "16777216")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.bus.ensure_topic(&topic, &TopicSpec { partitions: def.tasks, configs: configs.into() }).await.map_err(|e| storage(&e))?;
        let planned = Arc::new(planned);
        for index in 0..def.tasks {
            let id = TaskId { owner: owner.into(), index };
            let saved = self.save_task(of, &planned, id).await.map_err(|error| match error {
                StreamError::Bus(error) => storage(&error),
                StreamError::Limit(why) => not_begun(of, asked).note(why),
                error => SqlError::new(Code::Execution, error.to_string()),
            })?;
            def.fingerprint.clone_from(&saved.fingerprint);
            def.bytes += saved.bytes;
            def.places.extend(saved.inputs.iter().map(|input| SavedPlace {
                task: index,
                topic: input.topic.clone(),
                partition: input.partition,
                position: input.position,
                watermark: Some(input.watermark).filter(|at| *at > i64::MIN),
            }));
            let to = TopicPartition::new(topic.clone(), PartitionId(index));
            saved.write(self.bus.as_ref(), &to, self.clock.now().0).await.map_err(|e| storage(&e))?;
        }
        def.whole = true;
        Ok(def)
    }

    /// The state of one task at its last commit.
    async fn save_task(self: &Arc<Self>, of: &Arc<Entry>, planned: &Arc<Planned>, id: TaskId) -> Result<Saved, StreamError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (me, of, planned, id) = (Arc::clone(self), Arc::clone(of), Arc::clone(planned), id.clone());
            // Where queries run: whoever asks has other things to answer.
            let saving = self.runtime.spawn(async move { me.save_once(&of, &planned, id).await });
            let saved = saving.await.map_err(|e| StreamError::Limit(format!("a bug: saving its state has failed: {e}")))?;
            match saved {
                // A newer snapshot has taken the place of the one that was being read.
                Err(StreamError::Bus(BusError::OutOfRange { .. } | BusError::Retriable(_))) if tries < TRIES => {}
                saved => return saved,
            }
        }
    }

    async fn save_once(&self, of: &Entry, planned: &Planned, id: TaskId) -> Result<Saved, StreamError> {
        let made = |error: SqlError| StreamError::Limit(error.message);
        let scopes = self.cut(planned).map_err(made)?;
        let Some((scope, feeds)) = scopes.into_iter().nth(id.index as usize) else {
            return Err(StreamError::Limit(format!("task {id} reads a partition that is not there any more")));
        };
        let sources = planned.inputs.iter().zip(&planned.plan.inputs).zip(feeds).map(|((input, of), feeds)| watched(input, of, feeds));
        let spec = TaskSpec {
            id,
            sources: sources.collect(),
            scope,
            timeout: planned.plan.timeout,
            every: planned.plan.every,
            fingerprint: self.fingerprint(of, &planned.plan),
            // Nobody who runs waits for this.
            pace: Pace { following: Following::Alone, ..Pace::default() },
            delivery: Delivery::ExactlyOnce,
            budget: StateBudget::spilling(&of.name, None, self.options.spilling.clone()),
            origin: origin_of(of, &planned.plan),
            phase: None,
        };
        let chain = self.chain_of(of, &planned.plan, scope)?;
        save(spec, chain, Arc::clone(&self.bus), self.clock).await
    }

    /// Writes a savepoint's entry as it is now.
    async fn write_savepoint(&self, entry: &Arc<Entry>) -> Result<(), SqlError> {
        let change = Change::Create(Arc::clone(entry));
        if let Some(record) = change.record() {
            self.record(&record.key, record.value.as_deref()).await?;
        }
        self.catalog.write().apply(&change);
        Ok(())
    }

    /// Clears away what savepoints have left that are not whole. Whoever calls this has the right to change things.
    pub(super) async fn clear_torn(&self) -> Result<(), SqlError> {
        let torn = self.catalog.read().torn_savepoints();
        for entry in torn {
            if let Some(def) = &entry.savepoint {
                self.bus.delete_topic(&checkpoint_topic(&def.owner)).await.map_err(|e| storage(&e))?;
            }
            let change = Change::Drop(entry);
            if let Some(record) = change.record() {
                self.record(&record.key, record.value.as_deref()).await?;
            }
            self.catalog.write().apply(&change);
        }
        Ok(())
    }

    /// `DROP SAVEPOINT s`: refused while something has still to begin from it.
    pub(super) async fn drop_savepoint(&self, drop: &DropObject) -> Result<Outcome, SqlError> {
        self.clear_torn().await?;
        let change = self.catalog.read().drop_object(drop)?;
        let Change::Drop(entry) = &change else { return Ok(Outcome::Done(change.message())) };
        let Some(def) = &entry.savepoint else { return Err(SqlError::new(Code::Internal, "a savepoint that holds nothing")) };
        let begun: Vec<Arc<Entry>> = self.catalog.read().begun_from(def).cloned().collect();
        for user in begun {
            if !self.has_begun(&user).await? {
                let message = format!("{} \"{}\" has still to begin from savepoint \"{}\"", user.kind.word(), user.name, entry.name);
                let hint = if user.paused {
                    format!("RESUME {} {} lets it", user.kind.word().to_uppercase(), user.name)
                } else {
                    format!("WHY QUERY {} says what it waits for; DROP it if it is not wanted", user.name)
                };
                return Err(SqlError::new(Code::InUse, message).at(drop.name.place).hint(hint));
            }
        }
        self.write_savepoint(&entry.with_savepoint(SavepointDef { whole: false, ..SavepointDef::clone(def) })).await?;
        self.clear_torn().await?;
        Ok(Outcome::Done(change.message()))
    }

    /// Whether all tasks of a query or alert have begun from the savepoint that it is to begin from.
    async fn has_begun(&self, entry: &Entry) -> Result<bool, SqlError> {
        let Some(origin) = &entry.origin else { return Ok(true) };
        let mut owners = [true, false].map(|is_merged| entry.owner(is_merged)).to_vec();
        owners.dedup();
        let mut begun = false;
        for owner in owners {
            let tasks = self.bus.partitions(&checkpoint_topic(&owner)).await.map_err(|e| storage(&e))?;
            for index in 0..tasks.unwrap_or(0) {
                let task = TaskId { owner: owner.as_str().into(), index };
                let has = has_begun(self.bus.as_ref(), &task, &origin.mark).await;
                if !has.map_err(|e| SqlError::new(Code::Storage, e.to_string()))? {
                    return Ok(false);
                }
                begun = true;
            }
        }
        Ok(begun)
    }

    /// A change of a query or alert with the savepoint that it begins from, and whether it does so anew.
    pub(super) fn with_origin(&self, change: Change) -> Result<(Change, bool), SqlError> {
        let (entry, before) = match &change {
            Change::Create(entry) => (entry, None),
            Change::Replace { old, new } => (new, old.origin.as_deref()),
            _ => return Ok((change, false)),
        };
        let Some(origin) = self.catalog.read().origin_of(entry, before, self.clock.now())? else { return Ok((change, false)) };
        let entry = Arc::new(Entry { origin: Some(Arc::new(origin)), ..Entry::clone(entry) });
        let change = match change {
            Change::Replace { old, .. } => Change::Replace { old, new: entry },
            _ => Change::Create(entry),
        };
        Ok((change, true))
    }

    /// Whether a query or alert can begin from the savepoint that it names: what kind it is, its state, its input.
    pub(super) async fn check_origin(&self, entry: &Entry, planned: &Planned) -> Result<(), SqlError> {
        let Some(origin) = &entry.origin else { return Ok(()) };
        let place = match &*entry.statement {
            Statement::CreateQuery(q) => q.options.given.place("start"),
            Statement::CreateAlert(a) => a.options.given.place("start"),
            _ => None,
        };
        self.check_savepoint(entry, planned).await.map_err(|e| e.at(place))?;
        let (savepoint, def) = {
            let catalog = self.catalog.read();
            let (savepoint, def) = catalog.savepoint(&Name { text: origin.savepoint.clone(), place })?;
            (Arc::clone(savepoint), Arc::clone(def))
        };
        let wrong = |message: String| SqlError::new(Code::BadDefinition, message).at(place);
        if def.format > SAVEPOINT_FORMAT {
            let message = format!(
                "savepoint \"{}\" was written by version {} of the program, which writes them in another way",
                savepoint.name, def.program
            );
            return Err(wrong(message).hint("begin from it with that version, or a later one"));
        }
        check_kind(entry, &savepoint, &wrong)?;
        let count = self.cut(planned)?.len() as i32;
        let merged = planned.plan.placement == Placement::Merged;
        let is_cut_alike = entry.kind == Kind::Alert || merged == def.merged;
        if is_cut_alike && (def.tasks > count || (def.tasks < count && keeps_keys(entry, &planned.plan))) {
            let stream = &planned.inputs[0].stream;
            return Err(repartitioned(stream, def.tasks, count)
                .at(place)
                .hint("leave 'start' out: it then begins where that says; the savepoint is of another number of partitions"));
        }
        let topics: Vec<String> = planned.inputs.iter().map(|input| input.stream.topic.to_string()).collect();
        let fits = def.fingerprint == self.fingerprint(entry, &planned.plan) && def.topics == topics;
        if !fits && state_of(entry) == SavepointState::Kept {
            return Err(misfit(entry, &savepoint, &def, planned, &topics).at(place));
        }
        self.check_places(&savepoint.name, &def, &topics).await.map_err(|e| e.at(place))
    }

    /// Whether the records are still there that a savepoint has not read yet.
    async fn check_places(&self, name: &str, def: &SavepointDef, topics: &[String]) -> Result<(), SqlError> {
        let mut amiss = Vec::new();
        for place in def.places.iter().filter(|place| topics.contains(&place.topic)) {
            if let Err(why) = self.behind(place).await? {
                amiss.push(why);
            }
        }
        if amiss.is_empty() {
            return Ok(());
        }
        let message = format!("savepoint \"{name}\" cannot be begun from: what lies behind it is gone");
        let more = amiss.len().saturating_sub(4);
        let mut error = SqlError::new(Code::Execution, message)
            .hint("leave 'start' out to begin at the oldest records that are there, without the state; the gap stays a gap");
        for why in amiss.into_iter().take(4) {
            error = error.note(why);
        }
        Err(if more > 0 { error.note(format!("and {more} more")) } else { error })
    }

    /// How many records lie behind a place in the log, or what is amiss there.
    async fn behind(&self, place: &SavedPlace) -> Result<Result<i64, String>, SqlError> {
        let Ok(topic) = TopicName::new(&place.topic) else { return Ok(Err(format!("\"{}\" is no topic", place.topic))) };
        let of = TopicPartition::new(topic, PartitionId(place.partition));
        let position = Offset(place.position);
        Ok(match self.bus.bounds(&of).await {
            Ok(there) if position < there.start => {
                Err(format!("{of} begins at offset {} by now, and the savepoint stands at {position}", there.start))
            }
            Ok(there) if position > there.end => {
                Err(format!("{of} ends at offset {}, before the savepoint, which stands at {position}: it has been made anew", there.end))
            }
            Ok(there) => Ok(there.end.0 - position.0),
            Err(BusError::NoSuchTopic(_) | BusError::NoSuchPartition(_)) => Err(format!("there is no {of} any more")),
            Err(error) => return Err(storage(&error)),
        })
    }

    /// `RESTORE QUERY q FROM SAVEPOINT s`.
    pub(super) async fn restore(self: &Arc<Self>, restore: &Restore) -> Result<Outcome, SqlError> {
        let change = self.catalog.read().restore(restore, self.clock.now())?;
        let Change::Replace { new: entry, .. } = &change else { return Ok(Outcome::Done(change.message())) };
        let planned = self.planned(select_of(entry)?, Purpose::ExactlyOnce).await?;
        self.check_tasks(entry, &planned).await?;
        self.check_origin(entry, &planned).await.map_err(|e| SqlError { place: restore.savepoint.place, ..e })?;
        self.start_again(&change, entry).await?;
        let (what, begins) = (format!("{} \"{}\"", entry.kind.word(), entry.name), self.begins_with(entry));
        Ok(Outcome::Done(format!("restored {what} (version {}){begins}", entry.version)))
    }

    /// What whoever let something begin from a savepoint is told.
    pub(super) fn begins_with(&self, entry: &Entry) -> String {
        let name = entry.origin.as_ref().map_or("", |origin| origin.savepoint.as_str());
        if entry.paused {
            return format!("; RESUME {} {} lets it begin from savepoint \"{name}\"", entry.kind.word().to_uppercase(), entry.name);
        }
        let mut refill = crate::stream::Refill::default();
        if let Some(running) = self.running.lock().get(&entry.name) {
            running.tasks.iter().for_each(|task| refill.add(task.stats.refill_progress()));
        }
        let remade = match refill.records {
            0 => String::new(),
            records if refill.goes_on => {
                format!(", its state being made again from {records} records: WHY QUERY {} says how far it is", entry.name)
            }
            records => format!(", its state made again from {records} records"),
        };
        format!("; it begins from savepoint \"{name}\"{remade}")
    }

    /// `DESCRIBE SAVEPOINT s`.
    pub(super) async fn describe_savepoint(&self, name: &Name) -> Result<Outcome, SqlError> {
        let def = Arc::clone(self.catalog.read().savepoint(name)?.1);
        let mut there = Vec::with_capacity(def.places.len());
        for place in &def.places {
            there.push(self.behind(place).await?);
        }
        let mut there = there.into_iter();
        Ok(rows(describe_savepoint(&def, |_| there.next().expect("one a place"))))
    }
}

/// A savepoint of what has no state yet that could be kept.
fn not_begun(of: &Entry, asked: &CreateSavepoint) -> SqlError {
    let (word, name) = (of.kind.word(), &of.name);
    let hint = if of.paused {
        format!("RESUME {} {name} first", word.to_uppercase())
    } else {
        format!("WHY QUERY {name} says what it waits for; try again when it runs")
    };
    SqlError::new(Code::Execution, format!("{word} \"{name}\" is not ready for a savepoint")).at(asked.of.place).hint(hint)
}

/// What is to become of state that does not fit.
fn state_of(entry: &Entry) -> SavepointState {
    match &*entry.statement {
        Statement::CreateQuery(q) => q.options.savepoint_state,
        Statement::CreateAlert(a) => a.options.savepoint_state,
        _ => SavepointState::default(),
    }
}

/// Refuses a savepoint of something else.
fn check_kind(entry: &Entry, savepoint: &Entry, wrong: &impl Fn(String) -> SqlError) -> Result<(), SqlError> {
    let Statement::CreateSavepoint(taken) = &*savepoint.statement else { return Ok(()) };
    let what = format!("savepoint \"{}\" is of {} \"{}\"", savepoint.name, taken.kind.word(), taken.of);
    match (taken.kind, entry.kind) {
        (Kind::Alert, Kind::Alert) if taken.of.text == entry.name => Ok(()),
        (Kind::Alert, Kind::Alert) => Err(wrong(format!("{what}, whose open alerts go by its name: no other alert can go on with them"))
            .hint("leave 'start' out, or name a savepoint of this alert")),
        (Kind::Alert, _) => Err(wrong(format!("{what}: a query cannot go on with its alerts")).hint("name a savepoint of a query or view")),
        (_, Kind::Alert) => Err(wrong(format!("{what}: an alert cannot go on with its state")).hint("name a savepoint of this alert")),
        _ => Ok(()),
    }
}

/// The state is of another plan: which lines of the two plans differ.
fn misfit(entry: &Entry, savepoint: &Entry, def: &SavepointDef, planned: &Planned, topics: &[String]) -> SqlError {
    let message = format!(
        "{} \"{}\" cannot go on with the state of savepoint \"{}\": it is of another plan",
        entry.kind.word(),
        entry.name,
        savepoint.name
    );
    let now = planned.plan.explain();
    let only = |one: &str, other: &str| {
        let lines = one.lines().filter(|line| !other.lines().any(|known| known == *line)).map(str::trim_end);
        lines.collect::<Vec<_>>().join("; ")
    };
    let (theirs, ours) = (only(&def.plan, &now), only(&now, &def.plan));
    let mut error = SqlError::new(Code::BadDefinition, message);
    if def.topics != topics {
        error = error.note(format!("the savepoint reads {}, this reads {}", def.topics.join(", "), topics.join(", ")));
    }
    if !theirs.is_empty() {
        error = error.note(format!("only in the savepoint: {theirs}"));
    }
    if !ours.is_empty() {
        error = error.note(format!("only in this: {ours}"));
    }
    if theirs.is_empty() && ours.is_empty() {
        error = error.note(format!("it was taken with version {} of the program, this is {}", def.program, env!("CARGO_PKG_VERSION")));
    }
    let hint = "write the statement as SHOW CREATE SAVEPOINT shows it, or let the state be made again from the input up to there: \
                CREATE OR REPLACE .. WITH ('start' = 'savepoint:..', 'savepoint.state' = 'remade')";
    error.hint(hint)
}
