//! Results of jobs that are still running, for reports in between.
//!
//! Data flow: the conductor asks through the lanes -> workers deliver a [`Snapshot`] when they
//! next look -> [`Live`] per clone that has begun -> a report.
//!
//! Not here: when a report is due (`progress`), its text (`report`).

use crate::measure::Recorder;
use crate::plan::Plan;

use super::policy::Errors;
use super::sampler::Sampler;

/// How long a worker that waits for its device may hold a report up.
pub(crate) const PATIENCE_NS: u64 = 500_000_000;

/// What a worker has recorded so far.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// A copy of its statistics.
    pub(crate) recorder: Recorder,
    /// Errors that did not end the job.
    pub(crate) errors: Errors,
}

/// One clone that has begun, as it stands.
pub(crate) struct Live<'a> {
    /// What it is.
    pub(crate) plan: &'a Plan,
    /// What it has done.
    pub(crate) recorder: Recorder,
    /// Errors that did not end it.
    pub(crate) errors: Errors,
    /// Its rates.
    pub(crate) samples: &'a Sampler,
    /// When it began, in milliseconds since 1970.
    pub(crate) started_unix_ms: u64,
}
