//! Clients, as a library keeps them: what was not answered is asked again, with the same sequence, or given up with the producer.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use super::model::{Fate, Model, Sent, Txn};
use super::{Actor, Chance, GROUPS, PLACES};
use crate::broker::group::{CommitOffset, CommitRequest, GroupId, TxnCommitRequest};
use crate::broker::txn::Identity;
use crate::broker::{Broker, BrokerError, Incoming, NewTopic, ProduceTerms};
use crate::record::{BatchBuilder, Header, Offset, TopicName, TopicPartition};
use crate::wire::error_code as e;

/// What an answer changes.
pub(super) type Effect = Box<dyn FnOnce(&mut Model, &mut Vec<Client>, &str)>;
/// Something on its way.
pub(super) type Done = Pin<Box<dyn Future<Output = Effect>>>;

/// Values for one place, with the first one's sequence.
#[derive(Clone, Debug)]
struct Run {
    place: usize,
    values: Vec<u64>,
    sequence: i32,
}

/// What a client does.
#[derive(Clone, Debug)]
enum Act {
    /// It asks who it is.
    Init,
    /// A transaction begins in these places.
    Begin(BTreeSet<usize>),
    Send(Vec<Run>),
    /// An offset that the transaction commits.
    Offset(i64),
    End(bool),
    /// An offset of the plain group.
    Commit(i64),
    Make,
    Delete,
}

#[derive(Debug)]
pub(super) struct Client {
    actor: Actor,
    who: Option<Identity>,
    sequences: [i32; PLACES.len()],
    txn: Option<usize>,
    doing: Option<Act>,
    /// It was not answered, or with an error that passes.
    pending: Option<Act>,
}

/// What happens, for whoever looks into one story (`SEED=7 TRACE=1`).
pub(super) fn tell(what: impl FnOnce() -> String) {
    if std::env::var_os("TRACE").is_some() {
        eprintln!("{}", what());
    }
}

fn passes(code: i16) -> bool {
    matches!(code, e::KAFKA_STORAGE_ERROR | e::COORDINATOR_NOT_AVAILABLE | e::CONCURRENT_TRANSACTIONS | e::NOT_LEADER_OR_FOLLOWER)
}

fn is_fenced(code: i16) -> bool {
    matches!(code, e::PRODUCER_FENCED | e::INVALID_PRODUCER_EPOCH)
}

impl Client {
    pub fn new(actor: Actor) -> Self {
        Self { actor, who: None, sequences: [0; PLACES.len()], txn: None, doing: None, pending: None }
    }

    /// The node died: what was on its way is asked again.
    pub fn crashed(&mut self) {
        if let Some(act) = self.doing.take() {
            self.pending = Some(act);
        }
    }

    fn is_transactional(&self) -> bool {
        matches!(self.actor, Actor::Patient | Actor::Hasty)
    }

    fn give_up(&mut self) {
        (self.who, self.txn, self.pending, self.sequences) = (None, None, None, [0; PLACES.len()]);
    }

    /// Begins what comes next, unless it waits for an answer.
    pub fn act(&mut self, chance: &mut Chance, model: &mut Model, broker: &Arc<Broker>, numbers: &mut u64, now: i64) -> Option<Done> {
        if self.doing.is_some() {
            return None;
        }
        if let Some(n) = self.txn
            && let Fate::Ended(committed) = model.txns[n].fate
        {
            // It ended while nobody could tell us; where its time was over, so is the producer's.
            if !committed && model.txns[n].deadline < now {
                self.give_up();
            } else {
                self.txn = None;
                self.pending = self.pending.take().filter(|act| matches!(act, Act::Init));
            }
        }
        let act = self.next(chance, model, numbers);
        tell(|| format!("at {now} {:?} as {:?}: {act:?}", self.actor, self.who));
        self.doing = Some(act.clone());
        Some(match act {
            Act::Init if self.is_transactional() => self.init(model, broker),
            Act::Init => self.new_id(broker),
            Act::Begin(places) => self.begin(places, model, broker, now),
            Act::Send(runs) => self.send(runs, model, broker, now),
            Act::Offset(offset) => self.offset(offset, model, broker, now),
            Act::End(committed) => self.end(committed, model, broker, now),
            Act::Commit(offset) => self.commit(offset, model, broker),
            Act::Make => self.make(model, broker),
            Act::Delete => self.delete(model, broker),
        })
    }

    fn next(&mut self, chance: &mut Chance, model: &mut Model, numbers: &mut u64) -> Act {
        let gives_up = self.is_transactional() && chance.one_in(if self.pending.is_some() { 4 } else { 25 });
        match (self.actor, self.pending.take()) {
            (Actor::Idempotent, None) if self.who.is_none() || chance.one_in(20) => Act::Init,
            (Actor::Patient | Actor::Hasty, _) if gives_up || self.who.is_none() => Act::Init,
            // Nobody knows whether it was written, and asking again would write it twice.
            (Actor::Plain, _) => Act::Send(self.runs(chance, model, numbers, None)),
            (_, Some(act)) => act,
            (Actor::Idempotent, None) => Act::Send(self.runs(chance, model, numbers, None)),
            (Actor::Group, None) => {
                *numbers += 1;
                Act::Commit(*numbers as i64)
            }
            (Actor::Admin, None) => match model.passing.told {
                true => Act::Delete,
                false => Act::Make,
            },
            (Actor::Patient | Actor::Hasty, None) => match (self.txn, chance.below(8)) {
                (None, _) => Act::Begin((0..PLACES.len()).filter(|_| !chance.one_in(3)).collect()),
                (Some(_), 0) => Act::Begin((0..PLACES.len()).collect()),
                (Some(n), 1..5) => match self.runs(chance, model, numbers, Some(n)) {
                    runs if runs.is_empty() => Act::End(true),
                    runs => Act::Send(runs),
                },
                (Some(_), 5) => {
                    *numbers += 1;
                    Act::Offset(*numbers as i64)
                }
                (Some(_), _) => Act::End(!chance.one_in(3)),
            },
        }
    }

    /// New records for one or two places.
    fn runs(&self, chance: &mut Chance, model: &mut Model, numbers: &mut u64, txn: Option<usize>) -> Vec<Run> {
        let may: Vec<usize> = match txn {
            None => (0..PLACES.len()).collect(),
            Some(n) => model.txns[n].places.iter().copied().collect(),
        };
        let mut runs = Vec::new();
        let places: Vec<usize> = may.into_iter().filter(|_| chance.one_in(2)).take(2).collect();
        for place in places {
            let values: Vec<u64> = (0..chance.below(3) + 1)
                .map(|_| {
                    *numbers += 1;
                    let deletes = PLACES[place].is_compacted && chance.one_in(4);
                    let sent = Sent { place, key: chance.below(5) as u8, deletes, at: None, txn, lost: false };
                    model.sent.insert(*numbers, sent);
                    *numbers
                })
                .collect();
            runs.push(Run { place, values, sequence: self.sequences[place] });
        }
        runs
    }

    fn init(&self, model: &mut Model, broker: &Arc<Broker>) -> Done {
        let (actor, txn) = (self.actor, self.txn);
        if let Some(n) = txn {
            model.txns[n].fate = Fate::Ending(false);
        }
        let broker = Arc::clone(broker);
        Box::pin(async move {
            let mut told = Err(e::CONCURRENT_TRANSACTIONS);
            for _ in 0..3 {
                told = broker.transactions().init(actor.id(), actor.timeout_ms(), None).await;
                if told != Err(e::CONCURRENT_TRANSACTIONS) {
                    break;
                }
            }
            effect(actor, move |client, model, note| match told {
                Ok(who) => {
                    assert!(client.who.is_none_or(|old| (old.id, old.epoch) < (who.id, who.epoch)), "{note}: {actor:?} is {who:?} again");
                    client.give_up();
                    client.who = Some(who);
                    if let Some(n) = txn {
                        model.txns[n].fate = Fate::Ended(false);
                    }
                }
                Err(code) => {
                    assert!(passes(code), "{note}: {actor:?} is not taken: {}", e::name(code));
                    client.pending = Some(Act::Init);
                }
            })
        })
    }

    fn new_id(&self, broker: &Arc<Broker>) -> Done {
        let (actor, broker) = (self.actor, Arc::clone(broker));
        Box::pin(async move {
            let told = broker.new_producer_id().await;
            effect(actor, move |client, model, note| match told {
                Ok(id) => {
                    assert!(model.producer_ids.insert(id), "{note}: producer id {id} was given twice");
                    client.give_up();
                    client.who = Some(Identity { id, epoch: 0 });
                }
                Err(error) => assert!(passes(error.code()), "{note}: no producer id: {error}"),
            })
        })
    }

    fn begin(&mut self, places: BTreeSet<usize>, model: &mut Model, broker: &Arc<Broker>, now: i64) -> Done {
        let (actor, who, broker) = (self.actor, self.who.expect("it was told"), Arc::clone(broker));
        let n = *self.txn.get_or_insert_with(|| {
            let deadline = now + i64::from(actor.timeout_ms());
            model.txns.push(Txn { actor, fate: Fate::Asked, deadline, offset: None, maybe_offset: None, places: BTreeSet::new() });
            model.txns.len() - 1
        });
        Box::pin(async move {
            let all: BTreeSet<TopicPartition> = places.iter().map(|p| PLACES[*p].of()).collect();
            let mut told = broker.transactions().add_offsets(actor.id(), who).await;
            if told.is_ok() && !all.is_empty() {
                told = broker.transactions().add(actor.id(), who, all).await;
            }
            effect(actor, move |client, model, note| match told {
                Ok(()) => {
                    model.txns[n].fate = Fate::Open;
                    model.txns[n].places.extend(places);
                }
                Err(code) => client.refused(code, Act::Begin(places), model, now, note),
            })
        })
    }

    fn send(&mut self, runs: Vec<Run>, model: &mut Model, broker: &Arc<Broker>, now: i64) -> Done {
        let (actor, who, is_transactional, broker) = (self.actor, self.who, self.is_transactional(), Arc::clone(broker));
        let mut incoming = Vec::new();
        for run in &runs {
            let mut builder = BatchBuilder::new();
            if let Some(who) = who {
                builder = builder.with_producer(who.id, who.epoch, run.sequence);
            }
            if is_transactional {
                builder = builder.transactional();
            }
            for value in &run.values {
                let sent = model.sent.get_mut(value).expect("it was made");
                sent.lost = false;
                let (name, text) = (value.to_be_bytes(), format!("{value:030}"));
                let headers = [Header { key: b"n", value: Some(&name) }];
                builder.push(now, Some(&[sent.key]), (!sent.deletes).then_some(text.as_bytes()), &headers);
            }
            let (topic, partition) = (PLACES[run.place].topic.to_owned(), PLACES[run.place].partition);
            incoming.push(Incoming { topic, topic_id: None, partition, records: Some(builder.finish().to_bytes()) });
        }
        Box::pin(async move {
            let terms = ProduceTerms { acks: -1, knows_abortable: true, knows_zstd: true, bumps_epoch: false };
            let id = is_transactional.then_some(actor.id());
            let told = broker.produce(terms, id, incoming).await.durable().await;
            effect(actor, move |client, model, note| {
                let mut left = Vec::new();
                for (run, told) in runs.into_iter().zip(told) {
                    match told {
                        Ok(placed) => {
                            for (i, value) in run.values.iter().enumerate() {
                                model.place(*value, placed.base.0 + i as i64, note);
                            }
                            client.sequences[run.place] = run.sequence + run.values.len() as i32;
                        }
                        Err(refusal) => left.push((refusal.code, run)),
                    }
                }
                if let Some((code, _)) = left.first() {
                    let code = *code;
                    client.refused(code, Act::Send(left.into_iter().map(|(_, run)| run).collect()), model, now, note);
                }
            })
        })
    }

    fn offset(&mut self, offset: i64, model: &mut Model, broker: &Arc<Broker>, now: i64) -> Done {
        let (actor, who, broker) = (self.actor, self.who.expect("it was told"), Arc::clone(broker));
        let n = self.txn.expect("it has begun");
        model.txns[n].maybe_offset = Some(offset);
        Box::pin(async move {
            let one = CommitOffset { of: actor.offsets_of(), offset: Offset(offset), leader_epoch: -1, metadata: None };
            let request =
                TxnCommitRequest { producer_id: who.id, member_id: String::new(), instance_id: None, generation: -1, offsets: vec![one] };
            let group = GroupId::new(GROUPS[1]).expect("short");
            let told = broker.transactions().commit_offsets(actor.id(), who, group, request).await;
            effect(actor, move |client, model, note| {
                match told.and_then(|each| each.into_iter().map(|(_, code)| code).max().map_or(Ok(()), none_or)) {
                    Ok(()) => (model.txns[n].offset, model.txns[n].maybe_offset) = (Some(offset), None),
                    Err(code) => client.refused(code, Act::Offset(offset), model, now, note),
                }
            })
        })
    }

    fn end(&mut self, committed: bool, model: &mut Model, broker: &Arc<Broker>, now: i64) -> Done {
        let (actor, who, broker) = (self.actor, self.who.expect("it was told"), Arc::clone(broker));
        let n = self.txn.expect("it has begun");
        model.txns[n].fate = Fate::Ending(committed);
        Box::pin(async move {
            let told = broker.transactions().end(actor.id(), who, committed).await;
            effect(actor, move |client, model, note| match told {
                Ok(()) => {
                    model.end(n, committed);
                    client.txn = None;
                }
                Err(code) => client.refused(code, Act::End(committed), model, now, note),
            })
        })
    }

    /// An error: of those that pass it is asked again; whoever was too slow begins anew; there are no others.
    fn refused(&mut self, code: i16, act: Act, model: &mut Model, now: i64, note: &str) {
        let late = self.txn.filter(|n| model.txns[*n].deadline < now);
        if is_fenced(code)
            && let Some(n) = late
        {
            // The refusal is not durable, and what it is for may not be yet.
            model.txns[n].fate = Fate::Ending(false);
            self.give_up();
            self.txn = Some(n);
            return;
        }
        // As in Kafka: whoever is known by a marker alone has written nothing. Of records that were deleted nothing else may be left.
        let is_forgotten = |run: &Run| model.starts[run.place].told > 0 || !model.starts[run.place].maybe.is_empty();
        if code == e::OUT_OF_ORDER_SEQUENCE_NUMBER
            && let (Some(_), Act::Send(runs)) = (self.txn, &act)
            && runs.iter().any(is_forgotten)
        {
            self.who = None;
            return;
        }
        assert!(passes(code), "{note}: {:?} at {now}: {act:?}: {}, {:?}", self.actor, e::name(code), self.txn.map(|n| &model.txns[n]));
        self.pending = Some(act);
    }

    fn commit(&self, offset: i64, model: &mut Model, broker: &Arc<Broker>) -> Done {
        let (actor, broker) = (self.actor, Arc::clone(broker));
        model.offsets[0].ask(Some(offset));
        Box::pin(async move {
            let one = CommitOffset { of: actor.offsets_of(), offset: Offset(offset), leader_epoch: -1, metadata: None };
            let request = CommitRequest {
                member_id: String::new(),
                instance_id: None,
                generation: -1,
                knows_epochs: false,
                retention_ms: None,
                offsets: vec![one],
            };
            let told = broker.groups().commit(&GroupId::new(GROUPS[0]).expect("short"), request).await;
            effect(actor, move |client, model, note| {
                match told.and_then(|each| each.into_iter().map(|(_, code)| code).max().map_or(Ok(()), none_or)) {
                    Ok(()) => model.offsets[0].tell(Some(offset)),
                    Err(code) => {
                        assert!(passes(code), "{note}: an offset is refused: {}", e::name(code));
                        client.pending = Some(Act::Commit(offset));
                    }
                }
            })
        })
    }

    fn make(&self, model: &mut Model, broker: &Arc<Broker>) -> Done {
        let (actor, broker) = (self.actor, Arc::clone(broker));
        model.passing.ask(true);
        Box::pin(async move {
            let told = broker.create_topic(NewTopic { partitions: Some(2), ..NewTopic::named(passing()) }).await;
            effect(actor, move |client, model, note| match told {
                Ok(_) | Err(BrokerError::TopicExists(_)) => model.passing.tell(true),
                Err(error) => {
                    assert!(passes(error.code()), "{note}: a topic is not made: {error}");
                    client.pending = Some(Act::Make);
                }
            })
        })
    }

    fn delete(&self, model: &mut Model, broker: &Arc<Broker>) -> Done {
        let (actor, broker) = (self.actor, Arc::clone(broker));
        model.passing.ask(false);
        Box::pin(async move {
            let told = broker.delete_topic(&passing()).await;
            effect(actor, move |client, model, note| match told {
                Ok(()) | Err(BrokerError::UnknownTopic(_)) => model.passing.tell(false),
                Err(error) => {
                    assert!(passes(error.code()), "{note}: a topic is not deleted: {error}");
                    client.pending = Some(Act::Delete);
                }
            })
        })
    }
}

fn none_or(code: i16) -> Result<(), i16> {
    if code == e::NONE { Ok(()) } else { Err(code) }
}

fn passing() -> TopicName {
    TopicName::new("passing").expect("valid")
}

/// What changes with the client that did it.
fn effect(actor: Actor, change: impl FnOnce(&mut Client, &mut Model, &str) + 'static) -> Effect {
    Box::new(move |model, clients, note| {
        let client = clients.iter_mut().find(|client| client.actor == actor).expect("they are all there");
        client.doing = None;
        tell(|| format!("{actor:?} was answered"));
        change(client, model, note);
    })
}
