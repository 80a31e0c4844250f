//! Runs many seeds on a few threads, and planted bugs until they are caught.
//!
//! Data flow: seed range → threads, each with every nth seed → [`Summary`]. A seed is its own
//! world on one thread, so the number of threads changes nothing but the time.
//!
//! Not here: one run (`life`), the command line (`main`).

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mfio_engine::ring::Plant;

use crate::report::{RunReport, Summary};
use crate::run;

/// The most failing seeds that a sweep keeps looking for.
const FAILURES_MAX: usize = 8;

/// How many seeds a planted bug may take before it counts as missed.
pub const PLANT_BUDGET_SEEDS: u64 = 200;

/// Runs every seed of `seeds` with `ops` ops, on `threads` threads.
///
/// # Panics
/// When a thread cannot be started, or panics outside of a run.
#[must_use]
pub fn sweep(seeds: Range<u64>, ops: u32, plant: Option<Plant>, threads: u32) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let worker = || {
        let mut summary = Summary::default();
        while summary.failures.len() < FAILURES_MAX {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            summary.take(run(seed, ops, plant));
        }
        summary
    };
    let mut all = Summary::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            all.merge(worker.join().expect("a run turns panics into violations"));
        }
    });
    all
}

/// Runs seeds from `first` on until `plant` is caught; `None` when the budget is used up.
#[must_use]
pub fn hunt(plant: Plant, first: u64, budget: u64, ops: u32) -> Option<RunReport> {
    (first..first + budget)
        .map(|seed| run(seed, ops, Some(plant)))
        .find(|report| !report.violations.is_empty())
}
