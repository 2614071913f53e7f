//! The thin shell around the groups: [`Coordinator`]. It holds one lock a group, sends the replies that the
//! pure machine of `group` makes, stores what it wants stored, and calls it when its time has come.
//!
//! Always: what is to be stored is handed to the log under the group's lock, so the log has it in the order
//! in which the group decided it; an offset is acknowledged, and shown, only when it is durable. One task
//! watches the deadlines of all groups. Groups live by the time that passes ([`Clock::steady`]), not by the node's clock, which a
//! demonstration may run faster and which may be set by hours: their members' heartbeats come in real time. Called by `server`.

mod consumer;
mod txn;

pub(in crate::broker) use txn::TxnOffsets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::alarms::Alarms;
use super::catalogue::Catalogue;
use super::error::BrokerError;
use super::group::{
    CommitRequest, Committed, Described, Effect, Group, GroupConfig, GroupId, GroupKind, GroupRecord, HeartbeatRequest, JoinReply,
    JoinRequest, LeaveReply, Leaving, Listed, Replay, SyncReply, SyncRequest, Token,
};
use super::journal::{Entry, Journal, size};
use super::settings::Settings;
use crate::log::{Log, Permit, Submitted};
use crate::record::{Offset, TopicId, TopicName, TopicPartition};
use crate::time::{Clock, Timestamp};
use crate::wire::error_code;

/// How often groups are looked through for what is too old (Kafka's `offsets.retention.check.interval.ms`): a group
/// that just became empty is still there for whoever asks.
const EXPIRE_EVERY_MS: i64 = 10 * 60 * 1000;
/// About what a change of a group's state takes in the log.
const STATE_BYTES: usize = 1024;

/// All groups of the node.
pub struct Coordinator {
    config: GroupConfig,
    clock: Clock,
    topics: Arc<Catalogue>,
    settings: Arc<Settings>,
    journal: Arc<Journal>,
    cells: Mutex<BTreeMap<GroupId, Arc<Cell>>>,
    /// When which group wants to be called, the earliest first.
    alarms: Alarms<GroupId>,
    tokens: AtomicU64,
    /// The groups in which a producer's transaction has committed offsets.
    transactions: Mutex<BTreeMap<i64, BTreeSet<GroupId>>>,
    /// When groups were last looked through for what is too old.
    expired_at: Mutex<Timestamp>,
}

/// One group and who waits in it.
struct Cell {
    id: GroupId,
    inner: Mutex<Inner>,
}

struct Inner {
    group: Group,
    joining: BTreeMap<Token, oneshot::Sender<JoinReply>>,
    syncing: BTreeMap<Token, oneshot::Sender<SyncReply>>,
    /// When the group is called next, if that is arranged.
    alarm: Option<Timestamp>,
    /// It is no longer in the map: look it up again.
    dropped: bool,
}

/// What a step in a group leaves to do once its lock is gone.
#[must_use]
struct Stored(Option<Submitted>);

impl Stored {
    /// Waits for what was stored where nobody's answer depends on it: a failure is only told.
    async fn told(self, group: &GroupId) {
        if let Some(submitted) = self.0
            && let Err(error) = submitted.await
        {
            tracing::warn!(%group, %error, "the state of a group could not be stored");
        }
    }
}

impl Coordinator {
    /// Reads all groups back. Blocks. The records it answers are to be appended: they say since when groups
    /// without members are without.
    pub(super) fn open(
        log: &Arc<Log>,
        id: TopicId,
        config: GroupConfig,
        topics: Arc<Catalogue>,
        settings: Arc<Settings>,
        clock: Clock,
    ) -> Result<(Self, Vec<Entry>), BrokerError> {
        let clock = clock.steady();
        let mut replay = Replay::default();
        let mut unreadable = 0_u64;
        let journal = Journal::open(log, "__consumer_offsets", id, clock, |at, key, value| {
            if replay.take(at, key, value).is_err() {
                unreadable += 1;
            }
        })?;
        if unreadable > 0 {
            tracing::error!(records = unreadable, "records of __consumer_offsets cannot be read: groups may have lost positions");
        }
        let (groups, records) = replay.finish(config, clock.now());
        let coordinator = Self {
            config,
            clock,
            topics,
            settings,
            journal,
            cells: Mutex::default(),
            alarms: Alarms::default(),
            tokens: AtomicU64::new(0),
            transactions: Mutex::default(),
            expired_at: Mutex::new(clock.now()),
        };
        for group in &groups {
            for producer_id in group.pending_producers() {
                coordinator.transactions.lock().entry(producer_id).or_default().insert(group.id().clone());
            }
        }
        for group in groups {
            let cell = Arc::new(Cell::new(group));
            // The members of a group of KIP-848 are there again, and have to be heard of.
            let next = cell.inner.lock().group.next_deadline();
            if let Some(next) = next {
                coordinator.alarms.set(&cell.id, &mut cell.inner.lock().alarm, next);
            }
            coordinator.cells.lock().insert(cell.id.clone(), cell);
        }
        Ok((coordinator, entries(records)))
    }

    pub(super) const fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Does something in a group, made where there is none.
    fn within<R>(&self, id: &GroupId, step: impl FnOnce(&mut Inner, Timestamp) -> R) -> R {
        loop {
            let cell = Arc::clone(
                self.cells
                    .lock()
                    .entry(id.clone())
                    .or_insert_with(|| Arc::new(Cell::new(Group::new(id.clone(), self.config, self.clock.now())))),
            );
            let mut inner = cell.inner.lock();
            if inner.dropped || inner.group.is_dead() {
                drop(inner);
                self.drop_cell(&cell);
                continue;
            }
            let result = step(&mut inner, self.clock.now());
            self.after(&cell, &mut inner);
            return result;
        }
    }

    /// Does something in a group that exists.
    fn within_existing<R>(&self, id: &GroupId, step: impl FnOnce(&mut Inner, Timestamp) -> R) -> Option<R> {
        let cell = self.cells.lock().get(id).cloned()?;
        let mut inner = cell.inner.lock();
        if inner.dropped || inner.group.is_dead() {
            return None;
        }
        let result = step(&mut inner, self.clock.now());
        self.after(&cell, &mut inner);
        Some(result)
    }

    /// Arranges the group's next call, and lets go of a group that is over.
    fn after(&self, cell: &Arc<Cell>, inner: &mut Inner) {
        if inner.group.is_dead() || inner.group.is_unused() {
            inner.dropped = true;
            inner.joining.clear();
            inner.syncing.clear();
            self.drop_cell(cell);
            return;
        }
        let Some(next) = inner.group.next_deadline() else { return };
        self.alarms.set(&cell.id, &mut inner.alarm, next);
    }

    fn drop_cell(&self, cell: &Arc<Cell>) {
        let mut cells = self.cells.lock();
        if cells.get(&cell.id).is_some_and(|there| Arc::ptr_eq(there, cell)) {
            cells.remove(&cell.id);
        }
    }

    /// Carries out what the machine wants.
    fn carry_out(&self, inner: &mut Inner, effects: Vec<Effect>, permit: Permit) -> Stored {
        let mut records = Vec::new();
        for effect in effects {
            match effect {
                Effect::Join(token, reply) => {
                    // Whoever waited may have gone away, here and below.
                    if let Some(waiting) = inner.joining.remove(&token) {
                        let _ = waiting.send(reply);
                    }
                }
                Effect::Sync(token, reply) => {
                    if let Some(waiting) = inner.syncing.remove(&token) {
                        let _ = waiting.send(reply);
                    }
                }
                Effect::Store(record) => records.push(record),
            }
        }
        self.store(inner, records, permit)
    }

    fn store(&self, inner: &Inner, records: Vec<GroupRecord>, permit: Permit) -> Stored {
        if records.is_empty() {
            return Stored(None);
        }
        match self.journal.submit(&entries(records), permit) {
            Ok((_, submitted)) => Stored(Some(submitted)),
            Err(error) => {
                tracing::warn!(group = %inner.group.id(), %error, "the state of a group could not be stored");
                Stored(None)
            }
        }
    }

    fn token(&self) -> Token {
        Token(self.tokens.fetch_add(1, Ordering::Relaxed))
    }

    /// A member joins; completes with its generation. The token in `request` is set here.
    pub async fn join(&self, id: &GroupId, mut request: JoinRequest) -> JoinReply {
        request.token = self.token();
        let (reply, waiting) = oneshot::channel();
        let permit = self.journal.room(STATE_BYTES).await;
        let stored = self.within(id, |inner, now| {
            inner.joining.insert(request.token, reply);
            let effects = inner.group.join(now, &request, &*self.topics);
            self.carry_out(inner, effects, permit)
        });
        stored.told(id).await;
        waiting.await.unwrap_or_else(|_| JoinReply::refused(error_code::COORDINATOR_NOT_AVAILABLE, &request.member_id))
    }

    /// A member asks for its assignment. The token in `request` is set here.
    pub async fn sync(&self, id: &GroupId, mut request: SyncRequest) -> SyncReply {
        request.token = self.token();
        let (reply, waiting) = oneshot::channel();
        let permit = self.journal.room(STATE_BYTES).await;
        let stored = self.within_existing(id, |inner, now| {
            inner.syncing.insert(request.token, reply);
            let effects = inner.group.sync(now, &request, &*self.topics);
            self.carry_out(inner, effects, permit)
        });
        let Some(stored) = stored else { return SyncReply::refused(error_code::UNKNOWN_MEMBER_ID) };
        stored.told(id).await;
        waiting.await.unwrap_or_else(|_| SyncReply::refused(error_code::COORDINATOR_NOT_AVAILABLE))
    }

    /// A member says that it lives; answers Kafka's error.
    #[must_use]
    pub fn heartbeat(&self, id: &GroupId, request: &HeartbeatRequest) -> i16 {
        self.within_existing(id, |inner, now| inner.group.heartbeat(now, request)).unwrap_or(error_code::UNKNOWN_MEMBER_ID)
    }

    /// Members leave.
    pub async fn leave(&self, id: &GroupId, leaving: Vec<Leaving>) -> LeaveReply {
        let permit = self.journal.room(STATE_BYTES).await;
        let done = self.within_existing(id, |inner, now| {
            let (reply, effects) = inner.group.leave(now, leaving.clone(), &*self.topics);
            let stored = self.carry_out(inner, effects, permit);
            (reply, stored)
        });
        match done {
            Some((reply, stored)) => {
                stored.told(id).await;
                reply
            }
            None => LeaveReply {
                error: error_code::NONE,
                members: leaving.into_iter().map(|member| (member, error_code::UNKNOWN_MEMBER_ID)).collect(),
            },
        }
    }

    /// Stores positions, durable when this returns. Answers each one's error, or one for all. Runs to its
    /// end even where the caller goes away: the group counts what is on its way.
    pub async fn commit(self: &Arc<Self>, id: &GroupId, request: CommitRequest) -> Result<Vec<(TopicPartition, i16)>, i16> {
        let (me, id) = (Arc::clone(self), id.clone());
        let done = tokio::spawn(async move { me.commit_to_the_end(&id, &request).await }).await;
        // The task is gone only when the node stops.
        done.unwrap_or(Err(error_code::COORDINATOR_NOT_AVAILABLE))
    }

    async fn commit_to_the_end(&self, id: &GroupId, request: &CommitRequest) -> Result<Vec<(TopicPartition, i16)>, i16> {
        let bytes = request.offsets.iter().map(|one| 128 + one.metadata.as_ref().map_or(0, String::len)).sum();
        let permit = self.journal.room(bytes).await;
        let planned = self.within(id, |inner, now| {
            let plan = inner.group.plan_commit(now, request)?;
            if plan.accepted.is_empty() {
                return Ok((plan, None));
            }
            match self.journal.submit(&entries(plan.records()), permit) {
                Ok(placed) => {
                    inner.group.commit_placed(&plan, placed.0);
                    Ok((plan, Some(placed)))
                }
                Err(error) => {
                    tracing::warn!(group = %id, %error, "positions could not be stored");
                    inner.group.commit_failed(&plan);
                    Err(error_code::COORDINATOR_NOT_AVAILABLE)
                }
            }
        });
        let (plan, placed) = planned?;
        let accepted: Vec<_> = plan.accepted.iter().map(|(of, _)| (of.clone(), error_code::NONE)).collect();
        let refused = plan.refused.clone();
        if let Some((first, submitted)) = placed {
            let outcome = submitted.await;
            self.within_existing(id, |inner, _| match outcome {
                Ok(()) => inner.group.commit_stored(plan, first),
                Err(_) => inner.group.commit_failed(&plan),
            });
            if let Err(error) = outcome {
                tracing::warn!(group = %id, %error, "positions could not be stored");
                return Err(error_code::COORDINATOR_NOT_AVAILABLE);
            }
        }
        Ok(accepted.into_iter().chain(refused).collect())
    }

    /// Whether a transaction that is not over has committed an offset of this partition (KIP-447).
    #[must_use]
    pub fn is_unstable(&self, id: &GroupId, of: &TopicPartition) -> bool {
        self.look(id, |group| group.is_unstable(of)).unwrap_or(false)
    }

    /// How far a group has come in one partition.
    #[must_use]
    pub fn committed(&self, id: &GroupId, of: &TopicPartition) -> Option<Committed> {
        self.look(id, |group| group.committed(of).cloned()).flatten()
    }

    /// How far a group has come, in every partition it committed.
    #[must_use]
    pub fn all_committed(&self, id: &GroupId) -> Vec<(TopicPartition, Committed)> {
        self.look(id, |group| group.all_committed().map(|(of, c)| (of.clone(), c.clone())).collect()).unwrap_or_default()
    }

    /// Looks at a group without touching it.
    fn look<R>(&self, id: &GroupId, see: impl FnOnce(&Group) -> R) -> Option<R> {
        let cell = self.cells.lock().get(id).cloned()?;
        let inner = cell.inner.lock();
        (!inner.dropped && !inner.group.is_dead()).then(|| see(&inner.group))
    }

    fn all(&self) -> Vec<Arc<Cell>> {
        self.cells.lock().values().cloned().collect()
    }

    /// All groups.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        self.all().iter().map(|cell| cell.inner.lock().group.list()).collect()
    }

    /// One classic group and its members; `None` where there is no such group.
    #[must_use]
    pub fn describe(&self, id: &GroupId) -> Option<Described> {
        self.look(id, |group| (group.kind() == GroupKind::Classic).then(|| group.describe())).flatten()
    }

    /// Deletes a group, which must be empty. Answers Kafka's error.
    pub async fn delete(&self, id: &GroupId) -> i16 {
        let permit = self.journal.room(STATE_BYTES).await;
        let deleted = self.within_existing(id, |inner, _| {
            let records = inner.group.delete()?;
            if records.is_empty() {
                return Ok(None);
            }
            self.journal.submit(&entries(records), permit).map(|(_, submitted)| Some(submitted)).map_err(|error| {
                tracing::warn!(group = %id, %error, "the deletion of a group could not be stored");
                error_code::COORDINATOR_NOT_AVAILABLE
            })
        });
        match deleted {
            None => error_code::GROUP_ID_NOT_FOUND,
            Some(Err(code)) => code,
            Some(Ok(None)) => error_code::NONE,
            Some(Ok(Some(submitted))) => submitted.await.map_or(error_code::COORDINATOR_NOT_AVAILABLE, |()| error_code::NONE),
        }
    }

    /// A topic is gone, and with it all positions in it.
    pub(super) async fn forget_topic(&self, topic: &TopicName) {
        for cell in self.all() {
            let permit = self.journal.room(STATE_BYTES).await;
            let stored = self.within_existing(&cell.id, |inner, _| {
                let records = inner.group.forget_topic(topic);
                self.store(inner, records, permit)
            });
            if let Some(stored) = stored {
                stored.told(&cell.id).await;
            }
        }
    }

    /// Lets go of what is too old, and rewrites the topic of offsets where it has grown too long.
    pub(super) async fn expire(&self) -> Result<(), BrokerError> {
        let due = {
            let (mut last, now) = (self.expired_at.lock(), self.clock.now());
            let due = now.since(*last) >= EXPIRE_EVERY_MS;
            if due {
                *last = now;
            }
            due
        };
        let cells = if due { self.all() } else { Vec::new() };
        for cell in cells {
            let permit = self.journal.room(STATE_BYTES).await;
            let stored = self.within_existing(&cell.id, |inner, now| {
                let records = inner.group.expire(now);
                self.store(inner, records, permit)
            });
            if let Some(stored) = stored {
                stored.told(&cell.id).await;
            }
        }
        self.journal.tidy().await?;
        Ok(())
    }

    /// Calls each group when its time has come, until stopped.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        while let Some(due) = self.alarms.due(|| self.clock.now(), &stop).await {
            for id in due {
                let permit = self.journal.room(STATE_BYTES).await;
                let stored = self.within_existing(&id, |inner, now| {
                    inner.alarm = None;
                    let effects = inner.group.tick(now, &*self.topics);
                    self.carry_out(inner, effects, permit)
                });
                if let Some(stored) = stored {
                    stored.told(&id).await;
                }
            }
        }
    }

    /// Looks at the clock again, which a test has moved.
    #[cfg(test)]
    pub(super) fn look_again(&self) {
        self.alarms.look_again();
    }

    /// How far each group is behind in each topic, by what `end` says of partitions.
    pub(super) fn lags(&self, end: impl Fn(&TopicPartition) -> Option<Offset>) -> Vec<(GroupId, TopicName, i64)> {
        let mut lags: BTreeMap<(GroupId, TopicName), i64> = BTreeMap::new();
        for cell in self.all() {
            let inner = cell.inner.lock();
            for (of, committed) in inner.group.all_committed() {
                if let Some(end) = end(of) {
                    *lags.entry((cell.id.clone(), of.topic.clone())).or_default() += (end.0 - committed.offset.0).max(0);
                }
            }
        }
        lags.into_iter().map(|((group, topic), lag)| (group, topic, lag)).collect()
    }

    /// Appends the records that [`Coordinator::open`] answered.
    pub(super) async fn begin(&self, records: &[Entry]) -> Result<(), BrokerError> {
        tracing::debug!(records = records.len(), bytes = size(records), "groups read back");
        self.journal.append(records).await?;
        Ok(())
    }
}

impl Cell {
    fn new(group: Group) -> Self {
        let inner = Inner { joining: BTreeMap::new(), syncing: BTreeMap::new(), alarm: None, dropped: false, group };
        Self { id: inner.group.id().clone(), inner: Mutex::new(inner) }
    }
}

fn entries(records: Vec<GroupRecord>) -> Vec<Entry> {
    records.into_iter().map(|GroupRecord { key, value }| (key, value)).collect()
}
