//! fio's JSON report: its keys, their order, and ints and floats told apart as fio does.
//!
//! Data flow: `RunReport` -> ordered tree -> text with `"key" : value` and six decimals.
//!
//! Not here: what our own key `mfio` holds beyond version and warnings.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::report::{
    DirectionReport, DirectionSummary, DiskUtil, GroupSummary, JobReport, Percentiles, RunReport,
    SyncReport,
};
use crate::stats::{BatchCounts, LatencyDistribution, LatencyStat, LevelCounts, approximate};

use super::clock::ctime;
use super::{FIO_VERSION, direction, layout};

/// How much of each latency is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// Moments and percentiles.
    Percentiles,
    /// … and the bins they come from (json+).
    Bins,
}

/// The report as one JSON document with a final newline.
#[must_use]
pub fn json(report: &RunReport) -> String {
    document(report, Detail::Percentiles)
}

/// The report as [`json`] gives it, with `bins` wherever there are percentiles.
#[must_use]
pub fn json_plus(report: &RunReport) -> String {
    document(report, Detail::Bins)
}

fn document(report: &RunReport, detail: Detail) -> String {
    let groups = report.groups();
    let no_group = GroupSummary::default();
    let jobs = report.jobs.iter().filter(|entry| entry.shown).map(|entry| {
        let group = groups.iter().find(|group| group.group_id == entry.group_id);
        job(entry, group.unwrap_or(&no_group), detail)
    });
    let mut root = Map::new();
    put(&mut root, "fio version", FIO_VERSION);
    put(&mut root, "timestamp", report.timestamp_ms / 1000);
    put(&mut root, "timestamp_ms", report.timestamp_ms);
    put(&mut root, "time", ctime(report.timestamp_ms, report.utc_offset_s));
    put_options(&mut root, "global options", &report.global_options);
    put(&mut root, "jobs", jobs.collect::<Vec<Value>>());
    put(&mut root, "disk_util", disks(&report.disk_util));
    put(&mut root, "mfio", ours(report));
    layout::document(&Value::Object(root))
}

fn ours(report: &RunReport) -> Map<String, Value> {
    let mut ours = Map::new();
    put(&mut ours, "version", report.version.as_str());
    put(&mut ours, "warnings", report.warnings.clone());
    if let Value::Object(extra) = &report.extra {
        ours.extend(extra.clone());
    }
    ours
}

fn job(job: &JobReport, group: &GroupSummary, detail: Detail) -> Value {
    let mut map = Map::new();
    put(&mut map, "jobname", job.name.as_str());
    put(&mut map, "groupid", job.group_id);
    put(&mut map, "job_start", job.job_start_ms);
    put(&mut map, "error", job.error.as_ref().map_or(0, |failure| failure.errno));
    put(&mut map, "eta", job.eta_s);
    put(&mut map, "elapsed", job.elapsed_s);
    put_options(&mut map, "job options", &job.job_options);
    let (mixed, apart): (Vec<_>, Vec<_>) =
        job.reported().into_iter().partition(|(name, _)| *name == "mixed");
    let directions = |map: &mut Map<String, Value>, list: Vec<(&str, Cow<'_, _>)>| {
        for (name, data) in list {
            put(map, name, direction_object(&data, &job.percentiles, group.of(name), detail));
        }
    };
    directions(&mut map, apart);
    put(&mut map, "sync", sync(&job.sync, &job.percentiles, detail));
    directions(&mut map, mixed);
    put(&mut map, "job_runtime", job.job_runtime_ms);
    put_float(&mut map, "usr_cpu", job.usr_cpu_percent());
    put_float(&mut map, "sys_cpu", job.sys_cpu_percent());
    put(&mut map, "ctx", job.ctx);
    put(&mut map, "majf", job.majf);
    put(&mut map, "minf", job.minf);
    let total_ios = job.total_ios();
    let depth = &job.depth;
    put(&mut map, "iodepth_level", shares(&LevelCounts::NAMES, &depth.level.percent(total_ios)));
    put(&mut map, "iodepth_submit", shares(&BatchCounts::NAMES, &depth.submit.percent()));
    put(&mut map, "iodepth_complete", shares(&BatchCounts::NAMES, &depth.complete.percent()));
    let names = &LatencyDistribution::NAMES;
    put(&mut map, "latency_ns", shares(names, &job.distribution.ns_percent(total_ios)));
    put(&mut map, "latency_us", shares(names, &job.distribution.us_percent(total_ios)));
    put(&mut map, "latency_ms", shares(names, &job.distribution.ms_percent(total_ios)));
    if let Some(errors) = &job.errors {
        put(&mut map, "total_err", errors.total);
        put(&mut map, "first_error", errors.first.as_ref().map_or(0, |first| first.errno));
    }
    put(&mut map, "latency_depth", job.iodepth);
    put(&mut map, "latency_target", job.goal.target_ns);
    put(&mut map, "latency_target_ns", job.goal.target_ns);
    put_float(&mut map, "latency_percentile", job.goal.percent);
    put(&mut map, "latency_window", job.goal.window_ns / 1000);
    put(&mut map, "latency_window_us", job.goal.window_ns / 1000);
    if let Some(description) = &job.description {
        put(&mut map, "desc", description.as_str());
    }
    if let Some(steady) = &job.steady {
        put(&mut map, "steadystate", super::steady::object(steady));
    }
    Value::Object(map)
}

fn direction_object(
    data: &DirectionReport,
    percentiles: &Percentiles,
    group: &DirectionSummary,
    detail: Detail,
) -> Map<String, Value> {
    let bandwidth = data.bandwidth_bytes();
    let mut map = Map::new();
    put(&mut map, "io_bytes", data.io_bytes);
    put(&mut map, "io_kbytes", data.io_bytes >> 10);
    put(&mut map, "bw_bytes", bandwidth);
    put(&mut map, "bw", bandwidth >> 10);
    put_float(&mut map, "iops", iops(data));
    put(&mut map, "runtime", data.runtime_ms);
    put(&mut map, "total_ios", data.total_ios);
    put(&mut map, "short_ios", data.short_ios);
    put(&mut map, "drop_ios", data.drop_ios);
    let list = &percentiles.list;
    put(&mut map, "slat_ns", latency(&data.slat, percentiles.slat, list, detail));
    put(&mut map, "clat_ns", latency(&data.clat, percentiles.clat, list, detail));
    put(&mut map, "lat_ns", latency(&data.lat, percentiles.lat, list, detail));
    put(&mut map, "bw_min", data.bw.min());
    put(&mut map, "bw_max", data.bw.max());
    let sampled = data.bw.samples() > 0;
    let share = if sampled { direction::share_of_group(&data.bw, group) } else { 0.0 };
    put_float(&mut map, "bw_agg", share);
    put_float(&mut map, "bw_mean", data.bw.mean());
    put_float(&mut map, "bw_dev", data.bw.stddev());
    put(&mut map, "bw_samples", data.bw.samples());
    put(&mut map, "iops_min", data.iops.min());
    put(&mut map, "iops_max", data.iops.max());
    put_float(&mut map, "iops_mean", data.iops.mean());
    put_float(&mut map, "iops_stddev", data.iops.stddev());
    put(&mut map, "iops_samples", data.iops.samples());
    map
}

fn iops(data: &DirectionReport) -> f64 {
    if data.runtime_ms == 0 {
        return 0.0;
    }
    1000.0 * approximate(u128::from(data.total_ios)) / approximate(u128::from(data.runtime_ms))
}

fn sync(sync: &SyncReport, percentiles: &Percentiles, detail: Detail) -> Map<String, Value> {
    let wanted = percentiles.clat || percentiles.lat;
    let mut map = Map::new();
    put(&mut map, "total_ios", sync.total_ios);
    put(&mut map, "lat_ns", latency(&sync.lat, wanted, &percentiles.list, detail));
    map
}

fn latency(stat: &LatencyStat, wanted: bool, list: &[f64], detail: Detail) -> Map<String, Value> {
    let moments = &stat.moments;
    let mut map = Map::new();
    put(&mut map, "min", moments.min());
    put(&mut map, "max", moments.max());
    put_float(&mut map, "mean", moments.mean());
    put_float(&mut map, "stddev", moments.stddev());
    put(&mut map, "N", moments.count());
    if direction::has_percentiles(stat, wanted) {
        let values = list.iter().filter_map(|percent| {
            let value = stat.percentile(*percent)?;
            Some((format!("{percent:.6}"), Value::from(value)))
        });
        put(&mut map, "percentile", values.collect::<Map<String, Value>>());
        if detail == Detail::Bins {
            let bins = stat.histogram.occupied();
            let bins = bins.map(|(value, count)| (value.to_string(), Value::from(count)));
            put(&mut map, "bins", bins.collect::<Map<String, Value>>());
        }
    }
    map
}

fn shares(names: &[&str], percent: &[f64]) -> Map<String, Value> {
    names.iter().zip(percent).map(|(name, share)| ((*name).to_owned(), float(*share))).collect()
}

/// Slaves follow the disk they belong to.
fn disks(list: &[DiskUtil]) -> Vec<Value> {
    let with_slaves = |entry: &DiskUtil| {
        let slaves = disks(&entry.slaves);
        std::iter::once(disk(entry)).chain(slaves)
    };
    list.iter().flat_map(with_slaves).collect()
}

fn disk(disk: &DiskUtil) -> Value {
    let mut map = Map::new();
    put(&mut map, "name", disk.name.as_str());
    put(&mut map, "read_ios", disk.read_ios);
    put(&mut map, "write_ios", disk.write_ios);
    put(&mut map, "read_sectors", disk.read_sectors);
    put(&mut map, "write_sectors", disk.write_sectors);
    put(&mut map, "read_merges", disk.read_merges);
    put(&mut map, "write_merges", disk.write_merges);
    put(&mut map, "read_ticks", disk.read_ticks);
    put(&mut map, "write_ticks", disk.write_ticks);
    put(&mut map, "in_queue", disk.in_queue);
    put_float(&mut map, "util", disk.util_percent);
    if let Some(aggregate) = disk.aggregate() {
        put_aggregate(&mut map, &aggregate);
    }
    Value::Object(map)
}

/// Keys as fio writes them: that of the merged writes has its letter missing there, too.
fn put_aggregate(map: &mut Map<String, Value>, disk: &DiskUtil) {
    put(map, "aggr_read_ios", disk.read_ios);
    put(map, "aggr_write_ios", disk.write_ios);
    put(map, "aggr_read_sectors", disk.read_sectors);
    put(map, "aggr_write_sectors", disk.write_sectors);
    put(map, "aggr_read_merges", disk.read_merges);
    put(map, "aggr_write_merge", disk.write_merges);
    put(map, "aggr_read_ticks", disk.read_ticks);
    put(map, "aggr_write_ticks", disk.write_ticks);
    put(map, "aggr_in_queue", disk.in_queue);
    put_float(map, "aggr_util", disk.util_percent);
}

pub(super) fn put(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    map.insert(key.to_owned(), value.into());
}

pub(super) fn put_float(map: &mut Map<String, Value>, key: &str, value: f64) {
    map.insert(key.to_owned(), float(value));
}

/// JSON has no infinities; readers of fio's output expect a number in any case.
fn float(value: f64) -> Value {
    Value::from(if value.is_finite() { value } else { 0.0 })
}

fn put_options(map: &mut Map<String, Value>, key: &str, options: &[(String, String)]) {
    if options.is_empty() {
        return;
    }
    let texts = options.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str())));
    put(map, key, texts.collect::<Map<String, Value>>());
}
