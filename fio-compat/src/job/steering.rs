//! Limits that end a job from inside, the depth that keeps a latency, and how I/Os are started.
//!
//! Data flow: `options` parses text into these -> the bench's worker and conductor follow them.
//!
//! Not here: rates and pauses (`pace`), how steadiness is judged (`stats`).

use crate::error::ParseError;
use crate::stats::{SteadyCriterion, SteadyMeasure};

use super::{Job, Verify};

/// Everything above, for one job. Triples are reads, writes, trims; 0 is no limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Steering {
    /// Find the highest depth that keeps this latency; 0 does not.
    pub latency_target_ns: u64,
    /// The time within which a depth is judged.
    pub latency_window_ns: u64,
    /// The percentage of I/Os that have to keep the target.
    pub latency_percentile: f64,
    /// Go on at that depth instead of ending the job when it is found.
    pub latency_run: bool,
    /// An I/O that takes longer ends the job.
    pub max_latency_ns: [u64; 3],
    /// End the job when it is steady.
    pub steady: Option<SteadyCriterion>,
    /// The time it has to be steady for.
    pub steady_ns: u64,
    /// Time before the first interval that counts.
    pub steady_ramp_ns: u64,
    /// The length of an interval.
    pub steady_interval_ns: u64,
    /// I/Os that overlap are never in flight together.
    pub serialize_overlap: bool,
    /// I/Os start by their schedule whatever has completed, and that is where their time starts.
    pub offload: bool,
}

impl Default for Steering {
    fn default() -> Self {
        Self {
            latency_target_ns: 0,
            latency_window_ns: 0,
            latency_percentile: 100.0,
            latency_run: false,
            max_latency_ns: [0; 3],
            steady: None,
            steady_ns: 0,
            steady_ramp_ns: 0,
            steady_interval_ns: 1_000_000_000,
            serialize_overlap: false,
            offload: false,
        }
    }
}

/// What `ss_dur` alone means.
const STEADY_DEFAULT: SteadyCriterion =
    SteadyCriterion { measure: SteadyMeasure::Iops, slope: true, limit: 0.01, percent: true };

impl Job {
    /// Settles what steadiness means, and refuses limits that cannot be judged.
    pub(super) fn check_steering(&mut self) -> Result<(), ParseError> {
        let steering = &mut self.steering;
        if steering.steady_ns > 0 {
            steering.steady.get_or_insert(STEADY_DEFAULT);
        }
        let steering = &self.steering;
        if steering.latency_target_ns > 0 && steering.latency_window_ns == 0 {
            let error = self.error("latency_target", "latency_target needs a latency_window");
            return Err(error.with_remedy("give the time in which a depth is judged"));
        }
        if steering.latency_target_ns > 0 && self.verify != Verify::None {
            let error = self.error("latency_target", "latency_target does not go with verify");
            return Err(error.with_remedy("verify in a job of its own"));
        }
        if steering.steady.is_some() {
            let (spent, interval) = (steering.steady_ns, steering.steady_interval_ns);
            if spent == 0 {
                let error = self.error("steadystate", "steadystate needs a duration");
                return Err(error.with_remedy("give ss_dur"));
            }
            if !spent.is_multiple_of(interval) || spent / interval < 2 {
                let message = "ss_dur has to be a multiple of ss_interval, at least twice as long";
                return Err(self.error("steadystate_duration", message));
            }
        }
        if steering.serialize_overlap && steering.offload {
            let message = "serialize_overlap with io_submit_mode=offload would have to look at \
                           all jobs, and looks at one";
            let error = self.error("serialize_overlap", message);
            return Err(error.with_remedy("use io_submit_mode=inline"));
        }
        Ok(())
    }
}
