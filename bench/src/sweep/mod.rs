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
use nix::unistd::{AccessFlags, access};
use serde_json::json;

use crate::clock::load_average;
use crate::output::{Output, complain};
use crate::overwrite;
use crate::plan::survey;
use crate::report::VERSION;
use crate::sample::{self, Sample, Way};
use crate::signals::{self, Signals};
use crate::subcommand::{Own, last_cpu, one_job};
use crate::summary::ratio;
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
    /// As the command line says.
    readonly: bool,
    parse_only: bool,
}

/// Runs the subcommand; `args` follow its name.
///
/// # Errors
/// One line.
pub(crate) fn main(args: &[String]) -> Result<u8, String> {
    let (mut request, output) = parse(args)?;
    let signals = Signals::listen().map_err(|error| format!("cannot handle signals: {error}"))?;
    let (said, cpu) = (BTreeSet::new(), last_cpu());
    let mut runner = Runner { signals: &signals, said, cpu, readonly: false, parse_only: false };
    // Everything is refused before anything runs.
    let first = runner.job(&request, &[])?;
    if request.axis.option == "iodepth"
        && first.ioengine.is_synchronous()
        && !first.steering.offload
    {
        return Err(format!(
            "sweep: engine {} has no iodepth, so all depths are one; take io_uring, or another \
             option: --over numjobs=1..8, --over bs=4k,64k, --over rate_iops=auto",
            first.ioengine_requested
        ));
    }
    let mut jobs = if request.axis.relative { vec![first.clone()] } else { Vec::new() };
    let absolute = request.axis.values.iter().filter(|_| !request.axis.relative);
    for value in absolute {
        jobs.push(runner.job(&request, &[(request.axis.option.clone(), value.clone())])?);
    }
    if runner.parse_only {
        return Ok(0);
    }
    jobs.iter().try_for_each(|job| check_places(job, &request, output.as_deref()))?;
    if let Some(line) = duration(&request, &jobs) {
        complain(&format!("mfio-bench: {line}"));
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
        let way = runner.way(false);
        let Some(reached) = runner.run(first.clone(), way)? else { return Ok(signals::EXIT_CODE) };
        request.axis = absolute_rates(&request.axis, &reached, &first);
    }
    // The heaviest load warms caches, files and frequencies up, and is not counted.
    let set: Vec<_> =
        request.axis.values.last().map(|value| runner.set(&request, value)).into_iter().collect();
    let (job, way) = (runner.job(&request, &set)?, runner.way(true));
    let Some(warm_up) = runner.run(job, way)? else { return Ok(signals::EXIT_CODE) };
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
        points.sort_by_key(Point::asked);
    }
    let text = conclude(&request, &points, &warm_up)?;
    output.print(&text).map_err(|error| format!("cannot write the result: {error}"))?;
    Ok(0)
}

impl Runner<'_> {
    fn job(&mut self, request: &Request, set: &[(String, String)]) -> Result<Job, String> {
        let asked = one_job("sweep", &request.args, set, &mut self.said)?;
        (self.readonly, self.parse_only) = (asked.readonly, asked.parse_only);
        let mut job = asked.job;
        job.disable_lat = false;
        if job.gtod_reduce {
            return Err("sweep needs latencies: gtod_reduce takes them away".into());
        }
        if job.numjobs == 1 && job.cpus_allowed.is_empty() {
            job.cpus_allowed = self.cpu.into_iter().collect();
        }
        Ok(job)
    }

    fn set(&self, request: &Request, value: &str) -> (String, String) {
        (request.axis.option.clone(), value.to_owned())
    }

    fn way(&self, counts_punts: bool) -> Way {
        Way { counts_punts, readonly: self.readonly }
    }

    fn run(&mut self, job: Job, way: Way) -> Result<Option<Sample>, String> {
        sample::run(job, self.signals, &mut self.said, way)
    }

    /// A point for each value; `None` after a signal.
    fn points(
        &mut self,
        request: &Request,
        values: &[String],
    ) -> Result<Option<Vec<Point>>, String> {
        let mut rounds: Vec<(Vec<Sample>, [u64; 3])> = vec![Default::default(); values.len()];
        for _ in 0..request.rounds {
            for (value, (rounds, rates)) in values.iter().zip(&mut rounds) {
                let job = self.job(request, &[self.set(request, value)])?;
                *rates = request.axis.rates(&job);
                let Some(sample) = self.run(job, self.way(false))? else { return Ok(None) };
                rounds.push(sample);
            }
        }
        let goal = request.goal.as_ref().map(|(goal, _)| *goal);
        let point = |(value, (rounds, rates)): (&String, &(Vec<Sample>, _))| {
            let mut point = Point::of(value, rounds, goal);
            point.rates = *rates;
            point
        };
        Ok(Some(values.iter().zip(&rounds).map(point).collect()))
    }
}

/// How long it will take, where the job does not say how long it runs.
fn duration(request: &Request, jobs: &[Job]) -> Option<String> {
    let run_ns = |job: &Job| {
        let chosen = !job.is_set("runtime") && job.number_ios.is_none();
        chosen.then(|| job.runtime_ns.unwrap_or(0) + job.ramp_time_ns)
    };
    let run_s = jobs.iter().map(run_ns).collect::<Option<Vec<_>>>()?.into_iter().max()?;
    let run_s = ratio(run_s, 1_000_000_000);
    let (values, rounds) = (request.axis.values.len(), request.rounds);
    // The warm-up and, where rates are shares of it, the run without a rate.
    let runs = values * rounds + 1 + usize::from(request.axis.relative);
    let seconds = |runs: usize| u64::try_from(runs).map_or(0.0, |runs| ratio(runs, 1) * run_s);
    let most = match request.goal.is_some() && request.axis.is_rate() {
        true => format!(" to {:.0}", seconds(runs + HALVINGS * rounds)),
        false => String::new(),
    };
    Some(format!(
        "sweep: no runtime is given, so each run takes {run_s} s: {values} values in {rounds} \
         rounds take {:.0}{most} s, and the layout of files besides; set runtime, --rounds or \
         fewer values for another",
        seconds(runs)
    ))
}

/// The files of the results must not be those of the job.
fn check_places(job: &Job, request: &Request, output: Option<&str>) -> Result<(), String> {
    let plans = survey(std::slice::from_ref(job))?;
    let files = [("--output", output), ("--csv", request.csv.as_deref())];
    for (option, name) in files.into_iter().chain([("--svg", request.svg.as_deref())]) {
        if let Some(name) = name {
            overwrite::check(&format!("{option}={name}"), name, &plans)?;
            check_writable(option, name)?;
        }
    }
    Ok(())
}

/// What is written at the end must not fail then, as far as that can be told now.
fn check_writable(option: &str, name: &str) -> Result<(), String> {
    let path = Path::new(name);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let place = if path.exists() { path } else { parent.unwrap_or(Path::new(".")) };
    let wrong = |why: &str| format!("{option}={name} cannot be written: {why}; name another file");
    if path.is_dir() {
        return Err(wrong("it is a directory"));
    }
    access(place, AccessFlags::W_OK).map_err(|errno| wrong(errno.desc()))
}

/// Shares of what was reached, as numbers: one for each direction of the job.
fn absolute_rates(axis: &Axis, reached: &Sample, job: &Job) -> Axis {
    let bytes = axis.option == "rate";
    // What a verification reads back has no rate.
    let used = [job.rw.reads(), job.rw.writes_data(), job.rw.trims()];
    let all = std::array::from_fn(|at| {
        let (iops, bytes_per_s) = reached.directions[at];
        if !used[at] {
            return 0.0;
        }
        if bytes { bytes_per_s } else { iops }
    });
    let clones = f64::from(job.numjobs.max(1));
    let value = |percent: &String| {
        let share: f64 = percent.parse().unwrap_or(100.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "above 0")]
        let rate = |all: f64| (all / clones * share / 100.0) as u64;
        axis::text(<[f64; 3]>::map(all, rate))
    };
    let values = axis.values.iter().map(value).collect();
    Axis { option: axis.option.clone(), values, relative: false }
}

/// The rate between the highest that meets the goal and the lowest above it that does not.
fn halfway(request: &Request, points: &[Point]) -> Option<String> {
    let (goal, _) = request.goal.as_ref()?;
    if !request.axis.is_rate() {
        return None;
    }
    let met = points.iter().filter(|point| goal.is_met_by(point));
    let met = met.max_by_key(|point| point.asked())?;
    let missed = points.iter().filter(|point| !goal.is_met_by(point));
    let missed = missed.filter(|point| point.asked() > met.asked());
    let missed = missed.min_by_key(|point| point.asked())?;
    let between = std::array::from_fn(|at| met.rates[at].midpoint(missed.rates[at]));
    let new = points.iter().all(|point| point.rates != between);
    new.then(|| axis::text(between))
}

fn heading(option: &str) -> String {
    format!(
        "{option:>12} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}",
        "IOPS", "MiB/s", "mean us", "p50 us", "p99 us", "p99.9 us", "flight", "CPU ns"
    )
}

fn line(point: &Point) -> String {
    let us = |ns: u64| format!("{:.1}", ratio(ns, 1000));
    let [p50, p99, p999] = point.percentiles_ns.map(us);
    let missed = if point.is_reached() { "" } else { " rate not reached" };
    format!(
        "{:>12} {:>10.0} {:>9.1} {:>9.1} {p50:>9} {p99:>9} {p999:>9} {:>8.2} {:>8.0}{missed}\n",
        point.value,
        point.iops.value,
        point.bytes_per_s / f64::from(1 << 20),
        point.mean_ns / 1e3,
        point.in_flight(),
        point.cpu_ns_per_io,
    )
}

/// Writes the files that were asked for, and returns what is printed at the end.
fn conclude(request: &Request, points: &[Point], warm_up: &Sample) -> Result<String, String> {
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
    let notes = notes(points, warm_up);
    if request.json {
        let document = json!({
            "mfio": VERSION,
            "sweep": {
                "job": request.args,
                "over": option,
                "rounds": request.rounds,
                "load_average": load_average(),
                "points": curve::json(points),
                "warm_up_punts": warm_up.punts,
                "notes": notes,
                "knee": knee.map(value),
                "goal": best.map(|(best, text)| json!({
                    "text": text,
                    "best": best.map(value),
                })),
            },
        });
        return Ok(format!("{document:#}\n"));
    }
    let mut text: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
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

/// What makes the figures mean something else than they seem to.
fn notes(points: &[Point], warm_up: &Sample) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    for point in points {
        let found = point.remarks.iter().map(|line| format!("at {}: {line}", point.value));
        notes.extend(found);
    }
    if let Some(punts @ 1..) = warm_up.punts {
        notes.push(format!("{punts} I/Os of the warm-up were punted to workers of the kernel"));
    }
    if points.iter().any(|point| point.by_schedule) {
        notes.push("latencies are those since an I/O was due".to_owned());
    }
    let steal = points.iter().map(|point| point.steal_percent_max).fold(0.0, f64::max);
    notes.push(format!("the hypervisor took {steal:.1}% of the CPU time of a run at most"));
    notes
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
