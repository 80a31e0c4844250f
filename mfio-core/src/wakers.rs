//! Calls several wakers.
//!
//! Data flow: those who waited for the same → each of them, whoever's waker panics.
//!
//! Not here: who waits for what.

use alloc::vec;
use alloc::vec::Vec;
use core::task::Waker;

/// Those who have not been woken yet.
struct Left(vec::IntoIter<Waker>);

impl Left {
    fn wake(&mut self) {
        self.0.by_ref().for_each(Waker::wake);
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.wake();
    }
}

/// Wakes all of them, with nothing borrowed by the caller. When one of them panics, the others are
/// woken all the same.
pub(crate) fn wake_all(wakers: Vec<Waker>) {
    Left(wakers.into_iter()).wake();
}
