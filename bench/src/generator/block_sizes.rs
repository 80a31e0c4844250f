//! How long the next I/O is.
//!
//! `bs`, `bsrange` and `bssplit` of one direction go in, a length per I/O comes out. Shares of a
//! split are shares of the number of I/Os.
//!
//! Not here: where it goes (`place`).

use crate::random::Random;

/// The lengths of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// Always the same.
    One(u32),
    /// Any multiple of `step` from the smallest, up to the largest.
    Range { least: u32, most: u32, step: u32 },
    /// Lengths with the percentage up to which each is drawn, ascending to 100.
    Split(Vec<(u32, u64)>),
}

impl Blocks {
    /// A split from lengths and their percentages, which add up to 100.
    pub(crate) fn split(shares: &[(u32, u32)]) -> Self {
        let mut up_to = 0;
        let cumulative = |&(bytes, percent): &(u32, u32)| {
            up_to += u64::from(percent);
            (bytes, up_to)
        };
        Self::Split(shares.iter().filter(|(_, percent)| *percent > 0).map(cumulative).collect())
    }

    /// The shortest.
    pub(crate) fn least(&self) -> u32 {
        match self {
            Self::One(bytes) => *bytes,
            Self::Range { least, .. } => *least,
            Self::Split(list) => list.iter().map(|(bytes, _)| *bytes).min().unwrap_or(1),
        }
    }

    /// The longest.
    pub(crate) fn most(&self) -> u32 {
        match self {
            Self::One(bytes) => *bytes,
            Self::Range { most, .. } => *most,
            Self::Split(list) => list.iter().map(|(bytes, _)| *bytes).max().unwrap_or(1),
        }
    }

    /// The next length.
    #[inline]
    pub(crate) fn draw(&self, random: &mut Random) -> u32 {
        match self {
            Self::One(bytes) => *bytes,
            Self::Range { least, most, step } => {
                let count = (most - least) / step + 1;
                let index = random.below(u64::from(count));
                least + step * u32::try_from(index).unwrap_or(0)
            }
            Self::Split(list) => {
                let drawn = random.below(100);
                let found = list.iter().find(|(_, up_to)| drawn < *up_to);
                found.or(list.last()).map_or(1, |(bytes, _)| *bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bssplit_shares_are_those_of_the_number_of_ios() {
        let blocks = Blocks::split(&[(4096, 60), (8192, 30), (512, 10), (1024, 0)]);
        let mut random = Random::new(5);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..100_000 {
            *counts.entry(blocks.draw(&mut random)).or_insert(0_u32) += 1;
        }
        assert_eq!((blocks.least(), blocks.most()), (512, 8192));
        assert!((59_000..61_000).contains(&counts[&4096]), "{counts:?}");
        assert!((29_000..31_000).contains(&counts[&8192]), "{counts:?}");
        assert!(!counts.contains_key(&1024));
    }

    #[test]
    fn bsrange_draws_every_multiple_alike_and_bs_unaligned_every_byte() {
        let mut random = Random::new(5);
        let range = Blocks::Range { least: 4096, most: 16384, step: 4096 };
        let mut counts = [0_u32; 5];
        for _ in 0..40_000 {
            let bytes = range.draw(&mut random);
            assert!(bytes.is_multiple_of(4096));
            counts[(bytes / 4096) as usize] += 1;
        }
        assert!(counts[1..].iter().all(|count| (9500..10500).contains(count)), "{counts:?}");
        let any = Blocks::Range { least: 1000, most: 2000, step: 1 };
        let drawn: Vec<u32> = (0..1000).map(|_| any.draw(&mut random)).collect();
        assert!(drawn.iter().all(|bytes| (1000..=2000).contains(bytes)));
        assert!(drawn.iter().any(|bytes| !bytes.is_multiple_of(8)));
    }
}
