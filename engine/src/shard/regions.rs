//! Memory besides the shard's own arena that its ring has registered.
//!
//! Data flow: [`Memory`] → [`Shard::register`] → a span of the ring's table → looked up by
//! region for each op that lies there. A handful of regions at most, so a list; the arena's own
//! ops never come here.
//!
//! Not here: pinning and cloning (`ring::kernel`), the arena (`core`).

use std::sync::Arc;

use mfio_core::RegionId;

use super::Shard;
use crate::buffer::{FixedSpan, HasRegion, MemRange, Memory};
use crate::error::EngineError;
use crate::ring::Ring;

#[derive(Debug)]
struct Known {
    /// The kernel has the pages pinned; the addresses must stay theirs as long.
    memory: Arc<dyn HasRegion>,
    span: FixedSpan,
}

/// The regions that a ring knows besides its arena.
#[derive(Debug, Default)]
pub(super) struct Regions(Vec<Known>);

impl Regions {
    fn find(&self, id: RegionId) -> Option<&Known> {
        self.0.iter().find(|known| known.memory.region().id() == id)
    }

    /// The memory of an op outside the arena; unregistered, where its region is unknown.
    #[cold]
    pub(super) fn memory_of(&self, ptr: *mut u8, op_bytes: u32, id: RegionId) -> MemRange {
        let memory = match self.find(id) {
            Some(known) => MemRange::of_span(ptr, op_bytes, known.memory.region(), known.span),
            None => MemRange::of_raw(ptr, op_bytes, None),
        };
        memory.expect("a cut is neither empty nor too long")
    }
}

impl<R: Ring> Shard<R> {
    /// The entry of the ring's table that an op on this memory names.
    #[cfg(test)]
    pub(crate) fn fixed_index(
        &self,
        ptr: *mut u8,
        op_bytes: u32,
        region: Option<RegionId>,
    ) -> Option<u16> {
        self.inner.core.borrow().memory_of(ptr, op_bytes, region).buf_index()
    }

    /// Registers memory of another shard's arena, or of the caller's, so that ops on it are
    /// `READ_FIXED` and `WRITE_FIXED`. Memory that [`share`](crate::ring::kernel::share) has
    /// pinned is cloned (Linux 6.12) rather than pinned again. Returns how many bytes from its
    /// start are covered; ops on the rest go unregistered, which works as well (F32). The
    /// reason for less than all is in [`Shard::features`].
    ///
    /// The shard's own arena is registered from the start, but of one of more than 8 MiB only the
    /// first 2 MiB: the rest follows in a turn soon after the first op, when its pages have been
    /// made by a thread, or at once by this and by opening a target that is polled or driven by
    /// commands. Where `RLIMIT_MEMLOCK` counts, all of it is
    /// registered from the start, so that a refusal is told then.
    ///
    /// Registering again changes nothing. The shard keeps the memory until it is unregistered
    /// or the shard goes.
    pub fn register<M: Memory + ?Sized>(&self, memory: &M) -> usize {
        let memory = memory.keep();
        let mut core = self.inner.core.borrow_mut();
        let region = memory.region();
        if region.id() == core.arena_id {
            core.register_rest();
            return region.registered_bytes();
        }
        if let Some(known) = core.regions.find(region.id()) {
            return known.span.registered_bytes;
        }
        let Some(span) = core.ring.add_region(region) else { return 0 };
        core.regions.0.push(Known { memory, span });
        span.registered_bytes
    }

    /// Undoes [`Shard::register`]. Later ops on the memory go unregistered. The arena of the
    /// shard itself, and what is not registered, stay as they are.
    ///
    /// # Errors
    /// [`EngineError::RegionInUse`]: ops on the memory are in flight, and nothing has changed
    /// (F08). Wait for them and try again.
    pub fn unregister<M: Memory + ?Sized>(&self, memory: &M) -> Result<(), EngineError> {
        let memory = memory.keep();
        let region = memory.region();
        let mut core = self.inner.core.borrow_mut();
        let of_it = |known: &Known| known.memory.region().id() == region.id();
        let Some(at) = core.regions.0.iter().position(of_it) else { return Ok(()) };
        let ops = core.slots.ops_on(region);
        let ops = ops + core.chains.steps_on(region) + core.queued_groups_on(region);
        if ops > 0 {
            return Err(EngineError::RegionInUse { ops });
        }
        let known = core.regions.0.swap_remove(at);
        core.ring.remove_region(known.span);
        Ok(())
    }
}
