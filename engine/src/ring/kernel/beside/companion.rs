//! One more ring of the same thread, of other entries or with polled completions.
//!
//! Data flow: entries pushed → [`Companion::turn`], one `io_uring_enter(2)` that submits, runs
//! what is due and sleeps for nothing → completions for whoever asks. Its queues are as large
//! as those of the main ring, whose bounds on ops therefore hold here too.
//!
//! Not here: which op goes here, what its result means (`beside`), sleeping (`kernel`), the
//! memory of the queues (`queues`).

#[cfg(test)]
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use io_uring::{EnterFlags, Submitter, cqueue, squeue};
use nix::errno::Errno;

use super::super::files::FileTable;
use super::super::gate::Gate;
use super::super::owned::OwnedRing;
use super::super::register::{empty, pieces, repeat};
use super::super::restrict;
use super::super::setup::errno_of;
use super::params::{self, Params, flag};
use super::queues::Queues;
use crate::buffer::{FixedSpan, Region};
use crate::ring::{Features, FileRef, Limits, Poll};

/// Entries of its table of registered files.
const FILES_MAX: u32 = 1024;

/// What [`Features::in_use`] calls polling after a pause.
const HYBRID: &str = "HYBRID_IOPOLL";

/// From the richest to the plain one; each is tried once, the next one on `EINVAL`.
const RUNGS: [u32; 3] = [
    flag::SUBMIT_ALL | flag::SINGLE_ISSUER | flag::DEFER_TASKRUN | flag::TASKRUN_FLAG,
    flag::SUBMIT_ALL | flag::COOP_TASKRUN | flag::TASKRUN_FLAG,
    0,
];

/// A ring whose entries are of types `S` and `C`.
pub(super) struct Companion<S: squeue::EntryMarker, C: cqueue::EntryMarker> {
    // Fields drop in this order: what borrows from `ring` goes before it.
    submitter: Submitter<'static>,
    gate: Gate,
    /// For its system calls; it has mapped nothing of this ring's.
    _ring: OwnedRing,
    queues: Queues<S, C>,
    files: FileTable,
    /// By entry: whether it is the same in this table of buffers as in that of the main ring.
    /// Empty where this ring has no table.
    fixed: Vec<bool>,
    in_flight: u32,
    queued: u32,
    poll: Poll,
}

impl<S: squeue::EntryMarker, C: cqueue::EntryMarker> Companion<S, C> {
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
        let (fd, params) = climb_down(limits, poll, Queues::<S, C>::FLAGS, features)?;
        let queues = Queues::new(fd.as_fd(), &params)?;
        let ring = params::adopt(fd)?;
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
        let (submitter, gate) = (ring.get().submitter(), Gate::new(ring.get()));
        let fixed = vec![true; if cloned { fixed_end.into() } else { 0 }];
        let (in_flight, queued) = (0, 0);
        Ok(Self { submitter, gate, _ring: ring, queues, files, fixed, in_flight, queued, poll })
    }

    #[cfg(test)]
    pub(super) fn descriptor(&self) -> RawFd {
        self._ring.get().as_raw_fd()
    }

    /// How it was asked to learn of completions.
    pub(super) const fn poll(&self) -> Poll {
        self.poll
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
        // the target CQE (F01), or to `beside`, which keeps it as long. Aliasing: the slot's
        // buffer is the kernel's until then. Bounds: what the entry says, it says of that memory.
        let pushed = unsafe { self.queues.push(entry) };
        assert!(pushed, "room in the queue was reserved before the push");
        self.queued += 1;
    }

    /// Submits what is queued and runs what is due. One that polls asks the device until `min`
    /// ops have completed or the kernel has something else to do; one that does not never
    /// waits. Returns how many entries were taken.
    pub(super) fn turn(&mut self, min: u32) -> Result<u32, Errno> {
        if self.queued == 0 && self.in_flight == 0 {
            return Ok(0);
        }
        // A forked child faults here, before it could enter the ring (F26).
        let due = self.queues.is_due();
        let polled = self.poll != Poll::Interrupt;
        if self.queued == 0 && !polled && !due {
            // Completions that are not there yet are not brought by asking.
            return Ok(0);
        }
        self.queues.publish();
        let min = if polled { min } else { 0 };
        // SAFETY: as in `KernelRing::enter_without_limit`.
        let taken = unsafe { self.gate.enter(self.queued, min, EnterFlags::GETEVENTS) };
        self.queues.publish();
        let taken = taken?;
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
        let in_flight = &mut self.in_flight;
        self.queues.drain(|cqe| {
            let (user_data, result, more) = of(cqe);
            *in_flight -= u32::from(!more);
            if !more {
                each(user_data, result);
            }
        });
    }
}

/// The best ring that the kernel grants: its flags, in words, and the best rung of them.
fn climb_down(
    limits: Limits,
    poll: Poll,
    entries: u32,
    features: &mut Features,
) -> Result<(OwnedFd, Params), Errno> {
    let polls: &[u32] = match poll {
        Poll::Interrupt => &[0],
        Poll::Polled => &[flag::IOPOLL],
        Poll::Hybrid => &[flag::IOPOLL | flag::HYBRID_IOPOLL, flag::IOPOLL],
    };
    let always = flag::CLAMP | flag::CQSIZE | flag::R_DISABLED | entries;
    for (polls, rung) in polls.iter().flat_map(|polls| RUNGS.map(|rung| (polls, rung))) {
        let flags = always | polls | rung;
        let asked = Params { flags, cq_entries: limits.cq_entries, ..Params::default() };
        match params::setup(limits.sq_entries, asked) {
            Ok(made) => {
                if poll == Poll::Hybrid {
                    tell(flags & flag::HYBRID_IOPOLL != 0, features);
                }
                return Ok(made);
            }
            Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EINVAL)
}

/// Says, once, whether there is a pause before polling.
fn tell(pauses: bool, features: &mut Features) {
    if pauses && !features.in_use.contains(&HYBRID) {
        features.in_use.push(HYBRID);
    }
    let refused = "HYBRID_IOPOLL: the kernel refused it (EINVAL), completions are polled for \
                   without a pause (IOPOLL); Linux 6.13 has it";
    if !pauses && !features.degraded.iter().any(|text| text == refused) {
        features.degraded.push(refused.to_owned());
    }
}
