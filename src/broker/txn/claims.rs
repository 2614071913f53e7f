//! Which batches of a Produce request say they are in a transaction, and what they are told where they are not.
//!
//! Pure: bytes and verdicts come in, refusals come out. What a batch says is read from its header before the batch is
//! checked, as Kafka judges the transaction first; a request without such a batch costs a look at one byte of each.
//! Called by `produce`.

use bytes::Bytes;

use super::machine::Identity;
use crate::broker::produce::{Incoming, ProduceTerms, Refusal};
use crate::broker::verification::Asked;
use crate::wire::error_code;

/// The transaction a request's batches belong to.
pub(in crate::broker) struct InTransaction<'a> {
    pub(in crate::broker) id: &'a str,
    pub(in crate::broker) producer: Identity,
}

impl InTransaction<'_> {
    /// What one of its batches asks for.
    pub(in crate::broker) const fn asks(&self, sequence: i32, terms: ProduceTerms) -> Asked {
        Asked { producer_id: self.producer.id, epoch: self.producer.epoch, sequence, bumps_epoch: terms.bumps_epoch }
    }
}

/// What the front of a batch says of it, believed as far as it goes.
pub(in crate::broker) struct Head {
    /// How many bytes lie behind the length itself.
    length: i32,
    /// The format.
    pub(in crate::broker) magic: u8,
    /// The lower byte of the attributes; 0 where it is not within the batch.
    pub(in crate::broker) attributes: u8,
}

/// The heads of batches that lie whole one behind the other; one that is impossible is the last.
pub(in crate::broker) fn heads(records: &[u8]) -> impl Iterator<Item = Head> + '_ {
    let mut rest = records;
    std::iter::from_fn(move || {
        let length = i32::from_be_bytes(*rest.get(8..)?.first_chunk()?);
        let magic = if length < SHORTEST { 0 } else { *rest.get(16)? };
        let head = Head { length, magic, attributes: rest.get(22).copied().unwrap_or(0) };
        if head.is_impossible() {
            rest = &[];
            return Some(head);
        }
        rest = rest.get(head.whole()..)?;
        Some(head)
    })
}

/// What lies behind a batch's length takes at least so many bytes, in the oldest format.
const SHORTEST: i32 = 14;

impl Head {
    /// The batch's length in all.
    pub(in crate::broker) fn whole(&self) -> usize {
        usize::try_from(self.length).unwrap_or(0).saturating_add(12)
    }

    pub(in crate::broker) const fn is_impossible(&self) -> bool {
        self.length < SHORTEST || self.magic > 2
    }
}

/// Whether the look for batches of a transaction, which in Kafka goes before all else, takes the first of each partition and ends with
/// the first that is one, meets one that is impossible: then the whole request is refused.
#[must_use]
pub fn stumbles<'a>(all_records: impl Iterator<Item = &'a Bytes>) -> bool {
    let is_end = |head: &Head| head.is_impossible() || (head.magic == 2 && head.attributes & TRANSACTIONAL != 0);
    all_records.filter_map(|records| heads(records).next()).find(is_end).is_some_and(|head| head.is_impossible())
}

const TRANSACTIONAL: u8 = 0x10;

/// Whether a batch says it is in a transaction.
fn claims_one(records: &Bytes) -> bool {
    records.get(22).is_some_and(|attributes| attributes & TRANSACTIONAL != 0)
}

/// Whether the batch says it is in a transaction. For whoever asks what rights the request needs.
#[must_use]
pub fn is_transactional(records: &[u8]) -> bool {
    heads(records).next().is_some_and(|head| head.magic == 2 && head.attributes & TRANSACTIONAL != 0)
}

/// Whose transaction a batch says it is in, by the bytes of its header: they are checked later, as the rest of it.
pub(in crate::broker) fn claim(records: &Bytes) -> Option<Identity> {
    if !claims_one(records) {
        return None;
    }
    let id = i64::from_be_bytes(*records.get(43..)?.first_chunk()?);
    let epoch = i16::from_be_bytes(*records.get(51..)?.first_chunk()?);
    (id >= 0).then_some(Identity { id, epoch })
}

/// The sequence number of a batch's first record, by the bytes of its header.
pub(in crate::broker) fn first_sequence(records: &Bytes) -> Option<i32> {
    Some(i32::from_be_bytes(*records.get(53..)?.first_chunk()?))
}

/// The one transaction that a request's batches are in, where there are such.
pub(in crate::broker) fn in_transaction<'a>(id: Option<&'a str>, incoming: &[Incoming]) -> Result<Option<InTransaction<'a>>, Refusal> {
    let all = || incoming.iter().filter_map(|one| one.records.as_ref());
    let Some(id) = id else {
        if all().any(claims_one) {
            let why = "batches of a transaction need the request to name it";
            return Err(Refusal::new(error_code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, why));
        }
        return Ok(None);
    };
    let mut claims = all().filter_map(claim);
    let Some(producer) = claims.next() else { return Ok(None) };
    if claims.any(|other| other != producer) {
        return Err(Refusal::new(error_code::INVALID_PRODUCER_ID_MAPPING, "batches of several transactional producers in one request"));
    }
    Ok(Some(InTransaction { id, producer }))
}

/// Refuses the parts that are of a transaction and may not be written. There is one verdict for each part that is
/// not refused yet.
pub(in crate::broker) fn refuse<T>(
    parts: Vec<Result<T, Refusal>>,
    verdicts: Vec<Result<(), i16>>,
    terms: ProduceTerms,
    of_transaction: impl Fn(&T) -> bool,
) -> Vec<Result<T, Refusal>> {
    let mut verdicts = verdicts.into_iter();
    let judge = |part: T| match verdicts.next() {
        Some(Err(code)) if of_transaction(&part) => Err(transaction_refusal(code, terms)),
        _ => Ok(part),
    };
    let mut judge = judge;
    parts.into_iter().map(|part| part.and_then(&mut judge)).collect()
}

/// What a Produce request is told where the coordinator says no: older versions do not know every code.
fn transaction_refusal(code: i16, terms: ProduceTerms) -> Refusal {
    match code {
        error_code::PRODUCER_FENCED => {
            Refusal::new(error_code::INVALID_PRODUCER_EPOCH, "a newer producer has this transactional id, or its time was over")
        }
        error_code::TRANSACTION_ABORTABLE if terms.knows_abortable => Refusal::new(code, "the partition is not in the transaction"),
        error_code::TRANSACTION_ABORTABLE => Refusal::new(error_code::INVALID_TXN_STATE, "the partition is not in the transaction"),
        code => Refusal::new(code, "the transactional id has no such producer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BatchBuilder;

    fn incoming(id: i64, transactional: bool) -> Incoming {
        let mut builder = BatchBuilder::new().with_producer(id, 3, 0);
        builder.push(0, None, Some(b"x"), &[]);
        let builder = if transactional { builder.transactional() } else { builder };
        Incoming { topic: "t".to_owned(), topic_id: None, partition: 0, records: Some(builder.finish().to_bytes()) }
    }

    fn told(id: Option<&str>, batches: &[(i64, bool)]) -> String {
        let incoming: Vec<_> = batches.iter().map(|(id, transactional)| incoming(*id, *transactional)).collect();
        match in_transaction(id, &incoming) {
            Ok(None) => "none".to_owned(),
            Ok(Some(one)) => format!("{} {}/{}", one.id, one.producer.id, one.producer.epoch),
            Err(refusal) => error_code::name(refusal.code).to_owned(),
        }
    }

    #[test]
    fn a_request_is_in_the_one_transaction_its_batches_say() {
        assert_eq!(told(None, &[(7, false), (8, false)]), "none");
        assert_eq!(told(Some("tx"), &[(7, false)]), "none");
        assert_eq!(told(Some("tx"), &[(8, false), (7, true), (7, true)]), "tx 7/3");
        assert_eq!(told(Some("tx"), &[(7, true), (8, true)]), "INVALID_PRODUCER_ID_MAPPING");
        assert_eq!(told(None, &[(7, false), (7, true)]), "TRANSACTIONAL_ID_AUTHORIZATION_FAILED");
        assert_eq!(told(None, &[(-1, true)]), "TRANSACTIONAL_ID_AUTHORIZATION_FAILED");
        assert_eq!(told(Some("tx"), &[(-1, true)]), "none");
    }

    #[test]
    fn a_request_with_an_impossible_batch_is_refused_whole_unless_a_transaction_goes_before_it() {
        let good = |transactional| incoming(7, transactional);
        let bad = |at: usize, bytes: &[u8]| {
            let mut one = incoming(7, false);
            let mut records = one.records.unwrap().to_vec();
            records[at..at + bytes.len()].copy_from_slice(bytes);
            one.records = Some(records.into());
            one
        };
        let stumbles = |all: &[Incoming]| stumbles(all.iter().filter_map(|one| one.records.as_ref()));
        assert!(!stumbles(&[good(false), good(true)]));
        for (at, bytes) in [(16, &[3][..]), (16, &[0xff]), (8, &[0, 0, 0, 13]), (8, &[0xff; 4])] {
            assert!(stumbles(&[good(false), bad(at, bytes)]), "{at} {bytes:?}");
            assert!(!stumbles(&[good(true), bad(at, bytes)]), "{at} {bytes:?}");
            assert!(stumbles(&[bad(at, bytes), good(true)]), "{at} {bytes:?}");
        }
        assert!(is_transactional(&good(true).records.unwrap()) && !is_transactional(&good(false).records.unwrap()));
        // Cut off, or of an old format: that partition's own affair.
        assert!(!stumbles(&[bad(8, &[0x7f, 0, 0, 0]), bad(16, &[1])]));
        assert_eq!(heads(&[1; 11]).count() + heads(&[0; 16][..11]).count(), 0);
    }

    #[test]
    fn bytes_that_are_no_batch_claim_nothing() {
        for cut in 0..61 {
            assert_eq!(claim(&incoming(7, true).records.unwrap().slice(..cut)).is_some(), cut >= 53, "{cut}");
        }
    }

    #[test]
    fn an_old_client_is_told_of_a_missing_partition_by_a_code_it_knows() {
        let code = |code, knows_abortable| {
            transaction_refusal(code, ProduceTerms { acks: -1, knows_abortable, knows_zstd: true, bumps_epoch: false }).code
        };
        assert_eq!(code(error_code::TRANSACTION_ABORTABLE, false), error_code::INVALID_TXN_STATE);
        assert_eq!(code(error_code::TRANSACTION_ABORTABLE, true), error_code::TRANSACTION_ABORTABLE);
        assert_eq!(code(error_code::PRODUCER_FENCED, true), error_code::INVALID_PRODUCER_EPOCH);
    }

    #[test]
    fn only_the_parts_of_the_transaction_are_refused() {
        let terms = ProduceTerms { acks: -1, knows_abortable: true, knows_zstd: true, bumps_epoch: false };
        let gone = || Err(Refusal::new(error_code::UNKNOWN_TOPIC_OR_PARTITION, "gone"));
        let verdicts = vec![Err(error_code::TRANSACTION_ABORTABLE), Ok(()), Err(error_code::TRANSACTION_ABORTABLE)];
        let parts = refuse(vec![Ok(1), gone(), Ok(2), Ok(30)], verdicts, terms, |part| *part < 10);
        let codes: Vec<_> = parts.iter().map(|part| part.as_ref().map_or_else(|refusal| refusal.code, |_| 0)).collect();
        assert_eq!(codes, [error_code::TRANSACTION_ABORTABLE, error_code::UNKNOWN_TOPIC_OR_PARTITION, 0, 0]);
    }
}
