//! A growing frame: owned pieces, and record data shared with whoever holds it.
//!
//! Always: the pieces in order are the frame, the first one begins with its 4-byte length, and a shared
//! piece is never copied. Writing cannot fail; what a version of a message cannot say is left out, or
//! written as the empty value where null is not allowed.

use bytes::{BufMut, Bytes, BytesMut};

use super::read::Shape;

/// Shared data below this many bytes is cheaper to copy than to hand to a vectored write.
const COPY_BELOW: usize = 256;

pub struct Writer {
    done: Vec<Piece>,
    open: BytesMut,
    pub shape: Shape,
}

enum Piece {
    Own(BytesMut),
    Shared(Bytes),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Shared(bytes) => bytes.len(),
        }
    }
}

impl Writer {
    /// An empty frame, with room left for its length.
    pub fn frame(shape: Shape) -> Self {
        let mut open = BytesMut::with_capacity(512);
        open.put_i32(0);
        Self { done: Vec::new(), open, shape }
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.open.put_slice(bytes);
    }

    /// Appends bytes without copying them, unless they are few.
    pub fn share(&mut self, bytes: &Bytes) {
        if bytes.len() < COPY_BELOW {
            return self.put(bytes);
        }
        if !self.open.is_empty() {
            let own = self.open.split();
            self.done.push(Piece::Own(own));
        }
        self.done.push(Piece::Shared(bytes.clone()));
    }

    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.open.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.open.put_u8(value as u8);
    }

    /// A length in the width of this shape (`wide`: 4 bytes, else 2, where not flexible); `None` for null.
    pub fn length(&mut self, length: Option<usize>, wide: bool) {
        let length = length.map(|n| i32::try_from(n).expect("a response is limited to far less than 2 GiB"));
        if self.shape.flexible {
            self.unsigned_varint(length.map_or(0, |n| n.unsigned_abs() + 1));
        } else if wide {
            self.open.put_i32(length.unwrap_or(-1));
        } else {
            self.open.put_i16(length.map_or(-1, |n| i16::try_from(n).expect("strings are cut to 32767 bytes")));
        }
    }

    /// A tagged field: tag, size, value.
    pub fn tag(&mut self, tag: u32, value: impl FnOnce(&mut Self)) {
        let before = std::mem::take(&mut self.open);
        value(self);
        let body = std::mem::replace(&mut self.open, before);
        self.unsigned_varint(tag);
        self.unsigned_varint(u32::try_from(body.len()).expect("tagged fields are small"));
        self.put(&body);
    }

    /// The frame in pieces, its length filled in.
    pub fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.done.push(Piece::Own(self.open));
        }
        let total: usize = self.done.iter().map(Piece::len).sum();
        if let Some(Piece::Own(first)) = self.done.first_mut() {
            let length = u32::try_from(total - 4).expect("a response is limited to far less than 2 GiB");
            first[..4].copy_from_slice(&length.to_be_bytes());
        }
        self.done
            .into_iter()
            .map(|piece| match piece {
                Piece::Own(bytes) => bytes.freeze(),
                Piece::Shared(bytes) => bytes,
            })
            .collect()
    }
}
