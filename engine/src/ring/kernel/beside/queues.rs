//! The two queues of a ring, in memory that is shared with the kernel and with no child.
//!
//! Data flow: entries pushed → [`Queues::publish`] shows them to the kernel → `enter` →
//! [`Queues::drain`] hands out completions and gives their room back.
//!
//! All that is touched here is mapped with `MADV_DONTFORK`: a forked child faults at the first
//! of these calls, before it could change anything of its parent's (F26).
//!
//! Not here: making the ring (`params`), entering it (`companion`).
#![allow(unsafe_code, reason = "maps and touches the memory of the queues")]

use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicU32, Ordering};
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{cqueue, squeue};
use nix::errno::Errno;

use super::params::Params;
use crate::process::Process;

/// `IORING_OFF_SQ_RING`, where both rings are, and `IORING_OFF_SQES`.
const AT_RINGS: libc::off_t = 0;
const AT_ENTRIES: libc::off_t = 0x1000_0000;

/// `IORING_FEAT_SINGLE_MMAP`, Linux 5.4: both rings are in one mapping.
const SINGLE_MMAP: u32 = 1 << 0;

/// `IORING_SQ_CQ_OVERFLOW` and `IORING_SQ_TASKRUN`: the kernel wants to be entered.
const DUE: u32 = 1 << 1 | 1 << 2;

/// A part of a ring's memory, unmapped with the last that uses it.
struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    /// Which has it mapped; a child has other things there, or nothing (F26).
    owner: Process,
}

impl Mapping {
    fn new(ring: BorrowedFd<'_>, offset: libc::off_t, bytes: usize) -> Result<Self, Errno> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: lifetime, aliasing: a new range of addresses, of nobody else's. Bounds: `bytes`
        // of it; the kernel refuses what it does not have.
        let base =
            unsafe { libc::mmap(null_mut(), bytes, access, flags, ring.as_raw_fd(), offset) };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let base = NonNull::new(base.cast()).ok_or(Errno::ENOMEM)?;
        let mapping = Self { base, bytes, owner: Process::current() };
        // SAFETY: lifetime, aliasing: the advice changes no byte. Bounds: it is the mapping.
        let advised = unsafe { libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_DONTFORK) };
        // A ring that a child could use is no ring.
        Errno::result(advised).map(|_| mapping)
    }

    /// Where `count` of `T` lie from `offset` on; `EPROTO` unless they lie in here.
    fn at<T>(&self, offset: u32, count: u32) -> Result<NonNull<T>, Errno> {
        let (offset, count) = (offset as usize, count as usize);
        let end = count.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        if end.is_none_or(|end| end > self.bytes) {
            return Err(Errno::EPROTO);
        }
        // SAFETY: lifetime, aliasing: nothing is touched. Bounds: `offset` is in the mapping.
        let at = unsafe { self.base.add(offset) }.cast::<T>();
        at.is_aligned().then_some(at).ok_or(Errno::EPROTO)
    }

    /// The number at `offset`.
    fn word(&self, offset: u32) -> Result<&AtomicU32, Errno> {
        let at = self.at::<AtomicU32>(offset, 1)?;
        // SAFETY: lifetime: the mapping goes with `self`. Aliasing: it is an atomic, to the
        // kernel too. Bounds: looked at just now.
        Ok(unsafe { at.as_ref() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.owner.is_current() {
            return;
        }
        // SAFETY: lifetime: it is unmapped once, here, and `Queues`, which points into it, goes
        // with it. Aliasing: the range is this mapping's alone. Bounds: all of it.
        let _kept = unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A number that the kernel shares.
#[derive(Clone, Copy)]
struct Word(NonNull<AtomicU32>);

/// The queues of a ring whose entries are of types `S` and `C`. Not `Send` and not `Sync`.
pub(super) struct Queues<S, C> {
    sq_head: Word,
    sq_tail: Word,
    sq_flags: Word,
    cq_head: Word,
    cq_tail: Word,
    sqes: NonNull<S>,
    cqes: NonNull<C>,
    sq_mask: u32,
    cq_mask: u32,
    /// What the kernel has taken, as far as is known; and what has been pushed.
    taken: u32,
    pushed: u32,
    /// What has been drained.
    drained: u32,
    _mapped: [Mapping; 2],
    _entries: PhantomData<(S, C)>,
}

impl<S: squeue::EntryMarker, C: cqueue::EntryMarker> Queues<S, C> {
    /// The entry sizes to ask for.
    pub(super) const FLAGS: u32 = S::BUILD_FLAGS | C::BUILD_FLAGS;

    /// Maps the queues of `ring`, which was made with [`Self::FLAGS`] and answered `params`.
    pub(super) fn new(ring: BorrowedFd<'_>, params: &Params) -> Result<Self, Errno> {
        const { assert!(size_of::<S>() == if S::BUILD_FLAGS == 0 { 64 } else { 128 }) };
        const { assert!(size_of::<C>() == if C::BUILD_FLAGS == 0 { 16 } else { 32 }) };
        let Params { sq_entries, cq_entries, sq_off, cq_off, .. } = *params;
        let sized = params.flags & Self::FLAGS == Self::FLAGS;
        let rounded = sq_entries.is_power_of_two() && cq_entries.is_power_of_two();
        if !sized || !rounded || params.features & SINGLE_MMAP == 0 {
            return Err(Errno::EPROTO);
        }
        let sq_end = sq_off.array as usize + sq_entries as usize * size_of::<u32>();
        let cq_end = cq_off.cqes as usize + cq_entries as usize * size_of::<C>();
        let rings = Mapping::new(ring, AT_RINGS, sq_end.max(cq_end))?;
        let entries = Mapping::new(ring, AT_ENTRIES, sq_entries as usize * size_of::<S>())?;
        let (sq_mask, cq_mask) = (sq_entries - 1, cq_entries - 1);
        for (offset, expected) in [(sq_off.ring_mask, sq_mask), (cq_off.ring_mask, cq_mask)] {
            if rings.word(offset)?.load(Ordering::Relaxed) != expected {
                return Err(Errno::EPROTO);
            }
        }
        // Which entry comes next is looked up in an array: they come in turn, for good.
        for at in 0..sq_entries {
            rings.word(sq_off.array + 4 * at)?.store(at, Ordering::Relaxed);
        }
        let word = |offset| rings.at(offset, 1).map(Word);
        Ok(Self {
            sq_head: word(sq_off.head)?,
            sq_tail: word(sq_off.tail)?,
            sq_flags: word(sq_off.flags)?,
            cq_head: word(cq_off.head)?,
            cq_tail: word(cq_off.tail)?,
            sqes: entries.at(0, sq_entries)?,
            cqes: rings.at(cq_off.cqes, cq_entries)?,
            sq_mask,
            cq_mask,
            taken: 0,
            pushed: 0,
            drained: 0,
            _mapped: [rings, entries],
            _entries: PhantomData,
        })
    }

    fn word(&self, word: Word) -> &AtomicU32 {
        // SAFETY: lifetime: it points into a mapping, which goes with `self`. Aliasing: it is
        // shared, also with the kernel, as an atomic. Bounds: looked at in `Mapping::at`.
        unsafe { word.0.as_ref() }
    }

    /// Queues `entry`, or returns that there is no room. The kernel sees it once published.
    ///
    /// # Safety
    /// What `entry` names is the kernel's from then on until its target CQE (F01).
    pub(super) unsafe fn push(&mut self, entry: &S) -> bool {
        if self.pushed.wrapping_sub(self.taken) > self.sq_mask {
            return false;
        }
        let at = (self.pushed & self.sq_mask) as usize;
        // SAFETY: lifetime: the mapping goes with `self`. Bounds: `at` is less than the entries
        // that were mapped.
        let at = unsafe { self.sqes.add(at) };
        // SAFETY: lifetime, bounds: as above. Aliasing: `&mut self`, and the kernel reads an
        // entry only between what it has taken and what was published.
        unsafe { at.write(entry.clone()) };
        self.pushed = self.pushed.wrapping_add(1);
        true
    }

    /// Whether the kernel has something to do that it does when it is entered.
    pub(super) fn is_due(&self) -> bool {
        self.word(self.sq_flags).load(Ordering::Acquire) & DUE != 0
    }

    /// Shows the kernel what was pushed, and looks how much of it was taken.
    pub(super) fn publish(&mut self) {
        self.word(self.sq_tail).store(self.pushed, Ordering::Release);
        self.taken = self.word(self.sq_head).load(Ordering::Acquire);
    }

    /// Hands every completion that is there to `each`.
    pub(super) fn drain(&mut self, mut each: impl FnMut(&C)) {
        let end = self.word(self.cq_tail).load(Ordering::Acquire);
        while self.drained != end {
            let at = (self.drained & self.cq_mask) as usize;
            // SAFETY: lifetime: the mapping goes with `self`. Bounds: `at` is less than the
            // entries that were mapped.
            let at = unsafe { self.cqes.add(at) };
            // SAFETY: lifetime, bounds: as above. Aliasing: the kernel writes no entry between
            // what was drained and the end that it has told.
            each(unsafe { at.as_ref() });
            self.drained = self.drained.wrapping_add(1);
        }
        self.word(self.cq_head).store(self.drained, Ordering::Release);
    }
}
