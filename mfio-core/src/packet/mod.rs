//! Packets: bytes to be filled or written, one result per byte range.
//!
//! A [`Packet`] owns its buffer. Sent, it becomes a [`View`] that the backend splits, forwards
//! and completes; when every byte has its result it comes back as [`Completed`], and the
//! buffer can be taken out, whatever happened.
//!
//! Not here: sending (`io`), backends (`backend`, `mem`).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::task::Waker;

use crate::error::{Error, FailedRange};

mod completions;
mod complex;
mod output;
mod perms;
mod pool;
pub(crate) mod raw;
mod relay;
mod sent;
mod spare;
mod view;

pub use completions::{CompletionQueue, Unsent};
pub use complex::{Absorbed, Generated, Inline, Sink, Source};
pub use output::{Fragment, Fragments, Output, output_fn};
pub use perms::{Buffer, Perms, Read, ReadWrite, Write};
pub use raw::{AlignedBuf, RegionId, StableBytes, StableBytesMut};
pub use relay::Relay;
pub use sent::Sent;
pub use spare::Spare;
pub use view::{CompletionBatch, Gone, Lent, PacketId, View};

use raw::Handle;

/// Ties a type-erased handle to the owner of its bytes.
type OwnerOf<P, B> = PhantomData<(P, fn(B) -> B)>;

/// Bytes of direction `P` in a buffer of type `B`, not under way.
///
/// Making one from a buffer allocates nothing in a warm program: headers are recycled.
///
/// ```
/// use mfio_core::{Packet, Read};
/// let packet = Packet::<Read, _>::new(vec![0; 4096]);
/// assert_eq!(packet.into_buffer().len(), 4096);
/// ```
pub struct Packet<P: Perms, B: Buffer<P>> {
    handle: Handle,
    owner: OwnerOf<P, B>,
}

impl<P: Perms, B: Buffer<P>> Packet<P, B> {
    /// A packet over all bytes of `buffer`.
    #[must_use]
    pub fn new(buffer: B) -> Self {
        Self::over(Handle::new(), buffer)
    }

    /// A packet of a `handle` that stores nothing.
    #[inline(always)]
    fn over(mut handle: Handle, buffer: B) -> Self {
        perms::store::<P, B>(&mut handle, buffer);
        Self::from_handle(handle)
    }

    #[inline]
    pub(crate) fn from_handle(handle: Handle) -> Self {
        Self { handle, owner: PhantomData }
    }

    pub(crate) fn handle_mut(&mut self) -> &mut Handle {
        &mut self.handle
    }

    #[inline]
    pub(crate) fn into_handle(self) -> Handle {
        self.handle
    }

    #[inline(always)]
    pub(crate) fn arm(&mut self) -> View<P> {
        View::new(perms::hold_of::<P, B>(&mut self.handle))
    }

    /// As [`Packet::arm_for`], for a packet whose bytes are those of the last time; `None`, and
    /// nothing has changed, where they are not known to be.
    #[inline(always)]
    pub(crate) fn arm_again(&mut self, waker: &Waker) -> Option<View<P>> {
        self.handle.arm_again(waker).map(View::new)
    }

    /// As [`Packet::arm`], for whoever is to be told by `waker`.
    #[inline(always)]
    pub(crate) fn arm_for(&mut self, waker: &Waker) -> View<P> {
        let view = self.arm();
        self.handle.arm_waker(view.hold(), waker);
        view
    }

    /// The buffer.
    #[must_use]
    pub fn buffer(&self) -> &B
    where
        B: Sync,
    {
        self.handle.stored()
    }

    /// The buffer, to prepare what will be written or to resize it.
    #[must_use]
    #[inline]
    pub fn buffer_mut(&mut self) -> &mut B {
        self.handle.stored_mut()
    }

    /// Who hears of every range of this packet that ends, from the next time it is sent until
    /// it is set to something else.
    pub fn set_output(&mut self, output: Option<Arc<dyn Output>>) {
        self.handle.set_output(output);
    }

    /// A number of the caller's own that backends and outputs see. A completion queue sets it
    /// to the tag that the packet is sent with.
    pub fn set_tag(&mut self, tag: u64) {
        self.handle.set_tag(tag);
    }

    /// Takes the buffer out.
    #[must_use]
    pub fn into_buffer(self) -> B {
        self.handle.take()
    }
}

impl<P: Perms, B: Buffer<P>> fmt::Debug for Packet<P, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packet<{}>", P::NAME)
    }
}

/// A packet every byte of which has its result: transferred, or failed with a reason.
#[derive(Debug)]
#[must_use = "a completed packet may have failed, in part or as a whole"]
pub struct Completed<P: Perms, B: Buffer<P>> {
    packet: Packet<P, B>,
}

impl<P: Perms, B: Buffer<P>> Completed<P, B> {
    pub(crate) fn new(packet: Packet<P, B>) -> Self {
        Self { packet }
    }

    /// Whether every byte was transferred.
    #[must_use]
    #[inline]
    pub fn is_ok(&self) -> bool {
        self.packet.handle.succeeded()
    }

    /// How many bytes, from the start of the packet, were transferred without a gap.
    #[must_use]
    pub fn contiguous_bytes(&self) -> u64 {
        if self.is_ok() {
            return self.packet.handle.payload_len();
        }
        // A failed empty view is an error, but it leaves no gap.
        let gap = |range: &&FailedRange| range.start < range.end;
        let first = self.packet.handle.failed(|failed| failed.iter().find(gap).copied());
        first.map_or(self.packet.handle.payload_len(), |range| range.start)
    }

    /// The ranges that failed, sorted by their start; empty if all is well.
    #[must_use]
    pub fn failed_ranges(&self) -> Vec<FailedRange> {
        self.packet.handle.failed(|failed| failed.clone())
    }

    /// The error of the first range that failed.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        if self.is_ok() {
            return None;
        }
        self.packet.handle.failed(|failed| failed.first().map(|range| range.error))
    }

    /// All or nothing: the error of the first failed range if there is one.
    ///
    /// # Errors
    /// That error; the other ranges may have been transferred nevertheless.
    pub fn result(&self) -> Result<(), Error> {
        self.error().map_or(Ok(()), Err)
    }

    /// The packet, to be sent again. Its result is forgotten.
    #[must_use]
    #[inline]
    pub fn into_packet(self) -> Packet<P, B> {
        self.packet
    }

    /// The buffer. Bytes of failed ranges hold whatever was there before or arrived.
    #[must_use]
    pub fn into_buffer(self) -> B {
        self.packet.into_buffer()
    }

    /// The packet's buffer, in place. Bytes of failed ranges as in `into_buffer`.
    #[must_use]
    #[inline]
    pub fn buffer_mut(&mut self) -> &mut B {
        self.packet.buffer_mut()
    }
}

impl<B: Buffer<Read> + AsRef<[u8]> + Sync> Completed<Read, B> {
    /// The bytes read, up to the first gap: nothing stale is ever shown.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let buffer = self.packet.buffer().as_ref();
        let len = usize::try_from(self.contiguous_bytes()).unwrap_or(usize::MAX);
        &buffer[..len.min(buffer.len())]
    }
}
