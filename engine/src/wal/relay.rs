//! Tells whoever works for a log that there is work, and notices when nobody does it.
//!
//! The waiter that leads may be one that is never polled again: leaked, or kept by a task that
//! waits for something else. So what completes wakes it and the log's own task as well. Data
//! flow: completion → [`Relay`] → both are polled → the leader serves, and the task has nothing
//! to do; or the leader does not, and the task does when it is polled once more.
//!
//! Not here: the work (`shared`).

use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use mfio_core::wakers::wake_all;

use super::shared::Shared;
use crate::ring::Ring;

/// Who is told.
#[derive(Debug, Default)]
struct Told {
    leader: Option<Waker>,
    task: Option<Waker>,
}

/// One per log; it is the waker of everything that the log waits for.
#[derive(Debug, Default)]
pub(super) struct Relay {
    told: Mutex<Told>,
    /// How often there was work.
    calls: AtomicU64,
    /// How many of these have been served; written by the shard's thread alone.
    served: AtomicU64,
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.call();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.call();
    }
}

impl Relay {
    fn lock(&self) -> MutexGuard<'_, Told> {
        // Nothing that could panic runs under the lock: it only moves wakers.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is work. Wakes the leader, and behind it the task.
    pub(super) fn call(&self) {
        self.calls.fetch_add(1, Ordering::AcqRel);
        // Cloned under the lock, which runs only what counts references, and called outside.
        let (leader, task) = {
            let told = self.lock();
            (told.leader.clone(), told.task.clone())
        };
        wake_all(leader.into_iter().chain(task));
    }

    /// Whoever calls this sees to all work that there is up to now.
    pub(super) fn serve(&self) {
        self.served.store(self.calls.load(Ordering::Acquire), Ordering::Relaxed);
    }

    fn is_served(&self) -> bool {
        self.served.load(Ordering::Relaxed) == self.calls.load(Ordering::Acquire)
    }

    /// The task of `waker` leads; of nobody, if `None`.
    pub(super) fn set_leader(&self, waker: Option<&Waker>) {
        let known = match (&self.lock().leader, waker) {
            (Some(known), Some(waker)) => known.will_wake(waker),
            (None, None) => true,
            _ => false,
        };
        if !known {
            let mut other = waker.cloned();
            std::mem::swap(&mut self.lock().leader, &mut other);
            drop(other);
        }
    }

    fn set_task(&self, waker: &Waker) {
        let known = self.lock().task.as_ref().is_some_and(|known| known.will_wake(waker));
        if !known {
            let mut other = Some(waker.clone());
            std::mem::swap(&mut self.lock().task, &mut other);
            drop(other);
        }
    }
}

/// What the log's own task does: nothing, unless the leader leaves its work undone. It keeps
/// neither the log nor the shard.
pub(super) async fn stand_by<R: Ring>(shared: Weak<Shared<R>>) {
    let mut undone = false;
    std::future::poll_fn(|cx: &mut Context<'_>| {
        let Some(shared): Option<Rc<Shared<R>>> = shared.upgrade() else {
            return Poll::Ready(());
        };
        shared.relay.set_task(cx.waker());
        if shared.relay.is_served() {
            undone = false;
        } else if undone {
            undone = false;
            shared.drive();
        } else {
            // The leader may have been woken just as well, and be polled after this.
            undone = true;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}
