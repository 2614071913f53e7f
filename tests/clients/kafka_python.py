#!/usr/bin/env python3
"""kafka_python.py BOOTSTRAP: kafka-python, the client of most tutorials."""
import threading
import time

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import CommitFailedError

from story import COUNT, PARTITIONS, PATIENCE, Story, bootstrap, differences, records, until

SERVER = bootstrap()
RECORDS = records(null_headers=False)  # This client reads a header of no value, and refuses to write one.
story = Story("kafka-python", kafka.__version__)
admin = KafkaAdminClient(bootstrap_servers=SERVER)


def make(topic):
    admin.create_topics([NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1)])


def send(topic, those=RECORDS, **options):
    producer = KafkaProducer(bootstrap_servers=SERVER, acks="all", linger_ms=5, **options)
    sent = [producer.send(topic, key=k, value=v, headers=h) for k, v, h in those]
    producer.flush(timeout=PATIENCE)
    offsets = {}
    for future in sent:
        told = future.get(timeout=PATIENCE)
        offsets.setdefault(told.partition, []).append(told.offset)
    producer.close()
    return offsets


def read(topic):
    consumer = KafkaConsumer(bootstrap_servers=SERVER, group_id=None, auto_offset_reset="earliest", enable_auto_commit=False, check_crcs=True)
    places = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    consumer.assign(places)
    found, seen = {p: [] for p in range(PARTITIONS)}, 0

    def more():
        nonlocal seen
        for place, messages in consumer.poll(timeout_ms=500).items():
            for m in messages:
                found[place.partition].append((m.key, m.value, list(m.headers)))
                seen += 1
        return seen >= COUNT

    until(more)
    consumer.close()
    return found


def round_trip(codec, name=None, **options):
    topic = story.topic(name or codec or "none")
    make(topic)
    offsets = send(topic, compression_type=codec, **options)
    if any(told != list(range(len(told))) for told in offsets.values()):
        return "the acknowledged offsets have gaps or are out of order"
    return differences(read(topic), RECORDS)


def offsets_by_time():
    topic = story.topic("times")
    make(topic)
    producer = KafkaProducer(bootstrap_servers=SERVER)
    for i in range(100):
        producer.send(topic, value=b"x", partition=0, timestamp_ms=1_700_000_000_000 + i * 1000)
    producer.flush(timeout=PATIENCE)
    producer.close()
    consumer, place = KafkaConsumer(bootstrap_servers=SERVER, group_id=None), TopicPartition(topic, 0)
    found = consumer.offsets_for_times({place: 1_700_000_040_500})[place]
    ends, begins = consumer.end_offsets([place])[place], consumer.beginning_offsets([place])[place]
    consumer.close()
    return None if (found.offset, found.timestamp, begins, ends) == (41, 1_700_000_041_000, 0, 100) else f"{found}, {begins}..{ends}"


class Member(threading.Thread):
    """A member of a group in a thread of its own, as members are: it polls, commits, and leaves when told to."""

    def __init__(self, topic, group_id, seen):
        super().__init__(daemon=True)
        self.topic, self.group_id, self.seen, self.assigned, self.leave, self.wrong = topic, group_id, seen, set(), threading.Event(), None
        self.start()

    def run(self):
        try:
            c = KafkaConsumer(self.topic, bootstrap_servers=SERVER, group_id=self.group_id, auto_offset_reset="earliest", enable_auto_commit=False, session_timeout_ms=10_000, heartbeat_interval_ms=500)
            while not self.leave.is_set():
                got = c.poll(timeout_ms=200, max_records=2000)
                self.assigned = {p.partition for p in c.assignment()}
                self.seen.update((m.partition, m.offset) for messages in got.values() for m in messages)
                if got:
                    try:
                        c.commit()
                    except CommitFailedError:
                        pass  # The group gathers anew; the next commit carries the same positions.
            c.close()
        except Exception as error:
            self.wrong = error
        self.assigned = set()


def group():
    topic, name, seen = story.topic("group"), f"g-{story.run}", set()
    make(topic)
    send(topic)
    one, two = Member(topic, name, seen), Member(topic, name, seen)

    def waited(ready):
        def asked():
            time.sleep(0.02)
            if one.wrong or two.wrong:
                raise one.wrong or two.wrong
            return ready()

        return until(asked)

    if not waited(lambda: one.assigned and two.assigned and not one.assigned & two.assigned and len(one.assigned | two.assigned) == PARTITIONS and len(seen) == COUNT):
        return f"not shared: {one.assigned} and {two.assigned}, {len(seen)} records"
    shares = [len(one.assigned), len(two.assigned)]
    one.leave.set()
    if not waited(lambda: len(two.assigned) == PARTITIONS):
        return f"not taken over: {two.assigned}"
    fresh = sum(len(o) for o in send(topic, RECORDS[:1000]).values())
    read_on = waited(lambda: len(seen) == COUNT + fresh)
    two.leave.set()
    two.join(PATIENCE)
    asker = KafkaConsumer(bootstrap_servers=SERVER, group_id=name)
    committed = sum(asker.committed(TopicPartition(topic, p)) or 0 for p in range(PARTITIONS))
    asker.close()
    if not read_on or committed != COUNT + fresh:
        return f"{len(seen)} records seen, {committed} committed, {COUNT + fresh} sent"
    return f"~shares {shares}, then all"


for codec in (None, "gzip", "snappy", "lz4", "zstd"):
    story.tried(f"produce and consume {COUNT} records, {codec or 'no codec'}", lambda: round_trip(codec))
story.tried("idempotent producer", lambda: round_trip("lz4", name="idempotent", enable_idempotence=True))
story.tried("offsets by time", offsets_by_time)
story.tried("two consumers share and take over", group)
story.end()
