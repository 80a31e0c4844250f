//! What the rounds of a comparison say: ratios, how sure they are, and whether gates hold.
//!
//! Data flow: [`Sample`]s, a row per round -> a [`Verdict`] per side against the first -> text
//! or JSON.
//!
//! Neighbours on the machine disturb all sides of a round alike, which is why ratios within a
//! round are compared and never sums over rounds.
//!
//! Not here: running (`sample`), the order of the rounds (`compare`).

use serde_json::{Value, json};

use crate::sample::Sample;
use crate::statistics::{Median, median};

/// The first side against another.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    /// Name of the other side.
    pub(super) other: String,
    /// I/Os per second of the first through those of the other.
    pub(super) iops: Median,
    /// CPU time per I/O of the first through that of the other.
    pub(super) cpu: Median,
}

/// What must hold for exit code 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Gates {
    /// The least ratio of I/Os per second.
    pub(super) ratio_min: Option<f64>,
    /// The largest ratio of CPU time per I/O.
    pub(super) cpu_ratio_max: Option<f64>,
    /// Whether the bound of the interval has to hold it, and not only the median.
    pub(super) by_bound: bool,
}

impl Verdict {
    /// Of column `column` of the rounds, which is the side `other`.
    pub(super) fn of(rounds: &[Vec<Sample>], column: usize, other: &str) -> Self {
        let ratios = |of: fn(&Sample) -> f64| {
            let ratio = |round: &Vec<Sample>| of(&round[0]) / of(&round[column]);
            median(&rounds.iter().map(ratio).collect::<Vec<_>>())
        };
        Self {
            other: other.to_owned(),
            iops: ratios(|sample| sample.iops),
            cpu: ratios(|sample| sample.cpu_ns_per_io),
        }
    }

    /// One line for each figure.
    pub(super) fn lines(&self) -> String {
        format!(
            "IOPS a/{0}: {1}\nCPU per I/O a/{0}: {2}\n",
            self.other,
            shown(self.iops),
            shown(self.cpu)
        )
    }

    /// A line for each gate that does not hold.
    pub(super) fn failures(&self, gates: Gates) -> Vec<String> {
        let other = &self.other;
        let of = |median: Median, bound: f64| if gates.by_bound { bound } else { median.value };
        let (iops, cpu) = (of(self.iops, self.iops.low), of(self.cpu, self.cpu.high));
        // A ratio that is no number holds no gate.
        let slow = gates.ratio_min.filter(|least| !at_least(iops, *least)).map(|least| {
            format!("FAILED: the IOPS ratio a/{other} {iops:.4} is below --min-ratio {least}")
        });
        let costly = gates.cpu_ratio_max.filter(|most| !at_least(*most, cpu)).map(|most| {
            format!("FAILED: the CPU ratio a/{other} {cpu:.4} is above --max-cpu-ratio {most}")
        });
        slow.into_iter().chain(costly).collect()
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "a": "a", "b": self.other,
            "iops": document(self.iops), "cpu_per_io": document(self.cpu),
        })
    }
}

fn at_least(value: f64, least: f64) -> bool {
    value >= least
}

fn shown(median: Median) -> String {
    format!(
        "median {:.4}, {:.1}% confidence [{:.4}, {:.4}], {}",
        median.value,
        median.confidence_percent,
        median.low,
        median.high,
        if significant(median) { "significant" } else { "not significant" },
    )
}

/// Whether the two sides differ: equality is outside an interval that deserves the name.
pub(super) fn significant(median: Median) -> bool {
    median.confidence_percent >= 95.0 && !(median.low..=median.high).contains(&1.0)
}

fn document(median: Median) -> Value {
    json!({
        "median": median.value,
        "low": median.low,
        "high": median.high,
        "confidence_percent": median.confidence_percent,
        "significant": significant(median),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(ratios: &[f64]) -> Vec<Vec<Sample>> {
        let sample = |iops| Sample { iops, cpu_ns_per_io: 1e9 / iops, ..Sample::default() };
        ratios.iter().map(|ratio| vec![sample(1000.0 * ratio), sample(1000.0)]).collect()
    }

    #[test]
    fn difference_is_significant_where_equality_is_outside_the_interval() {
        let of = |ratios: &[f64]| Verdict::of(&rounds(ratios), 1, "b");
        let faster = of(&[1.1, 1.2, 1.1, 1.3, 1.1, 1.2, 1.05]);
        assert!(significant(faster.iops) && significant(faster.cpu));
        assert!(
            (faster.iops.value - 1.1).abs() < 1e-9 && (faster.cpu.value - 1.0 / 1.1).abs() < 1e-9
        );
        let equal = of(&[1.1, 0.9, 1.0, 1.2, 0.8, 1.1, 0.9]);
        assert!(!significant(equal.iops));
        let few = of(&[1.5, 1.5, 1.5]);
        assert!(!significant(few.iops), "three rounds prove nothing");
        assert!(few.lines().contains("IOPS a/b: median 1.5000"), "{}", few.lines());
    }

    #[test]
    fn gates_hold_for_the_median_or_for_the_bound() {
        let verdict = Verdict::of(&rounds(&[1.1, 1.2, 1.1, 1.3, 1.1, 1.2, 0.95]), 1, "b");
        let gates = |by_bound| Gates { ratio_min: Some(1.0), cpu_ratio_max: Some(1.0), by_bound };
        assert!(verdict.failures(gates(false)).is_empty());
        let failures = verdict.failures(gates(true));
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(failures[0].starts_with("FAILED: the IOPS ratio a/b 0.9500 is below"));
        assert!(verdict.failures(Gates::default()).is_empty());
    }

    #[test]
    fn ratio_that_is_no_number_holds_no_gate() {
        let idle = Sample { iops: 1000.0, ..Sample::default() };
        let verdict = Verdict::of(&vec![vec![idle.clone(), idle]; 7], 1, "b");
        assert!(verdict.cpu.value.is_nan());
        for by_bound in [false, true] {
            let gates = Gates { ratio_min: Some(1.0), cpu_ratio_max: Some(1.0), by_bound };
            let failures = verdict.failures(gates);
            assert!(failures.len() == 1 && failures[0].contains("CPU ratio"), "{failures:?}");
        }
    }
}
