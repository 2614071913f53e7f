//! A group of KIP-848 under churn: clients of both protocols that join, restart, fall silent and leave, topics that grow
//! and go, and a coordinator that restarts, all from one seed.
//!
//! Checked after every step, by what the clients themselves believe: no partition is used by two of them at once.
//! Checked at the end: once the churn is over everybody has what the target says, and everything is assigned once.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::broker::group::{Group, GroupConfig, Replay};
use crate::record::Offset;
use crate::wire::error_code as e;

const TOPICS: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug)]
struct Client {
    id: String,
    instance_id: Option<String>,
    epoch: i32,
    names: Vec<String>,
    pattern: Option<String>,
    assignor: Option<String>,
    /// What it works on: only what it was told to have, until it gave it up or its session ended.
    uses: BTreeSet<(TopicId, i32)>,
    told: Option<OwnedPartitions>,
    /// It takes so many heartbeats to give something up.
    slow: u32,
    /// What changed and has to be said.
    says_all: bool,
    next_at: Timestamp,
    /// When it would notice by itself that nobody heard of it.
    heard_at: Timestamp,
    alive: bool,
}

struct World {
    rng: StdRng,
    now: Timestamp,
    group: Group,
    topics: Table,
    clients: Vec<Client>,
    log: Vec<GroupRecord>,
    churn: bool,
    named: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let topics = Table(TOPICS[..2].iter().map(|name| ((*name).to_owned(), rng.random_range(1..9))).collect());
        let config = GroupConfig::default();
        let group = Group::new(GroupId::new("g").unwrap(), config, Timestamp(1_000_000));
        Self { rng, now: Timestamp(1_000_000), group, topics, clients: Vec::new(), log: Vec::new(), churn: true, named: 0 }
    }

    fn add_client(&mut self) {
        self.named += 1;
        let names: Vec<String> = TOPICS.iter().filter(|_| self.rng.random_bool(0.6)).map(|name| (*name).to_owned()).collect();
        let pattern = self.rng.random_bool(0.2).then(|| "[a-c]".to_owned());
        let instance_id = self.rng.random_bool(0.3).then(|| format!("i{}", self.rng.random_range(0..4)));
        self.clients.push(Client {
            id: format!("m{}", self.named),
            instance_id,
            epoch: 0,
            names,
            pattern,
            assignor: ["range", "uniform"].choose(&mut self.rng).filter(|_| self.named.is_multiple_of(3)).map(|name| (*name).to_owned()),
            uses: BTreeSet::new(),
            told: None,
            slow: self.rng.random_range(0..4),
            says_all: true,
            next_at: self.now,
            heard_at: self.now,
            alive: true,
        });
    }

    fn beat(&mut self, i: usize) {
        let client = &mut self.clients[i];
        let mut owned = OwnedPartitions::new();
        for (topic, partition) in &client.uses {
            owned.entry(*topic).or_default().push(*partition);
        }
        let full = client.epoch == 0 || client.says_all;
        let beat = Beat {
            member_id: client.id.clone(),
            epoch: client.epoch,
            instance_id: client.instance_id.clone(),
            rack_id: None,
            rebalance_timeout_ms: if full { 20_000 } else { -1 },
            names: full.then(|| client.names.clone()),
            pattern: if full { client.pattern.clone() } else { None },
            assignor: if full { client.assignor.clone() } else { None },
            owned: Some(owned),
            client_id: String::new(),
            client_host: String::new(),
            makes_own_id: true,
            nonce: String::new(),
        };
        beat.check().expect("the client makes sense");
        let (reply, effects) = self.group.consumer_heartbeat(self.now, &beat, &self.topics);
        let lost = self.churn && self.rng.random_bool(0.05);
        for effect in effects {
            match effect {
                Effect::Store(record) => self.log.push(record),
                other => panic!("{other:?}"),
            }
        }
        let client = &mut self.clients[i];
        if lost {
            // The answer never arrives: the client says everything again.
            client.says_all = true;
            client.next_at = self.now.plus(500);
            return;
        }
        match reply {
            Ok(reply) => {
                client.epoch = reply.epoch;
                client.says_all = false;
                client.heard_at = self.now;
                client.next_at = self.now.plus(reply.interval_ms.into());
                if let Some(assignment) = reply.assignment {
                    client.told = Some(assignment);
                }
                self.follow(i);
            }
            Err(refusal) => match refusal.code {
                e::FENCED_MEMBER_EPOCH | e::UNKNOWN_MEMBER_ID | e::GROUP_ID_NOT_FOUND => self.rejoin(i),
                e::UNRELEASED_INSTANCE_ID | e::FENCED_INSTANCE_ID => {
                    client.uses.clear();
                    client.alive = false;
                }
                other => panic!("{}", e::name(other)),
            },
        }
    }

    fn rejoin(&mut self, i: usize) {
        let client = &mut self.clients[i];
        client.uses.clear();
        client.told = None;
        client.epoch = 0;
        client.says_all = true;
        client.next_at = self.now;
    }

    /// The client gives up what it should not have, in its own time, and then takes up what it should.
    fn follow(&mut self, i: usize) {
        let client = &mut self.clients[i];
        let Some(told) = &client.told else { return };
        let wanted: BTreeSet<_> = told.iter().flat_map(|(topic, of)| of.iter().map(|p| (*topic, *p))).collect();
        let too_much = !client.uses.is_subset(&wanted);
        if too_much && client.slow > 0 {
            client.slow -= 1;
            client.next_at = self.now.plus(1_000);
            return;
        }
        if too_much {
            client.next_at = self.now;
        }
        client.uses = wanted;
    }

    fn upset(&mut self, i: usize) {
        let chance = self.rng.random_range(0..1000);
        match chance {
            // Killed.
            0..10 => self.clients[i].alive = false,
            // Restarted: a static one under its name, with another id.
            10..25 => {
                self.named += 1;
                self.clients[i].id = format!("m{}", self.named);
                self.rejoin(i);
            }
            // Leaves, for good or for a while.
            25..50 => {
                let away = self.clients[i].instance_id.is_some() && self.rng.random_bool(0.5);
                let client = &mut self.clients[i];
                client.uses.clear();
                let beat = Beat { epoch: if away { -2 } else { -1 }, ..Self::leaving(client) };
                let (_, effects) = self.group.consumer_heartbeat(self.now, &beat, &self.topics);
                self.log.extend(effects.into_iter().map(|effect| match effect {
                    Effect::Store(record) => record,
                    other => panic!("{other:?}"),
                }));
                if away {
                    self.named += 1;
                    self.clients[i].id = format!("m{}", self.named);
                    self.rejoin(i);
                    self.clients[i].next_at = self.now.plus(self.rng.random_range(0..60_000));
                } else {
                    self.clients[i].alive = false;
                }
            }
            // Wants something else.
            50..70 => {
                let client = &mut self.clients[i];
                client.names = TOPICS.iter().filter(|_| self.rng.random_bool(0.5)).map(|name| (*name).to_owned()).collect();
                client.says_all = true;
            }
            // Hangs.
            70..90 => self.clients[i].next_at = self.now.plus(self.rng.random_range(5_000..90_000)),
            90..110 => self.clients[i].slow = self.rng.random_range(0..30),
            // The topics change.
            110..115 => {
                let name = *TOPICS.choose(&mut self.rng).unwrap();
                let count = self.topics.0.get(name).copied().unwrap_or(0) + self.rng.random_range(1..4);
                self.topics.0.insert(name.to_owned(), count.min(20));
            }
            // The coordinator is killed and reads its log.
            115..120 => self.restart(),
            _ => {}
        }
    }

    fn leaving(client: &Client) -> Beat {
        Beat {
            member_id: client.id.clone(),
            epoch: -1,
            instance_id: client.instance_id.clone(),
            rack_id: None,
            rebalance_timeout_ms: -1,
            names: None,
            pattern: None,
            assignor: None,
            owned: None,
            client_id: String::new(),
            client_host: String::new(),
            makes_own_id: true,
            nonce: String::new(),
        }
    }

    fn restart(&mut self) {
        let before = self.group.describe_consumer();
        let mut replay = Replay::default();
        for (at, record) in self.log.iter().enumerate() {
            replay.take(Offset(at as i64), Some(&record.key), record.value.as_deref()).unwrap();
        }
        let (mut groups, _) = replay.finish(GroupConfig::default(), self.now);
        self.group = groups.pop().unwrap_or_else(|| Group::new(GroupId::new("g").unwrap(), GroupConfig::default(), self.now));
        assert_eq!(self.group.describe_consumer(), before, "what is read back is what was there");
    }

    /// Nobody uses what another uses, as long as both may: a client whose session is over for the group, and that does
    /// not know yet, is the one case that no coordinator can help.
    fn check(&self) {
        let mut owners: BTreeMap<(TopicId, i32), &str> = BTreeMap::new();
        let described = self.group.describe_consumer();
        let members: BTreeSet<&str> = described.iter().flat_map(|group| &group.members).map(|member| member.member_id.as_str()).collect();
        for client in self.clients.iter().filter(|client| client.alive && members.contains(client.id.as_str())) {
            for place in &client.uses {
                if let Some(other) = owners.insert(*place, &client.id) {
                    panic!("{place:?} is used by {other} and {}", client.id);
                }
            }
        }
        for group in described.iter() {
            let mut assigned = BTreeSet::new();
            for member in &group.members {
                for (topic, of) in &member.assigned {
                    assert!(of.iter().all(|partition| assigned.insert((*topic, *partition))), "assigned once");
                }
                assert!(member.epoch <= group.target_epoch && group.target_epoch <= group.epoch);
            }
        }
    }

    fn run(&mut self, end: Timestamp) {
        loop {
            let client = (0..self.clients.len()).filter(|i| self.clients[*i].alive).min_by_key(|i| self.clients[*i].next_at);
            let client_at = client.map_or(Timestamp::MAX, |i| self.clients[i].next_at);
            let group_at = self.group.next_deadline().unwrap_or(Timestamp::MAX);
            let at = client_at.min(group_at);
            if at > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(at);
            if group_at <= client_at {
                for effect in self.group.tick(self.now, &self.topics) {
                    match effect {
                        Effect::Store(record) => self.log.push(record),
                        other => panic!("{other:?}"),
                    }
                }
                assert!(self.group.next_deadline().is_none_or(|next| next > self.now), "time goes on");
            } else {
                let i = client.expect("its time has come");
                if self.churn {
                    self.upset(i);
                }
                if self.clients[i].alive && self.clients[i].next_at <= self.now {
                    self.beat(i);
                }
            }
            self.check();
        }
    }
}

fn simulate(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..20 {
        for _ in 0..world.rng.random_range(0..5) {
            world.add_client();
        }
        let end = world.now.plus(world.rng.random_range(1_000..60_000));
        world.run(end);
    }
    world.churn = false;
    for client in &mut world.clients {
        client.slow = 0;
    }
    world.run(world.now.plus(300_000));
    world.restart();
    world.run(world.now.plus(20_000));
    let Some(group) = world.group.describe_consumer() else { return };
    assert!(matches!(group.state, GroupState::Stable | GroupState::Empty), "{:?}", group.state);
    let alive: BTreeSet<_> = world.clients.iter().filter(|c| c.alive).map(|c| c.id.clone()).collect();
    let members: BTreeSet<_> = group.members.iter().map(|member| member.member_id.clone()).collect();
    assert_eq!(alive, members, "the group came to rest with everyone in it");
    let mut assigned = BTreeSet::new();
    for member in &group.members {
        let client = world.clients.iter().find(|client| client.alive && client.id == member.member_id).unwrap();
        let has: BTreeSet<_> = member.assigned.iter().flat_map(|(topic, of)| of.iter().map(|p| (*topic, *p))).collect();
        assert_eq!(has, client.uses, "the client has what the group thinks");
        assert_eq!(member.assigned, member.target, "and that is the target");
        assigned.extend(has);
    }
    let patterns = |name: &str, client: &Client| client.pattern.is_some() && ["a", "b", "c"].contains(&name);
    let wanted = |name: &str| world.clients.iter().any(|c| c.alive && (c.names.iter().any(|n| n == name) || patterns(name, c)));
    let there = world.topics.0.iter().filter(|(name, _)| wanted(name));
    assert_eq!(assigned.len(), there.map(|(_, count)| *count as usize).sum::<usize>(), "everything is assigned once");
}

#[test]
fn a_consumer_group_keeps_its_promises_under_churn() {
    // For longer runs SIMULATION_SEEDS says how many.
    let seeds = std::env::var("SIMULATION_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| simulate(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
