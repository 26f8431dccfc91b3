//! Numbers that are the same for the same seed.

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// From 0 to before `limit`.
    pub(crate) fn below(&mut self, limit: i64) -> i64 {
        (self.next() % limit.max(1).unsigned_abs()).cast_signed()
    }

    /// Exponentially distributed with this mean.
    pub(crate) fn around(&mut self, mean: i64) -> i64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (-(1.0 - unit).ln() * mean as f64) as i64
    }

    /// True so many times in ten thousand.
    pub(crate) fn happens(&mut self, per_myriad: i64) -> bool {
        self.below(10_000) < per_myriad
    }

    pub(crate) fn pick(&mut self, from: &[usize]) -> Option<usize> {
        from.get(self.below(from.len() as i64) as usize).copied()
    }
}
