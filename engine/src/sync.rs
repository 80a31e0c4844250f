//! Where what threads share gets its atomics, locks and queue from: std and crossbeam, or loom,
//! which runs a model once for every order in which its threads can take their steps
//! (`loom_tests`, by `scripts/loom`).
//!
//! Not here: what is shared (`route`, `answer`, `shard::bell`).

pub(crate) use std::sync::atomic::Ordering;

#[cfg(not(all(test, mfio_loom)))]
pub(crate) use plain::{
    ArrayQueue, AtomicBool, AtomicU8, AtomicUsize, Condvar, Mutex, MutexGuard, fence,
};
#[cfg(all(test, mfio_loom))]
pub(crate) use watched::{
    ArrayQueue, AtomicBool, AtomicU8, AtomicUsize, Condvar, Mutex, MutexGuard, fence,
};

/// What programs run on, under one more name.
#[cfg(not(all(test, mfio_loom)))]
mod plain {
    pub(crate) use crossbeam_queue::ArrayQueue;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, fence};
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
}

/// The same, with loom told of every access.
#[cfg(all(test, mfio_loom))]
mod watched {
    use std::collections::VecDeque;

    use super::Ordering;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, fence};
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};

    /// A bounded queue that promises no more than crossbeam's: who looks whether it is empty is
    /// ordered after a push only where he finds something. The lock is therefore not taken for
    /// that look; it would do the work of the fences that are to be proved.
    #[derive(Debug)]
    pub(crate) struct ArrayQueue<T> {
        entries: Mutex<VecDeque<T>>,
        len: AtomicUsize,
        capacity: usize,
    }

    impl<T> ArrayQueue<T> {
        pub(crate) fn new(capacity: usize) -> Self {
            Self { entries: Mutex::new(VecDeque::new()), len: AtomicUsize::new(0), capacity }
        }

        pub(crate) fn push(&self, entry: T) -> Result<(), T> {
            let mut entries = self.entries.lock().unwrap();
            if entries.len() == self.capacity {
                return Err(entry);
            }
            entries.push_back(entry);
            drop(entries);
            self.len.fetch_add(1, Ordering::Release);
            Ok(())
        }

        /// Finds nothing, now and then, although something is being pushed: so may crossbeam's.
        pub(crate) fn pop(&self) -> Option<T> {
            let take = |len: usize| len.checked_sub(1);
            self.len.fetch_update(Ordering::AcqRel, Ordering::Relaxed, take).ok()?;
            self.entries.lock().unwrap().pop_front()
        }

        pub(crate) fn len(&self) -> usize {
            self.len.load(Ordering::Acquire)
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.len() == 0
        }

        pub(crate) fn capacity(&self) -> usize {
            self.capacity
        }
    }
}
