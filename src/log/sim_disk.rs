//! A disk in memory that crashes when told to. For tests, of this room and of others.
//!
//! [`SimDisk::crash`] gives the disk as it would be found after a power cut: what was synced is there; of what
//! was not, each write is kept, lost or torn by a seeded draw. Faults can be set: failing syncs, no room.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// A file's bytes: what is durable, and what was written since.
#[derive(Default)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Writes since the last sync: position and bytes; a cut is a write of nothing.
    pending: Vec<(u64, Vec<u8>, bool)>,
}

type File = Arc<Mutex<Content>>;

#[derive(Default)]
struct Tree {
    /// Names as programs see them.
    files: BTreeMap<String, File>,
    /// Names as a crash would leave them.
    durable: BTreeMap<String, File>,
    dirs: BTreeSet<String>,
}

/// The disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    tree: Arc<Mutex<Tree>>,
    free: Arc<AtomicU64>,
    syncs: Arc<AtomicU64>,
    fail_sync_at: Arc<AtomicU64>,
    dead: Arc<AtomicBool>,
}

impl SimDisk {
    /// An empty disk with so many bytes free.
    #[must_use]
    pub fn new(free: u64) -> Self {
        let disk = Self::default();
        disk.free.store(free, Ordering::Relaxed);
        disk
    }

    /// Sets how many bytes are free.
    pub fn set_free(&self, free: u64) {
        self.free.store(free, Ordering::Relaxed);
    }

    /// How many syncs of files there were.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Lets the sync with this number (from 1) and all later ones fail; 0 for none.
    pub fn fail_sync_at(&self, number: u64) {
        self.fail_sync_at.store(number, Ordering::Relaxed);
    }

    /// From now on every call fails: the process is about to be found dead.
    pub fn cut_power(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// The disk as it is found after a crash now. `draw(n)` gives a number below `n`.
    #[must_use]
    pub fn crash(&self, mut draw: impl FnMut(u64) -> u64) -> Self {
        let tree = self.tree.lock();
        let mut found = Tree { dirs: tree.dirs.clone(), ..Tree::default() };
        for (name, file) in &tree.durable {
            let content = file.lock();
            let mut bytes = content.durable.clone();
            for (pos, written, is_cut) in &content.pending {
                match draw(3) {
                    0 => {}
                    1 => apply(&mut bytes, *pos, written, *is_cut),
                    _ if *is_cut => {}
                    _ => {
                        // Torn: some whole sectors of it, from the front.
                        let keep = (draw(written.len() as u64 + 1) / 512 * 512) as usize;
                        apply(&mut bytes, *pos, &written[..keep], false);
                    }
                }
            }
            let content = Content { durable: bytes.clone(), current: bytes, pending: Vec::new() };
            let file = Arc::new(Mutex::new(content));
            found.files.insert(name.clone(), Arc::clone(&file));
            found.durable.insert(name.clone(), file);
        }
        let disk = Self::new(self.free.load(Ordering::Relaxed));
        *disk.tree.lock() = found;
        disk
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead.load(Ordering::Relaxed) { Err(io::Error::other("the power is cut")) } else { Ok(()) }
    }
}

fn apply(bytes: &mut Vec<u8>, pos: u64, written: &[u8], is_cut: bool) {
    let pos = pos as usize;
    if is_cut {
        bytes.resize(pos, 0);
        return;
    }
    if bytes.len() < pos + written.len() {
        bytes.resize(pos + written.len(), 0);
    }
    bytes[pos..pos + written.len()].copy_from_slice(written);
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl super::Disk for SimDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn super::DiskFile>> {
        self.alive()?;
        let mut tree = self.tree.lock();
        let file = match tree.files.get(path) {
            Some(file) => Arc::clone(file),
            None if create => {
                let file = File::default();
                tree.files.insert(path.to_owned(), Arc::clone(&file));
                file
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.alive()?;
        let tree = self.tree.lock();
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let under = |name: &String| name.strip_prefix(&prefix).map(|rest| rest.split('/').next().unwrap_or_default().to_owned());
        let names: BTreeSet<String> = tree.files.keys().chain(&tree.dirs).filter_map(under).filter(|n| !n.is_empty()).collect();
        Ok(names.into_iter().collect())
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.alive()?;
        self.tree.lock().dirs.insert(dir.to_owned());
        Ok(())
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        self.alive()?;
        self.tree.lock().files.remove(path);
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.alive()?;
        let prefix = format!("{dir}/");
        let mut tree = self.tree.lock();
        tree.files.retain(|name, _| !name.starts_with(&prefix));
        tree.durable.retain(|name, _| !name.starts_with(&prefix));
        tree.dirs.remove(dir);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.alive()?;
        let mut tree = self.tree.lock();
        let file = tree.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        tree.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.alive()?;
        let mut tree = self.tree.lock();
        tree.durable.retain(|name, _| parent(name) != dir);
        let here: Vec<_> = tree.files.iter().filter(|(name, _)| parent(name) == dir).map(|(n, f)| (n.clone(), Arc::clone(f))).collect();
        tree.durable.extend(here);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.alive()?;
        Ok(self.free.load(Ordering::Relaxed))
    }
}

struct SimFile {
    disk: SimDisk,
    file: File,
}

impl super::DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        self.disk.alive()?;
        let content = self.file.lock();
        let from = (pos as usize).min(content.current.len());
        let n = buf.len().min(content.current.len() - from);
        buf[..n].copy_from_slice(&content.current[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], pos: u64) -> io::Result<()> {
        self.disk.alive()?;
        let bytes: Vec<u8> = pieces.iter().flat_map(|p| p.iter().copied()).collect();
        let mut content = self.file.lock();
        apply(&mut content.current, pos, &bytes, false);
        content.pending.push((pos, bytes, false));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.alive()?;
        let number = self.disk.syncs.fetch_add(1, Ordering::Relaxed) + 1;
        let fail = self.disk.fail_sync_at.load(Ordering::Relaxed);
        if fail != 0 && number >= fail {
            return Err(io::Error::other("the disk does not sync"));
        }
        let mut content = self.file.lock();
        content.durable = content.current.clone();
        content.pending.clear();
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.alive()?;
        let mut content = self.file.lock();
        content.current.resize(len as usize, 0);
        content.pending.push((len, Vec::new(), true));
        Ok(())
    }

    fn reserve(&self, _len: u64) -> io::Result<()> {
        self.disk.alive()
    }

    fn length(&self) -> io::Result<u64> {
        self.disk.alive()?;
        Ok(self.file.lock().current.len() as u64)
    }
}
