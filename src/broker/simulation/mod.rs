//! The whole broker over a hostile disk, against a plain model, life after life.
//!
//! Every seed is one story: a plain producer, an idempotent one, two that write transactions with their offsets (one of them is too slow
//! now and then), a group, a topic that comes and goes; records are deleted, retention, compaction and the rewriting of what the broker
//! keeps about itself run; the machine's clock is set by hours. Meanwhile the power goes or the process dies at any operation, writes are
//! torn and lost in any order, syncs fail, the disk fills up, may only be read, or no more files can be opened. What several clients
//! asked waits together, and the disk gets round to it when chance says so. After each life everything that was told must hold
//! (`model`): nothing acknowledged is lost, moved or doubled, a transaction is there whole or not at all, with its offsets.
//! `SEEDS=10000` runs so many stories, `SEED=7` that one alone, and `TRACE=1` tells it.

mod client;
mod model;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use client::{Client, Done};
use futures::stream::{FuturesUnordered, StreamExt};
use model::Model;

use super::{Broker, BrokerConfig, NewTopic};
use crate::log::{Disk, Durability, Hands, PartitionConfig, SimDisk};
use crate::record::{PartitionId, TopicId, TopicName, TopicPartition};
use crate::time::Clock;

/// A small generator: the same seed, the same run.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A partition that clients write to.
pub(super) struct Place {
    pub topic: &'static str,
    pub partition: i32,
    pub is_compacted: bool,
}

impl Place {
    pub(super) fn of(&self) -> TopicPartition {
        TopicPartition::new(TopicName::new(self.topic).expect("valid"), PartitionId(self.partition))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

pub(super) const PLACES: [Place; 3] = [
    Place { topic: "plain", partition: 0, is_compacted: false },
    Place { topic: "plain", partition: 1, is_compacted: false },
    Place { topic: "keyed", partition: 0, is_compacted: true },
];
/// The group that commits by itself, and the one whose offsets are committed with transactions.
pub(super) const GROUPS: [&str; 2] = ["g-plain", "g-txn"];
/// The longest age that plain records may have, far beyond a story, and far below what the clock is set by.
const RETENTION_MS: i64 = 3_600_000;
const HOUR_MS: i64 = 3_600_000;

/// Who does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Actor {
    Plain,
    Idempotent,
    /// Writes transactions, and has all the time there is.
    Patient,
    /// Writes transactions whose time is soon over.
    Hasty,
    Group,
    /// Makes and deletes a topic.
    Admin,
}

impl Actor {
    const ALL: [Self; 6] = [Self::Plain, Self::Idempotent, Self::Patient, Self::Hasty, Self::Group, Self::Admin];

    /// Its transactional id.
    pub(super) const fn id(self) -> &'static str {
        match self {
            Self::Patient => "patient",
            _ => "hasty",
        }
    }

    /// Whose offsets it commits: a group's, in a partition of its own.
    pub(super) fn offsets_of(self) -> TopicPartition {
        PLACES[usize::from(self == Self::Hasty)].of()
    }

    /// How long its transactions may be open.
    pub(super) const fn timeout_ms(self) -> i32 {
        match self {
            Self::Hasty => 40,
            _ => 900_000,
        }
    }
}

/// What outlives the node.
struct World {
    chance: Chance,
    hands: &'static [AtomicI64; 2],
    model: Model,
    clients: Vec<Client>,
    numbers: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let hands = Box::leak(Box::new([AtomicI64::new(1_000_000_000), AtomicI64::new(1_000_000_000)]));
        Self {
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            hands,
            model: Model::default(),
            clients: Actor::ALL.into_iter().map(Client::new).collect(),
            numbers: 0,
        }
    }

    fn now(&self) -> i64 {
        self.hands[1].load(Ordering::Relaxed)
    }

    fn pass(&self, ms: i64) {
        self.hands.iter().for_each(|hand| {
            hand.fetch_add(ms, Ordering::Relaxed);
        });
    }
}

/// One life of the node.
struct Life<'a> {
    world: &'a mut World,
    disk: &'a SimDisk,
    note: &'a str,
    broker: Arc<Broker>,
    hands: Hands,
    doing: FuturesUnordered<Done>,
    /// For how many steps the disk takes nothing more.
    trouble: u64,
    /// Whether syncs may fail, also those that are not the WAL's.
    may_fail: bool,
}

/// Why a life ended before its time.
#[derive(Debug)]
struct Dead(#[expect(dead_code, reason = "told where it should not be")] String);

/// Waits for something that is done alone, and does what the WAL has to do for it.
async fn alone<T>(hands: &mut Hands, note: &str, mut held: impl FnMut(&mut Hands), work: impl Future<Output = T>) -> T {
    let (mut work, begun) = (pin!(work), Instant::now());
    loop {
        if let Poll::Ready(done) = futures::poll!(&mut work) {
            return done;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{note}: it hangs");
        tokio::task::yield_now().await;
        if !hands.is_waited_for() {
            // Somebody reads or writes on a thread of its own.
            std::thread::yield_now();
        } else if hands.commit() {
            held(hands);
        }
    }
}

impl<'a> Life<'a> {
    async fn begin(world: &'a mut World, disk: &'a SimDisk, may_fail: bool, note: &'a str) -> Result<Self, Dead> {
        let (log, mut hands) = Hands::open(disk).map_err(|e| Dead(e.to_string()))?;
        let clock = Clock::by_hand(world.hands);
        let config = BrokerConfig { group_initial_rebalance_delay: Duration::ZERO, ..BrokerConfig::default() };
        let opened = alone(&mut hands, note, |_| {}, Broker::open(log, config, clock)).await;
        let broker = match opened {
            Ok(broker) => broker,
            Err(error) => {
                hands.die();
                return Err(Dead(error.to_string()));
            }
        };
        let mut life = Self { world, disk, note, broker, hands, doing: FuturesUnordered::new(), trouble: 0, may_fail };
        if let Err(dead) = life.make_topics().await {
            life.die().await;
            return Err(dead);
        }
        Ok(life)
    }

    /// Does something alone, with the disk as it should be.
    async fn alone<T>(&mut self, work: impl Future<Output = T>) -> T {
        let disk = self.disk;
        let mut times = 0;
        let held = |hands: &mut Hands| {
            times += 1;
            if times > 3 {
                clear_up(disk, hands);
            }
        };
        alone(&mut self.hands, self.note, held, work).await
    }

    async fn make_topics(&mut self) -> Result<(), Dead> {
        for (topic, partitions, configs) in [
            ("plain", 2, vec![("retention.ms", RETENTION_MS.to_string())]),
            (
                "keyed",
                1,
                [
                    ("cleanup.policy", "compact,delete"),
                    ("retention.ms", "-1"),
                    ("min.cleanable.dirty.ratio", "0"),
                    ("delete.retention.ms", "15"),
                ]
                .map(|(name, value)| (name, value.to_owned()))
                .to_vec(),
            ),
        ] {
            if self.broker.topic_named(topic).is_none() {
                let configs = configs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                let new = NewTopic { name: TopicName::new(topic).expect("valid"), partitions: Some(partitions), configs };
                let broker = Arc::clone(&self.broker);
                self.alone(async move { broker.create_topic(new).await }).await.map_err(|e| Dead(e.to_string()))?;
            }
        }
        for place in &PLACES {
            // Segments of few batches, so that there is much to do.
            let partition = self.broker.partition(&place.of()).expect("it was made");
            let config = PartitionConfig { durability: Durability::Sync, segment_ms: i64::MAX, segment_bytes: 500 };
            self.broker.log().set_config(partition.key(), config);
        }
        Ok(())
    }

    /// Lets everything that can go on without the disk do so.
    async fn settle(&mut self) {
        for _ in 0..6 {
            while let Poll::Ready(Some(effect)) = futures::poll!(self.doing.next()) {
                effect(&mut self.world.model, &mut self.world.clients, self.note);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits until nothing is on its way.
    async fn drain(&mut self) -> Result<(), Dead> {
        let (begun, mut held) = (Instant::now(), 0);
        while !self.doing.is_empty() {
            self.settle().await;
            if self.hands.commit() {
                held += 1;
            }
            if held > 3 {
                self.clear_up();
            }
            self.alive()?;
            assert!(begun.elapsed() < Duration::from_secs(60), "{}: it hangs", self.note);
        }
        Ok(())
    }

    fn alive(&self) -> Result<(), Dead> {
        self.hands.failure().map_or(Ok(()), |why| Err(Dead(why)))
    }

    fn clear_up(&mut self) {
        self.trouble = 0;
        clear_up(self.disk, &self.hands);
    }

    fn change_weather(&mut self) {
        self.clear_up();
        let chance = &mut self.world.chance;
        match chance.below(4) {
            0 => self.disk.set_out_of_files(true),
            1 => self.disk.set_room(Some(chance.below(3000))),
            2 => self.disk.set_read_only(true),
            _ => return,
        }
        self.trouble = chance.below(6) + 1;
    }

    /// A client does its next thing.
    async fn act(&mut self) {
        let world = &mut *self.world;
        let which = world.chance.below(world.clients.len() as u64) as usize;
        let now = world.now();
        if let Some(doing) = world.clients[which].act(&mut world.chance, &mut world.model, &self.broker, &mut world.numbers, now) {
            self.doing.push(doing);
        }
        self.settle().await;
    }

    /// Time passes; transactions whose time is over are ended.
    async fn pass_time(&mut self) -> Result<(), Dead> {
        self.drain().await?;
        let ms = self.world.chance.below(30) as i64;
        self.world.pass(ms);
        self.let_time_run().await
    }

    /// What is due by now is done.
    async fn let_time_run(&mut self) -> Result<(), Dead> {
        for _ in 0..20 {
            self.broker.transactions().look_again();
            self.broker.groups().look_again();
            let (broker, now) = (Arc::clone(&self.broker), self.world.now());
            let is_late = move || {
                let one = broker.transactions().describe(Actor::Hasty.id());
                one.is_some_and(|one| one.deadline().is_some_and(|at| at.0 < now)) && broker.log_failure().is_none()
            };
            let late = is_late.clone();
            self.alone(async move {
                // A task sleeps for a millisecond of the machine's before it looks.
                let begun = Instant::now();
                while late() && begun.elapsed() < Duration::from_millis(50) {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            self.alive()?;
            if !is_late() {
                // What ended it is on its way to the disk, or its coordinator has yet to hear of it.
                self.settle().await;
                while self.hands.is_waited_for() {
                    if self.hands.commit() {
                        self.clear_up();
                    }
                    self.settle().await;
                    self.alive()?;
                }
                let now = self.world.now();
                self.world.model.note_late(&self.broker, now);
                return Ok(());
            }
            // The disk took nothing: it is tried again a second later.
            self.clear_up();
            self.world.pass(1_001);
        }
        panic!("{}: a transaction is not ended when its time is over", self.note);
    }

    /// The machine's clock is set, by hours, or right again.
    fn set_clock(&mut self) {
        let [wall, steady] = self.world.hands;
        let ahead = if self.world.chance.one_in(3) { 0 } else { self.world.chance.below(400) as i64 * HOUR_MS / 2 };
        wall.store(steady.load(Ordering::Relaxed) + ahead, Ordering::Relaxed);
        self.broker.look_at_the_clock();
    }

    /// What the node does for itself now and then.
    async fn keep_house(&mut self) -> Result<(), Dead> {
        self.drain().await?;
        client::tell(|| "the house is kept".to_owned());
        let (broker, rewrites) = (Arc::clone(&self.broker), self.world.chance.below(4));
        let done = self.alone(async move {
            broker.enforce_retention().await?;
            while broker.compacting.load(Ordering::Acquire) {
                tokio::task::yield_now().await;
            }
            match rewrites {
                0 => broker.groups.journal().rewrite(100).await.map(drop),
                1 => broker.transactions.journals()[0].rewrite(100).await.map(drop),
                2 => broker.catalogue.snapshot_producers(0).await,
                _ => Ok(()),
            }
        });
        if let Err(error) = done.await {
            let may = self.may_fail || self.trouble > 0 || self.hands.failure().is_some() || self.disk.list("").is_err();
            assert!(may, "{}: without a reason: {error}", self.note);
        }
        self.alive()
    }

    async fn delete_records(&mut self) -> Result<(), Dead> {
        self.drain().await?;
        let p = self.world.chance.below(PLACES.len() as u64) as usize;
        let place = &PLACES[p];
        let log = Arc::clone(self.broker.partition(&place.of()).expect("it is there").log());
        let (start, end) = (log.start().0, log.durable_end().0);
        let to = start + self.world.chance.below((end - start) as u64 / 2 + 2) as i64;
        if to <= start || to > end {
            return Ok(());
        }
        client::tell(|| format!("{place}: {start}..{end} is to begin at {to}"));
        self.world.model.starts[p].ask(to);
        let broker = Arc::clone(&self.broker);
        match self.alone(async move { broker.delete_records(place.topic, place.partition, to).await }).await {
            Ok(at) => {
                assert_eq!(at, to, "{}, {place}: it starts elsewhere", self.note);
                self.world.model.starts[p].tell(to);
            }
            Err(code) => {
                let may = self.may_fail || self.trouble > 0 || self.hands.failure().is_some() || self.disk.list("").is_err();
                assert!(may, "{}, {place}: records are not deleted, without a reason: {code}", self.note);
            }
        }
        self.alive()
    }

    async fn check(&mut self, after_crash: bool) -> Result<(), Dead> {
        let (broker, note, now) = (Arc::clone(&self.broker), self.note, self.world.now());
        if after_crash {
            self.world.clients.iter_mut().for_each(Client::crashed);
            // What was open and late when the node died is ended first.
            self.let_time_run().await?;
        }
        let disk = self.disk.clone();
        let mut model = std::mem::take(&mut self.world.model);
        let done = self.alone(async move {
            let done = model.check(&broker, &disk, after_crash, now, note).await;
            (model, done)
        });
        let (model, done) = done.await;
        self.world.model = model;
        self.alive()?;
        done
    }

    async fn run(&mut self) -> Result<(), Dead> {
        for _ in 0..self.world.chance.below(60) + 10 {
            match self.world.chance.below(40) {
                0..20 => self.act().await,
                20..28 => {
                    self.hands.commit();
                    self.settle().await;
                }
                28..31 => {
                    let cut = self.world.chance.one_in(5);
                    self.hands.materialise(cut);
                }
                31 | 32 => self.pass_time().await?,
                33 => self.set_clock(),
                34 | 35 => self.keep_house().await?,
                36 if self.trouble == 0 => self.delete_records().await?,
                37 => self.change_weather(),
                38 if self.trouble == 0 => {
                    self.drain().await?;
                    self.check(false).await?;
                }
                _ => {}
            }
            if self.trouble > 0 {
                self.trouble -= 1;
                if self.trouble == 0 {
                    self.clear_up();
                }
            }
            self.alive()?;
        }
        self.clear_up();
        if self.world.chance.one_in(3) {
            self.stop().await?;
        }
        Ok(())
    }

    /// As `Broker::close`, and the log's threads to their end.
    async fn stop(&mut self) -> Result<(), Dead> {
        self.drain().await?;
        let broker = Arc::clone(&self.broker);
        let done = async move {
            broker.stop.cancel();
            broker.tasks.close();
            broker.tasks.wait().await;
            broker.catalogue.snapshot_producers(0).await
        };
        self.alone(done).await.map_err(|e| Dead(e.to_string()))?;
        self.hands.close();
        self.alive()
    }

    /// The process is no more; what was told before counts.
    async fn die(mut self) {
        while let Poll::Ready(Some(effect)) = futures::poll!(self.doing.next()) {
            effect(&mut self.world.model, &mut self.world.clients, self.note);
        }
        self.hands.die();
    }
}

fn clear_up(disk: &SimDisk, hands: &Hands) {
    disk.set_out_of_files(false);
    disk.set_room(None);
    disk.set_read_only(false);
    hands.look_again();
}

fn check_story(seed: u64) {
    TopicId::draw_from(u128::from(seed) << 64);
    let mut world = World::new(seed);
    let mut disk = SimDisk::new(1 << 40);
    for life in 0..4 {
        let note = format!("seed {seed}, life {life}");
        let fate = world.chance.below(8);
        match fate {
            _ if life == 3 => {}
            0 | 1 => {}
            2 => disk.fail_sync_at(disk.syncs() + world.chance.below(60) + 1),
            _ => disk.cut_power_at(disk.changes() + world.chance.below(400) + 1),
        }
        client::tell(|| format!("{note}, fate {fate}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let ended = runtime.block_on(async {
            let mut one = Life::begin(&mut world, &disk, fate == 2, &note).await?;
            let mut ended = one.check(true).await;
            if ended.is_ok() && life < 3 {
                ended = one.run().await;
            }
            one.die().await;
            ended
        });
        drop(runtime);
        disk.set_room(None);
        disk.set_out_of_files(false);
        disk.set_read_only(false);
        let may_fail = fate == 2 || disk.list("").is_err();
        assert!(ended.is_ok() || may_fail, "{note}: it has failed where the disk only took nothing for a while: {ended:?}");
        world.hands[0].store(world.now(), Ordering::Relaxed);
        disk = match world.chance.below(4) {
            0 => disk.kill(),
            1 => disk.crash(|_| 0),
            _ => disk.crash(|n| world.chance.below(n)),
        };
    }
}

#[test]
fn whatever_the_disk_does_the_broker_keeps_what_it_told() {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|n| n.parse().ok()) {
        return check_story(seed);
    }
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    check_story(seed);
                }
            });
        }
    });
}
