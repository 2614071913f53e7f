-- Finds:   heart rate above 130 /min for 60 s; over once it has been 120 /min or less for 30 s.
-- Reads:   vitals.  Writes: alerts.
-- Source:  131 /min or more scores 3 in NEWS2 (RCP 2017); the minute keeps short runs and ECG noise quiet
--          (median bedside alarm 17 s: Görges 2009, Anesth Analg 108:1546). Values outside 0..300 are artefacts.

CREATE ALERT sustained_tachycardia
  WITH ('priority' = 'medium', 'hold' = '60s', 'clear.hold' = '30s') AS
SELECT
  patient_id AS subject,
  ts,
  heart_rate AS value,
  heart_rate > 130 AS breach,
  heart_rate <= 120 AS clear,
  ward,
  bed
FROM vitals
WHERE heart_rate BETWEEN 0 AND 300;
