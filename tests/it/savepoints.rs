//! Savepoints from outside: of a query whose tasks several processes run on a cluster, and of an alert.

use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, TimestampMillisecondType};
use vitalsql::bus::partition_for_key;
use vitalsql::node::Node;
use vitalsql::sql::Outcome;
use vitalsql::time::Clock;

use super::cluster::{SCRIPT, expected, on_cluster, settled, start, start_cluster, until_states, until_written, write};
use super::queries::start_node;
use super::read::{DEADLINE, run};
use super::replaced_alert::alerts;

/// The watermark of each partition where a savepoint was taken, once this node knows of it.
async fn marks(node: &Node, savepoint: &str) -> Vec<i64> {
    let end = Instant::now() + DEADLINE;
    loop {
        match node.execute(&format!("DESCRIBE SAVEPOINT {savepoint}")).await {
            Ok(Some(Outcome::Rows { batches, .. })) => {
                let mut marks = vec![i64::MIN; 3];
                for batch in &batches {
                    let partitions = batch.column_by_name("partition").expect("a partition").as_primitive::<Int32Type>().clone();
                    let at = batch.column_by_name("watermark").expect("a watermark").as_primitive::<TimestampMillisecondType>().clone();
                    for row in (0..batch.num_rows()).filter(|row| at.is_valid(*row)) {
                        marks[partitions.value(row) as usize] = at.value(row);
                    }
                }
                return marks;
            }
            Ok(_) => panic!("no rows"),
            Err(error) => assert!(Instant::now() < end, "{}", error.message),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn count(node: &Node) -> usize {
    let Some(Outcome::Rows { batches, .. }) = node.execute("SHOW SAVEPOINTS").await.expect("an answer") else { panic!("no rows") };
    batches.iter().map(|batch| batch.num_rows()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_savepoint_of_tasks_in_several_processes_is_one_for_all_of_them() {
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().expect("a folder")).collect();
    let cluster = start_cluster(dirs[0].path()).await;
    let brokers = cluster.kafka().to_owned();
    let on_cluster = on_cluster(&brokers);
    let named = |name: &'static str| on_cluster.into_iter().chain([("kafka.process", name)]).collect::<Vec<_>>();
    let first = start(dirs[1].path(), &named("first")).await;
    run(&first, SCRIPT).await;
    write(&first, 0, 100).await;
    let second = start(dirs[2].path(), &named("second")).await;
    until_states(&second, |states| states.first().is_some_and(|state| state.starts_with("running (") && state.contains("elsewhere"))).await;
    until_states(&first, |states| states[0].starts_with("running (")).await;
    // Some of these are read when it is taken, and some are not.
    write(&second, 100, 150).await;
    run(&second, "CREATE SAVEPOINT s FOR QUERY per_minute").await;
    let marks = marks(&first, "s").await;
    write(&first, 150, 200).await;
    settled(&cluster, 200).await;

    let from = |marks: &[i64], readings: i64| {
        let mut rows = expected(readings);
        rows.retain(|(patient, start, ..)| start + 60_000 > marks[partition_for_key(patient.as_bytes(), 3).0 as usize]);
        rows
    };
    let select = SCRIPT.split_once("INSERT INTO minutes").expect("the query").1.trim_end_matches(';');
    run(&first, &format!("CREATE QUERY again WITH ('start' = 'savepoint:s') AS INSERT INTO minutes_again {select}")).await;
    until_written(&cluster, "minutes_again", &from(&marks, 200)).await;

    // One process dies; the query goes back all the same, also where its tasks were that one's.
    drop(second);
    run(&first, "RESTORE QUERY per_minute FROM SAVEPOINT s").await;
    let mut twice = [expected(200), from(&marks, 200)].concat();
    twice.sort();
    until_written(&cluster, "minutes", &twice).await;
    // A new process knows of it, and lets it go where everything has begun.
    let third = start(dirs[3].path(), &named("third")).await;
    assert_eq!(count(&third).await, 1);
    run(&third, "DROP SAVEPOINT s").await;
    let end = Instant::now() + DEADLINE;
    while count(&first).await > 0 {
        assert!(Instant::now() < end, "the others follow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    write(&third, 200, 240).await;
    until_written(&cluster, "minutes_again", &from(&marks, 240)).await;
    third.stop().await.expect("it stops");
    first.stop().await.expect("it stops");
    cluster.stop().await.expect("it stops");
}

#[test]
fn an_alert_goes_back_to_where_it_was_raised_and_is_resolved_once_more() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let dir = tempfile::tempdir().expect("a folder");
        let node = start_node(dir.path(), Clock::system()).await;
        run(
            &node,
            "CREATE STREAM v (p VARCHAR NOT NULL, x DOUBLE, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
                 WITH ('topic' = 'v', 'partitions' = '1', 'key' = 'p');
             CREATE ALERT low AS SELECT p AS subject, ts, x AS value, x < 88 AS breach, x >= 90 AS clear FROM v;
             INSERT INTO v VALUES ('a', 95, TIMESTAMP '2026-01-01 00:00:00'), ('a', 85, TIMESTAMP '2026-01-01 00:00:01')",
        )
        .await;
        let raised = alerts(&node, 1).await;
        run(&node, "CREATE SAVEPOINT s FOR ALERT low").await;
        run(&node, "INSERT INTO v VALUES ('a', 91, TIMESTAMP '2026-01-01 00:00:02')").await;
        let resolved = ("resolved".to_owned(), raised[0].1.clone());
        assert_eq!(alerts(&node, 2).await, [raised[0].clone(), resolved.clone()]);
        node.stop().await.expect("a node stops");
        let node = start_node(dir.path(), Clock::system()).await;
        run(&node, "RESTORE ALERT low FROM SAVEPOINT s").await;
        assert_eq!(alerts(&node, 3).await, [raised[0].clone(), resolved.clone(), resolved]);
        for (text, why) in [
            (
                "CREATE ALERT other WITH ('start' = 'savepoint:s') AS SELECT p AS subject, ts, x < 88 AS breach FROM v",
                "whose open alerts go by its name",
            ),
            ("CREATE QUERY q WITH ('start' = 'savepoint:s') AS INSERT INTO o SELECT p, x FROM v", "a query cannot go on with its alerts"),
        ] {
            let error = node.execute(text).await.err().expect("it is refused");
            assert!(error.message.contains(why), "{}", error.message);
        }
        node.stop().await.expect("a node stops");
    });
}
