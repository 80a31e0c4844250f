//! Writes SQEs into the queue that is shared with the kernel.
//!
//! Data flow: [`Sqe`] or its 64 bytes → the next free entry, which `enter` publishes.
//!
//! Not here: what they say (`sqe`, `fixed`), who made sure that there is room (`Ring::reserve`).
#![allow(unsafe_code, reason = "writes to the queue that is shared with the kernel")]

use io_uring::squeue::Entry;

use super::KernelRing;
use super::sqe::Sqe;

impl KernelRing {
    /// SQEs pushed and not taken by the kernel.
    #[inline]
    pub(super) fn queued(&self) -> u32 {
        u32::try_from(self.sq.len()).expect("a queue has at most 32768 entries")
    }

    pub(super) fn push_sqe(&mut self, sqe: &Sqe) {
        self.push_entry(&sqe.entry());
    }

    #[inline(always)]
    pub(super) fn push_entry(&mut self, entry: &Entry) {
        // SAFETY: lifetime: the memory that `entry` names belongs to the slot of its tag until
        // the target CQE (F01); internal SQEs name none. Aliasing: `&mut self`, and `sq` is
        // the only queue, so the entry is not read by the kernel before `enter` publishes it.
        // Bounds: `push` checks that there is room.
        let pushed = unsafe { self.sq.push(entry) };
        assert!(pushed.is_ok(), "room in the queue was reserved before the push");
    }
}
