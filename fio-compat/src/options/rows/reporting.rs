//! Options about what is measured and reported.
//!
//! Data flow: row -> setter -> field of `Job`.
//!
//! Not here: statistics (`stats`) and printing (`render`).

use super::{Choice, Kind, Row, digit, row};
use crate::job::{Job, LogPrefix, Unified, WindowValue};

pub(super) const ROWS: &[Row] = &[
    row(
        "gtod_reduce",
        &[],
        Kind::Bool(reduce_clock_readings),
        |job| digit(job.gtod_reduce),
        "fewer clock readings: sets the four disable options",
    ),
    row(
        "disable_lat",
        &[],
        Kind::Bool(|job, value| job.disable_lat = value),
        |job| digit(job.disable_lat),
        "do not measure total latency",
    ),
    row(
        "disable_clat",
        &[],
        Kind::Bool(|job, value| job.disable_clat = value),
        |job| digit(job.disable_clat),
        "do not measure completion latency",
    ),
    row(
        "disable_slat",
        &[],
        Kind::Bool(|job, value| job.disable_slat = value),
        |job| digit(job.disable_slat),
        "do not measure submission latency",
    ),
    row(
        "disable_bw_measurement",
        &["disable_bw"],
        Kind::Bool(|job, value| job.disable_bw_measurement = value),
        |job| digit(job.disable_bw_measurement),
        "do not sample bandwidth and IOPS",
    ),
    row(
        "percentile_list",
        &[],
        Kind::Percentiles(|job, list| job.percentile_list = list),
        |job| job.percentile_list.iter().map(f64::to_string).collect::<Vec<_>>().join(":"),
        "percentiles to report, such as 50:99:99.9",
    ),
    row(
        "clat_percentiles",
        &[],
        Kind::Bool(|job, value| job.clat_percentiles = value),
        |job| digit(job.clat_percentiles),
        "report percentiles of completion latency",
    ),
    row(
        "lat_percentiles",
        &[],
        Kind::Bool(|job, value| job.lat_percentiles = value),
        |job| digit(job.lat_percentiles),
        "report percentiles of total latency",
    ),
    row(
        "slat_percentiles",
        &[],
        Kind::Bool(|job, value| job.reporting.slat_percentiles = value),
        |job| digit(job.reporting.slat_percentiles),
        "report percentiles of submission latency",
    ),
    row(
        "unified_rw_reporting",
        &[],
        Kind::Choice { choices: UNIFIED, not_yet: &[] },
        |job| shown_unified(job).to_owned(),
        "report directions apart, mixed, or both",
    ),
    row(
        "bwavgtime",
        &[],
        Kind::Count { min: 1, max: u32::MAX, set: |job, value| job.reporting.bw_window_ms = value },
        |job| job.reporting.bw_window_ms.to_string(),
        "milliseconds of one bandwidth sample",
    ),
    row(
        "iopsavgtime",
        &[],
        Kind::Count {
            min: 1,
            max: u32::MAX,
            set: |job, value| job.reporting.iops_window_ms = value,
        },
        |job| job.reporting.iops_window_ms.to_string(),
        "milliseconds of one IOPS sample",
    ),
    row(
        "significant_figures",
        &[],
        Kind::Count { min: 1, max: 10, set: set_digits },
        |job| job.reporting.units.digits.to_string(),
        "digits of shortened numbers, 1 to 10",
    ),
    row(
        "kb_base",
        &[],
        Kind::Choice { choices: KB_BASE, not_yet: &[] },
        |job| if job.reporting.units.binary { "1024" } else { "1000" }.to_owned(),
        "whether k means 1024 or 1000, read and shown",
    ),
    row(
        "unit_base",
        &[],
        Kind::Choice { choices: UNIT_BASE, not_yet: &[] },
        |job| if job.reporting.units.bits { "1" } else { "8" }.to_owned(),
        "rates in bytes (0 or 8) or in bits (1)",
    ),
    row(
        "disk_util",
        &[],
        Kind::Bool(|job, value| job.reporting.disk_util = value),
        |job| digit(job.reporting.disk_util),
        "report what the kernel counts for the disks",
    ),
    row(
        "stats",
        &[],
        Kind::Bool(|job, value| job.reporting.stats = value),
        |job| digit(job.reporting.stats),
        "report this job at all",
    ),
    row(
        "write_bw_log",
        &[],
        Kind::OptionalText(|job, text| job.logs.bw = Some(prefix(text))),
        |job| shown_prefix(job.logs.bw.as_ref()),
        "log bandwidth to PREFIX_bw.N.log",
    ),
    row(
        "write_iops_log",
        &[],
        Kind::OptionalText(|job, text| job.logs.iops = Some(prefix(text))),
        |job| shown_prefix(job.logs.iops.as_ref()),
        "log IOPS to PREFIX_iops.N.log",
    ),
    row(
        "write_lat_log",
        &[],
        Kind::OptionalText(|job, text| job.logs.lat = Some(prefix(text))),
        |job| shown_prefix(job.logs.lat.as_ref()),
        "log latencies to PREFIX_{slat,clat,lat}.N.log",
    ),
    row(
        "write_hist_log",
        &[],
        Kind::OptionalText(|job, text| job.logs.hist = Some(prefix(text))),
        |job| shown_prefix(job.logs.hist.as_ref()),
        "log histograms to PREFIX_clat_hist.N.log",
    ),
    row(
        "log_avg_msec",
        &[],
        Kind::Count { min: 0, max: u32::MAX, set: |job, value| job.logs.avg_ms = value },
        |job| job.logs.avg_ms.to_string(),
        "log one mean per that many milliseconds",
    ),
    row(
        "log_hist_msec",
        &[],
        Kind::Count { min: 0, max: u32::MAX, set: |job, value| job.logs.hist_ms = value },
        |job| job.logs.hist_ms.to_string(),
        "log one histogram per that many milliseconds",
    ),
    row(
        "log_hist_coarseness",
        &[],
        Kind::Count { min: 0, max: 6, set: |job, value| job.logs.hist_coarseness = value },
        |job| job.logs.hist_coarseness.to_string(),
        "merge pairs of bins of logged histograms that often",
    ),
    row(
        "log_offset",
        &[],
        Kind::Bool(|job, value| job.logs.offset = value),
        |job| digit(job.logs.offset),
        "log the offset of each I/O",
    ),
    row(
        "log_prio",
        &[],
        Kind::Bool(|job, value| job.logs.prio = value),
        |job| digit(job.logs.prio),
        "log the whole priority of each I/O",
    ),
    row(
        "log_issue_time",
        &[],
        Kind::Bool(|job, value| job.logs.issue_time = value),
        |job| digit(job.logs.issue_time),
        "log when each I/O was issued",
    ),
    row(
        "log_window_value",
        &["log_max_value"],
        Kind::Choice { choices: WINDOW, not_yet: &[] },
        |job| shown_window(job).to_owned(),
        "log the mean, the maximum or both of each window",
    ),
    row(
        "per_job_logs",
        &[],
        Kind::Bool(|job, value| job.logs.per_job = value),
        |job| digit(job.logs.per_job),
        "a log per clone, with its number in the name",
    ),
    row(
        "log_entries",
        &[],
        Kind::Number { min: 0, set: |job, value| job.logs.entries = value },
        |job| job.logs.entries.to_string(),
        "log lines to reserve memory for",
    ),
    row(
        "log_alternate_epoch",
        &["log_unix_epoch"],
        Kind::Bool(|job, value| job.logs.unix_epoch = value),
        |job| digit(job.logs.unix_epoch),
        "log times since 1970",
    ),
    row(
        "log_alternate_epoch_clock_id",
        &[],
        Kind::Count { min: 0, max: 11, set: |job, value| job.logs.epoch_clock = value },
        |job| job.logs.epoch_clock.to_string(),
        "clock of such times, by its number in clock_gettime(2)",
    ),
];

const UNIFIED: &[Choice] = &[
    ("none", |job| job.reporting.unified = Unified::None),
    ("mixed", |job| job.reporting.unified = Unified::Mixed),
    ("both", |job| job.reporting.unified = Unified::Both),
    ("0", |job| job.reporting.unified = Unified::None),
    ("1", |job| job.reporting.unified = Unified::Mixed),
    ("2", |job| job.reporting.unified = Unified::Both),
];

const KB_BASE: &[Choice] = &[
    ("1024", |job| job.reporting.units.binary = true),
    ("1000", |job| job.reporting.units.binary = false),
];

const UNIT_BASE: &[Choice] = &[
    ("0", |job| job.reporting.units.bits = false),
    ("8", |job| job.reporting.units.bits = false),
    ("1", |job| job.reporting.units.bits = true),
];

const WINDOW: &[Choice] = &[
    ("avg", |job| job.logs.window_value = WindowValue::Mean),
    ("max", |job| job.logs.window_value = WindowValue::Max),
    ("both", |job| job.logs.window_value = WindowValue::Both),
    ("0", |job| job.logs.window_value = WindowValue::Mean),
    ("1", |job| job.logs.window_value = WindowValue::Max),
    ("2", |job| job.logs.window_value = WindowValue::Both),
];

fn shown_unified(job: &Job) -> &'static str {
    match job.reporting.unified {
        Unified::None => "none",
        Unified::Mixed => "mixed",
        Unified::Both => "both",
    }
}

fn shown_window(job: &Job) -> &'static str {
    match job.logs.window_value {
        WindowValue::Mean => "avg",
        WindowValue::Max => "max",
        WindowValue::Both => "both",
    }
}

/// 1 to 10, as the row bounds it.
fn set_digits(job: &mut Job, digits: u32) {
    job.reporting.units.digits = u8::try_from(digits).unwrap_or(u8::MAX);
}

fn prefix(text: Option<&str>) -> LogPrefix {
    text.map_or(LogPrefix::JobName, |text| LogPrefix::Named(text.to_owned()))
}

fn shown_prefix(prefix: Option<&LogPrefix>) -> String {
    match prefix {
        None => String::new(),
        Some(LogPrefix::JobName) => "(job name)".to_owned(),
        Some(LogPrefix::Named(text)) => text.clone(),
    }
}

/// As in fio, the last assignment counts: a later `disable_clat=0` switches that one on again.
fn reduce_clock_readings(job: &mut Job, reduce: bool) {
    job.gtod_reduce = reduce;
    job.disable_lat = reduce;
    job.disable_clat = reduce;
    job.disable_slat = reduce;
    job.disable_bw_measurement = reduce;
}
