//! Seeded chance for the tests of this room: numbers, short texts and bytes with the edge cases often.

use bytes::Bytes;

/// A small deterministic generator (SplitMix64, public domain by Sebastiano Vigna).
pub struct Chance(pub u64);

impl Chance {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.word() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// An integer that is often small, often an extreme once cut to its width.
    pub fn number(&mut self) -> i64 {
        match self.below(6) {
            0 => 0,
            1 => -1,
            2 => i64::MAX,
            3 => i64::MIN,
            4 => self.below(300) as i64,
            _ => self.word() as i64,
        }
    }

    pub fn text(&mut self) -> String {
        let length = if self.one_in(10) { 100 + self.below(200) } else { self.below(8) };
        (0..length).map(|_| ['a', 'Z', '9', '.', '_', 'é', '心'][self.below(7)]).collect()
    }

    pub fn bytes(&mut self) -> Bytes {
        let length = if self.one_in(6) { 200 + self.below(400) } else { self.below(12) };
        (0..length).map(|_| self.word() as u8).collect()
    }
}
