//! The side of a packet that wants the result.
//!
//! Data flow: owner → [`Handle`] → a [`Hold`] for the backend; last hold gone → owner back.
//!
//! Not here: what holds do (`hold`), results as users see them (`packet`).
#![allow(unsafe_code, reason = "reaches into the shared header as the state word permits")]

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use core::task::{Context, Poll, Waker};

use super::sync::{Ordering, spin_loop};
use super::{Access, FAILED, FLAGS, HANDLE, HOLD, HOLDS, Header, Hold, KEPT, Notify, Payload};
use super::{NARROW_BYTES, QUEUE, Queue, REPORTED, StableBytes, StableBytesMut, Stored, WAKER};
use crate::error::FailedRange;
use crate::packet::complex::{Absorbed, Generated, Inline, Sink, Source};
use crate::packet::output::Output;
use crate::packet::pool;
use bytemuck::Pod;

/// The side that wants the result. Idle (no holds): owns the header and the stored buffer.
pub(crate) struct Handle(pub(super) NonNull<Header>);

// SAFETY: the header's parts are handed between threads by `state` (see `Header`).
unsafe impl Send for Handle {}
// SAFETY: `&Handle` gives access to the stored buffer (`stored`, bound `B: Sync` there) and
// to `state`.
unsafe impl Sync for Handle {}

impl Handle {
    pub(crate) fn new() -> Self {
        let header = Box::leak(pool::take());
        // A recycled header still has the tag of the packet before.
        *header.tag.get_mut() = 0;
        Self(NonNull::from(header))
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: a handle exists, so the header is not freed (the last hold frees only where
        // HANDLE is clear).
        unsafe { self.0.as_ref() }
    }

    /// Whether every byte has its result and the buffer is the handle's again.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.header().state.load(Ordering::Acquire) & (HOLDS | WAKER) == 0
    }

    #[inline]
    fn exclusive(&mut self) -> &mut Header {
        if !self.is_idle() {
            in_flight();
        }
        // SAFETY: no holds and no waker under way, so the handle is alone, and `&mut self`
        // makes this the only use of it.
        unsafe { self.0.as_mut() }
    }

    /// As [`Handle::exclusive`], for whoever may change what is stored.
    #[inline]
    fn changing(&mut self) -> &mut Header {
        let header = self.exclusive();
        *header.state.get_mut() &= !KEPT;
        header
    }

    /// Stores `owner` where nothing is stored.
    #[inline]
    pub(crate) fn put<B: Send + 'static>(&mut self, owner: B) {
        self.exclusive().stored.get_mut().put(owner);
    }

    /// As [`Handle::put`]; finds out what [`Handle::arm_mut`] will need to know of it.
    #[inline(always)]
    pub(crate) fn put_mut<B: StableBytesMut>(&mut self, owner: B) {
        let header = self.exclusive();
        let payload = Payload::of_mut(header.stored.get_mut().put(owner));
        header.keep_unarmed(payload);
    }

    /// As [`Handle::put`]; finds out what [`Handle::arm_ref`] will need to know of it.
    #[inline(always)]
    pub(crate) fn put_ref<B: StableBytes>(&mut self, owner: B) {
        let header = self.exclusive();
        let payload = Payload::of_ref(header.stored.get_mut().put(owner));
        header.keep_unarmed(payload);
    }

    /// What was stored.
    pub(crate) fn stored<B: Sync + 'static>(&self) -> &B {
        assert!(self.is_idle(), "a packet in flight belongs to its backend");
        // To look at the owner is to look at its bytes, which ends what an address stands for that
        // was taken through a mutable borrow of them. Others who look at the same time do the
        // same, and nobody does anything else to an idle state that is borrowed.
        let state = self.header().state.load(Ordering::Relaxed);
        if state & KEPT != 0 {
            self.header().state.store(state & !KEPT, Ordering::Relaxed);
        }
        // SAFETY: idle, and it stays idle while `self` is borrowed, because arming needs
        // `&mut self`; shared readers are fine, `B` is `Sync`.
        unsafe { &*self.header().stored.look() }.get()
    }

    /// What was stored, exclusively.
    #[inline]
    pub(crate) fn stored_mut<B: 'static>(&mut self) -> &mut B {
        self.changing().stored.get_mut().get_mut()
    }

    /// Takes out what was stored.
    pub(crate) fn take<B: 'static>(mut self) -> B {
        self.changing().stored.get_mut().take()
    }

    /// Takes out what was stored, and forgets what else the packet was given.
    #[inline]
    pub(crate) fn take_out<B: 'static>(&mut self) -> B {
        let header = self.changing();
        *header.tag.get_mut() = 0;
        if *header.state.get_mut() & REPORTED != 0 {
            header.end_report();
        }
        header.stored.get_mut().take()
    }

    /// The length of the payload, where that is still the one of the stored owner and there is
    /// nothing to be tidied up: owners keep their bytes where they are while a packet owns them
    /// (`StableBytes`), and whoever could have changed the owner has cleared KEPT.
    #[inline(always)]
    fn kept_bytes(&self) -> Option<u64> {
        let header = self.header();
        if header.state.load(Ordering::Acquire) != HANDLE | KEPT {
            return None;
        }
        // SAFETY: idle, so the payload is the handle's.
        let len = unsafe { (*header.payload.look()).len };
        // SAFETY: KEPT is set only for a payload as short as that, and cleared with it.
        unsafe { core::hint::assert_unchecked(len < NARROW_BYTES) };
        Some(len)
    }

    /// As arming and [`Handle::enqueue`], at once, for a packet that goes to the same queue as
    /// the last time with the same payload; `None`, and nothing has changed, where it does not.
    #[inline(always)]
    pub(crate) fn enqueue_again(&mut self, queue: &Arc<Queue>, tag: u64) -> Option<Hold> {
        let len = self.kept_bytes()?;
        let header = self.header();
        // SAFETY: idle, so everything is the handle's.
        let notify = unsafe { &*header.notify.look() };
        if !matches!(notify, Notify::Queue(known) if Arc::ptr_eq(known, queue)) {
            return None;
        }
        // SAFETY: as above.
        unsafe { *header.tag.get() = tag };
        header.state.store(QUEUE | KEPT | HOLD, Ordering::Relaxed);
        Some(Hold::over(self.0, len))
    }

    /// As arming and [`Handle::arm_waker`], at once, for a packet with the same payload as the last
    /// time; `None`, and nothing has changed, where it is not.
    #[inline(always)]
    pub(crate) fn arm_again(&mut self, waker: &Waker) -> Option<Hold> {
        let len = self.kept_bytes()?;
        let header = self.header();
        // SAFETY: idle, so everything is the handle's.
        unsafe { &mut *header.notify.get() }.set_waker(waker);
        header.state.store(HANDLE | WAKER | KEPT | HOLD, Ordering::Relaxed);
        Some(Hold::over(self.0, len))
    }

    /// One hold over the whole stored buffer, for a backend to fill.
    #[inline(always)]
    pub(crate) fn arm_mut<B: StableBytesMut>(&mut self) -> Hold {
        self.arm_kept()
            .unwrap_or_else(|| self.arm_stored(|stored| Payload::of_mut::<B>(stored.get_mut())))
    }

    /// One hold over the whole stored buffer, for a backend to read.
    #[inline(always)]
    pub(crate) fn arm_ref<B: StableBytes>(&mut self) -> Hold {
        self.arm_kept()
            .unwrap_or_else(|| self.arm_stored(|stored| Payload::of_ref::<B>(stored.get_mut())))
    }

    #[inline(always)]
    fn arm_kept(&mut self) -> Option<Hold> {
        let len = self.kept_bytes()?;
        self.header().state.store(HANDLE | KEPT | HOLD, Ordering::Relaxed);
        Some(Hold::over(self.0, len))
    }

    #[inline(always)]
    fn arm_stored(&mut self, payload_of: impl FnOnce(&mut Stored) -> Payload) -> Hold {
        let at = self.0;
        let header = self.exclusive();
        let payload = payload_of(header.stored.get_mut());
        header.arm(payload, ptr::null_mut());
        header.keep();
        Hold::over(at, payload.len)
    }

    /// One hold over the bytes of a stored value itself: it is in the header, or in a box, and
    /// stays there.
    pub(crate) fn arm_inline<T: Pod>(&mut self, writable: bool) -> Hold {
        let len = core::mem::size_of::<T>() as u64;
        let hold = self.arm(Payload { len, writable, ..Payload::NONE }, ptr::null_mut());
        let header = self.header();
        // The address is taken last: nobody borrows the header as a whole exclusively any more
        // before the packet is idle again, which would end what the address stands for.
        // SAFETY: the only hold has not been sent, so nobody else is at the header's parts.
        let stored = unsafe { &mut *header.stored.get() };
        // SAFETY: as above.
        let payload = unsafe { &mut *header.payload.get() };
        payload.ptr = ptr::from_mut(stored.get_mut::<Inline<T>>()).cast();
        hold
    }

    /// One hold over the bytes that a stored source makes up.
    pub(crate) fn arm_source<S: Source>(&mut self) -> Hold {
        let len = self.stored_mut::<Generated<S>>().0.len();
        let access = Some(
            const {
                &Access {
                    read_at: |stored, at, to| stored.get::<Generated<S>>().0.read_at(at, to),
                    write_at: |_, _, _| unreachable!("a packet that is written is not filled"),
                }
            },
        );
        self.arm(Payload { len, access, ..Payload::NONE }, ptr::null_mut())
    }

    /// One hold over the bytes that a stored sink takes.
    pub(crate) fn arm_sink<S: Sink>(&mut self) -> Hold {
        let len = self.stored_mut::<Absorbed<S>>().0.len();
        let access = Some(
            const {
                &Access {
                    read_at: |_, _, _| unreachable!("a packet that is filled is not written"),
                    write_at: |stored, at, from| stored.get::<Absorbed<S>>().0.write_at(at, from),
                }
            },
        );
        self.arm(Payload { len, writable: true, access, ..Payload::NONE }, ptr::null_mut())
    }

    /// Who hears of every range of this packet that ends.
    pub(crate) fn set_output(&mut self, output: Option<Arc<dyn Output>>) {
        let header = self.exclusive();
        let flags = *header.state.get_mut() & !REPORTED;
        *header.state.get_mut() = if output.is_some() { flags | REPORTED } else { flags };
        *header.output.get_mut() = output;
    }

    /// The caller's number, to be seen by backends and outputs.
    pub(crate) fn set_tag(&mut self, tag: u64) {
        *self.exclusive().tag.get_mut() = tag;
    }

    /// One hold over `len` bytes in a pinned future. No backend gets that address: bytes are
    /// copied under the header's lock, and [`Handle::revoke`] ends it.
    ///
    /// # Safety
    /// `at` is good for reads (and writes, if `writable`) of `len` initialised bytes until
    /// `revoke` is called or the handle sees itself idle.
    pub(crate) unsafe fn arm_stack(&mut self, at: *mut u8, len: usize, writable: bool) -> Hold {
        let len = len as u64;
        self.arm(Payload { len, writable, on_stack: true, ..Payload::NONE }, at)
    }

    fn arm(&mut self, payload: Payload, stack: *mut u8) -> Hold {
        self.exclusive().arm(payload, stack);
        Hold::over(self.0, payload.len)
    }

    /// Forbids any further copy to or from the stack. Waits at most for a running one.
    pub(crate) fn revoke(&self) {
        self.header().guarded.with(|guarded| guarded.stack = ptr::null_mut());
    }

    /// Ready when every byte has its result; else `cx`'s waker is called then.
    #[inline(always)]
    pub(crate) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_idle() { Poll::Ready(()) } else { self.wait_idle(cx) }
    }

    #[inline(never)]
    fn wait_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.header().state.load(Ordering::Acquire);
        loop {
            if state & HOLDS == 0 {
                self.wait_for_notifier();
                return Poll::Ready(());
            }
            let cleared = state & !WAKER;
            match self.header().state.compare_exchange(
                state,
                cleared,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // SAFETY: WAKER is clear, and only the handle sets it, so the last hold keeps away.
        unsafe { &mut *self.header().notify.get() }.set_waker(cx.waker());
        let before = self.header().state.fetch_or(WAKER, Ordering::AcqRel);
        if before & HOLDS != 0 {
            return Poll::Pending;
        }
        // The last hold went between the two steps and saw no waker: nobody else comes.
        self.header().state.fetch_and(!WAKER, Ordering::Relaxed);
        Poll::Ready(())
    }

    /// As `poll_idle`, for a handle whose armed waker is the caller's already.
    #[inline]
    pub(crate) fn poll_armed(&mut self) -> Poll<()> {
        if self.header().state.load(Ordering::Acquire) & HOLDS != 0 {
            return Poll::Pending;
        }
        self.wait_for_notifier();
        Poll::Ready(())
    }

    /// Waits, a few instructions long, for the thread that takes the waker.
    #[inline]
    fn wait_for_notifier(&self) {
        while self.header().state.load(Ordering::Acquire) & WAKER != 0 {
            spin_loop();
        }
    }

    /// Sets the waker for a hold that has not been sent yet: no atomic read-modify-write.
    #[inline(always)]
    pub(crate) fn arm_waker(&mut self, hold: &Hold, waker: &Waker) {
        assert!(hold.is_of(self.0), "a hold of this packet");
        let header = self.header();
        let flags = header.unsent_flags();
        // SAFETY: the only hold is borrowed here, so nobody lets it go meanwhile.
        unsafe { &mut *header.notify.get() }.set_waker(waker);
        header.state.store(HANDLE | WAKER | flags | HOLD, Ordering::Relaxed);
    }

    /// Gives an unsent packet to `queue`, which gets it back when the last hold goes.
    #[inline(always)]
    pub(crate) fn enqueue(self, hold: &Hold, queue: &Arc<Queue>, tag: u64) {
        assert!(hold.is_of(self.0), "a hold of this packet");
        let header = self.header();
        let flags = header.unsent_flags();
        // SAFETY: the only hold is borrowed here, so nobody lets it go meanwhile.
        let notify = unsafe { &mut *header.notify.get() };
        if !matches!(notify, Notify::Queue(known) if Arc::ptr_eq(known, queue)) {
            *notify = Notify::Queue(Arc::clone(queue));
        }
        // SAFETY: as above.
        unsafe { *header.tag.get() = tag };
        header.state.store(QUEUE | flags | HOLD, Ordering::Relaxed);
        // The header is the queue's; the right to free it goes along.
        let _moved = ManuallyDrop::new(self);
    }

    /// Takes back a packet whose only hold was refused.
    pub(crate) fn disarm(hold: Hold) -> Self {
        let this = Self(hold.into_header());
        // Acquire: other holds may have come and gone on other threads.
        let state = this.header().state.load(Ordering::Acquire);
        assert_eq!(state & HOLDS, HOLD, "the only hold");
        assert_ne!(state & QUEUE, 0, "another handle would exist");
        this.header().state.store(HANDLE | (state & FLAGS), Ordering::Relaxed);
        this
    }

    /// Bytes of the last payload.
    pub(crate) fn payload_len(&self) -> u64 {
        assert!(self.is_idle(), "a packet in flight belongs to its backend");
        // SAFETY: idle, and `arm` needs `&mut self`.
        unsafe { (*self.header().payload.look()).len }
    }

    /// Whether no range of the last payload failed.
    #[inline]
    pub(crate) fn succeeded(&self) -> bool {
        debug_assert!(self.is_idle(), "a packet in flight has no result");
        self.header().state.load(Ordering::Relaxed) & FAILED == 0
    }

    /// Calls `look` with the ranges that failed, sorted by start.
    pub(crate) fn failed<R>(&self, look: impl FnOnce(&mut Vec<FailedRange>) -> R) -> R {
        self.header().guarded.with(|guarded| {
            guarded.failed.sort_unstable();
            look(&mut guarded.failed)
        })
    }

    /// An address that tells this packet from every other live one.
    pub(crate) fn id(&self) -> usize {
        self.0.as_ptr().addr()
    }
}

/// Out of the way of those who never come here.
#[cold]
#[inline(never)]
fn in_flight() -> ! {
    panic!("a packet in flight belongs to its backend");
}

impl Header {
    /// Makes an idle header one that one hold of all of `payload` is under way for.
    #[inline(always)]
    fn arm(&mut self, payload: Payload, stack: *mut u8) {
        let before = core::mem::replace(self.payload.get_mut(), payload);
        let flags = *self.state.get_mut() & (FAILED | REPORTED);
        if flags != 0 || payload.on_stack || before.len >= NARROW_BYTES {
            let stack = payload.on_stack.then_some(stack);
            self.start_over(before.len, payload.len, stack);
        }
        *self.state.get_mut() = HANDLE | (flags & REPORTED) | HOLD;
    }

    /// Has the payload before it is armed, where nothing of another one is to be tidied up then.
    #[inline(always)]
    fn keep_unarmed(&mut self, payload: Payload) {
        if *self.state.get_mut() == HANDLE && self.payload.get_mut().len < NARROW_BYTES {
            *self.payload.get_mut() = payload;
            self.keep();
        }
    }

    /// What was armed is the stored owner's: the next time, nobody need ask it.
    #[inline]
    fn keep(&mut self) {
        if self.payload.get_mut().len < NARROW_BYTES {
            *self.state.get_mut() |= KEPT;
        }
    }

    #[cold]
    fn end_report(&mut self) {
        *self.state.get_mut() &= !REPORTED;
        *self.output.get_mut() = None;
    }

    /// Forgets what the last payload has left behind, and tells the output of the next.
    #[cold]
    #[inline(never)]
    fn start_over(&mut self, before_bytes: u64, len: u64, stack: Option<*mut u8>) {
        let state = *self.state.get_mut();
        let guarded = self.guarded.get_mut();
        if before_bytes >= NARROW_BYTES {
            guarded.wide.clear();
        }
        if state & FAILED != 0 || stack.is_some() {
            guarded.stack = stack.unwrap_or(ptr::null_mut());
            guarded.failed.clear();
        }
        if state & REPORTED != 0
            && let Some(output) = self.output.get_mut()
        {
            output.begin(len);
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("idle", &self.is_idle()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.header().state.load(Ordering::Acquire);
        while state & HOLDS != 0 {
            let detached = state & !(HANDLE | WAKER);
            match self.header().state.compare_exchange(
                state,
                detached,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
        self.wait_for_notifier();
        // SAFETY: no hold is left and the notifier is through, so the handle is alone.
        unsafe { Header::recycle(self.0) };
    }
}
