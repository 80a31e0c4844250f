//! Runs the simulation from the command line.
//!
//! Data flow: words → seeds → runs on a few threads → counters, failures and the commands that
//! show them again → exit status.
//!
//! Not here: what a run is (the library of this package).

use std::io::{self, Write};
use std::panic;
use std::process::ExitCode;

use engine_sim::{PLANT_BUDGET_SEEDS, Replay, RunReport, exhaust, exhaust_case, hunt};
use engine_sim::{shrink, sweep};
use mfio_engine::ring::Plant;

use crate::args::Args;

mod args;

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    if std::env::args().skip(1).any(|word| word == "--help" || word == "-h") {
        let _closed = write!(out, "{}", args::USAGE);
        return ExitCode::SUCCESS;
    }
    let args = match args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(text) => {
            let _closed = write!(out, "engine-sim: {text}\n\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    // A panic becomes a violation, with its message; the default hook would print it twice.
    panic::set_hook(Box::new(|_| {}));
    match start(&args, &mut out) {
        Ok(true) => ExitCode::SUCCESS,
        // A reader that has gone is no reason to report success.
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn start(args: &Args, out: &mut impl Write) -> io::Result<bool> {
    if let Some(ops) = args.exhaust {
        return small(args, ops, out);
    }
    match (args.seed, args.plants.as_slice()) {
        (Some(seed), _) => one(&args.replay(seed), out),
        (None, []) => many(args, out),
        (None, plants) => {
            let mut all_caught = true;
            for plant in plants {
                all_caught &= planted(*plant, args, out)?;
            }
            Ok(all_caught)
        }
    }
}

/// Runs one seed and shows everything about it. With a planted bug, being caught is a pass.
fn one(replay: &Replay, out: &mut impl Write) -> io::Result<bool> {
    let (report, story) = replay.explain();
    // A whole run is too long to be read.
    for line in story.iter().filter(|_| replay.keep.is_some()) {
        writeln!(out, "{line}")?;
    }
    let counters = report.coverage.fields().into_iter().chain(report.stats.fields());
    let counters = counters.chain(report.knobs.fields());
    for (name, value) in counters {
        writeln!(out, "{name:>28} {value}")?;
    }
    writeln!(out, "{:>28} {:016x}", "hash", report.hash)?;
    if report.violations.is_empty() {
        writeln!(out, "seed {}: nothing found", replay.seed)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(report.violations.is_empty() != replay.plant.is_some())
}

/// Runs the small model, or one case of it. With a planted bug, being caught is a pass.
fn small(args: &Args, ops: usize, out: &mut impl Write) -> io::Result<bool> {
    let plant = args.plants.first().copied();
    let found = match &args.case {
        None => exhaust(ops, plant, args.threads),
        Some(case) => match exhaust_case(case, ops, plant) {
            Ok(found) => found,
            Err(text) => {
                writeln!(out, "{text}")?;
                return Ok(false);
            }
        },
    };
    write!(out, "{found}")?;
    for (case, _) in &found.failures {
        let plant = plant.map_or(String::new(), |plant| format!(" --plant {}", plant.name()));
        let command = "cargo run --release -p engine-sim -- --exhaust";
        writeln!(out, "  {command} {ops}{plant} --case {case}")?;
    }
    Ok(found.failures.is_empty() != plant.is_some())
}

fn many(args: &Args, out: &mut impl Write) -> io::Result<bool> {
    let count = if args.seeds == 0 { 2000 } else { args.seeds };
    let summary = sweep(args.first..args.first + count, args.ops, None, args.threads);
    write!(out, "{summary}")?;
    for failure in &summary.failures {
        show(failure, None, out)?;
    }
    Ok(summary.failures.is_empty())
}

fn show(failure: &RunReport, plant: Option<Plant>, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{failure}")?;
    writeln!(out, "  {}", Replay::whole(failure.seed, failure.ops, plant).command())?;
    let small = shrink(failure, plant);
    writeln!(out, "made small by {} runs:", small.runs)?;
    for line in &small.story {
        writeln!(out, "{line}")?;
    }
    write!(out, "{}", small.report)?;
    writeln!(out, "  {}", small.replay.command())
}

fn planted(plant: Plant, args: &Args, out: &mut impl Write) -> io::Result<bool> {
    let budget = if args.seeds == 0 { PLANT_BUDGET_SEEDS } else { args.seeds };
    let name = plant.name();
    match hunt(plant, args.first, budget, args.ops) {
        Some(report) => {
            let first = report.violations.first().map_or("", String::as_str);
            let tried = report.seed - args.first + 1;
            writeln!(out, "{name}: caught by seed {} ({tried} of {budget}): {first}", report.seed)?;
            Ok(true)
        }
        None => {
            writeln!(out, "{name}: NOT caught by {budget} seeds of {} ops", args.ops)?;
            Ok(false)
        }
    }
}
