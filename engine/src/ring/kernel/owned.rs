//! The crate's ring at an address that does not change.
//!
//! Data flow: `IoUring` → box → borrows without a lifetime, for the fields of `KernelRing`.
//!
//! Not here: what is borrowed, and in which order it goes (`kernel`).
#![allow(unsafe_code, reason = "queues borrow from a ring that is their neighbour")]

use core::ptr::NonNull;

use io_uring::IoUring;

/// Owns the crate's ring behind a raw pointer, so that the queues may borrow from it without
/// a lifetime. Not `Send` and not `Sync`, and so is what contains it.
pub(super) struct OwnedRing(NonNull<IoUring>);

impl OwnedRing {
    pub(super) fn new(ring: IoUring) -> Self {
        Self(NonNull::from(Box::leak(Box::new(ring))))
    }

    /// The ring, for as long as the caller makes sure that `self` is not dropped.
    #[inline]
    pub(super) const fn get<'a>(&self) -> &'a IoUring {
        // SAFETY: lifetime: the box is freed only by `OwnedRing::drop`; every borrow made here
        // lives in a field of the same struct that is dropped earlier, or in one of its methods.
        // Aliasing: only shared borrows are ever made. Bounds: it points to one `IoUring`.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for OwnedRing {
    fn drop(&mut self) {
        // SAFETY: lifetime: the pointer came from a box in `new` and is freed once, here.
        // Aliasing: the fields that borrowed from it were dropped before this one.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}
