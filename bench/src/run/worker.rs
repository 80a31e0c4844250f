//! The hot loop: takes steps, keeps the engine's queue full, reaps, accounts.
//!
//! Data flow: `Steps` -> slot and buffer -> engine -> event -> `Recorder` -> the slot is free.
//! Compiled once per engine, and once with and once without clocks: with `gtod_reduce` no clock
//! is read and no histogram touched, and one call both submits and waits.
//!
//! Not here: what a completion leads to (`complete`), checking blocks (`check`), steps that only
//! wait (`wait`), what to run and in which order (`job`), orders of the conductor (`lane`).

mod batches;
mod check;
mod complete;
mod files;
mod gather;
mod judged;
mod overlap;
mod traced;
mod wait;

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::clock::Baseline;
use crate::content::{Content, Mismatch};
use crate::generator::{Step, Steps};
use crate::ioengine::{Event, Io, IoEngine, Operation, Queued};
use crate::measure::{Recorder, Times};

use super::checkers::Checkers;
use super::failure::Failure;
use super::flow::Flow;
use super::judge::Judge;
use super::lane::{Lane, Order};
use super::live::Snapshot;
use super::policy::{Errors, Policy};
use super::record::Recording;
use batches::Batches;

/// How deep and in what batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pacing {
    /// Slots: the most I/Os in flight.
    pub(crate) depth: u32,
    /// Submit when so many are queued.
    pub(crate) batch: u32,
    /// Reap at least so many when the queue is full; 0 polls after each submission as well.
    pub(crate) complete_min: u32,
    /// Reap at most so many at a time.
    pub(crate) complete_max: u32,
    /// Reap until no more than so many are in flight.
    pub(crate) low: u32,
}

/// What distinguishes the main phase from the verify phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The order that ends the phase.
    pub(crate) ends_at: Order,
    /// Check every block that is read.
    pub(crate) check: bool,
    /// … also against what this worker remembers to have written.
    pub(crate) remembered: bool,
    /// End at the first wrong block.
    pub(crate) fatal: bool,
}

/// So many I/Os at a time are worth a loop of their own.
const SEVERAL: u32 = 4;
/// Wrong blocks kept for the report; more are only counted.
const MISMATCHES_KEPT: usize = 8;

/// One job on one thread.
pub(crate) struct Worker<'a, E> {
    /// Where the I/O goes.
    pub(crate) engine: E,
    /// Orders and progress.
    pub(crate) lane: &'a Lane,
    /// The files, for what no engine does.
    files: Arc<[File]>,
    /// Statistics.
    pub(crate) recorder: Recorder,
    /// Data.
    pub(crate) content: Content,
    /// Why the job failed.
    pub(crate) failure: Option<Failure>,
    /// The first wrong blocks.
    pub(crate) mismatches: Vec<Mismatch>,
    /// All wrong blocks.
    pub(crate) mismatch_count: u64,
    /// All reads that were checked.
    pub(crate) checked_count: u64,
    /// Which errors end the job.
    pub(crate) policy: Policy,
    /// Those that did not.
    pub(crate) errors: Errors,
    /// Who shares I/Os with this job.
    pub(crate) flow: Flow<'a>,
    /// Threads that check blocks beside this one.
    pub(crate) checkers: Option<Checkers>,
    /// How ranges are written out.
    pub(crate) range_flags: u32,
    /// I/Os that overlap are never in flight together.
    pub(crate) serialized: bool,
    /// What single latencies mean; `None` where they mean nothing.
    judge: Option<Box<Judge>>,
    /// The trace that is written.
    pub(crate) recording: Option<Recording>,
    pacing: Pacing,
    synchronous: bool,
    slots: Vec<Slot>,
    /// Kept only where writes must not overlap.
    active: Vec<bool>,
    free: Vec<u32>,
    /// How many are queued and not committed.
    uncommitted_count: u32,
    /// With clocks, which I/Os were submitted together, and when.
    batches: Batches,
    /// How many are committed and not reaped.
    in_flight: u32,
    events: Vec<Event>,
    /// The order obeyed last, and the word it stood in; a change is noticed by comparison.
    order: Order,
    word: u32,
    /// The directions whose time runs, and since when.
    pub(crate) span: ([bool; 3], u64),
    /// No further I/O is started: the phase was ended from outside, or something failed.
    stopping: bool,
    /// When the recorded part began, and what the thread had used then.
    pub(crate) baseline: Baseline,
}

/// What is known of the I/O in a slot. One cache line, and found by one shift.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Slot {
    io: Io,
    /// When it was created.
    start_ns: u64,
    /// When it was called, which counts where it is over by then.
    call_ns: u64,
    /// With which others it was submitted; see [`Batches`].
    batch: u32,
}

const IDLE: Slot = Slot {
    io: Io {
        slot: 0,
        file: 0,
        operation: Operation::Read,
        offset_bytes: 0,
        len_bytes: 0,
        skip_bytes: 0,
    },
    start_ns: 0,
    call_ns: 0,
    batch: 0,
};

impl<'a, E: IoEngine> Worker<'a, E> {
    /// A worker with every slot free and its buffers primed.
    pub(crate) fn new(
        mut engine: E,
        (lane, files): (&'a Lane, Arc<[File]>),
        recorder: Recorder,
        mut content: Content,
        pacing: Pacing,
    ) -> Self {
        for slot in 0..pacing.depth {
            content.prime(engine.buffer(slot));
        }
        let depth = pacing.depth as usize;
        Self {
            synchronous: engine.synchronous(),
            engine,
            lane,
            files,
            recorder,
            content,
            failure: None,
            mismatches: Vec::new(),
            mismatch_count: 0,
            checked_count: 0,
            policy: Policy::default(),
            errors: Errors::default(),
            flow: Flow::default(),
            checkers: None,
            range_flags: 0,
            serialized: false,
            judge: None,
            recording: None,
            pacing,
            slots: vec![IDLE; depth],
            active: vec![false; depth],
            free: (0..pacing.depth).rev().collect(),
            uncommitted_count: 0,
            batches: Batches::new(pacing.depth),
            in_flight: 0,
            events: Vec::with_capacity(depth * 2),
            order: lane.order(),
            word: lane.word(),
            span: ([true; 3], 0),
            stopping: false,
            baseline: Baseline::now(),
        }
    }

    /// The loop of [`Worker::phase`].
    fn drive<const CLOCK: bool, S: Steps>(&mut self, steps: &mut S, rules: Rules) {
        let mut finished = false;
        self.stopping = self.order >= rules.ends_at || self.failure.is_some();
        loop {
            if !self.lane.is_still(self.word) {
                self.obey(rules);
            }
            let going = !(finished || self.stopping);
            let (quick, operation) = steps.quick_count();
            let several = quick > 0 && self.gathers() && operation == Operation::Read;
            if going && several && self.gather::<CLOCK, S>(steps, rules) {
                if self.pacing.complete_min == 0 && self.uncommitted_count == 0 {
                    self.reap::<CLOCK>(0, rules);
                }
                continue;
            }
            if going && let Some(slot) = self.free.pop() {
                let (operation, file, offset_bytes, len_bytes) = if quick > 0 {
                    let (offset_bytes, len_bytes) = steps.quick();
                    (operation, 0, offset_bytes, len_bytes)
                } else {
                    match steps.step() {
                        Step::Do { operation, file, offset_bytes, len_bytes } => {
                            (operation, file, offset_bytes, len_bytes)
                        }
                        step => {
                            self.free.push(slot);
                            finished = self.idle::<CLOCK>(step, rules);
                            continue;
                        }
                    }
                };
                let io = Io { slot, file, operation, offset_bytes, len_bytes, skip_bytes: 0 };
                self.start::<CLOCK>(io, steps.scheduled_ns(), rules);
                if self.pacing.complete_min == 0 && self.uncommitted_count == 0 {
                    self.reap::<CLOCK>(0, rules);
                }
                continue;
            }
            if self.is_idle() {
                break;
            }
            let min = self.pacing.complete_min.max(u32::from(!going));
            self.reap::<CLOCK>(min, rules);
            while going
                && self.in_flight + self.uncommitted_count > self.pacing.low
                && !self.stopping
            {
                self.reap::<CLOCK>(min.max(1), rules);
            }
        }
        self.collect(rules, true);
        self.lane.publish(&self.recorder.totals);
    }

    /// Whether several I/Os can be started before there is anything else to do.
    #[inline(always)]
    fn gathers(&self) -> bool {
        self.free.len() >= SEVERAL as usize
            && self.pacing.batch >= self.uncommitted_count + SEVERAL
            && !self.serialized
            && !self.synchronous
    }

    /// Whether nothing is queued or in flight.
    fn is_idle(&self) -> bool {
        self.in_flight + self.uncommitted_count == 0
    }

    /// Whether a phase under these rules is over before it began.
    pub(crate) fn is_over(&self, rules: Rules) -> bool {
        self.failure.is_some() || self.lane.order() >= rules.ends_at
    }

    #[cold]
    fn obey(&mut self, rules: Rules) {
        let word = self.lane.word();
        let asked = Lane::asks_since(self.word, word);
        self.word = word;
        let order = self.lane.order();
        // A late conductor can have ended the ramp and the runtime at once. What is aborted in
        // its ramp has nothing else to show.
        if self.order == Order::WarmUp && matches!(order, Order::Record | Order::TimeUp) {
            self.recorder.restart();
            self.baseline = Baseline::now();
            self.span.1 = self.baseline.now_ns;
        }
        if asked {
            let (directions, since_ns) = self.span;
            let recorder = self.recorder.so_far(directions, since_ns, self.baseline.usage);
            self.lane.deliver(Snapshot { recorder, errors: self.errors.clone() });
        }
        self.order = order;
        self.stopping |= order >= rules.ends_at;
    }

    #[inline(always)]
    fn start<const CLOCK: bool>(&mut self, io: Io, due_ns: u64, rules: Rules) {
        // What is rare takes the I/O from its slot, so that here it stays in registers.
        let slot = io.slot as usize;
        self.slots[slot].io = io;
        let plainly = io.operation == Operation::Read && !self.serialized;
        if !plainly && self.prepare::<CLOCK>(slot, due_ns, rules) {
            return;
        }
        if CLOCK {
            let now = crate::clock::now_ns();
            // A constant 0 where there is no schedule, so that this costs nothing there.
            let start_ns = if due_ns > 0 { self.begins_ns(io.slot, due_ns, now) } else { now };
            let state = &mut self.slots[slot];
            (state.start_ns, state.call_ns) = (start_ns, now);
            state.batch = self.batches.gathering();
        }
        self.queue::<CLOCK>(io, rules);
    }

    /// What some I/Os need before they start; true for one that is over by then.
    #[inline(never)]
    fn prepare<const CLOCK: bool>(&mut self, slot: usize, due_ns: u64, rules: Rules) -> bool {
        let io = self.slots[slot].io;
        let writes = io.operation == Operation::Write;
        if self.serialized || (writes && self.content.is_verifiable()) {
            self.take_turn::<CLOCK>(slot, rules);
        }
        if writes {
            let buffer = &mut self.engine.buffer(io.slot)[..io.len_bytes as usize];
            self.content.fill(io, buffer);
        } else if io.operation.is_beside() {
            self.beside::<CLOCK>(slot, due_ns, rules);
            return true;
        }
        false
    }

    #[inline(always)]
    fn queue<const CLOCK: bool>(&mut self, io: Io, rules: Rules) {
        match self.engine.queue(io) {
            Queued::Pending => {
                self.uncommitted_count += 1;
                self.commit_if_whole::<CLOCK>();
            }
            Queued::Done(result) => self.done::<CLOCK>(io.slot, result, rules),
        }
    }

    #[inline(always)]
    fn commit_if_whole<const CLOCK: bool>(&mut self) {
        // Without clocks the last batch is left to `reap`, which submits and waits at once.
        let whole = self.uncommitted_count >= self.pacing.batch;
        if whole && (CLOCK || !self.free.is_empty()) {
            self.commit::<CLOCK>();
        }
    }

    /// An I/O was executed on the spot.
    #[inline(always)]
    fn done<const CLOCK: bool>(&mut self, slot: u32, result: i32, rules: Rules) {
        let Slot { start_ns, call_ns, .. } = self.slots[slot as usize];
        let complete_ns = if CLOCK { crate::clock::now_ns() } else { 0 };
        let times = Times { start_ns, issue_ns: call_ns, complete_ns };
        self.recorder.depth.level.record(1, 1);
        self.recorder.depth.submit.record(1);
        self.recorder.depth.complete.record(1);
        self.complete::<CLOCK>(Event { slot, result }, times, rules);
        self.lane.publish(&self.recorder.totals);
    }

    /// What no engine does is a call of its own; as with fio, also where engines are
    /// asynchronous.
    #[cold]
    fn beside<const CLOCK: bool>(&mut self, slot: usize, due_ns: u64, rules: Rules) {
        let io = self.slots[slot].io;
        // With `serialize_overlap` it has waited already, and counts as in flight itself.
        if self.content.is_verifiable() && !self.serialized {
            self.wait_for_overlapping::<CLOCK>(slot, rules);
        }
        let now = if CLOCK { crate::clock::now_ns() } else { 0 };
        let start_ns = if due_ns > 0 { self.begins_ns(io.slot, due_ns, now) } else { now };
        let state = &mut self.slots[slot];
        (state.start_ns, state.call_ns) = (start_ns, now);
        let result = self.files.get(io.file as usize).map_or_else(
            || super::beside::pretend(io),
            |file| super::beside::execute(file, io, self.range_flags),
        );
        if io.operation == Operation::Trim && result >= 0 {
            self.content.unwrite(io, true);
        }
        self.done::<CLOCK>(io.slot, result, rules);
    }

    #[inline]
    fn commit<const CLOCK: bool>(&mut self) {
        let count = self.uncommitted_count;
        self.note_submit();
        if let Err(error) = self.engine.commit() {
            return self.engine_failed(&error);
        }
        if CLOCK {
            self.batches.submit(count, crate::clock::now_ns());
        }
    }

    #[inline]
    fn note_submit(&mut self) {
        let count = std::mem::take(&mut self.uncommitted_count);
        self.in_flight += count;
        self.recorder.depth.level.record(self.in_flight, u64::from(count));
        self.recorder.depth.submit.record(count);
    }

    #[inline]
    fn reap<const CLOCK: bool>(&mut self, min: u32, rules: Rules) {
        if self.uncommitted_count > 0 {
            if CLOCK {
                self.commit::<CLOCK>();
            } else {
                self.note_submit();
            }
        }
        let min = min.min(self.in_flight);
        let max = self.pacing.complete_max.max(min).max(1);
        let mut events = std::mem::take(&mut self.events);
        if let Err(error) = self.engine.reap(min, max, &mut events) {
            self.engine_failed(&error);
        }
        let now = if CLOCK { crate::clock::now_ns() } else { 0 };
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        self.recorder.depth.complete.record(count);
        self.in_flight = self.in_flight.saturating_sub(count);
        self.complete_all::<CLOCK>(&events, now, rules);
        events.clear();
        self.events = events;
        self.lane.publish(&self.recorder.totals);
    }

    #[cold]
    fn fail(&mut self, failure: Failure) {
        self.stopping = true;
        if self.failure.is_none() {
            self.failure = Some(failure);
        }
    }

    /// The engine is broken: what is in flight will not come back through it.
    #[cold]
    fn engine_failed(&mut self, error: &io::Error) {
        self.fail(Failure::engine(error));
        self.in_flight = 0;
        self.uncommitted_count = 0;
        self.batches = Batches::new(self.pacing.depth);
    }
}
