//! The share of completion latencies below 2 ns, 4 ns, … 2 s, as fio prints at the end of a job.
//!
//! Data flow: nanoseconds -> one of 32 buckets in three scales -> percent.
//!
//! Not here: percentiles, which need finer bins (`histogram`).

use super::share_percent;

/// Buckets of the ns and of the us scale.
const FINE: usize = 10;

/// Buckets of the ms scale: two more, for 2 s and beyond.
const COARSE: usize = 12;

/// Buckets of all scales, one scale after the other.
const BUCKETS: usize = 2 * FINE + COARSE;

/// Exclusive upper edges of all buckets of a scale but the last; ns and us end at 1000.
const EDGES: [u16; COARSE - 1] = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000, 2000];

/// All numbers from here on share the last bucket.
const BEYOND: u16 = 2000;

/// The bucket of each number up to [`BEYOND`]: looking up is quicker than comparing ten times.
const BUCKET_OF: [u8; BEYOND as usize + 1] = bucket_table();

/// fio never shows less than this for a bucket that was hit.
const LEAST_PERCENT: f64 = 0.01;

const fn bucket_table() -> [u8; BEYOND as usize + 1] {
    let mut table = [0; BEYOND as usize + 1];
    let mut value = 0;
    let mut bucket = 0u8;
    while value < table.len() {
        if value == EDGES[bucket as usize] as usize {
            bucket += 1;
        }
        table[value] = bucket;
        value += 1;
    }
    table
}

/// Completion latencies of all directions of a job by magnitude.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LatencyDistribution {
    counts: [u64; BUCKETS],
}

impl LatencyDistribution {
    /// Names of the buckets of the ns and us scale; those of the ms scale start the same.
    pub const NAMES: [&'static str; COARSE] =
        ["2", "4", "10", "20", "50", "100", "250", "500", "750", "1000", "2000", ">=2000"];

    /// Counts one completion latency.
    #[inline]
    pub fn record(&mut self, nanoseconds: u64) {
        self.record_many(nanoseconds, 1);
    }

    /// Counts one completion latency that so many I/Os have had.
    #[inline]
    pub fn record_many(&mut self, nanoseconds: u64, count: u64) {
        let microseconds = nanoseconds / 1_000;
        let milliseconds = nanoseconds / 1_000_000;
        // Plain selections, so that a mix of scales costs no mispredicted branches.
        let (start, number) =
            if microseconds > 0 { (FINE, microseconds) } else { (0, nanoseconds) };
        let (start, number) =
            if milliseconds > 0 { (2 * FINE, milliseconds) } else { (start, number) };
        let number = usize::from(u16::try_from(number).unwrap_or(BEYOND).min(BEYOND));
        let bucket = start + usize::from(BUCKET_OF[number]);
        self.counts[bucket.min(BUCKETS - 1)] += count;
    }

    /// Adds the counts of another job.
    pub fn merge(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
    }

    /// Restores a distribution from counts, for results that come from elsewhere.
    #[must_use]
    pub fn from_counts(ns: [u64; FINE], us: [u64; FINE], ms: [u64; COARSE]) -> Self {
        let mut counts = [0; BUCKETS];
        counts[..FINE].copy_from_slice(&ns);
        counts[FINE..2 * FINE].copy_from_slice(&us);
        counts[2 * FINE..].copy_from_slice(&ms);
        Self { counts }
    }

    /// Shares of `total` I/Os below 1 us.
    #[must_use]
    pub fn ns_percent(&self, total: u64) -> [f64; FINE] {
        self.shares(0, total)
    }

    /// Shares from 1 us to below 1 ms.
    #[must_use]
    pub fn us_percent(&self, total: u64) -> [f64; FINE] {
        self.shares(FINE, total)
    }

    /// Shares from 1 ms on.
    #[must_use]
    pub fn ms_percent(&self, total: u64) -> [f64; COARSE] {
        self.shares(2 * FINE, total)
    }

    fn shares<const N: usize>(&self, start: usize, total: u64) -> [f64; N] {
        std::array::from_fn(|bucket| {
            share_percent(self.counts[start + bucket], total, LEAST_PERCENT)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> LatencyDistribution {
        let mut seen = LatencyDistribution::default();
        values.iter().for_each(|value| seen.record(*value));
        seen
    }

    #[test]
    fn edge_values_fall_into_the_bucket_above() {
        let none = ([0; FINE], [0; FINE], [0; COARSE]);
        let ns = [2, 1, 0, 0, 0, 1, 2, 1, 0, 1];
        let seen = of(&[0, 1, 2, 99, 100, 249, 250, 999]);
        assert_eq!(seen, LatencyDistribution::from_counts(ns, none.1, none.2));
        let us = [1, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        let seen = of(&[1_999, 2_000, 999_999]);
        assert_eq!(seen, LatencyDistribution::from_counts(none.0, us, none.2));
        let ms = [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2];
        let seen = of(&[1_000_000, 999_999_999, 1_000_000_000, 2_000_000_000, u64::MAX]);
        assert_eq!(seen, LatencyDistribution::from_counts(none.0, none.1, ms));
    }

    #[test]
    fn rare_bucket_shows_the_least_share() {
        let seen = of(&[1]);
        assert!((seen.ns_percent(1_000_000)[0] - 0.01).abs() < 1e-12);
        assert!(seen.ns_percent(0)[0] == 0.0);
    }
}
