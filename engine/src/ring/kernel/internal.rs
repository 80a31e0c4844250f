//! The ring's own entries: its poll for wakes and its cancels, kept out of all counts of ops.
//!
//! Data flow: own SQE pushed, its place in the queue noted → taken by the kernel → subtracted
//! from what was taken; own CQE → sorted out of what is reaped.
//!
//! Not here: the eventfd behind the poll (`wake`), ops (`kernel`).

use super::wake::WAKE;
use super::{Completion, KernelRing, Sqe, Tag};
use crate::ring::{Ring, SOCKET_SLOTS_FROM};

impl KernelRing {
    #[cold]
    pub(super) fn push_internal(&mut self, sqe: &Sqe) {
        self.push_sqe(sqe);
        self.internal_at.push_back(self.taken.wrapping_add(self.unpublished()));
    }

    /// Puts the poll of the wake-up into the queue; false when there is no room for it.
    #[cold]
    pub(super) fn arm_wake(&mut self) -> bool {
        if !self.reserve(1) {
            return false;
        }
        let (fd, multishot) = self.wake.arm();
        self.push_internal(&Sqe::poll(fd, multishot, WAKE));
        true
    }

    /// Of the SQEs taken so far, how many were internal and have not been accounted for yet.
    #[inline]
    pub(super) fn internal_taken(&mut self) -> u32 {
        let mut count = 0;
        while let Some(&at) = self.internal_at.front() {
            // `at` is at most a queue ahead of `taken`: compared modulo 2^32.
            if self.taken.wrapping_sub(at) >= 1 << 31 {
                break;
            }
            self.internal_at.pop_front();
            count += 1;
        }
        count
    }

    /// Takes the ring's own completions out of `all[first..]`, and those that are not the last
    /// of their op out of the count; counts those of sockets.
    #[cold]
    pub(super) fn sort_out(&mut self, all: &mut Vec<Completion>, first: usize) {
        let mut at = first;
        while let Some(&Completion { tag, result, more }) = all.get(at) {
            if tag.slot != Tag::INTERNAL.slot {
                // About to be counted as finished, which it is not.
                self.ops_reaped = self.ops_reaped.wrapping_sub(u32::from(more));
                let on_socket = tag.slot >= SOCKET_SLOTS_FROM && !more;
                self.ops_on_sockets -= u32::from(on_socket);
                at += 1;
                continue;
            }
            all.remove(at);
            // The answer to a cancel says nothing that its target's CQE does not say (F03).
            if tag == WAKE {
                self.stats.wakes += 1;
                self.wake.seen(result, more);
            }
        }
    }
}
