//! What a sweep varies: one option, and the values it takes.
//!
//! Data flow: `OPTION=VALUES` -> [`Axis`].
//!
//! Not here: running the points (`sweep`).

use fio_compat::Job;

/// Points of a range of rates without `--steps`.
const STEPS: usize = 10;

/// One option with its values, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// fio's name.
    pub(super) option: String,
    /// What each point sets it to.
    pub(super) values: Vec<String>,
    /// Whether the values are shares, in percent, of what an unlimited run reaches.
    pub(super) relative: bool,
}

/// The rates of a job, as its option takes them: one for all directions that have the same or
/// none.
pub(super) fn text(rates: [u64; 3]) -> String {
    let used: Vec<u64> = rates.into_iter().filter(|rate| *rate > 0).collect();
    match used[..] {
        [] => "1".to_owned(),
        [one, ref others @ ..] if others.iter().all(|other| *other == one) => one.to_string(),
        _ => rates.map(|rate| rate.max(1).to_string()).join(","),
    }
}

fn is_rate(option: &str) -> bool {
    matches!(option, "rate" | "rate_iops")
}

impl Axis {
    /// Whether it sets how many I/Os or bytes a second are asked for.
    pub(super) fn is_rate(&self) -> bool {
        is_rate(&self.option)
    }

    /// What a job with one of the values asks for: reads, writes, trims.
    pub(super) fn rates(&self, job: &Job) -> [u64; 3] {
        if self.option == "rate" { job.pace.rate } else { job.pace.rate_iops }
    }

    /// Reads `OPTION=V,V,…`, `OPTION=LOW..HIGH` or, of a rate, `OPTION=auto`. A range of rates
    /// goes in `steps` equal steps, any other doubles.
    ///
    /// # Errors
    /// One line.
    pub(super) fn parse(text: &str, steps: Option<usize>) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("--over={text} {why}: write OPTION=V,V,… or OPTION=LOW..HIGH or rate_iops=auto")
        };
        let (option, values) = text.split_once('=').ok_or_else(|| wrong("has no values"))?;
        let option = option.trim().to_owned();
        if option.is_empty() || values.trim().is_empty() {
            return Err(wrong("has no values"));
        }
        let is_rate = is_rate(&option);
        if values == "auto" {
            if !is_rate {
                return Err(wrong("is of no rate"));
            }
            let values = (1..=steps.unwrap_or(STEPS)).map(|step| {
                let percent = step * 100 / steps.unwrap_or(STEPS);
                percent.to_string()
            });
            return Ok(Self { option, values: values.collect(), relative: true });
        }
        let Some((low, high)) = values.split_once("..") else {
            let values = values.split(',').map(|value| value.trim().to_owned());
            return Ok(Self { option, values: values.collect(), relative: false });
        };
        let (low_number, suffix) =
            number(low).ok_or_else(|| wrong("does not begin with a number"))?;
        let (high_number, high_suffix) =
            number(high).ok_or_else(|| wrong("does not end with a number"))?;
        if suffix != high_suffix && low_number != 0 {
            return Err(wrong("has ends of different units"));
        }
        if low_number == 0 || low_number > high_number {
            return Err(wrong("is no range"));
        }
        let numbers = match steps {
            _ if is_rate => evenly(low_number, high_number, steps.unwrap_or(STEPS)),
            Some(steps) => evenly(low_number, high_number, steps),
            None => doubling(low_number, high_number),
        };
        let values = numbers.into_iter().map(|number| format!("{number}{suffix}"));
        Ok(Self { option, values: values.collect(), relative: false })
    }
}

/// Digits, and what follows them.
fn number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn evenly(low: u64, high: u64, steps: usize) -> Vec<u64> {
    let last = u64::try_from(steps.max(2) - 1).unwrap_or(1);
    let mut numbers: Vec<u64> = (0..=last)
        .map(|step| {
            let part = u128::from(high - low) * u128::from(step) / u128::from(last);
            low + u64::try_from(part).unwrap_or(high - low)
        })
        .collect();
    numbers.dedup();
    numbers
}

fn doubling(low: u64, high: u64) -> Vec<u64> {
    let mut numbers: Vec<u64> = std::iter::successors(Some(low), |number| {
        number.checked_mul(2).filter(|next| *next < high)
    })
    .collect();
    numbers.push(high);
    numbers.dedup();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str, steps: Option<usize>) -> Vec<String> {
        Axis::parse(text, steps).unwrap().values
    }

    #[test]
    fn depths_double_and_rates_go_in_steps() {
        assert_eq!(values("iodepth=1..8", None), ["1", "2", "4", "8"]);
        assert_eq!(values("iodepth=1..6", None), ["1", "2", "4", "6"]);
        assert_eq!(values("iodepth=4..4", None), ["4"]);
        assert_eq!(values("bs=4k..16k", None), ["4k", "8k", "16k"]);
        assert_eq!(values("rate_iops=10..50", Some(3)), ["10", "30", "50"]);
        assert_eq!(values("iodepth=1..9", Some(3)), ["1", "5", "9"]);
        assert_eq!(values("rw=read, randread", None), ["read", "randread"]);
    }

    #[test]
    fn auto_is_a_share_of_what_a_rate_can_be() {
        let axis = Axis::parse("rate_iops=auto", Some(4)).unwrap();
        assert!(axis.relative && axis.values == ["25", "50", "75", "100"]);
        for other in ["iodepth=auto", "rate_min=auto", "rate_cycle=auto", "rate_process=auto"] {
            assert!(Axis::parse(other, None).unwrap_err().contains("is of no rate"), "{other}");
        }
    }

    #[test]
    fn rates_of_several_directions_are_one_value_each() {
        assert_eq!(text([70, 0, 0]), "70");
        assert_eq!(text([70, 30, 0]), "70,30,1");
        assert_eq!((text([5, 5, 5]), text([0; 3])), ("5".to_owned(), "1".to_owned()));
    }

    #[test]
    fn what_is_no_axis_is_refused_with_the_way_to_write_it() {
        for text in
            ["iodepth", "iodepth=", "=1", "iodepth=8..1", "bs=4k..1m", "iodepth=..8", "x=0..4"]
        {
            let refused = Axis::parse(text, None).unwrap_err();
            assert!(refused.contains("OPTION=LOW..HIGH"), "{refused}");
        }
    }
}
