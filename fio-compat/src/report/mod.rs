//! Everything a finished run says, before anyone decides how to print it.
//!
//! Data flow: the bench fills one [`JobReport`] per clone -> `merge_groups` -> `render`.
//!
//! Not here: text and JSON (`render`), measuring (`stats` and the bench).

mod disk;
mod group;
mod steady;

use std::borrow::Cow;

use crate::job::{Unified, Units};
use crate::stats::{DepthStats, LatencyDistribution, LatencyStat, SampleStat};

pub use disk::DiskUtil;
pub use group::{DirectionSummary, GroupSummary};
pub use steady::SteadyReport;

/// fio's errno for data that does not verify; `strerror` has a misleading text for it.
pub const EILSEQ: i32 = 84;

/// A finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunReport {
    /// Our own name and version, e.g. `mfio-bench 0.2.0`.
    pub version: String,
    /// When the report was made, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// How far local time is ahead of UTC, for the textual timestamps.
    pub utc_offset_s: i32,
    /// Options that apply to several jobs.
    pub global_options: Vec<(String, String)>,
    /// One entry per clone, in order of definition; see [`RunReport::merge_groups`].
    pub jobs: Vec<JobReport>,
    /// What the kernel counted for the disks underneath.
    pub disk_util: Vec<DiskUtil>,
    /// What the reader should know before believing the numbers.
    pub warnings: Vec<String>,
    /// Our own results, an object; goes under the key `mfio` of the JSON report.
    pub extra: serde_json::Value,
}

/// One job, or a group of jobs reported as one.
#[derive(Debug, Clone, PartialEq)]
pub struct JobReport {
    /// Name of the job, or of the group's first.
    pub name: String,
    /// Free text of the option `description`.
    pub description: Option<String>,
    /// Number of the group.
    pub group_id: u32,
    /// Whether the job asked to be reported with its group.
    pub group_reporting: bool,
    /// How many jobs are merged here.
    pub jobs_count: u32,
    /// The first failure.
    pub error: Option<JobFailure>,
    /// Process (or thread) number.
    pub pid: u32,
    /// When the job started, in milliseconds since 1970.
    pub job_start_ms: u64,
    /// Expected rest of the run in seconds; 0 at the end.
    pub eta_s: u64,
    /// Seconds since the program started.
    pub elapsed_s: u64,
    /// Options set for this job alone.
    pub job_options: Vec<(String, String)>,
    /// Reads.
    pub read: DirectionReport,
    /// Writes.
    pub write: DirectionReport,
    /// Trims.
    pub trim: DirectionReport,
    /// fsync and its relatives.
    pub sync: SyncReport,
    /// Wall time of the job; summed over a group.
    pub job_runtime_ms: u64,
    /// CPU time in user mode.
    pub usr_cpu_ns: u64,
    /// CPU time in the kernel.
    pub sys_cpu_ns: u64,
    /// Context switches.
    pub ctx: u64,
    /// Major page faults.
    pub majf: u64,
    /// Minor page faults.
    pub minf: u64,
    /// Depths and batch sizes.
    pub depth: DepthStats,
    /// Completion latencies of all directions by magnitude.
    pub distribution: LatencyDistribution,
    /// The depth asked for, or the one that was found to keep the goal.
    pub iodepth: u32,
    /// Which percentiles to report.
    pub percentiles: Percentiles,
    /// Directions apart or together.
    pub unified: Unified,
    /// Units and digits of the text report.
    pub units: Units,
    /// Whether the job appears in reports at all; its group does in any case.
    pub shown: bool,
    /// Errors that did not end the job, where it was told to go on (`continue_on_error`).
    pub errors: Option<ErrorCounts>,
    /// The latency the job had to keep (`latency_target` and its relatives).
    pub goal: LatencyGoal,
    /// Whether it became steady, where that was asked for.
    pub steady: Option<SteadyReport>,
}

/// Errors that did not end a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorCounts {
    /// How many.
    pub total: u64,
    /// The first, if there was any.
    pub first: Option<JobFailure>,
}

/// A latency a job had to keep; all zeros and 100 % if it had none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyGoal {
    /// The latency, or 0.
    pub target_ns: u64,
    /// The time within which it is judged.
    pub window_ns: u64,
    /// The share of I/Os that must keep it.
    pub percent: f64,
}

impl Default for LatencyGoal {
    fn default() -> Self {
        Self { target_ns: 0, window_ns: 0, percent: 100.0 }
    }
}

impl LatencyGoal {
    fn of(steering: &crate::Steering) -> Self {
        Self {
            target_ns: steering.latency_target_ns,
            window_ns: steering.latency_window_ns,
            percent: steering.latency_percentile,
        }
    }
}

/// One direction of a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DirectionReport {
    /// Bytes transferred.
    pub io_bytes: u64,
    /// Wall time of this direction; 0 if the job never goes this way.
    pub runtime_ms: u64,
    /// I/Os completed.
    pub total_ios: u64,
    /// I/Os that transferred less than asked.
    pub short_ios: u64,
    /// I/Os given up.
    pub drop_ios: u64,
    /// Submission latency; empty for synchronous engines.
    pub slat: LatencyStat,
    /// Completion latency.
    pub clat: LatencyStat,
    /// Total latency.
    pub lat: LatencyStat,
    /// Sampled bandwidth in KiB/s.
    pub bw: SampleStat,
    /// Sampled IOPS.
    pub iops: SampleStat,
}

/// fsync, fdatasync and their relatives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SyncReport {
    /// Syncs completed.
    pub total_ios: u64,
    /// Their latency.
    pub lat: LatencyStat,
}

/// Which percentiles a job wants reported, and of what.
#[derive(Debug, Clone, PartialEq)]
pub struct Percentiles {
    /// Ascending, in percent.
    pub list: Vec<f64>,
    /// Of submission latency.
    pub slat: bool,
    /// Of completion latency.
    pub clat: bool,
    /// Of total latency.
    pub lat: bool,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFailure {
    /// Positive errno.
    pub errno: i32,
    /// What to tell the reader.
    pub text: String,
}

impl JobFailure {
    /// A failure with the system's text, except where that text misleads.
    #[must_use]
    pub fn new(errno: i32, system_text: &str) -> Self {
        let text = if errno == EILSEQ { "data verification failed" } else { system_text };
        Self { errno, text: text.to_owned() }
    }
}

impl Default for Percentiles {
    fn default() -> Self {
        let defaults = crate::Job::new("");
        Self { list: defaults.percentile_list, slat: false, clat: true, lat: false }
    }
}

impl DirectionReport {
    /// Bytes per second over the whole runtime, rounded down as fio does.
    #[must_use]
    pub fn bandwidth_bytes(&self) -> u64 {
        per_second(self.io_bytes, self.runtime_ms)
    }

    /// I/Os per second over the whole runtime, rounded down.
    #[must_use]
    pub fn iops_whole(&self) -> u64 {
        per_second(self.total_ios, self.runtime_ms)
    }
}

impl JobReport {
    /// A report without any I/O yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            description: None,
            group_id: 0,
            group_reporting: false,
            jobs_count: 1,
            error: None,
            pid: 0,
            job_start_ms: 0,
            eta_s: 0,
            elapsed_s: 0,
            job_options: Vec::new(),
            read: DirectionReport::default(),
            write: DirectionReport::default(),
            trim: DirectionReport::default(),
            sync: SyncReport::default(),
            job_runtime_ms: 0,
            usr_cpu_ns: 0,
            sys_cpu_ns: 0,
            ctx: 0,
            majf: 0,
            minf: 0,
            depth: DepthStats::default(),
            distribution: LatencyDistribution::default(),
            iodepth: 1,
            percentiles: Percentiles::default(),
            unified: Unified::None,
            units: Units::default(),
            shown: true,
            errors: None,
            goal: LatencyGoal::default(),
            steady: None,
        }
    }

    /// A report that carries what a job says about itself.
    #[must_use]
    pub fn for_job(job: &crate::Job) -> Self {
        Self {
            description: job.description.clone(),
            group_id: job.group_id,
            group_reporting: job.group_reporting,
            job_options: job.job_options.clone(),
            iodepth: job.iodepth,
            percentiles: Percentiles {
                list: job.percentile_list.clone(),
                slat: job.reporting.slat_percentiles,
                clat: job.clat_percentiles,
                lat: job.lat_percentiles,
            },
            unified: job.reporting.unified,
            units: job.reporting.units,
            shown: job.reporting.stats,
            goal: LatencyGoal::of(&job.steering),
            ..Self::new(&job.name)
        }
    }

    /// The three data directions with the names fio gives them.
    #[must_use]
    pub fn directions(&self) -> [(&'static str, &DirectionReport); 3] {
        [("read", &self.read), ("write", &self.write), ("trim", &self.trim)]
    }

    /// The directions as the job wants them reported: apart, `mixed`, or both.
    #[must_use]
    pub fn reported(&self) -> Vec<(&'static str, Cow<'_, DirectionReport>)> {
        let apart = self.directions().map(|(name, data)| (name, Cow::Borrowed(data)));
        let mut reported = match self.unified {
            Unified::Mixed => Vec::new(),
            Unified::None | Unified::Both => Vec::from(apart),
        };
        if self.unified != Unified::None {
            reported.push(("mixed", Cow::Owned(self.mixed())));
        }
        reported
    }

    /// All directions as one.
    #[must_use]
    pub fn mixed(&self) -> DirectionReport {
        let mut mixed = self.read.clone();
        mixed.merge(&self.write);
        mixed.merge(&self.trim);
        mixed
    }

    /// I/Os of all data directions, the divisor of the shares.
    #[must_use]
    pub fn total_ios(&self) -> u64 {
        self.directions().iter().map(|(_, direction)| direction.total_ios).sum()
    }

    /// CPU time in user mode as a share of the runtime.
    #[must_use]
    pub fn usr_cpu_percent(&self) -> f64 {
        cpu_percent(self.usr_cpu_ns, self.job_runtime_ms)
    }

    /// CPU time in the kernel as a share of the runtime.
    #[must_use]
    pub fn sys_cpu_percent(&self) -> f64 {
        cpu_percent(self.sys_cpu_ns, self.job_runtime_ms)
    }
}

/// `amount` over `runtime_ms` per second, rounded down; 0 without a runtime.
pub(crate) fn per_second(amount: u64, runtime_ms: u64) -> u64 {
    let rate = (u128::from(amount) * 1000).checked_div(u128::from(runtime_ms)).unwrap_or(0);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

fn cpu_percent(cpu_ns: u64, runtime_ms: u64) -> f64 {
    if runtime_ms == 0 {
        return 0.0;
    }
    use crate::stats::approximate;
    approximate(u128::from(cpu_ns)) / 1e6 * 100.0 / approximate(u128::from(runtime_ms))
}
