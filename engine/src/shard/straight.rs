//! The straight way of an op: views that are one op in their own memory, with nothing else to
//! be thought of.
//!
//! Data flow: view → [`Core::start_whole`] → slot and ring; or the view again, untouched, for
//! the general way. That is what the instructions of an I/O are counted on (`scripts/
//! instructions`), so whatever a feature needs here is one of the conditions of
//! [`Core::is_clear`], and handled elsewhere.
//!
//! Not here: the general way (`file`, `issue`), completions (`reap`).

use mfio_core::{Read, View, Write};

use super::class::Class;
use super::core::Core;
use super::durable::How;
use super::file::File;
use super::issue::{Direction, WriteTerms};
use crate::buffer::MemRange;
use crate::plan::{self, Cut};
use crate::ring::Ring;

impl<R: Ring> File<R> {
    #[inline]
    pub(super) fn send_plain_write(&self, offset: u64, view: View<Write>) -> Option<View<Write>> {
        let mut core = self.shard().inner.core.borrow_mut();
        if self.class() != Class::Foreground {
            drop(core);
            return self.send_write(offset, How::PLAIN, view);
        }
        match core.start_whole(self.target(), offset, view) {
            Ok(()) => None,
            Err(view) => {
                drop(core);
                self.send_write(offset, How::PLAIN, view)
            }
        }
    }

    #[inline]
    pub(super) fn send_read(&self, offset: u64, view: View<Read>) -> Option<View<Read>> {
        let mut core = self.shard().inner.core.borrow_mut();
        if self.class() != Class::Foreground {
            drop(core);
            return self.send_read_otherwise(offset, view);
        }
        match core.start_whole(self.target(), offset, view) {
            Ok(()) => None,
            Err(view) => {
                drop(core);
                self.send_read_otherwise(offset, view)
            }
        }
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
        let mut terms = WriteTerms::default();
        if !D::IS_READ {
            terms.epoch = entry.barrier.write_started();
        }
        entry.users += 1;
        let file = entry.file;
        if self.reserved > 0 {
            self.reserved -= 1;
        }
        let cut =
            Cut { take_bytes: op_bytes, op_offset: offset, op_bytes, lead_bytes: 0, bounce: false };
        let _tag = self.start_on::<D>(target, file, cut, D::lent(lent), memory, terms, true);
        Ok(())
    }
}
