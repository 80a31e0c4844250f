//! The lines of normal output about one direction, and those about syncs.
//!
//! Data flow: `DirectionReport` -> rate, latencies, percentiles, samples.
//!
//! Not here: lines about the job as a whole (`normal`).

use crate::job::Units;
use crate::report::{DirectionReport, DirectionSummary, Percentiles, SyncReport};
use crate::stats::{Histogram, LatencyStat, RunningStat, SampleStat, approximate};

use super::number::{Prefix, num2str};

/// Width of the terminal fio breaks percentiles for, less the indentation.
const LINE_WIDTH: usize = 80 - 7;

/// Everything about one direction; nothing if the job never went that way.
pub(super) fn block(
    name: &str,
    data: &DirectionReport,
    percentiles: &Percentiles,
    group: &DirectionSummary,
    units: Units,
) -> String {
    if data.runtime_ms == 0 {
        return String::new();
    }
    let mut text = rate(name, data, units);
    let latencies = [
        ("slat", &data.slat, percentiles.slat),
        ("clat", &data.clat, percentiles.clat),
        (" lat", &data.lat, percentiles.lat),
    ];
    text.extend(latencies.iter().map(|(name, stat, _)| latency(name, &stat.moments)));
    for (name, stat, _) in latencies.iter().filter(|(_, _, wanted)| *wanted) {
        text.push_str(&percentile_rows(name, &stat.histogram, &percentiles.list));
    }
    text.push_str(&bandwidth_samples(&data.bw, group, units));
    text.push_str(&iops_samples(&data.iops));
    text
}

/// Everything about syncs; nothing if there were none.
pub(super) fn sync_block(sync: &SyncReport, percentiles: &Percentiles) -> String {
    if sync.lat.count() == 0 {
        return String::new();
    }
    let mut text = "  fsync/fdatasync/sync_file_range/syncfs:\n".to_owned();
    text.push_str(&latency("sync", &sync.lat.moments));
    if percentiles.clat || percentiles.lat {
        text.push_str(&percentile_rows("sync", &sync.lat.histogram, &percentiles.list));
    }
    text
}

/// What share of the group's bandwidth the samples of one report make up.
pub(super) fn share_of_group(bandwidth: &SampleStat, group: &DirectionSummary) -> f64 {
    let aggregate_bytes = group.aggregate_bytes();
    if aggregate_bytes == 0 {
        return 100.0;
    }
    let aggregate_kib = approximate(u128::from(aggregate_bytes)) / 1024.0;
    // fio hands the mean on as an int, which shows in the decimals of `bw_agg`.
    (bandwidth.mean().trunc() * 100.0 / aggregate_kib).min(100.0)
}

/// Whether percentiles of this latency are reported, by fio's rule.
pub(super) fn has_percentiles(stat: &LatencyStat, wanted: bool) -> bool {
    wanted && stat.count() > 0
}

fn rate(name: &str, data: &DirectionReport, units: Units) -> String {
    let bandwidth = data.bandwidth_bytes();
    format!(
        "  {name}: IOPS={}, BW={} ({})({}/{}msec)\n",
        units.count(data.iops_whole()),
        units.rate(bandwidth),
        units.other_rate(bandwidth),
        units.size(data.io_bytes),
        data.runtime_ms
    )
}

fn latency(name: &str, stat: &RunningStat) -> String {
    if stat.count() == 0 {
        return String::new();
    }
    let (min, max, dev) = (stat.min(), stat.max(), stat.stddev());
    let (unit, divisor) = if min > 2_000_000 && max > 99_999_999 && dev > 1e6 {
        ("msec", 1_000_000)
    } else if min > 2_000 && max > 99_999 && dev > 1e3 {
        ("usec", 1_000)
    } else {
        ("nsec", 1)
    };
    let scale = approximate(u128::from(divisor));
    format!(
        "    {name} ({unit}): min={}, max={}, avg={:5.2}, stdev={:5.2}\n",
        num2str(min / divisor, 6, Prefix::Decimal, ""),
        num2str(max / divisor, 6, Prefix::Decimal, ""),
        stat.mean() / scale,
        dev / scale
    )
}

fn percentile_rows(name: &str, histogram: &Histogram, list: &[f64]) -> String {
    let values: Vec<u64> = list.iter().filter_map(|p| histogram.percentile(*p)).collect();
    let (Some(least), Some(most)) = (values.iter().min(), values.iter().max()) else {
        return String::new();
    };
    let (unit, scalings) = if *least > 2_000_000 && *most > 99_999_999 {
        ("msec", 2)
    } else if *least > 2_000 && *most > 99_999 {
        ("usec", 1)
    } else {
        ("nsec", 0)
    };
    let scaled = |value: u64| (0..scalings).fold(value, |value, _| value.div_ceil(1000));
    let widest = (0..scalings).fold(*most, |value, _| value / 1000).to_string().len();
    let width = widest.max(5);
    let decimals = list.iter().map(|p| decimals_of(*p)).max().unwrap_or(0);
    let entries: Vec<String> = list
        .iter()
        .zip(&values)
        .map(|(percent, value)| {
            let head = decimals + 3;
            format!(" {percent:head$.decimals$}th=[{:width$}]", scaled(*value))
        })
        .collect();
    let per_line = (LINE_WIDTH / (decimals + 10 + width)).max(1);
    let rows: Vec<String> =
        entries.chunks(per_line).map(|row| format!("     |{}", row.join(","))).collect();
    format!("    {name} percentiles ({unit}):\n{}\n", rows.join(",\n"))
}

/// Decimals the percentage was given with: 99.95 has two.
fn decimals_of(percent: f64) -> usize {
    percent.to_string().split_once('.').map_or(0, |(_, decimals)| decimals.len())
}

fn bandwidth_samples(stat: &SampleStat, group: &DirectionSummary, units: Units) -> String {
    if stat.samples() == 0 {
        return String::new();
    }
    let factor: u64 = if units.bits { 8 } else { 1 };
    let base: u64 = if units.binary { 1024 } else { 1000 };
    let names = match (units.bits, units.binary) {
        (false, true) => ["KiB", "MiB"],
        (false, false) => ["kB", "MB"],
        (true, true) => ["Kibit", "Mibit"],
        (true, false) => ["kbit", "Mbit"],
    };
    // Samples are in KiB/s whatever the units.
    let numerator = factor * 1024;
    let shown =
        |kib: f64, divisor: u64| kib * approximate(numerator.into()) / approximate(divisor.into());
    let large = shown(stat.mean(), base) > approximate(u128::from(base) * u128::from(base));
    let (unit, divisor) = if large { (names[1], base * base) } else { (names[0], base) };
    let whole = |kib: u64| {
        let scaled = u128::from(kib) * u128::from(numerator) / u128::from(divisor);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    };
    format!(
        "   bw ({unit:>5}/s): min={:5}, max={:5}, per={:3.2}%, avg={:5.2}, stdev={:5.2}, \
         samples={}\n",
        whole(stat.min()),
        whole(stat.max()),
        share_of_group(stat, group),
        shown(stat.mean(), divisor),
        shown(stat.stddev(), divisor),
        stat.samples()
    )
}

fn iops_samples(stat: &SampleStat) -> String {
    if stat.samples() == 0 {
        return String::new();
    }
    format!(
        "   iops        : min={:5}, max={:5}, avg={:5.2}, stdev={:5.2}, samples={}\n",
        stat.min(),
        stat.max(),
        stat.mean(),
        stat.stddev(),
        stat.samples()
    )
}
