//! One quiet run of one job, as the few figures that are compared or plotted.
//!
//! Data flow: [`Job`] -> `run::conduct`, without progress or report -> [`Sample`].
//!
//! Not here: how runs are put beside each other (`compare`, `sweep`).

use std::collections::BTreeSet;

use fio_compat::Job;
use fio_compat::stats::LatencyStat;
use mfio_engine::PuntCounter;

use crate::cli::check_readonly;
use crate::clock::CpuTimes;
use crate::device;
use crate::output::complain;
use crate::plan::{Plan, survey};
use crate::report::failure_lines;
use crate::run::conductor::Manner;
use crate::run::lane::Lane;
use crate::run::{Finished, Observer, Tick, conduct};
use crate::signals::Signals;
use crate::summary::ratio;

/// What a run has shown; all clones together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// I/Os per second.
    pub(crate) iops: f64,
    /// Bytes per second.
    pub(crate) bytes_per_s: f64,
    /// CPU time of the worker's thread per I/O.
    pub(crate) cpu_ns_per_io: f64,
    /// CPU time per I/O outside the worker's thread: punts to kernel workers, above all. Only
    /// of meaning for a job of one clone.
    pub(crate) elsewhere_ns_per_io: f64,
    /// I/Os that the kernel handed to a worker thread, where that was asked for and possible.
    pub(crate) punts: Option<u64>,
    /// What the hypervisor took of the CPUs meanwhile, in percent.
    pub(crate) steal_percent: f64,
    /// From the creation of an I/O to its completion; empty without statistics.
    pub(crate) latency: LatencyStat,
    /// From when an I/O was due to its completion; empty without a rate.
    pub(crate) intended: LatencyStat,
    /// I/Os and bytes per second of reads, writes and trims.
    pub(crate) directions: [(f64, f64); 3],
    /// Of the rates asked for, the least share that was reached.
    pub(crate) rate_share: Option<f64>,
    /// I/Os that failed without ending the job.
    pub(crate) errors: u64,
    /// What the engine could not have.
    pub(crate) degraded: Vec<String>,
}

/// Ways of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    /// Punts are counted. That costs a little at each switch between threads, so a run that is
    /// measured does not.
    pub(crate) counts_punts: bool,
    /// A job that writes is refused.
    pub(crate) readonly: bool,
}

/// Runs `job`; `None` after a signal. What its engine could not have goes to stderr unless it
/// is among `said` already.
///
/// # Errors
/// One line: the job could not be run, or failed.
pub(crate) fn run(
    job: Job,
    signals: &Signals,
    said: &mut BTreeSet<String>,
    way: Way,
) -> Result<Option<Sample>, String> {
    let plans = survey(&[job])?;
    check_readonly(way.readonly, &plans)?;
    let claims = device::claim(&plans)?;
    let manner = Manner { filled: false, remove: false };
    let punts = way.counts_punts.then(PuntCounter::of_this_thread_and_its_children).flatten();
    let before = CpuTimes::now();
    let finished = conduct(plans, claims, manner, signals.flag(), &mut Quiet);
    // A signal also ends a layout, with an error that is none.
    if signals.received().is_some() {
        return Ok(None);
    }
    let finished = finished?;
    let steal_percent = CpuTimes::now().steal_percent_since(before);
    if let Some(line) = failure_lines(&finished).first() {
        return Err(line.clone());
    }
    let punts = punts.and_then(|punts| punts.ops());
    let mut sample = Sample { steal_percent, punts, ..Sample::default() };
    let (mut ios, mut cpu_ns, mut elsewhere_ns) = (0, 0, 0);
    for job in &finished {
        for line in &job.outcome.traits.degraded {
            let line = format!("mfio-bench: note: {}: {line}", job.plan.job.ioengine.as_str());
            if said.insert(line.clone()) {
                complain(&line);
            }
        }
        sample.degraded.extend(job.outcome.traits.degraded.iter().cloned());
        sample.errors += job.outcome.errors.total + job.outcome.errors.ignored;
        let recorder = &job.outcome.recorder;
        let wall_ns = recorder.wall_ns().max(1);
        for (sum, done) in sample.directions.iter_mut().zip(recorder.recorded()) {
            sum.0 += ratio(done.ios, wall_ns) * 1e9;
            sum.1 += ratio(done.bytes, wall_ns) * 1e9;
            ios += done.ios;
        }
        let share = rate_share(job);
        sample.rate_share = share.into_iter().chain(sample.rate_share).reduce(f64::min);
        recorder.intended.iter().flat_map(|of| of.iter()).for_each(|of| sample.intended.merge(of));
        cpu_ns += recorder.usage().cpu_ns();
        elsewhere_ns += recorder.usage().elsewhere_ns();
        (0..3).for_each(|direction| sample.latency.merge(&recorder.total_latency(direction)));
    }
    if ios == 0 {
        return Err("the job did no I/O".into());
    }
    sample.iops = sample.directions.iter().map(|(iops, _)| iops).sum();
    sample.bytes_per_s = sample.directions.iter().map(|(_, bytes)| bytes).sum();
    sample.cpu_ns_per_io = ratio(cpu_ns, ios);
    sample.elsewhere_ns_per_io = ratio(elsewhere_ns, ios);
    Ok(Some(sample))
}

/// What makes the figures of runs of one job mean something else than they seem to.
pub(crate) fn remarks<'a>(samples: impl Iterator<Item = &'a Sample>) -> Vec<String> {
    let (mut errors, mut lines) = (0, Vec::new());
    for sample in samples {
        errors += sample.errors;
        for line in &sample.degraded {
            if !lines.contains(line) {
                lines.push(line.clone());
            }
        }
    }
    if errors > 0 {
        lines.push(format!("{errors} I/Os failed and are not counted"));
    }
    lines
}

/// Of the rates that the job asks for, the least share that it reached.
fn rate_share(job: &Finished) -> Option<f64> {
    let (recorder, pace) = (&job.outcome.recorder, &job.plan.job.pace);
    let done = recorder.recorded();
    let share = |direction: usize| {
        let (rate, of) = match (pace.rate_iops[direction], pace.rate[direction]) {
            (0, bytes) => (bytes, done[direction].bytes),
            (ios, _) => (ios, done[direction].ios),
        };
        let reached = ratio(of, recorder.runtime_ns(direction).max(1)) * 1e9;
        let asked = rate > 0 && job.plan.directions()[direction];
        asked.then(|| reached / ratio(rate, 1))
    };
    (0..3).filter_map(share).reduce(f64::min)
}

/// Shows nothing.
struct Quiet;

impl Observer for Quiet {
    fn laying_out(&mut self, _plan: &Plan, _files: u64, _bytes: u64) {}
    fn starting(&mut self, _plans: &[Plan]) {}
    fn tick(&mut self, _tick: &Tick<'_>) {}
    fn ended(&mut self, _lanes: &[Lane]) {}
}
