//! A packet without its buffer, kept for the next one.
//!
//! Data flow: completed packet → buffer and [`Spare`] → another buffer → packet. For those who
//! send as many packets as before, again and again: they neither look for a header nor clear one.
//!
//! Not here: headers that anybody's next packet may have (`pool`).

use core::fmt;

use super::raw::Handle;
use super::{Buffer, Completed, Packet, Perms};

/// What is left of a packet whose buffer was taken out; see [`Completed::take_apart`].
pub struct Spare(Handle);

impl<P: Perms, B: Buffer<P>> Completed<P, B> {
    /// The buffer, as [`Completed::into_buffer`] gives it, and the rest of the packet, for another.
    /// ```
    /// use mfio_core::{Packet, PacketIoExt, Read, Write, block_on, mem::Mem};
    /// let target = Mem::from(vec![0; 8]);
    /// let packet = Packet::<Write, _>::new(b"data".to_vec());
    /// let done = block_on(&target, target.io(2, packet)).unwrap();
    /// let (_written, spare) = done.take_apart();
    /// let packet = spare.fill::<Read, _>(vec![0; 5]);
    /// let done = block_on(&target, target.io(1, packet)).unwrap();
    /// assert_eq!(done.bytes(), b"\0data");
    /// ```
    #[must_use]
    #[inline]
    pub fn take_apart(self) -> (B, Spare) {
        let mut handle = self.into_packet().into_handle();
        let buffer = handle.take_out();
        (buffer, Spare(handle))
    }
}

impl Spare {
    /// A packet over all bytes of `buffer`: as [`Packet::new`] makes one.
    #[must_use]
    #[inline]
    pub fn fill<P: Perms, B: Buffer<P>>(self, buffer: B) -> Packet<P, B> {
        Packet::over(self.0, buffer)
    }
}

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spare")
    }
}
