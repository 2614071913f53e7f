//! `vitalsql replay`: a recording into a topic, at its own pace, faster, or as fast as it goes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rdkafka::producer::BaseRecord;

use super::kafka::{Broker, Writer};
use super::{CommandResult, Failure, output};
use crate::ingest::{Recording, RecordingOptions, RecordingRow};
use crate::time::Timestamp;

/// A recording whose time goes back further than this is not in order of event time.
const DISORDER_MS: i64 = 60_000;

/// A recording into a topic.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  vitalsql replay ward.ndjson.gz --topic vitals\n  vitalsql replay vitals.csv.gz --topic vitals --sort ts     sorted by patient: sort it by time first\n  \
                        vitalsql replay day.parquet --topic vitals --speed 60       an hour in a minute"
)]
pub struct Arguments {
    /// CSV, NDJSON (each also .gz) or Parquet; one row a measurement time.
    file: PathBuf,
    /// The topic to write to.
    #[arg(long, short)]
    topic: String,
    /// How many times as fast as it was recorded; max for no pause at all.
    #[arg(long, default_value = "max", value_name = "X|max")]
    speed: String,
    /// The column that becomes the record's key.
    #[arg(long, default_value = "patient_id", value_name = "COL")]
    key: String,
    /// The column that is the event time (ISO 8601, or milliseconds since 1970).
    #[arg(long, default_value = "ts", value_name = "COL")]
    time: String,
    /// Read the whole file and sort it by this time column first.
    #[arg(long, value_name = "COL")]
    sort: Option<String>,
    #[command(flatten)]
    broker: Broker,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    let speed =
        match arguments.speed.as_str() {
            "max" => None,
            text => Some(text.parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0).ok_or_else(|| {
                Failure::usage(format!("--speed {text}: write a number above 0 (1 is the recording's own pace), or max"))
            })?),
        };
    let rows = Rows::new(arguments)?;
    let settings = [("batch.size", "262144"), ("queue.buffering.max.kbytes", "65536")];
    let writer = Writer::new(&arguments.broker, &settings)?;
    let bar = bar(rows.count);
    let (begun, mut first) = (Instant::now(), None);
    for (number, row) in rows.enumerate() {
        let row = row?;
        if let Some((at, speed)) = row.time.zip(speed) {
            let first = *first.get_or_insert(at);
            let due = Duration::from_secs_f64((at.since(first).max(0) as f64 / 1000.0) / speed);
            let early = due.saturating_sub(begun.elapsed());
            if !early.is_zero() {
                std::thread::sleep(early);
            }
        }
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&arguments.topic).payload(&row.json);
        record.key = row.key.as_deref().map(str::as_bytes);
        writer.send(record)?;
        if number % 1000 == 0 {
            bar.set_position(number as u64);
            bar.set_message(row.time.map(|at| at.to_string()).unwrap_or_default());
        }
    }
    let acknowledged = writer.finish()?;
    bar.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    output::say(&format!(
        "{acknowledged} records acknowledged in {seconds:.1} s ({:.0} a second)",
        acknowledged as f64 / seconds.max(0.001)
    ));
    Ok(())
}

fn bar(count: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} records  {per_sec}  {msg}  {eta} left");
    ProgressBar::new(count).with_style(style.expect("a valid template"))
}

/// The rows of the file, in order of event time.
struct Rows {
    count: u64,
    source: Source,
}

enum Source {
    File(Box<Recording>),
    Sorted(std::vec::IntoIter<RecordingRow>),
}

impl Rows {
    /// Reads the file once to see that it is in order (nothing is written before that is known), or, with
    /// `--sort`, to sort it.
    fn new(arguments: &Arguments) -> Result<Self, Failure> {
        let time = arguments.sort.clone().unwrap_or_else(|| arguments.time.clone());
        let options = RecordingOptions { key: arguments.key.clone(), time };
        let open = || Recording::open(&arguments.file, options.clone()).map_err(|e| Failure::new(e.to_string()));
        let mut recording = open()?;
        let (mut count, mut latest, mut timed, mut sorted) = (0, Timestamp::MIN, false, Vec::new());
        while let Some(row) = recording.next_row().map_err(|e| Failure::new(e.to_string()))? {
            count += 1;
            if arguments.sort.is_some() {
                timed |= row.time.is_some();
                sorted.push(row);
                continue;
            }
            let Some(at) = row.time else { continue };
            timed = true;
            if latest.since(at) > DISORDER_MS && latest != Timestamp::MIN {
                return Err(Failure::new(format!(
                    "row {count}: event time goes back by {} s. Is the file sorted by patient? Most of its rows would be late for every \
                     window. Use --sort {} to sort it by time first. Nothing was written",
                    latest.since(at) / 1000,
                    arguments.time,
                )));
            }
            latest = latest.max(at);
        }
        if count > 0 && !timed {
            return Err(Failure::new(format!(
                "no row has a time in column \"{}\"; name it with --time COL. Nothing was written",
                options.time
            )));
        }
        if arguments.sort.is_some() {
            sorted.sort_by_key(|row| row.time.unwrap_or(Timestamp::MIN));
            return Ok(Self { count, source: Source::Sorted(sorted.into_iter()) });
        }
        Ok(Self { count, source: Source::File(Box::new(open()?)) })
    }
}

impl Iterator for Rows {
    type Item = Result<RecordingRow, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.source {
            Source::File(recording) => recording.next_row().map_err(|e| Failure::new(e.to_string())).transpose(),
            Source::Sorted(rows) => rows.next().map(Ok),
        }
    }
}
