//! A packet under way whose owner looks at it when he likes.
//!
//! Data flow: packet → [`Packet::send`] → its only view, for a backend, and [`Sent`], for the
//! owner → every byte has its result → [`Completed`]. Nothing is told before the owner asks:
//! of a set of packets, one can be waited for at a time.
//!
//! Not here: waiting for one packet alone (`io`), for whichever is next (`completions`).

use core::fmt;
use core::task::{Context, Poll};

use super::view::{PacketId, View};
use super::{Buffer, Completed, Packet, Perms};

/// A packet whose bytes are with a backend; see [`Packet::send`].
///
/// # Cancel safety
/// Dropping it forgets the packet: it is freed with its buffer when every byte has its result.
#[must_use = "the buffer is in here"]
pub struct Sent<P: Perms, B: Buffer<P>> {
    packet: Packet<P, B>,
}

impl<P: Perms, B: Buffer<P>> Packet<P, B> {
    /// Takes the packet apart for the way: its view, which a backend completes, and the side
    /// that gets the buffer back then.
    ///
    /// ```
    /// use mfio_core::{Packet, Read};
    /// let (sent, view) = Packet::<Read, _>::new(vec![0; 4]).send();
    /// assert!(!sent.is_done());
    /// assert!(view.fill_from(b"data").is_none());
    /// assert_eq!(sent.into_completed().unwrap().bytes(), b"data");
    /// ```
    pub fn send(mut self) -> (Sent<P, B>, View<P>) {
        let view = self.arm();
        (Sent { packet: self }, view)
    }
}

impl<P: Perms, B: Buffer<P>> Sent<P, B> {
    /// Whether every byte has its result. One load.
    #[must_use]
    #[inline]
    pub fn is_done(&self) -> bool {
        self.packet.handle.is_idle()
    }

    /// As [`Sent::is_done`]; where it is not, `cx` is woken once it is, and nobody who asked
    /// before.
    #[inline]
    pub fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.packet.handle_mut().poll_idle(cx)
    }

    /// Names the packet, for [`PacketIo::abandon`](crate::PacketIo::abandon).
    #[must_use]
    pub fn packet_id(&self) -> PacketId {
        PacketId(self.packet.handle.id())
    }

    /// The packet with its results.
    ///
    /// # Errors
    /// It is still under way.
    #[inline]
    pub fn into_completed(self) -> Result<Completed<P, B>, Self> {
        if self.is_done() { Ok(Completed::new(self.packet)) } else { Err(self) }
    }
}

impl<P: Perms, B: Buffer<P>> fmt::Debug for Sent<P, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent").field("done", &self.is_done()).finish_non_exhaustive()
    }
}
