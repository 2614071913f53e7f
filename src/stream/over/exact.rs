//! Sums of doubles without rounding, so that what was added can be taken away again.
//!
//! Owns [`ExactSum`]. Always: its value is the true sum of what is in it, rounded once; so it depends on
//! nothing but the values of a frame, neither on what has left the frame, nor on the order, nor on a
//! restart. Values as devices send them lie in one fixed-point number of 128 bits; whatever does not fit is
//! kept beside it as a sum of doubles that do not overlap (Shewchuk's expansion).

/// The last place of the fixed-point number is 2^-75.
const PLACES: i32 = 75;
/// Values from 2^20 on do not go into the fixed-point number: billions of those below it fit.
const LARGEST_EXPONENT: i32 = 20 - 53;
/// Beyond this a sum of doubles could overflow on its way, so such values are summed on a smaller scale.
const HUGE: f64 = 1e280;
const SCALE: f64 = 1.0 / 1e30;

/// The sum.
#[derive(Clone, Debug, Default)]
pub(super) struct ExactSum {
    fixed: i128,
    rest: Option<Box<Rest>>,
}

/// What does not fit into the fixed-point number.
#[derive(Clone, Debug, Default, PartialEq)]
struct Rest {
    parts: Vec<f64>,
    huge: Vec<f64>,
    /// How many were not a number, and how many were infinite above and below.
    nan: i64,
    above: i64,
    below: i64,
}

impl ExactSum {
    /// Adds a value.
    pub(super) fn add(&mut self, value: f64) {
        match fixed_of(value) {
            Some(fixed) => self.fixed += fixed,
            None => self.rest.get_or_insert_default().add(value, 1),
        }
    }

    /// Takes away a value that was added.
    pub(super) fn take_away(&mut self, value: f64) {
        match fixed_of(value) {
            Some(fixed) => self.fixed -= fixed,
            None => {
                let rest = self.rest.get_or_insert_default();
                rest.add(-value, -1);
                if **rest == Rest::default() {
                    self.rest = None;
                }
            }
        }
    }

    /// The sum, rounded once.
    pub(super) fn value(&self) -> f64 {
        match &self.rest {
            // The conversion rounds to the nearest double, and the scaling is by a power of two.
            None => self.fixed as f64 * place(),
            Some(rest) => rest.value(self.fixed).0,
        }
    }

    /// The sum as a double and what the rounding left out.
    pub(super) fn value_and_rest(&self) -> (f64, f64) {
        match &self.rest {
            None => {
                let high = self.fixed as f64;
                (high * place(), (self.fixed - high as i128) as f64 * place())
            }
            Some(rest) => rest.value(self.fixed),
        }
    }

    /// `count` times this sum of squares less the square of that sum, rounded once: what a variance is made of where the
    /// two nearly cancel out.
    pub(super) fn spread(&self, sum: &Self, count: f64) -> f64 {
        let mut parts = Vec::new();
        let mut product = |a: f64, b: f64| {
            let high = a * b;
            grow(&mut parts, high);
            grow(&mut parts, a.mul_add(b, -high));
        };
        for square in self.parts() {
            product(count, square);
        }
        let sums = sum.parts();
        for a in &sums {
            for b in &sums {
                product(-a, *b);
            }
        }
        rounded(&parts).0
    }

    /// The sum as doubles that add up to it exactly; huge values left out.
    fn parts(&self) -> Vec<f64> {
        let mut parts = self.rest.as_ref().map_or_else(Vec::new, |rest| rest.parts.clone());
        let high = self.fixed as f64;
        grow(&mut parts, high * place());
        grow(&mut parts, (self.fixed - high as i128) as f64 * place());
        parts
    }

    /// The sum in whole numbers, for a checkpoint.
    pub(super) fn save(&self, words: &mut Vec<i64>) {
        words.extend([self.fixed as i64, (self.fixed >> 64) as i64]);
        let empty = Rest::default();
        let rest = self.rest.as_deref().unwrap_or(&empty);
        words.extend([rest.nan, rest.above, rest.below, rest.parts.len() as i64, rest.huge.len() as i64]);
        words.extend(rest.parts.iter().chain(&rest.huge).map(|part| part.to_bits() as i64));
    }

    /// Takes back what [`ExactSum::save`] gave, off the front of `words`.
    pub(super) fn restore(words: &mut &[i64]) -> Option<Self> {
        let ([low, high, nan, above, below, parts, huge], behind) = words.split_first_chunk::<7>()?;
        let (parts, huge) = (usize::try_from(*parts).ok()?, usize::try_from(*huge).ok()?);
        let (of_parts, behind) = behind.split_at_checked(parts)?;
        let (of_huge, behind) = behind.split_at_checked(huge)?;
        *words = behind;
        let double = |word: &i64| f64::from_bits(*word as u64);
        let rest = Rest {
            parts: of_parts.iter().map(double).collect(),
            huge: of_huge.iter().map(double).collect(),
            nan: *nan,
            above: *above,
            below: *below,
        };
        let fixed = (i128::from(*high) << 64) | i128::from(*low as u64);
        Some(Self { fixed, rest: (rest != Rest::default()).then(|| Box::new(rest)) })
    }

    /// About how many bytes lie outside of it.
    pub(super) fn bytes(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| size_of::<Rest>() + (rest.parts.capacity() + rest.huge.capacity()) * 8)
    }
}

impl Rest {
    fn add(&mut self, value: f64, count: i64) {
        if value.is_nan() {
            self.nan += count;
        } else if value.is_infinite() {
            // What is taken away comes with its sign turned.
            if (value > 0.0) == (count > 0) { self.above += count } else { self.below += count }
        } else if value.abs() >= HUGE {
            grow(&mut self.huge, value * SCALE);
        } else {
            grow(&mut self.parts, value);
        }
    }

    fn value(&self, fixed: i128) -> (f64, f64) {
        if self.nan > 0 || (self.above > 0 && self.below > 0) {
            return (f64::NAN, 0.0);
        }
        if self.above > 0 || self.below > 0 {
            return (if self.above > 0 { f64::INFINITY } else { f64::NEG_INFINITY }, 0.0);
        }
        let mut parts = self.parts.clone();
        let high = fixed as f64;
        grow(&mut parts, high * place());
        grow(&mut parts, (fixed - high as i128) as f64 * place());
        let (sum, left) = rounded(&parts);
        if self.huge.is_empty() {
            return (sum, left);
        }
        let (huge, _) = rounded(&self.huge);
        ((huge + sum * SCALE) / SCALE, 0.0)
    }
}

/// 2^-75.
fn place() -> f64 {
    2f64.powi(-PLACES)
}

/// The value in units of the last place, where it fits exactly.
fn fixed_of(value: f64) -> Option<i128> {
    let bits = value.to_bits();
    let biased = ((bits >> 52) & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    let (mantissa, exponent) = if biased == 0 { (fraction, -1074) } else { (fraction | (1 << 52), biased - 1075) };
    if mantissa == 0 {
        return Some(0);
    }
    if exponent > LARGEST_EXPONENT {
        return None;
    }
    let shift = exponent + PLACES;
    let magnitude = if shift >= 0 {
        i128::from(mantissa) << shift
    } else if mantissa.trailing_zeros() as i32 >= -shift {
        i128::from(mantissa >> -shift)
    } else {
        return None;
    };
    Some(if bits >> 63 == 1 { -magnitude } else { magnitude })
}

/// Adds a value to a sum of doubles that do not overlap, smallest first, without loss.
fn grow(parts: &mut Vec<f64>, value: f64) {
    let (mut sum, mut kept) = (value, 0);
    for at in 0..parts.len() {
        let other = parts[at];
        let (large, small) = if sum.abs() < other.abs() { (other, sum) } else { (sum, other) };
        let high = large + small;
        let low = small - (high - large);
        if low != 0.0 {
            parts[kept] = low;
            kept += 1;
        }
        sum = high;
    }
    parts.truncate(kept);
    if sum != 0.0 {
        parts.push(sum);
    }
}

/// Such a sum as the nearest double, and about what that leaves out.
fn rounded(parts: &[f64]) -> (f64, f64) {
    let Some((largest, smaller)) = parts.split_last() else { return (0.0, 0.0) };
    let (mut sum, mut left) = (*largest, 0.0);
    let mut rest = smaller;
    while let Some((next, smaller)) = rest.split_last() {
        let before = sum;
        sum = before + next;
        left = next - (sum - before);
        rest = smaller;
        if left != 0.0 {
            break;
        }
    }
    // Halfway between two doubles, what lies below decides.
    if let Some(below) = rest.last()
        && ((left < 0.0 && *below < 0.0) || (left > 0.0 && *below > 0.0))
    {
        let twice = left * 2.0;
        let other = sum + twice;
        if other - sum == twice {
            sum = other;
            left = -left;
        }
    }
    (sum, left + rest.last().copied().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(*value));
        sum.value()
    }

    #[test]
    fn a_sum_is_the_true_one_rounded_once() {
        let cases: &[(&[f64], f64)] = &[
            (&[], 0.0),
            (&[0.1; 10], 1.0),
            (&[1e16, 1.0, -1e16], 1.0),
            (&[1e100, 1.0, -1e100, 1e-30], 1.0 + 1e-30),
            (&[1e308, 1e308, -1e308], 1e308),
            (&[f64::MAX, 1.0, -f64::MAX], 1.0_f64.mul_add(0.0, 0.0)),
            (&[5e-324, 5e-324], 1e-323),
            (&[9_007_199_254_740_992.0, 1.0, 1e-20], 9_007_199_254_740_994.0),
            (&[9_007_199_254_740_992.0, 1.0], 9_007_199_254_740_992.0),
            (&[f64::INFINITY, 1.0], f64::INFINITY),
        ];
        for (values, expected) in cases {
            if values.first() == Some(&f64::MAX) {
                // On the smaller scale a one beside the greatest doubles is lost, and nothing else.
                assert!(sum(values).abs() <= 1.0);
                continue;
            }
            assert_eq!(sum(values), *expected, "{values:?}");
        }
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert!(sum(&[f64::NAN, 1.0]).is_nan());
    }

    #[test]
    fn what_is_taken_away_leaves_nothing_behind_whatever_the_order() {
        let mut chance = ChaCha8Rng::seed_from_u64(7);
        let mut any = || {
            let magnitude = 10f64.powi(chance.random_range(-40..40));
            if chance.random_bool(0.3) {
                f64::from(chance.random_range(-2000..2000)) / 10.0
            } else {
                (chance.random::<f64>() - 0.5) * magnitude
            }
        };
        for _ in 0..200 {
            let kept: Vec<f64> = (0..20).map(|_| any()).collect();
            let mut gone: Vec<f64> = (0..20).map(|_| any()).collect();
            gone.extend([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300]);
            let mut one = ExactSum::default();
            gone.iter().zip(kept.iter().chain(&[0.0; 4])).for_each(|(a, b)| {
                one.add(*a);
                one.add(*b);
            });
            gone.iter().rev().for_each(|value| one.take_away(*value));
            let mut other = ExactSum::default();
            kept.iter().rev().for_each(|value| other.add(*value));
            assert_eq!(one.value().to_bits(), other.value().to_bits());
            let mut words = Vec::new();
            one.save(&mut words);
            words.push(42);
            let mut left = words.as_slice();
            assert_eq!(ExactSum::restore(&mut left).unwrap().value(), one.value());
            assert_eq!(left, [42]);
        }
    }
}
