//! What SHOW and DESCRIBE answer, and canonical text that reads back.

use std::fmt::Write as _;

use arrow::util::pretty::pretty_format_batches;
use expect_test::{Expect, expect};

use super::super::catalog::Existing;
use super::super::parse::parse_script;
use super::*;

fn catalog(script: &str) -> Catalog {
    let mut catalog = Catalog::new();
    for parsed in parse_script(script).expect("the script parses") {
        let change = catalog.create(&parsed, Existing::AsWritten, Timestamp(0)).expect("it fits");
        catalog.apply(&change);
    }
    catalog
}

const SCRIPT: &str = "
CREATE STREAM vitals (patient_id VARCHAR NOT NULL, \"heartRate\" DOUBLE, epoch_ms BIGINT, ts AS to_timestamp_millis(epoch_ms), k INT METADATA FROM 'partition',
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH (topic = 'vitals.raw', key = 'patient_id', \"json.path.heartRate\" = 'v.hr');
CREATE TABLE patient (id VARCHAR PRIMARY KEY NOT ENFORCED, limits STRUCT<hr DOUBLE, tags VARCHAR[]>);
create or replace query \"Q.1\" with (delivery = exactly_once) as insert into o (p, n)
  select patient_id, count(*) n from Tumble(vitals, ts, interval '1 minute') as w where \"heartRate\" > 1 and patient_id <> 'it''s' group by patient_id, window_start, window_end having count(*) > 2 emit on window close timeout interval '90 seconds';
CREATE QUERY old AS INSERT INTO o SELECT patient_id, TUMBLE_END(v.ts, INTERVAL '1' MINUTE) AS e FROM vitals AS v GROUP BY patient_id, TUMBLE(v.ts, INTERVAL '1' MINUTE);
CREATE ALERT silent WITH (priority = 'low', hold = '1s', 'clear.hold' = '2s', 'max.gap' = '3s') AS
  SELECT patient_id AS subject FROM TABLE(ABSENT(TABLE (SELECT * FROM vitals WHERE \"heartRate\" IS NOT NULL) PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '30' SECOND));
CREATE QUERY cte AS INSERT INTO o WITH x AS (SELECT * FROM vitals) SELECT * FROM HOP(x, ts, INTERVAL '10' SECOND, INTERVAL '1' MINUTE) EMIT ON WINDOW CLOSE;
CREATE QUERY near AS INSERT INTO o SELECT v.patient_id FROM vitals v LEFT ASOF JOIN vitals w ON v.patient_id = w.patient_id AND v.ts > w.ts
  LEFT OUTER JOIN patient FOR SYSTEM_TIME AS OF v.ts AS p ON v.patient_id = p.id;
CREATE QUERY falls AS INSERT INTO o SELECT patient_id, n FROM vitals v match_recognize (partition by patient_id order by ts
  measures final count(a.*) as n pattern (a (b+?|c{2,3})) within interval '1' minute define b as b.\"heartRate\" > prev(b.\"heartRate\")) as m;
";

#[test]
fn show_create_prints_the_canonical_form_which_reads_back() {
    let catalog = catalog(SCRIPT);
    let mut all = String::new();
    for kind in [Kind::Stream, Kind::Table, Kind::Query, Kind::Alert] {
        for entry in catalog.all(kind) {
            let text = show_create(entry);
            assert_ne!(text, entry.text, "{} falls back to the user's text", entry.name);
            let again = parse_statement(&text).unwrap_or_else(|e| panic!("{}", e.render(&text)));
            assert_eq!(canonical(&again.statement), text);
            let _ = writeln!(all, "{text};\n");
        }
    }
    expect![[r#"
        CREATE STREAM vitals (
          patient_id VARCHAR NOT NULL,
          "heartRate" DOUBLE,
          epoch_ms BIGINT,
          ts AS to_timestamp_millis(epoch_ms),
          k INT METADATA FROM 'partition',
          WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
        ) WITH (
          'topic' = 'vitals.raw',
          'key' = 'patient_id',
          'json.path.heartRate' = 'v.hr'
        );

        CREATE TABLE patient (
          id VARCHAR NOT NULL,
          limits STRUCT<hr DOUBLE, tags ARRAY<VARCHAR>>,
          PRIMARY KEY (id) NOT ENFORCED
        );

        CREATE QUERY "Q.1" WITH ('delivery' = 'exactly_once') AS
        INSERT INTO o (p, n)
        SELECT patient_id, count(*) AS n
        FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1 minute')) AS w
        WHERE "heartRate" > 1 AND patient_id <> 'it''s'
        GROUP BY patient_id, window_start, window_end
        HAVING count(*) > 2
        EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '90' SECOND;

        CREATE QUERY cte AS
        INSERT INTO o
        WITH x AS (SELECT * FROM vitals) SELECT * FROM TABLE(HOP(TABLE x, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '1' MINUTE))
        EMIT ON WINDOW CLOSE;

        CREATE QUERY falls AS
        INSERT INTO o
        SELECT patient_id, n
        FROM vitals v MATCH_RECOGNIZE (
          PARTITION BY patient_id
          ORDER BY ts
          MEASURES FINAL count(a.*) AS n
          ONE ROW PER MATCH
          AFTER MATCH SKIP PAST LAST ROW
          PATTERN (a ( b+? | c{2,3} )) WITHIN INTERVAL '1' MINUTE
          DEFINE b AS b."heartRate" > prev(b."heartRate")
        ) AS m;

        CREATE QUERY near AS
        INSERT INTO o
        SELECT v.patient_id
        FROM vitals v ASOF LEFT JOIN vitals w MATCH_CONDITION (v.ts > w.ts) ON v.patient_id = w.patient_id LEFT JOIN patient FOR SYSTEM_TIME AS OF v.ts AS p ON v.patient_id = p.id;

        CREATE QUERY old AS
        INSERT INTO o
        SELECT patient_id, window_end AS e
        FROM TABLE(TUMBLE(TABLE (SELECT * FROM vitals AS v), DESCRIPTOR(v.ts), INTERVAL '1' MINUTE))
        GROUP BY patient_id, window_start, window_end;

        CREATE ALERT silent WITH (
          'priority' = 'low',
          'hold' = '1s',
          'clear.hold' = '2s',
          'max.gap' = '3s'
        ) AS
        SELECT patient_id AS subject
        FROM TABLE(ABSENT(TABLE (SELECT * FROM vitals WHERE "heartRate" IS NOT NULL) PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '30' SECOND));

    "#]].assert_eq(&all);
}

fn check_rows(batch: &RecordBatch, expected: &Expect) {
    expected.assert_eq(&format!("{}\n", pretty_format_batches(std::slice::from_ref(batch)).expect("it can be printed")));
}

#[test]
fn lists_and_descriptions_are_rows() {
    let catalog = catalog(SCRIPT);
    let status = |name: &str| TaskLine {
        state: "running".to_owned(),
        rows_in: name.len() as u64,
        watermark: Some(Timestamp(1000)),
        lag: Some(0),
        ..TaskLine::default()
    };
    check_rows(
        &show_all(&catalog, Kind::Stream, status),
        &expect![[r#"
        +--------+------------+--------+---------+------------+------------+--------------------------+
        | name   | topic      | format | columns | key        | event_time | watermark                |
        +--------+------------+--------+---------+------------+------------+--------------------------+
        | vitals | vitals.raw | json   | 5       | patient_id | ts         | ts - INTERVAL '5' SECOND |
        +--------+------------+--------+---------+------------+------------+--------------------------+
    "#]],
    );
    check_rows(
        &show_all(&catalog, Kind::Table, status),
        &expect![[r#"
        +---------+---------+--------+---------+-----+------------+-----------+
        | name    | topic   | format | columns | key | event_time | watermark |
        +---------+---------+--------+---------+-----+------------+-----------+
        | patient | patient | json   | 2       | id  |            |           |
        +---------+---------+--------+---------+-----+------------+-----------+
    "#]],
    );
    check_rows(
        &show_all(&catalog, Kind::Query, status),
        &expect![[r#"
            +-------+---------+---------+-----------------+--------+---------+----------+------+---------------------+-----+-------+
            | name  | state   | version | reads           | writes | rows_in | rows_out | late | watermark           | lag | error |
            +-------+---------+---------+-----------------+--------+---------+----------+------+---------------------+-----+-------+
            | Q.1   | running | 1       | vitals          | o      | 3       | 0        | 0    | 1970-01-01T00:00:01 | 0   |       |
            | cte   | running | 1       | vitals          | o      | 3       | 0        | 0    | 1970-01-01T00:00:01 | 0   |       |
            | falls | running | 1       | vitals          | o      | 5       | 0        | 0    | 1970-01-01T00:00:01 | 0   |       |
            | near  | running | 1       | vitals, patient | o      | 4       | 0        | 0    | 1970-01-01T00:00:01 | 0   |       |
            | old   | running | 1       | vitals          | o      | 3       | 0        | 0    | 1970-01-01T00:00:01 | 0   |       |
            +-------+---------+---------+-----------------+--------+---------+----------+------+---------------------+-----+-------+
        "#]],
    );
    check_rows(
        &show_all(&catalog, Kind::Alert, |_| TaskLine::default()),
        &expect![[r#"
        +--------+-------+---------+--------+----------+---------+----------+------+-----------+-----+-------+
        | name   | state | version | reads  | priority | rows_in | rows_out | late | watermark | lag | error |
        +--------+-------+---------+--------+----------+---------+----------+------+-----------+-----+-------+
        | silent |       | 1       | vitals | low      | 0       | 0        | 0    |           |     |       |
        +--------+-------+---------+--------+----------+---------+----------+------+-----------+-----+-------+
    "#]],
    );
    assert_eq!(show_all(&catalog, Kind::View, status).num_rows(), 0);
    let def = catalog.relation("vitals").expect("it is there");
    check_rows(
        &describe_stream(def, |_| Some(DataType::Timestamp(TimeUnit::Millisecond, None))),
        &expect![[r#"
        +------------+--------------+----------+-----------------------------------------------------------------------------------------+
        | column     | type         | nullable | notes                                                                                   |
        +------------+--------------+----------+-----------------------------------------------------------------------------------------+
        | patient_id | VARCHAR      | false    | key                                                                                     |
        | heartRate  | DOUBLE       | true     | json path v.hr                                                                          |
        | epoch_ms   | BIGINT       | true     |                                                                                         |
        | ts         | TIMESTAMP(3) | true     | computed: to_timestamp_millis(epoch_ms); event time, watermark ts - INTERVAL '5' SECOND |
        | k          | INT          | true     | metadata 'partition'                                                                    |
        +------------+--------------+----------+-----------------------------------------------------------------------------------------+
    "#]],
    );
    check_rows(
        &describe_schema(&def.written()),
        &expect![[r#"
        +------------+---------+----------+-------+
        | column     | type    | nullable | notes |
        +------------+---------+----------+-------+
        | patient_id | VARCHAR | false    |       |
        | heartRate  | DOUBLE  | true     |       |
        | epoch_ms   | BIGINT  | true     |       |
        +------------+---------+----------+-------+
    "#]],
    );
}

#[test]
fn a_stream_that_a_query_makes_has_a_statement_of_its_own() {
    let schema = Schema::new(vec![
        Field::new("patient_id", DataType::Utf8, false),
        Field::new("window_end", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("avg(x)", DataType::Float64, true),
    ]);
    let text = derived_stream(
        "vitals_1m",
        &schema,
        Some(("window_end", "window_end")),
        &[("partitions", "4"), ("key", "patient_id"), ("key.partitioner", "murmur2")],
    );
    expect![[r#"
        CREATE STREAM vitals_1m (
          patient_id VARCHAR NOT NULL,
          window_end TIMESTAMP(3) NOT NULL,
          "avg(x)" DOUBLE,
          WATERMARK FOR window_end AS window_end
        ) WITH (
          'partitions' = '4',
          'key' = 'patient_id',
          'key.partitioner' = 'murmur2'
        )"#]]
    .assert_eq(&text);
    assert!(parse_statement(&text).is_ok());
}

#[test]
fn every_call_of_a_window_is_spelled_as_the_manual_writes_it() {
    for call in [
        "TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
        "CUMULATE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '1' DAY)",
        "SESSION(TABLE s PARTITION BY a, b, DESCRIPTOR(ts), INTERVAL '30' SECOND)",
        "ABSENT(TABLE s PARTITION BY a, DESCRIPTOR(ts), INTERVAL '30' SECOND)",
        "GAP_FILL(TABLE s PARTITION BY a, DESCRIPTOR(ts), INTERVAL '1' SECOND, LOCF(x), INTERPOLATE(y))",
    ] {
        let text = format!("CREATE QUERY q AS INSERT INTO o SELECT * FROM TABLE({call})");
        let parsed = parse_statement(&text).unwrap_or_else(|e| panic!("{}", e.render(&text)));
        let shown = canonical(&parsed.statement);
        assert!(shown.contains(&format!("TABLE({call})")), "{shown}");
    }
}
