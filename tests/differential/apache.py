"""A real Apache Kafka on loopback, from its published Maven artifacts: one process that is broker and controller, or three of them."""
import base64, os, re, shutil, socket, subprocess, sys, tempfile, time, uuid

HERE = os.path.dirname(os.path.abspath(__file__))

def free_port():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]; s.close(); return port

def memory(prefix):
    """A folder for the data of a Kafka whose disk is not what is looked at: in memory where there is room, since each change of a topic waits for
    a sync of the controller's log, and on a disk that is busy with something else one has taken half a minute. None where there is no such room."""
    shm = "/dev/shm"
    roomy = os.path.isdir(shm) and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 4 << 30
    return tempfile.mkdtemp(prefix=prefix, dir=shm) if roomy else None

def missing():
    """What is not there to run Kafka with, or None."""
    if not shutil.which("java"): return "Java"
    if not shutil.which("mvn") and not os.environ.get("KAFKA_JARS"): return "Maven"
    return None

def jars():
    """The folder with Kafka's jars, fetched once."""
    if os.environ.get("KAFKA_JARS"): return os.environ["KAFKA_JARS"]
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "vitalsql-kafka")
    mark, pom = os.path.join(cache, "pom.xml"), os.path.join(HERE, "pom.xml")
    if not os.path.exists(mark) or open(mark).read() != open(pom).read():
        shutil.rmtree(cache, ignore_errors=True); os.makedirs(cache)
        subprocess.run(["mvn", "-q", "-B", "-Dstyle.color=never", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={cache}/jars", "-DincludeScope=runtime"], check=True)
        shutil.copy(pom, mark)
    return os.path.join(cache, "jars")

def cluster_name():
    name = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return "A" + name[1:] if name.startswith("-") else name

class Secrets:
    """A certificate for 127.0.0.1, which keytool makes, and one user with a password (SCRAM-SHA-512)."""
    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        self.store, self.certificate, self.user, self.password = os.path.join(folder, "broker.p12"), os.path.join(folder, "broker.pem"), "ward", uuid.uuid4().hex
        tool = ["keytool", "-keystore", self.store, "-storetype", "PKCS12", "-storepass", self.password, "-alias", "broker"]
        for what in (["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1", "-validity", "2"], ["-exportcert", "-rfc", "-file", self.certificate]):
            subprocess.run(tool + what, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    def of_broker(self):
        return {"sasl.enabled.mechanisms": "SCRAM-SHA-512", "ssl.keystore.location": self.store, "ssl.keystore.type": "PKCS12", "ssl.keystore.password": self.password,
            "listener.name.secure.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;"}
    def of_client(self):
        """A client's properties, as librdkafka and Java's tools read them."""
        return {"security.protocol": "SASL_SSL", "sasl.mechanisms": "SCRAM-SHA-512", "sasl.username": self.user, "sasl.password": self.password, "ssl.ca.location": self.certificate}

class Kafka:
    """One node; `node` and `controllers` are its number and every node's controller port where there are several. With `in_memory` its data are not on
    the disk, if there is room, and gone once it has stopped. With `secrets` it has a second port, of SASL_SSL."""
    def __init__(self, folder, settings, features=(), options=("-Xms512m", "-Xmx512m"), node=0, controllers=None, name=None, in_memory=False, secrets=None):
        self.folder, self.port, self.process = folder, free_port(), None
        self.shm = memory("vitalsql-kafka-") if in_memory else None
        more, self.secure_port = "", free_port() if secrets else None
        if secrets: settings, more = {**settings, **secrets.of_broker()}, f",SECURE://127.0.0.1:{self.secure_port}"
        self.jars, controllers = jars(), controllers or [free_port()]
        controller, voters = controllers[node], ",".join(f"{n}@127.0.0.1:{port}" for n, port in enumerate(controllers))
        os.makedirs(folder, exist_ok=True)
        self.properties = os.path.join(folder, "server.properties")
        with open(self.properties, "w") as f:
            f.write(f"""process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}{more}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}{more}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL
log.dirs={self.shm or folder}/data
""" + "".join(f"{k}={v}\n" for k, v in settings.items()))
        with open(os.path.join(folder, "log4j2.xml"), "w") as f:
            f.write(f"""<Configuration><Appenders><File name="f" fileName="{folder}/kafka.log"><PatternLayout pattern="%d %p %m (%c)%n"/></File></Appenders>
<Loggers><Root level="INFO"><AppenderRef ref="f"/></Root></Loggers></Configuration>""")
        self.java = ["java", *options, f"-Dlog4j2.configurationFile={folder}/log4j2.xml", "-cp", f"{self.jars}/*"]
        subprocess.run(self.java + ["kafka.tools.StorageTool", "format", "-t", name or cluster_name(), "-c", self.properties] + [a for f in features for a in ("--feature", f)]
            + (["--add-scram", f"SCRAM-SHA-512=[name={secrets.user},password={secrets.password}]"] if secrets else []), check=True, stdout=subprocess.DEVNULL)
    def launch(self):
        """Begins to start; `start` waits until it has."""
        self.process = subprocess.Popen(self.java + ["kafka.Kafka", self.properties], stdout=open(os.path.join(self.folder, "out"), "w"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
    def start(self):
        self.launch(); self.await_port()
    def await_port(self):
        for _ in range(1800):
            if self.process.poll() is not None: sys.exit("Apache Kafka ended while starting:\n" + open(os.path.join(self.folder, "out")).read()[-3000:])
            try: socket.create_connection(("127.0.0.1", self.port), 1).close(); return
            except OSError: time.sleep(0.1)
        sys.exit("Apache Kafka did not open its port in 180 s")
    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try: self.process.wait(timeout=30)
            except subprocess.TimeoutExpired: self.process.kill(); self.process.wait()
        if self.shm: shutil.rmtree(self.shm, ignore_errors=True)
    def kill(self):
        """As a machine that goes down takes it."""
        self.process.kill(); self.process.wait()

class Cluster:
    """Three nodes, each broker and controller; what is kept is kept three times, and acknowledged by two. A node that is killed is missed, and may
    come back, after 3 s, not Kafka's 9; and it starts with a quarter less of the processor's time where it leaves out the second compiler."""
    def __init__(self, folder, settings):
        sooner = {"broker.session.timeout.ms": 3000, "broker.heartbeat.interval.ms": 500}
        kept = {"default.replication.factor": 3, "min.insync.replicas": 2, "offsets.topic.replication.factor": 3, "transaction.state.log.replication.factor": 3, "transaction.state.log.min.isr": 2}
        controllers, name = [free_port() for _ in range(3)], cluster_name()
        self.nodes = [Kafka(os.path.join(folder, str(n)), {**settings, **kept, **sooner}, options=("-Xms256m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"), node=n, controllers=controllers, name=name) for n in range(3)]
        self.port, self.brokers = self.nodes[0].port, ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
    def start(self):
        # A node opens its port once it has a quorum.
        for node in self.nodes: node.launch()
        for node in self.nodes: node.await_port()
    def stop(self):
        for node in self.nodes: node.stop()

if __name__ == "__main__":
    # Fetches the jars ahead; fails where they cannot be had.
    jars()
