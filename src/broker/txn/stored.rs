//! Transactional ids as records of `__transaction_state`, and aborted transactions as records of `__aborted_transactions`.
//!
//! The first have the layout of Kafka's (`TransactionLogKey` 0, `TransactionLogValue` 0), so that Kafka's tools read
//! them; two fields that Kafka keeps elsewhere stand behind. The second are our own: `topic id 16 | partition i32 |
//! marker's offset i64`, and `producer id i64 | first offset i64 | stable offset i64`. Always: what is written here is read
//! back the same; other bytes give `None`. Called by `txn::coordinator`.

use std::collections::BTreeMap;

use super::machine::{Identity, Transaction, TxnState};
use super::stability::Aborted;
use crate::log::PartitionKey;
use crate::record::{Offset, PartitionId, TopicId, TopicName, TopicPartition};
use crate::time::Timestamp;

const VERSION: [u8; 2] = [0, 0];

const fn status(state: TxnState) -> u8 {
    match state {
        TxnState::Empty => 0,
        TxnState::Ongoing => 1,
        TxnState::CompleteCommit => 4,
        TxnState::CompleteAbort => 5,
    }
}

const fn state(status: u8) -> Option<TxnState> {
    Some(match status {
        0 => TxnState::Empty,
        1 => TxnState::Ongoing,
        4 => TxnState::CompleteCommit,
        5 => TxnState::CompleteAbort,
        _ => return None,
    })
}

/// The key of a transactional id's record.
pub(super) fn key(id: &str) -> Vec<u8> {
    let mut out = VERSION.to_vec();
    put_text(&mut out, id);
    out
}

/// Reads [`key`] back.
pub(super) fn read_key(mut key: &[u8]) -> Option<String> {
    (take(&mut key)? == VERSION).then_some(())?;
    let id = take_text(&mut key)?;
    key.is_empty().then_some(id)
}

/// The value of a transactional id's record.
pub(super) fn value(of: &Transaction) -> Vec<u8> {
    let mut out = VERSION.to_vec();
    out.extend_from_slice(&of.producer.id.to_be_bytes());
    out.extend_from_slice(&of.producer.epoch.to_be_bytes());
    out.extend_from_slice(&of.timeout_ms.to_be_bytes());
    out.push(status(of.state));
    let mut topics: BTreeMap<&TopicName, Vec<i32>> = BTreeMap::new();
    for place in &of.partitions {
        topics.entry(&place.topic).or_default().push(place.partition.0);
    }
    out.extend_from_slice(&count(topics.len()));
    for (topic, partitions) in topics {
        put_text(&mut out, topic.as_str());
        out.extend_from_slice(&count(partitions.len()));
        partitions.iter().for_each(|partition| out.extend_from_slice(&partition.to_be_bytes()));
    }
    out.extend_from_slice(&of.updated_at.0.to_be_bytes());
    out.extend_from_slice(&of.started_at.to_be_bytes());
    out.extend_from_slice(&of.last_epoch.to_be_bytes());
    out.extend_from_slice(&of.previous_id.to_be_bytes());
    out
}

/// Reads [`value`] back.
pub(super) fn read_value(mut from: &[u8]) -> Option<Transaction> {
    let from = &mut from;
    (take(from)? == VERSION).then_some(())?;
    let id = i64::from_be_bytes(take(from)?);
    let epoch = i16::from_be_bytes(take(from)?);
    let timeout_ms = i32::from_be_bytes(take(from)?);
    let [status] = take(from)?;
    let mut partitions = std::collections::BTreeSet::new();
    for _ in 0..i32::from_be_bytes(take(from)?) {
        let topic = TopicName::new(&take_text(from)?).ok()?;
        for _ in 0..i32::from_be_bytes(take(from)?) {
            partitions.insert(TopicPartition::new(topic.clone(), PartitionId(i32::from_be_bytes(take(from)?))));
        }
    }
    Some(Transaction {
        producer: Identity { id, epoch },
        timeout_ms,
        state: state(status)?,
        partitions,
        updated_at: Timestamp(i64::from_be_bytes(take(from)?)),
        started_at: i64::from_be_bytes(take(from)?),
        last_epoch: i16::from_be_bytes(take(from)?),
        previous_id: i64::from_be_bytes(take(from)?),
    })
}

/// The key of an aborted transaction's record.
pub(super) fn aborted_key(of: PartitionKey, last: Offset) -> Vec<u8> {
    let mut out = of.topic.0.to_vec();
    out.extend_from_slice(&of.partition.0.to_be_bytes());
    out.extend_from_slice(&last.0.to_be_bytes());
    out
}

/// The value of an aborted transaction's record.
pub(super) fn aborted_value(of: &Aborted) -> Vec<u8> {
    [of.producer_id, of.first.0, of.stable.0].iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// Reads which partition a record of an aborted transaction is about, and where its marker lies.
pub(super) fn read_aborted_key(mut key: &[u8]) -> Option<(PartitionKey, Offset)> {
    let of = PartitionKey { topic: TopicId(take(&mut key)?), partition: PartitionId(i32::from_be_bytes(take(&mut key)?)) };
    let last = Offset(i64::from_be_bytes(take(&mut key)?));
    key.is_empty().then_some((of, last))
}

/// Reads an aborted transaction back.
pub(super) fn read_aborted(key: &[u8], mut value: &[u8]) -> Option<(PartitionKey, Aborted)> {
    let (of, last) = read_aborted_key(key)?;
    let mut number = || take(&mut value).map(i64::from_be_bytes);
    let (producer_id, first, stable) = (number()?, Offset(number()?), Offset(number()?));
    Some((of, Aborted { producer_id, first, last, stable }))
}

fn count(n: usize) -> [u8; 4] {
    i32::try_from(n).expect("a node has fewer than 2^31 partitions").to_be_bytes()
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = i16::try_from(text.len()).expect("a name's length is checked at the door");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*first)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(i16::from_be_bytes(take(rest)?)).ok()?;
    let (text, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction() -> Transaction {
        let place = |topic: &str, partition| TopicPartition::new(TopicName::new(topic).unwrap(), PartitionId(partition));
        Transaction {
            producer: Identity { id: 7, epoch: 3 },
            previous_id: 5,
            last_epoch: 2,
            timeout_ms: 60_000,
            state: TxnState::Ongoing,
            partitions: [place("a", 0), place("a", 4), place("b", 1)].into(),
            started_at: 1_000,
            updated_at: Timestamp(2_000),
        }
    }

    #[test]
    fn a_transactional_id_reads_back_and_damaged_bytes_do_not() {
        for state in [TxnState::Empty, TxnState::Ongoing, TxnState::CompleteCommit, TxnState::CompleteAbort] {
            let one = Transaction { state, ..transaction() };
            assert_eq!(read_value(&value(&one)), Some(one));
        }
        let bytes = value(&transaction());
        for cut in 0..bytes.len() {
            assert_eq!(read_value(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(read_key(&key("orders-1")), Some("orders-1".to_owned()));
        assert_eq!(read_key(b"\0\x01\0\0"), None);
    }

    #[test]
    fn a_record_has_kafkas_layout() {
        assert_eq!(key("ab"), b"\0\0\0\x02ab");
        let expected =
            b"\0\0\0\0\0\0\0\0\0\x07\0\x03\0\0\xea\x60\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x04\0\x01b\0\0\0\x01\0\0\0\x01";
        assert_eq!(value(&transaction())[..expected.len()], expected[..]);
    }

    #[test]
    fn an_aborted_transaction_reads_back() {
        let of = PartitionKey { topic: TopicId([9; 16]), partition: PartitionId(2) };
        let one = Aborted { producer_id: 7, first: Offset(10), last: Offset(12), stable: Offset(13) };
        assert_eq!(read_aborted(&aborted_key(of, one.last), &aborted_value(&one)), Some((of, one)));
        assert_eq!(read_aborted(&aborted_key(of, one.last), b"short"), None);
    }
}
