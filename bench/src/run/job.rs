//! Runs one clone of one job on the calling thread: open, main phase, flush, verify, repeat.
//!
//! Data flow: [`Assignment`] -> engine and worker -> phases -> [`Outcome`].
//!
//! Not here: its phases (`phases`), the loop of a phase (`worker`), when to stop (`conductor`),
//! reports (`report`).

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use fio_compat::{CpusPolicy, IoEngine as EngineName, Job, Verify};
use mfio_engine::ring::kernel::KernelRing;
use mfio_engine::ring::threads::ThreadRing;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::clock::ThreadUsage;
use crate::content::{Blocks, Content, Mismatch};
use crate::generator::Mix;
use crate::ioengine::{
    IoEngine, Locked, Null, PacketEngine, Psync, RawUring, Setup, Traits, kernel_ring_refusal,
};
use crate::layout;
use crate::measure::{Recorder, Wanted};
use crate::noise::Noise;
use crate::plan::{Plan, scheme, verify_block_bytes};
use crate::verify_state;
use crate::written::Written;

use super::checkers::Checkers;
use super::failure::Failure;
use super::flow::Flow;
use super::hook::{self, When};
use super::judge::Judge;
use super::lane::{Lane, Stage};
use super::live::Snapshot;
use super::logs::Handles;
use super::phases::passes;
use super::policy::{Errors, Policy};
use super::record::Recording;
use super::worker::{Pacing, Worker};

/// Everything one worker needs.
pub(crate) struct Assignment {
    /// What to do.
    pub(crate) plan: Plan,
    /// The open files of the plan.
    pub(crate) files: Arc<[File]>,
    /// Number of the clone in the whole run, from 1; decides its seeds.
    pub(crate) number: u64,
    /// Names this run in the blocks it writes.
    pub(crate) run_seed: u64,
    /// The logs it writes.
    pub(crate) logs: Option<Handles>,
    /// The trace it writes.
    pub(crate) recording: Option<Recording>,
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
    /// All reads that were checked.
    pub(crate) checked_count: u64,
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
            checked_count: 0,
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
    let job = &assignment.plan.job;
    if job.layout.create_only {
        lane.enter(Stage::Ended);
        return Outcome::none();
    }
    let before = hook::run(&job.name, job.layout.exec_prerun.as_deref(), When::Before);
    let before = before.and_then(|()| layout::pre_read(&assignment.plan));
    let mut outcome = match (before, job.ioengine) {
        (Err(error), _) => Outcome::failed(Failure::engine(&error)),
        (Ok(()), EngineName::IoUring) => on_shard(assignment, lane, flow),
        (Ok(()), EngineName::RawUring) => on::<RawUring>(assignment, lane, flow),
        (Ok(()), EngineName::Nop) => on::<PacketEngine<KernelRing>>(assignment, lane, flow),
        (Ok(()), EngineName::RawNop) => on::<RawUring<true>>(assignment, lane, flow),
        (Ok(()), EngineName::Psync) if job.steering.offload => on_threads(assignment, lane, flow),
        (Ok(()), EngineName::Psync) => on::<Psync>(assignment, lane, flow),
        (Ok(()), EngineName::Null) => on::<Null>(assignment, lane, flow),
    };
    let after = hook::run(&job.name, job.layout.exec_postrun.as_deref(), When::After);
    if let (Err(error), None) = (after, &outcome.failure) {
        outcome.failure = Some(Failure::engine(&error));
    }
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

/// `io_submit_mode=offload` of an engine that blocks: threads of their own execute its I/Os.
fn on_threads<'a>(assignment: &'a Assignment, lane: &'a Lane, flow: Flow<'a>) -> Outcome {
    let mut outcome = on::<PacketEngine<ThreadRing>>(assignment, lane, flow);
    outcome.traits.degraded.clear();
    outcome.traits.in_use.push("io_submit_mode=offload: at most 8 threads submit".into());
    outcome
}

fn on<'a, E: IoEngine>(assignment: &'a Assignment, lane: &'a Lane, flow: Flow<'a>) -> Outcome {
    if let Err(error) = settle(&assignment.plan) {
        return Outcome::failed(Failure::engine(&error));
    }
    let pacing = pacing(&assignment.plan.job);
    let engine = match open::<E>(assignment, &assignment.files, pacing) {
        Ok(engine) => engine,
        Err(error) => return Outcome::failed(Failure::engine(&error)),
    };
    let job = &assignment.plan.job;
    let wanted = Wanted { slat: !job.disable_slat, clat: !job.disable_clat, lat: !job.disable_lat };
    let mut recorder = Recorder::new(wanted);
    recorder.logs = assignment.logs.as_ref().and_then(|logs| logs.for_worker());
    let timed = !job.gtod_reduce && !job.disable_lat;
    let judge = Judge::of(job, pacing.depth, timed);
    recorder.intended = (job.pace.has_rate() && timed).then(Box::default);
    if job.disable_bw_measurement
        && let Some(logs) = &mut recorder.logs
    {
        logs.without_bandwidth();
    }
    let latencies = !job.gtod_reduce && (wanted.slat || wanted.clat || wanted.lat);
    let clock = latencies || recorder.logs.is_some() || judge.is_some();
    let equipped =
        Locked::new(job.memory.lock_bytes).and_then(|locked| Ok((locked, equip(assignment)?)));
    let (locked, (content, checkers)) = match equipped {
        Ok(equipped) => equipped,
        Err(error) => return Outcome::failed(Failure::engine(&error)),
    };
    let files = Arc::clone(&assignment.files);
    let mut worker = Worker::new(engine, (lane, files), recorder, content, pacing);
    worker.checkers = checkers;
    worker.policy = Policy::of(job);
    worker.flow = flow;
    worker.serialized = job.steering.serialize_overlap;
    if let Some(judge) = judge {
        worker.judge_by(judge);
    }
    worker.range_flags = super::beside::range_flags(job.durability.sync_file_range);
    if let Some(logs) = &mut worker.recorder.logs {
        logs.restart(job.ramp_time_ns == 0);
    }
    worker.recording.clone_from(&assignment.recording);
    worker.recording.iter_mut().for_each(Recording::begin);
    if clock {
        passes::<E, true>(&mut worker, assignment);
    } else {
        passes::<E, false>(&mut worker, assignment);
    }
    drop(locked);
    if job.checking.state_save
        && let Some((written, seed)) = worker.content.written()
        && let Err(line) = verify_state::save(&assignment.plan, assignment.number, seed, written)
    {
        let lost = Failure::engine(&std::io::Error::other(line));
        worker.failure = worker.failure.or(Some(lost));
    }
    let usage = ThreadUsage::now().since(worker.baseline.usage);
    worker.recorder.add_usage(usage);
    if let Some(mut logs) = worker.recorder.logs.take() {
        logs.finish();
    }
    if let Some(recording) = worker.recording.take() {
        recording.finish();
    }
    let (recorder, errors) = (worker.recorder.clone(), worker.errors.clone());
    lane.deliver(Snapshot { recorder, errors });
    if lane.is_slow() && worker.failure.is_none() {
        worker.failure = Some(Failure::slow());
    }
    // Some is only known after the first I/Os, such as that a device cannot be polled.
    let traits = worker.engine.traits();
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
        checked_count: worker.checked_count,
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

pub(super) fn pacing(job: &Job) -> Pacing {
    let synchronous = job.ioengine.is_synchronous() && !job.steering.offload;
    let depth = if synchronous { 1 } else { job.iodepth.max(1) };
    let batch = if job.iodepth_batch == 0 { depth } else { job.iodepth_batch.min(depth) };
    Pacing {
        depth,
        batch,
        complete_min: job.iodepth_batch_complete_min.min(depth),
        complete_max: job.iodepth_batch_complete_max.clamp(1, depth),
        low: if job.iodepth_low == 0 { depth } else { job.iodepth_low.min(depth) },
    }
}

pub(super) fn open<E: IoEngine>(
    assignment: &Assignment,
    files: &[File],
    pacing: Pacing,
) -> std::io::Result<E> {
    let plan = &assignment.plan;
    let paths: Vec<PathBuf> = plan.targets.iter().map(|target| target.path.clone()).collect();
    let setup = Setup {
        files,
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
        memory: plan.job.memory,
        even_mounted: plan.job.allow_mounted_write,
        engine: &plan.job.ioengine_requested,
        options: plan.job.engine,
        random: layout::is_random(&plan.job),
        nowhere: !plan.job.ioengine.moves_data(),
    };
    E::open(&setup)
}

/// The seed of everything this clone draws: fixed per run unless the job wants otherwise.
pub(super) fn seed(assignment: &Assignment) -> u64 {
    let job = &assignment.plan.job;
    let fixed = job.randrepeat || job.is_set("randseed");
    let base = if fixed { job.randseed } else { assignment.run_seed };
    base.wrapping_mul(0x9e37_0001).wrapping_mul(0x9e37_0001).wrapping_add(assignment.number)
}

/// What is written, and the threads that check it.
pub(super) fn equip(assignment: &Assignment) -> std::io::Result<(Content, Option<Checkers>)> {
    let (content, checking) = (content(assignment)?, &assignment.plan.job.checking);
    let blocks = content.blocks().filter(|_| checking.threads > 0);
    let checkers = blocks.map(|of| Checkers::new(checking.threads, &checking.cpus, of));
    let checkers = checkers.transpose()?;
    Ok((content, checkers))
}

fn content(assignment: &Assignment) -> std::io::Result<Content> {
    let (plan, job) = (&assignment.plan, &assignment.plan.job);
    let noise = Noise::new(&job.content, seed(assignment) ^ 0x6275_6666);
    if job.verify == Verify::None {
        return Ok(Content::noise(noise, seed(assignment)));
    }
    let bytes = verify_block_bytes(job, &plan.shape);
    let blocks = Blocks { bytes, scheme: scheme(job), dumped: job.content.verify_dump };
    let mut run_seed = assignment.run_seed.wrapping_add(assignment.number);
    let writes = job.rw.writes_data() && !job.content.verify_only;
    let loads = job.checking.state_load;
    let remembers = (writes && !job.checking.replays) || loads;
    let mut written = remembers.then(|| Written::new(&plan.shape.regions, bytes));
    if let Some(written) = written.as_mut().filter(|_| loads) {
        let loaded = verify_state::load(plan, assignment.number, written);
        run_seed = loaded.map_err(std::io::Error::other)?;
    }
    let written = match job.content.verify_backlog {
        0 => written,
        _ => written.map(Written::in_parts),
    };
    let mut content = Content::verifiable(noise, blocks, run_seed, written);
    content.strict = (job.checking.write_sequence, job.checking.header_seed);
    content.trims_checked = job.checking.trim_verify_zero;
    content.check_reads = plan.shape.mix == Mix::Read || job.content.verify_only;
    Ok(content)
}

/// The outcome of a worker that ended in a panic, which has been printed already.
pub(crate) fn panicked() -> Outcome {
    Outcome::failed(Failure::engine(&std::io::Error::other("a worker panicked")))
}
