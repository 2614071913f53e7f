//! One transactional id and its transaction, as a pure state machine: [`Transaction`].
//!
//! No clock, no log: requests and the time come in, what the id is from then on comes out, and the caller stores it.
//! Always: at most one producer (id and epoch) is the id's; a transaction that is open ends by its producer,
//! by whoever takes the id over, or by its time. A node's append group holds markers, offsets and this state
//! together, so nobody ever meets a transaction that is ending: Kafka's states `PrepareCommit` and
//! `PrepareAbort` do not occur. Answers and their order are those of Kafka's `TransactionCoordinator` with
//! transaction version 1. Called by `txn::coordinator`, which holds one lock an id.

use std::collections::BTreeSet;

use crate::record::TopicPartition;
use crate::time::Timestamp;
use crate::wire::error_code;

/// From this epoch on an id needs a new producer id: one more is needed to fence.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// Who a producer says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The producer's id.
    pub id: i64,
    /// Its life.
    pub epoch: i16,
}

/// What a transactional id is doing, in Kafka's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TxnState {
    /// Its producer has begun nothing.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// The last one was committed.
    CompleteCommit,
    /// The last one was aborted.
    CompleteAbort,
}

impl TxnState {
    /// Kafka's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// Kafka's names of all states, also of those that do not occur here.
    pub const NAMES: [&'static str; 8] =
        ["Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence"];
}

/// A transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Whose it is now.
    pub producer: Identity,
    /// Whose it was before the epochs of that id were used up, or -1.
    pub previous_id: i64,
    /// The epoch before the last time it was raised by its own producer, or -1: that request may be repeated.
    pub last_epoch: i16,
    /// How long a transaction may be open.
    pub timeout_ms: i32,
    /// What it is doing.
    pub state: TxnState,
    /// Where the open transaction may write.
    pub partitions: BTreeSet<TopicPartition>,
    /// When the last transaction began, or -1.
    pub started_at: i64,
    /// When anything was changed last.
    pub updated_at: Timestamp,
}

/// What is to be done about a producer that announces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// Store this, and it is the id's producer.
    Take(Transaction),
    /// The epochs are used up: ask again with a new producer id.
    NeedsId,
    /// Someone's transaction is open: end it so, then let the producer come again.
    Fence(Ending),
}

/// How a transaction is to be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Whose markers are written.
    pub marker: Identity,
    /// Whether its records count.
    pub committed: bool,
    /// Where.
    pub partitions: BTreeSet<TopicPartition>,
    /// What the id is afterwards.
    pub after: Transaction,
}

impl Transaction {
    /// A transactional id nobody has used, which gets this producer id. It is nobody's before [`Transaction::init`].
    #[must_use]
    pub const fn new(producer_id: i64, timeout_ms: i32, now: Timestamp) -> Self {
        Self {
            producer: Identity { id: producer_id, epoch: -1 },
            previous_id: -1,
            last_epoch: -1,
            timeout_ms,
            state: TxnState::Empty,
            partitions: BTreeSet::new(),
            started_at: -1,
            updated_at: now,
        }
    }

    /// A producer announces itself; `believed` is who it was, where it says so (KIP-360). `fresh` is an
    /// unused producer id, where one was asked for.
    pub fn init(&self, now: Timestamp, timeout_ms: i32, believed: Option<Identity>, fresh: Option<i64>) -> Result<Init, i16> {
        let is_unclaimed = self.producer.epoch < 0;
        let is_used_up = self.producer.epoch >= LAST_EPOCH;
        if let Some(believed) = believed {
            let was_rotated = believed.id == self.previous_id && believed.epoch >= LAST_EPOCH;
            if !is_unclaimed && believed.id != self.producer.id && !was_rotated {
                return Err(error_code::PRODUCER_FENCED);
            }
        }
        if self.state == TxnState::Ongoing {
            return Ok(Init::Fence(self.fence(now)));
        }
        let empty =
            Self { timeout_ms, state: TxnState::Empty, partitions: BTreeSet::new(), started_at: -1, updated_at: now, ..self.clone() };
        if is_used_up && believed.is_none_or(|believed| believed.epoch == self.producer.epoch) {
            let Some(id) = fresh else { return Ok(Init::NeedsId) };
            let last_epoch = if believed.is_some() { self.producer.epoch } else { -1 };
            return Ok(Init::Take(Self { producer: Identity { id, epoch: 0 }, previous_id: self.producer.id, last_epoch, ..empty }));
        }
        let raised = Identity { epoch: self.producer.epoch.saturating_add(1), ..self.producer };
        let (producer, last_epoch) = match believed {
            None => (raised, -1),
            Some(believed) if is_unclaimed || believed.epoch == self.producer.epoch => (raised, self.producer.epoch),
            // It asked before and has not heard the answer.
            Some(believed) if believed.epoch == self.last_epoch => (self.producer, self.last_epoch),
            Some(_) => return Err(error_code::PRODUCER_FENCED),
        };
        Ok(Init::Take(Self { producer, last_epoch, ..empty }))
    }

    /// How the open transaction ends where its producer is not asked: nothing of its epoch is taken any more. Until
    /// someone else is the id's producer it may come back by [`Transaction::init`], as with Kafka 4.3.
    fn fence(&self, now: Timestamp) -> Ending {
        let producer = Identity { epoch: self.producer.epoch.saturating_add(1), ..self.producer };
        let fenced = Self { producer, last_epoch: self.producer.epoch, ..self.clone() };
        fenced.ended(now, false)
    }

    fn ended(&self, now: Timestamp, committed: bool) -> Ending {
        let state = if committed { TxnState::CompleteCommit } else { TxnState::CompleteAbort };
        Ending {
            marker: self.producer,
            committed,
            partitions: self.partitions.clone(),
            after: Self { state, partitions: BTreeSet::new(), updated_at: now, ..self.clone() },
        }
    }

    const fn check(&self, producer: Identity) -> Result<(), i16> {
        if self.producer.id != producer.id {
            return Err(error_code::INVALID_PRODUCER_ID_MAPPING);
        }
        if self.producer.epoch != producer.epoch {
            return Err(error_code::PRODUCER_FENCED);
        }
        Ok(())
    }

    /// The producer wants to write to these partitions. What to store; `None` where they are in already.
    pub fn add(&self, now: Timestamp, producer: Identity, partitions: &BTreeSet<TopicPartition>) -> Result<Option<Self>, i16> {
        self.check(producer)?;
        let is_open = self.state == TxnState::Ongoing;
        if is_open && partitions.is_subset(&self.partitions) {
            return Ok(None);
        }
        let mut after = self.clone();
        after.partitions.extend(partitions.iter().cloned());
        if !is_open {
            after.state = TxnState::Ongoing;
            after.started_at = now.0;
        }
        after.updated_at = now;
        Ok(Some(after))
    }

    /// Whether the producer may write to a partition now.
    pub fn verify(&self, producer: Identity, of: &TopicPartition) -> Result<(), i16> {
        self.check(producer)?;
        if self.partitions.contains(of) { Ok(()) } else { Err(error_code::TRANSACTION_ABORTABLE) }
    }

    /// The producer ends its transaction. How; `None` where it ended so before.
    pub fn end(&self, now: Timestamp, producer: Identity, committed: bool) -> Result<Option<Ending>, i16> {
        self.check(producer)?;
        match (self.state, committed) {
            (TxnState::Ongoing, _) => Ok(Some(self.ended(now, committed))),
            (TxnState::CompleteCommit, true) | (TxnState::CompleteAbort, false) => Ok(None),
            _ => Err(error_code::INVALID_TXN_STATE),
        }
    }

    /// When the open transaction's time is over.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        (self.state == TxnState::Ongoing).then(|| Timestamp(self.started_at.saturating_add(i64::from(self.timeout_ms))))
    }

    /// How the open transaction ends where its time is over.
    #[must_use]
    pub fn time_out(&self, now: Timestamp) -> Option<Ending> {
        self.deadline().filter(|deadline| *deadline < now).map(|_| self.fence(now))
    }

    /// Whether nobody has used the id for so long that it may go.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp, expiration_ms: i64) -> bool {
        self.state != TxnState::Ongoing && self.updated_at.0 <= now.0.saturating_sub(expiration_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{PartitionId, TopicName};

    const TIMEOUT: i32 = 1_000;
    const P: Identity = Identity { id: 7, epoch: 0 };

    fn places(partitions: &[i32]) -> BTreeSet<TopicPartition> {
        partitions.iter().map(|p| TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(*p))).collect()
    }

    /// One step of a script, and what is told of it: `init`, `init ID/EPOCH`, `add ID/EPOCH P`, `commit ID/EPOCH`,
    /// `abort ID/EPOCH`, `verify ID/EPOCH P`, `at MS`. A new producer id is 8, then 9.
    struct Play {
        transaction: Transaction,
        now: Timestamp,
        fresh: i64,
    }

    impl Play {
        fn new() -> Self {
            Self { transaction: Transaction::new(7, TIMEOUT, Timestamp(0)), now: Timestamp(0), fresh: 8 }
        }

        fn step(&mut self, step: &str) -> String {
            let mut words = step.split_whitespace();
            let what = words.next().unwrap();
            let mut next = || words.next();
            let done = match what {
                "at" => {
                    self.now = Timestamp(next().unwrap().parse().unwrap());
                    match self.transaction.time_out(self.now) {
                        None => Ok("-".to_owned()),
                        Some(ending) => Ok(self.take_ending(ending)),
                    }
                }
                "init" => self.init(next().map(identity)),
                "add" => {
                    let (who, partition) = (identity(next().unwrap()), next().unwrap().parse().unwrap());
                    self.transaction.add(self.now, who, &places(&[partition])).map(|after| match after {
                        None => "there".to_owned(),
                        Some(after) => {
                            self.transaction = after;
                            "added".to_owned()
                        }
                    })
                }
                "verify" => {
                    let (who, partition) = (identity(next().unwrap()), next().unwrap().parse().unwrap());
                    self.transaction.verify(who, places(&[partition]).first().unwrap()).map(|()| "yes".to_owned())
                }
                end => {
                    let who = identity(next().unwrap());
                    self.transaction.end(self.now, who, end == "commit").map(|ending| match ending {
                        None => "again".to_owned(),
                        Some(ending) => self.take_ending(ending),
                    })
                }
            };
            done.unwrap_or_else(|code| error_code::name(code).to_owned())
        }

        fn init(&mut self, believed: Option<Identity>) -> Result<String, i16> {
            let init = match self.transaction.init(self.now, TIMEOUT, believed, None)? {
                Init::NeedsId => {
                    let fresh = self.fresh;
                    self.fresh += 1;
                    self.transaction.init(self.now, TIMEOUT, believed, Some(fresh))?
                }
                init => init,
            };
            Ok(match init {
                Init::Take(after) => {
                    self.transaction = after;
                    format!("{}/{}", self.transaction.producer.id, self.transaction.producer.epoch)
                }
                Init::Fence(ending) => format!("fence:{}", self.take_ending(ending)),
                Init::NeedsId => unreachable!("it got one"),
            })
        }

        fn take_ending(&mut self, ending: Ending) -> String {
            assert!(ending.after.partitions.is_empty());
            self.transaction = ending.after;
            let marker = if ending.committed { "commit" } else { "abort" };
            format!("{marker}@{}/{}x{}", ending.marker.id, ending.marker.epoch, ending.partitions.len())
        }
    }

    fn identity(text: &str) -> Identity {
        let (id, epoch) = text.split_once('/').unwrap();
        Identity { id: id.parse().unwrap(), epoch: epoch.parse().unwrap() }
    }

    fn check(script: &str, expected: &str) {
        let mut play = Play::new();
        let told: Vec<String> = script.split(',').map(|step| play.step(step.trim())).collect();
        assert_eq!(told.join(", "), expected, "{script}");
    }

    #[test]
    fn a_transaction_begins_with_its_first_partition_and_ends_once() {
        check(
            "init, add 7/0 1, add 7/0 1, add 7/0 2, commit 7/0, commit 7/0, abort 7/0",
            "7/0, added, there, added, commit@7/0x2, again, INVALID_TXN_STATE",
        );
        check("init, commit 7/0, abort 7/0", "7/0, INVALID_TXN_STATE, INVALID_TXN_STATE");
        check("init, add 7/0 1, abort 7/0, abort 7/0, add 7/0 1, commit 7/0", "7/0, added, abort@7/0x1, again, added, commit@7/0x1");
    }

    #[test]
    fn only_the_ids_producer_is_heard() {
        check("init, init, add 7/0 1, add 7/2 1, add 8/1 1", "7/0, 7/1, PRODUCER_FENCED, PRODUCER_FENCED, INVALID_PRODUCER_ID_MAPPING");
        check("init, init, commit 7/0, commit 8/1", "7/0, 7/1, PRODUCER_FENCED, INVALID_PRODUCER_ID_MAPPING");
        check("init, add 7/0 1, verify 7/0 1, verify 7/0 2, verify 7/1 1", "7/0, added, yes, TRANSACTION_ABORTABLE, PRODUCER_FENCED");
    }

    #[test]
    fn who_announces_itself_while_a_transaction_is_open_ends_it_and_comes_again() {
        check("init, add 7/0 1, init, init, commit 7/0", "7/0, added, fence:abort@7/1x1, 7/2, PRODUCER_FENCED");
        check("init, add 7/0 1, init 7/0, init 7/0, init 7/0", "7/0, added, fence:abort@7/1x1, 7/1, 7/1");
    }

    #[test]
    fn a_producer_raises_its_own_epoch_and_may_repeat_that() {
        check("init, init 7/0, init 7/0, init 7/1, init 7/0", "7/0, 7/1, 7/1, 7/2, PRODUCER_FENCED");
        check("init 5/3, init 5/3", "7/0, PRODUCER_FENCED");
        check("init, init, init 7/0, init 8/1", "7/0, 7/1, PRODUCER_FENCED, PRODUCER_FENCED");
    }

    #[test]
    fn used_up_epochs_give_a_new_id_that_only_the_last_producer_may_ask_for_again() {
        let mut play = Play::new();
        play.step("init");
        play.transaction.producer.epoch = LAST_EPOCH - 1;
        assert_eq!(play.step("init"), "7/32766");
        assert_eq!(play.step("init 7/32765"), "PRODUCER_FENCED");
        assert_eq!(play.step("init 7/32766"), "8/0");
        assert_eq!(play.step("init 7/32766"), "8/0");
        assert_eq!((play.step("init"), play.step("init 7/32766")), ("8/1".to_owned(), "PRODUCER_FENCED".to_owned()));
    }

    #[test]
    fn a_transaction_ends_when_its_time_is_over_and_not_before() {
        let script = "init, at 50, add 7/0 1, at 1050, at 1051, commit 7/0, at 9000";
        check(script, "7/0, -, added, -, abort@7/1x1, PRODUCER_FENCED, -");
        let begun =
            Transaction::new(7, TIMEOUT, Timestamp(3)).add(Timestamp(5), Identity { epoch: -1, ..P }, &places(&[1])).unwrap().unwrap();
        assert_eq!((begun.deadline(), begun.is_expired(Timestamp(i64::MAX), 0)), (Some(Timestamp(1_005)), false));
    }

    #[test]
    fn an_id_nobody_uses_expires() {
        let one = Transaction::new(7, TIMEOUT, Timestamp(100));
        assert_eq!((one.is_expired(Timestamp(149), 50), one.is_expired(Timestamp(150), 50)), (false, true));
    }
}
