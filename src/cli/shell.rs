//! The interactive SQL shell: history, several lines a statement, Ctrl-C ends the query and not the shell.

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::sql::{Client, Style};
use super::{CommandResult, Failure, output};

const HELP: &str = "A statement ends with ; and may take several lines. \\q ends, \\h shows this.\n\
  SHOW STREAMS; SHOW QUERIES; SHOW ALERTS;   what there is\n\
  DESCRIBE vitals;                           its columns\n\
  SELECT * FROM vitals LIMIT 5;              stored readings\n\
  SELECT bed, spo2 FROM vitals EMIT CHANGES; readings as they come (Ctrl-C ends)\n\
  EXPLAIN ANALYZE QUERY vitals_1m;  WHY QUERY vitals_1m;";

/// Reads and runs statements until the end of input.
pub fn run(client: &Client, style: Style) -> CommandResult {
    let mut editor = DefaultEditor::new().map_err(|e| Failure::new(e.to_string()))?;
    let history = std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".vitalsql_history"));
    if let Some(path) = &history {
        // The first time there is none.
        let _ = editor.load_history(path);
    }
    output::say("vitalsql shell. Not a medical device. \\h for help, \\q to end.");
    let mut statement = String::new();
    loop {
        let prompt = if statement.is_empty() { "vitalsql> " } else { "      ... " };
        match editor.readline(prompt) {
            Ok(line) => {
                match line.trim() {
                    "\\q" | "exit" | "quit" if statement.is_empty() => break,
                    "\\h" | "help" if statement.is_empty() => {
                        output::say(HELP);
                        continue;
                    }
                    "" if statement.is_empty() => continue,
                    _ => {}
                }
                statement.push_str(&line);
                statement.push('\n');
                if !line.trim_end().ends_with(';') {
                    continue;
                }
                let text = std::mem::take(&mut statement);
                let _ = editor.add_history_entry(text.trim());
                if let Err(failure) = client.run(&text, style, &mut std::io::stdout().lock()) {
                    output::complain(&failure.message);
                }
            }
            Err(ReadlineError::Interrupted) => statement.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(Failure::new(error.to_string())),
        }
    }
    if let Some(path) = &history {
        let _ = editor.save_history(path);
    }
    Ok(())
}
