//! Options about traces: writing them and following them.
//!
//! Data flow: row -> parser -> field of `Replay`.
//!
//! Not here: traces themselves (`trace`), logs of results (`reporting`).

use super::{Kind, Row, digit, row};
use crate::error::Complaint;
use crate::job::{Job, ReplaySkip};
use crate::options::parts::bytes;

pub(super) const ROWS: &[Row] = &[
    row(
        "write_iolog",
        &[],
        Kind::Text(|job, text| job.replay.write = Some(text.to_owned())),
        |job| job.replay.write.clone().unwrap_or_default(),
        "write a trace of all I/O to this file, anew on each run",
    ),
    row(
        "read_iolog",
        &[],
        Kind::Texts(|job, texts| job.replay.read = texts),
        |job| job.replay.read.join(":"),
        "do what these traces say; clones take turns; - is stdin",
    ),
    row(
        "read_iolog_chunked",
        &[],
        Kind::Bool(|job, value| job.replay.chunked = value),
        |job| digit(job.replay.chunked),
        "read the trace while the job runs",
    ),
    row(
        "replay_no_stall",
        &[],
        Kind::Bool(|job, value| job.replay.no_stall = value),
        |job| digit(job.replay.no_stall),
        "keep the order of a trace and not its times",
    ),
    row(
        "replay_time_scale",
        &[],
        Kind::Count { min: 1, max: 1 << 20, set: |job, n| job.replay.time_scale_percent = n },
        |job| job.replay.time_scale_percent.to_string(),
        "speed of a replay in percent",
    ),
    row(
        "replay_redirect",
        &[],
        Kind::Text(|job, text| job.replay.redirect = Some(text.to_owned())),
        |job| job.replay.redirect.clone().unwrap_or_default(),
        "send all I/O of a trace to this file",
    ),
    row(
        "replay_scale",
        &[],
        Kind::Number { min: 1, set: |job, value| job.replay.scale = value },
        |job| job.replay.scale.to_string(),
        "divide the offsets of a trace by that",
    ),
    row(
        "replay_align",
        &[],
        Kind::ParsedSizes(set_align),
        |job| job.replay.align_bytes.to_string(),
        "round the offsets of a trace down to multiples of that",
    ),
    row(
        "replay_skip",
        &[],
        Kind::Parsed(set_skip),
        |job| shown_skip(job.replay.skip),
        "leave I/O out: read, write, trim, sync",
    ),
];

fn set_align(job: &mut Job, text: &str) -> Result<(), Complaint> {
    let align = bytes(text)?;
    if align != 0 && !align.is_power_of_two() {
        return Err(Complaint::new("it is not a power of two").with_remedy("use 4k, for example"));
    }
    job.replay.align_bytes = align;
    Ok(())
}

fn set_skip(job: &mut Job, text: &str) -> Result<(), Complaint> {
    let mut skip = ReplaySkip::default();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "read" => skip.read = true,
            "write" => skip.write = true,
            "trim" => skip.trim = true,
            "sync" => skip.sync = true,
            _ => {
                let remedy = "valid values are read, write, trim, sync";
                return Err(Complaint::new("no such value").with_remedy(remedy));
            }
        }
    }
    job.replay.skip = skip;
    Ok(())
}

fn shown_skip(skip: ReplaySkip) -> String {
    let all = [(skip.read, "read"), (skip.write, "write"), (skip.trim, "trim")];
    let all = all.into_iter().chain([(skip.sync, "sync")]);
    all.filter(|(used, _)| *used).map(|(_, word)| word).collect::<Vec<_>>().join(",")
}
