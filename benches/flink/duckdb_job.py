#!/usr/bin/env python3
"""duckdb_job.py FILE: the minutes of a file's readings with DuckDB, on one thread, into a table. Prints a line of JSON: what this process took."""
import json, resource, sys, time

begun = time.monotonic()
import duckdb
from jobs import COLUMNS, STATISTICS

columns = ", ".join(f"{name}: '{kind.split()[0]}'" for name, _, kind in COLUMNS)
connection = duckdb.connect(config={"threads": 1})
connection.execute(f"""CREATE TABLE minutes AS SELECT patient_id, ts // 60000 * 60000 AS window_start, {STATISTICS.replace('`', '"')}
 FROM read_json(?, format = 'newline_delimited', columns = {{{columns}}}) GROUP BY 1, 2""", [sys.argv[1]])
rows = connection.execute("SELECT count(*) FROM minutes").fetchone()[0]
took = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"cpu_s": took.ru_utime + took.ru_stime, "wall_s": time.monotonic() - begun, "peak_mib": took.ru_maxrss / 1024, "rows": rows}))
