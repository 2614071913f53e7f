//! A cursor over one frame that hands out values and never reads, or allocates, past its end.
//!
//! Always: `at <= end <= bytes.len()`. Whatever a count claims, no more is reserved than the rest of the
//! frame could hold, and all elements of a message together stay within [`ELEMENT_BUDGET`].

use bytes::Bytes;

use super::error::{Fault, WireError};

/// Memory that the decoded elements of one message may take, in bytes, strings and records aside (these
/// are bounded by the frame). The largest honest request, a fetch of 100,000 partitions, takes 5 MB.
pub(super) const ELEMENT_BUDGET: usize = 64 << 20;

/// Which layout of a message is meant: its version, and whether that is one of the flexible ones
/// (compact lengths, tagged fields).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub version: i16,
    pub flexible: bool,
}

pub struct Reader {
    bytes: Bytes,
    at: usize,
    end: usize,
    budget: usize,
    pub shape: Shape,
}

impl Reader {
    pub fn new(bytes: Bytes, shape: Shape) -> Self {
        Self { at: 0, end: bytes.len(), bytes, budget: ELEMENT_BUDGET, shape }
    }

    pub const fn left(&self) -> usize {
        self.end - self.at
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&[u8], Fault> {
        if n > self.left() {
            return Err(Fault::Short { needed: n, left: self.left() });
        }
        let from = self.at;
        self.at += n;
        Ok(&self.bytes[from..self.at])
    }

    /// The next `N` bytes as an array, for the integers.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// The next `n` bytes, shared with the frame.
    pub fn share(&mut self, n: usize) -> Result<Bytes, Fault> {
        let from = self.at;
        self.take(n)?;
        Ok(self.bytes.slice(from..from + n))
    }

    pub fn unsigned_varint(&mut self) -> Result<u32, Fault> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                return Err(Fault::Varint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::Varint)
    }

    /// A length in the width of this shape (`wide`: 4 bytes, else 2, where not flexible); `None` for null.
    pub fn length(&mut self, wide: bool) -> Result<Option<usize>, Fault> {
        if self.shape.flexible {
            return Ok((self.unsigned_varint()? as usize).checked_sub(1));
        }
        let length = if wide { i64::from(i32::from_be_bytes(self.array()?)) } else { i64::from(i16::from_be_bytes(self.array()?)) };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| Fault::Negative(length)),
        }
    }

    /// Checks a count of elements that take at least `least` bytes each, and charges `size` bytes of
    /// memory for each.
    pub fn admit(&mut self, count: usize, least: usize, size: usize) -> Result<(), Fault> {
        if count > self.left() / least.max(1) {
            return Err(Fault::Count { claimed: count as u64, left: self.left() });
        }
        // `count` is at most the frame's length here, so the product cannot overflow.
        self.budget = self.budget.checked_sub(count * size).ok_or(Fault::TooManyElements)?;
        Ok(())
    }

    /// The tagged fields that end a struct of a flexible version. `known` reads the value of a tag and
    /// says so, or leaves an unknown one, which is skipped.
    pub fn tags(&mut self, mut known: impl FnMut(u32, &mut Self) -> Result<bool, WireError>) -> Result<(), WireError> {
        let count = self.unsigned_varint().map_err(|fault| WireError { place: "tagged fields", fault })?;
        for _ in 0..count {
            let (tag, size) = self.tag_head().map_err(|fault| WireError { place: "tagged fields", fault })?;
            let (outer_end, field_end) = (self.end, self.at + size);
            self.end = field_end;
            let read = known(tag, self);
            self.end = outer_end;
            if read? && self.at != field_end {
                return Err(WireError { place: "tagged fields", fault: Fault::TagSize(field_end - self.at) });
            }
            self.at = field_end;
        }
        Ok(())
    }

    fn tag_head(&mut self) -> Result<(u32, usize), Fault> {
        let tag = self.unsigned_varint()?;
        let size = self.unsigned_varint()? as usize;
        if size > self.left() {
            return Err(Fault::Short { needed: size, left: self.left() });
        }
        Ok((tag, size))
    }
}
