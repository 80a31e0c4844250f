//! Options about reports and logs: what they set, and what they change in a printed report.
//!
//! Data flow: command line -> job -> report with a few known I/Os -> text.
//!
//! Not here: byte shapes of recorded runs (`normal_output`, `json_output`), files of logs (the
//! bench).

mod machine;

use fio_compat::render::{TerseVersion, json, json_plus, normal, terse};
use fio_compat::report::{DiskUtil, ErrorCounts, JobFailure, JobReport, LatencyGoal, RunReport};
use fio_compat::stats::LatencyStat;
use fio_compat::{Job, LogPrefix, OutputFormat, Unified, WindowValue};
use machine::Machine;

fn job(options: &str) -> Job {
    let line = format!("--name=j --size=1m {options}");
    Machine::default().run(&line).expect("the options are valid").jobs.remove(0)
}

/// 1000 reads of 4 KiB at 2 us and 500 writes of 8 KiB at 3 us, in one second.
fn report(options: &str) -> RunReport {
    let mut entry = JobReport::for_job(&job(options));
    for (data, ios, bytes, ns) in
        [(&mut entry.read, 1000, 4096, 2000), (&mut entry.write, 500, 8192, 3000)]
    {
        (data.total_ios, data.io_bytes, data.runtime_ms) = (ios, ios * bytes, 1000);
        (0..ios).for_each(|_| data.clat.record(ns));
        (0..ios).for_each(|_| data.lat.record(ns + 100));
        data.bw.record(ios * bytes / 1024);
        data.iops.record(ios);
    }
    RunReport {
        version: "test".to_owned(),
        timestamp_ms: 0,
        utc_offset_s: 0,
        global_options: Vec::new(),
        jobs: vec![entry],
        disk_util: Vec::new(),
        warnings: Vec::new(),
        extra: serde_json::Value::Null,
    }
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn unified_rw_reporting_replaces_or_joins_the_directions() {
    assert_eq!(job("--unified_rw_reporting=both").reporting.unified, Unified::Both);
    assert_eq!(job("--unified_rw_reporting=1").reporting.unified, Unified::Mixed);
    let text = normal(&report("--unified_rw_reporting=mixed"));
    has(&text, &["  mixed: IOPS=1500, BW=8000KiB/s (8192kB/s)(8000KiB/1000msec)\n"]);
    has(&text, &["\n  MIXED: bw=8000KiB/s (8192kB/s), 8000KiB/s-8000KiB/s"]);
    assert!(!text.contains("read: ") && !text.contains("READ: "), "{text}");
    let text = normal(&report("--unified_rw_reporting=both"));
    // fio compares the directions in that line, not their sum with itself.
    has(&text, &["\n  MIXED: bw=8000KiB/s (8192kB/s), 4000KiB/s-4000KiB/s"]);
    has(&text, &["\n  read: ", "\n  write: ", "\n  mixed: ", "\n   READ: ", "\n  WRITE: "]);
    let root: serde_json::Value =
        serde_json::from_str(&json(&report("--unified_rw_reporting=both"))).expect("JSON");
    let keys: Vec<&String> = root["jobs"][0].as_object().expect("a job").keys().collect();
    let at = |name: &str| keys.iter().position(|key| *key == name).expect("the key is there");
    assert!(at("sync") < at("mixed") && at("mixed") < at("job_runtime"));
}

#[test]
fn kb_base_decides_what_k_means_when_read_and_shown() {
    for (options, bytes) in [
        ("--kb_base=1000 --bs=4k", 4000),
        ("--bs=4k --kb_base=1000", 4000),
        ("--kb_base=1000 --bs=4KiB", 4096),
        ("--kb_base=1024 --bs=4k", 4096),
    ] {
        assert_eq!(job(options).bs.read_bytes, bytes, "{options}");
    }
    let job = job(
        "--kb_base=1000 --bsrange=1k-2Ki,4KiB --zonemode=strided --zonesize=2k --zonerange=2k \
         --rate=3k --offset_increment=5k --filesize=6k-7KiB --rw=read:8k",
    );
    let work = &job.workload;
    assert_eq!(work.bs_range[..2], [Some((1000, 2000)), Some((4096, 4096))]);
    assert_eq!((work.zone.size_bytes, work.filesize), (2000, Some((6000, 7168))));
    assert_eq!((job.pace.rate[0], work.rw_number), (3000, Some(8000)));
    assert_eq!(work.offset_increment, fio_compat::Extent::Bytes(5000));
    // What is set for all jobs settles units as early.
    let set = Machine::default().run("--set kb_base=1000 --name=j --size=1m --bs=4k");
    assert_eq!(set.expect("valid").jobs[0].bs.read_bytes, 4000);
    let quiet = Machine::default().run("--name=j --size=1m --kb_base=1000 --bs=4KiB");
    assert!(quiet.expect("valid").warnings.is_empty(), "there it means what it says");
    let text = normal(&report("--kb_base=1000"));
    has(&text, &["BW=4096kB/s (4000KiB/s)(4096kB/1000msec)", "   bw (   kB/s): min= 4096"]);
    has(&text, &["io=4096kB (4000KiB)"]);
}

#[test]
fn unit_base_shows_rates_in_bits() {
    let text = normal(&report("--unit_base=1"));
    has(&text, &["BW=31.2Mibit/s (32.8Mbit/s)(4000KiB/1000msec)", "   bw (Kibit/s): min=32000"]);
    assert_eq!(normal(&report("--unit_base=8")), normal(&report("--unit_base=0")));
}

#[test]
fn significant_figures_are_bounded_and_used() {
    has(&normal(&report("--significant_figures=7")), &["BW=4096000B/s (4096000B/s)", "IOPS=1000,"]);
    has(&normal(&report("--significant_figures=2")), &["BW=4MiB/s (4MB/s)", "IOPS=1k"]);
    assert!(Machine::default().run("--name=j --size=1m --significant_figures=11").is_err());
}

#[test]
fn percentile_list_reaches_every_format() {
    let report = report("--percentile_list=50:99.999 --lat_percentiles=1 --clat_percentiles=0");
    has(&normal(&report), &["    lat percentiles (nsec):\n     | 50.000th=[ 2096], 99.999th="]);
    has(&json(&report), &["\"99.999000\" : 2096"]);
    has(&terse(&report, TerseVersion::V3), &[";50.000000%=2;99.999000%=2;0%=0;"]);
}

/// fio's own test of percentiles compares the formats.
#[test]
fn lat_percentiles_take_the_place_of_clat_percentiles_in_terse_lines() {
    for (options, shown_us) in [("--lat_percentiles=1", 9), ("--lat_percentiles=0", 2)] {
        let mut report = report(&format!("--percentile_list=50 {options}"));
        for job in &mut report.jobs {
            job.read.lat = LatencyStat::default();
            job.read.lat.record(9000);
        }
        has(&terse(&report, TerseVersion::V3), &[&format!(";50.000000%={shown_us};0%=0;")]);
    }
}

#[test]
fn output_format_json_plus_adds_bins_beside_percentiles() {
    let (plain, plus) = (json(&report("")), json_plus(&report("")));
    assert!(!plain.contains("\"bins\""));
    assert_eq!(plus.matches("\"bins\" : {").count(), 2, "of clat, where there is any");
    has(&plus, &["          \"bins\" : {\n            \"2008\" : 1000\n          }"]);
}

#[test]
fn terse_version_decides_the_fields() {
    let fields = |version| terse(&report("--description=d"), version).split(';').count();
    assert_eq!(fields(TerseVersion::V2), 162);
    assert_eq!(fields(TerseVersion::V3), 122);
    assert_eq!(fields(TerseVersion::V4), 163);
    assert_eq!(fields(TerseVersion::V5), 181);
    let line = terse(&report(""), TerseVersion::V3);
    assert!(line.starts_with("3;fio-3.42;j;0;0;4000;4000;1000;1000;0;0;0.000000;0.000000;2;2;"));
    assert!(line.ends_with("%\n") && line.lines().count() == 1);
}

#[test]
fn disk_util_of_stacked_disks_adds_means_over_slaves() {
    let mut report = report("");
    let disk = |name: &str, read_ios, util_percent| DiskUtil {
        name: name.to_owned(),
        read_ios,
        util_percent,
        ..DiskUtil::default()
    };
    let slaves = vec![disk("sda", 4, 10.0), disk("sdb", 8, 30.0)];
    report.disk_util = vec![DiskUtil { slaves, ..disk("md0", 12, 20.0) }];
    let text = normal(&report);
    has(&text, &["  md0: ios=12/0, sectors=0/0, merge=0/0, ticks=0/0, in_queue=0, util=20.00%, "]);
    has(&text, &["aggrios=6/0, aggrsectors=0/0,", "aggrutil=30.00%\n    sda: ios=4/0,"]);
    let document = json(&report);
    has(&document, &["\"aggr_read_ios\" : 6", "\"aggr_write_merge\" : 0", "\"name\" : \"sdb\""]);
    assert!(document.contains("\"aggr_util\" : 30.000000"));
}

#[test]
fn write_bw_log_and_its_relatives_take_a_name_or_none() {
    let logs = job("--write_bw_log --write_iops_log=i --write_lat_log x --write_hist_log=h").logs;
    assert_eq!(logs.bw, Some(LogPrefix::JobName));
    let named = |text: &str| Some(LogPrefix::Named(text.to_owned()));
    assert_eq!((logs.iops, logs.lat, logs.hist), (named("i"), named("x"), named("h")));
}

#[test]
fn log_options_reach_the_job() {
    let logs = job("--log_avg_msec=500 --log_hist_msec=1000 --log_hist_coarseness=2 \
                    --log_offset=1 --log_prio=1 --log_issue_time=1 --log_window_value=both \
                    --per_job_logs=0 --log_entries=4k --log_unix_epoch=1")
    .logs;
    assert_eq!((logs.avg_ms, logs.hist_ms, logs.hist_coarseness), (500, 1000, 2));
    assert!(logs.offset && logs.prio && logs.issue_time && logs.unix_epoch && !logs.per_job);
    assert_eq!((logs.window_value, logs.entries), (WindowValue::Both, 4096));
    assert_eq!(job("--log_max_value=1").logs.window_value, WindowValue::Max);
    assert!(Machine::default().run("--name=j --size=1m --log_hist_coarseness=7").is_err());
}

#[test]
fn output_format_is_sorted_as_fio_emits_it() {
    let formats = |line: &str| {
        Machine::default().run(&format!("--name=j --size=1m {line}")).expect("valid").formats
    };
    let all = "--output-format=normal,json,json+,terse";
    assert_eq!(formats(all), [OutputFormat::Terse, OutputFormat::JsonPlus, OutputFormat::Normal]);
    assert_eq!(formats("--minimal"), [OutputFormat::Terse]);
    assert_eq!(formats("--append-terse"), [OutputFormat::Terse, OutputFormat::Normal]);
}

#[test]
fn continue_on_error_shows_what_did_not_end_the_job() {
    let mut report = report("");
    let first = Some(JobFailure::new(5, "Input/output error"));
    report.jobs[0].errors = Some(ErrorCounts { total: 3, first });
    let line = "\n     errors    : total=3, first_error=5/<Input/output error>\n     latency ";
    has(&normal(&report), &[line]);
    has(
        &json(&report),
        &["\"total_err\" : 3,\n      \"first_error\" : 5,\n      \"latency_depth\""],
    );
    assert!(terse(&report, TerseVersion::V3).ends_with(";3;5\n"));
}

#[test]
fn latency_target_is_repeated_in_the_report() {
    let mut report = report("");
    report.jobs[0].goal =
        LatencyGoal { target_ns: 1_500_000, window_ns: 2_000_000_000, percent: 99.0 };
    let line = "latency   : target=1.50ms, window=2.00s, percentile=99.00%, depth=1\n";
    has(&normal(&report), &[line]);
    has(&json(&report), &["\"latency_target_ns\" : 1500000", "\"latency_window_us\" : 2000000"]);
}
