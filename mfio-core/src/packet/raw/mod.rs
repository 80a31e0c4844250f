//! The packet header: who owns which bytes at which moment.
//!
//! Every `unsafe` of packets is here. A [`Header`] lives on the heap and is shared by at most
//! one [`Handle`] (the side that wants the result) and any number of [`Hold`]s (one for each
//! part of the payload that is still under way). `state` says who may touch what:
//!
//! ```text
//! holds > 0          payload: the holds, each its own range; stored buffer: nobody
//! holds = 0, WAKER   notify: the thread that let the last hold go, until it clears WAKER
//! holds = 0, QUEUE   everything: the completion queue that the header is in
//! holds = 0          everything: the handle; where there is none, the last hold frees
//! ```
//!
//! Data flow: buffer → header → holds → the last hold → waker or queue → handle → buffer.
//!
//! Not here: results as users see them (`packet`, `view`), who sends (`io`), recycling (`pool`).
#![allow(unsafe_code, reason = "caller and backend share packet memory here and nowhere else")]

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::ptr::{self, NonNull};
use core::task::Waker;

use crate::error::FailedRange;
use crate::packet::output::Output;
use crate::packet::pool;

mod borrowed;
mod handle;
mod hold;
mod lock;
#[cfg(all(test, mfio_loom))]
mod loom_tests;
mod queue;
mod stable;
mod stack;
mod store;
mod sync;

pub(crate) use borrowed::Borrowed;
pub(crate) use handle::Handle;
pub(crate) use hold::Hold;
#[cfg(not(all(test, mfio_loom)))]
pub(crate) use lock::SpinLock;
pub(crate) use queue::{Batch, Queue, Taken};
pub use stable::{AlignedBuf, RegionId, StableBytes, StableBytesMut};
pub(crate) use stack::StackValue;
use store::Stored;
#[cfg(all(test, mfio_loom))]
pub(crate) use sync::SpinLock;
use sync::{AtomicU64, Cell, Ordering};

// The count is above the flags, so that the usual states fit in the instructions that compare
// with them and store them.
/// One hold; how many there are is a multiple of it.
const HOLD: u64 = 1 << 8;
const HOLDS: u64 = !(HOLD - 1);
const HANDLE: u64 = 1;
const WAKER: u64 = 1 << 1;
const QUEUE: u64 = 1 << 2;
/// Some range has failed: `guarded.failed` has entries. Spares the usual case the lock.
const FAILED: u64 = 1 << 3;
/// `output` wants to hear of every range that ends.
const REPORTED: u64 = 1 << 4;
/// `payload` is that of the stored owner, which nobody could change since it was looked at, and
/// shorter than [`NARROW_BYTES`].
const KEPT: u64 = 1 << 5;
/// What the other states leave as it is.
const FLAGS: u64 = FAILED | REPORTED | KEPT;

/// Payloads shorter than this have holds whose ends fit in one word.
const NARROW_BYTES: u64 = 1 << 31;

/// Where the payload is. Constant while holds exist.
#[derive(Clone, Copy)]
struct Payload {
    /// Null where there is no address to hand out: the bytes are on a stack (that address is
    /// in `Guarded` and can be revoked), or `access` makes them up.
    ptr: *mut u8,
    len: u64,
    /// Only of bytes that have an address.
    region: Option<RegionId>,
    writable: bool,
    /// The bytes are in a pinned future, at the address in `Guarded`.
    on_stack: bool,
    /// How to get at bytes that are not in memory as such.
    access: Option<&'static Access>,
}

/// Reads and writes a stored owner that has no bytes of its own to point at. The range is
/// counted from the start of the payload.
struct Access {
    read_at: fn(&Stored, u64, &mut [u8]),
    write_at: fn(&Stored, u64, &[u8]),
}

impl Payload {
    const NONE: Self = Self {
        ptr: ptr::null_mut(),
        len: 0,
        region: None,
        writable: false,
        on_stack: false,
        access: None,
    };

    /// Bytes in memory. What has no address lies in no region.
    #[inline(always)]
    fn at(ptr: *mut u8, len: u64, region: Option<RegionId>) -> Self {
        let region = if ptr.is_null() { None } else { region };
        Self { ptr, len, region, ..Self::NONE }
    }

    /// The bytes of a stored owner, to be written to.
    #[inline(always)]
    fn of_mut<B: StableBytesMut>(owner: &mut B) -> Self {
        let (ptr, len, region) = (owner.as_mut_ptr(), owner.len(), owner.region());
        Self { writable: true, ..Self::at(ptr, len as u64, region) }
    }

    /// The bytes of a stored owner, to be read.
    #[inline(always)]
    fn of_ref<B: StableBytes>(owner: &mut B) -> Self {
        Self::at(owner.as_ptr().cast_mut(), owner.len() as u64, owner.region())
    }
}

/// What several holds, or a hold and the handle, may touch at the same time.
struct Guarded {
    /// Ends of the ranges of holds that lie too far out for one word.
    wide: Vec<(u64, u64)>,
    failed: Vec<FailedRange>,
    /// The payload in a pinned future; null when there is none or it has been revoked.
    stack: *mut u8,
}

// SAFETY: `stack` is dereferenced under the lock only, while the future that it points into is
// pinned and has not revoked it; which thread does so does not matter, the bytes are plain.
unsafe impl Send for Guarded {}

enum Notify {
    Nobody,
    /// Who is woken where WAKER is set; else who was, kept because he may be the next.
    Waker(Waker),
    Queue(Arc<Queue>),
}

impl Notify {
    /// Becomes a clone of `waker`, unless it wakes the same already.
    #[inline(always)]
    fn set_waker(&mut self, waker: &Waker) {
        if !matches!(self, Self::Waker(known) if known.will_wake(waker)) {
            self.replace_waker(waker);
        }
    }

    #[inline(never)]
    fn replace_waker(&mut self, waker: &Waker) {
        *self = Self::Waker(waker.clone());
    }
}

/// See the module's page. Recycled through `pool`.
///
/// What every packet touches comes first and fits in two cache lines; with a hundred packets in
/// flight that decides whether they stay in the nearest cache.
#[repr(C, align(64))]
pub(crate) struct Header {
    state: AtomicU64,
    payload: Cell<Payload>,
    next: Cell<*mut Header>,
    tag: Cell<u64>,
    notify: Cell<Notify>,
    stored: Cell<Stored>,
    guarded: SpinLock<Guarded>,
    output: Cell<Option<Arc<dyn Output>>>,
    /// Of the first packet of a chain in a queue: that of the chain before, and the last packet.
    earlier: Cell<*mut Header>,
    last: Cell<*mut Header>,
}

// SAFETY: everything but `state` and `guarded` is touched only by whom `state` names; stored
// owners are `Send` (bound of `Handle::put`), wakers and queues are `Send + Sync`.
unsafe impl Send for Header {}

impl Header {
    pub(crate) fn new() -> Self {
        let payload = Payload::NONE;
        let guarded = Guarded { wide: Vec::new(), failed: Vec::new(), stack: ptr::null_mut() };
        Self {
            state: AtomicU64::new(HANDLE),
            payload: Cell::new(payload),
            notify: Cell::new(Notify::Nobody),
            stored: Cell::new(Stored::new()),
            guarded: SpinLock::new(guarded),
            output: Cell::new(None),
            tag: Cell::new(0),
            next: Cell::new(ptr::null_mut()),
            earlier: Cell::new(ptr::null_mut()),
            last: Cell::new(ptr::null_mut()),
        }
    }

    /// The flags of an armed header whose only hold has not been sent.
    #[inline(always)]
    fn unsent_flags(&self) -> u64 {
        let state = self.state.load(Ordering::Relaxed);
        assert!(state & !FLAGS == HANDLE | HOLD, "sent already");
        state & FLAGS
    }

    /// Empties a header that nobody shares any more, so that it can serve another packet.
    fn clear(&mut self) {
        if *self.state.get_mut() & FAILED != 0 {
            self.guarded.get_mut().failed.clear();
        }
        if *self.state.get_mut() & REPORTED != 0 {
            *self.output.get_mut() = None;
        }
        *self.state.get_mut() = HANDLE;
        *self.notify.get_mut() = Notify::Nobody;
        self.stored.get_mut().clear();
    }

    /// # Safety
    /// Nobody else shares the header, now or later.
    unsafe fn recycle(this: NonNull<Self>) {
        // SAFETY: headers come from `Box` (`pool::take`), and the caller is the last to know it.
        let mut header = unsafe { Box::from_raw(this.as_ptr()) };
        header.clear();
        pool::put_back(header);
    }
}

/// # Safety
/// The caller gives up one hold, which it owned.
#[inline]
unsafe fn release(this: NonNull<Header>) {
    // SAFETY: the caller's hold keeps the header alive until the count goes down.
    let header = unsafe { this.as_ref() };
    if is_last_of_queued(header) {
        // SAFETY: state QUEUE with one hold, the caller's: the header is the queue's now.
        return unsafe { Queue::push(this) };
    }
    let before = header.state.fetch_sub(HOLD, Ordering::AcqRel);
    if before & HOLDS == HOLD {
        // SAFETY: this was the last hold.
        unsafe { finish(this, before) };
    }
}

/// Whether only one hold, the caller's, is left of a packet that goes to a queue: then nobody
/// is left to count down against.
#[inline]
fn is_last_of_queued(header: &Header) -> bool {
    header.state.load(Ordering::Acquire) & !FLAGS == QUEUE | HOLD
}

/// As [`release`], but a packet that is complete is handed to its queue with the batch.
///
/// # Safety
/// As [`release`].
#[inline]
unsafe fn release_in(this: NonNull<Header>, batch: &mut Batch) {
    // SAFETY: the caller's hold keeps the header alive until the count goes down.
    if is_last_of_queued(unsafe { this.as_ref() }) {
        // SAFETY: the header is the queue's now.
        return unsafe { batch.add(this) };
    }
    // SAFETY: handed through from the caller.
    unsafe { release(this) };
}

/// # Safety
/// The last hold has just gone, leaving `before` in the state; called once.
unsafe fn finish(this: NonNull<Header>, before: u64) {
    if before & QUEUE != 0 {
        // SAFETY: no hold and no handle: the header is the queue's.
        return unsafe { Queue::push(this) };
    }
    if before & HANDLE == 0 {
        // SAFETY: no hold, no handle, no queue: nobody shares the header.
        return unsafe { Header::recycle(this) };
    }
    if before & WAKER != 0 {
        // SAFETY: HANDLE was set and stays: a handle does not go away while WAKER is set.
        let header = unsafe { this.as_ref() };
        // SAFETY: no holds and WAKER set: `notify` is this thread's until the store below.
        let notify = unsafe { mem::replace(&mut *header.notify.get(), Notify::Nobody) };
        header.state.store(HANDLE | (before & FLAGS), Ordering::Release);
        if let Notify::Waker(waker) = notify {
            waker.wake();
        }
    }
}
