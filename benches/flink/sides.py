"""The two sides: a VitalSQL node, and Flink in a process of its own. Started here, measured through /proc, ended by their own ids."""
import json, os, subprocess, time, urllib.error, urllib.request
from importlib.util import module_from_spec, spec_from_file_location
from jobs import our_stream

HERE = os.path.dirname(os.path.abspath(__file__))
# A node and an Apache Kafka as processes, as the comparison with Kafka has them. Its file has this one's name.
found = spec_from_file_location("brokers", os.path.join(HERE, "..", "kafka", "sides.py"))
brokers = module_from_spec(found)
found.loader.exec_module(brokers)
Failed = brokers.Failed

PATIENCE = 3600
CLOSER, LATER_MS = "closer", 86_400_000

class VitalSQL(brokers.VitalSQL):
    """A node with one stream, `vitals`."""
    def sql(self, text):
        """The rows of one statement, as they come."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/api/v1/sql", text.encode(), {"Content-Type": "text/plain"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            for line in answer:
                said = json.loads(line)
                if isinstance(said, list): yield said
                elif "error" in said: raise Failed(f"VitalSQL refused: {said['error']}\n{text}")
    def do(self, text): return list(self.sql(text))
    def ready(self):
        """Starts, and tells after how many seconds it was ready for queries, and what CPU that took."""
        begun = time.monotonic()
        self.launch()
        while time.monotonic() - begun < 120:
            if self.process.poll() is not None: raise Failed(f"VitalSQL ended while starting:\n{self.said()}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=5): return time.monotonic() - begun, self.cpu()
            except (urllib.error.URLError, OSError): time.sleep(0.002)
        raise Failed(f"VitalSQL was not ready within 120 s:\n{self.said()}")
    def metrics(self, query):
        """A query's counters and gauges, by their names without vitalsql_query_."""
        found, told = {}, f'{{query="{query}"}} '
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=60) as answer: text = answer.read().decode()
        for line in text.splitlines():
            if told in line: found[line[len("vitalsql_query_"):line.index("{")]] = int(float(line.rpartition(" ")[2]))
        return found
    def stream(self, delay_ms, partitions=1): self.do(our_stream(delay_ms, partitions))
    def fill(self, file, keyed=False):
        """A file's readings into the topic, in order; tells what the client took."""
        begun = time.monotonic()
        with open(file, "rb") as lines: client = subprocess.Popen([self.binary, "produce", "vitals", "--kafka", self.address] + (["--key-field", "patient_id"] if keyed else []), stdin=lines, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        said = client.stderr.read().decode(errors="replace")
        _, status, usage = os.wait4(client.pid, 0)
        client.returncode = os.waitstatus_to_exitcode(status)
        if client.returncode: raise Failed(f"vitalsql produce ended with {client.returncode}: {said[-2000:]}")
        return {"cpu_s": usage.ru_utime + usage.ru_stime, "wall_s": time.monotonic() - begun}
    def close(self, latest):
        """One more reading, of a patient whom nobody else is and long after the others: it closes what is still open."""
        reading = {"patient_id": CLOSER, "ts": latest + LATER_MS}
        client = subprocess.run([self.binary, "produce", "vitals", "--kafka", self.address], input=json.dumps(reading).encode(), stderr=subprocess.PIPE)
        if client.returncode: raise Failed(f"vitalsql produce ended with {client.returncode}: {client.stderr.decode(errors='replace')[-2000:]}")
    def query(self, job, name, rest=""):
        """Starts a continuous query into a topic of its own name."""
        self.do(f"CREATE QUERY {name} WITH ('delivery' = 'exactly_once') AS INSERT INTO {name} {job.select} {rest}")
    def finished(self, name, rows):
        """Waits until a query has committed what follows from so many readings; tells its counters."""
        begun = time.monotonic()
        while time.monotonic() - begun < PATIENCE:
            self.alive()
            now = self.metrics(name)
            if now.get("rows_in_total", 0) >= rows and now.get("input_lag_records") == 0: return now
            # Asking takes CPU time, which is the node's.
            time.sleep(0.1)
        raise Failed(f"query {name} did not come to the end of {rows} readings: {now}")
    def results(self, topic):
        """A topic's records, as JSON says them."""
        command = [self.binary, "consume", topic, "--from-start", "--exit-at-end", "--kafka", self.address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
            for line in client.stdout: yield json.loads(line)
        if client.returncode: raise Failed(f"vitalsql consume ended with {client.returncode}")
    def peak(self):
        """The most MiB that it has held."""
        with open(f"/proc/{self.process.pid}/status") as f: status = dict(line.split(":", 1) for line in f if ":" in line)
        return int(status["VmHWM"].split()[0]) / 1024

class Flink:
    """Runs jobs, one process a call; `stop` ends the one that runs."""
    def __init__(self, folder):
        os.makedirs(folder)
        self.folder, self.running = folder, None
        self.python = os.environ["FLINK_PYTHON"]
    def run(self, jobs, *words):
        """What it told of itself when the jobs had come to their input's end."""
        log = os.path.join(self.folder, "flink.log")
        with open(log, "w") as err:
            self.running = subprocess.Popen([self.python, os.path.join(HERE, "flink_job.py"), ",".join(jobs), *map(str, words)], cwd=self.folder, stdout=subprocess.PIPE, stderr=err, stdin=subprocess.DEVNULL, start_new_session=True, text=True)
            said = self.running.stdout.read()
            self.running.wait()
        if self.running.returncode:
            with open(log, errors="replace") as f: raise Failed(f"Flink ended with {self.running.returncode}:\n{said[-1000:]}{f.read()[-4000:]}")
        return json.loads(said.strip().splitlines()[-1])
    def stop(self):
        if self.running and self.running.poll() is None:
            # Python and its JVM are a session of their own.
            os.killpg(self.running.pid, 15)
            self.running.wait()
