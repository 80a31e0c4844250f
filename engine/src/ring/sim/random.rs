//! Turns one seed into the stream of choices that a simulation makes.
//!
//! Data flow: seed → [`Random`] → every draw of the kernel, the workload and the checker.
//! SplitMix64: one addition and three mixes per draw, and any seed is a good one.
//!
//! In script mode the same calls are decisions that [`Choices`] enumerates.
//!
//! Not here: what is decided by a draw (`kernel`, `device`).

use super::choices::Choices;

/// A small generator of pseudo-random numbers. Equal seeds give equal streams, on every machine.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    /// Asked instead of drawing, where every run is to be seen.
    script: Option<Choices>,
}

/// What 64 bits are in script mode, but for a count in the lower half: the middle, so that
/// nothing is immediate, and no two ops take the same time.
const SCRIPTED_BITS: u64 = 0x8000_0000_8000_0000;

/// In script mode, something with at least this rate belongs to another fault: it is free.
const COIN_RATE: u16 = 1 << 15;

/// In script mode, the most numbers of a range that are all tried; of more, the two ends.
const SCRIPTED_SPAN: u32 = 3;

impl Random {
    /// Starts a stream.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed, script: None }
    }

    pub(super) const fn scripted(script: Choices) -> Self {
        Self { state: 0, script: Some(script) }
    }

    /// Starts an independent stream, so that more draws here do not shift the draws there.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self { state: self.bits(), script: self.script.clone() }
    }

    /// 64 even bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        if self.script.is_some() {
            self.state += 1;
            return SCRIPTED_BITS | ((self.state & 0xfff) << 16);
        }
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
        if let Some(script) = &self.script {
            return match high - low {
                span if span < SCRIPTED_SPAN => low + script.coin(span + 1),
                _ => [low, high][script.coin(2) as usize],
            };
        }
        low + self.below((high - low).saturating_add(1))
    }

    /// True `rate` times in 65,536.
    #[inline]
    pub fn chance(&mut self, rate: u16) -> bool {
        if let Some(script) = &self.script {
            return match rate {
                0 => false,
                COIN_RATE.. => script.coin(2) == 1,
                _ => script.fault(2) == 1,
            };
        }
        rate != 0 && (self.bits() >> 48) < u64::from(rate)
    }

    /// True every `n`th time on average; never for 0.
    #[inline]
    pub fn one_in(&mut self, n: u32) -> bool {
        if let Some(script) = &self.script {
            return n != 0 && script.coin(2) == 1;
        }
        n != 0 && self.below(n) == 0
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// When there is nothing to choose from.
    #[inline]
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let count = u32::try_from(choices.len()).expect("a list of choices is short");
        if let Some(script) = &self.script {
            return choices[script.coin(count) as usize];
        }
        choices[self.below(count) as usize]
    }

    /// Which of several things happens, each `rates[n]` times in 65,536, or none. Takes one draw
    /// unless all rates are 0.
    #[inline]
    pub fn which<const N: usize>(&mut self, rates: [u16; N]) -> Option<usize> {
        if self.script.is_some() {
            return self.which_scripted(&rates);
        }
        let total: u32 = rates.iter().map(|rate| u32::from(*rate)).sum();
        if total == 0 {
            return None;
        }
        let mut drawn = self.below(1 << 16);
        if drawn >= total {
            return None;
        }
        rates.iter().position(|rate| {
            let hit = drawn < u32::from(*rate);
            drawn = drawn.wrapping_sub(u32::from(*rate));
            hit
        })
    }

    #[cold]
    fn which_scripted(&self, rates: &[u16]) -> Option<usize> {
        let possible: Vec<usize> = (0..rates.len()).filter(|at| rates[*at] != 0).collect();
        let alternatives = u32::try_from(possible.len()).ok()? + 1;
        let chosen = self.script.as_ref()?.fault(alternatives) as usize;
        possible.get(chosen.checked_sub(1)?).copied()
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
