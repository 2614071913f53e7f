//! What SELECTs over stored data work in: memory that they share, and room on the disk where they are given some.
//!
//! Owns [`Workspace`]. Always: a SELECT that needs more than there is fails, and nothing beside it does; what an earlier process
//! left on the disk is deleted. Counted is what sorts, groups and joins hold; single values are bounded by `functions`. Opened by
//! `node`, once; `batch` runs in it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

/// Room on the disk for what does not fit into memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spill {
    /// A folder that is nobody else's: what lies in it is deleted.
    pub dir: PathBuf,
    /// So many bytes at most, all SELECTs together.
    pub bytes: u64,
}

/// The memory, and the room on the disk, of all SELECTs over stored data together.
#[derive(Clone, Debug)]
pub struct Workspace(Arc<RuntimeEnv>);

impl Workspace {
    /// So many bytes of memory, and this room on the disk.
    pub fn open(memory: usize, spill: Option<&Spill>) -> io::Result<Self> {
        let disk = match spill {
            None => DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
            Some(Spill { dir, bytes }) => {
                if let Err(error) = fs::remove_dir_all(dir)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    return Err(error);
                }
                fs::create_dir_all(dir)?;
                DiskManagerBuilder::default()
                    .with_mode(DiskManagerMode::Directories(vec![dir.clone()]))
                    .with_max_temp_directory_size(*bytes)
            }
        };
        // Those that can go on with less get equal shares, so that one large sort leaves room for the next SELECT.
        let builder = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(memory))).with_disk_manager_builder(disk);
        builder.build_arc().map(Self).map_err(io::Error::other)
    }

    /// As DataFusion knows it.
    pub(super) fn runtime(&self) -> Arc<RuntimeEnv> {
        Arc::clone(&self.0)
    }
}
