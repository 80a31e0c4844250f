//! What single latencies mean for the job: a limit, a goal, a schedule.
//!
//! Data flow: latency of a completed I/O -> limits of the job -> go on, another depth, the end.
//! A job without any of it has no [`Judge`], and its loop one branch more.
//!
//! Not here: which slots may be used (`worker::judged`), the search (`depth_search`).

use fio_compat::Job;
use fio_compat::stats::SteadyMeasure;

use super::depth_search::{DepthSearch, Next};

/// Judges the I/Os of one job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judge {
    /// The longest an I/O may take, by direction.
    pub(crate) most_ns: [u64; 3],
    /// A latency to keep.
    pub(crate) goal: Option<Goal>,
    /// When the I/O of each slot was due; 0 where it had no time.
    pub(crate) due_ns: Vec<u64>,
    /// An I/O begins when it is due.
    pub(crate) scheduled: bool,
    /// Others want the sum of latencies: that sum, and of how many.
    pub(crate) sums: Option<(u64, u64)>,
}

impl Judge {
    /// What `job` wants at this depth; `None` where nothing is judged. `timed` tells whether
    /// latencies are recorded.
    pub(crate) fn of(job: &Job, depth: u32, timed: bool) -> Option<Box<Self>> {
        let steering = &job.steering;
        let steady = steering.steady.is_some_and(|it| it.measure == SteadyMeasure::Latency);
        let goal = (steering.latency_target_ns > 0).then(|| Goal::of(job, depth));
        let limited = steering.max_latency_ns != [0; 3];
        let due = job.pace.has_rate() && (timed || steering.offload);
        (steady || limited || due || goal.is_some()).then(|| {
            let most_ns = steering.max_latency_ns.map(|ns| if ns == 0 { u64::MAX } else { ns });
            Box::new(Self {
                most_ns,
                goal,
                due_ns: vec![0; depth as usize],
                scheduled: steering.offload,
                sums: steady.then_some((0, 0)),
            })
        })
    }
}

/// A latency that a share of the I/Os has to keep, and the depth it is kept at.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    target_ns: u64,
    window_ns: u64,
    percent: f64,
    /// When the window began; 0 begins it with the next I/O.
    since_ns: u64,
    ios: u64,
    late: u64,
    search: DepthSearch,
    /// Slots that may not be used at this depth.
    pub(crate) withheld: Vec<u32>,
    /// The depth was lowered, and I/Os of the higher one are still in flight.
    pub(crate) draining: bool,
}

impl Goal {
    fn of(job: &Job, depth: u32) -> Self {
        Self {
            target_ns: job.steering.latency_target_ns,
            window_ns: job.steering.latency_window_ns,
            percent: job.steering.latency_percentile,
            since_ns: 0,
            ios: 0,
            late: 0,
            search: DepthSearch::new(depth, job.steering.latency_run),
            withheld: Vec::with_capacity(depth as usize),
            draining: false,
        }
    }

    /// The depth that is tried.
    pub(crate) const fn depth(&self) -> u32 {
        self.search.depth()
    }

    /// Why the search is hopeless.
    pub(crate) fn complaint(&self) -> String {
        format!(
            "latency_target of {} us was not kept by {} % of the I/Os even one at a time; raise \
             latency_target, or lower latency_percentile",
            self.target_ns / 1000,
            self.percent
        )
    }

    /// Takes one I/O; what follows where that ends a window.
    pub(crate) fn note(&mut self, took_ns: u64, now_ns: u64) -> Option<Next> {
        if self.draining {
            return None;
        }
        if self.since_ns == 0 {
            self.since_ns = now_ns.saturating_sub(took_ns);
        }
        self.ios += 1;
        self.late += u64::from(took_ns > self.target_ns);
        let failed = self.late > 0 && self.percent >= 100.0;
        if !failed && now_ns.saturating_sub(self.since_ns) < self.window_ns {
            return None;
        }
        let met = !failed && share(self.ios - self.late, self.ios) >= self.percent;
        (self.ios, self.late) = (0, 0);
        let before = self.depth();
        let next = self.search.judge(met);
        self.draining = self.depth() < before;
        self.since_ns = if self.draining { 0 } else { now_ns };
        Some(next)
    }
}

/// Percent.
#[allow(clippy::cast_precision_loss, reason = "no window has 2^53 I/Os")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(percent: f64) -> Goal {
        let mut job = Job::new("a");
        job.steering.latency_target_ns = 100;
        job.steering.latency_window_ns = 10_000;
        job.steering.latency_percentile = percent;
        Goal::of(&job, 8)
    }

    #[test]
    fn latency_percentile_of_100_fails_at_once_and_a_lower_one_at_the_end_of_the_window() {
        let mut strict = goal(100.0);
        assert_eq!(strict.note(50, 1000), None);
        assert_eq!(strict.note(101, 1100), Some(Next::Hopeless));
        let mut lenient = goal(50.0);
        for at in 0..9 {
            assert_eq!(lenient.note(50 + 100 * (at % 2), 1000 + at * 1000), None);
        }
        assert_eq!(lenient.note(150, 11_000), Some(Next::Depth(2)), "half of them kept it");
        assert!(!lenient.draining);
        for at in 0..2 {
            assert_eq!(lenient.note(150, 12_000 + at * 1000), None);
        }
        assert_eq!(lenient.note(50, 30_000), Some(Next::Depth(1)), "a third did");
        assert!(lenient.draining && lenient.note(150, 50_000).is_none());
    }

    #[test]
    fn job_without_limits_is_not_judged() {
        let mut job = Job::new("a");
        assert!(Judge::of(&job, 4, true).is_none());
        job.pace.rate_iops = [10; 3];
        assert!(Judge::of(&job, 4, true).is_some() && Judge::of(&job, 4, false).is_none());
        job.steering.max_latency_ns = [0, 5, 0];
        let judge = Judge::of(&job, 4, false);
        assert_eq!(judge.map(|judge| judge.most_ns), Some([u64::MAX, 5, u64::MAX]));
    }
}
