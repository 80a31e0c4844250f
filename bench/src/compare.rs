//! Two engines on one job, in alternation on one core: how do they compare, and how sure is it?
//!
//! Data flow: `--a`, `--b` and a job -> A B A B … with statistics off -> per round a ratio of
//! I/Os per second and of CPU time per I/O -> median and confidence interval -> exit code.
//!
//! Neighbours on the machine disturb both engines of a round alike, which is why ratios within
//! a round are compared and never sums over rounds.
//!
//! Not here: running a job (`run`).

use fio_compat::{IoEngine, Job, parse_command_line};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::clock::load_average;
use crate::device;
use crate::machine::Machine;
use crate::output::{Output, complain};
use crate::plan::{Plan, survey};
use crate::report::failure_lines;
use crate::run::conductor::Manner;
use crate::run::lane::Lane;
use crate::run::{Finished, Observer, Tick, conduct};
use crate::signals::{self, Signals};
use crate::statistics::{Median, median};
use crate::summary::ratio;

/// Rounds without `--rounds`: the fewest that give 95 % confidence with one to spare.
const ROUNDS: usize = 7;
/// How long a side of a round lasts if the job does not say.
const RUNTIME_NS: u64 = 1_000_000_000;

/// More CPU time than this outside the engine's thread, relative to that in it, is reported.
const ELSEWHERE_MAX: f64 = 0.05;

/// What was asked for.
struct Request {
    engines: [IoEngine; 2],
    rounds: usize,
    ratio_min: Option<f64>,
    cpu_ratio_max: Option<f64>,
    job: Job,
}

/// One side of one round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    iops: f64,
    cpu_ns_per_io: f64,
    /// CPU time per I/O outside the engine's thread: punts to kernel workers, above all.
    elsewhere_ns_per_io: f64,
}

/// Runs the subcommand; `args` follow its name.
///
/// # Errors
/// One line.
pub(crate) fn main(args: &[String]) -> Result<u8, String> {
    let request = parse(args)?;
    let signals = Signals::listen().map_err(|error| format!("cannot handle signals: {error}"))?;
    let cpu = request.job.cpus_allowed.first().copied();
    let cpu = cpu.or_else(last_cpu).ok_or("no CPU is available to this process")?;
    let mut output = Output::Stdout;
    let mut say = |text: String| output.print(&text).map_err(|error| error.to_string());
    let [a, b] = request.engines;
    say(format!(
        "compare: a={} b={}, rw={} iodepth={}, {} rounds on CPU {cpu}, load average {}\n",
        a.as_str(),
        b.as_str(),
        request.job.rw.as_str(),
        request.job.iodepth,
        request.rounds,
        load_average(),
    ))?;
    let mut rounds: Vec<[Sample; 2]> = Vec::new();
    for round in 0..=request.rounds {
        let mut sides = Vec::new();
        for engine in request.engines {
            let job = side(&request.job, engine, cpu);
            let Some(sample) = run(job, &signals, round == 0)? else {
                return Ok(signals::EXIT_CODE);
            };
            sides.push(sample);
        }
        // The first round warms caches, files and frequencies up and is not counted.
        let [left, right] = [sides[0], sides[1]];
        let counted = if round == 0 { "warm-up".to_owned() } else { format!("round {round}") };
        say(format!("  {counted:<8} {}\n", round_line(left, right)))?;
        if round > 0 {
            rounds.push([left, right]);
        }
    }
    conclude(&request, &rounds, &mut say)
}

fn round_line(a: Sample, b: Sample) -> String {
    format!(
        "a {:>10.0} IOPS {:>8.1} ns CPU/IO   b {:>10.0} IOPS {:>8.1} ns CPU/IO",
        a.iops, a.cpu_ns_per_io, b.iops, b.cpu_ns_per_io
    )
}

fn conclude(
    request: &Request,
    rounds: &[[Sample; 2]],
    say: &mut impl FnMut(String) -> Result<(), String>,
) -> Result<u8, String> {
    let iops: Vec<f64> = rounds.iter().map(|[a, b]| a.iops / b.iops).collect();
    let cpu: Vec<f64> = rounds.iter().map(|[a, b]| a.cpu_ns_per_io / b.cpu_ns_per_io).collect();
    let (iops, cpu) = (median(&iops), median(&cpu));
    for (engine, side) in request.engines.iter().zip(0..) {
        let share =
            |round: &[Sample; 2]| round[side].elsewhere_ns_per_io / round[side].cpu_ns_per_io;
        let share = median(&rounds.iter().map(share).collect::<Vec<_>>()).value;
        if share > ELSEWHERE_MAX {
            say(format!(
                "note: {} used {:.0}% of its thread's CPU time again in other threads: its I/O is \
                 punted, and the CPU figures do not show that\n",
                engine.as_str(),
                share * 100.0
            ))?;
        }
    }
    say(format!("IOPS a/b: {}\n", shown(iops)))?;
    say(format!("CPU per I/O a/b: {}\n", shown(cpu)))?;
    say(format!("load average {}\n", load_average()))?;
    let mut exit_code = 0;
    if let Some(least) = request.ratio_min.filter(|least| iops.value < *least) {
        say(format!("FAILED: the IOPS ratio {:.4} is below --min-ratio {least}\n", iops.value))?;
        exit_code = 1;
    }
    if let Some(most) = request.cpu_ratio_max.filter(|most| cpu.value > *most) {
        say(format!("FAILED: the CPU ratio {:.4} is above --max-cpu-ratio {most}\n", cpu.value))?;
        exit_code = 1;
    }
    Ok(exit_code)
}

fn shown(median: Median) -> String {
    format!(
        "median {:.4}, {:.1}% confidence [{:.4}, {:.4}]",
        median.value, median.confidence_percent, median.low, median.high
    )
}

fn parse(args: &[String]) -> Result<Request, String> {
    let mut own: [Option<String>; 5] = Default::default();
    let mut rest = Vec::new();
    let mut args = args.iter();
    const NAMES: [&str; 5] = ["--a", "--b", "--min-ratio", "--max-cpu-ratio", "--rounds"];
    while let Some(arg) = args.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        match NAMES.iter().position(|known| *known == name) {
            None => rest.push(arg.clone()),
            Some(index) => {
                let value = inline.or_else(|| args.next().cloned());
                own[index] = Some(value.ok_or_else(|| format!("{name} needs a value"))?);
            }
        }
    }
    let [a, b, ratio_min, cpu_ratio_max, rounds] = own;
    let rounds = match rounds {
        None => ROUNDS,
        Some(text) => text
            .parse()
            .ok()
            .filter(|rounds| *rounds > 0)
            .ok_or_else(|| format!("--rounds={text} is not a number above 0"))?,
    };
    let engines = [engine("--a", a)?, engine("--b", b)?];
    let job = job(&rest)?;
    let (ratio_min, cpu_ratio_max) =
        (float("--min-ratio", ratio_min)?, float("--max-cpu-ratio", cpu_ratio_max)?);
    Ok(Request { engines, rounds, ratio_min, cpu_ratio_max, job })
}

fn job(args: &[String]) -> Result<Job, String> {
    // A default that a job file may override and that `side` replaces in any case; without it
    // the parser would have something to say about a missing engine.
    let engine = std::iter::once("--ioengine=io_uring".to_owned());
    let args: Vec<String> = engine.chain(args.iter().cloned()).collect();
    let invocation = parse_command_line(&args, &Machine).map_err(|error| error.to_string())?;
    for warning in &invocation.warnings {
        complain(&format!("mfio-bench: warning: {warning}"));
    }
    let mut jobs = invocation.jobs;
    match (jobs.pop(), jobs.is_empty()) {
        (Some(job), true) if job.numjobs == 1 => Ok(job),
        (None, _) => Err("compare needs a job: a job file, or --name=NAME and options".into()),
        _ => Err("compare runs one job on one core: give exactly one, with numjobs=1".into()),
    }
}

fn float(name: &str, text: Option<String>) -> Result<Option<f64>, String> {
    let Some(text) = text else { return Ok(None) };
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.map(Some).ok_or_else(|| format!("{name}={text} is not a number above 0"))
}

fn engine(option: &str, name: Option<String>) -> Result<IoEngine, String> {
    const ALL: [IoEngine; 4] =
        [IoEngine::IoUring, IoEngine::RawUring, IoEngine::Psync, IoEngine::Null];
    let known = ALL.map(IoEngine::as_str).join(", ");
    let name = name.ok_or_else(|| format!("compare needs {option} ENGINE, one of {known}"))?;
    let found = ALL.into_iter().find(|engine| engine.as_str() == name);
    found.ok_or_else(|| format!("{option} {name}: no such engine, only {known}"))
}

/// The last CPU this process may use: the first ones serve most interrupts.
fn last_cpu() -> Option<u32> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let allowed = |cpu: &usize| allowed.is_set(*cpu).unwrap_or(false);
    let last = (0..CpuSet::count()).rev().find(allowed)?;
    u32::try_from(last).ok()
}

/// The job as one side runs it: nothing is measured that costs time inside the loop.
fn side(job: &Job, engine: IoEngine, cpu: u32) -> Job {
    let mut job = job.clone();
    job.ioengine = engine;
    job.ioengine_requested = engine.as_str().to_owned();
    let ring = matches!(engine, IoEngine::IoUring | IoEngine::RawUring);
    job.fixedbufs = ring && (job.fixedbufs || !job.is_set("fixedbufs"));
    job.registerfiles = ring && (job.registerfiles || !job.is_set("registerfiles"));
    job.gtod_reduce = true;
    (job.disable_lat, job.disable_clat, job.disable_slat) = (true, true, true);
    job.disable_bw_measurement = true;
    job.cpus_allowed = vec![cpu];
    if job.runtime_ns.is_none() && job.number_ios.is_none() {
        job.runtime_ns = Some(RUNTIME_NS);
        job.time_based = true;
    }
    job
}

/// One side; `None` after a signal. `tells` what its engine could not have.
fn run(job: Job, signals: &Signals, tells: bool) -> Result<Option<Sample>, String> {
    let plans = survey(&[job])?;
    let claims = device::claim(&plans)?;
    let manner = Manner { filled: false, remove: false };
    let finished = conduct(plans, claims, manner, signals.flag(), &mut Quiet)?;
    if signals.received().is_some() {
        return Ok(None);
    }
    let lines = failure_lines(&finished);
    if let Some(line) = lines.first() {
        return Err(line.clone());
    }
    let [job] = <[Finished; 1]>::try_from(finished).map_err(|_| "the job did not run")?;
    for line in job.outcome.traits.degraded.iter().filter(|_| tells) {
        complain(&format!("mfio-bench: note: {}: {line}", job.plan.job.ioengine.as_str()));
    }
    let recorder = &job.outcome.recorder;
    let ios: u64 = recorder.recorded().iter().map(|totals| totals.ios).sum();
    let runtime_ns = recorder.runtime_ns(0).max(recorder.runtime_ns(1));
    if ios == 0 || runtime_ns == 0 {
        return Err("the job did no I/O".into());
    }
    Ok(Some(Sample {
        iops: ratio(ios, runtime_ns) * 1e9,
        cpu_ns_per_io: ratio(recorder.usage().cpu_ns(), ios),
        elsewhere_ns_per_io: ratio(recorder.usage().elsewhere_ns(), ios),
    }))
}

/// Shows nothing.
struct Quiet;

impl Observer for Quiet {
    fn laying_out(&mut self, _plan: &Plan, _files: u64, _bytes: u64) {}
    fn starting(&mut self, _plans: &[Plan]) {}
    fn tick(&mut self, _tick: &Tick<'_>) {}
    fn ended(&mut self, _lanes: &[Lane]) {}
}
