//! SQL's types as Arrow's and back, and INTERVAL literals as milliseconds.
//!
//! Always: text is `Utf8`, never a view (grouping is faster, and no view pins its batch), and no type has a time
//! zone: a TIMESTAMP is UTC. Called by `parse`, `show` and lowering.

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use datafusion::sql::sqlparser::ast::{self, ArrayElemTypeDef, ExactNumberInfo, Expr, Spanned, TimezoneInfo, UnaryOperator, Value};

use super::error::{Code, Place, SqlError};

/// The names a column's type may have, for messages.
const KNOWN: &str =
    "VARCHAR, DOUBLE, REAL, INT, BIGINT, SMALLINT, TINYINT, BOOLEAN, DECIMAL(p, s), DATE, TIME, TIMESTAMP(p), BYTES, STRUCT<..>, ARRAY<..>";

/// The Arrow type of a type in SQL.
pub fn arrow_type(sql: &ast::DataType) -> Result<DataType, SqlError> {
    use ast::DataType as Sql;
    Ok(match sql {
        Sql::Varchar(_) | Sql::Nvarchar(_) | Sql::CharVarying(_) | Sql::CharacterVarying(_) | Sql::Char(_) | Sql::Character(_) => {
            DataType::Utf8
        }
        Sql::Text | Sql::String(_) => DataType::Utf8,
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 | Sql::Float64 => DataType::Float64,
        Sql::Float(precision) => match precision {
            ExactNumberInfo::Precision(p) if *p > 24 => DataType::Float64,
            ExactNumberInfo::PrecisionAndScale(..) => return Err(unknown(sql)),
            _ => DataType::Float32,
        },
        Sql::Real | Sql::Float4 | Sql::Float32 => DataType::Float32,
        Sql::TinyInt(None) => DataType::Int8,
        Sql::SmallInt(None) | Sql::Int2(None) => DataType::Int16,
        Sql::Int(None) | Sql::Integer(None) | Sql::Int4(None) => DataType::Int32,
        Sql::BigInt(None) | Sql::Int8(None) => DataType::Int64,
        Sql::Boolean | Sql::Bool => DataType::Boolean,
        Sql::Decimal(size) | Sql::Numeric(size) | Sql::Dec(size) => decimal(size)?,
        Sql::Date => DataType::Date32,
        Sql::Time(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => match precision {
            None | Some(0..=3) => DataType::Time32(TimeUnit::Millisecond),
            Some(4..=6) => DataType::Time64(TimeUnit::Microsecond),
            Some(7..=9) => DataType::Time64(TimeUnit::Nanosecond),
            Some(p) => return Err(precision_error("TIME", *p)),
        },
        Sql::Timestamp(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) | Sql::Datetime(precision) => {
            DataType::Timestamp(unit(*precision)?, None)
        }
        // A moment: a zone in the data is honoured, and times are kept in UTC. That is what TIMESTAMP is here, too.
        Sql::Timestamp(precision, _) => DataType::Timestamp(unit(*precision)?, None),
        Sql::Custom(name, precision) if name.to_string().eq_ignore_ascii_case("timestamp_ltz") => {
            let precision = precision.first().map(|p| p.parse::<u64>()).transpose().map_err(|_| unknown(sql))?;
            DataType::Timestamp(unit(precision)?, None)
        }
        Sql::Bytea | Sql::Varbinary(_) | Sql::Binary(_) | Sql::Blob(_) | Sql::Bytes(_) => DataType::Binary,
        Sql::Struct(fields, _) => {
            let fields = fields.iter().enumerate().map(|(i, field)| {
                let name = field.field_name.as_ref().map_or_else(|| format!("c{i}"), |ident| super::statement::Name::of(ident).text);
                Ok(Field::new(name, arrow_type(&field.field_type)?, true))
            });
            let fields = fields.collect::<Result<Vec<_>, SqlError>>()?;
            if let Some(twice) = fields.iter().enumerate().find(|(i, f)| fields[..*i].iter().any(|g| g.name() == f.name())) {
                return Err(
                    SqlError::new(Code::BadType, format!("the struct has two fields \"{}\"", twice.1.name())).hint("name each field once")
                );
            }
            DataType::Struct(Fields::from(fields))
        }
        Sql::Array(
            ArrayElemTypeDef::AngleBracket(inner) | ArrayElemTypeDef::Parenthesis(inner) | ArrayElemTypeDef::SquareBracket(inner, None),
        ) => DataType::List(Field::new_list_field(arrow_type(inner)?, true).into()),
        other => return Err(unknown(other)),
    })
}

fn unknown(sql: &ast::DataType) -> SqlError {
    let error = SqlError::new(Code::BadType, format!("a column cannot be of type {sql}"));
    match sql {
        ast::DataType::JSON | ast::DataType::JSONB => error.hint("take VARCHAR; text -> 'a' ->> 'b' and json_value(text, '$.a.b') read it"),
        _ => error.note(format!("types: {KNOWN}")),
    }
}

/// That a query's result is of a type which no column can have; what to write instead, where there is something.
pub fn not_kept(name: &str, arrow: &DataType) -> Option<SqlError> {
    let hint = match arrow {
        DataType::Null => "say which type it is, as in CAST(NULL AS VARCHAR)",
        DataType::Duration(_) | DataType::Interval(_) => "say it in a unit: TIMESTAMPDIFF(SECOND, from, to); or CAST it AS VARCHAR",
        DataType::Map(..) => "take single values out of it, as in m['a']; or write a struct, named_struct('a', x)",
        DataType::Dictionary(..) | DataType::FixedSizeList(..) | DataType::Decimal256(..) | DataType::Date64 => "CAST it",
        _ => return None,
    };
    let of = match arrow {
        DataType::Null => "NULL of no type".to_owned(),
        DataType::Duration(_) | DataType::Interval(_) => "an INTERVAL".to_owned(),
        DataType::Map(..) => "a MAP".to_owned(),
        other => sql_type(other),
    };
    Some(SqlError::new(Code::BadType, format!("the column \"{name}\" is {of}, which no stream's column can be")).hint(hint))
}

fn unit(precision: Option<u64>) -> Result<TimeUnit, SqlError> {
    Ok(match precision {
        Some(0) => TimeUnit::Second,
        // Event time is kept in milliseconds; a bare TIMESTAMP is the same type, so that they compare without a cast.
        None | Some(1..=3) => TimeUnit::Millisecond,
        Some(4..=6) => TimeUnit::Microsecond,
        Some(7..=9) => TimeUnit::Nanosecond,
        Some(p) => return Err(precision_error("TIMESTAMP", p)),
    })
}

fn precision_error(what: &str, precision: u64) -> SqlError {
    SqlError::new(Code::BadType, format!("{what}({precision}) has too many digits"))
        .hint("write 0 to 9, as in TIMESTAMP(3) for milliseconds")
}

fn decimal(size: &ExactNumberInfo) -> Result<DataType, SqlError> {
    let (precision, scale) = match size {
        ExactNumberInfo::None => (38, 10),
        ExactNumberInfo::Precision(p) => (*p, 0),
        ExactNumberInfo::PrecisionAndScale(p, s) => (*p, *s),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(p @ 1..=38), Ok(s)) if s >= 0 && i64::from(s) <= i64::from(p) => Ok(DataType::Decimal128(p, s)),
        _ => Err(SqlError::new(Code::BadType, format!("DECIMAL({precision}, {scale}) is out of range"))
            .hint("write a precision of 1 to 38 and a scale of 0 to the precision")),
    }
}

/// The SQL spelling of an Arrow type; types that SQL has no word for print as Arrow names them.
#[must_use]
pub fn sql_type(arrow: &DataType) -> String {
    match arrow {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Float32 => "REAL".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        // SQL has no numbers without a sign; DataFusion counts rows with them.
        DataType::UInt8 => "SMALLINT".to_owned(),
        DataType::UInt16 => "INT".to_owned(),
        DataType::UInt32 | DataType::UInt64 => "BIGINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Decimal128(p, s) => format!("DECIMAL({p}, {s})"),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Time32(unit) | DataType::Time64(unit) => format!("TIME({})", digits(*unit)),
        // Kept in UTC, whatever zone it is shown in.
        DataType::Timestamp(unit, _) => format!("TIMESTAMP({})", digits(*unit)),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTES".to_owned(),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|f| format!("{} {}", quoted(f.name()), sql_type(f.data_type())));
            format!("STRUCT<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        DataType::List(inner) | DataType::LargeList(inner) => format!("ARRAY<{}>", sql_type(inner.data_type())),
        other => other.to_string(),
    }
}

const fn digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// A name as it must be written to be read back: in quotes where it is not a plain lower-case word.
#[must_use]
pub fn quoted(name: &str) -> String {
    let mut letters = name.chars();
    let plain = letters.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && !is_reserved(name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Words that would not be read back as a name: those the parser keeps for itself, and a few of ours.
fn is_reserved(name: &str) -> bool {
    use datafusion::sql::sqlparser::keywords::{
        ALL_KEYWORDS, ALL_KEYWORDS_INDEX, RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_IDENTIFIER, RESERVED_FOR_TABLE_ALIAS,
    };
    let upper = name.to_ascii_uppercase();
    if matches!(
        upper.as_str(),
        "WATERMARK" | "EMIT" | "PRIMARY" | "CONSTRAINT" | "CASE" | "CAST" | "NOT" | "NULL" | "TRUE" | "FALSE" | "TABLE"
    ) {
        return true;
    }
    ALL_KEYWORDS.binary_search(&upper.as_str()).is_ok_and(|i| {
        let word = &ALL_KEYWORDS_INDEX[i];
        RESERVED_FOR_IDENTIFIER.contains(word) || RESERVED_FOR_COLUMN_ALIAS.contains(word) || RESERVED_FOR_TABLE_ALIAS.contains(word)
    })
}

/// The length of an INTERVAL literal in milliseconds: `INTERVAL '5' SECOND`, `INTERVAL '1 minute'`, `INTERVAL '-1' HOUR`, `INTERVAL '1:30'
/// MINUTE TO SECOND` is refused. Months and years have no fixed length and are refused.
pub fn interval_millis(expr: &Expr) -> Result<i64, SqlError> {
    interval(expr).map_err(|e| e.at(Place::of(expr.span())))
}

fn interval(expr: &Expr) -> Result<i64, SqlError> {
    let interval = match expr {
        Expr::Nested(inner) => return interval_millis(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => return Ok(-interval_millis(expr)?),
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => return interval_millis(expr),
        Expr::Interval(interval) => interval,
        other => return Err(SqlError::syntax(format!("expected an interval, found {other}")).hint("write INTERVAL '5' MINUTE")),
    };
    if interval.last_field.is_some() || interval.leading_precision.is_some() || interval.fractional_seconds_precision.is_some() {
        return Err(SqlError::not_supported(&format!("the interval form {interval}")).hint("write INTERVAL '90' SECOND"));
    }
    let text = match interval.value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => text.clone(),
            other => return Err(bad_interval(&other.to_string())),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => format!("-{expr}"),
        other => return Err(bad_interval(&other.to_string())),
    };
    let text = match &interval.leading_field {
        Some(field) => format!("{text} {field}"),
        None if text.trim().parse::<f64>().is_ok() => return Err(bad_interval(&text)),
        None => text,
    };
    let parsed = parse_interval_month_day_nano(&text).map_err(|_| bad_interval(&text))?;
    if parsed.months != 0 {
        return Err(
            SqlError::new(Code::BadType, format!("INTERVAL '{text}' has no fixed length")).hint("write days, hours, minutes or seconds")
        );
    }
    let millis = i64::from(parsed.days).checked_mul(86_400_000).and_then(|days| days.checked_add(parsed.nanoseconds / 1_000_000));
    match millis {
        Some(millis) if parsed.nanoseconds % 1_000_000 == 0 => Ok(millis),
        _ => Err(SqlError::new(Code::BadType, format!("INTERVAL '{text}' is not a whole number of milliseconds"))),
    }
}

fn bad_interval(text: &str) -> SqlError {
    SqlError::syntax(format!("\"{text}\" is not an interval")).hint("write INTERVAL '5' MINUTE or INTERVAL '5 minutes'")
}

#[cfg(test)]
mod tests;
