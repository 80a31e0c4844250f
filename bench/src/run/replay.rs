//! Steps of a trace, each when it is due.
//!
//! Data flow: entries of a [`Trace`] -> steps for the worker's loop. What is due does not depend
//! on what has completed: a slow device is not asked for less, up to the depth of the job.
//!
//! Not here: reading traces (`trace`), writing them (`record`).

use fio_compat::Job;

use crate::clock::now_ns;
use crate::generator::{Step, Steps};
use crate::trace::{Entries, Entry, Trace};

/// Follows a trace as often as the job says.
pub(crate) struct Replay<'a> {
    trace: &'a Trace,
    entries: Option<Entries<'a>>,
    held: Option<Entry>,
    began_ns: u64,
    passes_left: u64,
    ios_left: u64,
    /// The trace could not be read any more.
    pub(crate) failure: Option<String>,
}

impl<'a> Replay<'a> {
    /// Begins now.
    pub(crate) fn new(trace: &'a Trace, job: &Job) -> Self {
        let mut replay = Self {
            trace,
            entries: None,
            held: None,
            began_ns: now_ns(),
            passes_left: if job.time_based { u64::MAX } else { job.loops.max(1) },
            ios_left: job.number_ios.unwrap_or(u64::MAX),
            failure: None,
        };
        replay.rewind();
        replay
    }

    #[cold]
    fn rewind(&mut self) {
        self.began_ns = now_ns();
        match self.trace.entries() {
            Ok(entries) => self.entries = Some(entries),
            Err(line) => self.failure = Some(line),
        }
    }

    fn next(&mut self) -> Option<Entry> {
        // A trace that was looked through has an entry, but its file may have shrunk.
        let mut rewound = false;
        loop {
            match self.entries.as_mut()?.next() {
                Ok(Some(entry)) => return Some(entry),
                Ok(None) if rewound => return None,
                Ok(None) => {
                    self.passes_left -= 1;
                    if self.passes_left == 0 {
                        return None;
                    }
                    rewound = true;
                    self.rewind();
                }
                Err(line) => {
                    self.failure = Some(line);
                    return None;
                }
            }
        }
    }
}

impl Steps for Replay<'_> {
    fn step(&mut self) -> Step {
        if self.ios_left == 0 || self.failure.is_some() {
            return Step::Finished;
        }
        let held = self.held.take();
        let Some(entry) = held.or_else(|| self.next()) else { return Step::Finished };
        if entry.due_ns > 0 {
            let until_ns = self.began_ns.saturating_add(entry.due_ns);
            if now_ns() < until_ns {
                self.held = Some(entry);
                return Step::Wait { until_ns };
            }
        }
        let Entry { offset_bytes, len_bytes, file, operation, .. } = entry;
        if !operation.is_sync() {
            self.ios_left -= 1;
        }
        let len_bytes = if operation.is_sync() { 0 } else { len_bytes };
        Step::Do { operation, file, offset_bytes, len_bytes }
    }

    #[inline(always)]
    fn scheduled_ns(&self) -> u64 {
        0
    }
}
