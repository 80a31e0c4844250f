//! Turns command line words into what to run.
//!
//! Not here: running it (`main`).

use engine_sim::{FaultSet, Replay, StepSet};
use mfio_engine::ring::Plant;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Args {
    /// Run only this seed.
    pub(crate) seed: Option<u64>,
    /// How many seeds to run.
    pub(crate) seeds: u64,
    /// The first of them.
    pub(crate) first: u64,
    /// Ops of each run.
    pub(crate) ops: u32,
    /// Bugs to plant, one after the other; empty is none.
    pub(crate) plants: Vec<Plant>,
    /// Threads to use.
    pub(crate) threads: u32,
    /// Of the one seed, the steps that are taken; `None` is all of them.
    pub(crate) keep: Option<StepSet>,
    /// Of the one seed, the faults that may happen.
    pub(crate) faults: FaultSet,
    /// Enumerate every workload of up to so many ops instead.
    pub(crate) exhaust: Option<usize>,
    /// Only this case of the enumeration.
    pub(crate) case: Option<String>,
}

impl Args {
    /// The run that `--seed` asks for.
    pub(crate) fn replay(&self, seed: u64) -> Replay {
        let whole = Replay::whole(seed, self.ops, self.plants.first().copied());
        Replay { keep: self.keep.clone(), faults: self.faults, ..whole }
    }
}

pub(crate) const USAGE: &str = "\
engine-sim [--seeds N] [--first S] [--ops M] [--threads T]   run N seeds from S on
engine-sim --seed S [--ops M] [--plant NAME]                 run one seed and show it
           [--keep 3,17,40-44] [--faults short,eio|none]     only these steps and faults
engine-sim --plant NAME|all [--seeds N] [--ops M]            hunt planted bugs, N seeds each
engine-sim --exhaust OPS [--plant NAME] [--case CASE]        every workload of up to OPS ops

Exit status: 0 when nothing was found (or every planted bug was), 1 otherwise, 2 for a
command line that makes no sense.
";

/// Reads the words after the program's name.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args {
        seed: None,
        seeds: 0,
        first: 0,
        ops: 2000,
        plants: Vec::new(),
        threads: 2,
        keep: None,
        faults: FaultSet::ALL,
        exhaust: None,
        case: None,
    };
    let mut words = words;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--seed" => args.seed = Some(number(&word, &value()?)?),
            "--seeds" => args.seeds = number(&word, &value()?)?,
            "--first" => args.first = number(&word, &value()?)?,
            "--ops" => args.ops = number(&word, &value()?)?,
            "--threads" => args.threads = number(&word, &value()?)?,
            "--plant" => args.plants = plants(&value()?)?,
            "--keep" => args.keep = Some(StepSet::parse(&value()?)?),
            "--faults" => args.faults = FaultSet::parse(&value()?)?,
            "--exhaust" => args.exhaust = Some(number(&word, &value()?)?),
            "--case" => args.case = Some(value()?),
            other => return Err(format!("{other} is not known")),
        }
    }
    if args.seed.is_some() && args.plants.len() > 1 {
        return Err(String::from("--seed takes one planted bug at most"));
    }
    if args.seed.is_none() && (args.keep.is_some() || args.faults != FaultSet::ALL) {
        return Err(String::from("--keep and --faults need the --seed they belong to"));
    }
    if args.exhaust.is_none() && args.case.is_some() {
        return Err(String::from("--case needs --exhaust"));
    }
    Ok(args)
}

fn number<T: core::str::FromStr>(word: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{word} needs a number, not {value}"))
}

fn plants(name: &str) -> Result<Vec<Plant>, String> {
    let chosen: Vec<Plant> =
        Plant::ALL.into_iter().filter(|plant| name == "all" || name == plant.name()).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = Plant::ALL.iter().map(|plant| plant.name()).collect();
        return Err(format!("{name} is no planted bug: all, {}", names.join(", ")));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Args, String> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn options_are_read() {
        let args = of("--seeds 10 --ops 20 --plant free-on-drop").unwrap();
        assert_eq!((args.seeds, args.ops), (10, 20));
        assert_eq!(args.plants, [Plant::FreeOnDrop]);
        assert_eq!(of("--plant all").unwrap().plants, Plant::ALL);
        assert_eq!(of("--seed 5").unwrap().seed, Some(5));
    }

    /// A failure of a planted bug becomes small, always in the same way, and the command that is
    /// printed with it shows the same.
    fn expect_small(plant: Plant) {
        let failure = engine_sim::hunt(plant, 0, 200, 2000).unwrap();
        let small = engine_sim::shrink(&failure, Some(plant));
        assert_eq!(engine_sim::shrink(&failure, Some(plant)), small);
        let steps = small.replay.keep.as_ref().unwrap().steps();
        assert!(steps.len() <= 32, "{} steps are left of {}", steps.len(), failure.steps);
        assert!(!small.story.is_empty());

        let command = small.replay.command();
        let words = command.split_once(" -- ").unwrap().1;
        let args = of(words).unwrap();
        let replay = args.replay(args.seed.unwrap());
        assert_eq!(replay, small.replay, "{command}");
        assert_eq!(replay.run(), small.report, "{command}");
        assert!(!small.report.violations.is_empty());
    }

    #[test]
    fn f11_accept_short_shrinks_to_a_few_steps() {
        expect_small(Plant::AcceptShort);
    }

    #[test]
    fn f14_flush_early_shrinks_to_a_few_steps() {
        expect_small(Plant::FlushEarly);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--seeds",
            "--seeds x",
            "--plant none",
            "--seed 1 --plant all",
            "seven",
            "--keep 1",
            "--case 1",
        ] {
            assert!(of(line).is_err(), "{line}");
        }
    }
}
