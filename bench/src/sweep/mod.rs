//! One job at many depths, rates or sizes: the curve of throughput and latency, its knee, and
//! the highest load that meets a latency goal.
//!
//! Data flow: `--over OPTION=VALUES` and a job -> rounds through all values -> [`Point`]s ->
//! a table, CSV, JSON and SVG.
//!
//! Rounds go through all values in turn, so that what disturbs the machine for a while does not
//! hit one value alone.
//!
//! Not here: one run (`sample`), the values (`axis`), what the points say (`curve`).

mod axis;
mod curve;
mod plot;

use std::collections::BTreeSet;
use std::path::Path;

use fio_compat::Job;
use serde_json::json;

use crate::clock::load_average;
use crate::output::Output;
use crate::report::VERSION;
use crate::sample::{self, Sample};
use crate::signals::{self, Signals};
use crate::subcommand::{Own, last_cpu, one_job};
use axis::Axis;
use curve::{Goal, Point};

/// Rounds without `--rounds`.
const ROUNDS: usize = 3;
/// How often the space between a rate that meets the goal and one that does not is halved.
const HALVINGS: usize = 4;

const OPTIONS: [&str; 8] =
    ["--over", "--steps", "--rounds", "--goal", "--csv", "--svg", "--output-format", "--output"];

/// What was asked for.
struct Request {
    axis: Axis,
    rounds: usize,
    goal: Option<(Goal, String)>,
    json: bool,
    csv: Option<String>,
    svg: Option<String>,
    /// fio's part of the command line.
    args: Vec<String>,
}

/// What runs a job with one more option set.
struct Runner<'a> {
    signals: &'a Signals,
    said: BTreeSet<String>,
    cpu: Option<u32>,
}

/// Runs the subcommand; `args` follow its name.
///
/// # Errors
/// One line.
pub(crate) fn main(args: &[String]) -> Result<u8, String> {
    let (mut request, output) = parse(args)?;
    let signals = Signals::listen().map_err(|error| format!("cannot handle signals: {error}"))?;
    let mut runner = Runner { signals: &signals, said: BTreeSet::new(), cpu: last_cpu() };
    // Everything is refused before anything runs.
    let first = runner.job(&request, &[])?;
    let absolute = request.axis.values.iter().filter(|_| !request.axis.relative);
    for value in absolute {
        runner.job(&request, &[(request.axis.option.clone(), value.clone())])?;
    }
    let mut output = Output::open(output.as_deref())?;
    let mut say = |text: String| {
        let printed = if request.json { Ok(()) } else { output.print(&text) };
        printed.map_err(|error| format!("cannot write the result: {error}"))
    };
    say(format!(
        "sweep: {} over {}, rw={} ioengine={}, {} rounds, load average {}\n{}\n",
        first.name,
        request.axis.option,
        first.rw.as_str(),
        first.ioengine.as_str(),
        request.rounds,
        load_average(),
        heading(&request.axis.option),
    ))?;
    if request.axis.relative {
        let Some(reached) = runner.run(&request, &[])? else { return Ok(signals::EXIT_CODE) };
        request.axis = absolute_rates(&request.axis, &reached, &first);
    }
    let Some(mut points) = runner.points(&request, &request.axis.values)? else {
        return Ok(signals::EXIT_CODE);
    };
    points.iter().try_for_each(|point| say(line(point)))?;
    for _ in 0..HALVINGS {
        let Some(between) = halfway(&request, &points) else { break };
        let Some(more) = runner.points(&request, &[between])? else {
            return Ok(signals::EXIT_CODE);
        };
        more.iter().try_for_each(|point| say(line(point)))?;
        points.extend(more);
        points.sort_by_key(|point| point.value.parse::<u64>().unwrap_or(0));
    }
    let text = conclude(&request, &points)?;
    output.print(&text).map_err(|error| format!("cannot write the result: {error}"))?;
    Ok(0)
}

impl Runner<'_> {
    fn job(&mut self, request: &Request, set: &[(String, String)]) -> Result<Job, String> {
        let mut job = one_job("sweep", &request.args, set, &mut self.said)?;
        job.disable_lat = false;
        if job.gtod_reduce {
            return Err("sweep needs latencies: gtod_reduce takes them away".into());
        }
        if job.numjobs == 1 && job.cpus_allowed.is_empty() {
            job.cpus_allowed = self.cpu.into_iter().collect();
        }
        Ok(job)
    }

    fn run(
        &mut self,
        request: &Request,
        set: &[(String, String)],
    ) -> Result<Option<Sample>, String> {
        let job = self.job(request, set)?;
        sample::run(job, self.signals, &mut self.said, false)
    }

    /// A point for each value; `None` after a signal.
    fn points(
        &mut self,
        request: &Request,
        values: &[String],
    ) -> Result<Option<Vec<Point>>, String> {
        let mut rounds: Vec<Vec<Sample>> = vec![Vec::new(); values.len()];
        for _ in 0..request.rounds {
            for (value, rounds) in values.iter().zip(&mut rounds) {
                let set = [(request.axis.option.clone(), value.clone())];
                let Some(sample) = self.run(request, &set)? else { return Ok(None) };
                rounds.push(sample);
            }
        }
        let goal = request.goal.as_ref().map(|(goal, _)| *goal);
        let point = |(value, rounds): (&String, &Vec<Sample>)| Point::of(value, rounds, goal);
        Ok(Some(values.iter().zip(&rounds).map(point).collect()))
    }
}

/// Shares of what was reached, as numbers.
fn absolute_rates(axis: &Axis, reached: &Sample, job: &Job) -> Axis {
    let all = if axis.option == "rate" { reached.bytes_per_s } else { reached.iops };
    let clones = f64::from(job.numjobs.max(1));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, above 0")]
    let value = |percent: &String| {
        let share: f64 = percent.parse().unwrap_or(100.0);
        ((all / clones * share / 100.0) as u64).max(1).to_string()
    };
    let values = axis.values.iter().map(value).collect();
    Axis { option: axis.option.clone(), values, relative: false }
}

/// The rate between the highest that meets the goal and the lowest above it that does not.
fn halfway(request: &Request, points: &[Point]) -> Option<String> {
    let (goal, _) = request.goal.as_ref()?;
    if !request.axis.option.starts_with("rate") {
        return None;
    }
    let rate = |point: &Point| point.value.parse::<u64>().ok();
    let met = points.iter().filter(|point| goal.is_met_by(point)).filter_map(rate).max()?;
    let missed = points.iter().filter(|point| !goal.is_met_by(point)).filter_map(rate);
    let missed = missed.filter(|rate| *rate > met).min()?;
    let between = met.midpoint(missed);
    (between > met).then(|| between.to_string())
}

fn heading(option: &str) -> String {
    format!(
        "{option:>12} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}",
        "IOPS", "MiB/s", "mean us", "p50 us", "p99 us", "p99.9 us", "flight", "CPU ns"
    )
}

fn line(point: &Point) -> String {
    let us = |ns: u64| format!("{:.1}", crate::summary::ratio(ns, 1000));
    let [p50, p99, p999] = point.percentiles_ns.map(us);
    format!(
        "{:>12} {:>10.0} {:>9.1} {:>9.1} {p50:>9} {p99:>9} {p999:>9} {:>8.2} {:>8.0}\n",
        point.value,
        point.iops.value,
        point.bytes_per_s / f64::from(1 << 20),
        point.mean_ns / 1e3,
        point.in_flight(),
        point.cpu_ns_per_io,
    )
}

/// Writes the files that were asked for, and returns what is printed at the end.
fn conclude(request: &Request, points: &[Point]) -> Result<String, String> {
    let knee = curve::knee(points);
    let best = request.goal.as_ref().map(|(goal, text)| (curve::best(points, *goal), text));
    let option = &request.axis.option;
    if let Some(path) = &request.csv {
        let written = std::fs::write(path, curve::csv(option, points));
        written.map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    if let Some(path) = &request.svg {
        let title = format!("{} (labels: {option})", request.args.join(" "));
        plot::svg(Path::new(path), &title, points, knee)?;
    }
    let value = |index: usize| points[index].value.clone();
    if request.json {
        let document = json!({
            "mfio": VERSION,
            "sweep": {
                "job": request.args,
                "over": option,
                "rounds": request.rounds,
                "load_average": load_average(),
                "points": curve::json(points),
                "knee": knee.map(value),
                "goal": best.map(|(best, text)| json!({
                    "text": text,
                    "best": best.map(value),
                })),
            },
        });
        return Ok(format!("{document:#}\n"));
    }
    let mut text = String::new();
    if let Some(knee) = knee {
        let knee = value(knee);
        text.push_str(&format!("knee: {option}={knee}: beyond it more load buys latency\n"));
    }
    match best {
        Some((Some(best), goal)) => {
            let (best, iops) = (value(best), points[best].iops.value);
            text.push_str(&format!("goal {goal}: met up to {iops:.0} IOPS, at {option}={best}\n"));
        }
        Some((None, goal)) => text.push_str(&format!("goal {goal}: met by no point\n")),
        None => {}
    }
    Ok(text)
}

/// What was asked for, and the file of `--output`.
fn parse(args: &[String]) -> Result<(Request, Option<String>), String> {
    let (own, rest) = Own::split(args, &OPTIONS)?;
    let over = own.text("--over").unwrap_or("iodepth=1..256");
    let steps = own.text("--steps").map(|_| own.count("--steps", 1)).transpose()?;
    let goal =
        own.text("--goal").map(|text| Ok::<_, String>((Goal::parse(text)?, text.to_owned())));
    let file = |name| own.text(name).map(str::to_owned);
    let request = Request {
        axis: Axis::parse(over, steps)?,
        rounds: own.count("--rounds", ROUNDS)?,
        goal: goal.transpose()?,
        json: own.word("--output-format", &["normal", "json"])? == "json",
        csv: file("--csv"),
        svg: file("--svg"),
        args: rest,
    };
    Ok((request, file("--output")))
}
