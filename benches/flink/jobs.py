"""The jobs that both sides run: one SQL text each, what their rows are told apart by, and which columns are averages."""
import re

# Of a reading: its name in the JSON, Flink's type, VitalSQL's.
COLUMNS = [("patient_id", "STRING", "VARCHAR NOT NULL"), ("ward", "STRING", "VARCHAR"), ("ts", "BIGINT", "BIGINT")] + [
    (name, "DOUBLE", "DOUBLE") for name in ("heart_rate", "resp_rate", "spo2", "sbp", "dbp", "map", "temp_c")]

class Job:
    def __init__(self, name, select, columns, key): self.name, self.select, self.columns, self.key = name, select, columns, key
    @property
    def names(self): return [name for name, _ in self.columns]
    @property
    def averages(self): return {name for name in self.names if name.startswith("avg_")}
    def flink_columns(self): return ", ".join(f"`{name}` {kind}" for name, kind in self.columns)

STATISTICS = ", ".join(f"{f}(`{column}`) AS {f.lower()}_{name}" for column, name in (("heart_rate", "hr"), ("spo2", "spo2"), ("map", "map")) for f in ("AVG", "MIN", "MAX")) + ", COUNT(*) AS n"
WINDOW = [("patient_id", "STRING"), ("window_start", "TIMESTAMP(3)"), ("window_end", "TIMESTAMP(3)")] + [(name, "DOUBLE") for name in re.findall(r"AS (\w+_\w+)", STATISTICS)] + [("n", "BIGINT")]
FRAME = "WINDOW w AS (PARTITION BY patient_id ORDER BY et RANGE BETWEEN INTERVAL '5' MINUTE PRECEDING AND CURRENT ROW)"

def windowed(name, call):
    select = f"SELECT patient_id, window_start, window_end, {STATISTICS} FROM TABLE({call}) GROUP BY patient_id, window_start, window_end"
    return Job(name, select, WINDOW, ["patient_id", "window_start", "window_end"])

def framed(name, columns):
    select = f"SELECT patient_id, ts, {', '.join(f'{call} OVER w AS {column}' for column, call in columns)} FROM vitals {FRAME}"
    return Job(name, select, [("patient_id", "STRING"), ("ts", "BIGINT")] + [(column, "BIGINT" if column == "n" else "DOUBLE") for column, _ in columns], ["patient_id", "ts"])

def spikes():
    """Of the frames of `over` the few whose reading stands out: most results leave before they are written."""
    over = framed("over", OVER)
    select = f"SELECT * FROM ({over.select.replace('ts, ', 'ts, heart_rate, ', 1)}) WHERE heart_rate > avg_hr * 1.23"
    return Job("spikes", select, over.columns[:2] + [("heart_rate", "DOUBLE")] + over.columns[2:], over.key)

OVER = [("avg_hr", "AVG(heart_rate)"), ("avg_spo2", "AVG(spo2)"), ("avg_map", "AVG(`map`)"), ("n", "COUNT(*)")]
JOBS = {job.name: job for job in (
    windowed("tumble", "TUMBLE(TABLE vitals, DESCRIPTOR(et), INTERVAL '1' MINUTE)"),
    windowed("hop", "HOP(TABLE vitals, DESCRIPTOR(et), INTERVAL '30' SECOND, INTERVAL '5' MINUTE)"),
    windowed("session", "SESSION(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(et), INTERVAL '30' SECOND)"),
    framed("over", OVER),
    framed("overmm", [("avg_hr", "AVG(heart_rate)"), ("min_hr", "MIN(heart_rate)"), ("max_hr", "MAX(heart_rate)"), ("n", "COUNT(*)")]),
    spikes(),
)}

def watermark(delay_ms): return f"WATERMARK FOR et AS et - INTERVAL '{delay_ms / 1000:.3f}' SECOND"

def flink_source(delay_ms, connector):
    """The readings as a table of Flink's."""
    columns = ", ".join(f"`{name}` {kind}" for name, kind, _ in COLUMNS)
    return f"CREATE TABLE vitals ({columns}, et AS TO_TIMESTAMP_LTZ(ts, 3), {watermark(delay_ms)}) WITH ({connector}, 'format' = 'json')"

def our_stream(delay_ms, partitions=1):
    """The readings as a stream of VitalSQL's."""
    columns = ", ".join(f"`{name}` {kind}" for name, _, kind in COLUMNS)
    key = ", 'key' = 'patient_id'" if partitions > 1 else ""
    return f"CREATE STREAM vitals ({columns}, et AS to_timestamp_millis(ts), {watermark(delay_ms)}) WITH ('topic' = 'vitals', 'format' = 'json', 'partitions' = '{partitions}'{key})"
