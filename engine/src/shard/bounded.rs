//! One packet with a limit: a deadline, an explicit cancel, and an answer that says who won.
//!
//! Data flow: [`IoFut`] and [`Sleep`] polled together → the deadline passes, or the caller
//! asks → the packet is abandoned → its ops complete, each in its own way → [`Ended`]. The
//! buffer comes back with the completion of the last op and never before (F03); there is no
//! linked timeout that could swallow bytes (F17).
//!
//! Not here: what a ring does with a cancel request (`ring`), deadlines of batches (`batch`).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use mfio_core::{Buffer, Completed, Error, ErrorKind, IoFut, PacketIo, Perms};

use super::Shard;
use super::timer::Sleep;
use crate::ring::Ring;

/// Who won: the packet or whoever wanted it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Every byte was transferred, also where that was no longer wanted.
    Completed,
    /// The deadline won.
    TimedOut {
        /// Bytes from the start that are through; of the others nothing is known.
        done_bytes: u64,
    },
    /// [`Bounded::cancel`] won.
    Cancelled {
        /// Bytes from the start that are through; of the others nothing is known.
        done_bytes: u64,
    },
    /// Neither: something went wrong with the bytes.
    Failed {
        /// Bytes from the start that are through.
        done_bytes: u64,
        /// What went wrong with the first range that did not just stop.
        error: Error,
    },
}

/// What became of a packet with a limit, and the packet.
#[derive(Debug)]
#[must_use = "a packet may have failed, in part or as a whole"]
pub struct Ended<P: Perms, B: Buffer<P>> {
    /// Who won.
    pub outcome: Outcome,
    /// The packet with a result for every byte, and with its buffer.
    pub packet: Completed<P, B>,
}

impl<P: Perms, B: Buffer<P>> Ended<P, B> {
    fn new(packet: Completed<P, B>, asked: Option<Asked>) -> Self {
        if packet.is_ok() {
            return Self { outcome: Outcome::Completed, packet };
        }
        let done_bytes = packet.contiguous_bytes();
        let mut errors = packet.failed_ranges().into_iter().map(|range| range.error);
        let stopped = |error: &Error| asked.is_some() && error.kind() == ErrorKind::Cancelled;
        let outcome = match (errors.find(|error| !stopped(error)), asked) {
            (Some(error), _) => Outcome::Failed { done_bytes, error },
            (None, Some(Asked::Deadline)) => Outcome::TimedOut { done_bytes },
            (None, _) => Outcome::Cancelled { done_bytes },
        };
        Self { outcome, packet }
    }

    /// The buffer. Only of bytes that are through it is known what it holds.
    #[must_use]
    pub fn into_buffer(self) -> B {
        self.packet.into_buffer()
    }
}

/// Who wanted the packet stopped first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Deadline,
    Caller,
}

/// The future of a packet with a limit; see [`Shard::deadline`] and [`Shard::cancellable`].
///
/// # Cancel safety
/// As that of the packet's own future: dropping it frees the buffer when the kernel is through.
#[must_use = "nothing is sent before the first poll"]
pub struct Bounded<'a, R: Ring, Io: PacketIo<P, Param> + ?Sized, P: Perms, B: Buffer<P>, Param> {
    io: IoFut<'a, Io, P, B, Param>,
    /// `None` without a deadline, and once it has passed.
    sleep: Option<Sleep<R>>,
    asked: Option<Asked>,
}

impl<'a, R, Io, P, B, Param> Bounded<'a, R, Io, P, B, Param>
where
    R: Ring,
    Io: PacketIo<P, Param> + ?Sized,
    P: Perms,
    B: Buffer<P>,
{
    pub(super) fn new(io: IoFut<'a, Io, P, B, Param>, sleep: Option<Sleep<R>>) -> Self {
        Self { io, sleep, asked: None }
    }

    /// Asks for the packet to be stopped. Await the future all the same: it resolves when the
    /// ops of the packet have completed, with [`Outcome::Cancelled`] or with whatever was
    /// faster. Asking again changes nothing.
    pub fn cancel(&mut self) {
        self.stop(Asked::Caller);
    }

    fn stop(&mut self, asked: Asked) {
        if self.asked.is_none() {
            self.asked = Some(asked);
            self.sleep = None;
            self.io.cancel();
        }
    }
}

impl<R, Io, P, B, Param> Future for Bounded<'_, R, Io, P, B, Param>
where
    R: Ring,
    Io: PacketIo<P, Param> + ?Sized,
    P: Perms,
    B: Buffer<P>,
    Self: Unpin,
{
    type Output = Ended<P, B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut polled = Pin::new(&mut self.io).poll(cx);
        if polled.is_pending()
            && let Some(sleep) = &mut self.sleep
            && Pin::new(sleep).poll(cx).is_ready()
        {
            self.stop(Asked::Deadline);
            // What had not been started is over already.
            polled = Pin::new(&mut self.io).poll(cx);
        }
        polled.map(|packet| Ended::new(packet, self.asked))
    }
}

impl<R, Io, P, B, Param> fmt::Debug for Bounded<'_, R, Io, P, B, Param>
where
    R: Ring,
    Io: PacketIo<P, Param> + ?Sized,
    P: Perms,
    B: Buffer<P>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").field("io", &self.io).field("sleep", &self.sleep).finish()
    }
}

impl<R: Ring> Shard<R> {
    /// The time of the shard's clock, in nanoseconds: the one that deadlines are told in.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.inner.core.borrow().ring.now_ns()
    }

    /// Resolves at `at_ns` of [`Shard::now_ns`], at once where that has passed. Fired by
    /// [`Shard::turn`], so not while the shard's thread does something else.
    pub fn sleep_until(&self, at_ns: u64) -> Sleep<R> {
        Sleep::new(self, at_ns)
    }

    /// Resolves `ns` nanoseconds from this call on.
    pub fn sleep_ns(&self, ns: u64) -> Sleep<R> {
        self.sleep_until(self.now_ns().saturating_add(ns))
    }

    /// Sends the packet of `io`, and asks for it to be stopped at `at_ns` of
    /// [`Shard::now_ns`]. The answer says which of the two won.
    ///
    /// ```
    /// # use mfio_core::{Packet, PacketIoExt, Read, block_on};
    /// # use mfio_engine::{Config, OpenOptions, Outcome, Shard, ring::threads::ThreadRing};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let shard = Shard::with_ring(ThreadRing::new(2, 64)?, &Config::new())?;
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::write(dir.path().join("data"), [7; 512])?;
    /// # let file = shard.open(&dir.path().join("data"), &OpenOptions::default())?;
    /// let read = file.io(0, Packet::<Read, _>::new(vec![0; 512]));
    /// let ended = block_on(&shard, shard.deadline(shard.now_ns() + 5_000_000, read))?;
    /// if let Outcome::TimedOut { done_bytes } = ended.outcome {
    ///     println!("given up after {done_bytes} bytes");
    /// }
    /// let _buffer = ended.into_buffer();
    /// # Ok(())
    /// # }
    /// ```
    pub fn deadline<'a, Io, P, B, Param>(
        &self,
        at_ns: u64,
        io: IoFut<'a, Io, P, B, Param>,
    ) -> Bounded<'a, R, Io, P, B, Param>
    where
        Io: PacketIo<P, Param> + ?Sized,
        P: Perms,
        B: Buffer<P>,
    {
        Bounded::new(io, Some(self.sleep_until(at_ns)))
    }

    /// Sends the packet of `io`, which [`Bounded::cancel`] stops.
    pub fn cancellable<'a, Io, P, B, Param>(
        &self,
        io: IoFut<'a, Io, P, B, Param>,
    ) -> Bounded<'a, R, Io, P, B, Param>
    where
        Io: PacketIo<P, Param> + ?Sized,
        P: Perms,
        B: Buffer<P>,
    {
        Bounded::new(io, None)
    }
}
