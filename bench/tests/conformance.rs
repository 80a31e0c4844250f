//! What fio's own test drivers and the readers of its output expect, in our own jobs.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use place::{Place, bytes, ios, number, text};
use serde_json::Value;

/// The warnings of a document as one text.
fn warnings(document: &Value) -> String {
    document["mfio"]["warnings"].to_string()
}

#[test]
fn refusals_are_documents_where_documents_are_wanted() {
    let place = Place::new("refusals");
    fs::create_dir(place.0.join("d")).unwrap();
    let cases = [
        ("--name=x --bs=4q", "bs=4q"),
        ("--name=x --rbdname=y", "belongs to an engine"),
        ("--name=x --filename=d --size=4k", "is a directory"),
        ("nothing.fio", "nothing.fio"),
    ];
    for (args, expected) in cases {
        for format in ["json", "json+", "terse,json", "normal,json"] {
            let output = place.run(&format!("{args} --output-format={format}"));
            assert_eq!(output.status.code(), Some(1), "{args}");
            let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let error = document["mfio"]["errors"][0].as_str().unwrap_or_default();
            assert!(error.contains(expected), "{args} {format}: {}", text(&output));
            assert_eq!(document["jobs"].as_array().map(Vec::len), Some(0));
            assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
        }
        assert!(place.run(args).stdout.is_empty(), "{args}: text for people goes to stderr");
    }
    let output = place.run("--output out --output-format json --name=x --bs=4q");
    assert!(output.stdout.is_empty());
    let document: Value = serde_json::from_slice(&fs::read(place.0.join("out")).unwrap()).unwrap();
    assert!(document["mfio"]["errors"][0].as_str().unwrap().contains("bs=4q"));
}

/// bench-fio and its kind go on only where they find a version they know.
#[test]
fn version_begins_with_the_fio_it_stands_for() {
    let output = Place::new("version").run("--version");
    let lines = text(&output);
    let mut lines = lines.lines();
    let fio = lines.next().and_then(|line| line.strip_prefix("fio-3.")).unwrap();
    assert!(fio.parse::<u32>().is_ok(), "{fio}");
    assert_eq!(lines.next(), Some(concat!("mfio-bench ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn failed_jobs_say_why_inside_the_document() {
    let place = Place::new("errors");
    let args = "--name=x --ioengine=psync --rw=write --bs=4k --size=64k --verify=crc32c";
    place.json(args);
    fs::write(place.0.join("x.0.0"), [7; 65536]).unwrap();
    let args = "--name=x --ioengine=psync --rw=read --bs=4k --size=64k --verify=crc32c";
    let output = place.run(&format!("{args} --output-format=json"));
    assert_eq!(output.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["jobs"][0]["error"], 84);
    assert!(document["mfio"]["errors"].to_string().contains("verify failed at file x.0.0"));
}

/// Scripts take any text on stderr for a failure; with a file for the output it stays empty.
#[test]
fn output_receives_warnings_and_notes_and_stderr_nothing() {
    let place = Place::new("notes");
    let args = "--name=x --ioengine=psync --iodepth=4 --size=64k --bs=4k";
    let output = place.run(&format!("{args} --output=out"));
    assert_eq!(text(&output), "");
    let report = fs::read_to_string(place.0.join("out")).unwrap();
    assert!(report.contains("warning") && report.contains("iodepth=4 has no effect"), "{report}");
    assert!(report.contains("note: job `x` is buffered"), "{report}");
    let output = place.run(args);
    assert!(String::from_utf8_lossy(&output.stderr).contains("note: job `x` is buffered"));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("note:"));
}

#[test]
fn environment_names_kernel_processors_file_system_and_device() {
    let place = Place::new("environment");
    let document = place.json("--name=x --ioengine=psync --size=64k --filename=a:b");
    let environment = &document["mfio"]["environment"];
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(environment["kernel"]["release"], release.trim());
    assert!(number(&environment["cpu"]["online"]) >= 1);
    assert!(number(&environment["memory_bytes"]) > 0 && number(&environment["numa_nodes"]) >= 1);
    for name in ["a", "b"] {
        let target = &environment["targets"][name];
        assert!(target["file_system"]["type"].is_string(), "{environment}");
        let Some(device) = target["device"].as_str() else { continue };
        assert!(number(&environment["devices"][device]["size_bytes"]) > 0, "{environment}");
    }
    let null = place.json("--name=x --ioengine=null --size=64k");
    assert_eq!(null["mfio"]["environment"]["targets"], serde_json::json!({}));
}

#[test]
fn notes_tell_cached_files_depths_not_reached_and_thin_percentiles() {
    let place = Place::new("remarks");
    let buffered = "--name=x --ioengine=io_uring --iodepth=16 --size=1m --bs=4k";
    let found = warnings(&place.json(&format!("{buffered} --iodepth_batch_complete_min=1")));
    assert!(found.contains("fit into memory"), "{found}");
    assert!(found.contains("too few lie above the 99.99th"), "{found}");
    let durable = "--name=y --ioengine=psync --rw=write --size=256k --bs=4k --fsync=1";
    let found = warnings(&place.json(&format!("{durable} --percentile_list=50")));
    assert_eq!(found, "[]");
    let shallow =
        format!("{buffered} --rw=randread --thinktime=1 --thinktime_blocks_type=complete");
    let found = warnings(&place.json(&shallow));
    assert!(!found.contains("its iodepth=16 in less"), "pauses explain the depth: {found}");
}

/// timeout(1) signals the process and then its group.
#[test]
fn a_signal_sent_twice_in_a_moment_still_ends_with_a_document() {
    let place = Place::new("signals");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mfio-bench"));
        let args = ["--name=x", "--ioengine=null", "--size=1m", "--time_based", "--runtime=60"];
        let more = ["--output-format=json", "--output=out", "--numjobs=2"];
        let mut child = command.current_dir(&place.0).args(args).args(more).spawn().unwrap();
        // Without a handler, a signal that comes too early ends it without a trace.
        std::thread::sleep(Duration::from_millis(700));
        let process = Pid::from_raw(child.id().cast_signed());
        for _ in 0..20 {
            kill(process, signal).ok();
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(child.wait().unwrap().code(), Some(128), "{signal}");
        let out = fs::read(place.0.join("out")).unwrap();
        let document: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(document["jobs"].as_array().map(Vec::len), Some(2));
        assert!(warnings(&document).contains("terminating on signal"));
    }
}

/// Without that, all passes but the first would measure memory. Others may read from the same
/// disk meanwhile, so there is no upper bound.
#[test]
fn invalidate_empties_the_page_cache_before_every_pass() {
    let place = Place::new("invalidate");
    let args = "--name=x --ioengine=psync --rw=randread --bs=16k --size=4m --loops=3";
    let document = place.json(args);
    assert_eq!(bytes(&document["jobs"][0], "read"), 12 << 20);
    let Some(disk) = document["disk_util"].get(0) else {
        return writeln!(std::io::stderr().lock(), "skipped: no disk below").unwrap();
    };
    let read = number(&disk["read_sectors"]) * 512;
    assert!(read >= 12 << 20, "{read} bytes from {disk}");
}

#[test]
fn bsrange_and_filesize_as_fios_own_tests_write_them() {
    let place = Place::new("sloppy");
    let document = place.json(
        "--name=x --ioengine=null --rw=randread --norandommap --size=1m --filesize=1048576) \
         --bsrange=512/25:1k/25:4k/50",
    );
    let job = &document["jobs"][0];
    assert_eq!(bytes(job, "read") % 512, 0);
    let mean = bytes(job, "read") / ios(job, "read");
    assert!((512..=1024).contains(&mean), "{mean}");
    let found = warnings(&document);
    assert!(found.contains("looks like a bssplit") && found.contains("nothing opens"), "{found}");
}

/// Zones of 16 blocks in a region of 8 zones, behind an offset.
#[test]
fn zonemode_strided_touches_each_block_of_a_zone_once_per_round() {
    const BLOCK: u64 = 4096;
    let place = Place::new("strided");
    let cases =
        [(16, ""), (8, ""), (40, ""), (16, "--random_generator=lfsr"), (24, "--norandommap")];
    for (case, (touched, more)) in cases.into_iter().enumerate() {
        place.json(&format!(
            "--name=x --zonemode=strided --log_offset=1 --randrepeat=0 --rw=randread --bs=4k \
             --write_iops_log=s{case} --zonerange=64k --zonesize={}k --ioengine=null --size=512k \
             --io_size=512k --filesize=544k --offset=32k {more}",
            touched * 4
        ));
        let log = fs::read_to_string(place.0.join(format!("s{case}_iops.1.log"))).unwrap();
        let block = |line: &str| line.split(", ").nth(4).unwrap().parse::<u64>().unwrap() / BLOCK;
        let blocks: Vec<u64> = log.lines().map(block).collect();
        assert_eq!(blocks.len(), 128, "{more}");
        for (zone, inside) in (0..).zip(blocks.chunks(touched)) {
            let first = 8 + 16 * (zone % 8);
            assert!(inside.iter().all(|at| (first..first + 16).contains(at)), "{zone}: {inside:?}");
            for round in inside.chunks(16).filter(|_| !more.starts_with("--nor")) {
                let mut once = round.to_vec();
                once.sort_unstable();
                once.dedup();
                assert_eq!(once.len(), round.len(), "zone {zone} {more}: {round:?}");
            }
        }
    }
}
