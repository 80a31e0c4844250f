//! fio's line and JSON object about steadiness.
//!
//! Data flow: `SteadyReport` -> text.
//!
//! Not here: when the line appears (`normal`, `json`).

use serde_json::{Map, Value};

use crate::job::Units;
use crate::report::SteadyReport;
use crate::stats::{SteadyMeasure, SteadyPoint, approximate};

use super::json::{put, put_float};

/// The line of the report for people.
pub(super) fn line(steady: &SteadyReport, units: Units) -> String {
    let (criterion, means) = (steady.criterion, steady.means());
    let measure = match criterion.measure {
        SteadyMeasure::Iops => "iops",
        SteadyMeasure::Bandwidth => "bw",
        SteadyMeasure::Latency => "lat",
    };
    format!(
        "  steadystate  : attained={}, bw={} ({}), iops={}, {measure} {}={:.3}{}\n",
        if steady.verdict.attained { "yes" } else { "no" },
        units.rate(means.bandwidth_bytes),
        units.other_rate(means.bandwidth_bytes),
        units.count(means.iops),
        if criterion.slope { "slope" } else { "mean dev" },
        steady.verdict.value,
        if criterion.percent { "%" } else { "" },
    )
}

/// The value of the key `steadystate`.
pub(super) fn object(steady: &SteadyReport) -> Map<String, Value> {
    let (criterion, means) = (steady.criterion, steady.means());
    let sign = if criterion.percent { "%" } else { "" };
    let mut map = Map::new();
    put(&mut map, "ss", format!("{}:{:.6}{sign}", criterion.as_str(), criterion.limit));
    put(&mut map, "duration", steady.duration_ns / 1_000_000_000);
    put(&mut map, "attained", u8::from(steady.verdict.attained));
    put(&mut map, "criterion", format!("{:.6}{sign}", steady.verdict.value));
    put_float(&mut map, "max_deviation", steady.verdict.max_deviation);
    put_float(&mut map, "slope", steady.verdict.slope);
    let list =
        |field: fn(&SteadyPoint) -> u64| -> Vec<u64> { steady.points.iter().map(field).collect() };
    let mut data = Map::new();
    put(&mut data, "bw_mean", means.bandwidth_bytes);
    put(&mut data, "iops_mean", means.iops);
    if criterion.measure == SteadyMeasure::Latency {
        put_float(&mut data, "lat_mean", approximate(u128::from(means.latency_ns)));
        put(&mut data, "lat_ns", list(|point| point.latency_ns));
    }
    put(&mut data, "iops", list(|point| point.iops));
    put(&mut data, "bw", list(|point| point.bandwidth_bytes));
    put(&mut map, "data", data);
    map
}
