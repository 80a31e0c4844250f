//! What a ring can register: an arena of any shard, or memory that a caller brought.
//!
//! Data flow: [`Arena`](super::Arena) or [`Frames`] → [`Memory`] → a region that somebody keeps
//! alive for as long as a ring knows it.
//!
//! Not here: registering (`ring::kernel`), which region an op lies in (`shard::regions`).

use core::fmt;
use std::any::Any;
use std::sync::Arc;

use super::arena::{Cut, Frames, Region};

/// Memory that can be registered with rings.
pub trait Memory: Sealed {}

/// Keeps a region where it is.
pub trait HasRegion: fmt::Debug + Send + Sync {
    /// The region.
    fn region(&self) -> &Region;
}

/// Only the memory of this crate is memory.
pub trait Sealed {
    /// What keeps it alive.
    fn keep(&self) -> Arc<dyn HasRegion>;
}

impl HasRegion for Cut {
    fn region(&self) -> &Region {
        Self::region(self)
    }
}

impl Sealed for Frames {
    fn keep(&self) -> Arc<dyn HasRegion> {
        Arc::clone(self.shared()) as Arc<dyn HasRegion>
    }
}

impl Memory for Frames {}

/// Where a region lies in the table of one ring: fixed buffers `first_index..`, one for each
/// piece of 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedSpan {
    /// The fixed buffer of the first piece.
    pub first_index: u16,
    /// How many bytes from the start of the region are registered.
    pub registered_bytes: usize,
}

/// A registration that other rings can clone.
pub(crate) struct Shared {
    /// The descriptor of the ring that has registered the region as its buffers `0..`.
    pub(crate) ring_fd: i32,
    pub(crate) registered_bytes: usize,
    /// Keeps the ring open.
    pub(crate) _ring: Box<dyn Any + Send + Sync>,
}
