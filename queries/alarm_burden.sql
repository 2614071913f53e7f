-- Finds:   per rule, priority and hour: how many alerts were raised, how many acknowledged, how many ended, on how many
--          patients. More than ten alerts in ten minutes on one bed is called a flood.
-- Reads:   alerts (as alert_records).  Writes: alarm_burden, keyed by rule and priority.
-- Source:  alarm load per bed and day is the field's measure of alarm fatigue (Drew 2014, PLoS ONE 9:e110274: 187 audible
--          alarms per bed and day).

CREATE QUERY alarm_burden AS
INSERT INTO alarm_burden
SELECT
  rule,
  priority,
  window_start,
  window_end,
  sum(CASE WHEN state = 'active' THEN 1 ELSE 0 END) AS raised,
  sum(CASE WHEN state = 'acknowledged' THEN 1 ELSE 0 END) AS acknowledged,
  sum(CASE WHEN state = 'resolved' THEN 1 ELSE 0 END) AS resolved,
  count(DISTINCT subject) AS patients
FROM TABLE(TUMBLE(TABLE alert_records, DESCRIPTOR(recorded_at), INTERVAL '1' HOUR))
GROUP BY rule, priority, window_start, window_end
EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '10' SECOND;
