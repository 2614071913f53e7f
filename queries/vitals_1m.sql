-- Finds:   per patient and minute: how many values of each vital, their least, greatest, mean, median and last, and how
--          many of the seconds had a valid saturation.
-- Reads:   vitals.  Writes: vitals_1m, keyed by patient_id.
-- Source:  aggregate only; charts in intensive care are minute by minute (PhysioNet numerics are 1 Hz or 1/min).

CREATE QUERY vitals_1m AS
INSERT INTO vitals_1m
SELECT
  patient_id,
  window_start,
  window_end,
  count(*) AS readings,
  count(heart_rate) AS heart_rate_n,
  min(heart_rate) AS heart_rate_min,
  max(heart_rate) AS heart_rate_max,
  avg(heart_rate) AS heart_rate_mean,
  median(heart_rate) AS heart_rate_median,
  last_value(heart_rate ORDER BY ts) FILTER (WHERE heart_rate IS NOT NULL) AS heart_rate_last,
  count(spo2) AS spo2_n,
  min(spo2) AS spo2_min,
  avg(spo2) AS spo2_mean,
  last_value(spo2 ORDER BY ts) FILTER (WHERE spo2 IS NOT NULL) AS spo2_last,
  count(resp_rate) AS resp_rate_n,
  avg(resp_rate) AS resp_rate_mean,
  count(map) AS map_n,
  min(map) AS map_min,
  avg(map) AS map_mean,
  avg(temp_c) AS temp_c_mean,
  100.0 * count(spo2) / count(*) AS spo2_valid_pct
FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
GROUP BY patient_id, window_start, window_end
EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '10' SECOND;
