//! Traces: `write_iolog` and `read_iolog`, with fio on the other side where it is installed.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use place::{Place, bytes, ios, number, text};
use serde_json::Value;

impl Place {
    fn write(&self, name: &str, content: &str) {
        fs::write(self.0.join(name), content).unwrap();
    }

    /// The lines of a trace that are I/O, without their times.
    fn trace(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.0.join(name)).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("fio version 3 iolog"));
        let lines = lines.map(|line| line.split_once(' ').unwrap().1.to_owned());
        let about_files = [" add", " open", " close"];
        lines.filter(|line| !about_files.iter().any(|end| line.ends_with(end))).collect()
    }
}

/// Four I/Os on two files, 100 ms from first to last.
const TWO: &str = "fio version 3 iolog\n0 a add\n0 b add\n0 a open\n0 b open\n\
                   10 a write 8192 4096\n50000 b write 0 12288\n50000 a sync 0 0\n\
                   100000 a read 8192 4096\n100000 a close\n100000 b close\n";

fn length(place: &Place, name: &str) -> Option<u64> {
    Some(fs::metadata(place.0.join(name)).ok()?.len())
}

#[test]
fn write_iolog_has_a_line_per_io_in_order() {
    let place = Place::new("iolog-write");
    let args = "--name=w --filename=f:g --size=64k --rw=randrw --bs=4k --fsync=3 --verify=0";
    for engine in ["psync", "io_uring --iodepth=4", "null --iodepth=4"] {
        let job = place.job(&format!("{args} --ioengine={engine} --write_iolog=t"));
        let lines = place.trace("t");
        let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count() as u64;
        assert_eq!(count(" read "), ios(&job, "read"), "{engine}");
        assert_eq!(count(" write "), ios(&job, "write"), "{engine}");
        assert_eq!(count(" sync "), number(&job["sync"]["total_ios"]), "{engine}");
        assert!(count("f ") > 0 && count("g ") > 0);
        let whole = fs::read_to_string(place.0.join("t")).unwrap();
        let stamps = whole.lines().skip(1).map(|line| line.split(' ').next().unwrap());
        assert!(stamps.map(|stamp| stamp.parse::<u64>().unwrap()).is_sorted());
        for action in ["add", "open", "close"] {
            assert_eq!(whole.matches(&format!(" f {action}\n")).count(), 1);
        }
    }
}

#[test]
fn write_iolog_has_trims_and_the_reads_of_verify() {
    let place = Place::new("iolog-trim");
    place.job("--name=w --filename=f --size=16k --rw=trimwrite --write_iolog=t");
    let lines = place.trace("t");
    assert_eq!(lines[..2], ["f trim 0 4096", "f write 0 4096"]);
    place.job("--name=w --filename=f --size=8k --rw=write --verify=crc32c --write_iolog=t");
    let lines = place.trace("t");
    let expected = ["f write 0 4096", "f write 4096 4096", "f read 0 4096", "f read 4096 4096"];
    assert_eq!(lines, expected, "the trace of the run before is gone");
}

#[test]
fn write_iolog_that_cannot_be_written_is_refused_before_the_run() {
    let place = Place::new("iolog-refused");
    let args = "--name=w --filename=f --size=16k --rw=write";
    let told = place.refused(&format!("{args} --write_iolog=no/t"));
    assert!(told.contains("cannot write the trace no/t: No such file"), "{told}");
    let told = place.refused(&format!("{args} --write_iolog=t --numjobs=2"));
    assert!(told.contains("write_iolog=t is given to several"), "{told}");
    let told = place.refused(&format!("{args} --write_iolog=t --sync_file_range=write:1"));
    assert!(told.contains("a trace has no line for sync_file_range"), "{told}");
    place.write("j.fio", "[w]\nfilename=a b\nsize=4k\nwrite_iolog=t\n");
    let told = place.refused("j.fio");
    assert!(told.contains("a trace cannot name a b"), "{told}");
    place.write("t", TWO);
    for (args, file) in [("--name=x --read_iolog=t", "t"), (args, "f")] {
        let told = place.refused(&format!("{args} --write_iolog=./{file}"));
        assert!(told.contains(&format!("would overwrite {file}, which a job uses")), "{told}");
    }
    assert_eq!(fs::read_to_string(place.0.join("t")).unwrap(), TWO);
}

#[test]
fn write_iolog_that_runs_out_of_space_says_so() {
    let place = Place::new("iolog-full");
    let output = place.run("--name=w --filename=f --size=16k --rw=write --write_iolog=/dev/full");
    let told = text(&output);
    assert!(told.contains("trace /dev/full is incomplete: No space left"), "{told}");
}

#[test]
fn read_iolog_does_what_the_trace_says_when_it_says_so() {
    let place = Place::new("iolog-read");
    place.write("t", TWO);
    for engine in ["psync", "io_uring --iodepth=4"] {
        for chunked in 0..2 {
            drop(fs::remove_file(place.0.join("a")));
            let began = Instant::now();
            let job = place.job(&format!(
                "--name=r --read_iolog=t --ioengine={engine} --write_iolog=again \
                 --read_iolog_chunked={chunked}"
            ));
            assert!(began.elapsed() >= Duration::from_millis(100));
            assert_eq!((ios(&job, "read"), ios(&job, "write")), (1, 2), "{engine}");
            assert_eq!((bytes(&job, "read"), bytes(&job, "write")), (4096, 16384));
            assert_eq!(job["sync"]["total_ios"], 1);
            let runtime = number(&job["read"]["runtime"]);
            assert!((100..1000).contains(&runtime), "{runtime}");
            assert_eq!((length(&place, "a"), length(&place, "b")), (Some(12288), Some(12288)));
            let done = ["a write 8192 4096", "b write 0 12288", "a sync 0 0", "a read 8192 4096"];
            assert_eq!(place.trace("again"), done);
        }
    }
}

#[test]
fn read_iolog_of_version_2_waits() {
    let place = Place::new("iolog-v2");
    place.write(
        "t",
        "fio version 2 iolog\na add\na open\na write 0 4096\na wait 60000 0\na wait 60000 0\n\
         a trim 0 4096\na datasync 0 0\na close\n",
    );
    let job = place.job("--name=r --read_iolog=t");
    assert!((120..1000).contains(&number(&job["write"]["runtime"])), "{}", job["write"]["runtime"]);
    assert_eq!((ios(&job, "write"), ios(&job, "trim")), (1, 1));
    assert_eq!(job["sync"]["total_ios"], 1);
}

#[test]
fn read_iolog_gives_clones_the_traces_in_turn() {
    let place = Place::new("iolog-clones");
    for name in ["x", "y"] {
        let trace = format!("fio version 2 iolog\n{name} add\n{name} open\n{name} write 0 4096\n");
        place.write(&format!("t{name}"), &trace);
    }
    let document = place.json("--name=r --read_iolog=tx:ty --numjobs=3");
    assert_eq!(document["jobs"].as_array().unwrap().len(), 3);
    assert!(document["jobs"].as_array().unwrap().iter().all(|job| ios(job, "write") == 1));
    assert_eq!((length(&place, "x"), length(&place, "y")), (Some(4096), Some(4096)));
}

#[test]
fn read_iolog_from_standard_input() {
    let place = Place::new("iolog-stdin");
    let run = |more: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mfio-bench"));
        command.current_dir(&place.0).args(["--name=r", "--read_iolog=-", "--output-format=json"]);
        command.args(more.split_whitespace());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may have refused already.
        drop(child.stdin.take().unwrap().write_all(TWO.as_bytes()));
        child.wait_with_output().unwrap()
    };
    let output = run("");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(ios(&document["jobs"][0], "write"), 2);
    let told = text(&run("--read_iolog_chunked=1"));
    assert!(told.contains("reads a trace twice, which standard input does not allow"), "{told}");
}

#[test]
fn read_iolog_is_repeated_by_loops_and_time_based_and_cut_by_number_ios() {
    let place = Place::new("iolog-loops");
    place.write("t", TWO);
    let count = |more: &str| {
        let job = place.job(&format!("--name=r --read_iolog=t --replay_no_stall=1 {more}"));
        ios(&job, "read") + ios(&job, "write")
    };
    assert_eq!(count("--loops=3"), 9);
    assert_eq!(count("--loops=3 --read_iolog_chunked=1"), 9);
    assert_eq!(count("--number_ios=2"), 2);
    assert!(count("--time_based --runtime=300ms") > 9);
}

#[test]
fn read_iolog_ends_at_the_runtime() {
    let place = Place::new("iolog-runtime");
    place.write("t", &TWO.replace("100000 a read", "60000000 a read"));
    let job = place.job("--name=r --read_iolog=t --runtime=300ms");
    assert_eq!((ios(&job, "write"), ios(&job, "read")), (2, 0));
}

#[test]
fn replay_no_stall_and_replay_time_scale_change_the_time() {
    let place = Place::new("iolog-time");
    place.write("t", &TWO.replace("100000 a read", "400000 a read"));
    let runtime = |more: &str| {
        let job = place.job(&format!("--name=r --read_iolog=t {more}"));
        assert_eq!(ios(&job, "read") + ios(&job, "write"), 3);
        number(&job["read"]["runtime"])
    };
    let (plain, fast) = (runtime(""), runtime("--replay_time_scale=400"));
    let (slow, none) = (runtime("--replay_time_scale=50"), runtime("--replay_no_stall=1"));
    assert!((400..790).contains(&plain), "{plain}");
    assert!((100..390).contains(&fast), "{fast}");
    assert!((800..1500).contains(&slow), "{slow}");
    assert!(none < 100, "{none}");
}

#[test]
fn replay_redirect_replay_scale_replay_align_and_replay_skip_change_what_is_done() {
    let place = Place::new("iolog-map");
    place.write("t", TWO);
    let done = |more: &str| {
        place.job(&format!(
            "--name=r --read_iolog=t --replay_no_stall=1 --write_iolog=again {more}"
        ));
        place.trace("again")
    };
    let redirected = ["c write 8192 4096", "c write 0 12288", "c sync 0 0", "c read 8192 4096"];
    assert_eq!(done("--replay_redirect=c"), redirected);
    assert_eq!((length(&place, "a"), length(&place, "c")), (None, Some(12288)));
    let scaled = ["a write 4096 4096", "b write 0 12288", "a sync 0 0", "a read 4096 4096"];
    assert_eq!(done("--replay_scale=2"), scaled);
    let aligned = ["a write 0 4096", "b write 0 12288", "a sync 0 0", "a read 0 4096"];
    assert_eq!(done("--replay_align=16k"), aligned);
    assert_eq!(done("--replay_skip=write,sync"), ["a read 8192 4096"]);
    assert_eq!(done("--replay_skip=read"), redirected_to_ab()[..3]);
    let told = place.refused("--name=r --read_iolog=t --replay_skip=read,write,sync");
    assert!(told.contains("t: the trace holds no I/O that is not skipped"), "{told}");
}

fn redirected_to_ab() -> [&'static str; 4] {
    ["a write 8192 4096", "b write 0 12288", "a sync 0 0", "a read 8192 4096"]
}

#[test]
fn read_iolog_that_is_wrong_is_refused_before_any_io() {
    let place = Place::new("iolog-bad");
    place.write("t", &TWO.replace("a read 8192 4096", "a read 8192"));
    place.write("blk", "\u{7}tae\u{1}\0\0\0");
    place.write("range", &TWO.replace("a sync 0 0", "a sync_file_range 0 0"));
    place.write("odd", &TWO.replace("b write 0 12288", "b write 0 12287"));
    for chunked in 0..2 {
        let refused = |more: &str| {
            let chunked = format!("--read_iolog_chunked={chunked}");
            let told = place.refused(&format!("--name=r {chunked} {more}"));
            assert_eq!((length(&place, "a"), length(&place, "b")), (None, None), "{told}");
            told
        };
        for (args, expected) in [
            ("--read_iolog=t", "t:9:19: a length is missing here"),
            ("--read_iolog=nowhere", "cannot read the trace nowhere: No such file"),
            ("--read_iolog=blk", "binary trace of blktrace, which is not read; print it with blk"),
            ("--read_iolog=range", "range:8: sync_file_range is not replayed; replay_skip=sync"),
            ("--read_iolog=odd --direct=1", "aligned to 1 bytes only; direct=1 needs 512"),
            ("--read_iolog=odd --filename=a", "the trace is about b, which filename does not"),
            ("--read_iolog=odd --readonly", "not allowed with the --readonly parameter"),
        ] {
            let told = refused(args);
            assert!(told.contains(expected), "{args}: {told}");
        }
    }
    // What is read only may be replayed without the writes.
    place.write("a", &"x".repeat(12288));
    place.job("--name=r --read_iolog=odd --readonly --replay_skip=write");
    assert_eq!(length(&place, "b"), None);
}

#[test]
fn read_iolog_chunked_notices_a_trace_that_changed() {
    let place = Place::new("iolog-changed");
    place.write("t", &TWO.replace("50000 b", "600000 b").replace("50000 a sync", "600000 a sync"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mfio-bench"));
    command.current_dir(&place.0).args(["--name=r", "--read_iolog=t", "--loops=2"]);
    command.args(["--read_iolog_chunked=1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    place.write("t", "fio version 3 iolog\n0 a add\n0 a open\nnonsense\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("nonsense"), "{}", text(&output));
}

/// The trace that fio 3.33 wrote is kept, so that this holds without fio.
#[test]
fn read_iolog_replays_a_trace_that_fio_wrote() {
    let place = Place::new("iolog-captured");
    place.write("t", include_str!("../../fio-compat/tests/fixtures/fio-3.33.iolog"));
    let job = place.job("--name=r --read_iolog=t --write_iolog=again --ioengine=psync");
    assert_eq!((ios(&job, "read"), ios(&job, "write")), (8, 8));
    // Syncs of fio bear the offset of the write before them.
    let without = |lines: Vec<String>| -> Vec<String> {
        lines.into_iter().filter(|line| !line.contains(" sync ")).collect()
    };
    assert_eq!(without(place.trace("again")), without(place.trace("t")));
}

#[test]
fn write_iolog_and_read_iolog_go_with_fio_both_ways() {
    let present = Command::new("fio").arg("--version").output();
    if !present.is_ok_and(|output| output.status.success()) {
        let line = "skipped: fio is not installed (apt-get install fio); its kept trace is tested";
        writeln!(std::io::stderr().lock(), "{line}").unwrap();
        return;
    }
    let place = Place::new("iolog-fio");
    let fio = |args: &str| -> Value {
        let mut command = Command::new("fio");
        let args = args.split_whitespace();
        command.current_dir(&place.0).args(args).args(["--output-format=json", "--output=o"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let document = fs::read_to_string(place.0.join("o")).unwrap();
        serde_json::from_str::<Value>(&document).unwrap()["jobs"][0].clone()
    };
    let args = "--name=w --filename=f:g --size=64k --rw=randrw --bs=4k --fdatasync=3";
    let ours = place.job(&format!("{args} --write_iolog=t"));
    let theirs = fio("--name=r --read_iolog=t");
    for direction in ["read", "write"] {
        assert_eq!(ios(&ours, direction), ios(&theirs, direction));
        assert_eq!(bytes(&ours, direction), bytes(&theirs, direction));
    }
    let theirs = fio(&format!("{args} --write_iolog=u"));
    let ours = place.job("--name=r --read_iolog=u --ioengine=io_uring --iodepth=4");
    for direction in ["read", "write"] {
        assert_eq!(ios(&ours, direction), ios(&theirs, direction));
        assert_eq!(bytes(&ours, direction), bytes(&theirs, direction));
    }
}
