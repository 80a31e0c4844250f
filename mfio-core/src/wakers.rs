//! Calls what others have left to be called, all of it, whichever of them panics.
//!
//! Data flow: those who waited for the same, or are owed an answer → each of them → the panic of
//! one goes on when the others have been told. Who is not told waits for ever, so this is the way
//! of everything that calls more than one waker.
//!
//! Not here: who waits for what; locks, which nothing may hold that calls foreign code.

use core::task::Waker;

/// Those who have not been told yet.
struct Left<I: Iterator, F: FnMut(I::Item)> {
    items: I,
    tell: F,
}

impl<I: Iterator, F: FnMut(I::Item)> Drop for Left<I, F> {
    /// There are none, unless one has panicked, or something has before.
    fn drop(&mut self) {
        let Self { items, tell } = self;
        for item in items {
            // One panic goes on; of two at once, a process would die.
            #[cfg(feature = "std")]
            {
                let told = std::panic::AssertUnwindSafe(|| tell(item));
                drop(std::panic::catch_unwind(told));
            }
            #[cfg(not(feature = "std"))]
            tell(item);
        }
    }
}

/// Tells each of `items`, in order. When telling one panics, the others are told all the same, and
/// then the panic goes on; the first one, if there are several. (Without the feature `std` a
/// second one ends the process.)
///
/// Called while the thread unwinds already, by the drop of something, no panic gets out of it: the
/// one that is under way goes on, and others have been reported by the panic hook. (Without the
/// feature `std` the first one ends the process.)
///
/// Hold no lock and borrow nothing meanwhile that whoever is told may want.
///
/// ```
/// use std::panic::{AssertUnwindSafe, catch_unwind};
///
/// let mut told = Vec::new();
/// let panicked = catch_unwind(AssertUnwindSafe(|| {
///     mfio_core::wakers::tell_all(1..=3, |number| {
///         told.push(number);
///         assert_ne!(number, 2);
///     });
/// }));
/// assert!(panicked.is_err());
/// assert_eq!(told, [1, 2, 3]);
/// ```
pub fn tell_all<T>(items: impl IntoIterator<Item = T>, tell: impl FnMut(T)) {
    let mut left = Left { items: items.into_iter(), tell };
    #[cfg(feature = "std")]
    if std::thread::panicking() {
        // A panic that got out of a drop now would end the process.
        return drop(left);
    }
    let Left { items, tell } = &mut left;
    for item in items {
        tell(item);
    }
}

/// Wakes all of `wakers`, as [`tell_all`] tells: when one panics, the others are woken all the
/// same, and during a panic nothing comes of another one.
pub fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    tell_all(wakers, Waker::wake);
}
