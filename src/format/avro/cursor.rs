//! Avro's binary encoding, piece by piece: [`Cursor`].
//!
//! Always: what is taken lies within the bytes, and what a value has that takes none is counted, so that no count or schema
//! makes more work than the value has bytes. Used by `decode`.

use super::super::json::{Fault, Read};

/// So many items and fields without bytes may any value have.
const SPARE: usize = 1_000;

/// A place in a value.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pub(super) pos: usize,
    /// How many bytes of the record's value lie before these.
    pub(super) skipped: usize,
    /// How many items and fields without bytes of their own the value may still have: a schema of few words, or a block's
    /// count, can stand for any number of them.
    free: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8], skipped: usize) -> Self {
        Self { bytes, pos: 0, skipped, free: bytes.len() + SPARE }
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.pos >= self.bytes.len()
    }

    #[cold]
    pub(super) fn error(&self, why: &'static str) -> Box<Fault> {
        Fault::new(self.skipped + self.pos, why)
    }

    #[cold]
    pub(super) fn fault<T>(&self, why: &'static str) -> Read<T> {
        Err(self.error(why))
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        match self.bytes.get(self.pos..).and_then(|rest| rest.get(..len)) {
            Some(taken) => {
                self.pos += len;
                Ok(taken)
            }
            None => self.fault("the value ends too early"),
        }
    }

    /// A number of at most ten bytes of seven bits, its sign in the lowest.
    #[inline]
    pub(super) fn long(&mut self) -> Read<i64> {
        let mut value: u64 = 0;
        for (at, byte) in self.bytes[self.pos..].iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.pos += at + 1;
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        self.fault("expected a number of at most ten bytes")
    }

    /// Bytes behind their length.
    #[inline]
    pub(super) fn run(&mut self) -> Read<&'a [u8]> {
        let at = self.pos;
        let len = self.long()?;
        let Ok(len) = usize::try_from(len) else {
            self.pos = at;
            return self.fault("a length below zero");
        };
        self.take(len)
    }

    /// How many items the next block of an array or map has; `None` at its end.
    pub(super) fn block(&mut self) -> Read<Option<u64>> {
        let count = self.long()?;
        if count < 0 {
            // The block's length in bytes, for those who pass over it.
            self.long()?;
        }
        Ok((count != 0).then_some(count.unsigned_abs()))
    }

    /// Counts an item or a field that took no bytes.
    pub(super) fn spend(&mut self, before: usize) -> Read<()> {
        if self.pos > before {
            return Ok(());
        }
        match self.free.checked_sub(1) {
            Some(left) => {
                self.free = left;
                Ok(())
            }
            None => self.fault("more items than the value has bytes"),
        }
    }
}
