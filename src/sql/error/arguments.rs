//! What DataFusion says of arguments, types and functions that do not fit, in our words and with SQL's names of types.
//!
//! A name in double quotes is looked for in the statement, so that a caret stands under it (`SqlError::locate`).

use super::{Code, SqlError, did_you_mean, nearest};

/// Functions that DataFusion does not suggest: our own, and those over a frame.
const OURS: &[&str] = &[
    "held_for",
    "hysteresis",
    "locf",
    "twa_below",
    "rate_of_change",
    "lag",
    "lead",
    "row_number",
    "dense_rank",
    "first_value",
    "last_value",
    "news2",
    "mews_subbe",
    "qsofa",
    "sirs",
    "plausible",
    "shock_index",
    "modified_shock_index",
    "map_from",
    "pulse_pressure",
    "f_to_c",
    "kpa_to_mmhg",
    "mgdl_from_mmoll",
    "pseudonym",
];

/// What others call functions that are there.
const ALSO_CALLED: &[(&str, &str)] = &[
    ("average", "avg"),
    ("mean", "avg"),
    ("maximum", "max"),
    ("minimum", "min"),
    ("total", "sum"),
    ("stdev", "stddev"),
    ("ifnull", "coalesce"),
    ("isnull", "coalesce"),
    ("iif", "CASE WHEN .. THEN .. ELSE .. END"),
    ("len", "length"),
    ("getdate", "now"),
    ("last_observation", "locf"),
    ("max_by", "last_value(x ORDER BY y)"),
    ("arg_max", "last_value(x ORDER BY y)"),
    ("min_by", "first_value(x ORDER BY y)"),
    ("arg_min", "first_value(x ORDER BY y)"),
    ("latest_by_offset", "last_value(x ORDER BY ts)"),
    ("earliest_by_offset", "first_value(x ORDER BY ts)"),
    ("datediff", "TIMESTAMPDIFF(DAY, from, to)"),
    ("date_diff", "TIMESTAMPDIFF(DAY, from, to)"),
    ("timestamp_diff", "TIMESTAMPDIFF(SECOND, from, to)"),
    ("age", "TIMESTAMPDIFF(SECOND, from, to)"),
    ("date_add", "ts + INTERVAL '1' DAY"),
    ("date_sub", "ts - INTERVAL '1' DAY"),
    ("convert_tz", "ts AT TIME ZONE 'Europe/Berlin'"),
    ("make_timestamp", "to_timestamp('2024-01-31 10:00:00')"),
    ("parse_timestamp", "to_timestamp(text, 'yyyy-MM-dd HH:mm:ss')"),
    ("stringtotimestamp", "to_timestamp(text, 'yyyy-MM-dd HH:mm:ss')"),
    ("format_timestamp", "date_format(ts, 'yyyy-MM-dd HH:mm:ss')"),
    ("timestamptostring", "date_format(ts, 'yyyy-MM-dd HH:mm:ss')"),
    ("dayname", "date_format(ts, 'EEEE')"),
    ("monthname", "date_format(ts, 'MMMM')"),
    ("collect", "array_agg(x)"),
    ("collect_list", "array_agg(x)"),
    ("collect_set", "array_agg(DISTINCT x)"),
    ("group_concat", "string_agg(x, ',')"),
    ("count_if", "count(*) FILTER (WHERE ..)"),
    ("countif", "count(*) FILTER (WHERE ..)"),
    ("sum_if", "sum(x) FILTER (WHERE ..)"),
    ("percentile", "percentile_cont(0.95) WITHIN GROUP (ORDER BY x)"),
    ("quantile", "percentile_cont(0.95) WITHIN GROUP (ORDER BY x)"),
    ("approx_percentile", "approx_percentile_cont(x, 0.95)"),
    ("split", "string_to_array(text, ',')"),
    ("to_base64", "encode(text, 'base64')"),
    ("from_base64", "decode(text, 'base64')"),
    ("typeof", "arrow_typeof"),
    ("extractjsonfield", "json_value(text, '$.a')"),
    ("jsonb_extract_path_text", "json_value(text, '$.a')"),
    ("json_extract", "json_value(text, '$.a')"),
    ("json_extract_path_text", "json_value(text, '$.a')"),
];

/// Functions that number or look along the rows of a window, and are none without OVER.
const OVER_ALONE: &[&str] = &["row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead", "nth_value"];

/// The function that was probably meant, where DataFusion has found `near`.
pub(super) fn no_function(name: &str, near: Option<&str>) -> SqlError {
    let error = SqlError::new(Code::NoSuchFunction, format!("no function \"{name}\""));
    if let Some(name) = OVER_ALONE.iter().find(|known| known.eq_ignore_ascii_case(name)) {
        return SqlError::new(Code::BadDefinition, format!("{name}(..) has no OVER"))
            .hint(format!("write {name}(..) OVER (PARTITION BY .. ORDER BY ..)"));
    }
    let also = nearest(name, ALSO_CALLED.iter().map(|(other, _)| *other));
    let same = ALSO_CALLED.iter().find(|(other, _)| other.eq_ignore_ascii_case(name) || also == Some(*other));
    if let Some((_, ours)) = same {
        return error.hint(format!("did you mean {ours}?"));
    }
    error.hint_opt(did_you_mean(name, OURS.iter().copied().chain(near)))
}

/// What is wrong with arguments and types, where that is what `text` is about.
pub(super) fn of_types(text: &str) -> Option<SqlError> {
    let wrong = |message: String| SqlError::new(Code::TypeMismatch, message);
    let between = super::convert::between;
    if let Some(given) = between(text, "argument types '", "'")
        && let Some((name, types)) = given.strip_suffix(')').and_then(|call| call.split_once('('))
    {
        let count = types_of(types).len();
        let takes = between(text, " expects ", " arguments but received").and_then(|n| n.parse::<usize>().ok());
        let error = match takes {
            Some(takes) => wrong(format!("function \"{name}\" takes {}, and {count} are given", number(takes))),
            None if count == 0 => wrong(format!("function \"{name}\" takes arguments, and none is given")),
            None => wrong(format!("function \"{name}\" does not take ({})", types_of(types).join(", "))),
        };
        let exact = text.split_once("Exact(").map(|(_, rest)| format!("it takes ({})", types_of(closed(rest)).join(", ")));
        let is_text = types_of(types).iter().any(|of| of == "VARCHAR");
        let number = || "is another column meant? Text that holds numbers is made one by CAST(x AS DOUBLE)".to_owned();
        let hint = exact.or_else(|| (takes.is_none() && is_text).then(number));
        return Some(error.hint_opt(hint));
    }
    if let Some(name) = between(text, "Function '", "' failed to match any signature")
        && let Some(given) = between(text, "(DataType: ", ").").or_else(|| between(text, "(DataType: ", ")"))
    {
        let error = wrong(format!("function \"{name}\" does not take {}", sql_name(given)));
        return Some(error.hint("is another column meant? Text that holds numbers is made one by CAST(x AS DOUBLE)"));
    }
    if let Some(predicate) = between(text, "non-boolean predicate '", "' returning ") {
        let of = text.rsplit("returning ").next().unwrap_or_default();
        let column = predicate.rsplit('.').next().unwrap_or(predicate);
        let error = wrong(format!("a condition is true or false, and \"{column}\" is {}", sql_name(of.trim())));
        return Some(error.hint("compare it with something, as in heart_rate > 120"));
    }
    if let Some(both) = between(text, "coerce arithmetic expression ", " to valid types") {
        return Some(
            wrong(format!("{} cannot be computed", expression(both)))
                .hint("CAST one side to the type of the other, or look whether another column is meant"),
        );
    }
    if let Some(both) = text.split("common argument type for comparison operation ").nth(1) {
        let message = format!("{} cannot be compared", expression(both.lines().next().unwrap_or(both).trim()));
        return Some(wrong(message).hint("CAST one side to the type of the other, or look whether another column is meant"));
    }
    if let Some(value) = between(text, "Cannot cast string '", "' to value of ") {
        let of = between(text, "to value of ", " type").unwrap_or_default();
        return Some(wrong(format!("'{value}' cannot be read as {}", sql_name(of))));
    }
    if let Some(name) = text.split("Unsupported SQL type ").nth(1) {
        let name = name.split_whitespace().next().unwrap_or(name);
        let types =
            ["VARCHAR", "DOUBLE", "REAL", "INT", "BIGINT", "SMALLINT", "TINYINT", "BOOLEAN", "DECIMAL", "DATE", "TIME", "TIMESTAMP"];
        let meant = nearest(name, types).map(|of| format!("did you mean {of}?"));
        return Some(
            SqlError::new(Code::BadType, format!("there is no type \"{name}\""))
                .hint_opt(meant)
                .note(format!("types: {}", types.join(", "))),
        );
    }
    None
}

/// The text up to the bracket that closes what was opened before it.
fn closed(text: &str) -> &str {
    let mut depth = 0_i32;
    let end = text.char_indices().find(|(_, letter)| {
        depth += i32::from(*letter == '(') - i32::from(*letter == ')');
        depth < 0
    });
    end.map_or(text, |(at, _)| &text[..at])
}

fn number(arguments: usize) -> String {
    if arguments == 1 { "1 argument".to_owned() } else { format!("{arguments} arguments") }
}

/// `Float64 + Boolean` with SQL's names.
fn expression(text: &str) -> String {
    text.split(' ').map(sql_name).collect::<Vec<_>>().join(" ")
}

/// A list of Arrow's types, commas between those that stand side by side, with SQL's names.
fn types_of(list: &str) -> Vec<String> {
    let mut types: Vec<String> = Vec::new();
    let (mut depth, mut from) = (0_i32, 0);
    for (at, letter) in list.char_indices().chain([(list.len(), ',')]) {
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                let one = list[from..at].trim();
                if !one.is_empty() {
                    types.push(sql_name(one));
                }
                from = at + 1;
            }
            _ => {}
        }
    }
    types
}

/// SQL's name of one of Arrow's types, as it is printed; anything else as it is.
fn sql_name(arrow: &str) -> String {
    let name = match arrow {
        "Utf8" | "LargeUtf8" | "Utf8View" | "String" => "VARCHAR",
        "Float64" => "DOUBLE",
        "Float32" | "Float16" => "REAL",
        "Int8" => "TINYINT",
        "Int16" | "UInt8" => "SMALLINT",
        "Int32" | "UInt16" => "INT",
        "Int64" | "UInt32" | "UInt64" => "BIGINT",
        "Boolean" => "BOOLEAN",
        "Date32" | "Date64" => "DATE",
        "Binary" | "LargeBinary" | "BinaryView" => "BYTES",
        other if other.starts_with("Timestamp(") => "TIMESTAMP",
        other if other.starts_with("Interval(") => "INTERVAL",
        other if other.starts_with("Time") => "TIME",
        other if other.starts_with("Decimal") => "DECIMAL",
        other => other,
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let error = of_types(text).unwrap_or_else(|| panic!("nothing is said of {text}"));
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn arguments_that_do_not_fit_are_told_in_the_types_of_sql() {
        check(
            "Function 'avg' failed to match any signature, errors: Error during planning: Function 'avg' requires Decimal, but received String (DataType: Utf8).,Error",
            "function \"avg\" does not take VARCHAR: is another column meant? Text that holds numbers is made one by CAST(x AS DOUBLE)",
        );
        check(
            "Function 'upper' expects 1 arguments but received 2. No function matches the given name and argument types 'upper(Float64, Int64)'",
            "function \"upper\" takes 1 argument, and 2 are given",
        );
        check(
            "Failed to coerce arguments to satisfy a call to 'f' function: coercion from Int64, Boolean to the signature OneOf(Exact(Float64, Timestamp(ms, None), Utf8)) failed. No function matches the given name and argument types 'f(Decimal128(3, 1), Boolean)'",
            "function \"f\" does not take (DECIMAL, BOOLEAN): it takes (DOUBLE, TIMESTAMP, VARCHAR)",
        );
        check(
            "'round' does not support zero arguments. No function matches the given name and argument types 'round()'",
            "function \"round\" takes arguments, and none is given",
        );
        assert!(of_types("something else").is_none());
    }

    #[test]
    fn functions_are_found_under_the_names_that_others_give_them() {
        for (name, hint) in [
            ("averge", Some("did you mean avg?")),
            ("heldfor", Some("did you mean \"held_for\"?")),
            ("frobnicate", None),
            ("ifnull", Some("did you mean coalesce?")),
        ] {
            assert_eq!(no_function(name, None).hint.as_deref(), hint, "{name}");
        }
    }
}
