//! Where the packet protocol gets its atomics and cells from: `core`, or loom, which runs a model
//! once for every order in which its threads can take their steps (`loom_tests`).
//!
//! Not here: the protocol (`super`).

pub(super) use core::sync::atomic::Ordering;

#[cfg(not(all(test, mfio_loom)))]
pub(super) use plain::{AtomicBool, AtomicPtr, AtomicU64, Cell, spin_loop};
#[cfg(all(test, mfio_loom))]
pub(crate) use watched::SpinLock;
#[cfg(all(test, mfio_loom))]
pub(super) use watched::{AtomicBool, AtomicPtr, AtomicU64, Cell, spin_loop};

/// What programs run on: nothing but `core`, under one more name.
#[cfg(not(all(test, mfio_loom)))]
mod plain {
    pub(crate) use core::hint::spin_loop;
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};

    /// An `UnsafeCell` whose users say whether they only look.
    #[repr(transparent)]
    pub(crate) struct Cell<T>(core::cell::UnsafeCell<T>);

    impl<T> Cell<T> {
        #[inline(always)]
        pub(crate) const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }

        /// For access that excludes every other.
        #[inline(always)]
        pub(crate) const fn get(&self) -> *mut T {
            self.0.get()
        }

        /// For access beside that of others that only look, too.
        #[inline(always)]
        pub(crate) const fn look(&self) -> *const T {
            self.0.get().cast_const()
        }

        #[inline(always)]
        pub(crate) const fn get_mut(&mut self) -> &mut T {
            self.0.get_mut()
        }

        #[inline(always)]
        pub(crate) fn into_inner(self) -> T {
            self.0.into_inner()
        }
    }
}

/// The same, with loom told of every access.
#[cfg(all(test, mfio_loom))]
#[allow(unsafe_code, reason = "a lock gives out what it guards")]
mod watched {
    use core::ops::{Deref, DerefMut};

    use loom::cell::UnsafeCell as Watch;
    use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr};

    pub(crate) struct Cell<T> {
        value: core::cell::UnsafeCell<T>,
        /// Knows which threads had access, and whether one access came after the other.
        watch: Watch<()>,
    }

    impl<T> Cell<T> {
        #[track_caller]
        pub(crate) fn new(value: T) -> Self {
            Self { value: core::cell::UnsafeCell::new(value), watch: Watch::new(()) }
        }

        #[track_caller]
        pub(crate) fn get(&self) -> *mut T {
            self.watch.with_mut(|_| ());
            self.value.get()
        }

        #[track_caller]
        pub(crate) fn look(&self) -> *const T {
            self.watch.with(|_| ());
            self.value.get().cast_const()
        }

        #[track_caller]
        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.watch.with_mut(|_| ());
            self.value.get_mut()
        }

        #[track_caller]
        pub(crate) fn into_inner(self) -> T {
            self.watch.with_mut(|_| ());
            self.value.into_inner()
        }
    }

    /// Lets the others go on. A turn that only waits changes nothing, so what may follow it is
    /// also what may follow where the thread comes later and need not wait: loom explores that,
    /// and this branch, which could wait for ever, no further.
    pub(crate) fn spin_loop() {
        loom::skip_branch();
        loom::thread::yield_now();
    }

    /// Stands in for the spin lock, which loom can follow only where two threads want it: of
    /// three, two that wait may pass the turn to each other for ever.
    pub(crate) struct SpinLock<T> {
        turn: Mutex<()>,
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
        pub(crate) fn new(value: T) -> Self {
            Self { turn: Mutex::new(()), value: Cell::new(value) }
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.value.get_mut()
        }

        pub(crate) fn into_inner(self) -> T {
            self.value.into_inner()
        }

        pub(crate) fn with<R>(&self, section: impl FnOnce(&mut T) -> R) -> R {
            let _turn = self.turn.lock().expect("no section panics in a model");
            // SAFETY: it is this thread's turn.
            section(unsafe { &mut *self.value.get() })
        }
    }

    /// Loom's, with `get_mut`.
    pub(crate) struct AtomicU64(loom::sync::atomic::AtomicU64);

    impl AtomicU64 {
        #[track_caller]
        pub(crate) fn new(value: u64) -> Self {
            Self(loom::sync::atomic::AtomicU64::new(value))
        }

        /// Fails the model unless every access of other threads came before.
        #[track_caller]
        pub(crate) fn get_mut(&mut self) -> Exclusive<'_> {
            let value = self.0.with_mut(|value| *value);
            Exclusive { atomic: &mut self.0, value }
        }
    }

    impl Deref for AtomicU64 {
        type Target = loom::sync::atomic::AtomicU64;
        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }

    /// The value of an atomic that nobody else has; written back at the end.
    pub(crate) struct Exclusive<'a> {
        atomic: &'a mut loom::sync::atomic::AtomicU64,
        value: u64,
    }

    impl Deref for Exclusive<'_> {
        type Target = u64;
        fn deref(&self) -> &u64 {
            &self.value
        }
    }

    impl DerefMut for Exclusive<'_> {
        fn deref_mut(&mut self) -> &mut u64 {
            &mut self.value
        }
    }

    impl Drop for Exclusive<'_> {
        fn drop(&mut self) {
            let value = self.value;
            self.atomic.with_mut(|to| *to = value);
        }
    }
}
