#!/usr/bin/env python3
"""kill.py BINARY ROUNDS [RECORDING.ndjson[.gz]]: kill -9 at random moments during a replay with queries running.

Two nodes get the same records: one runs through, the other is killed ROUNDS times while producing and computing.
Then the output topics are read with read_committed through the Kafka port and must be equal, key by key and in
order, but that what is delivered at least once may be said again from a commit on; every acknowledged record must be there, once. Without a recording a simulated ward is used.
With KILL_CLUSTER=1 each node runs on an Apache Kafka of its own (tests/differential/apache.py) that goes on while the node is killed.
"""
import gzip, json, os, random, signal, socket, subprocess, sys, tempfile, time, urllib.request, shutil

CLUSTER = os.environ.get("KILL_CLUSTER") == "1"
if CLUSTER:
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "differential"))
    import apache
    # One broker: what is kept three times elsewhere is kept once.
    ONE_BROKER = {"offsets.topic.replication.factor": 1, "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1,
        "offsets.topic.num.partitions": 1, "transaction.state.log.num.partitions": 4, "group.initial.rebalance.delay.ms": 0}

BINARY, ROUNDS = sys.argv[1], int(sys.argv[2])
RECORDING = sys.argv[3] if len(sys.argv) > 3 else None
SEED = int(os.environ.get("KILL_SEED", "0")) or random.randrange(1 << 30)
CHANCE = random.Random(SEED)
QUERIES = """
CREATE STREAM IF NOT EXISTS v (patient_id VARCHAR NOT NULL, heart_rate DOUBLE, resp_rate DOUBLE, spo2 DOUBLE, ts TIMESTAMP(3) NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
  WITH ('topic' = 'v', 'partitions' = '4', 'key' = 'patient_id', 'watermark.idle-timeout' = '1h', 'late.topic' = 'v.late');
CREATE QUERY tumble_1m AS INSERT INTO out_tumble
  SELECT patient_id, window_start, window_end, count(*) AS n, avg(heart_rate) AS hr, min(spo2) AS spo2_min, max(resp_rate) AS rr_max, stddev(heart_rate) AS sd
  FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end EMIT ON WINDOW CLOSE;
CREATE QUERY hop_5m AS INSERT INTO out_hop
  SELECT patient_id, window_start, window_end, count(spo2) AS n, avg(spo2) AS spo2 FROM TABLE(HOP(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE))
  GROUP BY patient_id, window_start, window_end EMIT ON WINDOW CLOSE;
CREATE QUERY held AS INSERT INTO out_held
  SELECT patient_id, ts, spo2, held_for(spo2 < 92, INTERVAL '10' SECOND) OVER (PARTITION BY patient_id ORDER BY ts) AS low FROM v EMIT ON WINDOW CLOSE;
CREATE QUERY merged AS INSERT INTO out_merged
  SELECT window_start, window_end, count(*) AS n, sum(heart_rate) AS s FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
  GROUP BY window_start, window_end EMIT ON WINDOW CLOSE;
CREATE QUERY soon WITH ('delivery' = 'at_least_once') AS INSERT INTO out_soon
  SELECT patient_id, ts, spo2, heart_rate FROM v WHERE spo2 < 97;
"""
OUT = ["out_tumble", "out_hop", "out_held", "out_merged", "out_soon", "v", "v.late"]
# What may be written again after a kill: in order, and nothing left out.
AGAIN = ["out_soon"]

def free_port():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]; s.close(); return port

class Node:
    def __init__(self, folder):
        self.folder, self.kafka, self.http, self.cluster = folder, free_port(), free_port(), None
        if CLUSTER:
            self.cluster = apache.Kafka(os.path.join(folder, "kafka"), ONE_BROKER); self.cluster.start(); self.kafka = self.cluster.port
        self.queries = os.path.join(folder, "sql"); os.makedirs(self.queries, exist_ok=True)
        with open(os.path.join(self.queries, "q.sql"), "w") as f: f.write(QUERIES)
        self.process, self.starts = None, []
    def start(self):
        begun = time.time()
        log_under = ["--brokers", f"127.0.0.1:{self.kafka}", "--application-id", "ward"] if self.cluster else ["--kafka", f"127.0.0.1:{self.kafka}"]
        self.process = subprocess.Popen([BINARY, "serve", "--data-dir", os.path.join(self.folder, "data"), *log_under, "--http", f"127.0.0.1:{self.http}", "--queries", self.queries],
            stderr=open(os.path.join(self.folder, "log"), "a"))
        while time.time() - begun < 60:
            if self.process.poll() is not None: sys.exit(f"the node ended with {self.process.returncode}:\n" + open(os.path.join(self.folder, "log")).read()[-4000:])
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=1).status == 200: self.starts.append(time.time() - begun); return
            except OSError: time.sleep(0.02)
        sys.exit("the node did not become ready within 60 s")
    def kill(self):
        self.process.send_signal(signal.SIGKILL); self.process.wait()
    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=30) != 0: sys.exit(f"the node ended with {self.process.returncode} on SIGTERM")
        if self.cluster: self.cluster.stop()
    def statuses(self):
        return json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.http}/api/v1/queries", timeout=10))

def rows():
    if RECORDING:
        with (gzip.open if RECORDING.endswith(".gz") else open)(RECORDING, "rb") as f:
            return [(json.loads(l)["patient_id"], l.strip()) for l in f if l.strip()]
    text = subprocess.run([BINARY, "simulate", "--beds", "40", "--for", "20m", "--speed", "max", "--start", "2026-01-01T00:00:00Z", "--seed", str(SEED)], check=True, capture_output=True).stdout
    return [(json.loads(l)["patient_id"], l) for l in text.splitlines() if l]

def produce(node, records, kills):
    """Writes all records, in order, each acknowledged before the next block; kills the node at random moments on the way."""
    from kafka import KafkaProducer
    def connect():
        return KafkaProducer(bootstrap_servers=f"127.0.0.1:{node.kafka}", acks="all", enable_idempotence=True, linger_ms=2, retries=1000, delivery_timeout_ms=120000, request_timeout_ms=15000, max_block_ms=60000)
    producer, block = connect(), 500
    blocks = [records[i:i + block] for i in range(0, len(records), block)]
    when = sorted(CHANCE.randrange(len(blocks)) for _ in range(kills))
    for i, part in enumerate(blocks):
        futures = [producer.send("v", key=k.encode(), value=v) for k, v in part]
        if i in when:
            for _ in range(when.count(i)):
                time.sleep(CHANCE.random() * 0.25)
                node.kill(); node.start()
        for f in futures: f.get(timeout=120)
    producer.flush(); producer.close()

def read(node, topic):
    """What stands there, in order, of each key and each query that writes there: several tell late rows to one topic, each in its own time."""
    from kafka import KafkaConsumer, TopicPartition
    def consumer(isolation): return KafkaConsumer(bootstrap_servers=f"127.0.0.1:{node.kafka}", isolation_level=isolation, auto_offset_reset="earliest", enable_auto_commit=False, group_id=None)
    c, any_kind = consumer("read_committed"), consumer("read_uncommitted")
    parts = c.partitions_for_topic(topic)
    if not parts: c.close(); any_kind.close(); return {}
    tps = [TopicPartition(topic, p) for p in parts]; c.assign(tps); c.seek_to_beginning(*tps)
    # A broker acknowledges the end of a transaction before it has marked it in every partition.
    since = time.time()
    while (ends := c.end_offsets(tps)) != any_kind.end_offsets(tps):
        if time.time() - since > 120: sys.exit(f"a transaction in {topic} has been open for two minutes, with every query at its input's end")
        time.sleep(0.1)
    any_kind.close(); found = {}
    while any(c.position(tp) < ends[tp] for tp in tps):
        for tp, messages in c.poll(timeout_ms=1000).items():
            for m in messages: found.setdefault((tp.partition, m.key, dict(m.headers).get("vitalsql-from")), []).append(m.value)
    c.close(); return found

def settle(node, total):
    """Waits until every query has read everything and stands still."""
    last, since = None, time.time()
    while time.time() - since < 120:
        now = [(q["name"], q["rows_out"], q["lag"], q["state"]) for q in node.statuses()]
        if any(s == "failed" for *_, s in now): sys.exit(f"a query failed: {node.statuses()}")
        if now == last and all(lag == 0 for _, _, lag, _ in now): return
        last = now; time.sleep(1.0)
    sys.exit(f"the queries did not settle: {last}")

def close(a, b):
    """Equal, variance-like floats to 1e-9."""
    if a == b: return True
    x, y = json.loads(a), json.loads(b)
    if x.keys() != y.keys(): return False
    return all(x[k] == y[k] or (k == "sd" and abs(x[k] - y[k]) <= 1e-9 * max(1.0, abs(x[k]))) for k in x)

def without_repeats(expected, found):
    """What of `found` is no repetition, where it goes back in `expected` and says again what stands there; all of it where it does anything else."""
    at, again = 0, 0
    for value in found:
        if at == len(expected) or expected[at] != value:
            if value not in expected[:at]: return found, 0
            place = expected.index(value); again += at - place; at = place
        at += 1
    return expected[:at], again

def main():
    try: import kafka  # noqa: F401
    except ImportError: subprocess.run([sys.executable, "-m", "pip", "install", "-q", "kafka-python==3.0.12"], check=True)
    records, base = rows(), tempfile.mkdtemp(prefix="vitalsql-kill-")
    print(f"{len(records)} records, {ROUNDS} kills, seed {SEED}", flush=True)
    results, starts = [], []
    for name, kills in [("through", 0), ("killed", ROUNDS)]:
        folder = os.path.join(base, name); os.makedirs(folder); node = Node(folder); node.start()
        produce(node, records, kills); settle(node, len(records))
        results.append({t: read(node, t) for t in OUT}); starts = node.starts; node.stop()
    passed = failed = 0
    for topic in OUT:
        a, b, again = results[0][topic], results[1][topic], 0
        if topic in AGAIN:
            stripped = {k: without_repeats(a.get(k, []), values) for k, values in b.items()}
            b, again = {k: values for k, (values, _) in stripped.items()}, sum(n for _, n in stripped.values())
        wrong = [k for k in set(a) | set(b) if len(a.get(k, [])) != len(b.get(k, [])) or not all(close(x, y) for x, y in zip(a.get(k, []), b.get(k, [])))]
        n = sum(len(v) for v in a.values())
        if wrong or (topic == "v" and n != len(records)):
            failed += 1; k = wrong[0] if wrong else None
            print(f"{topic}: {len(wrong)} of {len(a)} keys differ; first {k}: {len(a.get(k, []))} and {len(b.get(k, []))} records")
            for x, y in zip(a.get(k, []), b.get(k, [])):
                if not close(x, y): print("  through", x[:300]); print("  killed ", y[:300]); break
        else:
            passed += 1; print(f"{topic}: {n} records, equal" + (f", {again} of them written again" if topic in AGAIN else ""))
    print(f"starts after a kill: median {sorted(starts)[len(starts) // 2]:.2f} s, longest {max(starts):.2f} s")
    if failed == 0: shutil.rmtree(base)
    else: print(f"data kept in {base}")
    print(f"kill: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)

if __name__ == "__main__": main()
