//! fio's recorded JSON, read into a report and printed again, byte for byte.
//!
//! Data flow: recorded document -> `RunReport` -> `json` -> the same text plus our own key.
//!
//! Not here: text for people (`normal_output`).

mod recorded;

use fio_compat::render::json;
use fio_compat::report::{DirectionReport, DiskUtil, JobFailure, JobReport, RunReport, SyncReport};
use fio_compat::stats::{
    BatchCounts, DepthStats, LatencyDistribution, LatencyStat, LevelCounts, RunningStat, SampleStat,
};
use serde_json::{Map, Value, json as tree};

const SAMPLE: &str = include_str!("fixtures/sample.json");

fn int(value: &Value, key: &str) -> u64 {
    value[key].as_u64().expect("the key holds an int")
}

fn float(value: &Value, key: &str) -> f64 {
    value[key].as_f64().expect("the key holds a float")
}

fn options(value: &Value) -> Vec<(String, String)> {
    let map = value.as_object().expect("options are an object");
    let text = |value: &Value| value.as_str().expect("option values are strings").to_owned();
    map.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

fn latency(value: &Value) -> LatencyStat {
    let count = int(value, "N");
    let (min, max) = (int(value, "min"), int(value, "max"));
    let moments =
        RunningStat::from_moments(count, min, max, float(value, "mean"), float(value, "stddev"));
    let percentiles: Vec<u64> = value.get("percentile").map_or_else(Vec::new, |map| {
        map.as_object().expect("an object").values().filter_map(Value::as_u64).collect()
    });
    if percentiles.is_empty() {
        return LatencyStat { moments, ..LatencyStat::default() };
    }
    recorded::latency(moments, &percentiles)
}

fn direction(value: &Value) -> DirectionReport {
    let samples = |name: &str, dev: &str| {
        let (min, max) = (int(value, &format!("{name}_min")), int(value, &format!("{name}_max")));
        let (mean, dev) = (float(value, &format!("{name}_mean")), float(value, dev));
        SampleStat::from_moments(int(value, &format!("{name}_samples")), min, max, mean, dev)
    };
    DirectionReport {
        io_bytes: int(value, "io_bytes"),
        runtime_ms: int(value, "runtime"),
        total_ios: int(value, "total_ios"),
        short_ios: int(value, "short_ios"),
        drop_ios: int(value, "drop_ios"),
        slat: latency(&value["slat_ns"]),
        clat: latency(&value["clat_ns"]),
        lat: latency(&value["lat_ns"]),
        bw: samples("bw", "bw_dev"),
        iops: samples("iops", "iops_stddev"),
    }
}

/// Counts that print as these shares of `total`.
fn counts<const N: usize>(shares: &Value, total: f64) -> [u64; N] {
    let shares = shares.as_object().expect("shares are an object");
    let mut counts = [0; N];
    for (count, share) in counts.iter_mut().zip(shares.values()) {
        *count = recorded::whole(share.as_f64().expect("shares are floats") / 100.0 * total);
    }
    counts
}

/// A share of exactly 0.1 or 0.01 stands for anything below it: one I/O is below it here.
fn clamped<const N: usize>(shares: &Value, total: f64, least: f64) -> [u64; N] {
    let mut found = counts(shares, total);
    for (count, share) in found.iter_mut().zip(shares.as_object().expect("an object").values()) {
        if share.as_f64().is_some_and(|share| (share - least).abs() < 1e-9) {
            *count = 1;
        }
    }
    found
}

fn job(value: &Value) -> JobReport {
    let mut job = JobReport::new(value["jobname"].as_str().expect("a name"));
    job.group_id = u32::try_from(int(value, "groupid")).expect("few groups");
    job.job_start_ms = int(value, "job_start");
    job.elapsed_s = int(value, "elapsed");
    job.job_options = options(&value["job options"]);
    job.read = direction(&value["read"]);
    job.write = direction(&value["write"]);
    job.trim = direction(&value["trim"]);
    let sync = &value["sync"];
    job.sync = SyncReport { total_ios: int(sync, "total_ios"), lat: latency(&sync["lat_ns"]) };
    job.job_runtime_ms = int(value, "job_runtime");
    let runtime_ns = job.job_runtime_ms as f64 * 1e6;
    job.usr_cpu_ns = recorded::whole(float(value, "usr_cpu") / 100.0 * runtime_ns);
    job.sys_cpu_ns = recorded::whole(float(value, "sys_cpu") / 100.0 * runtime_ns);
    (job.ctx, job.majf, job.minf) = (int(value, "ctx"), int(value, "majf"), int(value, "minf"));
    let total = job.total_ios() as f64;
    // 99.998260 % in one bucket and a rare rest: that many calls make the shares come out.
    let calls = 57_462.0;
    job.depth = DepthStats {
        level: LevelCounts::from_counts(clamped(&value["iodepth_level"], total, 0.1)),
        submit: BatchCounts::from_counts(clamped(&value["iodepth_submit"], calls, 0.1)),
        complete: BatchCounts::from_counts(clamped(&value["iodepth_complete"], calls, 0.1)),
    };
    job.distribution = LatencyDistribution::from_counts(
        clamped(&value["latency_ns"], total, 0.01),
        clamped(&value["latency_us"], total, 0.01),
        clamped(&value["latency_ms"], total, 0.01),
    );
    job.iodepth = u32::try_from(int(value, "latency_depth")).expect("a small depth");
    job
}

fn disk(value: &Value) -> DiskUtil {
    DiskUtil {
        name: value["name"].as_str().expect("a name").to_owned(),
        read_ios: int(value, "read_ios"),
        write_ios: int(value, "write_ios"),
        read_sectors: int(value, "read_sectors"),
        write_sectors: int(value, "write_sectors"),
        read_merges: int(value, "read_merges"),
        write_merges: int(value, "write_merges"),
        read_ticks: int(value, "read_ticks"),
        write_ticks: int(value, "write_ticks"),
        in_queue: int(value, "in_queue"),
        util_percent: float(value, "util"),
        slaves: Vec::new(),
    }
}

fn sample() -> RunReport {
    let root: Value = serde_json::from_str(SAMPLE).expect("the fixture is JSON");
    let list = |key: &str| root[key].as_array().expect("a list").clone();
    RunReport {
        version: "mfio-bench 0.2.0".to_owned(),
        timestamp_ms: int(&root, "timestamp_ms"),
        utc_offset_s: 0,
        global_options: options(&root["global options"]),
        jobs: list("jobs").iter().map(job).collect(),
        disk_util: list("disk_util").iter().map(disk).collect(),
        warnings: vec!["one".to_owned()],
        extra: tree!({"note": 0.5}),
    }
}

fn parsed(report: &RunReport) -> Value {
    serde_json::from_str(&json(report)).expect("the report is JSON")
}

#[test]
fn numbers_of_the_sample_print_the_sample_and_our_key() {
    let recorded = SAMPLE.trim_end().replace("fio-3.42-135-gf5344", "fio-3.42");
    let recorded = recorded.strip_suffix("\n}").expect("the document is an object");
    let ours = ",\n  \"mfio\" : {\n    \"version\" : \"mfio-bench 0.2.0\",\n    \"warnings\" : \
                [\n      \"one\"\n    ],\n    \"note\" : 0.500000\n  }\n}\n";
    let printed = json(&sample());
    for (number, (mine, fios)) in printed.lines().zip(recorded.lines()).enumerate() {
        // Our document goes on where fio's ends, hence the comma.
        assert_eq!(mine.trim_end_matches(','), fios.trim_end_matches(','), "line {}", number + 1);
    }
    assert_eq!(printed, format!("{recorded}{ours}"));
}

#[test]
fn options_that_nobody_set_leave_no_key() {
    let mut report = sample();
    report.global_options.clear();
    report.jobs[0].job_options.clear();
    let root = parsed(&report);
    assert!(root.get("global options").is_none() && root["jobs"][0].get("job options").is_none());
}

#[test]
fn disabled_percentiles_leave_no_key() {
    let mut report = sample();
    report.jobs[0].percentiles.clat = false;
    report.jobs[0].percentiles.lat = true;
    let read = &parsed(&report)["jobs"][0]["read"];
    assert!(read["clat_ns"].get("percentile").is_none());
    assert!(read["lat_ns"].get("percentile").is_some());
}

#[test]
fn failure_and_description_are_reported() {
    let mut report = sample();
    report.jobs[0].error = Some(JobFailure::new(28, "No space left on device"));
    report.jobs[0].description = Some("quoted \"text\"".to_owned());
    let job = &parsed(&report)["jobs"][0];
    assert_eq!((&job["error"], &job["desc"]), (&tree!(28), &tree!("quoted \"text\"")));
}

#[test]
fn report_without_anything_is_valid_with_numbers_only() {
    let mut report = sample();
    report.jobs = vec![JobReport::new("empty")];
    report.disk_util = vec![DiskUtil { util_percent: f64::NAN, ..DiskUtil::default() }];
    let root = parsed(&report);
    assert_eq!(root["disk_util"][0]["util"], tree!(0.0));
    let fixture: Value = serde_json::from_str(SAMPLE).expect("the fixture is JSON");
    same_shape(&root["jobs"][0], &fixture["jobs"][0], "job");
}

/// Consumers decode into typed fields, so an int must not become a float or the reverse.
fn same_shape(mine: &Value, fios: &Value, path: &str) {
    let (Some(mine_map), Some(fios_map)) = (mine.as_object(), fios.as_object()) else {
        assert_eq!(kind(mine), kind(fios), "{path}");
        return;
    };
    let keys = |map: &Map<String, Value>| -> Vec<String> {
        let optional = ["percentile", "job options"];
        map.keys().filter(|key| !optional.contains(&key.as_str())).cloned().collect()
    };
    assert_eq!(keys(mine_map), keys(fios_map), "{path}");
    for key in keys(mine_map) {
        same_shape(&mine_map[&key], &fios_map[&key], &format!("{path}.{key}"));
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        _ => "other",
    }
}
