"""One real Apache Kafka on loopback, from its published Maven artifacts: one process that is broker and controller."""
import os, re, shutil, socket, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))

def free_port():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]; s.close(); return port

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

class Kafka:
    def __init__(self, folder, settings, features=(), options=("-Xms512m", "-Xmx512m")):
        self.folder, self.port, self.process = folder, free_port(), None
        self.jars, controller = jars(), free_port()
        os.makedirs(folder, exist_ok=True)
        self.properties = os.path.join(folder, "server.properties")
        with open(self.properties, "w") as f:
            f.write(f"""process.roles=broker,controller
node.id=0
controller.quorum.voters=0@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={folder}/data
""" + "".join(f"{k}={v}\n" for k, v in settings.items()))
        with open(os.path.join(folder, "log4j2.xml"), "w") as f:
            f.write(f"""<Configuration><Appenders><File name="f" fileName="{folder}/kafka.log"><PatternLayout pattern="%d %p %m (%c)%n"/></File></Appenders>
<Loggers><Root level="INFO"><AppenderRef ref="f"/></Root></Loggers></Configuration>""")
        self.java = ["java", *options, f"-Dlog4j2.configurationFile={folder}/log4j2.xml", "-cp", f"{self.jars}/*"]
        import uuid, base64
        name = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if name.startswith("-"): name = "A" + name[1:]
        subprocess.run(self.java + ["kafka.tools.StorageTool", "format", "-t", name, "-c", self.properties] + [a for f in features for a in ("--feature", f)], check=True, stdout=subprocess.DEVNULL)
    def launch(self):
        """Begins to start; `start` waits until it has."""
        self.process = subprocess.Popen(self.java + ["kafka.Kafka", self.properties], stdout=open(os.path.join(self.folder, "out"), "w"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
    def start(self):
        self.launch()
        for _ in range(600):
            if self.process.poll() is not None: sys.exit("Apache Kafka ended while starting:\n" + open(os.path.join(self.folder, "out")).read()[-3000:])
            try: socket.create_connection(("127.0.0.1", self.port), 1).close(); return
            except OSError: time.sleep(0.1)
        sys.exit("Apache Kafka did not open its port in 60 s")
    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try: self.process.wait(timeout=30)
            except subprocess.TimeoutExpired: self.process.kill(); self.process.wait()

if __name__ == "__main__":
    # Fetches the jars ahead; fails where they cannot be had.
    jars()
