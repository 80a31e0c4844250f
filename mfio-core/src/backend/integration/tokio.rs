//! Tokio as the host: its reactor watches the backend's descriptors.
//!
//! Data flow: epoll → Tokio task → user's future → backend.
//!
//! Not here: the order of polling (`watch`), Tokio's stream traits (`stream`).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::Future;
use std::io;
use std::os::fd::OwnedFd;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use super::watch::{Wait, Watch, run, watch_all};
use crate::backend::IoBackend;

/// Drives a backend in tasks of Tokio.
///
/// On a multi-threaded runtime futures must be `Send`, so the backend is `Sync`; any backend
/// can be hosted by a current-thread runtime or a `LocalSet`. Several tasks may `run` on one
/// host at the same time: they take turns to drive, so a `Sync` backend's claim is a
/// [`Turn`](crate::backend::Turn).
#[derive(Debug)]
pub struct Tokio<B> {
    watched: Vec<Fd>,
    backend: B,
}

#[derive(Debug)]
struct Fd {
    fd: AsyncFd<OwnedFd>,
    interest: Interest,
}

impl Watch for Fd {
    fn new(fd: OwnedFd, readable: bool, writable: bool) -> io::Result<Self> {
        let interest = match (readable, writable) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (false, true) => Interest::WRITABLE,
            // What asks for nothing still reports errors and hang-ups.
            (_, false) => Interest::READABLE,
        };
        #[allow(
            deprecated,
            reason = "its successor is unsafe for types whose descriptor may change: this one's \
                      cannot"
        )]
        let fd = AsyncFd::with_interest(fd, interest)?;
        Ok(Self { fd, interest })
    }

    fn wait(&self) -> Wait<'_> {
        Box::pin(async {
            self.fd.ready(self.interest).await?.clear_ready();
            Ok(())
        })
    }
}

impl<B: IoBackend> Tokio<B> {
    /// Hosts `backend`, which may be a reference, and watches its descriptors from now on.
    ///
    /// # Errors
    /// The system's, where a descriptor cannot be duplicated or watched.
    ///
    /// # Panics
    /// Outside a Tokio runtime, or in one without I/O enabled, where there is a descriptor.
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
    /// [`BackendBusy`](crate::BackendBusy); Tokio's own error when the runtime shuts down.
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
    /// As [`Tokio::new`] and [`Tokio::run`].
    ///
    /// # Panics
    /// As [`Tokio::new`].
    ///
    /// # Cancel safety
    /// As [`Tokio::run`]; the backend is dropped too, and does with its packets what its drop
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
