#!/usr/bin/env python3
"""Starts an Apache Kafka and runs the stories of src/bus/contract.rs, and those of take-overs, over it. CARGO names another cargo."""
import os, shlex, shutil, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "differential"))
import apache

# One broker: what is kept three times elsewhere is kept once. Segments and clean-up as they come.
SETTINGS = {"offsets.topic.replication.factor": 1, "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1,
    "offsets.topic.num.partitions": 1, "transaction.state.log.num.partitions": 4, "auto.create.topics.enable": "false"}

def main():
    folder = tempfile.mkdtemp(prefix="vitalsql-kafka-")
    kafka = apache.Kafka(os.path.join(folder, "kafka"), SETTINGS)
    kafka.start()
    try:
        cargo = shlex.split(os.environ.get("CARGO", "cargo"))
        done = subprocess.run([*cargo, "test", "--locked", "--lib", "--", "bus::kafka::tests", "--ignored", "--test-threads", "4"],
            cwd=os.path.join(HERE, "..", ".."), env={**os.environ, "KAFKA_UNDER_TEST": f"127.0.0.1:{kafka.port}"})
    finally:
        kafka.stop()
    if done.returncode == 0: shutil.rmtree(folder)
    else: print(f"Kafka's log is kept in {folder}")
    sys.exit(done.returncode)

main()
