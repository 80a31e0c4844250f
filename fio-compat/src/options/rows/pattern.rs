//! Options about direction, pattern, block size and syncs.
//!
//! Data flow: row -> setter -> field of `Job`.
//!
//! Not here: drawing offsets (the bench).

use super::{Kind, Row, digit, row};
use crate::error::Complaint;
use crate::job::{BlockSizes, Job, Rw};
use crate::options::parts::{bytes, word};

pub(super) const ROWS: &[Row] = &[
    row(
        "rw",
        &["readwrite"],
        Kind::ParsedSizes(set_rw),
        |job| match job.workload.rw_number {
            None => job.rw.as_str().to_owned(),
            Some(number) => format!("{}:{number}", job.rw.as_str()),
        },
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

const RW: &[(&str, Rw)] = &[
    ("read", Rw::Read),
    ("write", Rw::Write),
    ("trim", Rw::Trim),
    ("rw", Rw::ReadWrite),
    ("readwrite", Rw::ReadWrite),
    ("randread", Rw::RandRead),
    ("randwrite", Rw::RandWrite),
    ("randtrim", Rw::RandTrim),
    ("randrw", Rw::RandRw),
    ("trimwrite", Rw::TrimWrite),
    ("randtrimwrite", Rw::RandTrimWrite),
];

/// A word, and perhaps a number behind it: I/Os per random offset, or bytes to add each time.
fn set_rw(job: &mut Job, text: &str) -> Result<(), Complaint> {
    let (name, number) = text.split_once(':').map_or((text, None), |(a, b)| (a, Some(b)));
    let rw = word(name, RW)?;
    let number = match number {
        None => None,
        Some(text) => {
            let (digits, negative) = text.strip_prefix('-').map_or((text, false), |d| (d, true));
            let too_large = |_| Complaint::new("the number is too large");
            let value = i64::try_from(bytes(digits)?).map_err(too_large)?;
            if rw.is_random() && (negative || value == 0) {
                let remedy = "write rw=randread:8 for a new offset every 8 I/Os";
                return Err(Complaint::new("the number must be positive").with_remedy(remedy));
            }
            Some(if negative { -value } else { value })
        }
    };
    job.rw = rw;
    job.workload.rw_number = number;
    Ok(())
}

/// As in fio, a size given later replaces a range given before.
fn set_block_sizes(job: &mut Job, [read, write, trim]: [Option<u64>; 3]) {
    for (range, size) in job.workload.bs_range.iter_mut().zip([read, write, trim]) {
        *range = range.filter(|_| size.is_none());
    }
    job.bs = BlockSizes {
        read_bytes: read.unwrap_or(job.bs.read_bytes),
        write_bytes: write.unwrap_or(job.bs.write_bytes),
        trim_bytes: trim.unwrap_or(job.bs.trim_bytes),
    };
}
