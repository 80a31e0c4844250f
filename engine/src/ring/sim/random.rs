//! Turns one seed into the stream of choices that a simulation makes.
//!
//! Data flow: seed → [`Random`] → every draw of the kernel, the workload and the checker.
//! SplitMix64: one addition and three mixes per draw, and any seed is a good one.
//!
//! Not here: what is decided by a draw (`kernel`, `device`).

/// A small generator of pseudo-random numbers. Equal seeds give equal streams, on every machine.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Starts a stream.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Starts an independent stream, so that more draws here do not shift the draws there.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self { state: self.bits() }
    }

    /// 64 even bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        let product = (self.bits() >> 32) * u64::from(bound);
        (product >> 32) as u32
    }

    /// A number in `low..=high`.
    ///
    /// # Panics
    /// When `high < low`.
    #[inline]
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        assert!(low <= high, "an empty range has no number in it");
        low + self.below((high - low).saturating_add(1))
    }

    /// True `rate` times in 65,536.
    #[inline]
    pub fn chance(&mut self, rate: u16) -> bool {
        rate != 0 && (self.bits() >> 48) < u64::from(rate)
    }

    /// True every `n`th time on average; never for 0.
    #[inline]
    pub fn one_in(&mut self, n: u32) -> bool {
        n != 0 && self.below(n) == 0
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// When there is nothing to choose from.
    #[inline]
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let count = u32::try_from(choices.len()).expect("a list of choices is short");
        choices[self.below(count) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn equal_seeds_give_equal_streams() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        assert!((0..1000).all(|_| a.bits() == b.bits()));
        assert_ne!(Random::new(7).bits(), Random::new(8).bits());
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut random = Random::new(1);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[random.below(5) as usize] = true;
            assert!((3..=4).contains(&random.between(3, 4)));
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.below(0), 0);
        assert!(!random.chance(0));
    }
}
