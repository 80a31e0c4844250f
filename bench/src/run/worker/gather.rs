//! Starts the reads of plain jobs, a batch at a time.
//!
//! Data flow: `Steps::quick` -> slots and engine, as long as nothing else is to be done -> the
//! batch is submitted.
//!
//! Not here: all other I/Os, and what comes between batches (`worker`).

use crate::generator::Steps;
use crate::ioengine::{Io, IoEngine, Operation, Queued};

use super::complete::count_of;
use super::{Rules, Worker};

impl<E: IoEngine> Worker<'_, E> {
    /// Starts reads until the batch is whole, or slots or quick steps run out; true if any. Short,
    /// so that what it works with stays in registers. Orders are looked for between batches.
    #[inline(never)]
    pub(super) fn gather<const CLOCK: bool, S: Steps>(
        &mut self,
        steps: &mut S,
        rules: Rules,
    ) -> bool {
        let room = u64::from(self.pacing.batch.saturating_sub(self.uncommitted_count));
        let room = room.min(steps.quick_count().0);
        let kept = self.free.len().saturating_sub(usize::try_from(room).unwrap_or(usize::MAX));
        let Self { engine, slots, free, batches, .. } = self;
        let (slots, batch) = (&mut slots[..], batches.gathering());
        let (mut rest, mut over) = (&free[kept..], None);
        while let Some((&slot, before)) = rest.split_last() {
            rest = before;
            let (offset_bytes, len_bytes) = steps.quick();
            let operation = Operation::Read;
            let io = Io { slot, file: 0, operation, offset_bytes, len_bytes, skip_bytes: 0 };
            let state = &mut slots[slot as usize];
            state.io = io;
            if CLOCK {
                let now = crate::clock::now_ns();
                (state.start_ns, state.call_ns, state.batch) = (now, now, batch);
            }
            if let Queued::Done(result) = engine.queue(io) {
                over = Some((slot, result));
                break;
            }
        }
        let left = kept + rest.len();
        let started = count_of(free.len() - left);
        free.truncate(left);
        self.uncommitted_count += started - u32::from(over.is_some());
        if let Some((slot, result)) = over {
            self.done::<CLOCK>(slot, result, rules);
        } else {
            self.commit_if_whole::<CLOCK>();
        }
        started > 0
    }
}
