//! One turn of a shard: issue, enter, reap, complete.
//!
//! Data flow: what a turn may have to look after is looked at as it ends ([`Core::grant`]). Where
//! that is nothing, and nothing has happened since but views starting on credit, the next turn is
//! straight: enter, reap, and credit for the next views. Whatever else a completion brings makes
//! it a turn like any other from there on. Most of what a lone op costs is its turn.
//!
//! What is rare stands apart (`cold_path`), so that there are few jumps after the system call: on
//! processors that forget in the kernel where jumps go, each of them is waited for.
//!
//! Not here: the parts (`issue`, `enter`, `reap`), who calls it (`super`, `run`).

use std::hint::cold_path;

use mfio_core::{Buffer, CompletionBatch, CompletionQueue, Perms};
use nix::errno::Errno;

use super::Shard;
use super::core::{Core, Ending};
use super::enter::Stop;
use crate::error::EngineError;
use crate::ring::{Knob, Plant, Ring, Wait};

impl<R: Ring> Shard<R> {
    /// One turn: submit what is queued, wait as told, deliver what has completed. Returns the
    /// number of completions reaped. One system call, or none where nothing is in flight.
    ///
    /// # Errors
    /// [`EngineError::Busy`]: the kernel lacks resources, try again; [`EngineError::Ring`]:
    /// the ring broke, and ops in flight will not come back.
    #[inline]
    pub fn turn(&self, wait: Wait) -> Result<u32, EngineError> {
        self.turn_taking(wait, |_told| {})
    }

    /// As [`Shard::turn`], for a loop that goes on with the packets of `queue`: what completes of
    /// them is there without an atomic operation, as it would be a moment later.
    ///
    /// # Errors
    /// As [`Shard::turn`].
    #[inline(always)]
    pub fn turn_into<P: Perms, B: Buffer<P>>(
        &self,
        wait: Wait,
        queue: &mut CompletionQueue<P, B>,
    ) -> Result<u32, EngineError> {
        self.turn_taking(wait, |told| queue.take_from(told))
    }

    #[inline(always)]
    fn turn_taking(
        &self,
        wait: Wait,
        take: impl FnOnce(&mut CompletionBatch),
    ) -> Result<u32, EngineError> {
        let mut core = self.inner.core.straight();
        if !core.undisturbed && core.lone.is_taken() {
            // Inlined all the same, but what it keeps is not to take the others' registers.
            cold_path();
            return Ok(self.inner.turn_lone(core, wait, take)?);
        }
        let turned = core.turn(wait, take);
        let news = core.has_news();
        drop(core);
        if news {
            cold_path();
            self.inner.deliver();
        }
        turned.map_err(|stop| {
            cold_path();
            stop.into()
        })
    }
}

impl<R: Ring> Core<R> {
    /// One turn: hand the ring what it can take, wait as told, judge what has completed. `take`
    /// may take what has completed for a queue, which is told else.
    #[inline(always)]
    pub(super) fn turn(
        &mut self,
        wait: Wait,
        take: impl FnOnce(&mut CompletionBatch),
    ) -> Result<u32, Stop> {
        if self.undisturbed && self.in_flight > 0 && wait.deadline_ns.is_none() {
            return self.turn_straight(wait.min, take);
        }
        cold_path();
        self.turn_about(wait)
    }

    /// A turn with nothing to look after but the queue.
    #[inline(always)]
    fn turn_straight(
        &mut self,
        min: u32,
        take: impl FnOnce(&mut CompletionBatch),
    ) -> Result<u32, Stop> {
        self.metrics.queues(self.in_flight);
        let entered = self.enter_straight(min.min(self.in_flight));
        let reaped = self.reap_plain();
        take(&mut self.told);
        if !self.told.is_empty() {
            cold_path();
            self.tell();
        }
        // Where nothing has come, completions may have been lost, which the long way looks at.
        if entered.is_ok() && reaped > 0 && self.completions.is_empty() && !self.has_news() {
            self.credit = self.ring.room().min(self.slots.free_count());
            return Ok(reaped);
        }
        cold_path();
        self.end_turn(entered, reaped)
    }

    /// A turn that looks after everything.
    #[inline(never)]
    pub(super) fn turn_about(&mut self, wait: Wait) -> Result<u32, Stop> {
        (self.credit, self.undisturbed) = (0, false);
        if self.cancels_owed {
            self.send_cancels();
        }
        self.metrics.backlog_max = self.metrics.backlog_max.max(self.backlog.len() as u64);
        self.issue();
        // What is over already is told at once, not when something else completes.
        let at_once = self.has_news() || (self.sockets.in_flight > 0 && self.is_starved());
        let wait = if at_once { Wait::NONE } else { wait };
        self.metrics.queues(self.in_flight);
        let entered = self.enter(wait);
        // Also after an error: what has completed has completed.
        let reaped = self.reap_plain();
        self.tell();
        self.end_turn(entered, reaped)
    }

    /// What follows when plain ops have ended, `reaped` of them.
    #[inline(never)]
    pub(super) fn end_turn(
        &mut self,
        entered: Result<(), Stop>,
        mut reaped: u32,
    ) -> Result<u32, Stop> {
        (self.credit, self.undisturbed) = (0, false);
        if self.slots.is_stamped() || !self.completions.is_empty() {
            reaped += self.complete_rest();
        }
        if self.ring.dropped_completions() != 0 {
            // NODROP makes this impossible; if it happens, results are lost for good (F20).
            self.break_down(Errno::EOVERFLOW);
        }
        if self.ring.plant(Plant::RetireOnCancel) {
            self.retire_cancelled();
        }
        if self.timed.is_some() {
            self.take_time();
        }
        // Room has appeared: fill it before the caller's next enter.
        if self.ring.knob(Knob::LateRefill, 0) == 0 {
            self.issue();
        }
        if !self.timers.is_empty() {
            self.fire_timers();
        }
        self.wake_waiting();
        if self.rest.is_some() {
            self.look_at_rest();
        }
        if self.published.is_wanted() {
            self.metrics.inline_ops = self.ring.inline_ops();
            self.published.publish(&self.metrics);
        }
        self.grant();
        if self.lone_ways {
            self.open_lone();
        }
        entered.map(|()| reaped)
    }

    /// Tells the queue that packets of this turn go to.
    #[inline(always)]
    pub(super) fn tell(&mut self) {
        if let Some(waker) = self.told.tell() {
            self.endings.push(Ending::Wake(waker));
        }
    }

    /// Whether a turn has nothing to look after but the queue, as far as [`Core::is_clear`] and
    /// credit do not say that already. What changes any of it borrows the state for that.
    pub(super) fn is_undisturbed(&self) -> bool {
        self.is_quiet() && !self.lone_ways && !self.has_news() && self.ring.is_straight()
    }

    /// Of that, what does not concern the ring: nothing waits, or is waited for.
    pub(super) fn is_quiet(&self) -> bool {
        let queued = self.classes.queued | self.retries.len() | self.waiting.len();
        let beside = self.cancels_owed | self.timed.is_some();
        let awaited = self.classes.somebody_waits() | self.published.is_wanted();
        queued == 0
            && !(beside | awaited)
            && self.timers.is_empty()
            && self.sockets.in_flight == 0
            && self.rest.is_none()
    }
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
