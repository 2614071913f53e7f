//! Limits of clients at the door: what a request costs, and the time its sender is put off for it.
//!
//! Always: a request is answered first, its response says for how long its sender will not be listened to, and then it is
//! not (Kafka's order). Where nobody has a limit nothing is measured. Called by `connection`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::dispatch::Caller;
use crate::broker::security::QuotaKey;
use crate::wire::{Request, Response};

/// Runs a future and measures the time it spends on a thread, waiting left out.
pub(super) struct Measured<F> {
    inner: F,
    busy: Duration,
}

impl<F: Future + Unpin> Measured<F> {
    pub(super) const fn new(inner: F) -> Self {
        Self { inner, busy: Duration::ZERO }
    }
}

impl<F: Future + Unpin> Future for Measured<F> {
    type Output = (F::Output, Duration);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let began = Instant::now();
        let polled = Pin::new(&mut self.inner).poll(context);
        self.busy += began.elapsed();
        polled.map(|output| (output, self.busy))
    }
}

/// What a request costs before it is served: partitions it makes or removes.
pub(super) fn mutations(request: &Request) -> f64 {
    let count: i64 = match request {
        Request::CreateTopics(request) if !request.validate_only => {
            request.topics.iter().map(|topic| i64::from(topic.num_partitions.max(1)).max(topic.assignments.len() as i64)).sum()
        }
        Request::CreatePartitions(request) if !request.validate_only => request.topics.len() as i64,
        Request::DeleteTopics(request) => request.topics.len().max(request.topic_names.len()) as i64,
        _ => 0,
    };
    count as f64
}

/// Bytes of records in a response.
pub(super) fn record_bytes(response: &Response) -> usize {
    match response {
        Response::Fetch(response) => {
            response.responses.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.records.len()).sum()
        }
        _ => 0,
    }
}

/// What a request has used of the limits of its sender; for how long they are put off.
pub(super) fn charge(caller: &Caller, used: &[(QuotaKey, f64)]) -> Duration {
    let security = caller.gate.security();
    let client = caller.header.client_id.as_deref().unwrap_or_default();
    let now = Instant::now();
    let each = used.iter().filter(|(_, amount)| *amount > 0.0);
    each.map(|(key, amount)| security.used(*key, caller.gate.principal().name(), client, *amount, now)).max().unwrap_or_default()
}

/// Time on threads, in the measure of its limit.
pub(super) fn percentage(busy: Duration) -> (QuotaKey, f64) {
    (QuotaKey::RequestPercentage, busy.as_secs_f64() * 100.0)
}

/// Writes into a response for how long its receiver is put off.
pub(super) fn tell(response: &mut Response, wait: Duration) {
    macro_rules! tell {
        ($($api:ident)+) => {
            match response {
                $( Response::$api(response) => response.throttle_time_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX), )+
                // These have no place for it.
                Response::WriteTxnMarkers(_) | Response::DescribeQuorum(_) | Response::SaslHandshake(_) | Response::SaslAuthenticate(_) => {}
            }
        };
    }
    if wait.is_zero() {
        return;
    }
    tell! {
        Produce Fetch ListOffsets Metadata OffsetCommit OffsetFetch FindCoordinator JoinGroup Heartbeat LeaveGroup SyncGroup DescribeGroups
        ListGroups ApiVersions CreateTopics DeleteTopics DeleteRecords InitProducerId OffsetForLeaderEpoch AddPartitionsToTxn
        AddOffsetsToTxn EndTxn TxnOffsetCommit DescribeAcls CreateAcls DeleteAcls DescribeConfigs AlterConfigs AlterReplicaLogDirs
        DescribeLogDirs CreatePartitions DeleteGroups OffsetDelete ConsumerGroupHeartbeat ConsumerGroupDescribe ElectLeaders IncrementalAlterConfigs AlterPartitionReassignments
        ListPartitionReassignments DescribeClientQuotas AlterClientQuotas DescribeUserScramCredentials AlterUserScramCredentials
        DescribeCluster DescribeProducers DescribeTransactions ListTransactions ListConfigResources DescribeTopicPartitions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CreatableTopic, CreateTopicsRequest, HeartbeatResponse};

    #[tokio::test]
    async fn waiting_costs_nothing() {
        let waits = Box::pin(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            7
        });
        let (output, busy) = Measured::new(waits).await;
        assert!(output == 7 && busy < Duration::from_secs(1));
        assert_eq!(percentage(Duration::from_millis(500)), (QuotaKey::RequestPercentage, 50.0));
    }

    #[test]
    fn making_topics_costs_their_partitions() {
        let topic = |num_partitions| CreatableTopic { num_partitions, ..Default::default() };
        let request = CreateTopicsRequest { topics: vec![topic(5), topic(-1)], ..Default::default() };
        assert_eq!(mutations(&request.clone().into()), 6.0);
        assert_eq!(mutations(&CreateTopicsRequest { validate_only: true, ..request }.into()), 0.0);
    }

    #[test]
    fn a_response_says_how_long_its_receiver_is_put_off() {
        let mut response = Response::from(HeartbeatResponse::default());
        tell(&mut response, Duration::from_secs(2));
        assert_eq!(response, HeartbeatResponse { throttle_time_ms: 2000, ..Default::default() }.into());
    }
}
