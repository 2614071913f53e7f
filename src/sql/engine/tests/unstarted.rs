//! What could not be started while the log did not answer runs once it does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::replace::{reading, run};
use super::watched::{Watch, Watched};
use super::*;
use crate::bus::BusError;

const STREAM: &str = "CREATE STREAM v (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
    WITH ('topic' = 'v', 'partitions' = '1', 'key' = 'p');";

/// Answers nothing while it is away.
#[derive(Default)]
struct Away {
    is: AtomicBool,
    /// It does not say where a partition ends.
    knows_no_ends: AtomicBool,
    /// How often it was asked in vain.
    asked: AtomicUsize,
}

impl Watch for Away {
    fn asked(&self) -> Result<(), BusError> {
        if self.is.load(Ordering::SeqCst) {
            self.asked.fetch_add(1, Ordering::SeqCst);
            return Err(BusError::Retriable("no broker answers".to_owned()));
        }
        Ok(())
    }
    fn asked_for_its_end(&self) -> Result<(), BusError> {
        if self.knows_no_ends.load(Ordering::SeqCst) { Err(BusError::Retriable("no broker answers".to_owned())) } else { Ok(()) }
    }
}

async fn lags(bench: &Bench) -> Vec<Option<i64>> {
    bench.engine.statuses().await.into_iter().map(|status| status.lag).collect()
}

async fn until(bench: &Bench, name: &str, fits: impl Fn(&QueryState, &str) -> bool) {
    let begun = Instant::now();
    loop {
        let statuses = bench.engine.statuses().await;
        let status = statuses.iter().find(|status| status.name == name).expect("it is there");
        if fits(&status.state, status.error.as_deref().unwrap_or_default()) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_started_while_the_log_did_not_answer_is_started_once() {
    let broker = TestDisk::default().broker().await;
    let away = Arc::new(Away::default());
    let open = async || {
        let log = Watched { log: EmbeddedBus::new(Arc::clone(&broker)), by: Arc::clone(&away) };
        Bench::through(Arc::clone(&broker), Arc::new(log), tokio::runtime::Handle::current(), None, Clock::system()).await
    };
    let bench = open().await;
    run(&bench, STREAM).await.unwrap();
    let names: Vec<String> = (0..20).map(|n| format!("q{n}")).collect();
    for name in &names {
        run(&bench, &format!("CREATE QUERY {name} AS INSERT INTO o_{name} SELECT p, x FROM v;")).await.unwrap();
    }
    bench.write_keyed("v", 0, &[reading("a", 1, 0)]).await;
    bench.values("o_q0", 1).await;
    let begun = Instant::now();
    while lags(&bench).await.iter().any(|lag| *lag != Some(0)) {
        assert!(begun.elapsed() < DEADLINE, "{:?}", lags(&bench).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    away.knows_no_ends.store(true, Ordering::SeqCst);
    assert_eq!(lags(&bench).await, vec![None; names.len()], "a log that does not answer is no log that is read to its end");
    away.knows_no_ends.store(false, Ordering::SeqCst);
    bench.engine.close().await;

    away.is.store(true, Ordering::SeqCst);
    away.asked.store(0, Ordering::SeqCst);
    let bench = open().await;
    // Beside the first, the one who tries them again may have asked.
    assert!(away.asked.load(Ordering::SeqCst) < names.len(), "each vain question may take long: the others do not ask it again");
    for name in &names {
        until(&bench, name, |state, error| {
            *state == QueryState::Failed && error.contains("no broker answers") && error.ends_with("trying again")
        })
        .await;
    }
    // It stays away for longer than the first time that it is tried again.
    tokio::time::sleep(Duration::from_millis(400)).await;
    away.is.store(false, Ordering::SeqCst);
    run(&bench, "DROP QUERY q2").await.unwrap();
    for name in &names[..2] {
        until(&bench, name, |state, _| *state == QueryState::Running).await;
    }
    bench.write_keyed("v", 0, &[reading("a", 2, 1)]).await;
    for name in ["o_q0", "o_q1"] {
        assert_eq!(bench.values(name, 2).await.len(), 2, "each row once");
    }
    assert_eq!(bench.engine.statuses().await.len(), names.len() - 1, "what was dropped meanwhile is not started");
    bench.engine.close().await;
}
