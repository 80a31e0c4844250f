//! How many I/Os were in flight, submitted together and reaped together.
//!
//! Data flow: one call per submit and per reap -> seven buckets each -> percent.
//!
//! Not here: latencies; the depth that was asked for (`job`).

use super::share_percent;

/// Buckets of each of the three distributions.
const BUCKETS: usize = 7;

/// fio never shows less than this for a bucket that was hit.
const LEAST_PERCENT: f64 = 0.1;

/// Distribution of the depth in flight, by powers of two: 1, 2, 4 … 32, >=64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LevelCounts {
    counts: [u64; BUCKETS],
}

impl LevelCounts {
    /// Names of the buckets; each is the smallest depth in it.
    pub const NAMES: [&'static str; BUCKETS] = ["1", "2", "4", "8", "16", "32", ">=64"];

    /// Counts `submitted` I/Os that were submitted with `in_flight` in flight.
    #[inline]
    pub fn record(&mut self, in_flight: u32, submitted: u64) {
        self.counts[log2_bucket(in_flight.max(1))] += submitted;
    }

    /// Restores the counts, for results that come from elsewhere.
    #[must_use]
    pub const fn from_counts(counts: [u64; BUCKETS]) -> Self {
        Self { counts }
    }

    /// Shares of `total_ios`. Syncs are counted but are no I/Os, so the sum may exceed 100.
    #[must_use]
    pub fn percent(&self, total_ios: u64) -> [f64; BUCKETS] {
        self.counts.map(|count| share_percent(count, total_ios, LEAST_PERCENT))
    }

    fn merge(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
    }
}

/// Distribution of the size of batches: 0, up to 4, up to 8 … up to 64, more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchCounts {
    counts: [u64; BUCKETS],
}

impl BatchCounts {
    /// Names of the buckets; each is the largest batch in it.
    pub const NAMES: [&'static str; BUCKETS] = ["0", "4", "8", "16", "32", "64", ">=64"];

    /// Counts one call that submitted or reaped `batch` I/Os.
    #[inline]
    pub fn record(&mut self, batch: u32) {
        let bucket = match batch {
            0 => 0,
            1..=4 => 1,
            // 5..=8 is bucket 2, 9..=16 is 3, and so on.
            _ => log2_bucket(batch - 1),
        };
        self.counts[bucket] += 1;
    }

    /// Restores the counts, for results that come from elsewhere.
    #[must_use]
    pub const fn from_counts(counts: [u64; BUCKETS]) -> Self {
        Self { counts }
    }

    /// How many calls were counted.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Shares of all calls.
    #[must_use]
    pub fn percent(&self) -> [f64; BUCKETS] {
        let calls = self.calls();
        self.counts.map(|count| share_percent(count, calls, LEAST_PERCENT))
    }

    fn merge(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
    }
}

/// The three distributions of one job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DepthStats {
    /// Depth in flight, weighted by I/Os submitted.
    pub level: LevelCounts,
    /// I/Os per submitting call.
    pub submit: BatchCounts,
    /// I/Os per reaping call.
    pub complete: BatchCounts,
}

impl DepthStats {
    /// Adds the counts of another job.
    pub fn merge(&mut self, other: &Self) {
        self.level.merge(&other.level);
        self.submit.merge(&other.submit);
        self.complete.merge(&other.complete);
    }
}

/// Floor of the binary logarithm of a positive number, at most the last bucket.
#[inline]
fn log2_bucket(value: u32) -> usize {
    usize::try_from(31 - value.leading_zeros()).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_fall_into_powers_of_two() {
        let mut level = LevelCounts::default();
        for depth in [0, 1, 2, 3, 4, 7, 8, 16, 32, 63, 64, 4096] {
            level.record(depth, 1);
        }
        assert_eq!(level.counts, [2, 2, 2, 1, 1, 2, 2]);
    }

    #[test]
    fn batches_fall_below_their_upper_bound() {
        let mut batch = BatchCounts::default();
        for size in [0, 1, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 1000] {
            batch.record(size);
        }
        assert_eq!(batch.counts, [1, 2, 2, 2, 2, 2, 2]);
    }

    /// Two of three hundred and ninety-three syncs on top of 6303 writes is what fio prints.
    #[test]
    fn syncs_push_the_level_above_one_hundred_percent() {
        let mut level = LevelCounts::default();
        level.record(1, 6303 + 393);
        assert!((level.percent(6303)[0] - 106.235).abs() < 0.001);
    }
}
