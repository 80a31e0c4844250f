//! Sending packets, and waiting for one of them.
//!
//! Data flow: packet → [`IoFut`] → view → [`PacketIo::send_io`] → … → the same packet,
//! completed. A backend that is full hands the view back, and the future waits for room.
//!
//! Not here: many packets at once (`packet::completions`), typed values (`traits`).

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use crate::error::ErrorKind;
use crate::packet::{Buffer, Completed, Packet, PacketId, Perms, View};

/// Something that packets of direction `P` can be sent to, at a place that `Param` names: a
/// byte offset for files, or whatever the backend understands.
///
/// Object-safe. Completion is not reported here: it happens to the views.
pub trait PacketIo<P: Perms, Param = u64> {
    /// Hands `view` over. From here on the backend completes every byte of it, now, later or
    /// from another thread, in any order and in any number of parts. It does so outside its
    /// locks and borrows, because completing wakes, and the woken may send again.
    ///
    /// # Errors
    /// [`Refused`] gives back the very same view where the backend has no room for it.
    /// Everything else that can go wrong is a failed view, not an error here.
    fn send_io(&self, param: Param, view: View<P>) -> Result<(), Refused<P, Param>>;

    /// Ready when the next `send_io` will probably be accepted; else `cx` is woken once it
    /// might. Backends without a limit are always ready.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }

    /// Sets room aside for the next `views` calls of `send_io`: all of them or, with `false`,
    /// none. For layers, which send the parts of one view to several places and must not find
    /// half-way that one of them is full. The promise has no name on it: use it at once, before
    /// anything else runs, or give it back.
    fn reserve(&self, views: usize) -> bool {
        let _ = views;
        true
    }

    /// Gives back room that was reserved for `views` views and not used.
    fn release(&self, views: usize) {
        let _ = views;
    }

    /// The caller no longer wants the result of `packet`. A hint: what has not started need
    /// not start, but the views are still the backend's to complete.
    fn abandon(&self, packet: PacketId) {
        let _ = packet;
    }
}

/// What was not sent, because the backend is full.
#[derive(Debug)]
pub struct Refused<P: Perms, Param = u64> {
    /// Where it was to be sent.
    pub param: Param,
    /// The view that was to be sent, unchanged.
    pub view: View<P>,
}

/// [`PacketIo`] for callers that await.
pub trait PacketIoExt<P: Perms, Param>: PacketIo<P, Param> {
    /// Sends `packet` when first polled, waiting for room if need be, and resolves when every
    /// byte has its result.
    ///
    /// ```
    /// use mfio_core::{Packet, PacketIoExt, Read, block_on, mem::Mem};
    /// let target = Mem::from(b"hello packets".to_vec());
    /// let done = block_on(&target, target.io(6, Packet::<Read, _>::new(vec![0; 7])));
    /// assert_eq!(done.unwrap().bytes(), b"packets");
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future abandons the packet: the backend completes it whenever it can, and
    /// its buffer is freed then, not before.
    #[inline]
    fn io<B: Buffer<P>>(&self, param: Param, packet: Packet<P, B>) -> IoFut<'_, Self, P, B, Param> {
        IoFut { io: self, packet: Some(packet), unsent: Unsent::New(param) }
    }
}

impl<P: Perms, Param, Io: PacketIo<P, Param> + ?Sized> PacketIoExt<P, Param> for Io {}

/// The future of one packet; see [`PacketIoExt::io`].
#[must_use = "nothing is sent before the first poll"]
pub struct IoFut<'a, Io: PacketIo<P, Param> + ?Sized, P: Perms, B: Buffer<P>, Param> {
    io: &'a Io,
    /// `None` when it has been given back.
    packet: Option<Packet<P, B>>,
    unsent: Unsent<P, Param>,
}

/// What has not been sent yet. Apart from the packet, so that a poll moves neither.
enum Unsent<P: Perms, Param> {
    New(Param),
    Refused(Refused<P, Param>),
    Nothing,
}

// Nothing in the future is pinned: the buffer is behind a stable address of its own.
impl<Io, P, B, Param> Unpin for IoFut<'_, Io, P, B, Param>
where
    Io: PacketIo<P, Param> + ?Sized,
    P: Perms,
    B: Buffer<P>,
{
}

impl<Io, P, B, Param> Future for IoFut<'_, Io, P, B, Param>
where
    Io: PacketIo<P, Param> + ?Sized,
    P: Perms,
    B: Buffer<P>,
{
    type Output = Completed<P, B>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let polled = match (&this.unsent, &mut this.packet) {
            (Unsent::Nothing, Some(packet)) => packet.handle_mut().poll_idle(cx),
            _ => this.poll_unsent(cx),
        };
        if polled.is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(Completed::new(this.packet.take().expect("seen above")))
    }
}

/// Sends until it is accepted or the backend asks to wait; what is left to send comes back.
pub(crate) fn send_again<P, Param, Io>(
    io: &Io,
    mut refused: Option<Refused<P, Param>>,
    cx: &mut Context<'_>,
) -> Option<Refused<P, Param>>
where
    P: Perms,
    Io: PacketIo<P, Param> + ?Sized,
{
    while let Some(Refused { param, view }) = refused {
        if io.poll_ready(cx).is_pending() {
            return Some(Refused { param, view });
        }
        refused = io.send_io(param, view).err();
    }
    None
}

impl<Io, P, B, Param> IoFut<'_, Io, P, B, Param>
where
    Io: PacketIo<P, Param> + ?Sized,
    P: Perms,
    B: Buffer<P>,
{
    /// Sends what has not been sent. A function of its own, so that the poll that finds the packet
    /// done is a few instructions, inlined where it is awaited.
    #[inline(never)]
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let packet = self.packet.as_mut();
        let packet = packet.expect("the future of a packet was polled after it was ready");
        match core::mem::replace(&mut self.unsent, Unsent::Nothing) {
            Unsent::Nothing => packet.handle_mut().poll_idle(cx),
            Unsent::New(param) => match packet.arm_again(cx.waker()) {
                Some(view) => match self.io.send_io(param, view) {
                    Ok(()) => packet.handle_mut().poll_armed(),
                    Err(refused) => self.poll_refused(refused, cx),
                },
                None => self.poll_anew(param, cx),
            },
            Unsent::Refused(refused) => self.poll_refused(refused, cx),
        }
    }

    /// Sends a packet whose bytes are not those of the last time. Apart from the others, whose
    /// views are known to be one whole payload.
    #[inline(never)]
    fn poll_anew(&mut self, param: Param, cx: &mut Context<'_>) -> Poll<()> {
        let packet = self.packet.as_mut().expect("only a packet is sent");
        let view = packet.arm_for(cx.waker());
        match self.io.send_io(param, view) {
            Ok(()) => packet.handle_mut().poll_armed(),
            Err(refused) => self.poll_refused(refused, cx),
        }
    }

    /// Sends what was refused, or waits for room. The waker may be another than was armed.
    #[cold]
    fn poll_refused(&mut self, refused: Refused<P, Param>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(refused) = send_again(self.io, Some(refused), cx) {
            self.unsent = Unsent::Refused(refused);
            return Poll::Pending;
        }
        let packet = self.packet.as_mut().expect("only a packet is refused");
        packet.handle_mut().poll_idle(cx)
    }

    /// The packet, if the backend has it or had it.
    fn sent(&mut self) -> Option<&mut Packet<P, B>> {
        match &self.unsent {
            Unsent::Nothing => self.packet.as_mut(),
            _ => None,
        }
    }

    /// Sends nothing more: what the backend has refused, be it all of the packet, a part of it or
    /// something else, fails.
    pub(crate) fn give_up_unsent(&mut self) {
        if matches!(self.unsent, Unsent::Refused(_)) {
            self.unsent = Unsent::Nothing;
        }
    }

    /// Whether any of the packet is with the backend, where nothing of it is
    /// [left to be sent](IoFut::give_up_unsent).
    pub(crate) fn is_in_flight(&mut self) -> bool {
        self.packet.as_mut().is_some_and(|packet| !packet.handle_mut().is_idle())
    }

    /// Asks the backend to stop. Await the future all the same: it resolves when every byte
    /// has its result, whichever side has won, and gives the buffer back. What the backend has
    /// not taken over yet is not sent any more, and fails as `Cancelled`. Asking again changes
    /// nothing.
    pub fn cancel(&mut self) {
        match core::mem::replace(&mut self.unsent, Unsent::Nothing) {
            Unsent::Nothing => self.abandon(),
            Unsent::Refused(refused) => refused.view.fail(ErrorKind::Cancelled),
            Unsent::New(_) => {
                if let Some(packet) = &mut self.packet {
                    packet.arm().fail(ErrorKind::Cancelled);
                }
            }
        }
    }

    /// Tells the backend, if it has the packet, that nobody waits for the result.
    #[cold]
    fn abandon(&mut self) {
        let io = self.io;
        if let Some(packet) = self.sent() {
            let handle = packet.handle_mut();
            if !handle.is_idle() {
                io.abandon(PacketId(handle.id()));
            }
        }
    }
}

impl<Io, P, B, Param> Drop for IoFut<'_, Io, P, B, Param>
where
    Io: PacketIo<P, Param> + ?Sized,
    P: Perms,
    B: Buffer<P>,
{
    #[inline]
    fn drop(&mut self) {
        if self.packet.is_some() {
            self.abandon();
        }
    }
}

impl<Io, P, B, Param> fmt::Debug for IoFut<'_, Io, P, B, Param>
where
    Io: PacketIo<P, Param> + ?Sized,
    P: Perms,
    B: Buffer<P>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (&self.packet, &self.unsent) {
            (None, _) => "IoFut(done)",
            (_, Unsent::New(_)) => "IoFut(new)",
            (_, Unsent::Refused(_)) => "IoFut(waiting for room)",
            (_, Unsent::Nothing) => "IoFut(sent)",
        })
    }
}
