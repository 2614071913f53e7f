//! `vitalsql doctor`: a stopped node's data directory, looked through and mended.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{CommandResult, Failure, output};
use crate::log::{Disk, Examined, LogError, RealDisk, Remedy, examine, mend};

/// What is wrong can be put right.
const MENDABLE: u8 = 1;
/// What is wrong cannot be put right here.
const LOST: u8 = 4;

/// A data directory.
#[derive(Args)]
#[command(after_help = "Examples:\n  vitalsql doctor /var/lib/vitalsql             look, change nothing\n  \
                        vitalsql doctor /var/lib/vitalsql --repair    put right what can be\n\n\
                        The node must be stopped. What it looks at: the format, the checkpoint, the write-ahead log as a start replays it, every batch of\n\
                        every segment with its checksum, records and offsets, the indexes, and files that nothing needs.\n\n\
                        What --repair does: deletes indexes that do not fit (they are made again when needed), cuts out batches that cannot be read\n\
                        (the damaged file is kept beside as *.damaged; all other records stay at their offsets), and does what a start would do.\n\n\
                        Exit codes: 0 all is well, or the next start sees to it; 1 --repair would help, or it could not look;\n\
                        4 something is lost that only a backup has.")]
pub struct Arguments {
    /// The data directory.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Put right what can be.
    #[arg(long)]
    repair: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    output::start_logging("error");
    let dir = arguments.dir.display();
    if !arguments.dir.is_dir() {
        return Err(Failure::usage(format!("there is no directory {dir}")));
    }
    let failed = |e: LogError| Failure::new(format!("could not look through {dir}: {e}"));
    let disk = RealDisk::open(&arguments.dir).map_err(|e| Failure::new(format!("could not open {dir}: {e}. Is the node stopped?")))?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let examined = examine(&disk).map_err(failed)?;
    tell(&examined)?;
    match examined.worst() {
        None | Some(Remedy::Start) if !arguments.repair || examined.worst().is_none() => Ok(()),
        Some(Remedy::Backup) => Err(Failure::with_code(LOST, "something is lost: restore the directory from a backup (vitalsql restore)")),
        _ if arguments.repair => {
            for done in mend(&disk, &examined).map_err(failed)? {
                output::say(&done);
            }
            Ok(())
        }
        _ => Err(Failure::with_code(MENDABLE, "--repair would put this right")),
    }
}

fn tell(examined: &Examined) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for finding in &examined.findings {
        let who = match finding.remedy {
            Remedy::Start => "next start",
            Remedy::Mend => "--repair",
            Remedy::Backup => "backup",
        };
        match writeln!(out, "{who:<10}  {}: {}", finding.place, finding.what) {
            Err(error) if output::is_closed_pipe(&error) => return Ok(()),
            other => other?,
        }
    }
    let Examined { partitions, segments, batches, bytes, wal_bytes, .. } = examined;
    output::say(&format!(
        "{partitions} partitions, {segments} segments, {batches} batches in {bytes} bytes, {wal_bytes} bytes of write-ahead log to replay: {}",
        if examined.findings.is_empty() { "all is well".to_owned() } else { format!("{} findings", examined.findings.len()) }
    ));
    Ok(())
}
