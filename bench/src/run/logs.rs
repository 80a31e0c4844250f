//! fio's log files: what single I/Os and windows of them did, one line each.
//!
//! Data flow: worker and sampler -> [`JobLogs`] and [`RateLogs`], which collect entries -> a
//! channel, some thousand at a time -> one thread per run formats and writes them. Logs are
//! on disk while jobs run, and memory stays bounded by what the disk keeps up with.
//!
//! Not here: the form of names and lines (`fio_compat::render`), rates (`sampler`).

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use fio_compat::render::{LogEntry, LogKind, histogram_line, log_line, log_name};
use fio_compat::stats::Histogram;
use fio_compat::{LogOptions, LogPrefix};

use crate::measure::Times;
use crate::plan::Plan;

use super::lane::Totals;

/// Entries that travel together.
const BATCH: usize = 4096;

/// Reads, writes, trims.
const DIRECTIONS: usize = 3;

/// What travels to the writer.
enum Batch {
    Entries { file: usize, entries: Vec<LogEntry> },
    Histogram { file: usize, time_ms: u64, direction: u8, bytes: u64, counts: Box<Histogram> },
}

/// The logs of one clone.
#[derive(Clone)]
pub(crate) struct Handles {
    options: LogOptions,
    sender: Sender<Batch>,
    files: Vec<(LogKind, usize)>,
}

/// The thread that writes the logs of a run.
pub(crate) struct Writer {
    thread: Option<JoinHandle<Vec<String>>>,
}

struct OpenLog {
    name: String,
    options: LogOptions,
    file: BufWriter<File>,
}

/// Creates the logs of all clones; without any log there is no thread.
///
/// # Errors
/// One line: which file cannot be written and why.
pub(crate) fn open(plans: &[Plan]) -> Result<(Writer, Vec<Option<Handles>>), String> {
    let (sender, receiver) = channel();
    let mut open: Vec<OpenLog> = Vec::new();
    let mut all = Vec::new();
    for (plan, number) in plans.iter().zip(1..) {
        let options = &plan.job.logs;
        check_clock(options)?;
        let mut files = Vec::new();
        for (kind, prefix) in wanted(options) {
            let prefix = match prefix {
                LogPrefix::JobName => plan.job.name.as_str(),
                LogPrefix::Named(text) => text,
            };
            let name = log_name(prefix, kind, number, options);
            let known = open.iter().position(|log| log.name == name);
            let index = known.map_or_else(
                || {
                    crate::overwrite::check(&format!("the log {name}"), &name, plans)?;
                    open.push(create(name, options)?);
                    Ok(open.len() - 1)
                },
                Ok::<_, String>,
            )?;
            files.push((kind, index));
        }
        let handles = || Handles { options: options.clone(), sender: sender.clone(), files };
        all.push(options.any().then(handles));
    }
    let thread = (!open.is_empty()).then(|| std::thread::spawn(move || write(&receiver, open)));
    Ok((Writer { thread }, all))
}

/// Times of a clock that cannot be read would all be 0.
fn check_clock(options: &LogOptions) -> Result<(), String> {
    match crate::clock::clock_ms(options.epoch_clock) {
        None if options.any() && options.unix_epoch => {
            let clock = options.epoch_clock;
            Err(format!("log_alternate_epoch_clock_id={clock}: this system has no such clock"))
        }
        _ => Ok(()),
    }
}

fn wanted(options: &LogOptions) -> Vec<(LogKind, &LogPrefix)> {
    let latencies = [LogKind::Slat, LogKind::Clat, LogKind::Lat];
    let latencies = options.lat.iter().flat_map(|prefix| latencies.map(|kind| (kind, prefix)));
    let bw = options.bw.iter().map(|prefix| (LogKind::Bw, prefix));
    let iops = options.iops.iter().map(|prefix| (LogKind::Iops, prefix));
    let hist = options.hist.iter().map(|prefix| (LogKind::ClatHist, prefix));
    latencies.chain(bw).chain(iops).chain(hist).collect()
}

/// As in fio, a log that clones share is continued and any other one starts anew.
fn create(name: String, options: &LogOptions) -> Result<OpenLog, String> {
    let mut how = OpenOptions::new();
    how.create(true).write(true).append(!options.per_job).truncate(options.per_job);
    match how.open(&name) {
        Ok(file) => Ok(OpenLog { name, options: options.clone(), file: BufWriter::new(file) }),
        Err(error) => Err(format!("cannot write log {name}: {}", crate::plan::reason(&error))),
    }
}

/// Writes until every sender is gone; returns one line per log that could not be written.
fn write(receiver: &Receiver<Batch>, mut open: Vec<OpenLog>) -> Vec<String> {
    let mut failed: Vec<Option<String>> = open.iter().map(|_| None).collect();
    for batch in receiver {
        let (index, text) = match batch {
            Batch::Entries { file, entries } => {
                let options = &open[file].options;
                (file, entries.iter().map(|entry| log_line(entry, options)).collect::<String>())
            }
            Batch::Histogram { file, time_ms, direction, bytes, counts } => {
                let options = &open[file].options;
                (file, histogram_line(time_ms, direction, bytes, &counts, options))
            }
        };
        note(&mut failed[index], open[index].file.write_all(text.as_bytes()));
    }
    for (log, failed) in open.iter_mut().zip(&mut failed) {
        note(failed, log.file.flush());
    }
    let lines = open.iter().zip(failed);
    lines
        .filter_map(|(log, why)| why.map(|why| format!("log {} is incomplete: {why}", log.name)))
        .collect()
}

/// Keeps the first failure.
fn note(failed: &mut Option<String>, result: std::io::Result<()>) {
    if let Err(error) = result {
        failed.get_or_insert(crate::plan::reason(&error));
    }
}

impl Writer {
    /// Waits until everything is written; every [`Handles`] and what was made of it is gone.
    /// One line per log that is incomplete.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let joined = self.thread.take().map(JoinHandle::join);
        match joined {
            None => Vec::new(),
            Some(Ok(lines)) => lines,
            Some(Err(_)) => vec!["the logs are incomplete: their writer panicked".to_owned()],
        }
    }
}

impl Handles {
    fn file(&self, kind: LogKind) -> Option<usize> {
        self.files.iter().find(|(known, _)| *known == kind).map(|(_, file)| *file)
    }

    /// What the worker logs itself, if anything: latencies, and rates of single I/Os.
    /// They count from [`JobLogs::restart`] on.
    pub(crate) fn for_worker(&self) -> Option<Box<JobLogs>> {
        let track = |kind| self.file(kind).map(Track::new);
        let single = |kind| track(kind).filter(|_| self.options.avg_ms == 0);
        let logs = JobLogs {
            handles: self.clone(),
            recording: false,
            begun_ns: crate::clock::now_ns(),
            begun_unix_ms: self.epoch_ms(),
            bw: single(LogKind::Bw),
            iops: single(LogKind::Iops),
            slat: track(LogKind::Slat),
            clat: track(LogKind::Clat),
            lat: track(LogKind::Lat),
            hist: self.file(LogKind::ClatHist).filter(|_| self.options.hist_ms > 0).map(|file| {
                HistogramTrack { file, windows: std::array::from_fn(|_| Window::default()) }
            }),
        };
        let any = logs.bw.is_some() || logs.iops.is_some() || logs.lat.is_some();
        (any || logs.hist.is_some()).then(|| Box::new(logs))
    }

    /// What the sampler logs, if anything: rates of windows.
    pub(crate) fn for_sampler(&self) -> Option<RateLogs> {
        let file = |kind| self.file(kind).filter(|_| self.options.avg_ms > 0);
        let (bw, iops) = (file(LogKind::Bw), file(LogKind::Iops));
        let logs = RateLogs { handles: self.clone(), bw, iops, begun_ns: 0, begun_unix_ms: 0 };
        (bw.is_some() || iops.is_some()).then_some(logs)
    }

    /// The present by the clock that logs may count from.
    fn epoch_ms(&self) -> u64 {
        crate::clock::clock_ms(self.options.epoch_clock).unwrap_or(0)
    }

    fn send(&self, batch: Batch) {
        // The writer outlives all senders; if it panicked, `finish` says so.
        drop(self.sender.send(batch));
    }

    fn send_one(&self, file: usize, entry: LogEntry) {
        self.send(Batch::Entries { file, entries: vec![entry] });
    }
}

/// Values of one direction since the window began.
#[derive(Clone, Copy, Default)]
struct Sum {
    begun_ms: u64,
    count: u64,
    sum: u64,
    max: u64,
}

/// One log of values.
#[derive(Clone)]
struct Track {
    file: usize,
    pending: Vec<LogEntry>,
    sums: [Sum; DIRECTIONS],
}

impl Track {
    fn new(file: usize) -> Self {
        Self { file, pending: Vec::new(), sums: [Sum::default(); DIRECTIONS] }
    }

    fn add(&mut self, handles: &Handles, entry: LogEntry, now_ms: u64) {
        let window_ms = u64::from(handles.options.avg_ms);
        if window_ms == 0 {
            return self.push(handles, entry);
        }
        let sum = &mut self.sums[usize::from(entry.direction)];
        sum.count += 1;
        sum.sum = sum.sum.saturating_add(entry.value);
        sum.max = sum.max.max(entry.value);
        if now_ms.saturating_sub(sum.begun_ms) >= window_ms {
            let whole = sum.entry(entry.direction, entry.time_ms);
            *sum = Sum { begun_ms: now_ms - now_ms % window_ms, ..Sum::default() };
            self.push(handles, whole);
        }
    }

    fn push(&mut self, handles: &Handles, entry: LogEntry) {
        self.pending.push(entry);
        if self.pending.len() >= BATCH {
            self.flush(handles);
        }
    }

    fn flush(&mut self, handles: &Handles) {
        if !self.pending.is_empty() {
            let entries = std::mem::replace(&mut self.pending, Vec::with_capacity(BATCH));
            handles.send(Batch::Entries { file: self.file, entries });
        }
    }

    /// The windows that have begun are logged as they are.
    fn finish(&mut self, handles: &Handles, time_ms: u64) {
        for (sum, direction) in self.sums.into_iter().zip(0..) {
            if sum.count > 0 {
                self.pending.push(sum.entry(direction, time_ms));
            }
        }
        self.flush(handles);
    }
}

impl Sum {
    fn entry(self, direction: u8, time_ms: u64) -> LogEntry {
        let value = (self.sum + self.count / 2) / self.count.max(1);
        LogEntry { time_ms, value, max: self.max, direction, ..LogEntry::default() }
    }
}

/// A histogram of one direction since the window began.
#[derive(Clone, Default)]
struct Window {
    begun_ms: u64,
    bytes: u64,
    counts: Histogram,
    count: u64,
}

#[derive(Clone)]
struct HistogramTrack {
    file: usize,
    windows: [Window; DIRECTIONS],
}

impl HistogramTrack {
    fn send(&mut self, handles: &Handles, direction: u8, time_ms: u64) {
        let window = &mut self.windows[usize::from(direction)];
        if window.count > 0 {
            let counts = Box::new(std::mem::take(&mut window.counts));
            let (file, bytes) = (self.file, window.bytes);
            window.count = 0;
            handles.send(Batch::Histogram { file, time_ms, direction, bytes, counts });
        }
    }
}

/// What a worker logs.
#[derive(Clone)]
pub(crate) struct JobLogs {
    handles: Handles,
    /// False during the ramp time.
    recording: bool,
    begun_ns: u64,
    begun_unix_ms: u64,
    bw: Option<Track>,
    iops: Option<Track>,
    slat: Option<Track>,
    clat: Option<Track>,
    lat: Option<Track>,
    hist: Option<HistogramTrack>,
}

impl JobLogs {
    /// `disable_bw_measurement`: single I/Os leave no line about bandwidth, as in fio, whose
    /// samples and averaged logs go on.
    pub(crate) fn without_bandwidth(&mut self) {
        self.bw = None;
    }

    /// The job begins, or its ramp time is over: times count from now on.
    pub(crate) fn restart(&mut self, recording: bool) {
        self.recording = recording;
        self.begun_ns = crate::clock::now_ns();
        self.begun_unix_ms = self.handles.epoch_ms();
    }

    /// Logs one I/O; `direction` is 0 for reads, 1 for writes, 2 for trims.
    #[inline(never)]
    pub(crate) fn completed(
        &mut self,
        direction: usize,
        (offset_bytes, bytes): (u64, u64),
        times: Times,
        synchronous: bool,
    ) {
        if !self.recording {
            return;
        }
        let handles = &self.handles;
        let now_ms = times.complete_ns.saturating_sub(self.begun_ns) / 1_000_000;
        let clat = times.complete_ns.saturating_sub(times.issue_ns);
        let single = handles.options.avg_ms == 0;
        let entry = LogEntry {
            time_ms: shown_ms(handles, now_ms, self.begun_unix_ms),
            value: 0,
            max: 0,
            direction: u8::try_from(direction).unwrap_or(0),
            bytes,
            offset_bytes,
            prio: 0,
            issue_ns: if single { times.issue_ns.saturating_sub(self.begun_ns) } else { 0 },
        };
        let add = |track: &mut Option<Track>, value: u64| {
            if let Some(track) = track {
                track.add(handles, LogEntry { value, ..entry }, now_ms);
            }
        };
        if !synchronous {
            add(&mut self.slat, times.issue_ns.saturating_sub(times.start_ns));
        }
        add(&mut self.clat, clat);
        add(&mut self.lat, times.complete_ns.saturating_sub(times.start_ns));
        // fio's units: bytes per millisecond.
        add(&mut self.bw, bytes.saturating_mul(1_000_000) / clat.max(1));
        add(&mut self.iops, 1);
        if let Some(hist) = &mut self.hist {
            let window = &mut hist.windows[direction];
            window.counts.record(clat);
            window.count += 1;
            window.bytes = bytes;
            let window_ms = u64::from(handles.options.hist_ms);
            if now_ms.saturating_sub(window.begun_ms) >= window_ms {
                window.begun_ms = now_ms - now_ms % window_ms;
                hist.send(handles, entry.direction, entry.time_ms);
            }
        }
    }

    /// Sends what is left.
    pub(crate) fn finish(&mut self) {
        let now_ms = crate::clock::now_ns().saturating_sub(self.begun_ns) / 1_000_000;
        let handles = &self.handles;
        let time_ms = shown_ms(handles, now_ms, self.begun_unix_ms);
        let tracks = [&mut self.slat, &mut self.clat, &mut self.lat, &mut self.bw, &mut self.iops];
        for track in tracks.into_iter().flatten() {
            track.finish(handles, time_ms);
        }
        if let Some(hist) = &mut self.hist {
            (0..).take(DIRECTIONS).for_each(|direction| hist.send(handles, direction, time_ms));
        }
    }
}

fn shown_ms(handles: &Handles, now_ms: u64, begun_unix_ms: u64) -> u64 {
    if handles.options.unix_epoch { begun_unix_ms + now_ms } else { now_ms }
}

/// Rates of windows, logged by the sampler.
pub(crate) struct RateLogs {
    handles: Handles,
    bw: Option<usize>,
    iops: Option<usize>,
    begun_ns: u64,
    begun_unix_ms: u64,
}

impl RateLogs {
    /// Recording begins.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        self.begun_ns = now_ns;
        self.begun_unix_ms = self.handles.epoch_ms();
    }

    /// Logs a window of `elapsed_ms` in which so much was done; what stood still has no line.
    pub(crate) fn window(&self, now_ns: u64, elapsed_ms: u64, done: [Totals; DIRECTIONS]) {
        let handles = &self.handles;
        let now_ms = now_ns.saturating_sub(self.begun_ns) / 1_000_000;
        let time_ms = shown_ms(handles, now_ms, self.begun_unix_ms);
        for (totals, direction) in done.into_iter().zip(0..) {
            let rate = |amount: u64| (amount * 1000).checked_div(elapsed_ms);
            let (Some(iops), Some(bytes)) = (rate(totals.ios), rate(totals.bytes)) else { return };
            if totals.ios == 0 {
                continue;
            }
            let line = |file: Option<usize>, value: u64| {
                if let Some(file) = file {
                    let entry =
                        LogEntry { time_ms, value, max: value, direction, ..LogEntry::default() };
                    handles.send_one(file, entry);
                }
            };
            line(self.bw, bytes / 1024);
            line(self.iops, iops);
        }
    }
}

impl std::fmt::Debug for RateLogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLogs").finish_non_exhaustive()
    }
}
