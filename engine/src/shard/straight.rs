//! The straight way of an op: views that are one op in their own memory, with nothing else to
//! be thought of.
//!
//! Data flow: view → [`Core::start_whole`], which looks at everything → slot and ring, and a
//! credit for those that follow → view → [`Core::start_straight`], which looks at the view and its
//! target alone; or the view again, untouched, for the general way. That is what the instructions
//! of an I/O are counted on (`scripts/budget`), so whatever a feature needs here is one of the
//! conditions of [`Core::is_clear`], and handled elsewhere.
//!
//! Not here: the general way (`file`, `issue`), completions (`reap`).

use mfio_core::{Lent, Read, Refused, View, Write};

use super::barrier::Epoch;
use super::class::Class;
use super::core::Core;
use super::direction::Direction;
use super::durable::How;
use super::file::File;
use super::issue::WriteTerms;
use super::plain::{At, Plain};
use crate::buffer::MemRange;
use crate::plan::{self, Cut, Fit};
use crate::ring::{FileRef, Head, OpKind, Ring};

/// What the straight way has to know of a target, which is the same for as long as it is open:
/// at hand in the handle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    target: u32,
    file: FileRef,
    /// What is to be pushed with the heads: nothing where there are none.
    fit: Fit,
    read: Head,
    write: Head,
}

impl Course {
    /// Of nothing that goes straight.
    pub(crate) const NONE: Self = {
        let head = Head::NONE;
        Self { target: 0, file: FileRef::Plain(-1), fit: Fit::NONE, read: head, write: head }
    };

    #[inline(always)]
    const fn head<D: Direction>(&self) -> Head {
        if D::IS_READ { self.read } else { self.write }
    }
}

impl<R: Ring> File<R> {
    #[inline(always)]
    pub(super) fn send_plain_write(
        &self,
        offset: u64,
        view: View<Write>,
    ) -> Result<(), Refused<Write>> {
        match self.send_straight(offset, view) {
            Ok(()) => Ok(()),
            Err(view) => self.send_write_first(offset, view),
        }
    }

    #[inline(always)]
    pub(super) fn send_read(&self, offset: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        match self.send_straight(offset, view) {
            Ok(()) => Ok(()),
            Err(view) => self.send_read_first(offset, view),
        }
    }

    /// Starts all of `view` as one op on credit; where there is none, or it takes more, nothing
    /// has changed.
    #[inline(always)]
    fn send_straight<D: Direction>(&self, offset: u64, view: View<D>) -> Result<(), View<D>> {
        if self.class() != Class::Foreground {
            return Err(view);
        }
        let Some(mut core) = self.shard().inner.core.try_straight() else { return Err(view) };
        if core.credit == 0 {
            return Err(view);
        }
        core.start_straight(self.course(), offset, view)
    }

    #[inline(never)]
    fn send_write_first(&self, offset: u64, view: View<Write>) -> Result<(), Refused<Write>> {
        let Err(view) = self.send_first(offset, view) else { return Ok(()) };
        let refused = self.send_write(offset, How::PLAIN, view);
        refused.map_or(Ok(()), |view| Err(Refused { param: offset, view }))
    }

    #[inline(never)]
    fn send_read_first(&self, offset: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        let Err(view) = self.send_first(offset, view) else { return Ok(()) };
        let refused = self.send_read_otherwise(offset, view);
        refused.map_or(Ok(()), |view| Err(Refused { param: offset, view }))
    }

    /// As [`File::send_straight`], by looking at everything. What it has seen is a credit for
    /// those that follow.
    #[inline]
    fn send_first<D: Direction>(&self, offset: u64, view: View<D>) -> Result<(), View<D>> {
        if self.class() != Class::Foreground {
            return Err(view);
        }
        let cell = &self.shard().inner.core;
        let mut core = cell.straight();
        let sent = if core.lone.is_open() {
            core.stage_lone(self.target(), offset, view)
        } else {
            core.start_unfit(self.target(), offset, view)
        };
        let Err(view) = sent else { return Ok(()) };
        drop(core);
        let mut core = cell.borrow_mut();
        core.start_whole(self.target(), offset, view)?;
        core.grant();
        Ok(())
    }
}

impl<R: Ring> Core<R> {
    /// Whether a foreground view meets nothing out of the ordinary: nothing is queued before it,
    /// so that there is room, and nothing is refused, counted or timed.
    #[inline]
    pub(super) fn is_clear(&self) -> bool {
        let queued = self.backlog.len() | self.targets.waiting_for_flush();
        let unusual = self.refuses | self.classes.is_watching() | self.slots.is_stamped();
        queued == 0 && !unusual
    }

    /// Counts how many views may start with nothing looked at but themselves. Not where the next
    /// op may be a lone one, which may go another way.
    #[inline]
    pub(super) fn grant(&mut self) {
        let usual = !self.may_be_lone() && self.reserved == 0 && self.is_clear();
        let free = self.slots.free_count();
        self.credit = if usual { self.ring.room().min(free) } else { 0 };
        self.undisturbed = usual && self.is_undisturbed();
    }

    /// What is the same for all views of the target.
    fn course(&self, target: u32) -> Course {
        let entry = self.targets.get(target);
        let heads = self.ring.head(OpKind::Read, entry.file);
        let heads = heads.zip(self.ring.head(OpKind::Write, entry.file));
        let fit = if heads.is_some() { Fit::of(entry.demands) } else { Fit::NONE };
        let (read, write) = heads.unwrap_or_default();
        Course { target, file: entry.file, fit, read, write }
    }

    /// Finds out what is the same for all views of the target, which has just been made.
    pub(super) fn set_course(&mut self, target: u32) -> Course {
        let course = self.course(target);
        self.targets.get_mut(target).course = course;
        course
    }

    /// As [`Core::start_whole`], on credit.
    #[inline(always)]
    pub(super) fn start_straight<D: Direction>(
        &mut self,
        course: &Course,
        offset: u64,
        view: View<D>,
    ) -> Result<(), View<D>> {
        let Some((address, len)) = view.in_region(self.fixed_id) else { return Err(view) };
        let Some(op_bytes) = course.fit.whole(offset, len, address.addr().get()) else {
            return Err(view);
        };
        if !D::IS_READ && self.targets.get(course.target).poison.is_set() {
            return Err(view);
        }
        let Some(vacancy) = self.slots.vacancy() else { return Err(view) };
        let lent = view.try_alloc(1)?;
        let mut epoch = Epoch::default();
        if !D::IS_READ {
            epoch = self.targets.get_mut(course.target).barrier.write_started();
        }
        let bytes = self.arena_pieces.fixed(address, op_bytes);
        self.credit -= 1;
        let at = At { target: course.target, extent: bytes.extent(), offset_bytes: offset };
        let tag = vacancy.fill(Plain { lent, epoch, at });
        self.ring.push_fixed(course.head::<D>(), (D::KIND, course.file), offset, bytes, tag);
        self.in_flight += 1;
        self.metrics.ops += 1;
        Ok(())
    }

    /// As [`Core::start_straight`], with the demands of the target one by one: of memory that is
    /// less aligned than offsets are, or not registered, or of ops that have no head. Asked by
    /// whoever got a view back, so that it comes back from there as it went.
    #[inline(never)]
    pub(super) fn start_unfit<D: Direction>(
        &mut self,
        target: u32,
        offset: u64,
        view: View<D>,
    ) -> Result<(), View<D>> {
        if self.credit == 0 || self.slots.free() == 0 {
            return Err(view);
        }
        let Some((address, len)) = view.in_region(self.arena_id) else { return Err(view) };
        let entry = self.targets.get_mut(target);
        let Some(op_bytes) = plan::whole_cut(offset, len, address.addr().get(), entry.demands)
        else {
            return Err(view);
        };
        let memory = MemRange::of_arena(address, op_bytes, self.arena_pieces);
        let Some(memory) = memory else { return Err(view) };
        let mut epoch = Epoch::default();
        if !D::IS_READ && entry.poison.is_set() {
            return Err(view);
        }
        let lent = view.try_alloc(1)?;
        if !D::IS_READ {
            epoch = entry.barrier.write_started();
        }
        self.credit -= 1;
        self.push_plain::<D>(target, lent, offset, memory, epoch);
        Ok(())
    }

    /// Starts the op. Its target need not be told of its user: see [`Core::close_target`].
    #[inline]
    pub(super) fn push_plain<D: Direction>(
        &mut self,
        target: u32,
        lent: Lent<D>,
        offset_bytes: u64,
        memory: MemRange,
        epoch: Epoch,
    ) {
        let at = At { target, extent: memory.extent(), offset_bytes };
        let vacancy = self.slots.vacancy();
        let vacancy = vacancy.expect("a slot is free: checked before the op was made");
        let tag = vacancy.fill(Plain { lent, epoch, at });
        let file = self.targets.get(target).file;
        self.ring.push_transfer(D::KIND, file, offset_bytes, memory, tag);
        self.in_flight += 1;
        self.metrics.ops += 1;
    }

    /// Whether an op that starts now can be one that nobody counts: not where the handle of its
    /// target has gone, which such an op would not keep open.
    pub(super) fn can_be_plain(&self, target: u32) -> bool {
        !self.may_be_lone() && !self.targets.get(target).is_closing()
    }

    /// Whether an op that starts now may go another way than the ring.
    #[inline]
    pub(super) fn may_be_lone(&self) -> bool {
        self.in_flight <= 1 && self.lone_ways
    }

    /// What an op that is not started straight carries besides its bytes, to begin with.
    pub(super) fn terms(&self) -> WriteTerms {
        WriteTerms { stamped: self.slots.is_stamped(), ..WriteTerms::default() }
    }

    /// Starts all of a foreground view as one op in its own memory, which is what becomes of
    /// nearly every view: nothing of the other cases is paid for. Where this is not such a
    /// case, the view comes back untouched, to be sent by `advance` or to wait.
    #[inline(always)]
    pub(super) fn start_whole<D: Direction>(
        &mut self,
        target: u32,
        offset: u64,
        view: View<D>,
    ) -> Result<(), View<D>> {
        if !self.is_clear() || self.slots.free() == 0 || !self.ring.reserve(1) {
            return Err(view);
        }
        let Some((address, len)) = view.address_and_len() else { return Err(view) };
        let own = match view.region() {
            Some(id) if id == self.arena_id => Some(self.arena.region()),
            Some(_) => return Err(view),
            None => None,
        };
        let entry = self.targets.get_mut(target);
        let Some(op_bytes) = plan::whole_cut(offset, len, address.addr(), entry.demands) else {
            return Err(view);
        };
        let Some(memory) = MemRange::of_raw(address, op_bytes, own) else { return Err(view) };
        if !D::IS_READ && entry.poison.is_set() {
            return Err(view);
        }
        let lent = view.try_alloc(1)?;
        let mut epoch = Epoch::default();
        if !D::IS_READ {
            epoch = entry.barrier.write_started();
        }
        let file = entry.file;
        if self.reserved > 0 {
            self.reserved -= 1;
        }
        if !self.may_be_lone() {
            self.push_plain::<D>(target, lent, offset, memory, epoch);
            return Ok(());
        }
        self.targets.retain(target);
        let terms = WriteTerms { epoch, ..WriteTerms::default() };
        let cut =
            Cut { take_bytes: op_bytes, op_offset: offset, op_bytes, lead_bytes: 0, bounce: false };
        let _tag = self.start_on::<D>(target, file, cut, D::lent(lent), memory, terms, true);
        Ok(())
    }
}
