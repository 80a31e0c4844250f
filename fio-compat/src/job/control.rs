//! How jobs start, wait for one another, end, and deal with errors.
//!
//! Data flow: `options` parses text into these -> the bench's conductor follows them.
//!
//! Not here: what a job does in between (`workload`), rates (`rates`).

/// What an error happened in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A check of data.
    Verify,
}

/// Errors that do not end a job (`continue_on_error`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContinueOnError {
    /// Of reads.
    pub read: bool,
    /// Of writes.
    pub write: bool,
    /// Of checks of data.
    pub verify: bool,
}

/// Which jobs end with the first one (`exit_what`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExitWhat {
    /// Those of its group.
    #[default]
    Group,
    /// Those that run at the same time.
    Stonewall,
    /// All of the run.
    All,
}

/// How clones share the CPUs of `cpus_allowed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CpusPolicy {
    /// All may use all.
    #[default]
    Shared,
    /// One for each.
    Split,
}

/// Everything above, for one job.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Control {
    /// Wait that long after the start of the run; a range is drawn from.
    pub start_delay_ns: (u64, u64),
    /// Start when the job of that name has ended.
    pub wait_for: Option<String>,
    /// How clones share CPUs.
    pub cpus_policy: CpusPolicy,
    /// Niceness of the job's thread.
    pub nice: i32,
    /// End others when this job ends.
    pub exitall: bool,
    /// Which ones.
    pub exit_what: ExitWhat,
    /// End others when this job fails.
    pub exitall_on_error: bool,
    /// Errors that do not end the job.
    pub continue_on_error: ContinueOnError,
    /// Errnos that are no errors: of reads, writes, checks.
    pub ignore_error: [Vec<i32>; 3],
    /// Whether those are reported.
    pub error_dump: bool,
    /// Share of the I/Os of all jobs with the same `flow_id`; 0 takes no part.
    pub flow: u32,
    /// Which jobs share.
    pub flow_id: u32,
    /// How long to sleep when ahead of the others; 0 is as short as can be.
    pub flow_sleep_ns: u64,
}

impl Control {
    /// Errnos that are no errors in that direction.
    #[must_use]
    pub fn ignored_errors(&self, direction: Direction) -> &[i32] {
        let [read, write, verify] = &self.ignore_error;
        match direction {
            Direction::Read => read,
            Direction::Write => write,
            Direction::Verify => verify,
        }
    }
}
