//! Options about logs, each by what it changes in their lines; and logs of runs that are ended.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use place::{Place, ios};

/// 16 I/Os.
const SMALL: &str = "--name=j --size=64k --filename=f --ioengine=psync";

#[test]
fn log_hist_coarseness_halves_the_columns_and_loses_no_io() {
    let place = Place::new("coarseness");
    let args = "--name=j --ioengine=null --size=1m --write_hist_log=p --log_hist_msec=1000";
    for coarseness in 0..=6 {
        let job = place.job(&format!("{args} --log_hist_coarseness={coarseness}"));
        let lines = place.log("p_clat_hist.1.log");
        assert!(lines.iter().all(|line| line.len() == 3 + (1856 >> coarseness)), "{coarseness}");
        let counted: u64 = lines.iter().flat_map(|line| &line[3..]).sum();
        assert_eq!(counted, ios(&job, "read"));
    }
    let told = place.refused(&format!("{args} --log_hist_coarseness=7"));
    assert!(told.contains("log_hist_coarseness"), "{told}");
}

#[test]
fn log_alternate_epoch_and_log_alternate_epoch_clock_id_choose_the_clock() {
    let place = Place::new("epoch");
    let logs = "--write_iolog=t --write_iops_log=p --write_lat_log=p";
    let now_ms = |clock: ClockId| {
        let now = clock_gettime(clock).unwrap();
        u64::try_from(now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000).unwrap()
    };
    let clocks = [(0, ClockId::CLOCK_REALTIME), (1, ClockId::CLOCK_MONOTONIC)];
    for (number, clock) in clocks {
        let before = now_ms(clock);
        let option = format!("--log_alternate_epoch=1 --log_alternate_epoch_clock_id={number}");
        place.job(&format!("{SMALL} {logs} {option}"));
        let span = before..=now_ms(clock);
        for name in ["p_iops.1.log", "p_clat.1.log"] {
            let lines = place.log(name);
            assert_eq!(lines.len(), 16);
            assert!(lines.iter().all(|line| span.contains(&line[0])), "{span:?} {lines:?}");
        }
    }
    // Without the option the clock does not matter.
    place.job(&format!("{SMALL} {logs} --log_alternate_epoch_clock_id=1"));
    assert!(place.log("p_iops.1.log").iter().all(|line| line[0] < 60_000));
    let told = place.refused(&format!(
        "{SMALL} {logs} --log_alternate_epoch=1 --log_alternate_epoch_clock_id=10"
    ));
    assert!(told.contains("this system has no such clock"), "{told}");
}

#[test]
fn log_window_value_of_both_has_a_column_more() {
    let place = Place::new("window");
    let args = "--name=j --ioengine=null --size=1m --time_based --runtime=300ms \
                --log_avg_msec=50 --write_lat_log=p";
    for (value, columns) in [("avg", 5), ("max", 5), ("both", 6)] {
        place.job(&format!("{args} --log_window_value={value}"));
        let lines = place.log("p_clat.1.log");
        assert!(!lines.is_empty() && lines.iter().all(|line| line.len() == columns), "{value}");
        assert!(lines.iter().all(|line| columns == 5 || line[1] <= line[2]), "{lines:?}");
    }
}

#[test]
fn log_prio_and_log_issue_time_end_the_line() {
    let place = Place::new("prio");
    place.job(&format!("{SMALL} --write_iops_log=p --log_prio=1 --log_issue_time=1"));
    let log = fs::read_to_string(place.0.join("p_iops.1.log")).unwrap();
    let mut before = 0;
    for line in log.lines() {
        let fields: Vec<&str> = line.split(", ").collect();
        assert_eq!((fields.len(), fields[4]), (6, "0x0000"), "{line}");
        let issued: u64 = fields[5].parse().unwrap();
        assert!(issued >= before, "{log}");
        before = issued;
    }
    assert!(before > 0);
}

#[test]
fn log_entries_and_log_compression_change_no_line() {
    let place = Place::new("entries");
    let args = format!("{SMALL} --write_iops_log=p --log_offset=1");
    place.job(&format!("{args} --log_entries=2"));
    let offsets = |lines: Vec<Vec<u64>>| lines.iter().map(|line| line[4]).collect::<Vec<_>>();
    let few = offsets(place.log("p_iops.1.log"));
    place.job(&format!("{args} --log_entries=1m --log_compression=64k"));
    assert_eq!(offsets(place.log("p_iops.1.log")), few);
    assert_eq!(few.len(), 16);
    let told = place.refused(&format!("{args} --log_store_compressed=1"));
    assert!(told.contains("log_store_compressed"), "{told}");
}

#[test]
fn interrupt_leaves_logs_and_traces_whole() {
    let place = Place::new("interrupt");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mfio-bench"));
    command.current_dir(&place.0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let args = "--name=j --ioengine=null --iodepth=4 --size=1m --time_based --runtime=60 --bs=4k \
                --rate_iops=20000 --write_lat_log=p --write_bw_log=p --write_hist_log=p \
                --log_hist_msec=100 --write_iolog=t --bandwidth-log=agg --output-format=json";
    let child = command.args(args.split_whitespace()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(128), "{}", place::text(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let total = ios(&document["jobs"][0], "read");
    assert!(total > 0);
    for (name, columns) in [("p_clat.1.log", 5), ("p_slat.1.log", 5), ("p_bw.1.log", 5)] {
        let lines = place.log(name);
        assert_eq!(lines.len() as u64, total, "{name}");
        assert!(lines.iter().all(|line| line.len() == columns), "{name}");
    }
    let counted = place.log("p_clat_hist.1.log");
    let counted: u64 = counted.iter().flat_map(|line| &line[3..]).sum();
    assert_eq!(counted, total);
    assert!(place.log("agg-read_bw.log").iter().all(|line| line.len() == 5));
    let trace = fs::read_to_string(place.0.join("t")).unwrap();
    assert!(trace.ends_with(" j.0.0 close\n"), "{}", &trace[trace.len() - 100..]);
    assert_eq!(trace.matches(" read ").count() as u64, total);
}
