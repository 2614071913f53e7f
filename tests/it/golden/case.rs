//! One golden case as its file says it: `tests/sql/<suite>/<case>.golden`. The form is told in `tests/sql/README.md`.
//!
//! Owns the reading of a file, and what is compared with what. Always: a file that says something this does not
//! understand is refused with its line; nothing in it is passed over.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// What a case may wait for. A word that is not here is a slip of the pen.
const FEATURES: &[&str] = &[
    "asof join",
    "deduplication",
    "gap_fill",
    "interval join",
    "lead",
    "match_recognize",
    "materialized view",
    "nested window",
    "over",
    "over following",
    "rank",
    "temporal join",
    "union",
    "updating aggregate",
    "updating top-n",
    "window join",
    "window top-n",
];

/// Whether SELECT over the stored rows must give the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum History {
    /// The rows the query has written, and those that the input's end adds.
    Same,
    /// It must, once these features are there.
    Needs(Vec<String>),
    /// It does not apply, for this reason.
    Not(String),
}

/// One record to be written.
#[derive(Clone, Debug)]
pub struct InputRow {
    pub key: Option<String>,
    pub at: i64,
    /// `None` deletes the key of a table.
    pub body: Option<String>,
}

/// What happens next in a case.
#[derive(Clone, Debug)]
pub enum Step {
    /// These rows of one partition of a stream, in order.
    Rows { stream: String, partition: i32, rows: Vec<InputRow> },
    /// By now the query has written these rows too.
    Writes(Vec<Value>),
    /// By now these are the last rows of each key that is there.
    Leaves(Vec<Value>),
}

/// A golden case.
#[derive(Clone, Debug)]
pub struct Case {
    pub needs: Vec<String>,
    pub history: History,
    /// Columns whose values make a key: rows of one key come in the order that is given. `None` says that order is open.
    pub order: Option<Vec<String>>,
    pub late: Option<u64>,
    /// Whether it is a materialized view, and not a query that writes to a stream.
    pub view: bool,
    /// The options of the CREATE, as they stand between the brackets of WITH.
    pub with: Option<String>,
    /// Why it does not run as a continuous query: then CREATE must refuse it.
    pub not_streamed: Option<String>,
    pub statements: String,
    pub query: String,
    /// The EMIT clause of the continuous query.
    pub emit: String,
    /// What the refusal must say, where a case is about being refused.
    pub refused: Vec<String>,
    pub steps: Vec<Step>,
    pub end_adds: Vec<Value>,
}

/// What a header may say.
#[derive(Default)]
struct Head(BTreeMap<String, String>);

impl Head {
    fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    /// Features, commas between them.
    fn features(&mut self, key: &str) -> Result<Vec<String>, String> {
        let words: Vec<String> = self.take(key).iter().flat_map(|list| list.split(',')).map(|w| w.trim().to_owned()).collect();
        match words.iter().find(|w| !FEATURES.contains(&w.as_str())) {
            Some(odd) => Err(format!("\"{odd}\" is no feature a case can wait for: {}", FEATURES.join(", "))),
            None => Ok(words),
        }
    }
}

impl Case {
    /// Whether a stream of it has several partitions.
    pub fn has_partitions(&self) -> bool {
        let counts = self.statements.split("'partitions' = '").skip(1);
        counts.filter_map(|rest| rest.split('\'').next()?.parse::<u32>().ok()).any(|count| count > 1)
    }

    /// Reads a file; `name` is its place under `tests/sql`.
    pub fn load(root: &Path, name: &str) -> Result<Self, String> {
        let path = root.join(format!("{name}.golden"));
        let text = fs::read_to_string(&path).map_err(|e| e.to_string())?;
        let folder = path.parent().expect("a file lies in a folder");
        let (head, sections) = cut(&text)?;
        let mut head = Head(head);
        for key in ["Shows", "Facts"] {
            head.take(key).filter(|said| !said.is_empty()).ok_or_else(|| format!("the file does not say \"# {key}: ..\""))?;
        }
        let needs = head.features("Needs")?;
        let (history_needs, not) = (head.features("History needs")?, head.take("No history"));
        let history = match not {
            Some(_) if !history_needs.is_empty() => return Err("both \"No history\" and \"History needs\"".to_owned()),
            Some(why) => History::Not(why),
            None if history_needs.is_empty() => History::Same,
            None => History::Needs(history_needs),
        };
        let order = head.take("Order").map(|columns| columns.split(',').map(|c| c.trim().to_owned()).collect());
        let late = head.take("Late").map(|n| n.parse().map_err(|_| format!("\"# Late: {n}\" is no number"))).transpose()?;
        let view = match head.take("As").as_deref() {
            None => false,
            Some("view") => true,
            Some(other) => return Err(format!("\"# As: {other}\" is not known; there is \"view\"")),
        };
        let with = head.take("With");
        let not_streamed = head.take("Not streamed");
        if not_streamed.is_some() && !needs.is_empty() {
            return Err("both \"Not streamed\" and \"Needs\"".to_owned());
        }
        if let Some(key) = head.0.keys().next() {
            return Err(format!("\"# {key}:\" is not known"));
        }
        let mut case = Self {
            needs,
            history,
            order,
            late,
            view,
            with,
            not_streamed,
            statements: String::new(),
            query: String::new(),
            emit: String::new(),
            refused: Vec::new(),
            steps: Vec::new(),
            end_adds: Vec::new(),
        };
        for section in sections {
            case.take(folder, section)?;
        }
        if case.statements.trim().is_empty() || case.query.trim().is_empty() {
            return Err("a case has \"== statements\" and \"== query\"".to_owned());
        }
        if !case.refused.is_empty() {
            return Ok(case);
        }
        if case.steps.is_empty() || matches!(case.steps.last(), Some(Step::Rows { .. })) {
            return Err("a case ends with what was written, \"== writes\" or \"== leaves\"".to_owned());
        }
        Ok(case)
    }

    fn take(&mut self, folder: &Path, section: Section) -> Result<(), String> {
        let at = |why: String| format!("line {}: {why}", section.line);
        let words: Vec<&str> = section.title.split_whitespace().collect();
        let mut body = section.body;
        match words.as_slice() {
            ["statements"] => self.statements = body,
            ["query"] => self.query = body.trim().trim_end_matches(';').to_owned(),
            ["emit"] => self.emit = body.trim().trim_end_matches(';').to_owned(),
            ["refused"] => self.refused = body.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect(),
            ["writes"] => self.steps.push(Step::Writes(values(&body, section.line)?)),
            ["leaves"] => self.steps.push(Step::Leaves(values(&body, section.line)?)),
            ["the", "end", "adds"] => self.end_adds = values(&body, section.line)?,
            ["rows", "of", stream, rest @ ..] => {
                let (rest, file) = match rest {
                    [rest @ .., "from", file] => (rest, Some(*file)),
                    rest => (rest, None),
                };
                if let Some(file) = file {
                    body.push_str(&fs::read_to_string(folder.join(file)).map_err(|e| at(format!("{file}: {e}")))?);
                }
                let (name, partition) = stream.split_once('/').map_or((*stream, Ok(0)), |(name, p)| (name, p.parse()));
                let partition: i32 = partition.map_err(|_| at(format!("{stream} does not end with a partition's number")))?;
                let rows = body.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
                let rows = rows.map(|(i, line)| input_row(line).map_err(|why| format!("line {}: {why}", section.line + 1 + i)));
                let rows = rows.collect::<Result<Vec<_>, _>>()?;
                match rest {
                    [] => self.steps.push(Step::Rows { stream: name.to_owned(), partition, rows }),
                    ["by", column] => self.place(name, column, rows).map_err(at)?,
                    ["over", count] => {
                        let count: usize = count.parse().map_err(|_| at(format!("{count} is no number of partitions")))?;
                        for (p, part) in deal(rows, count).into_iter().enumerate() {
                            self.steps.push(Step::Rows { stream: name.to_owned(), partition: p as i32, rows: part });
                        }
                    }
                    _ => return Err(at(format!("\"{}\" is not understood", section.title))),
                }
            }
            _ => return Err(at(format!("\"{}\" is not understood", section.title))),
        }
        Ok(())
    }

    /// Rows whose record key is a column's value, each in the partition of its key.
    fn place(&mut self, stream: &str, column: &str, rows: Vec<InputRow>) -> Result<(), String> {
        let asked = self.statements.split("'partitions' = '").nth(1).and_then(|rest| rest.split('\'').next());
        let count: i32 = asked.and_then(|n| n.parse().ok()).ok_or("the statements do not say 'partitions' = '..'")?;
        let mut placed: BTreeMap<i32, Vec<InputRow>> = BTreeMap::new();
        for mut row in rows {
            if let Some(body) = &row.body {
                let body: Value = serde_json::from_str(body).map_err(|e| e.to_string())?;
                row.key = Some(match &body[column] {
                    Value::Null => return Err(format!("a row has no {column}")),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                });
            }
            let key = row.key.as_deref().ok_or("a row that deletes has no key")?;
            placed.entry(vitalsql::bus::partition_for_key(key.as_bytes(), count).0).or_default().push(row);
        }
        self.steps.extend(placed.into_iter().map(|(partition, rows)| Step::Rows { stream: stream.to_owned(), partition, rows }));
        Ok(())
    }
}

/// Rows dealt out to partitions like cards.
fn deal(rows: Vec<InputRow>, count: usize) -> Vec<Vec<InputRow>> {
    let mut parts = vec![Vec::new(); count];
    for (i, row) in rows.into_iter().enumerate() {
        parts[i % count].push(row);
    }
    parts
}

/// `[@time] [key =>] json`
fn input_row(line: &str) -> Result<InputRow, String> {
    let mut rest = line.trim();
    let mut at = 0;
    if let Some(timed) = rest.strip_prefix('@') {
        let (time, behind) = timed.split_once(' ').ok_or("nothing stands behind the time")?;
        at = vitalsql::time::Timestamp::parse(time).ok_or_else(|| format!("\"{time}\" is no time"))?.millis();
        rest = behind.trim();
    }
    let (key, body) = match rest.split_once(" => ") {
        Some((key, body)) if !rest.starts_with('{') => (Some(key.trim().to_owned()), body.trim()),
        _ => (None, rest),
    };
    let body = (body != "null").then(|| body.to_owned());
    Ok(InputRow { key, at, body })
}

struct Section {
    line: usize,
    title: String,
    body: String,
}

/// The head's lines, and the sections.
fn cut(text: &str) -> Result<(BTreeMap<String, String>, Vec<Section>), String> {
    let mut head: BTreeMap<String, String> = BTreeMap::new();
    let mut last: Option<String> = None;
    let mut sections: Vec<Section> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let wrong = |why: &str| Err(format!("line {}: {why}", i + 1));
        if let Some(title) = line.strip_prefix("== ") {
            sections.push(Section { line: i + 1, title: title.trim().to_owned(), body: String::new() });
        } else if let Some(section) = sections.last_mut() {
            section.body.push_str(line);
            section.body.push('\n');
        } else if let Some(more) = line.strip_prefix("#   ") {
            let Some(key) = &last else { return wrong("there is nothing to go on with") };
            let said = head.get_mut(key).expect("the last key is there");
            said.push(' ');
            said.push_str(more.trim());
        } else if let Some((key, said)) = line.strip_prefix("# ").and_then(|line| line.split_once(':')) {
            if head.insert(key.to_owned(), said.trim().to_owned()).is_some() {
                return wrong("this is said twice");
            }
            last = Some(key.to_owned());
        } else if !line.trim().is_empty() {
            return wrong("before the first \"== ..\" stand lines \"# Key: value\"");
        }
    }
    Ok((head, sections))
}

fn values(body: &str, line: usize) -> Result<Vec<Value>, String> {
    let lines = body.lines().enumerate().filter(|(_, text)| !text.trim().is_empty());
    lines.map(|(i, text)| serde_json::from_str(text).map_err(|e| format!("line {}: {e}", line + 1 + i))).collect()
}

/// Equal, numbers to one part in a thousand million: what is summed may be summed in another order.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            let (x, y) = (x.as_f64().unwrap_or(f64::NAN), y.as_f64().unwrap_or(f64::NAN));
            (x - y).abs() <= 1e-9 * x.abs().max(y.abs()).max(1.0)
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => x.len() == y.len() && x.iter().all(|(name, x)| y.get(name).is_some_and(|y| same(x, y))),
        _ => a == b,
    }
}

/// What is missing and what is too much; nothing where both hold the same rows, and those of a key in the same order.
pub fn differ(expected: &[Value], found: &[Value], order: Option<&[String]>) -> Option<String> {
    let mut left: Vec<Option<&Value>> = found.iter().map(Some).collect();
    let mut missing = Vec::new();
    for want in expected {
        match left.iter_mut().find(|have| have.is_some_and(|have| same(want, have))) {
            Some(have) => *have = None,
            None => missing.push(want),
        }
    }
    let extra: Vec<&Value> = left.into_iter().flatten().collect();
    if !missing.is_empty() || !extra.is_empty() {
        let show = |rows: &[&Value]| rows.iter().take(8).map(|row| format!("\n      {row}")).collect::<String>();
        let (m, e) = (missing.len(), extra.len());
        return Some(format!(
            "{} rows are expected and {} found; {m} are missing{}\n    {e} are too much{}",
            expected.len(),
            found.len(),
            show(&missing),
            show(&extra)
        ));
    }
    let columns = order?;
    let by_key = |rows: &[Value]| {
        let mut keys: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for row in rows {
            let key: Vec<String> = columns.iter().map(|column| row[column.as_str()].to_string()).collect();
            keys.entry(key.join(" ")).or_default().push(row.clone());
        }
        keys
    };
    let (want, have) = (by_key(expected), by_key(found));
    let out_of_order = want.iter().find(|(key, rows)| !have.get(*key).is_some_and(|h| h.iter().zip(*rows).all(|(a, b)| same(a, b))));
    out_of_order.map(|(key, rows)| {
        let show = |rows: &[Value]| rows.iter().map(|row| format!("\n      {row}")).collect::<String>();
        format!("the rows of key {key} come in another order; expected{}\n    found{}", show(rows), show(&have[key]))
    })
}
