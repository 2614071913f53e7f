-- Finds:   a bed that has sent nothing for 30 s; over when it speaks again. A silent sensor is a finding.
-- Reads:   vitals.  Writes: alerts.
-- Source:  a continuous signal without a valid sample for over 30 s is stale (engineering default; gaps in wearable
--          monitoring last 20 s in the median: Breteler 2020, Anesthesiology 132:424).

CREATE ALERT missing_signal
  WITH ('priority' = 'medium', 'hold' = '0s', 'clear.hold' = '0s') AS
SELECT
  patient_id AS subject,
  absent_since AS ts,
  absent AS breach
FROM TABLE(ABSENT(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '30' SECOND))
EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '5' SECOND;
