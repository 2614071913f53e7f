#!/usr/bin/env python3
"""compare.py [--quick] [--rounds N] ..: what the same readings and the same SQL take on VitalSQL, on Apache Flink, on Kafka with Flink, and on DuckDB.

Each line is measured on one side and then on the other, and so on (A B A B ..); only one works at a time. Processes are new in every run. CPU time is
user and system time of all of a side's processes; what a start takes is measured apart and taken away. Prints Markdown on stdout,
what it is doing on stderr. Ends by itself, whatever happens, and ends the processes that it started, by their ids.
"""
import argparse, json, os, platform, shutil, signal, subprocess, sys, tempfile, time
import readings
from jobs import JOBS
from sides import HERE, Failed, Flink, VitalSQL, brokers
from table import Table, markdown

DELAY_MS = 5000
GOALS = {"tumble": 8, "hop": 8, "session": 8, "over": 40, "spikes": 40}
TOOL = os.path.join(HERE, "..", "..", "tests", "suites", "kafka_tool")
PARTS = ["flink", "file", "duckdb", "kafka", "own"]

def options():
    p = argparse.ArgumentParser(description="VitalSQL beside Apache Flink. VITALSQL names the binary; TMPDIR is where the data go.")
    p.add_argument("--quick", action="store_true", help="one small round of everything, in some minutes: shows that it works, its figures say little")
    p.add_argument("--rounds", type=int, help="pairs of runs per line, of which the medians count (5; quick 1)")
    p.add_argument("--rows", type=int, help="readings for windows, files and Kafka (10,000,000; quick 400,000)")
    p.add_argument("--over-rows", type=int, help="readings for OVER, which takes Flink long (2,000,000; quick 200,000)")
    p.add_argument("--patients", type=int, default=1000)
    p.add_argument("--parallelism", type=int, default=1, help="Flink's; with 1 it takes the least CPU for a row (1)")
    p.add_argument("--only", default="", help="some parts, comma between: " + ", ".join(PARTS))
    p.add_argument("--jobs", default=",".join(GOALS), help="of part flink, comma between: " + ", ".join(GOALS))
    p.add_argument("--heap", default="1g", help="heap of Kafka's broker (1g, as its start script has it)")
    p.add_argument("--limit", type=int, default=150, help="minutes after which it ends with what it has (150)")
    p.add_argument("--json", help="file for every single measurement, a line each")
    o = p.parse_args()
    for name, full, quick in ("rounds", 5, 1), ("rows", 10_000_000, 400_000), ("over_rows", 2_000_000, 200_000):
        if getattr(o, name) is None: setattr(o, name, quick if o.quick else full)
    o.only, o.jobs = o.only.split(",") if o.only else PARTS, o.jobs.split(",")
    return o

class Input:
    """A file of readings, and a node's data directory that has them in its topic."""
    def __init__(self, o, work, name, rows):
        self.rows, self.file, self.folder, self.binary = rows, os.path.join(work, f"{name}.jsonl"), os.path.join(work, name), o.binary
        say(f"{rows:,} readings into {name}.jsonl")
        with open(self.file, "w") as to: self.bytes = readings.write(argparse.Namespace(rows=rows, patients=o.patients, seed=1, disorder_ms=3000, late=0, late_ms=0), to)
        self.latest = readings.START + (rows // o.patients * 2 + 120) * 1000
    def load(self):
        """Into a topic of one partition, and what closes the last windows after them."""
        say(f"{self.rows:,} readings into a topic")
        self.node = VitalSQL(self.folder, self.binary)
        self.node.ready()
        self.node.stream(DELAY_MS)
        self.node.fill(self.file)
        self.node.close(self.latest)
        self.node.stop()

class Comparison:
    def __init__(self, o, work):
        self.o, self.work, self.table, self.own = o, work, Table(), ""
        self.flink, self.kafka, self.nodes, self.runs = Flink(os.path.join(work, "flink")), None, [], 0
        self.raw = open(o.json, "w") if o.json else None
        self.results = {}
    def tell(self, side, line, took):
        say(f"{line}, {side}: " + ", ".join(f"{k} {v:,.2f}" for k, v in took.items() if isinstance(v, (int, float))))
        if self.raw: self.raw.write(json.dumps({"side": side, "line": line, **took}) + "\n"); self.raw.flush()
        return took
    def input(self, name, rows):
        """The readings, made when first asked for."""
        if name not in self.results: self.results[name] = Input(self.o, self.work, name, rows)
        return self.results[name]
    def loaded(self, name, rows):
        of = self.input(name, rows)
        if not os.path.exists(of.folder):
            of.load()
            self.nodes.append(of.node)
        os.sync()
        return of
    def few(self):
        """So few readings that what they take is the start."""
        return self.input("few", 1000)

    def ours(self, of, job):
        """A query over what lies in the topic, from a node's start to its last result's commit: exactly once, every commit synced to the disk."""
        self.runs += 1
        name, node = f"run_{self.runs}", of.node
        started, cpu = node.ready()
        begun = time.monotonic()
        node.query(job, name)
        told = node.finished(name, of.rows + 1)
        took = {"start_s": started, "start_cpu_s": cpu, "wall_s": time.monotonic() - begun, "cpu_s": node.cpu() - cpu, "peak_mib": node.peak(), "rows_out": told["rows_out_total"]}
        seen = self.results.setdefault((id(of), job.name), told["rows_out_total"])
        if seen != told["rows_out_total"]: raise Failed(f"{job.name} had {seen} rows and now {told['rows_out_total']}")
        node.do(f"DROP QUERY {name}")
        node.do(f"DROP STREAM {name}")
        subprocess.run([node.binary, "topic", "delete", name, "--kafka", node.address], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        node.stop()
        return self.tell("VitalSQL", job.name, took)
    def flinks(self, of, job, *words):
        return self.flink.run([job.name], "--file", of.file, "--sink", "blackhole", "--delay-ms", DELAY_MS, "--parallelism", self.o.parallelism, *words)
    def compared(self, line, rows, ours, theirs, start, goal):
        """A pair: rows per second of CPU and of time, both without the start."""
        self.table.pair(line, "rows/CPU s", rows / ours["cpu_s"], rows / max(theirs["cpu_s"] - start["cpu_s"], 0.01), goal)
        self.table.pair(line, "rows/s", rows / ours["wall_s"], rows / max(theirs["wall_s"] - start["wall_s"], 0.01))

    def part_flink(self):
        for name in self.o.jobs:
            job = JOBS[name]
            of = self.loaded("readings-over", self.o.over_rows) if job.key[-1] == "ts" else self.loaded("readings", self.o.rows)
            for _ in range(self.o.rounds):
                start = self.tell("Flink", f"{name}, start", self.flinks(self.few(), job))
                theirs, ours = self.tell("Flink", name, self.flinks(of, job)), self.ours(of, job)
                self.compared(name, of.rows, ours, theirs, start, GOALS[name])
                self.table.pair(f"{name}, most memory", "MiB", ours["peak_mib"], theirs["peak_mib"], 10)
                self.table.pair("start, until it reads", "s", ours["start_s"], start["wall_s"], 50)
                self.table.pair("start", "CPU s", max(ours["start_cpu_s"], 0.01), start["cpu_s"])
    def part_file(self):
        """From a file to results: through the topic, which is what stays, on our side."""
        of, job = self.input("readings", self.o.rows), JOBS["tumble"]
        for _ in range(self.o.rounds):
            start, theirs = self.tell("Flink", "file, start", self.flinks(self.few(), job)), self.tell("Flink", "file", self.flinks(of, job))
            node = VitalSQL(os.path.join(self.work, "file"), self.o.binary)
            self.nodes.append(node)
            _, cpu = node.ready()
            node.stream(DELAY_MS)
            begun = time.monotonic()
            node.query(job, "minutes")
            client = node.fill(of.file)
            node.close(of.latest)
            node.finished("minutes", of.rows + 1)
            ours = self.tell("VitalSQL", "file", {"wall_s": time.monotonic() - begun, "cpu_s": node.cpu() - cpu + client["cpu_s"], "client_cpu_s": client["cpu_s"], "peak_mib": node.peak()})
            node.stop()
            shutil.rmtree(node.folder)
            self.compared("tumble from a file, produced and read", of.rows, ours, theirs, start, None)
    def part_duckdb(self):
        of = self.loaded("readings", self.o.rows)
        def duck(file): return json.loads(subprocess.run([self.flink.python, os.path.join(HERE, "duckdb_job.py"), file], check=True, stdout=subprocess.PIPE, text=True).stdout)
        for _ in range(self.o.rounds):
            start, theirs, ours = duck(self.few().file), self.tell("DuckDB", "tumble", duck(of.file)), self.ours(of, JOBS["tumble"])
            if ours["rows_out"] != theirs["rows"]: raise Failed(f"DuckDB has {theirs['rows']} minutes, VitalSQL {ours['rows_out']}")
            self.compared("tumble, against DuckDB", of.rows, ours, theirs, start, 1)
    def part_kafka(self):
        """Topic to topic, exactly once, both."""
        of, job = self.loaded("readings", self.o.rows), JOBS["tumble"]
        self.kafka = brokers.Apache(os.path.join(self.work, "kafka"), self.o.heap)
        started = self.kafka.started()
        def make(topic): subprocess.run([TOOL, "topics", "--bootstrap-server", self.kafka.address, "--create", "--topic", topic, "--partitions", "1", "--replication-factor", "1"], check=True, stdout=subprocess.DEVNULL)
        for topic, file in ("readings", of.file), ("few", self.few().file):
            make(topic)
            say(f"{topic} into Kafka")
            with open(file, "rb") as lines: subprocess.run([self.o.binary, "produce", topic, "--kafka", self.kafka.address], stdin=lines, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.remove(of.file)
        def run(topic):
            self.runs += 1
            make(f"results-{self.runs}")
            before = self.kafka.cpu()
            took = self.flink.run([job.name], "--kafka", self.kafka.address, "--topic", topic, "--jar", os.environ["FLINK_KAFKA_JAR"], "--sink", f"kafka:results-{self.runs}", "--delay-ms", DELAY_MS,
                                  "--parallelism", self.o.parallelism, "--checkpoint-ms", 1000)
            broker = self.kafka.cpu() - before
            return took | {"cpu_s": took["cpu_s"] + broker, "broker_cpu_s": broker, "peak_mib": took["peak_mib"] + self.kafka.memory()[0]}
        for _ in range(self.o.rounds):
            start, theirs, last = self.tell("Kafka and Flink", "start", run("few")), self.tell("Kafka and Flink", "tumble", run("readings")), self.runs
            ours = self.ours(of, job)
            self.compared("tumble, against Kafka and Flink", of.rows, ours, theirs, start, 30)
            self.table.pair("most memory, against Kafka and Flink", "MiB", ours["peak_mib"], theirs["peak_mib"], 10)
            self.table.pair("start, against Kafka and Flink", "s", ours["start_s"], started + start["wall_s"], 50)
        # What the last run of Flink's has committed.
        command = [self.o.binary, "consume", f"results-{last}", "--from-start", "--exit-at-end", "--kafka", self.kafka.address]
        rows = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.count(b"\n")
        if rows != ours["rows_out"]: raise Failed(f"Flink has {rows} minutes in Kafka, VitalSQL {ours['rows_out']}")
        self.kafka.stop()
    def part_own(self):
        """What needs no other side: `vitalsql bench sql`."""
        say("vitalsql bench sql")
        said = subprocess.run([self.o.binary, "bench", "sql"] + (["--quick"] if self.o.quick else []), check=True, stdout=subprocess.PIPE, text=True).stdout
        lines = [json.loads(line) for line in said.splitlines()]
        if self.raw: self.raw.write(said)
        self.own = own(lines)
    def run(self):
        for part in PARTS:
            if part in self.o.only: getattr(self, f"part_{part}")()
    def end(self):
        self.flink.stop()
        for node in self.nodes: node.stop()
        if self.kafka: self.kafka.stop()

def own(lines):
    """`vitalsql bench sql` as a table."""
    rows = [["what is looked at", "query", "readings", "patients", "partitions", "readings a CPU s", "readings a s", "state, MiB", "state a key and window, bytes"], ["---"] * 2 + ["---:"] * 7]
    for of in lines:
        if of["bench"] != "sql": continue
        state = of.get("state_bytes")
        rows.append([of["part"], of["query"], f"{of['readings']:,}", f"{of['patients']:,}", str(of["partitions"]), f"{of['per_cpu_second']:,.0f}", f"{of['per_second']:,.0f}",
                     "" if state is None else f"{state / (1 << 20):,.1f}", "" if state is None else f"{of['state_bytes_per_key_window']:,.0f}"])
    return "\n`vitalsql bench sql`: one process, the topic filled before, exactly once, every commit synced:\n\n" + markdown(rows) + "\n"

def say(text): print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)

def header(o):
    with open("/proc/cpuinfo") as f: model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine())
    return f"""# VitalSQL beside Apache Flink 2.3

{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({model}), Linux {platform.release()}. {o.rows:,} readings of {o.patients:,} patients ({o.over_rows:,} for OVER), JSON of about 155 bytes, one partition, Flink's parallelism {o.parallelism}.
{"Medians of " + str(o.rounds) + " pairs (lowest to highest), A B A B" if o.rounds > 1 else "One pair each"}; every run a new process. Rows per CPU second: readings over user and system time of all of a side's processes, the start taken away. Ratio: how many times better VitalSQL is.
VitalSQL reads a topic and writes a topic: exactly once, each commit synced to the disk. Flink reads a file and throws its results away, without checkpoints, except where Kafka is named: there both go from topic to topic exactly once, Flink with a checkpoint a second, and Kafka's broker (no fsync) is counted. DuckDB reads the file once, on one thread, and keeps the result in memory.
"""

def main():
    o = options()
    o.binary = os.path.realpath(os.environ["VITALSQL"])
    def over(number, frame): raise Failed(f"{o.limit} minutes are over" if number == signal.SIGALRM else f"it was ended by signal {number}")
    for number in signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP: signal.signal(number, over)
    signal.alarm(o.limit * 60)
    work, comparison, why = tempfile.mkdtemp(prefix="vitalsql-flink-"), None, None
    try:
        # The file, the topic, its write-ahead log, Kafka's topic.
        needed, free = o.rows * 155 * 4, shutil.disk_usage(work).free
        if free < needed: raise Failed(f"{work} has {free / 1e9:.0f} GB free and {needed / 1e9:.0f} may be used: see TMPDIR and --rows")
        comparison = Comparison(o, work)
        comparison.run()
    except (Failed, subprocess.CalledProcessError) as failed: why = failed
    finally:
        for number in signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP: signal.signal(number, signal.SIG_IGN)
        if comparison: comparison.end()
        shutil.rmtree(work, ignore_errors=True)
    if comparison: print(header(o) + "\n" + comparison.table.markdown() + comparison.own)
    if why: sys.exit(f"benches/flink: not complete: {why}")

main()
