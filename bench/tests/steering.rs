//! Options that steer a running job: limits, goals, steadiness, and how I/Os are started.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use place::{Place, ios, number, text};
use serde_json::Value;

/// A share in percent.
fn share(job: &Value, what: &str, bucket: &str) -> f64 {
    job[what][bucket].as_f64().unwrap()
}

fn float(value: &Value) -> f64 {
    assert!(value.is_f64(), "{value} is a float");
    value.as_f64().unwrap()
}

#[test]
fn latency_target_raises_the_depth_window_by_window_and_reports_the_last_one() {
    let place = Place::new("latency-target");
    let args = "--name=l --ioengine=null --size=1g --norandommap --rw=randread --time_based \
                --runtime=30 --iodepth=32 --latency_target=20s --latency_window=30ms \
                --latency_percentile=99";
    let begun = Instant::now();
    let job = place.job(args);
    let spent_ms = begun.elapsed().as_millis();
    // 1, 2, 4 … 32, and the window that is reported.
    assert!((200..20_000).contains(&spent_ms), "seven windows: {spent_ms} ms");
    assert_eq!(number(&job["latency_depth"]), 32);
    assert_eq!(number(&job["latency_target"]), 20_000_000_000);
    assert_eq!(number(&job["latency_window"]), 30_000);
    assert!((float(&job["latency_percentile"]) - 99.0).abs() < 1e-9);
    assert!(number(&job["read"]["runtime"]) < 150.max(u64::try_from(spent_ms).unwrap() / 2));
    // Nothing of the lower depths is left in it.
    for depth in ["1", "2", "4", "8"] {
        assert!(share(&job, "iodepth_level", depth) == 0.0, "{job}");
    }
    let human = text(&place.run(args));
    let line = "latency   : target=20.00s, window=30.00ms, percentile=99.00%, depth=32";
    assert!(human.contains(line), "{human}");
}

#[test]
fn latency_run_goes_on_and_a_target_out_of_reach_is_an_error() {
    let place = Place::new("latency-run");
    let args = "--name=l --filename=f --size=1m --bs=64k --iodepth=8 --ioengine=psync \
                --time_based --latency_window=10ms";
    let job = place.job(&format!("{args} --runtime=1 --latency_target=20s --latency_run=1"));
    assert!(number(&job["read"]["runtime"]) >= 990, "{job}");
    let output = place.run(&format!("{args} --runtime=20 --latency_target=1us"));
    let told = text(&output);
    assert!(output.status.code() == Some(1), "{told}");
    assert!(told.contains("latency_target") && told.contains("even one at a time"), "{told}");
    assert!(told.contains("err=110 (max latency exceeded)"), "{told}");
    // It goes on all the same where that is wanted.
    place.json(&format!("{args} --runtime=300ms --latency_target=1us --latency_run=1"));
}

#[test]
fn latency_window_is_needed_and_verify_is_refused() {
    let place = Place::new("latency-window");
    let told = place.refused("--name=l --size=64k --latency_target=5ms");
    assert!(told.contains("latency_target needs a latency_window"), "{told}");
    let args = "--name=l --size=64k --rw=write --verify=crc32c --latency_target=5ms";
    let told = place.refused(&format!("{args} --latency_window=10ms"));
    assert!(told.contains("does not go with verify"), "{told}");
    let told = place.refused("--name=l --size=64k --latency_percentile=101");
    assert!(told.contains("at most 100"), "{told}");
}

#[test]
fn max_latency_ends_the_job_and_names_the_io() {
    let place = Place::new("max-latency");
    let args = "--name=m --filename=f --size=1m --bs=64k";
    let output = place.run(&format!("{args} --max_latency=1us"));
    let told = text(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("err=110 (max latency exceeded)"), "{told}");
    let line = told.lines().find(|line| line.starts_with("fio: latency of ")).unwrap();
    assert!(line.contains("nsec exceeds specified max (1000 nsec): f read offset=0, buflen=65536"));
    assert!(told.contains("issued rwts: total=1,0,0,0"), "it counts, and is the last: {told}");
    // Writes have a limit of their own.
    place.json(&format!("{args} --max_latency=0,1us --rw=read"));
    let output = place.run(&format!("{args} --max_latency=0,1us --rw=write --output-format=json"));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(number(&document["jobs"][0]["error"]), 110);
}

const STEADY: &str = "--name=s --ioengine=null --size=1g --time_based --bs=4k --rate_iops=2000";

#[test]
fn steadystate_ends_the_group_after_ss_ramp_and_ss_dur_in_steps_of_ss_interval() {
    let place = Place::new("steady");
    let args = format!(
        "{STEADY} --numjobs=2 --group_reporting --runtime=25 --ss=iops:40% --ss_ramp=300ms \
         --ss_dur=600ms --ss_interval=200ms"
    );
    let job = place.job(&args);
    let runtime = number(&job["read"]["runtime"]);
    assert!((890..20_000).contains(&runtime), "{runtime}");
    let steady = &job["steadystate"];
    assert_eq!(steady["ss"], "iops:40.000000%");
    assert_eq!((number(&steady["attained"]), number(&steady["duration"])), (1, 0));
    let criterion = steady["criterion"].as_str().unwrap().strip_suffix('%').unwrap();
    assert!(criterion.parse::<f64>().unwrap() < 40.0, "{steady}");
    assert!(float(&steady["max_deviation"]) >= 0.0 && float(&steady["slope"]) == 0.0);
    let data = &steady["data"];
    assert_eq!(data["iops"].as_array().unwrap().len(), 3);
    assert_eq!(data["bw"].as_array().unwrap().len(), 3);
    let mean = number(&data["iops_mean"]);
    assert!((1500..8000).contains(&mean), "both jobs together: {mean}");
    // The two counts are not published at the same moment.
    let bandwidth = number(&data["bw_mean"]);
    assert!(bandwidth.abs_diff(mean * 4096) < mean * 410 && data["lat_ns"].is_null());
    let human = text(&place.run(&args));
    let line = human.lines().find(|line| line.starts_with("  steadystate  : ")).unwrap();
    assert!(line.starts_with("  steadystate  : attained=yes, bw="), "{line}");
    assert!(line.contains(", iops mean dev=") && line.ends_with('%'), "{line}");
}

#[test]
fn steadystate_that_is_not_reached_says_so_and_is_no_error() {
    let place = Place::new("unsteady");
    let args =
        format!("{STEADY} --runtime=1 --ss=bw_slope:0.001 --ss_dur=400ms --ss_interval=100ms");
    let job = place.job(&args);
    assert!(number(&job["read"]["runtime"]) >= 990, "{job}");
    let steady = &job["steadystate"];
    assert_eq!((&steady["ss"], number(&steady["attained"])), (&"bw_slope:0.001000".into(), 0));
    assert!(float(&steady["slope"]) != 0.0 && float(&steady["max_deviation"]) == 0.0);
    let job = place.job("--name=s --ioengine=null --size=4k --ss=iops:1% --ss_dur=2");
    assert_eq!(number(&job["steadystate"]["attained"]), 0);
    assert_eq!(number(&job["steadystate"]["data"]["iops_mean"]), 0);
    assert!(place.job("--name=s --ioengine=null --size=4k")["steadystate"].is_null());
}

#[test]
fn steadystate_of_latency_shows_latencies() {
    let place = Place::new("steady-lat");
    let args = format!("{STEADY} --runtime=20 --ss=lat:2000% --ss_dur=300ms --ss_interval=100ms");
    let job = place.job(&format!("{args} --gtod_reduce=1"));
    let data = &job["steadystate"]["data"];
    assert_eq!(number(&job["steadystate"]["attained"]), 1, "{job}");
    assert!(float(&data["lat_mean"]) > 0.0);
    assert!(data["lat_ns"].as_array().unwrap().iter().any(|point| number(point) > 0), "{data}");
    assert!(number(&job["read"]["runtime"]) < 15_000);
}

#[test]
fn steadystate_is_refused_where_it_cannot_be_judged() {
    let place = Place::new("steady-refused");
    for (args, why) in [
        ("--ss=iops --ss_dur=2", "a limit is missing"),
        ("--ss=foo:1% --ss_dur=2", "valid values are iops"),
        ("--ss=iops:1%", "give ss_dur"),
        ("--ss=iops:1% --ss_dur=2500ms", "multiple of ss_interval"),
        ("--ss=iops:1% --ss_dur=1", "at least twice"),
        ("--ss=iops:0% --ss_dur=2", "limit of 0"),
    ] {
        let told = place.refused(&format!("--name=s --ioengine=null --size=4k {args}"));
        assert!(told.contains(why), "{args}: {told}");
    }
}

#[test]
fn serialize_overlap_never_has_one_block_in_flight_twice() {
    let place = Place::new("overlap");
    // Four blocks: with an iodepth of 16, all but four I/Os overlap one that is in flight.
    let args = "--name=o --ioengine=null --size=16k --bs=4k --rw=randrw --norandommap \
                --iodepth=16 --io_size=8m";
    let deep = |job: &Value| {
        ["8", "16"].into_iter().map(|depth| share(job, "iodepth_level", depth)).sum::<f64>()
    };
    assert!(deep(&place.job(args)) > 90.0);
    let job = place.job(&format!("{args} --serialize_overlap=1"));
    assert!(deep(&job) == 0.0 && ios(&job, "read") + ios(&job, "write") == 2048, "{job}");
    assert!(share(&job, "iodepth_level", "2") > 0.0, "others still are: {job}");
    // Larger blocks at odd places overlap as well, and data is verified as before.
    place.json(
        "--name=v --filename=f --size=64k --bsrange=4k-16k --ba=4k --rw=randwrite --iodepth=8 \
         --ioengine=io_uring --serialize_overlap=1 --io_size=512k --verify=crc32c",
    );
    // A trim overlaps what its own slot did before, which is over and not to be waited for.
    place.json(
        "--name=t --filename=t --size=8k --bs=4k --rw=randtrimwrite --norandommap --iodepth=4 \
         --ioengine=io_uring --serialize_overlap=1 --io_size=256k --verify=crc32c",
    );
    let told = place.refused(&format!("{args} --serialize_overlap=1 --io_submit_mode=offload"));
    assert!(told.contains("io_submit_mode=inline"), "{told}");
}

#[test]
fn iodepth_low_lets_the_queue_drain_before_it_is_filled_again() {
    let place = Place::new("low");
    let args = "--name=d --ioengine=null --size=4m --bs=4k --iodepth=16";
    let full = place.job(args);
    assert!(share(&full, "iodepth_level", "16") > 95.0, "{full}");
    let job = place.job(&format!("{args} --iodepth_low=4"));
    // Submitted at 5, 6 … 16 in flight: 3 of 12 below 8, 8 from there, 1 at 16.
    let level = |depth: &str| share(&job, "iodepth_level", depth);
    assert!((level("4") - 25.0).abs() < 1.0, "{job}");
    assert!((level("8") - 66.7).abs() < 1.5, "{job}");
    assert!((level("16") - 8.3).abs() < 1.0, "{job}");
}

#[test]
fn iodepth_batch_complete_min_is_reaped_at_least() {
    let place = Place::new("complete-min");
    let args = "--name=d --ioengine=io_uring --filename=f --size=4m --bs=4k --rw=randread \
                --iodepth=16";
    let job = place.job(&format!("{args} --iodepth_batch_complete_min=8"));
    assert!(share(&job, "iodepth_complete", "8") > 95.0, "{job}");
    let job = place.job(&format!("{args} --iodepth_batch_complete_min=12"));
    assert!(share(&job, "iodepth_complete", "16") > 90.0, "{job}");
    let job = place.job(args);
    assert!(share(&job, "iodepth_complete", "4") > 99.0, "one at a time: {job}");
    // 0 polls after each submission, so the queue never fills where all is done at once.
    let job = place.job(&format!("{args} --iodepth_batch_complete_min=0"));
    assert_eq!(ios(&job, "read"), 1024);
    let args = args.replace("io_uring", "null");
    assert!(share(&place.job(&args), "iodepth_level", "16") > 95.0);
    let job = place.job(&format!("{args} --iodepth_batch_complete_min=0"));
    assert!(share(&job, "iodepth_level", "1") > 99.0, "{job}");
}

#[test]
fn iodepth_batch_complete_max_is_reaped_at_most() {
    let place = Place::new("complete-max");
    // The null engine has everything ready, so what is reaped is what may be.
    let args = "--name=d --ioengine=null --size=4m --bs=4k --iodepth=32 \
                --iodepth_batch_complete_min=1";
    for (max, bucket) in [(1, "4"), (8, "8"), (16, "16"), (32, "32")] {
        let job = place.job(&format!("{args} --iodepth_batch_complete_max={max}"));
        assert!(share(&job, "iodepth_complete", bucket) > 95.0, "{max}: {job}");
    }
    // A batch of 16 is submitted as one where as much is reaped as one.
    let job = place.job(&format!("{args} --iodepth_batch_complete_max=16 --iodepth_batch=16"));
    assert!(share(&job, "iodepth_submit", "16") > 95.0, "{job}");
}

#[test]
fn thinktime_blocks_type_counts_what_is_complete_or_what_is_issued() {
    let place = Place::new("blocks-type");
    let args = "--name=t --ioengine=null --size=256k --bs=4k --iodepth=16 --thinktime=10ms \
                --thinktime_blocks=4";
    let job = place.job(&format!("{args} --thinktime_blocks_type=issue"));
    let issue_ms = number(&job["read"]["runtime"]);
    // A pause after every fourth, during which those complete.
    assert!(issue_ms >= 160, "{issue_ms}");
    assert!(share(&job, "iodepth_level", "8") + share(&job, "iodepth_level", "16") == 0.0, "{job}");
    // Four have to complete first, for which the queue fills.
    let job = place.job(&format!("{args} --thinktime_blocks_type=complete"));
    assert!(share(&job, "iodepth_level", "16") > 0.0, "{job}");
    let complete_ms = number(&job["read"]["runtime"]);
    assert!(complete_ms >= 30, "{complete_ms}");
    assert!(place.refused(&format!("{args} --thinktime_blocks_type=never")).contains("complete"));
}

#[test]
fn thinktime_iotime_and_thinktime_blocks_pause_after_whichever_comes_first() {
    let place = Place::new("whichever");
    let args = "--name=t --ioengine=null --size=16k --bs=4k --thinktime=50ms --thinktime_iotime=60";
    let job = place.job(args);
    assert!(number(&job["read"]["runtime"]) < 150, "no minute has passed: {job}");
    let job = place.job(&format!("{args} --thinktime_blocks=1"));
    assert!(number(&job["read"]["runtime"]) >= 150, "{job}");
}

#[test]
fn thinkcycles_spin_after_each_io() {
    let place = Place::new("cycles");
    let args = "--name=t --ioengine=null --size=64k --bs=4k";
    let runtime = |args: &str| number(&place.job(args)["read"]["runtime"]);
    // 16 times 200 million cycles: more than a second of spinning at 3 GHz.
    let spun = runtime(&format!("{args} --thinkcycles=200m"));
    assert!(spun >= 300, "{spun}");
    assert!(runtime(args) < 300);
}

/// The first I/O tells whether the device has queues for polling; most have none.
#[test]
fn hipri_goes_by_interrupt_and_says_so_where_nothing_can_be_polled() {
    let place = Place::new("hipri");
    let args = "--name=h --ioengine=io_uring --filename=f --size=1m --bs=4k --hipri";
    let document = place.json(&format!("{args} --direct=1 --iodepth=4"));
    assert_eq!(ios(&document["jobs"][0], "read"), 256);
    let degraded = document["mfio"]["jobs"][0]["degraded"].to_string();
    let polls = std::fs::read_dir("/sys/block").unwrap().any(|entry| {
        let file = entry.unwrap().path().join("queue/io_poll");
        std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
    });
    if polls {
        writeln!(std::io::stderr(), "SKIP: a disk of this machine can be polled").unwrap();
    } else {
        assert_eq!(degraded.matches("nvme.poll_queues=N").count(), 1, "{degraded}");
    }
    let told = place.refused(args);
    assert!(told.contains("hipri needs direct=1"), "{told}");
    let told = place.refused(&args.replace("io_uring", "psync"));
    assert!(told.contains("no `hipri`"), "{told}");
}

/// Runs `args` and stops the process for a while in the midst of it.
fn stopped(place: &Place, args: &str, stop: Duration) -> Value {
    let child = Command::new(env!("CARGO_BIN_EXE_mfio-bench"))
        .current_dir(&place.0)
        .args(args.split_whitespace())
        .arg("--output-format=json")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    std::thread::sleep(Duration::from_millis(700));
    kill(pid, Signal::SIGSTOP).unwrap();
    std::thread::sleep(stop);
    kill(pid, Signal::SIGCONT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

const STALLED: &str = "--name=i --ioengine=null --size=1g --time_based --runtime=2 --bs=4k \
                       --rate_iops=1000 --percentile_list=50:80:99";

/// A sixth of the I/Os are due while the process is stopped. Measured from when they were made
/// none of them was late; measured from when they were due all of them were.
#[test]
fn intended_latency_shows_a_stall_in_every_io_that_it_delayed() {
    let place = Place::new("intended");
    let document = stopped(&place, STALLED, Duration::from_millis(300));
    let (job, own) = (&document["jobs"][0], &document["mfio"]["jobs"][0]);
    let intended = &own["intended_lat_ns"]["read"];
    assert_eq!(number(&intended["N"]), ios(job, "read"));
    assert!(own["intended_lat_ns"]["write"].is_null());
    let percentile = |of: &Value, key: &str| number(&of["percentile"][key]);
    assert!(number(&intended["max"]) >= 290_000_000, "{intended}");
    assert!(percentile(intended, "99.000000") >= 200_000_000, "{intended}");
    // fio's own keys keep fio's meaning, and do not show it.
    let clat = &job["read"]["clat_ns"];
    assert!(percentile(clat, "99.000000") < 100_000_000, "{clat}");
    let mean = |of: &Value| of["mean"].as_f64().unwrap();
    assert!(mean(intended) > 5.0 * mean(clat) && mean(intended) >= 15_000_000.0, "{intended}");
    let plain = place.json("--name=p --ioengine=null --size=4k");
    assert!(plain["mfio"]["jobs"][0]["intended_lat_ns"].is_null());
}

#[test]
fn io_submit_mode_offload_times_ios_from_their_schedule() {
    let place = Place::new("offload-rate");
    let args = format!("{STALLED} --io_submit_mode=offload --iodepth=4 --lat_percentiles=1");
    let document = stopped(&place, &args, Duration::from_millis(300));
    let lat = &document["jobs"][0]["read"]["lat_ns"];
    assert!(number(&lat["max"]) >= 290_000_000, "{lat}");
    assert!(number(&lat["percentile"]["99.000000"]) >= 200_000_000, "{lat}");
}

#[test]
fn io_submit_mode_offload_gives_a_blocking_engine_its_depth() {
    let place = Place::new("offload-depth");
    let args = "--name=p --ioengine=psync --filename=f --size=1m --bs=4k --rw=randrw --iodepth=8";
    let job = place.job(&format!("{args} --io_submit_mode=inline"));
    assert!(share(&job, "iodepth_level", "8") == 0.0, "{job}");
    let document = place.json(&format!("{args} --io_submit_mode=offload"));
    let job = &document["jobs"][0];
    assert!(share(job, "iodepth_level", "8") > 90.0, "{job}");
    assert_eq!(ios(job, "read") + ios(job, "write"), 256);
    assert!(!document["mfio"]["warnings"].to_string().contains("no effect"), "{document}");
    assert!(place.refused(&format!("{args} --io_submit_mode=later")).contains("inline"));
}
