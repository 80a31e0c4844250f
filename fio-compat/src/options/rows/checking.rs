//! Options about what verification does beside its reads, and about trims on the way.
//!
//! Data flow: row -> setter -> field of `Checking`.
//!
//! Not here: methods (`verify`), content of blocks (`content`).

use super::{Kind, Row, digit, row};

/// More threads than this check nothing faster.
const THREADS_MAX: u32 = 1024;

pub(super) const ROWS: &[Row] = &[
    row(
        "verify_async",
        &[],
        Kind::Count { min: 0, max: THREADS_MAX, set: |job, value| job.checking.threads = value },
        |job| job.checking.threads.to_string(),
        "threads that check what was read; 0 is the job's own",
    ),
    row(
        "verify_async_cpus",
        &[],
        Kind::Cpus(|job, list| job.checking.cpus = list),
        |job| {
            let list: Vec<String> = job.checking.cpus.iter().map(u32::to_string).collect();
            list.join(",")
        },
        "CPUs those threads may run on",
    ),
    row(
        "verify_state_save",
        &[],
        Kind::Bool(|job, value| job.checking.state_save = value),
        |job| digit(job.checking.state_save),
        "save what was written, for verify_state_load; off unlike fio",
    ),
    row(
        "verify_state_load",
        &[],
        Kind::Bool(|job, value| job.checking.state_load = value),
        |job| digit(job.checking.state_load),
        "check against what an earlier run has saved",
    ),
    row(
        "verify_write_sequence",
        &[],
        Kind::Bool(|job, value| job.checking.write_sequence = value),
        |job| digit(job.checking.write_sequence),
        "whether a block must be of the last write to its place",
    ),
    row(
        "verify_header_seed",
        &[],
        Kind::Bool(|job, value| job.checking.header_seed = value),
        |job| digit(job.checking.header_seed),
        "whether a block must be of the run that wrote last",
    ),
    row(
        "experimental_verify",
        &[],
        Kind::Bool(|job, value| job.checking.replays = value),
        |job| digit(job.checking.replays),
        "repeat the writes as reads instead of remembering them",
    ),
    row(
        "trim_percentage",
        &[],
        Kind::Percent(|job, value| job.checking.trim_percent = value),
        |job| job.checking.trim_percent.to_string(),
        "share of the verified blocks that are trimmed",
    ),
    row(
        "trim_verify_zero",
        &[],
        Kind::Bool(|job, value| job.checking.trim_verify_zero = value),
        |job| digit(job.checking.trim_verify_zero),
        "trimmed blocks must read as zeros",
    ),
    row(
        "trim_backlog",
        &[],
        Kind::Number { min: 0, set: |job, value| job.checking.trim_backlog = value },
        |job| job.checking.trim_backlog.to_string(),
        "trim after every so many writes",
    ),
    row(
        "trim_backlog_batch",
        &[],
        Kind::Number { min: 0, set: |job, value| job.checking.trim_backlog_batch = value },
        |job| job.checking.trim_backlog_batch.to_string(),
        "how many to trim at a time; 0 is trim_backlog",
    ),
];
