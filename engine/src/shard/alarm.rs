//! Wakes the host of a shard when the shard's earliest timer is due.
//!
//! A host waits for a descriptor or for its waker, and neither tells of a moment. Data flow:
//! earliest timer → [`Alarm::set`] → a thread that sleeps until then → [`Bell::due`] → the host
//! drives → the timer fires in the turn. The thread is started when a hosted shard has its
//! first timer, and sleeps at all other times; a shard that blocks in its ring has none.
//!
//! Not here: which timer is the earliest (`timer`).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bell::Bell;
use crate::process::Process;
use crate::sys;

/// What the shard has asked for.
#[derive(Debug, Default)]
struct State {
    /// The moment, in the shard's clock: names the request.
    at_ns: Option<u64>,
    /// The same in the clock of this process.
    due_ns: u64,
    ending: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when the thread must look again.
    changed: Condvar,
    bell: Arc<Bell>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thread does all its life.
    fn ring_when_due(&self) {
        let mut state = self.lock();
        while !state.ending {
            if state.at_ns.is_none() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left_ns = state.due_ns.saturating_sub(sys::now_ns());
            if left_ns > 0 {
                let left = Duration::from_nanos(left_ns);
                let waited = self.changed.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            state.at_ns = None;
            // Outside the lock: a waker can run anything.
            drop(state);
            self.bell.due();
            state = self.lock();
        }
    }
}

/// One per shard that is hosted and has had a timer.
#[derive(Debug)]
pub(super) struct Alarm(Arc<Shared>, Process);

impl Alarm {
    /// `None` where no thread can be started: a limit on processes is reached.
    pub(super) fn new(bell: &Arc<Bell>) -> Option<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { state, changed, bell: Arc::clone(bell) });
        let there = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("mfio-alarm".to_owned());
        thread.spawn(move || there.ring_when_due()).ok()?;
        Some(Self(shared, Process::current()))
    }

    /// Rings once, at `at_ns` of the shard's clock, which is at `now_ns`; no more at the moment
    /// that was set before.
    pub(super) fn set(&self, at_ns: u64, now_ns: u64) {
        let mut state = self.0.lock();
        if state.at_ns == Some(at_ns) {
            return;
        }
        let due_ns = sys::now_ns().saturating_add(at_ns.saturating_sub(now_ns));
        // Who sleeps until a later moment must be told; who wakes before it looks by itself.
        let must_tell = state.at_ns.is_none() || due_ns < state.due_ns;
        state.at_ns = Some(at_ns);
        state.due_ns = due_ns;
        drop(state);
        if must_tell {
            self.0.changed.notify_one();
        }
    }
}

impl Drop for Alarm {
    /// The thread ends by itself: it may be inside a waker, which nobody waits for. A forked
    /// child does not have it (F26).
    fn drop(&mut self) {
        if self.1.is_current() {
            self.0.lock().ending = true;
            self.0.changed.notify_one();
        }
    }
}
