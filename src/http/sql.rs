//! SQL over HTTP: a text in, or `{"sql": ".."}` as `application/json`; newline-delimited JSON out.
//!
//! Each statement answers with a line `{"columns": [..]}`, a line a row (a JSON array), and a line
//! `{"done": true, ..}`; an error is a line `{"error": {..}}` and ends the answer. `EMIT CHANGES` goes on until
//! the reader leaves. The channel between is bounded, so a slow reader slows its query alone.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
    TimestampNanosecondType, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::visitor::Visitor;
use super::{ApiError, App};
use crate::sql::{Outcome, SqlError, parse_script, sql_type};
use crate::stream::millis;
use crate::time::Timestamp;

/// Lines that may wait for a slow reader.
const BACKLOG: usize = 64;

/// What the URL may say; never a statement, which may name a patient.
#[derive(Deserialize)]
pub struct Wanted {
    /// At most so many rows a statement.
    #[serde(default)]
    limit: Option<usize>,
}

/// `POST /api/v1/sql`.
pub async fn run(
    State(app): State<Arc<App>>,
    Extension(visitor): Extension<Visitor>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
    body: String,
) -> Result<impl IntoResponse, ApiError> {
    let text = script(&headers, body)?;
    // All of a script or none of it. What cannot be read is refused below, in the words of the SQL room.
    for parsed in parse_script(&text).into_iter().flatten() {
        visitor.may_run(&app.engine, &parsed.statement)?;
    }
    let (tx, rx) = mpsc::channel::<Bytes>(BACKLOG);
    tokio::spawn(async move {
        if let Err(error) = answer(&app, &text, wanted.limit.unwrap_or(usize::MAX), &tx).await {
            let _ = tx.send(line(&error_line(&error, &text))).await;
        }
    });
    let body =
        futures::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|line| (Ok::<_, std::convert::Infallible>(line), rx)) });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)))
}

/// A script in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    sql: String,
}

/// The script of a request: its body, or in a body of JSON, as `{"sql": ".."}`, its only field.
fn script(headers: &HeaderMap, body: String) -> Result<String, ApiError> {
    let said = headers.get(header::CONTENT_TYPE).and_then(|said| said.to_str().ok()).unwrap_or_default();
    let kind = said.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Ok(body);
    }
    // What serde says of it may quote the statement.
    let wrong =
        || ApiError::new(StatusCode::BAD_REQUEST, "HTTP-0400", "a body of JSON is {\"sql\": \"SELECT ..\"} and nothing more".to_owned());
    if !body.trim_start().starts_with('{') {
        return Err(wrong());
    }
    serde_json::from_str::<Script>(&body).map(|script| script.sql).map_err(|_| wrong())
}

async fn answer(app: &App, text: &str, limit: usize, tx: &mpsc::Sender<Bytes>) -> Result<(), SqlError> {
    for parsed in parse_script(text)? {
        let begun = Instant::now();
        let mut rows = 0_usize;
        match app.engine.run(parsed).await? {
            Outcome::Done(message) => {
                let done = json!({ "done": true, "message": message, "elapsed_ms": begun.elapsed().as_millis() as u64 });
                if tx.send(line(&done)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            Outcome::Rows { schema, batches } => {
                if tx.send(line(&columns(&schema))).await.is_err() {
                    return Ok(());
                }
                for batch in batches {
                    if !give(&batch, &mut rows, limit, tx).await {
                        break;
                    }
                }
            }
            Outcome::Stream { schema, mut rows_rx } => {
                if tx.send(line(&columns(&schema))).await.is_err() {
                    return Ok(());
                }
                loop {
                    let next = tokio::select! {
                        next = rows_rx.recv() => next,
                        () = tx.closed() => return Ok(()),
                        () = app.stop.cancelled() => break,
                    };
                    match next {
                        Some(Ok(batch)) => {
                            if !give(&batch, &mut rows, limit, tx).await {
                                break;
                            }
                        }
                        Some(Err(error)) => return Err(error),
                        None => break,
                    }
                }
            }
        }
        let done = json!({ "done": true, "rows": rows, "elapsed_ms": begun.elapsed().as_millis() as u64 });
        if tx.send(line(&done)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Sends a batch's rows; `false` once the limit is reached or nobody reads.
async fn give(batch: &RecordBatch, rows: &mut usize, limit: usize, tx: &mpsc::Sender<Bytes>) -> bool {
    let mut text = Vec::new();
    for row in 0..batch.num_rows() {
        if *rows >= limit {
            break;
        }
        let values: Vec<Value> = batch.columns().iter().map(|c| value(c, row)).collect();
        serde_json::to_writer(&mut text, &values).expect("plain values");
        text.push(b'\n');
        *rows += 1;
    }
    let sent = text.is_empty() || tx.send(Bytes::from(text)).await.is_ok();
    sent && *rows < limit
}

fn line(value: &Value) -> Bytes {
    let mut text = serde_json::to_vec(value).expect("plain values");
    text.push(b'\n');
    Bytes::from(text)
}

fn columns(schema: &SchemaRef) -> Value {
    let columns = schema.fields().iter().map(|f| json!({ "name": f.name(), "type": sql_type(f.data_type()) }));
    json!({ "columns": columns.collect::<Vec<_>>() })
}

fn error_line(error: &SqlError, text: &str) -> Value {
    let place = error.place.unwrap_or_default();
    json!({ "error": {
        "code": error.code.as_str(), "message": error.message, "hint": error.hint, "line": place.line, "column": place.column,
        "rendered": error.render(text),
    } })
}

/// One value as JSON. Times are ISO 8601 in UTC; decimals keep their digits as text.
fn value(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => json!(column.as_boolean().value(row)),
        DataType::Int8 => json!(column.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => json!(column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => json!(column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt64 => json!(column.as_primitive::<UInt64Type>().value(row)),
        DataType::Float32 => json!(column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => json!(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => json!(column.as_string::<i64>().value(row)),
        DataType::Utf8View => json!(column.as_string_view().value(row)),
        DataType::Timestamp(unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond), _) => {
            let at = match unit {
                TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().value_as_datetime(row),
                _ => column.as_primitive::<TimestampNanosecondType>().value_as_datetime(row),
            };
            at.map_or_else(|| shown(column, row), |at| json!(format!("{at:?}Z")))
        }
        DataType::Timestamp(_, _) => match millis(&column.slice(row, 1)) {
            Ok(at) if at.is_valid(0) => json!(Timestamp(at.value(0)).to_string()),
            _ => shown(column, row),
        },
        DataType::Struct(fields) => {
            let parts = column.as_struct();
            let object: Map<String, Value> =
                fields.iter().enumerate().map(|(i, f)| (f.name().clone(), value(parts.column(i), row))).collect();
            Value::Object(object)
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            Value::Array((0..items.len()).map(|i| value(&items, i)).collect())
        }
        _ => shown(column, row),
    }
}

/// Whatever has no JSON of its own, as text.
fn shown(column: &ArrayRef, row: usize) -> Value {
    let options = FormatOptions::default();
    ArrayFormatter::try_new(column, &options).map_or(Value::Null, |f| Value::String(f.value(row).to_string()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray};

    use super::*;

    #[test]
    fn a_script_comes_as_text_or_in_json() {
        let said = |kind: &str, body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().expect("a header"));
            script(&headers, body.to_owned()).ok()
        };
        assert_eq!(script(&HeaderMap::new(), "SHOW STREAMS".to_owned()).ok().as_deref(), Some("SHOW STREAMS"));
        assert_eq!(said("text/plain", "{\"sql\": 1}").as_deref(), Some("{\"sql\": 1}"));
        assert_eq!(said("Application/JSON; charset=utf-8", " {\"sql\": \"SELECT 'a'\\n;\"} ").as_deref(), Some("SELECT 'a'\n;"));
        for wrong in ["SHOW STREAMS", "{}", "{\"sql\": 1}", "{\"sql\": \"SHOW STREAMS\", \"limit\": 5}", "[\"SHOW STREAMS\"]", ""] {
            assert_eq!(said("application/json", wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_keeps_its_digits() {
        let micros: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![-1, 0, 1_767_254_400_655_521, 1_767_254_400_250_000]));
        let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![-1, 1_767_254_400_000_000_007]));
        let millis: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![-1, 1_767_254_400_250]));
        let shown = |column: &ArrayRef| (0..column.len()).map(|row| value(column, row)).collect::<Vec<_>>();
        assert_eq!(
            shown(&micros),
            ["1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z", "2026-01-01T08:00:00.655521Z", "2026-01-01T08:00:00.250Z"]
        );
        assert_eq!(shown(&nanos), ["1969-12-31T23:59:59.999999999Z", "2026-01-01T08:00:00.000000007Z"]);
        assert_eq!(shown(&millis), ["1969-12-31T23:59:59.999Z", "2026-01-01T08:00:00.250Z"]);
    }
}
