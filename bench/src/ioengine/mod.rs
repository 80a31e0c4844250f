//! The seam between the workload and whatever executes it: one static trait, four engines.
//!
//! Slot-addressed I/Os go in, results come out. The worker's loop is compiled once per engine,
//! so an I/O crosses this seam without a virtual call, and every engine is driven by exactly
//! the same generator: what a comparison shows is the engine.
//!
//! Not here: what to do next (`generator`), when, and how it is measured (`run`).

use std::fs::File;
use std::io;
use std::path::PathBuf;

mod buffers;
mod io_uring;
mod null;
mod parked;
mod psync;
mod raw_uring;

pub(crate) use buffers::{Locked, SlotBuffers};
pub(crate) use io_uring::{PacketEngine, kernel_ring_refusal};
pub(crate) use null::Null;
pub(crate) use psync::Psync;
#[cfg(test)]
pub(crate) use raw_uring::write_hint;
pub(crate) use raw_uring::{RawUring, discard, set_write_hint, sync_file_range};

/// What one I/O does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    // The three that are directions come first, in the order that statistics have them in.
    /// Fills the slot's buffer from the file.
    Read,
    /// Writes the slot's buffer to the file.
    Write,
    /// Gives the range back to the file system or the device. Executed by the worker.
    Trim,
    /// `sync_file_range(2)`. Executed by the worker.
    SyncRange,
    /// `syncfs(2)`. Executed by the worker.
    SyncFs,
    /// `fsync(2)`.
    Fsync,
    /// `fdatasync(2)`.
    Fdatasync,
}

impl Operation {
    /// Whether no engine executes it, and the worker does.
    #[inline]
    pub(crate) const fn is_beside(self) -> bool {
        matches!(self, Self::Trim | Self::SyncRange | Self::SyncFs)
    }

    /// Whether the operation makes earlier writes durable instead of moving data.
    #[inline]
    pub(crate) const fn is_sync(self) -> bool {
        matches!(self, Self::Fsync | Self::Fdatasync | Self::SyncRange | Self::SyncFs)
    }
}

/// One I/O, addressed by the slot whose buffer it uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Io {
    /// Names the I/O until its event; also names its buffer.
    pub(crate) slot: u32,
    /// Index into [`Setup::files`].
    pub(crate) file: u32,
    /// What to do.
    pub(crate) operation: Operation,
    /// Where in the file.
    pub(crate) offset_bytes: u64,
    /// How much; 0 for flushes.
    pub(crate) len_bytes: u32,
    /// How much of the slot's buffer an earlier, short transfer has already dealt with.
    pub(crate) skip_bytes: u32,
}

/// What became of one I/O.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// The slot it was queued with.
    pub(crate) slot: u32,
    /// Bytes moved, or a negated errno.
    pub(crate) result: i32,
}

/// What [`IoEngine::queue`] did with an I/O.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Queued {
    /// It waits for [`IoEngine::commit`]; an event will follow.
    Pending,
    /// It was executed on the spot with this result; no event will follow.
    Done(i32),
}

/// Everything an engine needs to know before the first I/O.
pub(crate) struct Setup<'a> {
    /// The open files, already in the mode the job asks for.
    pub(crate) files: &'a [File],
    /// Where they came from, for engines that open for themselves and for messages.
    pub(crate) paths: &'a [PathBuf],
    /// The most I/Os in flight, and the number of slots.
    pub(crate) depth: u32,
    /// Bytes per slot.
    pub(crate) buffer_bytes: u32,
    /// Whether every I/O is exactly `buffer_bytes` long.
    pub(crate) uniform: bool,
    /// Whether any I/O will write.
    pub(crate) writes: bool,
    /// Whether the files bypass the page cache.
    pub(crate) direct: bool,
    /// Whether every write is durable when it completes, and how.
    pub(crate) sync: fio_compat::SyncIo,
    /// Register the buffers with the ring.
    pub(crate) fixed_buffers: bool,
    /// Register the files with the ring.
    pub(crate) fixed_files: bool,
    /// Poll for completions.
    pub(crate) polled: bool,
    /// Let a thread of the kernel submit.
    pub(crate) sq_thread: bool,
    /// Where buffers come from, and how they are aligned.
    pub(crate) memory: fio_compat::Memory,
    /// Devices may be written although they are mounted.
    pub(crate) even_mounted: bool,
    /// The engine as the job names it.
    pub(crate) engine: &'a str,
    /// Flags of transfers.
    pub(crate) options: fio_compat::EngineOptions,
    /// Whether offsets are random, where the kernel is to be told.
    pub(crate) random: Option<bool>,
    /// There are no files: each I/O is a no-op.
    pub(crate) nowhere: bool,
}

/// What an engine says about itself once it runs, for the report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traits {
    /// The names of what is in use: `DEFER_TASKRUN`, `fixed buffers`, ….
    pub(crate) in_use: Vec<String>,
    /// What was wanted and refused, each a sentence that says why and how to change it.
    pub(crate) degraded: Vec<String>,
}

/// Executes I/Os. Belongs to the thread that opened it.
pub(crate) trait IoEngine: Sized {
    /// Makes the engine ready on the calling thread.
    ///
    /// # Errors
    /// What the system refused; the text names the remedy where there is one.
    fn open(setup: &Setup<'_>) -> io::Result<Self>;

    /// What is in use and what is missing.
    fn traits(&self) -> Traits;

    /// True when [`IoEngine::queue`] executes on the spot, so that no submission latency exists.
    fn synchronous(&self) -> bool;

    /// The memory of `slot`, which has no I/O in flight.
    fn buffer(&mut self, slot: u32) -> &mut [u8];

    /// Accepts one I/O. At most `depth` are accepted and not yet reaped.
    fn queue(&mut self, io: Io) -> Queued;

    /// Starts everything queued.
    ///
    /// # Errors
    /// The engine is broken; nothing more can be expected of it.
    fn commit(&mut self) -> io::Result<()>;

    /// Starts what is still queued, waits for `min` completions, appends at most `max` events.
    ///
    /// # Errors
    /// The engine is broken; nothing more can be expected of it. An interrupted wait is not
    /// an error: it returns what there is.
    fn reap(&mut self, min: u32, max: u32, events: &mut Vec<Event>) -> io::Result<()>;
}
