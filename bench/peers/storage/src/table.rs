//! Rounds of all runtimes in turn, and what they say.
//!
//! Data flow: arguments → a process per runtime and round → CPU time per read → medians, and
//! intervals of what each adds to the hand-written loop within a round.
//!
//! Not here: reading.

use std::process::{Command, ExitCode};

use clap::ValueEnum;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::work::Runtime;
use crate::{Arguments, Outcome};

/// CPU and wall time per read, ns.
type Figures = [f64; 2];

/// Runs and prints.
///
/// # Errors
/// A runtime failed.
pub fn run(arguments: &Arguments) -> Outcome {
    // The last one: the first serves most interrupts. Children inherit it.
    let last = std::thread::available_parallelism()?.get() - 1;
    let mut cpus = CpuSet::new();
    cpus.set(last)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    let runtimes: Vec<Runtime> = Runtime::value_variants()
        .iter()
        .copied()
        .filter(|runtime| arguments.buffered || runtime.has_direct())
        .filter(|runtime| {
            let wanted = arguments.only.is_empty() || arguments.only.contains(runtime);
            *runtime == Runtime::Raw || wanted
        })
        .collect();
    let mut rounds: Vec<Vec<Figures>> = Vec::new();
    // The first round warms caches up and is not counted.
    for round in 0..=arguments.rounds {
        let row = runtimes.iter().map(|runtime| measure(*runtime, arguments));
        let row = row.collect::<Result<Vec<_>, _>>()?;
        if round > 0 {
            rounds.push(row);
        }
    }
    println!(
        "{:<12} {:>10} {:>9} {:>22} {:>16}",
        "runtime", "CPU ns/IO", "kIOPS", "CPU ratio to raw", "added ns/IO"
    );
    for (column, runtime) in runtimes.iter().enumerate() {
        let of = |index: usize| rounds.iter().map(move |row| row[column][index]);
        let [ratio, low, high] = spread(rounds.iter().map(|row| row[column][0] / row[0][0]));
        let [added, ..] = spread(added(&rounds, column));
        println!(
            "{:<12} {:>10.1} {:>9.1} {:>22} {:>16.1}",
            name(*runtime),
            spread(of(0))[0],
            1e6 / spread(of(1))[0],
            format!("{ratio:.3} [{low:.3}, {high:.3}]"),
            added,
        );
    }
    verdict(&runtimes, &rounds, arguments.max_added)
}

/// What a runtime adds to the hand-written loop, in every round.
fn added(rounds: &[Vec<Figures>], column: usize) -> impl Iterator<Item = f64> {
    rounds.iter().map(move |row| row[column][0] - row[0][0])
}

fn verdict(runtimes: &[Runtime], rounds: &[Vec<Figures>], max: Option<f64>) -> Outcome {
    let columns = || runtimes.iter().copied().enumerate();
    let peers = columns().filter(|(_, runtime)| runtime.is_peer());
    let median = |column| spread(added(rounds, column))[0];
    let best = peers.min_by(|(a, _), (b, _)| median(*a).total_cmp(&median(*b)));
    let Some((best, peer)) = best else { return Ok(ExitCode::SUCCESS) };
    let mut outcome = ExitCode::SUCCESS;
    for (column, runtime) in columns().filter(|(_, runtime)| runtime.is_ours()) {
        let shares = added(rounds, column).zip(added(rounds, best));
        let [share, low, high] = spread(shares.map(|(ours, theirs)| ours / theirs));
        let (ours, theirs) = (name(runtime), name(peer));
        println!("{ours} adds {share:.2} [{low:.2}, {high:.2}] of what {theirs} adds");
        if max.is_some_and(|max| high > max) {
            println!("FAILED: the upper bound is above --max-added");
            outcome = ExitCode::FAILURE;
        }
    }
    Ok(outcome)
}

fn name(runtime: Runtime) -> String {
    runtime.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn measure(runtime: Runtime, arguments: &Arguments) -> Result<Figures, Box<dyn std::error::Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(&arguments.file).args(["--one", &name(runtime)]);
    command.args(["--depth", &arguments.depth.to_string()]);
    command.args(["--ios", &arguments.ios.to_string()]);
    command.args(["--run", &arguments.run.to_string()]);
    if arguments.buffered {
        command.arg("--buffered");
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    <Figures>::try_from(figures).map_err(|_| {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        format!("{}: {}", name(runtime), error.trim()).into()
    })
}

/// The median, and the interval that contains the true one with at least 95 % confidence where
/// there are six values or more: the k-th smallest to the k-th largest, by the binomial tail.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
    let (mut cut, mut term, mut missed) = (0, 0.5_f64.powi(count as i32), 0.0);
    while cut < count / 2 {
        missed += 2.0 * term;
        if missed > 0.05 {
            break;
        }
        cut += 1;
        term *= (count - cut + 1) as f64 / cut as f64;
    }
    let end = cut.saturating_sub(1);
    [median, sorted[end], sorted[count - 1 - end]]
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn interval_of_fifteen_values_leaves_three_out_at_each_end() {
        assert_eq!(spread((0..15).map(f64::from)), [7.0, 3.0, 11.0]);
        assert_eq!(spread((0..7).map(f64::from)), [3.0, 0.0, 6.0]);
        assert_eq!(spread([2.0].into_iter()), [2.0, 2.0, 2.0]);
    }
}
