//! The side of a packet that does the work: ranges of the payload, each to be completed once.
//!
//! Data flow: [`Hold`] → split, filled or read → done or failed → the packet's count.
//!
//! Not here: who is told when the count reaches nothing (`super::release`).
#![allow(unsafe_code, reason = "reads and writes payload bytes of the range it owns")]

use core::fmt;
use core::mem::{self, ManuallyDrop};
use core::ptr::{self, NonNull};
use core::task::Waker;

use super::store::Stored;
use super::sync::Ordering;
use super::{
    Access, Batch, FAILED, HANDLE, HOLD, HOLDS, Header, KEPT, NARROW_BYTES, Notify, Payload, QUEUE,
    REPORTED, RegionId, WAKER,
};
use super::{release, release_in};
use crate::error::{Error, ErrorKind, FailedRange};
use crate::packet::output::Fragment;

/// Views of one packet that may exist at a time; far from where the count would wrap.
const HOLDS_MAX: u64 = HOLD << 31;

/// The right to complete one range of a payload, exactly once. Dropping it without a verdict
/// fails the range as `Aborted`.
pub(crate) struct Hold {
    header: NonNull<Header>,
    /// Both ends in one word (`pack`), so that a hold is two words: those travel in registers.
    /// Three are copied through memory at every move, in other pieces than they were written
    /// in, and the processor waits each time until the writes have reached its cache.
    range: u64,
}

/// In `range`: the ends do not fit, the rest is their index in `Guarded::wide`.
const WIDE: u64 = 1 << 63;

// SAFETY: the ranges of holds never overlap, and the header is made for sharing.
unsafe impl Send for Hold {}
// SAFETY: `&Hold` only reads.
unsafe impl Sync for Hold {}

impl Hold {
    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: a hold exists, so the header is not freed.
        unsafe { self.header.as_ref() }
    }

    /// The whole payload of a header that has just been armed.
    #[inline]
    pub(super) fn over(header: NonNull<Header>, len: u64) -> Self {
        // SAFETY: the caller's handle keeps the header alive.
        let range = pack(unsafe { header.as_ref() }, 0, len);
        Self { header, range }
    }

    #[inline]
    pub(super) fn is_of(&self, header: NonNull<Header>) -> bool {
        self.header == header
    }

    /// The header, given up together with the hold.
    #[inline]
    pub(super) fn into_header(self) -> NonNull<Header> {
        ManuallyDrop::new(self).header
    }

    #[inline]
    fn bounds(&self) -> (u64, u64) {
        if self.range & WIDE == 0 {
            return (self.range >> 32, self.range & 0xffff_ffff);
        }
        self.wide_bounds()
    }

    #[cold]
    fn wide_bounds(&self) -> (u64, u64) {
        let index = usize::try_from(self.range & !WIDE).expect("an index");
        self.header().guarded.with(|guarded| guarded.wide[index])
    }

    #[inline]
    fn payload(&self) -> Payload {
        // SAFETY: constant while holds exist.
        unsafe { *self.header().payload.look() }
    }

    #[inline]
    pub(crate) fn start(&self) -> u64 {
        self.bounds().0
    }

    #[inline]
    pub(crate) fn len(&self) -> u64 {
        let (start, end) = self.bounds();
        end - start
    }

    #[inline]
    pub(crate) fn region(&self) -> Option<RegionId> {
        self.payload().region
    }

    pub(crate) fn id(&self) -> usize {
        self.header.as_ptr().addr()
    }

    /// Whether the range has bytes in memory that do not move.
    #[inline]
    pub(crate) fn has_address(&self) -> bool {
        !self.payload().ptr.is_null()
    }

    /// The first byte of the range; `None` for a payload on a stack.
    #[inline]
    pub(crate) fn ptr(&self) -> Option<*mut u8> {
        let payload = self.payload();
        if payload.ptr.is_null() {
            return None;
        }
        // The range is inside an allocation, so its offsets fit in usize.
        Some(payload.ptr.wrapping_add(usize::try_from(self.start()).ok()?))
    }

    /// The first byte and the length of the range; `None` for a payload on a stack.
    #[inline]
    pub(crate) fn address_and_len(&self) -> Option<(*mut u8, u64)> {
        let (start, end) = self.bounds();
        let payload = self.payload();
        if payload.ptr.is_null() {
            return None;
        }
        Some((payload.ptr.wrapping_add(usize::try_from(start).ok()?), end - start))
    }

    /// The first byte and the length of the range, where it lies in `region`.
    #[inline(always)]
    pub(crate) fn in_region(&self, region: RegionId) -> Option<(NonNull<u8>, u64)> {
        let (start, end) = self.bounds();
        let payload = self.payload();
        if payload.region.map_or(0, RegionId::get) != region.get() {
            return None;
        }
        // SAFETY: only what has an address is said to be in a region: see `Payload::at`.
        unsafe { core::hint::assert_unchecked(!payload.ptr.is_null()) };
        let first = payload.ptr.wrapping_add(usize::try_from(start).ok()?);
        Some((NonNull::new(first)?, end - start))
    }

    pub(crate) fn split_at(self, at: u64) -> (Self, Self) {
        let (start, end) = self.bounds();
        assert!(at <= end - start, "split at {at} of {} bytes", end - start);
        let before = self.header().state.fetch_add(HOLD, Ordering::Relaxed);
        // Leaked views count for ever; the count must not wrap, or a packet would be complete
        // while views of it live.
        assert!(before & HOLDS < HOLDS_MAX, "too many views of one packet");
        let whole = ManuallyDrop::new(self);
        let part = |from, to| Self { header: whole.header, range: pack(whole.header(), from, to) };
        (part(start, start + at), part(start + at, end))
    }

    /// The bytes, unless they are on a stack.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        let (ptr, len) = (self.ptr()?, usize::try_from(self.len()).ok()?);
        // SAFETY: in bounds and initialised by `StableBytes`; not written while borrowed,
        // because a hold's own range is written through `&mut` of it only.
        Some(unsafe { core::slice::from_raw_parts(ptr, len) })
    }

    /// The bytes, to be filled, unless they are on a stack.
    pub(crate) fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        assert!(self.payload().writable, "a packet that is to be filled");
        let (ptr, len) = (self.ptr()?, usize::try_from(self.len()).ok()?);
        // SAFETY: as `bytes`; writable by `StableBytesMut`; ranges of holds are disjoint.
        Some(unsafe { core::slice::from_raw_parts_mut(ptr, len) })
    }

    /// The stored owner and how to get at its bytes, where they are not in memory as such.
    fn access(&self) -> Option<(&'static Access, &Stored)> {
        let access = self.payload().access?;
        // SAFETY: nobody writes `stored` while holds exist.
        Some((access, unsafe { &*self.header().stored.look() }))
    }

    fn assert_inside(&self, at: u64, len: usize) {
        let end = at.checked_add(len as u64);
        assert!(end.is_some_and(|end| end <= self.len()), "copy beyond the view");
    }

    /// Runs `copy` on the address of byte `at` of the range, good for `len` bytes. False, and
    /// no call, where the stack payload has been revoked.
    fn with_address(&self, at: u64, len: usize, copy: impl FnOnce(*mut u8)) -> bool {
        self.assert_inside(at, len);
        let offset = usize::try_from(self.start() + at).expect("payloads fit in memory");
        let fixed = self.payload().ptr;
        if !fixed.is_null() {
            copy(fixed.wrapping_add(offset));
            return true;
        }
        self.header().guarded.with(|guarded| {
            let usable = !guarded.stack.is_null();
            if usable {
                copy(guarded.stack.wrapping_add(offset));
            }
            usable
        })
    }

    /// Copies `from` into the range from byte `at` on.
    pub(crate) fn fill(&mut self, at: u64, from: &[u8]) -> bool {
        assert!(self.payload().writable, "a packet that is to be filled");
        if let Some((access, stored)) = self.access() {
            self.assert_inside(at, from.len());
            (access.write_at)(stored, self.start() + at, from);
            return true;
        }
        // SAFETY: `with_address` checked the bounds; `&mut self` owns the range; `from` is a
        // live borrow and the payload is owned by the header or by a pinned future.
        let copy = |to: *mut u8| unsafe { ptr::copy(from.as_ptr(), to, from.len()) };
        self.with_address(at, from.len(), copy)
    }

    /// Copies from byte `at` of the range on into `to`.
    pub(crate) fn copy_out(&self, at: u64, to: &mut [u8]) -> bool {
        let len = to.len();
        if let Some((access, stored)) = self.access() {
            self.assert_inside(at, len);
            (access.read_at)(stored, self.start() + at, to);
            return true;
        }
        // SAFETY: as `fill`, with the roles exchanged.
        let copy = |from: *mut u8| unsafe { ptr::copy(from, to.as_mut_ptr(), len) };
        self.with_address(at, len, copy)
    }

    /// The range is through: every byte of it transferred.
    #[inline]
    pub(crate) fn done(self) {
        let leaving = Leaving(ManuallyDrop::new(self));
        leaving.0.report(None);
    }

    /// As [`Hold::done`]; who is told is told when the batch is flushed.
    #[inline]
    pub(crate) fn done_in(self, batch: &mut Batch) {
        // The usual case with one look: the last hold of a packet that goes to a queue, of
        // which nothing has failed and nobody wants to hear.
        if self.is_last_of_quiet() {
            let header = ManuallyDrop::new(self).header;
            // SAFETY: state QUEUE with one hold, the caller's: the header is the queue's now.
            return unsafe { batch.add(header) };
        }
        let leaving = Leaving(ManuallyDrop::new(self));
        leaving.0.report(None);
        let header = ManuallyDrop::new(leaving).0.header;
        // SAFETY: this hold is given up exactly here.
        unsafe { release_in(header, batch) };
    }

    /// As [`Hold::done_in`] where that calls nobody, now or when the batch is flushed, but the
    /// one waker of its queue then; else the hold comes back.
    ///
    /// A packet that is awaited is told by `wake`, which says whether it has; its waker stays
    /// with the packet then, for the next time, and comes back else, to be called by the caller.
    #[inline(always)]
    pub(crate) fn try_done_in(
        self,
        batch: &mut Batch,
        wake: impl FnOnce(&Waker) -> bool,
    ) -> Result<Option<Waker>, Self> {
        let state = self.header().state.load(Ordering::Acquire);
        if state == QUEUE | KEPT | HOLD || state == QUEUE | HOLD {
            // SAFETY: state QUEUE with one hold, the caller's: where it is added, the header is
            // the queue's.
            if unsafe { batch.try_add(self.header) } {
                let _given_up = ManuallyDrop::new(self);
                return Ok(None);
            }
            return Err(self);
        }
        if state & !(KEPT | WAKER) == HANDLE | HOLD {
            self.try_done_for(state, wake)
        } else {
            Err(self)
        }
    }

    /// As [`Hold::try_done_in`], for the last hold of a packet in that state, which has a handle
    /// and of which nothing has failed.
    #[inline(always)]
    fn try_done_for(
        self,
        state: u64,
        wake: impl FnOnce(&Waker) -> bool,
    ) -> Result<Option<Waker>, Self> {
        let gone = state - HOLD;
        let counted = &self.header().state;
        if counted.compare_exchange(state, gone, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            // The handle has just gone, or wants another waker to be told.
            return Err(self);
        }
        let this = ManuallyDrop::new(self);
        if state & WAKER == 0 {
            return Ok(None);
        }
        // SAFETY: a handle does not go away while WAKER is set, which `telling` clears last.
        let header = unsafe { this.header.as_ref() };
        let telling = Telling { header, then: gone & !WAKER };
        // SAFETY: no holds and WAKER set: `notify` is this thread's until then.
        let notify = unsafe { &mut *header.notify.get() };
        let told = matches!(notify, Notify::Waker(waker) if wake(waker));
        let left = if told { Notify::Nobody } else { mem::replace(notify, Notify::Nobody) };
        drop(telling);
        match left {
            Notify::Waker(waker) => Ok(Some(waker)),
            Notify::Nobody | Notify::Queue(_) => Ok(None),
        }
    }

    /// Whether this is the last hold of a packet that goes to a queue, of which nothing has
    /// failed and nobody wants to hear.
    #[inline(always)]
    fn is_last_of_quiet(&self) -> bool {
        self.header().state.load(Ordering::Acquire) & !KEPT == QUEUE | HOLD
    }

    /// The range failed.
    #[cold]
    pub(crate) fn fail(self, error: Error) {
        let (start, end) = self.bounds();
        let failed = FailedRange { start, end, error };
        self.header().guarded.with(|guarded| guarded.failed.push(failed));
        self.header().state.fetch_or(FAILED, Ordering::Relaxed);
        let leaving = Leaving(ManuallyDrop::new(self));
        leaving.0.report(Some(error));
    }

    /// Tells the packet's output, if there is one, before the packet can be complete.
    #[inline]
    fn report(&self, error: Option<Error>) {
        if self.header().state.load(Ordering::Relaxed) & REPORTED != 0 {
            self.report_to_output(error);
        }
    }

    #[cold]
    fn report_to_output(&self, error: Option<Error>) {
        // SAFETY: nobody writes `output` while holds exist.
        if let Some(output) = unsafe { &*self.header().output.look() } {
            let (start, end) = self.bounds();
            output.fragment(Fragment {
                tag: self.tag(),
                start,
                end,
                packet_bytes: self.payload().len,
                error,
            });
        }
    }

    /// The tag of the packet.
    pub(crate) fn tag(&self) -> u64 {
        // SAFETY: nobody writes `tag` while holds exist.
        unsafe { *self.header().tag.look() }
    }
}

/// Both ends of a range in one word: start above, end below, or the index of where they are.
#[inline]
fn pack(header: &Header, start: u64, end: u64) -> u64 {
    if end < NARROW_BYTES { start << 32 | end } else { pack_wide(header, start, end) }
}

#[cold]
fn pack_wide(header: &Header, start: u64, end: u64) -> u64 {
    header.guarded.with(|guarded| {
        guarded.wide.push((start, end));
        WIDE | (guarded.wide.len() as u64 - 1)
    })
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = self.bounds();
        write!(f, "Hold({start}..{end})")
    }
}

/// The last hold has gone and the waker is being told; the packet is the handle's when this goes.
struct Telling<'a> {
    header: &'a Header,
    then: u64,
}

impl Drop for Telling<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.header.state.store(self.then, Ordering::Release);
    }
}

/// A hold whose range has its result: given up when this goes, also where telling of it panics.
struct Leaving(ManuallyDrop<Hold>);

impl Drop for Leaving {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the hold is behind `ManuallyDrop`, so it is given up exactly here.
        unsafe { release(self.0.header) };
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        Self { header: self.header, range: self.range }.fail(Error::new(ErrorKind::Aborted));
    }
}
