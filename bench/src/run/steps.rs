//! Steps of other steps: flushes, bursts, reads in place of writes.
//!
//! Data flow: a generator or nothing -> steps for the worker's loop.
//!
//! Not here: the generator itself (`generator`), pacing (`paced`).

use fio_compat::Job;

use crate::generator::{Generator, Step, Steps};
use crate::ioengine::Operation;

/// One `fsync` per file.
pub(crate) struct FlushAll {
    next: u32,
    count: u32,
}

impl FlushAll {
    /// Of so many files.
    pub(crate) const fn new(count: u32) -> Self {
        Self { next: 0, count }
    }
}

impl Steps for FlushAll {
    fn step(&mut self) -> Step {
        if self.next == self.count {
            return Step::Finished;
        }
        let file = self.next;
        self.next += 1;
        Step::Do { operation: Operation::Fsync, file, offset_bytes: 0, len_bytes: 0 }
    }
}

/// So many writes at a time.
pub(crate) struct Burst<'a> {
    generator: &'a mut Generator,
    size: u64,
    left: u64,
    finished: bool,
}

impl<'a> Burst<'a> {
    /// As many as `verify_backlog` says.
    pub(crate) fn new(generator: &'a mut Generator, job: &Job) -> Self {
        Self { generator, size: job.content.verify_backlog.max(1), left: 0, finished: false }
    }

    /// Lets the next burst begin.
    pub(crate) fn refill(&mut self) {
        self.left = self.size;
    }

    /// Whether there is nothing more to come.
    pub(crate) const fn is_finished(&self) -> bool {
        self.finished
    }
}

impl Steps for Burst<'_> {
    fn step(&mut self) -> Step {
        if self.left == 0 {
            return Step::Finished;
        }
        let step = self.generator.step();
        match step {
            Step::Do { operation: Operation::Write, .. } => self.left -= 1,
            Step::Do { .. } => {}
            _ => self.finished = true,
        }
        step
    }
}

/// Reads back by repeating the sequence (`experimental_verify`): so many writes of it.
pub(crate) struct Repeat<'a> {
    steps: ReadInstead<'a>,
    left: u64,
}

impl<'a> Repeat<'a> {
    /// Of a generator that begins where that of the writes did.
    pub(crate) const fn new(generator: &'a mut Generator, writes: u64) -> Self {
        Self { steps: ReadInstead(generator), left: writes }
    }
}

impl Steps for Repeat<'_> {
    fn step(&mut self) -> Step {
        if self.left == 0 {
            return Step::Finished;
        }
        self.left -= 1;
        self.steps.step()
    }
}

/// Reads what the generator would write, and leaves out the rest.
pub(crate) struct ReadInstead<'a>(pub(crate) &'a mut Generator);

impl Steps for ReadInstead<'_> {
    fn step(&mut self) -> Step {
        loop {
            match self.0.step() {
                Step::Do { operation: Operation::Write, file, offset_bytes, len_bytes } => {
                    let operation = Operation::Read;
                    return Step::Do { operation, file, offset_bytes, len_bytes };
                }
                Step::Do { .. } => {}
                other => return other,
            }
        }
    }
}
