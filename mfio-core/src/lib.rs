//! I/O as packets: split, batched, partly failing, awaited or blocked on, without a runtime.
//!
//! ```
//! use mfio_core::{CompletionQueue, IoRead, Packet, Write, block_on, mem::Mem};
//!
//! let target = Mem::polled(vec![0; 8192], 16);
//!
//! // Many packets are queued before the target is driven once.
//! let mut queue = CompletionQueue::<Write, Vec<u8>>::new();
//! for block in 0..3 {
//!     let packet = Packet::new(vec![block as u8 + 1; 4096]);
//!     queue.send(&target, block * 4096, packet, block).unwrap();
//! }
//! for _ in 0..3 {
//!     let next = core::future::poll_fn(|cx| queue.poll_pop(cx));
//!     let (block, done) = block_on(&target, next).unwrap().unwrap();
//!     // The third block lies beyond the end: it fails alone.
//!     assert_eq!(done.is_ok(), block < 2);
//! }
//!
//! // The same target, one value, straight into the caller's own frame.
//! assert_eq!(block_on(&target, target.read_value::<u32>(4096)).unwrap(), Ok(0x0202_0202));
//! ```
//!
//! | module | turns what into what |
//! |---|---|
//! | [`packet`] | a buffer into views, and their results back into a buffer |
//! | [`io`] | a packet sent into a packet completed |
//! | [`traits`] | offsets and buffers (or plain values) into packets |
//! | [`sync`] | a caller's own slice into a packet, while the caller waits |
//! | [`backend`] | a pending future into progress |
//! | [`mem`] | the in-memory target, the reference for all others |
//!
//! `no_std` with `alloc`; the feature `std` (default) adds parking threads and thread-local
//! recycling. No file, device or operating system is known here.
#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod backend;
mod error;
pub mod io;
pub mod mem;
pub mod packet;
pub mod sync;
pub mod traits;

pub use backend::{BackendBusy, BackendHandle, Drive, IoBackend, PollingHandle, block_on};
pub use error::{Error, ErrorKind, FailedRange};
pub use io::{IoFut, PacketIo, PacketIoExt, Refused};
pub use packet::{
    Absorbed, AlignedBuf, Buffer, Completed, CompletionBatch, CompletionQueue, Fragment, Fragments,
    Generated, Gone, Inline, Lent, Output, Packet, PacketId, Perms, Read, ReadWrite, RegionId,
    Relay, Sink, Source, StableBytes, StableBytesMut, Unsent, View, Write, output_fn,
};
pub use sync::{BlockingError, BlockingRead, BlockingWrite};
pub use traits::{IoRead, IoWrite};
