//! SQL types to Arrow types and back.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::*;

fn read(text: &str) -> Result<DataType, SqlError> {
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(text).expect("it has tokens");
    arrow_type(&parser.parse_data_type()?)
}

#[test]
fn sql_types_become_arrow_types_and_print_back() {
    for (written, arrow, printed) in [
        ("VARCHAR", DataType::Utf8, "VARCHAR"),
        ("varchar(20)", DataType::Utf8, "VARCHAR"),
        ("TEXT", DataType::Utf8, "VARCHAR"),
        ("STRING", DataType::Utf8, "VARCHAR"),
        ("DOUBLE", DataType::Float64, "DOUBLE"),
        ("DOUBLE PRECISION", DataType::Float64, "DOUBLE"),
        ("FLOAT", DataType::Float32, "REAL"),
        ("INT", DataType::Int32, "INT"),
        ("INTEGER", DataType::Int32, "INT"),
        ("BIGINT", DataType::Int64, "BIGINT"),
        ("SMALLINT", DataType::Int16, "SMALLINT"),
        ("TINYINT", DataType::Int8, "TINYINT"),
        ("BOOLEAN", DataType::Boolean, "BOOLEAN"),
        ("DECIMAL(10, 2)", DataType::Decimal128(10, 2), "DECIMAL(10, 2)"),
        ("DATE", DataType::Date32, "DATE"),
        ("TIMESTAMP", DataType::Timestamp(TimeUnit::Millisecond, None), "TIMESTAMP(3)"),
        ("TIMESTAMP(3)", DataType::Timestamp(TimeUnit::Millisecond, None), "TIMESTAMP(3)"),
        ("TIMESTAMP(6)", DataType::Timestamp(TimeUnit::Microsecond, None), "TIMESTAMP(6)"),
        ("BYTES", DataType::Binary, "BYTES"),
        ("INT[]", DataType::List(Field::new_list_field(DataType::Int32, true).into()), "ARRAY<INT>"),
        ("ARRAY<VARCHAR>", DataType::List(Field::new_list_field(DataType::Utf8, true).into()), "ARRAY<VARCHAR>"),
        (
            "STRUCT<Total INT, \"Risk\" ARRAY<VARCHAR>>",
            DataType::Struct(Fields::from(vec![
                Field::new("total", DataType::Int32, true),
                Field::new("Risk", DataType::List(Field::new_list_field(DataType::Utf8, true).into()), true),
            ])),
            "STRUCT<total INT, \"Risk\" ARRAY<VARCHAR>>",
        ),
        ("TIMESTAMP(3) WITH TIME ZONE", DataType::Timestamp(TimeUnit::Millisecond, None), "TIMESTAMP(3)"),
        ("TIMESTAMP_LTZ(3)", DataType::Timestamp(TimeUnit::Millisecond, None), "TIMESTAMP(3)"),
    ] {
        let read = read(written).unwrap_or_else(|e| panic!("{written}: {e}"));
        assert_eq!(read, arrow, "{written}");
        assert_eq!(sql_type(&read), printed, "{written}");
    }
    for bad in ["TIMESTAMP(12)", "TIME WITH TIME ZONE", "DECIMAL(99, 2)", "DECIMAL(2, 5)", "VARCAR", "INT UNSIGNED", "JSON", "UUID"] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_interval_is_a_whole_number_of_milliseconds() {
    let millis = |text: &str| {
        let mut parser = Parser::new(&GenericDialect {}).try_with_sql(text).expect("it has tokens");
        interval_millis(&parser.parse_expr()?)
    };
    for (text, expected) in [
        ("INTERVAL '5' SECOND", 5000),
        ("INTERVAL '5' SECONDS", 5000),
        ("INTERVAL '1 minute'", 60_000),
        ("INTERVAL '1 minute 30 seconds'", 90_000),
        ("INTERVAL '0.5' SECOND", 500),
        ("INTERVAL '-1' HOUR", -3_600_000),
        ("-INTERVAL '1' HOUR", -3_600_000),
        ("INTERVAL 2 DAY", 172_800_000),
        ("INTERVAL '1' WEEK", 604_800_000),
        ("(INTERVAL '1 ms')", 1),
        ("INTERVAL '90' MINUTE", 5_400_000),
    ] {
        assert_eq!(millis(text), Ok(expected), "{text}");
    }
    for bad in [
        "INTERVAL '1' MONTH",
        "INTERVAL '1' YEAR",
        "INTERVAL '5'",
        "INTERVAL 'x' SECOND",
        "5",
        "'5 seconds'",
        "INTERVAL '1 us'",
        "INTERVAL '1:30' MINUTE TO SECOND",
        "INTERVAL '9999999999999' DAY",
    ] {
        assert!(millis(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_name_is_quoted_where_it_would_not_be_read_back() {
    for (name, written) in [
        ("ts", "ts"),
        ("heartRate", "\"heartRate\""),
        ("a b", "\"a b\""),
        ("select", "\"select\""),
        ("2x", "\"2x\""),
        ("q\"q", "\"q\"\"q\""),
        ("value", "value"),
        ("map", "map"),
    ] {
        assert_eq!(quoted(name), written);
    }
}
