//! How the command line speaks: complaints to stderr, data to stdout, colour only where wanted.

use std::io::{IsTerminal, Write};

/// Whether to colour what goes to stderr: a terminal, and `NO_COLOR` unset.
#[must_use]
pub fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Says what went wrong.
pub fn complain(message: &str) {
    let lead = if message.starts_with("error") {
        ""
    } else if colour() {
        "\u{1b}[31merror\u{1b}[0m: "
    } else {
        "error: "
    };
    let _ = writeln!(std::io::stderr(), "{lead}{message}");
}

/// Says something that is not data.
pub fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Whether a write to stdout failed because nobody reads any more (`| head`): then we are done, not wrong.
#[must_use]
pub fn is_closed_pipe(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}

/// Logging to stderr, as `VITALSQL_LOG` says; `default` where it says nothing.
pub fn start_logging(default: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = std::env::var("VITALSQL_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new(default));
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour());
    let set = if terminal { builder.try_init() } else { builder.json().try_init() };
    // A second call (tests) keeps the first.
    let _ = set;
}
