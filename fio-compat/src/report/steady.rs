//! What a run that ends when it is steady says about that.
//!
//! Data flow: the bench's window -> [`SteadyReport`] -> `render`.
//!
//! Not here: judging (`stats`), texts (`render`).

use crate::stats::{SteadyCriterion, SteadyPoint, SteadyVerdict, SteadyWindow};

/// The last window of a job, or of a group that is judged as one.
#[derive(Debug, Clone, PartialEq)]
pub struct SteadyReport {
    /// What had to be steady.
    pub criterion: SteadyCriterion,
    /// For how long.
    pub duration_ns: u64,
    /// What the window says.
    pub verdict: SteadyVerdict,
    /// The window, oldest first; shorter while it was never full.
    pub points: Vec<SteadyPoint>,
}

impl SteadyReport {
    /// The window as it stands.
    #[must_use]
    pub fn of(criterion: SteadyCriterion, duration_ns: u64, window: &SteadyWindow) -> Self {
        let points = window.points().copied().collect();
        Self { criterion, duration_ns, verdict: window.verdict(), points }
    }

    /// The means of all values, rounded down; 0 without points.
    #[must_use]
    pub fn means(&self) -> SteadyPoint {
        let count = u128::try_from(self.points.len()).unwrap_or(u128::MAX);
        let mean = |field: fn(&SteadyPoint) -> u64| {
            let sum: u128 = self.points.iter().map(|point| u128::from(field(point))).sum();
            sum.checked_div(count).and_then(|mean| u64::try_from(mean).ok()).unwrap_or(0)
        };
        SteadyPoint {
            iops: mean(|point| point.iops),
            bandwidth_bytes: mean(|point| point.bandwidth_bytes),
            latency_ns: mean(|point| point.latency_ns),
        }
    }
}
