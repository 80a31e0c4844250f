//! What the end of an I/O leads to: it counts, goes on where it was short, or has failed.
//!
//! Data flow: events that were reaped together -> the short way for those that are as they should
//! be, the long one for the rest -> `Recorder`, and the slots are free.
//!
//! Not here: reaping (`worker`), checking blocks (`check`), which errors end a job (`policy`).

use crate::ioengine::{Event, Io, IoEngine, Operation};
use crate::measure::Times;
use crate::run::failure::Failure;
use crate::run::logs::JobLogs;
use crate::run::policy::Verdict;

use super::batches::NONE;
use super::{Rules, SEVERAL, Slot, Worker};

/// What becomes of an I/O whose result was not the length asked for.
enum After {
    /// It was queued again.
    Again,
    /// It is done.
    Counts,
    /// It is over and does not count.
    Lost,
}

/// Syncs have no place in fio's logs.
#[inline(never)]
fn log(
    logs: &mut JobLogs,
    operation: Operation,
    (offset_bytes, len_bytes): (u64, u64),
    times: Times,
    synchronous: bool,
) {
    if !operation.is_sync() {
        let direction = crate::measure::direction(operation);
        logs.completed(direction, (offset_bytes, len_bytes), times, synchronous);
    }
}

/// At most as many as there are slots.
#[inline]
pub(super) fn count_of(ios: usize) -> u32 {
    u32::try_from(ios).unwrap_or(u32::MAX)
}

impl<E: IoEngine> Worker<'_, E> {
    /// Deals with what was reaped at that time.
    #[inline(always)]
    pub(super) fn complete_all<const CLOCK: bool>(
        &mut self,
        events: &[Event],
        now_ns: u64,
        rules: Rules,
    ) {
        let mut usual = 0;
        if events.len() >= SEVERAL as usize && self.is_plain::<CLOCK>(rules) {
            usual = self.usual::<CLOCK>(events, now_ns);
        }
        for event in &events[usual..] {
            let Slot { start_ns, batch, .. } = self.slots[event.slot as usize];
            let mut times = Times::default();
            if CLOCK {
                let issue_ns = self.batches.issued_ns(batch);
                times = Times { start_ns, issue_ns, complete_ns: now_ns };
                self.batches.leave(batch, 1);
            }
            self.complete::<CLOCK>(*event, times, rules);
        }
    }

    /// Whether an I/O that moved what it was to has only to be counted, and its times recorded.
    #[inline(always)]
    fn is_plain<const CLOCK: bool>(&self, rules: Rules) -> bool {
        let looked_at = rules.check || self.serialized || self.content.is_verifiable();
        let timed = self.recorder.logs.is_some()
            || self.judge.is_some()
            || self.synchronous
            || !self.recorder.wants_all();
        let untimed = !CLOCK || !timed;
        untimed && !looked_at && self.failure.is_none()
    }

    /// Deals with the first ones as long as they are as they should be; how many. Short, and
    /// without calls: nearly all I/Os of nearly all jobs pass here.
    #[inline(never)]
    fn usual<const CLOCK: bool>(&mut self, events: &[Event], now_ns: u64) -> usize {
        let Self { slots, recorder, batches, free, .. } = self;
        let slots = &slots[..];
        let (mut ios, mut bytes) = ([0; 3], [0; 3]);
        // Which batch the I/Os since `first` were submitted with, and what they have in common.
        let (mut batch, mut first, mut issue_ns, mut completion_ns) = (NONE, 0, 0, 0);
        let mut done = 0;
        while let Some(event) = events.get(done) {
            let slot = &slots[event.slot as usize];
            if i64::from(event.result) != i64::from(slot.io.len_bytes) {
                break;
            }
            // What comes after the directions moves nothing.
            let direction = slot.io.operation as usize;
            let Some(sum) = bytes.get_mut(direction) else { break };
            *sum += u64::from(slot.io.skip_bytes + slot.io.len_bytes);
            ios[direction] += 1;
            if CLOCK {
                if slot.batch != batch {
                    batches.leave(batch, count_of(done - first));
                    (batch, first) = (slot.batch, done);
                    issue_ns = batches.issued_ns(batch);
                    completion_ns = now_ns.saturating_sub(issue_ns);
                }
                let submission_ns = issue_ns.saturating_sub(slot.start_ns);
                recorder.time_all(direction, submission_ns, completion_ns);
            }
            done += 1;
        }
        if CLOCK {
            batches.leave(batch, count_of(done - first));
        }
        recorder.count_moved(ios, bytes);
        free.extend(events[..done].iter().map(|event| event.slot));
        done
    }

    /// Deals with one I/O.
    #[inline(always)]
    pub(super) fn complete<const CLOCK: bool>(&mut self, event: Event, times: Times, rules: Rules) {
        let io = self.slots[event.slot as usize].io;
        let mut counts = true;
        if u32::try_from(event.result) != Ok(io.len_bytes) {
            match self.continues::<CLOCK>(io, event.result, rules) {
                After::Again => return,
                After::Counts => {}
                After::Lost => counts = false,
            }
        }
        if counts && (!self.stopping || self.failure.is_none()) {
            self.recorder.count(io.operation, io.skip_bytes + io.len_bytes);
            if CLOCK {
                self.recorder.time(io.operation, times, self.synchronous);
                if let Some(logs) = &mut self.recorder.logs {
                    let whole = (
                        io.offset_bytes - u64::from(io.skip_bytes),
                        u64::from(io.skip_bytes) + u64::from(io.len_bytes),
                    );
                    log(logs, io.operation, whole, times, self.synchronous);
                }
            }
            if rules.check && io.operation == Operation::Read {
                self.check(io, rules);
            }
        }
        if self.content.is_verifiable() || self.serialized {
            self.active[event.slot as usize] = false;
        }
        self.free.push(event.slot);
        if CLOCK && self.judge.is_some() {
            self.judged(io, times, counts);
        }
    }

    /// Deals with a result that is not the length asked for.
    #[cold]
    fn continues<const CLOCK: bool>(&mut self, io: Io, result: i32, rules: Rules) -> After {
        if io.operation.is_sync() && result == 0 {
            return After::Counts;
        }
        // Nothing where there should be something is the end of the file.
        let errno = if result == 0 { nix::libc::EIO } else { result.saturating_neg() };
        let again = self.policy.asks_again(errno);
        if result <= 0 && !again {
            return self.refused(io, errno);
        }
        if self.failure.is_some() {
            return After::Lost;
        }
        let moved = u32::try_from(result).unwrap_or(0);
        if moved > 0 {
            self.recorder.count_short(io.operation);
        }
        let rest = Io {
            offset_bytes: io.offset_bytes + u64::from(moved),
            skip_bytes: io.skip_bytes + moved,
            len_bytes: io.len_bytes - moved,
            ..io
        };
        let slot = &mut self.slots[io.slot as usize];
        (slot.io, slot.batch) = (rest, self.batches.gathering());
        self.queue::<CLOCK>(rest, rules);
        After::Again
    }

    /// An I/O failed: that ends the job, or it does not count.
    #[cold]
    fn refused(&mut self, io: Io, errno: i32) -> After {
        if io.operation == Operation::Write {
            // What is there now nobody knows.
            self.content.unwrite(io, false);
        }
        match self.policy.judge(io.operation, errno) {
            Verdict::Fatal => self.fail(Failure::io(io, errno)),
            Verdict::Full => self.stopping = true,
            Verdict::Ignored => self.errors.ignored += 1,
            Verdict::Counted => self.errors.note(Failure::io(io, errno)),
        }
        After::Lost
    }
}
