//! What a run writes: reports in every format, logs, progress. Each test bears the name of the
//! option it is about.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Deserializer, Value};

mod place;
use place::{Place, utf8};

impl Place {
    fn output(&self, args: &[&str]) -> Output {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", utf8(&output.stderr));
        output
    }

    fn stdout(&self, args: &[&str]) -> String {
        utf8(&self.output(args).stdout)
    }

    fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn documents(stdout: &[u8]) -> Vec<Value> {
    let all = Deserializer::from_slice(stdout).into_iter::<Value>();
    all.collect::<Result<_, _>>().unwrap()
}

/// A small job: 16 I/Os of 4 KiB on a file, by a synchronous engine.
const SMALL: [&str; 4] = ["--name=j", "--size=64k", "--filename=f", "--ioengine=psync"];

/// Runs for a while on the null engine.
fn lasting(time: &str) -> Vec<String> {
    let args = ["--name=j", "--ioengine=null", "--size=1m", "--time_based", "--iodepth=4"];
    let runtime = format!("--runtime={time}");
    args.into_iter().map(str::to_owned).chain([runtime]).collect()
}

/// Waits until a job has got so far.
fn await_file(path: &Path) {
    for _ in 0..6000 {
        if path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} did not appear", path.display());
}

fn with<'a>(base: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    base.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[test]
fn output_format_combines_terse_json_and_normal_in_fios_order() {
    let place = Place::new("formats");
    let args = [&SMALL[..], &["--output-format=normal,json+,terse"]].concat();
    let stdout = place.stdout(&args);
    let at = |what: &str| stdout.find(what).unwrap_or_else(|| panic!("no {what} in {stdout}"));
    assert!(stdout.starts_with("j: (g=0): rw=read"), "{stdout}");
    let order = [at("\n3;fio-3.42;j;0;0;64;"), at("\n{\n"), at("\n}\n"), at("\nj: (groupid=0")];
    assert!(order.is_sorted(), "{order:?}");
    assert!(at("\"bins\" : {") < at("\n}\n"));
    let document = &stdout[order[1]..order[2] + 3];
    assert!(serde_json::from_str::<Value>(document).is_ok(), "{document}");
}

#[test]
fn output_format_json_plus_counts_every_io_in_its_bins() {
    let place = Place::new("plus");
    let output = place.output(&[&SMALL[..], &["--output-format=json+"]].concat());
    let root: Value = serde_json::from_slice(&output.stdout).unwrap();
    let clat = &root["jobs"][0]["read"]["clat_ns"];
    let bins = clat["bins"].as_object().unwrap();
    assert_eq!(bins.values().filter_map(Value::as_u64).sum::<u64>(), 16);
    assert!(bins.keys().all(|bin| bin.parse::<u64>().is_ok()));
    assert!(root["jobs"][0]["read"]["lat_ns"].get("bins").is_none(), "it has no percentiles");
}

#[test]
fn minimal_and_terse_version_have_fios_number_of_fields() {
    let place = Place::new("terse");
    // fio's own lines, measured: without disks and description.
    for (version, fields) in [("2", 161), ("3", 121), ("4", 162), ("5", 180)] {
        let version = format!("--terse-version={version}");
        let args = [&SMALL[..], &["--minimal", "--disk_util=0", &version]].concat();
        let stdout = place.stdout(&args);
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        assert_eq!(stdout.trim_end().split(';').count(), fields, "{version}: {stdout}");
    }
    let args = [&SMALL[..], &["--minimal", "--disk_util=0", "--description=why"]].concat();
    assert!(place.stdout(&args).ends_with("%;why\n"));
}

#[test]
fn append_terse_adds_a_line_to_the_report_for_people() {
    let place = Place::new("append");
    let stdout = place.stdout(&[&SMALL[..], &["--append-terse"]].concat());
    assert!(stdout.contains("\n3;fio-3.42;j;") && stdout.contains("\nRun status group 0"));
}

#[test]
fn output_receives_the_document_and_stdout_nothing() {
    let place = Place::new("file");
    let args = [&SMALL[..], &["--output-format=json", "--output=r.json"]].concat();
    let output = place.output(&args);
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
    let report = fs::read(place.0.join("r.json")).unwrap();
    assert!(serde_json::from_slice::<Value>(&report).is_ok());
}

#[test]
fn write_bw_log_write_iops_log_and_write_lat_log_have_a_line_per_io() {
    let place = Place::new("logs");
    let logs = ["--write_bw_log=p", "--write_iops_log=p", "--write_lat_log=p"];
    place.quiet_json(&[&SMALL[..], &logs, &["--rw=randrw", "--fsync=2"]].concat());
    let made = ["p_bw.1.log", "p_clat.1.log", "p_iops.1.log", "p_lat.1.log", "p_slat.1.log"];
    assert_eq!(place.names(".log"), made);
    for name in ["p_bw.1.log", "p_clat.1.log", "p_iops.1.log", "p_lat.1.log"] {
        let lines = place.log(name);
        assert_eq!(lines.len(), 16, "{name}: syncs are not logged");
        for line in &lines {
            assert!(line.len() == 5 && line[2] < 2 && line[3] == 4096 && line[4] == 0, "{line:?}");
        }
    }
    assert!(place.log("p_slat.1.log").is_empty(), "a synchronous engine has no such latency");
    assert!(place.log("p_iops.1.log").iter().all(|line| line[1] == 1));
    let (clat, lat) = (place.log("p_clat.1.log"), place.log("p_lat.1.log"));
    assert!(clat.iter().zip(&lat).all(|(clat, lat)| clat[1] <= lat[1]));
    // Bytes per millisecond of the same latency, as fio has it.
    let bandwidth = place.log("p_bw.1.log");
    let expected = clat.iter().map(|line| 4096 * 1_000_000 / line[1].max(1));
    assert!(bandwidth.iter().map(|line| line[1]).eq(expected));
}

#[test]
fn write_iops_log_has_trims_in_their_direction_and_no_range_syncs() {
    let place = Place::new("trims");
    let args = ["--rw=trimwrite", "--write_iops_log=p", "--sync_file_range=write:2"];
    place.quiet_json(&[&SMALL[..], &args].concat());
    let directions: Vec<u64> = place.log("p_iops.1.log").iter().map(|line| line[2]).collect();
    assert_eq!(directions.len(), 32, "{directions:?}");
    assert_eq!(directions.iter().filter(|direction| **direction == 2).count(), 16);
}

#[test]
fn write_lat_log_of_an_asynchronous_engine_adds_up() {
    let place = Place::new("async");
    let args = ["--name=a", "--ioengine=null", "--iodepth=4", "--size=64k", "--write_lat_log=p"];
    place.quiet_json(&args);
    let [slat, clat, lat] = ["p_slat", "p_clat", "p_lat"].map(|name| {
        let log = place.log(&format!("{name}.1.log"));
        log.iter().map(|line| line[1]).collect::<Vec<u64>>()
    });
    assert_eq!(lat.len(), 16);
    assert!(slat.iter().zip(&clat).map(|(slat, clat)| slat + clat).eq(lat));
}

#[test]
fn write_bw_log_without_a_name_takes_that_of_the_job() {
    let place = Place::new("bare");
    fs::write(place.0.join("j.fio"), "[one]\nsize=64k\nioengine=null\nwrite_bw_log\n").unwrap();
    place.quiet_json(&["j.fio"]);
    assert_eq!(place.names(".log"), ["one_bw.1.log"]);
    // fio takes the next argument for the name; an option is none.
    place.quiet_json(&["--name=x", "--write_bw_log", "y", "--size=64k", "--ioengine=null"]);
    place.quiet_json(&["--name=x", "--write_bw_log", "--size=64k", "--ioengine=null"]);
    assert_eq!(place.names(".log"), ["one_bw.1.log", "x_bw.1.log", "y_bw.1.log"]);
}

#[test]
fn log_avg_msec_logs_one_mean_per_direction_and_window() {
    let place = Place::new("avg");
    let logs = ["--log_avg_msec=100", "--write_bw_log=p", "--write_iops_log=p"];
    let args = lasting("450ms");
    let root = place.quiet_json(&with(&args, &[&logs[..], &["--write_lat_log=p"]].concat()));
    let read = &root["jobs"][0]["read"];
    for name in ["p_bw.1.log", "p_iops.1.log", "p_clat.1.log", "p_lat.1.log", "p_slat.1.log"] {
        let lines = place.log(name);
        assert!((3..=7).contains(&lines.len()), "{name}: {lines:?}");
        assert!(lines.iter().all(|line| line[2..] == [0, 0, 0]), "{name}: {lines:?}");
        assert!(lines.is_sorted_by_key(|line| line[0]), "{name}: {lines:?}");
    }
    // Weighted by their windows the rates add up to all I/Os.
    let mut before = 0;
    let mut ios = 0;
    for line in place.log("p_iops.1.log") {
        ios += line[1] * (line[0] - before) / 1000;
        before = line[0];
    }
    let total = read["total_ios"].as_u64().unwrap();
    assert!(ios.abs_diff(total) < total / 5, "{ios} of {total}");
}

#[test]
fn log_window_value_and_log_max_value_log_the_largest() {
    let place = Place::new("max");
    let logs = ["--log_avg_msec=50", "--write_lat_log=p"];
    let args = lasting("200ms");
    place.quiet_json(&with(&args, &[&logs[..], &["--log_window_value=both"]].concat()));
    let both = place.log("p_lat.1.log");
    assert!(!both.is_empty() && both.iter().all(|line| line.len() == 6 && line[1] <= line[2]));
    place.quiet_json(&with(&args, &[&logs[..], &["--log_max_value=1"]].concat()));
    assert!(place.log("p_lat.1.log").iter().all(|line| line.len() == 5));
}

#[test]
fn write_hist_log_and_log_hist_msec_count_every_io_once() {
    let place = Place::new("hist");
    let args = lasting("350ms");
    let logs = ["--write_hist_log=p", "--log_hist_msec=100"];
    let total = |root: &Value| root["jobs"][0]["read"]["total_ios"].as_u64().unwrap();
    for (coarseness, columns) in [("--log_hist_coarseness=0", 1856), ("--log_hist_c=3", 232)] {
        let root = place.quiet_json(&with(&args, &[&logs[..], &[coarseness]].concat()));
        let lines = place.log("p_clat_hist.1.log");
        assert!((3..=6).contains(&lines.len()), "{} lines", lines.len());
        assert!(lines.iter().all(|line| line.len() == 3 + columns && line[1] == 0));
        assert!(lines.iter().all(|line| line[2] == 4096));
        let counted: u64 = lines.iter().flat_map(|line| &line[3..]).sum();
        assert_eq!(counted, total(&root));
    }
}

#[test]
fn write_hist_log_without_log_hist_msec_stays_empty_as_in_fio() {
    let place = Place::new("nohist");
    place.quiet_json(&[&SMALL[..], &["--write_hist_log=p"]].concat());
    assert!(place.log("p_clat_hist.1.log").is_empty());
}

#[test]
fn log_offset_log_prio_and_log_issue_time_add_columns() {
    let place = Place::new("columns");
    let args = [&SMALL[..], &["--rw=randread", "--write_lat_log=p"]].concat();
    place.quiet_json(&[&args[..], &["--log_offset=1", "--log_issue_time=1"]].concat());
    let lines = place.log("p_clat.1.log");
    let mut offsets: Vec<u64> = lines.iter().map(|line| line[4]).collect();
    offsets.sort_unstable();
    assert!(offsets.into_iter().eq((0..16).map(|block| block * 4096)));
    assert!(lines.iter().all(|line| line.len() == 7));
    assert!(lines.is_sorted_by_key(|line| line[6]), "issued one after the other");
    place.quiet_json(&[&args[..], &["--log_prio=1"]].concat());
    let log = fs::read_to_string(place.0.join("p_clat.1.log")).unwrap();
    assert!(log.lines().all(|line| line.ends_with(", 0x0000")), "{log}");
}

#[test]
fn per_job_logs_numbers_files_by_clone_or_shares_one() {
    let place = Place::new("shared");
    let args = [&SMALL[..], &["--numjobs=2", "--write_iops_log=p"]].concat();
    place.quiet_json(&args);
    assert_eq!(place.names(".log"), ["p_iops.1.log", "p_iops.2.log"]);
    for runs in 1..=2 {
        place.quiet_json(&[&args[..], &["--per_job_logs=0"]].concat());
        assert_eq!(place.log("p_iops.log").len(), runs * 32, "it is continued");
    }
}

#[test]
fn log_unix_epoch_counts_from_1970() {
    let place = Place::new("epoch");
    for option in ["--log_unix_epoch=1", "--log_alternate_epoch=1"] {
        let root = place.quiet_json(&[&SMALL[..], &["--write_iops_log=p", option]].concat());
        let end_ms = root["timestamp_ms"].as_u64().unwrap();
        let lines = place.log("p_iops.1.log");
        assert!(lines.iter().all(|line| (end_ms - 60_000..=end_ms + 1).contains(&line[0])));
    }
}

#[test]
fn log_entries_is_accepted_and_changes_nothing() {
    let place = Place::new("entries");
    place.quiet_json(&[&SMALL[..], &["--write_iops_log=p", "--log_entries=2"]].concat());
    assert_eq!(place.log("p_iops.1.log").len(), 16);
}

#[test]
fn write_iops_log_leaves_the_ramp_time_out() {
    let place = Place::new("ramp");
    let args = lasting("200ms");
    let logs = ["--write_iops_log=p", "--ramp_time=300ms", "--log_avg_msec=50"];
    let root = place.quiet_json(&with(&args, &[&logs[..], &["--write_hist_log=p"]].concat()));
    let lines = place.log("p_iops.1.log");
    assert!(lines.last().is_some_and(|line| line[0] < 300), "{lines:?}");
    assert!(root["jobs"][0]["read"]["runtime"].as_u64().unwrap() < 300);
}

#[test]
fn write_bw_log_that_cannot_be_created_is_refused_before_the_run() {
    let place = Place::new("refused");
    let output = place.command(&[&SMALL[..], &["--write_bw_log=no/p"]].concat()).output().unwrap();
    let stderr = utf8(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("cannot write log no/p_bw.1.log: No such file"), "{stderr}");
}

#[test]
fn bandwidth_log_adds_all_jobs_up() {
    let place = Place::new("aggregate");
    let args = lasting("1200ms");
    let root = place.quiet_json(&with(&args, &["--numjobs=2", "--bandwidth-log"]));
    assert_eq!(place.names(".log"), ["agg-read_bw.log", "agg-trim_bw.log", "agg-write_bw.log"]);
    let mut before = 0;
    let mut kib = 0;
    for line in place.log("agg-read_bw.log") {
        assert_eq!(line[2..], [0, 0, 0]);
        kib += line[1] * (line[0] - before) / 1000;
        before = line[0];
    }
    let jobs = root["jobs"].as_array().unwrap();
    let total: u64 = jobs.iter().map(|job| job["read"]["io_kbytes"].as_u64().unwrap()).sum();
    assert!(kib.abs_diff(total) < total / 5, "{kib} of {total}");
    assert!(place.log("agg-write_bw.log").iter().all(|line| line[1..] == [0, 1, 0, 0]));
    place.quiet_json(&with(&lasting("100ms"), &["--bandwidth-log=mine"]));
    assert!(place.0.join("mine-read_bw.log").exists());
}

#[test]
fn status_interval_reports_what_was_done_so_far() {
    let place = Place::new("status");
    let args = lasting("1300ms");
    let args = with(&args, &["--numjobs=2", "--status-interval=500ms", "--output-format=json"]);
    let output = place.output(&args);
    let documents = documents(&output.stdout);
    assert!(documents.len() >= 2, "{} documents", documents.len());
    let ios = |root: &Value| root["jobs"][1]["read"]["total_ios"].as_u64().unwrap();
    let runtimes = |root: &Value| root["jobs"][0]["read"]["runtime"].as_u64().unwrap();
    assert!(documents.iter().map(ios).is_sorted(), "they are cumulative");
    assert!(ios(&documents[0]) > 0 && ios(&documents[0]) < ios(&documents[1]));
    // The last tells how long it was: there is one document for each interval of that.
    let first = runtimes(&documents[0]);
    let last = runtimes(documents.last().unwrap());
    assert!(first >= 400 && first < last, "{first} {last}");
    assert!(documents.len() as u64 <= last / 400 + 1, "{} documents", documents.len());
    assert_eq!(documents[0]["mfio"]["finished"], false);
    assert!(documents.last().unwrap()["mfio"].get("finished").is_none());
}

#[test]
fn status_interval_in_normal_output_repeats_the_report() {
    let place = Place::new("status-normal");
    let args = lasting("800ms");
    let stdout = place.stdout(&with(&args, &["--status-interval=300ms"]));
    let reports = stdout.matches("\nRun status group 0 (all jobs):").count();
    assert!(reports >= 2, "{stdout}");
}

#[test]
fn usr1_and_the_status_file_ask_for_a_report() {
    let place = Place::new("usr1");
    let args = lasting("3");
    let child = place.start(&with(&args, &["--output-format=json"]));
    std::thread::sleep(Duration::from_millis(700));
    signal(&child, Signal::SIGUSR1);
    std::thread::sleep(Duration::from_millis(500));
    fs::write(place.0.join("fio-dump-status"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(documents(&output.stdout).len(), 3);
    assert!(!place.0.join("fio-dump-status").exists());
}

#[test]
fn interrupt_ends_with_one_valid_document_that_has_all_jobs() {
    let place = Place::new("interrupt");
    let jobs = "[global]\nioengine=null\nsize=1m\ntime_based\nruntime=60\n\
                exec_prerun=true\n[a]\n[b]\nstonewall\n";
    fs::write(place.0.join("two.fio"), jobs).unwrap();
    let child = place.start(&["two.fio", "--output-format=json", "--write_bw_log=p"]);
    await_file(&place.0.join("a.prerun.txt"));
    std::thread::sleep(Duration::from_millis(700));
    signal(&child, Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(128));
    assert!(output.stderr.is_empty(), "{}", utf8(&output.stderr));
    let root: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ios = |job: usize| root["jobs"][job]["read"]["total_ios"].as_u64().unwrap();
    assert!(ios(0) > 0 && ios(1) == 0);
    assert_eq!(root["jobs"][1]["jobname"], "b");
    assert!(root["mfio"]["warnings"].to_string().contains("terminating on signal 2"));
}

#[test]
fn interrupt_while_files_are_laid_out_leaves_an_empty_document() {
    let place = Place::new("interrupt-layout");
    let child = place.start(&["--name=x", "--size=64g", "--output-format=json"]);
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    // A disk without so much room refuses instead; either way there is no half document.
    if output.status.code() == Some(128) {
        let root: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(root["jobs"], Value::Array(Vec::new()));
    } else {
        assert!(output.stdout.is_empty(), "{}", utf8(&output.stdout));
    }
}

#[test]
fn eta_eta_interval_and_eta_newline_shape_the_progress() {
    let place = Place::new("eta");
    let args = lasting("1100ms");
    let always = ["--eta=always", "--eta-interval=250ms"];
    let lines = |stdout: &str| stdout.matches("Jobs: 1 (f=1)").count();
    let stdout = place.stdout(&with(&args, &always));
    assert!((3..=5).contains(&lines(&stdout)), "{stdout}");
    assert_eq!(stdout.matches("\r\n").count(), 1, "one line that is overwritten: {stdout:?}");
    let stdout = place.stdout(&with(&args, &[&always[..], &["--eta-newline=400ms"]].concat()));
    assert!(stdout.matches("\r\n").count() >= 2, "{stdout:?}");
    assert_eq!(lines(&place.stdout(&with(&args, &["--eta=never"]))), 0);
    assert_eq!(lines(&place.stdout(&with(&args, &[]))), 0, "auto: it is no terminal");
    // Progress is for people; it neither enters a document nor the file of --output.
    place.quiet_json(&with(&lasting("600ms"), &always));
    let stdout = place.stdout(&with(&args, &[&always[..], &["--output=o"]].concat()));
    assert!(stdout.starts_with("Jobs: 1") && lines(&stdout) > 1, "{stdout}");
    assert!(!fs::read_to_string(place.0.join("o")).unwrap().contains("Jobs: "));
}

#[test]
fn disk_util_shows_the_disk_unless_switched_off() {
    let place = Place::new("disk");
    let args = ["--name=j", "--size=1m", "--filename=f", "--rw=write", "--end_fsync=1"];
    let root = place.quiet_json(&args);
    let disks = root["disk_util"].as_array().unwrap();
    for disk in disks {
        let keys = ["read_ios", "write_ios", "read_sectors", "write_merges", "in_queue"];
        assert!(keys.iter().all(|key| disk[key].is_u64()), "{disk}");
        assert!(disk["util"].is_f64());
    }
    if let [disk] = disks.as_slice() {
        assert!(disk["write_sectors"].as_u64().unwrap() >= 2048, "a MiB was synced: {disk}");
    }
    let root = place.quiet_json(&[&args[..], &["--disk_util=0"]].concat());
    assert_eq!(root["disk_util"], Value::Array(Vec::new()));
    assert!(!place.stdout(&[&args[..], &["--disk_util=0"]].concat()).contains("Disk stats"));
}

#[test]
fn stats_off_hides_the_job_and_not_its_group() {
    let place = Place::new("stats");
    let args = [&SMALL[..], &["--stats=0"]].concat();
    assert_eq!(place.quiet_json(&args)["jobs"], Value::Array(Vec::new()));
    let stdout = place.stdout(&args);
    assert!(!stdout.contains("j: (groupid") && stdout.contains("Run status group 0"), "{stdout}");
}

#[test]
fn unified_rw_reporting_adds_directions_up() {
    let place = Place::new("unified");
    let args = [&SMALL[..], &["--rw=randrw"]].concat();
    let root = place.quiet_json(&[&args[..], &["--unified_rw_reporting=mixed"]].concat());
    let job = root["jobs"][0].as_object().unwrap();
    assert!(job.contains_key("mixed") && job.contains_key("sync"));
    assert!(["read", "write", "trim"].iter().all(|direction| !job.contains_key(*direction)));
    assert_eq!(job["mixed"]["total_ios"], 16);
    let root = place.quiet_json(&[&args[..], &["--unified_rw_reporting=both"]].concat());
    let ios = |direction: &str| root["jobs"][0][direction]["total_ios"].as_u64().unwrap();
    assert_eq!((ios("mixed"), ios("read") + ios("write")), (16, 16));
    let stdout = place.stdout(&[&args[..], &["--unified_rw_reporting=both"]].concat());
    for line in ["\n  read: IOPS=", "\n  mixed: IOPS=", "\n   READ: bw=", "\n  MIXED: bw="] {
        assert!(stdout.contains(line), "{line} in {stdout}");
    }
}

#[test]
fn slat_percentiles_lat_percentiles_and_clat_percentiles_choose() {
    let place = Place::new("percentiles");
    let args = ["--name=j", "--size=64k", "--ioengine=null", "--iodepth=4"];
    let kinds = |more: &[&str]| -> Vec<String> {
        let root = place.quiet_json(&[&args[..], more].concat());
        let read = root["jobs"][0]["read"].as_object().unwrap().clone();
        let with = read.iter().filter(|(_, value)| value.get("percentile").is_some());
        with.map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(kinds(&[]), ["clat_ns"]);
    assert_eq!(kinds(&["--slat_percentiles=1", "--lat_percentiles=1"]).len(), 3);
    assert_eq!(kinds(&["--clat_percentiles=0"]), [""; 0]);
    let root = place.quiet_json(&[&args[..], &["--percentile_list=50:99.999"]].concat());
    let listed = root["jobs"][0]["read"]["clat_ns"]["percentile"].as_object().unwrap().clone();
    assert!(listed.keys().eq(["50.000000", "99.999000"]));
}

#[test]
fn disable_lat_disable_clat_and_disable_slat_leave_zeros() {
    let place = Place::new("disabled");
    let args = ["--name=j", "--size=64k", "--ioengine=null", "--iodepth=4"];
    for (option, key) in [("lat", "lat_ns"), ("clat", "clat_ns"), ("slat", "slat_ns")] {
        let option = format!("--disable_{option}=1");
        let root = place.quiet_json(&[&args[..], &[&option]].concat());
        for name in ["slat_ns", "clat_ns", "lat_ns"] {
            let count = root["jobs"][0]["read"][name]["N"].as_u64().unwrap();
            assert_eq!(count, if name == key { 0 } else { 16 }, "{option}, {name}");
        }
    }
}

#[test]
fn bwavgtime_and_iopsavgtime_set_the_number_of_samples() {
    let place = Place::new("samples");
    let args = lasting("650ms");
    let root = place.quiet_json(&with(&args, &["--bwavgtime=100", "--iopsavgtime=300"]));
    let samples = |key: &str| root["jobs"][0]["read"][key].as_u64().unwrap();
    let (bw, iops) = (samples("bw_samples"), samples("iops_samples"));
    let runtime = root["jobs"][0]["read"]["runtime"].as_u64().unwrap();
    assert!(bw > iops && bw >= 2 && iops >= 1, "{bw} {iops}");
    assert!(bw <= runtime / 100 + 1 && iops <= runtime / 300 + 1, "{bw} {iops} in {runtime}");
}

/// As in fio: kubestr and its kind set gtod_reduce and read the means of the samples.
#[test]
fn disable_bw_measurement_and_gtod_reduce_keep_the_samples() {
    let place = Place::new("disable_bw");
    let args = lasting("650ms");
    for option in ["--disable_bw_measurement=1", "--gtod_reduce=1"] {
        let root =
            place.quiet_json(&with(&args, &[option, "--bwavgtime=100", "--iopsavgtime=100"]));
        let read = &root["jobs"][0]["read"];
        for key in ["bw_mean", "iops_mean"] {
            assert!(read[key].as_f64().unwrap() > 0.0, "{option}: {read}");
        }
    }
    let args = ["--name=x", "--ioengine=null", "--size=64k", "--write_bw_log=b"];
    let more = ["--write_iops_log=b", "--disable_bw_measurement=1"];
    place.quiet_json(&[&args[..], &more].concat());
    assert_eq!((place.log("b_bw.1.log").len(), place.log("b_iops.1.log").len()), (0, 16));
}

#[test]
fn kb_base_unit_base_and_significant_figures_change_text_only() {
    let place = Place::new("units");
    let stdout = place.stdout(&[&SMALL[..], &["--kb_base=1000", "--unit_base=1"]].concat());
    // 64k is 64000 bytes there, of which whole blocks are done.
    assert!(stdout.contains("bit/s (") && stdout.contains("io=61.4kB (60.0KiB)"), "{stdout}");
    let stdout = place.stdout(&[&SMALL[..], &["--significant_figures=6"]].concat());
    assert!(stdout.contains("io=65536B (65536B)"), "{stdout}");
    let root = place.quiet_json(&[&SMALL[..], &["--unit_base=1"]].concat());
    assert_eq!(root["jobs"][0]["read"]["io_bytes"], 65536);
}

#[test]
fn group_reporting_adds_clones_up_and_keeps_options_of_the_first() {
    let place = Place::new("group");
    let root = place.quiet_json(&[&SMALL[..], &["--numjobs=3", "--group_reporting"]].concat());
    let jobs = root["jobs"].as_array().unwrap();
    assert_eq!((jobs.len(), &jobs[0]["read"]["total_ios"]), (1, &Value::from(48)));
    assert_eq!(jobs[0]["job options"]["name"], "j");
}

#[test]
fn fsync_latencies_are_reported_by_themselves() {
    let place = Place::new("sync");
    let args = [&SMALL[..], &["--rw=write", "--fdatasync=1"]].concat();
    let sync = place.quiet_json(&args)["jobs"][0]["sync"].clone();
    assert_eq!(sync["total_ios"], 16);
    assert!(sync["lat_ns"]["percentile"]["99.000000"].is_u64(), "etcd's check reads it: {sync}");
    let stdout = place.stdout(&args);
    assert!(stdout.contains("  fsync/fdatasync/sync_file_range/syncfs:\n    sync ("), "{stdout}");
}

#[test]
fn reports_are_the_same_for_all_engines() {
    let place = Place::new("engines");
    let mut shapes = BTreeMap::new();
    for engine in ["psync", "io_uring", "null"] {
        let engine = format!("--ioengine={engine}");
        let root = place.quiet_json(&["--name=j", "--size=64k", "--filename=f", &engine]);
        let keys: Vec<String> = root["jobs"][0].as_object().unwrap().keys().cloned().collect();
        shapes.insert(keys, engine);
    }
    assert_eq!(shapes.len(), 1, "{shapes:?}");
}
