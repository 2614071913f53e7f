-- Finds:   NEWS2 per patient, each minute, from the last known values: total, sub-scores, risk, what is missing.
-- Reads:   vitals.  Writes: news2_rolling, keyed by patient_id.
-- Source:  Royal College of Physicians, National Early Warning Score (NEWS) 2, London 2017. A missing parameter is never
--          scored as zero: the total is then NULL and score_min..score_max say what it could be. How long a value stays
--          known: heart rate, breathing and saturation 5 min; pressure 60 min; temperature, consciousness and oxygen 12 h.

CREATE QUERY news2_rolling AS
INSERT INTO news2_rolling
WITH known AS (
  SELECT
    patient_id,
    bed,
    ward,
    ts,
    locf(resp_rate, INTERVAL '5' MINUTE) OVER (PARTITION BY patient_id ORDER BY ts) AS resp_rate,
    locf(spo2, INTERVAL '5' MINUTE) OVER (PARTITION BY patient_id ORDER BY ts) AS spo2,
    locf(on_oxygen, INTERVAL '12' HOUR) OVER (PARTITION BY patient_id ORDER BY ts) AS on_oxygen,
    locf(spo2_scale, INTERVAL '12' HOUR) OVER (PARTITION BY patient_id ORDER BY ts) AS spo2_scale,
    locf(sbp, INTERVAL '60' MINUTE) OVER (PARTITION BY patient_id ORDER BY ts) AS sbp,
    locf(heart_rate, INTERVAL '5' MINUTE) OVER (PARTITION BY patient_id ORDER BY ts) AS heart_rate,
    locf(acvpu, INTERVAL '12' HOUR) OVER (PARTITION BY patient_id ORDER BY ts) AS acvpu,
    locf(temp_c, INTERVAL '12' HOUR) OVER (PARTITION BY patient_id ORDER BY ts) AS temp_c
  FROM vitals
),
minute AS (
  SELECT
    patient_id,
    window_start,
    window_end,
    last_value(ward ORDER BY ts) AS ward,
    last_value(bed ORDER BY ts) AS bed,
    median(resp_rate) AS resp_rate,
    median(spo2) AS spo2,
    last_value(on_oxygen ORDER BY ts) AS on_oxygen,
    last_value(spo2_scale ORDER BY ts) AS spo2_scale,
    median(sbp) AS sbp,
    median(heart_rate) AS heart_rate,
    last_value(acvpu ORDER BY ts) AS acvpu,
    median(temp_c) AS temp_c
  FROM TABLE(TUMBLE(TABLE known, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
  GROUP BY patient_id, window_start, window_end
),
scored AS (
  SELECT
    patient_id, ward, bed, window_start, window_end,
    news2(resp_rate, spo2, on_oxygen, spo2_scale, sbp, heart_rate, acvpu, temp_c) AS score
  FROM minute
)
SELECT
  patient_id,
  ward,
  bed,
  window_start,
  window_end,
  score['total'] AS total,
  score['resp_rate'] AS resp_rate_points,
  score['spo2'] AS spo2_points,
  score['oxygen'] AS oxygen_points,
  score['sbp'] AS sbp_points,
  score['heart_rate'] AS heart_rate_points,
  score['consciousness'] AS consciousness_points,
  score['temperature'] AS temperature_points,
  score['single3'] AS single3,
  score['risk'] AS risk,
  score['complete'] AS complete,
  score['missing'] AS missing,
  score['score_min'] AS score_min,
  score['score_max'] AS score_max
FROM scored
EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '10' SECOND;
