//! The command line: one file per command.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 could not connect,
//! 130 interrupted.

mod alerts;
mod audit;
mod backup;
mod bench;
mod check;
mod consume;
mod demo;
mod doctor;
mod http;
mod kafka;
mod output;
mod produce;
mod replay;
mod serve;
mod shell;
mod simulate;
mod sql;
mod token;
mod topic;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What went wrong in a command, and with which exit code it ends.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The command could not do what it was asked.
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// The command ends with a code of its own.
    pub fn with_code(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What was asked makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// The other side could not be reached.
    pub fn connection(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(format!("{error:#}"))
    }
}

/// What a command comes to.
pub type CommandResult = Result<(), Failure>;

#[derive(Parser)]
#[command(
    name = "vitalsql",
    version,
    about = "Medical stream analytics in one binary: a Kafka-compatible broker, streaming SQL, an alarm desk.",
    long_about = "Medical stream analytics in one binary: a durable, Kafka-compatible broker, a streaming SQL engine on DataFusion, \
                  and an alarm desk.\n\nNot a medical device: for research, integration testing, retrospective and operational analytics.",
    after_help = "Examples:\n  vitalsql demo                                    a simulated ward, the shipped queries, the live page\n  \
                  vitalsql serve --data-dir /var/lib/vitalsql      a node for real producers\n  \
                  vitalsql sql -c \"SHOW QUERIES\"                   ask a running node\n  \
                  vitalsql replay day.ndjson.gz --topic vitals     a recording into a topic\n\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage, 3 could not connect, 130 interrupted.\n\
                  VITALSQL_LOG sets what is logged (info, debug, vitalsql::broker=trace)."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node with a simulated ward, the shipped queries and the live page.
    Demo(demo::Arguments),
    /// Run a node.
    Serve(serve::Arguments),
    /// Run SQL against a node: one statement, a file, or an interactive shell.
    Sql(sql::Arguments),
    /// Write a recording (CSV, NDJSON, Parquet, each also gzipped) into a topic, at its own pace or faster.
    Replay(replay::Arguments),
    /// Make, list, describe and delete topics.
    Topic(topic::Arguments),
    /// Write records from stdin, one a line.
    Produce(produce::Arguments),
    /// Read records to stdout.
    Consume(consume::Arguments),
    /// List open alerts, and acknowledge them.
    Alerts(alerts::Arguments),
    /// Check the audit trail.
    Audit(audit::Arguments),
    /// Make a token for the HTTP door.
    Token(token::Arguments),
    /// Check SQL files without running them.
    Check(check::Arguments),
    /// Write a simulated ward to stdout or into a topic.
    Simulate(simulate::Arguments),
    /// Copy a data directory, also while its node runs.
    Backup(backup::Backup),
    /// Make a data directory out of a backup.
    Restore(backup::Restore),
    /// Look through a stopped node's data directory, and put right what can be.
    Doctor(doctor::Arguments),
    /// Measure a node: produce, consume, window, over, sql, latency.
    Bench(bench::Arguments),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Demo(a) => demo::run(&a),
        Command::Serve(a) => serve::run(&a),
        Command::Sql(a) => sql::run(&a),
        Command::Replay(a) => replay::run(&a),
        Command::Topic(a) => topic::run(a),
        Command::Produce(a) => produce::run(&a),
        Command::Consume(a) => consume::run(&a),
        Command::Alerts(a) => alerts::run(a),
        Command::Audit(a) => audit::run(&a),
        Command::Token(a) => token::run(&a),
        Command::Check(a) => check::run(&a),
        Command::Simulate(a) => simulate::run(&a),
        Command::Backup(a) => backup::backup(&a),
        Command::Restore(a) => backup::restore(&a),
        Command::Doctor(a) => doctor::run(&a),
        Command::Bench(a) => bench::run(a),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}
