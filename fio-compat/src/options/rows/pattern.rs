//! Options about direction, pattern, block size and syncs.
//!
//! Data flow: row -> setter -> field of `Job`.
//!
//! Not here: drawing offsets (the bench).

use super::{Choice, Kind, Row, digit, row};
use crate::job::{BlockSizes, Job, Rw};

pub(super) const ROWS: &[Row] = &[
    row(
        "rw",
        &["readwrite"],
        Kind::Choice { choices: RW, not_yet: &["trim", "randtrim", "trimwrite", "randtrimwrite"] },
        |job| job.rw.as_str().to_owned(),
        "direction and pattern",
    ),
    row(
        "bs",
        &["blocksize"],
        Kind::PerDirection(set_block_sizes),
        |job| {
            let BlockSizes { read_bytes, write_bytes, trim_bytes } = job.bs;
            format!("{read_bytes},{write_bytes},{trim_bytes}")
        },
        "block size for read,write,trim",
    ),
    row(
        "rwmixread",
        &[],
        Kind::Percent(|job, value| job.rwmixread_percent = value),
        |job| job.rwmixread_percent.to_string(),
        "percentage of reads in a mixed job",
    ),
    row(
        "rwmixwrite",
        &[],
        Kind::Percent(|job, value| job.rwmixread_percent = 100 - value),
        |job| (100 - job.rwmixread_percent).to_string(),
        "percentage of writes in a mixed job",
    ),
    row(
        "norandommap",
        &[],
        Kind::Flag(|job, value| job.norandommap = value),
        |job| digit(job.norandommap),
        "random blocks may repeat before all were touched",
    ),
    row(
        "randrepeat",
        &[],
        Kind::Bool(|job, value| job.randrepeat = value),
        |job| digit(job.randrepeat),
        "the same random sequence on every run",
    ),
    row(
        "randseed",
        &[],
        Kind::Number { min: 0, set: |job, value| job.randseed = value },
        |job| job.randseed.to_string(),
        "seed of the random sequence; overrides randrepeat",
    ),
    row(
        "direct",
        &[],
        Kind::Bool(|job, value| job.direct = value),
        |job| digit(job.direct),
        "O_DIRECT: bypass the page cache",
    ),
    row(
        "buffered",
        &[],
        Kind::Bool(|job, value| job.direct = !value),
        |job| digit(!job.direct),
        "use the page cache, the opposite of direct",
    ),
    row(
        "fsync",
        &[],
        Kind::Count { min: 0, max: u32::MAX, set: |job, value| job.fsync = value },
        |job| job.fsync.to_string(),
        "fsync after every N writes; 0 is never",
    ),
    row(
        "fdatasync",
        &[],
        Kind::Count { min: 0, max: u32::MAX, set: |job, value| job.fdatasync = value },
        |job| job.fdatasync.to_string(),
        "fdatasync after every N writes; 0 is never",
    ),
    row(
        "end_fsync",
        &[],
        Kind::Bool(|job, value| job.end_fsync = value),
        |job| digit(job.end_fsync),
        "fsync when the writes are done",
    ),
];

const RW: &[Choice] = &[
    ("read", |job| job.rw = Rw::Read),
    ("write", |job| job.rw = Rw::Write),
    ("randread", |job| job.rw = Rw::RandRead),
    ("randwrite", |job| job.rw = Rw::RandWrite),
    ("rw", |job| job.rw = Rw::ReadWrite),
    ("readwrite", |job| job.rw = Rw::ReadWrite),
    ("randrw", |job| job.rw = Rw::RandRw),
];

fn set_block_sizes(job: &mut Job, [read, write, trim]: [Option<u64>; 3]) {
    job.bs = BlockSizes {
        read_bytes: read.unwrap_or(job.bs.read_bytes),
        write_bytes: write.unwrap_or(job.bs.write_bytes),
        trim_bytes: trim.unwrap_or(job.bs.trim_bytes),
    };
}
