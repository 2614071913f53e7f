//! An alert that is replaced while it is raised: the new version goes on with it, whatever it reads.

use serde_json::Value;
use vitalsql::node::Node;
use vitalsql::time::Clock;

use super::queries::start_node;
use super::read::{run, until_values};

/// The records of the alerts topic, once there are so many: state and id of each, in order.
pub(super) async fn alerts(node: &Node, wanted: usize) -> Vec<(String, String)> {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned();
    until_values(node, "alerts", wanted).await.iter().map(|value| (text(value, "state"), text(value, "id"))).collect()
}

#[test]
fn an_alert_that_is_raised_is_resolved_by_the_version_that_took_its_place() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let dir = tempfile::tempdir().expect("a folder");
        let first = start_node(dir.path(), Clock::system()).await;
        run(
            &first,
            "CREATE STREAM v (p VARCHAR NOT NULL, x DOUBLE, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
                 WITH ('topic' = 'v', 'partitions' = '1', 'key' = 'p');
             CREATE ALERT low AS SELECT p AS subject, ts, x AS value, x < 88 AS breach, x >= 90 AS clear FROM v;
             INSERT INTO v VALUES ('a', 95, TIMESTAMP '2026-01-01 00:00:00'), ('a', 85, TIMESTAMP '2026-01-01 00:00:01')",
        )
        .await;
        let raised = alerts(&first, 1).await;
        assert_eq!(raised[0].0, "active");
        // Another plan, and one that keeps state of its own.
        run(
            &first,
            "CREATE OR REPLACE ALERT low AS SELECT p AS subject, ts, x AS value,
                 x < 80 AND LAG(x) OVER (PARTITION BY p ORDER BY ts) < 90 AS breach, x >= 92 AS clear FROM v;
             INSERT INTO v VALUES ('a', 91, TIMESTAMP '2026-01-01 00:00:02'), ('a', 89, TIMESTAMP '2026-01-01 00:00:03')",
        )
        .await;
        first.stop().await.expect("a node stops");
        let second = start_node(dir.path(), Clock::system()).await;
        run(
            &second,
            "CREATE OR REPLACE ALERT low AS SELECT p AS subject, ts, x AS value,
                 x < 70 AND LAG(x) OVER (PARTITION BY p ORDER BY ts) < 70 AS breach, x >= 93 AS clear FROM v;
             INSERT INTO v VALUES ('a', 92, TIMESTAMP '2026-01-01 00:00:04'), ('a', 94, TIMESTAMP '2026-01-01 00:00:05'),
                 ('a', 95, TIMESTAMP '2026-01-01 00:00:06')",
        )
        .await;
        let told = alerts(&second, 2).await;
        assert_eq!(told, [raised[0].clone(), ("resolved".to_owned(), raised[0].1.clone())]);
        second.stop().await.expect("a node stops");
    });
}
