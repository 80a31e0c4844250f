//! The two ways into `io_uring_enter(2)`: with the bell looked after, and with nothing to look
//! after but the main queue.
//!
//! Data flow: how many completions to wait for → bell armed where it may have to end the wait →
//! [`KernelRing::enter_once`]; or straight into the call, where [`KernelRing::is_main_alone`] has
//! seen that everything else is nothing.
//!
//! Not here: the call itself (`kernel`), who may go straight, and for how long (`shard::turn`).

use io_uring::EnterFlags;
use nix::errno::Errno;

use super::setup::errno_of;
use super::{KernelRing, Wait};

impl KernelRing {
    /// One wait in the main ring, with the bell armed where it may sleep.
    #[inline]
    pub(super) fn enter_plain(&mut self, wait: Wait) -> Result<u32, Errno> {
        if wait.min == 0 || self.wake.is_armed() {
            return self.enter_once(wait);
        }
        let mut before = 0;
        if !self.arm_wake() {
            // The queue is full: submit first. When even that leaves no room, do not sleep
            // where nobody could wake the ring.
            before = self.enter_once(Wait::NONE)?;
            // What is left over may be the tail of a chain that was cut: a second submit here
            // would hide that from the shard (F15).
            if self.queued() > 0 || !self.arm_wake() {
                return Ok(before);
            }
        }
        match self.enter_once(wait) {
            Ok(taken) => Ok(before + taken),
            Err(_) if before > 0 => Ok(before),
            Err(errno) => Err(errno),
        }
    }

    /// Whether nothing is aside of the main queue, and a wake ends a wait in it.
    pub(super) fn is_main_alone(&self) -> bool {
        let aside = self.staged.is_some() || self.inline_done.is_some() || self.beside.is_some();
        let wakes = self.wake.is_armed() && !self.wake.is_watched();
        wakes && !aside && !self.sqpoll && self.internal_at.is_empty()
    }

    /// Submits what is queued and waits for `min` completions; some op is queued or in flight.
    #[inline(always)]
    pub(super) fn enter_main(&mut self, min: u32) -> Result<u32, Errno> {
        self.sq.sync();
        let queued = self.queued();
        self.stats.enters += 1;
        let result = self.enter_without_limit(queued, min, EnterFlags::GETEVENTS);
        self.sq.sync();
        match result {
            Ok(taken) => {
                #[allow(clippy::cast_possible_truncation, reason = "no more than were queued")]
                let ops = taken as u32;
                self.taken = self.taken.wrapping_add(ops);
                self.ops_taken = self.ops_taken.wrapping_add(ops);
                self.stats.submitted += u64::from(ops);
                Ok(ops)
            }
            Err(error) => Err(errno_of(&error)),
        }
    }
}
