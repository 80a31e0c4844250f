//! Options about rates and pauses.
//!
//! Data flow: row -> parser -> field of `Pace`.
//!
//! Not here: runtimes (`time`), keeping the pace (the bench).

use super::{Kind, Row, digit, row};
use crate::error::Complaint;
use crate::job::ThinkAfter;
use crate::options::parts::{bytes, triple, word};
use crate::options::units;

pub(super) const ROWS: &[Row] = &[
    row(
        "rate",
        &[],
        Kind::ParsedSizes(|job, text| numbers(&mut job.pace.rate, text)),
        |job| shown(&job.pace.rate),
        "at most so many bytes per second",
    ),
    row(
        "rate_iops",
        &[],
        Kind::ParsedSizes(|job, text| numbers(&mut job.pace.rate_iops, text)),
        |job| shown(&job.pace.rate_iops),
        "at most so many I/Os per second",
    ),
    row(
        "rate_min",
        &["ratemin"],
        Kind::ParsedSizes(|job, text| numbers(&mut job.pace.rate_min, text)),
        |job| shown(&job.pace.rate_min),
        "fail below so many bytes per second",
    ),
    row(
        "rate_iops_min",
        &[],
        Kind::ParsedSizes(|job, text| numbers(&mut job.pace.rate_iops_min, text)),
        |job| shown(&job.pace.rate_iops_min),
        "fail below so many I/Os per second",
    ),
    row(
        "rate_cycle",
        &["ratecycle"],
        Kind::ParsedSizes(|job, text| {
            let value = bytes(text)?;
            if value == 0 {
                return Err(Complaint::new("a cycle takes at least a millisecond"));
            }
            job.pace.rate_cycle_ns = value.saturating_mul(1_000_000);
            Ok(())
        }),
        |job| (job.pace.rate_cycle_ns / 1_000_000).to_string(),
        "milliseconds over which rate_min is judged",
    ),
    row(
        "rate_process",
        &[],
        Kind::Parsed(|job, text| {
            word(text, &[("linear", false), ("poisson", true)])
                .map(|value| job.pace.poisson = value)
        }),
        |job| if job.pace.poisson { "poisson" } else { "linear" }.to_owned(),
        "equal gaps, or those of random arrivals",
    ),
    row(
        "rate_ignore_thinktime",
        &[],
        Kind::Bool(|job, value| job.pace.rate_ignore_thinktime = value),
        |job| digit(job.pace.rate_ignore_thinktime),
        "do not catch up with a rate after thinktime",
    ),
    row(
        "thinktime",
        &[],
        Kind::Parsed(|job, text| micros(text).map(|value| job.pace.thinktime_ns = value)),
        |job| (job.pace.thinktime_ns / 1000).to_string(),
        "microseconds of pause after thinktime_blocks I/Os",
    ),
    row(
        "thinktime_spin",
        &[],
        Kind::Parsed(|job, text| micros(text).map(|value| job.pace.thinktime_spin_ns = value)),
        |job| (job.pace.thinktime_spin_ns / 1000).to_string(),
        "part of thinktime that is spent spinning",
    ),
    row(
        "thinktime_blocks",
        &[],
        Kind::Number { min: 1, set: |job, value| job.pace.thinktime_blocks = value },
        |job| job.pace.thinktime_blocks.to_string(),
        "I/Os before a pause",
    ),
    row(
        "thinktime_blocks_type",
        &[],
        Kind::Parsed(|job, text| {
            word(text, &[("complete", ThinkAfter::Complete), ("issue", ThinkAfter::Issue)])
                .map(|value| job.pace.thinktime_after = value)
        }),
        |job| format!("{:?}", job.pace.thinktime_after).to_lowercase(),
        "count completed or started I/Os",
    ),
    row(
        "thinktime_iotime",
        &[],
        Kind::Seconds(|job, value| job.pace.thinktime_iotime_ns = value),
        |job| super::seconds(job.pace.thinktime_iotime_ns),
        "time of I/O before a pause",
    ),
    row(
        "thinkcycles",
        &[],
        Kind::Number { min: 0, set: |job, value| job.pace.thinkcycles = value },
        |job| job.pace.thinkcycles.to_string(),
        "CPU cycles to spin after each I/O",
    ),
];

fn numbers(field: &mut [u64; 3], text: &str) -> Result<(), Complaint> {
    for (field, value) in field.iter_mut().zip(triple(text, bytes)?) {
        *field = value.unwrap_or(*field);
    }
    Ok(())
}

fn shown(values: &[u64; 3]) -> String {
    values.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

/// A time whose bare number is microseconds.
pub(super) fn micros(text: &str) -> Result<u64, Complaint> {
    let text = text.trim();
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        return units::time_ns(&format!("{text}us"));
    }
    units::time_ns(text)
}
