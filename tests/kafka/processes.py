#!/usr/bin/env python3
"""processes.py BINARY ROUNDS: three processes share an application's work on one Apache Kafka, and one of them after another is killed,
stopped, put to sleep past its session, or joined by a fourth.

The same records are written, in the same order, to a topic that one undisturbed process computes over and to one that the three do.
What both have committed (read_committed) must be equal, key by key and in order: results, late rows, dead letters, alerts.
With BROKERS=3 in the environment the cluster has three brokers, everything is kept three times, and one broker after another is killed as well.
"""
import json, os, random, re, shutil, signal, subprocess, sys, tempfile, threading, time, urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
for beside in ("differential", "kill"): sys.path.insert(0, os.path.join(HERE, "..", beside))
import apache
import kill
from kill import BINARY, CHANCE, ROUNDS, SEED, close, free_port

SESSION_S = 3
BROKERS = int(os.environ.get("BROKERS", "1"))
ONE = {"offsets.topic.replication.factor": 1, "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1}
SETTINGS = {"offsets.topic.num.partitions": 1, "transaction.state.log.num.partitions": 4, "group.initial.rebalance.delay.ms": 0, "group.min.session.timeout.ms": 1000}
MORE = """
CREATE ALERT low WITH ('priority' = 'high', 'hold' = '15s', 'clear.hold' = '10s') AS
  SELECT patient_id AS subject, ts, spo2 AS value, spo2 < 94 AS breach, spo2 >= 95 AS clear FROM v;
CREATE QUERY bands WITH ('repartition' = 'merged') AS INSERT INTO out_bands
  SELECT CAST(floor(coalesce(heart_rate, 0) / 10) AS INT) AS band, window_start, window_end, count(*) AS n, sum(resp_rate) AS s, avg(spo2) AS m, stddev(heart_rate) AS sd
  FROM TABLE(HOP(TABLE v, DESCRIPTOR(ts), INTERVAL '20' SECOND, INTERVAL '1' MINUTE))
  GROUP BY CAST(floor(coalesce(heart_rate, 0) / 10) AS INT), window_start, window_end EMIT ON WINDOW CLOSE;
CREATE QUERY house WITH ('repartition' = 'merged') AS INSERT INTO out_house
  SELECT window_start, window_end, count(*) AS n, sum(heart_rate) AS s, min(spo2) AS low FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '10' SECOND))
  GROUP BY window_start, window_end EMIT ON WINDOW CLOSE;
"""
OUT = ["out_tumble", "out_hop", "out_held", "out_merged", "out_bands", "out_house", "v.late", "v.dlq"]

def queries(name):
    """The queries of kill.py and some more, over topics of their own. Where processes share the work two of them run in two phases."""
    text = kill.QUERIES + (MORE if name == "calm" else MORE.replace("'merged'", "'topic'"))
    text = text.replace("IF NOT EXISTS ", "").replace("'topic' = 'v'", f"'topic' = '{name}.v', 'bad-records' = 'dlq', 'dlq.topic' = '{name}.v.dlq'").replace("'v.late'", f"'{name}.v.late'")
    for out in ("tumble", "hop", "held", "merged", "bands", "house"): text = text.replace(f"INTO out_{out}", f'INTO "{name}.out_{out}"')
    return text.replace("ALERT low", f"ALERT {name}_low")

class Process:
    """One vitalsql of an application."""
    def __init__(self, base, application, number, brokers):
        self.name, self.folder, self.brokers = f"{application}{number}", os.path.join(base, f"{application}{number}"), brokers
        self.application, self.http, self.process, self.wanted = application, free_port(), None, False
        self.queries = os.path.join(self.folder, "sql"); os.makedirs(self.queries)
        with open(os.path.join(self.queries, "q.sql"), "w") as f: f.write(queries(application))
    def launch(self):
        self.wanted = True
        self.process = subprocess.Popen([BINARY, "serve", "--data-dir", os.path.join(self.folder, "data"), "--brokers", self.brokers, "--application-id", self.application,
            "--http", f"127.0.0.1:{self.http}", "--queries", self.queries], stderr=open(os.path.join(self.folder, "log"), "a"), env={**os.environ, "VITALSQL_KAFKA_SESSION_TIMEOUT": f"{SESSION_S}s"})
    def log(self): return open(os.path.join(self.folder, "log")).read()
    def ready(self):
        begun = time.time()
        while time.time() - begun < 90:
            self.is_up()
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=2).status == 200: return
            except OSError: time.sleep(0.05)
        sys.exit(f"{self.name} did not become ready within 90 s:\n" + self.log()[-4000:])
    def runs(self): return self.process is not None and self.process.poll() is None
    def is_up(self):
        """Whether it runs; one that has ended by itself ends the test."""
        if self.wanted and not self.runs(): sys.exit(f"{self.name} has ended by itself with {self.process.returncode}:\n" + self.log()[-4000:])
        return self.runs()
    def kill(self): self.wanted = False; self.process.send_signal(signal.SIGKILL); self.process.wait()
    def stop(self):
        self.wanted = False; self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=60) != 0: sys.exit(f"{self.name} ended with {self.process.returncode} on SIGTERM:\n" + self.log()[-4000:])
    def statuses(self):
        return json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.http}/api/v1/queries", timeout=20))

def records():
    """The simulated ward's, now and then one that is no row, and now and then one that comes a quarter of an hour late."""
    all, rows = [], kill.rows()
    late = {n + len(rows) // 2: rows[n] for n in range(0, len(rows) // 2, 1499)}
    for n, (key, value) in enumerate(rows):
        all.append((key, value))
        if n % 997 == 500: all.append((key, b"no row %d" % n))
        if n in late: all.append(late[n])
    return all

def produce(brokers, all, ends):
    """Writes to both topics, in order, evenly, until `ends` at the latest."""
    from kafka import KafkaProducer
    producer = KafkaProducer(bootstrap_servers=brokers, acks="all", enable_idempotence=True, linger_ms=5, retries=1000, delivery_timeout_ms=600000, request_timeout_ms=15000, max_block_ms=600000)
    begun, futures = time.time(), []
    for n, (key, value) in enumerate(all):
        for name in ("calm", "rough"): futures.append(producer.send(f"{name}.v", key=key.encode(), value=value))
        if n % 200 == 0:
            time.sleep(max(0.0, begun + (ends - begun) * n / len(all) - time.time()))
    for f in futures: f.get(timeout=600)
    producer.flush(); producer.close()

def settle(processes):
    """Waits until every task is run by somebody, has read everything, and stands still."""
    last, since, still = None, time.time(), 0
    while time.time() - since < 180:
        seen = {}
        for p in processes:
            for q in p.statuses():
                # One that a broker's end has failed begins again by itself.
                if q["state"] == "failed" and "trying again" not in q["error"]: sys.exit(f"a query failed at {p.name}: {q}")
                away = sum(len(e["tasks"]) for e in q["elsewhere"])
                tasks, here, out, lag = seen.get(q["name"], (q["tasks"], 0, 0, 0))
                # What is not known yet, since a task is being restored, is no zero.
                ahead = lag + (float("inf") if q["lag"] is None else q["lag"])
                seen[q["name"]] = (tasks, here + q["tasks"] - away, out + q["rows_out"], ahead)
        still = still + 1 if seen == last else 0
        # The mark that ends a transaction is never read: where it is the last thing in a partition it counts as one record that lies ahead, and
        # between two phases each of the four tasks of the first may have left one in each partition.
        ahead = any(lag > 0 for *_, lag in seen.values())
        if seen and still >= (10 if ahead else 1) and all(here == tasks and lag <= 4 * tasks for tasks, here, _, lag in seen.values()): return
        last = seen; time.sleep(1.0)
    sys.exit(f"the queries did not settle: {last}")

def disturb(all, cluster, brokers, base, log):
    """One thing that happens to one process, or to a broker."""
    if BROKERS == 3 and CHANCE.random() < 0.5:
        n = CHANCE.randrange(3); node, away = cluster.nodes[n], CHANCE.random() * 5
        node.kill(); log(f"broker {n} is killed for {away:.1f} s"); time.sleep(away)
        # The next one is killed when this one has what it has missed: of two that are behind there is no quorum.
        node.start(); in_sync(node.port); log(f"broker {n} is back"); return
    up = [p for p in all if p.is_up()]
    deeds = ["kill", "kill", "stop", "sleep", "join"]
    if len(up) > 3: deeds.remove("join")
    if len(up) < 3: deeds = ["join"]
    deed = CHANCE.choice(deeds)
    if deed == "join":
        new = Process(base, "rough", len(all), brokers); new.launch(); new.ready(); all.append(new)
        log(f"{new.name} joins"); return
    p = CHANCE.choice(up)
    if deed == "kill":
        p.kill(); away = CHANCE.choice([0, CHANCE.random(), SESSION_S * 2]); log(f"{p.name} is killed for {away:.1f} s")
        time.sleep(away); p.launch(); p.ready()
    elif deed == "stop":
        p.stop(); away = CHANCE.choice([0, SESSION_S]); log(f"{p.name} is stopped" + ("" if len(up) > 3 else f" for {away} s"))
        if len(up) <= 3: time.sleep(away); p.launch(); p.ready()
    else:
        p.process.send_signal(signal.SIGSTOP); asleep = SESSION_S * (1.5 + CHANCE.random()); log(f"{p.name} sleeps for {asleep:.1f} s, and its session for {SESSION_S}")
        time.sleep(asleep); p.process.send_signal(signal.SIGCONT)
    time.sleep(CHANCE.random() * 2)

def in_sync(port):
    """Waits until every partition has all its replicas again."""
    from kafka import KafkaAdminClient
    begun = time.time()
    while time.time() - begun < 120:
        try:
            admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}")
            topics = admin.describe_topics(); admin.close()
            if all(len(p.get("isr_nodes", p.get("isr"))) == len(p.get("replica_nodes", p.get("replicas"))) for t in topics for p in t["partitions"]): return
        except Exception: pass  # It is not up yet.
        time.sleep(0.5)
    sys.exit("the brokers did not come into sync within 120 s")

class Reader:
    """What kill.read wants of a node."""
    def __init__(self, port): self.kafka = port

def alerts(found, name):
    """The alerts of one application's rule, by subject, without what the clock and the rule's name have put in."""
    by = {}
    for values in found.values():
        for value in values:
            a = json.loads(value)
            if a["rule"] != f"{name}_low": continue
            by.setdefault(a["subject"], []).append((a["ts"], a["state"], a["since"], a.get("value"), a["priority"]))
    return by

def compare(port):
    """Equal, topic by topic?"""
    reader, failed, passed = Reader(port), 0, 0
    for topic in OUT:
        a, b = (kill.read(reader, f"{name}.{topic}") for name in ("calm", "rough"))
        wrong = [k for k in set(a) | set(b) if len(a.get(k, [])) != len(b.get(k, [])) or not all(close_or_same(x, y) for x, y in zip(a.get(k, []), b.get(k, [])))]
        n = sum(len(v) for v in a.values())
        if wrong or n == 0:
            failed += 1; k = wrong[0] if wrong else None
            print(f"{topic}: {len(wrong)} of {len(a)} keys differ; first {k}: {len(a.get(k, []))} and {len(b.get(k, []))} records")
            for x, y in zip(a.get(k, []), b.get(k, [])):
                if not close_or_same(x, y): print("  calm ", x[:300]); print("  rough", y[:300]); break
        else: passed += 1; print(f"{topic}: {n} records, equal")
    found = kill.read(reader, "alerts")
    a, b = alerts(found, "calm"), alerts(found, "rough")
    if a != b or not a:
        failed += 1; wrong = [k for k in set(a) | set(b) if a.get(k) != b.get(k)]
        print(f"alerts: {len(wrong)} of {len(a)} subjects differ; first {wrong[:1]}: {a.get(wrong[0]) if wrong else None} and {b.get(wrong[0]) if wrong else None}")
    else: passed += 1; print(f"alerts: {sum(map(len, a.values()))} records of {len(a)} subjects, equal")
    return passed, failed

def close_or_same(x, y):
    try: return close(x, y)
    except ValueError: return x == y

def main():
    try: import kafka  # noqa: F401
    except ImportError: subprocess.run([sys.executable, "-m", "pip", "install", "-q", "kafka-python==3.0.12"], check=True)
    base, begun = tempfile.mkdtemp(prefix="vitalsql-processes-"), time.time()
    cluster = apache.Cluster(os.path.join(base, "kafka"), SETTINGS) if BROKERS == 3 else apache.Kafka(os.path.join(base, "kafka"), {**SETTINGS, **ONE})
    brokers, all = cluster.brokers if BROKERS == 3 else f"127.0.0.1:{cluster.port}", records()
    log = lambda what: print(f"{time.time() - begun:6.1f} s  {what}", flush=True)
    print(f"{len(all)} records, {ROUNDS} rounds, seed {SEED}", flush=True)
    calm, rough = Process(base, "calm", 0, brokers), [Process(base, "rough", n, brokers) for n in range(3)]
    failed = 1
    try:
        cluster.start()
        calm.launch(); calm.ready()
        # All at once: they find the same statements in their folders, and one of them writes each down.
        for p in rough: p.launch()
        for p in rough: p.ready()
        log("all are ready")
        written = []
        def write(): produce(brokers, all, time.time() + ROUNDS * 6); written.append(True)
        writer = threading.Thread(target=write, daemon=True); writer.start()
        for _ in range(ROUNDS): disturb(rough, cluster, brokers, base, log)
        writer.join()
        if not written: sys.exit("the records could not be written")
        for p in rough:
            if p.is_up(): p.ready()
        log("all is written")
        settle([calm]); settle([p for p in rough if p.is_up()])
        log("all is computed")
        passed, failed = compare(cluster.port)
        fenced = sum(len(re.findall(r"has taken a lane over.*Shared", p.log())) for p in rough)
        print(f"processes: {passed} passed, {failed} failed; an older holder of a lane was fenced {fenced} times")
        for p in [calm] + [p for p in rough if p.is_up()]: p.stop()
    finally:
        for p in [calm] + rough:
            if p.runs(): p.process.send_signal(signal.SIGCONT); p.kill()
        cluster.stop()
    if failed == 0: shutil.rmtree(base)
    else: print(f"data kept in {base}")
    sys.exit(1 if failed else 0)

if __name__ == "__main__": main()
