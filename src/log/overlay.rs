//! A disk that is read and never changed: what is written stays in memory, on top of it.
//!
//! Always: nothing below changes. A start of the log over it shows what a real start would do, and whether it would succeed.
//! Called by `doctor`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};

/// A file that was written to: its first bytes, and a length beyond them that reads as zeros.
#[derive(Clone, Default)]
struct Written {
    bytes: Vec<u8>,
    len: u64,
}

#[derive(Default)]
struct Layer {
    files: BTreeMap<String, Arc<Mutex<Option<Written>>>>,
    /// Names that are there below and are gone here; a folder's name stands for all in it.
    gone: BTreeSet<String>,
}

impl Layer {
    fn is_gone(&self, path: &str) -> bool {
        self.gone.contains(path) || path.match_indices('/').any(|(at, _)| self.gone.contains(&path[..at]))
    }
}

/// See the module.
pub(super) struct Overlay {
    below: Arc<dyn Disk>,
    layer: Mutex<Layer>,
}

impl Overlay {
    pub(super) fn over(below: Arc<dyn Disk>) -> Self {
        Self { below, layer: Mutex::default() }
    }

    /// What is there below and was deleted or given another name here, by name.
    pub(super) fn gone(&self) -> Vec<String> {
        self.layer.lock().gone.iter().cloned().collect()
    }
}

impl Disk for Overlay {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut layer = self.layer.lock();
        let below = if layer.is_gone(path) { None } else { self.below.open(path, false).map(Some).or_else(none_where_missing)? };
        let written = match layer.files.get(path) {
            Some(written) => Arc::clone(written),
            None if below.is_some() => {
                let written = Arc::new(Mutex::new(None));
                layer.files.insert(path.to_owned(), Arc::clone(&written));
                written
            }
            None if create => {
                let written = Arc::new(Mutex::new(Some(Written::default())));
                layer.files.insert(path.to_owned(), Arc::clone(&written));
                written
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(LayeredFile { below, written }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let layer = self.layer.lock();
        let at = |name: &str| if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
        let below = if layer.is_gone(dir) { Vec::new() } else { self.below.list(dir)? };
        let mut names: BTreeSet<String> = below.into_iter().filter(|name| !layer.is_gone(&at(name))).collect();
        let prefix = at("");
        names.extend(layer.files.keys().filter_map(|path| path.strip_prefix(&prefix)?.split('/').next().map(str::to_owned)));
        names.remove("");
        Ok(names.into_iter().collect())
    }

    fn make_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        let is_below = self.below.open(path, false).is_ok();
        let mut layer = self.layer.lock();
        layer.files.remove(path);
        if is_below {
            layer.gone.insert(path.to_owned());
        }
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        let is_below = !self.below.list(dir)?.is_empty();
        let mut layer = self.layer.lock();
        let prefix = format!("{dir}/");
        layer.files.retain(|path, _| !path.starts_with(&prefix));
        if is_below {
            layer.gone.insert(dir.to_owned());
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let inside = self.list(from)?;
        if !inside.is_empty() {
            for name in inside {
                self.rename(&format!("{from}/{name}"), &format!("{to}/{name}"))?;
            }
            self.layer.lock().gone.insert(from.to_owned());
            return Ok(());
        }
        // What it holds is copied: only small files are ever given another name here.
        let file = self.open(from, false)?;
        let mut bytes = vec![0; usize::try_from(file.length()?).map_err(|_| io::ErrorKind::FileTooLarge)?];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        self.remove_file(from)?;
        let written = Written { len: bytes.len() as u64, bytes };
        self.layer.lock().files.insert(to.to_owned(), Arc::new(Mutex::new(Some(written))));
        Ok(())
    }

    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn total_bytes(&self) -> io::Result<u64> {
        self.below.total_bytes()
    }

    fn place(&self) -> String {
        self.below.place()
    }
}

fn none_where_missing<T>(error: io::Error) -> io::Result<Option<T>> {
    if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
}

struct LayeredFile {
    below: Option<Arc<dyn DiskFile>>,
    /// `None` while nothing was written: then it is what is below.
    written: Arc<Mutex<Option<Written>>>,
}

impl LayeredFile {
    fn change(&self, change: impl FnOnce(&mut Written)) -> io::Result<()> {
        let mut written = self.written.lock();
        if written.is_none() {
            let mut copy = Written::default();
            if let Some(below) = &self.below {
                copy.len = below.length()?;
                copy.bytes = vec![0; usize::try_from(copy.len).map_err(|_| io::ErrorKind::FileTooLarge)?];
                below.read_at(&mut copy.bytes, 0)?;
            }
            *written = Some(copy);
        }
        if let Some(written) = written.as_mut() {
            change(written);
        }
        Ok(())
    }
}

impl DiskFile for LayeredFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        let written = self.written.lock();
        match (&*written, &self.below) {
            (None, Some(below)) => below.read_at(buf, pos),
            (None, None) => Ok(0),
            (Some(written), _) => {
                let n = written.len.saturating_sub(pos).min(buf.len() as u64) as usize;
                let from = usize::try_from(pos).ok().and_then(|pos| written.bytes.get(pos..)).unwrap_or_default();
                let stored = n.min(from.len());
                buf[..stored].copy_from_slice(&from[..stored]);
                buf[stored..n].fill(0);
                Ok(n)
            }
        }
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], pos: u64) -> io::Result<()> {
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        let from = usize::try_from(pos).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.change(|written| {
            let end = from + bytes.len();
            if written.bytes.len() < end {
                written.bytes.resize(end, 0);
            }
            written.bytes[from..end].copy_from_slice(&bytes);
            written.len = written.len.max(end as u64);
        })
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.change(|written| {
            written.bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
            written.len = len;
        })
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.change(|written| written.len = written.len.max(len))
    }

    fn length(&self) -> io::Result<u64> {
        match (&*self.written.lock(), &self.below) {
            (Some(written), _) => Ok(written.len),
            (None, Some(below)) => below.length(),
            (None, None) => Ok(0),
        }
    }

    fn modified_ms(&self) -> io::Result<i64> {
        self.below.as_ref().map_or(Ok(0), |below| below.modified_ms())
    }
}
