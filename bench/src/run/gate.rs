//! What a worker waits for before it begins, and whom it takes with it when it ends.
//!
//! Data flow: plan -> [`Gate`] -> the worker passes it when the time has come, the jobs it waits
//! for have ended, or the run is aborted.
//!
//! Not here: stages (`conductor`), the job (`job`).

use std::thread;
use std::time::Duration;

use fio_compat::ExitWhat;

use super::lane::{Lane, Order, Stage};
use crate::clock::now_ns;
use crate::plan::Plan;
use crate::random::mix;

/// How often a waiting worker looks.
const NAP_NS: u64 = 5_000_000;

/// What one worker waits for.
pub(crate) struct Gate<'a> {
    from_ns: u64,
    waitees: Vec<&'a Lane>,
}

impl<'a> Gate<'a> {
    /// The gate of `plan` in a run that began at `begun_ns`.
    pub(crate) fn of(plan: &Plan, plans: &[Plan], lanes: &'a [Lane], begun_ns: u64) -> Self {
        let (low, high) = plan.job.control.start_delay_ns;
        let drawn = mix(plan.job.randseed ^ mix(u64::from(plan.clone) + 1));
        let delay_ns = low + if high > low { drawn % (high - low + 1) } else { 0 };
        let waits = |other: &Plan| Some(&other.job.name) == plan.job.control.wait_for.as_ref();
        let waitees = plans.iter().zip(lanes).filter(|(other, _)| waits(other));
        let waitees = waitees.map(|(_, lane)| lane).collect();
        Self { from_ns: begun_ns.saturating_add(delay_ns), waitees }
    }

    /// Waits.
    pub(crate) fn pass(&self, lane: &Lane) {
        loop {
            let early_ns = self.from_ns.saturating_sub(now_ns());
            let waiting = self.waitees.iter().any(|waitee| waitee.stage() != Stage::Ended);
            if early_ns == 0 && !waiting || lane.order() == Order::Abort {
                return;
            }
            let nap_ns = if early_ns == 0 { NAP_NS } else { early_ns.min(NAP_NS) };
            thread::sleep(Duration::from_nanos(nap_ns));
        }
    }
}

/// Which others end, now that this worker may have.
pub(crate) fn ends_others(plan: &Plan, lane: &Lane) -> Option<ExitWhat> {
    let control = &plan.job.control;
    let ends = control.exitall || control.exitall_on_error && lane.has_failed();
    (ends && lane.stage() == Stage::Ended).then_some(control.exit_what)
}
