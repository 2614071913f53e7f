//! Stories over a broker on a disk in memory: what was changed is there after a restart.

use std::collections::BTreeMap;

use super::*;
use crate::broker::TestDisk;

fn acl(operation: Operation, permission: Permission) -> Acl {
    Acl {
        resource: ResourceType::Topic,
        pattern: Pattern::Literal,
        name: "t".to_owned(),
        principal: "User:alice".to_owned(),
        host: WILDCARD.to_owned(),
        operation,
        permission,
    }
}

const ALICE: Asking<'_> = Asking { principal: "User:alice", host: "10.0.0.1" };

#[tokio::test]
async fn rules_users_and_limits_are_there_after_a_restart() {
    let disk = TestDisk::default();
    let entity = QuotaEntity { user: Some(EntityName::Named("alice".to_owned())), ..QuotaEntity::default() };
    let broker = disk.broker().await;
    let security = broker.security();
    assert!(security.is_unlimited("User:alice"));
    security.create_acls(vec![acl(Operation::Read, Permission::Allow), acl(Operation::Write, Permission::Deny)]).await.unwrap();
    security.introduce("alice", "secret").await.unwrap();
    security.alter_quotas(vec![(entity.clone(), BTreeMap::from([(QuotaKey::ProducerByteRate, 5.0)]))]).await.unwrap();
    let decoy = security.decoy("nobody", ScramMechanism::Sha256);
    broker.close().await.unwrap();
    drop(broker);

    let broker = disk.broker().await;
    let security = broker.security();
    assert!(!security.is_unlimited("User:alice"));
    assert!(security.allows(ALICE, Operation::Read, ResourceType::Topic, "t"));
    assert!(!security.allows(ALICE, Operation::Write, ResourceType::Topic, "t"));
    assert!(security.allows(ALICE, Operation::Write, ResourceType::Topic, "other"), "no rule is about it");
    for mechanism in ScramMechanism::ALL {
        assert!(security.credential("alice", mechanism).unwrap().verify(mechanism, b"secret"));
    }
    assert!(!security.introduce("alice", "other").await.unwrap());
    assert_eq!(security.quotas().of(&entity).len(), 1);
    assert!(security.decoy("nobody", ScramMechanism::Sha256) == decoy, "a decoy is the same after a restart");

    let any = AclFilter {
        resource: None,
        pattern: PatternFilter::Any,
        name: None,
        principal: None,
        host: None,
        operation: None,
        permission: None,
    };
    assert_eq!(security.delete_acls(&[any.clone(), any.clone()]).await.unwrap().concat().len(), 4, "each filter is told what it met");
    assert!(security.find_acls(&any).is_empty());
    broker.close().await.unwrap();
}

#[tokio::test]
async fn the_audit_trail_goes_on_after_a_restart_and_cannot_be_changed() {
    let disk = TestDisk::default();
    let event = |n: usize| AuditEvent {
        kind: "administration",
        outcome: "success",
        principal: "User:admin".to_owned(),
        host: "127.0.0.1".to_owned(),
        what: vec![("operation", n.to_string())],
    };
    for round in 0..2 {
        let broker = disk.broker().await;
        for n in 0..3 {
            broker.security().record(event(round * 3 + n)).await.unwrap();
        }
        // Nobody waits for these, and still they are written before the close.
        broker.security().note(AuditEvent { outcome: "denied", ..event(100) });
        broker.security().note(AuditEvent { outcome: "denied", ..event(100) });
        broker.close().await.unwrap();
    }
    let broker = disk.broker().await;
    let topic = broker.topic_named(AUDIT_TOPIC).unwrap();
    let log = Arc::clone(topic.partition(crate::record::PartitionId(0)).unwrap().log());
    let mut chain = Chain::default();
    for batch in log.read(log.start(), 1 << 20).unwrap().batches() {
        for record in &batch.unwrap().records().unwrap() {
            chain.check(record.unwrap().value.unwrap()).unwrap();
        }
    }
    assert_eq!(chain.count(), 2 * (3 + 1 + 1));
    let refused = crate::wire::error_code::TOPIC_AUTHORIZATION_FAILED;
    assert_eq!(broker.delete_records(AUDIT_TOPIC, 0, -1).await, Err(refused));
    assert!(broker.topic_named("__security").is_none(), "what is kept of passwords is shown to nobody");
    broker.close().await.unwrap();
}
