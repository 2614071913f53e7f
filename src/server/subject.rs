//! The subject of a certificate as text, in the form of RFC 2253 that Kafka names principals by. Pure.
//!
//! Reads only as far into the certificate as the subject; the chain was verified before. Always: bytes that make no sense
//! are `None`, and nothing is read twice or beyond its length. Called by `tls`.

/// Kinds of value in DER.
mod tag {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const OID: u8 = 0x06;
    pub(super) const UTF8: u8 = 0x0c;
    pub(super) const PRINTABLE: u8 = 0x13;
    pub(super) const T61: u8 = 0x14;
    pub(super) const IA5: u8 = 0x16;
    pub(super) const BMP: u8 = 0x1e;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    pub(super) const VERSION: u8 = 0xa0;
}

/// Attributes that RFC 2253 has a name for; others go by their number.
const NAMES: &[(&[u8], &str)] = &[
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
];

/// One value in DER: its tag, its content, and the whole of it.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// Takes the next value off.
fn next<'a>(from: &mut &'a [u8]) -> Option<Element<'a>> {
    let bytes = *from;
    let (&tag, &first) = (bytes.first()?, bytes.get(1)?);
    let (length, at) = match first {
        0..=0x7f => (usize::from(first), 2),
        0x81..=0x84 => {
            let count = usize::from(first & 0x7f);
            let length = bytes.get(2..2 + count)?.iter().fold(0_usize, |n, byte| (n << 8) | usize::from(*byte));
            (length, 2 + count)
        }
        _ => return None,
    };
    let end = at.checked_add(length)?;
    let content = bytes.get(at..end)?;
    *from = &bytes[end..];
    Some(Element { tag, content, whole: &bytes[..end] })
}

fn expect<'a>(from: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    next(from).filter(|element| element.tag == tag).map(|element| element.content)
}

/// The subject of a certificate in DER.
pub(super) fn of_certificate(der: &[u8]) -> Option<String> {
    let mut certificate = der;
    let mut certificate = expect(&mut certificate, tag::SEQUENCE)?;
    let mut signed = expect(&mut certificate, tag::SEQUENCE)?;
    let mut first = next(&mut signed)?;
    if first.tag == tag::VERSION {
        first = next(&mut signed)?;
    }
    if first.tag != tag::INTEGER {
        return None;
    }
    // The algorithm, the issuer, and from when to when.
    for _ in 0..3 {
        expect(&mut signed, tag::SEQUENCE)?;
    }
    name(expect(&mut signed, tag::SEQUENCE)?)
}

/// A distinguished name, the last part first.
fn name(mut sequence: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    while !sequence.is_empty() {
        let mut set = expect(&mut sequence, tag::SET)?;
        let mut together = Vec::new();
        while !set.is_empty() {
            let mut pair = expect(&mut set, tag::SEQUENCE)?;
            let oid = expect(&mut pair, tag::OID)?;
            let value = next(&mut pair)?;
            together.push(attribute(oid, &value)?);
        }
        parts.push(together.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn attribute(oid: &[u8], value: &Element<'_>) -> Option<String> {
    let known = NAMES.iter().find(|(bytes, _)| *bytes == oid).map(|(_, name)| *name);
    match (known, text(value)) {
        (Some(name), Some(text)) => Some(format!("{name}={}", escaped(&text))),
        // The bytes stand for what has no name or is no text.
        (name, _) => {
            let hex: String = value.whole.iter().map(|byte| format!("{byte:02x}")).collect();
            Some(format!("{}=#{hex}", name.map_or_else(|| dotted(oid), |name| Some(name.to_owned()))?))
        }
    }
}

fn text(value: &Element<'_>) -> Option<String> {
    match value.tag {
        tag::UTF8 | tag::PRINTABLE | tag::IA5 => String::from_utf8(value.content.to_vec()).ok(),
        tag::T61 => Some(value.content.iter().map(|byte| char::from(*byte)).collect()),
        tag::BMP => {
            let units: Vec<u16> = value.content.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    }
}

fn escaped(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        let at_an_end = (at == 0 && matches!(c, ' ' | '#')) || (at == last && c == ' ');
        if at_an_end || matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// An object identifier as numbers with dots.
fn dotted(oid: &[u8]) -> Option<String> {
    let mut numbers = Vec::new();
    let mut number = 0_u64;
    for byte in oid {
        number = number.checked_shl(7)?.checked_add(u64::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            numbers.push(number);
            number = 0;
        }
    }
    let first = *numbers.first()?;
    let root = (first / 40).min(2);
    let rest = numbers[1..].iter().map(u64::to_string);
    Some([root.to_string(), (first - root * 40).to_string()].into_iter().chain(rest).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        match content.len() {
            n @ 0..=0x7f => out.push(n as u8),
            n => out.extend([0x82, (n >> 8) as u8, n as u8]),
        }
        out.extend(content);
        out
    }

    fn part(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        der(tag::SET, &der(tag::SEQUENCE, &[der(tag::OID, oid), der(tag, value)].concat()))
    }

    fn certificate(subject: &[Vec<u8>], version: bool) -> Vec<u8> {
        let empty = der(tag::SEQUENCE, &[]);
        let version = if version { der(tag::VERSION, &der(tag::INTEGER, &[2])) } else { Vec::new() };
        let subject = der(tag::SEQUENCE, &subject.concat());
        let signed = [version, der(tag::INTEGER, &[1; 16]), empty.clone(), empty.clone(), empty.clone(), subject, empty].concat();
        der(tag::SEQUENCE, &der(tag::SEQUENCE, &signed))
    }

    #[test]
    fn a_subject_is_told_from_the_last_part_to_the_first() {
        let c = part(&[0x55, 4, 6], tag::PRINTABLE, b"DE");
        let o = part(&[0x55, 4, 10], tag::UTF8, "Klinik Süd, \"A\"".as_bytes());
        let cn = part(&[0x55, 4, 3], tag::UTF8, b"alice");
        let email = part(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], tag::IA5, b"a@b");
        let want = r#"CN=alice,O=Klinik Süd\, \"A\",C=DE"#;
        for version in [false, true] {
            assert_eq!(of_certificate(&certificate(&[c.clone(), o.clone(), cn.clone()], version)).as_deref(), Some(want));
        }
        assert_eq!(of_certificate(&certificate(&[cn, email], true)).as_deref(), Some("1.2.840.113549.1.9.1=#1603614062,CN=alice"));
        assert_eq!(of_certificate(&certificate(&[], true)).as_deref(), Some(""));
    }

    #[test]
    fn bytes_that_are_no_certificate_are_none_wherever_they_break() {
        let whole = certificate(&[part(&[0x55, 4, 3], tag::UTF8, &[b'x'; 200])], true);
        assert!(of_certificate(&whole).is_some());
        for end in 0..whole.len() - 2 {
            assert_eq!(of_certificate(&whole[..end]), None);
        }
        for at in 0..whole.len() {
            for byte in [0x00, 0x80, 0x84, 0xff] {
                let mut broken = whole.clone();
                broken[at] = byte;
                // Whatever comes out, it comes out.
                let _ = of_certificate(&broken);
            }
        }
    }

    #[test]
    fn what_would_be_read_as_syntax_is_escaped() {
        assert_eq!(escaped(" #a "), r"\ #a\ ");
        assert_eq!(escaped("#a+b;c\\"), r"\#a\+b\;c\\");
    }
}
