//! Starts the workers stage by stage, watches the clock for them, and samples their rates.
//!
//! Data flow: plans -> stages (a `stonewall` begins one) -> a thread per plan with its lane;
//! this thread sleeps until something is due: a sample, the end of a ramp or of a runtime, a
//! progress line, a signal. The workers never look at the clock for that.
//!
//! Not here: the I/O (`worker`), the text of progress (`progress`).

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use fio_compat::ExitWhat;
use mfio_engine::DeviceClaim;

use crate::clock::{now_ns, unix_ms};
use crate::layout::{self, Created};
use crate::plan::{Kind, Plan, stages};

use super::flow::Flow;
use super::gate::{self, Gate};
use super::job::{self, Assignment, Outcome};
use super::lane::{Lane, Order, Stage};
use super::live::{self, Live, Snapshot};
use super::logs::{self, Handles};
use super::record::{self, Recording};
use super::sampler::Sampler;
use super::steady::SteadyGroups;

/// Signals and finished workers are noticed at least this often.
const NAP_NS: u64 = 50_000_000;
/// … and that they have begun at least this often.
const STARTING_NAP_NS: u64 = 1_000_000;

/// One clone that has run.
pub(crate) struct Finished {
    /// What it was.
    pub(crate) plan: Plan,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// Its rates.
    pub(crate) samples: Sampler,
    /// When it began, in milliseconds since 1970.
    pub(crate) started_unix_ms: u64,
}

/// What a progress line is made of.
pub(crate) struct Tick<'a> {
    /// All clones of the run.
    pub(crate) plans: &'a [Plan],
    /// Their lanes, in the same order.
    pub(crate) lanes: &'a [Lane],
    /// The present.
    pub(crate) now_ns: u64,
}

/// Is told what goes on.
pub(crate) trait Observer {
    /// So many files with so many bytes are about to be laid out.
    fn laying_out(&mut self, plan: &Plan, files: u64, bytes: u64);
    /// Everything is laid out; the jobs begin.
    fn starting(&mut self, plans: &[Plan]);
    /// Called now and then while jobs run.
    fn tick(&mut self, tick: &Tick<'_>);
    /// The jobs are over: leave the line.
    fn ended(&mut self, lanes: &[Lane]);
    /// Whether a report of the results so far is due.
    fn wants_status(&mut self, _now_ns: u64) -> bool {
        false
    }
    /// The results so far of every clone that has begun.
    fn status(&mut self, _live: Vec<Live<'_>>) {}
    /// A log is incomplete, and why.
    fn log_failed(&mut self, _line: String) {}
}

/// Ways of the run that are not options of a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Lay files out with data even where the job only writes.
    pub(crate) filled: bool,
    /// Remove all files of the run at its end.
    pub(crate) remove: bool,
}

/// Runs everything; `claims` are of the devices that are written, and are given up when all are
/// closed. Jobs that were never started because of a signal are missing in the result.
///
/// # Errors
/// One line, before any job was started.
pub(crate) fn conduct(
    plans: Vec<Plan>,
    claims: Vec<DeviceClaim>,
    manner: Manner,
    signal: &AtomicUsize,
    observer: &mut dyn Observer,
) -> Result<Vec<Finished>, String> {
    let mut created = Created::default();
    for plan in &plans {
        if let Some((count, bytes)) = layout::outstanding(plan) {
            observer.laying_out(plan, count, bytes);
        }
        if plan.job.layout.create_serialize {
            layout::prepare(plan, manner.filled, signal)?;
        }
        // Until a job has begun, only what this run makes is its to remove.
        let made = plan.targets.iter().filter(|target| target.kind == Kind::Missing);
        if leaves_nothing(plan, manner) {
            made.for_each(|target| created.removes(target));
        }
    }
    prepare_together(&plans, manner.filled, signal)?;
    let mut files = Vec::new();
    for plan in &plans {
        let unused = plan.job.layout.create_only;
        files.push(if unused { Vec::new() } else { layout::open(plan)? });
    }
    let (log_writer, logs) = logs::open(&plans)?;
    let (trace_writer, recordings) = record::open(&plans)?;
    observer.starting(&plans);
    let lanes: Vec<Lane> = plans.iter().map(|plan| Lane::new(plan.job.ramp_time_ns > 0)).collect();
    let run_seed = crate::random::mix(unix_ms() ^ u64::from(std::process::id()) << 40);
    let mut finished = Vec::new();
    let begun_ns = now_ns();
    let mut conductor = Conductor {
        plans: &plans,
        lanes: &lanes,
        run_seed,
        signal,
        observer,
        asked_ns: None,
        begun_ns,
        over: false,
    };
    let mut files = files.into_iter().zip(logs).zip(recordings);
    let stages = stages(&plans);
    let mut begin = 0;
    while begin < plans.len() && signal.load(Ordering::Relaxed) == 0 && !conductor.over {
        let end = stages.partition_point(|stage| *stage <= stages[begin]);
        let equipment = files.by_ref().take(end - begin).collect();
        let done = conductor.stage(begin, equipment, &finished);
        finished.extend(done);
        let done = plans[begin..end].iter().zip(&lanes[begin..end]);
        let begun = done.filter(|(_, lane)| lane.started_ns().is_some());
        for (plan, _) in begun.filter(|(plan, _)| leaves_nothing(plan, manner)) {
            let found = plan.targets.iter().filter(|target| target.kind != Kind::Missing);
            found.for_each(|target| created.removes(target));
        }
        begin = end;
    }
    conductor.observer.ended(&lanes);
    // The handles of jobs that were never started would keep the writer waiting.
    drop(files);
    let failed = log_writer.finish().into_iter().chain(trace_writer.finish());
    failed.for_each(|line| conductor.observer.log_failed(line));
    // They have results like all others, only empty ones: readers count on their places.
    finished.extend(plans[finished.len()..].iter().map(Finished::never));
    drop(created);
    drop(claims);
    Ok(finished)
}

/// Whether the files of a job are removed when it has run.
fn leaves_nothing(plan: &Plan, manner: Manner) -> bool {
    let layout = &plan.job.layout;
    (manner.remove || plan.job.unlink || layout.unlink_each_loop) && !layout.create_only
}

/// `create_serialize=0`: the files of all such jobs are laid out at the same time.
fn prepare_together(plans: &[Plan], filled: bool, signal: &AtomicUsize) -> Result<(), String> {
    let together = plans.iter().filter(|plan| !plan.job.layout.create_serialize);
    thread::scope(|scope| {
        let threads =
            together.map(|plan| scope.spawn(move || layout::prepare(plan, filled, signal)));
        let threads: Vec<_> = threads.collect();
        let ended = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err("a layout ended in a panic".to_owned()))
        });
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}

struct Conductor<'a> {
    plans: &'a [Plan],
    lanes: &'a [Lane],
    run_seed: u64,
    signal: &'a AtomicUsize,
    observer: &'a mut dyn Observer,
    /// When results so far were asked for that are not reported yet.
    asked_ns: Option<u64>,
    /// When the first job could have started.
    begun_ns: u64,
    /// A job that ended has ended all that would come.
    over: bool,
}

impl Finished {
    fn never(plan: &Plan) -> Self {
        let samples = Sampler::new(&plan.job, None);
        Self { plan: plan.clone(), outcome: Outcome::none(), samples, started_unix_ms: 0 }
    }

    fn live(&self) -> Live<'_> {
        Live {
            plan: &self.plan,
            recorder: self.outcome.recorder.clone(),
            errors: self.outcome.errors.clone(),
            samples: &self.samples,
            started_unix_ms: self.started_unix_ms,
        }
    }
}

/// The open files of one clone, its logs and its trace.
type Equipment = ((Vec<File>, Option<Handles>), Option<Recording>);

impl Conductor<'_> {
    fn stage(
        &mut self,
        begin: usize,
        equipment: Vec<Equipment>,
        before: &[Finished],
    ) -> Vec<Finished> {
        let end = begin + equipment.len();
        let begun = Begun { unix_ms: unix_ms(), now_ns: now_ns() };
        let assignments: Vec<Assignment> = self.plans[begin..end]
            .iter()
            .zip(equipment)
            .zip(1 + u64::try_from(begin).unwrap_or(0)..)
            .map(|((plan, ((files, logs), recording)), number)| {
                let run_seed = self.run_seed;
                let files = files.into();
                Assignment { plan: plan.clone(), files, number, run_seed, logs, recording }
            })
            .collect();
        let lanes = &self.lanes[begin..end];
        let mut samplers: Vec<Sampler> =
            assignments.iter().map(|a| Sampler::new(&a.plan.job, a.logs.as_ref())).collect();
        let outcomes = thread::scope(|scope| {
            let here = thread::current();
            let handles: Vec<_> = assignments
                .iter()
                .zip(lanes)
                .map(|(assignment, lane)| {
                    let here = here.clone();
                    let gate = Gate::of(&assignment.plan, self.plans, self.lanes, self.begun_ns);
                    let flow = Flow::of(&assignment.plan, self.plans, self.lanes, lane);
                    scope.spawn(move || {
                        gate.pass(lane);
                        let outcome = job::run(assignment, lane, flow);
                        here.unpark();
                        outcome
                    })
                })
                .collect();
            let stage = StageSoFar { lanes, assignments: &assignments, before, begun };
            self.watch(&handles, &stage, &mut samplers);
            handles.into_iter().map(joined).collect::<Vec<_>>()
        });
        let finished = assignments.into_iter().zip(outcomes).zip(samplers).zip(lanes);
        finished
            .map(|(((assignment, outcome), samples), lane)| Finished {
                plan: assignment.plan,
                outcome,
                samples,
                started_unix_ms: begun.started_unix_ms(lane),
            })
            .collect()
    }

    /// `exitall`: the first job that has ended ends others.
    fn end_others(&mut self, lanes: &[Lane], assignments: &[Assignment]) {
        for (lane, assignment) in lanes.iter().zip(assignments) {
            let Some(what) = gate::ends_others(&assignment.plan, lane) else { continue };
            let group = assignment.plan.job.group_id;
            for (other, of) in lanes.iter().zip(assignments) {
                if what != ExitWhat::Group || of.plan.job.group_id == group {
                    other.give(Order::Abort);
                }
            }
            self.over |= what == ExitWhat::All;
        }
    }

    /// Sleeps and gives orders until every worker has ended.
    fn watch(
        &mut self,
        handles: &[ScopedJoinHandle<'_, Outcome>],
        stage: &StageSoFar<'_>,
        samplers: &mut [Sampler],
    ) {
        let StageSoFar { lanes, assignments, .. } = *stage;
        let mut steady = SteadyGroups::of(assignments.iter().map(|at| &at.plan.job));
        while !handles.iter().all(ScopedJoinHandle::is_finished) {
            let now = now_ns();
            // Until all have begun, nothing is known of what is due, so the naps are short.
            let begun = lanes.iter().all(|lane| lane.started_ns().is_some());
            let mut wake_ns = now + if begun { NAP_NS } else { STARTING_NAP_NS };
            self.end_others(lanes, assignments);
            for ((lane, assignment), sampler) in lanes.iter().zip(assignments).zip(&mut *samplers) {
                if self.signal.load(Ordering::Relaxed) != 0 {
                    lane.give(Order::Abort);
                }
                let due = direct(lane, &assignment.plan, sampler, now);
                wake_ns = wake_ns.min(due.unwrap_or(u64::MAX));
            }
            wake_ns = wake_ns.min(steady.look(lanes, samplers, now));
            self.observer.tick(&Tick { plans: self.plans, lanes: self.lanes, now_ns: now });
            self.report_so_far(stage, samplers, now);
            let nap_ns = wake_ns.saturating_sub(now_ns());
            if nap_ns > 0 {
                thread::park_timeout(Duration::from_nanos(nap_ns));
            }
        }
        let now = now_ns();
        // Jobs that have ended before anybody looked are told as well.
        steady.look(lanes, samplers, now);
        for (sampler, lane) in samplers.iter_mut().zip(lanes) {
            sampler.finish(now, lane.totals());
        }
    }

    /// Asks for results so far where they are due, and reports them once all have answered;
    /// whoever is stuck in its device answers with what it said last.
    fn report_so_far(&mut self, stage: &StageSoFar<'_>, samplers: &[Sampler], now_ns: u64) {
        let begun = || stage.lanes.iter().filter(|lane| lane.started_ns().is_some());
        let Some(asked_ns) = self.asked_ns else {
            if self.observer.wants_status(now_ns) {
                begun().for_each(Lane::ask);
                self.asked_ns = Some(now_ns);
            }
            return;
        };
        let patient = now_ns < asked_ns + live::PATIENCE_NS;
        if patient && begun().any(|lane| !lane.has_answered()) {
            return;
        }
        self.asked_ns = None;
        let clones = stage.lanes.iter().zip(stage.assignments).zip(samplers);
        let running = clones.filter_map(|((lane, assignment), samples)| {
            let Snapshot { recorder, errors } = *lane.snapshot()?;
            let started_unix_ms = stage.begun.started_unix_ms(lane);
            Some(Live { plan: &assignment.plan, recorder, errors, samples, started_unix_ms })
        });
        self.observer.status(stage.before.iter().map(Finished::live).chain(running).collect());
    }
}

/// The stage that runs, and what has run before it.
struct StageSoFar<'a> {
    lanes: &'a [Lane],
    assignments: &'a [Assignment],
    before: &'a [Finished],
    begun: Begun,
}

/// When a stage began, by both clocks.
#[derive(Clone, Copy)]
struct Begun {
    unix_ms: u64,
    now_ns: u64,
}

impl Begun {
    /// When the main phase of one of its jobs began: after its delays and waits.
    fn started_unix_ms(self, lane: &Lane) -> u64 {
        let started_ns = lane.started_ns().unwrap_or(self.now_ns);
        self.unix_ms + started_ns.saturating_sub(self.now_ns) / 1_000_000
    }
}

/// Orders that are due for one worker, and when the next one is.
fn direct(lane: &Lane, plan: &Plan, sampler: &mut Sampler, now_ns: u64) -> Option<u64> {
    let started_ns = lane.started_ns()?;
    if lane.stage() == Stage::Ended {
        sampler.finish(now_ns, lane.totals());
        return None;
    }
    let record_ns = started_ns + plan.job.ramp_time_ns;
    let end_ns = plan.job.runtime_ns.map(|runtime_ns| record_ns.saturating_add(runtime_ns));
    if now_ns < record_ns {
        return Some(record_ns);
    }
    if sampler.due_ns().is_none() {
        lane.give(Order::Record);
        sampler.begin(now_ns, lane.totals());
    }
    if lane.take_restart() {
        sampler.restart(now_ns, lane.totals());
    }
    if sampler.due_ns().is_some_and(|due_ns| now_ns >= due_ns) {
        sampler.sample(now_ns, lane.totals());
    }
    let judged_ns = lane.running_ns(now_ns).and_then(|running_ns| {
        let (minimum, pace) = (&mut sampler.minimum, &plan.job.pace);
        if minimum.is_missed((pace, plan.directions()), running_ns, lane.totals()) {
            lane.fail_slow();
        }
        minimum.due_ns(pace).map(|due_ns| now_ns + due_ns.saturating_sub(running_ns))
    });
    let due_ns = sampler.due_ns().into_iter().chain(judged_ns).min();
    match end_ns {
        Some(end_ns) if now_ns >= end_ns => {
            lane.give(Order::TimeUp);
            due_ns
        }
        Some(end_ns) => Some(due_ns.map_or(end_ns, |due_ns| due_ns.min(end_ns))),
        None => due_ns,
    }
}

fn joined(handle: ScopedJoinHandle<'_, Outcome>) -> Outcome {
    handle.join().unwrap_or_else(|_| job::panicked())
}
