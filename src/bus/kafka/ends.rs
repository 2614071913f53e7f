//! Where partitions begin and end, asked of a cluster through any client.
//!
//! librdkafka has a question for both ends, `rd_kafka_query_watermark_offsets`. Where its first request is answered with an error, as by a
//! broker that is about to lead the partition, and the second with an offset, and both are heard at once, it takes that offset for both
//! ends: a partition full of records would be an empty one, a checkpoint none. So here one end is asked for after the other. Called by
//! [`super::cluster`] and by `cli`.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

/// The first offset that is there, and the first that is not yet there or, for a client that reads what is committed, not yet committed.
pub fn bounds_of<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    patience: Duration,
) -> Result<(i64, i64), KafkaError> {
    let ask = |of| offset_of(client, topic, partition, of, patience)?.ok_or(KafkaError::OffsetFetch(Code::OffsetNotAvailable));
    let low = ask(Offset::Beginning)?;
    Ok((low, ask(Offset::End)?.max(low)))
}

/// The offset of the beginning, of the end, or of the first record at or after a time, where there is one.
pub(super) fn offset_of<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    of: Offset,
    patience: Duration,
) -> Result<Option<i64>, KafkaError> {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_offset(topic, partition, of)?;
    let found = client.offsets_for_times(wanted, patience)?;
    let Some(found) = found.find_partition(topic, partition) else { return Ok(None) };
    found.error()?;
    Ok(match found.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(15);

    /// What a client hears whose first request comes to a broker before it leads the partition, and whose second one after that.
    #[test]
    fn where_the_beginning_is_not_told_the_partition_is_not_empty() {
        let brokers = MockCluster::new(1).unwrap();
        brokers.create_topic("t", 1, 1).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers.bootstrap_servers());
        let producer: BaseProducer = config.create().unwrap();
        for value in ["a", "b", "c"] {
            producer.send(BaseRecord::<(), str>::to("t").partition(0).payload(value)).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        let consumer: BaseConsumer = config.create().unwrap();
        let mut answered = 0;
        for errors in 0..60 {
            let not_leading = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 2];
            brokers.clear_request_errors(RDKafkaApiKey::ListOffsets);
            brokers.request_errors(RDKafkaApiKey::ListOffsets, &not_leading[..errors % 3]);
            // It is asked until it answers.
            match (0..5).map(|_| bounds_of(&consumer, "t", 0, PATIENCE)).find(Result::is_ok) {
                Some(bounds) => assert_eq!(bounds.unwrap(), (0, 3)),
                None => panic!("no answer after {errors} errors"),
            }
            answered += 1;
        }
        assert_eq!(answered, 60);
    }
}
