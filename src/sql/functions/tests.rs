//! The functions as SQL calls them.

use arrow::array::AsArray;
use arrow::util::pretty::pretty_format_batches;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use expect_test::{Expect, expect};

use super::set_pseudonym_key;
use crate::sql::session::Session;

fn batch(list: &str) -> Result<arrow::array::RecordBatch, String> {
    let session = Session::new([]);
    let query = Parser::new(&GenericDialect {}).try_with_sql(list).unwrap().parse_query().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let plan = session.logical(&query).map_err(|e| e.to_string())?;
        let frame = session.context().execute_logical_plan(plan).await.map_err(|e| e.to_string())?;
        let batches = frame.collect().await.map_err(|e| e.to_string())?;
        Ok(arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap())
    })
}

#[allow(clippy::needless_pass_by_value, reason = "expect! reads best as a value")]
fn check(list: &str, expected: Expect) {
    let shown = batch(list).map(|batch| {
        let text = pretty_format_batches(&[batch]).unwrap().to_string();
        text.lines().filter(|l| !l.starts_with('+')).skip(1).fold(String::new(), |all, line| all + line + "\n")
    });
    expected.assert_eq(&shown.unwrap_or_else(|e| e));
}

#[test]
fn scores_are_structs_whose_parts_are_named() {
    check(
        "SELECT news2(22, 94, true, 1, 105, 45, 'C', 35.5)",
        expect![[r#"
        | {total: 11, resp_rate: 2, spo2: 1, oxygen: 2, sbp: 1, heart_rate: 1, consciousness: 3, temperature: 1, single3: true, risk: high, complete: true, missing: [], score_min: 11, score_max: 11} |
    "#]],
    );
    check(
        "SELECT news2(22, NULL, true, NULL, 105, 45, 'x', 35.5)['missing'] AS m, news2(22, 94, true, 1, 105, 45, 'C', 35.5)['total'] AS t",
        expect![[r#"
            | [spo2, acvpu] | 11 |
        "#]],
    );
    check(
        "SELECT mews_subbe(70, 130, 30, 39.0, 'U'), mews_subbe(70, 130, 30, NULL, 'U')['total']",
        expect![[r#"
        | {total: 14, missing: [], score_min: 14, score_max: 14}           |                                                                  |
    "#]],
    );
    check(
        "SELECT qsofa(22, 100, 'V'), qsofa(12, NULL, 'A')['positive'], sirs(38.1, 91, 21), sirs(38.1, 91, 21, 30, 13)['total']",
        expect![[r#"
            | {total: 3, met: 3, unknown: 0, positive: true} | false                                     | {total: , met: 3, unknown: 1, positive: true} | 4                                                                  |
        "#]],
    );
}

#[test]
fn small_functions_are_null_where_they_have_no_answer() {
    check(
        "SELECT shock_index(90, 100), shock_index(90, 0), modified_shock_index(130, 100), map_from(120, 75), pulse_pressure(120, NULL)",
        expect![[r#"
            | 0.9                               |                                 | 1.3                                         | 90.0                           |                                 |
        "#]],
    );
    check(
        "SELECT round(f_to_c(98.6), 6), round(kpa_to_mmhg(10), 4), round(mgdl_from_mmoll(5), 3)",
        expect![[r#"
        | 37.0                                  | 75.0062                                | 90.08                                     |
    "#]],
    );
    check(
        "SELECT plausible('spo2', 101), plausible('heart_rate', 0), plausible('map', NULL), plausible(NULL, 1)",
        expect![[r#"
        | false                              | true                                   |                             |                          |
    "#]],
    );
    check(
        "SELECT plausible('sp02', 101)",
        expect!["Execution error: plausible knows heart_rate, pulse_rate, resp_rate, spo2, sbp, dbp, map, temp_c and etco2"],
    );
}

#[test]
fn a_pseudonym_needs_the_sites_key_and_hides_the_id() {
    set_pseudonym_key(b"a key of this test");
    let made = batch("SELECT pseudonym('MRN-1') AS a, pseudonym('MRN-1') AS b, pseudonym('MRN-2') AS c").unwrap();
    let text = |at: usize| made.column(at).as_string::<i32>().value(0).to_owned();
    assert!(text(0).starts_with("PSN") && text(0) == text(1) && text(0) != text(2) && !text(0).contains("MRN"));
}

#[test]
fn what_makes_much_out_of_little_is_refused_before_it_is_made() {
    check(
        "SELECT repeat('ab', 3) AS a, lpad('x', 4, '-') AS b, replace('aba', 'a', 'cc') AS c, array_repeat(7, 2) AS d, range(0, 10, 4) AS e, repeat('x', NULL) AS f",
        expect![[r#"
            | ababab | ---x | ccbcc | [7, 7] | [0, 4, 8] |   |
        "#]],
    );
    let refused = |call: &str| batch(&format!("SELECT {call} AS x")).expect_err(call);
    for call in [
        "repeat('x', 2000000000)",
        "lpad('x', 2000000000)",
        "rpad('x', 2000000000, 'ab')",
        "replace(repeat('a', 10000000), 'a', repeat('b', 1000))",
        "array_repeat('a long text', 2000000000)",
        "array_resize([1], 2000000000, 0)",
        "range(2000000000)",
        "generate_series(0, 9000000000000000000)",
        "generate_series(TIMESTAMP '1970-01-01', TIMESTAMP '2070-01-01', INTERVAL '1' SECOND)",
        "range(DATE '2000-01-01', DATE '1000-01-01', INTERVAL '-1' MILLISECOND)",
    ] {
        let error = refused(call);
        assert!(error.contains("larger than 16 MiB"), "{call}: {error}");
    }
    // Many values, none of them too large.
    let error = batch("SELECT repeat('x', n) AS x FROM (SELECT unnest(range(1000000, 1000100)) AS n)").expect_err("a batch");
    assert!(error.contains("the values of one batch of rows larger than 64 MiB"), "{error}");
}
