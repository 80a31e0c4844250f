//! What a job wants measured, logged and printed, and in which units.
//!
//! Data flow: rows of `options` -> these fields -> `report` and the bench's logs.
//!
//! Not here: which latencies and percentiles (`Job` itself), statistics (`stats`).

/// Units and digits of a job's text report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Units {
    /// Sizes and rates are shown in powers of 1024 first (`kb_base=1024`), else of 1000.
    pub binary: bool,
    /// Rates are shown in bits (`unit_base=1`) instead of bytes.
    pub bits: bool,
    /// The most digits of a shortened number, 1 to 10 (`significant_figures`).
    pub digits: u8,
}

impl Default for Units {
    fn default() -> Self {
        Self { binary: true, bits: false, digits: 4 }
    }
}

/// Whether directions are reported apart (`unified_rw_reporting`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unified {
    /// Each direction by itself.
    #[default]
    None,
    /// Their sum only.
    Mixed,
    /// Each and their sum.
    Both,
}

/// Where the name of a log begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPrefix {
    /// With the name of the job.
    JobName,
    /// With this text.
    Named(String),
}

/// What an averaged log holds of each window (`log_window_value`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WindowValue {
    /// The mean.
    #[default]
    Mean,
    /// The largest value.
    Max,
    /// The mean, and the largest in a column of its own.
    Both,
}

/// The logs of a job and what their lines hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogOptions {
    /// Bandwidth in KiB/s (`write_bw_log`).
    pub bw: Option<LogPrefix>,
    /// I/Os per second (`write_iops_log`).
    pub iops: Option<LogPrefix>,
    /// Latencies in nanoseconds: three logs (`write_lat_log`).
    pub lat: Option<LogPrefix>,
    /// Histograms of completion latency (`write_hist_log`).
    pub hist: Option<LogPrefix>,
    /// One line per direction and that many milliseconds; 0 is one line per I/O.
    pub avg_ms: u32,
    /// One histogram per direction and that many milliseconds; 0 is one per I/O.
    pub hist_ms: u32,
    /// Two bins are merged that often in histogram logs, 0 to 6.
    pub hist_coarseness: u32,
    /// Lines hold the offset of the I/O.
    pub offset: bool,
    /// Lines hold the whole I/O priority instead of a single bit.
    pub prio: bool,
    /// Lines end with the time the I/O was issued.
    pub issue_time: bool,
    /// What is logged of each window.
    pub window_value: WindowValue,
    /// One file per clone, with its number in the name; else all clones append to one.
    pub per_job: bool,
    /// Times are those of a clock of the system instead of since the start of the job.
    pub unix_epoch: bool,
    /// The number of that clock for `clock_gettime(2)`; 0 counts from 1970.
    pub epoch_clock: u32,
    /// Lines for which memory is reserved at the start.
    pub entries: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            bw: None,
            iops: None,
            lat: None,
            hist: None,
            avg_ms: 0,
            hist_ms: 0,
            hist_coarseness: 0,
            offset: false,
            prio: false,
            issue_time: false,
            window_value: WindowValue::Mean,
            per_job: true,
            unix_epoch: false,
            epoch_clock: 0,
            entries: 1024,
        }
    }
}

impl LogOptions {
    /// Whether the job writes any log at all.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.bw.is_some() || self.iops.is_some() || self.lat.is_some() || self.hist.is_some()
    }
}

/// How a job's results are reported.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reporting {
    /// Units and digits.
    pub units: Units,
    /// Directions apart or together.
    pub unified: Unified,
    /// Report percentiles of submission latency.
    pub slat_percentiles: bool,
    /// Milliseconds of one bandwidth sample (`bwavgtime`).
    pub bw_window_ms: u32,
    /// Milliseconds of one IOPS sample (`iopsavgtime`).
    pub iops_window_ms: u32,
    /// What the kernel counts for the disks of this job is reported.
    pub disk_util: bool,
    /// The job is reported at all (`stats`).
    pub stats: bool,
}

impl Default for Reporting {
    fn default() -> Self {
        Self {
            units: Units::default(),
            unified: Unified::None,
            slat_percentiles: false,
            bw_window_ms: 500,
            iops_window_ms: 500,
            disk_util: true,
            stats: true,
        }
    }
}
