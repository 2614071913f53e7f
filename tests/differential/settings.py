"""How the two brokers are set up, so that they should answer alike."""

# Kafka's server properties: one partition for each topic of its own, four for anybody's, and no waiting for company.
KAFKA = {
    "num.partitions": 4, "default.replication.factor": 1, "min.insync.replicas": 1,
    "offsets.topic.num.partitions": 1, "offsets.topic.replication.factor": 1,
    "transaction.state.log.num.partitions": 1, "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1, "share.coordinator.state.topic.replication.factor": 1, "share.coordinator.state.topic.min.isr": 1,
    "group.initial.rebalance.delay.ms": 0,
    # A machine that is busy is no reason to fence the one broker, which gives every partition another epoch.
    "broker.session.timeout.ms": 600000,
    # No clean-up on one side only while a run lasts: groups, old records, compaction. Ours compacts what is due within seconds: the
    # generator lets no segment end by its age meanwhile.
    "offsets.retention.check.interval.ms": 86400000, "log.retention.check.interval.ms": 86400000, "log.initial.task.delay.ms": 86400000, "log.cleaner.backoff.ms": 86400000,
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "allow.everyone.if.no.acl.found": "true",
}
# Ours: the same, as VITALSQL_* in the environment.
OURS = {"VITALSQL_KAFKA_GROUP_INITIAL_REBALANCE_DELAY": "0ms", "VITALSQL_KAFKA_DEFAULT_PARTITIONS": "4"}
# What Kafka is formatted with: transactions of the second kind (KIP-890) are not served here.
FEATURES = ["transaction.version=1"]
