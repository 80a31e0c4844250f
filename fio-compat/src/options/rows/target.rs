//! Options about the file or device, its region and the amount of I/O.
//!
//! Data flow: row -> setter -> field of `Job`.
//!
//! Not here: opening, creating and measuring files (the bench).

use super::{Kind, Row, digit, extent, row};
use crate::job::Extent;

pub(super) const ROWS: &[Row] = &[
    row(
        "filename",
        &[],
        Kind::Texts(|job, list| job.filenames = list),
        |job| job.filenames.join(":"),
        "files or devices, separated by `:`",
    ),
    row(
        "directory",
        &[],
        Kind::Texts(|job, list| job.directories = list),
        |job| job.directories.join(":"),
        "directory of the files",
    ),
    row(
        "size",
        &[],
        Kind::Extent(|job, value| job.size = Some(value)),
        |job| job.size.map_or_else(String::new, extent),
        "region and amount of I/O, in bytes or percent",
    ),
    row(
        "io_size",
        &["io_limit"],
        Kind::Extent(|job, value| job.io_size = Some(value).filter(|it| *it != Extent::Bytes(0))),
        |job| job.io_size.map_or_else(String::new, extent),
        "amount of I/O if it differs from size; 0 if it does not",
    ),
    row(
        "offset",
        &[],
        Kind::Extent(|job, value| job.offset = value),
        |job| extent(job.offset),
        "start of the region, in bytes or percent",
    ),
    row(
        "number_ios",
        &[],
        Kind::Number { min: 0, set: |job, value| job.number_ios = Some(value).filter(|n| *n > 0) },
        |job| job.number_ios.unwrap_or(0).to_string(),
        "stop after that many I/Os; 0 is no limit",
    ),
    row(
        "loops",
        &[],
        Kind::Number { min: 1, set: |job, value| job.loops = value },
        |job| job.loops.to_string(),
        "how often to run the job",
    ),
    row(
        "allow_file_create",
        &[],
        Kind::Bool(|job, value| job.allow_file_create = value),
        |job| digit(job.allow_file_create),
        "whether a missing file may be created",
    ),
    row(
        "invalidate",
        &[],
        Kind::Bool(|job, value| job.invalidate = value),
        |job| digit(job.invalidate),
        "drop the target from the page cache first",
    ),
    row(
        "unlink",
        &[],
        Kind::Bool(|job, value| job.unlink = value),
        |job| digit(job.unlink),
        "delete the files at the end",
    ),
    row(
        "allow_mounted_write",
        &[],
        Kind::Bool(|job, value| job.allow_mounted_write = value),
        |job| digit(job.allow_mounted_write),
        "write a device although it is mounted",
    ),
    row(
        "overwrite_device",
        &[],
        Kind::Bool(|job, value| job.overwrite_device = value),
        |job| digit(job.overwrite_device),
        "write a device that carries something; ours, not fio's",
    ),
];
