#!/usr/bin/env python3
"""tutorial.py BOOTSTRAP: the lines every tutorial begins with, unchanged but for the port where it is not 9092."""
import sys, threading

LINES = """
producer = KafkaProducer(bootstrap_servers='localhost:9092'); producer.send('test-topic', b'Hello, Kafka!'); producer.flush()
---
for message in KafkaConsumer('test-topic', group_id='test-group', bootstrap_servers='localhost:9092'): print(message.value)
"""
produce, consume = (part.strip().replace("localhost:9092", sys.argv[1].replace("127.0.0.1", "localhost")) for part in LINES.split("---"))
from kafka import KafkaConsumer, KafkaProducer

heard, first = [], threading.Event()


def listen():
    def shown(value):
        heard.append(value)
        first.set()

    exec(consume, {"KafkaConsumer": KafkaConsumer, "print": shown})


# The producer first, as one types it: the topic is made by naming it. A new group begins at the end of a topic, so the
# line is typed again until the consumer, which prints for ever, has joined and hears it.
exec(produce, {"KafkaProducer": KafkaProducer})
threading.Thread(target=listen, daemon=True).start()
for _ in range(30):
    exec(produce, {"KafkaProducer": KafkaProducer})
    if first.wait(1.0):
        break
ok = bool(heard) and set(heard) == {b"Hello, Kafka!"}
print(f"{'ok  ' if ok else 'FAIL'} the lines of the tutorial {heard[:1]}")
print(f"tutorial: {int(ok)} passed, {int(not ok)} failed", flush=True)
sys.exit(0 if ok else 1)
