//! I/O as packets: split, batched, partly failing, awaited or blocked on, without a runtime.
//!
//! A [`Packet`] owns bytes that are to be filled from a target ([`Read`]) or written to it
//! ([`Write`]). Sent, it becomes a [`View`], which the target splits, forwards and completes; when
//! every byte has its result, it comes back as [`Completed`], and the buffer can be taken out,
//! whatever happened. What a packet is sent to is anything that implements [`PacketIo`]: the
//! in-memory target [`mem::Mem`] here, a shard's file in the engine crate, or your own.
//!
//! # Async
//!
//! A packet that has been sent is a future. So is a value that is to be read:
//!
//! ```
//! use mfio_core::{IoRead, IoWrite, block_on, mem::Mem};
//! async fn increment(counter: &Mem) -> Result<u32, mfio_core::Error> {
//!     let next = counter.read_value::<u32>(0).await? + 1;
//!     counter.write_value(0, next).await?;
//!     Ok(next)
//! }
//! let counter = Mem::from(vec![0; 4]);
//! assert_eq!(block_on(&counter, increment(&counter)).unwrap(), Ok(1));
//! ```
//!
//! # Automatic batching
//!
//! Sending only queues. The target is driven when somebody waits, once for all that is queued:
//!
//! ```
//! use mfio_core::{CompletionQueue, Packet, Write, block_on, mem::Mem};
//! let target = Mem::polled(vec![0; 8192], 16);
//! let mut queue = CompletionQueue::<Write, Vec<u8>>::new();
//! for block in 0..2 {
//!     queue.send(&target, block * 4096, Packet::new(vec![1; 4096]), block).unwrap();
//! }
//! for _ in 0..2 {
//!     let next = core::future::poll_fn(|cx| queue.poll_pop(cx));
//!     let (_block, done) = block_on(&target, next).unwrap().expect("two are under way");
//!     assert!(done.is_ok());
//! }
//! ```
//!
//! # Fragmentation
//!
//! A view can be cut, and its parts go different ways:
//!
//! ```
//! use mfio_core::{Packet, PacketIo, PacketIoExt, Read, Refused, View, block_on, mem::Mem};
//! /// Even bytes here, odd bytes there.
//! struct Interleaved(Mem, Mem);
//! impl PacketIo<Read, u64> for Interleaved {
//!     fn send_io(&self, mut at: u64, mut view: View<Read>) -> Result<(), Refused<Read>> {
//!         while !view.is_empty() {
//!             let (byte, rest) = view.split_at(1);
//!             let target = if at % 2 == 0 { &self.0 } else { &self.1 };
//!             target.send_io(at / 2, byte).unwrap();
//!             (at, view) = (at + 1, rest);
//!         }
//!         view.filled();
//!         Ok(())
//!     }
//! }
//! let both = Interleaved(Mem::from(b"fams".to_vec()), Mem::from(b"rget".to_vec()));
//! let packet = Packet::<Read, _>::new(vec![0; 6]);
//! assert_eq!(block_on(&both.0, both.io(0, packet)).unwrap().bytes(), b"fragme");
//! ```
//!
//! # Partial success
//!
//! Each byte range has its own result. Nothing is rounded up to success or down to failure:
//!
//! ```
//! use mfio_core::{ErrorKind, Packet, PacketIoExt, Write, block_on, mem::Mem};
//! let target = Mem::from(vec![0; 6]);
//! let done = block_on(&target, target.io(4, Packet::<Write, _>::new(vec![7; 8]))).unwrap();
//! assert_eq!(done.contiguous_bytes(), 2);
//! let failed = done.failed_ranges();
//! assert_eq!((failed[0].start, failed[0].error.kind()), (2, ErrorKind::OutOfRange));
//! ```
//!
//! # No colour
//!
//! The same targets serve code that does not know what a future is:
//!
//! ```
//! use mfio_core::{BlockingRead, BlockingWrite, mem::Mem};
//! let target = Mem::polled(vec![0; 16], 4);
//! target.blocking_write_exact(3, b"sync").unwrap();
//! assert_eq!(target.blocking_read_value::<[u8; 4]>(3), Ok(*b"sync"));
//! ```
//!
//! # Directly to the stack
//!
//! [`IoRead::read_value`] reads into the future itself, and [`BlockingRead`] into the caller's
//! slice: no buffer, and no allocation once warm. A future that is dropped takes its memory back
//! at once, whatever the target does later; nothing here is unsound when it is forgotten.
//!
//! ```
//! use mfio_core::{BlockingRead, mem::Mem};
//! let mut on_the_stack = [0; 5];
//! Mem::from(b"bytes".to_vec()).blocking_read_exact(0, &mut on_the_stack).unwrap();
//! assert_eq!(&on_the_stack, b"bytes");
//! ```
//!
//! # No standard library
//!
//! `no_std` with `alloc`. The feature `std` (default) adds parking threads and thread-local
//! recycling of headers. No file, device or operating system is known here.
//!
//! # Where is what
//!
//! | module | turns what into what |
//! |---|---|
//! | [`packet`] | a buffer into views, and their results back into a buffer |
//! | [`io`] | a packet sent into a packet completed |
//! | [`traits`] | offsets and buffers (or plain values) into packets |
//! | [`sync`] | a caller's own slice into a packet, while the caller waits |
//! | [`backend`] | a pending future into progress |
//! | [`layer`] | targets into a target of another shape |
//! | [`stream`] | offsets and packets into positions and the standard stream traits |
//! | [`mem`] | the in-memory target, the reference for all others |
//! | [`wakers`] | several who wait into several who were told, whichever of them panics |
#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod backend;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(doctest)]
mod defects;
mod error;
pub mod io;
pub mod layer;
pub mod mem;
pub mod packet;
pub mod stream;
pub mod sync;
pub mod traits;
pub mod wakers;

pub use backend::{
    BackendBusy, BackendHandle, Drive, IoBackend, Nested, PollingHandle, block_on, block_on_with,
    with_backend,
};
pub use error::{Error, ErrorKind, FailedRange};
pub use io::{IoFut, PacketIo, PacketIoExt, Refused};
pub use packet::{
    Absorbed, AlignedBuf, Buffer, Completed, CompletionBatch, CompletionQueue, Fragment, Fragments,
    Generated, Gone, Inline, Lent, Output, Packet, PacketId, Perms, Read, ReadWrite, RegionId,
    Relay, Sent, Sink, Source, Spare, StableBytes, StableBytesMut, Unsent, View, Write, output_fn,
};
pub use sync::{BlockingError, BlockingRead, BlockingWrite};
pub use traits::{IoRead, IoWrite};
