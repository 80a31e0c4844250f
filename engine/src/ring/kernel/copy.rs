//! Takes completions out of the queue that is shared with the kernel.
//!
//! Data flow: CQEs → whoever settles them on the spot, or [`Completion`]s in the room that the
//! caller has for them.
//!
//! Not here: those that are the ring's own (`internal`).
#![allow(unsafe_code, reason = "reads the queue that is shared with the kernel")]

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
        let before = into.len();
        if self.inline_done.is_some() {
            into.extend(self.inline_done.take());
        }
        let first = into.len();
        // All that are here, which is looked at once: they need not be counted one by one.
        let mut settled = u32::try_from(cq.len()).expect("a queue has at most 65536 entries");
        let mut unusual = false;
        for cqe in cq {
            let tag = Tag::from_user_data(cqe.user_data());
            let completion =
                Completion { tag, result: cqe.result(), more: cqueue::more(cqe.flags()) };
            if settle(completion) {
                continue;
            }
            settled -= 1;
            // Slots of files are far below 2^31.
            unusual |= tag.slot >= 1 << 31 || completion.more;
            into.push(completion);
        }
        if unusual {
            self.sort_out(into, first);
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most the size of a queue")]
        let kept = (into.len() - before) as u32;
        self.ops_reaped = self.ops_reaped.wrapping_add(settled + kept);
        settled
    }
}
