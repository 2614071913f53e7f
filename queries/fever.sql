-- Finds:   temperature of 38.3 Cel or more; over once it is below 38.0. Raised on the second reading within an hour, so that
--          a single wrong reading is not a fever.
-- Reads:   vitals.  Writes: alerts.
-- Source:  38.3 Cel once or 38.0 sustained is the usual definition of fever in intensive care (O'Grady 2008, Crit Care Med
--          36:1330). Values outside 30-44 are artefacts.

CREATE ALERT fever
  WITH ('priority' = 'low', 'hold' = '60s', 'clear.hold' = '0s', 'max.gap' = '60m') AS
SELECT
  patient_id AS subject,
  ts,
  temp_c AS value,
  temp_c >= 38.3 AS breach,
  temp_c < 38.0 AS clear,
  ward,
  bed
FROM vitals
WHERE temp_c BETWEEN 30 AND 44;
