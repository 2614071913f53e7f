//! The machine's clock is set by hours under a running broker: nobody loses a place, a transaction or a record by it, and whoever
//! is silent still loses its place in time.

use std::sync::atomic::{AtomicI64, Ordering};

use super::group::{HeartbeatRequest, JoinRequest, SyncRequest, Token};
use super::tests::{batch, commit, committed, fetch_now, idempotent, name, part, place, send};
use super::txn::TxnState;
use super::*;
use crate::broker::group::GroupId;
use crate::log::Durability;
use crate::wire::error_code;

const HOUR: i64 = 3_600_000;

/// What the machine's clock shows, and how much time has passed.
struct Hands(&'static [AtomicI64; 2]);

impl Hands {
    fn new() -> Self {
        let now = Clock::system().now().0;
        Self(Box::leak(Box::new([AtomicI64::new(now), AtomicI64::new(now)])))
    }

    async fn broker(&self, disk: &TestDisk) -> Arc<Broker> {
        disk.broker_by(Clock::by_hand(self.0)).await
    }

    /// The clock is set.
    fn set(&self, by: i64, broker: &Broker) {
        self.0[0].fetch_add(by, Ordering::Relaxed);
        self.look(broker);
    }

    /// Time passes.
    fn pass(&self, ms: i64, broker: &Broker) {
        self.0.iter().for_each(|hand| {
            hand.fetch_add(ms, Ordering::Relaxed);
        });
        self.look(broker);
    }

    fn look(&self, broker: &Broker) {
        broker.groups().look_again();
        broker.transactions().look_again();
    }
}

/// Lets the broker's tasks do what is due by now.
async fn let_tasks_run() {
    // The tasks sleep a millisecond of the machine's own time before they look.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
}

async fn member(broker: &Broker, group: &GroupId) -> HeartbeatRequest {
    let request = JoinRequest {
        token: Token(0),
        member_id: String::new(),
        instance_id: None,
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), bytes::Bytes::new())],
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        require_known_member_id: false,
        supports_skip_assignment: false,
        nonce: "n".to_owned(),
    };
    let joined = broker.groups().join(group, request).await;
    assert_eq!(joined.error, error_code::NONE);
    let sync = SyncRequest {
        token: Token(0),
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: joined.generation,
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    };
    assert_eq!(broker.groups().sync(group, sync).await.error, error_code::NONE);
    HeartbeatRequest { member_id: joined.member_id, instance_id: None, generation: joined.generation }
}

#[tokio::test]
async fn a_member_keeps_its_place_when_the_clock_is_set_and_loses_it_by_silence_alone() {
    let (disk, hands, group) = (TestDisk::default(), Hands::new(), GroupId::new("g").unwrap());
    let broker = hands.broker(&disk).await;
    let me = member(&broker, &group).await;
    for by in [5 * HOUR, -9 * HOUR, 900 * HOUR, -896 * HOUR] {
        hands.set(by, &broker);
        let_tasks_run().await;
        assert_eq!(broker.groups().heartbeat(&group, &me), error_code::NONE, "set by {by}");
        hands.pass(9_000, &broker);
        let_tasks_run().await;
        assert_eq!(broker.groups().heartbeat(&group, &me), error_code::NONE, "9 s after it was set by {by}");
    }
    hands.set(-7 * HOUR, &broker);
    hands.pass(10_001, &broker);
    let mut code = error_code::NONE;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while code == error_code::NONE && std::time::Instant::now() < until {
        // Asking is no sign of life where one is nobody's member any more.
        let_tasks_run().await;
        code = broker.groups().heartbeat(&group, &me);
    }
    assert_eq!(code, error_code::UNKNOWN_MEMBER_ID);
}

#[tokio::test]
async fn a_transaction_has_its_time_when_the_clock_is_set_and_no_more() {
    let (disk, hands) = (TestDisk::default(), Hands::new());
    let broker = hands.broker(&disk).await;
    broker.create_topic(NewTopic { partitions: Some(1), ..NewTopic::named(name("t")) }).await.unwrap();
    let who = broker.transactions().init("one", 60_000, None).await.unwrap();
    broker.transactions().add("one", who, [place("t", 0)].into()).await.unwrap();
    for by in [5 * HOUR, -9 * HOUR] {
        hands.set(by, &broker);
        hands.pass(29_000, &broker);
        let_tasks_run().await;
        assert_eq!(broker.transactions().describe("one").unwrap().state, TxnState::Ongoing, "set by {by}");
    }
    hands.pass(2_001, &broker);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while broker.transactions().describe("one").unwrap().state == TxnState::Ongoing && std::time::Instant::now() < until {
        let_tasks_run().await;
    }
    assert_eq!(broker.transactions().describe("one").unwrap().state, TxnState::CompleteAbort);
}

#[tokio::test]
async fn records_and_offsets_are_kept_as_long_as_was_said_however_the_clock_is_set() {
    let (disk, hands, group) = (TestDisk::default(), Hands::new(), GroupId::new("readers").unwrap());
    let broker = hands.broker(&disk).await;
    let configs = BTreeMap::from([("retention.ms".to_owned(), HOUR.to_string())]);
    broker.create_topic(NewTopic { name: name("t"), partitions: Some(1), configs }).await.unwrap();
    let log = Arc::clone(broker.partition(&place("t", 0)).unwrap().log());
    // Each record in a segment of its own.
    let config = crate::log::PartitionConfig { segment_bytes: 1, segment_ms: i64::MAX, durability: Durability::Sync };
    broker.log().set_config(log.key(), config);
    let write = async || broker.append(vec![(place("t", 0), batch(&["x"]))]).await.unwrap();
    let stored = commit(&broker, &group, 5).await;
    assert_eq!(stored, Ok(vec![(place("t", 0), error_code::NONE)]));
    for by in [5 * HOUR, -5 * HOUR, 24 * 365 * HOUR, 0] {
        write().await;
        hands.set(by, &broker);
        hands.pass(HOUR / 8, &broker);
        for _ in 0..3 {
            // What is only in memory is brought into a segment first, and the segment closed.
            broker.enforce_retention().await.unwrap();
            let_tasks_run().await;
        }
        assert_eq!((log.start(), committed(&broker, &group)), (Offset(0), Some(5)), "set by {by}");
    }
    // A producer's history is kept too: its batch is known again.
    let once = [("t", 0, idempotent(7, 0, 0, 1))];
    assert_eq!(send(&broker, &once).await, "@4");
    hands.set(48 * HOUR, &broker);
    broker.enforce_retention().await.unwrap();
    assert_eq!(send(&broker, &once).await, "@4");
    // And when their time is over, they go.
    // What was stamped in hours that were not is kept as much longer.
    hands.pass(6 * HOUR, &broker);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while log.start() < Offset(4) && std::time::Instant::now() < until {
        broker.enforce_retention().await.unwrap();
        let_tasks_run().await;
    }
    assert!(log.start() >= Offset(4), "{}", log.start());
    assert_eq!(write().await, [Offset(5)]);
    assert_eq!(fetch_now(&broker, vec![part("t", 0, 5, 1000)]).await, ["5"]);
}
