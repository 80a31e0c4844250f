//! The crate's ring at an address that does not change, taken down by its own process only.
//!
//! Data flow: `IoUring` → [`MappedRing`], which knows whose mappings these are → box → borrows
//! without a lifetime, for the fields of `KernelRing`.
//!
//! Not here: what is borrowed, and in which order it goes (`kernel`).
#![allow(unsafe_code, reason = "queues borrow from a ring that is their neighbour")]

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use std::os::fd::AsRawFd;

use io_uring::IoUring;

use crate::process::Process;

/// The crate's ring, which unmaps its queues when it is dropped. A child that was forked did not
/// inherit them (`MADV_DONTFORK`), and may have something of its own at their addresses by now:
/// there only the descriptor is closed (F26).
pub(super) struct MappedRing {
    ring: ManuallyDrop<IoUring>,
    owner: Process,
}

impl MappedRing {
    pub(super) fn new(ring: IoUring) -> Self {
        Self { ring: ManuallyDrop::new(ring), owner: Process::current() }
    }
}

impl Drop for MappedRing {
    fn drop(&mut self) {
        if self.owner.is_current() {
            // SAFETY: lifetime: it is dropped once, here, and nobody looks at it afterwards.
            // Aliasing: `&mut self`. Bounds: the mappings are those that it made, in this process.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        } else {
            // The descriptor is a copy; the parent keeps its own.
            let _closed = nix::unistd::close(self.ring.as_raw_fd());
        }
    }
}

/// Owns the crate's ring behind a raw pointer, so that the queues may borrow from it without
/// a lifetime. Not `Send` and not `Sync`, and so is what contains it.
pub(super) struct OwnedRing(NonNull<MappedRing>);

impl OwnedRing {
    pub(super) fn new(ring: IoUring) -> Self {
        Self(NonNull::from(Box::leak(Box::new(MappedRing::new(ring)))))
    }

    /// The ring, for as long as the caller makes sure that `self` is not dropped.
    #[inline]
    pub(super) fn get<'a>(&self) -> &'a IoUring {
        // SAFETY: lifetime: the box is freed only by `OwnedRing::drop`; every borrow made here
        // lives in a field of the same struct that is dropped earlier, or in one of its methods.
        // Aliasing: only shared borrows are ever made. Bounds: it points to one `MappedRing`.
        let mapped: &MappedRing = unsafe { self.0.as_ref() };
        &mapped.ring
    }
}

impl Drop for OwnedRing {
    fn drop(&mut self) {
        // SAFETY: lifetime: the pointer came from a box in `new` and is freed once, here.
        // Aliasing: the fields that borrowed from it were dropped before this one, or are never.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}
