//! The engine that does nothing: what is left is the cost of the harness.
//!
//! Every I/O succeeds in full. At depth 1 it completes on the spot, above that through the
//! queue, so that both paths of the worker can be measured and tested without a device.
//!
//! Not here: any I/O.

use std::collections::VecDeque;
use std::io;

use super::{Event, Io, IoEngine, Operation, Queued, Setup, SlotBuffers, Traits};

/// Completes everything, transfers nothing.
pub(crate) struct Null {
    buffers: SlotBuffers,
    inline: bool,
    queued: VecDeque<Event>,
}

fn whole(io: Io) -> i32 {
    match io.operation {
        Operation::Read | Operation::Write | Operation::Trim => {
            i32::try_from(io.len_bytes).unwrap_or(i32::MAX)
        }
        Operation::Fsync | Operation::Fdatasync | Operation::SyncRange | Operation::SyncFs => 0,
    }
}

impl IoEngine for Null {
    fn open(setup: &Setup<'_>) -> io::Result<Self> {
        Ok(Self {
            buffers: SlotBuffers::new(setup.depth, setup.buffer_bytes, &setup.memory)?,
            inline: setup.depth == 1,
            queued: VecDeque::with_capacity(setup.depth as usize),
        })
    }

    fn traits(&self) -> Traits {
        Traits { in_use: vec!["no I/O".into()], degraded: Vec::new() }
    }

    fn synchronous(&self) -> bool {
        self.inline
    }

    #[inline]
    fn buffer(&mut self, slot: u32) -> &mut [u8] {
        self.buffers.slot(slot)
    }

    #[inline]
    fn queue(&mut self, io: Io) -> Queued {
        if self.inline {
            return Queued::Done(whole(io));
        }
        self.queued.push_back(Event { slot: io.slot, result: whole(io) });
        Queued::Pending
    }

    #[inline]
    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    #[inline]
    fn reap(&mut self, _min: u32, max: u32, events: &mut Vec<Event>) -> io::Result<()> {
        let count = self.queued.len().min(max as usize);
        events.extend(self.queued.drain(..count));
        Ok(())
    }
}
