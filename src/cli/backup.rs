//! `vitalsql backup` and `vitalsql restore`: a data directory, copied while its node runs, and back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::{CommandResult, Failure, output};
use crate::log::{self, BackedUp, Disk, RealDisk};

/// What to copy, and where to.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  vitalsql backup /var/lib/vitalsql /mnt/backup/vitalsql\n  vitalsql restore /mnt/backup/vitalsql /var/lib/vitalsql\n\n\
                        The node may run, and is not held up: the copy reads its files, and is what a power cut during the copy would have left.\n\
                        Everything a node knows is in it: records, groups, transactions, topics, queries and their state.\n\
                        A second backup into the same directory copies only what is new; until it is whole, the one before stays valid."
)]
pub struct Backup {
    /// The data directory, of a node that runs or not.
    #[arg(value_name = "DATA_DIR")]
    data_dir: PathBuf,
    /// An empty or new directory, or an earlier backup of the same one.
    #[arg(value_name = "TARGET")]
    target: PathBuf,
}

/// Which backup to take, and where it goes.
#[derive(Args)]
#[command(
    after_help = "Example:\n  vitalsql restore /mnt/backup/vitalsql /var/lib/vitalsql && vitalsql serve --data-dir /var/lib/vitalsql"
)]
pub struct Restore {
    /// A directory that `vitalsql backup` made.
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// An empty or new directory.
    #[arg(value_name = "DATA_DIR")]
    data_dir: PathBuf,
}

/// Runs `backup`.
pub fn backup(arguments: &Backup) -> CommandResult {
    output::start_logging("error");
    let done = copy(&arguments.data_dir, &arguments.target, |from, to| log::backup(from.as_ref(), to))?;
    told("backed up", done);
    Ok(())
}

/// Runs `restore`.
pub fn restore(arguments: &Restore) -> CommandResult {
    output::start_logging("error");
    let done = copy(&arguments.backup, &arguments.data_dir, |from, to| log::restore(from, to))?;
    told("restored", done);
    Ok(())
}

fn copy(
    from: &Path,
    to: &Path,
    run: impl FnOnce(&Arc<dyn Disk>, &RealDisk) -> Result<BackedUp, log::LogError>,
) -> Result<BackedUp, Failure> {
    let source = RealDisk::look(from).map_err(|e| Failure::usage(format!("could not open {}: {e}", from.display())))?;
    let target = RealDisk::open(to).map_err(|e| Failure::new(format!("could not open {}: {e}", to.display())))?;
    let source: Arc<dyn Disk> = Arc::new(source);
    run(&source, &target).map_err(|e| Failure::new(e.to_string()))
}

fn told(what: &str, done: BackedUp) {
    let BackedUp { partitions, files, copied_bytes, .. } = done;
    output::say(&format!("{what}: {partitions} partitions in {files} files, {copied_bytes} bytes copied"));
}
