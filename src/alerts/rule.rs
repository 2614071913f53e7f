//! A rule as a streaming operator: findings in, alert records out.
//!
//! Owns the [`Life`] of every subject of one rule in one task. Its input columns are `subject`, `ts`,
//! `breach`, and, where the rule names them, `clear` and `value`; all others ride along into the record.
//! Always: what it tells is a function of the readings, their order, and the acknowledgements noted in the
//! task's commits. A row without subject, time or breach is no reading and changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::life::{Acknowledgement, Evidence, Life, Priority, Reading, Stepped, Terms, Told};
use super::record::{AlertRecord, AlertState, NOTICE, alert_id};
use crate::format::JsonEncoder;
use crate::stream::{NO_OFFSET, Operator, Output, Rows, StateReader, StateWriter, StreamError, millis};
use crate::time::Timestamp;

/// A subject that is well and has not been heard of for this long is forgotten.
const FORGET_MS: i64 = 24 * 3_600_000;

/// In which order readings step their subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOrder {
    /// As they arrive: the fastest.
    Arrival,
    /// By event time, behind the watermark: the same alerts for any order of arrival within its delay. A
    /// reading ahead of the clock has no place in that order and steps as it arrives.
    Watermark,
}

/// A rule, as CREATE ALERT states it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Counts up with each CREATE OR REPLACE.
    pub version: u64,
    /// How urgent.
    pub priority: Priority,
    /// What it says about time.
    pub terms: Terms,
    /// In which order readings step it.
    pub order: StepOrder,
    /// The webhooks that are to be told.
    pub notify: Vec<String>,
}

/// What a person's acknowledgement looks like on its way into the task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AcknowledgeCommand {
    /// The alert.
    pub id: String,
    /// Whom it is about.
    pub subject: String,
    /// Who acknowledges.
    pub by: String,
    /// Their words.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Where the operator finds its input columns.
#[derive(Clone, Debug)]
struct Columns {
    subject: usize,
    at: usize,
    breach: usize,
    clear: Option<usize>,
    value: Option<usize>,
    extra: Vec<usize>,
}

/// A subject: its life, and the other columns of its last told reading.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Subject {
    life: Life,
    value: Option<f64>,
    columns: Map<String, Value>,
}

/// One reading with what rides along.
struct Finding {
    subject: String,
    reading: Reading,
    columns: Map<String, Value>,
}

/// The operator.
pub struct RuleOperator {
    rule: Rule,
    columns: Columns,
    encoder: JsonEncoder,
    schema: SchemaRef,
    subjects: HashMap<String, Subject>,
    /// Readings that wait for the watermark, by (time, partition, offset, arrival).
    waiting: BTreeMap<(i64, i32, i64, u64), Finding>,
    arrivals: u64,
    not_newer: u64,
    swept: i64,
    /// Whether what comes has come before.
    is_held: bool,
}

impl RuleOperator {
    /// An operator over rows of `input`, whose columns have been checked by [`check_columns`].
    pub fn new(rule: Rule, input: &SchemaRef) -> Result<Self, StreamError> {
        check_columns(input).map_err(StreamError::Limit)?;
        let index = |name: &str| input.index_of(name).ok();
        let extra: Vec<usize> = (0..input.fields().len())
            .filter(|i| !matches!(input.field(*i).name().as_str(), "subject" | "ts" | "breach" | "clear" | "value"))
            .collect();
        let extra_schema = Arc::new(input.project(&extra).expect("the indices are the schema's own"));
        let columns = Columns {
            subject: index("subject").expect("checked"),
            at: index("ts").expect("checked"),
            breach: index("breach").expect("checked"),
            clear: index("clear"),
            value: index("value"),
            extra,
        };
        let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8, false)]));
        Ok(Self {
            rule,
            columns,
            encoder: JsonEncoder::new(extra_schema),
            schema,
            subjects: HashMap::new(),
            waiting: BTreeMap::new(),
            arrivals: 0,
            not_newer: 0,
            swept: i64::MIN,
            is_held: false,
        })
    }

    /// Shows each reading, with what rides along for whoever asks: most readings tell nothing, and nobody does.
    fn findings(&self, rows: &Rows, mut each: impl FnMut(&str, Reading, &dyn Fn() -> Map<String, Value>)) -> Result<(), StreamError> {
        let batch = &rows.batch;
        let of = |column: usize, to: &DataType| {
            let why = |e: arrow::error::ArrowError| StreamError::Evaluate {
                what: batch.schema().field(column).name().clone(),
                why: e.to_string(),
            };
            cast(batch.column(column), to).map_err(why)
        };
        let subjects = of(self.columns.subject, &DataType::Utf8)?;
        let subjects: &StringArray = subjects.as_string();
        let times = millis(batch.column(self.columns.at))?;
        let breach = of(self.columns.breach, &DataType::Boolean)?;
        let breach: &BooleanArray = breach.as_boolean();
        let clear = self.columns.clear.map(|c| of(c, &DataType::Boolean)).transpose()?;
        let clear: Option<&BooleanArray> = clear.as_ref().map(AsArray::as_boolean);
        let value = self.columns.value.map(|c| of(c, &DataType::Float64)).transpose()?;
        let value: Option<&Float64Array> = value.as_ref().map(AsArray::as_primitive);
        let extra = batch
            .project(&self.columns.extra)
            .map_err(|e| StreamError::Evaluate { what: "the alert's columns".to_owned(), why: e.to_string() })?;
        let encoded = self.encoder.encode(&extra);
        let columns_of = |row: usize| encoded.row(row).ok().and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
        for row in 0..rows.len() {
            // A row without subject, time or breach is no reading of this rule.
            if subjects.is_null(row) || times.is_null(row) || breach.is_null(row) {
                continue;
            }
            let (breach, ts, ahead) = (breach.value(row), times.value(row), rows.is_ahead(row));
            let at = if ahead { rows.heard(row) } else { ts };
            let value = value.filter(|v| v.is_valid(row)).map(|v| v.value(row));
            let clear = match clear {
                Some(clear) => clear.is_valid(row) && clear.value(row),
                None => !breach,
            };
            let (partition, offset) = rows.first_source(row);
            let source = Evidence { partition: partition.0, offset, ts, value };
            each(subjects.value(row), Reading { at, ahead, value, breach, clear, source }, &|| columns_of(row));
        }
        Ok(())
    }

    fn give(&self, told: &[(AlertRecord, i64)], rows: Option<&Rows>, out: &mut Output) {
        if told.is_empty() {
            return;
        }
        let texts: StringArray =
            told.iter().map(|(record, _)| Some(serde_json::to_string(record).expect("an alert record is plain data"))).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![Arc::new(texts) as ArrayRef]).expect("one text column");
        let n = batch.num_rows();
        out.rows.push(Rows {
            batch,
            partition: rows.map_or_else(Default::default, |r| r.partition),
            offsets: vec![NO_OFFSET; n].into(),
            times: told.iter().map(|(_, at)| *at).collect(),
            before: vec![i64::MIN; n].into(),
            heard: None,
            gone: false,
        });
    }

    /// Subjects that are well and long unheard of need not be remembered.
    fn sweep(&mut self, at: Timestamp) {
        if at.0 < self.swept.saturating_add(FORGET_MS / 24) {
            return;
        }
        self.swept = at.0;
        let old = at.0.saturating_sub(FORGET_MS);
        self.subjects.retain(|_, s| !s.life.is_idle() || s.life.latest().is_none_or(|latest| latest >= old));
    }
}

/// One reading steps its subject. A pure function of the subject and the reading, whatever batch they came in.
fn step(
    rule: &Rule,
    subjects: &mut HashMap<String, Subject>,
    name: &str,
    reading: &Reading,
    columns: &dyn Fn() -> Map<String, Value>,
) -> Stepping {
    let subject = match subjects.get_mut(name) {
        Some(subject) => subject,
        None => subjects.entry(name.to_owned()).or_default(),
    };
    match subject.life.step(reading, &rule.terms) {
        Stepped::Quiet => Stepping::Quiet,
        Stepped::NotNewer => Stepping::NotNewer,
        Stepped::Tell(what) => {
            subject.value = reading.value;
            subject.columns = columns();
            Stepping::Tell(Box::new(record_of(rule, name, subject, &what, reading.at)), reading.at)
        }
    }
}

/// What a reading came to.
enum Stepping {
    Quiet,
    NotNewer,
    Tell(Box<AlertRecord>, i64),
}

fn record_of(rule: &Rule, name: &str, subject: &Subject, what: &Told, at: i64) -> AlertRecord {
    let (state, open) = match what {
        Told::Active(open) => (AlertState::Active, open),
        Told::Acknowledged(open) => (AlertState::Acknowledged, open),
        Told::Resolved(open) => (AlertState::Resolved, open),
    };
    let mut record = AlertRecord {
        id: alert_id(&rule.name, name, open.since),
        rule: rule.name.clone(),
        rule_version: rule.version,
        priority: rule.priority,
        state,
        subject: name.to_owned(),
        ts: Timestamp(at).to_string(),
        value: subject.value,
        since: String::new(),
        raised: String::new(),
        evidence: Vec::new(),
        evidence_total: 0,
        acknowledged_by: None,
        acknowledged_at: None,
        acknowledged_reason: None,
        recorded_at: String::new(),
        stale: false,
        notice: NOTICE.to_owned(),
        notify: rule.notify.clone(),
        columns: subject.columns.clone(),
    };
    record.take_open(open);
    record
}

/// What is wrong with a rule's SELECT, in a person's words; nothing where it is right.
pub fn check_columns(input: &SchemaRef) -> Result<(), String> {
    let columns = || input.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
    let need = |name: &str, what: &str| {
        input.field_with_name(name).map_err(|_| format!("an alert's SELECT needs a column \"{name}\" ({what}); it has: {}", columns()))
    };
    need("subject", "whom the alert is about, as in patient_id AS subject")?;
    let at = need("ts", "the event time of the reading")?;
    if !matches!(at.data_type(), DataType::Timestamp(_, _)) {
        return Err("column \"ts\" of an alert's SELECT must be a TIMESTAMP".to_owned());
    }
    for (name, needed) in [("breach", true), ("clear", false)] {
        match input.field_with_name(name) {
            Ok(field) if *field.data_type() != DataType::Boolean => {
                return Err(format!("column \"{name}\" of an alert's SELECT must be BOOLEAN, as in spo2 < 88 AS {name}"));
            }
            Err(_) if needed => need(name, "whether the limit is broken, as in spo2 < 88 AS breach").map(|_| ())?,
            _ => {}
        }
    }
    if let Ok(value) = input.field_with_name("value")
        && !value.data_type().is_numeric()
    {
        return Err("column \"value\" of an alert's SELECT must be a number".to_owned());
    }
    if let Some(taken) = input.fields().iter().find(|f| super::record::RESERVED.contains(&f.name().as_str())) {
        return Err(format!(
            "column \"{}\" of an alert's SELECT has a name that alert records use themselves; give it another",
            taken.name()
        ));
    }
    Ok(())
}

impl Operator for RuleOperator {
    fn name(&self) -> &'static str {
        "rule"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        if self.is_held {
            return Ok(());
        }
        let mut told = Vec::new();
        let mut subjects = std::mem::take(&mut self.subjects);
        let mut waiting = std::mem::take(&mut self.waiting);
        let (mut arrivals, mut not_newer) = (self.arrivals, self.not_newer);
        let done = self.findings(rows, |subject, reading, columns| {
            if self.rule.order == StepOrder::Watermark && !reading.ahead {
                arrivals += 1;
                let place = (reading.at, reading.source.partition, reading.source.offset, arrivals);
                waiting.insert(place, Finding { subject: subject.to_owned(), reading, columns: columns() });
                return;
            }
            match step(&self.rule, &mut subjects, subject, &reading, columns) {
                Stepping::Quiet => {}
                Stepping::NotNewer => not_newer += 1,
                Stepping::Tell(record, at) => told.push((*record, at)),
            }
        });
        (self.subjects, self.waiting, self.arrivals, self.not_newer) = (subjects, waiting, arrivals, not_newer);
        done?;
        self.give(&told, Some(rows), out);
        Ok(())
    }

    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        if self.is_held {
            return Ok(());
        }
        if self.rule.order == StepOrder::Watermark {
            let later = self.waiting.split_off(&(at.0, i32::MIN, i64::MIN, 0));
            let ready = std::mem::replace(&mut self.waiting, later);
            let mut told = Vec::new();
            for Finding { subject, reading, columns } in ready.into_values() {
                match step(&self.rule, &mut self.subjects, &subject, &reading, &|| columns.clone()) {
                    Stepping::Quiet => {}
                    Stepping::NotNewer => self.not_newer += 1,
                    Stepping::Tell(record, at) => told.push((*record, at)),
                }
            }
            self.give(&told, None, out);
        }
        self.sweep(at);
        Ok(())
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        self.waiting.keys().map(|(at, ..)| Timestamp(at.saturating_add(1))).take_while(|at| *at <= now).last()
    }

    fn external(&mut self, body: &str, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        let Ok(command) = serde_json::from_str::<AcknowledgeCommand>(body) else { return Ok(()) };
        let Some(subject) = self.subjects.get_mut(&command.subject) else { return Ok(()) };
        let super::life::Phase::Open(open) = &subject.life.phase else { return Ok(()) };
        if alert_id(&self.rule.name, &command.subject, open.since) != command.id {
            return Ok(());
        }
        let acknowledgement = Acknowledgement { by: command.by, at: at.0, reason: command.reason };
        let event = subject.life.latest().unwrap_or(at.0);
        let told = subject.life.acknowledge(acknowledgement);
        let told: Vec<(AlertRecord, i64)> =
            told.iter().map(|what| (record_of(&self.rule, &command.subject, subject, what, event), event)).collect();
        self.give(&told, None, out);
        Ok(())
    }

    fn outlives_plan(&self) -> bool {
        true
    }

    fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        let mut names: Vec<&String> = self.subjects.keys().collect();
        names.sort();
        let lives: StringArray = names.iter().map(|n| Some(serde_json::to_string(&self.subjects[*n]).expect("plain data"))).collect();
        let names: StringArray = names.iter().map(|n| Some(n.as_str())).collect();
        put(state, "subjects", names, lives);
        let keys: StringArray = self.waiting.values().map(|f| Some(f.subject.as_str())).collect();
        let waiting: StringArray = self
            .waiting
            .values()
            .map(|f| {
                Some(
                    serde_json::to_string(&(
                        f.reading.at,
                        f.reading.value,
                        f.reading.breach,
                        f.reading.clear,
                        f.reading.source,
                        &f.columns,
                    ))
                    .expect("plain data"),
                )
            })
            .collect();
        put(state, "waiting", keys, waiting);
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let bad = |why: serde_json::Error| StreamError::Restore { operator: format!("alert {}", self.rule.name), why: why.to_string() };
        for (name, body) in state.get("subjects").flat_map(pairs) {
            self.subjects.insert(name, serde_json::from_str(&body).map_err(bad)?);
        }
        for (subject, body) in state.get("waiting").flat_map(pairs) {
            let (at, value, breach, clear, source, columns): (i64, Option<f64>, bool, bool, Evidence, Map<String, Value>) =
                serde_json::from_str(&body).map_err(bad)?;
            self.arrivals += 1;
            let reading = Reading { at, ahead: false, value, breach, clear, source };
            let finding = Finding { subject, reading, columns };
            self.waiting.insert((at, source.partition, source.offset, self.arrivals), finding);
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.subjects.len() * 256 + self.waiting.len() * 256
    }
}

fn put(state: &mut StateWriter, name: &str, keys: StringArray, bodies: StringArray) {
    let schema = Schema::new(vec![Field::new("key", DataType::Utf8, false), Field::new("body", DataType::Utf8, false)]);
    let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(bodies)];
    state.put(name, RecordBatch::try_new(Arc::new(schema), columns).expect("two text columns of one length"));
}

fn pairs(batch: &RecordBatch) -> Vec<(String, String)> {
    let (Some(keys), Some(bodies)) = (batch.column(0).as_string_opt::<i32>(), batch.column(1).as_string_opt::<i32>()) else {
        return Vec::new();
    };
    keys.iter().flatten().zip(bodies.iter().flatten()).map(|(k, b)| (k.to_owned(), b.to_owned())).collect()
}
