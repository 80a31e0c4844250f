//! A small, fast, seeded random generator: a seed goes in, the same numbers come out everywhere.
//!
//! Not here: anything secret; nothing in a benchmark is.

/// xorshift64*: three shifts and one multiplication per number.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Seeds are scrambled first, so that neighbouring seeds give unrelated sequences.
    pub(crate) fn new(seed: u64) -> Self {
        let state = mix(seed);
        Self(if state == 0 { 0x9e37_79b9_7f4a_7c15 } else { state })
    }

    /// The next 64 bits.
    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not 0: multiply and shift, no division.
    #[inline]
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}

/// The finaliser of splitmix64: every input bit reaches every output bit.
#[inline]
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
