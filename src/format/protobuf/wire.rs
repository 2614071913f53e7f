//! Protobuf's wire format, piece by piece: [`Wire`].
//!
//! Always: a value that is passed lies within the bytes, and groups nest no deeper than values may. Used by `decode`.

use super::super::MAX_DEPTH;
use super::super::json::{Fault, Read};

pub(super) const VARINT: u8 = 0;
pub(super) const EIGHT: u8 = 1;
pub(super) const LENGTH: u8 = 2;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
pub(super) const FOUR: u8 = 5;

/// A place in a message.
#[derive(Clone, Copy)]
pub(super) struct Wire<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) pos: usize,
    /// How many bytes of the record's value lie before these.
    pub(super) skipped: usize,
}

impl Wire<'_> {
    #[cold]
    pub(super) fn fault<T>(&self, why: &'static str) -> Read<T> {
        Err(Fault::new(self.skipped + self.pos, why))
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Read<u64> {
        let mut value: u64 = 0;
        for (at, byte) in self.bytes[self.pos..].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.pos += at + 1;
                return Ok(value);
            }
        }
        self.fault("expected a number of at most ten bytes")
    }

    /// A field's number and wire type.
    #[inline]
    pub(super) fn tag(&mut self) -> Read<(u32, u8)> {
        let at = self.pos;
        let tag = self.varint()?;
        match u32::try_from(tag >> 3) {
            Ok(number) if number > 0 && number < 1 << 29 => Ok((number, (tag & 7) as u8)),
            _ => {
                self.pos = at;
                self.fault("expected a field's number")
            }
        }
    }

    /// Passes a field's value; answers where it lies.
    pub(super) fn value(&mut self, kind: u8, number: u32) -> Read<(usize, usize)> {
        let start = self.pos;
        let len = match kind {
            VARINT => {
                self.varint()?;
                return Ok((start, self.pos));
            }
            EIGHT => 8,
            FOUR => 4,
            LENGTH => self.varint()?,
            OPEN => {
                let end = self.group(number)?;
                return Ok((start, end));
            }
            _ => return self.fault("no such wire type"),
        };
        let start = self.pos;
        let len = usize::try_from(len).ok().filter(|len| *len <= self.bytes.len() - start);
        let Some(len) = len else { return self.fault("the value ends too early") };
        self.pos += len;
        Ok((start, self.pos))
    }

    /// Passes a group, an older way to put a message within another; answers where what is in it ends.
    fn group(&mut self, number: u32) -> Read<usize> {
        let mut open = vec![number];
        loop {
            let before = self.pos;
            let (number, kind) = self.tag()?;
            match kind {
                OPEN if open.len() >= MAX_DEPTH as usize => return self.fault("nested too deep"),
                OPEN => open.push(number),
                CLOSE => {
                    if open.pop() != Some(number) {
                        return self.fault("a group ends that did not begin");
                    }
                    if open.is_empty() {
                        return Ok(before);
                    }
                }
                kind => {
                    self.value(kind, number)?;
                }
            }
        }
    }
}
