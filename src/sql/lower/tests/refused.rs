//! What is refused, how it is said, and who works what.

use super::*;

#[test]
fn clauses_without_an_operator_are_refused_by_name() {
    check_refused(
        "SELECT a.hr FROM vitals a JOIN vitals b ON a.patient_id = b.patient_id",
        expect![[r#"
            SQL-0021 JOIN without a range of time is not supported over a stream: say how far apart in time rows belong together, as in a.ts BETWEEN b.ts - INTERVAL '5' MINUTE AND b.ts
        "#]],
    );
    check_refused(
        "SELECT hr FROM vitals WHERE patient_id IN (SELECT patient_id FROM vitals)",
        expect![[r#"
            SQL-0021 IN or EXISTS with a subquery and no range of time is not supported over a stream: say how far apart in time rows belong together, as in a.ts BETWEEN b.ts - INTERVAL '5' MINUTE AND b.ts
        "#]],
    );
    check_refused(
        "SELECT ts FROM vitals WHERE ts > now() - INTERVAL '1' HOUR",
        expect![[r#"
        SQL-0021 now() is the time of planning in a continuous query: compare with the event time of the rows, or give the query a TIMEOUT
    "#]],
    );
    check_refused(
        "SELECT random() AS r FROM vitals",
        expect![[r#"
        SQL-0021 random() answers differently each time, so the query could not be repeated after a restart: derive the value from columns, as in md5(concat(patient_id, ts))
    "#]],
    );
    check_refused(
        "SELECT median(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS a FROM vitals",
        expect![[r#"
        SQL-0021 the aggregate median(..) OVER is not supported over a stream: aggregate over TUMBLE or HOP windows instead
    "#]],
    );
    check_refused(
        "SELECT cume_dist() OVER (PARTITION BY patient_id ORDER BY ts) AS a FROM vitals",
        expect![[r#"
        SQL-0021 cume_dist(..) OVER is not supported over a stream: it would need rows that have not come, or all that ever came
    "#]],
    );
    check_refused(
        "SELECT lag(hr) OVER (PARTITION BY patient_id ORDER BY hr) AS a FROM vitals",
        expect![[r#"
        SQL-0021 "hr" is not the event time of "vitals": take "ts", or a window's window_start, window_end or window_time
    "#]],
    );
    check_refused(
        "SELECT lag(hr) OVER (PARTITION BY patient_id ORDER BY ts DESC) AS a FROM vitals",
        expect![[r#"
        SQL-0021 OVER (.. ORDER BY .. DESC) is not supported over a stream: order by the event time, ascending: a stream knows no later rows
    "#]],
    );
    check_refused(
        "SELECT lag(hr) OVER (PARTITION BY patient_id) AS a FROM vitals",
        expect![[r#"
        SQL-0021 OVER without ORDER BY is not supported over a stream: ORDER BY the event time, as in OVER (PARTITION BY patient_id ORDER BY ts)
    "#]],
    );
    check_refused(
        "SELECT held_for(hr > 1, INTERVAL '5' SECOND) AS h FROM nokey",
        expect![[r#"
        SQL-0021 stream "nokey" has no 'key' that held_for could go by: write held_for(..) OVER (PARTITION BY patient_id ORDER BY ts)
    "#]],
    );
    check_refused(
        "SELECT held_for(hr > 1, INTERVAL '5' SECOND) AS h FROM untimed",
        expect![[r#"
        SQL-0021 stream "untimed" has no event time that held_for could go by: write held_for(..) OVER (PARTITION BY patient_id ORDER BY ts)
    "#]],
    );
    check_refused(
        "SELECT held_for(hr, INTERVAL '5' SECOND) AS h FROM vitals",
        expect![[r#"
        SQL-0016 held_for does not take DOUBLE there: write held_for(condition, INTERVAL '15' SECOND [, max_gap INTERVAL])
    "#]],
    );
    check_refused(
        "SELECT held_for(hr > 1, INTERVAL '1' MONTH) AS h FROM vitals",
        expect![[r#"
        SQL-0006 argument 2 of held_for is an INTERVAL of a fixed length, the same for all rows: write held_for(condition, INTERVAL '15' SECOND [, max_gap INTERVAL])
    "#]],
    );
    check_refused(
        "SELECT locf(hr) AS h FROM vitals",
        expect![[r#"
        SQL-0006 locf takes other arguments: write locf(value, INTERVAL '5' MINUTE)
    "#]],
    );
    check_refused(
        "SELECT patient_id, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id",
        expect![[r#"
        SQL-0020 a GROUP BY over a window groups by window_start or window_end too: add window_start, window_end to the GROUP BY
    "#]],
    );
    check_refused(
        "SELECT count(*) AS n FROM TABLE(TUMBLE(TABLE untimed, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start",
        expect![[r#"
        SQL-0021 "ts" is not the event time of "untimed": declare one: WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
    "#]],
    );
    check_refused(
        "SELECT count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(hr), INTERVAL '1' MINUTE)) GROUP BY window_start",
        expect![[r#"
        SQL-0020 tumble cuts time, and column "hr" is DOUBLE
    "#]],
    );
    check_refused(
        "SELECT date_trunc('hour', window_start) AS h, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY date_trunc('hour', window_start)",
        expect![[r#"
        SQL-0020 date_trunc(Utf8("hour"), window_start) reads a column of the window before the GROUP BY: group by window_start and window_end themselves, and compute with them in the SELECT list
    "#]],
    );
    check_refused(
        "SELECT max(window_end) AS h FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start",
        expect![[r#"
        SQL-0020 max(window_end) reads a column of the window before the GROUP BY: group by window_start and window_end themselves, and compute with them in the SELECT list
    "#]],
    );
    check_refused(
        "SELECT patient_id, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY ROLLUP(patient_id, window_start)",
        expect![[r#"
            SQL-0020 a set of the GROUP BY leaves out window_start: GROUPING SETS, ROLLUP and CUBE group by the window in every set, as in GROUP BY window_start, window_end, ROLLUP (a, b)
        "#]],
    );
    check_refused(
        "SELECT approx_distinct(hr) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start",
        expect![[r#"
        SQL-0002 not supported yet: support for 'approx_distinct' for data type Float64 is not implemented
    "#]],
    );
    check_refused(
        "SELECT nth_value(hr, 2 ORDER BY ts) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start",
        expect![[r#"
        SQL-0002 not supported yet: ORDER BY inside nth_value(..) in a window: write array_agg(x ORDER BY ts)[2] for the second
    "#]],
    );
    check_refused(
        "SELECT hr, hr FROM vitals",
        expect![[r#"
        SQL-0020 projections require unique expression names but the expression "vitals.hr" at position 0 and "vitals.hr" at position 1 have the same name. Consider aliasing ("AS") one of them
    "#]],
    );
    check_refused(
        "SELECT patient_id FROM patient",
        expect![[r#"
            SQL-0021 reading the table "patient" as a stream is not supported over a stream: join it as it was: s JOIN t FOR SYSTEM_TIME AS OF s.ts AS t ON ..; a table alone can be read over stored data
        "#]],
    );
    check_refused(
        "SELECT hr FROM nothing",
        expect![[r#"
        SQL-0010 no stream "nothing"
    "#]],
    );
    check_refused(
        "SELECT sp02 FROM vitals",
        expect![[r#"
        SQL-0012 no column "sp02": did you mean "spo2"?
    "#]],
    );
    check_refused(
        "SELECT hr FROM vitals WHERE 1 = 2",
        expect![[r#"
        SQL-0021 a query that reads no stream or keeps no row is not supported over a stream: read FROM a stream, and see that its WHERE can be true
    "#]],
    );
}

#[test]
fn a_partition_is_worked_alone_where_the_keys_hold_the_streams_key() {
    let placement = |sql: &str| planned(sql).unwrap_or_else(|e| panic!("{}", e.render(sql))).placement;
    let keys = |sql: &str| planned(sql).unwrap_or_else(|e| panic!("{}", e.render(sql))).key_columns.join(",");
    let by = |k: &str| {
        format!(
            "SELECT {k}, window_end, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY {k}, window_start, window_end"
        )
    };
    assert_eq!(placement("SELECT hr FROM vitals"), Placement::Partition);
    assert_eq!(placement(&by("patient_id")), Placement::Partition);
    assert_eq!(placement(&by("ward, patient_id")), Placement::Partition);
    assert_eq!(placement(&by("ward")), Placement::Merged);
    assert_eq!(placement("SELECT lag(hr) OVER (PARTITION BY ward ORDER BY ts) AS was FROM vitals"), Placement::Merged);
    assert_eq!(keys("SELECT hr FROM vitals"), "");
    assert_eq!(keys("SELECT hr, patient_id AS p FROM vitals"), "p");
    assert_eq!(keys(&by("ward")), "ward");
    assert_eq!(keys(&by("ward, patient_id")), "ward,patient_id");
    assert_eq!(keys("SELECT patient_id, ward, lag(hr) OVER (PARTITION BY ward ORDER BY ts) AS was FROM vitals"), "ward");
    let one = plan(&select(&format!("{} EMIT CHANGES", by("ward"))).unwrap(), &sources(1), Purpose::ExactlyOnce).unwrap();
    assert_eq!(one.placement, Placement::Partition);
}

#[test]
fn a_definition_may_not_ask_the_clock() {
    let parse = |sql: &str| Parser::new(&GenericDialect {}).try_with_sql(sql).unwrap().parse_expr().unwrap();
    let refused = |source: Source| source.shape().expect_err("refused").to_string();
    let mut source = vitals(1);
    source.watermark = Some(parse("now() - INTERVAL '1' SECOND"));
    expect!["now() is the time of planning in a continuous query: compute with the columns of the row alone"].assert_eq(&refused(source));
    let mut source = vitals(1);
    source.columns.push(SourceColumn { name: "r".to_owned(), computed: Some(parse("random()")) });
    expect!["random() answers differently each time, so the query could not be repeated after a restart: compute with the columns of the row alone"].assert_eq(&refused(source));
    let mut source = vitals(1);
    source.watermark = Some(parse("hr"));
    expect![[
        r#"the WATERMARK of "vitals" is of type Float64: write an expression that yields a TIMESTAMP, such as ts - INTERVAL '5' SECOND"#
    ]]
    .assert_eq(&refused(source));
    let mut source = vitals(1);
    source.time = Some("hr".to_owned());
    expect![[
        r#"the event time "hr" of "vitals" is of type Float64: declare it TIMESTAMP(3), or compute it: et AS to_timestamp_millis(epoch_ms)"#
    ]]
    .assert_eq(&refused(source));
}
