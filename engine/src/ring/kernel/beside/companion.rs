//! One more ring of the same thread, of other entries or with polled completions.
//!
//! Data flow: entries pushed → [`Companion::turn`], one `io_uring_enter(2)` that submits, runs
//! what is due and sleeps for nothing → completions for whoever asks. Its queues are as large
//! as those of the main ring, whose bounds on ops therefore hold here too.
//!
//! Not here: which op goes here, what its result means (`beside`), sleeping (`kernel`).

use std::os::fd::RawFd;

use io_uring::{EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue, squeue};
use nix::errno::Errno;

use super::super::files::FileTable;
use super::super::owned::OwnedRing;
use super::super::register::{empty, pieces, repeat};
use super::super::restrict;
use super::super::setup::errno_of;
use crate::buffer::{FixedSpan, Region};
use crate::ring::{Features, FileRef, Limits, Poll};

/// Entries of its table of registered files.
const FILES_MAX: u32 = 1024;

/// A ring whose entries are of types `S` and `C`.
pub(super) struct Companion<S: squeue::EntryMarker + 'static, C: cqueue::EntryMarker + 'static> {
    // Fields drop in this order: what borrows from `ring` goes before it.
    sq: SubmissionQueue<'static, S>,
    submitter: Submitter<'static>,
    ring: OwnedRing<S, C>,
    files: FileTable,
    /// By entry: whether it is the same in this table of buffers as in that of the main ring.
    /// Empty where this ring has no table.
    fixed: Vec<bool>,
    in_flight: u32,
    queued: u32,
    polled: bool,
}

impl<S: squeue::EntryMarker + 'static, C: cqueue::EntryMarker + 'static> Companion<S, C> {
    /// Makes one beside the ring `main`, on the same thread, which submits `opcodes` only. Its
    /// buffers are those that `main` has registered up to entry `fixed_end`, where the kernel
    /// can share them.
    pub(super) fn new(
        main: RawFd,
        limits: Limits,
        poll: Poll,
        opcodes: &[u8],
        fixed_end: u16,
        features: &mut Features,
    ) -> Result<Self, Errno> {
        if poll == Poll::Hybrid {
            features.degraded.push(
                "HYBRID_IOPOLL: not asked for by this version, completions are polled for \
                 without a pause (IOPOLL)"
                    .to_owned(),
            );
        }
        let ring = climb_down::<S, C>(limits, poll != Poll::Interrupt)?;
        let submitter = ring.submitter();
        restrict::enable(&submitter, opcodes, features)?;
        let files = FileTable::new(&submitter, FILES_MAX, features);
        let cloned = fixed_end > 0 && submitter.register_buffers_clone(main).is_ok();
        if fixed_end > 0 && !cloned {
            features.degraded.push(
                "cloned buffers: a companion ring has none (Linux 6.12 can share them), so its \
                 ops go unregistered"
                    .to_owned(),
            );
        }
        let ring = OwnedRing::new(ring);
        let mut submitter = ring.get().submitter();
        let _or_by_descriptor = submitter.register_ring_fd();
        // SAFETY: lifetime: `sq` is dropped before `ring` (field order). Aliasing: this is the
        // only submission queue ever made of this ring.
        let sq = unsafe { ring.get().submission_shared() };
        let fixed = vec![true; if cloned { fixed_end.into() } else { 0 }];
        let polled = poll != Poll::Interrupt;
        Ok(Self { sq, submitter, ring, files, fixed, in_flight: 0, queued: 0, polled })
    }

    pub(super) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Entries that the kernel has not taken.
    pub(super) const fn queued(&self) -> u32 {
        self.queued
    }

    /// `index`, if that buffer is registered here.
    pub(super) fn fixed(&self, index: Option<u16>) -> Option<u16> {
        index.filter(|&index| self.fixed.get(usize::from(index)) == Some(&true))
    }

    /// The main ring has registered `region` as `span`; so it is here, where this ring has a
    /// table. Its pages are pinned, and counted against `RLIMIT_MEMLOCK`, once more: kernels that
    /// can clone into a table that is in use lose what stands behind in it. Where that is
    /// refused, ops on it go unregistered.
    pub(super) fn add_buffers(&mut self, region: &Region, span: FixedSpan) -> Result<(), Errno> {
        let first = usize::from(span.first_index);
        let end = first + pieces(span.registered_bytes);
        if self.fixed.is_empty() {
            return Ok(());
        }
        if self.fixed.len() < end {
            self.fixed.resize(end, false);
        }
        self.fixed[first..end].fill(false);
        repeat(&self.submitter, region, span)?;
        self.fixed[first..end].fill(true);
        Ok(())
    }

    /// Those of `span` are registered here no longer.
    pub(super) fn empty_buffers(&mut self, span: FixedSpan) {
        let first = usize::from(span.first_index);
        let end = (first + pieces(span.registered_bytes)).min(self.fixed.len());
        for entry in first..end {
            if core::mem::take(&mut self.fixed[entry]) {
                // One that cannot be emptied keeps its pages pinned, and is not used.
                let _kept = empty(&self.submitter, entry);
            }
        }
    }

    pub(super) fn add_file(&mut self, fd: RawFd, features: &mut Features) -> FileRef {
        self.files.add(&self.submitter, fd, features)
    }

    pub(super) fn remove_file(&mut self, file: FileRef) {
        self.files.remove(&self.submitter, file);
    }

    /// Completions make `event` readable from now on.
    pub(super) fn tell(&self, event: RawFd) -> Result<(), Errno> {
        let _had_none = self.submitter.unregister_eventfd();
        self.submitter.register_eventfd(event).map_err(|error| errno_of(&error))
    }

    /// Queues `entry`.
    ///
    /// # Panics
    /// When the queue is full: the main ring's bound was passed over.
    pub(super) fn push(&mut self, entry: &S) {
        // SAFETY: lifetime: the memory that `entry` names belongs to the slot of its tag until
        // the target CQE (F01), or to `beside`, which keeps it as long. Aliasing: `&mut self`,
        // and `sq` is the only queue. Bounds: the assertion.
        let pushed = unsafe { self.sq.push(entry) };
        assert!(pushed.is_ok(), "room in the queue was reserved before the push");
        self.queued += 1;
    }

    /// Submits what is queued and runs what is due. One that polls asks the device until `min`
    /// ops have completed or the kernel has something else to do; one that does not never
    /// waits. Returns how many entries were taken.
    pub(super) fn turn(&mut self, min: u32) -> Result<u32, Errno> {
        if self.queued == 0 && self.in_flight == 0 {
            return Ok(0);
        }
        let due = self.sq.taskrun() || self.sq.cq_overflow();
        if self.queued == 0 && !self.polled && !due {
            // Completions that are not there yet are not brought by asking.
            return Ok(0);
        }
        self.sq.sync();
        let min = if self.polled { min } else { 0 };
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: as in `KernelRing::enter_without_limit`.
        let taken =
            unsafe { self.submitter.enter::<libc::sigset_t>(self.queued, min, flags, None) };
        self.sq.sync();
        let taken = taken.map_err(|error| errno_of(&error))?;
        let taken = u32::try_from(taken).expect("no more are taken than were queued");
        self.queued -= taken;
        self.in_flight += taken;
        Ok(taken)
    }

    /// Hands every completion that is ready to `each`: user data, result.
    pub(super) fn reap(
        &mut self,
        mut each: impl FnMut(u64, i32),
        of: impl Fn(&C) -> (u64, i32, bool),
    ) {
        // SAFETY: lifetime: it is dropped in this function. Aliasing: no other completion queue
        // of this ring exists while it lives.
        let cq = unsafe { self.ring.get().completion_shared() };
        for cqe in cq {
            let (user_data, result, more) = of(&cqe);
            self.in_flight -= u32::from(!more);
            if !more {
                each(user_data, result);
            }
        }
    }
}

/// The best ring of these entries that the kernel grants.
fn climb_down<S: squeue::EntryMarker + 'static, C: cqueue::EntryMarker + 'static>(
    limits: Limits,
    polled: bool,
) -> Result<IoUring<S, C>, Errno> {
    let mut refusal = Errno::EINVAL;
    for rung in 0..3 {
        let mut builder = IoUring::<S, C>::builder();
        builder.dontfork().setup_clamp().setup_cqsize(limits.cq_entries).setup_r_disabled();
        match rung {
            0 => builder
                .setup_submit_all()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_taskrun_flag(),
            1 => builder.setup_submit_all().setup_coop_taskrun().setup_taskrun_flag(),
            _ => &mut builder,
        };
        if polled {
            builder.setup_iopoll();
        }
        match builder.build(limits.sq_entries) {
            Ok(ring) => return Ok(ring),
            Err(error) => refusal = errno_of(&error),
        }
        if refusal != Errno::EINVAL {
            break;
        }
    }
    Err(refusal)
}

impl<S: squeue::EntryMarker + 'static, C: cqueue::EntryMarker + 'static> Drop for Companion<S, C> {
    fn drop(&mut self) {
        // As in `KernelRing::drop`.
        let _not_registered = self.submitter.unregister_ring_fd();
    }
}
