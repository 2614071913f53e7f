#!/usr/bin/env python3
"""confluent.py BOOTSTRAP: confluent-kafka, which is librdkafka."""
import confluent_kafka
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from story import COUNT, PARTITIONS, PATIENCE, Story, bootstrap, differences, records, until

SERVER = bootstrap()
RECORDS = records()
story = Story("confluent-kafka", confluent_kafka.version() if isinstance(confluent_kafka.version(), str) else confluent_kafka.version()[0])
admin = AdminClient({"bootstrap.servers": SERVER})


def make(topic, partitions=PARTITIONS):
    for future in admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)]).values():
        future.result(timeout=PATIENCE)


def send(topic, those=RECORDS, **options):
    failures, offsets = [], {}

    def told(error, message):
        if error:
            failures.append(str(error))
        else:
            offsets.setdefault(message.partition(), []).append(message.offset())

    # One request at a time keeps the order over a retry; an idempotent producer keeps it anyway.
    producer = Producer({"bootstrap.servers": SERVER, "acks": "all", "linger.ms": 5, "max.in.flight": 5 if options.get("enable_idempotence") else 1, **{k.replace("_", "."): v for k, v in options.items()}})
    for key, value, headers in those:
        producer.produce(topic, value=value, key=key, headers=headers, on_delivery=told)
        producer.poll(0)
    if producer.flush(PATIENCE) or failures:
        raise RuntimeError(f"not delivered: {failures[:1]}")
    return offsets


def read(topic):
    consumer = Consumer({"bootstrap.servers": SERVER, "group.id": "unused", "enable.auto.commit": False, "check.crcs": True, "isolation.level": "read_committed"})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    found = {p: [] for p in range(PARTITIONS)}

    def more():
        for m in consumer.consume(1000, timeout=0.5):
            if m.error():
                raise KafkaException(m.error())
            found[m.partition()].append((m.key(), m.value(), m.headers() or []))
        return sum(map(len, found.values())) >= COUNT

    until(more)
    consumer.close()
    return found


def round_trip(codec, name=None, **options):
    topic = story.topic(name or codec)
    make(topic)
    offsets = send(topic, compression_type=codec, **options)
    if any(sorted(told) != list(range(len(told))) for told in offsets.values()):
        return "the acknowledged offsets have gaps"
    return differences(read(topic), RECORDS)


def metadata():
    topic = story.topic("metadata")
    make(topic, 2)
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(timeout=PATIENCE)
    if not until(lambda: len(admin.list_topics(topic, timeout=10).topics[topic].partitions) == 5, 10):
        return "the new partitions do not show"
    cluster = admin.describe_cluster().result(timeout=PATIENCE)
    admin.delete_topics([topic])[topic].result(timeout=PATIENCE)
    gone = until(lambda: topic not in admin.list_topics(timeout=10).topics, 10)
    return None if gone and len(cluster.nodes) == 1 and cluster.cluster_id else f"gone {gone}, {cluster.nodes}, {cluster.cluster_id}"


def times():
    topic = story.topic("times")
    make(topic)
    producer = Producer({"bootstrap.servers": SERVER})
    for i in range(100):
        producer.produce(topic, b"x", partition=0, timestamp=1_700_000_000_000 + i * 1000)
    producer.flush(PATIENCE)
    consumer = Consumer({"bootstrap.servers": SERVER, "group.id": "unused"})
    found = consumer.offsets_for_times([TopicPartition(topic, 0, 1_700_000_040_500)], timeout=10)[0].offset
    marks = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
    consumer.close()
    return None if (found, marks) == (41, (0, 100)) else f"{found}, {marks}"


def group():
    topic = story.topic("group")
    make(topic)
    send(topic)
    name, seen = f"g-{story.run}", set()

    def member(strategy="range"):
        c = Consumer({"bootstrap.servers": SERVER, "group.id": name, "auto.offset.reset": "earliest", "enable.auto.commit": False, "session.timeout.ms": 10_000, "heartbeat.interval.ms": 500, "partition.assignment.strategy": strategy})
        c.subscribe([topic])
        return c

    members = [member("cooperative-sticky"), member("cooperative-sticky")]

    def poll(who):
        got = [m for m in who.consume(2000, timeout=0.1) if not m.error()]
        seen.update((m.partition(), m.offset()) for m in got)
        if got:
            try:
                who.commit(asynchronous=False)
            except KafkaException as error:
                # While the group gathers anew a commit is refused; the next one carries the same positions.
                if error.args[0].name() not in ("REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION", "_NO_OFFSET"):
                    raise

    def shared():
        for m in members:
            poll(m)
        parts = [{p.partition for p in m.assignment()} for m in members]
        return all(parts) and not parts[0] & parts[1] and len(parts[0] | parts[1]) == PARTITIONS and len(seen) == COUNT

    if not until(shared):
        return f"not shared: {[[p.partition for p in m.assignment()] for m in members]}, {len(seen)} records"
    shares = [len(m.assignment()) for m in members]
    described = admin.describe_consumer_groups([name])[name].result(timeout=PATIENCE)
    if len(described.members) != 2 or name not in {g.group_id for g in admin.list_consumer_groups().result(timeout=PATIENCE).valid}:
        return f"the group is described as {described.state} with {len(described.members)} members"
    members.pop(0).close()
    left = members[0]

    def took_over():
        poll(left)
        return len(left.assignment()) == PARTITIONS

    if not until(took_over):
        return f"not taken over: {left.assignment()}"
    fresh = sum(map(len, send(topic, RECORDS[:1000]).values()))

    def read_on():
        poll(left)
        return len(seen) == COUNT + fresh

    until(read_on)
    left.commit(offsets=[TopicPartition(topic, p, max(o for q, o in seen if q == p) + 1) for p in range(PARTITIONS)], asynchronous=False)
    committed = sum(p.offset for p in left.committed([TopicPartition(topic, p) for p in range(PARTITIONS)], timeout=10))
    left.close()
    return f"~shares {shares}, then all" if len(seen) == committed == COUNT + fresh else f"{len(seen)} seen, {committed} committed, {COUNT + fresh} sent"


for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
    story.tried(f"produce and consume {COUNT} records, {codec}", lambda: round_trip(codec))
story.tried("idempotent producer", lambda: round_trip("zstd", name="idempotent", enable_idempotence=True))
story.tried("topics and cluster", metadata)
story.tried("offsets by time", times)
story.tried("two consumers share and take over", group)
story.end()
