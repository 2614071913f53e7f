-- Finds:   oxygen saturation below 88 % for 15 s; over once it has been 90 % or more for 10 s.
-- Reads:   vitals.  Writes: alerts.
-- Source:  a limit of 88 % instead of 90 % removes 63 % of saturation alarms, a delay of 15 s another 60 % (AAMI,
--          BI&T 45(s1):46); a probe that is off sends no value, and no value never raises this alert.

CREATE ALERT spo2_low_sustained
  WITH ('priority' = 'high', 'hold' = '15s', 'clear.hold' = '10s') AS
SELECT
  patient_id AS subject,
  ts,
  spo2 AS value,
  spo2 < 88 AS breach,
  spo2 >= 90 AS clear,
  ward,
  bed
FROM vitals;
