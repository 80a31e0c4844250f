//! The streams as Tokio knows them.
//!
//! Data flow: poll → the stream's own poll → `std::io` result. Shutting down flushes.
//!
//! Not here: what is read and written (`cursor`); who drives the target (`backend`).

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io::{self, SeekFrom};

use ::tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

use super::std_io::seek_target;
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

        impl<$($generics)*> AsyncWrite for $stream
        where
            $Io: PacketIo<Write, $At>,
        {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.get_mut().poll_write(cx, buffer).map_err(Into::into)
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.get_mut().poll_flush(cx).map_err(Into::into)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.get_mut().poll_flush(cx).map_err(Into::into)
            }
        }
    };
}

stream!([T] Seekable<T>, T, u64);
stream!([T: ?Sized] SeekableRef<'_, T>, T, u64);
stream!([T] Sequential<T>, T, ());

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
                if let Some(SeekFrom::End(_)) = cursor.seeking {
                    // The stream's own writes may move the end.
                    ready!(cursor.poll_written(cx));
                }
                if let Some(to) = cursor.seeking.take() {
                    let position = seek_target(cursor.position(), || target.len_bytes(), to)?;
                    cursor.set_position(position);
                }
                Poll::Ready(Ok(cursor.position()))
            }
        }
    };
}

seek!([T] Seekable<T>, T);
seek!([T: ?Sized] SeekableRef<'_, T>, T);
