//! One kind of latency of one direction: moments and histogram together.
//!
//! Data flow: nanoseconds per I/O -> `record` -> min, max, mean, stddev and percentiles.
//!
//! Not here: which latency it is (slat, clat, lat) and when it is measured.

use super::{Histogram, RunningStat};

/// Everything fio reports about a latency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LatencyStat {
    /// Minimum, maximum, mean and deviation.
    pub moments: RunningStat,
    /// Counts by magnitude, for percentiles.
    pub histogram: Histogram,
}

impl LatencyStat {
    /// Adds one latency: no allocation, no division, no branch that depends on the data.
    #[inline]
    pub fn record(&mut self, nanoseconds: u64) {
        self.moments.record(nanoseconds);
        self.histogram.record(nanoseconds);
    }

    /// Adds one latency that so many I/Os have had.
    #[inline]
    pub fn record_many(&mut self, nanoseconds: u64, count: u64) {
        self.moments.record_many(nanoseconds, count);
        self.histogram.add(nanoseconds, count);
    }

    /// Adds everything the other has seen.
    pub fn merge(&mut self, other: &Self) {
        self.moments.merge(&other.moments);
        self.histogram.merge(&other.histogram);
    }

    /// How many latencies were recorded.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.moments.count()
    }

    /// See [`Histogram::percentile`].
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<u64> {
        self.histogram.percentile(percent)
    }
}
