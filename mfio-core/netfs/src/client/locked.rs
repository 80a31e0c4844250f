//! The state of a client while somebody has it, and calls of what belongs to callers.
//!
//! Data flow: lock → changes, among them that the driver is to be woken → let go of → a caller is
//! told, where one is to be → the driver is woken.
//!
//! Not here: the state (`shared`), locks on files (`locks`).

use core::ops::{Deref, DerefMut};
use core::panic::AssertUnwindSafe;
use core::task::Waker;
use std::panic::catch_unwind;
use std::sync::MutexGuard;

use mfio_core::wakers::wake_all;

use super::shared::State;

/// The state, which nobody else has meanwhile. No code of others runs under this lock: the driver's
/// waker, which may be anybody's, is called when it is let go of.
pub(crate) struct Locked<'a>(Option<MutexGuard<'a, State>>);

impl<'a> Locked<'a> {
    pub(super) fn new(state: MutexGuard<'a, State>) -> Self {
        Self(Some(state))
    }

    /// Lets go of it; who is to be woken.
    fn leave(&mut self) -> Option<Waker> {
        let mut state = self.0.take()?;
        let wakes = core::mem::take(&mut state.wakes_driver);
        if wakes { state.driver.take() } else { None }
    }

    /// Lets go of it, and then tells a caller. The driver is woken after that: if its waker panics
    /// the caller has his answer.
    pub(super) fn answer(mut self, tell: impl FnOnce()) {
        let driver = self.leave();
        call(tell);
        wake_all(driver);
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.0.as_ref().expect("it is let go of when this is dropped")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.0.as_mut().expect("it is let go of when this is dropped")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let driver = self.leave();
        wake_all(driver);
    }
}

/// Calls what may run code of a caller: wakers, outputs, owners of bytes. `None` if that panics,
/// which the panic hook has reported then; views that it dropped are aborted, and the connection
/// goes on for the others.
pub(super) fn call<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}
