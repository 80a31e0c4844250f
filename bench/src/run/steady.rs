//! Ends jobs that have become steady (`steadystate`).
//!
//! Data flow: published totals, once per interval -> a window per job, or per group that is
//! reported as one -> a report for its members, and the order that ends them.
//!
//! Not here: how a window is judged (`fio_compat::stats`), the clock (`conductor`).

use fio_compat::Job;
use fio_compat::report::SteadyReport;
use fio_compat::stats::{SteadyPoint, SteadyWindow};

use super::lane::{Lane, Order, Stage};
use super::sampler::Sampler;

/// What the members of a group have done together.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    ios: u64,
    bytes: u64,
    latency_ns: u64,
    latencies: u64,
}

/// One group that is judged together.
struct Group {
    members: Vec<usize>,
    window: SteadyWindow,
    /// When the interval that runs began, and what was done by then; 0 before the first.
    since_ns: u64,
    since: Sums,
    due_ns: u64,
    over: bool,
}

/// All groups of a stage that end when they are steady.
pub(super) struct SteadyGroups<'a> {
    jobs: Vec<&'a Job>,
    groups: Vec<Group>,
}

impl<'a> SteadyGroups<'a> {
    /// The groups of these jobs, which are numbered as the lanes are.
    pub(super) fn of(jobs: impl Iterator<Item = &'a Job>) -> Self {
        let jobs: Vec<&Job> = jobs.collect();
        let mut groups: Vec<Group> = Vec::new();
        for (at, job) in jobs.iter().enumerate() {
            let Some(criterion) = job.steering.steady else { continue };
            let joins = |group: &&mut Group| {
                let first = jobs[group.members[0]];
                let one = first.group_reporting && job.group_reporting;
                one && first.group_id == job.group_id && first.steering == job.steering
            };
            if let Some(group) = groups.last_mut().filter(joins) {
                group.members.push(at);
                continue;
            }
            let points = job.steering.steady_ns / job.steering.steady_interval_ns.max(1);
            let capacity = usize::try_from(points).unwrap_or(usize::MAX);
            groups.push(Group {
                members: vec![at],
                window: SteadyWindow::new(criterion, capacity),
                since_ns: 0,
                since: Sums::default(),
                due_ns: u64::MAX,
                over: false,
            });
        }
        Self { jobs, groups }
    }

    /// Ends intervals that are due; when the next one is.
    pub(super) fn look(&mut self, lanes: &[Lane], samplers: &mut [Sampler], now_ns: u64) -> u64 {
        let Self { jobs, groups } = self;
        let due = groups.iter_mut().map(|group| group.look(jobs, lanes, samplers, now_ns));
        due.min().unwrap_or(u64::MAX)
    }
}

impl Group {
    fn look(
        &mut self,
        jobs: &[&Job],
        lanes: &[Lane],
        samplers: &mut [Sampler],
        now_ns: u64,
    ) -> u64 {
        let job = jobs[self.members[0]];
        let ended = |at: &usize| lanes[*at].stage() == Stage::Ended;
        if self.since_ns == 0 {
            self.tell(job, samplers);
        }
        self.over |= self.members.iter().all(ended);
        if self.over {
            return u64::MAX;
        }
        if self.since_ns == 0 {
            let Some(begin_ns) = self.begin_ns(jobs, lanes) else { return u64::MAX };
            if now_ns < begin_ns {
                return begin_ns;
            }
            (self.since_ns, self.since) = (now_ns, self.sums(lanes));
            self.due_ns = now_ns + job.steering.steady_interval_ns;
        }
        if now_ns >= self.due_ns {
            let sums = self.sums(lanes);
            self.window.push(point(self.since, sums, now_ns - self.since_ns));
            (self.since_ns, self.since) = (now_ns, sums);
            // Intervals that were slept through are one; the next has its full length again.
            let interval_ns = job.steering.steady_interval_ns;
            let due_ns = self.due_ns + interval_ns;
            let soon = due_ns < now_ns + interval_ns / 2;
            self.due_ns = if soon { now_ns + interval_ns } else { due_ns };
            self.tell(job, samplers);
            if self.window.verdict().attained {
                self.over = true;
                self.members.iter().for_each(|at| lanes[*at].give(Order::TimeUp));
            }
        }
        self.due_ns
    }

    /// When the first interval begins; `None` until all members have.
    fn begin_ns(&self, jobs: &[&Job], lanes: &[Lane]) -> Option<u64> {
        let ramp = |at: &usize| jobs[*at].ramp_time_ns + jobs[*at].steering.steady_ramp_ns;
        let begin = |at: &usize| lanes[*at].started_ns().map(|started| started + ramp(at));
        self.members.iter().map(begin).try_fold(0, |latest, begin| Some(latest.max(begin?)))
    }

    fn sums(&self, lanes: &[Lane]) -> Sums {
        let mut sums = Sums::default();
        for at in &self.members {
            for totals in lanes[*at].totals() {
                sums.ios += totals.ios;
                sums.bytes += totals.bytes;
            }
            let (latency_ns, latencies) = lanes[*at].latency();
            sums.latency_ns = sums.latency_ns.saturating_add(latency_ns);
            sums.latencies += latencies;
        }
        sums
    }

    fn tell(&self, job: &Job, samplers: &mut [Sampler]) {
        let Some(criterion) = job.steering.steady else { return };
        let report = SteadyReport::of(criterion, job.steering.steady_ns, &self.window);
        for at in &self.members {
            samplers[*at].steady = Some(report.clone());
        }
    }
}

/// The rates of an interval.
fn point(before: Sums, after: Sums, spent_ns: u64) -> SteadyPoint {
    let rate = |before: u64, after: u64| {
        let done = u128::from(after.saturating_sub(before)) * 1_000_000_000;
        let rate = done.checked_div(u128::from(spent_ns)).unwrap_or(0);
        u64::try_from(rate).unwrap_or(u64::MAX)
    };
    let latency_ns = after.latency_ns.saturating_sub(before.latency_ns);
    let latencies = after.latencies.saturating_sub(before.latencies);
    SteadyPoint {
        iops: rate(before.ios, after.ios),
        bandwidth_bytes: rate(before.bytes, after.bytes),
        latency_ns: latency_ns.checked_div(latencies).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use fio_compat::stats::{SteadyCriterion, SteadyMeasure};

    use super::*;
    use crate::run::lane::Totals;

    const SECOND_NS: u64 = 1_000_000_000;

    fn job(measure: SteadyMeasure) -> Job {
        let mut job = Job::new("a");
        let criterion = SteadyCriterion { measure, slope: false, limit: 10.0, percent: true };
        job.steering.steady = Some(criterion);
        (job.steering.steady_ns, job.steering.steady_ramp_ns) = (2 * SECOND_NS, SECOND_NS);
        job.group_reporting = true;
        job
    }

    fn publish(lane: &Lane, ios: u64) {
        let none = Totals::default();
        lane.publish(&[Totals { ios, bytes: ios * 4096 }, none, none]);
    }

    /// Two jobs of one group whose sum is steady although neither of them is.
    #[test]
    fn group_is_judged_by_its_sum_and_ends_as_one() {
        let jobs = [job(SteadyMeasure::Iops), job(SteadyMeasure::Iops)];
        let lanes = [Lane::new(false), Lane::new(false)];
        let mut samplers: Vec<Sampler> = jobs.iter().map(|job| Sampler::new(job, None)).collect();
        let mut groups = SteadyGroups::of(jobs.iter());
        assert_eq!(groups.groups.len(), 1);
        lanes[0].start(SECOND_NS);
        assert_eq!(groups.look(&lanes, &mut samplers, SECOND_NS), u64::MAX);
        assert!(samplers[1].steady.is_some(), "a job that ends early says so as well");
        lanes[1].start(SECOND_NS);
        assert_eq!(groups.look(&lanes, &mut samplers, SECOND_NS), 2 * SECOND_NS);
        assert_eq!(groups.look(&lanes, &mut samplers, 2 * SECOND_NS), 3 * SECOND_NS);
        for (second, (one, other)) in [(3, (90, 10)), (4, (100, 100))] {
            assert_ne!(lanes[0].order(), Order::TimeUp);
            publish(&lanes[0], one);
            publish(&lanes[1], other);
            groups.look(&lanes, &mut samplers, second * SECOND_NS);
        }
        assert_eq!((lanes[0].order(), lanes[1].order()), (Order::TimeUp, Order::TimeUp));
        let report = samplers[1].steady.as_ref().unwrap();
        assert!(report.verdict.attained);
        assert_eq!(
            report.means(),
            SteadyPoint { iops: 100, bandwidth_bytes: 409_600, latency_ns: 0 }
        );
    }

    #[test]
    fn latency_of_an_interval_is_the_mean_of_its_own_ios() {
        let before = Sums { latency_ns: 1000, latencies: 10, ..Sums::default() };
        let after = Sums { latency_ns: 1600, latencies: 12, ..before };
        assert_eq!(point(before, after, SECOND_NS).latency_ns, 300);
        assert_eq!(point(after, after, SECOND_NS).latency_ns, 0);
    }
}
