//! The arena behind its first bytes, which is registered when its pages are there.
//!
//! Data flow: a large arena → its first huge page, registered at once → the first turn with an op →
//! a thread that makes the other pages, on another core if there is one near the same memory, so
//! that the first read waits for none of them → until that is done, ops on the rest go
//! unregistered, as on any memory (F32) → the next turn registers all of it in the place of the
//! first → every op is fixed. What is in flight on the first keeps that until it is over: so the
//! kernel sees to it, and whatever an op names is the same before and after (F08).
//!
//! A target that has a ring of its own is opened behind all of it, so that it is cloned there and
//! not pinned once more. An arena that might not be registered whole (`RLIMIT_MEMLOCK`) is
//! registered at once, so that it is told while the shard is set up.
//!
//! Not here: pages (`buffer::populate`), the table of the ring (`ring::kernel`).

use mfio_core::RegionId;

use super::core::Core;
use crate::buffer::{Arena, Pages, Populating};
use crate::ring::Ring;

/// An arena of up to this many bytes is registered whole at once.
const AT_ONCE_BYTES: usize = 8 << 20;

/// What is registered at once of a larger one: a huge page, which buffers come from first.
const FIRST_BYTES: usize = 2 << 20;

/// What is not registered of an arena.
#[derive(Debug)]
pub(super) enum Rest {
    /// It has no pages, unless somebody has used them.
    Bare,
    /// Its pages are being made, or have been.
    Populating(Populating),
}

/// Registers `arena`, or the first of it. Then there is a rest.
pub(super) fn register<R: Ring>(ring: &mut R, arena: &Arena) -> Option<Rest> {
    let region = arena.region();
    // Those have been populated when they were mapped, or shared.
    let has_pages = region.pages() == Pages::Huge || region.shared().is_some();
    let large = region.len_bytes() > AT_ONCE_BYTES && !has_pages;
    if large && ring.register_first(region, FIRST_BYTES) {
        return Some(Rest::Bare);
    }
    ring.register_buffers(region);
    None
}

/// What names memory all of which is a fixed buffer: the arena, if it is that, or nothing.
pub(super) fn fixed_id(arena: &Arena) -> RegionId {
    let region = arena.region();
    if region.registered_bytes() == region.len_bytes() { arena.id() } else { RegionId::unique() }
}

impl<R: Ring> Core<R> {
    /// Registers the rest of the arena if its pages are there, or has them made.
    #[cold]
    pub(super) fn look_at_rest(&mut self) {
        match &self.rest {
            Some(Rest::Bare) if self.metrics.ops > 0 => {
                match Populating::start(&self.arena, FIRST_BYTES) {
                    Some(populating) => self.rest = Some(Rest::Populating(populating)),
                    None => self.register_rest(),
                }
            }
            Some(Rest::Populating(populating)) if populating.is_over() => self.register_rest(),
            _ => {}
        }
    }

    /// Registers the rest of the arena, if it has one, and waits for its pages where it must.
    #[cold]
    pub(super) fn register_rest(&mut self) {
        if self.rest.take().is_some() {
            self.ring.register_rest(self.arena.region());
            self.arena_pieces = self.arena.region().pieces();
            self.fixed_id = fixed_id(&self.arena);
        }
    }
}

#[cfg(test)]
#[path = "rest_tests.rs"]
mod tests;
