//! Waits for every completion of a chain's launch, and goes on from what they mean.
//!
//! Data flow: launch (`launch`) → completions → judged in order → the next launch, an ordinary
//! flush, or the end. The memory of the steps is the entry's until the last completion; entries
//! are pooled, so a chain allocates nothing.
//!
//! Not here: what a completion means (`crate::chain`), the builder and its future (`commit`).

use std::task::{Poll, Waker};

use mfio_core::{Error, ErrorKind};
use nix::errno::Errno;

use super::chain_table::{ChainId, Failure, Phase, Steps};
use super::core::{Bytes, Core, Ending, Job, Retry};
use super::slot::{Occupant, StepOp};
use crate::chain::What;
use crate::complete::{self, STALLS_MAX, Verdict};
use crate::error::from_errno;
use crate::ring::{Plant, Ring, Tag};

impl<R: Ring> Core<R> {
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
    pub(super) fn judge(&mut self, id: ChainId) {
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
        let verdict = self.said_by_device(verdict);
        if verdict == Verdict::Fail(Errno::ECANCELED) && self.step_in_place(id, at) {
            return;
        }
        let target = self.chains.step(id, at).target;
        let demands = self.targets.get(target).demands;
        let unaligned = self.ring.plant(Plant::UnalignedRest);
        let step = self.chains.step(id, at);
        let fail = match verdict {
            Verdict::Rest { done_bytes } => {
                let got_on = step.advance(done_bytes, demands, unaligned);
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
        let not_before_ns = self.ring.now_ns() + self.back_off_ns(retries);
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
            let step = self.chains.step(id, at);
            let failed_at = step.offset_bytes + u64::from(step.reached);
            let target = self.targets.get(step.target);
            let error = target.explain_end(failed_at, error);
            Failure { step: at, done_steps: at, error, target: target.name.clone() }
        });
        for at in 0..self.chains.get(id).count {
            let step = self.chains.step(id, at);
            let (target, epoch) = (step.target, step.epoch.take());
            self.targets.release_op(target, epoch, &mut self.ring);
        }
        let entry = self.chains.get(id);
        if entry.abandoned {
            return self.chains.discard(id);
        }
        entry.phase = Phase::Ended(result);
        let waker = entry.waker.take();
        self.endings.extend(waker.map(Ending::Wake));
    }

    /// The outcome, with the steps put back, when there is one; else `waker` is called then, and
    /// what was to be called before is left in its place.
    pub(super) fn poll_chain(
        &mut self,
        id: ChainId,
        waker: &mut Option<Waker>,
        steps: &mut Steps,
    ) -> Poll<Result<(), Failure>> {
        let entry = self.chains.get(id);
        if !matches!(entry.phase, Phase::Ended(_)) {
            core::mem::swap(&mut entry.waker, waker);
            return Poll::Pending;
        }
        let Phase::Ended(result) = core::mem::replace(&mut entry.phase, Phase::Free) else {
            unreachable!("looked at just now");
        };
        self.chains.close(id, steps);
        Poll::Ready(result)
    }

    /// Nobody waits for the chain any more: what has not started is not started. Returns a
    /// waker to be dropped when nothing is borrowed.
    #[cold]
    pub(super) fn abandon_chain(&mut self, id: ChainId) -> Option<Waker> {
        let entry = self.chains.get(id);
        let waker = entry.waker.take();
        entry.abandoned = true;
        match entry.phase {
            Phase::Ended(_) => self.chains.discard(id),
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
