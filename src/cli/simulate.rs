//! `vitalsql simulate`: a simulated ward to stdout or into a topic.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;
use rdkafka::producer::BaseRecord;

use super::kafka::{Broker, Writer};
use super::{CommandResult, Failure, output};
use crate::ingest::simulator::{Said, Ward, WardOptions};
use crate::time::{Clock, Timestamp, parse_duration};

/// A simulated ward.
#[derive(Args)]
#[command(after_help = "Examples:\n  vitalsql simulate --for 1h --speed max > hour.ndjson          an hour of 24 beds at once\n  \
                        vitalsql simulate --topic vitals --truth-topic sim.truth      live, into a node")]
pub struct Arguments {
    /// How many beds.
    #[arg(long, default_value_t = 24)]
    beds: usize,
    /// The same seed gives the same ward.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// How many times as fast as life; max for no pause at all.
    #[arg(long, default_value = "1", value_name = "X|max")]
    speed: String,
    /// How much of the ward's time; for ever where not said.
    #[arg(long = "for", value_name = "DUR")]
    duration: Option<String>,
    /// The first second, ISO 8601; now where not said.
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// Write to this topic instead of stdout.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Write what is really going on to this topic.
    #[arg(long, value_name = "TOPIC", requires = "topic")]
    truth_topic: Option<String>,
    #[command(flatten)]
    broker: Broker,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    let speed = match arguments.speed.as_str() {
        "max" => None,
        text => Some(
            text.parse::<f64>()
                .ok()
                .filter(|x| x.is_finite() && *x > 0.0)
                .ok_or_else(|| Failure::usage(format!("--speed {text}: write a number above 0, or max")))?,
        ),
    };
    let length = arguments.duration.as_deref().map(parse_duration).transpose().map_err(|e| Failure::usage(e.to_string()))?;
    if length.is_none() && speed.is_none() {
        return Err(Failure::usage("--speed max needs --for DUR: without an end it would never stop"));
    }
    let start = match &arguments.start {
        Some(text) => {
            Timestamp::parse(text).ok_or_else(|| Failure::usage(format!("--start {text}: write ISO 8601, as in 2026-01-01T00:00:00Z")))?
        }
        None => Timestamp(Clock::system().now().0.div_euclid(1000) * 1000),
    };
    let mut ward = Ward::new(&WardOptions { seed: arguments.seed, beds: arguments.beds, origin: start, scripted: true });
    let writer = arguments.topic.as_ref().map(|_| Writer::new(&arguments.broker, &[])).transpose()?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let begun = Instant::now();
    let seconds = length.map_or(i64::MAX, |l| l.as_secs() as i64);
    for second in 0..seconds {
        if let Some(speed) = speed {
            let due = Duration::from_secs_f64(second as f64 / speed);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        let said = ward.tick(start.plus(second.saturating_mul(1000)));
        match (&writer, &arguments.topic) {
            (Some(writer), Some(topic)) => {
                send(writer, topic, &said.readings)?;
                if let Some(truth) = &arguments.truth_topic {
                    send(writer, truth, &said.truth)?;
                }
            }
            _ => {
                for reading in said.readings {
                    let written = out.write_all(&reading.body).and_then(|()| out.write_all(b"\n"));
                    match written {
                        Err(e) if output::is_closed_pipe(&e) => return Ok(()),
                        other => other?,
                    }
                }
                if speed.is_some() {
                    out.flush()?;
                }
            }
        }
    }
    out.flush()?;
    if let Some(writer) = writer {
        output::say(&format!("{} records acknowledged", writer.finish()?));
    }
    Ok(())
}

fn send(writer: &Writer, topic: &str, said: &[Said]) -> CommandResult {
    for one in said {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).key(one.patient_id.as_bytes()).payload(&one.body);
        writer.send(record)?;
    }
    Ok(())
}
