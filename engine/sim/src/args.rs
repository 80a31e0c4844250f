//! Turns command line words into what to run.
//!
//! Not here: running it (`main`).

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
}

pub(crate) const USAGE: &str = "\
engine-sim [--seeds N] [--first S] [--ops M] [--threads T]   run N seeds from S on
engine-sim --seed S [--ops M] [--plant NAME]                 run one seed and show it
engine-sim --plant NAME|all [--seeds N] [--ops M]            hunt planted bugs, N seeds each

Exit status: 0 when nothing was found (or every planted bug was), 1 otherwise, 2 for a
command line that makes no sense.
";

/// Reads the words after the program's name.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args =
        Args { seed: None, seeds: 0, first: 0, ops: 2000, plants: Vec::new(), threads: 2 };
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
            other => return Err(format!("{other} is not known")),
        }
    }
    if args.seed.is_some() && args.plants.len() > 1 {
        return Err(String::from("--seed takes one planted bug at most"));
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

    #[test]
    fn nonsense_is_refused() {
        for line in ["--seeds", "--seeds x", "--plant none", "--seed 1 --plant all", "seven"] {
            assert!(of(line).is_err(), "{line}");
        }
    }
}
