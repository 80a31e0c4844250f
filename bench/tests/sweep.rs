//! `compare` and `sweep` from the outside: what they accept, refuse, print and leave behind.
//!
//! Times mean nothing here, so only what does not depend on them is looked at.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use place::{Place, text};
use serde_json::Value;

const JOB: &str = "--name=s --size=1m --runtime=20ms --ioengine=null";

fn document(place: &Place, args: &str) -> Value {
    let output = place.run(&format!("{args} --output-format=json"));
    assert_eq!(output.status.code(), Some(0), "{args}: {}", text(&output));
    assert!(output.stderr.is_empty(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn values(document: &Value) -> Vec<&str> {
    let points = document["sweep"]["points"].as_array().unwrap();
    points.iter().map(|point| point["value"].as_str().unwrap()).collect()
}

#[test]
fn sweep_goes_through_every_depth_and_writes_its_files() {
    let place = Place::new("sweep-depths");
    let args = format!("sweep --over iodepth=1..4 --rounds=2 --csv=c.csv --svg=s.svg {JOB}");
    let document = document(&place, &args);
    assert_eq!(values(&document), ["1", "2", "4"]);
    for point in document["sweep"]["points"].as_array().unwrap() {
        assert!(point["iops"]["median"].as_f64().unwrap() > 0.0, "{point}");
        assert!(
            point["lat_ns"]["p50"].as_u64().unwrap() <= point["lat_ns"]["p99.9"].as_u64().unwrap()
        );
    }
    assert!(values(&document).contains(&document["sweep"]["knee"].as_str().unwrap()));
    let csv = fs::read_to_string(place.0.join("c.csv")).unwrap();
    assert_eq!(csv.lines().count(), 4, "{csv}");
    assert!(csv.starts_with("iodepth,iops,"), "{csv}");
    let svg = fs::read_to_string(place.0.join("s.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert!(svg.contains("knee") && svg.contains("p99.9"), "{svg}");
}

#[test]
fn sweep_says_how_long_it_takes_where_the_job_does_not() {
    let place = Place::new("sweep-duration");
    let args = "sweep --over iodepth=1 --rounds=1 --name=s --size=1m --ioengine=null";
    let output = place.run(args);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("each run takes 1 s: 1 values in 1 rounds take 2 s"), "{told}");
    let output = place.run(&format!("{args} --runtime=20ms"));
    assert!(output.stderr.is_empty(), "{}", text(&output));
}

/// The engines of blocking calls have no depth, so it is what they are called that varies.
#[test]
fn every_engine_can_be_compared_and_swept() {
    let place = Place::new("sweep-engines");
    let job = "--name=s --filename=f --size=256k --rw=randrw --runtime=20ms";
    let over = "ioengine=psync,sync,vsync,pvsync,pvsync2,raw_uring,io_uring";
    let swept = document(&place, &format!("sweep --over {over} --rounds=1 {job}"));
    assert_eq!(values(&swept).len(), 7);
    let sides = "--a=io_uring --b=sync --c=vsync --d=pvsync --e=pvsync2 --rounds=1";
    let compared = document(&place, &format!("compare {sides} {job}"));
    assert_eq!(compared["compare"]["ratios"].as_array().unwrap().len(), 4);
    let told = place.refused(&format!("compare --a=io_uring --b=io_uring_cmd {job}"));
    assert!(told.contains("name a namespace by its character device"), "{told}");
}

#[test]
fn sweep_of_a_rate_halves_its_way_to_the_goal() {
    let place = Place::new("sweep-goal");
    let over = "sweep --over rate_iops=1000..4000 --steps=2 --rounds=1";
    // On a machine under load even these are not reached each time.
    let met = (0..5).any(|_| {
        let met = place.run(&format!("{over} --goal max<=10s {JOB} --time_based --runtime=500ms"));
        text(&met).contains("goal max<=10s: met up to")
    });
    assert!(met, "a rate of 1000 is never reached");
    let missed = place.run(&format!("{over} --goal p99<=1ns {JOB}"));
    assert!(text(&missed).contains("goal p99<=1ns: met by no point"), "{}", text(&missed));
    let shares =
        document(&place, &format!("sweep --over rate_iops=auto --steps=2 --rounds=1 {JOB}"));
    let rates: Vec<u64> = values(&shares).iter().map(|value| value.parse().unwrap()).collect();
    assert!(rates.len() == 2 && rates[0] > 0 && rates[1] >= rates[0] * 2 - 1, "{rates:?}");
}

#[test]
fn bad_sweeps_and_comparisons_are_refused_before_anything_is_made() {
    let place = Place::new("sweep-refused");
    for (args, expected) in [
        ("sweep --over iodepth --name=x --size=1m", "OPTION=LOW..HIGH"),
        ("sweep --over iodepth=0..4 --name=x --size=1m", "is no range"),
        ("sweep --name=x --size=1m --ioengine=pvsync2 --output=o", "engine pvsync2 has no iodepth"),
        ("sweep --over iodepht=1..4 --name=x --size=1m", "iodepth"),
        ("sweep --over bs=4k,5 --goal p99 --name=x --size=1m", "p99<=500us"),
        ("sweep --name=x --size=1m --gtod_reduce=1 --output=o", "needs latencies"),
        ("sweep --output=o", "needs a job"),
        ("compare --a=null --b=null --min-ratio=0 --name=x --size=1m --output=o", "above 0"),
        ("compare --a=null --b=null --gate=mean --name=x --size=1m --output=o", "median, bound"),
        (
            "compare --a=null --b=null --numjobs=2 --name=x --size=1m --output=o",
            "numjobs must be 1",
        ),
        ("compare --a=null --b=null --a=null --name=x --size=1m", "--a was given twice"),
        ("compare --a=null --b=null --gate=bound --rounds=5 --name=x --size=1m", "--rounds=6"),
        ("compare --a=null --b=null --showcmd --name=x --size=1m --output=o", "--showcmd"),
        ("compare --a=null --b=null --minimal --name=x --size=1m --output=o", "terse output"),
        ("sweep --effective --name=x --size=1m --output=o", "--effective: not with sweep"),
        ("sweep --status-interval=1 --name=x --size=1m --output=o", "--status-interval"),
        ("sweep --bandwidth-log --name=x --size=1m --output=o", "--bandwidth-log"),
        ("sweep --eta=always --name=x --size=1m --output=o", "--eta=always"),
        (
            "sweep --svg=no/such.svg --name=x --size=1m",
            "--svg=no/such.svg cannot be written: No such",
        ),
        ("sweep --csv=. --name=x --size=1m", "--csv=. cannot be written: it is a directory"),
        ("sweep --over rate_min=auto --name=x --size=1m --output=o", "is of no rate"),
    ] {
        let said = place.refused(args);
        assert!(said.contains(expected) && said.lines().count() == 1, "{args}: {said}");
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0, "{args}");
    }
}

#[test]
fn compare_puts_any_number_of_sides_against_the_first_in_one_document() {
    let place = Place::new("compare-sides");
    let args = format!("compare --a=null --b=psync --c=null --rounds=2 --min-ratio=1000000 {JOB}");
    let output = place.run(&format!("{args} --output-format=json"));
    assert_eq!(output.status.code(), Some(1), "a gate does not hold: {}", text(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let compare = &document["compare"];
    let against: Vec<&str> = compare["ratios"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ratio| ratio["b"].as_str().unwrap())
        .collect();
    assert_eq!(against, ["b", "c"]);
    assert_eq!(compare["sides"].as_array().unwrap().len(), 3);
    assert_eq!(compare["failures"].as_array().unwrap().len(), 2, "{compare}");
    assert_eq!(compare["ratios"][0]["iops"]["significant"], Value::Bool(false), "two rounds");
}

#[test]
fn readonly_and_parse_only_hold_for_compare_and_sweep() {
    let place = Place::new("sweep-readonly");
    let kept = vec![7; 1 << 20];
    fs::write(place.0.join("F"), &kept).unwrap();
    let trace = "fio version 2 iolog\nF add\nF open\nF write 0 4096\nF close\n";
    fs::write(place.0.join("T"), trace).unwrap();
    let sides = "compare --a=psync --b=io_uring --rounds=1";
    for args in [
        format!("{sides} --readonly --name=x --read_iolog=T"),
        "sweep --readonly --over iodepth=1..2 --name=x --read_iolog=T".to_owned(),
        "sweep --readonly --over rw=read,write --name=x --filename=F --size=1m".to_owned(),
    ] {
        let told = place.refused(&args);
        assert!(told.contains("not allowed with the --readonly parameter"), "{args}: {told}");
    }
    let job = "--parse-only --name=x --filename=F --size=1m --rw=write --output=o";
    for args in [format!("{sides} {job}"), format!("sweep --over iodepth=1..2 {job}")] {
        let output = place.run(&args);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(output.stdout.is_empty(), "{}", text(&output));
    }
    assert!(fs::read(place.0.join("F")).unwrap() == kept, "F was written");
    assert_eq!(place.names(""), ["F", "T"]);
}

#[test]
fn results_are_not_written_over_the_data_of_the_job() {
    let place = Place::new("sweep-over-data");
    fs::write(place.0.join("F"), vec![7; 1 << 20]).unwrap();
    let job = "--name=x --filename=F --rw=read --runtime=10ms";
    for args in [
        "compare --a=psync --b=psync --rounds=1 --output=F",
        "sweep --over iodepth=1 --rounds=1 --output=./F",
        "sweep --over iodepth=1 --rounds=1 --csv=F",
        "sweep --over iodepth=1 --rounds=1 --svg=F",
    ] {
        let told = place.refused(&format!("{args} {job}"));
        assert!(told.contains("would overwrite F, which a job uses"), "{args}: {told}");
    }
    assert_eq!(fs::read(place.0.join("F")).unwrap().len(), 1 << 20);
}

#[test]
fn rate_beyond_what_can_be_reached_does_not_meet_a_goal() {
    let place = Place::new("sweep-beyond");
    let args = "sweep --over rate_iops=1000,1000000000 --rounds=1 --goal p99<=50ms --name=x \
                --filename=F --size=1m --ioengine=psync --rw=randread --bs=64k --time_based \
                --runtime=300ms";
    let document = document(&place, args);
    let sweep = &document["sweep"];
    assert_ne!(sweep["goal"]["best"], "1000000000", "{sweep}");
    let points = sweep["points"].as_array().unwrap();
    let last = points.last().unwrap();
    assert_eq!(last["value"], "1000000000");
    assert!(last["rate_reached"] == false && last["rate_share"].as_f64().unwrap() < 0.5, "{last}");
    assert_eq!(last["lat_since"], "due");
    // An I/O that is made late has waited since it was due.
    assert!(last["lat_ns"]["p99"].as_u64().unwrap() > 50_000_000, "{last}");
    assert!(last["in_flight"].as_f64().unwrap() < 1.5, "psync: {last}");
}

#[test]
fn sweep_of_a_rate_with_units_halves_its_way_too() {
    let place = Place::new("sweep-units");
    // A pause after each I/O is far below the upper rate.
    let args = "sweep --over rate=512k..65536k --steps=2 --rounds=1 --goal max<=10s --name=s \
                --size=1m --ioengine=null --thinktime=1ms --time_based --runtime=500ms";
    // On a machine under load even the lower one is not reached each time.
    let halved = (0..5).any(|_| {
        let document = document(&place, args);
        let values = values(&document);
        assert_eq!((values[0], values[values.len() - 1]), ("512k", "65536k"));
        values.len() > 2
    });
    assert!(halved, "nothing between the rates was tried");
}

#[test]
fn auto_splits_the_rate_of_a_mixed_job_by_direction() {
    let place = Place::new("sweep-mixed");
    let args = format!(
        "sweep --over rate_iops=auto --steps=1 --rounds=1 {JOB} --rw=randrw --rwmixread=75 \
         --time_based --csv=c.csv"
    );
    let document = document(&place, &args);
    let rates: Vec<u64> =
        values(&document)[0].split(',').map(|rate| rate.parse().unwrap()).collect();
    assert_eq!(rates.len(), 3, "{rates:?}");
    assert!((2..=4).contains(&(rates[0] / rates[1])), "{rates:?}");
    let csv = fs::read_to_string(place.0.join("c.csv")).unwrap();
    assert!(csv.contains(&format!("\n\"{},{},1\",", rates[0], rates[1])), "{csv}");
}

#[test]
fn failed_ios_are_told_and_hold_no_gate() {
    let place = Place::new("compare-errors");
    let job = [
        "--name=x",
        "--filename=F",
        "--size=64k",
        "--bs=4k",
        "--rw=read",
        "--exec_prerun=truncate -s 32k F",
        "--ignore_error=EIO",
    ];
    let compare = ["compare", "--a=psync", "--b=psync", "--rounds=1", "--output-format=json"];
    let gated = [&compare[..], &["--min-ratio=0.000001"], &job].concat();
    let output = place.run(&gated);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let compare_document = &document["compare"];
    let failures = compare_document["failures"].to_string();
    assert!(failures.contains("I/Os of a failed"), "{failures}");
    assert!(compare_document["sides"][0]["errors"].as_u64().unwrap() > 0, "{compare_document}");
    let output = place.run(&[&compare[..], &job].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("I/Os failed and are not counted"), "{}", text(&output));
    let sweep = ["sweep", "--over", "iodepth=1", "--rounds=1"];
    let output = place.run(&[&sweep[..], &job].concat());
    assert!(text(&output).contains("I/Os failed and are not counted"), "{}", text(&output));
}

#[test]
fn signal_during_the_layout_ends_with_its_code() {
    let place = Place::new("compare-signal");
    let args = "compare --a=psync --b=psync --name=x --filename=N --size=4g --rw=read";
    let mut child = place.command(args).stdout(Stdio::null()).spawn().unwrap();
    while fs::metadata(place.0.join("N")).map_or(0, |facts| facts.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128));
}
