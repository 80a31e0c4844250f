//! Views: the parts of a packet that travel through backends.
//!
//! A view is split, forwarded, filled and completed; whatever happens, every byte of it gets
//! exactly one result. Data flow: packet → [`View`] → (split) → [`Lent`] or a copy → result.
//!
//! Not here: waiting for the packet (`io`), reading results (`packet`).

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::task::Waker;

use super::perms::{Perms, Read, ReadWrite, Write};
use super::raw::{Batch, Hold, RegionId};
use crate::error::{Error, FailedRange};

/// Tells one packet in flight from all others, for as long as it is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(pub(crate) usize);

/// A range of a packet's bytes that its holder must complete.
///
/// Views of one packet never overlap and always tile it. Dropping a view without completing
/// it fails its range as [`ErrorKind::Aborted`](crate::ErrorKind::Aborted): nothing that was
/// forgotten counts as success.
pub struct View<P: Perms> {
    hold: Hold,
    perms: PhantomData<P>,
}

impl<P: Perms> View<P> {
    #[inline]
    pub(crate) fn new(hold: Hold) -> Self {
        Self { hold, perms: PhantomData }
    }

    #[inline]
    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    #[inline]
    pub(crate) fn into_hold(self) -> Hold {
        self.hold
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> u64 {
        self.hold.len()
    }

    /// Whether the view is empty. An empty view is completed like any other.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Offset of the first byte from the start of the packet, in bytes.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.hold.start()
    }

    /// The packet that this is a view of.
    #[must_use]
    pub fn packet_id(&self) -> PacketId {
        PacketId(self.hold.id())
    }

    /// Where the bytes are in memory; `None` for a payload on a caller's stack, which must be
    /// copied.
    #[must_use]
    #[inline]
    pub fn address(&self) -> Option<usize> {
        self.hold.ptr().map(|ptr| ptr.addr())
    }

    /// Where the bytes are in memory, as [`View::try_alloc`] and [`Lent::as_ptr`] would say, and
    /// how many they are: all that a transfer needs, asked for at once.
    #[must_use]
    #[inline]
    pub fn address_and_len(&self) -> Option<(*mut u8, u64)> {
        self.hold.address_and_len()
    }

    /// The prepared region that the bytes lie in, if any.
    #[must_use]
    #[inline]
    pub fn region(&self) -> Option<RegionId> {
        self.hold.region()
    }

    /// Where the bytes are in memory and how many they are, if they lie in `region`: what a
    /// backend asks of the packets of its own region.
    #[must_use]
    #[inline(always)]
    pub fn in_region(&self, region: RegionId) -> Option<(NonNull<u8>, u64)> {
        self.hold.in_region(region)
    }

    /// Cuts the view in two: the first `at` bytes and the rest. Either may be empty.
    ///
    /// # Panics
    /// If `at` is beyond the end.
    #[must_use = "a dropped view fails"]
    pub fn split_at(self, at: u64) -> (Self, Self) {
        let (left, right) = self.hold.split_at(at);
        (Self::new(left), Self::new(right))
    }

    /// The tag that the caller gave the packet.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.hold.tag()
    }

    /// Cuts `len` bytes from `at` on out of the middle: what is before, they, what is after.
    ///
    /// # Panics
    /// If the range is not inside.
    #[must_use = "a dropped view fails"]
    pub fn extract(self, at: u64, len: u64) -> (Self, Self, Self) {
        let (before, rest) = self.split_at(at);
        let (middle, after) = rest.split_at(len);
        (before, middle, after)
    }

    /// Completes the view with the results of another packet that stood in for it: `failed` as
    /// [`Completed::failed_ranges`](crate::Completed::failed_ranges) tells them, counted from
    /// the start of this view. Every byte gets the result it had there.
    ///
    /// To send the bytes of a view through another backend and report what became of them,
    /// lend it and make a packet of the loan (no copy), or of a [`Relay`](super::Relay) where it
    /// has no address; then settle.
    ///
    /// ```
    /// use mfio_core::{Packet, PacketIo, PacketIoExt, Read, Refused, View, block_on, mem::Mem};
    /// /// Forwards each read to `Mem` as a packet of its own.
    /// struct Forward(Mem);
    /// impl PacketIo<Read, u64> for Forward {
    ///     fn send_io(&self, at: u64, view: View<Read>) -> Result<(), Refused<Read>> {
    ///         let Ok(lent) = view.try_alloc(1) else { return Ok(()) };
    ///         let other = Packet::<Read, _>::new(lent);
    ///         let done = block_on(&self.0, self.0.io(at, other)).unwrap();
    ///         let failed = done.failed_ranges();
    ///         done.into_buffer().into_view().settle(&failed);
    ///         Ok(())
    ///     }
    /// }
    /// let forward = Forward(Mem::from(b"abc".to_vec()));
    /// let packet = Packet::<Read, _>::new(vec![0; 8]);
    /// let done = block_on(&forward.0, forward.io(1, packet)).unwrap();
    /// assert_eq!(done.bytes(), b"bc");
    /// ```
    pub fn settle(self, failed: &[FailedRange]) {
        let (mut rest, mut at) = (self, 0);
        for range in failed {
            let start = range.start.clamp(at, at + rest.len());
            let end = range.end.clamp(start, at + rest.len());
            let (done, failing, after) = rest.extract(start - at, end - start);
            done.hold.done();
            failing.fail(range.error);
            (rest, at) = (after, end);
        }
        rest.hold.done();
    }

    /// Fails the whole range.
    pub fn fail(self, error: impl Into<Error>) {
        self.hold.fail(error.into());
    }

    /// Fails everything but the first `done` bytes, which the caller has completed by the
    /// returned view.
    ///
    /// # Panics
    /// If `done` is beyond the end.
    #[must_use = "a dropped view fails"]
    pub fn fail_after(self, done: u64, error: impl Into<Error>) -> Self {
        let (left, right) = self.split_at(done);
        right.fail(error);
        left
    }

    /// Lends the bytes themselves to the backend, for transfers without a copy.
    ///
    /// # Errors
    /// The view comes back unchanged where there is no address to lend (a payload on a
    /// caller's stack: copy instead) or where it is not a multiple of `align` bytes.
    #[inline]
    pub fn try_alloc(self, align: usize) -> Result<Lent<P>, Self> {
        let usable = if align == 1 {
            self.hold.has_address()
        } else {
            self.hold.ptr().is_some_and(|ptr| ptr.addr() & (align - 1) == 0)
        };
        if usable { Ok(Lent { view: self }) } else { Err(self) }
    }
}

impl View<Read> {
    /// Copies `from` to the start of the view and completes that much. The rest, if any,
    /// comes back to be completed.
    ///
    /// # Panics
    /// If `from` is longer than the view.
    pub fn fill_from(mut self, from: &[u8]) -> Option<Self> {
        // False means that the caller has gone: the bytes have nowhere to go, and nobody asks.
        let _gone: bool = !self.hold.fill(0, from);
        if from.len() as u64 == self.len() {
            self.hold.done();
            return None;
        }
        let (filled, rest) = self.split_at(from.len() as u64);
        filled.hold.done();
        Some(rest)
    }

    /// Copies `from` into the view at byte `at`, completing nothing yet.
    ///
    /// # Panics
    /// If the bytes do not fit.
    pub fn write_at(&mut self, at: u64, from: &[u8]) {
        let _gone: bool = !self.hold.fill(at, from);
    }

    /// Completes the whole range: the backend has filled it by [`View::write_at`].
    pub fn filled(self) {
        self.hold.done();
    }
}

impl View<Write> {
    /// Copies out the bytes from `at` on. Completes nothing: a write is done when it is done.
    ///
    /// # Errors
    /// [`Gone`]: the bytes were on the stack of a caller that has left. Fail the view.
    ///
    /// # Panics
    /// If the range is not inside the view.
    pub fn read_at(&self, at: u64, to: &mut [u8]) -> Result<(), Gone> {
        if self.hold.copy_out(at, to) { Ok(()) } else { Err(Gone) }
    }

    /// Completes the whole range: every byte has been written.
    pub fn written(self) {
        self.hold.done();
    }
}

impl View<ReadWrite> {
    /// Exchanges the bytes of the view from `at` on with `other`, completing nothing yet.
    ///
    /// # Errors
    /// [`Gone`]: the bytes were on the stack of a caller that has left; `other` is unchanged.
    ///
    /// # Panics
    /// If the range is not inside the view.
    pub fn exchange_at(&mut self, at: u64, other: &mut [u8]) -> Result<(), Gone> {
        // In pieces, so that no buffer of the view's size is needed.
        let mut piece = [0; 256];
        for (index, other) in other.chunks_mut(piece.len()).enumerate() {
            let at = at + (index * piece.len()) as u64;
            let piece = &mut piece[..other.len()];
            if !self.hold.copy_out(at, piece) || !self.hold.fill(at, other) {
                return Err(Gone);
            }
            other.copy_from_slice(piece);
        }
        Ok(())
    }

    /// Completes the whole range: every byte has been exchanged.
    pub fn exchanged(self) {
        self.hold.done();
    }
}

impl<P: Perms> fmt::Debug for View<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, len) = (self.start(), self.len());
        write!(f, "View<{}>({start}..{})", P::NAME, start + len)
    }
}

/// Completes many views and tells their [`CompletionQueue`](crate::CompletionQueue)s together:
/// one atomic operation for all in a row that go to the same queue. For backends that reap in
/// batches. Whoever awaits a packet is told at once; a queue, when the batch is dropped.
#[derive(Default)]
pub struct CompletionBatch(Batch);

impl CompletionBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells the queue that waits to be told, and leaves the batch empty. Where somebody waits at
    /// the queue, the waker comes back: for backends that complete with something borrowed.
    #[must_use = "whoever waits at the queue is to be woken"]
    #[inline]
    pub fn tell(&mut self) -> Option<Waker> {
        self.0.tell()
    }

    #[inline(always)]
    pub(super) const fn raw(&mut self) -> &mut Batch {
        &mut self.0
    }

    /// Whether no queue waits to be told.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for CompletionBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompletionBatch")
    }
}

/// The payload was on the stack of a caller that no longer waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// A view whose bytes have been lent to the backend at their own address.
///
/// The bytes stay where they are until this value is completed or dropped, whoever has
/// stopped waiting meanwhile: that is what a device that writes late can rely on.
#[derive(Debug)]
pub struct Lent<P: Perms> {
    view: View<P>,
}

impl<P: Perms> Lent<P> {
    /// Length in bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> u64 {
        self.view.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.view.is_empty()
    }

    /// The first byte. For a `Write` packet it must not be written through.
    ///
    /// # Panics
    /// Never: only views with an address are lent.
    #[must_use]
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.view.hold.ptr().expect("only views with an address are lent")
    }

    /// Where the bytes are, as [`Lent::as_ptr`] says, and how many they are.
    ///
    /// # Panics
    /// Never, as there.
    #[must_use]
    #[inline]
    pub fn address_and_len(&self) -> (*mut u8, u64) {
        self.view.address_and_len().expect("only views with an address are lent")
    }

    /// The prepared region that the bytes lie in, if any.
    #[must_use]
    #[inline]
    pub fn region(&self) -> Option<RegionId> {
        self.view.hold.region()
    }

    /// The packet that this is a part of.
    #[must_use]
    pub fn packet_id(&self) -> PacketId {
        self.view.packet_id()
    }

    /// Back to a view, for instance to split it.
    #[must_use = "a dropped view fails"]
    pub fn into_view(self) -> View<P> {
        self.view
    }

    /// Completes the whole range: it has been filled, or written.
    #[inline]
    pub fn done(self) {
        self.view.hold.done();
    }

    /// As [`Lent::done`], telling completion queues together with the others of `batch`.
    #[inline]
    pub fn done_in(self, batch: &mut CompletionBatch) {
        self.view.hold.done_in(&mut batch.0);
    }

    /// As [`Lent::done_in`] where nobody is called by it but `wake`: the packet goes to a queue,
    /// the one that those of `batch` go to, or somebody has the other side of it, and nothing
    /// else wants to hear of it. For backends that complete with something borrowed.
    ///
    /// Where somebody awaits the packet, `wake` gets the waker and says whether it has told it,
    /// which must not run anything that looks at the packet: it waits for `wake` to return. A
    /// waker that was not told comes back, for the caller to call; one that was stays with the
    /// packet, so that awaiting it again by the same waker clones none.
    ///
    /// # Errors
    /// The same, not completed.
    #[inline(always)]
    pub fn try_done_in(
        self,
        batch: &mut CompletionBatch,
        wake: impl FnOnce(&Waker) -> bool,
    ) -> Result<Option<Waker>, Self> {
        let told = self.view.into_hold().try_done_in(&mut batch.0, wake);
        told.map_err(|hold| Self { view: View::new(hold) })
    }

    /// Fails the whole range.
    pub fn fail(self, error: impl Into<Error>) {
        self.view.fail(error);
    }
}

impl Lent<Read> {
    /// The bytes to fill.
    ///
    /// # Panics
    /// Never: only views with an address are lent.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.view.hold.bytes_mut().expect("only views with an address are lent")
    }
}

impl Lent<Write> {
    /// The bytes to write.
    ///
    /// # Panics
    /// Never: only views with an address are lent.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.view.hold.bytes().expect("only views with an address are lent")
    }
}
