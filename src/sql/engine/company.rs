//! One engine of several over the same log: what others change is followed here, and what is changed here is theirs too.
//!
//! The catalogue's topic is the order of all changes. Who changes something takes the right to write there from the others, takes in what they
//! have written, checks, writes: so between check and write nothing comes. The others read it and start, stop and replace what it says.
//! Always: a task is opened by whoever knows the catalogue as it stood when the task became its own; what is dropped is deleted
//! when no process runs it any more. On a log of one's own none of this is needed, and nothing is done.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::MutexGuard;
use tokio::task::JoinHandle;

use super::phases::own_topics;
use super::running::{self, Watched};
use super::{Engine, Outcome, catalog_topic, storage};
use crate::bus::{Bus, BusError, Commit, Company, TaskId, TopicBatch, TopicSpec, Whereabouts, checkpoint_topic};
use crate::record::{BatchBuilder, Offset, PartitionId, TopicPartition};
use crate::sql::catalog::{Entry, Existing, TakenIn};
use crate::sql::error::{Code, SqlError};
use crate::sql::statement::{Kind, Parsed};
use crate::stream::StreamError;

/// How long the others have to take in that something was dropped.
const ALL_PATIENCE: Duration = Duration::from_secs(30);
/// How long until one's own change can be read.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// How long until what failed in passing is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a statement is run again that another process was quicker than.
const TRIES: u32 = 20;
/// It waits for up to this long at first unless the other one's change comes sooner, and for up to twice as long each time ..
const FIRST_WAIT_MS: u64 = 1_000;
/// .. but no longer than this.
const LONGEST_WAIT_MS: u64 = 10_000;
/// What is said then.
const OVERTAKEN: &str = "another process of the application has changed the catalogue at the same time";

/// A record of the catalogue as it was read.
struct Stored {
    at: Offset,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// A step from outside, on its way to the process that runs the task.
#[derive(Serialize, Deserialize)]
struct Step {
    rule: String,
    body: String,
}

pub(super) fn place() -> TopicPartition {
    TopicPartition::new(catalog_topic(), PartitionId(0))
}

impl Engine {
    /// Begins to follow what the other processes do.
    pub(super) async fn join_company(self: &Arc<Self>) -> Result<Vec<JoinHandle<()>>, BusError> {
        let Some(company) = self.bus.company() else { return Ok(Vec::new()) };
        company.has_followed(Offset(*self.followed.borrow()));
        let steps = TopicPartition::new(company.steps().clone(), PartitionId(0));
        let spec = TopicSpec { partitions: 1, configs: [("retention.ms".to_owned(), "3600000".to_owned())].into() };
        self.bus.ensure_topic(&steps.topic, &spec).await?;
        let (changes, told) = (Arc::downgrade(self), Arc::downgrade(self));
        let (bus, of) = (Arc::clone(&self.bus), Arc::clone(&self.bus));
        let follow = self.runtime.spawn(async move { follow_changes(changes, bus).await });
        let take = self.runtime.spawn(async move { follow_steps(told, of, steps).await });
        Ok(vec![follow, take])
    }

    /// Runs a statement, once more where another process was quicker.
    pub(super) async fn unhindered(self: &Arc<Self>, parsed: &Parsed, existing: Existing) -> Result<Outcome, SqlError> {
        let mut most = FIRST_WAIT_MS;
        for _ in 1..TRIES {
            match self.statement(parsed, existing).await {
                // Whoever was quicker has time to finish: each waits for its change, and, should none come, for another time, longer and longer.
                Err(error) if error.message == OVERTAKEN => {
                    let mut followed = self.followed.subscribe();
                    let chance = most / 2 + (uuid::Uuid::new_v4().as_u128() % u128::from(most / 2)) as u64;
                    // The sender lives as long as this does.
                    let _ = tokio::time::timeout(Duration::from_millis(chance), followed.changed()).await;
                    most = (most * 2).min(LONGEST_WAIT_MS);
                    if existing == Existing::Replace && self.is_there(parsed) {
                        return Ok(Outcome::Done(String::new()));
                    }
                }
                done => return done,
            }
        }
        self.statement(parsed, existing).await
    }

    /// Nobody else changes anything, here or in another process, until this is dropped and, elsewhere, somebody asks for the same.
    pub(super) async fn exclusive(self: &Arc<Self>) -> Result<MutexGuard<'_, ()>, SqlError> {
        let guard = self.change.lock().await;
        if let Some(company) = self.bus.company() {
            let writer = company.catalogue().await.map_err(|e| storage(&e))?;
            self.follow().await.map_err(|e| storage(&e))?;
            *self.writer.lock().await = Some(writer);
        }
        Ok(guard)
    }

    /// Writes a change of the catalogue.
    pub(super) async fn record(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), SqlError> {
        let mut records = BatchBuilder::new();
        records.push(self.clock.now().0, Some(key), value, &[]);
        let outputs = vec![TopicBatch { to: place(), records }];
        let Some(company) = self.bus.company() else { return self.bus.append(outputs).await.map_err(|e| storage(&e)) };
        let mut writer = self.writer.lock().await;
        let writer = writer.as_mut().ok_or_else(|| SqlError::new(Code::Internal, "a change of the catalogue that nobody has asked for"))?;
        writer.commit(Commit { outputs, checkpoint: None }).await.map_err(|error| match error {
            BusError::Fenced(_) => SqlError::new(Code::Storage, OVERTAKEN).hint("run the statement again"),
            error => storage(&error),
        })?;
        self.pass_own(company, key, value).await.map_err(|e| storage(&e))
    }

    /// Goes past what this process has just written.
    async fn pass_own(&self, company: &dyn Company, key: &[u8], value: Option<&[u8]>) -> Result<(), BusError> {
        let from = Offset(*self.followed.borrow());
        let read = async {
            loop {
                let (stored, end) = self.catalogue_from(from).await?;
                let mut stored = stored.into_iter();
                match stored.next() {
                    Some(own) if own.key == key && own.value.as_deref() == value => {
                        return Ok(stored.next().map_or(end, |others| others.at));
                    }
                    Some(_) => return Err(BusError::Invalid("the catalogue holds a change that nobody could have made".to_owned())),
                    None => self.bus.wait(&place(), end.max(from)).await?,
                }
            }
        };
        let late = |_| BusError::Retriable("what was written to the catalogue cannot be read yet".to_owned());
        let upto = tokio::time::timeout(READ_PATIENCE, read).await.map_err(late)??;
        self.followed.send_replace(upto.0);
        company.has_followed(upto);
        Ok(())
    }

    /// The records of the catalogue from an offset on, and where it ends.
    async fn catalogue_from(&self, from: Offset) -> Result<(Vec<Stored>, Offset), BusError> {
        let end = self.bus.bounds(&place()).await?.end;
        let mut found = Vec::new();
        if end <= from {
            return Ok((found, from));
        }
        let mut reader = self.bus.open(&place(), from).await?;
        while reader.position() < end {
            let at = reader.position();
            let batches = reader.poll(4 << 20).await?;
            if batches.is_empty() && reader.position() == at {
                return Err(BusError::Retriable(format!("{} ends at offset {at}, and it said {end}", place())));
            }
            for batch in batches.iter().filter(|batch| !batch.header().is_control()) {
                let records = batch.records().map_err(|e| BusError::Corrupt(e.to_string()))?;
                for record in records.iter() {
                    let record = record.map_err(|e| BusError::Corrupt(e.to_string()))?;
                    if record.offset >= from && record.offset < end {
                        let (key, value) = (record.key.unwrap_or_default().to_vec(), record.value.map(<[u8]>::to_vec));
                        found.push(Stored { at: record.offset, key, value });
                    }
                }
            }
        }
        Ok((found, end))
    }

    /// Takes in what other processes have changed. Under the lock of changes.
    async fn follow(self: &Arc<Self>) -> Result<(), BusError> {
        let Some(company) = self.bus.company() else { return Ok(()) };
        let from = Offset(*self.followed.borrow());
        let (stored, end) = self.catalogue_from(from).await?;
        for record in stored {
            self.take_in(&record.key, record.value.as_deref()).await;
            self.followed.send_replace(record.at.plus(1).0);
        }
        if end > from {
            self.followed.send_replace(end.0);
            company.has_followed(end);
        }
        Ok(())
    }

    async fn take_in(self: &Arc<Self>, key: &[u8], value: Option<&[u8]>) {
        let taken = self.catalog.write().replay(key, value);
        let TakenIn { old, new } = match taken {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!(%error, "a statement of the catalogue cannot be read");
                return;
            }
        };
        match (old, new) {
            (None, None) => {}
            (Some(old), None) => self.take_leave(&old).await,
            (None, Some(new)) => self.start(&new).await,
            (Some(old), Some(new)) if old.version == new.version && old.text == new.text && old.paused == new.paused => {}
            (Some(_), Some(new)) => {
                tracing::info!(name = %new.name, version = new.version, paused = new.paused, "changed by another process");
                if new.is_task() {
                    self.halt(&new.name).await;
                    self.start(&new).await;
                } else {
                    let failed = self.restart_users(&new).await;
                    if !failed.is_empty() {
                        tracing::error!(name = %new.name, "these do not start with it: {}", failed.join(", "));
                    }
                }
            }
        }
    }

    async fn start(self: &Arc<Self>, entry: &Arc<Entry>) {
        if entry.kind == Kind::View {
            self.views_changed.send_replace(());
        }
        if entry.is_task()
            && let Err(error) = self.launch(entry).await
        {
            tracing::error!(name = %entry.name, code = %error.code, reason = %error.message, "could not start what another process has created");
        }
    }

    /// Another process has dropped it, and deletes what it leaves.
    async fn take_leave(&self, entry: &Entry) {
        if entry.is_task() {
            self.halt(&entry.name).await;
        }
        self.forget_feeds(&entry.name);
        if let Some(company) = self.bus.company() {
            for topic in own_topics(entry) {
                company.forget(&topic);
            }
        }
        if entry.kind == Kind::View {
            self.views_changed.send_replace(());
        }
    }

    /// Before what was dropped is deleted: no process runs it any more.
    pub(super) async fn all_have_followed(&self) -> Result<(), SqlError> {
        let Some(company) = self.bus.company() else { return Ok(()) };
        let upto = Offset(*self.followed.borrow());
        company.all_followed(upto, ALL_PATIENCE).await.map_err(|e| {
            storage(&e).hint("what it has left is kept until then; a process that is gone is replaced after its session's time-out")
        })
    }

    /// Before something is created: what a former one of the same name has left, because a process died or was not heard from, goes.
    pub(super) async fn clear_leavings(&self, entry: &Entry) -> Result<(), SqlError> {
        if self.bus.company().is_none() || !entry.is_task() {
            return Ok(());
        }
        for topic in own_topics(entry) {
            if self.bus.partitions(&topic).await.map_err(|e| storage(&e))?.is_some() {
                self.all_have_followed().await?;
                self.bus.delete_topic(&topic).await.map_err(|e| storage(&e))?;
            }
        }
        Ok(())
    }

    /// Before a version takes another one's place whose tasks are cut in another way: the others may be running those by what would be
    /// handed over.
    pub(super) async fn check_cut(&self, entry: &Entry, before: &str) -> Result<(), SqlError> {
        if self.bus.company().is_none() || self.bus.partitions(&checkpoint_topic(before)).await.map_err(|e| storage(&e))?.is_none() {
            return Ok(());
        }
        let message = format!(
            "one version of {} \"{}\" merges all partitions in one task and the other has one for each, which cannot be changed while several processes \
             may run it",
            entry.kind.word(),
            entry.name
        );
        Err(SqlError::new(Code::InUse, message).hint("DROP it and CREATE it again"))
    }

    /// Completes once everything is taken in that stood in the catalogue when this was asked.
    pub(super) async fn catalogue_is_current(&self) -> Result<(), StreamError> {
        if self.bus.company().is_none() {
            return Ok(());
        }
        let end = self.bus.bounds(&place()).await?.end;
        // The sender lives as long as this does.
        let _ = self.followed.subscribe().wait_for(|followed| *followed >= end.0).await;
        Ok(())
    }

    /// Completes when another process has changed something that is not taken in yet; never on a log of one's own.
    pub(super) async fn others_change(&self) {
        if self.bus.company().is_some() {
            let from = Offset(*self.followed.borrow());
            if self.bus.wait(&place(), from).await.is_ok() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Sends a step from outside to whoever runs the task; answers once it is on its way.
    pub(super) async fn send_step(&self, company: &dyn Company, rule: &str, body: String) -> Result<(), SqlError> {
        let step = serde_json::to_vec(&Step { rule: rule.to_owned(), body }).expect("a step is plain data");
        let mut records = BatchBuilder::new();
        records.push(self.clock.now().0, None, Some(&step), &[]);
        let to = TopicPartition::new(company.steps().clone(), PartitionId(0));
        self.bus.append(vec![TopicBatch { to, records }]).await.map_err(|e| storage(&e))
    }

    /// Takes a step: the tasks that run here do, if it is theirs.
    async fn take_step(&self, step: &[u8]) {
        let Ok(step) = serde_json::from_slice::<Step>(step) else { return };
        let controls: Vec<_> = {
            let running = self.running.lock();
            let rule = running.get(&step.rule).filter(|r| r.entry.kind == Kind::Alert);
            rule.map(|rule| rule.tasks.iter().filter_map(Watched::control).collect()).unwrap_or_default()
        };
        for control in controls {
            if let Err(why) = running::external(Some(control), step.body.clone()).await {
                tracing::warn!(rule = %step.rule, why, "a step from outside was not taken");
            }
        }
    }

    /// Where the tasks of an owner run that do not run here: each place, and which they are. The first of them are of a first phase.
    pub(super) fn elsewhere(&self, owner: &str, tasks: &[i32], first: i32) -> Vec<(Whereabouts, Vec<i32>)> {
        let Some(company) = self.bus.company() else { return Vec::new() };
        let mut places: Vec<(Whereabouts, Vec<i32>)> = Vec::new();
        for index in tasks {
            // Where a task runs goes by its number alone, and those of a second phase are numbered anew.
            let number = if *index < first { *index } else { index - first };
            let place = company.whereabouts(&TaskId { owner: owner.into(), index: number });
            match places.iter_mut().find(|(known, _)| *known == place) {
                Some((_, all)) => all.push(*index),
                None => places.push((place, vec![*index])),
            }
        }
        places
    }
}

/// Takes in what other processes change, as long as there is an engine.
async fn follow_changes(engine: Weak<Engine>, bus: Arc<dyn Bus>) {
    loop {
        let Some(from) = engine.upgrade().map(|engine| *engine.followed.borrow()) else { return };
        let mut done = bus.wait(&place(), Offset(from)).await;
        if done.is_ok() {
            let Some(engine) = engine.upgrade() else { return };
            let _one = engine.change.lock().await;
            done = engine.follow().await;
        }
        if let Err(error) = done {
            tracing::warn!(%error, "could not follow the catalogue; trying again");
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Takes the steps that come from outside through other processes, as long as there is an engine.
async fn follow_steps(engine: Weak<Engine>, bus: Arc<dyn Bus>, of: TopicPartition) {
    let mut position = None;
    loop {
        if let Err(error) = take_steps(&engine, bus.as_ref(), &of, &mut position).await {
            tracing::warn!(%error, "could not follow steps from outside; trying again");
        }
        if engine.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn take_steps(engine: &Weak<Engine>, bus: &dyn Bus, of: &TopicPartition, position: &mut Option<Offset>) -> Result<(), BusError> {
    let bounds = bus.bounds(of).await?;
    // Who begins hears of what comes: what came before was for others.
    let from = position.map_or(bounds.end, |at| at.max(bounds.start));
    let mut reader = bus.open(of, from).await?;
    *position = Some(from);
    loop {
        let from = reader.position();
        let batches = reader.poll(1 << 20).await?;
        let Some(engine) = engine.upgrade() else { return Ok(()) };
        for batch in batches.iter().filter(|batch| !batch.header().is_control()) {
            let Ok(records) = batch.records() else { continue };
            for record in records.iter().flatten().filter(|record| record.offset >= from) {
                engine.take_step(record.value.unwrap_or_default()).await;
            }
        }
        drop(engine);
        *position = Some(reader.position());
        if batches.is_empty() {
            bus.wait(of, reader.position()).await?;
        }
    }
}
