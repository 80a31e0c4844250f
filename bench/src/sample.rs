//! One quiet run of one job, as the few figures that are compared or plotted.
//!
//! Data flow: [`Job`] -> `run::conduct`, without progress or report -> [`Sample`].
//!
//! Not here: how runs are put beside each other (`compare`, `sweep`).

use std::collections::BTreeSet;

use fio_compat::Job;
use fio_compat::stats::LatencyStat;
use mfio_engine::PuntCounter;

use crate::clock::CpuTimes;
use crate::device;
use crate::output::complain;
use crate::plan::{Plan, survey};
use crate::report::failure_lines;
use crate::run::conductor::Manner;
use crate::run::lane::Lane;
use crate::run::{Observer, Tick, conduct};
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
}

/// Runs `job`; `None` after a signal. What its engine could not have goes to stderr unless it
/// is among `said` already. Counting punts costs a little at each switch between threads, so a
/// run that is measured does not.
///
/// # Errors
/// One line: the job could not be run, or failed.
pub(crate) fn run(
    job: Job,
    signals: &Signals,
    said: &mut BTreeSet<String>,
    counts_punts: bool,
) -> Result<Option<Sample>, String> {
    let plans = survey(&[job])?;
    let claims = device::claim(&plans)?;
    let manner = Manner { filled: false, remove: false };
    let punts = counts_punts.then(PuntCounter::of_this_thread_and_its_children).flatten();
    let before = CpuTimes::now();
    let finished = conduct(plans, claims, manner, signals.flag(), &mut Quiet)?;
    if signals.received().is_some() {
        return Ok(None);
    }
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
        let recorder = &job.outcome.recorder;
        let done = recorder.recorded();
        let runtime_ns = (0..3).map(|direction| recorder.runtime_ns(direction)).max();
        let runtime_ns = runtime_ns.unwrap_or(0).max(1);
        let sum = |of: fn(&crate::run::lane::Totals) -> u64| done.iter().map(of).sum::<u64>();
        sample.iops += ratio(sum(|totals| totals.ios), runtime_ns) * 1e9;
        sample.bytes_per_s += ratio(sum(|totals| totals.bytes), runtime_ns) * 1e9;
        ios += sum(|totals| totals.ios);
        cpu_ns += recorder.usage().cpu_ns();
        elsewhere_ns += recorder.usage().elsewhere_ns();
        (0..3).for_each(|direction| sample.latency.merge(recorder.total_latency(direction)));
    }
    if ios == 0 {
        return Err("the job did no I/O".into());
    }
    sample.cpu_ns_per_io = ratio(cpu_ns, ios);
    sample.elsewhere_ns_per_io = ratio(elsewhere_ns, ios);
    Ok(Some(sample))
}

/// Shows nothing.
struct Quiet;

impl Observer for Quiet {
    fn laying_out(&mut self, _plan: &Plan, _files: u64, _bytes: u64) {}
    fn starting(&mut self, _plans: &[Plan]) {}
    fn tick(&mut self, _tick: &Tick<'_>) {}
    fn ended(&mut self, _lanes: &[Lane]) {}
}
