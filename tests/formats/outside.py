#!/usr/bin/env python3
"""outside.py BINARY [ROWS [SEED]]: the formats of streams, as the programs that others use write and read them.

Random rows are written by Confluent's Avro and Protobuf serializers (fastavro and Google's protobuf beneath) through a registry on
loopback, by Python's csv and as Debezium's envelopes; what the node reads is compared with them row by row. What its queries write is
read by Confluent's deserializer, by Apache's own Avro, by what protoc makes of the schema that the node registered, and by Python's
csv. Damaged records among good ones are dead letters and cost nothing else; a registry that is ill stops the reading and loses nothing.
"""
import atexit, base64, csv, io, json, os, random, socket, subprocess, sys, tempfile, time, urllib.error, urllib.request

import avro.io, avro.schema
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

import make
from registry import Registry

BINARY = sys.argv[1]
ROWS = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(10**6)
PATIENCE = 60
passed = failed = 0


def check(name, ok, detail=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print(f"{'ok  ' if ok else 'FAIL'} {name} {detail}".rstrip(), flush=True)


def same(name, found, expected):
    """Compares lists; of what differs the first pair is shown (no patient has ever had these values)."""
    first = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
    ok = found == expected
    detail = f"{len(expected)} rows" if ok else f"{len(found)} of {len(expected)}, row {first}:\n  {found[first:first + 1]}\n  {expected[first:first + 1]}"
    check(name, ok, detail)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Node:
    def __init__(self):
        self.kafka, self.http, self.folder = free_port(), free_port(), tempfile.TemporaryDirectory(prefix="vitalsql-formats-")
        command = [BINARY, "serve", "--data-dir", os.path.join(self.folder.name, "data"), "--kafka", f"127.0.0.1:{self.kafka}", "--http", f"127.0.0.1:{self.http}"]
        self.log = os.path.join(self.folder.name, "log")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VITALSQL")}
        self.p = subprocess.Popen(command, stderr=open(self.log, "w"), stdin=subprocess.DEVNULL, env=environment)
        atexit.register(self.stop)
        until = time.time() + PATIENCE
        while True:
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=2).status == 200:
                    return
            except OSError:
                pass
            if self.p.poll() is not None or time.time() > until:
                sys.exit("the node does not get ready:\n" + open(self.log).read()[-3000:])
            time.sleep(0.05)

    def stop(self):
        self.p.terminate()
        self.p.wait(PATIENCE)

    def sql(self, text):
        """Rows of a SELECT, or nothing; the error's text where there is one."""
        run = subprocess.run([BINARY, "sql", "-c", text, "-o", "jsonl", "--url", f"http://127.0.0.1:{self.http}"], capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(run.stderr)
        return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]

    def refusal(self, text):
        try:
            self.sql(text)
        except RuntimeError as error:
            return str(error)
        return ""

    def queries(self):
        return {q["name"]: q for q in json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.http}/api/v1/queries", timeout=20))}

    def produce(self, topic, values, keys=None):
        producer = Producer({"bootstrap.servers": f"127.0.0.1:{self.kafka}", "linger.ms": 5})
        wrong = []
        for at, value in enumerate(values):
            while True:
                try:
                    producer.produce(topic, value=value, key=keys and keys[at], partition=0, on_delivery=lambda error, _: error and wrong.append(error))
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        left = producer.flush(PATIENCE)
        if left or wrong:
            sys.exit(f"{topic}: {left} not written, {wrong[:1]}")

    def consume(self, topic, count):
        """The first values of a topic's partition; fewer where no more come."""
        consumer = Consumer({"bootstrap.servers": f"127.0.0.1:{self.kafka}", "group.id": "outside", "enable.auto.commit": False})
        consumer.assign([TopicPartition(topic, 0, 0)])
        found, until = [], time.time() + PATIENCE
        while len(found) < count and time.time() < until:
            for message in consumer.consume(1_000, 0.5):
                if message.error() is None:
                    found.append(message.value())
        consumer.close()
        return found


def until(condition):
    end = time.time() + PATIENCE
    while time.time() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def plain(row):
    """A row as `make.py` shows it: SQL prints decimals as text, and bytes in hexadecimal."""
    read = {"dose": float, "dose2": float, "count": int, "raw": lambda text: base64.b64encode(bytes.fromhex(text)).decode()}
    return {k: read[k](v) if k in read and isinstance(v, str) else v for k, v in row.items() if k != "o"}


def damaged(values, chance):
    """Each value with a few bytes behind the frame changed, or cut."""
    out = []
    for value in values:
        value = bytearray(value)
        for _ in range(chance.randrange(1, 4)):
            value[chance.randrange(5, len(value))] = chance.randrange(256)
        out.append(bytes(value[:chance.randrange(5, len(value) + 1)]))
    return out


WIDE_COLUMNS = """patientid VARCHAR NOT NULL, ts TIMESTAMP(3) NOT NULL, heart_rate DOUBLE, spo2 REAL, n BIGINT, big BIGINT, flag BOOLEAN, ts2 TIMESTAMP(6),
    day DATE, clock TIME(6), dose DECIMAL(12, 3), dose2 DECIMAL(12, 3), kind VARCHAR, raw BYTES, tags ARRAY<VARCHAR>, device STRUCT<id VARCHAR, fw INT>, absent DOUBLE"""
OURS_COLUMNS = """id VARCHAR NOT NULL, hr DOUBLE, spo2 REAL, n INT, big BIGINT NOT NULL, flag BOOLEAN, ts TIMESTAMP(3) NOT NULL, day DATE, dose DECIMAL(10, 2),
    raw BYTES, tags ARRAY<VARCHAR>, device STRUCT<id VARCHAR, fw BIGINT>"""


def avro_part(node, registry, chance):
    client, url = SchemaRegistryClient({"url": registry.url}), registry.url
    context = lambda topic: SerializationContext(topic, MessageField.VALUE)
    rows = [make.wide(chance) for _ in range(ROWS)]
    # Half-way the writer's schema changes: a field more in front, and one field gone that a column reads.
    later = json.loads(json.dumps(make.WIDE))
    later["fields"] = [{"name": "site", "type": "string", "default": "x"}] + [f for f in later["fields"] if f["name"] != "n"]
    half = ROWS // 2
    one, two = AvroSerializer(client, json.dumps(make.WIDE)), AvroSerializer(client, json.dumps(later))
    values = [one(r, context("wide")) for r in rows[:half]] + [two({**r, "site": "y"}, context("wide")) for r in rows[half:]]
    node.sql(f"CREATE STREAM wide (o BIGINT METADATA FROM 'offset', {WIDE_COLUMNS}) WITH ('topic' = 'wide', 'partitions' = '1', 'format' = 'avro', 'schema.registry.url' = '{url}')")
    node.produce("wide", values)
    expected = [make.shown(r) for r in rows[:half]] + [{**make.shown(r), "n": None} for r in rows[half:]]
    found = node.sql("SELECT * FROM wide ORDER BY o")
    same("avro: what fastavro writes, under two schemas, is read", [plain(r) for r in found], expected)
    node.sql(f"CREATE STREAM wide_like LIKE SAMPLE OF TOPIC 'wide' WITH ('format' = 'avro', 'schema.registry.url' = '{url}')")
    found = node.sql("SELECT patientid, ts, dose, device FROM wide_like")
    check("avro: a stream like a sample of the topic reads it too", len(found) == ROWS, f"{len(found)} rows")
    check("avro: a schema is asked of the registry once a stream", registry.told("GET", "/schemas/ids/") <= 5, f"{registry.told('GET', '/schemas/ids/')} questions")

    # Through a query, and out again.
    rows = [make.ours(chance) for _ in range(ROWS)]
    node.sql(f"CREATE STREAM src ({OURS_COLUMNS}) WITH ('topic' = 'src', 'partitions' = '1', 'format' = 'avro', 'schema.registry.url' = '{url}')")
    node.sql(f"CREATE STREAM ours ({OURS_COLUMNS}) WITH ('topic' = 'ours', 'partitions' = '1', 'format' = 'avro', 'schema.registry.url' = '{url}')")
    node.sql("CREATE QUERY copy AS INSERT INTO ours SELECT * FROM src")
    write = AvroSerializer(client, json.dumps(make.OURS))
    values = [write(r, context("src")) for r in rows]
    node.produce("src", values)
    written = node.consume("ours", ROWS)
    own = registry.schemas[int.from_bytes(written[0][1:5], "big") - 1]["schema"]
    check("avro: the schema that was registered is the writer's own", json.loads(own) == make.OURS)
    read = AvroDeserializer(client)
    same("avro: what a query writes, Confluent's deserializer reads", [read(v, context("ours")) for v in written], rows)
    reader = avro.io.DatumReader(avro.schema.parse(own))
    apache = lambda value: reader.read(avro.io.BinaryDecoder(io.BytesIO(value[5:])))
    same("avro: and Apache's own Avro reads the same of both", [apache(v) for v in written], [apache(v) for v in values])
    same("avro: byte for byte what fastavro writes", [v[5:] for v in written], [v[5:] for v in values])

    # Damage among the good: each record is a row or a dead letter, and the good are all there.
    bad = damaged(values, chance) + [b"\0\0\0\0\x63xy", b"no frame", b"", b"\0\0\0"]
    mixed = [v for pair in zip(values, bad) for v in pair] + bad[len(values):]
    node.sql(f"CREATE STREAM mixed (o BIGINT METADATA FROM 'offset', {OURS_COLUMNS}) WITH ('topic' = 'mixed', 'partitions' = '1', 'format' = 'avro', 'schema.registry.url' = '{url}')")
    node.sql("CREATE QUERY sift AS INSERT INTO sifted SELECT o, id, big FROM mixed")
    node.produce("mixed", mixed)
    done = lambda: (q := node.queries()["sift"]) and q["lag"] == 0 and q["rows_in"] > 0
    check("avro: a query gets through damaged records", until(done))
    found = node.sql("SELECT o, id, big FROM mixed ORDER BY o")
    good = [(r["id"], r["big"]) for r in found if r["o"] < 2 * len(values) and r["o"] % 2 == 0]
    same("avro: none of the good is lost among the damaged", good, [(r["id"], r["big"]) for r in rows])
    letters = node.consume("mixed.dlq", len(mixed) - len(found))
    check("avro: each record is a row or a dead letter", len(found) + len(letters) == len(mixed), f"{len(found)} rows and {len(letters)} dead letters of {len(mixed)} records")
    check("avro: whose records are the letters' own", all(l in mixed for l in letters))

    # A registry that is ill stops the reading; when it is well again, nothing is missing.
    fresh = json.loads(json.dumps(make.OURS))
    fresh["fields"].append({"name": "extra", "type": ["null", "long"], "default": None})
    third = AvroSerializer(client, json.dumps(fresh))
    more = [third(r, context("src")) for r in rows[:100]]
    registry.ill = True
    node.produce("src", more)
    stuck = until(lambda: "no leader" in json.dumps(node.queries()["copy"]))
    check("avro: a registry that is ill is told by the query", stuck, json.dumps(node.queries()["copy"])[:200] if not stuck else "")
    registry.ill = False
    written = node.consume("ours", ROWS + 100)
    same("avro: and nothing is lost when it is well again", [read(v, context("ours")) for v in written[ROWS:]], rows[:100])


def protobuf_part(node, registry, chance):
    client, url = SchemaRegistryClient({"url": registry.url}), registry.url
    context = lambda topic: SerializationContext(topic, MessageField.VALUE)
    Vitals, Ours = make.generated()
    options = {"use.deprecated.format": False, "skip.known.types": True}
    write = ProtobufSerializer(Vitals, client, options)
    made = [make.vitals_message(Vitals, chance) for _ in range(ROWS)]
    node.sql(f"""CREATE STREAM pv (o BIGINT METADATA FROM 'offset', patientid VARCHAR NOT NULL, heart_rate DOUBLE, spo2 REAL NOT NULL, n INT NOT NULL, big BIGINT, "count" DECIMAL(20, 0), crc BIGINT,
        "offset" BIGINT, flag BOOLEAN, ts TIMESTAMP(3), epoch_ms TIMESTAMP(3) NOT NULL, day DATE, dose DOUBLE, kind VARCHAR, raw BYTES, tags ARRAY<VARCHAR>, steps ARRAY<BIGINT>, kinds ARRAY<VARCHAR>,
        device STRUCT<id VARCHAR, fw INT, parts ARRAY<STRUCT<id VARCHAR>>>, text VARCHAR, code INT, absent INT)
        WITH ('topic' = 'pv', 'partitions' = '1', 'format' = 'protobuf', 'schema.registry.url' = '{url}')""")
    values = [write(message, context("pv")) for message, _ in made]
    node.produce("pv", values)
    found = node.sql("SELECT * FROM pv ORDER BY o")
    same("protobuf: what Confluent's serializer writes is read", [plain(r) for r in found], [shown for _, shown in made])

    node.sql(f"CREATE STREAM pv_like LIKE SAMPLE OF TOPIC 'pv' WITH ('format' = 'protobuf', 'schema.registry.url' = '{url}')")
    found = node.sql("SELECT patientid, ts, device FROM pv_like")
    check("protobuf: a stream like a sample of the topic reads it too", len(found) == ROWS, f"{len(found)} rows")

    columns = OURS_COLUMNS + ', steps ARRAY<BIGINT>, "on" BOOLEAN NOT NULL'
    node.sql(f"CREATE STREAM psrc ({columns}) WITH ('topic' = 'psrc', 'partitions' = '1', 'format' = 'protobuf', 'schema.registry.url' = '{url}')")
    node.sql(f"CREATE STREAM pours ({columns}) WITH ('topic' = 'pours', 'partitions' = '1', 'format' = 'protobuf', 'schema.registry.url' = '{url}')")
    node.sql("CREATE QUERY pcopy AS INSERT INTO pours SELECT * FROM psrc")
    made = [make.ours_message(Ours, chance) for _ in range(ROWS)]
    write = ProtobufSerializer(Ours, client, options)
    values = [write(message, context("psrc")) for message, _ in made]
    node.produce("psrc", values)
    written = node.consume("pours", ROWS)
    own = registry.schemas[int.from_bytes(written[0][1:5], "big") - 1]
    Own = compiled(own["schema"], "pours")
    check("protobuf: protoc takes the schema that was registered", Own is not None)
    # The messages differ in name alone, so one's bytes are the other's.
    parsed = [Own.FromString(v[6:]) for v in written]
    same("protobuf: what a query writes, Google's protobuf reads", [Ours.FromString(p.SerializeToString()) for p in parsed], [m for m, _ in made])
    same("protobuf: byte for byte what it writes", [v[5:] for v in written], [v[5:] for v in values])

    bad = damaged(values, chance)
    mixed = [v for pair in zip(values, bad) for v in pair]
    node.sql(f"CREATE STREAM pmixed (o BIGINT METADATA FROM 'offset', {columns}) WITH ('topic' = 'pmixed', 'partitions' = '1', 'format' = 'protobuf', 'schema.registry.url' = '{url}')")
    node.sql("CREATE QUERY psift AS INSERT INTO psifted SELECT o, id, big FROM pmixed")
    node.produce("pmixed", mixed)
    check("protobuf: a query gets through damaged records", until(lambda: (q := node.queries()["psift"]) and q["lag"] == 0 and q["rows_in"] > 0))
    found = node.sql("SELECT o, id, big FROM pmixed ORDER BY o")
    same("protobuf: none of the good is lost among the damaged", [(r["id"], r["big"]) for r in found if r["o"] % 2 == 0], [(m.id, m.big) for m, _ in made])
    letters = node.consume("pmixed.dlq", len(mixed) - len(found))
    check("protobuf: each record is a row or a dead letter", len(found) + len(letters) == len(mixed), f"{len(found)} rows and {len(letters)} dead letters of {len(mixed)} records")


def compiled(text, name):
    """The message of a schema, as protoc makes it."""
    from grpc_tools import protoc
    import grpc_tools, importlib
    folder = tempfile.mkdtemp()
    # Another package: one process knows a name once.
    open(os.path.join(folder, f"own_{name}.proto"), "w").write(text.replace('syntax = "proto3";', 'syntax = "proto3";\npackage own;'))
    if protoc.main(["protoc", f"-I{folder}", f"-I{os.path.join(os.path.dirname(grpc_tools.__file__), '_proto')}", f"--python_out={folder}", f"own_{name}.proto"]):
        return None
    sys.path.insert(0, folder)
    return getattr(importlib.import_module(f"own_{name}_pb2"), name)


def csv_part(node, chance):
    pieces = ["", "a", ",", '"', "\n", "\r\n", ";", " ", "é😀", "NULL", "'", "x\ty"]
    rows = [["".join(chance.choices(pieces, k=chance.randrange(4))), chance.choice([None, -1.5, 0.1, 1e22, 5e-324]), chance.choice([None, "", "z"]), chance.randrange(10**12)] for _ in range(ROWS)]
    quoted = lambda text: '"' + text.replace('"', '""') + '"'

    def line(row):
        # Python's csv, and by hand where an empty text is no NULL.
        out = io.StringIO()
        csv.writer(out, lineterminator="\r\n").writerow([row[0], "" if row[1] is None else row[1]])
        text = out.getvalue()[:-2]
        text = '""' + text if text.startswith(",") else text
        return f"{text},{'' if row[2] is None else quoted(row[2])},{row[3]}{chance.choice(['', chr(10), chr(13) + chr(10)])}".encode()

    columns = "name VARCHAR NOT NULL, x DOUBLE, note VARCHAR, ts TIMESTAMP(3)"
    node.sql(f"CREATE STREAM c (o BIGINT METADATA FROM 'offset', {columns}) WITH ('topic' = 'c', 'partitions' = '1', 'format' = 'csv')")
    node.sql(f"CREATE STREAM d ({columns}) WITH ('topic' = 'd', 'partitions' = '1', 'format' = 'csv', 'csv.delimiter' = ';')")
    node.sql("CREATE QUERY recut AS INSERT INTO d SELECT name, x, note, ts FROM c")
    node.produce("c", [line(r) for r in rows])
    found = node.sql("SELECT name, x, note, CAST(ts AS BIGINT) AS ms FROM c ORDER BY o")
    same("csv: what Python's csv writes is read", [[r["name"], r["x"], r["note"], r["ms"]] for r in found], rows)
    lines = [next(csv.reader(io.StringIO(v.decode(), newline=""), delimiter=";")) for v in node.consume("d", ROWS)]
    same("csv: what a query writes, Python's csv reads", [[l[0], None if l[1] == "" else float(l[1]), l[2]] for l in lines], [[r[0], r[1], r[2] or ""] for r in rows])


def debezium_part(node, chance):
    table, changes, keys = {}, [], []
    for at in range(ROWS):
        id = chance.randrange(40)
        row = {"id": id, "bed": chance.choice(["1", "2", None]), "born": chance.randrange(-20_000, 20_000), "changed": chance.randrange(4 * 10**15), "dose": f"{chance.randrange(-10**6, 10**6) / 100:.2f}"}
        before = table.get(id)
        op = "d" if before and chance.random() < 0.3 else "u" if before else chance.choice("cr")
        after = None if op == "d" else row
        # Postgres tells of the row before its key alone, unless it is asked for all.
        envelope = {"before": before and chance.choice([before, {"id": id}]), "after": after, "source": {"table": "beds", "lsn": at}, "op": op, "ts_ms": at}
        changes.append(json.dumps({"schema": {"type": "struct"}, "payload": envelope} if chance.random() < 0.5 else envelope).encode())
        keys.append(json.dumps({"id": id}).encode())
        if after is None:
            del table[id]
            changes.append(None)
            keys.append(keys[-1])
        else:
            table[id] = row
    node.sql("CREATE TABLE beds (id BIGINT, bed VARCHAR, born DATE, changed TIMESTAMP(6), dose DECIMAL(10, 2), PRIMARY KEY (id) NOT ENFORCED) WITH ('topic' = 'beds', 'partitions' = '1', 'format' = 'debezium', 'timestamp.unit' = 'us')")
    node.sql("CREATE STREAM moves (id BIGINT, bed VARCHAR) WITH ('topic' = 'beds', 'format' = 'debezium')")
    node.produce("beds", changes, keys)
    found = node.sql("SELECT id, bed, CAST(born AS INT) AS born, CAST(changed AS BIGINT) AS changed, CAST(dose AS VARCHAR) AS dose FROM beds ORDER BY id")
    same("debezium: a table is what the changes leave", found, [table[id] for id in sorted(table)])
    kept = [json.loads(c) for c in changes if c]
    kept = [c.get("payload", c) for c in kept]
    found = node.sql("SELECT count(*) AS n FROM moves")
    check("debezium: a stream is what each change left", found[0]["n"] == sum(c["op"] != "d" for c in kept), f"{found[0]['n']} rows of {len(kept)} changes")


def refusals(node, registry):
    for what, sql, says in [
        ("a format without its registry", "CREATE STREAM e1 (a INT) WITH ('format' = 'avro')", "needs 'schema.registry.url'"),
        ("a password in the registry's address", "CREATE STREAM e2 (a INT) WITH ('format' = 'avro', 'schema.registry.url' = 'http://u:p@h')", "no user"),
        ("an option of another format", "CREATE STREAM e3 (a INT) WITH ('csv.null' = '-')", "is of format csv"),
        ("a nested column in CSV", "CREATE STREAM e4 (a ARRAY<INT>) WITH ('format' = 'csv')", "in a line of CSV"),
        ("a NULL that has the delimiter in it", "CREATE STREAM e5 (a INT) WITH ('format' = 'csv', 'csv.null' = 'a,b')", "delimiter"),
        ("a key of a connector's", "CREATE STREAM e6 (a INT) WITH ('format' = 'debezium', 'key' = 'a')", "has no 'key'"),
        ("an unknown format", "CREATE STREAM e7 (a INT) WITH ('format' = 'xml')", "write one of"),
        ("writing a connector's stream", "INSERT INTO moves (id) VALUES (1)", "written by its connector alone"),
    ]:
        error = node.refusal(sql)
        check(f"refused: {what}", says in error, "" if says in error else repr(error))
    node.sql(f"""CREATE STREAM e8 ("a b" INT) WITH ('format' = 'avro', 'schema.registry.url' = '{registry.url}')""")
    error = node.refusal("CREATE QUERY e9 AS INSERT INTO e8 SELECT code AS \"a b\" FROM pv")
    check("refused: a name that Avro has not", "letters, digits and underscores" in error, "" if "letters" in error else repr(error))


def main():
    begun = time.time()
    print(f"seed {SEED}, {ROWS} rows", flush=True)
    chance, registry, node = random.Random(SEED), Registry(), Node()
    avro_part(node, registry, chance)
    protobuf_part(node, registry, chance)
    csv_part(node, chance)
    debezium_part(node, chance)
    refusals(node, registry)
    text = open(node.log).read()
    check("nothing panicked", "panicked" not in text, text[-2000:] if "panicked" in text else "")
    print(f"{passed} passed, {failed} failed in {time.time() - begun:.1f} s (seed {SEED})")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
