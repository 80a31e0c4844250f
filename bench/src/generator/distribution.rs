//! Which block is next where not all are alike, and full cycles without a map.
//!
//! A distribution and a number of blocks are prepared once; then random numbers go in and block
//! indices come out. Skewed distributions are scattered by a hash, so that hot blocks do not lie
//! side by side, and turned by a random or given start.
//!
//! Not here: lengths (`block_sizes`), alignment and regions (`place`).

use fio_compat::{Distribution, Zone};

use crate::random::Random;

/// Terms of the zeta sum; beyond, it is continued as an integral.
const ZETA_TERMS: u64 = 10_000_000;
/// The golden ratio of 2^64, made odd.
const SCATTER: u64 = 0x61c8_8646_80b5_83eb;
/// Uniform numbers whose mean is nearly normal.
const BELL_DRAWS: u64 = 12;

/// A prepared distribution over `blocks` blocks.
#[derive(Clone, Debug)]
pub(crate) struct Drawer {
    blocks: u64,
    start: u64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Uniform,
    Zipf {
        theta: f64,
        zeta: f64,
        alpha: f64,
        eta: f64,
    },
    Pareto {
        power: f64,
    },
    Normal {
        deviation: f64,
    },
    /// Up to this percentage of the draws: first block and number of blocks.
    Zones(Vec<(u64, u64, u64)>),
}

/// Floating point to a block index; distributions only ever ask for numbers below 2^63.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "negative and too large values saturate, and the callers bound the result"
)]
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}

#[allow(clippy::cast_precision_loss, reason = "probabilities need no more than 53 bits")]
pub(crate) fn real(value: u64) -> f64 {
    value as f64
}

/// A number from 0 up to, not including, 1.
fn unit(random: &mut Random) -> f64 {
    real(random.next() >> 11) / real(1 << 53)
}

fn zeta(blocks: u64, theta: f64) -> f64 {
    let terms = blocks.min(ZETA_TERMS);
    let sum: f64 = (1..=terms).map(|rank| real(rank).powf(-theta)).sum();
    if blocks == terms {
        return sum;
    }
    let area = |rank: f64| rank.powf(1.0 - theta) / (1.0 - theta);
    sum + area(real(blocks)) - area(real(terms))
}

impl Drawer {
    /// Prepares `distribution` for so many blocks (at least 1) of `block_bytes`.
    pub(crate) fn new(
        distribution: &Distribution,
        blocks: u64,
        block_bytes: u64,
        random: &mut Random,
    ) -> Self {
        let blocks = blocks.max(1);
        let mut start = |center: Option<f64>| match center {
            Some(center) => whole(center * real(blocks)).min(blocks - 1),
            None => random.below(blocks),
        };
        let (kind, start) = match distribution {
            Distribution::Random => (Kind::Uniform, 0),
            Distribution::Zipf { theta, center } => {
                let zeta = zeta(blocks, *theta);
                let zeta2 = 1.0 + 0.5_f64.powf(*theta);
                let alpha = 1.0 / (1.0 - theta);
                let eta = (1.0 - (2.0 / real(blocks)).powf(1.0 - theta)) / (1.0 - zeta2 / zeta);
                (Kind::Zipf { theta: *theta, zeta, alpha, eta }, start(*center))
            }
            Distribution::Pareto { h, center } => {
                (Kind::Pareto { power: h.ln() / (1.0 - h).ln() }, start(*center))
            }
            Distribution::Normal { deviation_percent, center } => {
                let deviation = (real(blocks) * deviation_percent / 100.0).ceil();
                (Kind::Normal { deviation }, start(*center))
            }
            Distribution::Zoned(zones) => {
                let length = |zone: &Zone| {
                    let exact = u128::from(blocks) * u128::from(zone.length) / 100;
                    u64::try_from(exact).unwrap_or(blocks)
                };
                (Kind::Zones(ranges(zones, length, blocks)), 0)
            }
            Distribution::ZonedAbs(zones) => {
                let length = |zone: &Zone| zone.length / block_bytes.max(1);
                (Kind::Zones(ranges(zones, length, blocks)), 0)
            }
        };
        Self { blocks, start, kind }
    }

    /// The next block index.
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        let blocks = self.blocks;
        let rank = match &self.kind {
            Kind::Uniform => return random.below(blocks),
            Kind::Zones(zones) => {
                let drawn = random.below(100);
                let zone = zones.iter().find(|(up_to, ..)| drawn < *up_to).or(zones.last());
                let Some((_, first, count)) = zone else { return 0 };
                return first + random.below(*count);
            }
            Kind::Zipf { theta, zeta, alpha, eta } => {
                let drawn = unit(random);
                let scaled = drawn * zeta;
                if scaled < 1.0 {
                    0
                } else if scaled < 1.0 + 0.5_f64.powf(*theta) {
                    1
                } else {
                    whole(real(blocks) * (eta * drawn - eta + 1.0).powf(*alpha))
                }
            }
            Kind::Pareto { power } => whole(real(blocks - 1) * unit(random).powf(*power)),
            Kind::Normal { deviation } => {
                let sum: u64 = (0..BELL_DRAWS).map(|_| random.below(blocks)).sum();
                let off = deviation * (unit(random) - 0.5) + deviation / 2.0;
                sum.div_ceil(BELL_DRAWS) + whole(off)
            }
        };
        // Ranks are scattered, and by an odd factor hardly two of them meet.
        (rank.wrapping_mul(SCATTER) % blocks + self.start) % blocks
    }
}

/// The block ranges of zones, each at least one block and none beyond the end.
fn ranges(zones: &[Zone], length: impl Fn(&Zone) -> u64, blocks: u64) -> Vec<(u64, u64, u64)> {
    let (mut up_to, mut first) = (0, 0);
    let mut list = Vec::new();
    for zone in zones {
        up_to += u64::from(zone.access_percent);
        let count = length(zone).max(1);
        let at = first.min(blocks - 1);
        if zone.access_percent > 0 {
            list.push((up_to, at, count.min(blocks - at)));
        }
        first += length(zone);
    }
    list
}

/// A permutation of all blocks that needs no memory: a full-period congruential sequence whose
/// numbers are scrambled by an invertible step, those out of range being skipped.
#[derive(Clone, Debug)]
pub(crate) struct Cycle {
    blocks: u64,
    mask: u64,
    shift: u32,
    state: u64,
}

impl Cycle {
    /// A cycle over so many blocks (at least 1).
    pub(crate) fn new(blocks: u64, random: &mut Random) -> Self {
        let blocks = blocks.max(1);
        let mask = blocks.next_power_of_two().max(4) - 1;
        let shift = mask.count_ones().div_ceil(2);
        Self { blocks, mask, shift, state: random.next() & mask }
    }

    /// The next block; every one comes once before any comes again.
    pub(crate) fn next(&mut self) -> u64 {
        loop {
            self.state = self.state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1) & self.mask;
            // Low bits of such a sequence have short periods: the high ones are folded in.
            let folded = self.state ^ (self.state >> self.shift);
            let block = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) & self.mask;
            let block = block ^ (block >> self.shift);
            if block < self.blocks {
                return block;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: u64 = 10_000;

    /// Share of the draws that fall on the hottest blocks, per percentage of the blocks.
    fn hottest(distribution: &Distribution, percent: usize) -> f64 {
        let mut random = Random::new(11);
        let drawer = Drawer::new(distribution, BLOCKS, 4096, &mut random);
        let mut counts = vec![0_u64; usize::try_from(BLOCKS).unwrap()];
        for _ in 0..200_000 {
            counts[usize::try_from(drawer.draw(&mut random)).unwrap()] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        real(counts[..counts.len() * percent / 100].iter().sum()) / 200_000.0
    }

    #[test]
    fn random_distribution_zipf_and_pareto_are_skewed_as_their_parameters_say() {
        assert!(hottest(&Distribution::Random, 10) < 0.16);
        let zipf = hottest(&Distribution::Zipf { theta: 1.2, center: None }, 10);
        assert!(zipf > 0.85, "{zipf}");
        let pareto = hottest(&Distribution::Pareto { h: 0.2, center: None }, 20);
        assert!((0.70..0.95).contains(&pareto), "{pareto}");
        let bell = hottest(&Distribution::Normal { deviation_percent: 5.0, center: None }, 50);
        assert!(bell > 0.9, "{bell}");
    }

    #[test]
    fn random_distribution_zoned_gives_each_zone_its_share() {
        let zone = |access_percent, length| Zone { access_percent, length };
        let zoned = Distribution::Zoned(vec![zone(60, 10), zone(30, 20), zone(10, 70)]);
        let absolute = Distribution::ZonedAbs(vec![
            zone(60, 1000 * 4096),
            zone(30, 2000 * 4096),
            zone(10, 7000 * 4096),
        ]);
        for distribution in [zoned, absolute] {
            let mut random = Random::new(3);
            let drawer = Drawer::new(&distribution, BLOCKS, 4096, &mut random);
            let mut counts = [0_u32; 3];
            for _ in 0..100_000 {
                let block = drawer.draw(&mut random);
                counts[usize::from(block >= 1000) + usize::from(block >= 3000)] += 1;
            }
            for (count, expected) in counts.into_iter().zip([60_000, 30_000, 10_000_u32]) {
                assert!(count.abs_diff(expected) < 1_000, "{counts:?}");
            }
        }
    }

    #[test]
    fn random_generator_lfsr_visits_every_block_once_per_cycle() {
        for blocks in [1, 2, 3, 5, 64, 100, 1000, 4097] {
            let mut cycle = Cycle::new(blocks, &mut Random::new(blocks));
            for _ in 0..2 {
                let mut seen: Vec<u64> = (0..blocks).map(|_| cycle.next()).collect();
                if blocks == 1000 {
                    let rising = seen.windows(2).filter(|pair| pair[1] > pair[0]).count();
                    assert!((400..600).contains(&rising), "{rising}");
                }
                seen.sort_unstable();
                assert_eq!(seen, (0..blocks).collect::<Vec<_>>());
            }
        }
    }
}
