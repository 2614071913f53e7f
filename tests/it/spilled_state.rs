//! A node whose queries hold several times the memory that they are given: a long sliding window and a join, over a restart.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use vitalsql::bus::TopicBatch;
use vitalsql::format::JsonEncoder;
use vitalsql::node::Node;
use vitalsql::record::{BatchBuilder, PartitionId, TopicName, TopicPartition};
use vitalsql::sql::{Outcome, QueryState};
use vitalsql::time::Clock;

use super::queries::start_node_with;
use super::read::{DEADLINE, run, until_values};

/// So many bytes of each query's state may be in memory.
const MEMORY: u64 = 96 << 10;

const STREAMS: &str = "CREATE STREAM v (p VARCHAR NOT NULL, x BIGINT, note VARCHAR, ts TIMESTAMP(3) NOT NULL,
        WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) WITH ('topic' = 'v', 'partitions' = '2', 'key' = 'p');
    CREATE STREAM w (p VARCHAR NOT NULL, y BIGINT, ts TIMESTAMP(3) NOT NULL,
        WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) WITH ('topic' = 'w', 'partitions' = '2', 'key' = 'p');";
const WINDOWS: &str = "SELECT p, window_end, count(*) AS n, sum(x) AS s, max(note) AS note
    FROM TABLE(HOP(TABLE v, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '4' MINUTE)) GROUP BY p, window_start, window_end";
const JOIN: &str = "SELECT v.p, v.x, v.note, w.y FROM v JOIN w ON v.p = w.p AND w.ts BETWEEN v.ts AND v.ts + INTERVAL '5' MINUTE";

/// Writes rows of a second into one partition: forty patients into `v`, a few of them into `w` now and then.
async fn write(node: &Node, partition: i32, second: i64) {
    let mut batches = Vec::new();
    for topic in ["v", "w"] {
        let mut records = BatchBuilder::new();
        for n in (partition..40).step_by(2).filter(|n| topic == "v" || (i64::from(*n) + second) % 50 == 0) {
            // Some are a little late, and none too late.
            let at = second * 1000 - if (i64::from(n) + second) % 9 == 0 { 1700 } else { 0 };
            let p = format!("patient-{n:03}");
            let value = match topic {
                "v" => {
                    format!("{{\"p\":\"{p}\",\"x\":{},\"note\":\"reading {n} of second {second}\",\"ts\":{at}}}", i64::from(n) * 3 + second)
                }
                _ => format!("{{\"p\":\"{p}\",\"y\":{second},\"ts\":{at}}}"),
            };
            records.push(at, Some(p.as_bytes()), Some(value.as_bytes()), &[]);
        }
        if !records.is_empty() {
            batches.push(TopicBatch { to: TopicPartition::new(TopicName::new(topic).expect("a name"), PartitionId(partition)), records });
        }
    }
    node.bus().append(batches).await.expect("rows are written");
}

/// Waits until both queries have read all there is; answers how much of their state is on the disk.
async fn settled(node: &Node) -> [u64; 2] {
    let begun = Instant::now();
    let mut spilled = [0; 2];
    for (query, spilled) in ["windows", "pairs"].into_iter().zip(&mut spilled) {
        loop {
            let status = node.query_status(query).await.expect("it is there");
            assert_ne!(status.state, QueryState::Failed, "{:?}", status.error);
            if status.state == QueryState::Running && status.lag == Some(0) {
                *spilled = status.counts.spilled_bytes;
                break;
            }
            assert!(begun.elapsed() < DEADLINE, "{status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    spilled
}

/// What a query has written, without order, once there are so many rows.
async fn written(node: &Node, topic: &str, wanted: usize) -> Vec<String> {
    let mut found: Vec<String> = until_values(node, topic, wanted).await.iter().map(Value::to_string).collect();
    found.sort();
    found
}

/// What the same SELECT gives over what is stored.
async fn history(node: &Node, sql: &str) -> Vec<String> {
    let Some(Outcome::Stream { schema, mut rows_rx }) = run(node, sql).await else { panic!("{sql} answers no rows") };
    let encoder = JsonEncoder::new(schema);
    let mut found = Vec::new();
    while let Some(batch) = rows_rx.recv().await {
        let batch = batch.unwrap_or_else(|error| panic!("{error}"));
        let encoded = encoder.encode(&batch);
        for row in 0..batch.num_rows() {
            let value: Value = serde_json::from_slice(encoded.row(row).expect("a row")).expect("JSON");
            found.push(value.to_string());
        }
    }
    found.sort();
    found
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("spilled-state")).expect("the folder is there").count()
}

#[test]
fn a_node_whose_queries_hold_several_times_their_memory_writes_what_a_select_over_its_history_gives() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let dir = tempfile::tempdir().expect("a folder");
        let memory = MEMORY.to_string();
        let settings = [("engine.state_memory", memory.as_str()), ("engine.snapshot_interval", "1s")];
        let first = start_node_with(dir.path(), Clock::system(), &settings).await;
        run(&first, &format!("{STREAMS} CREATE QUERY windows AS INSERT INTO o {WINDOWS} EMIT ON WINDOW CLOSE; CREATE QUERY pairs AS INSERT INTO j {JOIN};"))
            .await;
        let mut most = [0; 2];
        for second in 0..260 {
            // One partition is ahead of the other.
            write(&first, 0, second + 30).await;
            write(&first, 1, second).await;
            if second % 20 == 19 {
                let spilled = settled(&first).await;
                most = [most[0].max(spilled[0]), most[1].max(spilled[1])];
            }
        }
        assert!(most.iter().all(|spilled| *spilled > 2 * MEMORY) && files(dir.path()) > 0, "{most:?} bytes on the disk");
        first.stop().await.expect("a node stops");
        assert_eq!(files(dir.path()), 0, "nothing of it is left");

        let second = start_node_with(dir.path(), Clock::system(), &settings).await;
        let again = settled(&second).await;
        assert!(again[0] > 0 && again[1] > 0, "what lay on the disk lies there again: {again:?}");
        for at in 260..300 {
            write(&second, 0, at + 30).await;
            write(&second, 1, at).await;
        }
        // Time goes on in both partitions, so that all of this is over.
        for (partition, patient) in [(0, 0), (1, 1)] {
            let mut batches = Vec::new();
            for (topic, rest) in [("v", "\"x\":0,\"note\":\"\""), ("w", "\"y\":0")] {
                let mut records = BatchBuilder::new();
                let value = format!("{{\"p\":\"patient-{patient:03}\",{rest},\"ts\":2000000}}");
                records.push(0, Some(format!("patient-{patient:03}").as_bytes()), Some(value.as_bytes()), &[]);
                batches.push(TopicBatch { to: TopicPartition::new(TopicName::new(topic).expect("a name"), PartitionId(partition)), records });
            }
            second.bus().append(batches).await.expect("rows are written");
        }
        let windows = history(&second, &format!("{WINDOWS} HAVING window_end <= TIMESTAMP '1970-01-01 00:33:00'")).await;
        assert!(windows.len() > 5000, "{}", windows.len());
        assert!(written(&second, "o", windows.len()).await == windows, "each window is what it is over history");
        let pairs = history(&second, &format!("SELECT * FROM ({JOIN}) WHERE y > 0")).await;
        assert!(pairs.len() > 5000, "{}", pairs.len());
        assert!(written(&second, "j", pairs.len()).await == pairs, "each pair is what it is over history");
        second.stop().await.expect("a node stops");
    });
}
