//! SELECTs over a log in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::util::pretty::pretty_format_batches;
use expect_test::{Expect, expect};
use futures::TryStreamExt;

use super::*;
use crate::bus::{BusError, BusFuture, Committer, Reader, TaskId, TopicBatch, TopicSpec};
use crate::record::{Batch, BatchBuilder, Offset, PartitionId, TopicName, TopicPartition};
use crate::sql::catalog::Existing;
use crate::sql::lower::Placement;
use crate::sql::parse_statement;
use crate::sql::statement::Statement;
use crate::stream::{AheadJudge, Chain, Output, Scope, Stamper};
use crate::time::Timestamp;

/// A log that is only read.
#[derive(Default)]
pub(super) struct Memory {
    topics: BTreeMap<TopicPartition, Vec<Batch>>,
    polls: Arc<AtomicUsize>,
}

impl Memory {
    /// Records of (topic, partition, key, value), `each` to a batch; a value `-` is none.
    pub(super) fn holding<'a>(records: impl Iterator<Item = (&'a str, PartitionId, &'a str, &'a str)>, each: usize) -> Self {
        let mut memory = Self::default();
        let mut open: BTreeMap<TopicPartition, (usize, BatchBuilder)> = BTreeMap::new();
        let close = |batches: &mut Vec<Batch>, batch: BatchBuilder| {
            let base = batches.last().map_or(Offset::ZERO, Batch::next_offset);
            batches.push(batch.finish().with_base(base, 0));
        };
        for (topic, partition, key, value) in records {
            let of = TopicPartition::new(TopicName::new(topic).unwrap(), partition);
            let (count, batch) = open.entry(of.clone()).or_insert_with(|| (0, BatchBuilder::new()));
            batch.push(0, Some(key.as_bytes()), (value != "-").then_some(value.as_bytes()), &[]);
            *count += 1;
            if *count == each
                && let Some((_, batch)) = open.remove(&of)
            {
                close(memory.topics.entry(of).or_default(), batch);
            }
        }
        for (of, (_, batch)) in open {
            close(memory.topics.entry(of).or_default(), batch);
        }
        memory
    }

    /// One record a line: `topic partition key value`.
    fn of(script: &str) -> Self {
        let lines = script.lines().map(str::trim).filter(|l| !l.is_empty());
        let records = lines.map(|line| {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            (words[0], PartitionId(words[1].parse().unwrap()), words[2], words[3])
        });
        Self::holding(records, 1)
    }
}

struct Walk {
    batches: Vec<Batch>,
    at: Offset,
    polls: Arc<AtomicUsize>,
}

impl Reader for Walk {
    fn poll<'a>(&'a mut self, _max_bytes: usize) -> BusFuture<'a, Vec<Batch>> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        let found = self.batches.iter().find(|b| b.next_offset() > self.at).cloned();
        self.at = found.as_ref().map_or(self.at, Batch::next_offset);
        Box::pin(async move { Ok(found.into_iter().collect()) })
    }

    fn position(&self) -> Offset {
        self.at
    }
}

fn not_here<'a, T: 'a>() -> BusFuture<'a, T> {
    Box::pin(async { Err(BusError::Invalid("this log is only read".to_owned())) })
}

impl Bus for Memory {
    fn partitions<'a>(&'a self, topic: &'a TopicName) -> BusFuture<'a, Option<i32>> {
        let count = self.topics.keys().filter(|of| of.topic == *topic).map(|of| of.partition.0 + 1).max();
        Box::pin(async move { Ok(count) })
    }
    fn ensure_topic<'a>(&'a self, _topic: &'a TopicName, _spec: &'a TopicSpec) -> BusFuture<'a, i32> {
        not_here()
    }
    fn delete_topic<'a>(&'a self, _topic: &'a TopicName) -> BusFuture<'a, ()> {
        not_here()
    }
    fn bounds<'a>(&'a self, of: &'a TopicPartition) -> BusFuture<'a, Range<Offset>> {
        let end = self.topics.get(of).and_then(|b| b.last()).map_or(Offset::ZERO, Batch::next_offset);
        Box::pin(async move { Ok(Offset::ZERO..end) })
    }
    fn offset_at<'a>(&'a self, _of: &'a TopicPartition, _at: i64) -> BusFuture<'a, Option<Offset>> {
        not_here()
    }
    fn open<'a>(&'a self, of: &'a TopicPartition, from: Offset) -> BusFuture<'a, Box<dyn Reader>> {
        let walk = Walk { batches: self.topics.get(of).cloned().unwrap_or_default(), at: from, polls: Arc::clone(&self.polls) };
        Box::pin(async move { Ok(Box::new(walk) as Box<dyn Reader>) })
    }
    fn wait<'a>(&'a self, _of: &'a TopicPartition, _from: Offset) -> BusFuture<'a, ()> {
        not_here()
    }
    fn committer<'a>(&'a self, _task: &'a TaskId) -> BusFuture<'a, Box<dyn Committer>> {
        not_here()
    }
    fn append<'a>(&'a self, _outputs: Vec<TopicBatch>) -> BusFuture<'a, ()> {
        not_here()
    }
    fn trim<'a>(&'a self, _of: &'a TopicPartition, _before: Offset) -> BusFuture<'a, ()> {
        not_here()
    }
    fn pin(&self, _task: &TaskId, _of: &TopicPartition, _from: Option<Offset>) {}
}

const DEFINITIONS: [&str; 2] = [
    "CREATE STREAM vitals (patient_id VARCHAR NOT NULL, hr DOUBLE, ts TIMESTAMP(3) NOT NULL, late_by AS ts - INTERVAL '1' SECOND,
        k_partition INT METADATA FROM 'partition', k_offset BIGINT METADATA FROM 'offset', WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
        WITH ('topic' = 'vitals', 'format' = 'json', 'key' = 'patient_id')",
    "CREATE TABLE patient (patient_id VARCHAR, age INT, PRIMARY KEY (patient_id) NOT ENFORCED) WITH ('topic' = 'patient', 'format' = 'json')",
];

const RECORDS: &str = r#"
    vitals 0 p1 {"patient_id":"p1","hr":80,"ts":1000}
    vitals 0 p1 {"patient_id":"p1","hr":90,"ts":3000}
    vitals 0 p1 not json at all
    vitals 1 p2 {"patient_id":"p2","hr":60,"ts":2000}
    vitals 1 p2 {"patient_id":"p2","hr":70,"ts":61000}
    vitals 0 p1 {"patient_id":"p1","hr":100,"ts":70000}
    vitals 0 p1 {"patient_id":"p1","hr":10,"ts":4000}
    patient 0 p1 {"patient_id":"p1","age":70}
    patient 0 p2 {"patient_id":"p2","age":80}
    patient 0 p3 {"patient_id":"p3","age":90}
    patient 0 p1 {"patient_id":"p1","age":71}
    patient 0 p3 -
"#;

pub(super) fn catalog() -> Catalog {
    let mut catalog = Catalog::new();
    for text in DEFINITIONS {
        let parsed = parse_statement(text).unwrap_or_else(|e| panic!("{}", e.render(text)));
        let change = catalog.create(&parsed, Existing::AsWritten, Timestamp(0)).unwrap();
        catalog.apply(&change);
    }
    catalog
}

fn workspace() -> Workspace {
    Workspace::open(64 << 20, None).unwrap()
}

fn ask(sql: &str, log: Memory) -> Result<String, SqlError> {
    let Statement::Select(select) = parse_statement(sql)?.statement else { panic!("not a SELECT") };
    let bus: Arc<dyn Bus> = Arc::new(log);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let history = select_history(&select, &catalog(), &bus, Timestamp(65_000), &workspace()).await?;
        let batches: Vec<RecordBatch> = history.rows.try_collect().await?;
        let batches: Vec<RecordBatch> = batches.into_iter().filter(|b| b.num_rows() > 0).collect();
        Ok(pretty_format_batches(&batches)
            .unwrap()
            .to_string()
            .lines()
            .filter(|l| !l.starts_with('+'))
            .fold(String::new(), |text, line| text + line + "\n"))
    })
}

#[allow(clippy::needless_pass_by_value, reason = "expect! reads best as a value")]
fn check(sql: &str, expected: Expect) {
    let answer = ask(sql, Memory::of(RECORDS)).unwrap_or_else(|e| panic!("{}", e.render(sql)));
    expected.assert_eq(&answer);
}

#[test]
fn a_streams_history_is_a_table() {
    check(
        "SELECT * FROM vitals",
        expect![[r#"
        | patient_id | hr    | ts                  | late_by             | k_partition | k_offset |
        | p1         | 80.0  | 1970-01-01T00:00:01 | 1970-01-01T00:00:00 | 0           | 0        |
        | p1         | 90.0  | 1970-01-01T00:00:03 | 1970-01-01T00:00:02 | 0           | 1        |
        | p1         | 100.0 | 1970-01-01T00:01:10 | 1970-01-01T00:01:09 | 0           | 3        |
        | p1         | 10.0  | 1970-01-01T00:00:04 | 1970-01-01T00:00:03 | 0           | 4        |
        | p2         | 60.0  | 1970-01-01T00:00:02 | 1970-01-01T00:00:01 | 1           | 0        |
        | p2         | 70.0  | 1970-01-01T00:01:01 | 1970-01-01T00:01:00 | 1           | 1        |
    "#]],
    );
    check(
        "SELECT patient_id, count(*) AS n, max(hr) AS hr FROM vitals GROUP BY patient_id ORDER BY patient_id",
        expect![[r#"
        | patient_id | n | hr    |
        | p1         | 4 | 100.0 |
        | p2         | 2 | 70.0  |
    "#]],
    );
    check(
        "SELECT k_partition, k_offset FROM vitals WHERE hr < 75 ORDER BY k_offset DESC LIMIT 2",
        expect![[r#"
        | k_partition | k_offset |
        | 0           | 4        |
        | 1           | 1        |
    "#]],
    );
    check(
        "SELECT count(*) AS n FROM vitals",
        expect![[r#"
        | n |
        | 6 |
    "#]],
    );
}

#[test]
fn now_is_the_time_that_the_node_says() {
    check(
        "SELECT now() AS now, count(*) AS n FROM vitals WHERE ts > now() - INTERVAL '1' MINUTE AND ts < now()",
        expect![[r#"
        | now                 | n |
        | 1970-01-01T00:01:05 | 1 |
    "#]],
    );
}

#[test]
fn a_table_shows_the_latest_row_of_each_key() {
    check(
        "SELECT * FROM patient ORDER BY patient_id",
        expect![[r#"
        | patient_id | age |
        | p1         | 71  |
        | p2         | 80  |
    "#]],
    );
    check(
        "SELECT v.patient_id, age, hr FROM vitals v JOIN patient p ON v.patient_id = p.patient_id ORDER BY hr",
        expect![[r#"
        | patient_id | age | hr    |
        | p1         | 71  | 10.0  |
        | p2         | 80  | 60.0  |
        | p2         | 80  | 70.0  |
        | p1         | 71  | 80.0  |
        | p1         | 71  | 90.0  |
        | p1         | 71  | 100.0 |
    "#]],
    );
}

#[test]
fn windows_over_history_run_on_the_streaming_operators() {
    // The row at 4 s comes after one at 70 s and is late, as it would be in the continuous query.
    check(
        "SELECT patient_id, window_start, count(*) AS n, avg(hr) AS hr FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         GROUP BY patient_id, window_start, window_end ORDER BY patient_id DESC, window_start LIMIT 3",
        expect![[r#"
            | patient_id | window_start        | n | hr   |
            | p2         | 1970-01-01T00:00:00 | 1 | 60.0 |
            | p2         | 1970-01-01T00:01:00 | 1 | 70.0 |
            | p1         | 1970-01-01T00:00:00 | 2 | 85.0 |
        "#]],
    );
    check(
        "SELECT window_end, count(DISTINCT patient_id) AS patients FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_end",
        expect![[r#"
            | window_end          | patients |
            | 1970-01-01T00:01:00 | 2        |
            | 1970-01-01T00:02:00 | 2        |
        "#]],
    );
    check(
        "SELECT patient_id, hr, lag(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS was, locf(hr, INTERVAL '1' MINUTE) AS l FROM vitals ORDER BY ts",
        expect![[r#"
        | patient_id | hr    | was  | l     |
        | p1         | 80.0  |      | 80.0  |
        | p2         | 60.0  |      | 60.0  |
        | p1         | 90.0  | 80.0 | 90.0  |
        | p2         | 70.0  | 60.0 | 70.0  |
        | p1         | 100.0 | 90.0 | 100.0 |
    "#]],
    );
    check(
        "SELECT w.patient_id, age, n FROM (SELECT patient_id, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '2' MINUTE)) GROUP BY patient_id, window_start) w
         JOIN patient p ON w.patient_id = p.patient_id ORDER BY age",
        expect![[r#"
            | patient_id | age | n |
            | p1         | 71  | 4 |
            | p2         | 80  | 2 |
        "#]],
    );
}

#[test]
fn joins_in_time_over_history_run_on_the_streaming_operators_and_others_do_not() {
    // The reading at 4 s is late; a plain join has it all the same.
    check(
        "SELECT a.patient_id, a.hr, b.hr AS was FROM vitals a JOIN vitals b ON a.patient_id = b.patient_id
         AND b.ts BETWEEN a.ts - INTERVAL '5' SECOND AND a.ts ORDER BY a.ts, b.ts",
        expect![[r#"
        | patient_id | hr    | was   |
        | p1         | 80.0  | 80.0  |
        | p2         | 60.0  | 60.0  |
        | p1         | 90.0  | 80.0  |
        | p1         | 90.0  | 90.0  |
        | p2         | 70.0  | 70.0  |
        | p1         | 100.0 | 100.0 |
    "#]],
    );
    check(
        "SELECT count(*) AS n FROM vitals a JOIN vitals b ON a.patient_id = b.patient_id AND b.ts BETWEEN a.ts - INTERVAL '5' SECOND AND a.ts",
        expect![[r#"
        | n |
        | 6 |
    "#]],
    );
    check(
        "SELECT count(*) AS n FROM vitals a JOIN vitals b ON a.patient_id = b.patient_id AND a.hr = b.hr",
        expect![[r#"
        | n |
        | 6 |
    "#]],
    );
    check(
        "SELECT v.patient_id, v.hr, p.age FROM vitals v JOIN patient FOR SYSTEM_TIME AS OF v.ts AS p ON v.patient_id = p.patient_id ORDER BY v.ts",
        expect![[r#"
        | patient_id | hr    | age |
        | p1         | 80.0  | 71  |
        | p2         | 60.0  | 80  |
        | p1         | 90.0  | 71  |
        | p2         | 70.0  | 80  |
        | p1         | 100.0 | 71  |
    "#]],
    );
}

#[test]
fn plain_windows_of_datafusion_still_work_over_history() {
    check(
        "SELECT patient_id, row_number() OVER (PARTITION BY patient_id ORDER BY hr DESC) AS place, hr FROM vitals ORDER BY patient_id, place",
        expect![[r#"
        | patient_id | place | hr    |
        | p1         | 1     | 100.0 |
        | p1         | 2     | 90.0  |
        | p1         | 3     | 80.0  |
        | p1         | 4     | 10.0  |
        | p2         | 1     | 70.0  |
        | p2         | 2     | 60.0  |
    "#]],
    );
}

#[test]
fn what_cannot_be_windowed_says_why() {
    let refused = |sql: &str| ask(sql, Memory::of(RECORDS)).expect_err(sql).to_string();
    expect![[r#""late_by" is not the event time of "vitals": take "ts", or a window's window_start, window_end or window_time"#]]
        .assert_eq(&refused(
            "SELECT count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(late_by), INTERVAL '1' MINUTE)) GROUP BY window_start",
        ));
    expect![[r#"there is no stream "nothing": SHOW STREAMS lists what there is"#]].assert_eq(&refused("SELECT * FROM nothing"));
}

#[test]
fn a_limit_ends_the_reading() {
    let line = r#"vitals 0 p1 {"patient_id":"p1","hr":80,"ts":1000}"#;
    let log = Memory::of(&vec![line; 1000].join("\n"));
    let polls = Arc::clone(&log.polls);
    let answer = ask("SELECT hr FROM vitals LIMIT 3", log).unwrap();
    assert_eq!(answer.lines().count(), 4, "{answer}");
    assert!(polls.load(Ordering::Relaxed) < 10, "{} polls", polls.load(Ordering::Relaxed));
}

#[test]
fn a_topic_that_is_not_there_holds_nothing() {
    assert_eq!(ask("SELECT count(*) AS n FROM vitals", Memory::default()).unwrap().lines().nth(1), Some("| 0 |"));
}

#[test]
fn values_are_cast_to_the_columns_they_are_written_to() {
    let target: SchemaRef = catalog().relation("vitals").unwrap().written();
    let insert = |sql: &str| {
        let Statement::Insert(insert) = parse_statement(sql).unwrap_or_else(|e| panic!("{}", e.render(sql))).statement else {
            panic!("not an INSERT")
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let rows = runtime.block_on(insert_values(&insert.values, &target, &insert.columns, Timestamp(1000)));
        rows.map(|rows| pretty_format_batches(&[rows]).unwrap().to_string()).unwrap_or_else(|e| e.to_string())
    };
    expect![[r#"
        +------------+------+---------------------+
        | patient_id | hr   | ts                  |
        +------------+------+---------------------+
        | p1         | 80.0 | 1970-01-01T00:00:01 |
        | p2         |      | 1970-01-01T00:00:02 |
        +------------+------+---------------------+"#]]
    .assert_eq(&insert("INSERT INTO vitals VALUES ('p1', 80, '1970-01-01T00:00:01Z'), ('p2', NULL, '1970-01-01 00:00:02')"));
    expect![[r#"
        +------------+----+---------------------+
        | patient_id | hr | ts                  |
        +------------+----+---------------------+
        | p1         |    | 1970-01-01T00:00:01 |
        +------------+----+---------------------+"#]]
    .assert_eq(&insert("INSERT INTO vitals (ts, patient_id) VALUES ('1970-01-01T00:00:01', 'p1')"));
    expect![[r#"column "ts" is NOT NULL: give it a value"#]].assert_eq(&insert("INSERT INTO vitals (patient_id) VALUES ('p1')"));
    expect![[r#"a value for column "hr" cannot be read as DOUBLE"#]]
        .assert_eq(&insert("INSERT INTO vitals VALUES ('p1', 'high', '1970-01-01')"));
    expect!["the result of + does not fit BIGINT: CAST an operand to DECIMAL(38, 0) or DOUBLE, which reach further"]
        .assert_eq(&insert("INSERT INTO vitals VALUES ('p1', 9223372036854775807 + 1, '1970-01-01')"));
    expect!["2 values are given and 3 columns are written"].assert_eq(&insert("INSERT INTO vitals VALUES ('p1', 1)"));
}

#[test]
fn numbers_that_do_not_fit_fail_and_do_not_wrap_around() {
    const MOST: &str = "9223372036854775807";
    for (column, what) in [
        (format!("k_offset + {MOST}"), "the result of + does not fit BIGINT"),
        ("k_partition - 2147483647 - 2".to_owned(), ""),
        (format!("k_offset * 2 * {MOST} AS n"), "the result of * does not fit BIGINT"),
        (format!("{MOST} + 1"), "the result of + does not fit BIGINT"),
        (format!("sum(k_offset + {MOST} - k_offset)"), "the result of + does not fit BIGINT"),
        (format!("sum(k_offset * 0 + {MOST})"), "a number is out of the range of BIGINT"),
        (format!("count(*) FILTER (WHERE k_offset - {MOST} - k_offset < 0)"), ""),
        (format!("CASE WHEN k_offset < 0 THEN k_offset * {MOST} ELSE 1 END"), ""),
    ] {
        let answer = ask(&format!("SELECT {column} FROM vitals"), Memory::of(RECORDS));
        match answer {
            Ok(answer) => assert!(what.is_empty(), "{column} gives {answer}"),
            Err(error) => assert!(!what.is_empty() && error.to_string().contains(what), "{column}: {error}"),
        }
    }
    let wide = ask(&format!("SELECT CAST(k_offset AS DECIMAL(38, 0)) + {MOST} AS n FROM vitals WHERE k_offset = 4"), Memory::of(RECORDS));
    assert_eq!(wide.unwrap().lines().nth(1), Some("| 9223372036854775811 |"));
    // Names, types and NULLs are what they are without.
    check(
        "SELECT k_partition + 1, k_offset * 2 - k_offset AS o, CAST(hr AS BIGINT) - 1 FROM vitals WHERE k_offset + 1 > 4 OR k_offset = 0 ORDER BY 2, 1",
        expect![[r#"
            | vitals.k_partition + Int64(1) | o | vitals.hr - Int64(1) |
            | 1                             | 0 | 79                   |
            | 2                             | 0 | 59                   |
            | 1                             | 4 | 9                    |
        "#]],
    );
    check(
        "SELECT k_partition, sum(k_offset), sum(k_offset) FILTER (WHERE k_offset < 0) AS none, sum(DISTINCT k_partition) AS d, avg(k_offset) AS a, sum(hr) AS h
         FROM vitals GROUP BY k_partition HAVING sum(k_offset) > 0 ORDER BY k_partition",
        expect![[r#"
            | k_partition | sum(vitals.k_offset) | none | d | a   | h     |
            | 0           | 8                    |      | 0 | 2.0 | 280.0 |
            | 1           | 1                    |      | 1 | 0.5 | 130.0 |
        "#]],
    );
}

#[test]
fn a_row_written_by_hand_may_say_now() {
    let target: SchemaRef = catalog().relation("vitals").unwrap().written();
    let Statement::Insert(insert) = parse_statement("INSERT INTO vitals VALUES ('p1', 1, now())").unwrap().statement else {
        panic!("not an INSERT")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let rows = runtime.block_on(insert_values(&insert.values, &target, &insert.columns, Timestamp(1000))).unwrap();
    assert_eq!(crate::stream::millis(rows.column(2)).unwrap().value(0), 1000);
}

/// Readings of three patients over two partitions, in disorder: some late, some at one time.
fn disordered() -> String {
    let mut lines = Vec::new();
    for number in 0..120_i64 {
        let patient = number % 3;
        let at = number * 700 - (number * 37 % 11) * 900 - number % 2 * 700;
        let hr = if number % 7 == 0 { "null".to_owned() } else { format!("{}.{}", 60 + number % 13, number % 10) };
        lines.push(format!(r#"vitals {} p{patient} {{"patient_id":"p{patient}","hr":{hr},"ts":{}}}"#, patient % 2, at + 20_000));
    }
    lines.join("\n")
}

#[test]
fn functions_over_frames_gaps_and_rankings_give_over_history_what_they_give_as_it_comes() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for sql in [
        "SELECT patient_id, ts, hr, avg(hr) OVER w AS mean, count(*) OVER w AS n, max(hr) OVER w AS most, first_value(hr) OVER w AS first,
                stddev(hr) OVER (PARTITION BY patient_id ORDER BY ts ROWS 5 PRECEDING) AS sd, lead(hr, 2) OVER (PARTITION BY patient_id ORDER BY ts) AS later
         FROM vitals WINDOW w AS (PARTITION BY patient_id ORDER BY ts RANGE INTERVAL '10' SECOND PRECEDING)",
        "SELECT k_partition, ts, sum(hr) OVER (PARTITION BY k_partition ORDER BY ts) AS total FROM vitals",
        "SELECT patient_id, ts, hr FROM vitals QUALIFY row_number() OVER (PARTITION BY patient_id, ts ORDER BY hr DESC) = 1",
        "SELECT window_end, patient_id, ts, hr FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         QUALIFY row_number() OVER (PARTITION BY window_start, window_end ORDER BY hr DESC NULLS LAST) <= 2",
        "SELECT * FROM GAP_FILL(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERPOLATE(hr), LOCF(k_offset))",
    ] {
        let Statement::Select(select) = parse_statement(sql).unwrap_or_else(|e| panic!("{}", e.render(sql))).statement else { panic!() };
        let bus: Arc<dyn Bus> = Arc::new(Memory::of(&disordered()));
        let answer: Vec<RecordBatch> = runtime.block_on(async {
            let history = select_history(&select, &catalog(), &bus, Timestamp(65_000), &workspace()).await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
            history.rows.try_collect().await.unwrap()
        });
        let streamed = runtime.block_on(continuously(&select, &bus));
        let lines = |batches: &[RecordBatch]| {
            let table = pretty_format_batches(batches).unwrap().to_string();
            let mut lines: Vec<String> = table.lines().filter(|line| !line.starts_with('+')).map(squeezed).collect();
            lines.sort();
            lines
        };
        let (answer, streamed) = (lines(&answer), lines(&streamed));
        assert!(answer.len() > 10, "{sql}: {answer:?}");
        assert_eq!(answer, streamed, "{sql}");
    }
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The rows of the continuous query over the same log: record by record, a watermark behind each, partitions in turn.
async fn continuously(select: &Select, bus: &Arc<dyn Bus>) -> Vec<RecordBatch> {
    let catalog = catalog();
    let relation = catalog.relation("vitals").unwrap();
    let stored = Arc::new(Stored::open(relation, bus).await.unwrap());
    let sources = |name: &str| (name == "vitals").then(|| stored.source.clone());
    let plan = crate::sql::lower::plan(select, &sources, crate::sql::lower::Purpose::Watch).unwrap();
    let mut out = Output::default();
    let mut inputs = Vec::new();
    for place in 0..stored.partitions.len() {
        let reading = stored.reading(place).await.unwrap();
        inputs.push((Stamper::new(plan.inputs[0].time.clone(), reading.partition), reading, false));
    }
    let mut chains: Vec<Chain> = match plan.placement {
        Placement::Merged => vec![plan.chain(Scope::Merged).unwrap()],
        Placement::Partition => inputs.iter().map(|(_, reading, _)| plan.chain(Scope::Partition(reading.partition)).unwrap()).collect(),
    };
    let merged = chains.len() == 1;
    while inputs.iter().any(|(.., done)| !done) {
        for at in 0..inputs.len() {
            let (stamper, reading, done) = &mut inputs[at];
            match reading.next().await.unwrap() {
                None => *done = true,
                Some(run) => {
                    let rows = stamper.stamp_batch(run.rows, run.offsets, AheadJudge::Nobody, &mut out.aside).unwrap();
                    chains[if merged { 0 } else { at }].rows(&rows, &mut out).unwrap();
                }
            }
            if merged {
                let mark = inputs.iter().map(|(stamper, _, done)| if *done { Timestamp::MAX } else { stamper.watermark() }).min();
                chains[0].watermark(mark.unwrap(), &mut out).unwrap();
            } else {
                let mark = if inputs[at].2 { Timestamp::MAX } else { inputs[at].0.watermark() };
                chains[at].watermark(mark, &mut out).unwrap();
            }
        }
    }
    out.rows.into_iter().map(|rows| rows.batch).collect()
}
