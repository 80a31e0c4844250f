//! The streams as futures-io knows them.
//!
//! Data flow: poll → the stream's own poll → `std::io` result. Closing flushes.
//!
//! Not here: what is read and written (`cursor`); what other traits need too (`shim`); who
//! drives the target (`backend`).

use core::pin::Pin;
use core::task::{Context, Poll};
use std::io::{self, SeekFrom};

use futures_io::{AsyncRead, AsyncSeek, AsyncWrite};

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
                buffer: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                self.get_mut().poll_read(cx, buffer).map_err(Into::into)
            }
        }

        async_write!(AsyncWrite, poll_close, [$($generics)*] $stream, $Io, $At);
    };
}

for_each_stream!(stream);

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
                let target: &$Io = target;
                poll_seek(target, cursor, cx, to)
            }
        }
    };
}

for_each_positioned!(seek);
