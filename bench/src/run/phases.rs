//! The phases of one clone: what it does, the flush at its end, reading back, and all of it again.
//!
//! Data flow: worker, generator and plan -> phases -> what the worker has recorded.
//!
//! Not here: what a worker is made of (`job`), the loop of a phase (`worker`), when to stop
//! (`conductor`).

use fio_compat::Verify;

use crate::clock::Baseline;
use crate::generator::{Generator, Steps};
use crate::ioengine::IoEngine;
use crate::layout;
use crate::plan::{Plan, unlinks_each_loop};

use super::failure::Failure;
use super::job::{Assignment, open, pacing, seed};
use super::lane::{Order, Stage};
use super::paced::Paced;
use super::replay::Replay;
use super::steps::{Burst, FlushAll, ReadInstead, Repeat};
use super::trims::{TrimBook, Trims};
use super::worker::{Rules, Worker};

/// Main phase, flush and verify phase, as often as the job says.
pub(super) fn passes<E: IoEngine, const CLOCK: bool>(
    worker: &mut Worker<'_, E>,
    assignment: &Assignment,
) {
    let (plan, job) = (&assignment.plan, &assignment.plan.job);
    let writes = job.rw.writes_data() && !job.content.verify_only;
    let verified = job.verify != Verify::None && writes;
    let mut pass_seed = seed(assignment);
    let mut generator = Generator::new(&plan.shape, pass_seed);
    let mut book = TrimBook::new(&job.checking, pass_seed);
    worker.baseline = Baseline::now();
    worker.lane.start(worker.baseline.now_ns);
    let mut pass = 1;
    loop {
        let before = worker.content.writes();
        main_phase::<E, CLOCK>(worker, &mut generator, book.as_mut(), plan);
        if verified && job.do_verify && job.checking.replays {
            let mut again = Generator::new(&plan.shape, pass_seed);
            let writes = worker.content.writes() - before;
            verify_phase::<E, CLOCK>(worker, plan, Some(Repeat::new(&mut again, writes)));
        } else if verified && job.do_verify {
            verify_phase::<E, CLOCK>(worker, plan, None);
        }
        let unlinks = unlinks_each_loop(job);
        let again = verified && job.time_based || (verified || unlinks) && pass < job.loops;
        if !again || worker.lane.order() >= Order::TimeUp || worker.failure.is_some() {
            return;
        }
        if unlinks && let Err(error) = renew(worker, assignment) {
            worker.failure = Some(Failure::engine(&error));
            return;
        }
        pass += 1;
        worker.content.forget();
        pass_seed = seed(assignment).wrapping_add(pass);
        generator = Generator::new(&plan.shape, pass_seed);
        book = TrimBook::new(&job.checking, pass_seed);
        worker.baseline.now_ns = crate::clock::now_ns();
    }
}

/// `unlink_each_loop`: the next loop begins with files that are not there.
fn renew<E: IoEngine>(worker: &mut Worker<'_, E>, assignment: &Assignment) -> std::io::Result<()> {
    layout::unlink(&assignment.plan);
    let files = layout::open(&assignment.plan).map_err(std::io::Error::other)?;
    let engine = open(assignment, &files, pacing(&assignment.plan.job))?;
    worker.renew(engine, files.into());
    Ok(())
}

fn main_phase<E: IoEngine, const CLOCK: bool>(
    worker: &mut Worker<'_, E>,
    generator: &mut Generator,
    book: Option<&mut TrimBook>,
    plan: &Plan,
) {
    worker.lane.enter(Stage::Running);
    let job = &plan.job;
    let used = plan.shape.mix.directions();
    let used = if job.content.verify_only { [true, false, false] } else { used };
    worker.span = (used, worker.baseline.now_ns);
    let check = worker.content.check_reads;
    let rules = Rules { ends_at: Order::TimeUp, check, remembered: false, fatal: job.verify_fatal };
    if let Some(trace) = &plan.trace {
        let mut replay = Replay::new(trace, job);
        worker.phase::<CLOCK, _>(&mut replay, rules);
        if let Some(line) = replay.failure {
            worker.failure.get_or_insert(Failure::engine(&std::io::Error::other(line)));
        }
    } else if job.checking.state_load {
        // Exactly what was written, up to the last write that the state knows.
        read_back::<E, CLOCK>(worker, plan, usize::MAX);
    } else if job.content.verify_only {
        worker.phase::<CLOCK, _>(&mut ReadInstead(generator), rules);
    } else if job.content.verify_backlog > 0 && job.do_verify && job.rw.writes_data() {
        in_parts::<E, CLOCK>(worker, generator, book, plan, rules);
    } else if let Some(book) = book {
        let (flow, lane) = (worker.flow.clone(), (worker.lane, pacing(job).depth));
        let mut paced = Paced::new(generator, &job.pace, flow, lane);
        worker.phase::<CLOCK, _>(&mut Trims { steps: &mut paced, book }, rules);
    } else if job.pace.is_paced() || worker.flow.is_shared() {
        let (flow, lane) = (worker.flow.clone(), (worker.lane, pacing(job).depth));
        worker.phase::<CLOCK, _>(&mut Paced::new(generator, &job.pace, flow, lane), rules);
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
    if job.layout.end_syncfs && job.rw.writes_data() && worker.failure.is_none() {
        worker.lane.enter(Stage::Syncing);
        let rules = Rules { ends_at: Order::Abort, ..rules };
        let mut steps = FlushAll::file_systems(worker.files());
        worker.phase::<CLOCK, _>(&mut steps, rules);
    }
    let spent_ns = crate::clock::now_ns().saturating_sub(worker.baseline.now_ns);
    worker.recorder.add_phase(used, spent_ns);
}

/// `verify_backlog`: after so many writes, those are read back, and so on.
fn in_parts<E: IoEngine, const CLOCK: bool>(
    worker: &mut Worker<'_, E>,
    generator: &mut Generator,
    mut book: Option<&mut TrimBook>,
    plan: &Plan,
    rules: Rules,
) {
    let mut burst = Burst::new(generator, &plan.job);
    while !burst.is_finished() && !worker.is_over(rules) {
        burst.refill();
        match &mut book {
            Some(book) => worker.phase::<CLOCK, _>(&mut Trims { steps: &mut burst, book }, rules),
            None => worker.phase::<CLOCK, _>(&mut burst, rules),
        }
        let batch = match plan.job.content.verify_backlog_batch {
            0 => usize::MAX,
            batch => usize::try_from(batch).unwrap_or(usize::MAX),
        };
        // What a small batch leaves over is read back at the end.
        let started_ns = crate::clock::now_ns();
        read_back::<E, CLOCK>(worker, plan, batch);
        // A ramp can have ended meanwhile.
        let started_ns = started_ns.max(worker.baseline.now_ns);
        let spent_ns = crate::clock::now_ns().saturating_sub(started_ns);
        // Where the job reads anyway, the time of its reads is that of the whole.
        let reads = !plan.shape.mix.directions()[0];
        worker.recorder.add_runtime([reads, false, false], spent_ns);
        worker.lane.enter(Stage::Running);
    }
}

/// Reads every written block back: those that are remembered, or those of a repetition.
fn verify_phase<E: IoEngine, const CLOCK: bool>(
    worker: &mut Worker<'_, E>,
    plan: &Plan,
    again: Option<Repeat<'_>>,
) {
    let started_ns = crate::clock::now_ns();
    worker.span = ([true, false, false], started_ns);
    match again {
        Some(mut again) => check_back::<E, CLOCK, _>(worker, plan, &mut again),
        None => read_back::<E, CLOCK>(worker, plan, usize::MAX),
    }
    let started_ns = started_ns.max(worker.baseline.now_ns);
    let spent_ns = crate::clock::now_ns().saturating_sub(started_ns);
    worker.recorder.add_phase([true, false, false], spent_ns);
}

/// Reads written blocks back: those that are new, where that is done in parts, or all.
fn read_back<E: IoEngine, const CLOCK: bool>(worker: &mut Worker<'_, E>, plan: &Plan, most: usize) {
    let Some(written) = worker.content.written_mut() else { return };
    let steps = written.read_back_fresh(most);
    let mut steps = steps.unwrap_or_else(|| written.read_back());
    check_back::<E, CLOCK, _>(worker, plan, &mut steps);
}

/// Reads what `steps` say, and checks it against what is remembered.
fn check_back<E: IoEngine, const CLOCK: bool, S: Steps>(
    worker: &mut Worker<'_, E>,
    plan: &Plan,
    steps: &mut S,
) {
    if worker.failure.is_some() || worker.lane.order() == Order::Abort {
        return;
    }
    worker.lane.enter(Stage::Verifying);
    let fatal = plan.job.verify_fatal;
    let rules = Rules { ends_at: Order::Abort, check: true, remembered: true, fatal };
    worker.phase::<CLOCK, _>(steps, rules);
}
