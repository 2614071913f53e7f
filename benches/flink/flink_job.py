#!/usr/bin/env python3
"""flink_job.py JOB[,JOB..] (--file FILE | --kafka ADDR --topic T) --sink (blackhole | json:FOLDER | kafka:TOPIC) ..: jobs of `jobs.py` on Apache Flink.

Runs on the small cluster inside the process that pip's apache-flink brings, one job after the other, until the input's end. Prints a line of
JSON at the end: what this process and Flink's took altogether, start-up in it.
"""
import argparse, json, os, time
from jobs import JOBS, flink_source

begun = time.monotonic()
p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("jobs")
p.add_argument("--file")
p.add_argument("--kafka", metavar="ADDR")
p.add_argument("--topic")
p.add_argument("--jar", help="Flink's connector to Kafka")
p.add_argument("--sink", required=True)
p.add_argument("--delay-ms", type=int, default=5000, help="of the watermark behind the latest event time")
p.add_argument("--parallelism", type=int, default=1)
p.add_argument("--watermark-per-row", action="store_true", help="a watermark after each row instead of one each 200 ms: what is late is then a matter of the rows alone")
p.add_argument("--checkpoint-ms", type=int, help="checkpoints, exactly once")
p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of Flink's")
o = p.parse_args()

from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

settings = {"parallelism.default": str(o.parallelism), "table.local-time-zone": "UTC"}
if o.watermark_per_row: settings["pipeline.auto-watermark-interval"] = "0 ms"
if o.checkpoint_ms: settings |= {"execution.checkpointing.interval": f"{o.checkpoint_ms} ms", "execution.checkpointing.mode": "EXACTLY_ONCE"}
if o.jar: settings["pipeline.jars"] = "file://" + os.path.abspath(o.jar)
settings |= dict(s.split("=", 1) for s in o.set)
configuration = Configuration()
for key, value in settings.items(): configuration.set_string(key, value)
table = TableEnvironment.create(EnvironmentSettings.new_instance().with_configuration(configuration).in_streaming_mode().build())

if o.file: source = f"'connector' = 'filesystem', 'path' = '{os.path.abspath(o.file)}'"
else:
    source = f"'connector' = 'kafka', 'topic' = '{o.topic}', 'properties.bootstrap.servers' = '{o.kafka}', 'properties.group.id' = 'flink-{time.time_ns()}', 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'"
    if o.watermark_per_row: source += ", 'scan.watermark.emit.strategy' = 'on-event'"
table.execute_sql(flink_source(o.delay_ms, source))

for job in (JOBS[name] for name in o.jobs.split(",")):
    kind, _, place = o.sink.partition(":")
    sink = {
        "blackhole": "'connector' = 'blackhole'",
        "json": f"'connector' = 'filesystem', 'path' = '{os.path.abspath(place)}/{job.name}', 'format' = 'json'",
        "kafka": f"'connector' = 'kafka', 'topic' = '{place}', 'properties.bootstrap.servers' = '{o.kafka}', 'format' = 'json', 'sink.delivery-guarantee' = '{'exactly-once' if o.checkpoint_ms else 'at-least-once'}', "
                 f"'properties.transaction.timeout.ms' = '600000', 'sink.transactional-id-prefix' = 'flink-{time.time_ns()}'",
    }[kind]
    table.execute_sql(f"CREATE TABLE results_{job.name} ({job.flink_columns()}) WITH ({sink})")
    table.execute_sql(f"INSERT INTO results_{job.name} {job.select}").wait()

def family():
    """This process and all that it started: user and system time, and the most memory each has held, together."""
    parents, cpu, peak = {}, {}, {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f: fields = f.read().rpartition(")")[2].split()
            with open(f"/proc/{pid}/status") as f: status = dict(line.split(":", 1) for line in f if ":" in line)
        except OSError: continue
        # With what of its children has ended.
        parents[int(pid)], cpu[int(pid)] = int(fields[1]), sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        peak[int(pid)] = int(status["VmHWM"].split()[0]) / 1024 if "VmHWM" in status else 0
    mine = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine: mine |= more
    return sum(cpu[pid] for pid in mine), sum(peak[pid] for pid in mine)

cpu, peak = family()
print(json.dumps({"cpu_s": cpu, "wall_s": time.monotonic() - begun, "peak_mib": peak}), flush=True)
