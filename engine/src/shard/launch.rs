//! Accepts chains, and launches as much of one as can go at once: all of its SQEs and slots,
//! or none.
//!
//! Data flow: [`Steps`] → checked → entry → launch → ops of the ring. A flush that has nothing to
//! be linked to is asked for instead, and a call that the ring cannot make is made on the spot.
//!
//! Not here: what comes of a launch (`chain`), the entries (`chain_table`).

use mfio_core::{Error, ErrorKind};
use nix::errno::Errno;

use super::chain_table::{ChainId, Failure, Phase, Steps};
use super::core::{Bytes, Core, Job};
use super::durable;
use super::flush::Waiter;
use super::slot::{Occupant, StepOp};
use crate::chain::{Step, What};
use crate::ring::{Knob, Op, OpKind, Plant, Ring};

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
        let id = self.chains.open(steps, count);
        if !self.backlog.is_empty() || !self.launch(id) {
            self.backlog.push_back(Job { target: 0, offset_bytes: 0, bytes: Bytes::Chain(id) });
        }
        Ok(Some(id))
    }

    /// Fills in the memory of a step, if nothing speaks against it.
    fn check_step(&self, steps: &mut Steps, at: usize) -> Result<(), Error> {
        let previous = at.checked_sub(1).and_then(|at| steps[at].as_ref()?.memory);
        let Some(step) = &mut steps[at] else { return Ok(()) };
        if let Some(error) = self.refusal(step.target, !step.what.only_reads()) {
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
            self.judge_call(id, first, result);
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
        let most = self.ring.knob(Knob::LinkedSteps, most);
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
                    let same = |other: &Step| {
                        other.what.is_sync() && self.targets.are_one_file(other.target, step.target)
                    };
                    let poisoned = self.targets.get(step.target).poison.is_set();
                    let busy =
                        poisoned || durable::must_wait(&self.targets, &mut self.slots, step.target);
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

    /// What a step does now, and to which target.
    pub(super) fn step_op(&mut self, id: ChainId, at: usize, link: bool) -> (u32, Op) {
        let step = self.chains.step(id, at);
        let (what, target, force_async) = (step.what, step.target, step.force_async);
        let (offset_bytes, len_bytes) = (step.offset_bytes, step.len_bytes);
        let resumed_at = step.resumed_at;
        let memory =
            step.memory.map(|memory| memory.sub(resumed_at, memory.len_bytes() - resumed_at));
        let file = self.targets.get(target).file;
        let op = Op { link, force_async, ..Op::on(what.kind(), file) };
        let op = match what {
            What::Sync { .. } => op,
            What::Range(_) => Op { offset_bytes, len_bytes, ..op },
            // Its memory is no part of what it copies: it is whole or nothing.
            What::CopyWithin { len_bytes } => Op { offset_bytes, len_bytes, memory, ..op },
            _ => Op { offset_bytes: offset_bytes + u64::from(resumed_at), memory, ..op },
        };
        (target, op)
    }

    fn push_step(&mut self, id: ChainId, at: usize, link: bool) {
        let (target, op) = self.step_op(id, at, link);
        if matches!(op.kind, OpKind::Fdatasync | OpKind::Fsync) {
            self.targets.get_mut(target).flush_in_flight = true;
            self.metrics.flushes += 1;
        }
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
}
