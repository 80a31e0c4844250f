//! The built program on small files: what it accepts, refuses, finds and prints.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

mod place;
use place::{Place, number, utf8};

/// Says why a test does nothing, where it needs io_uring and there is none.
fn ring_is_missing(place: &Place) -> bool {
    let args = ["--name=p", "--filename=probe", "--size=4k", "--ioengine=raw_uring", "--unlink=1"];
    let output = place.run(&args);
    let missing = output.status.code() != Some(0);
    if missing {
        let why = utf8(&output.stderr);
        writeln!(std::io::stderr().lock(), "skipped, io_uring cannot be used: {why}").unwrap();
    }
    missing
}

#[test]
fn bad_input_is_one_line_and_leaves_nothing() {
    let place = Place::new("bad");
    fs::write(place.0.join("present"), [7; 8192]).unwrap();
    let cases: [(&[&str], &str); 15] = [
        (&["missing.fio"], "cannot read job file `missing.fio`: No such file or directory"),
        (
            &["--name=x", "--filename=new"],
            "you need to specify size= in bytes for new: there is no",
        ),
        (&["--name=x", "--filename=present", "--size=1k"], "less than one block"),
        (&["--name=x", "--filename=present", "--offset=4097"], "smaller than one block"),
        (&["--name=x", "--filename=present", "--ioengin=psync", "--foo=1"], "--foo"),
        (&["--name=x", "--filename=present", "--rw=randreed"], "did you mean randread?"),
        (&["--name=x", "--filename=.", "--size=1m"], "is a directory"),
        (&["--name=x", "--filename=no/such/dir", "--size=1m"], "No such file or directory"),
        (&["--name=x", "--filename=/dev/zero", "--size=1m"], "neither a regular file nor"),
        (&["--name=x", "--size=1m", "--bs=1000", "--direct=1"], "multiple of 512"),
        (&["--name=x", "--size=1m", "--bs=16", "--rw=write", "--verify=crc32c"], "at least 40"),
        (&["--name=x", "--size=1m", "--ioengine=nosuch"], "ioengine=nosuch"),
        (
            &[
                "--name=x",
                "--filename=new",
                "--size=1m",
                "--rw=write",
                "--verify=crc32c",
                "--numjobs=2",
            ],
            "verify needs the blocks to itself",
        ),
        (&["--rw=read"], "no job is"),
        (&["compare", "--a=psync", "--name=x", "--size=1m"], "needs --b ENGINE"),
    ];
    for (args, expected) in cases {
        let output = place.run(args);
        let stderr = utf8(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}: {}", utf8(&output.stdout));
        assert_eq!(place.names(""), ["present"], "{args:?}");
    }
}

#[test]
fn one_bad_job_stops_all_before_anything_is_created() {
    let place = Place::new("all-or-none");
    let jobs = "[good]\nsize=64k\n[bad]\nfilename=missing\n";
    fs::write(place.0.join("two.fio"), jobs).unwrap();
    assert_eq!(place.run(&["two.fio"]).status.code(), Some(1));
    assert_eq!(place.names(""), ["two.fio"]);
}

#[test]
fn mistyped_device_is_refused_and_no_file_passes_for_it() {
    let dev = |path: &str| fs::metadata(path).unwrap().dev();
    if dev("/dev") == dev("/") {
        let why = "skipped, /dev is an ordinary directory here";
        return writeln!(std::io::stderr().lock(), "{why}").unwrap();
    }
    let place = Place::new("mistyped");
    let name = "/dev/mfio-no-such-device";
    let filename = format!("--filename={name}");
    for rw in ["--rw=randread", "--rw=randwrite"] {
        let output = place.run(&["--name=x", &filename, "--size=64k", rw]);
        let stderr = utf8(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&format!("there is no device {name}")), "{stderr}");
        assert!(!fs::exists(name).unwrap(), "{rw}");
    }
}

#[test]
fn help_of_a_subcommand_is_its_own_usage() {
    let place = Place::new("subcommand-help");
    for (name, option) in [("compare", "--max-cpu-ratio"), ("sweep", "--goal")] {
        let output = place.run(&[name, "--help"]);
        let stdout = utf8(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{}", utf8(&output.stderr));
        assert!(stdout.starts_with(&format!("usage: mfio-bench {name} ")), "{stdout}");
        assert!(stdout.contains(option) && !stdout.contains("doctor"), "{stdout}");
    }
}

#[test]
fn read_only_file_system_is_refused_before_the_start() {
    let place = Place::new("read-only");
    // /sys is mounted read-only in containers; elsewhere it refuses new files itself.
    let output = place.run(&["--name=x", "--filename=/sys/mfio-bench-test", "--size=4k"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = utf8(&output.stderr);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let reasons = ["Read-only file system", "Permission denied"];
    assert!(reasons.iter().any(|reason| stderr.contains(reason)), "{stderr}");
}

#[test]
fn sqthread_poll_writes_and_verifies_by_a_thread_of_the_kernel() {
    let place = Place::new("sqthread-poll");
    let job = ["--name=x", "--filename=f", "--size=1m", "--rw=randwrite", "--verify=crc32c"];
    let by_kernel = ["--ioengine=io_uring", "--iodepth=8", "--sqthread_poll=1"];
    let report = place.quiet_json(&[&job[..], &by_kernel[..]].concat());
    assert_eq!(report["jobs"][0]["write"]["total_ios"], 256);
    assert_eq!(report["jobs"][0]["error"], 0);
    let refused = place.run(&[&job[..], &["--ioengine=psync", "--sqthread_poll=1"]].concat());
    assert_eq!(refused.status.code(), Some(1));
    assert!(utf8(&refused.stderr).contains("sqthread_poll"), "{}", utf8(&refused.stderr));
}

#[test]
fn written_blocks_verify_and_a_flipped_byte_is_found_by_every_engine() {
    let place = Place::new("verify");
    let mut engines = vec!["psync", "io_uring"];
    if !ring_is_missing(&place) {
        engines.push("raw_uring");
    }
    for engine in engines {
        let (engine, name) = (format!("--ioengine={engine}"), format!("--filename={engine}.dat"));
        let common = ["--name=v", &engine, &name, "--size=1m", "--verify=crc32c", "--iodepth=8"];
        let write = [&common[..], &["--rw=randwrite"]].concat();
        let document = place.quiet_json(&write);
        assert_eq!(number(&document["jobs"][0]["write"]["total_ios"]), 256);
        assert_eq!(number(&document["jobs"][0]["read"]["total_ios"]), 256);

        let read = [&common[..], &["--rw=read"]].concat();
        assert_eq!(place.run(&read).status.code(), Some(0));
        let path = place.0.join(&name["--filename=".len()..]);
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 40_000).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 40_000).unwrap();
        let output = place.run(&read);
        let stderr = utf8(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("crc32c: verify failed at file"), "{stderr}");
        assert!(stderr.contains("offset 36864, length 4096"), "{stderr}");
        assert!(stderr.contains("Expected CRC: ") && stderr.contains("Received CRC: "));
        assert!(utf8(&output.stdout).contains("err=84 (data verification failed)"));
    }
}

#[test]
fn lost_write_is_found_although_the_old_block_is_valid() {
    let place = Place::new("lost");
    let write = ["--name=v", "--filename=f", "--size=64k", "--rw=write", "--verify=crc32c"];
    assert_eq!(place.run(&write).status.code(), Some(0));
    // A block of an earlier run at its right place is intact, so reading alone accepts it …
    let old = fs::read(place.0.join("f")).unwrap();
    assert_eq!(place.run(&write).status.code(), Some(0));
    let new = fs::read(place.0.join("f")).unwrap();
    assert_ne!(old[4096..8192], new[4096..8192], "runs name themselves in their blocks");
    // … and a block in the wrong place is not.
    let file = fs::OpenOptions::new().write(true).open(place.0.join("f")).unwrap();
    file.write_all_at(&new[4096..8192], 8192).unwrap();
    let output =
        place.run(&["--name=v", "--filename=f", "--rw=randread", "--verify=crc32c", "--bs=4k"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(utf8(&output.stderr).contains("a misdirected"), "{}", utf8(&output.stderr));
}

#[test]
fn json_has_the_keys_that_consumers_read() {
    let place = Place::new("json");
    let args =
        ["--name=j", "--size=256k", "--rw=randrw", "--fdatasync=4", "--numjobs=2", "--iodepth=4"];
    let document = place.quiet_json(&args);
    for key in ["fio version", "timestamp", "time", "jobs", "mfio"] {
        assert!(!document[key].is_null(), "{key}");
    }
    assert_eq!(document["jobs"].as_array().unwrap().len(), 2);
    let job = &document["jobs"][0];
    for key in ["jobname", "error", "elapsed", "job options", "sync", "usr_cpu", "iodepth_level"] {
        assert!(!job[key].is_null(), "{key}");
    }
    let ios = number(&job["read"]["total_ios"]) + number(&job["write"]["total_ios"]);
    assert_eq!(ios, 64);
    assert!(number(&job["sync"]["total_ios"]) > 0);
    assert!(number(&job["read"]["clat_ns"]["N"]) == number(&job["read"]["total_ios"]));
    assert!(number(&job["read"]["slat_ns"]["N"]) > 0, "io_uring has a submission latency");
    assert!(!job["read"]["clat_ns"]["percentile"]["99.000000"].is_null());
}

#[test]
fn layout_and_warnings_stay_out_of_json() {
    let place = Place::new("clean");
    let document = place.quiet_json(&["--name=j", "--size=64k", "--ioengine=psync", "--iodepth=4"]);
    assert!(document["mfio"]["warnings"].to_string().contains("iodepth=4 has no effect"));
}

#[test]
fn job_file_and_command_line_do_the_same() {
    let place = Place::new("same");
    let job = "[global]\nioengine=psync\nsize=128k\n[a]\nrw=randread\nbs=8k\nfilename=f\n";
    fs::write(place.0.join("a.fio"), job).unwrap();
    let by_file = place.quiet_json(&["a.fio"]);
    let args = ["--ioengine=psync", "--size=128k", "--name=a", "--rw=randread", "--bs=8k"];
    let by_args = place.quiet_json(&[&args[..], &["--filename=f"]].concat());
    for key in ["io_bytes", "total_ios"] {
        assert_eq!(by_file["jobs"][0]["read"][key], by_args["jobs"][0]["read"][key], "{key}");
    }
    assert_eq!(number(&by_file["jobs"][0]["read"]["io_bytes"]), 128 << 10);
}

#[test]
fn amounts_are_those_of_fio() {
    let place = Place::new("amounts");
    let done = |args: &[&str]| {
        let common = ["--name=a", "--ioengine=null", "--bs=4k"];
        let document = place.quiet_json(&[&common[..], args].concat());
        number(&document["jobs"][0]["read"]["io_bytes"])
    };
    assert_eq!(done(&["--size=10000"]), 8192);
    assert_eq!(done(&["--size=64k", "--loops=3"]), 3 * 65536);
    assert_eq!(done(&["--size=64k", "--io_size=96k"]), 96 << 10);
    assert_eq!(done(&["--size=64k", "--io_size=0"]), 64 << 10, "as if it were not given");
    assert_eq!(done(&["--size=64k", "--io_size=16k", "--rw=randread"]), 16 << 10);
    assert_eq!(done(&["--size=64k", "--number_ios=5", "--iodepth=4"]), 5 * 4096);
    assert_eq!(place.names(""), [""; 0], "the null engine touches no file");
}

#[test]
fn time_based_runs_as_long_as_told_and_ramp_time_is_not_counted() {
    let place = Place::new("time");
    let args = ["--name=t", "--ioengine=null", "--size=1m", "--time_based", "--runtime=300ms"];
    let begun = Instant::now();
    let document = place.quiet_json(&[&args[..], &["--ramp_time=200ms"]].concat());
    assert!(begun.elapsed() >= Duration::from_millis(500));
    let runtime = number(&document["jobs"][0]["read"]["runtime"]);
    // Of the main phase; a thread that starts late on a loaded machine has less of it.
    assert!((200..2000).contains(&runtime), "{runtime} ms");
}

#[test]
fn stonewall_makes_groups_and_group_reporting_merges_clones() {
    let place = Place::new("groups");
    let jobs =
        "[global]\nioengine=null\nsize=64k\n[a]\nnumjobs=3\ngroup_reporting\n[b]\nstonewall\n";
    fs::write(place.0.join("g.fio"), jobs).unwrap();
    let document = place.quiet_json(&["g.fio"]);
    let jobs = document["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 2);
    assert_eq!(number(&jobs[0]["read"]["total_ios"]), 48);
    assert_eq!((number(&jobs[0]["groupid"]), number(&jobs[1]["groupid"])), (0, 1));
}

#[test]
fn output_file_receives_the_report_and_stdout_nothing() {
    let place = Place::new("output");
    let args = ["--name=o", "--ioengine=null", "--size=64k", "--output=report.txt"];
    let output = place.run(&args);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty());
    let report = fs::read_to_string(place.0.join("report.txt")).unwrap();
    assert!(report.contains("o: (groupid=0, jobs=1): err= 0:"), "{report}");
    assert!(report.contains("   READ: bw="), "{report}");
}

#[test]
fn gtod_reduce_reads_no_clock_and_shows_no_latency() {
    let place = Place::new("reduced");
    let args = ["--name=g", "--ioengine=null", "--size=64k", "--iodepth=4", "--gtod_reduce=1"];
    let document = place.quiet_json(&args);
    let read = &document["jobs"][0]["read"];
    assert_eq!((number(&read["total_ios"]), number(&read["clat_ns"]["N"])), (16, 0));
}

#[test]
fn default_job_writes_verifies_reads_and_cleans_up() {
    let place = Place::new("default");
    let output = place.run(&["--size=2m", "--runtime=100ms"]);
    let (stdout, stderr) = (utf8(&output.stdout), utf8(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("verified: 512 blocks read back, 0 wrong"), "{stdout}");
    for job in ["write-verify", "randread-qd1", "randread-qd32"] {
        assert!(stdout.contains(&format!("{job}: (groupid=")), "{stdout}");
        let line = stdout.lines().find(|line| line.starts_with(&format!("  {job}"))).unwrap();
        assert!(line.contains(" IOPS") && line.contains("us per I/O"), "{line}");
    }
    assert_eq!(place.names(""), [""; 0]);
}

#[test]
fn interrupted_default_job_reports_and_cleans_up() {
    let place = Place::new("interrupt");
    let mut child = place
        .command(&["--size=1m", "--runtime=60", "--eta=always", "--eta-interval=250ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("Jobs: 1") {
        let mut line = Vec::new();
        assert!(stdout.read_until(b'\r', &mut line).unwrap() > 0, "it ended early: {seen}");
        seen.push_str(&utf8(&line));
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128), "{rest}");
    assert!(rest.contains("\nfio: terminating on signal 2\n"), "{rest}");
    assert!(rest.contains("Run status group 0 (all jobs):"), "{rest}");
    assert!(!rest.contains("  randread-qd32"), "it never ran: {rest}");
    assert_eq!(place.names(""), [""; 0]);
}

#[test]
fn compare_judges_by_the_ratio() {
    let place = Place::new("compare");
    let job = ["--rounds=2", "--name=c", "--size=1m", "--runtime=50ms", "--time_based"];
    let compare = |args: &[&str]| {
        let output = place.run(&[&["compare", "--a=null", "--b=psync"], args, &job].concat());
        (output.status.code(), utf8(&output.stdout))
    };
    let (code, stdout) = compare(&["--min-ratio=1.0"]);
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("IOPS a/b: median") && stdout.contains("load average"), "{stdout}");
    let (code, stdout) = compare(&["--min-ratio=1000000"]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("FAILED: the IOPS ratio"), "{stdout}");
}

#[test]
fn doctor_describes_the_machine_and_its_targets_and_leaves_no_trace() {
    let place = Place::new("doctor");
    fs::write(place.0.join("file"), [7; 8192]).unwrap();
    let output = place.run(&["doctor", "file", "."]);
    let stdout = utf8(&output.stdout);
    assert!(output.stderr.is_empty(), "{}", utf8(&output.stderr));
    for expected in ["machine: ", "  io_uring ", "file: ", "a file of 8 KiB", "a directory"] {
        assert!(stdout.contains(expected), "{expected} in {stdout}");
    }
    let document = place.run(&["doctor", "--output-format=json", "file", "missing"]);
    // A target that is not there is wrong, and wrong is an exit code.
    assert_eq!(document.status.code(), Some(1));
    assert!(document.stderr.is_empty());
    let document: Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(number(&document["format"]), 1);
    assert_eq!(document["state"], "wrong");
    let names = |report: &Value| -> Vec<String> {
        let findings = report["findings"].as_array().unwrap();
        for finding in findings {
            let keys: Vec<_> = finding.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, ["what", "value", "state", "why", "do"]);
            let bad = ["degraded", "wrong"].contains(&finding["state"].as_str().unwrap());
            assert_eq!(bad, finding["do"] != "", "{finding}");
        }
        findings.iter().map(|finding| finding["what"].as_str().unwrap().to_owned()).collect()
    };
    let machine = [
        "kernel",
        "io_uring",
        "io_uring_disabled",
        "seccomp",
        "setup_flags",
        "opcodes",
        "memlock",
        "huge_pages",
        "transparent_huge_pages",
        "open_files",
        "cpus",
        "load",
        "clock",
    ];
    assert_eq!(names(&document["machine"]), machine, "consumers rely on these");
    let targets = document["targets"].as_array().unwrap();
    assert_eq!(targets[0]["target"], "file");
    let of_file = names(&targets[0]);
    for what in ["open", "meaningful", "file_system", "device", "nowait", "free_space"] {
        assert!(of_file.iter().any(|name| name == what), "{what} in {of_file:?}");
    }
    assert_eq!(names(&targets[1]), ["open"]);
    assert_eq!(place.names(""), ["file"]);
    let refused = place.run(&["doctor", "--output-format=xml"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(utf8(&refused.stderr).lines().count(), 1);
}
