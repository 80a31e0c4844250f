//! Many packets under way, reaped in batches by one task or thread.
//!
//! Data flow: packet and tag → [`CompletionQueue::send`] → backend → the queue → `pop`, oldest
//! completion first. One atomic operation a packet, no allocation once warm.
//!
//! Not here: waiting for one packet alone (`io`).

use alloc::sync::Arc;
use core::hint::cold_path;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::task::{Context, Poll};

use super::raw::{Handle, Queue, Taken};
use super::view::{CompletionBatch, PacketId, View};
use super::{Buffer, Completed, OwnerOf, Packet, Perms};
use crate::io::{PacketIo, Refused};

/// Sends packets and gives them back, completed, each with the tag it was sent with.
///
/// ```
/// use mfio_core::{CompletionQueue, Packet, Read, mem::Mem};
/// let target = Mem::from(b"hello packets".to_vec());
/// let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
/// for tag in 0..2 {
///     queue.send(&target, tag * 6, Packet::new(vec![0; 5]), tag).unwrap();
/// }
/// let (tag, done) = queue.pop().unwrap();
/// assert_eq!((tag, done.bytes()), (0, &b"hello"[..]));
/// ```
///
/// # Cancel safety
/// Dropping the queue forgets the packets under way: each is completed by its backend and then
/// freed, together with its buffer.
pub struct CompletionQueue<P: Perms, B: Buffer<P>> {
    shared: Arc<Queue>,
    /// Taken from `shared`.
    ready: Taken,
    in_flight: usize,
    owner: OwnerOf<P, B>,
}

/// A packet that was not sent: the backend had no room.
#[derive(Debug)]
pub struct Unsent<P: Perms, B: Buffer<P>, Param> {
    /// The packet, as it was.
    pub packet: Packet<P, B>,
    /// Where it was to be sent.
    pub param: Param,
}

impl<P: Perms, B: Buffer<P>> CompletionQueue<P, B> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Queue::new(), ready: Taken::default(), in_flight: 0, owner: PhantomData }
    }

    /// Sends `packet` to `io` at `param`. `tag` is the caller's and comes back with it.
    ///
    /// # Errors
    /// The packet itself where the backend is full: pop some completions, then try again.
    // Always inlined: where a backend does little more than to write an SQE, a call with all that
    // it saves and restores is a tenth of it.
    #[inline(always)]
    pub fn send<Io, Param>(
        &mut self,
        io: &Io,
        param: Param,
        mut packet: Packet<P, B>,
        tag: u64,
    ) -> Result<(), Unsent<P, B, Param>>
    where
        Io: PacketIo<P, Param> + ?Sized,
    {
        let Some(hold) = packet.handle_mut().enqueue_again(&self.shared, tag) else {
            return self.send_anew(io, param, packet, tag);
        };
        // The header is the queue's; the right to free it goes along.
        let _moved = ManuallyDrop::new(packet);
        self.send_view(io, param, View::new(hold))
    }

    /// As [`CompletionQueue::send`], for a packet that this queue has not had with these bytes.
    /// Apart from the others, whose views are known to be one whole payload.
    #[inline(never)]
    fn send_anew<Io, Param>(
        &mut self,
        io: &Io,
        param: Param,
        mut packet: Packet<P, B>,
        tag: u64,
    ) -> Result<(), Unsent<P, B, Param>>
    where
        Io: PacketIo<P, Param> + ?Sized,
    {
        let view = packet.arm();
        packet.into_handle().enqueue(view.hold(), &self.shared, tag);
        self.send_view(io, param, view)
    }

    #[inline(always)]
    fn send_view<Io, Param>(
        &mut self,
        io: &Io,
        param: Param,
        view: View<P>,
    ) -> Result<(), Unsent<P, B, Param>>
    where
        Io: PacketIo<P, Param> + ?Sized,
    {
        let sent = (view.packet_id(), view.len());
        // Counted before: a backend may complete it at once, or panic and so abort it.
        self.in_flight += 1;
        match io.send_io(param, view) {
            Ok(()) => Ok(()),
            Err(refused) => self.take_back(sent, refused),
        }
    }

    #[cold]
    #[inline(never)]
    fn take_back<Param>(
        &mut self,
        sent: (PacketId, u64),
        refused: Refused<P, Param>,
    ) -> Result<(), Unsent<P, B, Param>> {
        if (refused.view.packet_id(), refused.view.len()) != sent {
            // Not what was sent: its bytes are aborted, and the packet comes when the others
            // have their results.
            return Ok(());
        }
        self.in_flight -= 1;
        let handle = Handle::disarm(View::into_hold(refused.view));
        Err(Unsent { packet: Packet::from_handle(handle), param: refused.param })
    }

    /// Takes the packets of this queue out of a `batch` that has not told of them yet: without any
    /// atomic operation, where the thread that completes is the one that reaps. Where others have
    /// arrived before, or are waited for, nothing happens, and the batch tells as usual.
    #[inline(always)]
    pub fn take_from(&mut self, batch: &mut CompletionBatch) {
        self.ready.take_from(batch.raw(), &self.shared);
    }

    /// The oldest completed packet, if there is one. Does not drive the backend.
    #[inline]
    pub fn pop(&mut self) -> Option<(u64, Completed<P, B>)> {
        if self.ready.is_empty() {
            cold_path();
            self.ready = self.shared.take();
        }
        let (tag, handle) = self.ready.pop()?;
        self.in_flight -= 1;
        Some((tag, Completed::new(Packet::from_handle(handle))))
    }

    /// The oldest completed packet, or the promise to wake `cx` when there is one. Ready with
    /// `None` when nothing is under way.
    pub fn poll_pop(&mut self, cx: &mut Context<'_>) -> Poll<Option<(u64, Completed<P, B>)>> {
        if let Some(done) = self.pop() {
            return Poll::Ready(Some(done));
        }
        if self.in_flight == 0 {
            return Poll::Ready(None);
        }
        if self.shared.set_waker(cx.waker()) {
            return Poll::Pending;
        }
        // What arrived before the waker was set has woken nobody.
        match self.pop() {
            Some(done) => Poll::Ready(Some(done)),
            None => Poll::Pending,
        }
    }

    /// Packets sent and not popped yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl<P: Perms, B: Buffer<P>> Default for CompletionQueue<P, B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Perms, B: Buffer<P>> Drop for CompletionQueue<P, B> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl<P: Perms, B: Buffer<P>> core::fmt::Debug for CompletionQueue<P, B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CompletionQueue").field("in_flight", &self.in_flight).finish()
    }
}
