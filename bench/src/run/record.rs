//! `write_iolog`: a trace of what a job does, in fio's form.
//!
//! Data flow: steps on their way to the worker -> [`Recording`], which stamps them -> a bounded
//! channel, some thousand at a time -> one thread per run formats and writes. A job that is
//! faster than the disk of its trace waits for it: nothing is left out, and memory is bounded.
//!
//! Not here: lines (`fio_compat::trace`), logs of results (`logs`).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use fio_compat::trace::{TRACE_HEADER, TraceAction, TraceLine, is_trace_name};

use crate::clock::now_ns;
use crate::generator::{Step, Steps};
use crate::ioengine::Operation;
use crate::overwrite;
use crate::plan::Plan;

/// Lines that travel together.
const BATCH: usize = 4096;
/// Batches on their way: 8 MiB in all.
const BATCHES_MAX: usize = 64;

/// What becomes a line.
#[derive(Clone, Copy)]
struct Record {
    time_us: u64,
    offset_bytes: u64,
    len_bytes: u32,
    file: u32,
    action: TraceAction,
}

/// Lines of one trace.
struct Batch {
    trace: usize,
    records: Vec<Record>,
}

/// A trace that is being written.
struct Open {
    name: String,
    /// The names of its files.
    files: Vec<String>,
    out: BufWriter<File>,
    failed: Option<String>,
}

/// The thread that writes the traces of a run.
pub(crate) struct Writer {
    thread: Option<JoinHandle<Vec<String>>>,
}

/// Creates the traces of all clones; without any there is no thread.
///
/// # Errors
/// One line: which trace cannot be written and why.
pub(crate) fn open(plans: &[Plan]) -> Result<(Writer, Vec<Option<Recording>>), String> {
    let (sender, receiver) = sync_channel(BATCHES_MAX);
    let mut open: Vec<Open> = Vec::new();
    let mut all = Vec::new();
    for plan in plans {
        let Some(name) = &plan.job.replay.write else {
            all.push(None);
            continue;
        };
        if open.iter().any(|known| known.name == *name) {
            return Err(format!(
                "write_iolog={name} is given to several jobs or clones, whose lines would mix; \
                 give each job a trace of its own and numjobs=1"
            ));
        }
        overwrite::check(&format!("write_iolog={name}"), name, plans)?;
        let trace = open.len();
        open.push(create(name, plan)?);
        let files = plan.targets.len();
        all.push(Some(Recording::new(sender.clone(), trace, files)));
    }
    let thread = (!open.is_empty()).then(|| std::thread::spawn(move || write(&receiver, open)));
    Ok((Writer { thread }, all))
}

fn create(name: &str, plan: &Plan) -> Result<Open, String> {
    let mut files = Vec::new();
    for target in &plan.targets {
        let file = target.path.to_str().filter(|file| is_trace_name(file)).ok_or_else(|| {
            let shown = target.path.display();
            format!("a trace cannot name {shown}: no blanks, and 256 bytes at most")
        })?;
        files.push(file.to_owned());
    }
    let cannot = |error| {
        let reason = crate::plan::reason(&error);
        format!("cannot write the trace {name}: {reason}")
    };
    let file = File::create(name).map_err(cannot)?;
    let mut out = BufWriter::new(file);
    writeln!(out, "{TRACE_HEADER}").map_err(cannot)?;
    Ok(Open { name: name.to_owned(), files, out, failed: None })
}

/// Writes until every sender is gone; returns one line per trace that is incomplete.
fn write(receiver: &Receiver<Batch>, mut open: Vec<Open>) -> Vec<String> {
    for Batch { trace, records } in receiver {
        let Open { files, out, failed, .. } = &mut open[trace];
        if failed.is_some() {
            continue;
        }
        for record in records {
            let Record { time_us, offset_bytes, len_bytes, file, action } = record;
            let file = &files[file as usize];
            let line = TraceLine { time_us, file, action, offset_bytes, len_bytes };
            if let Err(error) = write!(out, "{line}") {
                *failed = Some(crate::plan::reason(&error));
                break;
            }
        }
    }
    let ends = open.into_iter().filter_map(|mut trace| {
        let flushed = trace.out.flush().err().map(|error| crate::plan::reason(&error));
        let why = trace.failed.or(flushed)?;
        Some(format!("trace {} is incomplete: {why}", trace.name))
    });
    ends.collect()
}

impl Writer {
    /// Waits until everything is written; every [`Recording`] is gone. One line per trace that
    /// is incomplete.
    pub(crate) fn finish(mut self) -> Vec<String> {
        match self.thread.take().map(JoinHandle::join) {
            None => Vec::new(),
            Some(Ok(lines)) => lines,
            Some(Err(_)) => vec!["the traces are incomplete: their writer panicked".to_owned()],
        }
    }
}

/// The trace of one worker.
#[derive(Clone)]
pub(crate) struct Recording {
    sender: SyncSender<Batch>,
    trace: usize,
    files: u32,
    began_ns: u64,
    pending: Vec<Record>,
}

impl Recording {
    fn new(sender: SyncSender<Batch>, trace: usize, files: usize) -> Self {
        let files = u32::try_from(files).unwrap_or(u32::MAX);
        Self { sender, trace, files, began_ns: 0, pending: Vec::with_capacity(BATCH) }
    }

    /// The job begins.
    pub(crate) fn begin(&mut self) {
        self.began_ns = now_ns();
        self.all(TraceAction::Add);
        self.all(TraceAction::Open);
    }

    /// The job is over.
    pub(crate) fn finish(mut self) {
        self.all(TraceAction::Close);
        self.flush();
    }

    fn all(&mut self, action: TraceAction) {
        for file in 0..self.files {
            self.push(action, file, (0, 0));
        }
    }

    #[inline]
    fn push(&mut self, action: TraceAction, file: u32, (offset_bytes, len_bytes): (u64, u32)) {
        let time_us = now_ns().saturating_sub(self.began_ns) / 1000;
        self.pending.push(Record { time_us, offset_bytes, len_bytes, file, action });
        if self.pending.len() >= BATCH {
            self.flush();
        }
    }

    #[cold]
    fn flush(&mut self) {
        let records = std::mem::replace(&mut self.pending, Vec::with_capacity(BATCH));
        // The writer outlives all senders; if it panicked, `Writer::finish` says so.
        drop(self.sender.send(Batch { trace: self.trace, records }));
    }
}

/// Steps that leave a trace. Behind a pointer, so that every loop exists once more and not once
/// more for each kind of steps.
pub(crate) struct Recorded<'a> {
    /// The steps.
    pub(crate) steps: &'a mut dyn Steps,
    /// Where they go.
    pub(crate) recording: &'a mut Recording,
}

impl Steps for Recorded<'_> {
    fn step(&mut self) -> Step {
        let step = self.steps.step();
        if let Step::Do { operation, file, offset_bytes, len_bytes } = step {
            let action = match operation {
                Operation::Read => TraceAction::Read,
                Operation::Write => TraceAction::Write,
                Operation::Trim => TraceAction::Trim,
                // Traces have nothing for whole file systems.
                Operation::Fsync | Operation::SyncFs => TraceAction::Sync,
                Operation::Fdatasync => TraceAction::Datasync,
                Operation::SyncRange => TraceAction::SyncFileRange,
            };
            self.recording.push(action, file, (offset_bytes, len_bytes));
        }
        step
    }

    fn scheduled_ns(&self) -> u64 {
        self.steps.scheduled_ns()
    }
}
