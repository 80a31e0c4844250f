//! Options about when writes become durable.
//!
//! Data flow: row -> parser -> field of `Durability`.
//!
//! Not here: `fsync`, `fdatasync` and `end_fsync` (`pattern`).

use super::{Kind, Row, digit, row};
use crate::error::Complaint;
use crate::job::{Job, SyncFileRange, SyncIo};
use crate::options::parts::{bytes, word};

pub(super) const ROWS: &[Row] = &[
    row(
        "sync",
        &[],
        Kind::Parsed(|job, text| {
            let choices = [
                ("none", SyncIo::None),
                ("0", SyncIo::None),
                ("sync", SyncIo::Sync),
                ("1", SyncIo::Sync),
                ("dsync", SyncIo::Dsync),
            ];
            word(text, &choices).map(|value| job.durability.sync = value)
        }),
        |job| format!("{:?}", job.durability.sync).to_lowercase(),
        "open with O_SYNC (sync) or O_DSYNC (dsync)",
    ),
    row(
        "sync_file_range",
        &[],
        Kind::Parsed(set_range),
        |job| {
            let SyncFileRange { wait_before, write, wait_after, every } =
                job.durability.sync_file_range;
            let parts =
                [(wait_before, "wait_before"), (write, "write"), (wait_after, "wait_after")];
            let parts = parts.iter().filter(|(used, _)| *used).map(|(_, name)| *name);
            format!("{}:{every}", parts.collect::<Vec<_>>().join(","))
        },
        "sync_file_range(2) after every N writes",
    ),
    row(
        "fsync_on_close",
        &[],
        Kind::Bool(|job, value| job.durability.fsync_on_close = value),
        |job| digit(job.durability.fsync_on_close),
        "fsync each file before it is closed",
    ),
];

/// `wait_before,write,wait_after:N`, any of the three words.
fn set_range(job: &mut Job, text: &str) -> Result<(), Complaint> {
    let (words, every) = text.split_once(':').unwrap_or((text, "1"));
    let mut range = SyncFileRange::default();
    for name in words.split(',') {
        match name.trim() {
            "wait_before" => range.wait_before = true,
            "write" => range.write = true,
            "wait_after" => range.wait_after = true,
            _ => {
                let remedy = "valid values are wait_before, write, wait_after";
                return Err(Complaint::new("no such value").with_remedy(remedy));
            }
        }
    }
    let too_large = |_| Complaint::new("the number is too large");
    range.every = u32::try_from(bytes(every)?).map_err(too_large)?;
    job.durability.sync_file_range = range;
    Ok(())
}
