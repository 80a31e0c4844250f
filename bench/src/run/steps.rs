//! Steps of other steps: flushes, bursts, reads in place of writes.
//!
//! Data flow: a generator or nothing -> steps for the worker's loop.
//!
//! Not here: the generator itself (`generator`), pacing (`paced`).

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use fio_compat::Job;

use crate::generator::{Generator, Step, Steps};
use crate::ioengine::Operation;

/// One flush for each of some files.
pub(crate) struct FlushAll {
    operation: Operation,
    files: std::vec::IntoIter<u32>,
}

impl FlushAll {
    /// `fsync` of so many files.
    pub(crate) fn new(count: u32) -> Self {
        Self { operation: Operation::Fsync, files: (0..count).collect::<Vec<_>>().into_iter() }
    }

    /// `syncfs` of the file systems of `files`, each once.
    pub(crate) fn file_systems(files: &[File]) -> Self {
        let mut devices = Vec::new();
        let mut first_of_each = Vec::new();
        for (number, file) in (0..).zip(files) {
            let device = file.metadata().map(|facts| facts.dev()).ok();
            if !devices.contains(&device) {
                devices.push(device);
                first_of_each.push(number);
            }
        }
        Self { operation: Operation::SyncFs, files: first_of_each.into_iter() }
    }
}

impl Steps for FlushAll {
    fn step(&mut self) -> Step {
        let Some(file) = self.files.next() else { return Step::Finished };
        Step::Do { operation: self.operation, file, offset_bytes: 0, len_bytes: 0 }
    }

    #[inline(always)]
    fn scheduled_ns(&self) -> u64 {
        0
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

    fn scheduled_ns(&self) -> u64 {
        self.generator.scheduled_ns()
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

    fn scheduled_ns(&self) -> u64 {
        self.steps.scheduled_ns()
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

    fn scheduled_ns(&self) -> u64 {
        self.0.scheduled_ns()
    }
}
