//! The consumer group that shares the lanes out among the processes of an application: [`Group`].
//!
//! A member subscribes to topic `<application id>.lanes`, which holds nothing: its partitions are the lanes. Kafka's group says whose each
//! is; that nobody else writes there, the lane's transactional id says, which is taken over as soon as a lane is assigned. Assignment is
//! `cooperative-sticky`: what does not move goes on meanwhile. Membership is static (KIP-345), under the name of the process: who starts again
//! after a crash has its lanes back at once, while those of a process that stays away go to others after the session's time-out; who
//! stops on purpose leaves. A thread of its own, because a revocation waits for the tasks' last commits. Called by [`super::KafkaBus`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::{oneshot, watch};

use super::error::{said, told};
use super::lane::Lanes;
use super::settings::{Context, KafkaTerms};
use super::shares::Shares;
use crate::bus::BusError;

/// How long the tasks of a revoked lane have for their last commit and snapshot.
const LAST_COMMIT: Duration = Duration::from_secs(20);
/// How often the thread looks.
const TICK: Duration = Duration::from_millis(100);
/// How long a member that leaves listens for its last assignments to go, and then for its leaving to be sent.
const FAREWELL: Duration = Duration::from_millis(300);

/// This process as a member of the group. Leaves it when it is dropped.
pub(super) struct Group {
    stop: Arc<AtomicBool>,
    ended: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

impl Group {
    /// Joins.
    pub(super) fn join(
        terms: &Arc<KafkaTerms>,
        topic: &str,
        width: i32,
        shares: Arc<Shares>,
        lanes: Arc<Lanes>,
        supersede: Arc<watch::Sender<Option<String>>>,
    ) -> Result<Self, BusError> {
        let looked = Mutex::new(Instant::now());
        let context = Member { base: Context::default(), shares, lanes, terms: Arc::clone(terms), supersede, looked };
        let consumer: BaseConsumer<Member> =
            terms.member(width).create_with_context(context).map_err(|e| told("could not make a Kafka client", &e))?;
        consumer.subscribe(&[topic]).map_err(|e| told("could not join the consumer group", &e))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (done, ended) = oneshot::channel();
        let (stopped, session) = (Arc::clone(&stop), terms.session_timeout);
        let thread = std::thread::Builder::new().name("vitalsql-group".to_owned());
        let run = move || {
            attend(&consumer, &stopped, session);
            drop(consumer);
            // Nobody waits where the bus was dropped.
            let _ = done.send(());
        };
        thread.spawn(run).map_err(|e| BusError::Closed(format!("could not start a thread: {e}")))?;
        Ok(Self { stop, ended: tokio::sync::Mutex::new(Some(ended)) })
    }

    /// Begins to give everything up.
    pub(super) fn abandon(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Gives everything up, and completes once the others may have it.
    pub(super) async fn leave(&self) {
        self.abandon();
        if let Some(ended) = self.ended.lock().await.take() {
            // The thread is gone with its sender in any case.
            let _ = ended.await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// What the thread does.
fn attend(consumer: &BaseConsumer<Member>, stop: &AtomicBool, session: Duration) {
    let member = Arc::clone(consumer.context());
    while !stop.load(Ordering::Acquire) {
        let still = std::mem::replace(&mut *member.looked.lock(), Instant::now()).elapsed();
        if still > session {
            // Others run its tasks by now.
            tracing::warn!(seconds = still.as_secs(), "the process stood still for longer than its session in the consumer group");
            for lane in member.shares.assigned() {
                member.shares.lose(lane, session);
            }
        }
        if let Some(Err(error)) = consumer.poll(TICK) {
            member.heard(&error);
        }
        if let Some((code, why)) = consumer.client().fatal_error() {
            member.fatal(code, &why);
            let all = member.shares.assigned();
            member.give_up(&all, Duration::ZERO);
            return;
        }
        for lane in member.shares.to_take() {
            member.lanes.take_over(lane);
        }
    }
    consumer.unsubscribe();
    let begun = Instant::now();
    while !member.shares.assigned().is_empty() && begun.elapsed() < LAST_COMMIT {
        consumer.poll(TICK);
    }
    // A static member that is closed before it has said so does not leave: nothing tells when it has.
    let begun = Instant::now();
    while begun.elapsed() < FAREWELL {
        consumer.poll(TICK);
    }
}

/// What the group's consumer tells.
struct Member {
    base: Context,
    shares: Arc<Shares>,
    lanes: Arc<Lanes>,
    terms: Arc<KafkaTerms>,
    supersede: Arc<watch::Sender<Option<String>>>,
    /// When the thread was last seen to run.
    looked: Mutex<Instant>,
}

impl Member {
    fn heard(&self, error: &KafkaError) {
        let id = &self.terms.application_id;
        match error.rdkafka_error_code() {
            Some(Code::GroupAuthorizationFailed) => self.shares.note_trouble(format!(
                "could not join consumer group \"{id}\": {}. The cluster's access rules (ACLs) must allow READ on the group",
                said(error)
            )),
            Some(Code::TopicAuthorizationFailed) => self.shares.note_trouble(format!(
                "could not join consumer group \"{id}\": {}. The cluster's access rules (ACLs) must allow the application id as a prefix of topics",
                said(error)
            )),
            Some(Code::InconsistentGroupProtocol) => self.shares.note_trouble(format!(
                "could not join consumer group \"{id}\": its members share out in another way. Is another application in it? Choose another \
                 application id (kafka.application_id)"
            )),
            Some(Code::InvalidSessionTimeout) => self.shares.note_trouble(format!(
                "could not join consumer group \"{id}\": a session of {} s (kafka.session_timeout) is outside the brokers' \
                 group.min.session.timeout.ms and group.max.session.timeout.ms",
                self.terms.session_timeout.as_secs()
            )),
            Some(Code::GroupMaxSizeReached) => self.shares.note_trouble(format!(
                "could not join consumer group \"{id}\": it has as many members as the brokers' group.max.size allows"
            )),
            _ => tracing::debug!(%error, "the consumer group reports an error"),
        }
    }

    /// The member can never be one again.
    fn fatal(&self, code: Code, why: &str) {
        let (id, process) = (&self.terms.application_id, &self.terms.process);
        let reason = match code {
            Code::FencedInstanceId => format!(
                "another process with the same name \"{process}\" runs under application id \"{id}\" since, and has taken over: this one \
                 writes nothing any more. Processes that are to share the work need data directories, or names (kafka.process), of their own"
            ),
            _ => format!("consumer group \"{id}\" is closed to process \"{process}\": {why}"),
        };
        self.supersede.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(reason);
            first
        });
    }

    fn give_up(&self, lanes: &BTreeSet<i32>, patience: Duration) {
        self.shares.give_up(lanes, patience);
        for lane in lanes {
            self.lanes.release(*lane);
        }
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.base.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.heard(&error);
        tracing::debug!(%error, reason, "the consumer group's client reports an error");
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let lanes: BTreeSet<i32> = list.elements().iter().map(|one| one.partition()).collect();
            if lanes.is_empty() {
                return;
            }
            tracing::info!(?lanes, lost = consumer.assignment_lost(), "tasks go to another process");
            self.give_up(&lanes, LAST_COMMIT);
            *self.looked.lock() = Instant::now();
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                let lanes: BTreeSet<i32> = list.elements().iter().map(|one| one.partition()).collect();
                tracing::info!(?lanes, "tasks come to this process");
                self.shares.assign(&lanes);
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => self.heard(error),
        }
    }
}
