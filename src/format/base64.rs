//! Bytes as text: base64 in the standard alphabet (RFC 4648 section 4).
//!
//! Written with padding, read with or without it. Called by the JSON decoder and encoder for BYTES columns.

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Puts `bytes` behind `out`, in base64.
pub(super) fn write(out: &mut Vec<u8>, bytes: &[u8]) {
    for group in bytes.chunks(3) {
        let word = u32::from(group[0]) << 16 | u32::from(*group.get(1).unwrap_or(&0)) << 8 | u32::from(*group.get(2).unwrap_or(&0));
        for at in 0..4 {
            out.push(if at <= group.len() { LETTERS[(word >> (18 - 6 * at)) as usize & 63] } else { b'=' });
        }
    }
}

/// Puts the bytes that `text` stands for behind `out`. `None` where it is not base64; `out` may then have
/// some of them.
pub(super) fn read(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let bare = match text {
        [bare @ .., b'=', b'='] | [bare @ .., b'='] if text.len().is_multiple_of(4) => bare,
        bare => bare,
    };
    for group in bare.chunks(4) {
        let mut word: u32 = 0;
        for letter in group {
            word = word << 6 | u32::from(value(*letter)?);
        }
        let bits = group.len() * 6;
        // The bits behind the last whole byte must be none, so that a value has one spelling.
        if bits < 8 || word & ((1 << (bits % 8)) - 1) != 0 {
            return None;
        }
        word >>= bits % 8;
        for at in (0..bits / 8).rev() {
            out.push((word >> (8 * at)) as u8);
        }
    }
    Some(())
}

const fn value(letter: u8) -> Option<u8> {
    Some(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 4648 section 10.
    #[test]
    fn the_published_examples_are_written_and_read() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")]
        {
            let (mut out, mut back) = (Vec::new(), Vec::new());
            write(&mut out, plain.as_bytes());
            assert_eq!(out, coded.as_bytes());
            assert_eq!(read(&mut back, coded.trim_end_matches('=').as_bytes()), Some(()));
            assert_eq!(read(&mut back, coded.as_bytes()), Some(()));
            assert_eq!(back, [plain.as_bytes(), plain.as_bytes()].concat());
        }
    }

    #[test]
    fn every_byte_survives() {
        let bytes: Vec<u8> = (0..=255).collect();
        let (mut out, mut back) = (Vec::new(), Vec::new());
        write(&mut out, &bytes);
        assert_eq!(read(&mut back, &out), Some(()));
        assert_eq!(back, bytes);
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for bad in ["Z", "Zg=", "Zg===", "=", "====", "Zh==", "Zm9=", "Zm 9v", "Zm-_", "Z=g=", "Zm9vY"] {
            assert_eq!(read(&mut Vec::new(), bad.as_bytes()), None, "{bad}");
        }
    }
}
