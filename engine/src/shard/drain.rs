//! How the state of a shard ends.
//!
//! Data flow: dropped → everything in flight is asked to stop → turns, until it has completed or
//! time is up → whoever waits is told; what is still with the kernel is quarantined. A forked
//! child does none of that.
//!
//! Not here: shutting down while somebody waits for it (`super`), one packet alone (`abandon`).

use std::mem;

use mfio_core::CompletionBatch;

use super::Delivery;
use super::core::Core;
use super::enter::Stop;
use crate::buffer::leave_to_parent;
use crate::ring::{Ring, Wait};

impl<R: Ring> Drop for Core<R> {
    /// Drains: every op in flight is cancelled and reaped. What does not come back in time
    /// keeps its memory: dropping the ring would prove nothing (F02).
    fn drop(&mut self) {
        if !self.process.is_current() {
            return self.leave_to_parent();
        }
        self.close_lone();
        self.close();
        let deadline_ns = self.ring.now_ns().saturating_add(self.drain_ns);
        // Also what only waits to be tried again: its end is to be told, and no op is in flight.
        let in_ring =
            |core: &Self| core.slots.occupied() + core.sockets.in_flight + core.names.in_flight > 0;
        while in_ring(self) && self.ring.now_ns() < deadline_ns {
            let wait = Wait { min: 1, deadline_ns: Some(deadline_ns) };
            // Nothing is delivered before the slots are dealt with: a waker may panic.
            if matches!(self.turn_about(wait), Err(Stop::Ring(_))) {
                break;
            }
        }
        let Self { slots, targets, ring, .. } = self;
        slots.tell_targets(|_| true, |target| targets.retain(target));
        targets.leave_ring(ring);
        // What is still in its slot now is quarantined with the table.
        Delivery::of(&mut self.done, &mut self.endings).run();
    }
}

impl<R: Ring> Core<R> {
    /// For a forked child that drops a shard: neither ring, ops, waiters nor the other threads'
    /// queues are its own, so nothing is cancelled, waited for or told (F26): a packet that ends
    /// here would wake, and what is woken may wait for a lock that another thread of the parent
    /// had at the fork. What is in a slot keeps its memory as in every shard.
    #[cold]
    fn leave_to_parent(&mut self) {
        let told = mem::replace(&mut self.told, CompletionBatch::new());
        let news = (mem::take(&mut self.done), mem::take(&mut self.endings), told);
        let queued = (mem::take(&mut self.backlog), mem::take(&mut self.waiting));
        let classes = self.classes.take_queued();
        let staged = (mem::take(&mut self.lone), mem::take(&mut self.chains));
        let flushes = (mem::take(&mut self.tickets), self.targets.take_requests());
        let packets = self.sockets.take_entries();
        leave_to_parent((news, queued, classes, staged, flushes, packets));
    }
}
