//! Bandwidth and IOPS as sampled twice a second, with fio's way of adding jobs up.
//!
//! Data flow: one rate per interval -> moments -> summed field by field over a group.
//!
//! Not here: exact totals, which `report` computes from bytes and runtime; sampling times.

/// Moments of a sampled rate (KiB/s or I/Os per second).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SampleStat {
    samples: u64,
    min: u64,
    max: u64,
    mean: f64,
    /// Sum of squared deviations from the mean.
    deviations: f64,
}

impl SampleStat {
    /// Adds one sample (Welford's update; samples are rare, so its division costs nothing).
    pub fn record(&mut self, rate: u64) {
        self.min = if self.samples == 0 { rate } else { self.min.min(rate) };
        self.max = self.max.max(rate);
        self.samples += 1;
        let value = super::approximate(u128::from(rate));
        let distance = value - self.mean;
        self.mean += distance / super::approximate(u128::from(self.samples));
        self.deviations += distance * (value - self.mean);
    }

    /// Adds a job of the same group as fio does: every field is summed.
    ///
    /// The result is what fio prints, but not the deviation of the summed rate.
    pub fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.min += other.min;
        self.max += other.max;
        self.mean += other.mean;
        self.deviations += other.deviations;
    }

    /// Restores a statistic from its moments, for results that come from elsewhere.
    #[must_use]
    pub fn from_moments(samples: u64, min: u64, max: u64, mean: f64, stddev: f64) -> Self {
        let divisor = super::approximate(u128::from(samples.saturating_sub(1)));
        Self { samples, min, max, mean, deviations: stddev * stddev * divisor }
    }

    /// How many samples there are.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// The lowest rate.
    #[must_use]
    pub const fn min(&self) -> u64 {
        self.min
    }

    /// The highest rate.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The mean rate.
    #[must_use]
    pub const fn mean(&self) -> f64 {
        self.mean
    }

    /// The sample standard deviation, 0 for fewer than two samples.
    #[must_use]
    pub fn stddev(&self) -> f64 {
        if self.samples < 2 {
            return 0.0;
        }
        (self.deviations / super::approximate(u128::from(self.samples - 1))).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_give_textbook_moments() {
        let mut stat = SampleStat::default();
        [2, 4, 4, 4, 5, 5, 7, 9].into_iter().for_each(|rate| stat.record(rate));
        assert_eq!((stat.samples(), stat.min(), stat.max()), (8, 2, 9));
        assert!((stat.mean() - 5.0).abs() < 1e-12);
        assert!((stat.stddev() - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn merged_jobs_sum_every_field() {
        let mut stat = SampleStat::from_moments(3, 10, 30, 20.0, 2.0);
        stat.merge(&SampleStat::from_moments(3, 5, 6, 5.5, 1.0));
        assert_eq!((stat.samples(), stat.min(), stat.max()), (6, 15, 36));
        assert!((stat.mean() - 25.5).abs() < 1e-12);
        assert!((stat.stddev() - 2.0f64.sqrt()).abs() < 1e-12);
    }
}
