-- Finds:   a saturation that falls to 3 points of NEWS2 and, before it is back at no points and within 5 minutes, a heart
--          rate that reaches 2 points, having been below; one row each time.
-- Reads:   vitals.  Writes: desaturation_tachycardia, keyed by patient_id.
-- Source:  points as in NEWS2 (Royal College of Physicians, London 2017): saturation 91 % or less and 96 % or more, on scale 2
--          83 % or less and 88 % or more; heart rate 111 /min or more. The 5 minutes are an engineering default.

CREATE QUERY desaturation_tachycardia AS
INSERT INTO desaturation_tachycardia
WITH judged AS (
  SELECT
    patient_id,
    ward,
    bed,
    ts,
    heart_rate,
    spo2,
    spo2 <= CASE WHEN spo2_scale = 2 THEN 83 ELSE 91 END AS is_low,
    spo2 >= CASE WHEN spo2_scale = 2 THEN 88 ELSE 96 END AS is_back
  FROM vitals
)
SELECT patient_id, ward, bed, fell_at, rose_at, spo2_min, heart_rate_min, heart_rate_rose
FROM judged MATCH_RECOGNIZE (
  PARTITION BY patient_id
  ORDER BY ts
  MEASURES
    rise.ward AS ward,
    rise.bed AS bed,
    fall.ts AS fell_at,
    rise.ts AS rose_at,
    min(spo2) AS spo2_min,
    min(heart_rate) AS heart_rate_min,
    rise.heart_rate AS heart_rate_rose
  ONE ROW PER MATCH
  AFTER MATCH SKIP PAST LAST ROW
  PATTERN (fall low*? rise) WITHIN INTERVAL '5' MINUTE
  DEFINE
    -- A value that nobody measured is no recovery: the first low one behind it is a fall.
    fall AS fall.is_low AND PREV(fall.is_low) IS NOT TRUE,
    low AS low.is_back IS NOT TRUE,
    rise AS rise.is_back IS NOT TRUE AND rise.heart_rate >= 111 AND min(heart_rate) <= 110
) AS m
EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '10' SECOND;
