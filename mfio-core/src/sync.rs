//! The blocking twins of [`IoRead`] and [`IoWrite`]: for code that has no executor and wants none.
//!
//! They work on any handle that knows its backend, and on the caller's own slices: a call that
//! does not return before the packet is idle may lend them out, without a copy.
//! Data flow: slice → packet → backend, driven by the caller → slice.
//!
//! Not here: awaiting (`traits`), waiting for several packets (`packet::completions`).

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use bytemuck::Pod;

use crate::backend::{BackendBusy, IoBackend, block_on};
use crate::error::{Error, ErrorKind};
use crate::io::{IoFut, PacketIo, PacketIoExt};
use crate::packet::raw::Borrowed;
use crate::packet::{Completed, Packet, Perms, Read, Write};
use crate::traits::{IoRead, IoWrite};

/// Why a blocking call did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockingError {
    /// The backend is being driven by somebody else. Nothing was sent.
    Busy,
    /// This error of the first range that failed; `done_bytes` before it were transferred.
    Failed {
        /// Bytes from the start, without a gap.
        done_bytes: u64,
        /// What went wrong then.
        error: Error,
    },
}

impl From<BackendBusy> for BlockingError {
    fn from(_: BackendBusy) -> Self {
        Self::Busy
    }
}

impl fmt::Display for BlockingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => write!(f, "{BackendBusy}"),
            Self::Failed { done_bytes, error } => {
                write!(f, "{error}, after {done_bytes} bytes")
            }
        }
    }
}

impl core::error::Error for BlockingError {}

/// Blocking reads on anything that takes [`Read`] packets and knows its backend.
pub trait BlockingRead<Param>: PacketIo<Read, Param> + IoBackend {
    /// Fills all of `bytes` from `at` on, directly: nothing is copied on the way.
    ///
    /// ```
    /// use mfio_core::{BlockingRead, mem::Mem};
    /// let mut bytes = [0; 4];
    /// Mem::from(b"no colour".to_vec()).blocking_read_exact(3, &mut bytes).unwrap();
    /// assert_eq!(&bytes, b"colo");
    /// ```
    ///
    /// # Errors
    /// [`BlockingError::Busy`] where the backend is being driven already;
    /// [`BlockingError::Failed`] with what was read before. A target that ends inside is
    /// [`ErrorKind::UnexpectedEof`].
    fn blocking_read_exact(&self, at: Param, bytes: &mut [u8]) -> Result<(), BlockingError> {
        outcome(&scoped(self, at, Packet::<Read, _>::new(Borrowed::filled(bytes)))?)
    }

    /// Reads as much as there is without a gap, up to the length of `bytes`; 0 is the end.
    ///
    /// # Errors
    /// As [`BlockingRead::blocking_read_exact`], but for the end of the target, and only
    /// where not a single byte was read.
    fn blocking_read_some(&self, at: Param, bytes: &mut [u8]) -> Result<u64, BlockingError> {
        let done = scoped(self, at, Packet::<Read, _>::new(Borrowed::filled(bytes)))?;
        match outcome(&done) {
            Err(BlockingError::Failed { done_bytes, error })
                if done_bytes > 0 || error.kind() == ErrorKind::UnexpectedEof =>
            {
                Ok(done_bytes)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(done.contiguous_bytes()),
        }
    }

    /// Reads one plain value.
    ///
    /// # Errors
    /// As [`BlockingRead::blocking_read_exact`].
    fn blocking_read_value<T: Pod>(&self, at: Param) -> Result<T, BlockingError> {
        let value = block_on(self, self.read_value(at))?;
        value.map_err(|error| BlockingError::Failed { done_bytes: 0, error })
    }
}

impl<Param, Io: PacketIo<Read, Param> + IoBackend + ?Sized> BlockingRead<Param> for Io {}

/// Blocking writes on anything that takes [`Write`] packets and knows its backend.
pub trait BlockingWrite<Param>: PacketIo<Write, Param> + IoBackend {
    /// Writes all of `bytes` from `at` on, directly: nothing is copied on the way.
    ///
    /// # Errors
    /// [`BlockingError::Busy`] where the backend is being driven already;
    /// [`BlockingError::Failed`] with what was written before; later ranges may have been
    /// written too.
    fn blocking_write_exact(&self, at: Param, bytes: &[u8]) -> Result<(), BlockingError> {
        outcome(&scoped(self, at, Packet::<Write, _>::new(Borrowed::written(bytes)))?)
    }

    /// Writes one plain value.
    ///
    /// # Errors
    /// As [`BlockingWrite::blocking_write_exact`].
    fn blocking_write_value<T: Pod>(&self, at: Param, value: T) -> Result<(), BlockingError> {
        let written = block_on(self, self.write_value(at, value))?;
        written.map_err(|error| BlockingError::Failed { done_bytes: 0, error })
    }
}

impl<Param, Io: PacketIo<Write, Param> + IoBackend + ?Sized> BlockingWrite<Param> for Io {}

fn outcome<P: Perms>(done: &Completed<P, Borrowed>) -> Result<(), BlockingError>
where
    Borrowed: crate::packet::Buffer<P>,
{
    match done.error() {
        None => Ok(()),
        Some(error) => Err(BlockingError::Failed { done_bytes: done.contiguous_bytes(), error }),
    }
}

fn scoped<P, Param, Io>(
    io: &Io,
    at: Param,
    packet: Packet<P, Borrowed>,
) -> Result<Completed<P, Borrowed>, BackendBusy>
where
    P: Perms,
    Io: PacketIo<P, Param> + IoBackend + ?Sized,
    Borrowed: crate::packet::Buffer<P>,
{
    block_on(io, Scoped { io, future: io.io(at, packet) })
}

/// The future of a packet over borrowed bytes. However the call ends, it does not end before
/// the backend is through with them.
struct Scoped<'a, Io, P, Param>
where
    Io: PacketIo<P, Param> + IoBackend + ?Sized,
    P: Perms,
    Borrowed: crate::packet::Buffer<P>,
{
    io: &'a Io,
    future: IoFut<'a, Io, P, Borrowed, Param>,
}

impl<Io, P, Param> Future for Scoped<'_, Io, P, Param>
where
    Io: PacketIo<P, Param> + IoBackend + ?Sized,
    P: Perms,
    Borrowed: crate::packet::Buffer<P>,
{
    type Output = Completed<P, Borrowed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.get_mut().future).poll(cx)
    }
}

impl<Io, P, Param> Drop for Scoped<'_, Io, P, Param>
where
    Io: PacketIo<P, Param> + IoBackend + ?Sized,
    P: Perms,
    Borrowed: crate::packet::Buffer<P>,
{
    /// In flight here means that something panicked while the call waited, or that the backend
    /// refused to be driven when it had taken some of the packet.
    fn drop(&mut self) {
        let outstanding = Outstanding;
        self.future.give_up_unsent();
        let mut refusals = 0_u32;
        while self.future.is_in_flight() {
            match self.io.get_backend() {
                // Somebody else completes it.
                Ok(None) => breathe(),
                Ok(Some(backend)) => {
                    if !backend.drive().park() {
                        let mut cx = Context::from_waker(core::task::Waker::noop());
                        backend.drive().poll_drive(&mut cx);
                    }
                }
                // Perhaps another thread drives it; perhaps nobody but the call that is being
                // unwound does, which cannot any more. Returning would leave the backend with
                // memory that is no longer ours.
                Err(BackendBusy) if refusals < REFUSALS_MAX => {
                    refusals += 1;
                    breathe();
                }
                Err(BackendBusy) => abort(),
            }
        }
        outstanding.end();
    }
}

/// Bytes of a caller that a backend may still use. A panic of the backend's must not end the
/// call either, and nothing else drops this.
struct Outstanding;

impl Outstanding {
    #[allow(clippy::mem_forget, reason = "nothing is in it")]
    fn end(self) {
        core::mem::forget(self);
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        abort();
    }
}

/// Refusals to drive after which nobody else is believed to be driving.
const REFUSALS_MAX: u32 = 1 << 20;

#[cfg(feature = "std")]
fn breathe() {
    std::thread::yield_now();
}

#[cfg(not(feature = "std"))]
fn breathe() {
    core::hint::spin_loop();
}

#[cfg(feature = "std")]
fn abort() -> ! {
    std::process::abort()
}

#[cfg(not(feature = "std"))]
fn abort() -> ! {
    loop {
        core::hint::spin_loop();
    }
}
