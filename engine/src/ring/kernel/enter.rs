//! The two ways into `io_uring_enter(2)`: with the bell looked after, and with nothing to look
//! after but the main queue.
//!
//! Data flow: how many completions to wait for → bell armed, where it may have to end this wait or
//! a straight one → [`KernelRing::enter_once`]; or straight into the call, where
//! [`KernelRing::is_main_alone`] has seen that everything else is nothing.
//!
//! Not here: the call itself (`gate`), who may go straight, and for how long (`shard::turn`).

#![allow(unsafe_code, reason = "has the kernel take what is queued")]

use std::hint::cold_path;

use io_uring::EnterFlags;
use io_uring::types::Timespec;
use nix::errno::Errno;

use super::{KernelRing, Ring, Wait};

impl KernelRing {
    /// One wait in the main ring, with the bell armed where this one or the next may sleep.
    #[inline]
    pub(super) fn enter_plain(&mut self, wait: Wait) -> Result<u32, Errno> {
        if self.wake.is_armed() {
            return self.enter_once(wait);
        }
        if wait.min == 0 {
            // It need not end this wait. But whoever never waits would never go straight.
            let straight = !self.sqpoll && self.beside.is_none() && !self.wake.is_watched();
            let _armed = straight && self.queued() > 0 && self.arm_wake();
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

    /// One `io_uring_enter(2)`. Returns how many ops, not counting internal SQEs, it took.
    #[inline]
    pub(super) fn enter_once(&mut self, wait: Wait) -> Result<u32, Errno> {
        if self.sqpoll {
            return self.enter_sqpoll(wait);
        }
        self.sq.sync();
        let queued = self.queued();
        // GETEVENTS also without waiting: with DEFER_TASKRUN nothing else lets completions
        // appear (F27), and it is what flushes an overflown completion queue (F20).
        let mut flags = EnterFlags::GETEVENTS;
        if queued == 0 && self.ops_taken.wrapping_sub(self.ops_reaped) == self.ops_on_sockets {
            // Asleep with no I/O on files under way: not to be shown as waiting for a disk.
            flags |= self.no_iowait;
        }
        self.stats.enters += 1;
        let result = self.enter_or_limit(queued, wait, flags);
        // The head, which the kernel has moved, is the truth about what it took (F22).
        self.sq.sync();
        match result {
            Ok(taken) => {
                self.taken = self.taken.wrapping_add(taken);
                let ops = taken - self.internal_taken();
                self.ops_taken = self.ops_taken.wrapping_add(ops);
                self.stats.submitted += u64::from(ops);
                Ok(ops)
            }
            Err(Errno::ETIME) => Ok(0),
            Err(errno) => Err(errno),
        }
    }

    /// Submits what is queued and waits for `min` completions, where [`KernelRing::is_main_alone`]
    /// and some op is queued or in flight. The bell may have gone meanwhile: kernels end its poll.
    #[inline(always)]
    pub(super) fn enter_alone(&mut self, min: u32) -> Result<u32, Errno> {
        if !self.wake.is_armed() || !self.internal_at.is_empty() {
            cold_path();
            return self.enter_plain(Wait::at_least(min));
        }
        self.sq.sync();
        let queued = self.queued();
        self.stats.enters += 1;
        let result = self.enter_without_limit(queued, min, EnterFlags::GETEVENTS);
        self.sq.sync();
        let Ok(ops) = result else {
            cold_path();
            return result;
        };
        self.taken = self.taken.wrapping_add(ops);
        self.ops_taken = self.ops_taken.wrapping_add(ops);
        self.stats.submitted += u64::from(ops);
        Ok(ops)
    }

    /// The call, with a limit where the wait has one.
    pub(super) fn enter_or_limit(
        &self,
        queued: u32,
        wait: Wait,
        flags: EnterFlags,
    ) -> Result<u32, Errno> {
        match wait.deadline_ns.filter(|_| wait.min > 0) {
            None => self.enter_without_limit(queued, wait.min, flags),
            Some(deadline_ns) => self.enter_until(queued, wait.min, flags, deadline_ns),
        }
    }

    #[inline(always)]
    fn enter_without_limit(&self, queued: u32, min: u32, flags: EnterFlags) -> Result<u32, Errno> {
        // SAFETY: the memory of the queued ops belongs to their slots (F01); the entries were
        // written before `sync` published the tail, and `queued` is what was pushed and not taken.
        unsafe { self.gate.enter(queued, min, flags) }
    }

    #[cold]
    fn enter_until(
        &self,
        queued: u32,
        min: u32,
        flags: EnterFlags,
        deadline_ns: u64,
    ) -> Result<u32, Errno> {
        let left_ns = deadline_ns.saturating_sub(self.now_ns());
        let ns = u32::try_from(left_ns % 1_000_000_000).expect("a remainder of 10^9 fits");
        let limit = Timespec::new().sec(left_ns / 1_000_000_000).nsec(ns);
        // SAFETY: as in `enter_without_limit`.
        unsafe { self.gate.enter_for(queued, min, flags, &limit) }
    }
}
