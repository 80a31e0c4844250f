//! Options about rates and pauses, against the clock.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use place::{Place, ios, number};
use serde_json::Value;

/// I/Os per second of a direction.
fn rate_of(args: &str, direction: &str) -> f64 {
    let place = Place::new("rate");
    let common = "--name=r --ioengine=null --size=1g --time_based --runtime=1 --bs=4k";
    place.job(&format!("{common} {args}"))[direction]["iops"].as_f64().unwrap()
}

#[test]
fn rate_rate_iops_and_rate_process_hold_what_they_say() {
    for args in ["--rate_iops=1000", "--rate=4000k", "--rate_iops=1000 --iodepth=16"] {
        let found = rate_of(args, "read");
        // A machine under load does less; more is too much on any.
        assert!((500.0..=1020.0).contains(&found), "{args}: {found}");
    }
    let found = rate_of("--rate_iops=2000 --rate_process=poisson", "read");
    assert!((1000.0..=2150.0).contains(&found), "{found}");
    // Each direction has its own.
    let args = "--rw=randrw --rate_iops=500,1500 --rwmixread=25";
    assert!((250.0..=520.0).contains(&rate_of(args, "read")));
    assert!((750.0..=1550.0).contains(&rate_of(args, "write")));
}

#[test]
fn rate_min_and_rate_iops_min_and_rate_cycle_end_a_job_that_is_too_slow() {
    let place = Place::new("rate-min");
    let args = "--name=r --ioengine=null --size=1g --time_based --runtime=5 --rate_cycle=200 \
                --thinktime=10000";
    for least in ["--rate_iops_min=5000", "--rate_min=10m"] {
        let told = place.refused(&format!("{args} {least}"));
        assert!(told.contains("rate_min"), "{told}");
    }
    // One I/O in half a second is done on any machine.
    place.job(&format!("{args} --runtime=1100ms --rate_cycle=500 --rate_iops_min=2"));
    let told = place.refused("--name=r --size=4k --rate=1m --rate_iops=5");
    assert!(told.contains("exclude each other"), "{told}");
}

#[test]
fn thinktime_pauses_after_thinktime_blocks_and_thinktime_spin_burns_cpu() {
    let place = Place::new("think");
    let common = "--name=t --ioengine=null --size=64k --thinktime=20000";
    let runtime = |args: &str| number(&place.job(&format!("{common} {args}"))["read"]["runtime"]);
    let time = runtime("--thinktime_blocks=4");
    // Sixteen pauses would take 320.
    assert!((80..320).contains(&time), "four pauses and not sixteen: {time}");
    let time = runtime("--thinktime_blocks=4 --thinktime_blocks_type=issue --iodepth=4");
    assert!((80..320).contains(&time), "{time}");
    let idle = place.job(&format!("{common} --thinktime_blocks=4"));
    let spun = place.job(&format!("{common} --thinktime_blocks=4 --thinktime_spin=20ms"));
    let cpu = |job: &serde_json::Value| job["usr_cpu"].as_f64().unwrap();
    assert!(cpu(&spun) > cpu(&idle) * 4.0 + 1.0, "{} {}", cpu(&spun), cpu(&idle));
}

#[test]
fn thinktime_is_not_cut_short_by_status_interval() {
    let place = Place::new("think-status");
    let args = "--name=t --ioengine=null --size=16k --bs=4k --thinktime=400ms \
                --status-interval=150ms --output-format=json";
    let output = place.run(args);
    let documents = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    let documents: Vec<serde_json::Value> = documents.map(Result::unwrap).collect();
    assert!(documents.len() > 3, "{}", place::text(&output));
    let last = &documents.last().unwrap()["jobs"][0]["read"];
    assert!(number(&last["runtime"]) >= 1200 && number(&last["total_ios"]) == 4, "{last}");
}

#[test]
fn flow_flow_id_and_flow_sleep_share_the_ios_in_their_ratio() {
    let place = Place::new("flow");
    let jobs = "[global]\nioengine=null\nsize=1g\ntime_based\nruntime=1\nflow_id=7\n\
                rate_iops=4000\n[a]\nflow=8\n\
                [b]\nflow=1\nflow_sleep=100\nruntime=800ms\n\
                [c]\nflow_id=9\nflow=1\nrate_iops=100\n";
    std::fs::write(place.0.join("f.fio"), jobs).unwrap();
    let document = place.json("f.fio");
    let done = |at: usize| ios(&document["jobs"][at], "read");
    let (a, b) = (done(0), done(1));
    // The one that is held back ends first: alone, it would catch up with its rate. The other
    // does the rest of its own.
    let together = a * 4 / 5;
    assert!(b > 20 && together.abs_diff(8 * b) <= 8 + a / 10, "{a} {b}");
    assert!((95..=105).contains(&done(2)), "alone in its flow: {}", done(2));
}

#[test]
fn thinktime_iotime_and_rate_ignore_thinktime_change_what_is_done() {
    let place = Place::new("iotime");
    let args = "--name=t --ioengine=null --size=1g --time_based --runtime=1 --thinktime=100ms \
                --rate_iops=1000";
    let full = place.job(&format!("{args} --thinktime_iotime=100ms"));
    let less = place.job(&format!("{args} --thinktime_iotime=100ms --rate_ignore_thinktime=1"));
    // Pauses are caught up with, except where that is not wanted.
    assert!((750..1100).contains(&ios(&full, "read")), "{}", ios(&full, "read"));
    assert!((250..650).contains(&ios(&less, "read")), "{}", ios(&less, "read"));
}

/// The latencies since I/Os of a direction were due.
fn intended(document: &Value, direction: &str) -> u64 {
    number(&document["mfio"]["jobs"][0]["intended_lat_ns"][direction]["N"])
}

#[test]
fn rate_iops_keeps_its_schedule_with_write_iolog_and_trim_percentage() {
    let place = Place::new("rate-schedule");
    let common = "--name=r --ioengine=null --size=1g --time_based --runtime=200ms --rate_iops=1000";
    let traced = place.json(&format!("{common} --write_iolog=t"));
    assert_eq!(intended(&traced, "read"), ios(&traced["jobs"][0], "read"));
    let args = "--name=r --filename=f --size=400k --bs=4k --rw=write --verify=crc32c \
                --rate_iops=1000 --trim_percentage=50 --trim_backlog=8";
    let trimming = place.json(args);
    let (job, document) = (&trimming["jobs"][0], &trimming);
    assert_eq!(intended(document, "write"), ios(job, "write"));
    assert!(ios(job, "trim") > 0, "{job}");
    let none = &document["mfio"]["jobs"][0]["intended_lat_ns"]["trim"];
    assert!(none.is_null(), "trims on the way have no time of their own: {none}");
    let trims = place.json(&format!("{common} --rw=trim"));
    assert_eq!(intended(&trims, "trim"), ios(&trims["jobs"][0], "trim"));
}

#[test]
fn rate_min_does_not_count_the_time_of_a_verification() {
    let place = Place::new("rate-min-verify");
    // Reading back takes several cycles, in which nothing is written. A machine under load may
    // also write nothing for a cycle, but not each time.
    let args = "--name=x --filename=F --size=128m --bs=64k --rw=write --verify=sha3-512 \
                --unlink=1 --rate_min=1k --rate_cycle=150";
    for more in ["", "--size=32m --verify_backlog=64"] {
        let ends_well = |_| place.run(&format!("{args} {more}")).status.code() == Some(0);
        assert!((0..5).any(ends_well), "{more}");
    }
}

#[test]
fn ramp_time_is_left_out_even_if_the_runtime_is_over_at_once() {
    let place = Place::new("ramp-over");
    let args = "--name=x --ioengine=null --size=1g --time_based --ramp_time=500ms --runtime=1us";
    let job = place.job(args);
    assert!(number(&job["read"]["runtime"]) < 400, "{}", job["read"]);
}

#[test]
fn time_of_a_job_is_that_of_its_phases_one_after_the_other() {
    let place = Place::new("phases");
    let args = "--name=x --filename=F --size=32m --bs=1m --rw=write --verify=sha512 --unlink=1";
    let job = place.job(args);
    let runtime = |direction: &str| number(&job[direction]["runtime"]);
    let sum = runtime("read") + runtime("write");
    assert!(number(&job["job_runtime"]).abs_diff(sum) <= 2, "{job}");
    let cpu = job["usr_cpu"].as_f64().unwrap() + job["sys_cpu"].as_f64().unwrap();
    assert!(cpu <= 105.0, "{cpu}");
    // Here the writes contain the reads.
    let job = place.job(&format!("{args} --verify_backlog=4"));
    let total = number(&job["job_runtime"]);
    assert!(total.abs_diff(number(&job["write"]["runtime"])) <= 5, "{job}");
}
