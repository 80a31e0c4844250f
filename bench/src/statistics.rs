//! A median, and how sure it is.
//!
//! Data flow: a handful of ratios -> median and a confidence interval from order statistics,
//! which needs no assumption about how the ratios are distributed.
//!
//! Not here: what the ratios are of (`compare`).

/// A median with the interval that contains the true one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Median {
    /// The middle of the values.
    pub(crate) value: f64,
    /// Lower end of the interval.
    pub(crate) low: f64,
    /// Upper end of the interval.
    pub(crate) high: f64,
    /// How often such an interval contains the true median, in percent.
    pub(crate) confidence_percent: f64,
}

/// The median of `values`, which is not empty, with an interval of at least 95 % confidence
/// where so few values can give one (six are enough), else the whole range.
pub(crate) fn median(values: &[f64]) -> Median {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let middle = count / 2;
    let value = if count.is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    };
    // The interval between the k-th smallest and the k-th largest misses the median when fewer
    // than k of the values fall on one side of it: a binomial tail on each side.
    let mut cut = 0;
    let mut missed = 2.0 * tail(count, 0);
    while cut + 1 < middle && 2.0 * tail(count, cut + 1) <= 0.05 {
        cut += 1;
        missed = 2.0 * tail(count, cut);
    }
    Median {
        value,
        low: sorted[cut],
        high: sorted[count - 1 - cut],
        confidence_percent: (1.0 - missed).max(0.0) * 100.0,
    }
}

/// The probability that at most `most` of `count` fair coins show heads.
fn tail(count: usize, most: usize) -> f64 {
    // In logarithms: 2^-1075 is 0.
    let mut term = -as_float(count) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for heads in 0..=most {
        sum += term.exp();
        term += (as_float(count - heads) / as_float(heads + 1)).ln();
    }
    sum
}

#[allow(clippy::cast_precision_loss, reason = "counts of rounds, far below 2^52")]
fn as_float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_values_give_their_whole_range_at_98_percent() {
        let found = median(&[3.0, 1.0, 2.0, 7.0, 5.0, 6.0, 4.0]);
        assert_eq!((found.value, found.low, found.high), (4.0, 1.0, 7.0));
        assert!((found.confidence_percent - 98.4375).abs() < 1e-9);
    }

    #[test]
    fn more_values_narrow_the_interval() {
        let values: Vec<f64> = (0..15_u32).map(f64::from).collect();
        let found = median(&values);
        assert_eq!((found.value, found.low, found.high), (7.0, 3.0, 11.0));
        assert!(found.confidence_percent > 95.0 && found.confidence_percent < 97.0);
    }

    #[test]
    fn interval_of_very_many_values_is_narrow_and_sure() {
        let values: Vec<f64> = (0..3000_u32).map(f64::from).collect();
        let found = median(&values);
        assert!((95.0..96.0).contains(&found.confidence_percent), "{found:?}");
        // One and 96 hundredths of a standard deviation of 27 on either side.
        assert!((1440.0..1450.0).contains(&found.low), "{found:?}");
        assert!((1550.0..1560.0).contains(&found.high), "{found:?}");
    }

    #[test]
    fn one_value_is_a_median_without_confidence() {
        let found = median(&[2.5]);
        assert_eq!((found.value, found.low, found.high), (2.5, 2.5, 2.5));
        assert!(found.confidence_percent < 1e-9);
    }
}
