//! The streams as futures-io knows them.
//!
//! Data flow: poll → the stream's own poll → `std::io` result. Closing flushes.
//!
//! Not here: what is read and written (`cursor`); who drives the target (`backend`).

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io::{self, SeekFrom};

use futures_io::{AsyncRead, AsyncSeek, AsyncWrite};

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
                buffer: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                self.get_mut().poll_read(cx, buffer).map_err(Into::into)
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

            fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
            fn poll_seek(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                to: SeekFrom,
            ) -> Poll<io::Result<u64>> {
                let Self { target, cursor } = self.get_mut();
                if let SeekFrom::End(_) = to {
                    // The stream's own writes may move the end.
                    ready!(cursor.poll_written(cx));
                }
                let position = seek_target(cursor.position(), || target.len_bytes(), to)?;
                cursor.set_position(position);
                Poll::Ready(Ok(position))
            }
        }
    };
}

seek!([T] Seekable<T>, T);
seek!([T: ?Sized] SeekableRef<'_, T>, T);
