//! Copies completions out of the queue that is shared with the kernel.
//!
//! Data flow: CQEs → [`copy_out`] → [`Completion`]s in the room that the caller has for them.
//!
//! Not here: those that are the ring's own (`internal`).

use core::mem::MaybeUninit;

use io_uring::{CompletionQueue, cqueue};

use crate::ring::{Completion, Tag};

/// Moves what `cq` holds into `room`, which is at least as long. Returns whether any of it may
/// be something else than the one completion of an op of the shard.
///
/// A function of its own, without calls: so the loop stays in registers.
#[inline]
pub(super) fn copy_out(cq: &mut CompletionQueue<'_>, room: &mut [MaybeUninit<Completion>]) -> bool {
    // Joined rather than compared one by one: slots of files are far below 2^31.
    let (mut slots, mut flags) = (0, 0);
    for (to, cqe) in room.iter_mut().zip(cq) {
        let tag = Tag::from_user_data(cqe.user_data());
        slots |= tag.slot;
        flags |= cqe.flags();
        let more = cqueue::more(cqe.flags());
        to.write(Completion { tag, result: cqe.result(), more });
    }
    slots >= 1 << 31 || cqueue::more(flags)
}
