//! Names and lines of fio's log files.
//!
//! Data flow: options and measured values -> a file name, a line.
//!
//! Not here: when a line is due (the bench), and the sampling of rates.

use crate::job::{LogOptions, WindowValue};
use crate::stats::{BINS, Histogram};

/// What a log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// Bandwidth in KiB/s.
    Bw,
    /// I/Os per second.
    Iops,
    /// Submission latency in nanoseconds.
    Slat,
    /// Completion latency in nanoseconds.
    Clat,
    /// Total latency in nanoseconds.
    Lat,
    /// Histograms of completion latency.
    ClatHist,
}

impl LogKind {
    /// What the name of the file ends with, before the number of the clone.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Bw => "bw",
            Self::Iops => "iops",
            Self::Slat => "slat",
            Self::Clat => "clat",
            Self::Lat => "lat",
            Self::ClatHist => "clat_hist",
        }
    }
}

/// The name of a log; `number` counts all clones of the run from 1.
#[must_use]
pub fn log_name(prefix: &str, kind: LogKind, number: u64, options: &LogOptions) -> String {
    let suffix = kind.suffix();
    if options.per_job {
        format!("{prefix}_{suffix}.{number}.log")
    } else {
        format!("{prefix}_{suffix}.log")
    }
}

/// One line of any log but those of histograms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogEntry {
    /// Milliseconds since the start of the job, or since 1970.
    pub time_ms: u64,
    /// The value, or the mean of a window.
    pub value: u64,
    /// The largest value of a window.
    pub max: u64,
    /// 0 reads, 1 writes, 2 trims.
    pub direction: u8,
    /// Length of the I/O; 0 in averages.
    pub bytes: u64,
    /// Offset of the I/O; 0 in averages.
    pub offset_bytes: u64,
    /// I/O priority, class and level as the kernel packs them.
    pub prio: u16,
    /// When the I/O was issued, in nanoseconds since the start of the job; 0 in averages.
    pub issue_ns: u64,
}

/// The line of `entry`, with its newline.
#[must_use]
pub fn log_line(entry: &LogEntry, options: &LogOptions) -> String {
    let mut line = format!("{}, ", entry.time_ms);
    let averaged = options.avg_ms > 0;
    match options.window_value {
        WindowValue::Both if averaged => {
            line.push_str(&format!("{}, {}", entry.value, entry.max));
        }
        WindowValue::Max if averaged => line.push_str(&entry.max.to_string()),
        _ => line.push_str(&entry.value.to_string()),
    }
    line.push_str(&format!(", {}, {}", entry.direction, entry.bytes));
    if options.offset {
        line.push_str(&format!(", {}", entry.offset_bytes));
    }
    if options.prio {
        line.push_str(&format!(", 0x{:04x}", entry.prio));
    } else {
        // The class `real time` is what fio calls a high priority.
        line.push_str(&format!(", {}", u8::from(entry.prio >> 13 == 1)));
    }
    if options.issue_time {
        line.push_str(&format!(", {}", entry.issue_ns));
    }
    line.push('\n');
    line
}

/// A line of a histogram log: the counts of one window, neighbours merged by the coarseness.
#[must_use]
pub fn histogram_line(
    time_ms: u64,
    direction: u8,
    bytes: u64,
    counts: &Histogram,
    options: &LogOptions,
) -> String {
    let stride = 1usize << options.hist_coarseness.min(6);
    let mut line = format!("{time_ms}, {direction}, {bytes}");
    for start in (0..BINS).step_by(stride) {
        let count: u64 = counts.bins()[start..(start + stride).min(BINS)].iter().sum();
        line.push_str(&format!(", {count}"));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: LogEntry = LogEntry {
        time_ms: 500,
        value: 7,
        max: 9,
        direction: 1,
        bytes: 4096,
        offset_bytes: 8192,
        prio: 0x2001,
        issue_ns: 77,
    };

    fn with(set: impl Fn(&mut LogOptions)) -> String {
        let mut options = LogOptions::default();
        set(&mut options);
        log_line(&ENTRY, &options)
    }

    #[test]
    fn options_add_their_columns() {
        assert_eq!(with(|_| ()), "500, 7, 1, 4096, 1\n");
        assert_eq!(with(|o| o.offset = true), "500, 7, 1, 4096, 8192, 1\n");
        assert_eq!(with(|o| o.prio = true), "500, 7, 1, 4096, 0x2001\n");
        let both = |o: &mut LogOptions| {
            (o.avg_ms, o.window_value, o.issue_time) = (500, WindowValue::Both, true);
        };
        assert_eq!(with(both), "500, 7, 9, 1, 4096, 1, 77\n");
        let max = |o: &mut LogOptions| (o.avg_ms, o.window_value) = (500, WindowValue::Max);
        assert_eq!(with(max), "500, 9, 1, 4096, 1\n");
        assert_eq!(with(|o| o.window_value = WindowValue::Max), "500, 7, 1, 4096, 1\n");
    }

    #[test]
    fn clones_share_a_name_without_per_job_logs() {
        let mut options = LogOptions::default();
        assert_eq!(log_name("a/b", LogKind::ClatHist, 3, &options), "a/b_clat_hist.3.log");
        options.per_job = false;
        assert_eq!(log_name("a/b", LogKind::Bw, 3, &options), "a/b_bw.log");
    }

    #[test]
    fn histogram_lines_have_all_bins_and_coarser_ones_fewer() {
        let mut counts = Histogram::default();
        [0, 1, 2, u64::MAX].into_iter().for_each(|value| counts.record(value));
        for (coarseness, columns, first) in [(0, 1856, 1), (1, 928, 2), (6, 29, 3)] {
            let options = LogOptions { hist_coarseness: coarseness, ..LogOptions::default() };
            let line = histogram_line(1000, 0, 4096, &counts, &options);
            let fields: Vec<u64> =
                line.trim().split(", ").map(|field| field.parse().unwrap()).collect();
            assert_eq!(fields.len(), 3 + columns);
            assert_eq!(fields[3..].iter().sum::<u64>(), 4);
            assert_eq!((fields[3], fields[2 + columns]), (first, 1));
        }
    }
}
