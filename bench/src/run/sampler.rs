//! Bandwidth and I/Os per second of one worker, sampled twice a second as fio does.
//!
//! Data flow: published totals at known times -> rates -> `SampleStat` and lines of logs. An
//! interval without any completion is skipped, which is fio's definition, not our taste.
//!
//! Not here: who calls it when (`conductor`).

use fio_compat::Job;
use fio_compat::report::{DirectionReport, SteadyReport};
use fio_compat::stats::SampleStat;

use super::lane::Totals;
use super::logs::{Handles, RateLogs};
use super::minimum::Minimum;

/// One kind of window: how long, and what was done when it began.
#[derive(Debug, Default)]
struct Window {
    interval_ns: u64,
    last_ns: u64,
    last: [Totals; 3],
}

/// Samples of one worker: reads, writes, trims.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// Bandwidth, I/Os per second, logs; those that nobody wants are missing.
    windows: [Option<Window>; 3],
    logs: Option<RateLogs>,
    bandwidth: [SampleStat; 3],
    iops: [SampleStat; 3],
    /// Minimum rates, judged beside the samples.
    pub(crate) minimum: Minimum,
    /// Whether the worker, or its group, is steady.
    pub(crate) steady: Option<SteadyReport>,
}

impl Window {
    fn of_ms(interval_ms: u32) -> Self {
        Self { interval_ns: u64::from(interval_ms) * 1_000_000, ..Self::default() }
    }

    fn due_ns(&self) -> u64 {
        self.last_ns + self.interval_ns
    }

    /// Ends the window: how long it was, and what was done in it.
    fn take(&mut self, now_ns: u64, totals: [Totals; 3]) -> (u64, [Totals; 3]) {
        let elapsed_ms = now_ns.saturating_sub(self.last_ns) / 1_000_000;
        let since = |index: usize| Totals {
            ios: totals[index].ios - self.last[index].ios,
            bytes: totals[index].bytes - self.last[index].bytes,
        };
        let done = std::array::from_fn(since);
        self.last_ns = now_ns;
        self.last = totals;
        (elapsed_ms, done)
    }
}

impl Sampler {
    /// No sample yet.
    pub(crate) fn new(job: &Job, logs: Option<&Handles>) -> Self {
        let logs = logs.and_then(Handles::for_sampler);
        let (bw_ms, iops_ms) = (job.reporting.bw_window_ms, job.reporting.iops_window_ms);
        Self {
            windows: [
                Some(Window::of_ms(bw_ms)),
                Some(Window::of_ms(iops_ms)),
                logs.is_some().then(|| Window::of_ms(job.logs.avg_ms)),
            ],
            logs,
            bandwidth: Default::default(),
            iops: Default::default(),
            minimum: Minimum::default(),
            steady: None,
        }
    }

    /// Recording begins now; what happened before is not sampled.
    pub(crate) fn begin(&mut self, now_ns: u64, totals: [Totals; 3]) {
        for window in self.windows.iter_mut().flatten() {
            window.last_ns = now_ns.max(1);
            window.last = totals;
        }
        if let Some(logs) = &mut self.logs {
            logs.begin(now_ns);
        }
    }

    /// Recording begins anew: earlier samples are forgotten.
    pub(crate) fn restart(&mut self, now_ns: u64, totals: [Totals; 3]) {
        (self.bandwidth, self.iops) = Default::default();
        for window in self.windows.iter_mut().flatten() {
            (window.last_ns, window.last) = (now_ns.max(1), totals);
        }
    }

    /// When the next sample is due; `None` before the beginning and without samples.
    pub(crate) fn due_ns(&self) -> Option<u64> {
        let begun = self.windows.iter().flatten().filter(|window| window.last_ns > 0);
        begun.map(Window::due_ns).min()
    }

    /// Takes the samples that are due.
    pub(crate) fn sample(&mut self, now_ns: u64, totals: [Totals; 3]) {
        for index in 0..self.windows.len() {
            let due = |window: &&mut Window| window.last_ns > 0 && now_ns >= window.due_ns();
            let Some(window) = self.windows[index].as_mut().filter(due) else { continue };
            let (elapsed_ms, done) = window.take(now_ns, totals);
            match index {
                0 => record(&mut self.bandwidth, elapsed_ms, done.map(|d| d.bytes), 1024),
                1 => record(&mut self.iops, elapsed_ms, done.map(|d| d.ios), 1),
                _ => self.log(now_ns, elapsed_ms, done),
            }
        }
    }

    /// The worker has ended: what its logs lack goes into a last, shorter window.
    pub(crate) fn finish(&mut self, now_ns: u64, totals: [Totals; 3]) {
        if let Some(window) = self.windows[2].as_mut().filter(|window| window.last_ns > 0) {
            let (elapsed_ms, done) = window.take(now_ns, totals);
            self.log(now_ns, elapsed_ms, done);
        }
        self.windows = Default::default();
        self.logs = None;
    }

    fn log(&self, now_ns: u64, elapsed_ms: u64, done: [Totals; 3]) {
        if let Some(logs) = &self.logs {
            logs.window(now_ns, elapsed_ms, done);
        }
    }

    /// Moves the samples into the report.
    pub(crate) fn fill(&self, reports: [&mut DirectionReport; 3]) {
        for (report, direction) in reports.into_iter().zip(0..) {
            report.bw = self.bandwidth[direction];
            report.iops = self.iops[direction];
        }
    }
}

/// One sample per direction that moved.
fn record(stats: &mut [SampleStat; 3], elapsed_ms: u64, done: [u64; 3], unit: u64) {
    for (stat, amount) in stats.iter_mut().zip(done) {
        if let Some(rate) = (amount * 1000).checked_div(elapsed_ms).filter(|_| amount > 0) {
            stat.record(rate / unit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN_NS: u64 = 1_000_000_000;
    const MS: u64 = 1_000_000;

    fn reads(ios: u64) -> [Totals; 3] {
        [Totals { ios, bytes: ios * 4096 }, Totals::default(), Totals::default()]
    }

    #[test]
    fn half_a_second_of_work_is_one_sample_and_idleness_is_none() {
        let mut sampler = Sampler::new(&Job::new("a"), None);
        assert_eq!(sampler.due_ns(), None);
        sampler.begin(BEGUN_NS, Default::default());
        sampler.sample(BEGUN_NS + 500 * MS, reads(50));
        sampler.sample(BEGUN_NS + 1000 * MS, reads(50));
        assert_eq!((sampler.iops[0].samples(), sampler.iops[0].max()), (1, 100));
        assert_eq!((sampler.bandwidth[0].max(), sampler.bandwidth[1].samples()), (400, 0));
    }

    #[test]
    fn bwavgtime_and_iopsavgtime_set_their_own_windows() {
        let mut job = Job::new("a");
        (job.reporting.bw_window_ms, job.reporting.iops_window_ms) = (100, 300);
        let mut sampler = Sampler::new(&job, None);
        sampler.begin(BEGUN_NS, Default::default());
        for step in 1..=6 {
            assert!(sampler.due_ns().is_some_and(|due_ns| due_ns <= BEGUN_NS + step * 100 * MS));
            sampler.sample(BEGUN_NS + step * 100 * MS, reads(step * 10));
        }
        assert_eq!((sampler.bandwidth[0].samples(), sampler.iops[0].samples()), (6, 2));
        assert_eq!((sampler.bandwidth[0].max(), sampler.iops[0].max()), (400, 100));
    }
}
