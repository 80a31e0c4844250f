//! Launches chains, waits for every completion of a launch, and goes on from what they mean.
//!
//! Data flow: [`Steps`] → entry → launch (all of its SQEs and slots, or none) → completions →
//! judged in order → the next launch, an ordinary flush, or the end. The memory of the steps is
//! the entry's until the last completion; entries are pooled, so a chain allocates nothing.
//!
//! Not here: what a completion means (`crate::chain`), the builder and its future (`commit`).

use std::task::{Poll, Waker};

use mfio_core::{Error, ErrorKind};
use nix::errno::Errno;

use super::chain_table::{ChainId, Failure, Phase, Steps};
use super::core::{Bytes, Core, Ending, Job, Retry};
use super::flush::Waiter;
use super::slot::{Occupant, StepOp};
use crate::chain::{Step, What};
use crate::complete::{self, STALLS_MAX, Verdict};
use crate::error::from_errno;
use crate::ring::{Op, OpKind, Plant, Ring, Tag};

/// The first back-off after EAGAIN; it doubles each time.
const BACK_OFF_NS: u64 = 1_000;

/// How often in a row a chain waits for room for all of it, before it is launched in pieces.
const PASSED_OVER_MAX: u8 = 16;

impl<R: Ring> Core<R> {
    /// Takes the first `count` of `steps` over, or says why not; `None` when there is no room.
    /// Nothing has been issued where it says why not.
    pub(super) fn accept_chain(
        &mut self,
        steps: &mut Steps,
        count: usize,
    ) -> Result<Option<ChainId>, Failure> {
        if self.unreserved_room() == 0 {
            return Ok(None);
        }
        for at in 0..count {
            if let Err(error) = self.check_step(steps, at) {
                let target = steps[at].as_ref().map_or(0, |step| step.target);
                let target = self.targets.get(target).name.clone();
                return Err(Failure { step: at, done_steps: 0, error, target });
            }
        }
        let mut flushed = false;
        for step in steps.iter_mut().flatten() {
            self.targets.retain(step.target);
            flushed |= step.what.is_sync();
            // A write behind a flush of its own chain must not make that flush wait for it: it
            // counts as sent when the flush is over.
            if step.what.modifies() && !flushed {
                step.epoch = Some(self.targets.get_mut(step.target).barrier.write_started());
            }
        }
        self.metrics.chains += 1;
        let id = self.chains.open(core::mem::take(steps), count);
        if !self.backlog.is_empty() || !self.launch(id) {
            self.backlog.push_back(Job { target: 0, offset_bytes: 0, bytes: Bytes::Chain(id) });
        }
        Ok(Some(id))
    }

    /// Fills in the memory of a step, if nothing speaks against it.
    fn check_step(&self, steps: &mut Steps, at: usize) -> Result<(), Error> {
        let previous = at.checked_sub(1).and_then(|at| steps[at].as_ref()?.memory);
        let Some(step) = &mut steps[at] else { return Ok(()) };
        if let Some(error) = self.refusal(step.target, step.what != What::Read) {
            return Err(error);
        }
        let end = step.offset_bytes.checked_add(step.len_bytes);
        if end.is_none_or(|end| end > i64::MAX as u64) {
            return Err(ErrorKind::OutOfRange.into());
        }
        step.memory = match (&mut step.buffer, step.what) {
            (Some(buffer), _) => {
                let len_bytes = u32::try_from(buffer.len()).map_err(|_| ErrorKind::OutOfRange)?;
                Some(self.memory_of(buffer.as_mut_ptr(), len_bytes, Some(buffer.region_id())))
            }
            (None, What::WritePrevious) => previous,
            (None, _) => None,
        };
        let demands = self.targets.get(step.target).demands;
        if let Some(memory) = step.memory {
            step.len_bytes = u64::from(memory.len_bytes());
            let place =
                (step.offset_bytes | step.len_bytes) & (u64::from(demands.offset_align) - 1);
            let address = memory.addr().addr() & (demands.mem_align as usize - 1);
            if place != 0 || address != 0 {
                return Err(ErrorKind::Misaligned.into());
            }
        }
        Ok(())
    }

    /// Starts what can be started of a chain at once. False when there is no room for that.
    pub(super) fn launch(&mut self, id: ChainId) -> bool {
        if self.closing {
            self.end_chain(id, Err(ErrorKind::Closed.into()));
            return true;
        }
        let first = self.chains.get(id).first;
        let step = self.chains.step(id, first);
        let (what, target) = (step.what, step.target);
        if let What::Sync { all_metadata } = what {
            // With nothing to be linked to, it shares a flush with whoever asks meanwhile.
            self.chains.get(id).phase = Phase::Flushing;
            self.request_flush(target, all_metadata, Waiter::Chain(id));
            return true;
        }
        if let What::Range(kind) = what
            && !self.ring.supports(kind)
        {
            if self.slots.free() == 0 {
                // It may have to back off in one.
                return false;
            }
            let result = self.on_the_spot(id, first, kind);
            self.chains.step(id, first).result = result;
            let entry = self.chains.get(id);
            (entry.launched_to, entry.cut) = (first + 1, false);
            self.judge(id);
            return true;
        }
        let Some(count) = self.room_for(id) else { return false };
        let entries = u32::try_from(count).expect("a chain is short");
        for at in first..first + count {
            self.push_step(id, at, at + 1 < first + count);
        }
        let entry = self.chains.get(id);
        entry.phase = Phase::Launched(entries);
        (entry.launched_to, entry.cut) = (first + count, false);
        true
    }

    /// How many steps are launched now: all that can be linked, or none. What was passed over
    /// too often takes what room there is, since other classes could take it for ever.
    fn room_for(&mut self, id: ChainId) -> Option<usize> {
        let mut count = self.linkable(id);
        let mut fits = |count: usize| {
            let entries = u32::try_from(count).expect("a chain is short");
            self.slots.free() >= count && self.ring.reserve(entries)
        };
        let entry = self.chains.get(id);
        while !fits(count) {
            if entry.passed_over < PASSED_OVER_MAX || count == 1 {
                entry.passed_over = entry.passed_over.saturating_add(1);
                return None;
            }
            count -= 1;
        }
        entry.passed_over = 0;
        Some(count)
    }

    /// How many steps, from the first that is not done, can be linked to each other now.
    fn linkable(&mut self, id: ChainId) -> usize {
        let most = (self.ring.limits().sq_entries as usize).min(self.slots.count());
        let entry = self.chains.get(id);
        let forgets = self.ring.plant(Plant::ForgetFollowers) && entry.relaunched;
        let most = if entry.single || forgets { 1 } else { most };
        let steps = &entry.steps[entry.first..entry.count];
        let in_queue = |step: &Step| self.targets.get(step.target).can_link();
        let most = if steps.iter().flatten().take(1).all(in_queue) { most } else { 1 };
        let mut count = 1;
        for (at, step) in steps.iter().flatten().enumerate().skip(1).take(most.saturating_sub(1)) {
            let linked = match step.what {
                What::Sync { .. } => {
                    // Two at a time could let the second succeed because the first failed (F37).
                    let same = |other: &Step| other.what.is_sync() && other.target == step.target;
                    let target = self.targets.get(step.target);
                    let busy = target.flush_in_flight || target.poison.is_set();
                    !busy && !steps[..at].iter().flatten().any(same)
                }
                What::Range(kind) => self.ring.supports(kind),
                _ => true,
            };
            if !linked || !self.targets.get(step.target).can_link() {
                break;
            }
            count += 1;
        }
        count
    }

    fn push_step(&mut self, id: ChainId, at: usize, link: bool) {
        let step = self.chains.step(id, at);
        let (what, target, force_async) = (step.what, step.target, step.force_async);
        let (offset_bytes, len_bytes) = (step.offset_bytes, step.len_bytes);
        let resumed_at = step.resumed_at;
        let memory =
            step.memory.map(|memory| memory.sub(resumed_at, memory.len_bytes() - resumed_at));
        let entry = self.targets.get_mut(target);
        let op = Op { link, force_async, ..Op::on(what.kind(), entry.file) };
        let op = match what {
            What::Sync { .. } => {
                entry.flush_in_flight = true;
                self.metrics.flushes += 1;
                op
            }
            What::Range(_) => Op { offset_bytes, len_bytes, ..op },
            _ => Op { offset_bytes: offset_bytes + u64::from(resumed_at), memory, ..op },
        };
        let step = u8::try_from(at).expect("a chain is short");
        let (cancel_requested, cancel_sent) = (false, false);
        let occupant = StepOp { chain: id, step, cancel_requested, cancel_sent };
        let tag = self.slots.occupy(Occupant::Step(occupant));
        self.chains.step(id, at).tag = Some(tag);
        self.push_seldom(op, tag);
    }

    /// The call that the ring cannot make, made here. It blocks the shard, which is why
    /// [`Features::degraded`](crate::ring::Features::degraded) tells of it.
    #[cold]
    fn on_the_spot(&mut self, id: ChainId, at: usize, kind: OpKind) -> i32 {
        use std::os::fd::AsRawFd;
        let step = self.chains.step(id, at);
        let (offset_bytes, len_bytes) = (step.offset_bytes, step.len_bytes);
        let opened = &self.targets.get(self.chains.step(id, at).target).opened;
        let Some(fd) = opened.as_ref().map(AsRawFd::as_raw_fd) else {
            return -(Errno::EOPNOTSUPP as i32);
        };
        let done = match kind.fallocate_mode() {
            Some(mode) => crate::sys::fallocate(fd, mode, offset_bytes, len_bytes),
            None => crate::sys::ftruncate(fd, len_bytes),
        };
        done.map_or_else(|errno| -(errno as i32), |()| 0)
    }

    /// A completion that is not of a read or a write.
    #[cold]
    pub(super) fn complete_other(&mut self, tag: Tag, result: i32) {
        let step = match self.slots.find(tag) {
            Some(Occupant::Step(step)) => step,
            _ => return self.complete_flush(tag, result),
        };
        let (id, at) = (step.chain, usize::from(step.step));
        self.slots.vacate(tag);
        let step = self.chains.step(id, at);
        (step.result, step.tag) = (result, None);
        if step.what.is_sync() {
            let target = step.target;
            self.targets.get_mut(target).flush_in_flight = false;
            if let Verdict::Fail(errno) = complete::flush(result, true) {
                self.metrics.flush_failures += 1;
                let error = self.targets.get(target).poison.set(errno, self.device_status);
                self.refuse_flushes(target, error);
            }
        }
        let Phase::Launched(in_flight) = &mut self.chains.get(id).phase else {
            unreachable!("only a launched chain has ops in flight");
        };
        *in_flight -= 1;
        if *in_flight == 0 {
            self.judge(id);
        }
    }

    /// Every completion of a launch is there: the first that is not whole decides.
    fn judge(&mut self, id: ChainId) {
        let accept_short = self.ring.plant(Plant::AcceptShort);
        let closing = self.closing;
        let entry = self.chains.get(id);
        entry.phase = Phase::Queued;
        let (start, end, cut) = (entry.first, entry.launched_to, entry.cut);
        let cancelled = entry.abandoned || closing;
        for at in start..end {
            if cut && at > start {
                // The first had nothing to wait for; what came behind may have been too early.
                self.metrics.chains_relaunched += 1;
                self.chains.get(id).single = true;
                break;
            }
            match self.chains.step(id, at).judge(at > start, cancelled, accept_short) {
                Verdict::Done => {
                    if let Err(error) = self.step_done(id, at) {
                        return self.end_chain(id, Err(error));
                    }
                }
                verdict => return self.step_not_whole(id, at, verdict),
            }
        }
        if self.ring.plant(Plant::ForgetFollowers) && self.chains.get(id).relaunched {
            return self.end_chain(id, Ok(()));
        }
        self.go_on(id);
    }

    /// A step is whole, as are all before it.
    fn step_done(&mut self, id: ChainId, at: usize) -> Result<(), Error> {
        let step = self.chains.step(id, at);
        let (target, epoch, is_sync) = (step.target, step.epoch.take(), step.what.is_sync());
        if let Some(epoch) = epoch {
            self.targets.get_mut(target).barrier.write_ended(epoch);
        }
        if is_sync && let Some(error) = self.targets.get(target).poison_error() {
            return Err(error);
        }
        self.chains.get(id).first = at + 1;
        Ok(())
    }

    /// Launches what is left, if anything is.
    fn go_on(&mut self, id: ChainId) {
        let entry = self.chains.get(id);
        if entry.first == entry.count {
            return self.end_chain(id, Ok(()));
        }
        if entry.abandoned {
            return self.end_chain(id, Err(ErrorKind::Cancelled.into()));
        }
        if !self.is_usable() || self.closing {
            return self.end_chain(id, Err(ErrorKind::Closed.into()));
        }
        self.backlog.push_front(Job { target: 0, offset_bytes: 0, bytes: Bytes::Chain(id) });
    }

    /// The step is to be launched again with everything behind it, or the chain ends here.
    #[cold]
    fn step_not_whole(&mut self, id: ChainId, at: usize, verdict: Verdict) {
        let target = self.chains.step(id, at).target;
        let demands = self.targets.get(target).demands;
        let step = self.chains.step(id, at);
        let fail = match verdict {
            Verdict::Rest { done_bytes } => {
                let got_on = step.advance(done_bytes, demands);
                let is_read = step.what == What::Read;
                let stalled = !got_on && step.stalls >= STALLS_MAX;
                self.metrics.short_transfers += 1;
                match (got_on, is_read) {
                    (false, true) => Some(ErrorKind::UnexpectedEof.into()),
                    (false, false) if stalled => Some(Error::os(Errno::EIO as i32)),
                    _ => None,
                }
            }
            Verdict::Stalled => {
                step.stalls += 1;
                None
            }
            Verdict::Retry { force_async } => {
                step.retries = step.retries.saturating_add(1);
                step.force_async = force_async;
                return self.back_off(id, at);
            }
            Verdict::EndOfFile { .. } => Some(ErrorKind::UnexpectedEof.into()),
            // A driver may be able to do it where it may block, and only there.
            Verdict::Fail(Errno::EOPNOTSUPP) if step.discards() && !step.force_async => {
                step.force_async = true;
                None
            }
            Verdict::Cancelled | Verdict::ChainBroken => Some(from_errno(Errno::ECANCELED)),
            Verdict::Fail(errno) if step.what.is_sync() => {
                let poison = self.targets.get(target).poison_error();
                Some(poison.unwrap_or(self.error_of(errno)))
            }
            Verdict::Fail(errno) => Some(self.error_of(errno)),
            Verdict::Done => unreachable!("a whole step is handled by the caller"),
        };
        if let Some(error) = fail {
            return self.end_chain(id, Err(error));
        }
        self.metrics.chains_relaunched += 1;
        self.chains.get(id).relaunched = true;
        self.go_on(id);
    }

    /// Keeps a slot until the step may be tried again.
    fn back_off(&mut self, id: ChainId, at: usize) {
        self.metrics.retries += 1;
        self.metrics.chains_relaunched += 1;
        if self.closing || self.chains.get(id).abandoned {
            return self.go_on(id);
        }
        let retries = self.chains.step(id, at).retries;
        let step = u8::try_from(at).expect("a chain is short");
        let occupant = StepOp { chain: id, step, cancel_requested: false, cancel_sent: true };
        let tag = self.slots.occupy(Occupant::Step(occupant));
        let not_before_ns = self.ring.now_ns() + (BACK_OFF_NS << u32::from(retries.min(10)));
        self.retries.push_back(Retry { tag, not_before_ns });
    }

    /// The time of the chain that keeps the slot of `tag` has come again.
    #[cold]
    pub(super) fn chain_backed_off(&mut self, tag: Tag) {
        let Some(Occupant::Step(step)) = self.slots.find(tag) else { return };
        let id = step.chain;
        self.slots.vacate(tag);
        self.go_on(id);
    }

    /// The chain waits in a slot to be tried again, which it is not any more. What is left in
    /// the list of retries names a slot that has moved on.
    #[cold]
    fn stop_backing_off(&mut self, id: ChainId) {
        let is_it =
            |occupant: &Occupant| matches!(occupant, Occupant::Step(step) if step.chain == id);
        let kept = self.slots.iter_mut().find(|(_, occupant)| is_it(occupant)).map(|(tag, _)| tag);
        if let Some(tag) = kept {
            self.slots.vacate(tag);
            self.end_chain(id, Err(ErrorKind::Cancelled.into()));
        }
    }

    /// The flush that a chain has asked for has come to an end.
    pub(super) fn chain_flushed(&mut self, id: ChainId, result: Result<(), Error>) {
        let entry = self.chains.get(id);
        entry.phase = Phase::Queued;
        let at = entry.first;
        match result.and_then(|()| self.step_done(id, at)) {
            Ok(()) => self.go_on(id),
            Err(error) => self.end_chain(id, Err(error)),
        }
    }

    /// The chain is over; nothing of it is in flight.
    pub(super) fn end_chain(&mut self, id: ChainId, result: Result<(), Error>) {
        let at = self.chains.get(id).first;
        let result = result.map_err(|error| {
            let target = self.chains.step(id, at).target;
            Failure {
                step: at,
                done_steps: at,
                error,
                target: self.targets.get(target).name.clone(),
            }
        });
        for at in 0..self.chains.get(id).count {
            let step = self.chains.step(id, at);
            let (target, epoch) = (step.target, step.epoch.take());
            self.targets.release_op(target, epoch, &mut self.ring);
        }
        let entry = self.chains.get(id);
        if entry.abandoned {
            drop(self.chains.close(id));
            return;
        }
        entry.phase = Phase::Ended(result);
        let waker = entry.waker.take();
        self.endings.extend(waker.map(Ending::Wake));
    }

    /// The outcome and the steps, when there is one; else `waker` is called then, and what was
    /// to be called before is left in its place.
    pub(super) fn poll_chain(
        &mut self,
        id: ChainId,
        waker: &mut Option<Waker>,
    ) -> Poll<(Result<(), Failure>, Steps)> {
        let entry = self.chains.get(id);
        if !matches!(entry.phase, Phase::Ended(_)) {
            core::mem::swap(&mut entry.waker, waker);
            return Poll::Pending;
        }
        let Phase::Ended(result) = core::mem::replace(&mut entry.phase, Phase::Free) else {
            unreachable!("looked at just now");
        };
        Poll::Ready((result, self.chains.close(id)))
    }

    /// Nobody waits for the chain any more: what has not started is not started. Returns a
    /// waker to be dropped when nothing is borrowed.
    #[cold]
    pub(super) fn abandon_chain(&mut self, id: ChainId) -> Option<Waker> {
        let entry = self.chains.get(id);
        let waker = entry.waker.take();
        entry.abandoned = true;
        match entry.phase {
            Phase::Ended(_) => drop(self.chains.close(id)),
            Phase::Launched(_) => {
                for (_, occupant) in self.slots.iter_mut() {
                    if let Occupant::Step(step) = occupant
                        && step.chain == id
                    {
                        step.cancel_requested = true;
                        self.metrics.cancels += 1;
                    }
                }
                self.send_cancels();
            }
            Phase::Queued => {
                let is_it = |job: &Job| matches!(job.bytes, Bytes::Chain(other) if other == id);
                if let Some(at) = self.backlog.iter().position(is_it) {
                    let _job = self.backlog.remove(at);
                    self.end_chain(id, Err(ErrorKind::Cancelled.into()));
                    self.wake_waiting();
                } else {
                    self.stop_backing_off(id);
                }
            }
            Phase::Flushing | Phase::Free => {}
        }
        waker
    }
}
