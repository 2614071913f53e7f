-- Finds:   per ward and hour: how complete each signal was, and how many values were impossible.
-- Reads:   vitals.  Writes: data_quality_hourly, keyed by ward.
-- Source:  hard limits as in the ICU package ricu (vitals.json): heart rate 0-300, saturation 0-100, breathing 0-100,
--          MAP 0-250; pressure triplets must have diastolic < mean < systolic.

CREATE QUERY data_quality_hourly AS
INSERT INTO data_quality_hourly
SELECT
  ward,
  window_start,
  window_end,
  count(*) AS readings,
  count(DISTINCT patient_id) AS patients,
  100.0 * count(heart_rate) / count(*) AS heart_rate_pct,
  100.0 * count(spo2) / count(*) AS spo2_pct,
  100.0 * count(resp_rate) / count(*) AS resp_rate_pct,
  100.0 * count(map) / count(*) AS map_pct,
  sum(CASE WHEN heart_rate < 0 OR heart_rate > 300 THEN 1 ELSE 0 END) AS heart_rate_impossible,
  sum(CASE WHEN spo2 < 0 OR spo2 > 100 THEN 1 ELSE 0 END) AS spo2_impossible,
  sum(CASE WHEN resp_rate < 0 OR resp_rate > 100 THEN 1 ELSE 0 END) AS resp_rate_impossible,
  sum(CASE WHEN map < 0 OR map > 250 OR map >= sbp OR map <= dbp THEN 1 ELSE 0 END) AS pressure_impossible
FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' HOUR))
GROUP BY ward, window_start, window_end
EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '10' SECOND;
