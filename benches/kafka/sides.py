"""The two brokers: each a process of its own on loopback, started here, measured through /proc and ended by its own id."""
import os, shutil, socket, struct, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.normpath(os.path.join(HERE, "..", "..", "tests"))
# At the end: that folder has names that are used here too.
sys.path.append(os.path.join(TESTS, "differential"))
import apache

# What config/server.properties of Apache Kafka's distribution says beside addresses and folders, and one thing more: a deleted topic's
# files go after a second instead of a minute, so that they are not still there in the next run.
KAFKA = {
    "num.network.threads": 3, "num.io.threads": 8, "socket.send.buffer.bytes": 102400, "socket.receive.buffer.bytes": 102400, "socket.request.max.bytes": 104857600,
    "num.partitions": 1, "num.recovery.threads.per.data.dir": 2, "offsets.topic.replication.factor": 1, "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1, "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1, "log.segment.bytes": 1073741824,
    "log.segment.delete.delay.ms": 1000,
}
# What bin/kafka-server-start.sh and bin/kafka-run-class.sh start it with.
JVM = ["-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"]

class Failed(Exception):
    """Why the comparison cannot go on."""

class ToolFailed(Exception):
    """Why one measurement was not to be had, from a broker that still runs."""

def answers(port):
    """Whether a Kafka broker answers ApiVersions, the first request of every client, at this port of loopback."""
    request = struct.pack(">hhih5s", 18, 0, 1, 5, b"bench")
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as s:
            s.sendall(struct.pack(">i", len(request)) + request)
            return len(s.recv(16)) >= 8
    except OSError: return False

class Side:
    """What both brokers have: `name`, `folder`, `port`, `process`, `data`."""
    @property
    def address(self): return f"127.0.0.1:{self.port}"
    def started(self):
        """Starts, and tells after how many seconds it answered a client."""
        begun = time.monotonic()
        self.launch()
        while time.monotonic() - begun < 120:
            if self.process.poll() is not None: raise Failed(f"{self.name} ended while starting:\n{self.said()}")
            if answers(self.port): return time.monotonic() - begun
            time.sleep(0.002)
        raise Failed(f"{self.name} did not answer within 120 s:\n{self.said()}")
    def said(self):
        with open(os.path.join(self.folder, "out"), errors="replace") as f: return f.read()[-3000:]
    def alive(self):
        if self.process.poll() is not None: raise Failed(f"{self.name} ended with {self.process.returncode}:\n{self.said()}")
    def cpu(self):
        """Seconds of CPU that the process has taken, user and system."""
        with open(f"/proc/{self.process.pid}/stat") as f: fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    def memory(self):
        """Resident MiB: all of it, and what is not a file's."""
        with open(f"/proc/{self.process.pid}/status") as f: status = dict(line.split(":", 1) for line in f)
        return int(status["VmRSS"].split()[0]) / 1024, int(status["RssAnon"].split()[0]) / 1024
    def disk(self):
        """Bytes that its folder takes, holes not counted."""
        total = 0
        for folder, _, files in os.walk(self.folder):
            for name in files:
                try: total += os.lstat(os.path.join(folder, name)).st_blocks * 512
                except FileNotFoundError: pass
        return total

class VitalSQL(Side):
    name = "VitalSQL"
    def __init__(self, folder, binary):
        os.makedirs(folder)
        self.folder, self.binary, self.process = folder, binary, None
        self.port, self.http = apache.free_port(), apache.free_port()
    def renew(self):
        """An empty node in the place of this one, which is stopped."""
        shutil.rmtree(self.folder)
        self.__init__(self.folder, self.binary)
    def launch(self):
        command = [self.binary, "serve", "--data-dir", os.path.join(self.folder, "data"), "--kafka", self.address, "--http", f"127.0.0.1:{self.http}"]
        with open(os.path.join(self.folder, "out"), "w") as out:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try: self.process.wait(timeout=30)
            except subprocess.TimeoutExpired: self.process.kill(); self.process.wait()

class Apache(apache.Kafka, Side):
    name = "Kafka"
    def __init__(self, folder, heap):
        self.heap = heap
        super().__init__(folder, KAFKA, options=(f"-Xms{heap}", f"-Xmx{heap}", *JVM))
    def renew(self):
        """An empty broker, formatted anew, in the place of this one, which is stopped."""
        shutil.rmtree(self.folder)
        self.__init__(self.folder, self.heap)
