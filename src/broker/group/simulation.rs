//! A group under churn: hundreds of clients that join, restart, fall silent and leave, from one seed.
//!
//! Checked after every step: what `mod.rs` promises always holds. Checked at the end: once the churn is
//! over the group comes to rest with everyone in it, and once all have fallen silent it is empty.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::consumer::Table;
use super::*;
use crate::record::{Offset, PartitionId, TopicName, TopicPartition};
use crate::time::Timestamp;
use crate::wire::error_code as e;

const LONGEST_REBALANCE_MS: i64 = 30_000;
const LONGEST_SESSION_MS: i32 = 45_000;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Doing {
    /// About to join.
    Idle,
    Joining(Token),
    /// Has its generation; the leader also whom to assign to.
    Joined(Vec<String>),
    Syncing(Token),
    Working,
    /// Silent for ever: its process was killed.
    Gone,
}

#[derive(Debug)]
struct Client {
    member_id: String,
    generation: i32,
    instance_id: Option<String>,
    /// Whether it takes part in the handshake of version 4.
    new: bool,
    session_ms: i32,
    rebalance_ms: i32,
    /// Lives and beats, but does not get round to asking for its assignment.
    dawdles: bool,
    protocols: Vec<(String, Bytes)>,
    doing: Doing,
    next_at: Timestamp,
}

#[derive(Debug, Default)]
struct Generation {
    leader: Option<String>,
    protocol: String,
    members: BTreeSet<String>,
    answered: BTreeSet<String>,
    assigned: bool,
}

struct World {
    group: Group,
    now: Timestamp,
    rng: ChaCha8Rng,
    clients: Vec<Client>,
    /// Who waits, and since when.
    waiting: BTreeMap<Token, (usize, Timestamp)>,
    generations: BTreeMap<i32, Generation>,
    tokens: u64,
    churn: bool,
    log_end: i64,
    /// What was stored.
    log: Vec<GroupRecord>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let config = GroupConfig { initial_rebalance_delay_ms: *[0, 100, 3000].choose(&mut rng).unwrap(), ..GroupConfig::default() };
        Self {
            group: Group::new(GroupId::new("churn").unwrap(), config, Timestamp(0)),
            now: Timestamp(0),
            rng,
            clients: Vec::new(),
            waiting: BTreeMap::new(),
            generations: BTreeMap::new(),
            tokens: 0,
            churn: true,
            log_end: 0,
            log: Vec::new(),
        }
    }

    fn add_client(&mut self) {
        let n = self.clients.len();
        let mut protocols: Vec<_> = ["range", "roundrobin"].iter().map(|p| ((*p).to_owned(), Bytes::from(format!("{p} of {n}")))).collect();
        if self.rng.random_bool(0.3) {
            protocols.reverse();
        }
        if self.rng.random_bool(0.2) {
            protocols.insert(0, ("own".to_owned(), Bytes::new()));
        }
        let start = self.rng.random_range(0..5000);
        self.clients.push(Client {
            member_id: String::new(),
            generation: -1,
            instance_id: self.rng.random_bool(0.3).then(|| format!("static-{n}")),
            new: self.rng.random_bool(0.7),
            session_ms: self.rng.random_range(8_000..LONGEST_SESSION_MS),
            dawdles: self.rng.random_bool(0.1),
            rebalance_ms: self.rng.random_range(5_000..LONGEST_REBALANCE_MS as i32),
            protocols,
            doing: Doing::Idle,
            next_at: self.now.plus(start),
        });
    }

    fn token(&mut self, client: usize) -> Token {
        self.tokens += 1;
        self.waiting.insert(Token(self.tokens), (client, self.now));
        Token(self.tokens)
    }

    fn join(&mut self, i: usize) {
        let token = self.token(i);
        let client = &mut self.clients[i];
        client.doing = Doing::Joining(token);
        let request = JoinRequest {
            token,
            member_id: client.member_id.clone(),
            instance_id: client.instance_id.clone(),
            client_id: format!("client-{i}"),
            client_host: "/127.0.0.1".to_owned(),
            protocol_type: "consumer".to_owned(),
            protocols: client.protocols.clone(),
            session_timeout_ms: client.session_ms,
            rebalance_timeout_ms: client.rebalance_ms,
            require_known_member_id: client.new,
            supports_skip_assignment: client.new,
            nonce: token.0.to_string(),
        };
        let effects = self.group.join(self.now, &request, &Table::default());
        self.effects(effects);
    }

    fn sync(&mut self, i: usize, members: &[String]) {
        let token = self.token(i);
        let client = &mut self.clients[i];
        client.doing = Doing::Syncing(token);
        let assignments = members.iter().map(|id| (id.clone(), Bytes::from(format!("{} {id}", client.generation)))).collect();
        let request = SyncRequest {
            token,
            member_id: client.member_id.clone(),
            instance_id: client.instance_id.clone(),
            generation: client.generation,
            protocol_type: None,
            protocol: None,
            assignments,
        };
        let effects = self.group.sync(self.now, &request, &Table::default());
        self.effects(effects);
    }

    fn effects(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Store(record) => self.log.push(record),
                Effect::Join(token, reply) => {
                    let (i, _) = self.waiting.remove(&token).expect("every token is answered once");
                    self.on_join(i, token, reply);
                }
                Effect::Sync(token, reply) => {
                    let (i, _) = self.waiting.remove(&token).expect("every token is answered once");
                    self.on_sync(i, token, &reply);
                }
            }
        }
    }

    fn on_join(&mut self, i: usize, token: Token, reply: JoinReply) {
        if reply.error == e::NONE {
            self.note_generation(&reply);
        }
        let pause = self.rng.random_range(0..50);
        let client = &mut self.clients[i];
        if client.doing != Doing::Joining(token) {
            return; // It has gone on, or is gone: the reply meets nobody.
        }
        client.next_at = self.now.plus(pause);
        match reply.error {
            e::NONE => {
                client.member_id = reply.member_id;
                client.generation = reply.generation;
                let members = reply.members.into_iter().map(|m| m.member_id).collect();
                client.doing = Doing::Joined(if reply.skip_assignment { Vec::new() } else { members });
            }
            e::MEMBER_ID_REQUIRED => {
                client.member_id = reply.member_id;
                client.doing = Doing::Idle;
            }
            e::UNKNOWN_MEMBER_ID => {
                client.member_id.clear();
                client.doing = Doing::Idle;
            }
            e::FENCED_INSTANCE_ID => client.doing = Doing::Gone,
            e::REBALANCE_IN_PROGRESS | e::INCONSISTENT_GROUP_PROTOCOL => client.doing = Doing::Idle,
            other => panic!("join answered {other}"),
        }
    }

    /// One leader a generation, one protocol, and nobody in it twice or without the leader knowing.
    fn note_generation(&mut self, reply: &JoinReply) {
        let generation = self.generations.entry(reply.generation).or_default();
        let protocol = reply.protocol.clone().expect("a protocol is chosen");
        assert!(!protocol.is_empty());
        if generation.answered.is_empty() {
            generation.protocol.clone_from(&protocol);
        }
        assert_eq!(generation.protocol, protocol, "all of a generation see the same protocol");
        generation.answered.insert(reply.member_id.clone());
        if !reply.members.is_empty() && !reply.skip_assignment {
            assert_eq!(reply.leader, reply.member_id, "only the leader is told the members");
            assert!(generation.leader.as_ref().is_none_or(|l| *l == reply.leader), "one leader a generation");
            generation.leader = Some(reply.leader.clone());
            generation.members = reply.members.iter().map(|m| m.member_id.clone()).collect();
            assert_eq!(generation.members.len(), reply.members.len());
        }
    }

    fn on_sync(&mut self, i: usize, token: Token, reply: &SyncReply) {
        let pause = self.rng.random_range(500..3000);
        let client = &mut self.clients[i];
        if client.doing != Doing::Syncing(token) {
            return;
        }
        client.next_at = self.now.plus(pause);
        match reply.error {
            e::NONE => {
                // The leader wrote the generation and the member it knew in the name of this client.
                if !reply.assignment.is_empty() {
                    let text = String::from_utf8(reply.assignment.to_vec()).unwrap();
                    assert!(text.starts_with(&format!("{} ", client.generation)), "{text} is not of {}", client.generation);
                }
                // Of a generation from before a restart nothing more is known.
                if let Some(generation) = self.generations.get_mut(&client.generation) {
                    generation.assigned = true;
                }
                client.doing = Doing::Working;
            }
            e::REBALANCE_IN_PROGRESS => client.doing = Doing::Idle,
            e::UNKNOWN_MEMBER_ID | e::ILLEGAL_GENERATION => {
                client.member_id.clear();
                client.doing = Doing::Idle;
            }
            e::FENCED_INSTANCE_ID => client.doing = Doing::Gone,
            other => panic!("sync answered {other}"),
        }
    }

    fn act(&mut self, i: usize) {
        if self.churn && self.upset(i) {
            return;
        }
        match self.clients[i].doing.clone() {
            Doing::Idle => self.join(i),
            Doing::Joined(_) if self.clients[i].dawdles => self.dawdle(i),
            Doing::Joined(members) => self.sync(i, &members),
            Doing::Working => self.work(i),
            Doing::Joining(_) | Doing::Syncing(_) | Doing::Gone => self.clients[i].next_at = Timestamp::MAX,
        }
    }

    fn work(&mut self, i: usize) {
        let pause = self.rng.random_range(1000..4000);
        let commits = self.rng.random_bool(0.3);
        let client = &mut self.clients[i];
        client.next_at = self.now.plus(pause);
        let (member_id, instance_id, generation) = (client.member_id.clone(), client.instance_id.clone(), client.generation);
        let error = if commits {
            let of = TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(i as i32));
            let offsets = vec![CommitOffset { of, offset: Offset(self.now.0), leader_epoch: 0, metadata: None }];
            match self.group.plan_commit(
                self.now,
                &CommitRequest { member_id, instance_id, generation, knows_epochs: false, retention_ms: None, offsets },
            ) {
                Ok(plan) => {
                    self.log.extend(plan.records());
                    self.group.commit_stored(plan, Offset(self.log_end));
                    self.log_end += 1;
                    e::NONE
                }
                Err(error) => error,
            }
        } else {
            self.group.heartbeat(self.now, &HeartbeatRequest { member_id, instance_id, generation })
        };
        match error {
            e::NONE => {}
            e::REBALANCE_IN_PROGRESS => client.doing = Doing::Idle,
            e::UNKNOWN_MEMBER_ID | e::ILLEGAL_GENERATION => {
                client.member_id.clear();
                client.doing = Doing::Idle;
            }
            e::FENCED_INSTANCE_ID => client.doing = Doing::Gone,
            other => panic!("work answered {other}"),
        }
        if client.doing == Doing::Idle {
            client.next_at = self.now.plus(pause / 10);
        }
    }

    fn dawdle(&mut self, i: usize) {
        let client = &mut self.clients[i];
        client.next_at = self.now.plus(3000);
        let (member_id, instance_id, generation) = (client.member_id.clone(), client.instance_id.clone(), client.generation);
        match self.group.heartbeat(self.now, &HeartbeatRequest { member_id, instance_id, generation }) {
            e::NONE => {}
            e::REBALANCE_IN_PROGRESS => client.doing = Doing::Idle,
            _ => client.doing = Doing::Gone,
        }
    }

    /// Something happens to the client that it did not plan.
    fn upset(&mut self, i: usize) -> bool {
        let chance = self.rng.random_range(0..1000);
        let client = &mut self.clients[i];
        if client.doing == Doing::Gone {
            return false;
        }
        match chance {
            // Killed.
            0..10 => client.doing = Doing::Gone,
            // Restarted: a static one comes back under its name, another as somebody new.
            10..25 => {
                client.member_id.clear();
                client.doing = Doing::Idle;
            }
            // Leaves.
            25..40 => {
                let leaving = Leaving { member_id: client.member_id.clone(), instance_id: client.instance_id.clone() };
                client.member_id.clear();
                client.doing = Doing::Gone;
                let (_, effects) = self.group.leave(self.now, vec![leaving], &Table::default());
                self.effects(effects);
            }
            // Reads something else from now on.
            40..50 if client.doing == Doing::Working => {
                client.protocols.iter_mut().for_each(|(_, data)| *data = Bytes::from(format!("changed at {}", self.now.0)));
                client.doing = Doing::Idle;
            }
            // Hangs for a while.
            50..70 => client.next_at = self.now.plus(self.rng.random_range(5_000..40_000)),
            // Asks again on a new connection.
            70..80 if matches!(client.doing, Doing::Joining(_)) => {
                self.join(i);
                return true;
            }
            // The coordinator is killed and reads its log.
            80..83 => self.restart(),
            _ => return false,
        }
        true
    }

    /// The coordinator was killed: what is stored is all there is, and who waited has lost its connection.
    fn restart(&mut self) {
        let stable = (self.group.state() == GroupState::Stable).then(|| self.group.describe());
        let mut replay = Replay::default();
        for (at, record) in self.log.iter().enumerate() {
            replay.take(Offset(at as i64), Some(&record.key), record.value.as_deref()).unwrap();
        }
        let (mut groups, records) = replay.finish(self.group.config, self.now);
        self.log.extend(records);
        let empty = || Group::new(GroupId::new("churn").unwrap(), self.group.config, self.now);
        self.group = groups.pop().unwrap_or_else(empty);
        if let Some(stable) = stable {
            assert_eq!(self.group.describe(), stable, "a stable group outlives a restart");
        }
        self.waiting.clear();
        // The generation that was being made may be made again, with others in it.
        let stored = self.group.generation();
        self.generations.retain(|generation, _| *generation <= stored);
        for client in &mut self.clients {
            if matches!(client.doing, Doing::Joining(_) | Doing::Syncing(_)) {
                client.doing = Doing::Idle;
                client.next_at = self.now.plus(100);
            }
        }
    }

    fn check(&self) {
        let group = &self.group;
        let named = group.members.values().filter(|m| m.instance_id.is_some()).count();
        assert_eq!(named, group.statics.len(), "a name is in the group once");
        assert!(group.statics.iter().all(|(name, id)| group.members[id].instance_id.as_ref() == Some(name)));
        match group.state() {
            GroupState::Empty => assert!(group.members.is_empty() && group.leader.is_none()),
            GroupState::CompletingRebalance | GroupState::Stable => {
                let leader = group.leader.as_ref().expect("there is a leader");
                assert!(group.members.contains_key(leader), "the leader is a member");
                assert!(group.members.values().all(|m| m.join.is_none()), "nobody waits for the next generation without a rebalance");
                assert!(group.members.values().all(|m| m.supports(group.protocol.as_ref().unwrap())));
                let assigns = group.members[leader].owes_sync || group.state() == GroupState::Stable;
                assert!(assigns, "the leader knows that it is to assign");
                let waits_for_sync = group.members.values().any(|m| m.sync.is_some());
                assert!(group.state() == GroupState::CompletingRebalance || !waits_for_sync, "a stable group keeps nobody waiting");
            }
            GroupState::PreparingRebalance => {
                assert!(group.members.values().all(|m| m.sync.is_none()));
                assert!(group.next_deadline().is_some());
            }
            GroupState::Assigning | GroupState::Reconciling => panic!("it is classic"),
            GroupState::Dead => panic!("nobody deleted it"),
        }
        for (token, (i, since)) in &self.waiting {
            let longest = LONGEST_REBALANCE_MS.max(group.config.initial_rebalance_delay_ms);
            assert!(self.now.since(*since) <= longest, "client {i} has waited with {token:?} since {since:?}");
        }
        let known: usize = group.members.values().map(|m| usize::from(m.join.is_some()) + usize::from(m.sync.is_some())).sum();
        assert_eq!(known, self.waiting.len(), "whoever waits is known to the group");
    }

    /// Lets everything happen that is due until `end`, in order of time.
    fn run(&mut self, end: Timestamp) {
        loop {
            let client = (0..self.clients.len()).min_by_key(|i| self.clients[*i].next_at);
            let client_at = client.map_or(Timestamp::MAX, |i| self.clients[i].next_at);
            let group_at = self.group.next_deadline().unwrap_or(Timestamp::MAX);
            let at = client_at.min(group_at);
            if at > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(at);
            if group_at <= client_at {
                let effects = self.group.tick(self.now, &Table::default());
                self.effects(effects);
                assert!(self.group.next_deadline().is_none_or(|next| next > self.now), "time goes on");
            } else {
                self.act(client.expect("its time has come"));
            }
            self.check();
        }
    }
}

fn simulate(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..40 {
        for _ in 0..world.rng.random_range(0..12) {
            world.add_client();
        }
        let end = world.now.plus(world.rng.random_range(1_000..15_000));
        world.run(end);
    }
    world.churn = false;
    world.run(world.now.plus(5 * LONGEST_REBALANCE_MS));
    let alive: BTreeSet<_> = world.clients.iter().filter(|c| c.doing != Doing::Gone).map(|c| (c.member_id.clone(), c.generation)).collect();
    let members: BTreeSet<_> = world.group.members.keys().map(|id| (id.clone(), world.group.generation())).collect();
    assert_eq!(alive, members, "the group came to rest with everyone in it");
    assert!(alive.is_empty() || world.group.state() == GroupState::Stable);
    assert!(world.clients.iter().all(|c| matches!(c.doing, Doing::Working | Doing::Gone)));
    let assigned = world.generations.values().filter(|g| g.assigned);
    for generation in assigned {
        assert!(generation.leader.is_some(), "an assigned generation had a leader");
    }
    for client in &mut world.clients {
        client.doing = Doing::Gone;
    }
    world.run(world.now.plus(5 * LONGEST_REBALANCE_MS));
    assert_eq!(world.group.state(), GroupState::Empty);
    assert!(world.waiting.is_empty());
}

#[test]
fn a_group_keeps_its_promises_under_churn() {
    // For longer runs SIMULATION_SEEDS says how many.
    let seeds = std::env::var("SIMULATION_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| simulate(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
