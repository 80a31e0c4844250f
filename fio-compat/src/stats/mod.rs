//! What fio's reports are computed from: running moments, histograms, samples, depth counts.
//!
//! Data flow: the bench calls `record` per I/O in its own thread -> `merge` at the end -> `report`.
//!
//! Not here: reading a clock, choosing what to measure, printing.

mod depth;
mod distribution;
mod histogram;
mod latency;
mod running;
mod samples;
mod steady;

pub use depth::{BatchCounts, DepthStats, LevelCounts};
pub use distribution::LatencyDistribution;
pub use histogram::{BINS, Histogram};
pub use latency::LatencyStat;
pub use running::RunningStat;
pub use samples::SampleStat;
pub use steady::{SteadyCriterion, SteadyMeasure, SteadyPoint, SteadyVerdict, SteadyWindow};

/// A share in percent as fio prints it: a bucket that was hit never reads as zero.
#[must_use]
pub(crate) fn share_percent(count: u64, total: u64, least_percent: f64) -> f64 {
    if count == 0 || total == 0 {
        return 0.0;
    }
    (approximate(u128::from(count)) / approximate(u128::from(total)) * 100.0).max(least_percent)
}

/// The nearest float; counts beyond 2^53 lose their last digits, which no report shows.
#[allow(clippy::cast_precision_loss, reason = "reports show at most six decimals of a mean")]
#[must_use]
pub(crate) fn approximate(value: u128) -> f64 {
    value as f64
}
