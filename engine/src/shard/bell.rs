//! How a shard learns that something has arrived from another thread.
//!
//! Data flow: work is published → [`Bell::ring`] → nothing at all where the shard is awake, else
//! a wake of its ring, or of whatever hosts it. The shard goes to sleep by [`Bell::sleeping`],
//! looks once more at everything that may have arrived, and only then blocks (F28).
//!
//! Not here: what arrives (`tasks`, `route`).

use std::sync::PoisonError;
use std::task::Waker;

use crate::sync::{AtomicBool, AtomicU8, Mutex, MutexGuard, Ordering, fence};

/// The shard will look again by itself.
const AWAKE: u8 = 0;
/// It blocks in its ring, or is about to.
const IN_RING: u8 = 1;
/// It has returned to a host, which calls it when the host's waker is used.
const HOSTED: u8 = 2;

/// One per shard, shared by everything that can wake it.
#[derive(Debug)]
pub(crate) struct Bell {
    state: AtomicU8,
    /// Ends a wait in the ring.
    ring: Waker,
    /// Some event loop watches the ring's descriptor, and nothing else.
    watched: AtomicBool,
    /// What the host polled with; locked only where a host drives.
    host: Mutex<Option<Waker>>,
}

impl Bell {
    pub(crate) fn new(ring: Waker) -> Self {
        let state = AtomicU8::new(AWAKE);
        Self { state, ring, watched: AtomicBool::new(false), host: Mutex::new(None) }
    }

    /// Something was published for the shard.
    pub(crate) fn ring(&self) {
        // Between what was published and the look at the state, as the shard has one between
        // its state and its look at what was published: one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) != AWAKE {
            self.end_sleep();
        }
    }

    #[cold]
    fn end_sleep(&self) {
        // Whoever takes the state away wakes; the others need not.
        match self.state.swap(AWAKE, Ordering::AcqRel) {
            IN_RING => self.ring.wake_by_ref(),
            HOSTED => {
                if self.watched.load(Ordering::Relaxed) {
                    self.ring.wake_by_ref();
                }
                // Taken, so that it is called outside the lock.
                let host = self.lock().take();
                if let Some(host) = host {
                    host.wake();
                }
            }
            _ => {}
        }
    }

    /// A timer of the shard is due: whoever hosts it is to drive it.
    #[cold]
    pub(super) fn due(&self) {
        if self.watched.load(Ordering::Relaxed) {
            self.ring.wake_by_ref();
        }
        // Taken, so that it is called outside the lock.
        let host = self.lock().take();
        if let Some(host) = host {
            host.wake();
        }
    }

    /// The shard is about to block in its ring. It looks once more for work after this.
    pub(crate) fn sleeping(&self) {
        self.state.store(IN_RING, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The shard is about to return to a host that polled with `waker`. It looks once more for
    /// work after this.
    pub(crate) fn hosted(&self, waker: &Waker) {
        // Cloned and dropped outside the lock: either may run anything.
        let mut old = Some(waker.clone());
        std::mem::swap(&mut *self.lock(), &mut old);
        drop(old);
        // Release: whoever takes the state away sees whether the ring is watched.
        self.state.store(HOSTED, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The shard looks by itself again.
    pub(crate) fn awake(&self) {
        if self.state.load(Ordering::Relaxed) != AWAKE {
            self.state.store(AWAKE, Ordering::Relaxed);
        }
    }

    /// From now on the ring's descriptor tells of everything.
    pub(crate) fn watched(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        // Nothing that could panic runs under the lock.
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
