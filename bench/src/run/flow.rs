//! Jobs that share their I/Os in a given ratio (`flow`).
//!
//! Data flow: what the others have published -> whether this job is ahead of its share.
//!
//! Not here: waiting (`worker`), the jobs' own pace (`paced`).

use super::lane::{Lane, Stage};
use crate::plan::Plan;

/// A job may be ahead by so many rounds of shares before it waits.
const ROUNDS: u64 = 1;
/// The shortest wait.
const NAP_NS: u64 = 50_000;

/// The others of one job's flow.
#[derive(Clone, Default)]
pub(crate) struct Flow<'a> {
    share: u64,
    nap_ns: u64,
    others: Vec<(&'a Lane, u64)>,
}

impl<'a> Flow<'a> {
    /// The flow of `plan`, whose own lane is `lane`.
    pub(crate) fn of(plan: &Plan, plans: &[Plan], lanes: &'a [Lane], lane: &Lane) -> Self {
        let own = &plan.job.control;
        let shares = |other: &Plan| {
            let control = &other.job.control;
            own.flow > 0 && control.flow > 0 && control.flow_id == own.flow_id
        };
        let others =
            plans.iter().zip(lanes).filter(|(other, at)| shares(other) && !std::ptr::eq(*at, lane));
        Self {
            share: u64::from(own.flow),
            nap_ns: own.flow_sleep_ns.max(NAP_NS),
            others: others.map(|(other, at)| (at, u64::from(other.job.control.flow))).collect(),
        }
    }

    /// Whether there is anybody to share with.
    pub(crate) fn is_shared(&self) -> bool {
        !self.others.is_empty()
    }

    /// How long to wait after so many I/Os of its own; `None` is not at all.
    pub(crate) fn wait_ns(&self, issued: u64) -> Option<u64> {
        let ahead = self.others.iter().any(|(lane, share)| {
            let running = lane.stage() == Stage::Running;
            let done: u64 = lane.totals().iter().map(|totals| totals.ios).sum();
            running && issued * share > (done + ROUNDS * share) * self.share
        });
        ahead.then_some(self.nap_ns)
    }
}
