//! One future, one backend, and the descriptors that tell when to drive it again.
//!
//! Data flow: future and backend polled → both idle → waits for every descriptor polled → one
//! is ready → its readiness taken, then polled again from the start.
//!
//! Not here: how a host waits for a descriptor (`tokio`, `async_io`).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll};
use std::io;
use std::os::fd::OwnedFd;

use super::super::embed::Embedded;
use crate::backend::{IoBackend, PollSource};

/// Resolves once when a descriptor is ready, having taken that readiness.
pub(super) type Wait<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

/// A descriptor that a host waits for, and how.
pub(super) trait Watch: Sized {
    /// Watches a duplicate of a backend's descriptor: it stays open as long as it is watched,
    /// and the backend may be watched elsewhere too.
    fn new(fd: OwnedFd, readable: bool, writable: bool) -> io::Result<Self>;

    fn wait(&self) -> Wait<'_>;
}

/// Everything of `backend` that is to be watched.
pub(super) fn watch_all<W: Watch>(backend: &impl IoBackend) -> io::Result<Vec<W>> {
    let mut watched = Ok(Vec::new());
    backend.polling_handles(&mut |handle| {
        let PollSource::Fd(fd) = handle.source else { return };
        if let Ok(all) = &mut watched {
            let add = fd.try_clone_to_owned();
            match add.and_then(|fd| W::new(fd, handle.readable, handle.writable)) {
                Ok(one) => all.push(one),
                Err(error) => watched = Err(error),
            }
        }
    });
    watched
}

pub(super) async fn run<B, W, F>(backend: &B, watched: &[W], future: F) -> io::Result<F::Output>
where
    B: IoBackend,
    W: Watch,
    F: Future,
{
    let mut embedded = Embedded::new(backend);
    let mut future = pin!(future);
    let mut waits: Vec<Option<Wait<'_>>> = watched.iter().map(|_| None).collect();
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = embedded.poll(future.as_mut(), cx) {
                let busy = |busy| io::Error::new(io::ErrorKind::ResourceBusy, busy);
                return Poll::Ready(done.map_err(busy));
            }
            // Readiness is taken before the backend is driven again, so that what arrives
            // while it is driven is not missed.
            if !poll_waits(watched, &mut waits, cx)? {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Whether a descriptor was ready. If none was, `cx` is woken by the first that is.
fn poll_waits<'a, W: Watch>(
    watched: &'a [W],
    waits: &mut [Option<Wait<'a>>],
    cx: &mut Context<'_>,
) -> io::Result<bool> {
    let mut ready = false;
    for (one, slot) in watched.iter().zip(waits) {
        let wait = slot.get_or_insert_with(|| one.wait());
        if let Poll::Ready(waited) = wait.as_mut().poll(cx) {
            *slot = None;
            waited?;
            ready = true;
        }
    }
    Ok(ready)
}
