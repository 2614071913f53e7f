"""The jobs that both sides run: one SQL text each, what their rows are told apart by, and which columns are averages."""
import re

# Of a reading: its name in the JSON, Flink's type, VitalSQL's.
COLUMNS = [("patient_id", "STRING", "VARCHAR NOT NULL"), ("ward", "STRING", "VARCHAR"), ("ts", "BIGINT", "BIGINT")] + [
    (name, "DOUBLE", "DOUBLE") for name in ("heart_rate", "resp_rate", "spo2", "sbp", "dbp", "map", "temp_c")]

class Job:
    """`by_row`: it answers for each row, not for windows, and takes what is behind the watermark for late. `peers`: what it says of several
    readings of one patient and time can be compared, too."""
    def __init__(self, name, select, columns, key, by_row=False, peers=True): self.name, self.select, self.columns, self.key, self.by_row, self.peers = name, select, columns, key, by_row, peers
    @property
    def names(self): return [name for name, _ in self.columns]
    @property
    def averages(self): return {name for name in self.names if name.startswith("avg_")}
    @property
    def times(self): return {name for name, kind in self.columns if kind.startswith("TIMESTAMP")}
    def flink_columns(self): return ", ".join(f"`{name}` {kind}" for name, kind in self.columns)

STATISTICS = ", ".join(f"{f}(`{column}`) AS {f.lower()}_{name}" for column, name in (("heart_rate", "hr"), ("spo2", "spo2"), ("map", "map")) for f in ("AVG", "MIN", "MAX")) + ", COUNT(*) AS n"
WINDOW = [("patient_id", "STRING"), ("window_start", "TIMESTAMP(3)"), ("window_end", "TIMESTAMP(3)")] + [(name, "DOUBLE") for name in re.findall(r"AS (\w+_\w+)", STATISTICS)] + [("n", "BIGINT")]
FRAME = "WINDOW w AS (PARTITION BY patient_id ORDER BY et RANGE BETWEEN INTERVAL '5' MINUTE PRECEDING AND CURRENT ROW)"

def windowed(name, call):
    select = f"SELECT patient_id, window_start, window_end, {STATISTICS} FROM TABLE({call}) GROUP BY patient_id, window_start, window_end"
    return Job(name, select, WINDOW, ["patient_id", "window_start", "window_end"])

def framed(name, columns):
    select = f"SELECT patient_id, ts, {', '.join(f'{call} OVER w AS {column}' for column, call in columns)} FROM vitals {FRAME}"
    return Job(name, select, [("patient_id", "STRING"), ("ts", "BIGINT")] + [(column, "BIGINT" if column == "n" else "DOUBLE") for column, _ in columns], ["patient_id", "ts"], by_row=True)

def spikes():
    """Of the frames of `over` the few whose reading stands out: most results leave before they are written."""
    over = framed("over", OVER)
    select = f"SELECT * FROM ({over.select.replace('ts, ', 'ts, heart_rate, ', 1)}) WHERE heart_rate > avg_hr * 1.23"
    return Job("spikes", select, over.columns[:2] + [("heart_rate", "DOUBLE")] + over.columns[2:], over.key, by_row=True)

def job(name, select, columns, key, **more):
    """`columns` as one text: a name, its type, a comma."""
    return Job(name, select, [tuple(column.split(maxsplit=1)) for column in columns.split(", ")], key.split(", "), **more)

# What is right or wrong of these has nothing to do with speed.
TUMBLED = "FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(et), INTERVAL '1' MINUTE))"
MOSTS = f"SELECT patient_id, window_time AS `at`, MAX(heart_rate) AS hr {TUMBLED} GROUP BY patient_id, window_start, window_end, window_time"
EDGES = "window_start TIMESTAMP(3), window_end TIMESTAMP(3)"
def more():
    yield job("offset", "SELECT patient_id, window_start, window_end, COUNT(*) AS n, SUM(sbp) AS s FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(et), INTERVAL '1' MINUTE, INTERVAL '15' SECOND)) GROUP BY patient_id, window_start, window_end",
        f"patient_id STRING, {EDGES}, n BIGINT, s DOUBLE", "patient_id, window_start, window_end")
    yield job("cumulate", "SELECT patient_id, window_start, window_end, COUNT(*) AS n, MAX(spo2) AS most FROM TABLE(CUMULATE(TABLE vitals, DESCRIPTOR(et), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)) GROUP BY patient_id, window_start, window_end",
        f"patient_id STRING, {EDGES}, n BIGINT, most DOUBLE", "patient_id, window_start, window_end")
    yield job("wards", f"SELECT ward, window_start, window_end, COUNT(DISTINCT patient_id) AS patients, COUNT(heart_rate) FILTER (WHERE spo2 < 95) AS low, COUNT(*) AS n, MIN(temp_c) AS least {TUMBLED} WHERE sbp > 100 GROUP BY ward, window_start, window_end HAVING COUNT(*) > 100",
        f"ward STRING, {EDGES}, patients BIGINT, low BIGINT, n BIGINT, least DOUBLE", "ward, window_start, window_end")
    yield job("all", f"SELECT window_start, window_end, COUNT(*) AS n, COUNT(`map`) AS maps, AVG(heart_rate) AS avg_hr {TUMBLED} GROUP BY window_start, window_end",
        f"{EDGES}, n BIGINT, maps BIGINT, avg_hr DOUBLE", "window_start, window_end")
    yield job("older", "SELECT patient_id, TUMBLE_START(et, INTERVAL '1' MINUTE) AS s, TUMBLE_END(et, INTERVAL '1' MINUTE) AS e, COUNT(*) AS n FROM vitals GROUP BY patient_id, TUMBLE(et, INTERVAL '1' MINUTE)",
        "patient_id STRING, s TIMESTAMP(3), e TIMESTAMP(3), n BIGINT", "patient_id, s, e")
    yield job("topn", f"SELECT ward, window_start, window_end, heart_rate, patient_id, ts, rn FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, ward ORDER BY heart_rate DESC, ts, patient_id, spo2) AS rn {TUMBLED} WHERE heart_rate IS NOT NULL) WHERE rn <= 3",
        f"ward STRING, {EDGES}, heart_rate DOUBLE, patient_id STRING, ts BIGINT, rn BIGINT", "ward, window_start, window_end, rn")
    yield job("topgroups", f"SELECT window_start, window_end, ward, n, rn FROM (SELECT window_start, window_end, ward, COUNT(*) AS n, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY COUNT(*) DESC, ward) AS rn {TUMBLED} GROUP BY window_start, window_end, ward) WHERE rn <= 2",
        f"{EDGES}, ward STRING, n BIGINT, rn BIGINT", "window_start, window_end, rn")
    yield job("cascade",
        f"WITH minutes AS ({MOSTS}) SELECT patient_id, window_start, window_end, MAX(hr) AS most, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE minutes, DESCRIPTOR(`at`), INTERVAL '5' MINUTE)) GROUP BY patient_id, window_start, window_end",
        f"patient_id STRING, {EDGES}, most DOUBLE, n BIGINT", "patient_id, window_start, window_end")
    yield job("regroup", f"SELECT window_start, window_end, SUM(n) AS n, MAX(n) AS most FROM (SELECT ward, window_start, window_end, COUNT(*) AS n {TUMBLED} GROUP BY ward, window_start, window_end) GROUP BY window_start, window_end",
        f"{EDGES}, n BIGINT, most BIGINT", "window_start, window_end")
    for kind in ("INNER", "LEFT", "FULL OUTER"):
        yield job("windows_" + kind.split()[0].lower(), f"SELECT COALESCE(a.patient_id, b.patient_id) AS patient_id, COALESCE(a.window_start, b.window_start) AS window_start, a.n AS low, b.n AS fast "
            f"FROM (SELECT patient_id, window_start, window_end, COUNT(*) AS n {TUMBLED} WHERE spo2 < 96 GROUP BY patient_id, window_start, window_end) a {kind} JOIN "
            f"(SELECT patient_id, window_start, window_end, COUNT(*) AS n {TUMBLED} WHERE heart_rate > 90 GROUP BY patient_id, window_start, window_end) b "
            "ON a.patient_id = b.patient_id AND a.window_start = b.window_start AND a.window_end = b.window_end",
            "patient_id STRING, window_start TIMESTAMP(3), low BIGINT, fast BIGINT", "patient_id, window_start")
    for kind in ("INNER", "LEFT", "FULL OUTER"):
        yield job("interval_" + kind.split()[0].lower(), "SELECT a.patient_id AS a_patient, b.patient_id AS b_patient, a.ts AS a_ts, b.ts AS b_ts, a.heart_rate AS hr, b.spo2 AS ox "
            f"FROM (SELECT * FROM vitals WHERE spo2 < 96) a {kind} JOIN (SELECT * FROM vitals WHERE heart_rate > 90) b "
            "ON a.patient_id = b.patient_id AND b.et BETWEEN a.et - INTERVAL '3' SECOND AND a.et + INTERVAL '1' SECOND",
            "a_patient STRING, b_patient STRING, a_ts BIGINT, b_ts BIGINT, hr DOUBLE, ox DOUBLE", "a_patient, b_patient, a_ts, b_ts", by_row=True)
    # Flink says the same of all readings of one patient and time, as if the frame were theirs together; LAG counts rows.
    yield job("lag", "SELECT patient_id, ts, LAG(spo2) OVER w AS was, LAG(spo2, 2) OVER w AS before_that, COUNT(heart_rate) OVER w AS n FROM vitals WINDOW w AS (PARTITION BY patient_id ORDER BY et)",
        "patient_id STRING, ts BIGINT, was DOUBLE, before_that DOUBLE, n BIGINT", "patient_id, ts", by_row=True, peers=False)
    yield job("frames", "SELECT patient_id, ts, SUM(sbp) OVER w AS s, FIRST_VALUE(sbp) OVER w AS f, LAST_VALUE(sbp) OVER w AS l, COUNT(`map`) OVER w AS n FROM vitals WINDOW w AS (PARTITION BY patient_id ORDER BY et ROWS BETWEEN 4 PRECEDING AND CURRENT ROW)",
        "patient_id STRING, ts BIGINT, s DOUBLE, f DOUBLE, l DOUBLE, n BIGINT", "patient_id, ts", by_row=True)
    yield job("so_far", "SELECT ward, ts, patient_id, SUM(sbp) OVER w AS s, MIN(temp_c) OVER w AS least, COUNT(*) OVER w AS n FROM vitals WINDOW w AS (PARTITION BY ward ORDER BY et RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)",
        "ward STRING, ts BIGINT, patient_id STRING, s DOUBLE, least DOUBLE, n BIGINT", "ward, ts, patient_id", by_row=True)
    yield job("pattern", "SELECT patient_id, first_ts, last_ts, n, highest FROM vitals MATCH_RECOGNIZE (PARTITION BY patient_id ORDER BY et "
        "MEASURES FIRST(a.ts) AS first_ts, LAST(c.ts) AS last_ts, COUNT(b.ts) AS n, MAX(b.heart_rate) AS highest ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW "
        "PATTERN (a b+ c) DEFINE a AS a.heart_rate < 80, b AS b.heart_rate >= 80, c AS c.heart_rate < 75)",
        "patient_id STRING, first_ts BIGINT, last_ts BIGINT, n BIGINT, highest DOUBLE", "patient_id, first_ts", by_row=True)
    yield job("scalars", "SELECT patient_id, ts, MOD(ts, 977) AS m, DATE_FORMAT(et, 'yyyy-MM-dd HH:mm:ss.SSS') AS d, TIMESTAMPDIFF(SECOND, FLOOR(et TO HOUR), et) AS sec, FLOOR(et TO MINUTE) AS minute_of, CEIL(et TO HOUR) AS hour_of, "
        "TIMESTAMPADD(MONTH, 1, CAST(et AS TIMESTAMP(3))) AS later, SPLIT_INDEX(ward, '-', 1) AS part, REGEXP_EXTRACT(ward, '([a-z]+)-([0-9]+)', 1) AS unit, "
        "IF(heart_rate > 100, 'fast', 'slow') AS pace, UPPER(SUBSTRING(ward FROM 2 FOR 3)) AS u, CHAR_LENGTH(ward) AS len, POSITION('-' IN ward) AS pos, LOCATE('u', ward) AS loc, "
        "CAST(heart_rate AS INT) AS hr, ROUND(temp_c, 1) AS t1, TRUNCATE(temp_c, 1) AS t2, FLOOR(temp_c) AS t3, COALESCE(`map`, -1) AS mp, NULLIF(spo2, 97) AS ox, spo2 BETWEEN 90 AND 96 AS low, ward LIKE 'icu%' AS icu, "
        "CONCAT(ward, '/', patient_id) AS both_of, LPAD(patient_id, 9, '*') AS padded, EXTRACT(MINUTE FROM et) AS mi, HOUR(et) AS h, DAYOFMONTH(et) AS dm, REPLACE(ward, 'u', '') AS r, SIGN(heart_rate - 80) AS si, ABS(sbp - dbp) AS ab, POWER(sbp, 2) AS po FROM vitals",
        "patient_id STRING, ts BIGINT, m BIGINT, d STRING, sec BIGINT, minute_of TIMESTAMP(3), hour_of TIMESTAMP(3), later TIMESTAMP(3), part STRING, unit STRING, pace STRING, u STRING, len INT, pos INT, loc INT, hr INT, t1 DOUBLE, t2 DOUBLE, t3 DOUBLE, mp DOUBLE, "
        "ox DOUBLE, low BOOLEAN, icu BOOLEAN, both_of STRING, padded STRING, mi BIGINT, h BIGINT, dm BIGINT, r STRING, si DOUBLE, ab DOUBLE, po DOUBLE", "patient_id, ts")
    yield job("union", "SELECT patient_id, ts, heart_rate AS v FROM vitals WHERE heart_rate > 95 UNION ALL SELECT patient_id, ts, spo2 AS v FROM vitals WHERE spo2 < 95",
        "patient_id STRING, ts BIGINT, v DOUBLE", "patient_id, ts, v")

OVER = [("avg_hr", "AVG(heart_rate)"), ("avg_spo2", "AVG(spo2)"), ("avg_map", "AVG(`map`)"), ("n", "COUNT(*)")]
JOBS = {job.name: job for job in (
    windowed("tumble", "TUMBLE(TABLE vitals, DESCRIPTOR(et), INTERVAL '1' MINUTE)"),
    windowed("hop", "HOP(TABLE vitals, DESCRIPTOR(et), INTERVAL '30' SECOND, INTERVAL '5' MINUTE)"),
    windowed("session", "SESSION(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(et), INTERVAL '30' SECOND)"),
    framed("over", OVER),
    framed("overmm", [("avg_hr", "AVG(heart_rate)"), ("min_hr", "MIN(heart_rate)"), ("max_hr", "MAX(heart_rate)"), ("n", "COUNT(*)")]),
    spikes(), *more(),
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
