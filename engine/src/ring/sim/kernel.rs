//! Turns queued ops into completions, the way a hostile but lawful kernel might.
//!
//! Data flow: `push` → submission queue → `enter` → flights, advanced in the order of time →
//! completion queue (or the overflow list) → `reap`. Every choice is a draw from one seeded
//! generator, every step is folded into one trace, and the clock jumps from event to event.
//!
//! Not here: the bytes and what survives (`device`), how often things go wrong (`config`),
//! what one op does at each phase (`steps`).

use std::collections::VecDeque;

use nix::errno::Errno;

use super::complaint::Complaint;
use super::config::{FaultRates, Service, SimConfig};
use super::device::SimDevice;
use super::flight::{Flight, Phase};
use super::knobs::KnobCounts;
use super::random::Random;
use super::stats::{SimStats, Trace};
use crate::ring::{Completion, FileRef, Op, Tag, Wait};

/// The most complaints that are kept; a broken shard has one with every step.
const COMPLAINTS_MAX: usize = 16;

/// What a submission queue entry asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sqe {
    Op(Op, Tag),
    Cancel(Tag),
}

/// A completion in the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Posted {
    pub(super) completion: Completion,
    /// It ends its op: it is neither a duplicate nor the ring's own.
    pub(super) ends_op: bool,
}

/// The state of one simulated kernel ring.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) config: SimConfig,
    pub(super) device: SimDevice,
    pub(super) random: Random,
    pub(super) trace: Trace,
    pub(super) stats: SimStats,
    pub(super) now_ns: u64,
    pub(super) flights: Vec<Flight>,
    /// The power is gone: every op fails and nothing is touched any more.
    pub(super) dead: bool,
    sq: Vec<Sqe>,
    cq: VecDeque<Posted>,
    overflow: VecDeque<Posted>,
    sequence: u64,
    /// Registered files, as indices into the device.
    files: Vec<Option<usize>>,
    /// How each registration is named; plain descriptors of one file are all the same.
    named: Vec<FileRef>,
    /// The latest completion after which its tag can only be stale.
    pub(super) last_whole: Option<Completion>,
    complaints: Vec<Complaint>,
    /// The last op before a partial submit, where that cut a chain.
    cut_head: Option<u64>,
    /// Until when each channel of the device is taken.
    channels_ns: Vec<u64>,
    /// The power is cut before the first step with at least this number.
    pub(super) crash_at_step: u64,
    pub(super) knobs: KnobCounts,
    /// What `enter` is to fail with, after how many calls, and how often.
    pub(super) refusal: Option<(Errno, u32, u32)>,
}

impl Kernel {
    pub(super) fn new(config: SimConfig, device: SimDevice) -> Self {
        assert!(config.sq_entries > 0, "a ring has an entry");
        assert!(config.cq_entries > 0, "a ring has an entry");
        let mut trace = Trace::new();
        trace.fold(config.seed);
        Self {
            config,
            device,
            random: Random::new(config.seed),
            trace,
            stats: SimStats::default(),
            now_ns: 0,
            flights: Vec::with_capacity(config.cq_entries as usize),
            dead: false,
            sq: Vec::with_capacity(config.sq_entries as usize),
            cq: VecDeque::with_capacity(config.cq_entries as usize),
            overflow: VecDeque::new(),
            sequence: 0,
            files: Vec::new(),
            named: Vec::new(),
            last_whole: None,
            complaints: Vec::new(),
            cut_head: None,
            channels_ns: vec![0; config.service.map_or(0, |service| service.channels) as usize],
            crash_at_step: u64::MAX,
            knobs: KnobCounts::default(),
            refusal: None,
        }
    }

    pub(super) fn complaints(&self) -> &[Complaint] {
        &self.complaints
    }

    pub(super) fn complain(&mut self, complaint: Complaint) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(complaint);
        }
    }

    /// How long an op that starts now takes on a device of a few channels.
    pub(super) fn draw_service(&mut self) -> Option<u64> {
        let Service { least_ns, most_ns, .. } = self.config.service?;
        let now_ns = self.now_ns;
        let even = u64::from(self.random.below(1 << 16));
        let span_ns = u64::from(most_ns.saturating_sub(least_ns));
        let service_ns = u64::from(least_ns) + ((span_ns * even * even) >> 32);
        let channel = self.channels_ns.iter_mut().min()?;
        *channel = (*channel).max(now_ns) + service_ns;
        Some(*channel - now_ns)
    }

    /// Folds one step into the trace.
    #[inline]
    pub(super) fn note(&mut self, what: u64, detail: u64) {
        self.stats.kernel_steps += 1;
        self.trace.fold(what ^ (detail << 8));
        self.trace.fold(self.now_ns);
    }

    /// Ops whose tag has not come back from `reap`.
    pub(super) fn in_flight(&self) -> usize {
        let queued = self.sq.iter().filter(|sqe| matches!(sqe, Sqe::Op(..))).count();
        let posted = self.cq.iter().chain(&self.overflow);
        let unreaped = posted.filter(|posted| posted.ends_op).count();
        queued + self.flights.len() + unreaped
    }

    pub(super) fn has_room(&self, count: u32) -> bool {
        self.sq.len() + count as usize <= self.config.sq_entries as usize
    }

    pub(super) fn push(&mut self, sqe: Sqe) {
        assert!(self.has_room(1), "the submission queue is full: a reserve was forgotten");
        if matches!(sqe, Sqe::Cancel(_)) && self.link_is_open(self.sq.len()) {
            self.complain(Complaint::LinkLeftOpen);
        }
        self.sq.push(sqe);
    }

    /// Whether the entry before `position` waits for a follower.
    fn link_is_open(&self, position: usize) -> bool {
        let before = position.checked_sub(1).and_then(|at| self.sq.get(at));
        matches!(before, Some(Sqe::Op(op, _)) if op.link)
    }

    pub(super) fn register_file(&mut self, fd: i32) -> FileRef {
        let Some(file) = self.device.file_of_fd(fd) else {
            self.complain(Complaint::BadFile { fd });
            return FileRef::Plain(fd);
        };
        let named = self.name_file(fd, file);
        self.named.push(named);
        named
    }

    fn name_file(&mut self, fd: i32, file: usize) -> FileRef {
        let free = self.files.iter().position(Option::is_none);
        let index = free.unwrap_or(self.files.len());
        let Ok(fixed) = u32::try_from(index) else { return FileRef::Plain(fd) };
        if fixed >= self.config.files_registered_max {
            return FileRef::Plain(fd);
        }
        if index == self.files.len() {
            self.files.push(None);
        }
        self.files[index] = Some(file);
        FileRef::Fixed(fixed)
    }

    pub(super) fn unregister_file(&mut self, file: FileRef) {
        if let Some(at) = self.named.iter().position(|named| *named == file) {
            self.named.swap_remove(at);
        }
        let forgotten = !self.named.contains(&file);
        if forgotten && self.flights.iter().any(|flight| flight.named == file) {
            self.complain(Complaint::FileForgottenInFlight);
        }
        if let FileRef::Fixed(index) = file
            && let Some(entry) = self.files.get_mut(index as usize)
        {
            *entry = None;
        }
    }

    /// The file of the device that `file` names.
    pub(super) fn resolve(&self, file: FileRef) -> Option<usize> {
        match file {
            FileRef::Fixed(index) => self.files.get(index as usize).copied().flatten(),
            FileRef::Plain(fd) => self.device.file_of_fd(fd),
            FileRef::Beside(_) => None,
        }
    }

    pub(super) fn enter(&mut self, wait: Wait, woken: bool) -> Result<u32, Errno> {
        self.note(1, u64::from(wait.min));
        if self.link_is_open(self.sq.len()) {
            self.complain(Complaint::LinkLeftOpen);
        }
        self.now_ns += 1 + u64::from(self.random.below(256));
        if let Some(errno) = self.draw_refusal() {
            self.count_refusal(errno);
            self.note(2, errno as u64);
            return Err(errno);
        }
        self.deliver_overflow();
        let consumed = self.submit();
        self.run_due();
        if wait.min > 0 && !woken {
            if self.sq.is_empty() && self.random.chance(self.config.faults.enter_eintr) {
                // A signal during the wait: what was queued is consumed all the same. After a
                // partial submit the count is reported, because nothing else tells of it.
                self.count_refusal(Errno::EINTR);
                self.note(3, u64::from(consumed));
                return Err(Errno::EINTR);
            }
            self.wait(wait);
        }
        Ok(consumed)
    }

    /// Whether this `enter` fails before it has done anything.
    fn draw_refusal(&mut self) -> Option<Errno> {
        if let Some((errno, skip, times)) = self.refusal.filter(|(.., times)| *times > 0) {
            let now = skip == 0;
            self.refusal = Some((errno, skip.saturating_sub(1), times - u32::from(now)));
            return now.then_some(errno);
        }
        let FaultRates { enter_eintr, enter_eagain, enter_ebusy, enter_enomem, .. } =
            self.config.faults;
        if enter_ebusy != 0 && !self.overflow.is_empty() && self.random.one_in(2) {
            return Some(Errno::EBUSY);
        }
        let rates = [enter_eintr, enter_eagain, enter_ebusy, enter_enomem];
        let refusal = self.random.which(rates)?;
        Some([Errno::EINTR, Errno::EAGAIN, Errno::EBUSY, Errno::ENOMEM][refusal])
    }

    fn count_refusal(&mut self, errno: Errno) {
        let idle = self.flights.is_empty() && self.cq.is_empty() && self.overflow.is_empty();
        let stats = &mut self.stats;
        stats.enter_errors += 1;
        match (errno, idle) {
            (Errno::EINTR, true) => stats.eintr_idle += 1,
            (Errno::EINTR, false) => stats.eintr_busy += 1,
            (Errno::EAGAIN, true) => stats.eagain_idle += 1,
            (Errno::EAGAIN, false) => stats.eagain_busy += 1,
            (Errno::EBUSY, true) => stats.ebusy_idle += 1,
            (Errno::EBUSY, false) => stats.ebusy_busy += 1,
            (Errno::ENOMEM, true) => stats.enomem_idle += 1,
            (Errno::ENOMEM, false) => stats.enomem_busy += 1,
            _ => {}
        }
    }

    /// Consumes queued entries, usually all. Chains do not reach across calls (F15).
    fn submit(&mut self) -> u32 {
        let mut count = self.sq.len();
        if count > 1 && self.random.chance(self.config.faults.partial_submit) {
            count = self.draw_partial(count);
        }
        let mut head = None;
        // What was meant to be linked may share memory, whatever became of the link.
        let mut meant = self.cut_head.take();
        for at in 0..count {
            match self.sq[at] {
                Sqe::Op(op, tag) => {
                    self.sequence += 1;
                    self.admit(&op, tag, self.sequence, head, meant);
                    head = op.link.then_some(self.sequence);
                    meant = head;
                }
                Sqe::Cancel(tag) => {
                    (head, meant) = (None, None);
                    self.cancel(tag);
                }
            }
        }
        self.cut_head = if count < self.sq.len() { meant } else { None };
        self.sq.drain(..count);
        u32::try_from(count).expect("a submission queue is short")
    }

    fn draw_partial(&mut self, count: usize) -> usize {
        let most = u32::try_from(count - 1).expect("a submission queue is short");
        let mut partial = self.random.between(1, most) as usize;
        if self.link_is_open(partial) {
            if self.random.chance(self.config.faults.chain_cut) {
                self.stats.chains_cut += 1;
            } else {
                while partial < count && self.link_is_open(partial) {
                    partial += 1;
                }
            }
        }
        if partial < count {
            self.stats.partial_submits += 1;
        }
        partial
    }

    /// Lets time pass until enough completions are ready.
    fn wait(&mut self, wait: Wait) {
        let full = (wait.min as usize).min(self.config.cq_entries as usize);
        while self.cq.len() < full {
            let deadline_ns = wait.deadline_ns.unwrap_or(u64::MAX);
            match self.next_event_ns() {
                Some(at_ns) if at_ns <= deadline_ns => {
                    self.now_ns = self.now_ns.max(at_ns);
                    self.run_due();
                }
                _ if wait.deadline_ns.is_some() => {
                    self.now_ns = self.now_ns.max(deadline_ns);
                    return;
                }
                _ => {
                    let (ready, min) = (self.cq.len(), wait.min);
                    self.complain(Complaint::SleepsForEver { ready, min });
                    return;
                }
            }
        }
    }

    pub(super) fn next_event_ns(&self) -> Option<u64> {
        let waiting = self.flights.iter().filter(|flight| flight.phase != Phase::Linked);
        waiting.map(|flight| flight.next_at_ns).min()
    }

    /// Advances every flight whose time has come, the earliest first.
    fn run_due(&mut self) {
        loop {
            if self.stats.kernel_steps >= self.crash_at_step {
                self.crash_at_step = u64::MAX;
                self.crash();
            }
            let mut due: Option<(u64, u64, usize)> = None;
            for (at, flight) in self.flights.iter().enumerate() {
                if flight.phase == Phase::Linked || flight.next_at_ns > self.now_ns {
                    continue;
                }
                let key = (flight.next_at_ns, flight.sequence, at);
                if due.is_none_or(|best| key < best) {
                    due = Some(key);
                }
            }
            let Some((_, _, at)) = due else { return };
            self.advance(at);
        }
    }

    /// Makes a completion visible, or keeps it back when the queue is full (NODROP).
    pub(super) fn post(&mut self, completion: Completion, ends_op: bool) {
        self.note(4, completion.tag.to_user_data());
        self.trace.fold(u64::from(completion.result.cast_unsigned()));
        let completion = Posted { completion, ends_op };
        if !self.overflow.is_empty() || self.cq.len() >= self.config.cq_entries as usize {
            self.stats.cq_overflows += 1;
            self.overflow.push_back(completion);
            return;
        }
        self.cq.push_back(completion);
        if self.cq.len() == self.config.cq_entries as usize {
            self.stats.cq_full += 1;
        }
    }

    fn deliver_overflow(&mut self) {
        while self.cq.len() < self.config.cq_entries as usize {
            let Some(completion) = self.overflow.pop_front() else { return };
            self.cq.push_back(completion);
        }
    }

    pub(super) fn reap(&mut self, into: &mut Vec<Completion>) {
        let mut count = self.cq.len();
        if count > 1 && self.random.chance(self.config.faults.partial_reap) {
            let most = u32::try_from(count - 1).expect("a completion queue is short");
            count = self.random.between(1, most) as usize;
            self.stats.partial_reaps += 1;
        }
        let ready = self.cq.drain(..count).map(|posted| posted.completion);
        into.extend(ready.filter(|completion| completion.tag != Tag::INTERNAL));
    }

    /// From now on nothing goes wrong and nothing is slow: whatever is left must finish.
    pub(super) fn calm(&mut self) {
        self.config.faults = FaultRates::NONE;
        self.config.knobs = 0;
    }
}
