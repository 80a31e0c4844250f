//! Bandwidth and I/Os per second of one worker, sampled twice a second as fio does.
//!
//! Data flow: published totals at known times -> rates -> `SampleStat`. An interval without any
//! completion is skipped, which is fio's definition, not our taste.
//!
//! Not here: who calls it when (`conductor`).

use fio_compat::report::DirectionReport;
use fio_compat::stats::SampleStat;

use super::lane::Totals;
use super::minimum::Minimum;

/// fio's `bwavgtime` and `iopsavgtime`.
pub(crate) const INTERVAL_NS: u64 = 500_000_000;

/// Samples of one worker: reads, writes, trims.
#[derive(Debug)]
pub(crate) struct Sampler {
    enabled: bool,
    last_ns: u64,
    last: [Totals; 3],
    bandwidth: [SampleStat; 3],
    iops: [SampleStat; 3],
    /// Minimum rates, judged beside the samples.
    pub(crate) minimum: Minimum,
}

impl Sampler {
    /// No sample yet; `enabled` is false for jobs that do not want any.
    pub(crate) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            last_ns: 0,
            last: Default::default(),
            bandwidth: Default::default(),
            iops: Default::default(),
            minimum: Minimum::default(),
        }
    }

    /// Recording begins now; what happened before is not sampled.
    pub(crate) fn begin(&mut self, now_ns: u64, totals: [Totals; 3]) {
        self.last_ns = now_ns.max(1);
        self.last = totals;
    }

    /// When the next sample is due; `None` before [`Sampler::begin`].
    pub(crate) fn due_ns(&self) -> Option<u64> {
        (self.enabled && self.last_ns != 0).then(|| self.last_ns + INTERVAL_NS)
    }

    /// Takes a sample of the time since the last one.
    pub(crate) fn sample(&mut self, now_ns: u64, totals: [Totals; 3]) {
        let elapsed_ms = (now_ns - self.last_ns) / 1_000_000;
        let per_second = |amount: u64| (amount * 1000).checked_div(elapsed_ms);
        for (direction, (now, last)) in totals.iter().zip(self.last).enumerate() {
            let (ios, bytes) = (now.ios - last.ios, now.bytes - last.bytes);
            if ios == 0 {
                continue;
            }
            if let (Some(iops), Some(bytes)) = (per_second(ios), per_second(bytes)) {
                self.iops[direction].record(iops);
                self.bandwidth[direction].record(bytes / 1024);
            }
        }
        self.last_ns = now_ns;
        self.last = totals;
    }

    /// Moves the samples into the report.
    pub(crate) fn fill(&self, reports: [&mut DirectionReport; 3]) {
        for (report, direction) in reports.into_iter().zip(0..) {
            report.bw = self.bandwidth[direction];
            report.iops = self.iops[direction];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_second_of_work_is_one_sample_and_idleness_is_none() {
        let mut sampler = Sampler::new(true);
        assert_eq!(sampler.due_ns(), None);
        sampler.begin(1_000_000_000, Default::default());
        let done = Totals { ios: 50, bytes: 50 * 4096 };
        let totals = [done, Totals::default(), Totals::default()];
        sampler.sample(1_500_000_000, totals);
        sampler.sample(2_000_000_000, totals);
        assert_eq!((sampler.iops[0].samples(), sampler.iops[0].max()), (1, 100));
        assert_eq!((sampler.bandwidth[0].max(), sampler.bandwidth[1].samples()), (400, 0));
    }
}
