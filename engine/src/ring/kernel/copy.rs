//! Takes completions out of the queue that is shared with the kernel.
//!
//! Data flow: CQEs → whoever settles them on the spot, or [`Completion`]s in the room that the
//! caller has for them.
//!
//! Not here: those that are the ring's own (`internal`).
#![allow(unsafe_code, reason = "reads the queue that is shared with the kernel")]

use std::hint::cold_path;

use io_uring::cqueue;

use super::KernelRing;
use crate::ring::{Completion, Tag};

impl KernelRing {
    /// As [`Ring::reap_rest`](crate::ring::Ring::reap_rest), for the main queue.
    #[inline(always)]
    pub(super) fn reap_main(
        &mut self,
        into: &mut Vec<Completion>,
        mut settle: impl FnMut(Completion) -> bool,
    ) -> u32 {
        // SAFETY: lifetime: it is dropped in this function. Aliasing: no other completion
        // queue of this ring exists while it lives.
        let cq = unsafe { self.ring.get().completion_shared() };
        if self.inline_done.is_some() {
            cold_path();
            into.extend(self.inline_done.take());
            self.ops_reaped = self.ops_reaped.wrapping_add(1);
        }
        // Counted by what is left over, which is hardly ever anything: nothing in the loop.
        let (all, first, mut unusual) = (cq.len(), into.len(), false);
        if all == 0 {
            cold_path();
            return 0;
        }
        for cqe in cq {
            let tag = Tag::from_user_data(cqe.user_data());
            let completion =
                Completion { tag, result: cqe.result(), more: cqueue::more(cqe.flags()) };
            if settle(completion) {
                continue;
            }
            cold_path();
            // Slots of files are far below 2^31.
            unusual |= tag.slot >= 1 << 31 || completion.more;
            into.push(completion);
        }
        let settled = all - (into.len() - first);
        if unusual {
            self.sort_out(into, first);
        }
        let kept = into.len() - first;
        #[allow(clippy::cast_possible_truncation, reason = "at most the size of a queue")]
        let (settled, kept) = (settled as u32, kept as u32);
        self.ops_reaped = self.ops_reaped.wrapping_add(settled + kept);
        settled
    }
}
