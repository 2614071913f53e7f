//! What is put on the disk comes back as it was, or not at all; and a disk in memory that fails when it is told to.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parking_lot::Mutex;

use super::{Parked, SpillDisk, SpillSpace};
use crate::stream::{StateWriter, StreamError};

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::stream) enum Fault {
    /// Nothing.
    #[default]
    Nothing,
    /// It takes no more.
    Full,
    /// Its files are gone.
    Gone,
    /// Its files end too early.
    Torn,
    /// A bit of each file has changed.
    Flipped,
}

/// A disk in memory. Its clones are the same one.
#[derive(Clone, Debug, Default)]
pub(in crate::stream) struct Shelf(Arc<Mutex<Files>>);

#[derive(Debug, Default)]
struct Files {
    files: BTreeMap<u64, Vec<u8>>,
    fault: Fault,
    written: usize,
    read: usize,
}

impl Shelf {
    /// A space on it without a limit.
    pub(in crate::stream) fn space(&self) -> SpillSpace {
        SpillSpace::on(Box::new(self.clone()), u64::MAX, 0)
    }

    /// From now on this is wrong with it.
    pub(in crate::stream) fn set(&self, fault: Fault) {
        self.0.lock().fault = fault;
    }

    /// How many files there are.
    pub(in crate::stream) fn files(&self) -> usize {
        self.0.lock().files.len()
    }

    /// How many files were written, and how often one was read.
    pub(in crate::stream) fn used(&self) -> (usize, usize) {
        let files = self.0.lock();
        (files.written, files.read)
    }
}

impl SpillDisk for Shelf {
    fn write(&self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.0.lock();
        if files.fault == Fault::Full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        files.written += 1;
        assert!(files.files.insert(number, bytes.to_vec()).is_none(), "a file is written once");
        Ok(())
    }

    fn read(&self, number: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut files = self.0.lock();
        files.read += 1;
        let mut bytes = files.files.get(&number).filter(|_| files.fault != Fault::Gone).cloned().ok_or(io::ErrorKind::NotFound)?;
        assert_eq!(bytes.len() as u64, len);
        match files.fault {
            Fault::Torn => bytes.truncate(bytes.len() / 2),
            Fault::Flipped => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            _ => {}
        }
        Ok(bytes)
    }

    fn remove(&self, number: u64) {
        self.0.lock().files.remove(&number);
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(1 << 30)
    }
}

fn batch(rows: i64) -> RecordBatch {
    let texts: StringArray = (0..rows).map(|row| (row % 3 > 0).then(|| "a".repeat(row as usize % 7))).collect();
    let columns: [(&str, ArrayRef); 2] = [("n", Arc::new((0..rows).collect::<Int64Array>())), ("t", Arc::new(texts))];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn parked(space: &SpillSpace, rows: i64) -> Arc<Parked> {
    space.park(&batch(rows)).unwrap().expect("there is room")
}

#[test]
fn what_was_put_there_comes_back_and_its_file_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("left"), "behind").unwrap();
    let files = || std::fs::read_dir(&path).unwrap().count();
    let space = SpillSpace::open(&path, 1 << 20, 0).unwrap();
    assert_eq!(files(), 0, "what an earlier process left is deleted");
    let (some, none) = (parked(&space, 1000), parked(&space, 0));
    assert_eq!((files(), space.used()), (2, some.bytes() + none.bytes()));
    // A slice of a batch is put there without the rest of it.
    let slice = space.park(&batch(1000).slice(990, 7)).unwrap().unwrap();
    assert!(slice.bytes() < 2000 && some.bytes() > 8000);
    for _ in 0..2 {
        assert_eq!(some.load().unwrap(), batch(1000));
        assert_eq!((none.load().unwrap().num_rows(), slice.load().unwrap()), (0, batch(1000).slice(990, 7)));
    }
    drop((none, slice));
    assert_eq!((files(), space.used()), (1, some.bytes()));
    // Who opens the folder next does not find its files taken by one who has not quite ended.
    let next = SpillSpace::open(&path, 1 << 20, 0).unwrap();
    let own: Vec<_> = (0..3).map(|_| parked(&next, 10)).collect();
    assert!(some.load().is_err());
    drop(some);
    assert!(own.iter().all(|of| of.load().unwrap() == batch(10)));
    drop(own);
    assert_eq!((files(), space.used(), next.used()), (0, 0, 0));
}

#[test]
fn what_there_is_no_room_for_stays_where_it_is_and_the_reason_is_told() {
    let shelf = Shelf::default();
    let big = SpillSpace::on(Box::new(shelf.clone()), 1 << 20, 0);
    let len = parked(&big, 1000).bytes();
    let space = SpillSpace::on(Box::new(shelf.clone()), 2 * len + 10, 0);
    let (one, _other) = (parked(&space, 1000), parked(&space, 1000));
    assert!(space.park(&batch(1000)).unwrap().is_none());
    assert!(space.refusal().unwrap().contains("engine.state_disk"), "{:?}", space.refusal());
    drop(one);
    let again = parked(&space, 1000);
    assert_eq!((space.refusal(), space.used()), (None, 2 * len));
    drop(again);
    shelf.set(Fault::Full);
    assert!(space.park(&batch(1000)).unwrap().is_none());
    assert!(space.refusal().unwrap().contains("could not be written"), "{:?}", space.refusal());
    assert_eq!(space.used(), len, "what was not written is not counted");
    let guarded = SpillSpace::on(Box::new(Shelf::default()), u64::MAX, (1 << 30) - len + 1);
    assert!(guarded.park(&batch(1000)).unwrap().is_none());
    assert!(guarded.refusal().unwrap().contains("stay free"), "{:?}", guarded.refusal());
    assert!(SpillSpace::on(Box::new(Shelf::default()), u64::MAX, (1 << 30) - len).park(&batch(1000)).unwrap().is_some());
}

#[test]
fn a_file_that_is_not_as_it_was_written_is_an_error_and_never_a_batch() {
    let shelf = Shelf::default();
    let space = shelf.space();
    let one = parked(&space, 100);
    for (fault, why) in [(Fault::Gone, "not found"), (Fault::Torn, "were written"), (Fault::Flipped, "checksum")] {
        shelf.set(fault);
        let error = one.load().unwrap_err();
        assert!(matches!(error, StreamError::Spill(_)), "{error}");
        assert!(error.to_string().contains(why) && error.to_string().contains("goes on from its last commit"), "{error}");
    }
    shelf.set(Fault::Nothing);
    assert_eq!(one.load().unwrap(), batch(100));
}

#[test]
fn a_state_writer_keeps_what_is_parked_on_the_disk() {
    let shelf = Shelf::default();
    let mut state = StateWriter::default();
    state.put_parked("rows", parked(&shelf.space(), 10));
    assert_eq!((shelf.files(), shelf.used()), (1, (1, 0)));
    drop(state);
    assert_eq!(shelf.files(), 0);
}
