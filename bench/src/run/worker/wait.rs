//! Steps without I/O: waiting for what is due, and pauses.
//!
//! Data flow: a step that waits -> completions are reaped and orders obeyed until its time.
//!
//! Not here: what waits for what (`paced`, `flow`).

use std::time::Duration;

use crate::generator::Step;
use crate::ioengine::IoEngine;

use super::{Rules, Worker};

/// Completions are looked for this often while nothing is due.
const BUSY_NAP_NS: u64 = 100_000;
/// Orders are looked for this often.
const IDLE_NAP_NS: u64 = 10_000_000;
/// A sleep is late by about that much; the rest is spun.
const SPIN_NS: u64 = 55_000;

impl<E: IoEngine> Worker<'_, E> {
    /// A step without I/O; true at the end.
    #[cold]
    pub(super) fn idle<const CLOCK: bool>(&mut self, step: Step, rules: Rules) -> bool {
        match step {
            Step::Wait { until_ns } => self.wait_until::<CLOCK>(until_ns, rules),
            Step::Think { spin_ns, sleep_ns, drain } => {
                while drain && !self.is_idle() && self.failure.is_none() {
                    self.reap::<CLOCK>(1, rules);
                }
                let spun_ns = crate::clock::now_ns() + spin_ns;
                while crate::clock::now_ns() < spun_ns && self.goes_on(rules) {
                    std::hint::spin_loop();
                }
                self.wait_until::<CLOCK>(spun_ns + sleep_ns, rules);
            }
            Step::Renew => {
                while !self.is_idle() && self.failure.is_none() {
                    self.reap::<CLOCK>(1, rules);
                }
                self.files.iter().for_each(crate::layout::forget_cached);
            }
            Step::Do { .. } | Step::Finished => return true,
        }
        false
    }

    /// Whether the order obeyed last is still in force. Whoever asks for results gets them.
    fn goes_on(&mut self, rules: Rules) -> bool {
        let order = self.order;
        if !self.lane.is_still(self.word) {
            self.obey(rules);
        }
        self.order == order && !self.stopping
    }

    /// Reaps what completes until then; an order ends it early.
    fn wait_until<const CLOCK: bool>(&mut self, until_ns: u64, rules: Rules) {
        while self.goes_on(rules) {
            if !self.is_idle() {
                self.reap::<CLOCK>(0, rules);
            }
            let left_ns = until_ns.saturating_sub(crate::clock::now_ns());
            if left_ns == 0 {
                return;
            }
            let nap_ns = left_ns.min(if self.is_idle() { IDLE_NAP_NS } else { BUSY_NAP_NS });
            if nap_ns > SPIN_NS {
                std::thread::sleep(Duration::from_nanos(nap_ns - SPIN_NS));
            } else {
                std::hint::spin_loop();
            }
        }
    }
}
