//! Memory for what is read from segments, used again: [`lease`].
//!
//! A reader that goes through history takes a megabyte at a time and drops it soon after. Fresh memory for each would be cleared twice, by
//! the kernel when it hands out the pages and here, and that costs as much as the reading. Always: a buffer is in one hand only; at most
//! [`KEPT_BYTES`] lie unused. What it held before is never seen: whoever reads fills all that it asked for, or fails.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use parking_lot::Mutex;

/// Smaller ones are not worth keeping.
const LEAST_BYTES: usize = 64 << 10;
/// So much unused memory is kept.
const KEPT_BYTES: usize = 4 << 20;

/// The unused ones.
static FREE: Mutex<Free> = Mutex::new(Free { buffers: Vec::new(), bytes: 0 });

struct Free {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Free {
    /// One that is large enough and at most twice as large.
    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| (length..=length.saturating_mul(2)).contains(&buffer.len());
        let at = self.buffers.iter().rposition(fits)?;
        let buffer = self.buffers.swap_remove(at);
        self.bytes -= buffer.len();
        Some(buffer)
    }

    fn give(&mut self, buffer: Vec<u8>) {
        if (LEAST_BYTES..=KEPT_BYTES).contains(&buffer.len()) {
            // Sizes that nobody asks for any more make room for those that are.
            while self.bytes + buffer.len() > KEPT_BYTES {
                self.bytes -= self.buffers.remove(0).len();
            }
            self.bytes += buffer.len();
            self.buffers.push(buffer);
        }
    }
}

/// Memory of one length to read into; [`Lease::into_bytes`] hands it on, and the last one who drops that gives it back.
pub(super) struct Lease {
    buffer: Vec<u8>,
    length: usize,
}

/// Memory of `length` bytes that hold anything.
pub(super) fn lease(length: usize) -> Lease {
    let kept = if length < LEAST_BYTES { None } else { FREE.lock().take(length) };
    Lease { buffer: kept.unwrap_or_else(|| vec![0; length]), length }
}

impl Lease {
    /// What was read, whole.
    pub(super) fn into_bytes(mut self) -> Bytes {
        if self.length < LEAST_BYTES { Bytes::from(std::mem::take(&mut self.buffer)) } else { Bytes::from_owner(self) }
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.length]
    }
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.len() >= LEAST_BYTES {
            FREE.lock().give(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_in_one_hand_only_and_little_is_kept() {
        // Other tests use the same memory: what is asked here holds whatever they do.
        let held: Vec<Lease> = (0..20).map(|i| lease(LEAST_BYTES + i)).collect();
        let mut places: Vec<*const u8> = held.iter().map(|lease| lease.as_ptr()).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), held.len(), "each has its own");
        assert!(held.iter().enumerate().all(|(i, lease)| lease.len() == LEAST_BYTES + i));
        let mut mine = lease(1 << 20);
        mine.fill(7);
        let bytes = mine.into_bytes();
        let part = bytes.slice(5..10);
        drop(bytes);
        let others: Vec<Lease> = (0..20)
            .map(|_| {
                let mut other = lease(1 << 20);
                other.fill(9);
                other
            })
            .collect();
        assert_eq!(part.as_ref(), [7; 5], "a part of it holds all of it");
        drop((held, others, part));
        let free = FREE.lock();
        assert!(free.bytes <= KEPT_BYTES && free.bytes == free.buffers.iter().map(Vec::len).sum::<usize>(), "{}", free.bytes);
    }

    #[test]
    fn a_kept_buffer_is_large_enough_and_not_much_too_large() {
        let mut free = Free { buffers: Vec::new(), bytes: 0 };
        for length in [1 << 20, LEAST_BYTES - 1, KEPT_BYTES + 1, 300 << 10] {
            free.give(vec![0; length]);
        }
        assert_eq!(free.bytes, (1 << 20) + (300 << 10), "neither the smallest nor one beyond the limit is kept");
        assert!(free.take((1 << 20) + 1).is_none() && free.take(100 << 10).is_none());
        assert_eq!(free.take(600 << 10).map(|b| b.len()), Some(1 << 20));
        assert_eq!(free.take(300 << 10).map(|b| b.len()), Some(300 << 10));
        assert_eq!((free.bytes, free.buffers.len()), (0, 0));
        for length in [1 << 20, 1 << 20, 1 << 20, 1 << 20, 2 << 20] {
            free.give(vec![0; length]);
        }
        assert_eq!(free.buffers.iter().map(Vec::len).collect::<Vec<_>>(), [1 << 20, 1 << 20, 2 << 20], "the oldest go");
    }
}
