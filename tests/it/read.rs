//! What a client sees of a node: the answers to statements, and what topics hold.

use std::time::{Duration, Instant};

use serde_json::Value;
use vitalsql::node::Node;
use vitalsql::record::{PartitionId, TopicName, TopicPartition};
use vitalsql::sql::Outcome;

/// What has not come by then will not: disks may stall.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);

/// Runs statements, which are right; answers what the last one does.
pub(super) async fn run(node: &Node, text: &str) -> Option<Outcome> {
    node.execute(text).await.unwrap_or_else(|error| panic!("{}", error.render(text)))
}

/// The JSON values that a topic holds, those of a partition in order; nothing where there is no such topic.
pub(super) async fn values(node: &Node, topic: &str) -> Vec<Value> {
    let (bus, topic) = (node.bus(), TopicName::new(topic).expect("a name"));
    let mut found = Vec::new();
    for partition in 0..bus.partitions(&topic).await.expect("topics can be asked").unwrap_or(0) {
        let place = TopicPartition::new(topic.clone(), PartitionId(partition));
        let bounds = bus.bounds(&place).await.expect("bounds");
        let mut reader = bus.open(&place, bounds.start).await.expect("a reader");
        while reader.position() < bounds.end {
            let at = reader.position();
            let batches = reader.poll(1 << 20).await.expect("batches");
            if batches.is_empty() && reader.position() == at {
                break;
            }
            for batch in batches.iter().filter(|batch| !batch.header().is_control()) {
                for record in &batch.records().expect("whole records") {
                    found.push(serde_json::from_slice(record.expect("a record").value.expect("a value")).expect("JSON"));
                }
            }
        }
    }
    found
}

/// The same once there are so many, or none comes any more.
pub(super) async fn until_values(node: &Node, topic: &str, wanted: usize) -> Vec<Value> {
    let end = Instant::now() + DEADLINE;
    loop {
        let found = values(node, topic).await;
        if found.len() >= wanted || Instant::now() > end {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
