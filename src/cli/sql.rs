//! `vitalsql sql`: one statement, a file, or a shell, against a running node.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::http::{self, Door};
use super::{CommandResult, Failure, output, shell};
use crate::time::parse_duration;

/// SQL against a node.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  vitalsql sql -c \"SHOW QUERIES\"\n  vitalsql sql -c \"SELECT bed, spo2, ts FROM vitals EMIT CHANGES\" --limit 20\n  \
                        vitalsql sql -c \"SELECT count(*) FROM vitals\" -o json\n  vitalsql sql -f queries/vitals_1m.sql\n  vitalsql sql          an interactive shell"
)]
pub struct Arguments {
    /// Run this and end.
    #[arg(long, short, value_name = "SQL", conflicts_with = "file")]
    command: Option<String>,
    /// Run this file and end; - for stdin.
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    door: Door,
    /// How rows are shown.
    #[arg(long, short, value_parser = ["table", "json", "jsonl", "csv"], default_value = "table")]
    output: String,
    /// At most so many rows a statement.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Stop after this long (a query that goes on ends well with what it has shown).
    #[arg(long, value_name = "DUR")]
    timeout: Option<String>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    let timeout = arguments.timeout.as_deref().map(parse_duration).transpose().map_err(|e| Failure::usage(e.to_string()))?;
    let client = Client { door: arguments.door.client(timeout)?, limit: arguments.limit, timeout };
    let style = Style::parse(&arguments.output);
    if let Some(sql) = &arguments.command {
        return client.run(sql, style, &mut std::io::stdout().lock()).map(|_| ());
    }
    let text = match &arguments.file {
        Some(path) if path.as_os_str() == "-" => read_all(std::io::stdin())?,
        Some(path) => std::fs::read_to_string(path).map_err(|e| Failure::new(format!("could not read {}: {e}", path.display())))?,
        None if !std::io::stdin().is_terminal() => read_all(std::io::stdin())?,
        None => return shell::run(&client, style),
    };
    client.run(&text, style, &mut std::io::stdout().lock()).map(|_| ())
}

fn read_all(mut from: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    from.read_to_string(&mut text)?;
    Ok(text)
}

/// How rows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Aligned columns for people.
    Table,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    JsonLines,
    /// RFC 4180.
    Csv,
}

impl Style {
    fn parse(text: &str) -> Self {
        match text {
            "json" => Self::Json,
            "jsonl" => Self::JsonLines,
            "csv" => Self::Csv,
            _ => Self::Table,
        }
    }
}

/// A connection to a node's SQL door.
pub struct Client {
    door: http::Client,
    limit: Option<usize>,
    timeout: Option<Duration>,
}

impl Client {
    /// Runs a script and shows its answers; answers how many rows there were.
    pub fn run(&self, sql: &str, style: Style, out: &mut dyn Write) -> Result<usize, Failure> {
        let begun = Instant::now();
        let limit = self.limit.map(|n| format!("?limit={n}")).unwrap_or_default();
        let response = self
            .door
            .post(&format!("/api/v1/sql{limit}"))
            .content_type("text/plain")
            .send(sql)
            .map_err(|e| unreachable(self.door.url(), &e))?;
        if !response.status().is_success() {
            let status = response.status();
            let body = response.into_body().read_to_string().unwrap_or_default();
            let told = serde_json::from_str::<Value>(&body).ok();
            let part = |name: &str| told.as_ref().and_then(|t| t["error"][name].as_str());
            return Err(Failure::new(match (part("code"), part("message")) {
                (Some(code), Some(message)) => format!("error[{code}]: {message}"),
                _ => format!("the node answered {status}: {body}"),
            }));
        }
        let mut printer = Printer { style, columns: Vec::new(), rows: Vec::new(), shown: 0, out };
        let mut lines = BufReader::new(response.into_body().into_reader());
        let mut line = String::new();
        loop {
            line.clear();
            match lines.read_line(&mut line) {
                Ok(0) => break,
                Ok(_) => {}
                // The time is up: what was shown is what was wanted.
                Err(_) if self.timeout.is_some_and(|t| begun.elapsed() >= t) => break,
                Err(e) => return Err(Failure::connection(format!("the answer broke off: {e}"))),
            }
            let value: Value = serde_json::from_str(&line).map_err(|e| Failure::new(format!("the answer is not what we know: {e}")))?;
            if let Err(failure) = printer.take(value) {
                return if failure.closed { Ok(printer.shown) } else { Err(failure.failure) };
            }
        }
        printer.finish().map_err(|f| f.failure)?;
        Ok(printer.shown)
    }
}

/// What to say where no node answers.
pub fn unreachable(url: &str, error: &ureq::Error) -> Failure {
    Failure::connection(format!(
        "no node answers at {url} ({error}). Is one running (vitalsql demo, vitalsql serve)? Another address: --url URL"
    ))
}

struct Broken {
    failure: Failure,
    closed: bool,
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Self { closed: output::is_closed_pipe(&error), failure: error.into() }
    }
}

/// Rows that a table waits for before it knows how wide its columns are.
const TABLE_BLOCK: usize = 40;

struct Printer<'a> {
    style: Style,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
    shown: usize,
    out: &'a mut dyn Write,
}

impl Printer<'_> {
    fn take(&mut self, value: Value) -> Result<(), Broken> {
        match value {
            Value::Array(row) => {
                self.shown += 1;
                match self.style {
                    Style::Table => {
                        self.rows.push(row);
                        // A live answer is shown as it comes; a block of a long one as soon as it is full.
                        if self.rows.len() >= TABLE_BLOCK {
                            self.table()?;
                        }
                    }
                    Style::Json => {
                        write!(self.out, "{}{}", if self.shown == 1 { "[\n" } else { ",\n" }, self.object(&row))?;
                    }
                    Style::JsonLines => {
                        writeln!(self.out, "{}", self.object(&row))?;
                        self.out.flush()?;
                    }
                    Style::Csv => writeln!(self.out, "{}", row.iter().map(csv).collect::<Vec<_>>().join(","))?,
                }
            }
            Value::Object(mut object) => {
                if let Some(Value::Array(columns)) = object.remove("columns") {
                    self.columns = columns.iter().map(|c| c["name"].as_str().unwrap_or_default().to_owned()).collect();
                    self.shown = 0;
                    if self.style == Style::Csv {
                        writeln!(
                            self.out,
                            "{}",
                            self.columns.iter().map(|c| csv(&Value::String(c.clone()))).collect::<Vec<_>>().join(",")
                        )?;
                    }
                } else if let Some(error) = object.remove("error") {
                    self.finish()?;
                    let text = error["rendered"].as_str().or(error["message"].as_str()).unwrap_or("unknown error").to_owned();
                    return Err(Broken { failure: Failure::new(text), closed: false });
                } else if let Some(message) = object.get("message").and_then(Value::as_str) {
                    output::say(message);
                } else if object.contains_key("done") {
                    self.finish()?;
                    if self.style == Style::Table {
                        let ms = object.get("elapsed_ms").and_then(Value::as_u64).unwrap_or_default();
                        output::say(&format!("{} row{} in {ms} ms", self.shown, if self.shown == 1 { "" } else { "s" }));
                    }
                    self.columns.clear();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Broken> {
        match self.style {
            Style::Table if !self.columns.is_empty() => self.table()?,
            Style::Json if !self.columns.is_empty() => writeln!(self.out, "{}", if self.shown == 0 { "[]" } else { "\n]" })?,
            _ => {}
        }
        self.columns.clear();
        self.out.flush()?;
        Ok(())
    }

    fn object(&self, row: &[Value]) -> String {
        let object: serde_json::Map<String, Value> = self.columns.iter().cloned().zip(row.iter().cloned()).collect();
        Value::Object(object).to_string()
    }

    fn table(&mut self) -> Result<(), Broken> {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::UTF8_BORDERS_ONLY).set_header(&self.columns);
        for row in self.rows.drain(..) {
            table.add_row(row.iter().map(plain));
        }
        writeln!(self.out, "{table}")?;
        self.out.flush()?;
        Ok(())
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn csv(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}
