//! `compare` and `sweep` from the outside: what they accept, refuse, print and leave behind.
//!
//! Times mean nothing here, so only what does not depend on them is looked at.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs;

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
fn sweep_of_a_rate_halves_its_way_to_the_goal() {
    let place = Place::new("sweep-goal");
    let over = "sweep --over rate_iops=1000..4000 --steps=2 --rounds=1";
    let met = place.run(&format!("{over} --goal max<=10s {JOB}"));
    assert!(text(&met).contains("goal max<=10s: met up to"), "{}", text(&met));
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
