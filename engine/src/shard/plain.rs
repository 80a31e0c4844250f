//! The op that nearly every view becomes, in as few words as it can be told: one cache line of
//! its slot.
//!
//! Data flow: view → [`Plain`] in a slot → whole at once, and gone; or looked at by anybody for
//! any other reason, and a [`Transfer`] from then on.
//!
//! Not here: which views are plain (`straight`, `issue`), when it is looked at (`slot`).

use mfio_core::{Lent, Perms, Read, Write};

use super::barrier::Epoch;
use super::body::Body;
use super::class::Class;
use super::slot::{Linked, Transfer};
use crate::buffer::{Extent, MemRange};

/// A foreground view that is one op in its own memory, and is done when it is whole: neither
/// bounced nor durable, neither counted nor timed. Its target, which the slot names, does not
/// know of it while the handle is open: see `Core::close_target`.
#[derive(Debug)]
pub(super) struct Plain<P: Perms> {
    /// All of its memory, whose address it knows.
    pub(super) lent: Lent<P>,
    /// Of a write.
    pub(super) epoch: Epoch,
    pub(super) at: At,
}

/// Where a plain op transfers to or from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct At {
    pub(super) target: u32,
    pub(super) extent: Extent,
    pub(super) offset_bytes: u64,
}

impl At {
    /// Whether `result`, of its completion, says that every byte is through.
    #[inline(always)]
    pub(super) const fn is_whole(&self, result: i32) -> bool {
        // No length has the sign bit, and every errno has.
        result.cast_unsigned() == self.extent.len_bytes
    }

    /// The memory, which is all that is lent.
    pub(super) fn memory<P: Perms>(&self, lent: &Lent<P>) -> MemRange {
        let (address, _len) = lent.address_and_len();
        MemRange::at(address, self.extent)
    }

    /// A read in the words that there are for everything.
    #[cold]
    pub(super) fn read(self, lent: Lent<Read>) -> Transfer {
        let memory = self.memory(&lent);
        self.transfer(Body::ReadInto(lent), memory, Epoch::default())
    }

    /// A write, accepted in `epoch`, in the same.
    #[cold]
    pub(super) fn write(self, lent: Lent<Write>, epoch: Epoch) -> Transfer {
        let memory = self.memory(&lent);
        self.transfer(Body::WriteFrom(lent), memory, epoch)
    }

    fn transfer(self, body: Body, memory: MemRange, epoch: Epoch) -> Transfer {
        Transfer {
            is_read: matches!(body, Body::ReadInto(_)),
            body: Some(body),
            memory,
            offset_bytes: self.offset_bytes,
            epoch,
            target: self.target,
            take_bytes: memory.len_bytes(),
            lead_bytes: 0,
            resumed_at: 0,
            reached: 0,
            linked: Linked::No,
            bounced: false,
            whole: false,
            cancel_requested: false,
            cancel_sent: false,
            force_async: false,
            retries: 0,
            stalls: 0,
            all_metadata: false,
            atomic: false,
            class: Class::Foreground,
            counted: false,
            grouped: false,
            keeps_target: false,
        }
    }
}

/// A plain op that was whole and has left its slot.
#[derive(Debug)]
pub(super) enum Whole {
    Read(Lent<Read>),
    /// To the target, accepted in that epoch.
    Write(Lent<Write>, u32, Epoch),
}
