//! JSON's grammar over bytes: [`Scan`], a place in one record's value, and [`Fault`], why it is none.
//!
//! Always: what was passed over was whole and valid JSON, UTF-8 and escapes included, no object in it had
//! a name twice, and nothing lay deeper than [`MAX_DEPTH`]. A fault names the column, what was expected and
//! the place, never what stood there. Called by `decode`, which says where each value goes.

use std::fmt;

use super::super::number::{self, Number, Short};

/// How deep objects and lists may lie within one another.
pub const MAX_DEPTH: u32 = 64;
/// Up to so many names an object's are compared each with each; more are sorted.
const FEW_NAMES: usize = 12;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Why a value is no row. Boxed where it travels: the good way carries one word.
#[derive(Debug)]
pub(in crate::format) struct Fault {
    /// Which byte of the value, from 0.
    pub at: usize,
    /// What was expected, or what is wrong.
    pub why: &'static str,
    /// The column and the fields within it, innermost first.
    pub path: Vec<String>,
    /// Whether a column is among them.
    pub column: bool,
}

pub(in crate::format) type Read<T> = Result<T, Box<Fault>>;

impl Fault {
    #[cold]
    pub(in crate::format) fn new(at: usize, why: &'static str) -> Box<Self> {
        Box::new(Self { at, why, path: Vec::new(), column: false })
    }

    /// The same, said of a column.
    #[cold]
    pub(in crate::format) fn of(mut self: Box<Self>, name: &str) -> Box<Self> {
        self.path.push(name.to_owned());
        self.column = true;
        self
    }

    /// The same, said of an object on the way to columns. Where one of them is named already, that says more.
    #[cold]
    pub(in crate::format) fn within(mut self: Box<Self>, name: &str) -> Box<Self> {
        if !self.column {
            self.path.push(name.to_owned());
        }
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.path.iter().rev().enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { "." })?;
        }
        write!(f, "{}{} at byte {}", if self.path.is_empty() { "" } else { ": " }, self.why, self.at)
    }
}

/// A string as it stands between its quotes.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    /// The bytes between the quotes: valid UTF-8, no control characters.
    pub raw: &'a [u8],
    /// Whether there are escapes in it, not yet looked at.
    pub escaped: bool,
    /// Where it begins.
    pub at: usize,
}

/// Names of objects that are passed over, to find one that comes twice. Kept between records for its memory.
#[derive(Debug, Default)]
pub(in crate::format) struct Names {
    /// Start and length of each name, in the value or (escaped names) in `decoded`.
    spans: Vec<Span>,
    decoded: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    len: usize,
    decoded: bool,
}

impl Names {
    fn clear(&mut self) {
        self.spans.clear();
        self.decoded.clear();
    }

    /// How many names there are: the mark that an object's own begin at.
    pub(super) const fn mark(&self) -> usize {
        self.spans.len()
    }

    /// Notes a name of the object that is being read.
    pub(super) fn push(&mut self, name: Text<'_>) -> Read<()> {
        if name.escaped {
            let start = self.decoded.len();
            unescape(name, &mut self.decoded)?;
            self.spans.push(Span { start, len: self.decoded.len() - start, decoded: true });
        } else {
            self.spans.push(Span { start: name.at, len: name.raw.len(), decoded: false });
        }
        Ok(())
    }

    /// Whether a name noted since `mark` came twice; forgets them.
    pub(super) fn close(&mut self, mark: usize, value: &[u8]) -> bool {
        let decoded = &self.decoded;
        let text = |span: &Span| -> &[u8] { &(if span.decoded { decoded } else { value })[span.start..span.start + span.len] };
        let own = &mut self.spans[mark..];
        let twice = if own.len() <= FEW_NAMES {
            own.iter().enumerate().any(|(i, a)| own[..i].iter().any(|b| a.len == b.len && text(a) == text(b)))
        } else {
            own.sort_unstable_by(|a, b| text(a).cmp(text(b)));
            own.windows(2).any(|pair| text(&pair[0]) == text(&pair[1]))
        };
        self.spans.truncate(mark);
        twice
    }
}

/// A place in the value of one record. Copied freely: what is called out of line gets a copy and answers
/// where it stopped, so that the place itself can stay in a register.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Scan<'a> {
    /// The start of a value.
    pub(super) fn new(bytes: &'a [u8], names: &mut Names) -> Self {
        names.clear();
        Self { bytes, pos: 0 }
    }

    /// Where it stands.
    #[inline(always)]
    pub(super) const fn pos(self) -> usize {
        self.pos
    }

    /// Goes on from `pos`.
    #[inline(always)]
    pub(super) const fn go_to(&mut self, pos: usize) {
        self.pos = pos;
    }

    /// The whole value.
    pub(super) const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The next byte behind any white space; 0 at the end, which is no token either.
    #[inline(always)]
    pub(super) fn peek(&mut self) -> u8 {
        loop {
            match self.bytes.get(self.pos) {
                Some(byte) if *byte > b' ' => return *byte,
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.pos += 1,
                Some(byte) => return *byte,
                None => return 0,
            }
        }
    }

    /// Passes the byte that [`Self::peek`] has shown.
    #[inline(always)]
    pub(super) const fn step(&mut self) {
        self.pos += 1;
    }

    /// A fault at this place.
    #[cold]
    pub(super) fn fault<T>(self, why: &'static str) -> Read<T> {
        Err(Fault::new(self.pos, why))
    }

    /// A fault at this place, or "cut off" where the value ends here.
    #[cold]
    pub(super) fn unexpected<T>(self, why: &'static str) -> Read<T> {
        self.fault(if self.pos >= self.bytes.len() { "the value is cut off" } else { why })
    }

    /// Passes `wanted` if it is what comes next.
    #[inline(always)]
    pub(super) fn take(&mut self, wanted: u8) -> bool {
        // Not `pos += usize::from(there)`: compilers up to 1.98 get a comparison wrong that is both counted
        // and branched on (rust-lang/rust#158206).
        if self.peek() == wanted {
            self.pos += 1;
            return true;
        }
        false
    }

    /// Passes the word, of which the first letter has been seen.
    #[inline(always)]
    pub(super) fn word(&mut self, word: &'static [u8]) -> Read<()> {
        if self.bytes[self.pos..].starts_with(word) {
            self.pos += word.len();
            return Ok(());
        }
        self.unexpected("expected a JSON value")
    }

    /// Takes the number that begins here. What is close to a number and none (NaN, 01, 1.) is a fault.
    #[inline(always)]
    pub(super) fn number(&mut self) -> Read<Number<'a>> {
        match number::take(&self.bytes[self.pos..]) {
            Some(number) => {
                self.pos += number.text.len();
                Ok(number)
            }
            None => self.fault("malformed number"),
        }
    }

    /// Takes the number that begins here if it is a short one without exponent.
    #[inline(always)]
    pub(super) fn short_number(&mut self) -> Option<Short> {
        let short = number::short(&self.bytes[self.pos..])?;
        self.pos += short.len;
        Some(short)
    }

    /// Takes the string whose opening quote has been passed.
    #[inline(always)]
    pub(super) fn string(&mut self) -> Read<Text<'a>> {
        let at = self.pos;
        let stop = next_special(self.bytes, at);
        if self.bytes.get(stop) == Some(&b'"') {
            self.pos = stop + 1;
            return Ok(Text { raw: &self.bytes[at..stop], escaped: false, at });
        }
        let text = self.long_string(stop)?;
        self.pos = at + text.raw.len() + 1;
        Ok(text)
    }

    /// The rest of a string that has more in it than plain ASCII; `stop` is where the first of that stands.
    fn long_string(self, mut stop: usize) -> Read<Text<'a>> {
        let at = self.pos;
        let (mut escaped, mut wide) = (false, false);
        loop {
            match self.bytes.get(stop) {
                None => return Err(Fault::new(self.bytes.len(), "the value is cut off")),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    // The escaped character, which may be a quote, is looked at by `walk`.
                    stop += 2;
                }
                Some(0x80..) => {
                    wide = true;
                    stop += 1;
                }
                Some(_) => return Err(Fault::new(stop, "a control character in a string")),
            }
            stop = next_special(self.bytes, stop);
        }
        let raw = &self.bytes[at..stop];
        if wide && simdutf8::basic::from_utf8(raw).is_err() {
            return Err(Fault::new(at, "a string that is not UTF-8"));
        }
        Ok(Text { raw, escaped, at })
    }

    /// Passes a whole value that nobody wants.
    #[inline(always)]
    pub(super) fn skip(&mut self, names: &mut Names, depth: u32) -> Read<()> {
        self.pos = self.skipped(names, depth)?;
        Ok(())
    }

    fn skipped(mut self, names: &mut Names, depth: u32) -> Read<usize> {
        match self.peek() {
            b'"' => {
                self.step();
                let text = self.string()?;
                if text.escaped {
                    check_escapes(text)?;
                }
            }
            b'-' | b'0'..=b'9' => {
                if self.short_number().is_none() {
                    self.number()?;
                }
            }
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            b'[' => {
                self.step();
                self.deeper(depth)?;
                if self.take(b']') {
                    return Ok(self.pos);
                }
                loop {
                    self.skip(names, depth + 1)?;
                    if self.end_of_item(b']')? {
                        break;
                    }
                }
            }
            b'{' => {
                self.step();
                self.deeper(depth)?;
                let (open, mark) = (self.pos, names.mark());
                if self.take(b'}') {
                    return Ok(self.pos);
                }
                loop {
                    if !self.take(b'"') {
                        return self.unexpected("expected a field's name");
                    }
                    let name = self.string()?;
                    names.push(name)?;
                    self.colon()?;
                    self.skip(names, depth + 1)?;
                    if self.end_of_item(b'}')? {
                        break;
                    }
                }
                if names.close(mark, self.bytes) {
                    return Err(Fault::new(open, "a field comes twice"));
                }
            }
            _ => return self.unexpected("expected a JSON value"),
        }
        Ok(self.pos)
    }

    /// Answers for a list or an object that opens at this depth.
    #[inline(always)]
    pub(super) fn deeper(self, depth: u32) -> Read<()> {
        if depth >= MAX_DEPTH { self.fault("nested too deep") } else { Ok(()) }
    }

    /// Passes the colon behind a name.
    #[inline(always)]
    pub(super) fn colon(&mut self) -> Read<()> {
        if self.take(b':') { Ok(()) } else { self.unexpected("expected a colon") }
    }

    /// Passes the comma behind an item (false) or the bracket that closes its list or object (true). What a
    /// comma promises is checked where it is read.
    #[inline(always)]
    pub(super) fn end_of_item(&mut self, close: u8) -> Read<bool> {
        let next = self.peek();
        if next == b',' {
            self.step();
            return Ok(false);
        }
        if next == close {
            self.step();
            return Ok(true);
        }
        self.unexpected("expected a comma or the end of the object or list")
    }

    /// Answers that nothing but white space is left.
    pub(super) fn end(&mut self) -> Read<()> {
        self.peek();
        if self.pos < self.bytes.len() { self.fault("bytes behind the object") } else { Ok(()) }
    }
}

/// The next byte from `pos` on that a string cannot simply hold: a quote, a backslash, a control character
/// or a byte beyond ASCII; the length of `bytes` where there is none. Eight at a time: the lowest bit set in
/// `found` is exact.
#[inline(always)]
fn next_special(bytes: &[u8], mut pos: usize) -> usize {
    while let Some(word) = bytes.get(pos..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * 0x22);
        let slash = word ^ (ONES * 0x5c);
        let found =
            ((quote.wrapping_sub(ONES) & !quote) | (slash.wrapping_sub(ONES) & !slash) | word.wrapping_sub(ONES * 0x20) | word) & HIGH;
        if found != 0 {
            return pos + found.trailing_zeros() as usize / 8;
        }
        pos += 8;
    }
    while let Some(byte) = bytes.get(pos) {
        if matches!(byte, b'"' | b'\\' | 0..=0x1f | 0x80..) {
            return pos;
        }
        pos += 1;
    }
    bytes.len()
}

/// Checks the escapes of a string that nobody wants.
fn check_escapes(text: Text<'_>) -> Read<()> {
    walk(text, &mut |_| {})
}

/// Puts what an escaped string says behind `out`. On a fault `out` may have a part of it.
pub(super) fn unescape(text: Text<'_>, out: &mut Vec<u8>) -> Read<()> {
    walk(text, &mut |piece| out.extend_from_slice(piece))
}

/// Hands out the pieces of a string, its escapes read.
fn walk(text: Text<'_>, put: &mut dyn FnMut(&[u8])) -> Read<()> {
    let mut rest = text.raw;
    loop {
        let Some(slash) = rest.iter().position(|b| *b == b'\\') else {
            put(rest);
            return Ok(());
        };
        put(&rest[..slash]);
        let at = text.at + (text.raw.len() - rest.len()) + slash;
        let bad = |why| Err(Fault::new(at, why));
        rest = &rest[slash + 1..];
        let Some((kind, behind)) = rest.split_first() else { return bad("malformed escape") };
        rest = behind;
        let plain = match kind {
            b'"' | b'\\' | b'/' => *kind,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let Some(unit) = hex(&mut rest) else { return bad("malformed escape") };
                let letter = match unit {
                    0xd800..=0xdbff => {
                        let low = rest.strip_prefix(b"\\u").and_then(|mut behind| {
                            let low = hex(&mut behind)?;
                            rest = behind;
                            (0xdc00..=0xdfff).contains(&low).then_some(low)
                        });
                        low.and_then(|low| char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)))
                    }
                    unit => char::from_u32(unit),
                };
                let Some(letter) = letter else { return bad("half a surrogate pair") };
                put(letter.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return bad("malformed escape"),
        };
        put(&[plain]);
    }
}

/// Takes four hexadecimal digits.
fn hex(rest: &mut &[u8]) -> Option<u32> {
    let (digits, behind) = rest.split_first_chunk::<4>()?;
    let mut unit = 0;
    for digit in digits {
        unit = unit << 4 | char::from(*digit).to_digit(16)?;
    }
    *rest = behind;
    Some(unit)
}
