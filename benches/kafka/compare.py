#!/usr/bin/env python3
"""compare.py [--quick] [--fsync] [--rounds N] ..: VitalSQL and Apache Kafka side by side, in one run, with one client.

Both brokers run from the beginning to the end, each with its defaults. Each line is measured on one and then on the other, and
so on (A B A B ..); while one works the other idles. Before each run the topics of the last one are gone from the disk and what
the kernel has not written yet is written, so that nobody pays for the other's. Prints Markdown on stdout, what it is doing on
stderr. Ends by itself, whatever happens, and ends the processes that it started, by their ids.
"""
import argparse, json, os, platform, shutil, signal, sys, tempfile, time
from client import Client, PRODUCER
from sides import Apache, Failed, ToolFailed, VitalSQL
from table import Table

MIB = 1 << 20
WORKLOADS = [(size, partitions, codec) for size in (1024, 100) for partitions in (1, 48) for codec in ("none", "lz4")]
LATENCIES = [(100, 1), (1024, 1), (1024, 48)]
RATE = 20000

def options():
    p = argparse.ArgumentParser(description="VitalSQL and Apache Kafka side by side. VITALSQL names the binary; TMPDIR is where the data go.")
    p.add_argument("--quick", action="store_true", help="one small round of everything, in some minutes: shows that it works, its figures say little")
    p.add_argument("--fsync", action="store_true", help="Kafka a second time, with flush.messages=1: an fsync per append, as VitalSQL has it")
    p.add_argument("--rounds", type=int, help="runs per line and side, of which the median counts (3; quick 1)")
    p.add_argument("--warm-gb", type=float, help="GB through each broker before anything is measured (3; quick 0.1)")
    p.add_argument("--mib", type=int, help="MiB per run of 1 KiB records, half of it for 100 bytes; half as much again before it warms the client (1024; quick 48)")
    p.add_argument("--seconds", type=int, help="seconds per run at a fixed rate; half as long again before it warms the client (20; quick 4)")
    p.add_argument("--linger", type=int, default=0, help="linger.ms of the client at a fixed rate (0: an acknowledgement's time is the broker's, not the client's patience)")
    p.add_argument("--only", default="", help="some parts, comma between: start, throughput, latency")
    p.add_argument("--match", default="", help="of throughput and latency only the lines with this text, such as '1 KiB, 48'")
    p.add_argument("--heap", default="1g", help="heap of Kafka's broker (1g, as its start script has it)")
    p.add_argument("--disk-gb", type=float, default=12, help="never more than this on disk (12)")
    p.add_argument("--limit", type=int, default=150, help="minutes after which it ends with what it has (150)")
    p.add_argument("--json", help="file for every single measurement, a line each")
    o = p.parse_args()
    for name, full, quick in ("rounds", 3, 1), ("warm_gb", 3, 0.1), ("mib", 1024, 48), ("seconds", 20, 4):
        if getattr(o, name) is None: setattr(o, name, quick if o.quick else full)
    o.only = o.only.split(",") if o.only else ["start", "throughput", "latency"]
    return o

class Variant:
    """A column of the table: a broker, what its topics are made with, and the share of the records that a run of it takes."""
    def __init__(self, name, broker, topic=(), share=1): self.name, self.broker, self.topic, self.share = name, broker, topic, share

class Comparison:
    def __init__(self, o, work):
        self.o, self.work, self.topics = o, work, 0
        self.client = Client(work)
        self.ours, self.kafka = VitalSQL(os.path.join(work, "vitalsql"), o.binary), Apache(os.path.join(work, "kafka"), o.heap)
        self.brokers = [self.ours, self.kafka]
        self.variants = [Variant("VitalSQL", self.ours), Variant("Kafka, no fsync", self.kafka)]
        if o.fsync: self.variants.append(Variant("Kafka, flush.messages=1", self.kafka, ["flush.messages=1"], 0.25))
        self.table = Table([v.name for v in self.variants])
        self.peak = {b.name: (0, 0) for b in self.brokers}
        self.raw = open(o.json, "w") if o.json else None
    def tell(self, variant, line, figures):
        say(f"{line}, {variant.name}: " + ", ".join(f"{k} {v:,.2f}" for k, v in figures.items() if isinstance(v, (int, float))))
        if self.raw: self.raw.write(json.dumps({"side": variant.name, "line": line, **figures}) + "\n"); self.raw.flush()
    def settle(self, needed=0):
        """Waits until deleted topics are off the disk, and writes what the kernel holds back."""
        begun, bound = time.monotonic(), self.o.disk_gb * 1e9
        while time.monotonic() - begun < 120:
            # What brokers keep without topics: logs of their own, space set aside.
            if max(b.disk() for b in self.brokers) < 400 * MIB: break
            time.sleep(0.5)
        used = sum(b.disk() for b in self.brokers)
        if used + needed > bound: raise Failed(f"{used / 1e9:.1f} GB are on disk and the next run needs {needed / 1e9:.1f} more: over the bound of {self.o.disk_gb} GB")
        os.sync()
    def topic(self, variant, line, partitions, needed, work):
        """Does `work` with a topic that is there for no longer. None where it failed while the broker still runs: the rest can be measured all the same."""
        self.topics += 1
        topic, result = f"bench-{self.topics}", None
        self.settle(needed)
        self.client.create(variant.broker, topic, partitions, variant.topic)
        try: result = work(topic)
        except ToolFailed as failed:
            say(f"{line}, {variant.name}: {failed}")
            self.table.failed(line, variant.name, " ".join(str(failed).split())[:300])
        self.client.delete(variant.broker, topic)
        return result

    def start(self):
        """Each on an empty directory, in turn; the last of each stays."""
        for n in range(self.o.rounds):
            for v in self.variants[:2]:
                seconds = v.broker.started()
                self.tell(v, "start", {"seconds": seconds})
                if "start" in self.o.only: self.table.add("start, empty, until it answers a client", "s", v.name, seconds)
                if n < self.o.rounds - 1:
                    v.broker.stop()
                    v.broker.renew()
    def idle(self, when):
        """Both with nothing to do: what they hold, and what they take all the same."""
        quiet = 3 if self.o.quick else 15
        time.sleep(quiet)
        before = [v.broker.cpu() for v in self.variants[:2]]
        time.sleep(quiet)
        for v, cpu in zip(self.variants[:2], before):
            resident, anonymous = v.broker.memory()
            took = (v.broker.cpu() - cpu) * 1000 / quiet
            self.tell(v, f"idle, {when}", {"rss_mib": resident, "anon_mib": anonymous, "cpu_ms_per_s": took})
            self.table.add(f"resident memory, idle, {when}", "MiB", v.name, resident)
            self.table.add(f"CPU, idle, {when}", "CPU ms/s", v.name, took)
    def warm(self):
        """What the table's figures come after: a cold JVM is half as fast."""
        total = int(self.o.warm_gb * 1e9)
        for size, partitions, codec, share in (1024, 1, "none", 0.4), (1024, 48, "lz4", 0.3), (100, 48, "none", 0.3):
            records = int(total * share) // size
            if not records: continue
            for v in self.variants[:2]:
                def work(topic):
                    self.client.produce(v.broker, topic, size, records, 0, codec)
                    self.client.consume(v.broker, topic, size, records)
                self.topic(v, "warm-up", partitions, records * size * 2, work)
        say(f"{self.o.warm_gb:g} GB went through each broker to warm it")
    def remember(self, v, took):
        self.peak[v.broker.name] = (max(self.peak[v.broker.name][0], took["broker_rss_mib"]), max(self.peak[v.broker.name][1], took["broker_anon_mib"]))
    def throughput(self):
        for size, partitions, codec in WORKLOADS:
            counted = self.o.mib * MIB // (1024 if size == 1024 else 200)
            warm = counted // 2
            line = f"{'1 KiB' if size == 1024 else '100 B'}, {partitions} partition{'s' if partitions > 1 else ''}{', lz4' if codec == 'lz4' else ''}"
            if self.o.match not in line: continue
            for _ in range(self.o.rounds):
                for v in self.variants:
                    n, w = int(counted * v.share), int(warm * v.share)
                    def work(topic): return self.client.produce(v.broker, topic, size, n, w, codec), self.client.consume(v.broker, topic, size, n + w)
                    for what, took in zip(("produce", "consume"), self.topic(v, line, partitions, (n + w) * (size + 20) * 2, work) or ()):
                        self.tell(v, f"{what} {line}", took)
                        self.remember(v, took)
                        self.table.add(f"{what} {line}", "MB/s", v.name, took["mb_per_s"])
                        self.table.add(f"{what} {line}", "records/s", v.name, took["records_per_s"])
                        self.table.add(f"{what} {line}", "CPU s/GB", v.name, took["broker_cpu_s"] / took["gib"])
                        self.table.client(f"{what} {line}", v.name, took)
    def latency(self):
        warm = max(2, self.o.seconds // 2)
        for size, partitions in LATENCIES:
            line = f"acknowledged at {RATE:,} records/s, {'1 KiB' if size == 1024 else '100 B'}, {partitions} partition{'s' if partitions > 1 else ''}"
            if self.o.match not in line: continue
            needed = RATE * (warm + self.o.seconds) * (size + 100)
            for _ in range(self.o.rounds):
                for v in self.variants:
                    took = self.topic(v, line, partitions, needed, lambda topic: self.client.open_loop(v.broker, topic, size, RATE, warm, self.o.seconds, self.o.linger))
                    if not took: continue
                    self.tell(v, line, took)
                    self.remember(v, took)
                    for name, key in ("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms"): self.table.add(f"{name} {line}", "ms", v.name, took[key])
                    self.table.add(f"reached, {line}", "records/s", v.name, took["rate"])
                    self.table.add(f"broker, {line}", "CPU us/record", v.name, took["broker_cpu_s"] * 1e6 / (RATE * (warm + self.o.seconds)))
                    self.table.client(line, v.name, took)
    def run(self):
        self.start()
        if "start" in self.o.only: self.idle("fresh")
        if {"throughput", "latency"} & set(self.o.only): self.warm()
        if "throughput" in self.o.only: self.throughput()
        if "latency" in self.o.only: self.latency()
        if {"throughput", "latency"} & set(self.o.only):
            for v in self.variants[:2]:
                if not self.peak[v.broker.name][0]: continue
                self.table.add("resident memory, highest at work", "MiB", v.name, self.peak[v.broker.name][0])
                self.table.add("of it not a file's (heap and the like)", "MiB", v.name, self.peak[v.broker.name][1])
            self.settle()
            if "start" in self.o.only: self.idle("after the work")
    def end(self):
        self.client.stop()
        for broker in self.brokers: broker.stop()

def say(text): print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)

def header(o, version):
    with open("/proc/cpuinfo") as f: model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine())
    return f"""# VitalSQL and Apache Kafka {version}, side by side

{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({model}), Linux {platform.release()}. Client and broker share these cores, on both sides alike, and the client is a JVM.
VitalSQL with its defaults (an acknowledged record is on disk: fsync on). Kafka with its shipped settings and a heap of {o.heap} (an acknowledged record is in the page cache: no fsync){"; a second time with flush.messages=1, an fsync per append" if o.fsync else ""}.
Client: Kafka's own perf tools and its Java producer at a fixed rate, {' '.join(PRODUCER)}, everything else by default (the fixed rate with linger.ms={o.linger}). Payload: JSON readings, the same bytes on both sides.
{o.warm_gb:g} GB through each broker first. Sides in turn; {"medians of " + str(o.rounds) + " runs (lowest to highest)" if o.rounds > 1 else "one run of each"}, {o.mib} MiB a run (1 KiB) and {o.mib // 2} MiB (100 B), {o.seconds} s at the fixed rate; the client's own warm-up comes on top and does not count.
MB and GB are 2^20 and 2^30 bytes of record values, as the perf tools count. Ratio: how many times better VitalSQL is; below 1 it is worse, "all" where it takes nothing.
"""

def main():
    o = options()
    o.binary = os.path.realpath(os.environ["VITALSQL"])
    def over(number, frame): raise Failed(f"{o.limit} minutes are over" if number == signal.SIGALRM else f"it was ended by signal {number}")
    for number in signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP: signal.signal(number, over)
    signal.alarm(o.limit * 60)
    work, comparison, why = tempfile.mkdtemp(prefix="vitalsql-bench-"), None, None
    try:
        free = shutil.disk_usage(work).free
        if free < o.disk_gb * 1e9: raise Failed(f"{work} has {free / 1e9:.0f} GB free and {o.disk_gb:g} may be used: see TMPDIR and --disk-gb")
        comparison = Comparison(o, work)
        comparison.run()
    except (Failed, ToolFailed) as failed: why = failed
    finally:
        for number in signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP: signal.signal(number, signal.SIG_IGN)
        if comparison: comparison.end()
        shutil.rmtree(work, ignore_errors=True)
    if comparison and comparison.table.lines: print(header(o, comparison.client.version) + "\n" + comparison.table.markdown())
    if not why and comparison.table.missing: why = "some lines could not be measured"
    if why: sys.exit(f"benches/kafka: not complete: {why}")

main()
