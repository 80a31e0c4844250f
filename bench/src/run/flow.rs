//! Jobs that share their I/Os in a given ratio (`flow`).
//!
//! Data flow: what the others have published -> whether this job is ahead of its share.
//!
//! Not here: waiting (`worker`), the jobs' own pace (`paced`).

use super::lane::{Lane, Stage};
use crate::plan::{Plan, stages};

/// A job may be ahead by so many rounds of shares before it waits.
const ROUNDS: u64 = 1;
/// The shortest wait.
const NAP_NS: u64 = 50_000;

/// The others of one job's flow.
#[derive(Clone, Default)]
pub(crate) struct Flow<'a> {
    share: u64,
    nap_ns: u64,
    others: Vec<Other<'a>>,
}

/// One of them.
#[derive(Clone)]
struct Other<'a> {
    lane: &'a Lane,
    share: u64,
    /// It begins with this job, so what this job does while the other starts counts already.
    begins_too: bool,
}

impl<'a> Flow<'a> {
    /// The flow of `plan`, whose own lane is `lane`.
    pub(crate) fn of(plan: &Plan, plans: &[Plan], lanes: &'a [Lane], lane: &Lane) -> Self {
        let own = &plan.job.control;
        let shares = |other: &Plan| {
            let control = &other.job.control;
            own.flow > 0 && control.flow > 0 && control.flow_id == own.flow_id
        };
        let stages = stages(plans);
        let stage_at = |at: &Lane| {
            let index = lanes.iter().position(|known| std::ptr::eq(known, at));
            index.map(|index| stages[index])
        };
        let others =
            plans.iter().zip(lanes).filter(|(other, at)| shares(other) && !std::ptr::eq(*at, lane));
        let others = others.map(|(plan, at)| {
            let control = &plan.job.control;
            let waits = control.start_delay_ns != (0, 0) || control.wait_for.is_some();
            let begins_too = !waits && stage_at(at) == stage_at(lane);
            Other { lane: at, share: u64::from(control.flow), begins_too }
        });
        Self {
            share: u64::from(own.flow),
            nap_ns: own.flow_sleep_ns.max(NAP_NS),
            others: others.collect(),
        }
    }

    /// Whether there is anybody to share with.
    pub(crate) fn is_shared(&self) -> bool {
        !self.others.is_empty()
    }

    /// How long to wait after so many I/Os of its own; `None` is not at all.
    pub(crate) fn wait_ns(&self, issued: u64) -> Option<u64> {
        let ahead = self.others.iter().any(|&Other { lane, share, begins_too }| {
            let counts = match lane.stage() {
                Stage::Running => true,
                Stage::Starting => begins_too,
                _ => false,
            };
            let done: u64 = lane.totals().iter().map(|totals| totals.ios).sum();
            counts && issued * share > (done + ROUNDS * share) * self.share
        });
        ahead.then_some(self.nap_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_waits_for_those_that_are_about_to_begin() {
        let lane = Lane::new(false);
        let of = |begins_too| {
            let others = vec![Other { lane: &lane, share: 2, begins_too }];
            Flow { share: 1, nap_ns: NAP_NS, others }
        };
        // One round of the other's share is the room there is.
        assert_eq!(of(true).wait_ns(1), None);
        assert!(of(true).wait_ns(2).is_some());
        assert_eq!(of(false).wait_ns(2), None, "it begins later, if at all");
        lane.enter(Stage::Running);
        assert!(of(false).wait_ns(2).is_some());
        lane.enter(Stage::Ended);
        assert_eq!(of(true).wait_ns(2), None);
    }
}
