//! Whether a job is as fast as it has to be.
//!
//! Data flow: published totals, now and a cycle ago -> too slow or not. Times are those of
//! [`Lane::running_ns`](super::lane::Lane::running_ns): a job that verifies or flushes is not late.
//!
//! Not here: what happens then (`conductor`).

use fio_compat::Pace;

use super::lane::Totals;

/// The minimum rates of one worker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Minimum {
    due_ns: u64,
    last_ns: u64,
    last: [Totals; 3],
}

impl Minimum {
    /// When the next look is due; `None` without minimum rates.
    pub(crate) fn due_ns(&self, pace: &Pace) -> Option<u64> {
        let wanted = pace.rate_min != [0; 3] || pace.rate_iops_min != [0; 3];
        wanted.then_some(self.due_ns)
    }

    /// Looks, if that is due; true if one of the `directions` of the job was too slow.
    pub(crate) fn is_missed(
        &mut self,
        (pace, directions): (&Pace, [bool; 3]),
        now_ns: u64,
        totals: [Totals; 3],
    ) -> bool {
        if self.due_ns(pace).is_none_or(|due_ns| now_ns < due_ns) {
            return false;
        }
        let (last_ns, last) = (self.last_ns, self.last);
        *self = Self { due_ns: now_ns + pace.rate_cycle_ns, last_ns: now_ns, last: totals };
        let spent_ns = now_ns.saturating_sub(last_ns);
        if last_ns == 0 || spent_ns == 0 {
            return false;
        }
        let below = |done: u64, least: u64| {
            u128::from(done) * 1_000_000_000 < u128::from(least) * u128::from(spent_ns)
        };
        (0..3).any(|at| {
            let (bytes, ios) = (totals[at].bytes - last[at].bytes, totals[at].ios - last[at].ios);
            directions[at]
                && (below(bytes, pace.rate_min[at]) || below(ios, pace.rate_iops_min[at]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn direction_that_never_completes_anything_is_too_slow_and_one_the_job_lacks_is_not() {
        let pace = Pace { rate_min: [1; 3], ..Pace::default() };
        for (directions, missed) in [([true, false, false], true), ([false; 3], false)] {
            let mut minimum = Minimum::default();
            let mut look = |at: u64| {
                minimum.is_missed((&pace, directions), at * SECOND_NS, Default::default())
            };
            assert!(!look(1), "a cycle begins");
            assert_eq!(look(10), missed);
        }
    }
}
