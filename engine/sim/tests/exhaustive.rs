//! The small model: it finds nothing, it is as large as it is meant to be, and a bug
//! planted in the engine does not get through it.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::io::Write as _;
use std::thread;

use engine_sim::{Exhausted, exhaust, exhaust_case, exhaust_every};
use mfio_engine::ring::Plant;

const OPS_MAX: usize = 3;

/// All of three ops is `engine-sim --exhaust 3`, in some 100 seconds of one core; every seventh is
/// a seventh of that, and what has two ops at most.
const STRIDE: usize = 7;

/// What cannot happen on a direct file with room for everything and four sectors.
const NEVER: [&str; 3] = ["misaligned", "CQ full", "CQ overflows"];

fn threads() -> u32 {
    let count = thread::available_parallelism().map_or(2, |count| count.get());
    u32::try_from(count).unwrap()
}

/// Always written, so that a log has the counts.
fn show(found: &Exhausted) {
    let mut out = std::io::stdout().lock();
    let _closed = write!(out, "{found}");
}

#[test]
fn f40_every_small_workload_survives_every_single_fault_and_power_cut() {
    let found = exhaust_every(STRIDE, OPS_MAX, None, threads());
    show(&found);
    assert!(found.failures.is_empty(), "{found}");

    // Floors, so that a change which offers fewer choices is seen.
    assert!(found.workloads >= 1_200, "{found}");
    assert!(found.runs >= 300_000, "{found}");
    assert!(found.cut_points >= 4_000_000, "{found}");
    assert!(found.images >= 15_000_000, "{found}");
    assert!(found.cuts >= 20_000, "{found}");
    for (name, count) in found.stats.fields() {
        assert!(count > 0 || NEVER.contains(&name), "no run has met: {name}");
    }
}

/// Two ops are enough to be caught, and the case that is named shows it again.
fn expect_caught(plant: Plant) {
    let found = exhaust(2, Some(plant), 1);
    let (case, text) = found.failures.first().unwrap_or_else(|| {
        panic!("{} survives: {found}", plant.name());
    });
    let again = exhaust_case(case, 2, Some(plant)).unwrap();
    assert_eq!(again.failures, [(case.clone(), text.clone())]);
    // Without the bug the same case is clean, so it was the bug that was seen.
    assert!(exhaust_case(case, 2, None).unwrap().failures.is_empty(), "{case}: {text}");
}

#[test]
fn f11_accept_short_is_caught_by_two_ops() {
    expect_caught(Plant::AcceptShort);
}

#[test]
fn f14_flush_early_is_caught_by_two_ops() {
    expect_caught(Plant::FlushEarly);
}

#[test]
fn f14_ack_before_flush_is_caught_by_two_ops() {
    expect_caught(Plant::AckBeforeFlush);
}

#[test]
fn f14_forget_followers_is_caught_by_two_ops() {
    expect_caught(Plant::ForgetFollowers);
}

#[test]
fn f01_free_on_drop_is_caught_by_two_ops() {
    expect_caught(Plant::FreeOnDrop);
}

#[test]
fn cases_that_do_not_exist_are_refused() {
    for case in ["", "1", "x:", "1:x", "9999999:", "1:cut:x"] {
        assert!(exhaust_case(case, 2, None).is_err(), "{case}");
    }
}
