//! Where spilled state lies: files of a folder of their own, each written once, read whole, and deleted.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What spilled state needs of a disk.
pub trait SpillDisk: Send + Sync + fmt::Debug {
    /// Makes a file; where that fails nothing of it is left.
    fn write(&self, number: u64, bytes: &[u8]) -> io::Result<()>;
    /// The whole of a file, which should be `len` bytes long.
    fn read(&self, number: u64, len: u64) -> io::Result<Vec<u8>>;
    /// Deletes a file.
    fn remove(&self, number: u64);
    /// How much room the disk has for others.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// How many folders this process has opened.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// A folder of the real disk.
#[derive(Debug)]
pub struct SpillFolder {
    dir: PathBuf,
    /// Begins the names of its files: who had the folder before, and has not quite ended, takes none of them for its own.
    opened: u64,
}

impl SpillFolder {
    /// A folder that is nobody else's: what lies in it is deleted.
    pub fn open(dir: &Path) -> io::Result<Self> {
        if let Err(error) = fs::remove_dir_all(dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned(), opened: OPENED.fetch_add(1, Ordering::Relaxed) })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{:x}-{number:016x}.arrows", self.opened))
    }
}

impl SpillDisk for SpillFolder {
    fn write(&self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(number);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(bytes).inspect_err(|_| drop(fs::remove_file(&path)))
    }

    fn read(&self, number: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        File::open(self.path(number))?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn remove(&self, number: u64) {
        // One that is gone already is what was wanted; one that cannot be deleted goes with the next start.
        let _ = fs::remove_file(self.path(number));
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
