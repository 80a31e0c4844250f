//! Options about how long a job runs.
//!
//! Data flow: row -> setter -> field of `Job`.
//!
//! Not here: reading a clock (the bench).

use super::{Kind, Row, digit, row, seconds};

pub(super) const ROWS: &[Row] = &[
    row(
        "runtime",
        &["timeout"],
        Kind::Seconds(|job, value| job.runtime_ns = Some(value).filter(|ns| *ns > 0)),
        |job| seconds(job.runtime_ns.unwrap_or(0)),
        "upper limit on the time of I/O; 0 is none",
    ),
    row(
        "time_based",
        &[],
        Kind::Flag(|job, value| job.time_based = value),
        |job| digit(job.time_based),
        "start over until the runtime has passed",
    ),
    row(
        "ramp_time",
        &[],
        Kind::Seconds(|job, value| job.ramp_time_ns = value),
        |job| seconds(job.ramp_time_ns),
        "run that long before recording",
    ),
];
