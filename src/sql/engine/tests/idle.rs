//! When a partition is idle: what counts is how long it had been silent when it was last looked at.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::delivery::by_key;
use super::replace::{BEGIN, read_all, reading, run};
use super::watched::{Watch, Watched};
use super::*;
use crate::bus::{BusFuture, Reader};
use crate::record::Batch;

/// Once it is told to, lets a minute pass and a row come in the first partition while somebody is reading the second.
struct Slow {
    log: EmbeddedBus,
    hands: &'static [AtomicI64; 2],
    is_slow: AtomicBool,
}

struct SlowReader {
    reader: Box<dyn Reader>,
    of: Arc<Slow>,
}

struct Slowly(Arc<Slow>);

impl Watch for Slowly {
    fn opened(&self, of: &TopicPartition, reader: Box<dyn Reader>) -> Box<dyn Reader> {
        if of.topic.as_str() != "v" || of.partition != PartitionId(1) {
            return reader;
        }
        Box::new(SlowReader { reader, of: Arc::clone(&self.0) })
    }
}

impl Reader for SlowReader {
    fn poll<'a>(&'a mut self, max_bytes: usize) -> BusFuture<'a, Vec<Batch>> {
        Box::pin(async move {
            if self.of.is_slow.swap(false, Ordering::SeqCst) {
                let now = self.of.hands[0].load(Ordering::SeqCst);
                let mut records = BatchBuilder::new();
                records.push(0, Some(b"a"), Some(reading("a", 1, (now - BEGIN) / 1000 + 30).as_bytes()), &[]);
                let to = TopicPartition::new(topic("v"), PartitionId(0));
                self.of.log.append(vec![TopicBatch { to, records }]).await?;
                self.of.hands[0].store(now + 60_000, Ordering::SeqCst);
            }
            self.reader.poll(max_bytes).await
        })
    }
    fn position(&self) -> Offset {
        self.reader.position()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_whose_rows_have_come_since_it_was_looked_at_is_not_idle() {
    let hands: &'static [AtomicI64; 2] = Box::leak(Box::new([AtomicI64::new(BEGIN), AtomicI64::new(0)]));
    let broker = TestDisk::default().broker().await;
    let slow = Arc::new(Slow { log: EmbeddedBus::new(Arc::clone(&broker)), hands, is_slow: AtomicBool::new(false) });
    let log = Watched { log: EmbeddedBus::new(Arc::clone(&broker)), by: Arc::new(Slowly(Arc::clone(&slow))) };
    let bench = Bench::through(broker, Arc::new(log), tokio::runtime::Handle::current(), None, Clock::by_hand(hands)).await;
    let stream = "CREATE STREAM v (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
        WITH ('topic' = 'v', 'partitions' = '2', 'key' = 'p', 'watermark.idle-timeout' = '10s', 'late.topic' = 'v.late');";
    let query = "CREATE QUERY q AS INSERT INTO o SELECT window_start, count(*) AS n
        FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;";
    run(&bench, &format!("{stream} {query}")).await.unwrap();
    let turns = 20;
    for turn in 0..turns {
        let second = turn * 120;
        hands[0].store(BEGIN + second * 1000, Ordering::SeqCst);
        bench.write_keyed("v", 0, &[reading("a", 1, second)]).await;
        bench.write_keyed("v", 1, &[reading("b", 1, second)]).await;
        read_all(&bench).await;
        slow.is_slow.store(true, Ordering::SeqCst);
        bench.write_keyed("v", 1, &[reading("b", 1, second + 55)]).await;
        read_all(&bench).await;
    }
    for partition in [0, 1] {
        hands[0].store(BEGIN + turns * 120_000, Ordering::SeqCst);
        bench.write_keyed("v", partition, &[reading(["a", "b"][partition as usize], 1, turns * 120)]).await;
    }
    // Each turn has the window of both first rows, that of the row which came meanwhile, and that of the second partition's other one.
    let rows = bench.values("o", 3 * turns as usize).await;
    assert_eq!(rows.iter().filter(|row| row.contains(r#""n":2"#)).count(), turns as usize, "{rows:?}");
    assert_eq!(by_key(&bench, "v.late").await, BTreeMap::new());
    bench.engine.close().await;
}
