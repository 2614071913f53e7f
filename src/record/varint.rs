//! Kafka's variable-length integers: zig-zag, seven bits a byte, least significant first.
//!
//! Reading takes from the front of a slice and never past its end. An encoding with more bits than the
//! type holds is refused. Padding within the type's longest form is not: the Java client reads it too.
//! Called by `batch` and `build`.

/// Takes one `varint` (32 bits) off the front. `None` where it is cut off or too long.
#[inline]
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<i32> {
    // One and two bytes are lengths up to 8191, which nearly all are.
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(unzigzag32(u32::from(first)));
    }
    if let Some((&second, rest)) = rest.split_first().filter(|(second, _)| **second < 0x80) {
        *bytes = rest;
        return Some(unzigzag32(u32::from(first & 0x7f) | u32::from(second) << 7));
    }
    take_varint_slow(bytes)
}

fn take_varint_slow(bytes: &mut &[u8]) -> Option<i32> {
    let mut value = 0u32;
    for (i, &byte) in bytes.iter().take(5).enumerate() {
        if i == 4 && byte > 0x0f {
            return None;
        }
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return Some(unzigzag32(value));
        }
    }
    None
}

/// Takes one `varlong` (64 bits) off the front. `None` where it is cut off or too long.
#[inline]
pub(super) fn take_varlong(bytes: &mut &[u8]) -> Option<i64> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(unzigzag64(u64::from(first)));
    }
    take_varlong_slow(bytes)
}

fn take_varlong_slow(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        if i == 9 && byte > 0x01 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return Some(unzigzag64(value));
        }
    }
    None
}

const fn unzigzag32(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

const fn unzigzag64(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

const fn zigzag64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Appends `value`. A `varint` and a `varlong` of the same value have the same bytes, so this is both.
#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag64(value);
    while rest >= 0x80 {
        out.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// How many bytes [`put_varint`] writes.
#[inline]
pub(super) const fn varint_len(value: i64) -> usize {
    let bits = 64 - (zigzag64(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_at_every_length_come_back() {
        for shift in 0..64 {
            for value in [1i64 << shift, (1i64 << shift).wrapping_sub(1), (1i64 << shift).wrapping_neg(), 0, -1, i64::MIN] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
                let mut rest = &out[..];
                assert_eq!(take_varlong(&mut rest), Some(value));
                assert!(rest.is_empty());
                let mut rest = &out[..];
                assert_eq!(take_varint(&mut rest), i32::try_from(value).ok(), "{value}");
            }
        }
    }

    #[test]
    fn a_cut_or_overlong_integer_is_refused_and_takes_nothing() {
        for bad in [&[][..], &[0x80], &[0xff, 0xff], &[0xff, 0xff, 0xff, 0xff, 0x10], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]] {
            let mut rest = bad;
            assert_eq!(take_varint(&mut rest), None, "{bad:?}");
            assert_eq!(rest, bad);
        }
        let mut rest = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..];
        assert_eq!(take_varlong(&mut rest), None);
    }
}
