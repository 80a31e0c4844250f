//! The state of a client while somebody has it.
//!
//! Data flow: lock → changes, among them that the driver is to be woken → let go of → the driver
//! is woken.
//!
//! Not here: the state (`shared`), locks on files (`locks`).

use core::ops::{Deref, DerefMut};
use std::sync::MutexGuard;

use super::shared::State;

/// The state, which nobody else has meanwhile. No code of others runs under this lock: the driver's
/// waker, which may be anybody's, is called when it is let go of.
pub(crate) struct Locked<'a>(Option<MutexGuard<'a, State>>);

impl<'a> Locked<'a> {
    pub(super) fn new(state: MutexGuard<'a, State>) -> Self {
        Self(Some(state))
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
        let wakes = core::mem::take(&mut self.wakes_driver);
        let driver = if wakes { self.driver.take() } else { None };
        self.0 = None;
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}
