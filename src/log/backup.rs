//! A consistent copy of a data directory, also of one that a node is writing to.
//!
//! The copy needs no help of the node, and does not hold it up: what a checkpoint names does not change until a later checkpoint
//! is written (segments only grow behind the length it says, and files with the same name only grow), and the WAL behind it is only
//! added to. So: copy the segments that the checkpoint names and the WAL behind it, from its last file to its first and each as far
//! as its entries are whole. If all of that WAL was still there, and no segment had gone that a later checkpoint may have replaced, the
//! copy is what a power cut at some moment during it would have left, which is what the log recovers from. If not, the next round copies
//! what is new, and only that: so it comes to an end however much there is. Links to the files were no use: a segment grows and a WAL file is used again, so that a copy by links would change with
//! the original, and go with its disk. Always: a copy that was begun over an older one leaves the older one whole until the new one is:
//! the WAL is copied beside the old one, and a file that says so, durable when all else is, makes the new one count. Called by `cli`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;

use super::LogError;
use super::checkpoint::{Checkpoint, FILE};
use super::disk::{Disk, DiskFile, read_file, replace_file};
use super::entry::{self, FILE_HEAD_BYTES, Head};
use super::materialise::DIR;
use super::overlay::Overlay;
use super::recovery::{FORMAT, FORMAT_FILE, remains};
use super::segment::Segment;
use super::shared::Trouble;
use super::wal;
use crate::record::Offset;

/// The file that says that a directory is a copy, and of what.
pub(super) const MARK: &str = "BACKUP";
/// The checkpoint of a copy that is whole and only waits to be put in the place of the one before; empty where there is none.
const NEXT: &str = "checkpoint.next";
/// Where the WAL of such a copy lies meanwhile.
const NEXT_WAL: &str = "wal.next";
/// How often the checkpoint may change under a copy: each round has less to do than the one before.
const ROUNDS: usize = 1000;
const COPY_BYTES: usize = 4 << 20;
/// Of a file that is there already, so much of its end is compared.
const COMPARED_BYTES: u64 = 64 << 10;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackedUp {
    /// Partitions with files.
    pub partitions: usize,
    /// Files in the copy.
    pub files: usize,
    /// Bytes that had to be copied.
    pub copied_bytes: u64,
    /// How often the node wrote a checkpoint meanwhile.
    pub rounds: usize,
}

/// Makes `to` a copy of `from`. What an earlier copy of the same directory holds is not copied again.
pub fn backup(from: &dyn Disk, to: &dyn Disk) -> Result<BackedUp, LogError> {
    let format = read_file(from, FORMAT_FILE).map_err(LogError::io("read the format"))?;
    if format.as_deref() != Some(FORMAT.as_bytes()) {
        let found = format.map_or_else(|| "none".to_owned(), |found| String::from_utf8_lossy(&found).into_owned());
        return Err(LogError::Format { found, known: FORMAT });
    }
    take_over(from, to)?;
    let mut copied = Copied::default();
    for round in 1..=ROUNDS {
        let before = read_file(from, FILE).map_err(LogError::io("read the checkpoint"))?;
        let checkpoint = before.as_deref().map(Checkpoint::read).transpose();
        let mut checkpoint = checkpoint.map_err(|why| LogError::Corrupt { place: FILE.to_owned(), why })?;
        let (wal_from, is_clean) = checkpoint.as_ref().map_or((1, true), |checkpoint| (checkpoint.wal_from, checkpoint.clean));
        // Once before the segments, which may take long: files of the WAL go again.
        copied.wal(from, to, wal_from, is_clean)?;
        let has_gone = checkpoint.as_mut().map_or(Ok(false), |checkpoint| copied.segments(from, to, checkpoint))?;
        // Deleted for good, or compacted? The second only a later checkpoint says.
        if has_gone && read_file(from, FILE).map_err(LogError::io("read the checkpoint"))? != before {
            continue;
        }
        if !copied.wal(from, to, wal_from, is_clean)? {
            continue;
        }
        commit(to, checkpoint.as_ref())?;
        let (partitions, files) = prune(to, checkpoint.as_ref())?;
        return Ok(BackedUp { partitions, files, copied_bytes: copied.bytes, rounds: round });
    }
    Err(LogError::Io { what: "copy the data directory".to_owned(), why: "it changed faster than it could be copied".to_owned() })
}

/// Makes what was copied the copy that counts.
fn commit(to: &dyn Disk, checkpoint: Option<&Checkpoint>) -> Result<(), LogError> {
    to.sync_dir("").map_err(LogError::io("sync the copy"))?;
    let bytes = checkpoint.map_or_else(Vec::new, Checkpoint::to_bytes);
    replace_file(to, "", NEXT, &bytes).map_err(Trouble::into_error)?;
    finish(to)
}

/// Puts a copy that is whole in the place of the one before, or takes away what is left of one that is not. A second time changes nothing.
pub(super) fn finish(to: &dyn Disk) -> Result<(), LogError> {
    let io = || LogError::io("finish the copy");
    let Some(next) = read_file(to, NEXT).map_err(io())? else {
        return to.remove_dir(NEXT_WAL).map_err(io());
    };
    if to.list("").map_err(io())?.iter().any(|name| name == NEXT_WAL) {
        to.remove_dir(wal::DIR).and_then(|()| to.rename(NEXT_WAL, wal::DIR)).and_then(|()| to.sync_dir("")).map_err(io())?;
    }
    if next.is_empty() {
        to.remove_file(FILE).and_then(|()| to.remove_file(NEXT)).map_err(io())?;
    } else {
        to.rename(NEXT, FILE).map_err(io())?;
    }
    to.sync_dir("").map_err(io())
}

/// Sees that `to` is empty or an earlier copy of `from`, and marks it.
fn take_over(from: &dyn Disk, to: &dyn Disk) -> Result<(), LogError> {
    let refuse = |why: &str| Err(LogError::Io { what: format!("copy to {}", to.place()), why: why.to_owned() });
    let of = from.place();
    match read_file(to, MARK).map_err(LogError::io("read the mark of a copy"))? {
        Some(mark) if mark == of.as_bytes() => return finish(to),
        Some(_) => return refuse("it holds the copy of another directory: take an empty one"),
        None => {}
    }
    let names = to.list("").map_err(LogError::io("list the copy"))?;
    if names.iter().any(|name| name != "LOCK") {
        return refuse("it is not empty, and no earlier copy");
    }
    to.make_dir(DIR).and_then(|()| to.make_dir(wal::DIR)).map_err(LogError::io("make the copy's folders"))?;
    replace_file(to, "", MARK, of.as_bytes()).map_err(Trouble::into_error)?;
    replace_file(to, "", FORMAT_FILE, FORMAT.as_bytes()).map_err(Trouble::into_error)
}

/// What was copied so far. What has been once is not looked at again in a later round.
#[derive(Default)]
struct Copied {
    bytes: u64,
    /// How much of each file, by path.
    files: BTreeMap<String, u64>,
    /// The WAL files, by number.
    wal: BTreeMap<u64, WalCopy>,
    buf: Vec<u8>,
}

/// A WAL file, as far as it was copied.
#[derive(Clone, Copy)]
struct WalCopy {
    /// The first and the last entry, where it has any.
    entries: Option<(u64, u64)>,
    length: usize,
}

impl Copied {
    /// Copies what a checkpoint names. What was deleted since is taken out of it; answers whether anything was.
    fn segments(&mut self, from: &dyn Disk, to: &dyn Disk, checkpoint: &mut Checkpoint) -> Result<bool, LogError> {
        let mut has_gone = false;
        for stored in &mut checkpoint.partitions {
            let Some(dir) = stored.dir.clone() else { continue };
            let mut is_new = false;
            let mut gone = 0;
            for (i, segment) in stored.segments.iter().enumerate() {
                let path = segment.path(&dir);
                let had = self.files.get(&path).copied();
                if had.is_some_and(|had| had >= segment.length) {
                    continue;
                }
                match from.open(&path, false) {
                    Ok(file) => {
                        if !std::mem::replace(&mut is_new, true) {
                            to.make_dir(&dir).map_err(LogError::io(format!("make {dir}")))?;
                        }
                        self.up_to(file.as_ref(), to, &path, segment.length, had)?;
                        self.files.insert(path, segment.length);
                    }
                    // Deleted since with all before it, which the WAL says; or compacted, which the next checkpoint says.
                    Err(e) if e.kind() == io::ErrorKind::NotFound && (segment.length > 0 || segment.version > 0) => gone = i + 1,
                    // It has no file before its first batch.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(LogError::io(format!("open {path}"))(e)),
                }
            }
            if is_new {
                to.sync_dir(&dir).map_err(LogError::io(format!("sync {dir}")))?;
            }
            stored.start = stored.segments[..gone].last().map_or(stored.start, |last: &Segment| stored.start.max(last.next));
            stored.segments.drain(..gone);
            has_gone |= gone > 0;
            if stored.segments.is_empty() {
                stored.dir = None;
            }
        }
        to.sync_dir(DIR).map_err(LogError::io("sync the copy's folder"))?;
        Ok(has_gone)
    }

    /// Brings a file of the copy to so many bytes of the original, where `had` are there already from an earlier round.
    fn up_to(&mut self, from: &dyn DiskFile, to: &dyn Disk, path: &str, length: u64, had: Option<u64>) -> Result<(), LogError> {
        let io = || LogError::io(format!("copy {path}"));
        let file = to.open(path, true).map_err(io())?;
        let mut at = file.length().map_err(io())?.min(length);
        if at > 0 && had.is_none() && !same_end(from, file.as_ref(), at).map_err(io())? {
            // Of an earlier life, which went another way.
            file.truncate(0).map_err(io())?;
            at = 0;
        }
        let begun = at;
        if self.buf.is_empty() && at < length {
            self.buf = vec![0; COPY_BYTES];
        }
        while at < length {
            let want = (length - at).min(COPY_BYTES as u64) as usize;
            let got = from.read_at(&mut self.buf[..want], at).map_err(io())?;
            if got == 0 {
                let why = format!("it has {at} bytes and should have {length}");
                return Err(LogError::Corrupt { place: path.to_owned(), why });
            }
            file.write_at(&[IoSlice::new(&self.buf[..got])], at).map_err(io())?;
            at += got as u64;
        }
        if at > begun {
            file.sync().map_err(io())?;
        }
        self.bytes += at - begun;
        Ok(())
    }

    /// Copies the WAL from its last file to its first, so that a file is finished where a later one has entries. Answers whether all of it
    /// is there: where it is not, a later checkpoint has let some of it go.
    fn wal(&mut self, from: &dyn Disk, to: &dyn Disk, wal_from: u64, may_be_empty: bool) -> Result<bool, LogError> {
        to.make_dir(NEXT_WAL).map_err(LogError::io("make the copy's folder"))?;
        for name in to.list(NEXT_WAL).map_err(LogError::io("list the copy's WAL"))? {
            if wal::number_of(&name).is_some_and(|number| number >= wal_from) {
                continue;
            }
            let name = format!("{NEXT_WAL}/{name}");
            to.remove_file(&name).map_err(LogError::io(format!("delete {name}")))?;
        }
        self.wal.retain(|number, _| *number >= wal_from);
        let names = from.list(wal::DIR).map_err(LogError::io("list the WAL"))?;
        let listed = names.iter().filter_map(|name| wal::number_of(name)).filter(|n| *n >= wal_from);
        let numbers: BTreeSet<u64> = listed.chain(self.wal.keys().copied()).collect();
        if numbers.first().map_or(!may_be_empty, |first| *first != wal_from) {
            return Ok(false);
        }
        let last = numbers.last().copied();
        let mut later: Option<u64> = None;
        for number in numbers.into_iter().rev() {
            // Only one that was made ahead of its use may still be without a head.
            let may_be_unused = Some(number) == last && number != wal_from;
            let had = self.wal.get(&number).copied();
            // One that ends where the next begins does not change.
            let is_finished = had.and_then(|had| had.entries).is_some_and(|(_, last)| later == Some(last + 1));
            let copy = match had.filter(|_| is_finished) {
                Some(had) => had,
                None => match self.wal_file(from, to, number, may_be_unused)? {
                    Some(copy) => copy,
                    None => return Ok(false),
                },
            };
            self.wal.insert(number, copy);
            let Some((first, last)) = copy.entries else { continue };
            if later.is_some_and(|later| last + 1 != later) {
                return Ok(false);
            }
            later = Some(first);
        }
        to.sync_dir(NEXT_WAL).map_err(LogError::io("sync the copy's WAL"))?;
        Ok(true)
    }

    /// Copies one file of the WAL, as far as its entries are whole. `None` where there is no such file any more, or it was used for another
    /// while it was read.
    fn wal_file(&mut self, from: &dyn Disk, to: &dyn Disk, number: u64, may_be_unused: bool) -> Result<Option<WalCopy>, LogError> {
        let path = wal::path(number);
        let reading = || LogError::io(format!("read {path}"));
        let file = match from.open(&path, false) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(reading()(e)),
        };
        let length = file.length().and_then(|length| usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge.into()));
        let mut bytes = vec![0; length.map_err(reading())?];
        let got = file.read_at(&mut bytes, 0).map_err(reading())?;
        bytes.truncate(got);
        // A file gets its new head before anything else is written into it.
        let mut head = [0; FILE_HEAD_BYTES];
        let got = file.read_at(&mut head, 0).map_err(reading())?;
        if bytes.get(..FILE_HEAD_BYTES).is_some_and(|before| *before != head[..got]) {
            return Ok(None);
        }
        let bytes = Bytes::from(bytes);
        let unused = WalCopy { entries: None, length: 0 };
        let Head::Of { seed } = entry::head(&bytes, number) else { return Ok(may_be_unused.then_some(unused)) };
        let (mut pos, mut entries) = (FILE_HEAD_BYTES, None);
        while let Some(decoded) = entry::decode(&bytes, pos, seed) {
            let (first, _) = entries.unwrap_or((decoded.sequence, decoded.sequence));
            entries = Some((first, decoded.sequence));
            pos += decoded.length;
        }
        let length = pos.min(bytes.len());
        let had = self.wal.get(&number).map_or(0, |had| had.length);
        if length > had {
            let copy = format!("{NEXT_WAL}/{}", wal::name(number));
            let io = || LogError::io(format!("write {copy}"));
            let file = to.open(&copy, true).map_err(io())?;
            file.truncate(had as u64).map_err(io())?;
            file.write_at(&[IoSlice::new(&bytes[had..length])], had as u64).map_err(io())?;
            file.sync().map_err(io())?;
            self.bytes += (length - had) as u64;
        }
        Ok(Some(WalCopy { entries, length }))
    }
}

/// Whether two files have the same bytes before `end`, as far as their last ones tell.
fn same_end(one: &dyn DiskFile, other: &dyn DiskFile, end: u64) -> io::Result<bool> {
    let from = end.saturating_sub(COMPARED_BYTES);
    let mut ends = [vec![0; (end - from) as usize], vec![0; (end - from) as usize]];
    for (file, buf) in [one, other].into_iter().zip(&mut ends) {
        let got = file.read_at(buf, from)?;
        buf.truncate(got);
    }
    Ok(ends[0] == ends[1] && ends[0].len() as u64 == end - from)
}

/// Deletes what an earlier copy had and this one does not name. Answers how many partitions and files there are.
fn prune(to: &dyn Disk, checkpoint: Option<&Checkpoint>) -> Result<(usize, usize), LogError> {
    let (mut dirs, mut files) = (BTreeSet::new(), 0);
    for stored in checkpoint.iter().flat_map(|checkpoint| &checkpoint.partitions) {
        let Some(dir) = &stored.dir else { continue };
        dirs.insert(dir.clone());
        let names = to.list(dir).map_err(LogError::io(format!("list {dir}")))?;
        for name in remains(&stored.segments, &names) {
            let path = format!("{dir}/{name}");
            to.remove_file(&path).map_err(LogError::io(format!("delete {path}")))?;
        }
        let known: BTreeSet<(Offset, u32)> = stored.segments.iter().map(|segment| (segment.base, segment.version)).collect();
        let named = names.iter().filter_map(|name| Segment::named(name));
        files += named.filter(|file| known.contains(&(file.base, file.version))).count();
    }
    for name in to.list(DIR).map_err(LogError::io("list the copy"))? {
        let dir = format!("{DIR}/{name}");
        if !dirs.contains(&dir) {
            to.remove_dir(&dir).map_err(LogError::io(format!("delete {dir}")))?;
        }
    }
    files += to.list(wal::DIR).map_err(LogError::io("list the copy's WAL"))?.len();
    Ok((dirs.len(), files))
}

/// Makes the empty directory `to` a data directory out of a copy.
pub fn restore(from: &Arc<dyn Disk>, to: &dyn Disk) -> Result<BackedUp, LogError> {
    if read_file(from.as_ref(), MARK).map_err(LogError::io("read the mark of a copy"))?.is_none() {
        return Err(LogError::Io {
            what: format!("restore from {}", from.place()),
            why: "it is no copy: it has no file BACKUP".to_owned(),
        });
    }
    // One that was whole and not yet put in its place counts; a copy may lie where nothing can be written.
    let overlay;
    let from: &dyn Disk = if read_file(from.as_ref(), NEXT).map_err(LogError::io("read the copy"))?.is_some() {
        overlay = Overlay::over(Arc::clone(from));
        finish(&overlay)?;
        &overlay
    } else {
        from.as_ref()
    };
    let done = backup(from, to)?;
    // From here on it is a data directory of its own.
    to.remove_file(MARK).and_then(|()| to.sync_dir("")).map_err(LogError::io("take the mark away"))?;
    Ok(done)
}
