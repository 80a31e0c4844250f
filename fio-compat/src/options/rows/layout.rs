//! Options about how files are made, opened, kept and left behind.
//!
//! Data flow: row -> parser -> field of `Layout`.
//!
//! Not here: names and sizes (`target`, `workload`).

use super::{Kind, Row, digit, row};
use crate::job::{Fallocate, FileAdvice, WriteLife};
use crate::options::parts::word;

pub(super) const ROWS: &[Row] = &[
    row(
        "fallocate",
        &[],
        Kind::Parsed(|job, text| {
            let choices = [
                ("none", Fallocate::None),
                ("0", Fallocate::None),
                ("native", Fallocate::Native),
                ("posix", Fallocate::Posix),
                ("1", Fallocate::Posix),
                ("keep", Fallocate::Keep),
                ("truncate", Fallocate::Truncate),
            ];
            word(text, &choices).map(|value| job.layout.fallocate = value)
        }),
        |job| job.layout.fallocate.as_str().to_owned(),
        "how files that are only written get their space",
    ),
    row(
        "create_on_open",
        &[],
        Kind::Bool(|job, value| job.layout.create_on_open = value),
        |job| digit(job.layout.create_on_open),
        "make files empty, when they are opened",
    ),
    row(
        "create_only",
        &[],
        Kind::Bool(|job, value| job.layout.create_only = value),
        |job| digit(job.layout.create_only),
        "lay files out and do no I/O",
    ),
    row(
        "create_serialize",
        &[],
        Kind::Bool(|job, value| job.layout.create_serialize = value),
        |job| digit(job.layout.create_serialize),
        "lay files out one after the other",
    ),
    row(
        "create_fsync",
        &[],
        Kind::Bool(|job, value| job.layout.create_fsync = value),
        |job| digit(job.layout.create_fsync),
        "fsync files that were filled",
    ),
    row(
        "overwrite",
        &[],
        Kind::Bool(|job, value| job.layout.overwrite = value),
        |job| digit(job.layout.overwrite),
        "fill files with data also where the job only writes",
    ),
    row(
        "unlink_each_loop",
        &[],
        Kind::Bool(|job, value| job.layout.unlink_each_loop = value),
        |job| digit(job.layout.unlink_each_loop),
        "delete the files after each loop",
    ),
    row(
        "pre_read",
        &[],
        Kind::Bool(|job, value| job.layout.pre_read = value),
        |job| digit(job.layout.pre_read),
        "read the files into the page cache first",
    ),
    row(
        "file_append",
        &[],
        Kind::Bool(|job, value| job.layout.file_append = value),
        |job| digit(job.layout.file_append),
        "begin at the end of the file",
    ),
    row(
        "fadvise_hint",
        &["fadvise"],
        Kind::Parsed(|job, text| {
            let choices = [
                ("0", FileAdvice::None),
                ("1", FileAdvice::Pattern),
                ("random", FileAdvice::Random),
                ("sequential", FileAdvice::Sequential),
            ];
            word(text, &choices).map(|value| job.layout.advice = value)
        }),
        |job| job.layout.advice.as_str().to_owned(),
        "what the kernel is told of the order of reads",
    ),
    row(
        "write_hint",
        &[],
        Kind::Parsed(|job, text| {
            let choices = [
                ("none", WriteLife::None),
                ("short", WriteLife::Short),
                ("medium", WriteLife::Medium),
                ("long", WriteLife::Long),
                ("extreme", WriteLife::Extreme),
            ];
            word(text, &choices).map(|value| job.layout.write_life = Some(value))
        }),
        |job| job.layout.write_life.map_or("", WriteLife::as_str).to_owned(),
        "how long what is written is expected to live",
    ),
    row(
        "end_syncfs",
        &[],
        Kind::Bool(|job, value| job.layout.end_syncfs = value),
        |job| digit(job.layout.end_syncfs),
        "syncfs(2) at the end of the writes",
    ),
    row(
        "exec_prerun",
        &[],
        Kind::Text(|job, text| job.layout.exec_prerun = Some(text.to_owned())),
        |job| job.layout.exec_prerun.clone().unwrap_or_default(),
        "command for the shell before the job",
    ),
    row(
        "exec_postrun",
        &[],
        Kind::Text(|job, text| job.layout.exec_postrun = Some(text.to_owned())),
        |job| job.layout.exec_postrun.clone().unwrap_or_default(),
        "command for the shell after the job",
    ),
    row(
        "lockfile",
        &[],
        Kind::Choice { choices: &[("none", |_| ())], not_yet: &["exclusive", "readwrite"] },
        |_| "none".to_owned(),
        "none: files are not locked while I/O goes on",
    ),
];
