//! What makes I/O progress: driving a backend, and waiting for it.
//!
//! A backend does nothing by itself. Whoever waits for a packet drives it, or something else
//! does (another thread, a host runtime). Data flow: future pending → [`Drive::park`], or
//! [`Drive::poll_drive`] where there is more to poll → future again.
//!
//! | who waits | with what |
//! |---|---|
//! | a thread | [`block_on`], or [`block_on_with`] and a [`Park`] of its own (`no_std`) |
//! | a task of any runtime | [`with_backend`] |
//! | a task of Tokio or of async-io, woken by descriptors | [`integration`] |
//!
//! Not here: what a backend does with packets (`io`), shards (the engine crate).

use core::fmt;
use core::task::{Context, Poll, Waker};

mod block;
mod claim;
mod embed;
mod handle;
pub mod integration;
mod nested;
mod park;

pub use block::{block_on, block_on_with};
pub use claim::Claim;
#[cfg(feature = "std")]
pub use claim::Turn;
pub use embed::with_backend;
pub use handle::BackendHandle;
pub use nested::Nested;
#[cfg(feature = "std")]
pub use park::ThreadPark;
pub use park::{Park, SpinPark};

/// Makes I/O progress when called.
pub trait Drive {
    /// Does everything that can be done without waiting, waking whom it concerns. `cx` is
    /// woken when there is more to do and no [`PollingHandle`] would tell: later, from
    /// elsewhere, or at once where something is left over.
    fn poll_drive(&self, cx: &mut Context<'_>);

    /// As `poll_drive`, but blocks until something was done, or until `unpark_waker` is used,
    /// even if that was before the call. Returns false, having done nothing, where the backend
    /// cannot block or has nothing to wait for: the caller then drives and parks its own way.
    fn park(&self) -> bool {
        false
    }

    /// Ends a `park` early, from any thread. `None` where `park` cannot block.
    fn unpark_waker(&self) -> Option<Waker> {
        None
    }

    /// Whether somebody else makes the progress, and wakes, as long as nobody parks in this:
    /// who has another backend to park in then does that.
    fn is_driven_elsewhere(&self) -> bool {
        false
    }
}

/// Something whose I/O needs driving.
pub trait IoBackend {
    /// What to watch when a host runtime drives; `None` where completions come from elsewhere
    /// and wake by themselves.
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        None
    }

    /// Names everything to watch, where one handle is not enough: backends made of several.
    fn polling_handles<'a>(&'a self, add: &mut dyn FnMut(PollingHandle<'a>)) {
        if let Some(handle) = self.polling_handle() {
            add(handle);
        }
    }

    /// The right to drive, exclusively. `Ok(None)` where no driving is needed.
    ///
    /// # Errors
    /// [`BackendBusy`] while somebody else holds the right, in this thread or another.
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy>;

    /// As `get_backend`, but waits for the right: `cx` is woken when it is given back. For
    /// backends that threads share; the others do not wait, which is what this does unless it
    /// is overridden. Override [`IoBackend::stop_waiting`] with it.
    ///
    /// # Errors
    /// [`BackendBusy`] where waiting could not end: this very thread holds the right.
    fn poll_backend(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<BackendHandle<'_>>, BackendBusy>> {
        let _ = cx;
        Poll::Ready(self.get_backend())
    }

    /// Who waited by `poll_backend` with this waker no longer does.
    fn stop_waiting(&self, waker: &Waker) {
        let _ = waker;
    }
}

impl<B: IoBackend + ?Sized> IoBackend for &B {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        (**self).polling_handle()
    }

    fn polling_handles<'a>(&'a self, add: &mut dyn FnMut(PollingHandle<'a>)) {
        (**self).polling_handles(add);
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        (**self).get_backend()
    }

    fn poll_backend(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<BackendHandle<'_>>, BackendBusy>> {
        (**self).poll_backend(cx)
    }

    fn stop_waiting(&self, waker: &Waker) {
        (**self).stop_waiting(waker);
    }
}

/// What tells that a backend wants driving, and on which event.
///
/// Descriptors may be watched by their edge: a drive takes everything that made the descriptor
/// ready, or wakes its context.
#[derive(Clone, Copy, Debug)]
pub struct PollingHandle<'a> {
    /// What to watch.
    pub source: PollSource<'a>,
    /// Drive the backend when the source is readable.
    pub readable: bool,
    /// Drive the backend when the source is writable.
    pub writable: bool,
}

/// What can be watched.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum PollSource<'a> {
    /// A descriptor of the operating system, for epoll and the like.
    #[cfg(all(feature = "std", unix))]
    Fd(std::os::fd::BorrowedFd<'a>),
    /// Anything else, by its own means: an interrupt, a ring in shared memory. Works in every
    /// executor, because it is asked, and wakes.
    Custom(&'a dyn Pollable),
}

impl fmt::Debug for PollSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(all(feature = "std", unix))]
            Self::Fd(fd) => fd.fmt(f),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}

/// A source of readiness that is no descriptor.
pub trait Pollable {
    /// Ready when the backend wants driving for one of the events asked for; else `cx` is woken
    /// once it does.
    fn poll_event(&self, cx: &mut Context<'_>, readable: bool, writable: bool) -> Poll<()>;
}

/// Asks every source that is no descriptor. True if one is ready; the others wake `cx`.
fn poll_custom(backend: &(impl IoBackend + ?Sized), cx: &mut Context<'_>) -> bool {
    let mut ready = false;
    backend.polling_handles(&mut |handle| match handle.source {
        PollSource::Custom(source) => {
            ready |= source.poll_event(cx, handle.readable, handle.writable).is_ready();
        }
        #[cfg(all(feature = "std", unix))]
        PollSource::Fd(_) => {}
    });
    ready
}

/// How many descriptors tell of this backend. Custom sources do not count: they wake.
#[cfg(all(feature = "std", unix))]
fn descriptors_of(backend: &(impl IoBackend + ?Sized)) -> usize {
    let mut descriptors = 0;
    backend.polling_handles(&mut |handle| {
        descriptors += usize::from(matches!(handle.source, PollSource::Fd(_)));
    });
    descriptors
}

/// How many descriptors tell of this backend: there is no such thing here.
#[cfg(not(all(feature = "std", unix)))]
fn descriptors_of(_backend: &(impl IoBackend + ?Sized)) -> usize {
    0
}

/// Somebody else drives this backend at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendBusy;

impl fmt::Display for BackendBusy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the backend is already being driven: a blocking call inside a task of the same \
             backend would wait for itself; await instead",
        )
    }
}

impl core::error::Error for BackendBusy {}
