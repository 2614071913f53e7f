//! The names of one kind of object, and where each one's value goes: [`Shape`].
//!
//! Producers write the same names in the same order record after record, so each name remembers which one
//! followed it and is usually found by one comparison. Names that no column reads are remembered too, up to
//! a limit, for the same reason. Always: the names are distinct, and a name's mark tells whether the
//! object being read has had it already. Used by `decode`.

/// So many names are remembered.
const MAX_NAMES: usize = 192;
/// Longer names that no column reads are not remembered.
const MAX_NAME_BYTES: usize = 128;

/// Where a name's value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format) enum Target {
    /// Nowhere.
    Skip,
    /// To a column.
    Column(usize),
    /// To an object whose own names lead on.
    Inner(usize),
}

/// A name, ready to be compared with what stands between quotes.
#[derive(Debug)]
struct Name {
    bytes: Box<[u8]>,
    /// The name and its closing quote as a number, and which of its bits count: one comparison for the
    /// names that are short enough, which most are.
    head: u128,
    mask: u128,
    /// Whether the name stands between quotes as it is, without escapes.
    plain: bool,
}

impl Name {
    fn new(name: &[u8]) -> Self {
        let plain = !name.iter().any(|b| matches!(b, b'"' | b'\\' | 0..=0x1f));
        let (mut head, mut mask) = ([0; 16], [0; 16]);
        if name.len() < 16 {
            head[..name.len()].copy_from_slice(name);
            head[name.len()] = b'"';
            mask[..=name.len()].fill(0xff);
        }
        Self { bytes: name.into(), head: u128::from_le_bytes(head), mask: u128::from_le_bytes(mask), plain }
    }

    /// How many bytes.
    #[inline(always)]
    const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the name and a quote stand at `pos`.
    #[inline(always)]
    fn is_at(&self, bytes: &[u8], pos: usize) -> bool {
        let Some(rest) = bytes.get(pos..) else { return false };
        match rest.first_chunk::<16>() {
            Some(chunk) if self.mask != 0 => self.plain && u128::from_le_bytes(*chunk) & self.mask == self.head,
            _ => self.plain && rest.starts_with(&self.bytes) && rest.get(self.bytes.len()) == Some(&b'"'),
        }
    }
}

#[derive(Debug)]
struct Entry {
    name: Name,
    target: Target,
    /// The name that followed this one last time.
    next: usize,
    /// The object that last had it.
    mark: u64,
}

/// The names of one kind of object.
#[derive(Debug, Default)]
pub(in crate::format) struct Shape {
    entries: Vec<Entry>,
    /// The objects that names lead on to.
    pub(super) inner: Vec<(String, Shape)>,
    /// The name that came first last time.
    first: usize,
}

impl Shape {
    /// The shape of an object whose names are columns 0, 1, 2 and so on.
    pub(in crate::format) fn of_names<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut shape = Self::default();
        for (index, name) in names.enumerate() {
            shape.add_path(&[name], index);
        }
        shape
    }

    /// Lets `path` lead to a column. No path may lead through or past another's end: the schema has checked it.
    pub(in crate::format) fn add_path(&mut self, path: &[&str], column: usize) {
        match path {
            [] => {}
            [name] => {
                self.add(name.as_bytes(), Target::Column(column));
            }
            [name, rest @ ..] => {
                let known = self.inner.iter().position(|(n, _)| n == name);
                let index = known.unwrap_or_else(|| {
                    self.inner.push(((*name).to_owned(), Self::default()));
                    self.add(name.as_bytes(), Target::Inner(self.inner.len() - 1));
                    self.inner.len() - 1
                });
                self.inner[index].1.add_path(rest, column);
            }
        }
    }

    fn add(&mut self, name: &[u8], target: Target) -> usize {
        let index = self.entries.len();
        self.entries.push(Entry { name: Name::new(name), target, next: index + 1, mark: 0 });
        index
    }

    /// The name that comes first if this object is like the last one.
    #[inline]
    pub(super) const fn first(&self) -> usize {
        self.first
    }

    /// If the name and the quote that stand at `pos` are those of `guess`, and object `mark` has not had it:
    /// where its value goes, where the name ends, and the next guess.
    #[inline(always)]
    pub(super) fn guess(&mut self, guess: usize, mark: u64, bytes: &[u8], pos: usize) -> Option<(Target, usize, usize)> {
        let entry = self.entries.get_mut(guess)?;
        if !entry.name.is_at(bytes, pos) || entry.mark == mark {
            return None;
        }
        entry.mark = mark;
        Some((entry.target, pos + entry.name.len() + 1, entry.next))
    }

    /// The index of a name that is not the guessed one, and remembers that it stands behind `before`.
    /// `None` for one that is not remembered.
    pub(super) fn look_up(&mut self, name: &[u8], before: Option<usize>) -> Option<usize> {
        let known = self.entries.iter().position(|e| *e.name.bytes == *name);
        let index = match known {
            Some(index) => index,
            None if self.entries.len() < MAX_NAMES && name.len() <= MAX_NAME_BYTES => self.add(name, Target::Skip),
            None => return None,
        };
        match before {
            Some(before) => self.entries[before].next = index,
            None => self.first = index,
        }
        Some(index)
    }

    /// Notes that object `mark` has name `index`: where its value goes, and the next guess. `None` where it
    /// has had it before.
    pub(super) fn meet(&mut self, index: usize, mark: u64) -> Option<(Target, usize)> {
        let entry = &mut self.entries[index];
        if entry.mark == mark {
            return None;
        }
        entry.mark = mark;
        Some((entry.target, entry.next))
    }

    /// The name of a column or inner object, to be told; nothing of a name that no column reads.
    pub(super) fn told(&self, index: usize) -> Option<&str> {
        let entry = &self.entries[index];
        if entry.target == Target::Skip { None } else { std::str::from_utf8(&entry.name.bytes).ok() }
    }
}
