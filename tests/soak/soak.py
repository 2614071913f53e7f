#!/usr/bin/env python3
"""soak.py BINARY HOURS SPEED: a day of a ward at SPEED times life, on a node whose clock runs as fast; then every result against model.py.

On the way: readings out of order, too late and twice, records that are none, partitions that are silent for an hour, devices whose clock is fast by
minutes, hours and days; a kill -9 and a CREATE OR REPLACE QUERY. At the end: each query's results equal what is worked out from the readings in the
order in which the log has them; what is late for a query is in the late topic, each row once, and no other (a partition that was silent apart, whose
first rows the others or the clock have left behind); rows in = rows counted + late + bad, by the results and by the metrics; no window is
stuck; memory and disk stay where they are."""
import collections, json, os, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time, urllib.request
from datetime import datetime, timezone

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
import model, ward
from ward import BAD, FAR, HOUR, MIN, NORMAL, PARTITIONS

BINARY, HOURS, SPEED = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
SEED = int(os.environ.get("SOAK_SEED", "0")) or int(time.time())
START = int(datetime(2026, 3, 1, tzinfo=timezone.utc).timestamp() * 1000)
KILL, UPGRADE = 0.18, 0.25          # parts of the day
KEPT = 3 * HOUR                     # of the readings' topic
IDLE = 15 * MIN
PATIENCE = 120                      # seconds until what has not come will not
SETUP = f"""
CREATE STREAM vitals (device VARCHAR NOT NULL, seq BIGINT, hr DOUBLE, spo2 DOUBLE, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '30' SECOND)
  WITH ('topic' = 'vitals', 'partitions' = '{PARTITIONS}', 'key' = 'device', 'key.partitioner' = 'murmur2', 'late.topic' = 'vitals.late',
        'watermark.idle-timeout' = '{IDLE // MIN}m', 'watermark.max-future' = '2m');
CREATE STREAM labs (device VARCHAR NOT NULL, k DOUBLE, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '30' SECOND)
  WITH ('topic' = 'labs', 'partitions' = '{PARTITIONS}', 'key' = 'device', 'late.topic' = 'labs.late', 'watermark.idle-timeout' = '6h', 'watermark.max-future' = '2m');
CREATE STREAM out_hop (device VARCHAR NOT NULL, window_start TIMESTAMP(3), n BIGINT, s DOUBLE) WITH ('topic' = 'out_hop', 'partitions' = '{PARTITIONS}');
CREATE QUERY tumble AS INSERT INTO out_tumble
  SELECT device, window_start, count(*) AS n, sum(hr) AS s, min(spo2) AS low FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '5' MINUTE))
  GROUP BY device, window_start, window_end EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '30' MINUTE;
CREATE QUERY again WITH ('delivery' = 'at_least_once') AS INSERT INTO out_again
  SELECT device, window_start, count(*) AS n, sum(hr) AS s, min(spo2) AS low FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '5' MINUTE))
  GROUP BY device, window_start, window_end EMIT ON WINDOW CLOSE;
CREATE QUERY hop AS INSERT INTO out_hop (device, window_start, n)
  SELECT device, window_start, count(*) AS n FROM TABLE(HOP(TABLE vitals, DESCRIPTOR(ts), INTERVAL '5' MINUTE, INTERVAL '15' MINUTE))
  GROUP BY device, window_start, window_end EMIT ON WINDOW CLOSE;
CREATE QUERY session AS INSERT INTO out_session
  SELECT device, window_start, window_end, count(*) AS n FROM TABLE(SESSION(TABLE vitals PARTITION BY device, DESCRIPTOR(ts), INTERVAL '3' MINUTE))
  GROUP BY device, window_start, window_end EMIT ON WINDOW CLOSE;
CREATE QUERY once WITH ('state.ttl' = '1h') AS INSERT INTO out_once
  SELECT device, seq, ts FROM vitals QUALIFY ROW_NUMBER() OVER (PARTITION BY device, seq ORDER BY ts) = 1;
CREATE QUERY ward AS INSERT INTO out_ward
  SELECT window_start, count(*) AS n, sum(hr) AS s, min(spo2) AS low FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '10' MINUTE))
  GROUP BY window_start, window_end EMIT ON WINDOW CLOSE;
CREATE QUERY near AS INSERT INTO out_near
  SELECT v.device, v.seq, v.ts, l.ts AS l_ts, l.k FROM vitals v JOIN labs l ON v.device = l.device AND l.ts BETWEEN v.ts - INTERVAL '10' MINUTE AND v.ts;
CREATE ALERT low WITH ('priority' = 'high', 'hold' = '0s', 'clear.hold' = '0s', 'max.gap' = '1h', 'start' = 'earliest') AS
  SELECT device AS subject, ts, spo2 AS value, spo2 < 88 AS breach, spo2 >= 90 AS clear FROM vitals;
CREATE ALERT soon WITH ('priority' = 'high', 'hold' = '0s', 'clear.hold' = '0s', 'max.gap' = '1h', 'start' = 'earliest', 'delivery' = 'at_least_once') AS
  SELECT device AS subject, ts, spo2 AS value, spo2 < 88 AS breach, spo2 >= 90 AS clear FROM vitals;
"""
NEW_HOP = """CREATE OR REPLACE QUERY hop AS INSERT INTO out_hop (device, window_start, n, s)
  SELECT device, window_start, count(*) AS n, sum(hr) AS s FROM TABLE(HOP(TABLE vitals, DESCRIPTOR(ts), INTERVAL '5' MINUTE, INTERVAL '15' MINUTE))
  GROUP BY device, window_start, window_end EMIT ON WINDOW CLOSE;"""
QUERIES = ["tumble", "again", "hop", "session", "once", "ward", "near"]
passed, failed = 0, 0

def check(what, good, said=""):
    global passed, failed
    if good: passed += 1
    else: failed += 1
    print(f"{'ok  ' if good else 'FAIL'} {what}{': ' if said else ''}{said}", flush=True)

def free_port():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]; s.close(); return port

def millis(text): return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
def iso(ms): return datetime.fromtimestamp(ms / 1000, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")

class Node:
    """A node whose clock goes on, as fast as the day does, from where it stood when the last one was killed."""
    def __init__(self, folder):
        self.folder, self.kafka, self.http = folder, free_port(), free_port()
        self.shown, self.since, self.process = START, None, None
    def now(self): return self.shown if self.since is None else self.shown + int((time.monotonic() - self.since) * SPEED * 1000)
    def start(self):
        begun, heard = time.monotonic(), os.path.getsize(os.path.join(self.folder, "log")) if os.path.exists(os.path.join(self.folder, "log")) else 0
        self.process = subprocess.Popen([BINARY, "serve", "--data-dir", os.path.join(self.folder, "data"), "--kafka", f"127.0.0.1:{self.kafka}", "--http", f"127.0.0.1:{self.http}",
            "--speed", str(SPEED), "--clock", iso(self.shown)], stderr=open(os.path.join(self.folder, "log"), "a"))
        while time.monotonic() - begun < PATIENCE:
            with open(os.path.join(self.folder, "log")) as said: said.seek(heard); text = said.read()
            # It says what its clock shows once it is ready; the day goes by that clock, or a moment behind it.
            if shown := re.search(r"the node's clock shows (\S+) and", text): self.shown, self.since = millis(shown[1]), time.monotonic(); return
            if self.process.poll() is not None: sys.exit(f"the node ended with {self.process.returncode}:\n{text[-4000:]}")
            time.sleep(0.001)
        sys.exit(f"the node was not ready within {PATIENCE} s")
    def kill(self): self.end(signal.SIGKILL)
    def end(self, how):
        self.shown, self.since = self.now() + 5 * MIN, None    # so that nobody's time comes twice
        self.process.send_signal(how); self.process.wait(timeout=60)
    def get(self, path, timeout=30): return urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=timeout).read().decode()
    def sql(self, text):
        done = subprocess.run([BINARY, "sql", "--url", f"http://127.0.0.1:{self.http}", "-c", text], capture_output=True, text=True)
        if done.returncode: sys.exit(f"{text}\n{done.stderr}")
        return done.stdout + done.stderr
    def resident(self): return int(next(l for l in open(f"/proc/{self.process.pid}/status") if l.startswith("VmRSS")).split()[1]) / 1024
    def metrics(self):
        found = {}
        for line in self.get("/metrics").splitlines():
            if line and line[0] != "#": name, _, value = line.rpartition(" "); found[name] = float(value)
        return found
    def read(self, topic):
        """Every record: (partition, offset, key, value, headers, timestamp)."""
        c = Consumer({"bootstrap.servers": f"127.0.0.1:{self.kafka}", "group.id": "soak", "isolation.level": "read_committed", "enable.auto.commit": False})
        parts = sorted(c.list_topics(topic, 30).topics[topic].partitions)
        ends = {p: c.get_watermark_offsets(TopicPartition(topic, p), 30)[1] for p in parts}
        at, found, since = {p: 0 for p in parts}, [], time.monotonic()
        c.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in parts])
        while any(at[p] < ends[p] for p in parts):
            if time.monotonic() - since > PATIENCE: sys.exit(f"{topic} could not be read: {at} of {ends}")
            for m in c.consume(5000, 0.5):
                if m.error(): sys.exit(f"{topic}: {m.error()}")
                at[m.partition()] = m.offset() + 1
                found.append((m.partition(), m.offset(), m.key(), m.value(), dict(m.headers() or ()), m.timestamp()[1]))
            at = {p: max(at[p], next((tp.offset for tp in c.position([TopicPartition(topic, p)]) if tp.offset >= 0), 0)) for p in parts}
        c.close(); return found

class Log:
    """What was acknowledged, in the log's order."""
    def __init__(self):
        self.last, self.stalls, self.when = time.monotonic(), [], {}
        self.rows, self.lost = {"vitals": [[] for _ in range(PARTITIONS)], "labs": [[] for _ in range(PARTITIONS)]}, []
    def told(self, topic, row, when):
        def hear(error, message):
            if error: self.lost.append(str(error))
            else:
                self.rows[topic][message.partition()].append((message.offset(), *row))
                if topic == "vitals": self.when[(message.partition(), message.offset())] = when
                # A stall of this program is a silence too.
                if time.monotonic() - self.last > 0.4 * IDLE / 1000 / SPEED: self.stalls.append(when)
                self.last = time.monotonic()
        return hear
    def order(self):
        for of in self.rows.values():
            for rows in of: rows.sort(key=lambda row: row[0])

def main():
    folder = tempfile.mkdtemp(prefix="vitalsql-soak-")
    node, log = Node(folder), Log()
    day = ward.day(SEED, START, HOURS)
    print(f"seed {SEED}: {len(day)} records of {ward.DEVICES} devices over {HOURS:g} h, {SPEED:g} times as fast as life", flush=True)
    node.start()
    node.sql(SETUP)
    topic_config(node, "vitals", {"retention.ms": str(KEPT), "segment.bytes": str(1 << 20)})
    producer = Producer({"bootstrap.servers": f"127.0.0.1:{node.kafka}", "acks": "all", "enable.idempotence": True, "linger.ms": 2, "partitioner": "murmur2",
        "message.timeout.ms": 0, "queue.buffering.max.messages": 1000000, "reconnect.backoff.max.ms": 100, "log_level": 0})
    # The day begins by the node's clock as it is by now.
    shift = node.now() - START
    samples, restarted, killed, upgraded, replaced, look, worst, n = [], None, False, "", (0, 0), 0.0, 0, 0
    span = HOURS * HOUR
    while n < len(day):
        now = node.now()
        while n < len(day) and day[n][0] + shift <= now:
            when, topic, key, value, row = day[n]
            worst = max(worst, now - when - shift)
            if shift: value, row = moved(value, row, topic, shift)
            # By the node's clock, as everything: a record that is ahead of it would be refused.
            producer.produce(topic, key=key, value=value, timestamp=when + shift, on_delivery=log.told(topic, row, when + shift)); n += 1
            if n % 500 == 0: producer.poll(0); now = node.now()
        producer.poll(0.001)
        part = (node.now() - START - shift) / span
        if not killed and part >= KILL:
            killed = True; node.kill(); restarted = node.shown; node.start(); now = node.now()
        if killed and not upgraded and part >= UPGRADE: before = node.now(); upgraded = node.sql(NEW_HOP).strip(); replaced = (before, node.now() + MIN)
        if time.monotonic() - look > 0.5:
            look = time.monotonic(); samples.append((part, node.resident(), size_of(os.path.join(folder, "data"))))
    # A last reading of each partition, later than all windows of those whose clock is fast by minutes; not ahead of the clock itself.
    closing = START + shift + int(span) + 2 * ward.MINUTES_FAST
    while node.now() < closing: producer.poll(0.01)
    for p in range(PARTITIONS):
        device = ward.closer(p)
        producer.produce("vitals", key=device, value=ward.reading(device, 1, closing, 60.0, 97.0), timestamp=closing, on_delivery=log.told("vitals", (NORMAL, device, 1, closing, 60.0, 97.0), closing))
        producer.produce("labs", key=device, value=json.dumps({"device": device, "ts": closing, "k": 4.0}).encode(), timestamp=closing, on_delivery=log.told("labs", (NORMAL, device, None, closing, 4.0, 0.0), closing))
    producer.flush(PATIENCE)
    settle(node)
    log.order()
    sent = {topic: sum(map(len, rows)) for topic, rows in log.rows.items()}
    check("every record was acknowledged", not log.lost and sum(sent.values()) == len(day) + 2 * PARTITIONS, f"{sum(sent.values())} of {len(day) + 2 * PARTITIONS}, {len(log.lost)} lost {log.lost[:1]}")
    check("the driver kept up, so that who is ahead of the clock is no matter of chance", worst < ward.MINUTES_FAST - 3 * MIN, f"at most {worst / 1000:.0f} s of event time behind")
    check("the replaced query goes on", "replaced query" in upgraded, upgraded.splitlines()[-1] if upgraded else "it was not replaced")
    compare(node, log, restarted, replaced)
    figures(node, samples, sent, log)
    node.end(signal.SIGTERM)
    check("it stops in good order", node.process.returncode == 0)
    if failed: print(f"data kept in {folder}")
    else: shutil.rmtree(folder)
    print(f"soak: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)

def moved(value, row, topic, shift):
    kind, device, seq, ts, a, b = row
    if kind == BAD: return value, row
    ts += shift
    return (ward.reading(device, seq, ts, a, b) if topic == "vitals" else json.dumps({"device": device, "ts": ts, "k": a}, separators=(",", ":")).encode()), (kind, device, seq, ts, a, b)

def topic_config(node, topic, configs):
    from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
    entries = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in configs.items()]
    admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{node.kafka}", "log_level": 0})
    for done in admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)]).values(): done.result(30)

def size_of(folder):
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            try: total += os.stat(os.path.join(where, name)).st_blocks * 512
            except OSError: pass        # retention was quicker
    return total / (1 << 20)

def settle(node):
    last, begun = None, time.monotonic()
    while time.monotonic() - begun < PATIENCE:
        now = [(q["name"], q["rows_out"], q["lag"], q["state"]) for q in json.loads(node.get("/api/v1/queries"))]
        if any(q[3] == "failed" for q in now): sys.exit(f"a query has failed: {node.get('/api/v1/queries')}")
        if now == last and all(q[2] == 0 for q in now): return
        last = now; time.sleep(1.0)
    sys.exit(f"the queries did not settle: {last}")

def differ(what, expected, found, required=lambda key: True):
    """Results by key, of each a list of what was written."""
    twice = [k for k, v in found.items() if len(v) > 1]
    wrong = [k for k, v in found.items() if k not in expected or any(x != expected[k] for x in v)]
    stuck = [k for k in expected if k not in found and required(k)]
    open_ = sum(1 for k in expected if k not in found) - len(stuck)
    said = f"{len(found)} results, {open_} still open"
    if wrong: k = wrong[0]; said += f"; {len(wrong)} wrong, first {k}: {found[k]} and not {expected.get(k)}"
    if stuck: said += f"; {len(stuck)} missing, first {stuck[0]}: {expected[stuck[0]]}"
    return not wrong and not stuck, twice, said

def group(records, key, value):
    found = collections.defaultdict(list)
    for record in records: row = json.loads(record[3]); found[key(row)].append(value(row))
    return found

def compare(node, log, restarted, replaced):
    vitals, labs = log.rows["vitals"], log.rows["labs"]
    marks = [model.last_mark(rows) for rows in vitals]
    of = {d: ward.place(d) for d in {row[2] for rows in vitals for row in rows}}
    # Who has put which row aside, how often, and when.
    aside, written = collections.defaultdict(collections.Counter), collections.defaultdict(list)
    for topic in ["vitals", "labs"]:
        for _, _, _, _, headers, at in node.read(f"{topic}.late"):
            who, where = headers["vitalsql-from"].decode(), (int(headers["vitalsql-source-partition"]), int(headers["vitalsql-source-offset"]))
            aside[(who, topic)][where] += 1
            written[who].append(at)
    quiet = returns(vitals, log.when, log.stalls)
    bad = [(p, row[0]) for p, rows in enumerate(vitals) for row in rows if row[1] == BAD]
    letters = collections.Counter((int(h["vitalsql-source-partition"]), int(h["vitalsql-source-offset"])) for *_, h, _ in node.read("vitals.dlq"))
    check("every record that is none is a dead letter, once", letters == collections.Counter(bad), f"{len(bad)} records, {sum(letters.values())} letters")
    metrics = node.metrics()
    def late(query, natural, topic="vitals", may_return=False, twice=False):
        told = aside[(query, topic)]
        extra = set(told) - natural
        strays = [where for where in extra if not (may_return and where in quiet)]
        again = sum(n - 1 for n in told.values())
        good = not natural - set(told) and not strays and (twice or not again)
        check(f"{query}: what is late, and nothing else, is in the late topic of {topic}", good,
            f"{len(natural)} by their own partition, {len(extra)} of partitions that were left behind, {again} twice" + (f"; {len(natural - set(told))} not told, {len(strays)} told and not late, as {strays[:3]}" if not good else ""))
        return extra
    def windowed(query, size, slide, keyed=True, may_return=False, twice=False, value=None, required=None):
        _, natural = model.windows(vitals, size, slide, (), keyed)
        expected, _ = model.windows(vitals, size, slide, late(query, natural, may_return=may_return, twice=twice), keyed)
        records = node.read(f"out_{query}")
        found = group(records, lambda r: (r["device"] if keyed else None, millis(r["window_start"])), value or (lambda r: (r["n"], r["s"], r["low"])))
        if value: expected = {k: v[:1] for k, v in expected.items()}
        good, again, said = differ(query, expected, found, required or (lambda k: k[1] + size <= marks[of[k[0]]]))
        check(f"{query}: results", good and (twice or not again), f"{said}, {len(again)} written twice")
        return expected, found, records
    total = sum(len(rows) for rows in vitals)
    expected, found, _ = windowed("tumble", 5 * MIN, 5 * MIN, may_return=True)
    in_windows = sum(v[0][0] for v in found.values()) + sum(v[0] for k, v in expected.items() if k not in found)
    check("tumble: rows in = rows counted + late + bad", total == in_windows + len(aside[("tumble", "vitals")]) + len(bad), f"{total} = {in_windows} + {len(aside[('tumble', 'vitals')])} + {len(bad)}")
    _, found, records = windowed("again", 5 * MIN, 5 * MIN, twice=True)
    of_device = collections.defaultdict(list)
    for record in sorted(records, key=lambda r: (r[0], r[1])): row = json.loads(record[3]); of_device[row["device"]].append(millis(row["window_start"]))
    again = [said_again(list(dict.fromkeys(starts)), starts) for starts in of_device.values()]
    check("again, at least once: what is written again is written in order", None not in again, f"{len(records) - len(found)} results twice")
    _, _, records = windowed("hop", 15 * MIN, 5 * MIN, value=lambda r: (r["n"],))
    full, _ = model.windows(vitals, 15 * MIN, 5 * MIN, set(aside[("hop", "vitals")]) )
    sums = [json.loads(r[3]) for r in records]
    wrong = [r for r in sums if r.get("s") is not None and r["s"] != full[(r["device"], millis(r["window_start"]))][1]]
    check("hop: the new version's sums hold all there was, also of windows that were open when it came", not wrong and any(r.get("s") is not None for r in sums),
        f"{sum(r.get('s') is not None for r in sums)} of {len(sums)} results by the new version, {len(wrong)} wrong")
    ward_mark = min(marks)
    expected, found, _ = windowed("ward", 10 * MIN, 10 * MIN, keyed=False, may_return=True, required=lambda k: k[1] + 10 * MIN <= ward_mark)
    in_windows = sum(v[0][0] for v in found.values()) + sum(v[0] for k, v in expected.items() if k not in found)
    check("ward: rows in = rows counted + late + bad", total == in_windows + len(aside[("ward", "vitals")]) + len(bad), f"{total} = {in_windows} + {len(aside[('ward', 'vitals')])} + {len(bad)}")
    _, _, natural = model.sessions(vitals, 3 * MIN, ())
    done, still, _ = model.sessions(vitals, 3 * MIN, late("session", natural))
    found = group(node.read("out_session"), lambda r: (r["device"], millis(r["window_start"]), millis(r["window_end"])), lambda r: r["n"])
    good, again, said = differ("session", {**still, **done}, found, lambda k: k in done)
    check("session: results", good and not again, said)
    _, natural = model.firsts(vitals, ())
    expected, _ = model.firsts(vitals, late("once", natural))
    found = group(node.read("out_once"), lambda r: (r["device"], r["seq"]), lambda r: millis(r["ts"]))
    good, again, said = differ("once", {k: ts for k, (ts, _) in expected.items()}, found, lambda k: expected[k][0] < marks[expected[k][1]])
    check("once: each reading once, however often it was sent", good and not again, said)
    _, natural_v, natural_l = model.pairs(vitals, labs, (), ())
    expected, _, _ = model.pairs(vitals, labs, late("near", natural_v, may_return=True), late("near", natural_l, "labs"))
    found = collections.Counter((r["device"], r["seq"], millis(r["ts"]), millis(r["l_ts"]), r["k"]) for r in (json.loads(x[3]) for x in node.read("out_near")))
    least = [min(marks[p], model.last_mark(labs[p])) for p in range(PARTITIONS)]
    wrong = [k for k, n in found.items() if expected.get(k, (0,))[0] != n]
    stuck = [k for k, (n, p) in expected.items() if k not in found and max(k[2], k[3]) < least[p]]
    check("near: each reading with the labs before it", found and not wrong and not stuck, f"{sum(found.values())} pairs, {len(wrong)} wrong {wrong[:1]}, {len(stuck)} missing {stuck[:1]}")
    far = {(p, row[0]) for p, rows in enumerate(vitals) for row in rows if row[1] == FAR}
    late("low", far); late("soon", far, twice=True)
    expected, found, soon = model.alerts(vitals), collections.defaultdict(list), collections.defaultdict(list)
    for *_, value, _, _ in node.read("alerts"):
        r = json.loads(value); (soon if r["rule"] == "soon" else found)[r["subject"]].append((r["state"], millis(r["ts"])))
    again = [said_again(expected.get(d, []), soon.get(d, [])) for d in set(expected) | set(soon)]
    check("soon, at least once: each change of each alert, in order, the last of them again", soon and None not in again, f"{sum(map(len, soon.values()))} changes, {sum(n or 0 for n in again)} twice")
    wrong = [d for d in set(expected) | set(found) if expected.get(d, []) != found.get(d, [])]
    check("low: each change of each alert, once and in order", found and not wrong,
        f"{sum(map(len, found.values()))} changes of {len(found)} devices" + (f"; {len(wrong)} devices differ, first {wrong[0]}: {found.get(wrong[0])} and not {expected.get(wrong[0])}" if wrong else ""))
    # What has been counted since the node came back is what has been written since.
    for query in QUERIES + ["low", "soon"]:
        counts, since = metrics.get(f'vitalsql_query_late_rows_total{{query="{query}"}}', -1), (restarted, restarted)
        # A version of a query counts for itself, and takes over within a moment.
        if query == "hop": since = replaced
        most, least = (sum(at >= begun for at in written[query]) for begun in since)
        check(f"{query}: late rows by the metrics and by the topics", least <= counts <= most, f"{counts:.0f} and {least if least == most else f'{least} to {most}'} since it began")

def returns(vitals, when, stalls):
    """The rows that a partition brought just after it had been silent, as all do after this program has stood still: others and the clock may have left
    them behind."""
    found = set()
    for p, rows in enumerate(vitals):
        last, left = None, 0
        for row in rows:
            sent = when[(p, row[0])]
            if last is not None and sent - last > IDLE - 2 * MIN: left = sent + 5 * MIN
            if sent < left or any(at - 10 * MIN < sent < at + 10 * MIN for at in stalls): found.add((p, row[0]))
            last = sent
    return found

def said_again(expected, found):
    """How much of `expected` stands in `found` once more, where now and then it goes back and says again what stands there; None where it does anything else."""
    at, again = 0, 0
    for one in found:
        if at == len(expected) or expected[at] != one:
            if one not in expected[:at]: return None
            place = expected.index(one); again += at - place; at = place
        at += 1
    return again if at == len(expected) else None

def figures(node, samples, sent, log):
    thirds = [[s for s in samples if a <= s[0] < b] for a, b in ((0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1))]
    for name, place in (("resident", 1), ("disk", 2)):
        medians = [statistics.median(s[place] for s in third) if third else 0.0 for third in thirds]
        print(f"     {name}, median MiB of each third: " + ", ".join(f"{m:.0f}" for m in medians))
        if HOURS >= 12 and name == "resident": check("memory is flat", medians[2] <= medians[1] * 1.05 + 4, f"{medians[2] / medians[1] * 100 - 100:+.1f} %")
    held = node.metrics().get('vitalsql_log_size_bytes{topic="vitals"}', 0.0)
    written = sum(len(rows) for rows in log.rows["vitals"])
    print(f"     {written} readings, the topic holds {held / (1 << 20):.1f} MiB of them")
    if HOURS >= 12: check("the readings' topic holds what its retention says", held / written < 130 * (KEPT / HOUR + 2) / HOURS, f"{held / written:.0f} bytes for each that was written")

if __name__ == "__main__": main()
