//! The straight way of a lone op: one plain system call, made by the turn that would enter the
//! ring, for an op that had no slot and no tag.
//!
//! Data flow: a turn ends with nothing in flight, queued or to be looked after → the way is open
//! ([`Core::open_lone`]) → view that is one op in its own memory, on a target whose lone ops were
//! measured to be better off so ([`super::bypass`]) → kept aside ([`Core::stage_lone`]) → the next
//! turn makes the call → the view is complete. Whoever borrows the state in the general way before
//! that may change anything: the op then gets a slot, and is staged with the ring as all others
//! are ([`Core::close_lone`]). So does one that is short, fails, or would block.
//!
//! Not here: which way is better (`bypass`), the call (`ring::kernel`).

use std::cell::RefMut;
use std::mem;
use std::task::Waker;

use mfio_core::{CompletionBatch, Lent, Perms, Read, View, Write};

use super::Inner;
use super::barrier::Epoch;
use super::core::{Core, Ending};
use super::direction::Direction;
use super::enter::Stop;
use super::plain::{At, Plain};
use crate::buffer::MemRange;
use crate::plan;
use crate::ring::{Completion, FileRef, Inline, Op, Ring, Tag, Wait};

/// The straight way of a lone op.
#[derive(Debug, Default)]
pub(super) enum LoneWay {
    /// Something is, or may be, in the way.
    #[default]
    Closed,
    /// Nothing has happened since a turn has seen nothing in the way.
    Open,
    /// As [`LoneWay::Open`], and then one read was sent. It counts as being in flight.
    Read(Staged<Read>),
    /// The same with a write.
    Write(Staged<Write>),
}

impl LoneWay {
    #[inline(always)]
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }

    #[inline(always)]
    pub(super) const fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Whether there is an op that the next turn is to execute.
    #[inline(always)]
    pub(super) const fn is_taken(&self) -> bool {
        matches!(self, Self::Read(_) | Self::Write(_))
    }
}

/// A foreground view that is one op in its own memory, which nobody has been given yet.
#[derive(Debug)]
pub(super) struct Staged<P: Perms> {
    /// All of its memory, which stays lent until the call is over.
    lent: Lent<P>,
    /// The same, as if it were not registered.
    memory: MemRange,
    offset_bytes: u64,
    /// Of a write.
    epoch: Epoch,
    file: FileRef,
    target: u32,
    how: Inline,
}

impl<R: Ring> Inner<R> {
    /// The turn of an op that was kept for it. `take` is as that of [`Core::turn`].
    #[inline(always)]
    pub(super) fn turn_lone<'a>(
        &'a self,
        mut core: RefMut<'a, Core<R>>,
        wait: Wait,
        take: impl FnOnce(&mut CompletionBatch),
    ) -> Result<u32, Stop> {
        let mut waker = None;
        let turned = core.turn_lone(wait, &mut waker);
        if let Some(waker) = waker {
            self.wake_one(core, waker);
            return turned;
        }
        if !core.told.is_empty() {
            take(&mut core.told);
            core.tell();
        }
        let news = core.has_news();
        drop(core);
        if news {
            self.deliver();
        }
        turned
    }

    /// As [`Inner::deliver`] of this waker alone.
    #[inline(never)]
    fn wake_one<'a>(&'a self, mut core: RefMut<'a, Core<R>>, waker: Waker) {
        if let Ok(delivering) = self.delivering.try_borrow_mut() {
            drop(core);
            waker.wake();
            // What the woken has left to this delivery, since it is one.
            drop(delivering);
            core = self.core.straight();
        } else {
            core.endings.push(Ending::Wake(waker));
        }
        let news = core.has_news();
        drop(core);
        if news {
            self.deliver();
        }
    }
}

impl<R: Ring> Core<R> {
    /// Opens the way where nothing is in it, or closes it; the last thing that a turn does, for
    /// whoever goes on with a borrow of the state may put something in it. What changes any of
    /// this borrows the state for that, which closes it too. Endings that are to be told are in
    /// nobody's way: whoever has them told does it after each turn.
    #[cold]
    #[inline(never)]
    pub(super) fn open_lone(&mut self) {
        let idle = self.in_flight == 0 && self.slots.occupied() == 0 && self.reserved == 0;
        let hosted = self.watched || !self.is_usable();
        let open = idle && !hosted && self.slots.free() > 0 && self.is_clear() && self.is_quiet();
        let open = open && self.ring.reserve(self.ring.limits().sq_entries);
        self.lone = if open { LoneWay::Open } else { LoneWay::Closed };
    }

    /// Keeps all of a foreground view for the next turn, where its target's ops go that way, which
    /// is open; else nothing has changed. Trials, which are timed, are the general way's.
    #[inline]
    pub(super) fn stage_lone<D: Direction>(
        &mut self,
        target: u32,
        offset_bytes: u64,
        view: View<D>,
    ) -> Result<(), View<D>> {
        let Some((address, len)) = view.address_and_len() else { return Err(view) };
        let entry = self.targets.get_mut(target);
        let whole = plan::whole_cut(offset_bytes, len, address.addr(), entry.demands);
        let Some(op_bytes) = whole else { return Err(view) };
        let Some(memory) = MemRange::of_raw(address, op_bytes, None) else { return Err(view) };
        let file = entry.file;
        if entry.scratch | matches!(file, FileRef::Beside(_)) {
            return Err(view);
        }
        if !D::IS_READ && entry.poison.is_set() {
            return Err(view);
        }
        let how = entry.courses.as_mut().and_then(|courses| courses.settled(D::IS_READ));
        let Some(how) = how else { return Err(view) };
        let lent = view.try_alloc(1)?;
        let epoch = if D::IS_READ { Epoch::default() } else { entry.barrier.write_started() };
        self.lone = D::staged(Staged { lent, memory, offset_bytes, epoch, file, target, how });
        debug_assert_eq!((self.in_flight, self.slots.occupied()), (0, 0), "the way was open");
        self.in_flight += 1;
        self.metrics.ops += 1;
        Ok(())
    }

    /// A turn that has nothing to do but the op that was kept for it. Whoever awaits that and is
    /// no task of the shard is to be woken when nothing is borrowed any more.
    ///
    /// Inlined down to the call itself, and up to whoever turns the shard: see `sys::inline`.
    #[inline(always)]
    fn turn_lone(&mut self, wait: Wait, waker: &mut Option<Waker>) -> Result<u32, Stop> {
        match mem::replace(&mut self.lone, LoneWay::Open) {
            LoneWay::Read(staged) => self.turn_staged(staged, wait, waker),
            LoneWay::Write(staged) => self.turn_write(staged, wait, waker),
            LoneWay::Closed | LoneWay::Open => self.turn_about(wait),
        }
    }

    #[inline(never)]
    fn turn_write(
        &mut self,
        staged: Staged<Write>,
        wait: Wait,
        waker: &mut Option<Waker>,
    ) -> Result<u32, Stop> {
        self.turn_staged(staged, wait, waker)
    }

    #[inline(always)]
    fn turn_staged<D: Direction>(
        &mut self,
        staged: Staged<D>,
        wait: Wait,
        waker: &mut Option<Waker>,
    ) -> Result<u32, Stop> {
        let Staged { memory, offset_bytes, file, how, .. } = staged;
        let called = self.ring.transfer_inline(D::KIND, file, offset_bytes, memory, how);
        let Some(result) = called else { return self.turn_queued(staged, wait) };
        self.metrics.queues(1);
        // As an `enter` that has taken one op.
        self.metrics.enters += 1;
        self.metrics.submitted += 1;
        // No length has the sign bit, and every errno has.
        if result.cast_unsigned() != memory.len_bytes() {
            return self.end_lone(staged, result);
        }
        self.in_flight -= 1;
        self.metrics.moved(D::IS_READ, memory.len_bytes().into());
        if !D::IS_READ {
            self.targets.get_mut(staged.target).barrier.write_ended(staged.epoch);
        }
        let tasks = self.place_wakers;
        match staged.lent.try_done_in(&mut self.told, |waker| tasks.wake_here(waker)) {
            Ok(left) => *waker = left,
            Err(lent) => self.done.push(D::lent(lent)),
        }
        Ok(1)
    }

    /// The call would have to wait: the ring does that.
    #[cold]
    #[inline(never)]
    fn turn_queued<D: Direction>(&mut self, staged: Staged<D>, wait: Wait) -> Result<u32, Stop> {
        let (tag, op) = self.occupy_staged(staged);
        self.ring.push(op, tag);
        self.turn_about(wait)
    }

    /// The call has failed, or was short: to be judged as any other completion.
    #[cold]
    #[inline(never)]
    fn end_lone<D: Direction>(&mut self, staged: Staged<D>, result: i32) -> Result<u32, Stop> {
        let (tag, _executed) = self.occupy_staged(staged);
        self.complete(Completion { tag, result, more: false });
        self.end_turn(Ok(()), 1)
    }

    /// From now on anything may happen: an op that was kept aside is one like any other.
    #[cold]
    #[inline(never)]
    pub(super) fn close_lone(&mut self) {
        match mem::take(&mut self.lone) {
            LoneWay::Closed | LoneWay::Open => {}
            LoneWay::Read(staged) => self.stage_in_ring(staged),
            LoneWay::Write(staged) => self.stage_in_ring(staged),
        }
    }

    #[cold]
    fn stage_in_ring<D: Direction>(&mut self, staged: Staged<D>) {
        let how = staged.how;
        let (tag, op) = self.occupy_staged(staged);
        self.ring.stage(op, tag, how);
    }

    /// Puts the op that was kept aside into a slot; it is in flight and counted already.
    #[cold]
    fn occupy_staged<D: Direction>(&mut self, staged: Staged<D>) -> (Tag, Op) {
        self.lone = LoneWay::Closed;
        let Staged { lent, memory, offset_bytes, epoch, file, target, how: _ } = staged;
        let memory = self.memory_of(memory.addr(), memory.len_bytes(), lent.region());
        let at = At { target, extent: memory.extent(), offset_bytes };
        let vacancy = self.slots.vacancy();
        let vacancy = vacancy.expect("a slot is free: the way was open, with none occupied");
        let tag = vacancy.fill(Plain { lent, epoch, at });
        (tag, Op::transfer(D::KIND, file, offset_bytes, memory))
    }
}

#[cfg(test)]
#[path = "lone_tests.rs"]
mod tests;
