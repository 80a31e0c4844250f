//! Options that end a job by what it measures, and about how I/Os are started.
//!
//! Data flow: row -> parser -> field of `Steering`.
//!
//! Not here: rates and pauses (`pace`), the search and the judging (the bench).

use super::pace::micros;
use super::{Kind, Row, digit, row, seconds};
use crate::error::Complaint;
use crate::job::Job;
use crate::options::parts::{decimal, triple, word};
use crate::options::units;
use crate::stats::{SteadyCriterion, SteadyMeasure};

/// The shortest interval in which a rate means anything.
const INTERVAL_MIN_NS: u64 = 10_000_000;

pub(super) const ROWS: &[Row] = &[
    row(
        "latency_target",
        &[],
        Kind::Parsed(|job, text| micros(text).map(|value| job.steering.latency_target_ns = value)),
        |job| (job.steering.latency_target_ns / 1000).to_string(),
        "find the highest depth that keeps this latency (us)",
    ),
    row(
        "latency_window",
        &[],
        Kind::Parsed(|job, text| micros(text).map(|value| job.steering.latency_window_ns = value)),
        |job| (job.steering.latency_window_ns / 1000).to_string(),
        "microseconds in which a depth is judged",
    ),
    row(
        "latency_percentile",
        &[],
        Kind::Parsed(|job, text| {
            let percent = decimal(text)?;
            if !(0.0..=100.0).contains(&percent) || percent == 0.0 {
                return Err(Complaint::new("a percentage is above 0 and at most 100"));
            }
            job.steering.latency_percentile = percent;
            Ok(())
        }),
        |job| job.steering.latency_percentile.to_string(),
        "percentage of I/Os that keep latency_target",
    ),
    row(
        "latency_run",
        &[],
        Kind::Bool(|job, value| job.steering.latency_run = value),
        |job| digit(job.steering.latency_run),
        "go on at the depth that was found",
    ),
    row(
        "max_latency",
        &[],
        Kind::Parsed(|job, text| {
            let limits = &mut job.steering.max_latency_ns;
            for (limit, value) in limits.iter_mut().zip(triple(text, micros)?) {
                *limit = value.unwrap_or(*limit);
            }
            Ok(())
        }),
        |job| job.steering.max_latency_ns.map(|ns| (ns / 1000).to_string()).join(","),
        "end the job when an I/O takes longer (us)",
    ),
    row(
        "steadystate",
        &["ss"],
        Kind::Parsed(set_steady),
        |job| match job.steering.steady {
            None => String::new(),
            Some(steady) => {
                let sign = if steady.percent { "%" } else { "" };
                format!("{}:{}{sign}", steady.as_str(), steady.limit)
            }
        },
        "end the group when it is steady: iops, bw, lat (_slope)",
    ),
    row(
        "steadystate_duration",
        &["ss_dur"],
        Kind::Seconds(|job, value| job.steering.steady_ns = value),
        |job| seconds(job.steering.steady_ns),
        "time it has to be steady for",
    ),
    row(
        "steadystate_ramp_time",
        &["ss_ramp"],
        Kind::Seconds(|job, value| job.steering.steady_ramp_ns = value),
        |job| seconds(job.steering.steady_ramp_ns),
        "time before steadiness is looked at",
    ),
    row(
        "steadystate_check_interval",
        &["ss_interval"],
        Kind::Parsed(|job, text| {
            let value = units::time_ns(text)?;
            if value < INTERVAL_MIN_NS {
                return Err(Complaint::new("an interval is at least 10ms"));
            }
            job.steering.steady_interval_ns = value;
            Ok(())
        }),
        |job| seconds(job.steering.steady_interval_ns),
        "length of one interval of steadystate",
    ),
    row(
        "serialize_overlap",
        &[],
        Kind::Bool(|job, value| job.steering.serialize_overlap = value),
        |job| digit(job.steering.serialize_overlap),
        "never have I/Os in flight that overlap",
    ),
    row(
        "io_submit_mode",
        &[],
        Kind::Parsed(|job, text| {
            word(text, &[("inline", false), ("offload", true)])
                .map(|value| job.steering.offload = value)
        }),
        |job| if job.steering.offload { "offload" } else { "inline" }.to_owned(),
        "offload: time I/Os from when they were due",
    ),
];

/// `measure:limit` or `measure:limit%`.
fn set_steady(job: &mut Job, text: &str) -> Result<(), Complaint> {
    const FORM: &str = "write a criterion and a limit, such as iops:2% or bw_slope:0.3%";
    let without = || Complaint::new("a limit is missing").with_remedy(FORM);
    let (name, limit) = text.split_once(':').ok_or_else(without)?;
    let choices = [
        ("iops", (SteadyMeasure::Iops, false)),
        ("iops_slope", (SteadyMeasure::Iops, true)),
        ("bw", (SteadyMeasure::Bandwidth, false)),
        ("bw_slope", (SteadyMeasure::Bandwidth, true)),
        ("lat", (SteadyMeasure::Latency, false)),
        ("lat_slope", (SteadyMeasure::Latency, true)),
    ];
    let (measure, slope) = word(name, &choices)?;
    let digits = limit.trim().trim_end_matches('%');
    let percent = digits.len() < limit.trim().len();
    let limit = decimal(digits)?;
    if limit <= 0.0 {
        return Err(Complaint::new("nothing stays below a limit of 0").with_remedy(FORM));
    }
    job.steering.steady = Some(SteadyCriterion { measure, slope, limit, percent });
    Ok(())
}
