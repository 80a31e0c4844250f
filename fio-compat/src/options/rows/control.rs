//! Options about starting, waiting, ending and errors.
//!
//! Data flow: row -> parser -> field of `Control`.
//!
//! Not here: clones and groups (`jobs`), waiting (the bench).

use super::{Kind, Row, digit, row, seconds};
use crate::error::Complaint;
use crate::job::{ContinueOnError, CpusPolicy, ExitWhat, Job};
use crate::options::parts::{bytes, word};
use crate::options::units;

pub(super) const ROWS: &[Row] = &[
    row(
        "startdelay",
        &[],
        Kind::Parsed(|job, text| {
            let (low, high) = text.split_once('-').unwrap_or((text, text));
            let (low, high) = (units::time_ns(low.trim())?, units::time_ns(high.trim())?);
            job.control.start_delay_ns = (low.min(high), low.max(high));
            Ok(())
        }),
        |job| seconds(job.control.start_delay_ns.0),
        "start that long after the run, or a range of times",
    ),
    row(
        "wait_for",
        &[],
        Kind::Text(|job, text| job.control.wait_for = Some(text.to_owned())),
        |job| job.control.wait_for.clone().unwrap_or_default(),
        "start when the earlier job of that name has ended",
    ),
    row(
        "cpumask",
        &[],
        Kind::ParsedSizes(|job, text| {
            let mask = bytes(text)?;
            job.cpus_allowed = (0..64).filter(|cpu| mask >> cpu & 1 == 1).collect();
            Ok(())
        }),
        |job| {
            let bits = job.cpus_allowed.iter().filter(|cpu| **cpu < 64);
            bits.map(|cpu| 1_u64 << cpu).sum::<u64>().to_string()
        },
        "CPUs the job may run on, as a bit mask",
    ),
    row(
        "cpus_allowed_policy",
        &[],
        Kind::Parsed(|job, text| {
            let choices = [("shared", CpusPolicy::Shared), ("split", CpusPolicy::Split)];
            word(text, &choices).map(|value| job.control.cpus_policy = value)
        }),
        |job| format!("{:?}", job.control.cpus_policy).to_lowercase(),
        "shared: clones use all CPUs; split: one each",
    ),
    row(
        "nice",
        &[],
        Kind::Parsed(|job, text| {
            let value = text.parse::<i32>().ok().filter(|value| (-20..=19).contains(value));
            let value = value.ok_or_else(|| Complaint::new("niceness is from -20 to 19"))?;
            job.control.nice = value;
            Ok(())
        }),
        |job| job.control.nice.to_string(),
        "niceness of the job's thread",
    ),
    row(
        "exitall",
        &[],
        Kind::Flag(|job, value| job.control.exitall = value),
        |job| digit(job.control.exitall),
        "end others when this job ends",
    ),
    row(
        "exit_what",
        &[],
        Kind::Parsed(|job, text| {
            let choices = [
                ("group", ExitWhat::Group),
                ("stonewall", ExitWhat::Stonewall),
                ("all", ExitWhat::All),
            ];
            word(text, &choices).map(|value| job.control.exit_what = value)
        }),
        |job| format!("{:?}", job.control.exit_what).to_lowercase(),
        "which jobs exitall ends",
    ),
    row(
        "exitall_on_error",
        &[],
        Kind::Flag(|job, value| job.control.exitall_on_error = value),
        |job| digit(job.control.exitall_on_error),
        "end others when this job fails",
    ),
    row(
        "continue_on_error",
        &[],
        Kind::Parsed(set_continue),
        |job| {
            let ContinueOnError { read, write, verify } = job.control.continue_on_error;
            match (read, write, verify) {
                (true, true, true) => "all",
                (true, true, false) => "io",
                (true, false, _) => "read",
                (false, true, _) => "write",
                (false, false, true) => "verify",
                (false, false, false) => "none",
            }
            .to_owned()
        },
        "errors that do not end the job",
    ),
    row(
        "ignore_error",
        &[],
        Kind::Parsed(set_ignore),
        |job| {
            let list =
                |codes: &Vec<i32>| codes.iter().map(i32::to_string).collect::<Vec<_>>().join(":");
            job.control.ignore_error.iter().map(list).collect::<Vec<_>>().join(",")
        },
        "errnos that are no errors: read,write,verify",
    ),
    row(
        "error_dump",
        &[],
        Kind::Bool(|job, value| job.control.error_dump = value),
        |job| digit(job.control.error_dump),
        "count ignored errors in the report",
    ),
    row(
        "flow",
        &[],
        Kind::Count { min: 0, max: 1_000_000, set: |job, value| job.control.flow = value },
        |job| job.control.flow.to_string(),
        "share of the I/Os of jobs with the same flow_id",
    ),
    row(
        "flow_id",
        &[],
        Kind::Count { min: 0, max: u32::MAX, set: |job, value| job.control.flow_id = value },
        |job| job.control.flow_id.to_string(),
        "which jobs share by flow",
    ),
    row(
        "flow_sleep",
        &[],
        Kind::Number {
            min: 0,
            set: |job, value| job.control.flow_sleep_ns = value.saturating_mul(1000),
        },
        |job| (job.control.flow_sleep_ns / 1000).to_string(),
        "microseconds to sleep when ahead of the others",
    ),
];

fn set_continue(job: &mut Job, text: &str) -> Result<(), Complaint> {
    let of = |read, write, verify| ContinueOnError { read, write, verify };
    let choices = [
        ("none", of(false, false, false)),
        ("0", of(false, false, false)),
        ("read", of(true, false, false)),
        ("write", of(false, true, false)),
        ("io", of(true, true, false)),
        ("verify", of(false, false, true)),
        ("all", of(true, true, true)),
        ("1", of(true, true, true)),
    ];
    word(text, &choices).map(|value| job.control.continue_on_error = value)
}

/// The names of errnos that I/O is answered with; others are written as numbers.
const ERRNOS: [(&str, i32); 18] = [
    ("EPERM", 1),
    ("ENOENT", 2),
    ("EINTR", 4),
    ("EIO", 5),
    ("ENXIO", 6),
    ("EBADF", 9),
    ("EAGAIN", 11),
    ("ENOMEM", 12),
    ("EACCES", 13),
    ("EBUSY", 16),
    ("ENODEV", 19),
    ("EINVAL", 22),
    ("EFBIG", 27),
    ("ENOSPC", 28),
    ("EROFS", 30),
    ("ENODATA", 61),
    ("EILSEQ", 84),
    ("ETIMEDOUT", 110),
];

fn set_ignore(job: &mut Job, text: &str) -> Result<(), Complaint> {
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() > 3 {
        return Err(Complaint::new("there are more than the three lists read,write,verify"));
    }
    let mut lists = [Vec::new(), Vec::new(), Vec::new()];
    for (list, part) in lists.iter_mut().zip(parts) {
        for name in part.split(':').map(str::trim).filter(|name| !name.is_empty()) {
            let known = ERRNOS.iter().find(|(word, _)| *word == name).map(|(_, code)| *code);
            let code = known.or_else(|| name.parse().ok().filter(|code| *code > 0));
            let unknown = || Complaint::new(format!("`{name}` is no errno known here"));
            let remedy = "write a name such as EIO, or its number";
            list.push(code.ok_or_else(|| unknown().with_remedy(remedy))?);
        }
    }
    job.control.ignore_error = lists;
    Ok(())
}
