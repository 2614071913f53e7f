//! Every statement of the dialect, taken or refused by name.

use expect_test::{Expect, expect};

use super::super::statement::{ColumnSource, Metadata, Watermark};
use super::*;

/// What a statement comes to, in one line.
fn shape(statement: &Statement) -> String {
    match statement {
        Statement::CreateStream(s) => format!("stream {} {} columns {}", s.name, s.columns.len(), watermark(s.watermark.as_ref())),
        Statement::CreateLike(l) => format!("stream {} like topic {} options {}", l.name, l.topic, l.given.len()),
        Statement::CreateTable(t) => format!("table {} {} columns key {}", t.name, t.columns.len(), t.primary_key[0]),
        Statement::CreateQuery(q) => format!("query {} into {} from {} | {}", q.name, q.insert_into, reads(&q.select), emit(&q.select)),
        Statement::CreateView(v) => format!("view {} from {} | {}", v.name, reads(&v.select), emit(&v.select)),
        Statement::CreatePlainView(v) => format!("plain view {} ({}) from {}", v.name, v.columns.len(), reads(&v.select)),
        Statement::Subscribe(s) => {
            let of = s.filter.as_ref().map_or_else(String::new, |f| format!(" where {f}"));
            let from = s.as_of.as_ref().map_or_else(String::new, |(epoch, _)| format!(" as of {epoch}"));
            format!("subscribe {}{of}{from}", s.view)
        }
        Statement::CreateAlert(a) => {
            format!("alert {} {} from {} | {}", a.name, a.options.priority.as_str(), reads(&a.select), emit(&a.select))
        }
        Statement::CreateFunction(f) => format!("function {}: {}", crate::sql::macros::signature(f), f.body),
        Statement::CreateSavepoint(s) => {
            format!("savepoint {} of {} {}{}", s.name, s.kind.word(), s.of, if s.if_not_exists { " if not there" } else { "" })
        }
        Statement::Restore(r) => format!("restore {} {} from {}", r.kind.word(), r.name, r.savepoint),
        Statement::DescribeSavepoint(name) => format!("describe savepoint {name}"),
        Statement::Select(s) => format!("select {} from {} | {}", s.query, reads(s), emit(s)),
        Statement::Insert(i) => format!("insert {} columns {} {}", i.into, i.columns.len(), i.values),
        Statement::Pause(kind, name) => format!("pause {} {name}", kind.word()),
        Statement::Resume(kind, name) => format!("resume {} {name}", kind.word()),
        Statement::Drop(d) => format!("drop {} {}{}", d.kind.word(), d.name, if d.if_exists { " if exists" } else { "" }),
        Statement::Show(Show::All(kind)) => format!("show all {}", kind.word()),
        Statement::Show(Show::Create { kind, name }) => format!("show create {} {name}", kind.map_or("any", Kind::word)),
        Statement::Describe(name) => format!("describe {name}"),
        Statement::Explain(Explain::Select { analyze, select: s }) => {
            format!("explain {}{} | {}", if *analyze { "analyze " } else { "" }, s.query, emit(s))
        }
        Statement::Explain(Explain::Query { analyze, name }) => format!("explain query {name} analyze {analyze}"),
        Statement::WhyQuery(name) => format!("why {name}"),
    }
}

fn watermark(watermark: Option<&Watermark>) -> String {
    watermark.map_or_else(|| "no time".to_owned(), |w| format!("{} at {}", w.column, w.expr))
}

fn reads(select: &Select) -> String {
    select.reads.iter().map(|n| n.text.as_str()).collect::<Vec<_>>().join("+")
}

fn emit(select: &Select) -> String {
    match select.emit {
        Emit::Unstated => "unstated".to_owned(),
        Emit::Changes => "changes".to_owned(),
        Emit::WindowClose { grace: None, timeout } => format!("close {timeout:?}"),
        Emit::WindowClose { grace: Some(grace), timeout } => format!("close grace {grace:?} {timeout:?}"),
        Emit::Update { every } => format!("update {every:?}"),
    }
}

fn check(text: &str, expected: &str) {
    match parse_statement(text) {
        Ok(parsed) => assert_eq!(shape(&parsed.statement), expected, "{text}"),
        Err(error) => panic!("{}", error.render(text)),
    }
}

fn check_error(text: &str, expected: &Expect) {
    let error = parse_script(text).map(|_| panic!("it parses: {text}")).unwrap_or_else(|e| e);
    expected.assert_eq(&error.render(text));
}

/// Refused by name: the message begins with "not supported yet" and names the clause.
fn check_refused(text: &str, clause: &str) {
    let error = parse_script(text).map(|_| panic!("it parses: {text}")).unwrap_or_else(|e| e);
    assert_eq!((error.code, error.message.as_str()), (Code::NotSupported, format!("not supported yet: {clause}").as_str()), "{text}");
    assert!(error.place.is_some(), "{text}");
}

const VITALS: &str = "CREATE STREAM vitals (
  patient_id VARCHAR NOT NULL, bed VARCHAR, ward VARCHAR,
  heart_rate DOUBLE, pulse_rate DOUBLE, resp_rate DOUBLE, spo2 DOUBLE, sbp DOUBLE, dbp DOUBLE, map DOUBLE, temp_c DOUBLE, etco2 DOUBLE, fio2 DOUBLE,
  on_oxygen BOOLEAN, acvpu VARCHAR, spo2_scale INT,      -- the wide form
  ts TIMESTAMP(3) NOT NULL,
  k_partition INT METADATA FROM 'partition', k_offset BIGINT METADATA FROM 'offset', k_ts TIMESTAMP(3) METADATA FROM 'timestamp', k_key VARCHAR METADATA FROM 'key',
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('topic' = 'vitals', 'format' = 'json', 'partitions' = '4',
        'key' = 'patient_id',                            -- a promise
        'bad-records' = 'dlq',
        'watermark.idle-timeout' = '10s', 'watermark.max-future' = '10s', 'late.topic' = 'vitals.late');";

#[test]
fn streams_and_tables_are_read_with_all_their_parts() {
    check(VITALS, "stream vitals 21 columns ts at ts - INTERVAL '5' SECOND");
    check("create source s (a int)", "stream s 1 columns no time");
    check(
        "CREATE STREAM IF NOT EXISTS \"My Stream\" (a INT) WITH (topic = 't', bad-records = skip, partitions = 2)",
        "stream My Stream 1 columns no time",
    );
    check(
        "CREATE STREAM s (epoch_ms BIGINT, et AS to_timestamp_millis(epoch_ms), hr DOUBLE, WATERMARK FOR et AS et) WITH ('json.path.hr' = 'vitals.hr')",
        "stream s 3 columns et at et",
    );
    check("CREATE STREAM s (a STRUCT<x INT, y ARRAY<VARCHAR>>, b INT[], c DECIMAL(10, 2), d DATE)", "stream s 4 columns no time");
    check("CREATE STREAM s (body BYTES) WITH ('format' = 'raw')", "stream s 1 columns no time");
    check(
        "CREATE TABLE patient (patient_id VARCHAR, age INT, spo2_scale INT, hr_limit DOUBLE, PRIMARY KEY (patient_id) NOT ENFORCED) WITH ('topic' = 'patient', 'format' = 'json')",
        "table patient 4 columns key patient_id",
    );
    check("CREATE TABLE p (id VARCHAR PRIMARY KEY NOT ENFORCED, at TIMESTAMP(3), WATERMARK FOR at AS at)", "table p 2 columns key id");

    let Statement::CreateStream(stream) = parse_statement(VITALS).expect("it parses").statement else { panic!("a stream") };
    let last = stream.columns.last().expect("it has columns");
    assert!(matches!(last.source, ColumnSource::Metadata(Metadata::Key)));
    assert!(!stream.columns[0].nullable && stream.columns[1].nullable);
}

#[test]
fn queries_and_alerts_are_read_with_their_options_and_emit() {
    check(
        "CREATE OR REPLACE QUERY spo2_1m WITH ('delivery' = 'exactly_once') AS
         INSERT INTO vitals_1m
         SELECT patient_id, window_start, window_end, avg(spo2) AS spo2_avg, min(spo2) AS spo2_min, count(spo2) AS n
         FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         GROUP BY patient_id, window_start, window_end
         EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '10' SECOND;",
        "query spo2_1m into vitals_1m from vitals | close Some(10s)",
    );
    check(
        "CREATE ALERT spo2_low
         WITH ('priority' = 'high', 'hold' = '15s', 'clear.hold' = '10s', 'latch' = 'false', 'notify' = 'webhook:ward') AS
         SELECT patient_id AS subject, ts, spo2 AS value, spo2 < 88 AS breach, spo2 >= 90 AS clear FROM vitals;",
        "alert spo2_low high from vitals | unstated",
    );
    check("CREATE QUERY IF NOT EXISTS q AS INSERT INTO o (a, b) SELECT a, b FROM s EMIT CHANGES", "query q into o from s | changes");
    check(
        "CREATE QUERY q AS INSERT INTO o WITH x AS (SELECT * FROM s) SELECT * FROM x EMIT ON WINDOW CLOSE",
        "query q into o from s | close None",
    );
    check(
        "CREATE ALERT silent AS SELECT bed AS subject FROM TABLE(ABSENT(TABLE s PARTITION BY bed, DESCRIPTOR(ts), INTERVAL '30' SECOND)) EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '1 minute'",
        "alert silent medium from s | close Some(60s)",
    );
}

#[test]
fn selects_keep_their_emit_clause_apart_from_aliases() {
    check("SELECT 1", "select SELECT 1 from  | unstated");
    check("(SELECT a FROM t)", "select (SELECT a FROM t) from t | unstated");
    check("SELECT * FROM t EMIT CHANGES", "select SELECT * FROM t from t | changes");
    check("SELECT * FROM t emit changes;", "select SELECT * FROM t from t | changes");
    check("SELECT * FROM t AS v WHERE v.x > 1 EMIT CHANGES", "select SELECT * FROM t AS v WHERE v.x > 1 from t | changes");
    check("SELECT emit FROM t", "select SELECT emit FROM t from t | unstated");
    check("SELECT a AS emit, b FROM t", "select SELECT a AS emit, b FROM t from t | unstated");
    check("SELECT t.emit FROM t WHERE emit > 1", "select SELECT t.emit FROM t WHERE emit > 1 from t | unstated");
    check("SELECT 1 FROM a JOIN b emit ON emit.x = a.x", "select SELECT 1 FROM a JOIN b emit ON emit.x = a.x from a+b | unstated");
    check("VALUES (1), (2)", "select VALUES (1), (2) from  | unstated");
    check("SELECT * FROM s ORDER BY x LIMIT 5", "select SELECT * FROM s ORDER BY x LIMIT 5 from s | unstated");
}

#[test]
fn the_relations_of_a_query_leave_out_its_own_names() {
    check(
        "WITH a AS (SELECT * FROM a), b AS (SELECT * FROM a, c) SELECT * FROM b, (SELECT * FROM d) e",
        "select WITH a AS (SELECT * FROM a), b AS (SELECT * FROM a, c) SELECT * FROM b, (SELECT * FROM d) e from a+c+d | unstated",
    );
    check(
        "SELECT * FROM t WHERE x IN (SELECT x FROM \"U\") AND y = (SELECT max(y) FROM t)",
        "select SELECT * FROM t WHERE x IN (SELECT x FROM \"U\") AND y = (SELECT max(y) FROM t) from t+U | unstated",
    );
    check(
        "SELECT * FROM TABLE(TUMBLE(TABLE (SELECT * FROM v), DESCRIPTOR(ts), INTERVAL '1' MINUTE))",
        "select SELECT * FROM tumble((SELECT * FROM v), ts, INTERVAL '1' MINUTE) from v | unstated",
    );
}

#[test]
fn emit_says_when_rows_come() {
    for (emit, expected) in [
        ("EMIT CHANGES", "changes"),
        ("EMIT ON UPDATE", "update None"),
        ("emit on update every interval '10' second", "update Some(10s)"),
        ("EMIT EVERY INTERVAL '1' MINUTE", "update Some(60s)"),
        ("EMIT ON WINDOW CLOSE", "close None"),
        ("EMIT ON WINDOW CLOSE WITH GRACE INTERVAL '5' SECOND", "close grace 5s None"),
        ("EMIT ON WINDOW CLOSE WITH GRACE INTERVAL '5' SECOND TIMEOUT INTERVAL '1' MINUTE", "close grace 5s Some(60s)"),
        ("EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '1' MINUTE WITH GRACE INTERVAL '5' SECOND", "close grace 5s Some(60s)"),
    ] {
        let text = format!("CREATE QUERY q WITH ('state.ttl' = '1d') AS INSERT INTO o SELECT k, count(*) FROM s GROUP BY k {emit}");
        check(&text, &format!("query q into o from s | {expected}"));
    }
    for (emit, wrong) in [
        ("EMIT ON UPDATE EVERY", "sql parser error"),
        ("EMIT EVERY INTERVAL '0' SECOND", "EVERY takes a positive interval"),
        ("EMIT ON WINDOW CLOSE WITH GRACE INTERVAL '-1' SECOND", "GRACE takes a positive interval"),
        ("EMIT ON WINDOW CLOSE WITH GRACE INTERVAL '1' SECOND WITH GRACE INTERVAL '1' SECOND", "expected the end of the statement"),
        ("EMIT ON UPDATE TIMEOUT INTERVAL '1' SECOND", "expected the end of the statement"),
    ] {
        let error = parse_statement(&format!("CREATE QUERY q AS INSERT INTO o SELECT k FROM s {emit}")).expect_err(emit);
        assert!(error.message.contains(wrong) || wrong == "sql parser error", "{emit}: {}", error.message);
        assert!(error.place.is_some(), "{emit}");
    }
}

#[test]
fn the_short_statements_are_read() {
    for (text, expected) in [
        ("INSERT INTO s VALUES ('a', 1), ('b', -2)", "insert s columns 0 VALUES ('a', 1), ('b', -2)"),
        ("INSERT INTO s (a, b) VALUES ('a', 1);", "insert s columns 2 VALUES ('a', 1)"),
        ("PAUSE QUERY q", "pause query q"),
        ("resume query Q;", "resume query q"),
        ("PAUSE ALERT a", "pause alert a"),
        ("DROP STREAM s", "drop stream s"),
        ("DROP SOURCE s", "drop stream s"),
        ("DROP TABLE IF EXISTS t", "drop table t if exists"),
        ("DROP QUERY q", "drop query q"),
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM s", "view v from s | unstated"),
        ("CREATE OR REPLACE MATERIALIZED VIEW v WITH ('start' = 'latest') AS SELECT * FROM s, t", "view v from s+t | unstated"),
        ("SUBSCRIBE TO v", "subscribe v"),
        ("SUBSCRIBE TO V WHERE a > 1 AND b AS OF '7.1,2'", "subscribe v where a > 1 AND b as of 7.1,2"),
        ("PAUSE VIEW v", "pause view v"),
        ("SHOW CREATE MATERIALIZED VIEW v", "show create view v"),
        ("WHY VIEW v", "why v"),
        ("DROP VIEW v", "drop view v"),
        ("DROP MATERIALIZED VIEW v", "drop view v"),
        ("DROP ALERT IF EXISTS a", "drop alert a if exists"),
        ("DROP FUNCTION f", "drop function f"),
        ("CREATE FUNCTION f() RETURNS INT RETURN 1", "function f() RETURNS INT: 1"),
        (
            "CREATE OR REPLACE FUNCTION \"F\"(x DOUBLE, t VARCHAR) RETURNS DECIMAL(5, 2) LANGUAGE SQL IMMUTABLE RETURN x + length(t)",
            "function F(x DOUBLE, t VARCHAR) RETURNS DECIMAL(5, 2): x + length(t)",
        ),
        ("SHOW FUNCTIONS", "show all function"),
        ("SHOW CREATE FUNCTION f", "show create function f"),
        ("CREATE SAVEPOINT s FOR QUERY q", "savepoint s of query q"),
        ("create savepoint if not exists S for materialized view V", "savepoint s of view v if not there"),
        ("CREATE SAVEPOINT \"Before\" FOR ALERT a;", "savepoint Before of alert a"),
        ("DROP SAVEPOINT s", "drop savepoint s"),
        ("DROP SAVEPOINT IF EXISTS s", "drop savepoint s if exists"),
        ("SHOW SAVEPOINTS", "show all savepoint"),
        ("SHOW CREATE SAVEPOINT s", "show create savepoint s"),
        ("DESCRIBE SAVEPOINT s", "describe savepoint s"),
        ("RESTORE QUERY q FROM SAVEPOINT s", "restore query q from s"),
        ("RESTORE ALERT a FROM SAVEPOINT \"S\"", "restore alert a from S"),
        ("CREATE QUERY q WITH ('start' = 'savepoint:s') AS INSERT INTO o SELECT * FROM s", "query q into o from s | unstated"),
        ("SHOW STREAMS", "show all stream"),
        ("SHOW TABLES", "show all table"),
        ("show queries", "show all query"),
        ("SHOW VIEWS", "show all view"),
        ("SHOW ALERTS;", "show all alert"),
        ("SHOW CREATE STREAM s", "show create stream s"),
        ("SHOW CREATE QUERY q", "show create query q"),
        ("SHOW CREATE s", "show create any s"),
        ("DESCRIBE s", "describe s"),
        ("DESC STREAM s", "describe s"),
        ("EXPLAIN SELECT * FROM s EMIT CHANGES", "explain SELECT * FROM s | changes"),
        ("EXPLAIN ANALYZE SELECT * FROM s", "explain analyze SELECT * FROM s | unstated"),
        ("EXPLAIN QUERY q", "explain query q analyze false"),
        ("EXPLAIN ANALYZE QUERY q", "explain query q analyze true"),
        ("WHY QUERY q", "why q"),
    ] {
        check(text, expected);
    }
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for (text, clause) in [
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM s EMIT CHANGES", "EMIT CHANGES in a view"),
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM v", "a view that reads itself"),
        ("CREATE VIEW v AS SELECT * FROM s EMIT CHANGES", "EMIT in a view that is not materialized"),
        ("CREATE VIEW v WITH ('state.ttl' = '1d') AS SELECT * FROM s", "options of a view that is not materialized"),
        ("CREATE VIEW v AS SELECT * FROM v", "a view that reads itself"),
        ("CREATE TEMPORARY VIEW v AS SELECT * FROM s", "CREATE TEMPORARY VIEW"),
        ("CREATE FUNCTION f(x DOUBLE) RETURNS DOUBLE AS 'x'", "AS in CREATE FUNCTION"),
        ("CREATE FUNCTION f(x DOUBLE) RETURNS DOUBLE LANGUAGE JAVASCRIPT RETURN x", "LANGUAGE in CREATE FUNCTION"),
        ("CREATE AGGREGATE f(x DOUBLE) RETURNS DOUBLE RETURN x", "CREATE AGGREGATE"),
        ("CREATE SINK s FROM q", "CREATE SINK"),
        ("CREATE OR REPLACE SAVEPOINT s FOR QUERY q", "CREATE OR REPLACE SAVEPOINT"),
        ("RESTORE VIEW v FROM SAVEPOINT s", "RESTORE VIEW"),
        ("CREATE TABLE t AS SELECT 1", "CREATE TABLE .. AS SELECT"),
        ("UPDATE t SET a = 1", "UPDATE"),
        ("DELETE FROM t", "DELETE"),
        ("ALTER STREAM s ADD COLUMN a INT", "ALTER"),
        ("SET a = 1", "SET"),
        ("INSERT INTO s SELECT * FROM t", "INSERT INTO .. SELECT by itself"),
        ("INSERT OVERWRITE s VALUES (1)", "INSERT OVERWRITE"),
        ("DROP STREAM s CASCADE", "DROP .. CASCADE"),
        ("SHOW TOPICS", "SHOW TOPICS"),
        ("SHOW STREAMS LIKE 'a%'", "SHOW STREAMS LIKE"),
        ("EXPLAIN ANALYZE SELECT * FROM s EMIT CHANGES", "EXPLAIN ANALYZE of a SELECT that goes on for ever"),
        ("EXPLAIN VERBOSE SELECT 1", "EXPLAIN VERBOSE"),
        (
            "SELECT * FROM s MATCH_RECOGNIZE (PARTITION BY p ORDER BY ts PATTERN (A B) SUBSET u = (A, B) DEFINE A AS true) AS m",
            "SUBSET in MATCH_RECOGNIZE",
        ),
        (
            "SELECT * FROM s MATCH_RECOGNIZE (ORDER BY ts ALL ROWS PER MATCH WITH UNMATCHED ROWS PATTERN (A B) DEFINE A AS true) AS m",
            "WITH UNMATCHED ROWS in MATCH_RECOGNIZE",
        ),
        ("SELECT * FROM v RIGHT JOIN p FOR SYSTEM_TIME AS OF v.ts AS p ON v.id = p.id", "RIGHT JOIN .. FOR SYSTEM_TIME AS OF"),
        ("SELECT * FROM p FOR SYSTEM_TIME AS OF now", "FOR SYSTEM_TIME AS OF outside of a JOIN"),
        ("SELECT * FROM v JOIN p FOR SYSTEM_TIME AS OF PROCTIME() ON v.id = p.id", "FOR SYSTEM_TIME AS OF PROCTIME(..)"),
        ("SELECT * FROM a ASOF FULL JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.k = b.k", "ASOF FULL JOIN"),
        ("SELECT * FROM a ASOF JOIN b MATCH_CONDITION (a.ts >= b.ts) USING (k)", "USING in ASOF JOIN"),
        ("SELECT * FROM s TABLESAMPLE BERNOULLI (10)", "TABLESAMPLE"),
        ("SELECT * FROM s FOR UPDATE", "FOR UPDATE and FOR SHARE"),
        ("SELECT TOP 5 * FROM s", "TOP (write LIMIT)"),
        ("SELECT * INTO t FROM s", "SELECT INTO"),
        ("SELECT * FROM s FETCH FIRST 5 PERCENT ROWS ONLY", "FETCH FIRST with PERCENT, WITH TIES, or beside LIMIT"),
        ("SELECT * FROM s WITH (NOLOCK)", "WITH (..) hints"),
        ("FROM s SELECT 1", "FROM before SELECT"),
        ("SELECT * FROM LATERAL (SELECT 1)", "LATERAL"),
        (
            "SELECT sum(x) OVER (ORDER BY ts ROWS BETWEEN 2 PRECEDING AND CURRENT ROW EXCLUDE CURRENT ROW) FROM s",
            "EXCLUDE in a window frame",
        ),
        ("SELECT sum(x) OVER (w ORDER BY ts) FROM s WINDOW w AS (PARTITION BY p)", "a named window inside OVER (..)"),
        ("SELECT * FROM s EMIT ON UPDATE", "EMIT ON UPDATE in a SELECT typed by hand"),
        ("SELECT * FROM s EMIT EVERY INTERVAL '1' SECOND", "EMIT ON UPDATE in a SELECT typed by hand"),
        ("SELECT * FROM s EMIT FINAL", "EMIT FINAL"),
        ("SELECT * FROM (SELECT * FROM s EMIT CHANGES) AS x", "EMIT inside a subquery"),
        ("SELECT * FROM s EMIT ON WINDOW CLOSE", "EMIT ON WINDOW CLOSE in a SELECT typed by hand"),
        ("CREATE QUERY q AS INSERT INTO o SELECT * FROM s ORDER BY ts", "ORDER BY over a stream that goes on"),
        ("CREATE QUERY q AS INSERT INTO o SELECT * FROM s LIMIT 5", "LIMIT and OFFSET over a stream that goes on"),
        ("CREATE QUERY q AS INSERT INTO o SELECT * FROM (SELECT * FROM s LIMIT 5) AS x", "LIMIT and OFFSET over a stream that goes on"),
        ("CREATE QUERY q AS INSERT INTO o SELECT DISTINCT ON (a) a FROM s", "SELECT DISTINCT ON over a stream that goes on"),
        ("SELECT * FROM s LIMIT 5 EMIT CHANGES", "LIMIT and OFFSET over a stream that goes on"),
        ("CREATE QUERY q AS INSERT INTO s SELECT * FROM s", "a query that reads what it writes"),
        ("CREATE ALERT a AS SELECT 1 FROM s EMIT CHANGES", "EMIT CHANGES in an alert"),
        ("CREATE ALERT a AS SELECT 1 FROM s EMIT ON UPDATE", "EMIT ON UPDATE in an alert"),
        ("CREATE ALERT a AS SELECT 1 FROM s EMIT ON WINDOW CLOSE WITH GRACE INTERVAL '5' SECOND", "WITH GRACE in an alert"),
        ("CREATE ALERT a WITH ('escalate.after' = '2m') AS SELECT 1 FROM s", "option 'escalate.after' of an alert"),
        ("CREATE STREAM s (a INT) WITH ('connector' = 'kafka')", "option 'connector' of a stream"),
        ("CREATE TABLE t (a INT PRIMARY KEY NOT ENFORCED) WITH ('versions.keep' = '24h')", "option 'versions.keep' of a table"),
        ("CREATE STREAM s (a INT, h VARCHAR METADATA FROM 'headers')", "METADATA FROM 'headers'"),
        ("CREATE STREAM s (a INT DEFAULT 1)", "DEFAULT of a column"),
        ("CREATE STREAM s (a INT, UNIQUE (a))", "UNIQUE in a column list"),
        ("CREATE TABLE t (a INT, PRIMARY KEY (a))", "an enforced PRIMARY KEY"),
    ] {
        check_refused(text, clause);
    }
}

#[test]
fn a_script_names_the_line_of_the_statement_that_is_wrong() {
    check_error(
        "SELECT 1;\n\n-- a comment; with a semicolon\nSHOW STREEMS;\nSELECT 2",
        &expect![[r#"
        error[SQL-0001]: cannot show STREEMS
          4 | SHOW STREEMS;
            |      ^^^^^^^ did you mean STREAMS?
    "#]],
    );
    assert_eq!(parse_script(" -- nothing\n;").map(|s| s.len()), Ok(0));
    assert!(parse_statement("").is_err() && parse_statement("SELECT 1; SELECT 2").is_err());
    check_error(
        "SELECT 'abc",
        &expect![[r#"
        error[SQL-0001]: unterminated string literal
          1 | SELECT 'abc
            |        ^ it is never closed
    "#]],
    );
}

#[test]
fn a_slip_is_shown_where_it_is_with_what_to_write() {
    for (text, expected) in [
        (
            "SELCT * FROM s",
            expect![[r#"
            error[SQL-0001]: SELCT is not a statement
              1 | SELCT * FROM s
                | ^^^^^ did you mean SELECT?
        "#]],
        ),
        (
            "SELECT * FORM s",
            expect![[r#"
            error[SQL-0001]: expected the end of the statement, found FORM
              1 | SELECT * FORM s
                |          ^^^^ did you mean FROM?
        "#]],
        ),
        (
            "SELECT a FROM s WHRE x > 1",
            expect![[r#"
            error[SQL-0001]: expected the end of the statement, found x
              1 | SELECT a FROM s WHRE x > 1
                |                 ^^^^ did you mean WHERE?
        "#]],
        ),
        (
            "SELECT * FROM s EMIT CHANGS",
            expect![[r#"
            error[SQL-0001]: EMIT CHANGS is not a clause
              1 | SELECT * FROM s EMIT CHANGS
                |                      ^^^^^^ did you mean EMIT CHANGES?
        "#]],
        ),
        (
            "SELECT * FROM s EMIT ON WINDOW CLOSED",
            expect![[r#"
            error[SQL-0001]: EMIT ON WINDOW CLOSED is not a clause
              1 | SELECT * FROM s EMIT ON WINDOW CLOSED
                |                      ^^ did you mean EMIT ON WINDOW CLOSE?
        "#]],
        ),
        (
            "SELECT * FROM s EMIT CHANGES LIMIT 5",
            expect![[r#"
            error[SQL-0001]: expected the end of the statement after EMIT, found LIMIT
              1 | SELECT * FROM s EMIT CHANGES LIMIT 5
                |                              ^^^^^ EMIT is the last clause
        "#]],
        ),
        (
            "SELECT (1 + FROM s",
            expect![[r#"
            error[SQL-0001]: expected ), found s
              1 | SELECT (1 + FROM s
                |                  ^
        "#]],
        ),
        (
            "SELECT count( FROM s",
            expect![[r#"
            error[SQL-0001]: expected ), found s
              1 | SELECT count( FROM s
                |                    ^
        "#]],
        ),
        (
            "SELECT * FROM a.b",
            expect![[r#"
            error[SQL-0001]: "a.b" is not the name of a stream
              1 | SELECT * FROM a.b
                |               ^^^ names have one part
        "#]],
        ),
        (
            "CREATE STREM s (a INT)",
            expect![[r#"
            error[SQL-0001]: cannot create STREM
              1 | CREATE STREM s (a INT)
                |        ^^^^^ did you mean STREAM?
        "#]],
        ),
        (
            "CREATE STREAM s (a INTT)",
            expect![[r#"
            error[SQL-0005]: a column cannot be of type INTT
              1 | CREATE STREAM s (a INTT)
                |                    ^^^^ did you mean INT?
              types: VARCHAR, DOUBLE, REAL, INT, BIGINT, SMALLINT, TINYINT, BOOLEAN, DECIMAL(p, s), DATE, TIME, TIMESTAMP(p), BYTES, STRUCT<..>, ARRAY<..>
        "#]],
        ),
        (
            "CREATE STREAM s (a)",
            expect![[r#"
            error[SQL-0005]: column "a" has no type
              1 | CREATE STREAM s (a)
                |                  ^ write a VARCHAR, or DOUBLE, TIMESTAMP(3) ..
        "#]],
        ),
        (
            "CREATE STREAM s (a INT b INT)",
            expect![[r#"
            error[SQL-0001]: expected a comma or ) in the column list, found b
              1 | CREATE STREAM s (a INT b INT)
                |                        ^
        "#]],
        ),
        (
            "CREATE STREAM s (a INT",
            expect![[r#"
            error[SQL-0001]: expected a comma or ) in the column list, found the end
              1 | CREATE STREAM s (a INT
                |                       ^
        "#]],
        ),
        (
            "CREATE STREAM s (a INT) WITH ('topc' = 's')",
            expect![[r#"
                error[SQL-0003]: a stream has no option 'topc'
                  1 | CREATE STREAM s (a INT) WITH ('topc' = 's')
                    |                               ^^^^^^ did you mean 'topic'?
                  options: 'topic', 'format', 'partitions', 'key', 'key.partitioner', 'bad-records', 'dlq.topic', 'watermark.idle-timeout', 'watermark.max-future', 'late.topic', 'timestamp.unit', 'json.path.*', 'csv.delimiter', 'csv.null', 'schema.registry.url', 'schema.registry.subject'
            "#]],
        ),
        (
            "CREATE STREAM s (a INT) WITH ('partitions' = 'many')",
            expect![[r#"
            error[SQL-0004]: option 'partitions' cannot be 'many'
              1 | CREATE STREAM s (a INT) WITH ('partitions' = 'many')
                |                                              ^^^^^^ write a whole number from 1 to 10000
        "#]],
        ),
        (
            "CREATE STREAM s (a INT) WITH ('key' = 'b')",
            expect![[r#"
            error[SQL-0012]: no column "b"
              1 | CREATE STREAM s (a INT) WITH ('key' = 'b')
                |                                       ^^^
              columns: a
        "#]],
        ),
        (
            "CREATE STREAM s (a INT, A DOUBLE)",
            expect![[r#"
            error[SQL-0006]: there are two columns "a"
              1 | CREATE STREAM s (a INT, A DOUBLE)
                |                         ^ rename one of them
        "#]],
        ),
        (
            "CREATE STREAM s (t BIGINT, WATERMARK FOR t AS t)",
            expect![[r#"
            error[SQL-0005]: event time must be a TIMESTAMP, and column "t" is BIGINT
              1 | CREATE STREAM s (t BIGINT, WATERMARK FOR t AS t)
                |                                          ^ declare t TIMESTAMP(3): numbers are read as epoch times then
        "#]],
        ),
        (
            "CREATE STREAM s (ts TIMESTAMP(3), WATERMARK FOR tss AS ts)",
            expect![[r#"
            error[SQL-0012]: no column "tss"
              1 | CREATE STREAM s (ts TIMESTAMP(3), WATERMARK FOR tss AS ts)
                |                                                 ^^^ did you mean "ts"?
              columns: ts
        "#]],
        ),
        (
            "CREATE STREAM s (ts TIMESTAMP(3), WATERMARK FOR ts - INTERVAL '5' SECOND)",
            expect![[r#"
            error[SQL-0001]: expected AS in the WATERMARK clause, found -
              1 | CREATE STREAM s (ts TIMESTAMP(3), WATERMARK FOR ts - INTERVAL '5' SECOND)
                |                                                    ^ write WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
        "#]],
        ),
        (
            "CREATE STREAM s (a INT, o INT METADATA FROM 'ofset')",
            expect![[r#"
            error[SQL-0006]: a record has no metadata 'ofset'
              1 | CREATE STREAM s (a INT, o INT METADATA FROM 'ofset')
                |                                             ^^^^^^^ did you mean "offset"?
        "#]],
        ),
        (
            "CREATE STREAM s (a INT, o INT METADATA FROM 'offset')",
            expect![[r#"
            error[SQL-0005]: the record's offset is BIGINT, not INT
              1 | CREATE STREAM s (a INT, o INT METADATA FROM 'offset')
                |                         ^ write o BIGINT METADATA FROM 'offset'
        "#]],
        ),
        (
            "CREATE STREAM s (a INT, PRIMARY KEY (a) NOT ENFORCED)",
            expect![[r#"
            error[SQL-0006]: a stream has no primary key: it keeps every row
              1 | CREATE STREAM s (a INT, PRIMARY KEY (a) NOT ENFORCED)
                |                         ^^^^^^^ write CREATE TABLE to keep the latest row a key, or 'key' in WITH for a stream's key
        "#]],
        ),
        (
            "CREATE TABLE t (a INT)",
            expect![[r#"
            error[SQL-0006]: table "t" has no primary key
              1 | CREATE TABLE t (a INT)
                |              ^ add PRIMARY KEY (..) NOT ENFORCED, or write CREATE STREAM for rows that are only added
        "#]],
        ),
        (
            "CREATE QUERY q INSERT INTO o SELECT 1",
            expect![[r#"
            error[SQL-0001]: expected AS, found INSERT
              1 | CREATE QUERY q INSERT INTO o SELECT 1
                |                ^^^^^^ write CREATE QUERY q AS INSERT INTO s SELECT ..
        "#]],
        ),
        (
            "CREATE QUERY q AS SELECT 1",
            expect![[r#"
            error[SQL-0001]: expected INSERT INTO, found SELECT
              1 | CREATE QUERY q AS SELECT 1
                |                   ^^^^^^ write CREATE QUERY q AS INSERT INTO s SELECT ..
        "#]],
        ),
        (
            "CREATE QUERY q AS INSERT INTO o SELECT 1",
            expect![[r#"
            error[SQL-0006]: query "q" reads no stream
              1 | CREATE QUERY q AS INSERT INTO o SELECT 1
                |              ^ add FROM <stream>
        "#]],
        ),
        (
            "CREATE QUERY q/x AS INSERT INTO o SELECT 1",
            expect![[r#"
            error[SQL-0001]: expected AS, found /
              1 | CREATE QUERY q/x AS INSERT INTO o SELECT 1
                |               ^ write CREATE QUERY q AS INSERT INTO s SELECT ..
        "#]],
        ),
        (
            "CREATE ALERT a WITH ('prority' = 'high') AS SELECT 1 FROM s",
            expect![[r#"
            error[SQL-0003]: an alert has no option 'prority'
              1 | CREATE ALERT a WITH ('prority' = 'high') AS SELECT 1 FROM s
                |                      ^^^^^^^^^ did you mean 'priority'?
              options: 'priority', 'hold', 'clear.hold', 'latch', 'max.gap', 'order', 'notify', 'notify.max-age', 'start', 'savepoint.state', 'delivery', 'state.max'
        "#]],
        ),
        (
            "INSERT INTO s VALUES (1, 2), (3)",
            expect![[r#"
            error[SQL-0006]: a row has 1 value, the first has 2
              1 | INSERT INTO s VALUES (1, 2), (3)
                |                               ^
        "#]],
        ),
        (
            "INSERT INTO s (a) VALUES (1, 2)",
            expect![[r#"
            error[SQL-0006]: a row has 2 values for 1 column
              1 | INSERT INTO s (a) VALUES (1, 2)
                |                ^
        "#]],
        ),
        (
            "PAUSE STREAM s",
            expect![[r#"
                error[SQL-0001]: expected QUERY or VIEW or ALERT, found STREAM
                  1 | PAUSE STREAM s
                    |       ^^^^^^
            "#]],
        ),
        (
            "DROP QERY q",
            expect![[r#"
            error[SQL-0001]: expected STREAM or TABLE or QUERY or VIEW or ALERT or FUNCTION or SAVEPOINT, found QERY
              1 | DROP QERY q
                |      ^^^^ did you mean QUERY?
        "#]],
        ),
        (
            "SHOW",
            expect![[r#"
                error[SQL-0001]: SHOW does not say what
                  1 | SHOW
                    |     ^ write STREAMS, TABLES, QUERIES, VIEWS, ALERTS, FUNCTIONS, SAVEPOINTS or CREATE ..
            "#]],
        ),
        (
            "EXPLAIN DROP STREAM s",
            expect![[r#"
            error[SQL-0001]: EXPLAIN takes a query
              1 | EXPLAIN DROP STREAM s
                |         ^^^^ write EXPLAIN SELECT .. or EXPLAIN QUERY q
        "#]],
        ),
        (
            "42",
            expect![[r#"
            error[SQL-0001]: a statement cannot begin with 42
              1 | 42
                | ^^ begin with CREATE, SELECT, SHOW ..
        "#]],
        ),
    ] {
        check_error(text, &expected);
    }
}

#[test]
fn a_huge_or_endless_statement_is_refused() {
    let nested = format!("SELECT {}1{} FROM s", "(".repeat(3000), ")".repeat(3000));
    assert_eq!(parse_statement(&nested).expect_err("too deep").code, Code::Limit);
    let windows = format!("SELECT * FROM {}s", "TUMBLE((SELECT * FROM ".repeat(3000));
    assert!(parse_statement(&windows).is_err());
    let windows = format!("SELECT * FROM {}s{}", "TUMBLE((SELECT * FROM ".repeat(100), "), ts, INTERVAL '1' MINUTE)".repeat(100));
    assert_eq!(parse_statement(&windows).expect_err("too deep").code, Code::Limit);
    // As long a chain as is taken can be parsed, walked and freed on a small stack.
    assert!(parse_statement(&format!("SELECT 1{} FROM s", " + 1".repeat(148))).is_ok());
    let types = format!("CREATE STREAM s (a {}INT{})", "ARRAY<".repeat(2000), ">".repeat(2000));
    assert!(parse_statement(&types).is_err());
    let case = format!("SELECT {}1{} FROM s", "CASE WHEN a THEN ".repeat(3000), " END".repeat(3000));
    assert!(parse_statement(&case).is_err());
}

/// Words that reach every corner of the dialect.
const SOUP: &[&str] = &[
    "CREATE",
    "STREAM",
    "TABLE",
    "QUERY",
    "ALERT",
    "OR",
    "REPLACE",
    "IF",
    "NOT",
    "EXISTS",
    "AS",
    "INSERT",
    "INTO",
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "EMIT",
    "ON",
    "WINDOW",
    "CLOSE",
    "TIMEOUT",
    "CHANGES",
    "INTERVAL",
    "'1'",
    "MINUTE",
    "TUMBLE",
    "HOP",
    "ABSENT",
    "TABLE(",
    "TUMBLE(",
    "DESCRIPTOR(",
    "PARTITION BY",
    "DATA =>",
    "(",
    ")",
    ",",
    ".",
    "s",
    "ts",
    "\"q\"",
    "*",
    "=",
    "+",
    "-",
    "1",
    "'x'",
    "WITH",
    "WATERMARK",
    "FOR",
    "METADATA",
    "PRIMARY",
    "KEY",
    "INT",
    "TIMESTAMP(3)",
    "STRUCT<",
    ">",
    "[",
    "]",
    "::",
    "OVER",
    "CASE",
    "WHEN",
    "END",
    "UNION",
    "JOIN",
    "VALUES",
    "DROP",
    "SHOW",
    "DESCRIBE",
    "EXPLAIN",
    "WHY",
    "PAUSE",
    "TUMBLE_START(",
    "ENFORCED",
    "NULL",
    "AND",
    "LIMIT",
    "ORDER",
    "{",
    "}",
    "|>",
    "$$a$$",
    "\u{1d11e}",
];

#[test]
fn no_soup_of_words_makes_it_panic() {
    let seed = 0x5eed_u64;
    let mut state = seed;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits fit") % n
    };
    let bases = [
        VITALS,
        "CREATE QUERY q AS INSERT INTO o SELECT p, avg(x) FROM TABLE(ABSENT(TABLE s PARTITION BY p, q, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY p EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '1' SECOND",
        "SELECT TUMBLE_START(ts, INTERVAL '1' MINUTE) FROM s AS a GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), a.p",
    ];
    for round in 0..6_000 {
        let text = if round % 3 == 0 {
            let mut words = vec![
                ["CREATE", "SELECT", "CREATE QUERY q AS INSERT INTO o SELECT", "CREATE STREAM s (", "SELECT * FROM TABLE(TUMBLE("][next(5)],
            ];
            words.extend((0..next(40)).map(|_| SOUP[next(SOUP.len())]));
            words.join(" ")
        } else {
            // A statement with a few words lost, doubled or replaced.
            let mut words: Vec<&str> = bases[next(bases.len())].split_inclusive([' ', '(', ',']).collect();
            for _ in 0..=next(4) {
                let at = next(words.len());
                match next(3) {
                    0 => drop(words.remove(at)),
                    1 => words.insert(at, words[at]),
                    _ => words[at] = SOUP[next(SOUP.len())],
                }
            }
            words.join(" ")
        };
        let outcome = std::panic::catch_unwind(|| parse_script(&text).map(|s| s.len()).map_err(|e| e.render(&text)));
        assert!(outcome.is_ok(), "round {round} of seed {seed:#x}: {text}");
    }
}
