//! A few threads and one bounded queue: for whatever blocks.
//!
//! Data flow: [`Job`] → queue → thread → done, outside the lock of the queue. A queue that is
//! full refuses; who was refused waits with a waker.
//!
//! Not here: what jobs do (`file`), results of operations (`call`).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::panic::AssertUnwindSafe;
use core::task::{Context, Poll, Waker};
use std::panic::catch_unwind;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use mfio_core::PacketId;
use mfio_core::wakers::wake_all;

use super::PortableConfig;
use super::errno;
use super::file::Transfer;
use super::flock::LockWaits;
use crate::error::{Error, Op};

/// What a thread is to do.
pub(super) enum Job {
    Transfer(Transfer),
    Call(Box<dyn FnOnce() + Send>),
}

struct State {
    jobs: VecDeque<Job>,
    /// Room in `jobs` that is promised to somebody.
    reserved: usize,
    /// Those who were refused.
    waiting: Vec<Waker>,
    closing: bool,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    queued_max: usize,
    lock_waits: Arc<LockWaits>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Changes are single pushes and pops: a value that was poisoned is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some((job, woken)) = self.next() {
            // Completing runs code of callers (wakers, outputs), and so does waking. If that
            // panics, the views it dropped are aborted, and the other callers keep their thread.
            drop(catch_unwind(AssertUnwindSafe(|| wake_all(woken))));
            let done = catch_unwind(AssertUnwindSafe(|| match job {
                Job::Transfer(transfer) => transfer.run(),
                Job::Call(call) => call(),
            }));
            drop(done);
        }
    }

    fn next(&self) -> Option<(Job, Vec<Waker>)> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some((job, core::mem::take(&mut state.waiting)));
            }
            if state.closing {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Ends the threads when the last handle goes.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.state().closing = true;
        self.0.work.notify_all();
    }
}

/// The threads; clones share them.
#[derive(Clone)]
pub(super) struct Pool(Arc<Owner>);

impl Pool {
    pub(super) fn start(config: &PortableConfig) -> Result<Self, Error> {
        let state = State {
            jobs: VecDeque::with_capacity(config.queued_max.get().min(4096)),
            reserved: 0,
            waiting: Vec::new(),
            closing: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            queued_max: config.queued_max.get(),
            lock_waits: Arc::new(LockWaits::new(config.lock_waits_max)),
        });
        // Owned from here on: an error below ends the threads that have been started.
        let owner = Owner(Arc::clone(&shared));
        for number in 0..config.threads.get() {
            let shared = Arc::clone(&shared);
            let named = thread::Builder::new().name(format!("mfio-rt-{number}"));
            let started = named.spawn(move || shared.run());
            started.map_err(|error| errno::of(Op::Start, &error))?;
        }
        Ok(Self(Arc::new(owner)))
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }

    pub(super) fn queued(&self) -> usize {
        self.shared().state().jobs.len()
    }

    /// Queues a job; it comes back where there is no room.
    pub(super) fn push(&self, job: Job) -> Result<(), Job> {
        let mut state = self.shared().state();
        if state.reserved > 0 {
            state.reserved -= 1;
        } else if state.jobs.len() >= self.shared().queued_max {
            return Err(job);
        }
        state.jobs.push_back(job);
        drop(state);
        self.shared().work.notify_one();
        Ok(())
    }

    /// What was reserved for a job that needs no thread after all is given back.
    pub(super) fn use_reserved(&self) {
        let reserved = self.shared().state().reserved;
        if reserved > 0 {
            self.release(1);
        }
    }

    /// Ready when there is room; else `cx` is woken when there may be.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        // Cloned before the lock: cloning may run anything.
        let waker = cx.waker().clone();
        let mut state = self.shared().state();
        if state.jobs.len() + state.reserved < self.shared().queued_max {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waiting| waiting.will_wake(&waker)) {
            state.waiting.push(waker);
        }
        Poll::Pending
    }

    pub(super) fn reserve(&self, jobs: usize) -> bool {
        let mut state = self.shared().state();
        let wanted = state.reserved.saturating_add(jobs);
        let fits = state.jobs.len().saturating_add(wanted) <= self.shared().queued_max;
        if fits {
            state.reserved = wanted;
        }
        fits
    }

    pub(super) fn release(&self, jobs: usize) {
        let mut state = self.shared().state();
        state.reserved = state.reserved.saturating_sub(jobs);
        let woken = core::mem::take(&mut state.waiting);
        drop(state);
        wake_all(woken);
    }

    /// Takes a transfer out of the queue that no thread has begun.
    pub(super) fn take_back(&self, packet: PacketId) -> Option<Transfer> {
        let mut state = self.shared().state();
        let wanted = |job: &Job| matches!(job, Job::Transfer(transfer) if transfer.is_of(packet));
        let at = state.jobs.iter().position(wanted)?;
        let job = state.jobs.remove(at);
        let woken = core::mem::take(&mut state.waiting);
        drop(state);
        wake_all(woken);
        match job {
            Some(Job::Transfer(transfer)) => Some(transfer),
            _ => None,
        }
    }

    /// Those who wait for locks of files.
    pub(super) fn lock_waits(&self) -> Arc<LockWaits> {
        Arc::clone(&self.shared().lock_waits)
    }
}

impl core::fmt::Debug for Pool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pool").field("queued", &self.queued()).finish_non_exhaustive()
    }
}
