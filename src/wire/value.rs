//! The kinds of value a field of a message can have, and how each lies on the wire.
//!
//! Always: `read` of what `write` wrote gives the value back, for every shape in which it can be said;
//! `least` never exceeds the bytes that `read` takes. Used by the code that `table` generates.

use std::fmt;

use bytes::Bytes;

use super::error::{Fault, WireError};
use super::read::{Reader, Shape};
#[cfg(test)]
use super::tests::Chance;
use super::write::Writer;
use crate::record::TopicId;

/// The longest string Kafka reads, in bytes. Longer ones are refused when read and cut when written.
pub const MAX_STRING: usize = i16::MAX as usize;

/// A value with a place in a message. `null` says whether this version of the field allows null.
pub trait Wire: Sized {
    /// The fewest bytes any value takes.
    fn least(shape: Shape) -> usize;
    /// Takes the value off the front.
    fn read(from: &mut Reader, null: bool) -> Result<Self, WireError>;
    /// Appends the value.
    fn write(&self, to: &mut Writer, null: bool);
    /// Some value that this shape can say.
    #[cfg(test)]
    fn sample(chance: &mut Chance, shape: Shape, null: bool) -> Self;
}

macro_rules! integers {
    ($($ty:ty)+) => {$(
        impl Wire for $ty {
            fn least(_: Shape) -> usize {
                size_of::<Self>()
            }
            fn read(from: &mut Reader, _: bool) -> Result<Self, WireError> {
                Ok(Self::from_be_bytes(from.array()?))
            }
            fn write(&self, to: &mut Writer, _: bool) {
                to.put(&self.to_be_bytes());
            }
            #[cfg(test)]
            fn sample(chance: &mut Chance, _: Shape, _: bool) -> Self {
                chance.number() as Self
            }
        }
    )+};
}
integers!(i8 i16 i32 i64 u16);

impl Wire for f64 {
    fn least(_: Shape) -> usize {
        size_of::<Self>()
    }
    fn read(from: &mut Reader, _: bool) -> Result<Self, WireError> {
        Ok(Self::from_be_bytes(from.array()?))
    }
    fn write(&self, to: &mut Writer, _: bool) {
        to.put(&self.to_be_bytes());
    }
    #[cfg(test)]
    fn sample(chance: &mut Chance, _: Shape, _: bool) -> Self {
        chance.number() as Self
    }
}

impl Wire for bool {
    fn least(_: Shape) -> usize {
        1
    }
    fn read(from: &mut Reader, _: bool) -> Result<Self, WireError> {
        let [byte] = from.array()?;
        Ok(byte != 0)
    }
    fn write(&self, to: &mut Writer, _: bool) {
        to.put(&[u8::from(*self)]);
    }
    #[cfg(test)]
    fn sample(chance: &mut Chance, _: Shape, _: bool) -> Self {
        chance.one_in(2)
    }
}

impl Wire for TopicId {
    fn least(_: Shape) -> usize {
        16
    }
    fn read(from: &mut Reader, _: bool) -> Result<Self, WireError> {
        Ok(Self(from.array()?))
    }
    fn write(&self, to: &mut Writer, _: bool) {
        to.put(&self.0);
    }
    #[cfg(test)]
    fn sample(chance: &mut Chance, _: Shape, _: bool) -> Self {
        Self(std::array::from_fn(|_| chance.number() as u8))
    }
}

impl Wire for Option<String> {
    fn least(shape: Shape) -> usize {
        if shape.flexible { 1 } else { 2 }
    }
    fn read(from: &mut Reader, null: bool) -> Result<Self, WireError> {
        let Some(length) = from.length(false)? else {
            return if null { Ok(None) } else { Err(Fault::Null.into()) };
        };
        if length > MAX_STRING {
            return Err(Fault::TooLong(length).into());
        }
        let text = std::str::from_utf8(from.take(length)?).map_err(|_| Fault::NotUtf8)?;
        Ok(Some(text.to_owned()))
    }
    fn write(&self, to: &mut Writer, null: bool) {
        match self {
            None if null => to.length(None, false),
            None => to.length(Some(0), false),
            Some(text) => write_text(text, to),
        }
    }
    #[cfg(test)]
    fn sample(chance: &mut Chance, shape: Shape, null: bool) -> Self {
        if null && chance.one_in(3) { None } else { Some(String::sample(chance, shape, false)) }
    }
}

fn write_text(text: &str, to: &mut Writer) {
    let text = &text[..text.floor_char_boundary(MAX_STRING)];
    to.length(Some(text.len()), false);
    to.put(text.as_bytes());
}

impl Wire for String {
    fn least(shape: Shape) -> usize {
        Option::<Self>::least(shape)
    }
    fn read(from: &mut Reader, _: bool) -> Result<Self, WireError> {
        Ok(Option::<Self>::read(from, false)?.unwrap_or_default())
    }
    fn write(&self, to: &mut Writer, _: bool) {
        write_text(self, to);
    }
    #[cfg(test)]
    fn sample(chance: &mut Chance, _: Shape, _: bool) -> Self {
        chance.text()
    }
}

impl Wire for Option<Bytes> {
    fn least(shape: Shape) -> usize {
        if shape.flexible { 1 } else { 4 }
    }
    fn read(from: &mut Reader, null: bool) -> Result<Self, WireError> {
        match from.length(true)? {
            Some(length) => Ok(Some(from.share(length)?)),
            None if null => Ok(None),
            None => Err(Fault::Null.into()),
        }
    }
    fn write(&self, to: &mut Writer, null: bool) {
        match self {
            None if null => to.length(None, true),
            None => to.length(Some(0), true),
            Some(bytes) => bytes.write(to, null),
        }
    }
    #[cfg(test)]
    fn sample(chance: &mut Chance, shape: Shape, null: bool) -> Self {
        if null && chance.one_in(3) { None } else { Some(Bytes::sample(chance, shape, false)) }
    }
}

impl Wire for Bytes {
    fn least(shape: Shape) -> usize {
        Option::<Self>::least(shape)
    }
    fn read(from: &mut Reader, _: bool) -> Result<Self, WireError> {
        Ok(Option::<Self>::read(from, false)?.unwrap_or_default())
    }
    fn write(&self, to: &mut Writer, _: bool) {
        to.length(Some(self.len()), true);
        to.share(self);
    }
    #[cfg(test)]
    fn sample(chance: &mut Chance, _: Shape, _: bool) -> Self {
        chance.bytes()
    }
}

/// Record data on its way out: pieces that lie elsewhere (the tail cache, a page read from disk) and are
/// written one after another without being copied. Two are equal when the bytes are, however cut.
#[derive(Clone, Default)]
pub struct RecordsOut(pub Vec<Bytes>);

impl RecordsOut {
    /// Bytes in all pieces together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// The records in one piece, copied where there are several.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match &self.0[..] {
            [one] => one.clone(),
            pieces => pieces.concat().into(),
        }
    }
}

impl From<Bytes> for RecordsOut {
    fn from(bytes: Bytes) -> Self {
        Self(vec![bytes])
    }
}

impl PartialEq for RecordsOut {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl fmt::Debug for RecordsOut {
    /// Only the size: what lies in records stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordsOut({} bytes)", self.len())
    }
}

impl Wire for RecordsOut {
    fn least(shape: Shape) -> usize {
        Option::<Bytes>::least(shape)
    }
    fn read(from: &mut Reader, _: bool) -> Result<Self, WireError> {
        Ok(Option::<Bytes>::read(from, true)?.map(Self::from).unwrap_or_default())
    }
    /// Empty is written as empty and never as null, which some clients cannot read.
    fn write(&self, to: &mut Writer, _: bool) {
        to.length(Some(self.len()), true);
        for piece in &self.0 {
            to.share(piece);
        }
    }
    #[cfg(test)]
    fn sample(chance: &mut Chance, _: Shape, _: bool) -> Self {
        Self((0..chance.below(4)).map(|_| chance.bytes()).collect())
    }
}

impl<T: Wire> Wire for Option<Vec<T>> {
    fn least(shape: Shape) -> usize {
        if shape.flexible { 1 } else { 4 }
    }
    fn read(from: &mut Reader, null: bool) -> Result<Self, WireError> {
        let Some(count) = from.length(true)? else {
            return if null { Ok(None) } else { Err(Fault::Null.into()) };
        };
        from.admit(count, T::least(from.shape), size_of::<T>())?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(T::read(from, false)?);
        }
        Ok(Some(elements))
    }
    fn write(&self, to: &mut Writer, null: bool) {
        match self {
            None if null => to.length(None, true),
            None => to.length(Some(0), true),
            Some(elements) => elements.write(to, false),
        }
    }
    #[cfg(test)]
    fn sample(chance: &mut Chance, shape: Shape, null: bool) -> Self {
        if null && chance.one_in(3) { None } else { Some(Vec::sample(chance, shape, false)) }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn least(shape: Shape) -> usize {
        Option::<Self>::least(shape)
    }
    fn read(from: &mut Reader, _: bool) -> Result<Self, WireError> {
        Ok(Option::<Self>::read(from, false)?.unwrap_or_default())
    }
    fn write(&self, to: &mut Writer, _: bool) {
        to.length(Some(self.len()), true);
        for element in self {
            element.write(to, false);
        }
    }
    #[cfg(test)]
    fn sample(chance: &mut Chance, shape: Shape, _: bool) -> Self {
        (0..chance.below(4)).map(|_| T::sample(chance, shape, false)).collect()
    }
}
