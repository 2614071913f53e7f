-- Finds:   shock index (heart rate over systolic pressure) over half an hour, each five minutes, with its slope; rows where
--          the mean is 0.9 or more, or it rises by 0.1 or more an hour.
-- Reads:   vitals.  Writes: shock_index_trend, keyed by patient_id.
-- Source:  normal 0.5-0.7, flags 0.9 and 1.0 (Koch 2019, doi 10.2147/OAEM.S178358); modified index HR/MAP, cut-off 1.3
--          (Liu 2012, PMC4129788).

CREATE QUERY shock_index_trend AS
INSERT INTO shock_index_trend
SELECT
  patient_id,
  window_start,
  window_end,
  count(*) AS readings,
  avg(shock_index(heart_rate, sbp)) AS shock_index_mean,
  max(shock_index(heart_rate, sbp)) AS shock_index_max,
  avg(modified_shock_index(heart_rate, map)) AS modified_shock_index_mean,
  regr_slope(shock_index(heart_rate, sbp), CAST(CAST(ts AS BIGINT) AS DOUBLE) / 3600000.0) AS shock_index_per_hour
FROM TABLE(HOP(TABLE vitals, DESCRIPTOR(ts), INTERVAL '5' MINUTE, INTERVAL '30' MINUTE))
WHERE heart_rate IS NOT NULL AND sbp IS NOT NULL AND map IS NOT NULL
GROUP BY patient_id, window_start, window_end
HAVING avg(shock_index(heart_rate, sbp)) >= 0.9
    OR regr_slope(shock_index(heart_rate, sbp), CAST(CAST(ts AS BIGINT) AS DOUBLE) / 3600000.0) >= 0.1
EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '10' SECOND;
