//! `vitalsql audit`: checks that nobody changed, removed or put in a record of the audit trail, over the Kafka port.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::kafka::{Broker, PATIENCE};
use super::{CommandResult, Failure};
use crate::broker::security::{AUDIT_TOPIC, Chain};
use crate::bus::kafka::bounds_of;

/// The audit trail.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  vitalsql audit verify\n  vitalsql audit verify --expect 5f1c..   also that the trail still holds a record noted elsewhere\n  \
                        vitalsql consume __audit --from-start --exit-at-end   shows its records"
)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    broker: Broker,
}

#[derive(Subcommand)]
enum What {
    /// Check that each record carries the hash of the one before it, and print the last one's.
    Verify {
        /// A hash that an earlier run printed: that record must still be there.
        #[arg(long, value_name = "HASH")]
        expect: Option<String>,
    },
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    let What::Verify { expect } = &arguments.what;
    let broker = &arguments.broker;
    let failed = |what: &str, e: &rdkafka::error::KafkaError| broker.failed(what, e);
    let mut config = broker.client();
    config.set("group.id", "vitalsql-audit").set("enable.auto.commit", "false").set("fetch.wait.max.ms", "100");
    let consumer: BaseConsumer = config.create().map_err(|e| failed("could not make a consumer", &e))?;
    let (start, end) = bounds_of(&consumer, AUDIT_TOPIC, 0, PATIENCE).map_err(|e| failed("could not read the audit trail", &e))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(AUDIT_TOPIC, 0, Offset::Beginning).map_err(|e| failed("could not read the audit trail", &e))?;
    consumer.assign(&list).map_err(|e| failed("could not read the audit trail", &e))?;
    let mut chain = Chain::default();
    let mut next = start;
    let mut met = expect.is_none();
    let mut silent = Duration::ZERO;
    const STEP: Duration = Duration::from_millis(100);
    while next < end {
        match consumer.poll(STEP) {
            None if silent >= PATIENCE => return Err(Failure::new(format!("the audit trail stopped at record {next} of {end}"))),
            None => silent += STEP,
            Some(Err(error)) => return Err(failed("could not read the audit trail", &error)),
            Some(Ok(message)) => {
                silent = Duration::ZERO;
                next = message.offset() + 1;
                let fault = |fault| Failure::new(format!("the audit trail does not hold at offset {}: {fault}", message.offset()));
                chain.check(message.payload().unwrap_or_default()).map_err(fault)?;
                met = met || chain.last_hash() == expect.as_deref();
            }
        }
    }
    if !met {
        return Err(Failure::new(
            "the record with the expected hash is not in the audit trail: its end was cut off, or it was let go by age",
        ));
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} records from offset {start} on, each as it was written; last hash {}",
        chain.count(),
        chain.last_hash().unwrap_or("none")
    )?;
    Ok(())
}
