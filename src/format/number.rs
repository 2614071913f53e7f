//! Numbers as JSON writes them: cut out by their grammar, then read as what the column wants.
//!
//! Always: a number that is handed out keeps to JSON's grammar, and its value is the nearest the type can
//! hold, or the reading is refused; nothing is cut off or rounded to fit an integer or a decimal. Called
//! per value by the JSON decoder, so nothing here allocates.

/// Powers of ten that a double holds exactly.
const EXACT_TENS: [f64; 23] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22];

/// A number in its written parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a> {
    /// The text.
    pub text: &'a [u8],
    /// Whether it has a minus sign.
    pub negative: bool,
    /// All its digits as one integer, where they are at most 18; the value is this times ten to `exponent`.
    pub mantissa: u64,
    /// How many digits there are in front of the exponent, leading zeros aside.
    pub digits: u32,
    /// The written exponent less the digits behind the point.
    pub exponent: i64,
    /// Whether it was written without point and exponent.
    pub plain: bool,
}

/// Takes the number at the front of `bytes`. `None` where JSON's grammar is broken; what may follow a
/// number is the caller's to check.
#[inline]
pub(super) fn take(bytes: &[u8]) -> Option<Number<'_>> {
    let negative = bytes.first() == Some(&b'-');
    let start = usize::from(negative);
    let mut pos = start;
    let mut mantissa: u64 = 0;
    while let Some(digit) = digit_at(bytes, pos) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(digit);
        pos += 1;
    }
    let whole = pos - start;
    // JSON has no leading zeros: 0 stands alone in front of the point.
    if whole == 0 || (whole > 1 && bytes[start] == b'0') {
        return None;
    }
    let mut digits = if bytes[start] == b'0' { 0 } else { whole };
    let mut exponent: i64 = 0;
    let mut plain = true;
    if bytes.get(pos) == Some(&b'.') {
        plain = false;
        let point = pos + 1;
        pos = point;
        while let Some(digit) = digit_at(bytes, pos) {
            if mantissa != 0 || digit != 0 || digits > 0 {
                digits += 1;
            }
            mantissa = mantissa.wrapping_mul(10).wrapping_add(digit);
            pos += 1;
        }
        if pos == point {
            return None;
        }
        exponent = -((pos - point) as i64);
    }
    if matches!(bytes.get(pos), Some(b'e' | b'E')) {
        plain = false;
        pos += 1;
        let down = bytes.get(pos) == Some(&b'-');
        if down || bytes.get(pos) == Some(&b'+') {
            pos += 1;
        }
        let first = pos;
        let mut written: i64 = 0;
        while let Some(digit) = digit_at(bytes, pos) {
            // Held where it no longer matters: the value is 0 or far out of any range.
            written = (written * 10 + digit as i64).min(1_000_000_000);
            pos += 1;
        }
        if pos == first {
            return None;
        }
        exponent += if down { -written } else { written };
    }
    let digits = u32::try_from(digits).unwrap_or(u32::MAX);
    Some(Number { text: &bytes[..pos], negative, mantissa, digits, exponent, plain })
}

/// A number of at most 15 digits without exponent, as nearly all readings are.
#[derive(Clone, Copy)]
pub(super) struct Short {
    negative: bool,
    /// All its digits as one integer.
    mantissa: u64,
    /// How many of them stand behind the point.
    behind: usize,
    /// Whether there is a point.
    pub plain: bool,
    /// How many bytes it has.
    pub len: usize,
}

impl Short {
    /// The nearest double.
    #[inline(always)]
    pub(super) fn double(self) -> f64 {
        // Both are exact, so the one rounding is the right one.
        let size = if self.behind == 0 { self.mantissa as f64 } else { self.mantissa as f64 / EXACT_TENS[self.behind] };
        if self.negative { -size } else { size }
    }

    /// The value, where it was written without a point.
    #[inline(always)]
    pub(super) const fn integer(self) -> i64 {
        if self.negative { -(self.mantissa as i64) } else { self.mantissa as i64 }
    }
}

/// Takes the number at the front of `bytes` if it is a short one. `None` says nothing about longer ones.
#[inline(always)]
pub(super) fn short(bytes: &[u8]) -> Option<Short> {
    let negative = bytes.first() == Some(&b'-');
    let start = usize::from(negative);
    let mut pos = start;
    let mut mantissa: u64 = 0;
    while let Some(digit) = digit_at(bytes, pos) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(digit);
        pos += 1;
    }
    let whole = pos - start;
    if whole == 0 || (whole > 1 && bytes[start] == b'0') {
        return None;
    }
    let (mut behind, mut plain) = (0, true);
    if bytes.get(pos) == Some(&b'.') {
        plain = false;
        pos += 1;
        while let Some(digit) = digit_at(bytes, pos) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(digit);
            pos += 1;
            behind += 1;
        }
        if behind == 0 {
            return None;
        }
    }
    if whole + behind > 15 || matches!(bytes.get(pos), Some(b'e' | b'E')) {
        return None;
    }
    Some(Short { negative, mantissa, behind, plain, len: pos })
}

#[inline(always)]
fn digit_at(bytes: &[u8], pos: usize) -> Option<u64> {
    let digit = bytes.get(pos)?.wrapping_sub(b'0');
    (digit < 10).then_some(u64::from(digit))
}

impl Number<'_> {
    /// The nearest double; `None` where that would be infinite.
    #[inline]
    pub(super) fn double(&self) -> Option<f64> {
        // Clinger's fast path: both factors are exact, so the one rounding is the right one.
        if self.digits <= 18 && self.mantissa < 1 << 53 && (-22..=22).contains(&self.exponent) {
            let ten = EXACT_TENS[self.exponent.unsigned_abs() as usize];
            let size = if self.exponent < 0 { self.mantissa as f64 / ten } else { self.mantissa as f64 * ten };
            return Some(if self.negative { -size } else { size });
        }
        let value: f64 = std::str::from_utf8(self.text).ok()?.parse().ok()?;
        value.is_finite().then_some(value)
    }

    /// The nearest single; `None` where that would be infinite.
    pub(super) fn single(&self) -> Option<f32> {
        let value: f32 = std::str::from_utf8(self.text).ok()?.parse().ok()?;
        value.is_finite().then_some(value)
    }

    /// The value as an integer; `None` where it is none, or does not fit. `1.0` and `1e2` are integers.
    #[inline]
    pub(super) fn integer(&self) -> Option<i64> {
        if self.plain && self.digits <= 18 {
            let size = self.mantissa as i64;
            return Some(if self.negative { -size } else { size });
        }
        i64::try_from(self.scaled(0)?).ok()
    }

    /// The value times ten to `scale`, where that is an integer that fits.
    pub(super) fn scaled(&self, scale: i64) -> Option<i128> {
        let (size, cut) = self.shifted(scale)?;
        (!cut).then_some(size)
    }

    /// The value times ten to `scale`, digits behind the point cut off towards minus infinity.
    pub(super) fn scaled_down(&self, scale: i64) -> Option<i128> {
        let (size, cut) = self.shifted(scale)?;
        Some(if cut && self.negative { size - 1 } else { size })
    }

    /// The value times ten to `scale`, cut towards zero, and whether anything was cut.
    fn shifted(&self, scale: i64) -> Option<(i128, bool)> {
        let mut size: i128 = 0;
        let digits = self.text.iter().take_while(|b| !matches!(b, b'e' | b'E')).filter(|b| b.is_ascii_digit()).map(|b| b - b'0');
        let count = self.text.iter().take_while(|b| !matches!(b, b'e' | b'E')).filter(|b| b.is_ascii_digit()).count();
        let shift = self.exponent + scale;
        // Digits from this place on lie behind the point.
        let keep = if shift < 0 { i64::try_from(count).ok()? + shift } else { i64::MAX };
        let mut cut = false;
        for (at, digit) in digits.enumerate() {
            if (at as i64) < keep {
                size = size.checked_mul(10)?.checked_add(i128::from(digit))?;
            } else {
                cut |= digit != 0;
            }
        }
        if shift > 0 && size != 0 {
            size = size.checked_mul(10_i128.checked_pow(u32::try_from(shift).ok()?)?)?;
        }
        Some((if self.negative { -size } else { size }, cut))
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn whole(text: &str) -> Option<Number<'_>> {
        take(text.as_bytes()).filter(|n| n.text.len() == text.len())
    }

    #[test]
    fn the_grammar_is_jsons() {
        for good in ["0", "-0", "7", "80.0", "0.5", "-0.001", "1e5", "1E+05", "1.5e-3", "123456789012345678901234567890", "0e0", "0.0e-0"] {
            assert!(whole(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "-",
            "+1",
            "01",
            "-01",
            "00",
            "1.",
            ".5",
            "1e",
            "1e+",
            "1.e5",
            "0x10",
            "NaN",
            "Infinity",
            "-Infinity",
            "1_000",
            "1,5",
            "--1",
            "1.5.5",
        ] {
            assert!(whole(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn doubles_are_those_of_the_standard_library() {
        let mut chance = rand::rngs::StdRng::seed_from_u64(11);
        for _ in 0..200_000 {
            let digits = chance.random_range(1..24);
            let mut text = if chance.random_bool(0.3) { "-".to_owned() } else { String::new() };
            let mut number: String = (0..digits).map(|_| char::from(b'0' + chance.random_range(0..10_u8))).collect();
            if chance.random_bool(0.6) {
                let at = chance.random_range(0..=number.len());
                number.insert(at, '.');
            }
            text.push_str(&number);
            if chance.random_bool(0.4) {
                text.push_str(&format!("e{}", chance.random_range(-330..310)));
            }
            let Some(number) = whole(&text) else { continue };
            let expected: f64 = text.parse().unwrap();
            let expected = expected.is_finite().then_some(expected.to_bits());
            assert_eq!(number.double().map(f64::to_bits), expected, "{text}");
            if let Some(short) = short(text.as_bytes()) {
                assert_eq!(short.len, text.len());
                assert_eq!(Some(short.double().to_bits()), expected, "{text}");
                assert_eq!(short.plain.then(|| short.integer()), number.plain.then(|| number.integer()).flatten(), "{text}");
            }
            let expected: f32 = text.parse().unwrap();
            assert_eq!(number.single().map(f32::to_bits), expected.is_finite().then_some(expected.to_bits()), "{text}");
        }
    }

    #[test]
    fn an_integer_may_be_written_with_zeros_behind_the_point_and_with_nothing_else() {
        let integer = |text: &str| whole(text).unwrap().integer();
        for (text, value) in [
            ("0", 0),
            ("-0", 0),
            ("42", 42),
            ("-7", -7),
            ("1.0", 1),
            ("1e2", 100),
            ("2500e-2", 25),
            ("0e99", 0),
            ("0.0e-99", 0),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("1000000000000000000", 1_000_000_000_000_000_000),
        ] {
            assert_eq!(integer(text), Some(value), "{text}");
        }
        for text in [
            "1.5",
            "-0.1",
            "9223372036854775808",
            "-9223372036854775809",
            "1e-1",
            "1e30",
            "1e999999999999",
            "99999999999999999999999999999999999999999999",
        ] {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    #[test]
    fn scaling_is_exact_or_cut_towards_the_past() {
        let number = |text| whole(text).unwrap();
        assert_eq!(number("12.345").scaled(3), Some(12_345));
        assert_eq!(number("12.345").scaled(2), None);
        assert_eq!(number("12.340").scaled(2), Some(1_234));
        assert_eq!(number("1700000000.1239").scaled_down(3), Some(1_700_000_000_123));
        assert_eq!(number("-0.0001").scaled_down(3), Some(-1));
        assert_eq!(number("-0.0001").scaled_down(0), Some(-1));
        assert_eq!(number("0.0001").scaled_down(0), Some(0));
        assert_eq!(number("1e-400").scaled_down(3), Some(0));
        assert_eq!(number("1e400").scaled_down(3), None);
        assert_eq!(number("12e1").scaled(0), Some(120));
    }
}
