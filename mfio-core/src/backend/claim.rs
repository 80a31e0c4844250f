//! Whose turn it is to drive: one at a time, whatever number of threads wait.
//!
//! Data flow: [`BackendHandle::acquire`](super::BackendHandle::acquire) → claimed → handle
//! dropped → released → who waits is woken, and one of them drives on.
//!
//! Not here: what the holder does with it (`handle`, `block`).

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};

/// What makes the right to drive exclusive.
///
/// | implementation | for backends that |
/// |---|---|
/// | `Cell<bool>` | stay on one thread |
/// | `AtomicBool` | several threads use, but never two at a time: the second is told so |
/// | `Turn` (feature `std`) | several threads block on at the same time: they wait |
pub trait Claim {
    /// Takes the right; false if it is taken.
    fn try_claim(&self) -> bool;

    /// Gives it back.
    fn release(&self);
}

impl Claim for Cell<bool> {
    fn try_claim(&self) -> bool {
        !self.replace(true)
    }

    fn release(&self) {
        self.set(false);
    }
}

impl Claim for AtomicBool {
    fn try_claim(&self) -> bool {
        !self.swap(true, Ordering::Acquire)
    }

    fn release(&self) {
        self.store(false, Ordering::Release);
    }
}

#[cfg(feature = "std")]
pub use turn::Turn;

#[cfg(feature = "std")]
mod turn {
    use alloc::vec::Vec;
    use core::task::{Context, Poll, Waker};
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::thread::ThreadId;

    use super::Claim;
    use crate::backend::{BackendBusy, BackendHandle, Drive};
    use crate::wakers::wake_all;

    /// The right to drive a backend that threads share: the first drives for all, the others
    /// wait for their packets, and when it leaves one of them drives on.
    ///
    /// The backend makes a driver that is parked notice what other threads send.
    #[derive(Debug, Default)]
    pub struct Turn {
        state: Mutex<State>,
    }

    #[derive(Debug, Default)]
    struct State {
        holder: Option<ThreadId>,
        waiting: Vec<Waker>,
    }

    impl Turn {
        /// A right that nobody holds.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }

        /// For [`IoBackend::poll_backend`](crate::IoBackend::poll_backend): the right, or the
        /// promise to wake `cx` when it is given back.
        ///
        /// # Errors
        /// [`BackendBusy`] where this very thread holds it.
        pub fn poll_acquire<'a>(
            &'a self,
            drive: &'a dyn Drive,
            cx: &mut Context<'_>,
        ) -> Poll<Result<BackendHandle<'a>, BackendBusy>> {
            let this = std::thread::current().id();
            let mut cloned = None;
            loop {
                let mut state = self.lock();
                match state.holder {
                    None => {
                        state.holder = Some(this);
                        break;
                    }
                    Some(holder) if holder == this => return Poll::Ready(Err(BackendBusy)),
                    Some(_) => {}
                }
                if state.waiting.iter().any(|waiting| waiting.will_wake(cx.waker())) {
                    return Poll::Pending;
                }
                if let Some(waker) = cloned.take() {
                    state.waiting.push(waker);
                    return Poll::Pending;
                }
                // Outside the lock, because cloning may run anything; then looked at once more.
                drop(state);
                cloned = Some(cx.waker().clone());
            }
            let handle = BackendHandle::claimed(drive, self);
            // While the handle is a variable, which gives the turn back if this panics; a value
            // that is being returned is not dropped then.
            drop(cloned);
            Poll::Ready(Ok(handle))
        }

        /// For [`IoBackend::stop_waiting`](crate::IoBackend::stop_waiting): forgets a waker, so
        /// that those who came and went are not kept while one thread drives for long.
        pub fn stop_waiting(&self, waker: &Waker) {
            // Dropped outside the lock: what a waker's drop does is not ours to know.
            let gone: Vec<Waker> = {
                let mut state = self.lock();
                state.waiting.extract_if(.., |waiting| waiting.will_wake(waker)).collect()
            };
            drop(gone);
        }

        fn lock(&self) -> MutexGuard<'_, State> {
            // Nothing that could panic runs under the lock.
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Claim for Turn {
        fn try_claim(&self) -> bool {
            let mut state = self.lock();
            let free = state.holder.is_none();
            if free {
                state.holder = Some(std::thread::current().id());
            }
            free
        }

        fn release(&self) {
            let waiting = {
                let mut state = self.lock();
                state.holder = None;
                core::mem::take(&mut state.waiting)
            };
            // All of them: the one that was woken alone might have stopped waiting.
            wake_all(waiting);
        }
    }
}
