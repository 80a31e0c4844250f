//! Options of single engines: flags of their transfers.
//!
//! Data flow: row -> setter -> field of `EngineOptions`.
//!
//! Not here: which engine has which (`job::engine_options`).

use super::{Kind, Row, digit, row};

pub(super) const ROWS: &[Row] = &[
    row(
        "hipri_percentage",
        &[],
        Kind::Percent(|job, value| job.engine.hipri_percent = value),
        |job| job.engine.hipri_percent.to_string(),
        "share of pvsync2's I/Os that hipri polls for",
    ),
    row(
        "uncached",
        &[],
        Kind::Bool(|job, value| job.engine.uncached = value),
        |job| digit(job.engine.uncached),
        "RWF_DONTCACHE: leave nothing in the page cache",
    ),
    row(
        "nowait",
        &[],
        Kind::Bool(|job, value| job.engine.nowait = value),
        |job| digit(job.engine.nowait),
        "RWF_NOWAIT: EAGAIN instead of waiting",
    ),
    row(
        "atomic",
        &[],
        Kind::Bool(|job, value| job.engine.atomic = value),
        |job| digit(job.engine.atomic),
        "RWF_ATOMIC: writes that are never torn",
    ),
    row(
        "force_async",
        &[],
        Kind::Count { min: 0, max: u32::MAX, set: |job, value| job.engine.force_async = value },
        |job| job.engine.force_async.to_string(),
        "every Nth I/O goes to a worker of the kernel",
    ),
    row(
        "readfua",
        &[],
        Kind::Bool(|job, value| job.engine.read_fua = value),
        |job| digit(job.engine.read_fua),
        "io_uring_cmd: reads come from the medium (FUA)",
    ),
    row(
        "writefua",
        &[],
        Kind::Bool(|job, value| job.engine.write_fua = value),
        |job| digit(job.engine.write_fua),
        "io_uring_cmd: writes end on the medium (FUA)",
    ),
];
