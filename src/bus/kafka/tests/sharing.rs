//! Several processes of one application: its tasks move between them, and each counts on where the last one stood.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::lane::{Lanes, Which};
use super::super::shares::Shares;
use super::apache::{application, brokers};
use super::{KafkaBus, KafkaTerms, OwnBroker, terms};
use crate::bus::contract::values_from;
use crate::bus::*;
use crate::record::{BatchBuilder, Offset, PartitionId, TopicName, TopicPartition};

const TASKS: i32 = 4;
/// What has not come by then will not.
const DEADLINE: Duration = Duration::from_secs(60);

fn task(index: i32) -> TaskId {
    TaskId { owner: "query.count".into(), index }
}

fn records(value: &str) -> BatchBuilder {
    let mut builder = BatchBuilder::new();
    builder.push(1000, None, Some(value.as_bytes()), &[]);
    builder
}

/// One process: it counts on in every task that is its own.
struct Process {
    bus: Arc<KafkaBus>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Process {
    async fn start(terms: &KafkaTerms, name: &str, out: &TopicName) -> Self {
        let terms = KafkaTerms { process: name.to_owned(), shown: format!("process {name}"), ..terms.clone() };
        let bus = Arc::new(KafkaBus::open(terms).await.unwrap());
        let spec = TopicSpec { partitions: TASKS, ..TopicSpec::default() };
        bus.ensure_topic(out, &spec).await.unwrap();
        bus.ensure_topic(&checkpoint_topic(&task(0).owner), &spec).await.unwrap();
        let stop = CancellationToken::new();
        let run = |index| {
            let (bus, stop, out) = (Arc::clone(&bus), stop.clone(), TopicPartition::new(out.clone(), PartitionId(index)));
            tokio::spawn(async move { stop.run_until_cancelled(count(&bus, &task(index), &out)).await.unwrap_or(()) })
        };
        let tasks = (0..TASKS).map(run).collect();
        Self { bus, stop, tasks }
    }

    /// Everything ends in the middle of what it does, and others are told.
    async fn leave(self) {
        self.stop.cancel();
        futures::future::join_all(self.tasks).await;
        self.bus.leave().await;
    }

    /// Each task has counted without a gap and nothing twice. Ends the process.
    async fn counts_add_up(self, out: &TopicName) {
        self.stop.cancel();
        futures::future::join_all(self.tasks).await;
        for index in 0..TASKS {
            let of = TopicPartition::new(out.clone(), PartitionId(index));
            // What was in flight at the end is whole, or is not there.
            let all: Vec<String> = values_from(self.bus.as_ref(), &of, Offset::ZERO).await.into_iter().map(|(_, value)| value).collect();
            let expected: Vec<String> = (0..all.len()).map(|n| n.to_string()).collect();
            assert_eq!(all, expected, "task {index}");
        }
        self.bus.leave().await;
    }

    fn runs(&self) -> usize {
        (0..TASKS).filter(|index| self.bus.whereabouts(&task(*index)) == Whereabouts::Here).count()
    }
}

async fn count(bus: &KafkaBus, task: &TaskId, out: &TopicPartition) {
    loop {
        let shift = bus.shift(task).await;
        let Ok(mut committer) = bus.committer(task).await else { continue };
        let checkpoint = TopicPartition::new(checkpoint_topic(&task.owner), PartitionId(task.index));
        let mut next = values_from(bus, &checkpoint, Offset::ZERO).await.len();
        while !shift.is_over() {
            let value = next.to_string();
            let outputs = vec![TopicBatch { to: out.clone(), records: records(&value) }];
            if committer.commit(Commit { outputs, checkpoint: Some(records(&value)) }).await.is_err() {
                break;
            }
            next += 1;
        }
    }
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until every task has counted on.
async fn all_go_on(bus: &KafkaBus, out: &TopicName) {
    for index in 0..TASKS {
        let of = TopicPartition::new(out.clone(), PartitionId(index));
        let from = bus.bounds(&of).await.unwrap().end;
        let begun = Instant::now();
        while bus.bounds(&of).await.unwrap().end.0 < from.0 + 10 {
            assert!(begun.elapsed() < DEADLINE, "task {index} stands still at {from}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn tasks_move_and_count_on(terms: KafkaTerms) {
    let terms = KafkaTerms { lanes: TASKS, ..terms };
    let out = TopicName::new(&format!("{}.out", terms.application_id)).unwrap();
    let first = Process::start(&terms, "first", &out).await;
    until("the first one runs all", || first.runs() == 4).await;
    all_go_on(&first.bus, &out).await;
    let second = Process::start(&terms, "second", &out).await;
    until("two run two each", || first.runs() == 2 && second.runs() == 2).await;
    let third = Process::start(&terms, "third", &out).await;
    until("the third one runs some", || third.runs() >= 1 && first.runs() + second.runs() + third.runs() == 4).await;
    all_go_on(&third.bus, &out).await;
    // Each knows where the others run theirs.
    let elsewhere = || {
        let at = |index| third.bus.whereabouts(&task(index));
        (0..TASKS).all(|index| !matches!(at(index), Whereabouts::Nowhere))
            && (0..TASKS).any(|n| at(n) == Whereabouts::At("process second".to_owned()))
    };
    until("who runs what is known", elsewhere).await;
    third.bus.has_followed(Offset(7));
    let waited = third.bus.all_followed(Offset(7), Duration::from_millis(500)).await.unwrap_err().to_string();
    assert!(waited.contains("process first"), "{waited}");
    first.bus.has_followed(Offset(8));
    second.bus.has_followed(Offset(7));
    third.bus.all_followed(Offset(7), DEADLINE).await.unwrap();
    second.leave().await;
    until("what the second one ran is run", || first.runs() + third.runs() == 4).await;
    all_go_on(&third.bus, &out).await;
    // Who starts again under its name while its older self still runs has what that had.
    let before = third.runs();
    let again = Process::start(&terms, "third", &out).await;
    until("it has its tasks back", || again.runs() == before).await;
    assert!(third.bus.failed().await.contains("kafka.process"));
    all_go_on(&again.bus, &out).await;
    third.leave().await;
    first.leave().await;
    until("the last one runs all", || again.runs() == 4).await;
    all_go_on(&again.bus, &out).await;
    again.counts_add_up(&out).await;
}

/// The group fences a process that is the only one of its name, as it does where a coordinator takes over from a dead one: the process
/// joins again, and its tasks count on.
async fn who_is_fenced_though_nobody_has_come_goes_on(terms: KafkaTerms) {
    let terms = KafkaTerms { lanes: TASKS, process: "only".to_owned(), ..terms };
    let out = TopicName::new(&format!("{}.out", terms.application_id)).unwrap();
    let only = Process::start(&terms, "only", &out).await;
    until("it runs all", || only.runs() == 4).await;
    all_go_on(&only.bus, &out).await;
    for _ in 0..2 {
        // The group takes this for a newer member of the name. It is no process, and has not said that it has started.
        let ghost: BaseConsumer = terms.member(TASKS).create().unwrap();
        ghost.subscribe(&[&format!("{}.lanes", terms.application_id)]).unwrap();
        let fenced = tokio::task::spawn_blocking(move || {
            let (begun, mut assigned) = (Instant::now(), false);
            // It has taken the place, and later that is taken back.
            while ghost.client().fatal_error().is_none() {
                assert!(begun.elapsed() < DEADLINE, "assigned: {assigned}");
                drop(ghost.poll(Duration::from_millis(20)));
                assigned |= ghost.assignment().is_ok_and(|lanes| lanes.count() > 0);
            }
            (assigned, ghost.client().fatal_error().map(|(code, _)| code))
        });
        assert_eq!(fenced.await.unwrap(), (true, Some(Code::FencedInstanceId)));
        until("it runs all again", || only.runs() == 4).await;
        all_go_on(&only.bus, &out).await;
        assert!(futures::FutureExt::now_or_never(only.bus.failed()).is_none() && only.bus.trouble().is_none());
    }
    only.counts_add_up(&out).await;
}

/// A lane that goes and comes back while its thread is still taking it over is held in the end, and not only said to be.
async fn who_gets_a_lane_back_at_once_writes_by_it(terms: KafkaTerms) {
    let shares = Arc::new(Shares::default());
    let lanes = Lanes::new(Arc::new(terms), Arc::clone(&shares), Arc::new(tokio::sync::watch::Sender::new(None)));
    let (lane, take) = (BTreeSet::from([0]), || {
        shares.assign(&BTreeSet::from([0]));
        for (lane, turn) in shares.to_take() {
            lanes.take_over(lane, turn);
        }
    });
    for round in 1..4 {
        take();
        // Its thread has begun, which takes it some round trips to the cluster.
        shares.give_up(&lane, Duration::ZERO);
        lanes.release(0, shares.last_turn());
        take();
        let shift = tokio::time::timeout(DEADLINE, shares.shift(0)).await.expect("it comes back");
        // Behind all orders of before.
        lanes.get(Which::Shared(0)).unwrap().claim(&task(0), round).await.unwrap();
        assert!(!shift.is_over());
        drop(shift);
        shares.give_up(&lane, Duration::ZERO);
        lanes.release(0, shares.last_turn());
        assert!(lanes.get(Which::Shared(0)).unwrap().claim(&task(0), round).await.is_err(), "it is given up");
    }
}

/// A newer process of the same name is one also where the group has other names for the two, because there are more lanes than when the
/// older one came.
async fn who_comes_later_wins_among_more_lanes_too(terms: KafkaTerms) {
    let terms = KafkaTerms { lanes: 2, ..terms };
    let old = KafkaBus::open(terms.clone()).await.unwrap();
    old.make_room(TASKS).await.unwrap();
    let new = KafkaBus::open(terms).await.unwrap();
    let reason = tokio::time::timeout(DEADLINE, old.failed()).await.expect("it knows that it is not the newest");
    assert!(reason.contains("kafka.process"), "{reason}");
    until("the newer one runs all", || (0..TASKS).all(|index| new.whereabouts(&task(index)) == Whereabouts::Here)).await;
    assert!(futures::FutureExt::now_or_never(new.failed()).is_none());
}

/// Two change the catalogue at once: who took the right to it last writes, and has read what the other one has written.
async fn one_writes_the_catalogue_at_a_time(terms: KafkaTerms) {
    let one = KafkaBus::open(KafkaTerms { process: "one".to_owned(), ..terms.clone() }).await.unwrap();
    let two = KafkaBus::open(KafkaTerms { process: "two".to_owned(), ..terms.clone() }).await.unwrap();
    let topic = TopicName::new(&format!("{}.changes", terms.application_id)).unwrap();
    one.ensure_topic(&topic, &TopicSpec { partitions: 1, ..TopicSpec::default() }).await.unwrap();
    let of = TopicPartition::new(topic, PartitionId(0));
    let change = |value: &str| Commit { outputs: vec![TopicBatch { to: of.clone(), records: records(value) }], checkpoint: None };
    let mut ones = one.catalogue().await.unwrap();
    ones.commit(change("a")).await.unwrap();
    let mut twos = two.catalogue().await.unwrap();
    assert_eq!(values_from(&two, &of, Offset::ZERO).await.len(), 1, "it is read at once");
    assert!(matches!(ones.commit(change("lost")).await, Err(BusError::Fenced(_))));
    twos.commit(change("b")).await.unwrap();
    twos.commit(change("c")).await.unwrap();
    let mut ones = one.catalogue().await.unwrap();
    ones.commit(change("d")).await.unwrap();
    assert!(matches!(twos.commit(change("lost")).await, Err(BusError::Fenced(_))));
    drop(two.catalogue().await.unwrap());
    let all: Vec<String> = values_from(&two, &of, Offset::ZERO).await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(all, ["a", "b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_move_between_processes_and_count_on() {
    let cluster = OwnBroker::start().await;
    tasks_move_and_count_on(cluster.terms()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_fenced_though_nobody_has_come_goes_on() {
    let cluster = OwnBroker::start().await;
    who_is_fenced_though_nobody_has_come_goes_on(cluster.terms()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_comes_back_at_once_is_written_by() {
    let cluster = OwnBroker::start().await;
    who_gets_a_lane_back_at_once_writes_by_it(cluster.terms()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_process_of_the_same_name_wins_among_more_lanes_too() {
    let cluster = OwnBroker::start().await;
    who_comes_later_wins_among_more_lanes_too(cluster.terms()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogue_is_written_by_one_at_a_time() {
    let cluster = OwnBroker::start().await;
    one_writes_the_catalogue_at_a_time(cluster.terms()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an Apache Kafka: tests/kafka/run.sh"]
async fn apache_tasks_move_between_processes_and_count_on() {
    tasks_move_and_count_on(terms(brokers(), &application())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an Apache Kafka: tests/kafka/run.sh"]
async fn apache_a_process_that_is_fenced_though_nobody_has_come_goes_on() {
    who_is_fenced_though_nobody_has_come_goes_on(terms(brokers(), &application())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an Apache Kafka: tests/kafka/run.sh"]
async fn apache_a_newer_process_of_the_same_name_wins_among_more_lanes_too() {
    who_comes_later_wins_among_more_lanes_too(terms(brokers(), &application())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an Apache Kafka: tests/kafka/run.sh"]
async fn apache_the_catalogue_is_written_by_one_at_a_time() {
    one_writes_the_catalogue_at_a_time(terms(brokers(), &application())).await;
}
