-- Finds:   mean arterial pressure below 65 mmHg for at least a minute, on patients whose pressure is measured
--          continuously; one row when it has lasted that long.
-- Reads:   vitals.  Writes: hypotension_map65, keyed by patient_id.
-- Source:  MAP below 65 mmHg is the threshold of organ injury (Ahuja 2020, Anesthesiology 132:291). The triplet must be
--          possible: diastolic < mean < systolic, or it is a flush of the line.

CREATE QUERY hypotension_map65 AS
INSERT INTO hypotension_map65
WITH held AS (
  SELECT
    patient_id,
    ward,
    bed,
    ts,
    map,
    held_for(map < 65, INTERVAL '60' SECOND) OVER (PARTITION BY patient_id ORDER BY ts) AS sustained
  FROM vitals
  WHERE map IS NOT NULL AND dbp < map AND map < sbp
),
changes AS (
  SELECT
    patient_id, ward, bed, ts, map, sustained,
    lag(sustained) OVER (PARTITION BY patient_id ORDER BY ts) AS was
  FROM held
)
SELECT patient_id, ward, bed, ts, map AS map_mmhg
FROM changes
WHERE sustained AND NOT coalesce(was, false)
EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '10' SECOND;
