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
use core::task::Waker;

use super::sync::{AtomicPtr, Ordering};
use super::{FLAGS, HANDLE, Handle, Header, Notify, SpinLock};

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
        // SAFETY: a chain of one; the rest is handed through from the caller.
        unsafe { Self::push_chain(Chain { newest: this, oldest: this }) };
    }

    /// # Safety
    /// Every header of the chain has no holds and no handle, its `notify` names the same
    /// queue, and it is given up.
    unsafe fn push_chain(chain: Chain) {
        // SAFETY: the headers are ours until they are in the list.
        let oldest = unsafe { chain.oldest.as_ref() };
        // SAFETY: as above.
        let Notify::Queue(queue) = (unsafe { &*oldest.notify.look() }) else {
            unreachable!("QUEUE is set together with the queue");
        };
        // The headers may be gone as soon as they are in the list, and the queue with them, so
        // who may have to wake the taker keeps the queue alive.
        let mut keep = None;
        let mut newest = queue.newest.load(Ordering::Relaxed);
        loop {
            if newest == CLOSED {
                // SAFETY: nobody takes any more, so the headers are still ours alone.
                return unsafe { Self::recycle_from(chain.newest.as_ptr(), chain.oldest.as_ptr()) };
            }
            if newest.is_null() && keep.is_none() {
                keep = Some(Arc::clone(queue));
            }
            // SAFETY: not in the list yet.
            unsafe { *oldest.next.get() = newest };
            match queue.newest.compare_exchange_weak(
                newest,
                chain.newest.as_ptr(),
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

    /// Frees a header and those that follow it, up to `last` or the end.
    ///
    /// # Safety
    /// They are the caller's alone and given up.
    unsafe fn recycle_from(first: *mut Header, last: *const Header) {
        let mut next = first;
        while let Some(this) = NonNull::new(next).filter(|at| at.as_ptr() != CLOSED) {
            let ends = this.as_ptr().cast_const() == last;
            // SAFETY: the caller's alone.
            let header = unsafe { this.as_ref() };
            // SAFETY: as above.
            next = if ends { ptr::null_mut() } else { unsafe { *header.next.look() } };
            // SAFETY: as above.
            unsafe { Header::recycle(this) };
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
            next = unsafe { *header.next.look() };
            // SAFETY: as above.
            let tag = unsafe { *header.tag.look() };
            let flags = header.state.load(Ordering::Relaxed) & FLAGS;
            header.state.store(HANDLE | flags, Ordering::Relaxed);
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
        let first = self.newest.swap(CLOSED, Ordering::AcqRel);
        // SAFETY: taken out of the list, so the headers are ours alone.
        unsafe { Self::recycle_from(first, ptr::null()) };
    }
}

/// Headers linked by `next`, the newest first.
#[derive(Clone, Copy)]
struct Chain {
    newest: NonNull<Header>,
    oldest: NonNull<Header>,
}

/// Packets that have been completed and not handed to their queue yet: one atomic operation
/// for all that go to the same queue in a row. Dropping it hands them over.
#[derive(Default)]
pub(crate) struct Batch {
    chain: Option<Chain>,
}

// SAFETY: the headers of the chain belong to the batch alone, and headers may change threads.
unsafe impl Send for Batch {}

impl Batch {
    /// # Safety
    /// As [`Queue::push`].
    #[inline]
    pub(super) unsafe fn add(&mut self, this: NonNull<Header>) {
        if let Some(chain) = &mut self.chain {
            // SAFETY: both headers are the batch's alone.
            if unsafe { same_queue(chain.newest, this) } {
                // SAFETY: as above.
                let header = unsafe { this.as_ref() };
                // SAFETY: as above.
                unsafe { *header.next.get() = chain.newest.as_ptr() };
                chain.newest = this;
                return;
            }
        }
        self.flush();
        self.chain = Some(Chain { newest: this, oldest: this });
    }

    pub(crate) fn flush(&mut self) {
        if let Some(chain) = self.chain.take() {
            // SAFETY: `add` takes only headers that are given up, all of one queue.
            unsafe { Queue::push_chain(chain) };
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.flush();
    }
}

/// # Safety
/// Both headers are the caller's alone.
#[inline]
unsafe fn same_queue(one: NonNull<Header>, other: NonNull<Header>) -> bool {
    // SAFETY: handed through from the caller.
    let (one, other) = (unsafe { one.as_ref() }, unsafe { other.as_ref() });
    // SAFETY: as above.
    let one = unsafe { &*one.notify.look() };
    // SAFETY: as above.
    let other = unsafe { &*other.notify.look() };
    matches!((one, other), (Notify::Queue(one), Notify::Queue(other)) if Arc::ptr_eq(one, other))
}
