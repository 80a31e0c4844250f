//! Options that name a job, multiply it, order it and pin it.
//!
//! Data flow: row -> setter -> field of `Job`.
//!
//! Not here: wait rules and clones in action (the bench), group numbers (`assemble`).

use super::{Kind, Row, digit, row};

pub(super) const ROWS: &[Row] = &[
    row(
        "name",
        &[],
        Kind::Text(|job, text| job.name = text.to_owned()),
        |job| job.name.clone(),
        "name of the job; starts a new job on the command line",
    ),
    row(
        "description",
        &[],
        Kind::Text(|job, text| job.description = Some(text.to_owned())),
        |job| job.description.clone().unwrap_or_default(),
        "text printed with the results",
    ),
    row(
        "numjobs",
        &[],
        Kind::Count { min: 1, max: 65_536, set: |job, value| job.numjobs = value },
        |job| job.numjobs.to_string(),
        "number of clones of the job",
    ),
    row(
        "thread",
        &[],
        Kind::Flag(|job, value| job.thread = value),
        |job| digit(job.thread),
        "threads instead of processes; threads are always used",
    ),
    row(
        "group_reporting",
        &[],
        Kind::Flag(|job, value| job.group_reporting = value),
        |job| digit(job.group_reporting),
        "one report for all jobs of the group",
    ),
    row(
        "stonewall",
        &["wait_for_previous"],
        Kind::Flag(|job, value| job.stonewall = value),
        |job| digit(job.stonewall),
        "wait for all earlier jobs and start a new group",
    ),
    row(
        "new_group",
        &[],
        Kind::Flag(|job, value| job.new_group = value),
        |job| digit(job.new_group),
        "start a new group without waiting",
    ),
    row(
        "cpus_allowed",
        &[],
        Kind::Cpus(|job, list| job.cpus_allowed = list),
        |job| job.cpus_allowed.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        "CPUs the job may run on, such as 0,2-3",
    ),
];
