//! Minimum, maximum, mean and standard deviation of integers, without keeping them.
//!
//! Data flow: values -> exact integer sums -> moments on demand.
//!
//! Not here: percentiles (`histogram`), sampled rates and their odd merge (`samples`).

use super::approximate;

/// Running moments of nanosecond values.
///
/// Keeps the sum and the sum of squares as integers: recording costs one multiplication instead
/// of Welford's division, nothing is rounded, and merging is exact in any order.
/// Sums saturate: 584 years of summed latency, or squares of latencies above 18 s of 10^18 I/Os.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningStat {
    count: u64,
    min: u64,
    max: u64,
    sum: u64,
    squares: u128,
}

impl Default for RunningStat {
    fn default() -> Self {
        Self { count: 0, min: u64::MAX, max: 0, sum: 0, squares: 0 }
    }
}

impl RunningStat {
    /// Adds one value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.count += 1;
        // New extremes are rare, or all but each value is one: both are foretold well.
        if value < self.min {
            self.min = value;
        }
        if value > self.max {
            self.max = value;
        }
        let wide = u128::from(value);
        let (squares, beyond) = self.squares.overflowing_add(wide * wide);
        self.squares = squares;
        if beyond {
            self.saturate_squares();
        }
        let (sum, beyond) = self.sum.overflowing_add(value);
        self.sum = sum;
        if beyond {
            self.saturate_sum();
        }
    }

    // Calls, so that a sum that saturates costs nothing where it does not.
    #[cold]
    #[inline(never)]
    const fn saturate_sum(&mut self) {
        self.sum = u64::MAX;
    }

    #[cold]
    #[inline(never)]
    const fn saturate_squares(&mut self) {
        self.squares = u128::MAX;
    }

    /// Adds one value `count` times.
    #[inline]
    pub fn record_many(&mut self, value: u64, count: u64) {
        if count == 0 {
            return;
        }
        self.count += count;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.sum = self.sum.saturating_add(value.saturating_mul(count));
        let wide = u128::from(value);
        self.squares = self.squares.saturating_add((wide * wide).saturating_mul(count.into()));
    }

    /// What it would be had each of its values been greater by `by`.
    #[must_use]
    pub fn plus(&self, by: u64) -> Self {
        if self.count == 0 {
            return *self;
        }
        let (count, wide) = (u128::from(self.count), u128::from(by));
        // (x + by)² = x² + 2 by x + by²
        let twice = wide.saturating_mul(u128::from(self.sum)).saturating_mul(2);
        let more = twice.saturating_add((wide * wide).saturating_mul(count));
        Self {
            count: self.count,
            min: self.min.saturating_add(by),
            max: self.max.saturating_add(by),
            sum: self.sum.saturating_add(by.saturating_mul(self.count)),
            squares: self.squares.saturating_add(more),
        }
    }

    /// The sum of the values.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// Adds everything the other has seen; the same as having recorded it here.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum = self.sum.saturating_add(other.sum);
        self.squares = self.squares.saturating_add(other.squares);
    }

    /// Restores a statistic from its moments, for results that come from elsewhere.
    #[must_use]
    pub fn from_moments(count: u64, min: u64, max: u64, mean: f64, stddev: f64) -> Self {
        if count == 0 {
            return Self::default();
        }
        let n = approximate(u128::from(count));
        let sum = nearest(mean * n);
        let deviations = stddev * stddev * (n - 1.0);
        let squares = sum_squared_over(sum, count).saturating_add(u128::from(nearest(deviations)));
        Self { count, min, max, sum, squares }
    }

    /// How many values were recorded.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The smallest value, 0 if there is none.
    #[must_use]
    pub const fn min(&self) -> u64 {
        if self.count == 0 { 0 } else { self.min }
    }

    /// The largest value, 0 if there is none.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The mean, 0 if there are no values.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        approximate(u128::from(self.sum)) / approximate(u128::from(self.count))
    }

    /// The sample standard deviation (divisor n - 1), 0 for fewer than two values.
    #[must_use]
    pub fn stddev(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        // The difference is taken between integers, so nothing cancels.
        let whole = self.squares.saturating_sub(sum_squared_over(self.sum, self.count));
        let deviations = approximate(whole) - remainder_over(self.sum, self.count);
        (deviations.max(0.0) / approximate(u128::from(self.count - 1))).sqrt()
    }
}

/// sum² / count, rounded down.
fn sum_squared_over(sum: u64, count: u64) -> u128 {
    u128::from(sum) * u128::from(sum) / u128::from(count)
}

/// What [`sum_squared_over`] rounded away, as a fraction.
fn remainder_over(sum: u64, count: u64) -> f64 {
    let rest = u128::from(sum) * u128::from(sum) % u128::from(count);
    approximate(rest) / approximate(u128::from(count))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float to integer casts saturate, and a negative or absent moment means zero"
)]
fn nearest(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> RunningStat {
        let mut stat = RunningStat::default();
        values.iter().for_each(|value| stat.record(*value));
        stat
    }

    #[test]
    fn no_values_read_as_zero() {
        let stat = RunningStat::default();
        assert_eq!((stat.count(), stat.min(), stat.max()), (0, 0, 0));
        assert!(stat.mean() == 0.0 && stat.stddev() == 0.0);
    }

    #[test]
    fn one_value_has_no_deviation() {
        let stat = of(&[7]);
        assert_eq!((stat.min(), stat.max()), (7, 7));
        assert!(stat.stddev() == 0.0);
    }

    /// Sums of squares held in floats get this wrong: the variance drowns in the mean.
    #[test]
    fn small_deviation_on_a_huge_offset_is_exact() {
        let base = 1 << 50;
        let stat = of(&[base + 1, base + 2, base + 3]);
        assert!((stat.stddev() - 1.0).abs() < 1e-12, "{}", stat.stddev());
    }

    #[test]
    fn greater_by_a_number_is_as_if_each_had_been() {
        let values = [100, 250, 4_000, 90_000];
        assert_eq!(of(&values).plus(777), of(&values.map(|value| value + 777)));
        assert_eq!(of(&[]).plus(777), of(&[]));
        assert_eq!(of(&values).sum(), 94_350);
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        let mut stat = of(&[u64::MAX, u64::MAX, 0]);
        assert_eq!(stat.plus(u64::MAX).max(), u64::MAX);
        assert_eq!((stat.sum(), stat.squares), (u64::MAX, u128::MAX));
        let copy = stat;
        stat.merge(&copy);
        assert!(stat.mean().is_finite() && stat.stddev().is_finite());
    }

    #[test]
    fn moments_restore_the_statistic() {
        let stat = of(&[100, 250, 4_000, 90_000]);
        let moments = (stat.count(), stat.min(), stat.max(), stat.mean(), stat.stddev());
        let again =
            RunningStat::from_moments(moments.0, moments.1, moments.2, moments.3, moments.4);
        assert!((again.mean() - stat.mean()).abs() < 1e-6);
        assert!((again.stddev() - stat.stddev()).abs() < 1e-3);
    }
}
