//! I/Os that must not be in flight together because they are of the same bytes.
//!
//! Data flow: the next I/O, and those in flight -> completions are reaped until none overlaps.
//!
//! Not here: which jobs want that (`Worker::serialized`, `Content::is_verifiable`).

use crate::ioengine::{Io, IoEngine, Operation};

use super::{Rules, Worker};

impl<E: IoEngine> Worker<'_, E> {
    /// Waits for its turn, and notes that it is in flight.
    pub(super) fn take_turn<const CLOCK: bool>(&mut self, slot: usize, rules: Rules) {
        self.wait_for_overlapping::<CLOCK>(slot, rules);
        self.active[slot] = true;
    }

    /// Two writes of one block in flight have no order; a block that is verified needs one.
    /// With `serialize_overlap`, neither have a read and a write, nor two reads.
    pub(super) fn wait_for_overlapping<const CLOCK: bool>(&mut self, slot: usize, rules: Rules) {
        let io = self.slots[slot].io;
        let end = io.offset_bytes + u64::from(io.len_bytes);
        let any = self.serialized;
        let overlaps = |other: &Io| {
            (any || other.operation == Operation::Write)
                && other.file == io.file
                && other.offset_bytes < end
                && io.offset_bytes < other.offset_bytes + u64::from(other.len_bytes)
        };
        while self.failure.is_none() {
            let mut others = self.slots.iter().zip(&self.active);
            if !others.any(|(other, active)| *active && overlaps(&other.io)) {
                return;
            }
            self.reap::<CLOCK>(1, rules);
        }
    }
}
