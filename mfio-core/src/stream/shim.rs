//! What the standard traits have in common: which streams implement them, the half that writes,
//! and where a seek leads.
//!
//! Data flow: a trait's poll → the stream's own poll → `std::io` result.
//!
//! Not here: what differs between the traits (`futures`, `tokio`, `std_io`).

use std::io::SeekFrom;
#[cfg(any(feature = "futures", feature = "tokio"))]
use {
    super::{Length, cursor::Cursor},
    core::task::{Context, Poll, ready},
    std::io,
};

use crate::error::{Error, ErrorKind};

/// Calls the macro with each stream: its generics, its type, its target and what places are.
macro_rules! for_each_stream {
    ($adapt:ident) => {
        $adapt!([T] Seekable<T>, T, u64);
        $adapt!([T: ?Sized] SeekableRef<'_, T>, T, u64);
        $adapt!([T] Sequential<T>, T, ());
    };
}

/// Calls the macro with each stream that has a position: generics, type, target.
macro_rules! for_each_positioned {
    ($adapt:ident) => {
        $adapt!([T] Seekable<T>, T);
        $adapt!([T: ?Sized] SeekableRef<'_, T>, T);
    };
}

pub(super) use {for_each_positioned, for_each_stream};

/// Implements a trait for writing, which calls its close `$close`: a close is a flush.
#[cfg(any(feature = "futures", feature = "tokio"))]
macro_rules! async_write {
    ($AsyncWrite:ident, $close:ident, [$($generics:tt)*] $stream:ty, $Io:ident, $At:ty) => {
        impl<$($generics)*> $AsyncWrite for $stream
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

            fn $close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.get_mut().poll_flush(cx).map_err(Into::into)
            }
        }
    };
}

#[cfg(any(feature = "futures", feature = "tokio"))]
pub(super) use async_write;

/// Moves the position, to somewhere relative to the end only when the stream's own writes,
/// which may move it, are over.
#[cfg(any(feature = "futures", feature = "tokio"))]
pub(super) fn poll_seek<T: Length + ?Sized>(
    target: &T,
    cursor: &mut Cursor<u64>,
    cx: &mut Context<'_>,
    to: SeekFrom,
) -> Poll<io::Result<u64>> {
    if let SeekFrom::End(_) = to {
        ready!(cursor.poll_written(cx));
    }
    let position = seek_target(cursor.position(), || target.len_bytes(), to)?;
    cursor.set_position(position);
    Poll::Ready(Ok(position))
}

/// Where a seek leads, relative to something or not.
pub(super) fn seek_target(
    position: u64,
    length: impl FnOnce() -> Option<u64>,
    seek: SeekFrom,
) -> Result<u64, Error> {
    let (base, by) = match seek {
        SeekFrom::Start(position) => return Ok(position),
        SeekFrom::Current(by) => (position, by),
        SeekFrom::End(by) => (length().ok_or(ErrorKind::Unsupported)?, by),
    };
    base.checked_add_signed(by).ok_or(Error::new(ErrorKind::OutOfRange))
}
