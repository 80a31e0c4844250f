//! What a request to cancel does to its op, and what it is answered.
//!
//! Data flow: cancel request → its op not begun, running, finished or gone → an answer, which
//! proves nothing (F03) → the op's own completion, at a time and with a result of its own.
//!
//! An op that runs may not be found at all (a direct transfer that the device has is in no list
//! of the kernel's: `ENOENT`), may be found and go on (`EALREADY`), or may end as cancelled, of
//! which its bytes tell nothing: none, some or all of them have moved or are still to move (F17).
//!
//! Not here: what ops do that nobody cancels (`steps`).

use nix::errno::Errno;

use super::flight::{Phase, negated};
use super::kernel::Kernel;
use crate::ring::{Completion, Tag};

impl Kernel {
    /// Carries out a cancel request. It is answered before anything else happens.
    pub(super) fn cancel(&mut self, tag: Tag) {
        self.note(7, tag.to_user_data());
        let found = self.flights.iter().position(|flight| flight.tag == tag);
        let answer = match found.map(|at| (at, self.flights[at].phase)) {
            None | Some((_, Phase::Done)) => {
                self.stats.cancels_after += 1;
                negated(Errno::ENOENT)
            }
            Some((at, Phase::Linked | Phase::Queued)) => {
                self.stats.cancels_before += 1;
                self.flights[at].finish(Errno::ECANCELED, self.now_ns);
                self.release_followers(at);
                0
            }
            Some((at, Phase::Running | Phase::Copied)) => {
                self.stats.cancels_during += 1;
                self.flights[at].cancel_answered = true;
                self.cancel_running(at)
            }
        };
        self.post(Completion { tag: Tag::INTERNAL, result: answer, more: false }, false);
    }

    /// Ends a running op as cancelled, or comes too late to; returns the answer.
    fn cancel_running(&mut self, at: usize) -> i32 {
        match self.random.pick(&[0, 1, 2, 3]) {
            0 => {
                self.stats.cancels_missed += 1;
                negated(Errno::ENOENT)
            }
            1 => negated(Errno::EALREADY),
            _ => {
                self.interrupt(at);
                self.random.pick(&[0, negated(Errno::EALREADY)])
            }
        }
    }

    /// Makes a running op complete as cancelled, soon or when it would have been over anyway.
    fn interrupt(&mut self, at: usize) {
        let Self { flights, random, now_ns, stats, .. } = self;
        let flight = &mut flights[at];
        let errno = random.pick(&[Errno::ECANCELED, Errno::ECANCELED, Errno::EINTR]);
        flight.result = negated(errno);
        // What a torn copy has moved is through already.
        let least = if flight.phase == Phase::Copied { flight.pause_bytes } else { 0 };
        let most = flight.moved_bytes;
        flight.moved_bytes = match random.below(3) {
            0 => least,
            1 if !flight.atomic => random.between(least, most),
            _ => most,
        };
        flight.pause_bytes = flight.pause_bytes.min(flight.moved_bytes);
        if flight.memory.is_some() && flight.moved_bytes == flight.len_bytes() {
            stats.cancelled_whole += 1;
        }
        if random.one_in(2) {
            let soon_ns = *now_ns + u64::from(random.below(1024));
            flight.done_at_ns = flight.done_at_ns.min(soon_ns);
            flight.next_at_ns = flight.next_at_ns.min(flight.done_at_ns);
        }
    }
}
