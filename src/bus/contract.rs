//! What every [`Bus`] keeps, as stories that run over each of them.
//!
//! The embedded log runs them here; Kafka's runs them over the project's own broker (`kafka::tests`), and, where
//! `tests/kafka/run.sh` has started one, over an Apache Kafka. A new log joins with [`contract`] and a [`World`] of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::record::Header;

/// What has not come by then will not.
const DEADLINE: Duration = Duration::from_secs(60);

/// A log to run the stories over.
pub(super) trait World: Sized {
    /// An empty one.
    fn open() -> impl Future<Output = Self>;
    /// The bus over it.
    fn bus(&self) -> &dyn Bus;
    /// A name that nobody has used.
    fn fresh(&self, name: &str) -> String;
}

/// Every story as a test over one world.
macro_rules! contract {
    ($world:ty $(, #[$attribute:meta])*) => {
        $crate::bus::contract::contract!(@each $world, [$(#[$attribute])*]
            a_commit_writes_outputs_and_checkpoint_together,
            an_older_holder_of_a_task_is_fenced_and_other_tasks_are_not,
            who_takes_a_task_over_reads_all_that_was_committed,
            what_is_written_is_read_as_it_was,
            reading_begins_anywhere_and_readers_do_not_disturb_each_other,
            who_waits_is_woken_by_what_comes,
            what_is_outside_is_refused_with_what_is_there,
            a_topic_is_made_once_and_deleted_for_good,
            a_task_whose_checkpoint_was_deleted_begins_anew,
            a_time_is_found,
            an_append_over_several_partitions_is_read_at_once,
            commits_of_many_tasks_are_each_whole_once_and_in_order,
            a_commit_that_cannot_be_written_leaves_nothing_and_stops_nobody_else,
            a_large_commit_is_whole,
            what_is_handed_over_is_read_before_its_commit_and_stands_before_it,
            an_older_holder_hands_nothing_over,
            no_commit_stands_behind_what_could_not_be_handed_over
        );
    };
    (@each $world:ty, $attributes:tt $($story:ident),+) => {
        $($crate::bus::contract::contract!(@one $world, $attributes $story);)+
    };
    (@one $world:ty, [$(#[$attribute:meta])*] $story:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$attribute])*
        async fn $story() {
            $crate::bus::contract::$story(&<$world as $crate::bus::contract::World>::open().await).await;
        }
    };
}
pub(super) use contract;

fn records(values: &[&str]) -> BatchBuilder {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(1000, None, Some(value.as_bytes()), &[]);
    }
    builder
}

fn to(of: &TopicPartition, values: &[&str]) -> TopicBatch {
    TopicBatch { to: of.clone(), records: records(values) }
}

fn task(world: &impl World, index: i32) -> TaskId {
    TaskId { owner: format!("query.{}", world.fresh("q")).into(), index }
}

fn checkpoint_of(task: &TaskId) -> TopicPartition {
    TopicPartition::new(checkpoint_topic(&task.owner), PartitionId(task.index))
}

async fn made(world: &impl World, partitions: i32) -> TopicName {
    let topic = TopicName::new(&world.fresh("t")).unwrap();
    let spec = TopicSpec { partitions, configs: BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]) };
    assert_eq!(world.bus().ensure_topic(&topic, &spec).await.unwrap(), partitions);
    topic
}

async fn place(world: &impl World) -> TopicPartition {
    TopicPartition::new(made(world, 1).await, PartitionId(0))
}

/// The values from an offset on, as far as the end that is there.
pub(super) async fn values_from(bus: &dyn Bus, of: &TopicPartition, from: Offset) -> Vec<(Offset, String)> {
    let end = bus.bounds(of).await.unwrap().end;
    let mut reader = bus.open(of, from).await.unwrap();
    let mut all = Vec::new();
    loop {
        let at = reader.position();
        let batches = reader.poll(1 << 20).await.unwrap();
        if batches.is_empty() && reader.position() == at {
            assert!(at >= end, "the reader stands at {at} and the end is {end}");
            return all;
        }
        for batch in batches.iter().filter(|batch| !batch.header().is_control()) {
            let records = batch.records().unwrap();
            let records = records.iter().map(Result::unwrap).filter(|record| record.offset >= at);
            all.extend(records.map(|record| (record.offset, String::from_utf8_lossy(record.value.unwrap_or(b"-")).into_owned())));
        }
    }
}

/// All values, once there are so many.
pub(super) async fn values(bus: &dyn Bus, of: &TopicPartition, count: usize) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let from = bus.bounds(of).await.unwrap().start;
        let all = values_from(bus, of, from).await;
        if all.len() >= count || begun.elapsed() > DEADLINE {
            return all.into_iter().map(|(_, value)| value).collect();
        }
        tokio::task::yield_now().await;
    }
}

pub(super) async fn a_commit_writes_outputs_and_checkpoint_together(world: &impl World) {
    let (bus, out, task) = (world.bus(), place(world).await, task(world, 2));
    let mut committer = bus.committer(&task).await.unwrap();
    let checkpoint = checkpoint_of(&task);
    assert!(bus.partitions(&checkpoint.topic).await.unwrap() >= Some(3));
    for round in ["1", "2"] {
        let outputs = vec![to(&out, &[&format!("row {round}")])];
        let at = committer.commit(Commit { outputs, checkpoint: Some(records(&[&format!("a {round}"), "b"])) }).await.unwrap().unwrap();
        let count = if round == "1" { 2 } else { 4 };
        assert_eq!(values(bus, &checkpoint, count).await.len(), count);
        assert_eq!(values_from(bus, &checkpoint, at).await[0].1, format!("a {round}"));
    }
    assert_eq!(committer.commit(Commit::default()).await.unwrap(), None);
    assert_eq!(committer.commit(Commit { outputs: vec![to(&out, &["alone"])], checkpoint: None }).await.unwrap(), None);
    assert_eq!(values(bus, &out, 3).await, ["row 1", "row 2", "alone"]);
    let second = values_from(bus, &checkpoint, Offset::ZERO).await[2].0;
    bus.trim(&checkpoint, second).await.unwrap();
    assert_eq!(bus.bounds(&checkpoint).await.unwrap().start, second);
    assert_eq!(values(bus, &checkpoint, 2).await, ["a 2", "b"]);
}

pub(super) async fn an_older_holder_of_a_task_is_fenced_and_other_tasks_are_not(world: &impl World) {
    let (bus, out) = (world.bus(), place(world).await);
    let (mine, others) = (task(world, 0), task(world, 0));
    let commit = || Commit { outputs: vec![to(&out, &["row"])], checkpoint: Some(records(&["c"])) };
    let mut other = bus.committer(&others).await.unwrap();
    let mut old = bus.committer(&mine).await.unwrap();
    old.commit(commit()).await.unwrap();
    let mut new = bus.committer(&mine).await.unwrap();
    assert!(matches!(old.commit(commit()).await, Err(BusError::Fenced(fenced)) if fenced == mine));
    new.commit(commit()).await.unwrap();
    other.commit(commit()).await.unwrap();
    assert_eq!(values(bus, &out, 3).await.len(), 3);
}

pub(super) async fn who_takes_a_task_over_reads_all_that_was_committed(world: &impl World) {
    let (bus, out, task) = (world.bus(), place(world).await, task(world, 0));
    let checkpoint = checkpoint_of(&task);
    let mut expected = Vec::new();
    for round in 0..10 {
        let mut committer = bus.committer(&task).await.unwrap();
        // At once, and not after a while.
        let from = bus.bounds(&checkpoint).await.unwrap().start;
        let read: Vec<String> = values_from(bus, &checkpoint, from).await.into_iter().map(|(_, value)| value).collect();
        assert_eq!(read, expected);
        for part in ["a", "b"] {
            let value = format!("{round} {part}");
            let outputs = vec![to(&out, &[&value])];
            committer.commit(Commit { outputs, checkpoint: Some(records(&[&value])) }).await.unwrap();
            expected.push(value);
        }
    }
    assert_eq!(values(bus, &out, expected.len()).await, expected);
}

pub(super) async fn what_is_written_is_read_as_it_was(world: &impl World) {
    let (bus, out) = (world.bus(), place(world).await);
    let mut builder = BatchBuilder::new();
    let headers =
        [Header { key: b"why", value: Some(b"late") }, Header { key: b"why", value: None }, Header { key: b"", value: Some(b"") }];
    builder.push(1_700_000_000_123, Some(b"p1"), Some(b"{\"hr\":80}"), &headers);
    builder.push(1_600_000_000_000, Some(b"p1"), None, &[]);
    builder.push(1_700_000_000_124, None, Some(b"\0\xff"), &[]);
    builder.push(1_700_000_000_125, Some(b""), Some(b""), &[]);
    let mut committer = bus.committer(&task(world, 0)).await.unwrap();
    committer.commit(Commit { outputs: vec![TopicBatch { to: out.clone(), records: builder.clone() }], checkpoint: None }).await.unwrap();
    let shown = |batches: &[Batch]| {
        let mut all = Vec::new();
        for batch in batches.iter().filter(|batch| !batch.header().is_control()) {
            for record in &batch.records().unwrap() {
                let record = record.unwrap();
                let headers: Vec<_> = record.headers().map(|h| h.map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec))).unwrap()).collect();
                all.push((record.timestamp, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), headers));
            }
        }
        all
    };
    assert_eq!(values(bus, &out, 4).await.len(), 4);
    let mut reader = bus.open(&out, Offset::ZERO).await.unwrap();
    let mut read = Vec::new();
    while read.len() < 4 {
        read.extend(shown(&reader.poll(1 << 20).await.unwrap()));
    }
    assert_eq!(read, shown(&[builder.finish()]));
}

pub(super) async fn reading_begins_anywhere_and_readers_do_not_disturb_each_other(world: &impl World) {
    let (bus, out) = (world.bus(), place(world).await);
    let all: Vec<String> = (0..3000).map(|n| format!("value {n:05}")).collect();
    for part in all.chunks(500) {
        bus.append(vec![to(&out, &part.iter().map(String::as_str).collect::<Vec<_>>())]).await.unwrap();
    }
    let whole = values_from(bus, &out, Offset::ZERO).await;
    assert_eq!(whole.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>(), all);
    let mut slow = bus.open(&out, Offset::ZERO).await.unwrap();
    let mut seen = Vec::new();
    // Up and down: a reader that is let go leaves nothing of its own to the next one.
    for at in [2999, 0, 1500, 1, 1501, 2500, 3, 2998, 1000, 999, 2, 1499] {
        let rest = values_from(bus, &out, whole[at].0).await;
        assert_eq!(rest, whole[at..], "from record {at}");
        let from = slow.position();
        for batch in slow.poll(1000).await.unwrap().iter().filter(|batch| !batch.header().is_control()) {
            let records = batch.records().unwrap();
            seen.extend(records.iter().map(Result::unwrap).filter(|r| r.offset >= from).map(|r| r.offset));
        }
    }
    assert!(!seen.is_empty());
    assert_eq!(seen, whole[..seen.len()].iter().map(|(offset, _)| *offset).collect::<Vec<_>>());
}

pub(super) async fn who_waits_is_woken_by_what_comes(world: &impl World) {
    let (bus, out) = (world.bus(), place(world).await);
    let mut reader = bus.open(&out, Offset::ZERO).await.unwrap();
    assert!(reader.poll(1 << 20).await.unwrap().is_empty());
    for round in 0..5 {
        let mut come = Vec::new();
        let write = bus.append(vec![to(&out, &[&format!("{round}")])]);
        let listen = async {
            while come.is_empty() {
                let from = reader.position();
                bus.wait(&out, from).await.unwrap();
                for batch in reader.poll(1 << 20).await.unwrap().iter().filter(|batch| !batch.header().is_control()) {
                    come.extend(batch.records().unwrap().iter().map(|r| r.unwrap().value.unwrap().to_vec()));
                }
            }
        };
        let both = async { tokio::join!(write, listen) };
        let (written, ()) = tokio::time::timeout(DEADLINE, both).await.expect("it is woken");
        written.unwrap();
        assert_eq!(come, [format!("{round}").into_bytes()]);
    }
    // Where nobody reads, too; and what is there already is not waited for.
    drop(reader);
    let end = bus.bounds(&out).await.unwrap().end;
    let both = async { tokio::join!(bus.append(vec![to(&out, &["x"])]), bus.wait(&out, end)) };
    let (written, woken) = tokio::time::timeout(DEADLINE, both).await.expect("it is woken");
    assert!(written.is_ok() && woken.is_ok());
    tokio::time::timeout(DEADLINE, bus.wait(&out, Offset::ZERO)).await.expect("it is there").unwrap();
}

pub(super) async fn what_is_outside_is_refused_with_what_is_there(world: &impl World) {
    let (bus, out) = (world.bus(), place(world).await);
    bus.append(vec![to(&out, &["a", "b", "c"])]).await.unwrap();
    bus.trim(&out, Offset(2)).await.unwrap();
    let there = bus.bounds(&out).await.unwrap();
    assert_eq!(there.start, Offset(2));
    for asked in [Offset(1), there.end.plus(1)] {
        match bus.open(&out, asked).await.err() {
            Some(BusError::OutOfRange { partition, asked: told, range }) => {
                assert_eq!((partition, told, range), (out.clone(), asked, there.clone()));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(values(bus, &out, 1).await, ["c"]);
    let nowhere = TopicPartition::new(out.topic.clone(), PartitionId(7));
    for missing in [nowhere, TopicPartition::new(TopicName::new(&world.fresh("none")).unwrap(), PartitionId(0))] {
        assert!(matches!(bus.bounds(&missing).await, Err(BusError::NoSuchPartition(of)) if of == missing));
        assert!(matches!(bus.open(&missing, Offset::ZERO).await.err(), Some(BusError::NoSuchPartition(of)) if of == missing));
    }
}

pub(super) async fn a_topic_is_made_once_and_deleted_for_good(world: &impl World) {
    let bus = world.bus();
    let topic = made(world, 3).await;
    let spec = TopicSpec { partitions: 5, ..TopicSpec::default() };
    assert_eq!(bus.ensure_topic(&topic, &spec).await.unwrap(), 3, "what is there is left as it is");
    let of = TopicPartition::new(topic.clone(), PartitionId(0));
    bus.append(vec![to(&of, &["old"])]).await.unwrap();
    bus.delete_topic(&topic).await.unwrap();
    bus.delete_topic(&topic).await.unwrap();
    assert_eq!(bus.partitions(&topic).await.unwrap(), None);
    assert_eq!(bus.ensure_topic(&topic, &spec).await.unwrap(), 5);
    bus.append(vec![to(&of, &["new"])]).await.unwrap();
    assert_eq!(values(bus, &of, 1).await, ["new"]);
}

pub(super) async fn a_task_whose_checkpoint_was_deleted_begins_anew(world: &impl World) {
    let (bus, out, task) = (world.bus(), place(world).await, task(world, 0));
    let checkpoint = checkpoint_of(&task);
    for life in ["first", "second", "third"] {
        let mut committer = bus.committer(&task).await.unwrap();
        assert_eq!(bus.bounds(&checkpoint).await.unwrap(), Offset::ZERO..Offset::ZERO);
        for _ in 0..3 {
            committer.commit(Commit { outputs: vec![to(&out, &[life])], checkpoint: Some(records(&[life])) }).await.unwrap();
        }
        assert_eq!(values(bus, &checkpoint, 3).await, [life; 3]);
        drop(committer);
        bus.delete_topic(&checkpoint.topic).await.unwrap();
    }
    assert_eq!(values(bus, &out, 9).await.len(), 9);
}

pub(super) async fn a_time_is_found(world: &impl World) {
    let (bus, out) = (world.bus(), place(world).await);
    for at in [1_700_000_001_000, 1_700_000_002_000, 1_700_000_003_000] {
        let mut one = BatchBuilder::new();
        one.push(at, None, Some(b"x"), &[]);
        bus.append(vec![TopicBatch { to: out.clone(), records: one }]).await.unwrap();
    }
    let offsets: Vec<Offset> = values_from(bus, &out, Offset::ZERO).await.into_iter().map(|(offset, _)| offset).collect();
    for (at, expected) in
        [(0, Some(offsets[0])), (1_700_000_001_001, Some(offsets[1])), (1_700_000_003_000, Some(offsets[2])), (1_800_000_000_000, None)]
    {
        assert_eq!(bus.offset_at(&out, at).await.unwrap(), expected, "at {at}");
    }
}

pub(super) async fn an_append_over_several_partitions_is_read_at_once(world: &impl World) {
    let bus = world.bus();
    let topic = made(world, 3).await;
    let places: Vec<_> = (0..3).map(|p| TopicPartition::new(topic.clone(), PartitionId(p))).collect();
    for round in 1..=5 {
        bus.append(places.iter().map(|of| to(of, &["a", "b"])).collect()).await.unwrap();
        for of in &places {
            assert_eq!(values_from(bus, of, Offset::ZERO).await.len(), 2 * round);
        }
    }
}

pub(super) async fn commits_of_many_tasks_are_each_whole_once_and_in_order(world: &impl World) {
    const COMMITS: usize = 20;
    let bus = world.bus();
    let topic = made(world, 2).await;
    let owner: Arc<str> = format!("query.{}", world.fresh("many")).into();
    let run = |index: i32| {
        let (topic, task) = (topic.clone(), TaskId { owner: Arc::clone(&owner), index });
        async move {
            let mut committer = bus.committer(&task).await.unwrap();
            for commit in 0..COMMITS {
                let outputs = (0..2).map(|p| to(&TopicPartition::new(topic.clone(), PartitionId(p)), &[&format!("{index} {commit:03}")]));
                let checkpoint = Some(records(&[&format!("{commit:03}")]));
                assert!(committer.commit(Commit { outputs: outputs.collect(), checkpoint }).await.unwrap().is_some());
            }
        }
    };
    futures::future::join_all((0..8).map(run)).await;
    let expected: Vec<String> = (0..COMMITS).map(|commit| format!("{commit:03}")).collect();
    for p in 0..2 {
        let all = values(bus, &TopicPartition::new(topic.clone(), PartitionId(p)), 8 * COMMITS).await;
        for index in 0..8 {
            let own: Vec<_> = all.iter().filter_map(|value| value.strip_prefix(&format!("{index} "))).collect();
            assert_eq!(own, expected, "task {index} in partition {p}");
        }
    }
    for index in 0..8 {
        let of = TopicPartition::new(checkpoint_topic(&owner), PartitionId(index));
        assert_eq!(values(bus, &of, COMMITS).await, expected);
    }
}

pub(super) async fn a_commit_that_cannot_be_written_leaves_nothing_and_stops_nobody_else(world: &impl World) {
    let (bus, out) = (world.bus(), place(world).await);
    let gone = TopicPartition::new(out.topic.clone(), PartitionId(9));
    // More tasks than lanes, so that some ride with the faulty one.
    let tasks: Vec<TaskId> = (0..12).map(|_| task(world, 0)).collect();
    let mut committers = Vec::new();
    for task in &tasks {
        committers.push(bus.committer(task).await.unwrap());
    }
    let commits = committers.iter_mut().enumerate().map(|(index, committer)| {
        let mut outputs = vec![to(&out, &[&format!("{index:02}")])];
        if index == 0 {
            outputs.push(to(&gone, &["lost"]));
        }
        committer.commit(Commit { outputs, checkpoint: Some(records(&["c"])) })
    });
    let done = futures::future::join_all(commits).await;
    assert!(done[0].is_err());
    assert!(done[1..].iter().all(Result::is_ok), "{done:?}");
    let mut written = values(bus, &out, 11).await;
    written.sort();
    assert_eq!(written, (1..12).map(|index| format!("{index:02}")).collect::<Vec<_>>());
    // The task goes on with a new committer, from a checkpoint that knows nothing of it.
    let mut again = bus.committer(&tasks[0]).await.unwrap();
    assert!(values(bus, &checkpoint_of(&tasks[0]), 0).await.is_empty());
    again.commit(Commit { outputs: vec![to(&out, &["00"])], checkpoint: Some(records(&["c"])) }).await.unwrap();
    assert_eq!(values(bus, &out, 12).await.len(), 12);
}

pub(super) async fn a_large_commit_is_whole(world: &impl World) {
    let bus = world.bus();
    let topic = made(world, 2).await;
    let task = task(world, 0);
    let mut committer = bus.committer(&task).await.unwrap();
    let value = "x".repeat(1000);
    let mut outputs = Vec::new();
    for n in 0..16 {
        let of = TopicPartition::new(topic.clone(), PartitionId(n % 2));
        outputs.push(to(&of, &vec![value.as_str(); 500]));
    }
    committer.commit(Commit { outputs, checkpoint: Some(records(&["c"])) }).await.unwrap();
    for p in 0..2 {
        assert_eq!(values(bus, &TopicPartition::new(topic.clone(), PartitionId(p)), 4000).await.len(), 4000);
    }
}

pub(super) async fn what_is_handed_over_is_read_before_its_commit_and_stands_before_it(world: &impl World) {
    let (bus, out, task) = (world.bus(), place(world).await, task(world, 0));
    let mut committer = bus.committer(&task).await.unwrap();
    let mut expected = Vec::new();
    for round in 0..3 {
        for part in ["a", "b"] {
            let value = format!("{round} {part}");
            committer.hand_over(vec![to(&out, &[&value])]).await.unwrap();
            expected.push(value);
        }
        // Seen, while nothing has been committed of it.
        assert_eq!(values(bus, &out, expected.len()).await, expected);
        assert_eq!(values(bus, &checkpoint_of(&task), round).await.len(), round);
        let many: Vec<String> = (0..500).map(|n| format!("{round} c {n:03}")).collect();
        committer.hand_over(vec![to(&out, &many.iter().map(String::as_str).collect::<Vec<_>>())]).await.unwrap();
        let last = format!("{round} d");
        committer.commit(Commit { outputs: vec![to(&out, &[&last])], checkpoint: Some(records(&["c"])) }).await.unwrap();
        expected.extend(many.into_iter().chain([last]));
        assert_eq!(values(bus, &out, expected.len()).await, expected);
        assert_eq!(values(bus, &checkpoint_of(&task), round + 1).await.len(), round + 1);
    }
    committer.hand_over(Vec::new()).await.unwrap();
}

pub(super) async fn an_older_holder_hands_nothing_over(world: &impl World) {
    let (bus, out, task) = (world.bus(), place(world).await, task(world, 0));
    let mut old = bus.committer(&task).await.unwrap();
    old.hand_over(vec![to(&out, &["old"])]).await.unwrap();
    assert_eq!(values(bus, &out, 1).await, ["old"]);
    let mut new = bus.committer(&task).await.unwrap();
    assert!(matches!(old.hand_over(vec![to(&out, &["too late"])]).await, Err(BusError::Fenced(fenced)) if fenced == task));
    new.hand_over(vec![to(&out, &["new"])]).await.unwrap();
    new.commit(Commit { outputs: Vec::new(), checkpoint: Some(records(&["c"])) }).await.unwrap();
    assert_eq!(values(bus, &out, 2).await, ["old", "new"]);
}

pub(super) async fn no_commit_stands_behind_what_could_not_be_handed_over(world: &impl World) {
    let (bus, out, task) = (world.bus(), place(world).await, task(world, 0));
    let gone = TopicPartition::new(out.topic.clone(), PartitionId(9));
    let mut committer = bus.committer(&task).await.unwrap();
    let handed = committer.hand_over(vec![to(&gone, &["lost"])]).await;
    let committed = committer.commit(Commit { outputs: Vec::new(), checkpoint: Some(records(&["c"])) }).await;
    // Either says so; who hears it makes another committer.
    assert!(handed.is_err() || committed.is_err());
    if handed.is_ok() {
        assert!(values(bus, &checkpoint_of(&task), 0).await.is_empty());
    }
    let mut again = bus.committer(&task).await.unwrap();
    again.hand_over(vec![to(&out, &["found"])]).await.unwrap();
    again.commit(Commit { outputs: Vec::new(), checkpoint: Some(records(&["c"])) }).await.unwrap();
    assert_eq!(values(bus, &out, 1).await, ["found"]);
}
