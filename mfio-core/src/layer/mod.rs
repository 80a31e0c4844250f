//! Programmable I/O: targets made of other targets.
//!
//! Data flow: view → a layer, which splits, delays or fails it → views of the targets below.
//! A layer takes packets in both directions at `u64` byte offsets and is a target itself, so
//! layers stack; the packet never learns how many targets it met.
//!
//! Over targets that take exchanges ([`ReadWrite`](crate::ReadWrite)) it takes them too: each
//! byte of the packet is exchanged with the byte that its offset leads to, and what has no
//! place fails as [`ErrorKind::OutOfRange`](crate::ErrorKind::OutOfRange), like a write. The
//! pieces of one exchange are exchanged one by one, in no particular order: two that lead to
//! the same bytes see each other's or the target's, and none of the bytes is lost.
//!
//! | module | what it makes of its targets |
//! |---|---|
//! | [`map`] | a non-linear address space (virtual over physical) |
//! | [`stripe`] | one target whose neighbouring units lie on different targets (RAID-0) |
//! | [`mod@concat`] | one target after another |
//! | [`window`] | a part of a target |
//! | [`throttle`] | a target of a limited rate |
//! | [`fault`] | a target that fails where it is told to |
//!
//! A translation of your own is a [`Route`](spread::Route): a pure function from a range to
//! the first piece of it. [`Spread`](spread::Spread) does the rest.
//!
//! # Room
//! A target below is asked for room ([`PacketIo::reserve`]) before a view is split, one piece
//! at a time, so nothing that was split is ever refused. A view that has several pieces is
//! taken as a whole; what its targets have no room for waits in the layer and goes down as
//! they get room. Until then the layer refuses further views. Handing such a view back instead
//! could go on for ever: a target with room for one view is ready, and never has room for two.
//!
//! # Driving
//! What waits in a layer moves when the layer is driven, so pass the layer to
//! [`block_on`](crate::block_on), not a target below it. Driving a layer drives its targets;
//! what several of them share is driven once.
//!
//! Not here: redundancy, caches, anything that keeps bytes.

use crate::backend::IoBackend;
use crate::io::PacketIo;
use crate::packet::{Read, Write};

pub mod concat;
mod driving;
pub mod fault;
pub mod map;
mod queue;
pub mod spread;
pub mod stripe;
pub mod throttle;
pub mod window;

/// What a layer can stand on: both directions at byte offsets, and a way to drive it.
pub trait Target: PacketIo<Read, u64> + PacketIo<Write, u64> + IoBackend {}

impl<T: PacketIo<Read, u64> + PacketIo<Write, u64> + IoBackend + ?Sized> Target for T {}
