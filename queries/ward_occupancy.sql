-- Finds:   per ward and minute: how many beds were heard of, with which signals, and how many breathe or saturate badly.
-- Reads:   vitals.  Writes: ward_occupancy, keyed by ward.
-- Source:  operational count. Breathing of 25/min or more, or 8 or less, and saturation of 91 % or less score 3 in NEWS2
--          (RCP 2017, scale 1). No patient appears in the result.

CREATE QUERY ward_occupancy AS
INSERT INTO ward_occupancy
SELECT
  ward,
  window_start,
  window_end,
  count(DISTINCT bed) AS beds,
  count(DISTINCT CASE WHEN heart_rate IS NOT NULL THEN bed END) AS beds_with_heart_rate,
  count(DISTINCT CASE WHEN spo2 IS NOT NULL THEN bed END) AS beds_with_spo2,
  count(DISTINCT CASE WHEN resp_rate >= 25 OR resp_rate <= 8 THEN bed END) AS beds_breathing_badly,
  count(DISTINCT CASE WHEN spo2 <= 91 THEN bed END) AS beds_saturating_badly
FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
WHERE ward IS NOT NULL
GROUP BY ward, window_start, window_end
EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '10' SECOND;
