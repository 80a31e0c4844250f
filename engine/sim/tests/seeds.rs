//! Thousands of seeds find nothing, and meet everything they are meant to meet.

use std::io::Write as _;
use std::thread;

use engine_sim::{Summary, reproduction, sweep};

const OPS: u32 = 2000;

/// About two minutes of one core.
const SEEDS: u64 = 10_000;

/// Fails with everything needed to see the failure again.
fn expect_clean(summary: &Summary) {
    if let Some(failure) = summary.failures.first() {
        let command = reproduction(failure.seed, failure.ops, None);
        panic!("{} seeds failed; first: {failure}{command}", summary.failures.len());
    }
}

/// Shown by `cargo test -- --nocapture`; always written, so that a log has the counts.
fn show(summary: &Summary) {
    let mut out = std::io::stdout().lock();
    let _closed = write!(out, "{summary}");
}

#[test]
fn seeds_find_nothing_and_meet_every_fault() {
    let threads = thread::available_parallelism().map_or(2, |count| count.get());
    let summary = sweep(0..SEEDS, OPS, None, u32::try_from(threads).unwrap());
    show(&summary);
    expect_clean(&summary);
    assert_eq!(summary.seeds, SEEDS);

    // A fault that no seed meets is a fault that nobody has survived.
    for (name, count) in summary.counters() {
        if name == "misaligned" {
            assert_eq!(count, 0, "the engine plans no op that the device must refuse (F44)");
        } else {
            assert!(count > 0, "no seed has met: {name}");
        }
    }
}
