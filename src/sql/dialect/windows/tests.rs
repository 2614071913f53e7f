//! Window calls in every spelling, and the normal form they come to.

use expect_test::{Expect, expect};

use super::super::{prepass, split_script};
use super::*;

fn normal(text: &str) -> Result<String, SqlError> {
    let piece = split_script(text)?.remove(0);
    let tokens = prepass::rewrite(&piece.tokens)?;
    let mut query = Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens).parse_query()?;
    normalize(&mut query)?;
    Ok(query.to_string())
}

fn check(text: &str, expected: &str) {
    assert_eq!(normal(text).map_err(|e| e.render(text)), Ok(expected.to_owned()), "{text}");
}

fn check_error(text: &str, expected: &Expect) {
    expected.assert_eq(&normal(text).map(|t| panic!("{t}")).map_err(|e| e.render(text)).unwrap_or_else(|e| e));
}

#[test]
fn every_spelling_of_a_window_comes_to_one_form() {
    let tumble = "SELECT * FROM tumble((SELECT * FROM v), ts, INTERVAL '1' MINUTE)";
    check("SELECT * FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE))", tumble);
    check("SELECT * FROM TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE)", tumble);
    check("SELECT * FROM Tumble(v, ts, INTERVAL '1' MINUTE)", tumble);
    check("SELECT * FROM TABLE(TUMBLE(DATA => TABLE v, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '1' MINUTE))", tumble);
    check("SELECT * FROM TABLE(TUMBLE(SIZE => INTERVAL '1' MINUTE, TIMECOL => DESCRIPTOR(ts), DATA => v))", tumble);
    check("SELECT * FROM tumble((SELECT * FROM v), ts, INTERVAL '1' MINUTE)", tumble);
    check("SELECT * FROM tumble((v), ts, INTERVAL '1' MINUTE)", tumble);
    check(
        "SELECT * FROM HOP(v, ts, INTERVAL '10' SECOND, INTERVAL '5' MINUTE, INTERVAL '-1' SECOND) AS h",
        "SELECT * FROM hop((SELECT * FROM v), ts, INTERVAL '10' SECOND, INTERVAL '5' MINUTE, INTERVAL '-1' SECOND) AS h",
    );
    check(
        "SELECT * FROM TABLE(HOP(DATA => TABLE v, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '5' MINUTE, SLIDE => INTERVAL '10' SECOND))",
        "SELECT * FROM hop((SELECT * FROM v), ts, INTERVAL '10' SECOND, INTERVAL '5' MINUTE)",
    );
    let absent = "SELECT * FROM absent((SELECT * FROM v), ts, INTERVAL '30' SECOND, p, q)";
    check("SELECT * FROM TABLE(ABSENT(TABLE v PARTITION BY p, q, DESCRIPTOR(ts), INTERVAL '30' SECOND))", absent);
    check(absent, absent);
    check(
        "SELECT * FROM TABLE(TUMBLE(TABLE (SELECT * FROM \"V\" WHERE a > 1), DESCRIPTOR(ts), INTERVAL '1 hour'))",
        "SELECT * FROM tumble((SELECT * FROM \"V\" WHERE a > 1), ts, INTERVAL '1 hour')",
    );
}

#[test]
fn the_older_group_by_form_becomes_a_call_in_from() {
    check(
        "SELECT p, TUMBLE_START(ts, INTERVAL '1' MINUTE) AS s, count(*) FROM v WHERE x > 1 GROUP BY p, TUMBLE(ts, INTERVAL '1' MINUTE) HAVING count(*) > 2",
        "SELECT p, window_start AS s, count(*) FROM tumble((SELECT * FROM v), ts, INTERVAL '1' MINUTE) WHERE x > 1 GROUP BY p, window_start, window_end HAVING count(*) > 2",
    );
    check(
        "SELECT count(*) FROM v AS a GROUP BY HOP(a.ts, INTERVAL '1' MINUTE, INTERVAL '5' MINUTE), a.p",
        "SELECT count(*) FROM hop((SELECT * FROM v AS a), a.ts, INTERVAL '1' MINUTE, INTERVAL '5' MINUTE) GROUP BY window_start, window_end, a.p",
    );
    check(
        "SELECT count(*) FROM (SELECT * FROM v) AS a GROUP BY TUMBLE(a.ts, INTERVAL '1' MINUTE)",
        "SELECT count(*) FROM tumble((SELECT * FROM v), ts, INTERVAL '1' MINUTE) AS a GROUP BY window_start, window_end",
    );
}

#[test]
fn a_call_that_is_written_wrongly_says_how_to_write_it() {
    check_error(
        "SELECT * FROM TUMBLE(TABLE v, INTERVAL '1' MINUTE)",
        &expect![[r#"
        error[SQL-0006]: tumble lacks its size
          1 | SELECT * FROM TUMBLE(TABLE v, INTERVAL '1' MINUTE)
            |               ^^^^^^ write TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)
    "#]],
    );
    check_error(
        "SELECT * FROM TUMBLE(v, ts, INTERVAL '1' MONTH)",
        &expect![[r#"
        error[SQL-0005]: INTERVAL '1 MONTH' has no fixed length
          1 | SELECT * FROM TUMBLE(v, ts, INTERVAL '1' MONTH)
            |                                      ^^^ write days, hours, minutes or seconds
    "#]],
    );
    check_error(
        "SELECT * FROM HOP(v, ts, INTERVAL '0' SECOND, INTERVAL '1' MINUTE)",
        &expect![[r#"
        error[SQL-0006]: the slide of hop must be positive
          1 | SELECT * FROM HOP(v, ts, INTERVAL '0' SECOND, INTERVAL '1' MINUTE)
            |                                   ^^^
    "#]],
    );
    check_error(
        "SELECT * FROM TUMBLE(v, ts, 60)",
        &expect![[r#"
        error[SQL-0001]: expected an interval, found 60
          1 | SELECT * FROM TUMBLE(v, ts, 60)
            |                             ^^ write INTERVAL '5' MINUTE
    "#]],
    );
    check_error(
        "SELECT * FROM TUMBLE(v, SIZ => INTERVAL '1' MINUTE)",
        &expect![[r#"
        error[SQL-0006]: tumble has no argument SIZ
          1 | SELECT * FROM TUMBLE(v, SIZ => INTERVAL '1' MINUTE)
            |                         ^^^ did you mean "size"?
    "#]],
    );
    check_error(
        "SELECT * FROM TUMBLE(TABLE v PARTITION BY p, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
        &expect![[r#"
        error[SQL-0002]: not supported yet: PARTITION BY in TUMBLE
          1 | SELECT * FROM TUMBLE(TABLE v PARTITION BY p, DESCRIPTOR(ts), INTERVAL '1' MINUTE)
            |                                           ^ leave it out, and write the columns in GROUP BY
    "#]],
    );
    check_error(
        "SELECT * FROM ABSENT(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
        &expect![[r#"
        error[SQL-0006]: absent lacks PARTITION BY: it has to know whose silence to look for
          1 | SELECT * FROM ABSENT(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE)
            |               ^^^^^^ write ABSENT(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '30' SECOND)
    "#]],
    );
    check_error(
        "SELECT TUMBLE(ts, INTERVAL '1' MINUTE) FROM v",
        &expect![[r#"
        error[SQL-0001]: TUMBLE stands in FROM or GROUP BY, not here
          1 | SELECT TUMBLE(ts, INTERVAL '1' MINUTE) FROM v
            |        ^^^^^^ its columns are window_start and window_end
    "#]],
    );
    check_error(
        "SELECT TUMBLE_START(ts, INTERVAL '2' MINUTE) FROM v GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)",
        &expect![[r#"
        error[SQL-0006]: TUMBLE_START does not repeat the window of GROUP BY
          1 | SELECT TUMBLE_START(ts, INTERVAL '2' MINUTE) FROM v GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)
            |        ^^^^^^^^^^^^ write window_start
    "#]],
    );
    check_error(
        "SELECT 1 FROM a JOIN b ON a.x = b.x GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)",
        &expect![[r#"
        error[SQL-0006]: a window in GROUP BY cannot stand over a join
          1 | SELECT 1 FROM a JOIN b ON a.x = b.x GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)
            |                                              ^^^^^^ write FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), i)) for the side it is meant for
    "#]],
    );
}
