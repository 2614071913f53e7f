#!/usr/bin/env python3
"""contract.py [--tls]: starts an Apache Kafka and runs the stories of src/bus/contract.rs, and those of take-overs, over it; with --tls over
TLS and a password (SASL_SSL, SCRAM-SHA-512), in a build with the feature kafka-tls, which needs perl. CARGO names another cargo."""
import os, shlex, shutil, signal, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "differential"))
import apache

LONGEST_S = 900
# One broker: what is kept three times elsewhere is kept once. The records of the stories have times of long ago: by these nothing is deleted.
SETTINGS = {"offsets.topic.replication.factor": 1, "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1,
    "offsets.topic.num.partitions": 1, "transaction.state.log.num.partitions": 4, "auto.create.topics.enable": "false", "log.retention.ms": -1}

def main(tls):
    test = [*shlex.split(os.environ.get("CARGO", "cargo")), "test", "--locked", "--lib", *(["--features", "kafka-tls"] if tls else [])]
    tree = os.path.join(HERE, "..", "..")
    # Built before Kafka is there: a build takes minutes, and the disk with it.
    if subprocess.run([*test, "--no-run"], cwd=tree).returncode: sys.exit("the tests could not be built")
    folder = tempfile.mkdtemp(prefix="vitalsql-kafka-")
    secrets = apache.Secrets(folder) if tls else None
    kafka = apache.Kafka(os.path.join(folder, "kafka"), SETTINGS, in_memory=True, secrets=secrets)
    where = {"KAFKA_UNDER_TEST": f"127.0.0.1:{kafka.secure_port or kafka.port}"}
    if secrets:
        where["KAFKA_CLIENT"] = os.path.join(folder, "client.properties")
        with open(where["KAFKA_CLIENT"], "w") as f: f.writelines(f"{k}={v}\n" for k, v in secrets.of_client().items())
    try:
        kafka.start()
        stories = [*test, "--", "bus::kafka::tests", "--ignored", "--test-threads", "4"]
        running = subprocess.Popen(stories, cwd=tree, env={**os.environ, **where}, start_new_session=True)
        try: failed = running.wait(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            print(f"the stories have not come to their end within {LONGEST_S} s")
            os.killpg(running.pid, signal.SIGKILL)
            failed = running.wait()
    finally:
        kafka.stop()
    if not failed: shutil.rmtree(folder)
    else: print(f"Kafka's log is kept in {folder}")
    sys.exit(1 if failed else 0)

main("--tls" in sys.argv[1:])
