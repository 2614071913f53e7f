//! The consumer group that shares the lanes out among the processes of an application: [`Group`].
//!
//! A member subscribes to topic `<application id>.lanes`, which holds nothing: its partitions are the lanes. Kafka's group says whose each
//! is; that nobody else writes there, the lane's transactional id says, which is taken over as soon as a lane is assigned. Assignment is
//! `cooperative-sticky`: what does not move goes on meanwhile. Membership is static (KIP-345), under the name of the process: who starts again
//! after a crash has its lanes back at once, while those of a process that stays away go to others after the session's time-out; who
//! stops on purpose leaves. A thread of its own, because a revocation waits for the tasks' last commits.
//!
//! A member that is fenced need not have a newer one of its name: librdkafka, once it has heard no coordinator for a session's time, forgets
//! its member id and goes on sending heartbeats without one, and the coordinator that then takes over answers as if another process had
//! come. So who is fenced asks [`Namesakes`], and where nobody has come joins again, with a client of its own. Meanwhile it holds no lane.
//! Called by [`super::KafkaBus`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::error::{said, told};
use super::lane::Lanes;
use super::namesake::Namesakes;
use super::settings::Context;
use super::shares::Shares;
use crate::bus::BusError;
use crate::record::TopicName;

/// How long the tasks of a revoked lane have for their last commit and snapshot.
const LAST_COMMIT: Duration = Duration::from_secs(20);
/// How often the thread looks.
const TICK: Duration = Duration::from_millis(100);
/// How long a member that leaves listens for its last assignments to go, and then for its leaving to be sent.
const FAREWELL: Duration = Duration::from_millis(300);
/// How long until a process that could not ask who it is asks again.
const AGAIN: Duration = Duration::from_secs(1);

/// This process as a member of the group. Leaves it when it is dropped.
pub(super) struct Group {
    stop: CancellationToken,
    ended: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

impl Group {
    /// Joins, where topic `lanes` has so many partitions.
    pub(super) fn join(
        cluster: &Arc<Cluster>,
        topic: &TopicName,
        width: i32,
        lanes: &Arc<Lanes>,
        namesakes: Arc<Namesakes>,
    ) -> Result<Self, BusError> {
        let stop = CancellationToken::new();
        let (cluster, lanes, topic) = (Arc::clone(cluster), Arc::clone(lanes), topic.clone());
        let life = Life { cluster, lanes, namesakes, topic, stop: stop.clone(), runtime: Handle::current() };
        let consumer = life.member(width)?;
        let (done, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("vitalsql-group".to_owned());
        let run = move || {
            life.run(consumer);
            // Nobody waits where the bus was dropped.
            let _ = done.send(());
        };
        thread.spawn(run).map_err(|e| BusError::Closed(format!("could not start a thread: {e}")))?;
        Ok(Self { stop, ended: tokio::sync::Mutex::new(Some(ended)) })
    }

    /// Begins to give everything up.
    pub(super) fn abandon(&self) {
        self.stop.cancel();
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

/// What the thread has.
struct Life {
    cluster: Arc<Cluster>,
    lanes: Arc<Lanes>,
    namesakes: Arc<Namesakes>,
    topic: TopicName,
    stop: CancellationToken,
    runtime: Handle,
}

/// How a membership ends.
enum End {
    /// For good.
    Left,
    /// The group takes another one for this process.
    Fenced,
}

impl Life {
    /// A client that is to become a member.
    fn member(&self, width: i32) -> Result<BaseConsumer<Member>, BusError> {
        let looked = Mutex::new(Instant::now());
        let member = Member { base: Context::default(), shares: Arc::clone(&self.lanes.shares), lanes: Arc::clone(&self.lanes), looked };
        let made = self.lanes.terms.member(width).create_with_context(member);
        let consumer: BaseConsumer<Member> = made.map_err(|e| told("could not make a Kafka client", &e))?;
        consumer.subscribe(&[self.topic.as_str()]).map_err(|e| told("could not join the consumer group", &e))?;
        Ok(consumer)
    }

    fn run(&self, first: BaseConsumer<Member>) {
        let mut next = Some(first);
        while let Some(consumer) = next.take() {
            let end = self.attend(&consumer);
            // Before there is another one: what it still has to say counts no more.
            drop(consumer);
            if matches!(end, End::Fenced) {
                next = self.again();
            }
        }
    }

    /// Attends a membership as long as it lasts.
    fn attend(&self, consumer: &BaseConsumer<Member>) -> End {
        let (member, session) = (Arc::clone(consumer.context()), self.lanes.terms.session_timeout);
        while !self.stop.is_cancelled() && !self.lanes.are_superseded() {
            let still = std::mem::replace(&mut *member.looked.lock(), Instant::now()).elapsed();
            if still > session {
                // Others run its tasks by now.
                tracing::warn!(seconds = still.as_secs(), "the process stood still for longer than its session in the consumer group");
                member.shares.lose_all(session);
            }
            if let Some(Err(error)) = consumer.poll(TICK) {
                member.heard(&error);
            }
            if let Some((code, why)) = consumer.client().fatal_error() {
                member.give_up(&member.shares.assigned(), Duration::ZERO);
                if code == Code::FencedInstanceId {
                    return End::Fenced;
                }
                let (id, process) = (&self.lanes.terms.application_id, &self.lanes.terms.process);
                self.lanes.close(format!("consumer group \"{id}\" is closed to process \"{process}\": {why}"));
                return End::Left;
            }
            for (lane, turn) in member.shares.to_take() {
                member.lanes.take_over(lane, turn);
            }
        }
        if self.lanes.are_superseded() {
            member.give_up(&member.shares.assigned(), Duration::ZERO);
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
        End::Left
    }

    /// Becomes a member again, unless a newer process of this one's name has come.
    fn again(&self) -> Option<BaseConsumer<Member>> {
        tracing::info!("the consumer group has fenced this process: has another one of its name come?");
        loop {
            let (answer, come) = channel();
            let (namesakes, cluster, topic) = (Arc::clone(&self.namesakes), Arc::clone(&self.cluster), self.topic.clone());
            self.runtime.spawn(async move {
                let look = async { Ok((namesakes.has_come().await?, cluster.partitions(&topic).await?)) };
                // Nobody waits where the thread has been told to end.
                let _ = answer.send(look.await);
            });
            let looked: Result<(bool, Option<i32>), BusError> = loop {
                match come.recv_timeout(TICK) {
                    _ if self.stop.is_cancelled() => return None,
                    Ok(looked) => break looked,
                    Err(RecvTimeoutError::Timeout) => {}
                    // The process ends.
                    Err(RecvTimeoutError::Disconnected) => return None,
                }
            };
            let member = looked.and_then(|(superseded, width)| match width {
                _ if superseded => Ok(None),
                Some(width) => self.member(width).map(Some),
                None => Err(BusError::Retriable(format!("topic {} is not there", self.topic))),
            });
            match member {
                Ok(Some(consumer)) => {
                    tracing::info!("no other process of this one's name has come: it joins the consumer group again");
                    return Some(consumer);
                }
                Ok(None) => return None,
                Err(error) => self.lanes.shares.note_trouble(format!("could not join the consumer group again: {error}")),
            }
            std::thread::sleep(AGAIN);
        }
    }
}

/// What the group's consumer tells.
struct Member {
    base: Context,
    shares: Arc<Shares>,
    lanes: Arc<Lanes>,
    /// When the thread was last seen to run.
    looked: Mutex<Instant>,
}

impl Member {
    fn heard(&self, error: &KafkaError) {
        let id = &self.lanes.terms.application_id;
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
                self.lanes.terms.session_timeout.as_secs()
            )),
            Some(Code::GroupMaxSizeReached) => self.shares.note_trouble(format!(
                "could not join consumer group \"{id}\": it has as many members as the brokers' group.max.size allows"
            )),
            _ => tracing::debug!(%error, "the consumer group reports an error"),
        }
    }

    fn give_up(&self, lanes: &BTreeSet<i32>, patience: Duration) {
        self.shares.give_up(lanes, patience);
        let turn = self.shares.last_turn();
        for lane in lanes {
            self.lanes.release(*lane, turn);
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
            let lost = consumer.assignment_lost();
            tracing::info!(?lanes, lost, "tasks go to another process");
            // What is lost is another's already, for all that is known: nobody there waits for a last commit.
            self.give_up(&lanes, if lost { Duration::ZERO } else { LAST_COMMIT });
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
