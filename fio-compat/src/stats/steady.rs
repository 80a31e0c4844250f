//! Whether a rate has become steady: a window of points, judged by spread or by slope.
//!
//! Data flow: a point per interval -> the newest points -> mean, deviation or slope -> verdict.
//!
//! Not here: taking the points and ending jobs (the bench), texts (`render`).

use std::collections::VecDeque;

use super::approximate;

/// What has to be steady.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SteadyMeasure {
    /// I/Os per second.
    Iops,
    /// Bytes per second.
    Bandwidth,
    /// Mean latency.
    Latency,
}

/// When a measure counts as steady (`steadystate`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SteadyCriterion {
    /// What is looked at.
    pub measure: SteadyMeasure,
    /// The slope of the least-squares line, per interval, instead of the largest deviation.
    pub slope: bool,
    /// What the slope or the deviation has to stay below.
    pub limit: f64,
    /// The limit is in percent of the mean.
    pub percent: bool,
}

impl SteadyCriterion {
    /// fio's word for it, such as `iops_slope`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match (self.measure, self.slope) {
            (SteadyMeasure::Iops, false) => "iops",
            (SteadyMeasure::Iops, true) => "iops_slope",
            (SteadyMeasure::Bandwidth, false) => "bw",
            (SteadyMeasure::Bandwidth, true) => "bw_slope",
            (SteadyMeasure::Latency, false) => "lat",
            (SteadyMeasure::Latency, true) => "lat_slope",
        }
    }
}

/// What was done in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SteadyPoint {
    /// I/Os per second.
    pub iops: u64,
    /// Bytes per second.
    pub bandwidth_bytes: u64,
    /// Mean total latency of its I/Os; 0 where that is not measured.
    pub latency_ns: u64,
}

/// What a window says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SteadyVerdict {
    /// What is compared with the limit, in the unit of the limit; never negative.
    pub value: f64,
    /// The largest distance from the mean; 0 where the slope is asked for.
    pub max_deviation: f64,
    /// The slope per interval; 0 where the deviation is asked for.
    pub slope: f64,
    /// The window is full and its value below the limit.
    pub attained: bool,
}

/// The newest points of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct SteadyWindow {
    criterion: SteadyCriterion,
    capacity: usize,
    points: VecDeque<SteadyPoint>,
}

impl SteadyWindow {
    /// An empty window that judges once it has `capacity` points; at least 1.
    #[must_use]
    pub fn new(criterion: SteadyCriterion, capacity: usize) -> Self {
        Self { criterion, capacity: capacity.max(1), points: VecDeque::new() }
    }

    /// Adds a point; the oldest leaves a full window.
    pub fn push(&mut self, point: SteadyPoint) {
        if self.points.len() == self.capacity {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// The points, oldest first.
    pub fn points(&self) -> impl Iterator<Item = &SteadyPoint> {
        self.points.iter()
    }

    /// Judges the points so far. Without any, or while nothing moves, there is no steadiness.
    #[must_use]
    pub fn verdict(&self) -> SteadyVerdict {
        let values = self.points.iter().map(|point| match self.criterion.measure {
            SteadyMeasure::Iops => point.iops,
            SteadyMeasure::Bandwidth => point.bandwidth_bytes,
            SteadyMeasure::Latency => point.latency_ns,
        });
        let values: Vec<f64> = values.map(|value| approximate(u128::from(value))).collect();
        let mean = mean_of(&values);
        if mean <= 0.0 {
            return SteadyVerdict::default();
        }
        let slope = if self.criterion.slope { slope_of(&values) } else { 0.0 };
        let max_deviation = if self.criterion.slope {
            0.0
        } else {
            values.iter().map(|value| (value - mean).abs()).fold(0.0, f64::max)
        };
        let absolute = slope.abs().max(max_deviation);
        let value = if self.criterion.percent { 100.0 * absolute / mean } else { absolute };
        let full = self.points.len() == self.capacity;
        let attained = full && value < self.criterion.limit;
        SteadyVerdict { value, max_deviation, slope, attained }
    }
}

/// The mean, 0 of nothing.
fn mean_of(values: &[f64]) -> f64 {
    let count = approximate(values.len() as u128);
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / count }
}

/// The slope of the least-squares line through values at 0, 1, 2, …; 0 of a single one.
fn slope_of(values: &[f64]) -> f64 {
    let mean = mean_of(values);
    let middle = (approximate(values.len() as u128) - 1.0) / 2.0;
    let (mut together, mut spread) = (0.0, 0.0);
    for (at, value) in values.iter().enumerate() {
        let distance = approximate(at as u128) - middle;
        together += distance * (value - mean);
        spread += distance * distance;
    }
    if spread > 0.0 { together / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(slope: bool, limit: f64, percent: bool, iops: &[u64]) -> SteadyWindow {
        let criterion = SteadyCriterion { measure: SteadyMeasure::Iops, slope, limit, percent };
        let mut window = SteadyWindow::new(criterion, iops.len());
        for iops in iops {
            window.push(SteadyPoint { iops: *iops, ..SteadyPoint::default() });
        }
        window
    }

    /// The numbers of a run of fio 3.33 with `ss=bw_slope:5%`.
    #[test]
    fn steadystate_slope_is_that_of_fio() {
        let values = [4_100_581, 4_087_808, 4_112_400];
        let verdict = window(true, 5.0, true, &values).verdict();
        assert!((verdict.slope - 5909.5).abs() < 1e-6, "{verdict:?}");
        assert!((verdict.value - 0.144_125).abs() < 1e-6, "{verdict:?}");
        assert!(verdict.attained && verdict.max_deviation == 0.0);
    }

    #[test]
    fn steadystate_deviation_is_the_largest_from_the_mean() {
        let verdict = window(false, 6.0, true, &[95, 100, 105]).verdict();
        assert!((verdict.max_deviation - 5.0).abs() < 1e-9 && verdict.attained);
        assert!(!window(false, 5.0, true, &[95, 100, 105]).verdict().attained, "not below");
        assert!(!window(false, 4.0, false, &[95, 100, 105]).verdict().attained);
    }

    #[test]
    fn window_that_is_not_full_or_does_not_move_is_not_steady() {
        let mut short = window(false, 50.0, true, &[100, 100, 100]);
        short.capacity = 4;
        assert!(!short.verdict().attained);
        assert!(!window(false, 50.0, false, &[0, 0, 0]).verdict().attained);
        let mut full = window(false, 1.0, true, &[1, 100, 100]);
        full.push(SteadyPoint { iops: 100, ..SteadyPoint::default() });
        assert!(full.verdict().attained, "the oldest has left");
    }

    proptest! {
        /// A line has exactly its own slope, falling as well as rising; turning the window
        /// around turns the sign.
        #[test]
        fn slope_of_a_line_is_its_own(start in 1_000_000_u64..2_000_000, step in 0_u64..1000,
                                      count in 2_u64..100) {
            let mut values: Vec<u64> = (0..count).map(|at| start + at * step).collect();
            let rising = window(true, 1.0, false, &values).verdict();
            values.reverse();
            let falling = window(true, 1.0, false, &values).verdict();
            let step = approximate(u128::from(step));
            prop_assert!((rising.slope - step).abs() < 1e-3, "{} {}", rising.slope, step);
            prop_assert!((rising.slope + falling.slope).abs() < 1e-6);
            prop_assert!((rising.value - falling.value).abs() < 1e-6);
        }

        /// Shifting all points changes neither slope nor deviation; order does not matter to the
        /// deviation; a limit just above the value is attained and the value itself is not.
        #[test]
        fn verdict_depends_on_what_it_should(
            values in prop::collection::vec(1_u64..1_000_000, 2..50),
            shift in 1_u64..1000,
            slope in any::<bool>(),
        ) {
            let plain = window(slope, 1.0, false, &values).verdict();
            let shifted: Vec<u64> = values.iter().map(|value| value + shift).collect();
            let shifted = window(slope, 1.0, false, &shifted).verdict();
            prop_assert!((plain.value - shifted.value).abs() < 1e-3);
            prop_assert!(window(slope, plain.value + 1e-3, false, &values).verdict().attained);
            prop_assert!(!window(slope, plain.value, false, &values).verdict().attained);
            if !slope {
                let mut sorted = values.clone();
                sorted.sort_unstable();
                let sorted = window(false, 1.0, false, &sorted).verdict();
                prop_assert!((plain.value - sorted.value).abs() < 1e-3);
            }
        }
    }
}
