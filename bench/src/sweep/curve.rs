//! The curve of throughput and latency: its points, its knee, and what meets a goal.
//!
//! Data flow: rounds of [`Sample`]s per value -> [`Point`]s -> knee and goal -> CSV and JSON.
//!
//! Not here: running (`sweep`), drawing (`plot`).

use serde_json::{Value, json};

use crate::sample::{Sample, remarks};
use crate::statistics::{Median, median};

/// One value of the axis, over all rounds.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// What the option was.
    pub(super) value: String,
    /// I/Os per second.
    pub(super) iops: Median,
    /// Bytes per second.
    pub(super) bytes_per_s: f64,
    /// CPU time of the workers per I/O.
    pub(super) cpu_ns_per_io: f64,
    /// Reads, writes and trims asked for by the option, if it is a rate.
    pub(super) rates: [u64; 3],
    /// The least share of its rates that the job reached.
    rate_share: Option<f64>,
    /// From the creation of an I/O to its completion on average, nanoseconds.
    residence_ns: f64,
    /// Whether what follows is measured since an I/O was due, and not since its creation.
    pub(super) by_schedule: bool,
    /// Latency, nanoseconds: the rounds together.
    pub(super) mean_ns: f64,
    /// 50th, 99th and 99.9th percentile, nanoseconds.
    pub(super) percentiles_ns: [u64; 3],
    /// The longest, nanoseconds.
    pub(super) max_ns: u64,
    /// The percentile of the goal, nanoseconds; 0 without a goal.
    pub(super) goal_ns: f64,
    /// I/Os that failed.
    errors: u64,
    /// What is wrong with the figures.
    pub(super) remarks: Vec<String>,
    /// The most that the hypervisor took, in percent.
    pub(super) steal_percent_max: f64,
    /// CPU time per I/O outside the worker's thread.
    elsewhere_ns_per_io: f64,
}

/// A job that does less than this share of its rate does not keep up with it.
const REACHED_MIN: f64 = 0.9;

/// The percentiles of each point.
pub(super) const PERCENTILES: [f64; 3] = [50.0, 99.0, 99.9];

impl Point {
    /// Puts the rounds of one value together.
    pub(super) fn of(value: &str, rounds: &[Sample], goal: Option<Goal>) -> Self {
        let figures = |of: fn(&Sample) -> f64| rounds.iter().map(of).collect::<Vec<_>>();
        let mut latency = fio_compat::stats::LatencyStat::default();
        let mut intended = fio_compat::stats::LatencyStat::default();
        for sample in rounds {
            latency.merge(&sample.latency);
            intended.merge(&sample.intended);
        }
        let residence_ns = latency.moments.mean();
        // What waits to be made counts as well, or a rate beyond all bounds would look fine.
        let by_schedule = intended.count() > 0;
        let latency = if by_schedule { intended } else { latency };
        let shares: Vec<f64> = rounds.iter().filter_map(|sample| sample.rate_share).collect();
        let percentile = |percent| latency.percentile(percent).unwrap_or(0);
        Self {
            value: value.to_owned(),
            iops: median(&figures(|sample| sample.iops)),
            bytes_per_s: median(&figures(|sample| sample.bytes_per_s)).value,
            cpu_ns_per_io: median(&figures(|sample| sample.cpu_ns_per_io)).value,
            rates: [0; 3],
            rate_share: (!shares.is_empty()).then(|| median(&shares).value),
            residence_ns,
            by_schedule,
            mean_ns: latency.moments.mean(),
            percentiles_ns: PERCENTILES.map(percentile),
            max_ns: latency.moments.max(),
            goal_ns: goal.map_or(0.0, |goal| goal.of(&latency)),
            errors: rounds.iter().map(|sample| sample.errors).sum(),
            remarks: remarks(rounds.iter()),
            steal_percent_max: figures(|sample| sample.steal_percent)
                .into_iter()
                .fold(0.0, f64::max),
            elsewhere_ns_per_io: median(&figures(|sample| sample.elsewhere_ns_per_io)).value,
        }
    }

    /// All rates together.
    pub(super) fn asked(&self) -> u64 {
        self.rates.iter().fold(0, |sum, rate| sum.saturating_add(*rate))
    }

    /// Whether the job kept up with its rates; one without any did.
    pub(super) fn is_reached(&self) -> bool {
        self.rate_share.is_none_or(|share| share >= REACHED_MIN)
    }

    /// I/Os in flight on average, by Little's law.
    pub(super) fn in_flight(&self) -> f64 {
        self.iops.value * self.residence_ns / 1e9
    }

    /// Kleinrock's power: throughput through latency.
    fn power(&self) -> f64 {
        self.iops.value / self.mean_ns.max(1.0)
    }
}

/// A latency that must not be exceeded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Goal {
    which: Which,
    limit_ns: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Which {
    Mean,
    Max,
    Percentile(f64),
}

impl Goal {
    /// Reads `p99<=500us`, `mean<=1ms` or `max<=20ms`; a number without a unit is microseconds.
    ///
    /// # Errors
    /// One line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("--goal={text} is no goal: write p99<=500us, mean<=1ms or max<=20ms");
        let (which, limit) = text.split_once("<=").ok_or_else(wrong)?;
        let which = match which.trim() {
            "mean" => Which::Mean,
            "max" => Which::Max,
            percentile => {
                let number = percentile.strip_prefix('p').and_then(|text| text.parse().ok());
                let number = number.filter(|number| *number > 0.0 && *number <= 100.0);
                Which::Percentile(number.ok_or_else(wrong)?)
            }
        };
        let limit = limit.trim();
        let end = limit.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
        let (number, unit) = limit.split_at(end.unwrap_or(limit.len()));
        let unit_ns = match unit {
            "ns" => 1.0,
            "" | "us" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            _ => return Err(wrong()),
        };
        let number = number.parse().ok().filter(|number: &f64| *number > 0.0).ok_or_else(wrong)?;
        Ok(Self { which, limit_ns: number * unit_ns })
    }

    #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a latency, far below 2^52")]
    fn of(self, latency: &fio_compat::stats::LatencyStat) -> f64 {
        match self.which {
            Which::Mean => latency.moments.mean(),
            Which::Max => latency.moments.max() as f64,
            Which::Percentile(percent) => latency.percentile(percent).unwrap_or(0) as f64,
        }
    }

    /// Whether the point stays within it, at the rate that was asked for.
    pub(super) fn is_met_by(self, point: &Point) -> bool {
        point.is_reached() && point.goal_ns <= self.limit_ns
    }
}

/// The point from which more load buys latency rather than throughput: where throughput through
/// mean latency is largest (Kleinrock, "Power and deterministic rules of thumb for
/// probabilistic problems in computer communications", 1979).
pub(super) fn knee(points: &[Point]) -> Option<usize> {
    let latency = points.iter().all(|point| point.mean_ns > 0.0);
    let best = |a: &&Point, b: &&Point| a.power().total_cmp(&b.power());
    let best = points.iter().max_by(best).filter(|_| latency)?;
    points.iter().position(|point| std::ptr::eq(point, best))
}

/// The point of the highest throughput among those that meet the goal.
pub(super) fn best(points: &[Point], goal: Goal) -> Option<usize> {
    let met = points.iter().enumerate().filter(|(_, point)| goal.is_met_by(point));
    met.max_by(|(_, a), (_, b)| a.iops.value.total_cmp(&b.iops.value)).map(|(index, _)| index)
}

/// A value in one field, whatever is in it.
fn field(value: &str) -> String {
    if value.contains([',', '"']) {
        return format!("\"{}\"", value.replace('"', "\"\""));
    }
    value.to_owned()
}

/// A header and a line per point.
pub(super) fn csv(option: &str, points: &[Point]) -> String {
    let mut text = format!(
        "{option},iops,iops_low,iops_high,bytes_per_s,mean_ns,p50_ns,p99_ns,p99.9_ns,max_ns,\
         in_flight,cpu_ns_per_io,rate_reached,errors,steal_percent_max,elsewhere_ns_per_io\n"
    );
    for point in points {
        let [p50, p99, p999] = point.percentiles_ns;
        text.push_str(&format!(
            "{},{:.1},{:.1},{:.1},{:.0},{:.0},{p50},{p99},{p999},{},{:.2},{:.1},\
             {},{},{:.1},{:.1}\n",
            field(&point.value),
            point.iops.value,
            point.iops.low,
            point.iops.high,
            point.bytes_per_s,
            point.mean_ns,
            point.max_ns,
            point.in_flight(),
            point.cpu_ns_per_io,
            u8::from(point.is_reached()),
            point.errors,
            point.steal_percent_max,
            point.elsewhere_ns_per_io,
        ));
    }
    text
}

/// For programs.
pub(super) fn json(points: &[Point]) -> Vec<Value> {
    let point = |point: &Point| {
        let [p50, p99, p999] = point.percentiles_ns;
        json!({
            "value": point.value,
            "iops": { "median": point.iops.value, "low": point.iops.low, "high": point.iops.high,
                      "confidence_percent": point.iops.confidence_percent },
            "bytes_per_s": point.bytes_per_s,
            "lat_ns": { "mean": point.mean_ns, "p50": p50, "p99": p99, "p99.9": p999,
                        "max": point.max_ns },
            "in_flight": point.in_flight(),
            "cpu_ns_per_io": point.cpu_ns_per_io,
            "lat_since": if point.by_schedule { "due" } else { "created" },
            "rate_share": point.rate_share,
            "rate_reached": point.is_reached(),
            "errors": point.errors,
            "steal_percent_max": point.steal_percent_max,
            "elsewhere_ns_per_io": point.elsewhere_ns_per_io,
        })
    };
    points.iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue that serves 10,000 I/Os a second, at each of these loads in percent.
    fn queue(loads: &[f64]) -> Vec<Point> {
        let point = |load: &f64| {
            let mut latency = fio_compat::stats::LatencyStat::default();
            let wait_us = 100.0 / (1.0 - load / 100.0);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            latency.record((wait_us * 1e3) as u64);
            let iops = load * 100.0;
            let sample = Sample { iops, latency, ..Sample::default() };
            Point::of(&load.to_string(), &[sample], Some(Goal::parse("mean<=400us").unwrap()))
        };
        loads.iter().map(point).collect()
    }

    #[test]
    fn knee_of_a_simple_queue_is_at_half_its_load() {
        let points = queue(&[10.0, 30.0, 50.0, 70.0, 90.0]);
        assert_eq!(knee(&points), Some(2));
        assert!((points[2].in_flight() - 1.0).abs() < 0.01, "{}", points[2].in_flight());
        assert_eq!(knee(&[]), None);
    }

    #[test]
    fn best_point_is_the_fastest_that_meets_the_goal() {
        let points = queue(&[10.0, 70.0, 90.0]);
        let goal = |text| Goal::parse(text).unwrap();
        assert_eq!(best(&points, goal("mean<=400us")), Some(1));
        assert_eq!(best(&points, goal("mean<=2ms")), Some(2));
        assert_eq!(best(&points, goal("mean<=1us")), None);
    }

    #[test]
    fn rate_that_was_not_reached_or_is_late_by_its_schedule_meets_no_goal() {
        let goal = Goal::parse("max<=1ms").unwrap();
        let point = |share, late_ns| {
            let mut sample = Sample { iops: 10.0, rate_share: Some(share), ..Sample::default() };
            sample.latency.record(1000);
            sample.intended.record(late_ns);
            Point::of("1", &[sample], Some(goal))
        };
        assert!(goal.is_met_by(&point(0.99, 5000)));
        assert!(!goal.is_met_by(&point(0.5, 5000)) && !goal.is_met_by(&point(1.0, 5_000_000)));
        let late = point(1.0, 5_000_000);
        assert!(late.mean_ns > 1e6 && late.in_flight() < 0.01, "{}", late.in_flight());
    }

    #[test]
    fn goals_have_units_and_the_rest_is_refused() {
        assert_eq!(Goal::parse("p99.9<=1.5ms").unwrap().limit_ns, 1_500_000.0);
        assert_eq!(Goal::parse("max<=20").unwrap(), Goal { which: Which::Max, limit_ns: 20e3 });
        for text in ["p99", "p0<=1ms", "p101<=1ms", "p99<=1h", "p99<=", "median<=1ms"] {
            assert!(Goal::parse(text).unwrap_err().contains("p99<=500us"), "{text}");
        }
    }

    #[test]
    fn csv_has_a_line_per_point_and_as_many_fields_as_its_header() {
        let text = csv("iodepth", &queue(&[10.0, 20.0]));
        let fields: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(fields, [16, 16, 16], "{text}");
    }
}
