//! `vitalsql check`: SQL files, without running them.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{CommandResult, Failure, output};
use crate::sql::Checker;

/// SQL files.
#[derive(Args)]
#[command(after_help = "Examples:\n  vitalsql check queries/            every .sql file of a folder, in order of name\n  \
                        vitalsql check streams.sql my_query.sql\n\nFiles are checked one after the other, so that a later one may read what an earlier one makes.")]
pub struct Arguments {
    /// Files, or folders of .sql files.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    let mut checker = Checker::new(Box::new(crate::alerts::Rules::default()));
    let mut wrong = 0;
    let mut statements = 0;
    let mut files = Vec::new();
    for path in &arguments.paths {
        files.extend(sql_files(path)?);
    }
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|e| Failure::new(format!("could not read {}: {e}", file.display())))?;
        match checker.check(&text) {
            Ok(count) => statements += count,
            Err(error) => {
                wrong += 1;
                output::say(&format!("{}:\n{}", file.display(), error.render(&text)));
            }
        }
    }
    if wrong > 0 {
        return Err(Failure::new(format!("{wrong} of {} files have errors", files.len())));
    }
    output::say(&format!("{statements} statements in {} files are well", files.len()));
    Ok(())
}

/// A file, or the .sql files of a folder in order of name.
pub fn sql_files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|e| Failure::new(format!("could not read {}: {e}", path.display())))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "sql")).collect();
    files.sort();
    if files.is_empty() {
        return Err(Failure::new(format!("there is no .sql file in {}", path.display())));
    }
    Ok(files)
}
