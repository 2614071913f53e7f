#!/usr/bin/env python3
"""cross.py BOOTSTRAP: what one client wrote, the others read: each codec as each client writes it, read by librdkafka and by kafka-python.

Runs after the others, on the topics they left behind.
"""
import re

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient
from kafka import KafkaConsumer, TopicPartition

from story import COUNT, Story, bootstrap, differences, records, until

SERVER = bootstrap()
SPECIAL = {"nothing", "empty"}  # Headers that not every client can write.
story = Story("cross", "reading")


def common(key, value, headers):
    return key, value, [(name, text) for name, text in headers or [] if name not in SPECIAL]


WANTED = [common(*r) for r in records()]


def librdkafka(topic, partitions):
    consumer = Consumer({"bootstrap.servers": SERVER, "group.id": "unused", "enable.auto.commit": False, "check.crcs": True})
    consumer.assign([Place(topic, p, 0) for p in range(partitions)])
    found = {p: [] for p in range(partitions)}

    def more():
        for m in consumer.consume(1000, timeout=0.5):
            if m.error():
                raise KafkaException(m.error())
            found[m.partition()].append(common(m.key(), m.value(), m.headers()))
        return sum(map(len, found.values())) >= COUNT

    until(more, 20)
    consumer.close()
    return found


def kafka_python(topic, partitions):
    consumer = KafkaConsumer(bootstrap_servers=SERVER, group_id=None, auto_offset_reset="earliest", enable_auto_commit=False, check_crcs=True)
    consumer.assign([TopicPartition(topic, p) for p in range(partitions)])
    found = {p: [] for p in range(partitions)}

    def more():
        for place, messages in consumer.poll(timeout_ms=500).items():
            found[place.partition].extend(common(m.key, m.value, m.headers) for m in messages)
        return sum(map(len, found.values())) >= COUNT

    until(more, 20)
    consumer.close()
    return found


latest = {}
for name, topic in AdminClient({"bootstrap.servers": SERVER}).list_topics(timeout=10).topics.items():
    match = re.fullmatch(r"clients\.(kafka-python|confluent-kafka|aiokafka|kafkajs|java)\.(none|gzip|snappy|lz4|zstd)\.(.*)", name)
    if match:
        client, codec, run = match.groups()
        latest[client, codec] = max(latest.get((client, codec), ("", "", 0)), (run, name, len(topic.partitions)))
story.check("there is something to read", bool(latest), f"{len(latest)} topics")
for (client, codec), (_, name, partitions) in sorted(latest.items()):
    story.tried(f"{codec} written by {client}, read by librdkafka", lambda: differences(librdkafka(name, partitions), WANTED))
    story.tried(f"{codec} written by {client}, read by kafka-python", lambda: differences(kafka_python(name, partitions), WANTED))
story.end()
