//! The lock of a header: for what several holds may touch at the same time.
//!
//! Not here: what it guards (`super`); what stands in for it in loom's models (`sync`).
#![allow(unsafe_code, reason = "a lock gives out what it guards")]

use super::sync::{AtomicBool, Cell, Ordering, spin_loop};

/// Frees a spin lock, also when its section panics.
struct Unlock<'a>(&'a AtomicBool);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A lock for sections of a few instructions (or one memcpy) that never call out.
pub(crate) struct SpinLock<T> {
    taken: AtomicBool,
    value: Cell<T>,
}

// SAFETY: `with` gives the value to one thread at a time.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T: Default> Default for SpinLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> SpinLock<T> {
    #[cfg(not(all(test, mfio_loom)))]
    pub(crate) const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: Cell::new(value) }
    }

    /// Loom makes nothing at compile time.
    #[cfg(all(test, mfio_loom))]
    pub(crate) fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: Cell::new(value) }
    }

    #[cfg_attr(all(test, mfio_loom), allow(dead_code, reason = "the stand-in has its own"))]
    pub(super) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    pub(crate) fn into_inner(self) -> T {
        self.value.into_inner()
    }

    pub(crate) fn with<R>(&self, section: impl FnOnce(&mut T) -> R) -> R {
        while self.taken.swap(true, Ordering::Acquire) {
            spin_loop();
        }
        // SAFETY: `taken` was false and is true now, so this is the only reference until the
        // store below; sections do not nest, because they never call out.
        let value = unsafe { &mut *self.value.get() };
        let _unlock = Unlock(&self.taken);
        section(value)
    }
}
