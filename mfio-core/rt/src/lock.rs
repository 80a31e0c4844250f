//! A lock that exists with and without `std`.
//!
//! Data flow: value → [`Lock::with`] → a closure that has it alone. No foreign code runs inside:
//! no waker, no completion, no source or sink of a packet.
//!
//! Not here: locks on files (`virt::file`).

/// A value that one thread has at a time.
pub(crate) struct Lock<T>(
    #[cfg(feature = "std")] std::sync::Mutex<T>,
    #[cfg(not(feature = "std"))] spin::Mutex<T>,
);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        #[cfg(feature = "std")]
        let lock = std::sync::Mutex::new(value);
        #[cfg(not(feature = "std"))]
        let lock = spin::Mutex::new(value);
        Self(lock)
    }

    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        // Nothing inside panics half-way through a change, so a poisoned value is whole.
        #[cfg(feature = "std")]
        let mut value = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        #[cfg(not(feature = "std"))]
        let mut value = self.0.lock();
        work(&mut value)
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        #[cfg(feature = "std")]
        return self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        #[cfg(not(feature = "std"))]
        return self.0.get_mut();
    }
}

impl<T: Default> Default for Lock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}
