#!/usr/bin/env python3
"""aiokafka_client.py BOOTSTRAP: aiokafka, the client of asynchronous Python."""
import asyncio

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from story import COUNT, PARTITIONS, PATIENCE, Story, bootstrap, differences, records

SERVER = bootstrap()
RECORDS = records()
story = Story("aiokafka", aiokafka.__version__)


async def make(topic):
    admin = AIOKafkaAdminClient(bootstrap_servers=SERVER)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1)])
    finally:
        await admin.close()


async def send(topic, those=RECORDS, **options):
    producer = AIOKafkaProducer(bootstrap_servers=SERVER, acks="all", linger_ms=5, **options)
    await producer.start()
    try:
        told = [await producer.send(topic, key=k, value=v, headers=h) for k, v, h in those]
        offsets = {}
        for t in await asyncio.gather(*told):
            offsets.setdefault(t.partition, []).append(t.offset)
        return offsets
    finally:
        await producer.stop()


async def read(topic):
    consumer = AIOKafkaConsumer(bootstrap_servers=SERVER, group_id=None, enable_auto_commit=False, check_crcs=True)
    await consumer.start()
    try:
        places = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        found = {p: [] for p in range(PARTITIONS)}
        while sum(map(len, found.values())) < COUNT:
            for place, messages in (await consumer.getmany(timeout_ms=500)).items():
                found[place.partition].extend((m.key, m.value, list(m.headers)) for m in messages)
        return found
    finally:
        await consumer.stop()


async def round_trip(codec, name=None, **options):
    topic = story.topic(name or codec or "none")
    await make(topic)
    offsets = await send(topic, compression_type=codec, **options)
    if any(o != list(range(len(o))) for o in offsets.values()):
        return "the acknowledged offsets have gaps or are out of order"
    return differences(await read(topic), RECORDS)


async def group():
    topic, seen = story.topic("group"), set()
    await make(topic)
    await send(topic)

    async def member():
        c = AIOKafkaConsumer(topic, bootstrap_servers=SERVER, group_id=f"g-{story.run}", auto_offset_reset="earliest", enable_auto_commit=False, session_timeout_ms=10_000, heartbeat_interval_ms=500)
        await c.start()
        return c

    members = list(await asyncio.gather(member(), member()))

    async def poll(who):
        got = await who.getmany(timeout_ms=100, max_records=2000)
        seen.update((m.partition, m.offset) for messages in got.values() for m in messages)
        if got:
            try:
                await who.commit()
            except aiokafka.errors.CommitFailedError:
                pass  # The group gathers anew; the next commit carries the same positions.

    async def until(ready):
        while not await ready():
            pass

    async def shared():
        await asyncio.gather(*(poll(m) for m in members))
        parts = [m.assignment() for m in members]
        return all(parts) and not parts[0] & parts[1] and len(parts[0] | parts[1]) == PARTITIONS and len(seen) == COUNT

    await until(shared)
    shares = [len(m.assignment()) for m in members]
    await members.pop(0).stop()
    left = members[0]

    async def took_over():
        await poll(left)
        return len(left.assignment()) == PARTITIONS

    await until(took_over)
    fresh = sum(map(len, (await send(topic, RECORDS[:1000])).values()))

    async def read_on():
        await poll(left)
        return len(seen) == COUNT + fresh

    await until(read_on)
    committed = sum([await left.committed(TopicPartition(topic, p)) or 0 for p in range(PARTITIONS)])
    await left.stop()
    return f"~shares {shares}, then all" if committed == COUNT + fresh else f"{committed} committed, {COUNT + fresh} sent"


def tried(name, step):
    story.tried(name, lambda: asyncio.run(asyncio.wait_for(step(), PATIENCE)))


for codec in (None, "gzip", "snappy", "lz4", "zstd"):
    tried(f"produce and consume {COUNT} records, {codec or 'no codec'}", lambda: round_trip(codec))
tried("idempotent producer", lambda: round_trip("gzip", name="idempotent", enable_idempotence=True))
tried("two consumers share and take over", group)
story.end()
