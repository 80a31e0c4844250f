//! The streams as Tokio knows them.
//!
//! Data flow: poll → the stream's own poll → `std::io` result. Shutting down flushes.
//!
//! Not here: what is read and written (`cursor`); what other traits need too (`shim`); who
//! drives the target (`backend`).

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io::{self, SeekFrom};

use ::tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

use super::shim::{async_write, for_each_positioned, for_each_stream, poll_seek};
use super::{Length, Seekable, SeekableRef, Sequential};
use crate::io::PacketIo;
use crate::packet::{Read, Write};

macro_rules! stream {
    ([$($generics:tt)*] $stream:ty, $Io:ident, $At:ty) => {
        impl<$($generics)*> AsyncRead for $stream
        where
            $Io: PacketIo<Read, $At>,
        {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let read = ready!(self.get_mut().poll_read(cx, buffer.initialize_unfilled()))?;
                buffer.advance(read);
                Poll::Ready(Ok(()))
            }
        }

        async_write!(AsyncWrite, poll_shutdown, [$($generics)*] $stream, $Io, $At);
    };
}

for_each_stream!(stream);

macro_rules! seek {
    ([$($generics:tt)*] $stream:ty, $Io:ident) => {
        impl<$($generics)*> AsyncSeek for $stream
        where
            $Io: Length,
        {
            fn start_seek(self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
                self.get_mut().cursor.seeking = Some(to);
                Ok(())
            }

            fn poll_complete(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<u64>> {
                let Self { target, cursor } = self.get_mut();
                let target: &$Io = target;
                let Some(to) = cursor.seeking else {
                    return Poll::Ready(Ok(cursor.position()));
                };
                let sought = ready!(poll_seek(target, cursor, cx, to));
                cursor.seeking = None;
                Poll::Ready(sought)
            }
        }
    };
}

for_each_positioned!(seek);
