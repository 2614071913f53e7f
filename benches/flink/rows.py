#!/usr/bin/env python3
"""rows.py [--rows N] [--input FILE] ..: the same readings and the same SQL through Apache Flink and through VitalSQL, and every row compared.

VitalSQL answers twice: a SELECT over the topic's history, and a continuous query from topic to topic, exactly once, whose last windows a
reading of a later time closes. All is compared exactly, averages to 1e-9. One partition, parallelism 1. Prints Markdown; ends with 1 where a row differs.
"""
import argparse, json, os, shutil, signal, sys, tempfile, time
from functools import lru_cache
from datetime import datetime, timezone
import readings
from jobs import JOBS
from sides import CLOSER, Failed, Flink, VitalSQL

# Times lie on a grid of 10 ms, and with this delay watermarks never do: whether a window ends at its end or a millisecond before it, as engines
# have it differently, then makes no difference, and what is late is late for both.
LATE_DELAY_MS = 5005

@lru_cache(200_000)
def millis(text):
    """Flink's and our way to write a time, as milliseconds."""
    whole, _, part = text.rstrip("Z").replace(" ", "T").partition(".")
    return int(datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp()) * 1000 + int(part.ljust(3, "0")[:3] or 0)

def row_of(job):
    """From what a side said to a row: what it is told apart by, what must be equal, and what may differ by rounding."""
    exact = [name for name in job.names if name not in job.key and name not in job.averages]
    def value(said, name):
        found = said.get(name)
        return millis(found) if name in job.times and found is not None else found
    def of(said): return tuple(value(said, name) for name in job.key), tuple(value(said, name) for name in exact), tuple(said.get(name) for name in sorted(job.averages))
    return of

def close(a, b): return a is b or (a is not None and b is not None and abs(a - b) <= 1e-9 * max(1, abs(a), abs(b)))

def by_key(rows):
    """The rows of each key. Several where a patient has two readings of one time; their order is nobody's promise."""
    found = {}
    for key, exact, rounded in rows: found.setdefault(key, []).append((exact, rounded))
    for of in found.values():
        if len(of) > 1: of.sort(key=lambda row: tuple((v is None, v or 0) for v in row[0] + row[1]))
    return found

def differences(theirs, ours, peers=True):
    """(rows of theirs, rows of ours, those that are no equal pair, some of those). Without `peers`, keys of several rows are left out."""
    wrong, shown = 0, []
    if not peers: theirs, ours = ({key: of for key, of in side.items() if len(of) == 1} for side in (theirs, ours))
    for key in theirs.keys() | ours.keys():
        a, b = theirs.get(key, []), ours.get(key, [])
        same = sum(x[0] == y[0] and all(map(close, x[1], y[1])) for x, y in zip(a, b))
        if same < max(len(a), len(b)):
            wrong += max(len(a), len(b)) - same
            if len(shown) < 5: shown.append(f"{key}: Flink {a}, VitalSQL {b}")
    return sum(map(len, theirs.values())), sum(map(len, ours.values())), wrong, shown

def on_time(source, target, delay_ms):
    """Leaves out what is behind the watermark when it comes; tells how many rows that were."""
    latest, dropped = None, 0
    with open(source) as lines, open(target, "w") as to:
        for line in lines:
            at = json.loads(line)["ts"]
            if latest is not None and at < latest - delay_ms: dropped += 1; continue
            latest = at if latest is None else max(latest, at)
            to.write(line)
    return dropped

class Rows:
    def __init__(self, o, work):
        self.o, self.work, self.table, self.notes, self.wrong = o, work, [], [], 0
        self.flink, self.node, self.inputs = Flink(os.path.join(work, "flink")), None, 0
    def end(self):
        self.flink.stop()
        if self.node: self.node.stop()
    def run(self):
        o = self.o
        for path in o.input: self.compare(os.path.basename(path), os.path.abspath(path), o.delay_ms)
        if o.input and not o.generated: return
        for name, late, delay_ms in ("on time", 0, o.delay_ms), ("late rows", o.late, LATE_DELAY_MS):
            path = os.path.join(self.work, "readings.jsonl")
            with open(path, "w") as to: readings.write(argparse.Namespace(rows=o.rows, patients=o.patients, seed=o.seed, disorder_ms=min(3000, delay_ms), late=late, late_ms=400_000), to)
            self.compare(name, path, delay_ms, late > 0)
            os.remove(path)
    def compare(self, name, path, delay_ms, late=False):
        """All jobs over one file."""
        say(f"{name}: Flink")
        self.inputs += 1
        folder = os.path.join(self.work, f"flink-{self.inputs}")
        words = ["--delay-ms", delay_ms] + (["--watermark-per-row"] if late else [])
        frames = [job for job in self.o.jobs if JOBS[job].by_row] if late else []
        windows = [job for job in self.o.jobs if job not in frames]
        if windows: self.flink.run(windows, "--file", path, "--sink", f"json:{folder}", *words)
        if frames:
            # Flink's OVER takes a reading behind the watermark as long as its key has not answered for a later one; the contract here is the watermark, as for all else.
            prompt = os.path.join(self.work, "on-time.jsonl")
            dropped = on_time(path, prompt, delay_ms)
            self.notes.append(f"{name}: OVER leaves out what is behind the watermark, {dropped} readings. Flink leaves it out only where that patient has had a result of a later time, so it was given the other readings.")
            self.flink.run(frames, "--file", prompt, "--sink", f"json:{folder}", *words)
            os.remove(prompt)
        say(f"{name}: VitalSQL")
        with open(path) as lines:
            count, latest = 0, 0
            for line in lines: count += 1; latest = max(latest, json.loads(line)["ts"])
        self.node = node = VitalSQL(os.path.join(self.work, f"vitalsql-{self.inputs}"), self.o.binary)
        node.ready()
        node.stream(delay_ms)
        node.fill(path)
        waiting = []
        for job in map(JOBS.get, self.o.jobs):
            row = row_of(job)
            theirs = by_key(map(row, json_files(os.path.join(folder, job.name))))
            shutil.rmtree(os.path.join(folder, job.name))
            history = by_key(row(dict(zip(job.names, values))) for values in node.sql(job.select))
            self.tell(name, count, job, "history", theirs, history)
            del history
            node.query(job, f"answers_{job.name}")
            waiting.append((job, theirs))
        node.close(latest)
        for job, theirs in waiting:
            row = row_of(job)
            told = node.finished(f"answers_{job.name}", count + 1)
            stream = by_key(row(said) for said in node.results(f"answers_{job.name}") if CLOSER not in (said.get("patient_id"), said.get("a_patient"), said.get("b_patient")))
            self.tell(name, count, job, "continuous", theirs, stream, told["late_rows_total"])
        node.stop()
        shutil.rmtree(node.folder)
        self.node = None
    def tell(self, name, count, job, how, theirs, ours, late=None):
        flinks, mine, wrong, shown = differences(theirs, ours, job.peers)
        self.wrong += wrong + (not flinks)
        say(f"{name}, {job.name}, {how}: {flinks} rows of Flink's, {mine} of ours, {wrong} differ" + (f", {late} late" if late else ""))
        for line in shown: say("  " + line)
        self.table.append([name, f"{count:,}", job.name, how, f"{flinks:,}", f"{mine:,}", "" if late is None else f"{late:,}", str(wrong)])
    def markdown(self):
        head = [["input", "readings", "job", "VitalSQL's", "Flink's rows", "VitalSQL's rows", "of the readings late", "differences"], ["---"] + ["---:"] + ["---"] * 2 + ["---:"] * 4]
        return "\n".join("| " + " | ".join(row) + " |" for row in head + self.table) + "\n" + "".join(f"\n- {note}" for note in self.notes)

def json_files(folder):
    """What Flink's files hold; the names of those that are whole begin with part-."""
    for name in sorted(os.listdir(folder)):
        if not name.startswith("part-"): raise Failed(f"Flink left {name}, which is not whole")
        with open(os.path.join(folder, name)) as lines: yield from map(json.loads, lines)

def say(text): print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, default=600_000, help="readings of each generated input (600,000)")
    p.add_argument("--patients", type=int, default=200)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--late", type=float, default=0.02, help="share of late readings in the second input (0.02)")
    p.add_argument("--input", action="append", default=[], metavar="FILE", help="readings to compare with instead; may be given several times")
    p.add_argument("--generated", action="store_true", help="with --input, also the generated ones")
    p.add_argument("--delay-ms", type=int, default=5000, help="of the watermark, where nothing is late (5000)")
    p.add_argument("--jobs", default=",".join(JOBS), help="comma between: " + ", ".join(JOBS))
    o = p.parse_args()
    o.jobs = o.jobs.split(",")
    o.binary = os.path.realpath(os.environ["VITALSQL"])
    def over(number, frame): raise Failed(f"it was ended by signal {number}")
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP: signal.signal(number, over)
    work, rows, why = tempfile.mkdtemp(prefix="vitalsql-flink-"), None, None
    try:
        rows = Rows(o, work)
        rows.run()
    except Failed as failed: why = failed
    finally:
        for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP: signal.signal(number, signal.SIG_IGN)
        if rows: rows.end()
        shutil.rmtree(work, ignore_errors=True)
    if rows and rows.table: print(rows.markdown())
    if why: sys.exit(f"benches/flink: not complete: {why}")
    if rows.wrong: sys.exit(f"benches/flink: {rows.wrong} rows differ")

if __name__ == "__main__": main()
