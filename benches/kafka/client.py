"""The one client of both sides: Apache Kafka's own tools and `OpenLoop`, what they print, and what they and the broker took while they ran."""
import csv, io, json, os, random, re, subprocess, threading, time
from sides import HERE, TESTS, ToolFailed

TOOL = os.path.join(TESTS, "suites", "kafka_tool")
# What the producer is told beside the codec; all else is as the client has it by default (batch.size 16384, linger.ms 5, idempotence on).
PRODUCER = ["acks=all"]
PATIENCE = 900

def readings(path, size, count=4096):
    """A file of distinct JSON readings of exactly this many bytes, the same at every call: a payload that compresses like data, not like noise."""
    chance = random.Random(size)
    with open(path, "w") as f:
        for n in range(count):
            text = f'{{"patient_id":"p{chance.randrange(1000):05}","ts":{1767225600000 + n * 37},"heart_rate":{chance.uniform(50, 130):.1f},"spo2":{chance.randrange(86, 100)}'
            if size > 200:
                wave, level = [], 0
                while len(text) + 4 * len(wave) < size - 60:
                    level = max(-99, min(99, level + chance.randrange(-9, 10)))
                    wave.append(f"{level:3}")
                text += ',"ecg":[' + ",".join(wave) + "]"
            text += ',"id":"'
            rest = size - len(text) - 2
            f.write(f'{text}{chance.getrandbits(4 * rest):0{rest}x}"}}\n')

class Client:
    """Runs tools one at a time; `stop` ends the one that runs."""
    def __init__(self, work):
        self.work, self.running = work, None
        self.jars = os.path.join(subprocess.run([TOOL, "jars"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip(), "*")
        self.version = max(re.findall(r"kafka-clients-([\d.]+)\.jar", " ".join(os.listdir(os.path.dirname(self.jars)))))
        self.classes = os.path.join(work, "classes")
        subprocess.run(["javac", "-d", self.classes, "-cp", self.jars, os.path.join(HERE, "OpenLoop.java")], check=True)
        self.payloads = {}
        for size in (100, 1024):
            self.payloads[size] = os.path.join(work, f"payloads-{size}")
            readings(self.payloads[size], size)
    def stop(self):
        if self.running and self.running.poll() is None: self.running.kill(); self.running.wait()
    def run(self, command, side=None):
        """What a tool printed, what it and, with a side, the broker took meanwhile, and who watched them."""
        cpu = side.cpu() if side else 0
        begun = time.monotonic()
        with open(os.path.join(self.work, "tool.err"), "w") as err: self.running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, stdin=subprocess.DEVNULL, text=True)
        watch = Watch(self.running.pid, side)
        timer = threading.Timer(PATIENCE, self.running.kill); timer.start()
        try: said = self.running.stdout.read()
        finally:
            timer.cancel()
            watch.end()
        _, status, usage = os.wait4(self.running.pid, 0)
        self.running.returncode = os.waitstatus_to_exitcode(status)
        if side: side.alive()
        if self.running.returncode:
            with open(os.path.join(self.work, "tool.err")) as err: raise ToolFailed(f"{' '.join(command[:3])} .. ended with {self.running.returncode} after {time.monotonic() - begun:.0f} s: {said[-1500:]}{err.read()[-1500:]}")
        took = {"wall_s": time.monotonic() - begun, "client_cpu_s": usage.ru_utime + usage.ru_stime}
        if side: took |= {"broker_cpu_s": side.cpu() - cpu, "broker_rss_mib": watch.memory[0], "broker_anon_mib": watch.memory[1]}
        return said, took, watch
    def create(self, side, topic, partitions, settings=()):
        self.run([TOOL, "topics", "--bootstrap-server", side.address, "--create", "--topic", topic, "--partitions", str(partitions), "--replication-factor", "1"] + [word for s in settings for word in ("--config", s)])
    def delete(self, side, topic): self.run([TOOL, "topics", "--bootstrap-server", side.address, "--delete", "--topic", topic])
    def produce(self, side, topic, size, records, warm, codec):
        """As fast as the client can; its first `warm` records do not count for the rate."""
        said, took, watch = self.run([TOOL, "producer-perf", "--bootstrap-server", side.address, "--topic", topic, "--num-records", str(warm + records), "--warmup-records", str(warm), "--throughput", "-1",
                               "--payload-file", self.payloads[size], "--reporting-interval", "3600000", "--command-property", *PRODUCER, f"compression.type={codec}"], side)
        rates = re.findall(r"(\d+) (?:steady state )?records sent, ([\d.]+) records/sec \(([\d.]+) MB/sec\)", said)
        if not rates or (warm and len(rates) < 2): raise ToolFailed(f"producer-perf told no rate: {said[-1500:]}")
        sent, rate = int(rates[-1][0]), float(rates[-1][1])
        return took | {"records_per_s": rate, "mb_per_s": float(rates[-1][2]), "gib": (warm + records) * size / (1 << 30), "busiest": watch.busiest(sent / rate)}
    def consume(self, side, topic, size, records):
        """From the first record to the last, the time to join the group not counted."""
        said, took, watch = self.run([TOOL, "consumer-perf", "--bootstrap-server", side.address, "--topic", topic, "--num-records", str(records), "--timeout", "60000"], side)
        table = said[said.find("start.time"):]
        rows = [{k.strip(): v.strip() for k, v in row.items() if k} for row in csv.DictReader(io.StringIO(table))] if "start.time" in said else []
        if not rows or int(rows[-1]["data.consumed.in.nMsg"]) < records: raise ToolFailed(f"consumer-perf did not read {records} records: {said[-1500:]}")
        last = rows[-1]
        return took | {"records_per_s": float(last["fetch.nMsg.sec"]), "mb_per_s": float(last["fetch.MB.sec"]), "gib": records * size / (1 << 30), "busiest": watch.busiest(float(last["fetch.time.ms"]) / 1000)}
    def open_loop(self, side, topic, size, rate, warm, seconds, linger):
        """Records at their own pace, and how long each waited for its acknowledgement."""
        said, took, watch = self.run(["java", "-Xms512m", "-Xmx512m", "-XX:+UseG1GC", "-cp", f"{self.classes}:{self.jars}", "OpenLoop", side.address, topic, self.payloads[size],
                               str(rate), str(warm), str(seconds), *PRODUCER, f"linger.ms={linger}"], side)
        return took | {"gib": rate * (warm + seconds) * size / (1 << 30), "busiest": watch.busiest(seconds)} | json.loads(said.strip().splitlines()[-1])

class Watch(threading.Thread):
    """Looks four times a second at the tool's threads and the broker's memory."""
    def __init__(self, pid, side):
        super().__init__(daemon=True)
        self.pid, self.side, self.over, self.memory, self.seen = pid, side, threading.Event(), (0, 0), []
        if side: self.start()
    def run(self):
        while not self.over.wait(0.25):
            try: self.memory = tuple(map(max, self.memory, self.side.memory()))
            except (OSError, KeyError): pass
            threads = {}
            try:
                for task in os.listdir(f"/proc/{self.pid}/task"):
                    with open(f"/proc/{self.pid}/task/{task}/schedstat") as f: ran, waited = map(int, f.read().split()[:2])
                    with open(f"/proc/{self.pid}/task/{task}/comm") as f: threads[task] = (f.read().strip(), ran, waited)
            except (OSError, ValueError): pass
            if threads: self.seen.append((time.monotonic_ns(), threads))
    def end(self):
        self.over.set()
        if self.is_alive(): self.join()
    def busiest(self, seconds):
        """The tool's busiest thread, compiler and collector aside, over its last seconds: its name, the share of time in which it ran, and in which it ran or waited
        for a core. A thread that does nothing else sets the pace, not the broker. And how many cores the whole tool took. None where that is too short to say."""
        later = [look for look in self.seen if look[0] > self.seen[-1][0] - seconds * 1e9]
        if seconds < 2 or len(later) < 8: return None
        (begun, first), (ended, _), last = later[0], later[-1], {}
        # Threads end before their process does.
        for _, threads in later: last |= threads
        span, ran, wanted = ended - begun, {}, {}
        for task, (name, now, waited) in last.items():
            _, before, waited_before = first.get(task, (name, 0, 0))
            ran[task], wanted[task] = (now - before) / span, (now + waited - before - waited_before) / span
        task = max((t for t in last if not last[t][0].startswith(("C1 ", "C2 ", "G1 ", "GC ", "VM "))), key=lambda t: wanted[t])
        # The kernel keeps fifteen letters of a name; the one named after the program is the one that sends or polls.
        name = {"java": "main", "kafka-producer-": "network"}.get(last[task][0], last[task][0])
        return {"thread": name, "ran": ran[task], "wanted": wanted[task], "cores": sum(ran.values())}
