-- What it is:  the streams that every shipped query reads.
-- Reads:       topic vitals (what monitors send), topic alerts (what the alarm desk wrote).
-- Units:       heart_rate, pulse_rate, resp_rate 1/min; spo2 %; sbp, dbp, map, etco2 mmHg; temp_c Cel; fio2 fraction 0-1.
-- Form:        one row a reading time, NULL where nothing was measured.

CREATE STREAM IF NOT EXISTS vitals (
  patient_id VARCHAR NOT NULL,
  bed VARCHAR,
  ward VARCHAR,
  heart_rate DOUBLE,
  pulse_rate DOUBLE,
  resp_rate DOUBLE,
  spo2 DOUBLE,
  sbp DOUBLE,
  dbp DOUBLE,
  map DOUBLE,
  temp_c DOUBLE,
  etco2 DOUBLE,
  fio2 DOUBLE,
  on_oxygen BOOLEAN,
  acvpu VARCHAR,
  spo2_scale INT,
  ts TIMESTAMP(3) NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH (
  'topic' = 'vitals',
  'format' = 'json',
  'partitions' = '4',
  'key' = 'patient_id',
  'bad-records' = 'dlq',
  'watermark.idle-timeout' = '10s',
  'watermark.max-future' = '10s',
  'late.topic' = 'vitals.late'
);

CREATE STREAM IF NOT EXISTS alert_records (
  id VARCHAR NOT NULL,
  rule VARCHAR NOT NULL,
  priority VARCHAR NOT NULL,
  state VARCHAR NOT NULL,
  subject VARCHAR NOT NULL,
  ward VARCHAR,
  value DOUBLE,
  stale BOOLEAN,
  recorded_at TIMESTAMP(3) NOT NULL,
  WATERMARK FOR recorded_at AS recorded_at - INTERVAL '5' SECOND
) WITH (
  'topic' = 'alerts',
  'format' = 'json',
  'key' = 'subject'
);
