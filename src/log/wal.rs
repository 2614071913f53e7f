//! The files of the WAL, and the end that is written to.
//!
//! Always: a file's head is durable before an entry is written into it; an entry is written into room that was taken before, so that
//! a sync has no names or lengths to make durable; a file that nothing needs any more becomes the next one, its blocks and all.
//! Called by `commit` (writes), `materialise` (makes files ahead, lets them go) and `recovery`.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::disk::DiskFile;
use super::entry::{Encoded, FILE_HEAD_BYTES, Mark, file_head};
use super::shared::{Queued, Shared, Trouble};
use super::store::Append;

/// Where WAL files lie.
pub(super) const DIR: &str = "wal";
/// So many files are kept to be used again.
const SPARES: usize = 2;

/// The name of a WAL file.
pub(super) fn name(number: u64) -> String {
    format!("{number:020}.wal")
}

/// The path of a WAL file.
pub(super) fn path(number: u64) -> String {
    format!("{DIR}/{}", name(number))
}

/// The number that a file's name says.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".wal").filter(|stem| stem.len() == 20)?.parse().ok()
}

/// A file ready for entries.
pub(super) struct WalFile {
    number: u64,
    seed: u64,
    file: Arc<dyn DiskFile>,
}

impl WalFile {
    /// Makes a file, from a spare one if there is one. Its head and its name are durable then.
    pub(super) fn make(shared: &Shared, number: u64) -> Result<Self, Trouble> {
        let path = path(number);
        let disk = shared.disk.as_ref();
        let (seed, _) = uuid::Uuid::new_v4().as_u64_pair();
        // Held until the spare has its new name: whoever lets files go must not take it for one nobody knows.
        let mut spares = shared.spares.lock();
        let spare = spares.pop().map(self::path);
        let spare = spare.and_then(|spare| Some((disk.open(&spare, false).ok()?, spare)));
        let (file, spare) = match spare {
            Some((file, spare)) => (file, Some(spare)),
            None => {
                let file = disk.open(&path, true).map_err(Trouble::of(format!("make {path}")))?;
                file.truncate(0).map_err(Trouble::of(format!("make {path}")))?;
                (file, None)
            }
        };
        // Without room ahead the file grows as it is written: slower, and no less safe.
        if let Err(error) = file.reserve(shared.config.wal_segment_bytes) {
            tracing::warn!(%error, "could not reserve room for the WAL");
        }
        file.write_at(&[IoSlice::new(&file_head(number, seed))], 0).map_err(Trouble::of(format!("make {path}")))?;
        file.sync().map_err(Trouble::of_sync(format!("sync {path}")))?;
        if let Some(spare) = spare {
            disk.rename(&spare, &path).map_err(Trouble::of(format!("make {path}")))?;
        }
        drop(spares);
        disk.sync_dir(DIR).map_err(Trouble::of_sync("sync the WAL's folder"))?;
        Ok(Self { number, seed, file })
    }
}

/// Lets the files below `from` go, or keeps them to be used again.
pub(super) fn release(shared: &Shared, from: u64, keep: bool) -> Result<(), Trouble> {
    let mut spares = shared.spares.lock();
    for name in shared.disk.list(DIR).map_err(Trouble::of("list the WAL"))? {
        let Some(number) = number_of(&name).filter(|n| *n < from) else { continue };
        if spares.contains(&number) && keep {
            continue;
        }
        if keep && spares.len() < SPARES {
            spares.push(number);
            continue;
        }
        spares.retain(|spare| *spare != number);
        shared.disk.remove_file(&path(number)).map_err(Trouble::of(format!("delete {}", path(number))))?;
    }
    Ok(())
}

/// Gives back the room behind the entries of files that are not written to any more.
pub(super) fn trim(shared: &Shared, files: &[(String, u64)]) {
    for (path, end) in files {
        // One that has gone needs none, and one that stays long is only long.
        if let Err(error) = shared.disk.open(path, false).and_then(|file| file.truncate(*end)) {
            tracing::debug!(path, %error, "could not give back room of the WAL");
        }
    }
}

/// Makes the file with this number ahead of its use, unless it is in use already. If it cannot be made now, its first use says so.
pub(super) fn make_ahead(shared: &Shared, number: u64) {
    let mut ahead = shared.ahead.lock();
    if ahead.is_none() && shared.wal_file.load(Ordering::Acquire) < number {
        match WalFile::make(shared, number) {
            Ok(file) => *ahead = Some(file),
            Err(trouble) => tracing::warn!(?trouble, "could not make a WAL file ahead of its use"),
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub bytes: u64,
    pub sequence: u64,
}

/// The end of the WAL that is written to.
pub(super) struct Writer {
    at: WalFile,
    pos: u64,
    sync: u64,
    sequence: u64,
    is_unsynced: bool,
    asked_ahead: bool,
}

impl Writer {
    /// A writer that begins a file of its own, behind what recovery found.
    pub(super) fn begin(shared: &Shared, number: u64, sync: u64, sequence: u64) -> Result<Self, Trouble> {
        shared.disk.make_dir(DIR).and_then(|()| shared.disk.sync_dir("")).map_err(Trouble::of("make the WAL's folder"))?;
        let at = WalFile::make(shared, number)?;
        shared.wal_file.store(number, Ordering::Release);
        shared.published.store(sequence, Ordering::Release);
        shared.published_sync.store(sync, Ordering::Release);
        Ok(Self { at, pos: FILE_HEAD_BYTES as u64, sync, sequence, is_unsynced: false, asked_ahead: false })
    }

    /// Writes a run of items, which [`Writer::sync`] makes durable. Where there is no room, nothing has happened.
    pub(super) fn write(&mut self, shared: &Shared, items: &[Queued]) -> Result<Written, Trouble> {
        let about: u64 = items.iter().map(size).sum();
        if self.pos > FILE_HEAD_BYTES as u64 && self.pos + about > shared.config.wal_segment_bytes {
            // What comes in the next file must not be there without what is in this one.
            self.sync(shared)?;
            self.turn(shared)?;
        }
        let sync = self.sync + 1;
        let mut sequence = self.sequence;
        let encoded: Vec<Encoded> = items
            .iter()
            .map(|item| {
                sequence += 1;
                let mark = Mark { seed: self.at.seed, sync, sequence };
                match item {
                    Queued::Group { appends, .. } => Encoded::group(mark, appends),
                    Queued::Start { partition, to, .. } => Encoded::start(mark, partition.key(), *to),
                    Queued::Remove { key } => Encoded::remove(mark, *key),
                }
            })
            .collect();
        let mut pieces: Vec<IoSlice<'_>> = Vec::new();
        for (item, encoded) in items.iter().zip(&encoded) {
            const NONE: &[Append] = &[];
            let appends = if let Queued::Group { appends, .. } = item { appends.as_slice() } else { NONE };
            encoded.pieces(appends, &mut pieces);
        }
        let bytes: u64 = pieces.iter().map(|p| p.len() as u64).sum();
        let name = path(self.at.number);
        self.at.file.write_at(&pieces, self.pos).map_err(Trouble::of(format!("write {name}")))?;
        (self.pos, self.sequence, self.is_unsynced) = (self.pos + bytes, sequence, true);
        Ok(Written { bytes, sequence })
    }

    /// Makes durable what was written. Answers the sync's number.
    pub(super) fn sync(&mut self, shared: &Shared) -> Result<u64, Trouble> {
        if self.is_unsynced {
            let begun = Instant::now();
            self.at.file.sync().map_err(Trouble::of_sync(format!("sync {}", path(self.at.number))))?;
            shared.note_sync(begun.elapsed());
            *shared.unsynced.lock() = None;
            self.sync += 1;
            self.is_unsynced = false;
        }
        Ok(self.sync)
    }

    /// Something that was written and is not synced will be shown: whoever writes down how far the segments are must sync it first.
    pub(super) fn show_unsynced(&self, shared: &Shared) -> u64 {
        *shared.unsynced.lock() = Some((Arc::clone(&self.at.file), path(self.at.number)));
        self.sync
    }

    /// On to the next file.
    fn turn(&mut self, shared: &Shared) -> Result<(), Trouble> {
        let number = self.at.number + 1;
        // Held while a file is made, so that two never make the same one.
        let mut ahead = shared.ahead.lock();
        self.at = match ahead.take().filter(|file| file.number == number) {
            Some(ahead) => ahead,
            None => WalFile::make(shared, number)?,
        };
        self.pos = FILE_HEAD_BYTES as u64;
        self.asked_ahead = false;
        shared.wal_file.store(number, Ordering::Release);
        Ok(())
    }

    /// Asks for the next file in good time, so that the change of files stalls nobody.
    pub(super) fn look_ahead(&mut self, shared: &Shared) {
        if !self.asked_ahead && self.pos > shared.config.wal_segment_bytes / 2 {
            self.asked_ahead = true;
            shared.work.lock().prepare = Some(self.at.number + 1);
            shared.work_wake.notify_one();
        }
    }
}

/// About how many bytes an item takes in the WAL.
pub(super) fn size(item: &Queued) -> u64 {
    match item {
        Queued::Group { appends, .. } => appends.iter().map(|a| a.batch.len_bytes() as u64 + 32).sum::<u64>() + 40,
        Queued::Start { .. } | Queued::Remove { .. } => 72,
    }
}
