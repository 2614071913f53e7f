//! `vitalsql alerts`: the open alerts of a node, and acknowledging them.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::http::Door;
use super::sql::unreachable;
use super::{CommandResult, Failure, output};

/// Alerts.
#[derive(Args)]
#[command(after_help = "Examples:\n  vitalsql alerts list\n  vitalsql alerts list --state resolved -o json\n  \
                        vitalsql alerts ack 5c0e8a12b7f34d90aa12bb34 --by \"nurse B\" --reason \"probe re-applied\"")]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    door: Door,
}

#[derive(Subcommand)]
enum What {
    /// Show alerts.
    List {
        /// open, active, acknowledged or resolved.
        #[arg(long, value_parser = ["open", "active", "acknowledged", "resolved"], default_value = "open")]
        state: String,
        /// How alerts are shown.
        #[arg(long, short, value_parser = ["table", "json"], default_value = "table")]
        output: String,
    },
    /// Say that somebody has seen an alert.
    Ack {
        /// Its id, as the list shows it.
        id: String,
        /// Who has seen it.
        #[arg(long)]
        by: Option<String>,
        /// What they say.
        #[arg(long)]
        reason: Option<String>,
    },
}

/// Runs the command.
pub fn run(arguments: Arguments) -> CommandResult {
    let client = arguments.door.client(None)?;
    let url = client.url();
    match arguments.what {
        What::List { state, output } => {
            let mut response = client.get(&format!("/api/v1/alerts?state={state}")).call().map_err(|e| unreachable(url, &e))?;
            let answer: Value = response.body_mut().read_json().map_err(|e| Failure::new(e.to_string()))?;
            let Value::Array(alerts) = answer else {
                return Err(Failure::new(answer["error"]["message"].as_str().unwrap_or("the answer is not what we know")));
            };
            let mut out = std::io::stdout().lock();
            if output == "json" {
                for alert in alerts {
                    writeln!(out, "{alert}")?;
                }
                return Ok(());
            }
            let mut table = comfy_table::Table::new();
            table
                .load_preset(comfy_table::presets::UTF8_BORDERS_ONLY)
                .set_header(["id", "priority", "rule", "subject", "state", "since", "value", "seen by"]);
            let text = |alert: &Value, name: &str| match &alert[name] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            for alert in &alerts {
                table.add_row(
                    ["id", "priority", "rule", "subject", "state", "since", "value", "acknowledged_by"].map(|name| text(alert, name)),
                );
            }
            writeln!(out, "{table}")?;
            output::say(&format!("{} alerts. Not a medical device.", alerts.len()));
            Ok(())
        }
        What::Ack { id, by, reason } => {
            let by = by
                .or_else(|| std::env::var("USER").ok())
                .filter(|b| !b.is_empty())
                .ok_or_else(|| Failure::usage("say who has seen it: --by NAME"))?;
            if !id.chars().all(|c| c.is_ascii_hexdigit()) {
                return Err(Failure::usage("an alert's id is made of hexadecimal digits; vitalsql alerts list shows them"));
            }
            let body = json!({ "by": by, "reason": reason });
            let mut response = client.post(&format!("/api/v1/alerts/{id}/ack")).send_json(&body).map_err(|e| unreachable(url, &e))?;
            let answer: Value = response.body_mut().read_json().map_err(|e| Failure::new(e.to_string()))?;
            match answer["error"]["message"].as_str() {
                Some(message) => Err(Failure::new(message)),
                None => {
                    output::say(&format!("alert {id} is {}, seen by {by}", answer["state"].as_str().unwrap_or("acknowledged")));
                    Ok(())
                }
            }
        }
    }
}
