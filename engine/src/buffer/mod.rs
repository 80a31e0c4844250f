//! Memory that the kernel may read and write: where it comes from and who owns it when.
//!
//! Data flow: [`ArenaConfig`] → [`Arena`] (one [`Region`], cut into ranges) → [`ArenaBuf`]
//! (owned by the user, then by a slot) → [`MemRange`] (what an op names) → back to the arena.
//!
//! Not here: who owns a buffer while an op is in flight (`shard`), when an unaligned packet is
//! bounced (`plan`).

mod arena;
mod cores;
mod memory;
mod pool;
mod populate;
mod quarantine;
mod vector;

pub use arena::{
    ArenaBuf, FixedBytes, FrameBuf, Frames, HugePages, MemRange, PIECE_BYTES, Pages, Region,
    TRANSFER_BYTES_MAX,
};
pub(crate) use arena::{Extent, Pieces};
pub use memory::{FixedSpan, Memory};
pub(crate) use memory::{HasRegion, Shared};
pub use mfio_core::RegionId;
pub use pool::{Arena, ArenaConfig, ArenaError, Released, SizeClass};
pub(crate) use populate::Populating;
pub use quarantine::quarantined;
pub(crate) use quarantine::{leave_to_parent, quarantine};
pub(crate) use vector::{IoVecs, PIECES_MAX};
