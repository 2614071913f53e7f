//! Stories about one group of KIP-848: who is given what and when, and who is turned away.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use expect_test::{Expect, expect};

use super::*;
use crate::broker::group::{GroupConfig, HeartbeatRequest, JoinRequest, Leaving, Replay, SyncRequest, Token};
use crate::record::{Offset, PartitionId, TopicName, TopicPartition};
use crate::wire::error_code as e;

/// Topics as a table.
#[derive(Clone, Debug, Default)]
pub(in crate::broker::group) struct Table(pub(in crate::broker::group) BTreeMap<String, i32>);

impl Table {
    fn id(name: &str) -> TopicId {
        let mut id = [0; 16];
        id[..name.len()].copy_from_slice(name.as_bytes());
        TopicId(id)
    }
}

impl Topics for Table {
    fn by_name(&self, name: &str) -> Option<(TopicId, i32)> {
        self.0.get(name).map(|count| (Self::id(name), *count))
    }

    fn name_of(&self, id: TopicId) -> Option<String> {
        self.0.keys().find(|name| Self::id(name) == id).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn version(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }
}

/// A client: it knows what it was told.
#[derive(Clone, Debug, Default)]
struct Client {
    epoch: i32,
    owned: OwnedPartitions,
    /// What it was told to have, where it has not followed yet.
    told: Option<OwnedPartitions>,
}

struct Story {
    group: crate::broker::group::Group,
    topics: Table,
    clients: BTreeMap<String, Client>,
    log: Vec<GroupRecord>,
    now: Timestamp,
    text: String,
}

fn show(of: &OwnedPartitions) -> String {
    let one = |(id, of): (&TopicId, &Vec<i32>)| {
        let name: String = id.0.iter().take_while(|b| **b != 0).map(|b| *b as char).collect();
        of.iter().map(|p| format!("{name}{p}")).collect::<Vec<_>>().join(" ")
    };
    of.iter().map(one).collect::<Vec<_>>().join(" ")
}

impl Story {
    fn new() -> Self {
        let id = GroupId::new("g").unwrap();
        let config = GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() };
        let group = crate::broker::group::Group::new(id, config, Timestamp(1_000_000));
        let topics = Table(BTreeMap::from([("t".to_owned(), 4)]));
        Self { group, topics, clients: BTreeMap::new(), log: Vec::new(), now: Timestamp(1_000_000), text: String::new() }
    }

    fn beat(name: &str, epoch: i32) -> Beat {
        Beat {
            member_id: name.to_owned(),
            epoch,
            instance_id: None,
            rack_id: None,
            rebalance_timeout_ms: -1,
            names: None,
            pattern: None,
            assignor: None,
            owned: None,
            client_id: "c".to_owned(),
            client_host: "/h".to_owned(),
            makes_own_id: true,
            nonce: String::new(),
        }
    }

    fn effects(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Store(record) => self.log.push(record),
                Effect::Join(_, reply) => {
                    let protocol = reply.protocol.unwrap_or_default();
                    writeln!(self.text, "  join {} {} {} {protocol}", reply.member_id, e::name(reply.error), reply.generation).unwrap();
                }
                Effect::Sync(_, reply) => {
                    let read = crate::broker::group::subscription::read_assignment(&reply.assignment).unwrap_or_default();
                    writeln!(self.text, "  sync {} {read:?}", e::name(reply.error)).unwrap();
                }
            }
        }
    }

    fn send(&mut self, beat: &Beat) {
        let name = beat.member_id.clone();
        let checked = beat.check();
        let (reply, effects) = match checked {
            Ok(()) => self.group.consumer_heartbeat(self.now, beat, &self.topics),
            Err(refusal) => (Err(refusal), Vec::new()),
        };
        match reply {
            Ok(reply) => {
                let told = reply.assignment.as_ref().map_or_else(|| "=".to_owned(), |of| format!("[{}]", show(of)));
                writeln!(self.text, "{name} {} {told}", reply.epoch).unwrap();
                let client = self.clients.entry(name).or_default();
                client.epoch = reply.epoch;
                if let Some(of) = reply.assignment {
                    client.told = Some(of);
                }
            }
            Err(refusal) => writeln!(self.text, "{name} {}", e::name(refusal.code)).unwrap(),
        }
        self.effects(effects);
    }

    /// One step: `A join t u`, `A` (goes on), `A follows` (has what it was told, and says so), `A leave`, ...
    fn step(&mut self, step: &str) {
        let words: Vec<&str> = step.split_whitespace().collect();
        // A classic group makes its members' ids of more than the name.
        let alias = format!("c-{}", words[0]);
        let name = if self.clients.contains_key(&alias) { alias.as_str() } else { words[0] };
        let epoch = self.clients.get(name).map_or(0, |client| client.epoch);
        let mut beat = Self::beat(name, epoch);
        if let Some((id, instance)) = name.split_once('@') {
            beat.member_id = id.to_owned();
            beat.instance_id = Some(instance.to_owned());
            beat.epoch = self.clients.get(id).map_or(0, |client| client.epoch);
        }
        match words.get(1..).unwrap_or_default() {
            ["join", names @ ..] => {
                beat.epoch = 0;
                beat.rebalance_timeout_ms = 10_000;
                beat.owned = Some(OwnedPartitions::new());
                for name in names {
                    match name.split_once('=') {
                        Some(("by", assignor)) => beat.assignor = Some(assignor.to_owned()),
                        Some(("like", pattern)) => beat.pattern = Some(pattern.to_owned()),
                        _ => beat.names.get_or_insert_default().push((*name).to_owned()),
                    }
                }
                if beat.pattern.is_none() {
                    beat.names.get_or_insert_default();
                }
                self.clients.insert(beat.member_id.clone(), Client::default());
                self.send(&beat);
            }
            [] => self.send(&beat),
            ["follows"] => {
                let client = self.clients.get_mut(&beat.member_id).unwrap();
                client.owned = client.told.clone().unwrap_or_default();
                beat.owned = Some(client.owned.clone());
                self.send(&beat);
            }
            ["wants", names @ ..] => {
                beat.names = Some(names.iter().map(|name| (*name).to_owned()).collect());
                self.send(&beat);
            }
            ["epoch", epoch] => {
                beat.epoch = epoch.parse().unwrap();
                self.send(&beat);
            }
            ["commit", epoch, place] => {
                let (topic, partition) = place.split_at(place.len() - 1);
                let of = TopicPartition::new(TopicName::new(topic).unwrap(), PartitionId(partition.parse().unwrap()));
                let request = crate::broker::group::CommitRequest {
                    member_id: name.to_owned(),
                    instance_id: None,
                    generation: epoch.parse().unwrap(),
                    knows_epochs: true,
                    retention_ms: None,
                    offsets: vec![crate::broker::group::CommitOffset { of, offset: Offset(1), leader_epoch: -1, metadata: None }],
                };
                let error = self.group.plan_commit(self.now, &request).map_or_else(|code| code, |_| e::NONE);
                writeln!(self.text, "{name} commit {}", e::name(error)).unwrap();
            }
            ["old-join", protocols @ ..] => {
                let metadata = [&[0, 0, 0, 0, 0, 1, 0, 1][..], b"t", &[0xff; 4]].concat();
                let request = JoinRequest {
                    token: Token(0),
                    member_id: if self.clients.contains_key(name) { name.to_owned() } else { String::new() },
                    instance_id: None,
                    client_id: "c".to_owned(),
                    client_host: "/h".to_owned(),
                    protocol_type: "consumer".to_owned(),
                    protocols: protocols.iter().map(|p| ((*p).to_owned(), metadata.clone().into())).collect(),
                    session_timeout_ms: 10_000,
                    rebalance_timeout_ms: 10_000,
                    require_known_member_id: false,
                    supports_skip_assignment: false,
                    nonce: name.to_owned(),
                };
                let effects = self.group.join(self.now, &request, &self.topics);
                for effect in &effects {
                    if let Effect::Join(_, reply) = effect
                        && reply.error == e::NONE
                    {
                        self.clients.entry(reply.member_id.clone()).or_default().epoch = reply.generation;
                    }
                }
                self.effects(effects);
            }
            ["old-sync"] => {
                let request = SyncRequest {
                    token: Token(0),
                    member_id: name.to_owned(),
                    instance_id: None,
                    generation: epoch,
                    protocol_type: None,
                    protocol: None,
                    assignments: Vec::new(),
                };
                let effects = self.group.sync(self.now, &request, &self.topics);
                self.effects(effects);
            }
            ["old-sync", partitions] => {
                let of = vec![("t".to_owned(), partitions.split(',').map(|p| p.parse().unwrap()).collect::<Vec<i32>>())];
                let assignment = crate::broker::group::subscription::write_assignment(&[0, 0], &of);
                let request = SyncRequest {
                    token: Token(0),
                    member_id: name.to_owned(),
                    instance_id: None,
                    generation: epoch,
                    protocol_type: None,
                    protocol: None,
                    assignments: vec![(name.to_owned(), assignment.into())],
                };
                let effects = self.group.sync(self.now, &request, &self.topics);
                self.effects(effects);
            }
            ["old-beat"] => {
                let request = HeartbeatRequest { member_id: name.to_owned(), instance_id: None, generation: epoch };
                let error = self.group.heartbeat(self.now, &request);
                writeln!(self.text, "{name} old-beat {}", e::name(error)).unwrap();
            }
            ["old-leave"] => {
                let leaving = vec![Leaving { member_id: name.to_owned(), instance_id: None }];
                let (reply, effects) = self.group.leave(self.now, leaving, &self.topics);
                writeln!(self.text, "{name} old-leave {}", e::name(reply.single_error())).unwrap();
                self.effects(effects);
            }
            other => panic!("{other:?}"),
        }
    }

    fn run(&mut self, script: &str) {
        for step in script.split('|').map(str::trim) {
            match step.split_whitespace().collect::<Vec<_>>()[..] {
                ["after", ms] => {
                    self.now = self.now.plus(ms.parse().unwrap());
                    let effects = self.group.tick(self.now, &self.topics);
                    self.effects(effects);
                }
                ["topic", name, count] => drop(self.topics.0.insert(name.to_owned(), count.parse().unwrap())),
                ["state"] => writeln!(self.text, "{} {} {}", self.group.kind(), self.group.state(), self.group.generation()).unwrap(),
                ["restart"] => {
                    let mut replay = Replay::default();
                    for (at, record) in self.log.iter().enumerate() {
                        replay.take(Offset(at as i64), Some(&record.key), record.value.as_deref()).unwrap();
                    }
                    let (mut groups, records) = replay.finish(GroupConfig::default(), self.now);
                    self.log.extend(records);
                    assert_eq!(groups.len(), 1);
                    self.group = groups.remove(0);
                }
                _ => self.step(step),
            }
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "expected texts stand in the call")]
fn check(script: &str, expected: Expect) {
    let mut story = Story::new();
    story.run(script);
    expected.assert_eq(&story.text);
}

#[test]
fn a_partition_is_handed_over_only_once_its_owner_let_it_go() {
    check(
        "A join t | A follows | state | after 2000 | B join t | state | A | B | A follows | B | B follows | A | state",
        expect![[r#"
            A 2 [t0 t1 t2 t3]
            A 2 =
            consumer Stable 2
            B 3 []
            consumer Reconciling 3
            A 2 [t0 t1]
            B 3 =
            A 3 =
            B 3 [t2 t3]
            B 3 =
            A 3 =
            consumer Stable 3
        "#]],
    );
}

#[test]
fn two_targets_are_not_made_within_a_second() {
    check(
        "A join t | B join t | state | after 500 | B | after 500 | B | state",
        expect![[r#"
            A 2 [t0 t1 t2 t3]
            B 2 []
            consumer Assigning 3
            B 2 =
            B 3 =
            consumer Reconciling 3
        "#]],
    );
}

#[test]
fn who_does_not_give_up_in_time_is_fenced_and_so_is_the_silent() {
    check(
        "A join t | A follows | after 2000 | B join t | A | after 9999 | state | A | after 1 | A | state | after 2000 | B | after 45000 | state",
        expect![[r#"
            A 2 [t0 t1 t2 t3]
            A 2 =
            B 3 []
            A 2 [t0 t1]
            consumer Reconciling 3
            A 2 =
            A UNKNOWN_MEMBER_ID
            consumer Assigning 4
            B 4 [t0 t1 t2 t3]
            consumer Empty 5
        "#]],
    );
}

#[test]
fn an_epoch_has_to_be_the_groups_but_a_lost_answer_is_borne() {
    check(
        "A epoch 3 | A join t | A follows | A epoch 1 | A epoch 5 | B epoch 1 | after 2000 | B join t | A | A follows | A epoch 2 | \
         A join t",
        expect![[r#"
            A GROUP_ID_NOT_FOUND
            A 2 [t0 t1 t2 t3]
            A 2 =
            A FENCED_MEMBER_EPOCH
            A FENCED_MEMBER_EPOCH
            B UNKNOWN_MEMBER_ID
            B 3 []
            A 2 [t0 t1]
            A 3 =
            A FENCED_MEMBER_EPOCH
            A 3 [t0 t1]
        "#]],
    );
}

#[test]
fn a_static_member_keeps_its_place_for_a_session() {
    check(
        "A@x join t | A@x follows | B@x join t | B@x epoch 1 | C@y epoch 1 | A@x epoch -2 | B@x join t | A@x epoch 1 | B@x | state | \
         B@x epoch -1 | state",
        expect![[r#"
            A 2 [t0 t1 t2 t3]
            A 2 =
            B UNRELEASED_INSTANCE_ID
            B FENCED_INSTANCE_ID
            C UNKNOWN_MEMBER_ID
            A -2 =
            B 2 [t0 t1 t2 t3]
            A FENCED_INSTANCE_ID
            B 2 =
            consumer Stable 2
            B -1 =
            consumer Empty 3
        "#]],
    );
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut story = Story::new();
    let join = Beat { rebalance_timeout_ms: 1, names: Some(Vec::new()), owned: Some(OwnedPartitions::new()), ..Story::beat("A", 0) };
    for beat in [
        Beat { member_id: String::new(), ..join.clone() },
        Beat { rebalance_timeout_ms: -1, ..join.clone() },
        Beat { owned: None, ..join.clone() },
        Beat { names: None, ..join.clone() },
        Beat { assignor: Some("x".to_owned()), ..join.clone() },
        Beat { epoch: -2, ..join.clone() },
        Beat { epoch: -3, ..join.clone() },
        Beat { names: None, pattern: Some("(".to_owned()), ..join.clone() },
        Beat { instance_id: Some(String::new()), ..join.clone() },
        join,
    ] {
        story.send(&beat);
    }
    story.run("state | A | A epoch -1 | state | A epoch -1");
    expect![[r#"
         INVALID_REQUEST
        A INVALID_REQUEST
        A INVALID_REQUEST
        A INVALID_REQUEST
        A UNSUPPORTED_ASSIGNOR
        A INVALID_REQUEST
        A INVALID_REQUEST
        A INVALID_REGULAR_EXPRESSION
        A INVALID_REQUEST
        A 1 []
        consumer Stable 1
        A 1 =
        A -1 =
        consumer Empty 2
        A UNKNOWN_MEMBER_ID
    "#]]
    .assert_eq(&story.text);
}

#[test]
fn patterns_follow_the_topics() {
    check(
        "A join like=t.* | topic t2 2 | A | after 1000 | A | A follows | B join like=u | state | after 1000 | A | topic u 1 | after 1000 | B | B",
        expect![[r#"
            A 2 [t0 t1 t2 t3]
            A 2 =
            A 3 [t0 t1 t2 t3 t20 t21]
            A 3 =
            B 3 []
            consumer Assigning 4
            A 4 =
            B 5 [u0]
            B 5 =
        "#]],
    );
}

#[test]
fn more_partitions_and_other_wishes_are_a_new_epoch() {
    check(
        "A join t by=range | A follows | topic t 6 | A | after 1000 | A | A follows | topic u 1 | after 2000 | A wants u | A follows | A | state",
        expect![[r#"
            A 2 [t0 t1 t2 t3]
            A 2 =
            A 2 =
            A 3 [t0 t1 t2 t3 t4 t5]
            A 3 =
            A 3 []
            A 4 [u0]
            A 4 =
            consumer Stable 4
        "#]],
    );
}

#[test]
fn each_change_of_the_topics_is_an_epoch_at_the_next_heartbeat_and_at_no_other() {
    check(
        "A join t | A follows | topic t 5 | A | state | topic t 6 | topic u 1 | A | state | A | state | after 1000 | A | A follows | state",
        expect![[r#"
            A 2 [t0 t1 t2 t3]
            A 2 =
            A 2 =
            consumer Assigning 3
            A 2 =
            consumer Assigning 4
            A 2 =
            consumer Assigning 4
            A 4 [t0 t1 t2 t3 t4 t5]
            A 4 =
            consumer Stable 4
        "#]],
    );
}

#[test]
fn who_leaves_takes_its_topics_along_in_one_epoch() {
    check(
        "topic u 1 | A join t | B join u | after 1000 | A | B epoch -1 | topic v 1 | A | state | after 1000 | A | state",
        expect![[r#"
            A 2 [t0 t1 t2 t3]
            B 2 []
            A 3 =
            B -1 =
            A 3 =
            consumer Assigning 4
            A 4 =
            consumer Stable 4
        "#]],
    );
}

#[test]
fn a_restart_forgets_nothing() {
    check(
        "A@x join t | A@x follows | after 2000 | B join like=t | A@x | restart | state | B | A@x | A@x follows | B | restart | A@x | B | state | \
         after 45000 | state",
        expect![[r#"
            A 2 [t0 t1 t2 t3]
            A 2 =
            B 3 []
            A 2 [t0 t1]
            consumer Reconciling 3
            B 3 =
            A 2 =
            A 3 =
            B 3 [t2 t3]
            A 3 =
            B 3 =
            consumer Stable 3
            consumer Empty 4
        "#]],
    );
}

#[test]
fn a_commit_may_be_of_an_older_epoch_for_what_was_had_since() {
    check(
        "A commit -1 t0 | A commit 1 t0 | A join t | A commit 2 t0 | A commit 3 t0 | B commit 2 t0 | A commit -1 t0 | after 2000 | B join t | A | \
         A follows | B | B commit 2 t2 | A commit 2 t0 | A commit 2 t2 | B commit 3 t2 | A commit 3 t0",
        expect![[r#"
            A commit NONE
            A commit UNKNOWN_MEMBER_ID
            A 2 [t0 t1 t2 t3]
            A commit NONE
            A commit STALE_MEMBER_EPOCH
            B commit UNKNOWN_MEMBER_ID
            A commit STALE_MEMBER_EPOCH
            B 3 []
            A 2 [t0 t1]
            A 3 =
            B 3 [t2 t3]
            B commit STALE_MEMBER_EPOCH
            A commit NONE
            A commit STALE_MEMBER_EPOCH
            B commit NONE
            A commit NONE
        "#]],
    );
}

#[test]
fn a_service_moves_from_the_classic_protocol_and_back() {
    check(
        "A old-join range | A old-sync 0,1,2,3 | state | N join t | state | A old-beat | A old-join range | A old-sync | N | N follows | after 2000 | \
         A old-beat | A old-join range | A old-sync | N | restart | A old-beat | state | B old-join other | N epoch -1 | state | A old-beat",
        expect![[r#"
              join c-A NONE 1 range
              sync NONE [("t", [0, 1, 2, 3])]
            classic Stable 1
            N 2 []
            consumer Reconciling 2
            c-A old-beat REBALANCE_IN_PROGRESS
              join c-A NONE 2 range
              sync NONE [("t", [0, 1])]
            N 2 [t2 t3]
            N 2 =
            c-A old-beat NONE
              join c-A NONE 2 range
              sync NONE [("t", [0, 1])]
            N 2 =
            c-A old-beat NONE
            consumer Stable 2
              join  INCONSISTENT_GROUP_PROTOCOL -1 
            N -1 =
            classic PreparingRebalance 2
            c-A old-beat REBALANCE_IN_PROGRESS
        "#]],
    );
}

#[test]
fn an_empty_group_becomes_what_its_first_member_asks_for() {
    check(
        "A old-join range | A old-leave | state | N join t | state | N epoch -1 | state | A old-join range | state | N join t | N epoch 4",
        expect![[r#"
              join c-A NONE 1 range
            c-A old-leave NONE
            classic Empty 2
            N 2 [t0 t1 t2 t3]
            consumer Stable 2
            N -1 =
            consumer Empty 3
              join c-A UNKNOWN_MEMBER_ID -1 
            classic Empty 0
            N 2 [t0 t1 t2 t3]
            N FENCED_MEMBER_EPOCH
        "#]],
    );
}
