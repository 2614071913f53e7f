//! A disk in memory that crashes when told to. For tests, of this room and of others.
//!
//! [`SimDisk::crash`] gives the disk as it would be found after a power cut: what was synced is there; of what
//! was not, each write is kept, lost or torn, and of each folder's names a first part is kept, by a seeded draw. [`SimDisk::kill`] gives it
//! as after the death of the process alone: everything is readable, and what was not synced is still not safe.
//! Faults can be set: the power goes at a given operation, syncs fail, there is no room, no file can be opened.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Bytes with a tail of zeros that takes no memory.
#[derive(Clone, Default)]
struct Sparse {
    bytes: Vec<u8>,
    len: u64,
}

impl Sparse {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(pos, written) => {
                let (from, end) = (*pos as usize, *pos as usize + written.len());
                if self.bytes.len() == from {
                    self.bytes.extend_from_slice(written);
                } else {
                    if self.bytes.len() < end {
                        self.bytes.resize(end, 0);
                    }
                    self.bytes[from..end].copy_from_slice(written);
                }
                self.len = self.len.max(end as u64);
            }
            Change::Cut(len) => {
                self.bytes.truncate(*len as usize);
                self.len = *len;
            }
            Change::Grow(len) => self.len = self.len.max(*len),
        }
    }
}

/// A change of a file's bytes.
#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Cut(u64),
    Grow(u64),
}

/// A file: what is durable, what programs see, and the changes between.
#[derive(Clone, Default)]
struct Content {
    durable: Sparse,
    current: Sparse,
    pending: Vec<Change>,
}

type File = Arc<Mutex<Content>>;

/// A change of names.
#[derive(Clone)]
enum NameChange {
    Make(String, File),
    MakeDir(String),
    Remove(String),
    /// With what was in it.
    RemoveDir(String, Vec<(String, File)>),
    Rename(String, String),
}

impl NameChange {
    /// The folder whose sync makes it durable.
    fn dir(&self) -> &str {
        match self {
            Self::Make(path, _) | Self::MakeDir(path) | Self::Remove(path) | Self::RemoveDir(path, _) | Self::Rename(path, _) => {
                parent(path)
            }
        }
    }
}

#[derive(Clone, Default)]
struct Names {
    files: BTreeMap<String, File>,
    dirs: BTreeSet<String>,
}

impl Names {
    fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Make(path, file) => {
                self.files.insert(path.clone(), Arc::clone(file));
            }
            NameChange::MakeDir(dir) => {
                self.dirs.insert(dir.clone());
            }
            NameChange::Remove(path) => {
                self.files.remove(path);
            }
            NameChange::RemoveDir(dir, inside) => {
                for (name, file) in inside {
                    if self.files.get(name).is_some_and(|there| Arc::ptr_eq(there, file)) {
                        self.files.remove(name);
                    }
                }
                self.dirs.remove(dir);
            }
            NameChange::Rename(from, to) => {
                if let Some(file) = self.files.remove(from) {
                    self.files.insert(to.clone(), file);
                } else if self.dirs.remove(from) {
                    let prefix = format!("{from}/");
                    let inside: Vec<String> = self.files.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
                    for name in inside {
                        let file = self.files.remove(&name).expect("it was just listed");
                        self.files.insert(format!("{to}/{}", &name[prefix.len()..]), file);
                    }
                    self.dirs.insert(to.clone());
                }
            }
        }
    }

    /// Lets go what lies in folders that are not there.
    fn settle(&mut self) {
        let dirs = self.dirs.clone();
        let reachable = |path: &str| {
            let mut at = parent(path);
            loop {
                if at.is_empty() {
                    return true;
                }
                if !dirs.contains(at) {
                    return false;
                }
                at = parent(at);
            }
        };
        self.files.retain(|name, _| reachable(name));
        self.dirs.retain(|name| reachable(name));
    }
}

#[derive(Default)]
struct Tree {
    current: Names,
    durable: Names,
    pending: Vec<NameChange>,
    /// Bytes that may still be written; `None` for as many as one likes.
    room: Option<u64>,
}

/// The disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    tree: Arc<Mutex<Tree>>,
    free: Arc<AtomicU64>,
    syncs: Arc<AtomicU64>,
    changes: Arc<AtomicU64>,
    fail_sync_at: Arc<AtomicU64>,
    cut_at: Arc<AtomicU64>,
    dead: Arc<AtomicBool>,
    read_only: Arc<AtomicBool>,
    out_of_files: Arc<AtomicBool>,
}

impl SimDisk {
    /// An empty disk with so many bytes free.
    #[must_use]
    pub fn new(free: u64) -> Self {
        let disk = Self::default();
        disk.free.store(free, Ordering::Relaxed);
        disk
    }

    /// Sets how many bytes are said to be free.
    pub fn set_free(&self, free: u64) {
        self.free.store(free, Ordering::Relaxed);
    }

    /// Lets only so many bytes more be written, after which writes fail for want of room; `None` for no limit.
    pub fn set_room(&self, room: Option<u64>) {
        self.tree.lock().room = room;
    }

    /// Lets every change be refused as by a disk that may only be read.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Relaxed);
    }

    /// Lets every file and folder that is opened be refused, as to a process that has as many open as it may.
    pub fn set_out_of_files(&self, out: bool) {
        self.out_of_files.store(out, Ordering::Relaxed);
    }

    fn may_open(&self) -> io::Result<()> {
        let refused = || io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        if self.out_of_files.load(Ordering::Relaxed) { Err(refused()) } else { Ok(()) }
    }

    fn may_sync(&self, number: u64) -> io::Result<()> {
        let fail = self.fail_sync_at.load(Ordering::Relaxed);
        if fail != 0 && number >= fail { Err(io::Error::other("the disk does not sync")) } else { Ok(()) }
    }

    fn writable(&self) -> io::Result<()> {
        if self.read_only.load(Ordering::Relaxed) { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    /// How many syncs of files there were.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// How many operations that change something, or make it durable, there were.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Lets the sync with this number (from 1) and all later ones fail; 0 for none.
    pub fn fail_sync_at(&self, number: u64) {
        self.fail_sync_at.store(number, Ordering::Relaxed);
    }

    /// Cuts the power just before the change with this number (from 1); 0 for never.
    pub fn cut_power_at(&self, number: u64) {
        self.cut_at.store(number, Ordering::Relaxed);
    }

    /// From now on every call fails: the process is about to be found dead.
    pub fn cut_power(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// The disk as it is found after a crash now. `draw(n)` gives a number below `n`; always 0 loses all that was not synced.
    #[must_use]
    pub fn crash(&self, mut draw: impl FnMut(u64) -> u64) -> Self {
        let tree = self.tree.lock();
        let mut names = tree.durable.clone();
        // The names of one folder change in order; those of several may come to the disk in any.
        let folders: BTreeSet<&str> = tree.pending.iter().map(NameChange::dir).collect();
        let in_order = draw(2) == 0;
        let mut kept: BTreeMap<&str, u64> = folders.into_iter().map(|dir| (dir, draw(tree.pending.len() as u64 + 1))).collect();
        let first = draw(tree.pending.len() as u64 + 1);
        for (i, change) in tree.pending.iter().enumerate() {
            let left = kept.get_mut(change.dir()).expect("it was just listed");
            let stays = if in_order { (i as u64) < first } else { *left > 0 };
            if stays {
                names.apply(change);
            }
            *left = left.saturating_sub(1);
        }
        names.settle();
        for file in names.files.values_mut() {
            let content = file.lock();
            let mut found = content.durable.clone();
            for change in &content.pending {
                match (draw(3), change) {
                    (0, _) => {}
                    (1, change) => found.apply(change),
                    (_, Change::Write(pos, written)) => {
                        // Torn: some whole sectors of it, from the front.
                        let keep = (draw(written.len() as u64 + 1) / 512 * 512) as usize;
                        found.apply(&Change::Write(*pos, written[..keep].to_vec()));
                    }
                    _ => {}
                }
            }
            drop(content);
            *file = Arc::new(Mutex::new(Content { durable: found.clone(), current: found, pending: Vec::new() }));
        }
        let disk = Self::new(self.free.load(Ordering::Relaxed));
        *disk.tree.lock() = Tree { current: names.clone(), durable: names, pending: Vec::new(), room: tree.room };
        disk
    }

    /// The same disk under a new process; this one's holder is dead. What was not synced can still be lost to a [`crash`](Self::crash).
    #[must_use]
    pub fn kill(&self) -> Self {
        self.cut_power();
        Self { tree: Arc::clone(&self.tree), free: Arc::clone(&self.free), ..Self::default() }
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead.load(Ordering::Relaxed) { Err(io::Error::other("the power is cut")) } else { Ok(()) }
    }

    /// Counts a change, and lets the power go where it is time.
    fn change(&self) -> io::Result<()> {
        self.alive()?;
        let number = self.changes.fetch_add(1, Ordering::Relaxed) + 1;
        let cut = self.cut_at.load(Ordering::Relaxed);
        if cut != 0 && number >= cut {
            self.cut_power();
        }
        self.alive()
    }

    fn rename_things(&self, change: NameChange) {
        let mut tree = self.tree.lock();
        tree.current.apply(&change);
        tree.pending.push(change);
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl super::Disk for SimDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn super::DiskFile>> {
        self.alive()?;
        self.may_open()?;
        let found = self.tree.lock().current.files.get(path).cloned();
        let file = match found {
            Some(file) => file,
            None if create => {
                self.change()?;
                self.writable()?;
                let dir = parent(path);
                let tree = self.tree.lock();
                if !dir.is_empty() && !tree.current.dirs.contains(dir) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                if tree.room == Some(0) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                drop(tree);
                let file = File::default();
                self.rename_things(NameChange::Make(path.to_owned(), Arc::clone(&file)));
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
        let names: BTreeSet<String> =
            tree.current.files.keys().chain(&tree.current.dirs).filter_map(under).filter(|n| !n.is_empty()).collect();
        Ok(names.into_iter().collect())
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.alive()?;
        if !self.tree.lock().current.dirs.contains(dir) {
            self.change()?;
            self.rename_things(NameChange::MakeDir(dir.to_owned()));
        }
        Ok(())
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        self.change()?;
        self.writable()?;
        let removed = self.tree.lock().current.files.get(path).cloned();
        if let Some(file) = removed {
            let len = file.lock().current.len;
            self.rename_things(NameChange::Remove(path.to_owned()));
            let mut tree = self.tree.lock();
            tree.room = tree.room.map(|room| room + len);
        }
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.change()?;
        self.writable()?;
        let prefix = format!("{dir}/");
        let tree = self.tree.lock();
        if !tree.current.dirs.contains(dir) {
            return Ok(());
        }
        let inside: Vec<(String, File)> = tree
            .current
            .files
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix))
            .map(|(name, file)| (name.clone(), Arc::clone(file)))
            .collect();
        drop(tree);
        let len: u64 = inside.iter().map(|(_, file)| file.lock().current.len).sum();
        self.rename_things(NameChange::RemoveDir(dir.to_owned(), inside));
        let mut tree = self.tree.lock();
        tree.room = tree.room.map(|room| room + len);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change()?;
        self.writable()?;
        let tree = self.tree.lock();
        if !tree.current.files.contains_key(from) && !tree.current.dirs.contains(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        drop(tree);
        self.rename_things(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.change()?;
        self.may_open()?;
        self.may_sync(self.syncs.load(Ordering::Relaxed) + 1)?;
        let mut tree = self.tree.lock();
        if !dir.is_empty() && !tree.current.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (here, elsewhere): (Vec<_>, Vec<_>) = std::mem::take(&mut tree.pending).into_iter().partition(|change| change.dir() == dir);
        here.iter().for_each(|change| tree.durable.apply(change));
        tree.pending = elsewhere;
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.alive()?;
        Ok(self.tree.lock().room.unwrap_or_else(|| self.free.load(Ordering::Relaxed)))
    }

    fn total_bytes(&self) -> io::Result<u64> {
        self.alive()?;
        Ok(u64::MAX)
    }

    fn place(&self) -> String {
        "/simulated".to_owned()
    }
}

struct SimFile {
    disk: SimDisk,
    file: File,
}

impl SimFile {
    /// Takes room for `grown` bytes; answers how many there were.
    fn take_room(&self, grown: u64) -> u64 {
        let mut tree = self.disk.tree.lock();
        let taken = tree.room.map_or(grown, |room| room.min(grown));
        tree.room = tree.room.map(|room| room - taken);
        taken
    }

    fn make(&self, change: Change) {
        let mut content = self.file.lock();
        content.current.apply(&change);
        content.pending.push(change);
    }
}

impl super::DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        self.disk.alive()?;
        let content = self.file.lock();
        let n = content.current.len.saturating_sub(pos).min(buf.len() as u64) as usize;
        let bytes = content.current.bytes.get(pos as usize..).unwrap_or_default();
        let stored = n.min(bytes.len());
        buf[..stored].copy_from_slice(&bytes[..stored]);
        buf[stored..n].fill(0);
        Ok(n)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], pos: u64) -> io::Result<()> {
        self.disk.change()?;
        self.disk.writable()?;
        let mut bytes: Vec<u8> = pieces.iter().flat_map(|p| p.iter().copied()).collect();
        let grown = (pos + bytes.len() as u64).saturating_sub(self.file.lock().current.len);
        let missing = grown - self.take_room(grown);
        bytes.truncate(bytes.len() - missing as usize);
        self.make(Change::Write(pos, bytes));
        if missing == 0 { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.change()?;
        let number = self.disk.syncs.fetch_add(1, Ordering::Relaxed) + 1;
        self.disk.may_sync(number)?;
        let mut content = self.file.lock();
        let pending = std::mem::take(&mut content.pending);
        pending.iter().for_each(|change| content.durable.apply(change));
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.change()?;
        self.disk.writable()?;
        let before = self.file.lock().current.len;
        if len == before {
            return Ok(());
        }
        self.make(Change::Cut(len));
        let mut tree = self.disk.tree.lock();
        tree.room = tree.room.map(|room| (room + before).saturating_sub(len));
        Ok(())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.disk.change()?;
        self.disk.writable()?;
        let grown = len.saturating_sub(self.file.lock().current.len);
        let taken = self.take_room(grown);
        if taken < grown {
            self.disk.tree.lock().room = Some(taken);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.make(Change::Grow(len));
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        self.disk.alive()?;
        Ok(self.file.lock().current.len)
    }

    fn modified_ms(&self) -> io::Result<i64> {
        self.disk.alive()?;
        Ok(0)
    }
}
