//! Positions and byte streams: the shapes in which most other code wants its I/O.
//!
//! | type | turns what into what |
//! |---|---|
//! | [`Seekable`], [`SeekableRef`] | a target with offsets into a stream with a position |
//! | [`Sequential`] | a target without offsets (a socket, a pipe) into a stream |
//! | [`ReadToEnd`] | everything from an offset on into one `Vec` |
//!
//! The streams implement the standard traits: `std::io` (feature `std`, for callers that
//! block), Tokio's (feature `tokio`), futures-io's (feature `futures`). Data flow: caller's
//! slice ↔ a buffer of the stream's own ↔ packet ↔ target. The buffer is what makes them
//! cancel-safe: bytes that arrive when their reader has gone are kept for the next.
//!
//! Not here: packets, which need no copy (`io`, `traits`); who drives the target (`backend`).

use core::fmt;
use core::future::poll_fn;
use core::num::NonZeroUsize;
use core::task::{Context, Poll};

use crate::error::Error;
use crate::io::PacketIo;
use crate::packet::{Read, Write};

mod cursor;
#[cfg(feature = "futures")]
mod futures;
#[cfg(feature = "std")]
mod shim;
#[cfg(feature = "std")]
mod std_io;
mod to_end;
#[cfg(feature = "tokio")]
mod tokio;

use cursor::Cursor;
pub use to_end::ReadToEnd;

/// The length of a target, for whoever wants a position relative to its end.
pub trait Length {
    /// The length in bytes; `None` where there is no such thing.
    fn len_bytes(&self) -> Option<u64>;
}

/// How much a stream has under way at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes in one packet. Longer slices are taken in parts.
    pub transfer_bytes_max: NonZeroUsize,
    /// The most writes accepted and not completed. Streams without offsets have one, so that
    /// nothing follows what failed.
    pub writes_in_flight_max: NonZeroUsize,
}

impl Default for Limits {
    /// 1 MiB a packet, 8 writes.
    fn default() -> Self {
        let limit = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        Self { transfer_bytes_max: limit(1 << 20), writes_in_flight_max: limit(8) }
    }
}

/// A target together with a position in it, in bytes from its start.
///
/// Writes are accepted into a buffer and sent at once; they are complete, and their errors
/// known, after a flush. Reads wait for the stream's own writes, so they see them. Nothing is
/// read ahead.
///
/// # Cancel safety
/// All operations may be dropped while pending and started again, also with another slice: a
/// read that was pending goes on, and its bytes go to the next reader. Dropping the stream
/// does not undo writes that were accepted, nor wait for them: flush first.
///
/// ```
/// use mfio_core::{block_on, mem::Mem, stream::Seekable};
/// let mut stream = Seekable::new(Mem::from(vec![0; 8]));
/// block_on(&Mem::default(), async {
///     assert_eq!(stream.write_async(b"packets").await, Ok(7));
///     stream.flush_async().await?;
///     stream.set_position(4);
///     let mut bytes = [0; 8];
///     assert_eq!(stream.read_async(&mut bytes).await?, 4);
///     assert_eq!(&bytes[..4], b"ets\0");
///     // The end is no error, and an error is never taken for the end.
///     assert_eq!(stream.read_async(&mut bytes).await?, 0);
///     Ok::<_, mfio_core::Error>(())
/// }).unwrap().unwrap();
/// ```
pub struct Seekable<T> {
    target: T,
    cursor: Cursor<u64>,
}

/// As [`Seekable`], over a target that others use too. Writes of two streams over one target
/// are not ordered.
pub struct SeekableRef<'a, T: ?Sized> {
    target: &'a T,
    cursor: Cursor<u64>,
}

/// A target without offsets, as a stream: each packet takes what comes next.
///
/// A target that has some bytes but not all that were asked for may give the rest back as
/// [`UnexpectedEof`](crate::ErrorKind::UnexpectedEof): that is a short read. Only no bytes at
/// all are the end.
///
/// # Cancel safety
/// As [`Seekable`]: bytes taken from the target for a reader that has gone are kept.
pub struct Sequential<T> {
    target: T,
    cursor: Cursor<()>,
}

/// What all streams can do.
macro_rules! stream {
    ([$($generics:tt)*] $stream:ty, $Io:ident, $At:ty) => {
        impl<$($generics)*> $stream {
            /// The target.
            #[must_use]
            pub fn get_ref(&self) -> &$Io {
                &self.target
            }

            /// Reads at most `buffer.len()` bytes into `buffer`. 0 is the end, or `buffer` is
            /// empty. Pending where nothing has arrived: `cx` is woken when something has.
            ///
            /// # Errors
            /// That of the first byte that could not be read. What came before it has been
            /// returned before; the next read tries again.
            pub fn poll_read(
                &mut self,
                cx: &mut Context<'_>,
                buffer: &mut [u8],
            ) -> Poll<Result<usize, Error>>
            where
                $Io: PacketIo<Read, $At>,
            {
                let target: &$Io = &self.target;
                self.cursor.poll_read(target, cx, buffer)
            }

            /// Accepts bytes of `buffer` to be written, and returns how many: not 0 unless
            /// `buffer` is empty. Pending, having accepted none, where too much is under way.
            ///
            /// # Errors
            /// That of an earlier write, reported once; none of `buffer` was accepted. The
            /// bytes of that write may be written in part, those of later ones whole.
            /// [`OutOfRange`](crate::ErrorKind::OutOfRange) at the last offset there is.
            pub fn poll_write(
                &mut self,
                cx: &mut Context<'_>,
                buffer: &[u8],
            ) -> Poll<Result<usize, Error>>
            where
                $Io: PacketIo<Write, $At>,
            {
                let target: &$Io = &self.target;
                self.cursor.poll_write(target, cx, buffer)
            }

            /// Ready when every write accepted so far is complete. Says nothing of power loss.
            ///
            /// # Errors
            /// That of a write since the last flush, reported once.
            pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
                self.cursor.poll_flush(cx)
            }

            /// As `poll_read`, awaited.
            ///
            /// # Errors
            /// As `poll_read`.
            ///
            /// # Cancel safety
            /// Dropped while pending, it has read nothing; its bytes go to the next reader.
            pub async fn read_async(&mut self, buffer: &mut [u8]) -> Result<usize, Error>
            where
                $Io: PacketIo<Read, $At>,
            {
                poll_fn(|cx| self.poll_read(cx, buffer)).await
            }

            /// As `poll_write`, awaited.
            ///
            /// # Errors
            /// As `poll_write`.
            ///
            /// # Cancel safety
            /// Dropped while pending, it has accepted nothing.
            pub async fn write_async(&mut self, buffer: &[u8]) -> Result<usize, Error>
            where
                $Io: PacketIo<Write, $At>,
            {
                poll_fn(|cx| self.poll_write(cx, buffer)).await
            }

            /// As `poll_flush`, awaited.
            ///
            /// # Errors
            /// As `poll_flush`.
            ///
            /// # Cancel safety
            /// Dropped while pending, it has reported nothing.
            pub async fn flush_async(&mut self) -> Result<(), Error> {
                poll_fn(|cx| self.poll_flush(cx)).await
            }
        }

        // The target is never pinned.
        impl<$($generics)*> Unpin for $stream {}
    };
}

stream!([T] Seekable<T>, T, u64);
stream!([T: ?Sized] SeekableRef<'_, T>, T, u64);
stream!([T] Sequential<T>, T, ());

/// What streams with a position can do besides.
macro_rules! positioned {
    ([$($generics:tt)*] $stream:ty) => {
        impl<$($generics)*> $stream {
            /// Where the next byte is read or written, in bytes from the start.
            #[must_use]
            pub fn position(&self) -> u64 {
                self.cursor.position()
            }

            /// Continues at `position`, which may lie beyond the end. A pending read is
            /// forgotten.
            pub fn set_position(&mut self, position: u64) {
                self.cursor.set_position(position);
            }
        }

        impl<$($generics)*> fmt::Debug for $stream {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut name = f.debug_struct("Seekable");
                name.field("position", &self.position()).finish_non_exhaustive()
            }
        }
    };
}

positioned!([T] Seekable<T>);
positioned!([T: ?Sized] SeekableRef<'_, T>);

impl<T> Seekable<T> {
    /// `target` from its start on.
    #[must_use]
    pub fn new(target: T) -> Self {
        Self::with_limits(target, Limits::default())
    }

    /// As `new`, with other limits.
    #[must_use]
    pub fn with_limits(target: T, limits: Limits) -> Self {
        Self { target, cursor: Cursor::new(0, limits) }
    }

    /// The target. Writes under way go on, and nobody learns how they end: flush first.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.target
    }
}

impl<'a, T: ?Sized> SeekableRef<'a, T> {
    /// `target` from its start on.
    #[must_use]
    pub fn new(target: &'a T) -> Self {
        Self::with_limits(target, Limits::default())
    }

    /// As `new`, with other limits.
    #[must_use]
    pub fn with_limits(target: &'a T, limits: Limits) -> Self {
        Self { target, cursor: Cursor::new(0, limits) }
    }

    /// The target. As [`Seekable::into_inner`].
    #[must_use]
    pub fn into_inner(self) -> &'a T {
        self.target
    }
}

impl<T> Sequential<T> {
    /// What comes next from `target`, and goes next to it.
    #[must_use]
    pub fn new(target: T) -> Self {
        Self::with_limits(target, Limits::default())
    }

    /// As `new`, with other limits.
    #[must_use]
    pub fn with_limits(target: T, limits: Limits) -> Self {
        Self { target, cursor: Cursor::new((), limits) }
    }

    /// The target. Bytes kept for the next reader are lost, and writes under way go on: flush
    /// first.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.target
    }
}

impl<T> fmt::Debug for Sequential<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequential").finish_non_exhaustive()
    }
}
