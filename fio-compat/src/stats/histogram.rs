//! fio's latency histogram: 29 groups of 64 bins, at most 0.8 % off below 17 s.
//!
//! Data flow: nanoseconds -> bin -> percentiles as bin midpoints.
//!
//! Not here: minimum, maximum and mean, which need no bins (`running`).

use super::approximate;

/// Number of bins.
pub const BINS: usize = 1856;

/// 64 bins to each power of two.
const BIN_BITS: u32 = 6;

/// Counts of values by magnitude. Cloning copies 15 KB; recording allocates nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64; BINS]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BINS]) }
    }
}

impl Histogram {
    /// Counts one value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.counts[Self::bin_of(value)] += 1;
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts.iter()) {
            *mine += theirs;
        }
    }

    /// Adds one value `count` times.
    #[inline]
    pub fn add(&mut self, value: u64, count: u64) {
        self.counts[Self::bin_of(value)] += count;
    }

    /// The counts of all bins, smallest values first.
    #[must_use]
    pub fn bins(&self) -> &[u64; BINS] {
        &self.counts
    }

    /// How many values were recorded; summed on demand to keep [`Histogram::record`] short.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The bin a value falls into; values from about 17.2 s on share the last one.
    #[inline]
    #[must_use]
    pub fn bin_of(value: u64) -> usize {
        // `| 127`: values below 128 have exponent 0 and are their own bin.
        let exponent = 63 - (value | 127).leading_zeros() - BIN_BITS;
        let group_start = u64::from(exponent) << BIN_BITS;
        let bin = group_start + (value >> exponent);
        usize::try_from(bin).unwrap_or(BINS).min(BINS - 1)
    }

    /// The value a bin stands for: exact below 128, else the middle of its range.
    #[must_use]
    pub fn value_of(bin: usize) -> u64 {
        let bin = u64::try_from(bin.min(BINS - 1)).unwrap_or(u64::MAX);
        if bin < 128 {
            return bin;
        }
        let exponent = (bin >> BIN_BITS) - 1;
        let base = 1u64 << (exponent + u64::from(BIN_BITS));
        // (k + 0.5) * 2^exponent, a whole number because the exponent is at least 1 here.
        base + (((bin % 64) * 2 + 1) << exponent) / 2
    }

    /// The value below which `percent` of the recorded values lie, as a bin midpoint;
    /// `None` if nothing was recorded.
    ///
    /// As it is a midpoint, it may lie above the largest recorded value.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<u64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let wanted = percent / 100.0 * approximate(u128::from(total));
        let mut seen = 0;
        for (bin, count) in self.counts.iter().enumerate() {
            seen += count;
            if approximate(u128::from(seen)) >= wanted {
                return Some(Self::value_of(bin));
            }
        }
        Some(Self::value_of(BINS - 1))
    }

    /// The bins that hold something, as (value the bin stands for, count), ascending.
    pub fn occupied(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bin, count)| (Self::value_of(bin), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// fio's own constants, also known to the tools that read its JSON.
    #[test]
    fn known_values_fall_into_fios_bins() {
        for (value, midpoint) in [(0, 0), (127, 127), (130, 131), (100_000, 99_840)] {
            assert_eq!(Histogram::value_of(Histogram::bin_of(value)), midpoint);
        }
        assert_eq!(Histogram::value_of(Histogram::bin_of(100_864)), 100_864);
        assert_eq!(Histogram::value_of(BINS - 1), 17_112_760_320);
        assert_eq!(Histogram::bin_of(u64::MAX), BINS - 1);
    }

    #[test]
    fn every_bin_midpoint_falls_into_its_own_bin() {
        for bin in 0..BINS {
            assert_eq!(Histogram::bin_of(Histogram::value_of(bin)), bin);
        }
    }

    #[test]
    fn empty_histogram_has_no_percentile() {
        assert_eq!(Histogram::default().percentile(50.0), None);
    }

    #[test]
    fn uniform_values_give_the_expected_percentiles() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|value| histogram.record(value));
        assert_eq!(histogram.percentile(1.0), Some(1));
        assert_eq!(histogram.percentile(50.0), Some(50));
        assert_eq!(histogram.percentile(100.0), Some(100));
    }
}
