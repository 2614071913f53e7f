//! Stories about one group, as scripts with what they print: `membership`, `statics`, `offsets`.
//!
//! A script is a line of steps divided by `|`; a client's name is a capital letter, its member id is the
//! name and the number of the join that made it. `at` lets time pass to a second.

mod membership;
mod offsets;
mod statics;

use std::collections::BTreeMap;

use bytes::Bytes;
use expect_test::Expect;

use super::consumer::Table;
use super::*;
use crate::record::{Offset, PartitionId, TopicName, TopicPartition};
use crate::time::Timestamp;
use crate::wire::error_code as e;

fn error_name(code: i16) -> String {
    let names = [
        (e::NONE, "ok"),
        (e::COORDINATOR_NOT_AVAILABLE, "COORDINATOR_NOT_AVAILABLE"),
        (e::FENCED_INSTANCE_ID, "FENCED_INSTANCE_ID"),
        (e::GROUP_ID_NOT_FOUND, "GROUP_ID_NOT_FOUND"),
        (e::GROUP_MAX_SIZE_REACHED, "GROUP_MAX_SIZE_REACHED"),
        (e::GROUP_SUBSCRIBED_TO_TOPIC, "GROUP_SUBSCRIBED_TO_TOPIC"),
        (e::ILLEGAL_GENERATION, "ILLEGAL_GENERATION"),
        (e::INCONSISTENT_GROUP_PROTOCOL, "INCONSISTENT_GROUP_PROTOCOL"),
        (e::INVALID_GROUP_ID, "INVALID_GROUP_ID"),
        (e::INVALID_REQUEST, "INVALID_REQUEST"),
        (e::INVALID_SESSION_TIMEOUT, "INVALID_SESSION_TIMEOUT"),
        (e::MEMBER_ID_REQUIRED, "MEMBER_ID_REQUIRED"),
        (e::NON_EMPTY_GROUP, "NON_EMPTY_GROUP"),
        (e::OFFSET_METADATA_TOO_LARGE, "OFFSET_METADATA_TOO_LARGE"),
        (e::REBALANCE_IN_PROGRESS, "REBALANCE_IN_PROGRESS"),
        (e::UNKNOWN_MEMBER_ID, "UNKNOWN_MEMBER_ID"),
    ];
    names.into_iter().find(|(known, _)| *known == code).map_or_else(|| code.to_string(), |(_, name)| name.to_owned())
}

#[derive(Clone, Default)]
struct Client {
    id: String,
    generation: i32,
}

/// Plays a script against one group and writes down what comes back.
struct Play {
    group: Group,
    now: Timestamp,
    clients: BTreeMap<String, Client>,
    waiting: BTreeMap<Token, String>,
    tokens: u64,
    ids: u32,
    log_end: i64,
    /// What was stored.
    log: Vec<GroupRecord>,
    out: String,
}

impl Play {
    fn new(config: GroupConfig) -> Self {
        Self {
            group: Group::new(GroupId::new("g").unwrap(), config, Timestamp(0)),
            now: Timestamp(0),
            clients: BTreeMap::new(),
            waiting: BTreeMap::new(),
            tokens: 0,
            ids: 0,
            log_end: 0,
            log: Vec::new(),
            out: String::new(),
        }
    }

    fn say(&mut self, line: &str) {
        self.out += &format!("{}s {line}\n", self.now.0 / 1000);
    }

    fn token(&mut self, name: &str) -> Token {
        self.tokens += 1;
        self.waiting.insert(Token(self.tokens), name.to_owned());
        Token(self.tokens)
    }

    fn effects(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Store(record) => self.log.push(record),
                Effect::Join(token, reply) => {
                    let name = self.waiting.remove(&token).expect("every token is answered once");
                    if reply.error == e::NONE || reply.error == e::MEMBER_ID_REQUIRED {
                        let client = self.clients.entry(name.clone()).or_default();
                        client.id.clone_from(&reply.member_id);
                        client.generation = reply.generation;
                    }
                    if reply.error != e::NONE {
                        self.say(&format!("{name} join {}", error_name(reply.error)));
                        continue;
                    }
                    let ids: Vec<_> = reply.members.iter().map(|m| m.member_id.as_str()).collect();
                    let role = if ids.is_empty() { format!("{} leads", reply.leader) } else { format!("leads {}", ids.join(" ")) };
                    let skip = if reply.skip_assignment { ", skips" } else { "" };
                    let (id, generation, protocol) = (&reply.member_id, reply.generation, reply.protocol.as_deref().unwrap_or("?"));
                    self.say(&format!("{name} is {id} in {generation} {protocol}, {role}{skip}"));
                }
                Effect::Sync(token, reply) => {
                    let name = self.waiting.remove(&token).expect("every token is answered once");
                    if reply.error == e::NONE {
                        self.say(&format!("{name} got {:?}", String::from_utf8_lossy(&reply.assignment)));
                    } else {
                        self.say(&format!("{name} sync {}", error_name(reply.error)));
                    }
                }
            }
        }
    }

    fn until(&mut self, second: i64) {
        let end = Timestamp(second * 1000);
        while let Some(deadline) = self.group.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            let effects = self.group.tick(self.now, &Table::default());
            self.effects(effects);
            assert!(self.group.next_deadline().is_none_or(|next| next > self.now), "time goes on");
        }
        self.now = end;
    }

    fn step(&mut self, step: &str) {
        let mut words = step.split_whitespace();
        let verb = words.next().expect("a step has a verb");
        let rest: Vec<&str> = words.collect();
        let name = rest.first().copied().unwrap_or_default().to_owned();
        let option = |key: &str| rest.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned);
        let number = |key: &str, default: i32| option(key).map_or(default, |text| text.parse().unwrap());
        let client = self.clients.get(&name).cloned().unwrap_or_default();
        let member_id = option("id").unwrap_or(client.id);
        let instance_id = option("static");
        let generation = number("gen", client.generation);
        match verb {
            "at" => self.until(name.parse().unwrap()),
            "join" => {
                self.ids += 1;
                let names = option("knows").unwrap_or_else(|| "range".to_owned());
                let data = Bytes::from(option("meta").unwrap_or_else(|| format!("{name}'s")));
                let request = JoinRequest {
                    token: self.token(&name),
                    member_id,
                    instance_id,
                    client_id: name.clone(),
                    client_host: "/10.0.0.1".to_owned(),
                    protocol_type: option("type").unwrap_or_else(|| "test".to_owned()),
                    protocols: names.split(',').filter(|n| !n.is_empty()).map(|n| (n.to_owned(), data.clone())).collect(),
                    session_timeout_ms: number("session", 10) * 1000,
                    rebalance_timeout_ms: number("rebalance", 60) * 1000,
                    require_known_member_id: rest.contains(&"v4"),
                    supports_skip_assignment: rest.contains(&"v9"),
                    nonce: self.ids.to_string(),
                };
                let effects = self.group.join(self.now, &request, &Table::default());
                self.effects(effects);
            }
            "sync" => {
                let assignments = option("gives")
                    .map(|text| {
                        text.split(',')
                            .map(|pair| {
                                let (id, what) = pair.split_once(':').unwrap();
                                (id.to_owned(), Bytes::from(what.to_owned()))
                            })
                            .collect()
                    })
                    .unwrap_or_default();
                let protocol = option("knows");
                let protocol_type = option("type");
                let request =
                    SyncRequest { token: self.token(&name), member_id, instance_id, generation, protocol_type, protocol, assignments };
                let effects = self.group.sync(self.now, &request, &Table::default());
                self.effects(effects);
            }
            "beat" => {
                let error = self.group.heartbeat(self.now, &HeartbeatRequest { member_id, instance_id, generation });
                self.say(&format!("{name} beat {}", error_name(error)));
            }
            "leave" => {
                let leaving = rest
                    .iter()
                    .map(|who| match who.strip_prefix("static=") {
                        Some(instance) => Leaving { member_id: String::new(), instance_id: Some(instance.to_owned()) },
                        None => {
                            Leaving { member_id: self.clients.get(*who).map_or((*who).to_owned(), |c| c.id.clone()), instance_id: None }
                        }
                    })
                    .collect();
                let (reply, effects) = self.group.leave(self.now, leaving, &Table::default());
                let errors: Vec<_> = reply.members.iter().map(|(_, error)| error_name(*error)).collect();
                self.say(&format!("leave {}", errors.join(" ")));
                self.effects(effects);
            }
            "commit" => {
                let offsets = vec![CommitOffset { of: of("t", 0), offset: Offset(5), leader_epoch: 0, metadata: None }];
                let retention_ms = option("keep").map(|s| s.parse::<i64>().unwrap() * 1000);
                match self.group.plan_commit(
                    self.now,
                    &CommitRequest { member_id, instance_id, generation, knows_epochs: false, retention_ms, offsets },
                ) {
                    Err(error) => self.say(&format!("{name} commit {}", error_name(error))),
                    Ok(plan) => {
                        self.group.commit_stored(plan, Offset(self.log_end));
                        self.log_end += 1;
                        self.say(&format!("{name} commit ok"));
                    }
                }
            }
            "expire" => {
                let records = self.group.expire(self.now);
                self.say(&format!("{} expired, {}", records.len(), self.group.state()));
            }
            "state" => {
                let line = format!("{} in {} with {}", self.group.state(), self.group.generation(), self.group.member_count());
                self.say(&line);
            }
            other => panic!("no step {other:?}"),
        }
    }
}

fn of(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new(topic).unwrap(), PartitionId(partition))
}

fn play(config: GroupConfig, script: &str) -> Play {
    let mut play = Play::new(config);
    for step in script.split('|') {
        play.step(step);
    }
    play
}

#[track_caller]
#[allow(clippy::needless_pass_by_value)] // an inline expectation is made to be handed over
fn check(script: &str, expected: Expect) {
    expected.assert_eq(&play(GroupConfig::default(), script).out);
}

/// Two members, A leading, both at work in generation 1 after the third second.
const PAIR: &str = "join A | join B | at 3 | at 6 | sync B | sync A gives=A-1:a,B-2:b";

#[track_caller]
#[allow(clippy::needless_pass_by_value)]
fn check_pair(script: &str, expected: Expect) {
    let mut play = play(GroupConfig::default(), PAIR);
    play.out.clear();
    for step in script.split('|') {
        play.step(step);
    }
    expected.assert_eq(&play.out);
}
