//! Reading and writing in the usual shapes, on anything that takes packets.
//!
//! Three families, never mixed up: `*_exact` (all or an error), `*_some` (how much, and why
//! not more), and the raw packet of [`PacketIoExt::io`]. Data flow: buffer or value → packet →
//! backend → buffer or value, always given back.
//!
//! Not here: blocking callers; they wrap any of these in [`block_on`](crate::block_on).

use core::future::poll_fn;
use core::marker::PhantomData;
use core::pin::{Pin, pin};
use core::task::Poll;

use bytemuck::Pod;

use crate::error::{Error, ErrorKind};
use crate::io::{PacketIo, PacketIoExt, send_again};
use crate::packet::raw::StackValue;
use crate::packet::{Buffer, Packet, PacketId, Perms, Read, View, Write};

/// Reads from anything that takes [`Read`] packets.
pub trait IoRead<Param>: PacketIo<Read, Param> {
    /// Fills all of `buffer` from `at` on. The buffer comes back in either case.
    ///
    /// # Errors
    /// The error of the first range that could not be read; a target that ends inside the
    /// buffer is [`ErrorKind::UnexpectedEof`]. Resolves to `(Err, buffer)`.
    ///
    /// # Cancel safety
    /// Dropping the future frees the buffer once the backend is through with it.
    #[allow(async_fn_in_trait, reason = "the future is Send where the backend is Sync")]
    async fn read_exact<B: Buffer<Read>>(&self, at: Param, buffer: B) -> (Result<(), Error>, B) {
        let done = self.io(at, Packet::new(buffer)).await;
        (done.result(), done.into_buffer())
    }

    /// Reads as much as there is without a gap, up to the length of `buffer`: bytes read, and
    /// the error that ended it, if it was not the end of the target.
    ///
    /// # Cancel safety
    /// As [`IoRead::read_exact`].
    #[allow(async_fn_in_trait, reason = "the future is Send where the backend is Sync")]
    async fn read_some<B: Buffer<Read>>(&self, at: Param, buffer: B) -> (u64, Option<Error>, B) {
        let done = self.io(at, Packet::new(buffer)).await;
        let error = done.error().filter(|error| error.kind() != ErrorKind::UnexpectedEof);
        (done.contiguous_bytes(), error, done.into_buffer())
    }

    /// Reads one plain value into the future itself: no buffer, no allocation when warm.
    ///
    /// ```
    /// use mfio_core::{IoRead, block_on, mem::Mem};
    /// let target = Mem::from(vec![1, 0, 2, 0]);
    /// assert_eq!(block_on(&target, target.read_value::<u16>(2)).unwrap(), Ok(2));
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future takes its memory back at once; the bytes, when they come, are
    /// dropped.
    ///
    /// # Errors
    /// The error of the first range that could not be read; a target that ends inside the
    /// value is [`ErrorKind::UnexpectedEof`].
    #[allow(async_fn_in_trait, reason = "the future is Send where the backend is Sync")]
    async fn read_value<T: Pod>(&self, at: Param) -> Result<T, Error> {
        let mut value = pin!(StackValue::new(T::zeroed()));
        transfer::<Read, _, _, _>(self, at, value.as_mut(), true).await?;
        Ok(value.get())
    }
}

impl<Param, Io: PacketIo<Read, Param> + ?Sized> IoRead<Param> for Io {}

/// Writes to anything that takes [`Write`] packets.
pub trait IoWrite<Param>: PacketIo<Write, Param> {
    /// Writes all of `buffer` from `at` on. The buffer comes back in either case.
    ///
    /// # Errors
    /// The error of the first range that could not be written; others may have been. Resolves
    /// to `(Err, buffer)`.
    ///
    /// # Cancel safety
    /// Dropping the future does not undo what was written; the buffer is freed once the
    /// backend is through with it.
    #[allow(async_fn_in_trait, reason = "the future is Send where the backend is Sync")]
    async fn write_exact<B: Buffer<Write>>(&self, at: Param, buffer: B) -> (Result<(), Error>, B) {
        let done = self.io(at, Packet::new(buffer)).await;
        (done.result(), done.into_buffer())
    }

    /// Writes one plain value out of the future itself: no buffer, no allocation when warm.
    ///
    /// # Cancel safety
    /// Dropping the future takes its memory back at once; what the backend had not copied by
    /// then is not written.
    ///
    /// # Errors
    /// The error of the first range that could not be written; others may have been.
    #[allow(async_fn_in_trait, reason = "the future is Send where the backend is Sync")]
    async fn write_value<T: Pod>(&self, at: Param, value: T) -> Result<(), Error> {
        let value = pin!(StackValue::new(value));
        transfer::<Write, _, _, _>(self, at, value, false).await
    }
}

impl<Param, Io: PacketIo<Write, Param> + ?Sized> IoWrite<Param> for Io {}

/// Tells the backend when the caller leaves before the transfer is over.
struct Leaving<'a, P: Perms, Param, Io: PacketIo<P, Param> + ?Sized> {
    io: &'a Io,
    packet: Option<PacketId>,
    names: PhantomData<fn(P, Param)>,
}

impl<P: Perms, Param, Io: PacketIo<P, Param> + ?Sized> Drop for Leaving<'_, P, Param, Io> {
    fn drop(&mut self) {
        if let Some(packet) = self.packet {
            self.io.abandon(packet);
        }
    }
}

async fn transfer<P, Param, Io, T>(
    io: &Io,
    at: Param,
    mut value: Pin<&mut StackValue<T>>,
    writable: bool,
) -> Result<(), Error>
where
    P: Perms,
    Io: PacketIo<P, Param> + ?Sized,
    T: Pod,
{
    let mut leaving = Leaving { io, packet: None, names: PhantomData };
    let mut first = Some(at);
    let mut unsent = None;
    let handle = poll_fn(|cx| {
        if let Some(param) = first.take() {
            let view = View::new(value.as_mut().arm(writable, cx));
            leaving.packet = Some(view.packet_id());
            unsent = io.send_io(param, view).err();
            if unsent.is_none() {
                return value.as_mut().poll_armed();
            }
        }
        unsent = send_again(io, unsent.take(), cx);
        if unsent.is_some() { Poll::Pending } else { value.as_mut().poll_done(cx) }
    })
    .await;
    leaving.packet = None;
    if handle.succeeded() {
        return Ok(());
    }
    handle.failed(|failed| failed.first().map_or(Ok(()), |range| Err(range.error)))
}
