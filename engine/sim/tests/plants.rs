//! A checker is judged by the bugs it is shown: each planted one is caught, and soon.

use engine_sim::{PLANT_BUDGET_SEEDS, hunt, reproduction};
use mfio_engine::ring::Plant;

const OPS: u32 = 2000;

fn expect_caught(plant: Plant) {
    let caught = hunt(plant, 0, PLANT_BUDGET_SEEDS, OPS);
    let report = caught.unwrap_or_else(|| {
        panic!("{} survives {PLANT_BUDGET_SEEDS} seeds", plant.name());
    });
    // The same seed without the bug is clean, so it was the bug that was seen.
    let command = reproduction(report.seed, OPS, Some(plant));
    assert!(engine_sim::run(report.seed, OPS, None).violations.is_empty(), "{command}");
}

/// Caught is not enough where books that do not balance give the bug away at once: some seed
/// must see the harm itself.
fn expect_sign(plant: Plant, sign: &str) {
    let seen = (0..PLANT_BUDGET_SEEDS).any(|seed| {
        let report = engine_sim::run(seed, OPS, Some(plant));
        report.violations.iter().any(|violation| violation.contains(sign))
    });
    assert!(seen, "{} never shows as: {sign}", plant.name());
}

const LATE_WRITE: &str = "was written to, at bytes";

#[test]
fn f11_accept_short_is_caught() {
    expect_caught(Plant::AcceptShort);
}

#[test]
fn f14_flush_early_is_caught() {
    expect_caught(Plant::FlushEarly);
}

#[test]
fn f01_free_on_drop_is_caught() {
    expect_caught(Plant::FreeOnDrop);
}

#[test]
fn f14_forget_followers_is_caught() {
    expect_caught(Plant::ForgetFollowers);
}

#[test]
fn f14_ack_before_flush_is_caught() {
    expect_caught(Plant::AckBeforeFlush);
}

#[test]
fn f03_retire_on_cancel_is_caught() {
    expect_caught(Plant::RetireOnCancel);
    expect_sign(Plant::RetireOnCancel, LATE_WRITE);
}

#[test]
fn f04_no_generation_is_caught() {
    expect_caught(Plant::NoGeneration);
    expect_sign(Plant::NoGeneration, LATE_WRITE);
}

#[test]
fn f05_free_after_failed_enter_is_caught() {
    expect_caught(Plant::FreeAfterFailedEnter);
    expect_sign(Plant::FreeAfterFailedEnter, LATE_WRITE);
}

#[test]
fn f13_f23_retry_forever_is_caught() {
    expect_caught(Plant::RetryForever);
    expect_sign(Plant::RetryForever, "never finish");
}

#[test]
fn f15_chain_split_is_caught() {
    expect_caught(Plant::ChainSplit);
}

#[test]
fn f20_ignore_overflow_is_caught() {
    expect_caught(Plant::IgnoreOverflow);
    expect_sign(Plant::IgnoreOverflow, "do not fit into the completion queue");
}

#[test]
fn f28_park_without_recheck_is_caught() {
    expect_caught(Plant::ParkWithoutRecheck);
    expect_sign(Plant::ParkWithoutRecheck, "no more can come");
}

#[test]
fn f37_fsync_retry_is_caught() {
    expect_caught(Plant::FsyncRetry);
}

#[test]
fn f38_no_fsync_on_open_is_caught() {
    expect_caught(Plant::NoFsyncOnOpen);
}

#[test]
fn f37_poison_one_handle_is_caught() {
    expect_caught(Plant::PoisonOneHandle);
}

#[test]
fn f09_truncating_cast_is_caught() {
    expect_caught(Plant::TruncatingCast);
}

#[test]
fn f44_assume_512_is_caught() {
    expect_caught(Plant::Assume512);
}

#[test]
fn f11_unaligned_rest_is_caught() {
    expect_caught(Plant::UnalignedRest);
}
