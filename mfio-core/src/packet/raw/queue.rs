//! Completed packets on their way back to whoever reaps them in batches.
//!
//! Data flow: last hold gone → [`Queue::push`] (any thread) → [`Queue::take`] (one thread).
//! One compare-and-swap a packet or a chain of packets, one swap for all that are taken.
//!
//! ```text
//! newest → first of a chain ─ earlier → first of the chain before ─ earlier → … → null
//!            │ next               last: where each chain ends
//!            └→ packet that was completed after it → …
//! ```
//!
//! Not here: the typed queue that users hold (`packet::completions`).
#![allow(unsafe_code, reason = "headers in the list belong to the list")]

use alloc::sync::Arc;
use core::mem::align_of;
use core::ptr::{self, NonNull};
use core::task::Waker;

use super::sync::{AtomicPtr, Ordering};
use super::{FLAGS, HANDLE, Handle, Header, Notify, SpinLock};

/// Completed packets on their way back, pushed from any thread, taken by one.
pub(crate) struct Queue {
    /// The first packet of the newest chain; that of the one before follows by `earlier`.
    newest: AtomicPtr<Header>,
    /// Who waits for the next packet; looked at by whoever finds the queue [`AWAITED`].
    waker: SpinLock<Option<Waker>>,
}

/// Stands in `newest` when there is nothing and somebody waits: whoever pushes wakes him. Where
/// nobody does, a push is one compare-and-swap, and looks at nothing else of the queue.
const AWAITED: *mut Header = ptr::without_provenance_mut(2 * align_of::<Header>());

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
        let left =
            unsafe { Self::push_chain(Chain { queue: ptr::null(), newest: this, oldest: this }) };
        if let Some(waker) = left {
            waker.wake();
        }
    }

    /// Returns who is to be woken.
    ///
    /// # Safety
    /// Every header of the chain has no holds and no handle, its `notify` names the same
    /// queue, and it is given up.
    #[inline]
    unsafe fn push_chain(chain: Chain) -> Option<Waker> {
        // SAFETY: the headers are ours until they are in the list.
        let oldest = unsafe { chain.oldest.as_ref() };
        // SAFETY: as above.
        let Notify::Queue(queue) = (unsafe { &*oldest.notify.look() }) else {
            unreachable!("QUEUE is set together with the queue");
        };
        let newest = queue.newest.load(Ordering::Relaxed);
        if newest == CLOSED || newest == AWAITED {
            // SAFETY: handed through from the caller.
            return unsafe { Self::push_awaited(chain, newest) };
        }
        // SAFETY: not in the list yet.
        unsafe { *oldest.earlier.get() = newest };
        // SAFETY: as above.
        unsafe { *oldest.last.get() = chain.newest.as_ptr() };
        let to = chain.oldest.as_ptr();
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        match queue.newest.compare_exchange(newest, to, order.0, order.1) {
            Ok(_) => None,
            // SAFETY: handed through from the caller.
            Err(now) => unsafe { Self::push_awaited(chain, now) },
        }
    }

    /// As [`Queue::push_chain`], where `newest` is the latest that was seen of a queue on which
    /// others are busy too.
    ///
    /// # Safety
    /// As there.
    #[cold]
    #[inline(never)]
    unsafe fn push_awaited(chain: Chain, mut newest: *mut Header) -> Option<Waker> {
        // SAFETY: the headers are ours until they are in the list.
        let oldest = unsafe { chain.oldest.as_ref() };
        // SAFETY: as above.
        let Notify::Queue(queue) = (unsafe { &*oldest.notify.look() }) else {
            unreachable!("QUEUE is set together with the queue");
        };
        // SAFETY: not in the list yet.
        unsafe { *oldest.last.get() = chain.newest.as_ptr() };
        // The headers may be gone as soon as they are in the list, and the queue with them, so
        // who has to wake the taker keeps the queue alive.
        let mut keep = None;
        loop {
            if newest == CLOSED {
                // SAFETY: nobody takes any more, so the headers are still ours alone.
                unsafe { Self::recycle_chain(chain.oldest) };
                return None;
            }
            let awaited = newest == AWAITED;
            if awaited && keep.is_none() {
                keep = Some(Arc::clone(queue));
            }
            // SAFETY: not in the list yet.
            unsafe { *oldest.earlier.get() = if awaited { ptr::null_mut() } else { newest } };
            match queue.newest.compare_exchange_weak(
                newest,
                chain.oldest.as_ptr(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) if awaited => return keep.and_then(|queue| queue.waker.with(Option::take)),
                Ok(_) => return None,
                Err(now) => newest = now,
            }
        }
    }

    /// Frees the headers of the chain that begins with `first`.
    ///
    /// # Safety
    /// They are the caller's alone and given up.
    unsafe fn recycle_chain(first: NonNull<Header>) {
        // SAFETY: the caller's alone.
        let header = unsafe { first.as_ref() };
        // SAFETY: as above; `push_chain` has set where the chain ends.
        let last = unsafe { *header.last.look() };
        GivenUp { next: first.as_ptr(), last }.recycle();
    }

    /// Takes everything that has arrived.
    #[inline]
    pub(crate) fn take(&self) -> Taken {
        let newest = self.newest.load(Ordering::Relaxed);
        if newest.is_null() || newest == AWAITED {
            return Taken::default();
        }
        let newest = self.newest.swap(ptr::null_mut(), Ordering::Acquire);
        // SAFETY: taken out of the list, so the headers are this call's alone.
        unsafe { Taken::of_chains(newest) }
    }

    /// Moves everything that has arrived to the end of `into`, newest first.
    #[cfg(all(test, mfio_loom))]
    pub(crate) fn take_all(&self, into: &mut alloc::vec::Vec<(u64, Handle)>) {
        let (mut taken, first) = (self.take(), into.len());
        while let Some(packet) = taken.pop() {
            into.push(packet);
        }
        into[first..].reverse();
    }

    /// Sets who is woken by the next packet to arrive in the queue; false where it is not empty.
    pub(crate) fn set_waker(&self, waker: &Waker) -> bool {
        let new = Some(waker.clone());
        // The old one is dropped outside the lock: that may run anything.
        let old = self.waker.with(|slot| core::mem::replace(slot, new));
        drop(old);
        let awaited = self.newest.compare_exchange(
            ptr::null_mut(),
            AWAITED,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        awaited.is_ok() || awaited == Err(AWAITED)
    }

    /// Nothing is taken any more: what is here and what still comes is freed.
    pub(crate) fn close(&self) {
        let newest = self.newest.swap(CLOSED, Ordering::AcqRel);
        if newest != CLOSED && newest != AWAITED {
            // SAFETY: taken out of the list, so the headers are this call's alone.
            drop(unsafe { Taken::of_chains(newest) });
        }
    }
}

/// Headers that nobody takes: `next` and those that follow it, up to `last` or the end. When the
/// owner of one's bytes panics as it is dropped, the others are freed all the same.
struct GivenUp {
    next: *mut Header,
    last: *const Header,
}

impl GivenUp {
    fn recycle(&mut self) {
        while let Some(this) = NonNull::new(self.next) {
            let ends = this.as_ptr().cast_const() == self.last;
            // SAFETY: the headers are this list's alone (whoever makes it says so).
            let header = unsafe { this.as_ref() };
            // SAFETY: as above.
            self.next = if ends { ptr::null_mut() } else { unsafe { *header.next.look() } };
            // SAFETY: as above, and the list has gone on.
            unsafe { Header::recycle(this) };
        }
    }
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.recycle();
    }
}

/// Completed packets that were taken out of their queue, linked by `next`, the oldest first.
#[derive(Default)]
pub(crate) struct Taken {
    oldest: Option<NonNull<Header>>,
}

// SAFETY: the headers of the list belong to it alone, and headers may change threads.
unsafe impl Send for Taken {}
// SAFETY: `&Taken` gives access to nothing but whether there are any.
unsafe impl Sync for Taken {}

impl Taken {
    /// Joins chains, each of which names the `earlier` one, from the `newest` on: the oldest header
    /// of all comes first.
    ///
    /// # Safety
    /// They are the caller's alone and given up.
    #[inline]
    unsafe fn of_chains(mut newest: *mut Header) -> Self {
        let mut oldest = ptr::null_mut();
        while let Some(this) = NonNull::new(newest) {
            // SAFETY: the caller's alone.
            let header = unsafe { this.as_ref() };
            // SAFETY: as above; `push_chain` has set where the chain ends.
            let last = unsafe { *header.last.look() };
            // SAFETY: as above.
            let last = unsafe { &*last };
            // SAFETY: as above.
            unsafe { *last.next.get() = oldest };
            oldest = this.as_ptr();
            // SAFETY: as above.
            newest = unsafe { *header.earlier.look() };
        }
        Self { oldest: NonNull::new(oldest) }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.oldest.is_none()
    }

    /// Takes the packets out of `batch`, where there are none here, for whoever takes from `queue`.
    /// Nothing changes where they go elsewhere, or others have arrived there or are waited for.
    #[inline(always)]
    pub(crate) fn take_from(&mut self, batch: &mut Batch, queue: &Queue) {
        let Some(Chain { queue: to, newest, oldest }) = batch.chain else { return };
        let others = !queue.newest.load(Ordering::Relaxed).is_null();
        if !ptr::eq(to, queue) || others || self.oldest.is_some() {
            return;
        }
        batch.chain = None;
        // SAFETY: the headers of the chain were the batch's alone, and are this list's now.
        let last = unsafe { newest.as_ref() };
        // SAFETY: as above.
        unsafe { *last.next.get() = ptr::null_mut() };
        self.oldest = Some(oldest);
    }

    /// The oldest packet, with its tag.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<(u64, Handle)> {
        let this = self.oldest?;
        // SAFETY: the headers of the list are its own alone.
        let header = unsafe { this.as_ref() };
        // SAFETY: as above.
        self.oldest = NonNull::new(unsafe { *header.next.look() });
        // SAFETY: as above.
        let tag = unsafe { *header.tag.look() };
        let flags = header.state.load(Ordering::Relaxed) & FLAGS;
        header.state.store(HANDLE | flags, Ordering::Relaxed);
        Some((tag, Handle(this)))
    }
}

impl Drop for Taken {
    #[inline]
    fn drop(&mut self) {
        if let Some(oldest) = self.oldest {
            GivenUp { next: oldest.as_ptr(), last: ptr::null() }.recycle();
        }
    }
}

/// Headers linked by `next`, the oldest first, all of the queue at that address.
#[derive(Clone, Copy)]
struct Chain {
    queue: *const Queue,
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
        // SAFETY: handed through from the caller.
        if !unsafe { self.try_add(this) } {
            // The packet is in safe hands before others are told, which may panic.
            let mut others = Self { chain: self.chain.take() };
            // SAFETY: as above; an empty batch takes it.
            let added = unsafe { self.try_add(this) };
            debug_assert!(added, "an empty batch takes any packet");
            others.flush();
        }
    }

    /// Adds the packet unless others are here that go to another queue.
    ///
    /// # Safety
    /// As [`Queue::push`], where it was added; else nothing has changed.
    #[inline(always)]
    pub(super) unsafe fn try_add(&mut self, this: NonNull<Header>) -> bool {
        // SAFETY: the header is the caller's alone.
        let header = unsafe { this.as_ref() };
        // SAFETY: as above.
        let queue = match unsafe { &*header.notify.look() } {
            Notify::Queue(queue) => Arc::as_ptr(queue),
            // SAFETY: the caller promises that it names a queue.
            Notify::Nobody | Notify::Waker(_) => unsafe { core::hint::unreachable_unchecked() },
        };
        match &mut self.chain {
            Some(chain) if chain.queue == queue => {
                // SAFETY: the headers of the chain are the batch's alone.
                let newest = unsafe { chain.newest.as_ref() };
                // SAFETY: as above.
                unsafe { *newest.next.get() = this.as_ptr() };
                chain.newest = this;
                true
            }
            Some(_) => false,
            None => {
                self.chain = Some(Chain { queue, newest: this, oldest: this });
                true
            }
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.chain.is_none()
    }

    pub(crate) fn flush(&mut self) {
        if let Some(waker) = self.tell() {
            waker.wake();
        }
    }

    /// As [`Batch::flush`]; returns who is to be woken.
    #[inline]
    pub(crate) fn tell(&mut self) -> Option<Waker> {
        let chain = self.chain.take()?;
        // SAFETY: `add` takes only headers that are given up, all of one queue.
        unsafe { Queue::push_chain(chain) }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.flush();
    }
}
