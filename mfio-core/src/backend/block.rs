//! Synchronous code on asynchronous I/O: run one future to its end on this thread.
//!
//! Data flow: future pending → drive → parked in the backend or in the thread → woken → future.
//! Where several threads block on one backend, one drives and the others sleep.
//!
//! Not here: tasks of other runtimes (`embed`, `integration`).

use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use super::{BackendBusy, BackendHandle, IoBackend, Park, descriptors_of, poll_custom};

/// Remembers that it was called, and ends the wait of the thread that made it.
struct Alarm {
    called: AtomicBool,
    /// Ends the wait of the backend, where that is how the thread waits.
    unpark: Option<Waker>,
    /// The same for a thread that had to wait for its turn to drive.
    #[cfg(feature = "std")]
    unpark_later: std::sync::OnceLock<Waker>,
    #[cfg(feature = "std")]
    thread: std::thread::Thread,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Acquires what `was_called` released: whoever cleared the flag has set `unpark_later`.
        if !self.called.swap(true, Ordering::AcqRel) {
            self.end_waits();
        }
    }
}

impl Alarm {
    fn new(unpark: Option<Waker>) -> Arc<Self> {
        Arc::new(Self {
            called: AtomicBool::new(false),
            unpark,
            #[cfg(feature = "std")]
            unpark_later: std::sync::OnceLock::new(),
            #[cfg(feature = "std")]
            thread: std::thread::current(),
        })
    }

    fn end_waits(&self) {
        if let Some(unpark) = &self.unpark {
            unpark.wake_by_ref();
        }
        #[cfg(feature = "std")]
        {
            if let Some(unpark) = self.unpark_later.get() {
                unpark.wake_by_ref();
            }
            self.thread.unpark();
        }
    }

    /// Whether it was called since the last time this was asked.
    fn was_called(&self) -> bool {
        self.called.swap(false, Ordering::AcqRel)
    }

    fn is_called(&self) -> bool {
        self.called.load(Ordering::Acquire)
    }

    /// From now on a call ends the wait of the backend too. False where that cannot be had.
    fn unparks(&self, waker: Waker) -> bool {
        #[cfg(feature = "std")]
        let set = self.unpark_later.set(waker).is_ok();
        #[cfg(not(feature = "std"))]
        let set = {
            drop(waker);
            false
        };
        set
    }
}

/// How to wait when there is nothing to do.
enum Way {
    /// In this level of the backend.
    Backend(usize),
    /// In the thread: everything wakes.
    Thread,
    /// Not at all: of several things none tells of the others.
    Poll,
}

impl Way {
    /// How to wait in `handle`, and what ends it.
    fn of(
        backend: &(impl IoBackend + ?Sized),
        handle: Option<&BackendHandle<'_>>,
    ) -> (Self, Option<Waker>) {
        let Some(handle) = handle else { return (Self::Thread, None) };
        let descriptors = descriptors_of(backend);
        match handle.parker(descriptors) {
            (0, _) if descriptors == 0 => (Self::Thread, None),
            (1, Some((level, unpark))) if descriptors <= 1 => (Self::Backend(level), Some(unpark)),
            _ => (Self::Poll, None),
        }
    }

    fn wait(&self) {
        #[cfg(feature = "std")]
        match self {
            Self::Poll => std::thread::yield_now(),
            Self::Backend(_) | Self::Thread => std::thread::park(),
        }
        #[cfg(not(feature = "std"))]
        core::hint::spin_loop();
    }
}

/// Waits for the right to drive, and stops waiting when dropped.
pub(super) struct Turnstile<'a, B: IoBackend + ?Sized> {
    backend: &'a B,
    /// With which waker it waits.
    waiting: Option<Waker>,
}

impl<'a, B: IoBackend + ?Sized> Turnstile<'a, B> {
    pub(super) fn new(backend: &'a B) -> Self {
        Self { backend, waiting: None }
    }

    /// As [`IoBackend::poll_backend`], remembering the waker that waits.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<BackendHandle<'a>>, BackendBusy>> {
        let polled = self.backend.poll_backend(cx);
        if polled.is_pending() && !self.waits_with(cx.waker()) {
            self.leave();
            self.waiting = Some(cx.waker().clone());
        }
        polled
    }

    fn waits_with(&self, waker: &Waker) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(waker))
    }

    fn leave(&mut self) {
        if let Some(waker) = self.waiting.take() {
            self.backend.stop_waiting(&waker);
        }
    }
}

impl<B: IoBackend + ?Sized> Drop for Turnstile<'_, B> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Runs `future` to its end on this thread, driving `backend` meanwhile: how synchronous code
/// uses the very same I/O as asynchronous code.
///
/// Waits in the backend where that can block ([`Drive::park`](super::Drive::park)), else in the
/// thread. Polls in a loop where neither would do: a backend with a descriptor that cannot
/// park, several backends in one that can, or no `std` (see [`block_on_with`]).
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
/// Backends that threads share ([`Turn`](super::Turn)) wait instead.
pub fn block_on<B: IoBackend + ?Sized, F: Future>(
    backend: &B,
    future: F,
) -> Result<F::Output, BackendBusy> {
    let first = backend.get_backend().ok();
    let (mut way, unpark) = Way::of(backend, first.as_ref().and_then(Option::as_ref));
    let alarm = Alarm::new(unpark);
    let waker = Waker::from(Arc::clone(&alarm));
    let mut cx = Context::from_waker(&waker);
    let mut turnstile = Turnstile::new(backend);
    let mut take_turn = |cx: &mut Context<'_>, way: &mut Way| {
        let turn = turnstile.poll(cx)?;
        if let Poll::Ready(handle) = &turn {
            let (found, unpark) = Way::of(backend, handle.as_ref());
            let ends = unpark.is_none_or(|unpark| alarm.unparks(unpark));
            *way = if ends { found } else { Way::Poll };
        }
        Ok(turn)
    };
    let mut turn = match first {
        Some(handle) => Poll::Ready(handle),
        None => take_turn(&mut cx, &mut way)?,
    };
    // Declared after the right to drive, so that it is dropped while nobody else drives.
    let mut future = pin!(future);
    loop {
        // Whatever woke it before is seen by this poll: no reason for another one.
        alarm.was_called();
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Ok(output);
        }
        if turn.is_pending() {
            turn = take_turn(&mut cx, &mut way)?;
        }
        let woken = alarm.was_called();
        let Poll::Ready(Some(handle)) = &turn else {
            if !woken {
                Way::Thread.wait();
            }
            continue;
        };
        if let (false, Way::Backend(level)) = (woken, &way) {
            handle.poll_drive_others(*level, &mut cx);
            let ready = poll_custom(backend, &mut cx);
            if ready || alarm.is_called() {
                handle.poll_drive(&mut cx);
                continue;
            }
            if handle.park_in(*level) {
                continue;
            }
        }
        handle.poll_drive(&mut cx);
        let ready = poll_custom(backend, &mut cx);
        if !woken && !ready && !alarm.was_called() {
            way.wait();
        }
    }
}

/// As [`block_on`], waiting with `parker` instead: how code without `std` sleeps.
///
/// The backend is driven, then `parker` parks until something wakes; [`Drive::park`] is not
/// used. What the backend's [custom sources](super::PollSource::Custom) report wakes by itself;
/// its descriptors, if any, are for the parker to watch.
///
/// ```
/// use mfio_core::{IoRead, mem::Mem};
/// use mfio_core::backend::{SpinPark, block_on_with};
/// let target = Mem::polled(vec![7; 4], 2);
/// let value = block_on_with(&target, &SpinPark, target.read_value::<u8>(3)).unwrap();
/// assert_eq!(value, Ok(7));
/// ```
///
/// [`Drive::park`]: super::Drive::park
///
/// # Errors
/// As [`block_on`].
pub fn block_on_with<B, K, F>(backend: &B, parker: &K, future: F) -> Result<F::Output, BackendBusy>
where
    B: IoBackend + ?Sized,
    K: Park + ?Sized,
    F: Future,
{
    let waker = parker.unparker();
    let mut cx = Context::from_waker(&waker);
    let mut turnstile = Turnstile::new(backend);
    let mut turn = turnstile.poll(&mut cx)?;
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Ok(output);
        }
        if turn.is_pending() {
            turn = turnstile.poll(&mut cx)?;
        }
        let mut ready = false;
        if let Poll::Ready(Some(handle)) = &turn {
            handle.poll_drive(&mut cx);
            ready = poll_custom(backend, &mut cx);
        }
        if !ready {
            parker.park();
        }
    }
}
