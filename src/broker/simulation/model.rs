//! What a broker should hold after all that clients did and were told, kept plainly, and how it is compared with what is there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Actor, Dead, GROUPS, PLACES, Place};
use crate::broker::group::GroupId;
use crate::broker::txn::TxnState;
use crate::broker::{Broker, FetchPart, FetchSpec, Isolation};
use crate::log::{Disk, SimDisk};
use crate::record::{Batch, ControlMarker, Offset};
use crate::wire::error_code;

/// One record that a client sent. Its value is its name, and nobody else's.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub place: usize,
    pub key: u8,
    /// It deletes its key.
    pub deletes: bool,
    /// Where it lies, once somebody was told or has seen it.
    pub at: Option<i64>,
    /// Its transaction.
    pub txn: Option<usize>,
    /// It was not there after a crash: it must not come back, unless it is sent again.
    pub lost: bool,
}

/// How a transaction is known to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody was told that it began.
    Asked,
    Open,
    /// It was asked to end so, and nobody was told that it did.
    Ending(bool),
    Ended(bool),
}

#[derive(Clone, Debug)]
pub(super) struct Txn {
    pub actor: Actor,
    pub fate: Fate,
    /// When its time is over.
    pub deadline: i64,
    /// The offset that it commits for the group of transactions, and what was asked and not told.
    pub offset: Option<i64>,
    pub maybe_offset: Option<i64>,
    /// Where it may write.
    pub places: BTreeSet<usize>,
}

/// Something that was told, and what may hold instead since somebody asked and was not told.
#[derive(Clone, Debug, Default)]
pub(super) struct Known<T> {
    pub told: T,
    pub maybe: Vec<T>,
}

impl<T: Clone + PartialEq + std::fmt::Debug> Known<T> {
    pub fn ask(&mut self, value: T) {
        self.maybe.push(value);
    }

    pub fn tell(&mut self, value: T) {
        // What was asked before came before.
        *self = Self { told: value, maybe: Vec::new() };
    }

    /// After a crash nothing is on its way any more: what is found holds.
    fn settle(&mut self, found: T, note: &str, what: &str) {
        assert!(found == self.told || self.maybe.contains(&found), "{note}: {what} is {found:?} and should be {self:?}");
        *self = Self { told: found, maybe: Vec::new() };
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub sent: BTreeMap<u64, Sent>,
    pub txns: Vec<Txn>,
    pub starts: [Known<i64>; PLACES.len()],
    /// The offsets of the plain group, and of the group of transactions for each producer of these.
    pub offsets: [Known<Option<i64>>; 3],
    /// Whether the topic that comes and goes is there.
    pub passing: Known<bool>,
    pub producer_ids: BTreeSet<i64>,
}

/// A record that is there.
struct Found {
    at: i64,
    value: u64,
    is_seen: bool,
}

impl Model {
    /// A record was placed, or seen.
    pub fn place(&mut self, value: u64, at: i64, note: &str) {
        let one = self.sent.get_mut(&value).unwrap_or_else(|| panic!("{note}: value {value} was never sent"));
        assert!(one.at.is_none_or(|before| before == at), "{note}: value {value} is at {at} and was at {:?}", one.at);
        assert!(!one.lost, "{note}: value {value} was lost, and is at {at} all the same");
        one.at = Some(at);
    }

    /// A transaction has ended.
    pub fn end(&mut self, n: usize, committed: bool) {
        let txn = &mut self.txns[n];
        txn.fate = Fate::Ended(committed);
        if committed && let Some(offset) = txn.offset {
            self.offsets[slot(txn.actor)].tell(Some(offset));
        }
    }

    /// Compares everything with what is there. After a crash what nobody was told is settled by what is found.
    pub async fn check(&mut self, broker: &Broker, disk: &SimDisk, after_crash: bool, now: i64, note: &str) -> Result<(), Dead> {
        if after_crash {
            self.settle_txns(broker, now, note);
        }
        for (n, known) in self.offsets.iter_mut().enumerate() {
            let (group, of) = (GROUPS[n.min(1)], PLACES[n / 2].of());
            let found = broker.groups().committed(&GroupId::new(group).expect("short"), &of).map(|committed| committed.offset.0);
            let what = format!("the offset of {group} in {of}");
            if after_crash {
                known.settle(found, note, &what);
            } else {
                assert!(found == known.told || known.maybe.contains(&found), "{note}: {what} is {found:?}: {known:?}");
            }
        }
        if after_crash {
            self.passing.settle(broker.topic_named("passing").is_some(), note, "whether topic passing is there");
            self.check_pending(broker, note);
        }
        for (p, place) in PLACES.iter().enumerate() {
            self.check_place(broker, disk, p, place, after_crash, note).await?;
        }
        Ok(())
    }

    /// Transactions whose time is over have been ended.
    pub fn note_late(&mut self, broker: &Broker, now: i64) {
        for txn in self.txns.iter_mut().filter(|txn| matches!(txn.fate, Fate::Open | Fate::Ending(_)) && txn.deadline < now) {
            if broker.transactions().describe(txn.actor.id()).is_some_and(|one| one.state == TxnState::CompleteAbort) {
                txn.fate = Fate::Ended(false);
            }
        }
    }

    /// Of a transaction whose end was on its way when the node died, the node knows whether it came.
    fn settle_txns(&mut self, broker: &Broker, now: i64, note: &str) {
        let last: BTreeMap<Actor, usize> = self.txns.iter().enumerate().map(|(n, txn)| (txn.actor, n)).collect();
        for n in 0..self.txns.len() {
            let txn = &self.txns[n];
            if matches!(txn.fate, Fate::Ended(_)) {
                continue;
            }
            assert_eq!(last[&txn.actor], n, "{note}: transaction {n} was followed by another and is not over");
            let state = broker.transactions().describe(txn.actor.id()).map(|one| one.state);
            match (state, txn.fate) {
                (Some(TxnState::Ongoing), _) => self.txns[n].fate = Fate::Open,
                (_, Fate::Asked) => self.end(n, false),
                (Some(TxnState::CompleteCommit), Fate::Ending(true)) => self.end(n, true),
                (Some(TxnState::CompleteAbort | TxnState::Empty), Fate::Ending(false)) => self.end(n, false),
                (Some(TxnState::CompleteAbort), _) if txn.deadline < now => self.end(n, false),
                other => panic!("{note}: transaction {n} at {now}: {other:?}, {txn:?}"),
            }
        }
    }

    /// Offsets of a transaction wait for its end.
    fn check_pending(&self, broker: &Broker, note: &str) {
        for actor in [Actor::Patient, Actor::Hasty] {
            let pending = broker.groups().is_unstable(&GroupId::new(GROUPS[1]).expect("short"), &actor.offsets_of());
            let open = || self.txns.iter().filter(|txn| txn.actor == actor && !matches!(txn.fate, Fate::Ended(_)));
            assert!(pending || open().all(|txn| txn.offset.is_none()), "{note}: offsets of an open transaction of {actor:?} are forgotten");
            let may = open().any(|txn| txn.offset.or(txn.maybe_offset).is_some());
            assert!(!pending || may, "{note}: offsets wait for a transaction of {actor:?} that is over");
        }
    }

    async fn check_place(
        &mut self,
        broker: &Broker,
        disk: &SimDisk,
        p: usize,
        place: &Place,
        after_crash: bool,
        note: &str,
    ) -> Result<(), Dead> {
        let note = format!("{note}, {place}");
        let partition = broker.partition(&place.of()).unwrap_or_else(|| panic!("{note}: it is gone"));
        let start = partition.log().start().0;
        let known = &mut self.starts[p];
        if after_crash {
            known.settle(start, &note, "the start");
        } else {
            assert!(start == known.told || known.maybe.contains(&start), "{note}: it starts at {start}: {known:?}");
        }
        let found = read(broker, disk, place, start, &note).await?;
        let mut there = BTreeSet::new();
        for one in &found {
            assert!(there.insert(one.value), "{note}: value {} is there twice", one.value);
            assert_eq!(self.sent.get(&one.value).map(|sent| sent.place), Some(p), "{note}: value {} at {}", one.value, one.at);
            // What is visible is safe.
            self.place(one.value, one.at, &note);
        }
        let counts = |sent: &Sent| match sent.txn.map(|n| self.txns[n].fate) {
            None | Some(Fate::Ended(true)) => Some(true),
            Some(Fate::Ended(false)) => Some(false),
            Some(Fate::Asked | Fate::Open | Fate::Ending(_)) => None,
        };
        // Kept as compaction keeps it: the last value of each key that counts, and what is not decided.
        let mut last: BTreeMap<u8, i64> = BTreeMap::new();
        for sent in self.sent.values().filter(|sent| sent.place == p && counts(sent) == Some(true)) {
            if let Some(at) = sent.at {
                let latest = last.entry(sent.key).or_insert(at);
                *latest = at.max(*latest);
            }
        }
        for (value, sent) in self.sent.iter().filter(|(_, sent)| sent.place == p) {
            let Some(at) = sent.at.filter(|at| *at >= start) else { continue };
            if there.contains(value) {
                continue;
            }
            let may_go = match counts(sent) {
                Some(true) => sent.deletes || last[&sent.key] > at,
                Some(false) => true,
                None => false,
            };
            assert!(place.is_compacted && may_go, "{note}: value {value}, which was told to be at {at}, is not there: {sent:?}");
        }
        let deleted: BTreeMap<u8, i64> = last.into_iter().filter(|(key, at)| self.deletes(p, *key, *at)).collect();
        for one in &found {
            let sent = &self.sent[&one.value];
            let back = counts(sent) == Some(true) && deleted.get(&sent.key).is_some_and(|at| one.at < *at && !is_at(&found, *at));
            assert!(!back, "{note}: value {} at {} was deleted, and holds again: {sent:?}", one.value, one.at);
            let undecided_before =
                || found.iter().take_while(|other| other.at < one.at).any(|other| counts(&self.sent[&other.value]).is_none());
            match counts(sent) {
                Some(true) => {
                    // Behind an open transaction nothing is shown to who reads what is committed.
                    let ok = one.is_seen || self.is_open_before(p, one.at) || undecided_before();
                    assert!(ok, "{note}: value {} at {} counts, and is not shown: {sent:?}", one.value, one.at);
                }
                Some(false) => assert!(!one.is_seen, "{note}: value {} at {} was aborted, and is shown: {sent:?}", one.value, one.at),
                None => assert!(
                    !one.is_seen,
                    "{note}: value {} at {} is of an open transaction, and is shown: {:?}",
                    one.value,
                    one.at,
                    sent.txn.map(|n| &self.txns[n])
                ),
            }
        }
        if after_crash {
            for sent in self.sent.iter_mut().filter(|(value, sent)| sent.place == p && sent.at.is_none() && !there.contains(value)) {
                sent.1.lost = true;
            }
        }
        Ok(())
    }

    fn deletes(&self, p: usize, key: u8, at: i64) -> bool {
        self.sent.values().any(|sent| sent.place == p && sent.key == key && sent.at == Some(at) && sent.deletes)
    }

    fn is_open_before(&self, p: usize, at: i64) -> bool {
        let open = |sent: &Sent| sent.txn.is_some_and(|n| !matches!(self.txns[n].fate, Fate::Ended(_)));
        self.sent.values().any(|sent| sent.place == p && sent.at.is_some_and(|of| of < at) && open(sent))
    }
}

/// Which of the offsets a producer of transactions commits.
fn slot(actor: Actor) -> usize {
    if actor == Actor::Hasty { 2 } else { 1 }
}

fn is_at(found: &[Found], at: i64) -> bool {
    found.iter().any(|one| one.at == at)
}

/// Everything a partition has, and of each record whether who reads what is committed sees it: as Kafka's clients do, by what they are
/// told of aborted transactions and by the markers.
async fn read(broker: &Broker, disk: &SimDisk, place: &Place, start: i64, note: &str) -> Result<Vec<Found>, Dead> {
    let mut found: Vec<Found> = Vec::new();
    let mut seen = BTreeSet::new();
    for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
        let mut at = start;
        loop {
            let part = FetchPart {
                topic: place.topic.to_owned(),
                topic_id: None,
                partition: place.partition,
                offset: at,
                // Now and then it takes many answers to read all.
                max_bytes: if isolation == Isolation::ReadCommitted && place.partition == 0 { 500 } else { 1 << 20 },
                leader_epoch: -1,
                last_fetched_epoch: -1,
            };
            let spec = FetchSpec {
                parts: vec![part],
                max_bytes: 1 << 20,
                min_bytes: 0,
                max_wait: std::time::Duration::ZERO,
                knows_zstd: true,
                isolation,
            };
            let part = broker.fetch(&spec).await.remove(0);
            if disk.list("").is_err() {
                return Err(Dead("the power is cut".to_owned()));
            }
            assert_eq!(part.error, error_code::NONE, "{note}: read at {at}");
            let mut bytes = Bytes::from(part.records.concat());
            if bytes.is_empty() {
                break;
            }
            let mut aborted = part.aborted;
            aborted.sort_by_key(|(_, first)| *first);
            let mut skipped = BTreeSet::new();
            while let Some(batch) = Batch::split(&mut bytes).unwrap_or_else(|e| panic!("{note}: read at {at}: {e}")) {
                let header = *batch.header();
                while aborted.first().is_some_and(|(_, first)| *first <= batch.last_offset()) {
                    skipped.insert(aborted.remove(0).0);
                }
                let records = batch.records().expect("its checksum is right");
                for record in &records {
                    let record = record.expect("its checksum is right");
                    if header.is_control() {
                        assert!(ControlMarker::read(record.key).is_some(), "{note}: a marker");
                        skipped.remove(&header.producer_id);
                        continue;
                    }
                    let name = record.header(b"n").flatten().expect("every record has its name");
                    let value = u64::from_be_bytes(*name.first_chunk().expect("a number"));
                    if record.offset < Offset(at) {
                        continue;
                    }
                    if isolation == Isolation::ReadUncommitted {
                        found.push(Found { at: record.offset.0, value, is_seen: seen.contains(&value) });
                    } else if !(header.is_transactional() && skipped.contains(&header.producer_id)) {
                        seen.insert(value);
                    }
                }
                at = at.max(batch.next_offset().0);
            }
        }
    }
    Ok(found)
}
