//! async-io (and so smol) as the host: its reactor watches the backend's descriptors.
//!
//! Data flow: epoll → task of any executor → user's future → backend.
//!
//! Not here: the order of polling (`watch`).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use std::io;
use std::os::fd::OwnedFd;

use ::async_io::Async;

use super::watch::{Wait, Watch, run, watch_all};
use crate::backend::IoBackend;

/// Drives a backend in tasks of any executor, with the reactor of the crate `async-io`.
///
/// Several tasks may `run` on one host at the same time: they take turns to drive, so a `Sync`
/// backend's claim is a [`Turn`](crate::backend::Turn).
#[derive(Debug)]
pub struct AsyncIo<B> {
    watched: Vec<Fd>,
    backend: B,
}

#[derive(Debug)]
struct Fd {
    fd: Async<OwnedFd>,
    readable: bool,
    writable: bool,
}

impl Watch for Fd {
    fn new(fd: OwnedFd, readable: bool, writable: bool) -> io::Result<Self> {
        // Nothing is read from it here, so whether it blocks stays the backend's business.
        let fd = Async::new_nonblocking(fd)?;
        // What asks for nothing still reports errors and hang-ups.
        Ok(Self { fd, readable: readable || !writable, writable })
    }

    fn wait(&self) -> Wait<'_> {
        Box::pin(async {
            let (mut read, mut write) = (pin!(self.fd.readable()), pin!(self.fd.writable()));
            poll_fn(|cx| {
                if self.readable
                    && let Poll::Ready(ready) = read.as_mut().poll(cx)
                {
                    return Poll::Ready(ready);
                }
                if self.writable { write.as_mut().poll(cx) } else { Poll::Pending }
            })
            .await
        })
    }
}

impl<B: IoBackend> AsyncIo<B> {
    /// Hosts `backend`, which may be a reference, and watches its descriptors from now on.
    ///
    /// # Errors
    /// The system's, where a descriptor cannot be duplicated or watched.
    pub fn new(backend: B) -> io::Result<Self> {
        Ok(Self { watched: watch_all(&backend)?, backend })
    }

    /// The backend.
    #[must_use]
    pub const fn backend(&self) -> &B {
        &self.backend
    }

    /// The backend back, no longer watched.
    #[must_use]
    pub fn into_backend(self) -> B {
        self.backend
    }

    /// Runs `future`, driving the backend whenever it is due.
    ///
    /// # Errors
    /// `ResourceBusy` where [`with_backend`](crate::backend::with_backend) says
    /// [`BackendBusy`](crate::BackendBusy); the reactor's own errors.
    ///
    /// # Cancel safety
    /// Dropping it drops `future`; packets under way complete when another `run` drives.
    pub async fn run<F: Future>(&self, future: F) -> io::Result<F::Output> {
        run(&self.backend, &self.watched, future).await
    }

    /// Hosts `backend` for the length of `work`. The future goes before the backend that it
    /// borrows, whether it ends or is dropped.
    ///
    /// # Errors
    /// As [`AsyncIo::new`] and [`AsyncIo::run`].
    ///
    /// # Cancel safety
    /// As [`AsyncIo::run`]; the backend is dropped too, and does with its packets what its drop
    /// says.
    pub async fn run_with<W, T>(backend: B, work: W) -> io::Result<T>
    where
        W: AsyncFnOnce(&B) -> T,
    {
        let host = Self::new(backend)?;
        let done = host.run(work(&host.backend)).await;
        drop(host);
        done
    }
}
