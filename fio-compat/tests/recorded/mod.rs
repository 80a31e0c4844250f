//! Statistics with the numbers of recorded fio output, so that it can be printed again.
//!
//! Data flow: printed moments and percentiles -> `LatencyStat` that prints the same.
//!
//! Not here: the recorded runs themselves (`normal_output`, `json_output`).

use fio_compat::report::Percentiles;
use fio_compat::stats::{BINS, Histogram, LatencyStat, RunningStat};

/// A latency with these moments and a histogram that has exactly these percentiles.
pub(crate) fn latency(moments: RunningStat, percentile_values: &[u64]) -> LatencyStat {
    let mut histogram = Histogram::default();
    let list = Percentiles::default().list;
    let mut placed = 0;
    for (percent, value) in list.iter().zip(percentile_values) {
        // The first count that reaches the percentile; what lies between two goes to the upper.
        let reach = whole((percent / 100.0 * moments.count() as f64).ceil());
        histogram.add(*value, reach.max(1).saturating_sub(placed));
        placed = reach.max(1).max(placed);
    }
    let last = percentile_values.last().copied().unwrap_or(moments.max());
    histogram.add(last, moments.count() - placed);
    LatencyStat { moments, histogram }
}

/// The value of a bin that rounds up to so many microseconds.
#[allow(dead_code, reason = "JSON has nanoseconds")]
pub(crate) fn bin_shown_as_us(microseconds: u64) -> u64 {
    (0..BINS)
        .map(Histogram::value_of)
        .find(|value| value.div_ceil(1000) == microseconds)
        .expect("recorded percentiles are bin midpoints")
}

/// A float that holds a whole number, as an integer.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "recorded counts are small and positive"
)]
pub(crate) fn whole(value: f64) -> u64 {
    value.round() as u64
}
