//! How a thread (or a bare machine) waits when the backend itself cannot.
//!
//! Data flow: [`block_on_with`](super::block_on_with) has nothing to do → [`Park::park`] →
//! something uses the [`Park::unparker`] → back.
//!
//! Not here: backends that block by themselves ([`Drive::park`](super::Drive::park)).

use core::task::Waker;

/// A way to wait, supplied by whoever blocks: a condition variable, `wfi` until an interrupt, a
/// call into the host.
pub trait Park {
    /// Waits until the unparker is used. Returns at once if it was used since the last `park`
    /// ended, and may return early for no reason. An interrupt that makes the backend's device
    /// want driving must end it too, unless the backend's
    /// [`PollingHandle`](super::PollingHandle) wakes for it.
    fn park(&self);

    /// Ends the wait, from anywhere, at any time: also when this parker and the call that used
    /// it are gone. Called once for every future that is blocked on.
    fn unparker(&self) -> Waker;
}

impl<K: Park + ?Sized> Park for &K {
    fn park(&self) {
        (**self).park();
    }

    fn unparker(&self) -> Waker {
        (**self).unparker()
    }
}

/// Does not wait at all: the backend is polled in a loop. Lowest latency, a whole core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpinPark;

impl Park for SpinPark {
    fn park(&self) {
        core::hint::spin_loop();
    }

    fn unparker(&self) -> Waker {
        Waker::noop().clone()
    }
}

#[cfg(feature = "std")]
pub use thread::ThreadPark;

#[cfg(feature = "std")]
mod thread {
    use alloc::sync::Arc;
    use alloc::task::Wake;
    use core::task::Waker;
    use std::sync::{Condvar, Mutex, PoisonError};

    use super::Park;

    /// Puts the thread to sleep until it is woken; any thread may use it, one at a time.
    ///
    /// For backends that wake by themselves, or have a custom source that does. A descriptor
    /// does not: use an [`integration`](crate::backend::integration), or a parker that polls it.
    #[derive(Clone, Debug, Default)]
    pub struct ThreadPark(Arc<Latch>);

    #[derive(Debug, Default)]
    struct Latch {
        used: Mutex<bool>,
        changed: Condvar,
    }

    impl ThreadPark {
        /// A parker that has not been unparked.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }
    }

    impl Park for ThreadPark {
        fn park(&self) {
            let used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
            let asleep = self.0.changed.wait_while(used, |used| !*used);
            *asleep.unwrap_or_else(PoisonError::into_inner) = false;
        }

        fn unparker(&self) -> Waker {
            Waker::from(Arc::clone(&self.0))
        }
    }

    impl Wake for Latch {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            *self.used.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.changed.notify_all();
        }
    }
}
