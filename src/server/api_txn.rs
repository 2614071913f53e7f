//! Transactions from outside: InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, TxnOffsetCommit, EndTxn.
//!
//! Versions before 2 (before 4 of InitProducerId) do not know that a producer can be fenced by a code of its own: they
//! are told `INVALID_PRODUCER_EPOCH`.

use std::collections::{BTreeMap, BTreeSet};

use super::dispatch::Caller;
use crate::broker::group::{CommitOffset, GroupId, TxnCommitRequest};
use crate::broker::txn::Identity;
use crate::record::{Offset, PartitionId, TopicName, TopicPartition};
use crate::wire::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, AddPartitionsToTxnTopicResult, EndTxnRequest, EndTxnResponse, InitProducerIdRequest,
    InitProducerIdResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic, error_code,
};

/// From this version on a client knows `PRODUCER_FENCED`.
const KNOWS_FENCED: i16 = 2;
/// From this version on InitProducerId does.
const INIT_KNOWS_FENCED: i16 = 4;
/// From this version on TxnOffsetCommit knows `TRANSACTION_ABORTABLE`.
const COMMIT_KNOWS_ABORTABLE: i16 = 4;

/// The error as a client of this version knows it.
const fn known(code: i16, version: i16, knows_fenced: i16) -> i16 {
    if code == error_code::PRODUCER_FENCED && version < knows_fenced { error_code::INVALID_PRODUCER_EPOCH } else { code }
}

fn code_of(done: Result<(), i16>, version: i16) -> i16 {
    done.map_or_else(|code| known(code, version, KNOWS_FENCED), |()| error_code::NONE)
}

/// Gives an idempotent or transactional producer its identity.
pub(super) async fn init_producer_id(caller: &Caller, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refused = |error_code| InitProducerIdResponse { error_code, ..Default::default() };
    let believed = match (request.producer_id, request.producer_epoch) {
        (-1, -1) => None,
        (-1, _) | (_, -1) => return refused(error_code::INVALID_REQUEST),
        (id, epoch) => Some(Identity { id, epoch }),
    };
    let broker = &caller.peer.broker;
    let producer = match &request.transactional_id {
        Some(id) => broker.transactions().init(id, request.transaction_timeout_ms, believed).await,
        None => match broker.new_producer_id().await {
            Ok(id) => Ok(Identity { id, epoch: 0 }),
            Err(error) => {
                tracing::warn!(%error, "could not give a producer its identity");
                Err(error_code::COORDINATOR_NOT_AVAILABLE)
            }
        },
    };
    match producer {
        Ok(Identity { id, epoch }) => InitProducerIdResponse { producer_id: id, producer_epoch: epoch, ..Default::default() },
        Err(code) => refused(known(code, caller.version(), INIT_KNOWS_FENCED)),
    }
}

/// Takes partitions into a transaction: all of them, or none.
pub(super) async fn add_partitions(caller: &Caller, request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    let broker = &caller.peer.broker;
    let mut places = BTreeSet::new();
    let mut refused: BTreeMap<(&str, i32), i16> = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            match place(caller, &topic.name, *partition) {
                Ok(of) => drop(places.insert(of)),
                Err(code) => drop(refused.insert((&topic.name, *partition), code)),
            }
        }
    }
    let code = if refused.is_empty() {
        let producer = Identity { id: request.producer_id, epoch: request.producer_epoch };
        code_of(broker.transactions().add(&request.transactional_id, producer, places).await, caller.version())
    } else {
        error_code::OPERATION_NOT_ATTEMPTED
    };
    let results_by_topic = request
        .topics
        .iter()
        .map(|topic| {
            let result = |partition: &i32| AddPartitionsToTxnPartitionResult {
                partition_index: *partition,
                partition_error_code: refused.get(&(topic.name.as_str(), *partition)).copied().unwrap_or(code),
            };
            let results_by_partition = topic.partitions.iter().map(result).collect();
            AddPartitionsToTxnTopicResult { name: topic.name.clone(), results_by_partition }
        })
        .collect();
    AddPartitionsToTxnResponse { results_by_topic, ..Default::default() }
}

/// A partition that clients may write to in a transaction.
fn place(caller: &Caller, topic: &str, partition: i32) -> Result<TopicPartition, i16> {
    let name = TopicName::new(topic).map_err(|_| error_code::UNKNOWN_TOPIC_OR_PARTITION)?;
    if name.is_written_by_node_alone() {
        return Err(error_code::TOPIC_AUTHORIZATION_FAILED);
    }
    let of = TopicPartition::new(name, PartitionId(partition));
    caller.peer.broker.partition(&of).map(|_| of).ok_or(error_code::UNKNOWN_TOPIC_OR_PARTITION)
}

/// Takes a group's offsets into a transaction.
pub(super) async fn add_offsets(caller: &Caller, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let producer = Identity { id: request.producer_id, epoch: request.producer_epoch };
    let done = caller.peer.broker.transactions().add_offsets(&request.transactional_id, producer).await;
    AddOffsetsToTxnResponse { error_code: code_of(done, caller.version()), ..Default::default() }
}

/// Ends a transaction.
pub(super) async fn end(caller: &Caller, request: EndTxnRequest) -> EndTxnResponse {
    let producer = Identity { id: request.producer_id, epoch: request.producer_epoch };
    let done = caller.peer.broker.transactions().end(&request.transactional_id, producer, request.committed).await;
    EndTxnResponse { error_code: code_of(done, caller.version()), ..Default::default() }
}

/// Keeps a group's positions until the transaction ends.
pub(super) async fn commit_offsets(caller: &Caller, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let asked: Vec<(String, Vec<i32>)> =
        request.topics.iter().map(|t| (t.name.clone(), t.partitions.iter().map(|p| p.partition_index).collect())).collect();
    let mut offsets = Vec::new();
    for topic in request.topics {
        let Ok(name) = TopicName::new(&topic.name) else { continue };
        for one in topic.partitions {
            let of = TopicPartition::new(name.clone(), PartitionId(one.partition_index));
            // What does not exist is refused below.
            if caller.peer.broker.partition(&of).is_some() {
                offsets.push(CommitOffset {
                    of,
                    offset: Offset(one.committed_offset),
                    leader_epoch: one.committed_leader_epoch,
                    metadata: one.committed_metadata,
                });
            }
        }
    }
    let committed = match GroupId::new(&request.group_id).filter(|id| !id.as_str().is_empty()) {
        _ if offsets.is_empty() => Ok(Vec::new()),
        None => Err(error_code::INVALID_GROUP_ID),
        Some(group) => {
            let producer = Identity { id: request.producer_id, epoch: request.producer_epoch };
            let commit = TxnCommitRequest {
                producer_id: request.producer_id,
                member_id: request.member_id,
                instance_id: request.group_instance_id,
                generation: request.generation_id,
                offsets,
            };
            caller.peer.broker.transactions().commit_offsets(&request.transactional_id, producer, group, commit).await
        }
    };
    let version = caller.version();
    let errors: Result<BTreeMap<(String, i32), i16>, i16> = committed
        .map(|all| all.into_iter().map(|(of, code)| ((of.topic.as_str().to_owned(), of.partition.0), code)).collect())
        .map_err(|code| commit_code(code, version));
    let topic = |(name, partitions): (String, Vec<i32>)| {
        let exists = |partition: i32| {
            TopicName::new(&name)
                .is_ok_and(|topic| caller.peer.broker.partition(&TopicPartition::new(topic, PartitionId(partition))).is_some())
        };
        let partition = |partition_index: i32| {
            let error_code = match &errors {
                Err(code) if exists(partition_index) => *code,
                Err(_) => error_code::UNKNOWN_TOPIC_OR_PARTITION,
                Ok(errors) => errors.get(&(name.clone(), partition_index)).copied().unwrap_or(error_code::UNKNOWN_TOPIC_OR_PARTITION),
            };
            TxnOffsetCommitResponsePartition { partition_index, error_code }
        };
        TxnOffsetCommitResponseTopic { partitions: partitions.into_iter().map(partition).collect(), name: name.clone() }
    };
    TxnOffsetCommitResponse { topics: asked.into_iter().map(topic).collect(), ..Default::default() }
}

/// What TxnOffsetCommit is told where the coordinator of transactions says no.
const fn commit_code(code: i16, version: i16) -> i16 {
    match code {
        error_code::PRODUCER_FENCED => error_code::INVALID_PRODUCER_EPOCH,
        error_code::TRANSACTION_ABORTABLE if version < COMMIT_KNOWS_ABORTABLE => error_code::INVALID_TXN_STATE,
        code => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_client_is_told_what_it_knows() {
        assert_eq!(known(error_code::PRODUCER_FENCED, 1, KNOWS_FENCED), error_code::INVALID_PRODUCER_EPOCH);
        assert_eq!(known(error_code::PRODUCER_FENCED, 2, KNOWS_FENCED), error_code::PRODUCER_FENCED);
        assert_eq!(known(error_code::INVALID_TXN_STATE, 0, KNOWS_FENCED), error_code::INVALID_TXN_STATE);
        assert_eq!(commit_code(error_code::TRANSACTION_ABORTABLE, 3), error_code::INVALID_TXN_STATE);
        assert_eq!(commit_code(error_code::TRANSACTION_ABORTABLE, 4), error_code::TRANSACTION_ABORTABLE);
        assert_eq!(commit_code(error_code::PRODUCER_FENCED, 4), error_code::INVALID_PRODUCER_EPOCH);
    }
}
