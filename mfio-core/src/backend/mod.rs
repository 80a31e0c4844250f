//! What makes I/O progress: driving a backend, and waiting for it.
//!
//! A backend does nothing by itself. Whoever waits for a packet drives it, or something else
//! does (another thread, a host runtime). Data flow: future pending → [`Drive::park`], or
//! [`Drive::poll_drive`] where there is more to poll → future again.
//!
//! Not here: what a backend does with packets (`io`), shards (the engine crate).

use alloc::sync::Arc;
use alloc::task::Wake;
use core::cell::Cell;
use core::fmt;
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

/// A descriptor by which a host runtime (epoll, Tokio) learns that a backend wants driving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollingHandle {
    /// The descriptor. Whoever embeds a backend without `std` gives it a meaning of its own.
    pub descriptor: i32,
    /// Drive the backend when the descriptor is readable.
    pub readable: bool,
    /// Drive the backend when the descriptor is writable.
    pub writable: bool,
}

/// Makes I/O progress when called.
pub trait Drive {
    /// Does everything that can be done without waiting, waking whom it concerns. `cx` is
    /// woken when there is more to do and no [`PollingHandle`] would tell.
    fn poll_drive(&self, cx: &mut Context<'_>);

    /// As `poll_drive`, but blocks until something was done, or until `unpark_waker` is used.
    /// Returns false, having done nothing, where the backend cannot block: the caller then
    /// drives and parks its own way.
    fn park(&self) -> bool {
        false
    }

    /// Ends a `park` early, from any thread. `None` where `park` cannot block.
    fn unpark_waker(&self) -> Option<Waker> {
        None
    }
}

/// Something whose I/O needs driving.
pub trait IoBackend {
    /// The descriptor to watch when a host runtime drives; `None` where completions come
    /// from elsewhere and wake by themselves.
    fn polling_handle(&self) -> Option<PollingHandle> {
        None
    }

    /// The right to drive, exclusively. `Ok(None)` where no driving is needed.
    ///
    /// # Errors
    /// [`BackendBusy`] while somebody else holds the right, in this thread or another.
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy>;
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

/// The exclusive right to drive a backend; given back on drop.
pub struct BackendHandle<'a> {
    drive: &'a dyn Drive,
    taken: &'a Cell<bool>,
}

impl<'a> BackendHandle<'a> {
    /// Takes the right that `taken` guards.
    ///
    /// # Errors
    /// [`BackendBusy`] if it is taken.
    pub fn acquire(drive: &'a dyn Drive, taken: &'a Cell<bool>) -> Result<Self, BackendBusy> {
        if taken.replace(true) {
            return Err(BackendBusy);
        }
        Ok(Self { drive, taken })
    }

    /// The backend.
    #[must_use]
    pub fn drive(&self) -> &dyn Drive {
        self.drive
    }
}

impl Drop for BackendHandle<'_> {
    fn drop(&mut self) {
        self.taken.set(false);
    }
}

impl fmt::Debug for BackendHandle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackendHandle")
    }
}

/// Remembers that it was called, and ends the wait of the thread that made it.
struct Alarm {
    called: AtomicBool,
    unpark: Option<Waker>,
    #[cfg(feature = "std")]
    thread: std::thread::Thread,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.called.swap(true, Ordering::Release) {
            return;
        }
        if let Some(unpark) = &self.unpark {
            unpark.wake_by_ref();
        }
        #[cfg(feature = "std")]
        self.thread.unpark();
    }
}

impl Alarm {
    fn new(unpark: Option<Waker>) -> Arc<Self> {
        Arc::new(Self {
            called: AtomicBool::new(false),
            unpark,
            #[cfg(feature = "std")]
            thread: std::thread::current(),
        })
    }

    /// Whether it was called since the last time this was asked.
    fn was_called(&self) -> bool {
        self.called.swap(false, Ordering::Acquire)
    }

    fn wait(&self) {
        #[cfg(feature = "std")]
        std::thread::park();
        #[cfg(not(feature = "std"))]
        core::hint::spin_loop();
    }
}

/// Runs `future` to its end on this thread, driving `backend` meanwhile: how synchronous code
/// uses the very same I/O as asynchronous code. Without `std`, a backend that cannot park is
/// polled in a loop.
///
/// ```
/// use mfio_core::{IoRead, block_on, mem::Mem};
/// let target = Mem::from(vec![7; 4]);
/// let (result, bytes) = block_on(&target, target.read_exact(0, vec![0; 4])).unwrap();
/// assert_eq!((result, bytes), (Ok(()), vec![7; 4]));
/// ```
///
/// # Errors
/// [`BackendBusy`] where the backend is being driven already: this is a blocking call inside
/// one of its own tasks, or inside another `block_on`. Nothing of `future` has run then.
pub fn block_on<F: Future>(
    backend: &(impl IoBackend + ?Sized),
    future: F,
) -> Result<F::Output, BackendBusy> {
    let backend = backend.get_backend()?;
    let mut future = pin!(future);
    let alarm = Alarm::new(backend.as_ref().and_then(|backend| backend.drive.unpark_waker()));
    let waker = Waker::from(Arc::clone(&alarm));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Ok(output);
        }
        let woken = alarm.was_called();
        if let Some(backend) = &backend {
            if !woken && backend.drive.park() {
                continue;
            }
            backend.drive.poll_drive(&mut cx);
        }
        if !woken && !alarm.was_called() {
            alarm.wait();
        }
    }
}
