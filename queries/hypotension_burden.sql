-- Finds:   per patient and hour: how long mean arterial pressure was below 75, 70, 65, 60 and 55 mmHg (minutes), and how
--          deep (area in mmHg times minutes below 65, and its mean over the monitored time).
-- Reads:   vitals.  Writes: hypotension_burden, keyed by patient_id.
-- Source:  time-weighted average below a threshold as in Liem 2020, Anesthesiology 133:510, and Ahuja 2020. A value counts
--          until the next one, but never longer than 30 s: silence is no pressure.

CREATE QUERY hypotension_burden AS
INSERT INTO hypotension_burden
WITH pressure AS (
  SELECT patient_id, ts, map
  FROM vitals
  WHERE map BETWEEN 20 AND 250 AND dbp < map AND map < sbp
),
steps AS (
  SELECT
    patient_id,
    ts,
    lag(map) OVER (PARTITION BY patient_id ORDER BY ts) AS map_before,
    lag(ts) OVER (PARTITION BY patient_id ORDER BY ts) AS ts_before
  FROM pressure
),
spans AS (
  SELECT
    patient_id,
    ts,
    map_before AS map,
    CAST(CAST(ts AS BIGINT) - CAST(ts_before AS BIGINT) AS DOUBLE) / 60000.0 AS minutes
  FROM steps
  WHERE ts_before IS NOT NULL AND CAST(ts AS BIGINT) - CAST(ts_before AS BIGINT) <= 30000
)
SELECT
  patient_id,
  window_start,
  window_end,
  sum(minutes) AS monitored_min,
  sum(CASE WHEN map < 75 THEN minutes ELSE 0.0 END) AS below_75_min,
  sum(CASE WHEN map < 70 THEN minutes ELSE 0.0 END) AS below_70_min,
  sum(CASE WHEN map < 65 THEN minutes ELSE 0.0 END) AS below_65_min,
  sum(CASE WHEN map < 60 THEN minutes ELSE 0.0 END) AS below_60_min,
  sum(CASE WHEN map < 55 THEN minutes ELSE 0.0 END) AS below_55_min,
  sum(CASE WHEN map < 65 THEN (65.0 - map) * minutes ELSE 0.0 END) AS area_65_mmhg_min,
  sum(CASE WHEN map < 65 THEN (65.0 - map) * minutes ELSE 0.0 END) / nullif(sum(minutes), 0.0) AS twa_65_mmhg
FROM TABLE(TUMBLE(TABLE spans, DESCRIPTOR(ts), INTERVAL '1' HOUR))
GROUP BY patient_id, window_start, window_end
EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '10' SECOND;
