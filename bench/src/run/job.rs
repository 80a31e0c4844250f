//! Runs one clone of one job on the calling thread: open, main phase, flush, verify, repeat.
//!
//! Data flow: [`Assignment`] -> engine and worker -> phases -> [`Outcome`].
//!
//! Not here: the loop of a phase (`worker`), when to stop (`conductor`), reports (`report`).

use std::fs::File;
use std::path::PathBuf;

use fio_compat::{CpusPolicy, IoEngine as EngineName, Job, Verify};
use mfio_engine::ring::kernel::KernelRing;
use mfio_engine::ring::threads::ThreadRing;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::clock::{Baseline, ThreadUsage};
use crate::content::{Blocks, Content, Mismatch};
use crate::generator::{Generator, Mix};
use crate::ioengine::{
    IoEngine, Null, PacketEngine, Psync, RawUring, Setup, Traits, kernel_ring_refusal,
};
use crate::measure::{Recorder, Wanted};
use crate::noise::Noise;
use crate::plan::{Plan, scheme, verify_block_bytes};
use crate::written::Written;

use super::failure::Failure;
use super::flow::Flow;
use super::lane::{Lane, Order, Stage};
use super::live::Snapshot;
use super::logs::Handles;
use super::paced::Paced;
use super::policy::{Errors, Policy};
use super::steps::{Burst, FlushAll, ReadInstead};
use super::worker::{Pacing, Rules, Worker};

/// Everything one worker needs.
pub(crate) struct Assignment {
    /// What to do.
    pub(crate) plan: Plan,
    /// The open files of the plan.
    pub(crate) files: Vec<File>,
    /// Number of the clone in the whole run, from 1; decides its seeds.
    pub(crate) number: u64,
    /// Names this run in the blocks it writes.
    pub(crate) run_seed: u64,
    /// The logs it writes.
    pub(crate) logs: Option<Handles>,
}

/// What became of it.
pub(crate) struct Outcome {
    /// Statistics.
    pub(crate) recorder: Recorder,
    /// Why it failed, if it did.
    pub(crate) failure: Option<Failure>,
    /// The first wrong blocks.
    pub(crate) mismatches: Vec<Mismatch>,
    /// All wrong blocks.
    pub(crate) mismatch_count: u64,
    /// Errors that did not end the job.
    pub(crate) errors: Errors,
    /// What the engine said about itself.
    pub(crate) traits: Traits,
}

impl Outcome {
    /// Of a job that was never started.
    pub(crate) fn none() -> Self {
        let wanted = Wanted { slat: false, clat: false, lat: false };
        Self {
            recorder: Recorder::new(wanted),
            failure: None,
            mismatches: Vec::new(),
            mismatch_count: 0,
            errors: Errors::default(),
            traits: Traits::default(),
        }
    }

    fn failed(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::none() }
    }
}

/// Runs `assignment` to its end.
pub(crate) fn run<'a>(assignment: &'a Assignment, lane: &'a Lane, flow: Flow<'a>) -> Outcome {
    let outcome = match assignment.plan.job.ioengine {
        EngineName::IoUring => on_shard(assignment, lane, flow),
        EngineName::RawUring => on::<RawUring>(assignment, lane, flow),
        EngineName::Psync => on::<Psync>(assignment, lane, flow),
        EngineName::Null => on::<Null>(assignment, lane, flow),
    };
    if outcome.failure.is_some() {
        lane.fail();
    }
    lane.enter(Stage::Ended);
    outcome
}

/// Our engine: on the kernel's ring, or on threads where that is forbidden, and then it says so.
fn on_shard<'a>(assignment: &'a Assignment, lane: &'a Lane, flow: Flow<'a>) -> Outcome {
    let Some(refusal) = kernel_ring_refusal() else {
        return on::<PacketEngine<KernelRing>>(assignment, lane, flow);
    };
    let mut outcome = on::<PacketEngine<ThreadRing>>(assignment, lane, flow);
    let line = format!("{refusal}; continuing with blocking threads");
    outcome.traits.degraded.insert(0, line);
    outcome
}

fn on<'a, E: IoEngine>(assignment: &'a Assignment, lane: &'a Lane, flow: Flow<'a>) -> Outcome {
    if let Err(error) = settle(&assignment.plan) {
        return Outcome::failed(Failure::engine(&error));
    }
    let pacing = pacing(&assignment.plan.job);
    let engine = match open::<E>(assignment, pacing) {
        Ok(engine) => engine,
        Err(error) => return Outcome::failed(Failure::engine(&error)),
    };
    let traits = engine.traits();
    let job = &assignment.plan.job;
    let wanted = Wanted { slat: !job.disable_slat, clat: !job.disable_clat, lat: !job.disable_lat };
    let mut recorder = Recorder::new(wanted);
    recorder.logs = assignment.logs.as_ref().and_then(|logs| logs.for_worker());
    if job.disable_bw_measurement
        && let Some(logs) = &mut recorder.logs
    {
        logs.without_bandwidth();
    }
    let latencies = !job.gtod_reduce && (wanted.slat || wanted.clat || wanted.lat);
    let clock = latencies || recorder.logs.is_some();
    let content = content(assignment);
    let mut worker = Worker::new(engine, (lane, &assignment.files), recorder, content, pacing);
    worker.policy = Policy::of(job);
    worker.flow = flow;
    worker.range_flags = super::beside::range_flags(job.durability.sync_file_range);
    if let Some(logs) = &mut worker.recorder.logs {
        logs.restart(job.ramp_time_ns == 0);
    }
    if clock {
        passes::<E, true>(&mut worker, assignment);
    } else {
        passes::<E, false>(&mut worker, assignment);
    }
    let usage = ThreadUsage::now().since(worker.baseline.usage);
    worker.recorder.add_usage(usage);
    if let Some(mut logs) = worker.recorder.logs.take() {
        logs.finish();
    }
    let (recorder, errors) = (worker.recorder.clone(), worker.errors.clone());
    lane.deliver(Snapshot { recorder, errors });
    if lane.is_slow() && worker.failure.is_none() {
        worker.failure = Some(Failure::slow());
    }
    let policy = &worker.policy;
    let forgiven = policy.continues_after_mismatch || policy.ignores_mismatch();
    if worker.mismatch_count > 0 && worker.failure.is_none() && !forgiven {
        worker.failure = Some(Failure::verify());
    }
    Outcome {
        recorder: worker.recorder,
        failure: worker.failure,
        mismatches: worker.mismatches,
        mismatch_count: worker.mismatch_count,
        errors: worker.errors,
        traits,
    }
}

/// Gives the calling thread its CPUs and its niceness.
fn settle(plan: &Plan) -> std::io::Result<()> {
    let (cpus, control) = (&plan.job.cpus_allowed, &plan.job.control);
    if control.nice != 0 {
        // Number 0 is the calling thread.
        rustix::process::setpriority_process(None, control.nice)?;
    }
    if control.cpus_policy == CpusPolicy::Split && !cpus.is_empty() {
        let own = cpus[plan.clone as usize % cpus.len()];
        return Ok(pin(&[own])?);
    }
    Ok(pin(cpus)?)
}

/// Restricts the calling thread to `cpus`; none means any.
fn pin(cpus: &[u32]) -> nix::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu as usize)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
}

fn pacing(job: &Job) -> Pacing {
    let depth = if job.ioengine.is_synchronous() { 1 } else { job.iodepth.max(1) };
    let batch = if job.iodepth_batch == 0 { depth } else { job.iodepth_batch.min(depth) };
    Pacing {
        depth,
        batch,
        complete_min: job.iodepth_batch_complete_min.min(depth),
        complete_max: job.iodepth_batch_complete_max.clamp(1, depth),
        low: if job.iodepth_low == 0 { depth } else { job.iodepth_low.min(depth) },
    }
}

fn open<E: IoEngine>(assignment: &Assignment, pacing: Pacing) -> std::io::Result<E> {
    let plan = &assignment.plan;
    let paths: Vec<PathBuf> = plan.targets.iter().map(|target| target.path.clone()).collect();
    let setup = Setup {
        files: &assignment.files,
        paths: &paths,
        depth: pacing.depth,
        buffer_bytes: plan.shape.buffer_bytes(),
        uniform: plan.shape.is_uniform(),
        writes: plan.job.rw.writes(),
        direct: plan.job.direct,
        sync: plan.job.durability.sync,
        fixed_buffers: plan.job.fixedbufs,
        fixed_files: plan.job.registerfiles,
        polled: plan.job.hipri,
        sq_thread: plan.job.sqthread_poll,
    };
    E::open(&setup)
}

/// The seed of everything this clone draws: fixed per run unless the job wants otherwise.
fn seed(assignment: &Assignment) -> u64 {
    let job = &assignment.plan.job;
    let fixed = job.randrepeat || job.is_set("randseed");
    let base = if fixed { job.randseed } else { assignment.run_seed };
    base.wrapping_mul(0x9e37_0001).wrapping_mul(0x9e37_0001).wrapping_add(assignment.number)
}

fn content(assignment: &Assignment) -> Content {
    let (plan, job) = (&assignment.plan, &assignment.plan.job);
    let noise = Noise::new(&job.content, seed(assignment) ^ 0x6275_6666);
    if job.verify == Verify::None {
        return Content::noise(noise, seed(assignment));
    }
    let bytes = verify_block_bytes(job, &plan.shape);
    let blocks = Blocks { bytes, scheme: scheme(job), dumped: job.content.verify_dump };
    let remembers = job.rw.writes_data() && !job.content.verify_only;
    let written = remembers.then(|| Written::new(&plan.shape.regions, bytes));
    let written = match job.content.verify_backlog {
        0 => written,
        _ => written.map(Written::in_parts),
    };
    let run_seed = assignment.run_seed.wrapping_add(assignment.number);
    let mut content = Content::verifiable(noise, blocks, run_seed, written);
    content.check_reads = plan.shape.mix == Mix::Read || job.content.verify_only;
    content
}

/// Main phase, flush and verify phase, as often as the job says.
fn passes<E: IoEngine, const CLOCK: bool>(worker: &mut Worker<'_, E>, assignment: &Assignment) {
    let (plan, job) = (&assignment.plan, &assignment.plan.job);
    let writes = job.rw.writes_data() && !job.content.verify_only;
    let verified = job.verify != Verify::None && writes;
    let mut generator = Generator::new(&plan.shape, seed(assignment));
    worker.baseline = Baseline::now();
    worker.lane.start(worker.baseline.now_ns);
    let mut pass = 1;
    loop {
        main_phase::<E, CLOCK>(worker, &mut generator, plan);
        if verified && job.do_verify {
            verify_phase::<E, CLOCK>(worker, plan);
        }
        let again = verified && (job.time_based || pass < job.loops);
        if !again || worker.lane.order() >= Order::TimeUp || worker.failure.is_some() {
            return;
        }
        pass += 1;
        worker.content.forget();
        generator = Generator::new(&plan.shape, seed(assignment).wrapping_add(pass));
        worker.baseline.now_ns = crate::clock::now_ns();
    }
}

fn main_phase<E: IoEngine, const CLOCK: bool>(
    worker: &mut Worker<'_, E>,
    generator: &mut Generator,
    plan: &Plan,
) {
    worker.lane.enter(Stage::Running);
    let job = &plan.job;
    let used = plan.shape.mix.directions();
    let used = if job.content.verify_only { [true, false, false] } else { used };
    worker.span = (used, worker.baseline.now_ns);
    let check = worker.content.check_reads;
    let rules = Rules { ends_at: Order::TimeUp, check, remembered: false, fatal: job.verify_fatal };
    if job.content.verify_only {
        worker.phase::<CLOCK, _>(&mut ReadInstead(generator), rules);
    } else if job.content.verify_backlog > 0 && job.do_verify && job.rw.writes_data() {
        in_parts::<E, CLOCK>(worker, generator, plan, rules);
    } else if job.pace.is_paced() || worker.flow.is_shared() {
        let flow = worker.flow.clone();
        worker.phase::<CLOCK, _>(&mut Paced::new(generator, &job.pace, flow), rules);
    } else {
        worker.phase::<CLOCK, _>(generator, rules);
    }
    if (job.end_fsync || job.durability.fsync_on_close)
        && job.rw.writes_data()
        && worker.failure.is_none()
    {
        worker.lane.enter(Stage::Syncing);
        let count = u32::try_from(plan.targets.len()).unwrap_or(0);
        let rules = Rules { ends_at: Order::Abort, ..rules };
        worker.phase::<CLOCK, _>(&mut FlushAll::new(count), rules);
    }
    let spent_ns = crate::clock::now_ns().saturating_sub(worker.baseline.now_ns);
    worker.recorder.add_runtime(used, spent_ns);
}

/// `verify_backlog`: after so many writes, those are read back, and so on.
fn in_parts<E: IoEngine, const CLOCK: bool>(
    worker: &mut Worker<'_, E>,
    generator: &mut Generator,
    plan: &Plan,
    rules: Rules,
) {
    let mut burst = Burst::new(generator, &plan.job);
    while !burst.is_finished() && !worker.is_over(rules) {
        burst.refill();
        worker.phase::<CLOCK, _>(&mut burst, rules);
        let batch = match plan.job.content.verify_backlog_batch {
            0 => usize::MAX,
            batch => usize::try_from(batch).unwrap_or(usize::MAX),
        };
        // What a small batch leaves over is read back at the end.
        let started_ns = crate::clock::now_ns();
        read_back::<E, CLOCK>(worker, plan, batch);
        let spent_ns = crate::clock::now_ns().saturating_sub(started_ns);
        // Where the job reads anyway, the time of its reads is that of the whole.
        let reads = !plan.shape.mix.directions()[0];
        worker.recorder.add_runtime([reads, false, false], spent_ns);
        worker.lane.enter(Stage::Running);
    }
}

/// Reads every written block back.
fn verify_phase<E: IoEngine, const CLOCK: bool>(worker: &mut Worker<'_, E>, plan: &Plan) {
    let started_ns = crate::clock::now_ns();
    worker.span = ([true, false, false], started_ns);
    read_back::<E, CLOCK>(worker, plan, usize::MAX);
    let spent_ns = crate::clock::now_ns().saturating_sub(started_ns);
    worker.recorder.add_runtime([true, false, false], spent_ns);
}

/// Reads written blocks back: those that are new, where that is done in parts, or all.
fn read_back<E: IoEngine, const CLOCK: bool>(worker: &mut Worker<'_, E>, plan: &Plan, most: usize) {
    if worker.failure.is_some() || worker.lane.order() == Order::Abort {
        return;
    }
    let Some(written) = worker.content.written_mut() else { return };
    let steps = written.read_back_fresh(most);
    let mut steps = steps.unwrap_or_else(|| written.read_back());
    worker.lane.enter(Stage::Verifying);
    let fatal = plan.job.verify_fatal;
    let rules = Rules { ends_at: Order::Abort, check: true, remembered: true, fatal };
    worker.phase::<CLOCK, _>(&mut steps, rules);
}

/// The outcome of a worker that ended in a panic, which has been printed already.
pub(crate) fn panicked() -> Outcome {
    Outcome::failed(Failure::engine(&std::io::Error::other("a worker panicked")))
}
