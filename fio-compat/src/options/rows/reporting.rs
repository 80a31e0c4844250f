//! Options about what is measured and reported.
//!
//! Data flow: row -> setter -> field of `Job`.
//!
//! Not here: statistics (`stats`) and printing (`render`).

use super::{Kind, Row, digit, row};
use crate::job::Job;

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
];

/// As in fio, the last assignment counts: a later `disable_clat=0` switches that one on again.
fn reduce_clock_readings(job: &mut Job, reduce: bool) {
    job.gtod_reduce = reduce;
    job.disable_lat = reduce;
    job.disable_clat = reduce;
    job.disable_slat = reduce;
    job.disable_bw_measurement = reduce;
}
