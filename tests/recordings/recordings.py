#!/usr/bin/env python3
"""recordings.py BINARY DATA: real recordings through the Kafka port, their windows against independently computed answers.

DATA is a folder of open recordings with expected answers (bidmc, cinc2019_sepsis); it is not part of the project, and the
script says so and ends well where it is not there. Each recording is written with `vitalsql replay` in event-time order, keyed
by patient; its tumbling and hopping windows and sessions of every vital are read back and compared row for row (relative 1e-9).
"""
import atexit, csv, datetime, gzip, io, json, os, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.request

BINARY, DATA = sys.argv[1], sys.argv[2]
SETS = [
    ("bidmc", "replay_all.ndjson.gz", ["heart_rate", "pulse_rate", "resp_rate", "spo2"], (60, "tumbling_60s.csv"), (300, 60, "hopping_300s_by_60s.csv"), (10, "sessions_gap_10s.csv")),
    ("cinc2019_sepsis", "replay_core.ndjson.gz", ["heart_rate", "resp_rate", "spo2", "sbp", "dbp", "map", "temp_c", "etco2"], (14400, "tumbling_14400s.csv.gz"), (43200, 14400, "hopping_43200s_by_14400s.csv.gz"), None),
]

def free_port():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]; s.close(); return port

def sql(http, text):
    r = subprocess.run([BINARY, "sql", "-c", text, "-o", "jsonl", "--url", f"http://127.0.0.1:{http}"], capture_output=True, text=True)
    if r.returncode: sys.exit(r.stderr)
    return [json.loads(l) for l in r.stdout.splitlines()]

def expected(path):
    raw = gzip.open(path, "rt") if path.endswith(".gz") else open(path)
    return {(r["patient_id"], r["vital"], r["window_start"], r["window_end"]): r for r in csv.DictReader(raw)}

def near(a, b):
    if b in ("", None): return a is None
    return a is not None and abs(float(a) - float(b)) <= 1e-9 * max(1.0, abs(float(b)))

def main():
    passed = failed = 0
    for name, recording, vitals, (size, tumbling), (hop_size, slide, hopping), sessions in SETS:
        folder = os.path.join(DATA, name)
        if not os.path.exists(os.path.join(folder, recording)):
            print(f"skipped {name}: the recording is not here"); continue
        base = tempfile.mkdtemp(prefix="vitalsql-recording-"); kafka, http = free_port(), free_port()
        node = subprocess.Popen([BINARY, "serve", "--data-dir", base, "--kafka", f"127.0.0.1:{kafka}", "--http", f"127.0.0.1:{http}"], stderr=open(os.path.join(base, "err.txt"), "w"))
        atexit.register(node.kill)
        while True:
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{http}/readyz", timeout=1).status == 200: break
            except OSError: time.sleep(0.05)
        columns = ", ".join(f"{v} DOUBLE" for v in vitals)
        sql(http, f"CREATE STREAM r (patient_id VARCHAR NOT NULL, {columns}, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH ('partitions' = '4', 'key' = 'patient_id', 'key.partitioner' = 'murmur2')")
        parts = ", ".join(f"count({v}) AS {v}_n, sum({v}) AS {v}_sum, avg({v}) AS {v}_avg, min({v}) AS {v}_min, max({v}) AS {v}_max, stddev({v}) AS {v}_stddev" for v in vitals)
        for query, window in [("t", f"TUMBLE(TABLE r, DESCRIPTOR(ts), INTERVAL '{size}' SECOND)"), ("h", f"HOP(TABLE r, DESCRIPTOR(ts), INTERVAL '{slide}' SECOND, INTERVAL '{hop_size}' SECOND)")]:
            sql(http, f"CREATE QUERY {query} AS INSERT INTO {query}_out SELECT patient_id, window_start, window_end, count(*) AS n, {parts} FROM TABLE({window}) GROUP BY patient_id, window_start, window_end EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '10' SECOND")
        # A session of a vital is one of the rows that have it; "*" is one of all rows.
        for v in (["*"] + vitals) if sessions else []:
            of, name_ = ("", "s_all") if v == "*" else (f" WHERE {v} IS NOT NULL", f"s_{v}")
            sql(http, f"CREATE QUERY {name_} AS INSERT INTO {name_}_out SELECT patient_id, window_start, window_end, count(*) AS n FROM r{of} GROUP BY patient_id, SESSION(ts, INTERVAL '{sessions[0]}' SECOND) EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '10' SECOND")
        begun = time.time()
        subprocess.run([BINARY, "replay", os.path.join(folder, recording), "--topic", "r", "--kafka", f"127.0.0.1:{kafka}"], check=True, stderr=subprocess.DEVNULL)
        # The last windows close by the clock, ten seconds after the last row.
        last, since = None, time.time()
        while time.time() - since < 90:
            now = [(q["name"], q["rows_in"], q["rows_out"], q["lag"], q["late"], q["failed"]) for q in json.load(urllib.request.urlopen(f"http://127.0.0.1:{http}/api/v1/queries"))]
            if now != last: last, since = now, time.time()
            elif time.time() - since > 13: break
            time.sleep(0.5)
        for query, file in [("t", tumbling), ("h", hopping)]:
            want, got = expected(os.path.join(folder, "expected", file)), {}
            for row in sql(http, f"SELECT * FROM {query}_out"):
                key = lambda v: (row["patient_id"], v, row["window_start"], row["window_end"])
                got[key("*")] = {"n": row["n"]}
                for v in vitals:
                    if row[f"{v}_n"]: got[key(v)] = {k: row[f"{v}_{k}"] for k in ("n", "sum", "avg", "min", "max", "stddev")}
            wrong = [k for k in want if k not in got or not all(near(got[k].get(f), want[k][f]) for f in (("n",) if k[1] == "*" else set(want[k]) & {"n", "sum", "avg", "min", "max", "stddev"}))]
            extra = [k for k in got if k not in want]
            ok = not wrong and not extra
            passed, failed = passed + ok, failed + (not ok)
            print(f"{'ok  ' if ok else 'FAIL'} {name} {file}: {len(want)} rows expected, {len(wrong)} wrong or missing, {len(extra)} too many", flush=True)
            for k in (wrong + extra)[:3]: print("    ", k, want.get(k), got.get(k))
        if sessions:
            gap, file = sessions
            raw = csv.DictReader(open(os.path.join(folder, "expected", file)))
            want = {(r["patient_id"], r["vital"], r["session_start"], r["session_end"]): int(r["n"]) for r in raw if r["vital"] in vitals + ["*"]}
            back = lambda end: (datetime.datetime.fromisoformat(end.replace("Z", "+00:00")) - datetime.timedelta(seconds=gap)).strftime("%Y-%m-%dT%H:%M:%SZ")
            got = {}
            for v in ["*"] + vitals:
                for row in sql(http, f"SELECT * FROM s_{'all' if v == '*' else v}_out"):
                    got[(row["patient_id"], v, row["window_start"].replace(".000Z", "Z"), back(row["window_end"]))] = row["n"]
            wrong, extra = [k for k in want if got.get(k) != want[k]], [k for k in got if k not in want]
            ok = not wrong and not extra
            passed, failed = passed + ok, failed + (not ok)
            print(f"{'ok  ' if ok else 'FAIL'} {name} {file}: {len(want)} rows expected, {len(wrong)} wrong or missing, {len(extra)} too many", flush=True)
            for k in (wrong + extra)[:3]: print("    ", k, want.get(k), got.get(k))
        print(f"     {name}: {last}, {time.time() - begun:.0f} s", flush=True)
        node.send_signal(signal.SIGTERM); node.wait(timeout=30); shutil.rmtree(base)
    print(f"recordings: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)

main()
