//! Other engines' spellings: the answers that their manuals give, and what is refused.

use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::patterns::{Letters, chrono};
use crate::sql::parse_statement;
use crate::sql::session::Session;
use crate::sql::statement::Statement;

/// The first row of a SELECT without FROM, as text; or the error with its hint.
fn answer(list: &str) -> String {
    let statement = match parse_statement(&format!("SELECT {list}")) {
        Ok(statement) => statement,
        Err(error) => return format!("{} | {}", error.message, error.hint.unwrap_or_default()),
    };
    let Statement::Select(select) = statement.statement else { panic!("{list} is a SELECT") };
    let session = Session::new([]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let batches = runtime.block_on(async {
        let plan = session.logical(&select.query).map_err(|e| e.to_string())?;
        let frame = session.context().execute_logical_plan(plan).await.map_err(|e| e.to_string())?;
        frame.collect().await.map_err(|e| e.to_string())
    });
    match batches {
        Ok(batches) => {
            let cells = batches[0].columns().iter().map(|column| {
                let options = FormatOptions::default().with_null("NULL");
                ArrayFormatter::try_new(column, &options).unwrap().value(0).to_string()
            });
            cells.collect::<Vec<_>>().join(" ")
        }
        Err(error) => error,
    }
}

#[test]
fn answers_are_those_of_the_engine_that_the_spelling_comes_from() {
    let cases = [
        ("mod(29, 9), mod(-7, 3)", "2 -1"),
        ("if(1 > 2, 'a', 'b'), if(NULL, 1, 2)", "b 2"),
        ("ceiling(1.2), truncate(42.324, 2), lcase('AbC'), ucase('a')", "2.0 42.32 abc A"),
        ("locate('b', 'abc'), locate('z', 'abc')", "2 0"),
        ("split_index('a/b/c', '/', 1), split_index('a/b/c', '/', 9), split_index('a/b', '/', -1)", "b NULL NULL"),
        ("regexp('abc', 'a.*'), startswith('abc', 'ab'), endswith('abc', 'ab')", "true true false"),
        ("year(DATE '1994-09-27'), quarter(DATE '1994-09-27'), month(DATE '1994-09-27')", "1994 3 9"),
        (
            "dayofyear(DATE '1994-09-27'), dayofmonth(DATE '1994-09-27'), dayofweek(DATE '1994-09-27'), week(DATE '1994-09-27')",
            "270 27 3 39",
        ),
        (
            "hour(TIMESTAMP '1994-09-27 13:14:15'), minute(TIMESTAMP '1994-09-27 13:14:15'), second(TIMESTAMP '1994-09-27 13:14:15')",
            "13 14 15",
        ),
        ("timestampdiff(DAY, TIMESTAMP '2003-01-02 10:00:00', TIMESTAMP '2003-01-03 10:00:00')", "1"),
        ("timestampdiff(SECOND, TIMESTAMP '2024-01-01 00:01:00', TIMESTAMP '2024-01-01 00:00:00.5')", "-59"),
        ("timestampdiff(MONTH, TIMESTAMP '2024-01-31 00:00:00', TIMESTAMP '2024-02-29 00:00:00')", "1"),
        ("timestampdiff(MONTH, TIMESTAMP '2024-01-15 10:00:00', TIMESTAMP '2024-03-15 09:59:59')", "1"),
        ("timestampdiff(MONTH, TIMESTAMP '2024-03-15 09:59:59', TIMESTAMP '2024-01-15 10:00:00')", "-1"),
        ("timestampdiff(YEAR, TIMESTAMP '2020-02-29 00:00:00', NULL)", "NULL"),
        ("timestampadd(WEEK, 1, DATE '2003-01-02')", "2003-01-09T00:00:00"),
        (
            "timestampadd(MONTH, 1, TIMESTAMP '2024-01-31 10:00:00'), timestampadd(QUARTER, -1, TIMESTAMP '2024-05-31 00:00:00')",
            "2024-02-29T10:00:00 2024-02-29T00:00:00",
        ),
        ("to_timestamp_ltz(1704067200000, 3), to_timestamp_ltz(1704067200, 0)", "2024-01-01T00:00:00 2024-01-01T00:00:00"),
        (
            "floor(TIMESTAMP '2024-01-01 12:44:31' TO MINUTE), floor(TIMESTAMP '2024-05-07 12:44:31' TO MONTH)",
            "2024-01-01T12:44:00 2024-05-01T00:00:00",
        ),
        ("floor(1.5), ceil(1.5), floor(-1.5), ceil(2), sign(-3.5)", "1.0 2.0 -2.0 2.0 -1.0"),
        (
            "ceil(TIMESTAMP '2024-01-01 12:44:31' TO MINUTE), ceil(TIMESTAMP '2024-01-01 12:44:00' TO MINUTE), ceil(TIMESTAMP '2024-01-31 01:00:00' TO YEAR)",
            "2024-01-01T12:45:00 2024-01-01T12:44:00 2025-01-01T00:00:00",
        ),
        (
            "regexp_extract('foothebar', 'foo(.*?)(bar)', 2), regexp_extract('foothebar', 'foo(.*?)(bar)'), regexp_extract('x', 'y')",
            "bar foothebar NULL",
        ),
        ("regexp_extract('a&channel_id=7', '(&|^)channel_id=([^&]*)', 2)", "7"),
        (
            r#"json_value('{"a": {"b": [1, "x", true]}}', '$.a.b[1]'), json_value('{"a": 1.5}', 'lax $.a'), json_value('{"a": {}}', '$.a')"#,
            "x 1.5 NULL",
        ),
        (r#"json_value('{"a b": null}', '$["a b"]'), json_value('no json', '$.a'), json_value('{"a": 1}', '$')"#, "NULL NULL NULL"),
        (r#"json_query('{"a": [1, {"c": 2}]}', '$.a[1]'), json_query('{"a": 1}', '$.a')"#, r#"{"c":2} NULL"#),
        (r#"json_exists('{"a": null}', '$.a'), json_exists('{"a": 1}', '$.b'), json_exists('no json', '$.a')"#, "true false false"),
        (r#"'{"a": {"b": [1, "x"]}}' -> 'a' -> 'b' ->> 1, '{"a": "q"}' -> 'a', '[1, 2]' ->> -1, '{"a": 1}' ->> 'b'"#, r#"x "q" 2 NULL"#),
        ("date_format(TIMESTAMP '2024-03-05 07:08:09.123', 'yyyy-MM-dd HH:mm:ss.SSS')", "2024-03-05 07:08:09.123"),
        ("date_format(TIMESTAMP '2024-03-05 17:08:09', 'd MMM yy, h:mm a, EEEE')", "5 Mar 24, 5:08 PM, Tuesday"),
        ("date_format(TIMESTAMP '2024-03-05 17:08:09', '''at'' HH')", "at 17"),
        (
            "to_char(TIMESTAMP '2024-03-05 17:08:09.5', 'YYYY-MM-DD HH24:MI:SS.MS'), to_char(TIMESTAMP '2024-03-05 17:08:09', 'HH12:MI am Dy')",
            "2024-03-05 17:08:09.500 05:08 pm Tue",
        ),
        (
            "to_char(TIMESTAMP '2024-03-05 17:08:09', '%H:%M'), to_char(TIMESTAMP '2024-03-05 17:08:09', 'YYYY-MM-DDTHH24:MI')",
            "17:08 2024-03-05T17:08",
        ),
        (
            "to_timestamp('2024-03-05 17:08:09', 'yyyy-MM-dd HH:mm:ss'), to_timestamp('05/03/2024 17:08', 'DD/MM/YYYY HH24:MI')",
            "2024-03-05T17:08:09 2024-03-05T17:08:00",
        ),
        ("to_date('5.3.2024', 'd.M.yyyy'), unix_timestamp('2024-01-01 00:00:00')", "2024-03-05 1704067200"),
        ("from_unixtime(1709214356, 'yyyy-MM-dd HH:mm'), from_unixtime(NULL, 'yyyy')", "2024-02-29 13:45 NULL"),
        ("from_unixtime(0, 'Europe/Berlin')", "1970-01-01T01:00:00+01:00"),
        ("day(DATE '1994-09-27'), regexp_substr('abc123', '[0-9]+'), regexp_substr('abc', '[0-9]+')", "27 123 NULL"),
        ("'abc' SIMILAR TO 'abc', 'abc' SIMILAR TO 'a', 'abc' SIMILAR TO '%(b|d)%', 'abc' SIMILAR TO '(b|c)%'", "true false true false"),
        ("'a.c' SIMILAR TO 'a.c', 'abc' SIMILAR TO 'a.c', 'a\nc' SIMILAR TO 'a_c', '$x^' SIMILAR TO '$_^'", "true false true true"),
        (
            "'aab' SIMILAR TO 'a{2}[a-c]', 'a%' SIMILAR TO 'a\\%', 'ab' SIMILAR TO 'a\\%', 'a%' SIMILAR TO 'a!%' ESCAPE '!'",
            "true true false true",
        ),
        ("'abc' NOT SIMILAR TO 'a%', NULL SIMILAR TO 'a', 'x_%' SIMILAR TO 'x[_][%]'", "false NULL true"),
        ("'a%c' LIKE 'a!%c' ESCAPE '!', 'abc' LIKE 'a!%c' ESCAPE '!', 'a!c' LIKE 'a!!_' ESCAPE '!'", "true false true"),
        ("'a\\b' LIKE 'a\\_' ESCAPE '!', 'A_c' ILIKE 'a!_C' ESCAPE '!', 'a_c' NOT LIKE 'a\\_c' ESCAPE '\\'", "true true false"),
        (
            "bool_or(true) OVER (), bool_and(false) OVER (), every(NULL::boolean) OVER (), bool_or(true) FILTER (WHERE false) OVER ()",
            "true false NULL NULL",
        ),
        ("true IS DISTINCT FROM false AND false, 1 IS NOT DISTINCT FROM NULL OR 1 = 1", "false true"),
        ("mod(if(true, year(DATE '2024-01-01'), 0), 100)", "24"),
    ];
    let wrong: Vec<_> =
        cases.iter().map(|(list, expected)| (list, answer(list), expected)).filter(|(_, said, expected)| said != *expected).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_would_mean_something_else_is_refused() {
    let cases = [
        ("proctime()", "not supported yet: PROCTIME() | queries go by the event time"),
        ("'a' SIMILAR TO '(a'", "the pattern of SIMILAR TO cannot be read"),
        ("'a' SIMILAR TO 'a' || 'b'", "SIMILAR TO with a pattern that is not a text in quotes"),
        ("'a' LIKE 'a!' ESCAPE '!'", "the pattern ends with its escape sign"),
        ("'a' LIKE 'a' ESCAPE '!!'", "ESCAPE takes one sign in quotes | write ESCAPE '!'"),
        ("from_unixtime(1, 'yyyy QQ')", "the pattern 'yyyy QQ' cannot be read: QQ is not known"),
        ("mod(1)", "mod takes 2 arguments and nothing else"),
        ("year(DISTINCT DATE '2024-01-01')", "year takes one argument and nothing else"),
        (
            "date_format(TIMESTAMP '2024-01-01 00:00:00', 'yyyy-QQ')",
            "the pattern 'yyyy-QQ' cannot be read: QQ is not known | it may have yyyy",
        ),
        ("to_char(TIMESTAMP '2024-01-01 00:00:00', 'Month')", "the pattern 'Month' cannot be read: "),
        ("date_format(TIMESTAMP '2024-01-01 00:00:00', 'HH ''h')", "the pattern 'HH 'h' cannot be read: the text behind ' has no end"),
        (
            "timestampdiff(FORTNIGHT, TIMESTAMP '2024-01-01 00:00:00', TIMESTAMP '2024-01-01 00:00:00')",
            "timestampdiff does not know the unit fortnight",
        ),
        ("json_value('{}', 'a.b')", "json_value cannot read the path 'a.b'"),
        ("json_value('{}', '$.*')", "json_value cannot read the path '$.*'"),
        ("regexp_extract('a', '(', 0)", "regexp_extract cannot read its pattern"),
        ("regexp_extract('a', 'a', 1)", "regexp_extract has no group 1: its pattern has 0"),
        ("timestampadd(YEAR, 9223372036854775807, DATE '2024-01-01')", "timestampadd: the time is out of range"),
    ];
    for (list, expected) in cases {
        let said = answer(list);
        assert!(said.contains(expected), "{list}: {said}");
    }
}

#[test]
fn a_pattern_is_read_in_its_own_letters_or_not_at_all() {
    for (pattern, letters, expected) in [
        ("yyyy-MM-dd", Letters::Either, "%Y-%m-%d"),
        ("YYYY-MM-DD", Letters::Either, "%Y-%m-%d"),
        ("HH:mm", Letters::Either, "%H:%M"),
        ("HH24:MI", Letters::Either, "%H:%M"),
        ("yyyy-mm-dd hh24:mi:ss", Letters::Postgres, "%Y-%m-%d %H:%M:%S"),
        ("yyyyMMddHHmmssSSS", Letters::Java, "%Y%m%d%H%M%S%3f"),
        ("\"day\" DD", Letters::Postgres, "day %d"),
        ("%Y yyyy", Letters::Java, "%Y yyyy"),
    ] {
        assert_eq!(chrono(pattern, letters).unwrap(), expected, "{pattern}");
    }
}

#[test]
fn a_column_is_called_as_it_was_written() {
    let Statement::Select(select) = parse_statement("SELECT mod(a, 3), year(ts), b % 2 FROM s FETCH FIRST 3 ROWS ONLY").unwrap().statement
    else {
        panic!()
    };
    assert_eq!(select.query.to_string(), "SELECT (a % 3) AS \"mod(a, 3)\", (date_part('year', ts)) AS \"year(ts)\", b % 2 FROM s LIMIT 3");
}

#[test]
fn a_frame_that_ends_nothing_behind_its_row_ends_with_it() {
    let text = "SELECT sum(a) OVER (ORDER BY ts ROWS BETWEEN 1 PRECEDING AND 0 FOLLOWING), max(a) OVER w, min(a) OVER (ORDER BY ts \
                ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) FROM s WINDOW w AS (ORDER BY ts RANGE BETWEEN INTERVAL '1' SECOND PRECEDING AND \
                INTERVAL '0' SECOND FOLLOWING)";
    let Statement::Select(select) = parse_statement(text).unwrap().statement else { panic!() };
    let ends = text.replace("0 FOLLOWING", "CURRENT ROW").replace("INTERVAL '0' SECOND FOLLOWING", "CURRENT ROW");
    assert_eq!(select.query.to_string(), ends);
}
