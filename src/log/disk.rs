//! The disk under the log: a small trait, so that tests can take it away at any moment.
//!
//! Paths are relative to the data directory and use `/`. Always: what [`DiskFile::sync`] and
//! [`Disk::sync_dir`] have confirmed survives a crash; what they have not may or may not, whole or torn.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustix::fs::{FallocateFlags, FlockOperation};

use super::shared::Trouble;

/// One open file.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buf.len()` bytes at `pos`; fewer only at the file's end.
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize>;
    /// Writes all pieces, one behind the other, from `pos` on.
    fn write_at(&self, pieces: &[IoSlice<'_>], pos: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file at `len`.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Takes room for `len` bytes, which read as zeros. Not taken is not an error: writes then take it.
    fn reserve(&self, len: u64) -> io::Result<()>;
    /// Its length.
    fn length(&self) -> io::Result<u64>;
    /// When it was last written to, in milliseconds since 1970.
    fn modified_ms(&self) -> io::Result<i64>;
    /// A hint: what was written in this range should go to the disk soon, so that a later sync has less to do. Never waits.
    fn flush_soon(&self, _pos: u64, _len: u64) {}
}

/// A place for files.
pub trait Disk: Send + Sync {
    /// Opens a file for reading and writing; makes it where `create` says so.
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// The names in a folder, in order; none where there is no such folder.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Makes a folder and those above it.
    fn make_dir(&self, dir: &str) -> io::Result<()>;
    /// Removes a file; no error where there is none.
    fn remove_file(&self, path: &str) -> io::Result<()>;
    /// Removes a folder and what is in it; no error where there is none.
    fn remove_dir(&self, dir: &str) -> io::Result<()>;
    /// Gives a file or a folder another name; a file replaces what has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes names made, removed and changed in a folder durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// A hint: much is about to be synced, file by file, which is less work when all of it is written first. May wait; promises nothing.
    fn flush_all(&self) {}
    /// Free bytes for us.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Bytes of the whole volume.
    fn total_bytes(&self) -> io::Result<u64>;
    /// Where it is, for people.
    fn place(&self) -> String;
}

/// Whether an error says that the disk takes nothing, for want of room or because it may only be read: both may pass.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem)
}

/// Whether an error says that this process, or the machine, has as many files open as it may: that passes when some are closed.
pub(super) fn is_out_of_files(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    number == Some(rustix::io::Errno::MFILE.raw_os_error()) || number == Some(rustix::io::Errno::NFILE.raw_os_error())
}

/// Reads a whole file; `None` where there is none.
pub(super) fn read_file(disk: &dyn Disk, path: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, false) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = vec![0; usize::try_from(file.length()?).map_err(|_| io::ErrorKind::FileTooLarge)?];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// Writes a whole small file so that a crash leaves the old one or the new one.
pub(super) fn replace_file(disk: &dyn Disk, dir: &str, name: &str, bytes: &[u8]) -> Result<(), Trouble> {
    let at = |name: &str| if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
    let path = at(name);
    let temporary = at(&format!("{name}.tmp"));
    let write = || {
        let file = disk.open(&temporary, true)?;
        file.truncate(0)?;
        file.write_at(&[IoSlice::new(bytes)], 0)?;
        Ok(file)
    };
    let file = write().map_err(Trouble::of(format!("write {path}")))?;
    file.sync().map_err(Trouble::of_sync(format!("sync {path}")))?;
    disk.rename(&temporary, &path).map_err(Trouble::of(format!("write {path}")))?;
    disk.sync_dir(dir).map_err(Trouble::of_sync(format!("sync the folder of {path}")))
}

/// A folder of the machine's disk, held by this process alone, or only looked at.
pub struct RealDisk {
    root: PathBuf,
    /// Held locked as long as we live.
    lock: Option<File>,
}

impl RealDisk {
    /// Takes a folder, making it where it is not there. An error where another process holds it.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let lock = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(root.join("LOCK"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::new(io::ErrorKind::ResourceBusy, "another process uses it (its LOCK file is held)"))?;
        Ok(Self { root: root.to_owned(), lock: Some(lock) })
    }

    /// Looks into a folder that another process may hold. Its files are opened for reading.
    pub fn look(root: &Path) -> io::Result<Self> {
        if fs::metadata(root)?.is_dir() { Ok(Self { root: root.to_owned(), lock: None }) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let writes = self.lock.is_some();
        let file = OpenOptions::new().read(true).write(writes).create(create && writes).truncate(false).open(self.at(path))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.at(dir)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names = entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        fs::create_dir_all(self.at(dir))
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        unless_missing(fs::remove_file(self.at(path)))
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        unless_missing(fs::remove_dir_all(self.at(dir)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.at(dir))?.sync_all()
    }

    fn flush_all(&self) {
        // One pass over the file system for what would be thousands of waits. Whether it went well, the syncs of the files tell.
        let _ = File::open(&self.root).map(rustix::fs::syncfs);
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn total_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    fn place(&self) -> String {
        std::path::absolute(&self.root).unwrap_or_else(|_| self.root.clone()).display().to_string()
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], pos + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], pos: u64) -> io::Result<()> {
        // The system takes at most 1,024 pieces a call.
        let mut pos = pos;
        for some in pieces.chunks(1024) {
            let whole: usize = some.iter().map(|p| p.len()).sum();
            let mut done =
                rustix::io::pwritev(&self.0, some, pos).or_else(|e| if e == rustix::io::Errno::INTR { Ok(0) } else { Err(e) })?;
            let mut at = 0;
            // A short write is rare: what is left goes piece by piece.
            for piece in some {
                let end = at + piece.len();
                if end > done {
                    let from = done.max(at);
                    self.0.write_all_at(&piece[from - at..], pos + from as u64)?;
                    done = end;
                }
                at = end;
            }
            pos += whole as u64;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn modified_ms(&self) -> io::Result<i64> {
        let since = self.0.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn flush_soon(&self, pos: u64, len: u64) {
        // Linux begins to write dirty pages back when told that they are not needed; those it writes stay in its cache.
        let _ = rustix::fs::fadvise(&self.0, pos, std::num::NonZeroU64::new(len), rustix::fs::Advice::DontNeed);
    }
}
