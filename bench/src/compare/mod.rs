//! Several engines, or one with several options, on one job, in alternation on one core: how do
//! they compare, and how sure is it?
//!
//! Data flow: `--a`, `--b` … and a job -> A B A B … -> a row of [`Sample`]s per round -> the
//! ratio of the first side to each other -> text or JSON, and an exit code.
//!
//! Not here: one run (`sample`), a side (`side`), the ratios (`verdict`).

mod side;
mod verdict;

use std::collections::BTreeSet;

use fio_compat::Job;
use serde_json::{Value, json};

use crate::clock::load_average;
use crate::output::Output;
use crate::overwrite;
use crate::plan::survey;
use crate::report::VERSION;
use crate::sample::{self, Sample, Way};
use crate::signals::{self, Signals};
use crate::statistics::median;
use crate::subcommand::{Own, last_cpu};
use side::Side;
use verdict::{Gates, Verdict};

/// Rounds without `--rounds`: the fewest that give 95 % confidence with one to spare.
const ROUNDS: usize = 7;
/// The fewest whose whole range is an interval of 95 % confidence.
const ROUNDS_MIN: usize = 6;

/// More CPU time than this outside the engine's thread, relative to that in it, is reported.
const ELSEWHERE_MAX: f64 = 0.05;
/// More than this taken by the hypervisor, in percent, is reported.
const STEAL_MAX_PERCENT: f64 = 2.0;

const SIDES: [&str; 8] = ["--a", "--b", "--c", "--d", "--e", "--f", "--g", "--h"];
const OTHERS: [&str; 6] =
    ["--min-ratio", "--max-cpu-ratio", "--gate", "--rounds", "--output-format", "--output"];

/// What was asked for.
struct Request {
    sides: Vec<Side>,
    rounds: usize,
    gates: Gates,
    json: bool,
    output: Output,
    /// fio's part of the command line.
    args: Vec<String>,
}

/// Runs the subcommand; `args` follow its name.
///
/// # Errors
/// One line.
pub(crate) fn main(args: &[String]) -> Result<u8, String> {
    let (mut request, path) = parse(args)?;
    let mut said = BTreeSet::new();
    // Everything is refused before anything runs.
    let cpu = last_cpu();
    let (mut jobs, mut readonly, mut parse_only) = (Vec::new(), false, false);
    for side in &request.sides {
        let asked = side.job(&request.args, cpu, &mut said)?;
        (readonly, parse_only) = (asked.readonly, asked.parse_only);
        jobs.push(asked.job);
    }
    if parse_only {
        return Ok(0);
    }
    for job in &jobs {
        check_place(job, path.as_deref())?;
    }
    let job = &jobs[0];
    let mut depths: Vec<String> = jobs.iter().map(|job| job.iodepth.to_string()).collect();
    depths.dedup();
    request.output = Output::open(path.as_deref())?;
    let signals = Signals::listen().map_err(|error| format!("cannot handle signals: {error}"))?;
    let sides = request.sides.iter().map(|side| format!("{}={}", side.name, side.text));
    let load_before = load_average();
    let cpus = job.cpus_allowed.first().copied().or(cpu).unwrap_or(0);
    request.say(format!(
        "compare: {}, rw={} iodepth={}, {} rounds on CPU {cpus}, load average {load_before}\n",
        sides.collect::<Vec<_>>().join(" "),
        job.rw.as_str(),
        depths.join("/"),
        request.rounds,
    ))?;
    let mut rounds: Vec<Vec<Sample>> = Vec::new();
    let mut warm_up = Vec::new();
    for round in 0..=request.rounds {
        let mut row = Vec::new();
        for job in &jobs {
            let way = Way { counts_punts: round == 0, readonly };
            let Some(sample) = sample::run(job.clone(), &signals, &mut said, way)? else {
                return Ok(signals::EXIT_CODE);
            };
            row.push(sample);
        }
        // The first round warms caches, files and frequencies up and is not counted.
        let counted = if round == 0 { "warm-up".to_owned() } else { format!("round {round}") };
        request.say(format!("  {counted:<8} {}\n", round_line(&request.sides, &row)))?;
        if round > 0 {
            rounds.push(row);
        } else {
            warm_up = row;
        }
    }
    conclude(&mut request, &rounds, &warm_up, &load_before)
}

/// The result must not end where a side has its data.
fn check_place(job: &Job, path: Option<&str>) -> Result<(), String> {
    let plans = survey(std::slice::from_ref(job))?;
    path.map_or(Ok(()), |path| overwrite::check(&format!("--output={path}"), path, &plans))
}

impl Request {
    /// Prints text for people, where that is wanted.
    fn say(&mut self, text: String) -> Result<(), String> {
        if self.json { Ok(()) } else { self.print(&text) }
    }

    fn print(&mut self, text: &str) -> Result<(), String> {
        self.output.print(text).map_err(|error| format!("cannot write the result: {error}"))
    }
}

fn round_line(sides: &[Side], row: &[Sample]) -> String {
    let figures = sides.iter().zip(row).map(|(side, sample)| {
        let Sample { iops, cpu_ns_per_io, .. } = sample;
        format!("{} {iops:>10.0} IOPS {cpu_ns_per_io:>8.1} ns CPU/IO", side.name)
    });
    figures.collect::<Vec<_>>().join("   ")
}

fn conclude(
    request: &mut Request,
    rounds: &[Vec<Sample>],
    warm_up: &[Sample],
    load_before: &str,
) -> Result<u8, String> {
    let notes = notes(&request.sides, rounds, warm_up);
    let names: Vec<String> = request.sides.iter().map(|side| side.name.clone()).collect();
    let others = names.iter().enumerate().skip(1);
    let verdicts = others.map(|(column, other)| Verdict::of(rounds, column, other));
    let verdicts: Vec<Verdict> = verdicts.collect();
    let failures = verdicts.iter().flat_map(|verdict| verdict.failures(request.gates));
    let failures = failures.chain(failed(request, rounds));
    let failures: Vec<String> = failures.collect();
    if request.json {
        let document = json!({
            "mfio": VERSION,
            "compare": {
                "job": request.args,
                "rounds": request.rounds,
                "load_average": [load_before, load_average()],
                "steal_percent": steal_percent(rounds),
                "steal_percent_max": steal_percent_max(rounds),
                "sides": sides_json(&request.sides, rounds, warm_up),
                "ratios": verdicts.iter().map(Verdict::json).collect::<Vec<_>>(),
                "notes": notes,
                "failures": failures,
            },
        });
        request.print(&format!("{document:#}\n"))?;
    } else {
        let notes = notes.iter().map(|note| format!("note: {note}\n"));
        let ratios = verdicts.iter().map(Verdict::lines);
        let load = format!(
            "load average {}, steal {:.1}% at most\n",
            load_average(),
            steal_percent_max(rounds)
        );
        let failures = failures.iter().map(|line| format!("{line}\n"));
        let text: String = notes.chain(ratios).chain([load]).chain(failures).collect();
        request.print(&text)?;
    }
    Ok(u8::from(!failures.is_empty()))
}

/// What makes the figures mean something else than they seem to.
fn notes(sides: &[Side], rounds: &[Vec<Sample>], warm_up: &[Sample]) -> Vec<String> {
    let mut notes = Vec::new();
    for (column, side) in sides.iter().enumerate() {
        let share = |round: &Vec<Sample>| {
            round[column].elsewhere_ns_per_io / round[column].cpu_ns_per_io.max(1.0)
        };
        let share = median(&rounds.iter().map(share).collect::<Vec<_>>()).value;
        let punts = warm_up[column].punts.unwrap_or(0);
        if share > ELSEWHERE_MAX || punts > 0 {
            let elsewhere = (share > ELSEWHERE_MAX).then(|| {
                let percent = share * 100.0;
                format!("used {percent:.0}% of its thread's CPU time again in other threads")
            });
            let punted = (punts > 0).then(|| {
                format!("had {punts} I/Os of the warm-up punted to workers of the kernel")
            });
            let found: Vec<_> = elsewhere.into_iter().chain(punted).collect();
            notes.push(format!(
                "{} ({}) {}: its CPU figures do not show that",
                side.name,
                side.text,
                found.join(", and ")
            ));
        }
    }
    for (column, side) in sides.iter().enumerate() {
        let found = sample::remarks(rounds.iter().map(|round| &round[column]));
        notes
            .extend(found.into_iter().map(|line| format!("{} ({}): {line}", side.name, side.text)));
    }
    let steal = steal_percent(rounds);
    if steal > STEAL_MAX_PERCENT {
        notes.push(format!("the hypervisor took {steal:.1}% of the CPU time: measure again"));
    }
    notes
}

/// A ratio of runs with I/Os that failed holds no gate.
fn failed(request: &Request, rounds: &[Vec<Sample>]) -> Vec<String> {
    let gated = request.gates.ratio_min.is_some() || request.gates.cpu_ratio_max.is_some();
    let sides = request.sides.iter().enumerate().filter(|_| gated);
    let line = |(column, side): (usize, &Side)| {
        let errors: u64 = rounds.iter().map(|round| round[column].errors).sum();
        (errors > 0).then(|| format!("FAILED: {errors} I/Os of {} failed", side.name))
    };
    sides.filter_map(line).collect()
}

fn steal_percent_max(rounds: &[Vec<Sample>]) -> f64 {
    rounds.iter().flatten().map(|sample| sample.steal_percent).fold(0.0, f64::max)
}

fn steal_percent(rounds: &[Vec<Sample>]) -> f64 {
    let steals: Vec<f64> = rounds.iter().flatten().map(|sample| sample.steal_percent).collect();
    median(&steals).value
}

fn sides_json(sides: &[Side], rounds: &[Vec<Sample>], warm_up: &[Sample]) -> Vec<Value> {
    let figures = |column: usize| {
        let middle = |of: fn(&Sample) -> f64| {
            median(&rounds.iter().map(|round| of(&round[column])).collect::<Vec<_>>()).value
        };
        json!({
            "name": sides[column].name,
            "side": sides[column].text,
            "iops": middle(|sample| sample.iops),
            "bytes_per_s": middle(|sample| sample.bytes_per_s),
            "cpu_ns_per_io": middle(|sample| sample.cpu_ns_per_io),
            "elsewhere_ns_per_io": middle(|sample| sample.elsewhere_ns_per_io),
            "warm_up_punts": warm_up[column].punts,
            "errors": rounds.iter().map(|round| round[column].errors).sum::<u64>(),
            "degraded": rounds.first().map(|round| round[column].degraded.clone()),
        })
    };
    (0..sides.len()).map(figures).collect()
}

/// What was asked for, and the file of `--output`, which is not made before all is known to be
/// right.
fn parse(args: &[String]) -> Result<(Request, Option<String>), String> {
    let names: Vec<&'static str> = SIDES.into_iter().chain(OTHERS).collect();
    let (own, rest) = Own::split(args, &names)?;
    let mut sides = Vec::new();
    for option in SIDES {
        match own.text(option) {
            Some(text) => sides.push(Side::parse(&option[2..], text)?),
            None if sides.len() < 2 => return Err(side::needs(&option[2..])),
            None => {}
        }
    }
    let gates = Gates {
        ratio_min: own.float("--min-ratio")?,
        cpu_ratio_max: own.float("--max-cpu-ratio")?,
        by_bound: own.word("--gate", &["median", "bound"])? == "bound",
    };
    let rounds = own.count("--rounds", ROUNDS)?;
    if gates.by_bound && rounds < ROUNDS_MIN {
        return Err(format!(
            "--gate=bound needs the bounds of an interval of 95 % confidence, which {rounds} \
             rounds do not give: --rounds={ROUNDS_MIN} or more"
        ));
    }
    let request = Request {
        sides,
        rounds,
        gates,
        json: own.word("--output-format", &["normal", "json"])? == "json",
        output: Output::Stdout,
        args: rest,
    };
    Ok((request, own.text("--output").map(str::to_owned)))
}
