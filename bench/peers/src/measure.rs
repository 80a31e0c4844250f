//! Rows, their sides and forms, and what one alternating run says about them.
//!
//! Data flow: forms → rounds of A B A B … → ns per operation of each form → the fastest form of
//! each side → the ratio within each round → median and interval.
//!
//! Not here: what a form does (`ours`, `theirs`).

use std::time::Instant;

/// One way to do a row's work.
pub struct Form<'a> {
    /// For the table.
    pub name: &'static str,
    /// Does that many operations.
    pub run: Box<dyn FnMut(u64) + 'a>,
}

/// One line of the table: the same work on both sides.
pub struct Row<'a> {
    /// For the table.
    pub name: String,
    /// Bytes of an operation.
    pub bytes: usize,
    /// This crate's forms, then the peer's.
    pub sides: [Vec<Form<'a>>; 2],
}

/// A median, and the interval that contains the true one with at least 95 % confidence (with
/// fewer than six values: the whole range).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    /// The middle of the values.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// What was found of one row.
pub struct Found {
    /// ns per operation of each form, by side.
    pub forms_ns: [Vec<Median>; 2],
    /// The fastest form of each side.
    pub fastest: [usize; 2],
    /// The peer's time over ours, within each round.
    pub ratio: Median,
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds; each measures every form once.
    pub rounds: usize,
    /// Length of one measurement.
    pub measurement_ns: f64,
}

/// Measures `row`: every round takes all forms in turn, the sides alternating.
pub fn compare(row: &mut Row<'_>, plan: Plan) -> Found {
    let mut counts = [Vec::new(), Vec::new()];
    for (side, forms) in row.sides.iter_mut().enumerate() {
        counts[side] = forms.iter_mut().map(|form| calibrate(form, plan)).collect();
    }
    let mut times: [Vec<Vec<f64>>; 2] = [0, 1].map(|side| vec![Vec::new(); row.sides[side].len()]);
    for round in 0..plan.rounds {
        let longest = row.sides[0].len().max(row.sides[1].len());
        for turn in 0..longest {
            // Which side goes first changes from round to round.
            for side in [round % 2, 1 - round % 2] {
                if let Some(form) = row.sides[side].get_mut(turn) {
                    times[side][turn].push(time_ns(form, counts[side][turn]));
                }
            }
        }
    }
    let forms_ns = [0, 1].map(|side| times[side].iter().map(|ns| median(ns)).collect::<Vec<_>>());
    let fastest = [0, 1].map(|side| fastest_of(&forms_ns[side]));
    let [ours, theirs] = [0, 1].map(|side| &times[side][fastest[side]]);
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| theirs / ours).collect();
    Found { ratio: median(&ratios), forms_ns, fastest }
}

/// ns per operation of one form, alone.
pub fn alone(form: &mut Form<'_>, plan: Plan) -> Median {
    let count = calibrate(form, plan);
    let times: Vec<f64> = (0..plan.rounds).map(|_| time_ns(form, count)).collect();
    median(&times)
}

/// How many operations fill one measurement. Warms up on the way.
fn calibrate(form: &mut Form<'_>, plan: Plan) -> u64 {
    let mut count = 1024;
    loop {
        let took_ns = time_ns(form, count) * count as f64;
        if took_ns >= plan.measurement_ns / 4.0 {
            let fitting = count as f64 * plan.measurement_ns / took_ns;
            // Whole batches: a form may work in units of its depth.
            return (fitting as u64).next_multiple_of(1024);
        }
        count *= 2;
    }
}

fn time_ns(form: &mut Form<'_>, count: u64) -> f64 {
    let start = Instant::now();
    (form.run)(count);
    start.elapsed().as_nanos() as f64 / count as f64
}

fn fastest_of(forms: &[Median]) -> usize {
    let mut best = 0;
    for (at, form) in forms.iter().enumerate() {
        if form.value < forms[best].value {
            best = at;
        }
    }
    best
}

/// The median of `values`, which is not empty, by order statistics.
pub fn median(values: &[f64]) -> Median {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let value = f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]);
    // The interval between the k-th smallest and the k-th largest misses the median when fewer
    // than k values fall on one side of it.
    let mut cut = 0;
    while 2 * (cut + 1) < count && 2.0 * tail(count, cut + 1) <= 0.05 {
        cut += 1;
    }
    Median { value, low: sorted[cut], high: sorted[count - 1 - cut] }
}

/// The probability that at most `most` of `count` fair coins show heads.
fn tail(count: usize, most: usize) -> f64 {
    let mut term = 0.5_f64.powi(count as i32);
    let mut sum = 0.0;
    for heads in 0..=most {
        sum += term;
        term *= (count - heads) as f64 / (heads + 1) as f64;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_values_give_their_whole_range_and_fifteen_a_narrower_one() {
        let found = median(&[3.0, 1.0, 2.0, 7.0, 5.0, 6.0, 4.0]);
        assert_eq!(found, Median { value: 4.0, low: 1.0, high: 7.0 });
        let values: Vec<f64> = (0..15).map(f64::from).collect();
        assert_eq!(median(&values), Median { value: 7.0, low: 3.0, high: 11.0 });
    }
}
