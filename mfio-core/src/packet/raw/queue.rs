//! Completed packets on their way back to whoever reaps them in batches.
//!
//! Data flow: last hold gone → [`Queue::push`] (any thread) → [`Queue::take_all`] (one thread).
//! One compare-and-swap a packet, one swap a batch.
//!
//! Not here: the typed queue that users hold (`packet::completions`).
#![allow(unsafe_code, reason = "headers in the list belong to the list")]

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::align_of;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};
use core::task::Waker;

use super::{HANDLE, Handle, Header, Notify, SpinLock};

/// Completed packets on their way back, pushed from any thread, taken by one.
pub(crate) struct Queue {
    /// The newest packet; the older ones follow by `next`.
    newest: AtomicPtr<Header>,
    waker: SpinLock<Option<Waker>>,
}

/// Stands in `newest` when nobody will take any more.
const CLOSED: *mut Header = ptr::without_provenance_mut(align_of::<Header>());

impl Queue {
    pub(crate) fn new() -> Arc<Self> {
        let newest = AtomicPtr::new(ptr::null_mut());
        Arc::new(Self { newest, waker: SpinLock::new(None) })
    }

    /// # Safety
    /// `this` has no holds and no handle, its `notify` names a queue, and it is given up.
    pub(super) unsafe fn push(this: NonNull<Header>) {
        // SAFETY: the header is ours until it is in the list.
        let header = unsafe { this.as_ref() };
        // SAFETY: as above.
        let Notify::Queue(queue) = (unsafe { &*header.notify.get() }) else {
            unreachable!("QUEUE is set together with the queue");
        };
        // The header may be gone as soon as it is in the list, and the queue with it, so who
        // may have to wake the taker keeps the queue alive.
        let mut keep = None;
        let mut newest = queue.newest.load(Ordering::Relaxed);
        let queue: *const Self = Arc::as_ptr(queue);
        loop {
            if newest == CLOSED {
                // SAFETY: nobody takes any more, so the header is still ours alone.
                return unsafe { Header::recycle(this) };
            }
            if newest.is_null() && keep.is_none() {
                // SAFETY: not in the list yet, so `notify` still holds the queue.
                if let Notify::Queue(queue) = unsafe { &*header.notify.get() } {
                    keep = Some(Arc::clone(queue));
                }
            }
            // SAFETY: not in the list yet.
            unsafe { *header.next.get() = newest };
            // SAFETY: the header's own reference keeps the queue alive up to here.
            let list = unsafe { &(*queue).newest };
            match list.compare_exchange_weak(
                newest,
                this.as_ptr(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => newest = now,
            }
        }
        if newest.is_null()
            && let Some(waker) = keep.and_then(|q| q.waker.with(Option::take))
        {
            waker.wake();
        }
    }

    /// Moves everything that has arrived to the end of `into`, newest first.
    #[inline]
    pub(crate) fn take_all(&self, into: &mut Vec<(u64, Handle)>) {
        if self.newest.load(Ordering::Relaxed).is_null() {
            return;
        }
        let mut next = self.newest.swap(ptr::null_mut(), Ordering::Acquire);
        while let Some(this) = NonNull::new(next) {
            // SAFETY: taken out of the list, so the header is ours alone.
            let header = unsafe { this.as_ref() };
            // SAFETY: as above.
            next = unsafe { *header.next.get() };
            // SAFETY: as above.
            let tag = unsafe { *header.tag.get() };
            header.state.store(HANDLE, Ordering::Relaxed);
            into.push((tag, Handle(this)));
        }
    }

    /// Sets who is woken by the next packet to arrive in an empty queue.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        let new = Some(waker.clone());
        // The old one is dropped outside the lock: that may run anything.
        let old = self.waker.with(|slot| core::mem::replace(slot, new));
        drop(old);
    }

    /// Nothing is taken any more: what is here and what still comes is freed.
    pub(crate) fn close(&self) {
        let mut next = self.newest.swap(CLOSED, Ordering::AcqRel);
        while let Some(this) = NonNull::new(next).filter(|at| at.as_ptr() != CLOSED) {
            // SAFETY: taken out of the list, so the header is ours alone.
            let header = unsafe { this.as_ref() };
            // SAFETY: as above.
            next = unsafe { *header.next.get() };
            // SAFETY: as above.
            unsafe { Header::recycle(this) };
        }
    }
}
