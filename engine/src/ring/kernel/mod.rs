//! Executes ops by io_uring.
//!
//! Data flow: [`Op`] → SQE → submission queue → `io_uring_enter(2)` → completion queue →
//! [`Completion`]. The queues are those of the `io-uring` crate, held open for the life of the
//! ring, so that a push is one bounds check and one copy of 64 bytes, and the shared tail is
//! published once per `enter`.
//!
//! Not here: the choice of flags and the texts for people (`setup`), the kernel's words
//! (`sqe`), who owns memory in flight and the drain before a drop (`shard`).
#![allow(unsafe_code, reason = "the only place that shares queues with the kernel")]

mod beside;
mod copy;
mod enter;
mod files;
mod fixed;
mod gate;
mod inline;
mod internal;
mod owned;
mod push;
mod register;
mod restrict;
mod setup;
mod socket;
mod sqe;
mod sqpoll;
mod stats;
mod wake;
mod worker;

use std::collections::VecDeque;
use std::hint::cold_path;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use io_uring::{EnterFlags, SubmissionQueue, Submitter};
use nix::errno::Errno;

use self::beside::Beside;
use self::files::FileTable;
use self::gate::Gate;
use self::inline::Staged;
use self::owned::OwnedRing;
use self::register::BufferTable;
pub use self::register::share;
pub use self::setup::{KernelConfig, QUEUE_DEPTH_MAX, RingError};
use self::sqe::{NOWHERE, Sqe};
pub use self::stats::KernelStats;
pub use self::wake::KernelWaker;
use self::wake::Wake;
use super::Transfers;
use super::{
    Completion, Features, FileRef, Head, Inline, Limits, Op, OpKind, Poll, Ring, Tag, Wait,
};
use crate::buffer::{FixedBytes, FixedSpan, MemRange, Region, TRANSFER_BYTES_MAX};
use crate::nvme::Space;
use crate::sys;

/// Completion queue entries kept for the ring's own CQEs.
const INTERNAL_CQES: u32 = 2;

/// An io_uring. Belongs to the thread that made it: `SINGLE_ISSUER` answers `EEXIST` to others
/// (F24), which the type rules out:
///
/// ```compile_fail
/// fn needs_send<T: Send>() {}
/// needs_send::<mfio_engine::ring::kernel::KernelRing>();
/// ```
///
/// Dropping it with ops in flight does not stop them (F02): whoever owns their memory reaps
/// every target CQE first, or never frees it. A child process does not inherit the queues, and
/// faults when it uses the ring, rather than taking the parent's completions; it may drop it,
/// which closes its copies of the descriptors and does nothing else (F26).
pub struct KernelRing {
    // Fields drop in this order: what borrows from `ring` goes before it.
    /// Not dropped, which would publish its tail: in a child, to memory that is not there.
    sq: ManuallyDrop<SubmissionQueue<'static>>,
    submitter: Submitter<'static>,
    gate: Gate,
    ring: OwnedRing,
    /// Ops taken by the kernel and ops reaped since the start, modulo 2^32.
    ops_taken: u32,
    ops_reaped: u32,
    /// Of those in between, how many wait for a peer.
    ops_on_sockets: u32,
    /// SQEs taken by the kernel since the start, modulo 2^32, the ring's own included.
    taken: u32,
    /// Of the entries that the queue was seen to have, how many are published: with SQPOLL.
    published: u32,
    sqpoll: bool,
    /// How many SQEs will have been taken when each of the ring's own, still queued, has been.
    internal_at: VecDeque<u32>,
    wake: Wake,
    no_iowait: EnterFlags,
    files: FileTable,
    buffers: BufferTable,
    features: Features,
    limits: Limits,
    stats: KernelStats,
    /// Submission queue entries that are not kept for a staged op.
    room: u32,
    staged: Option<Staged>,
    /// What a staged op has come to.
    inline_done: Option<Completion>,
    /// What goes by NVMe commands, or is polled for; made with the first such target.
    beside: Option<Box<Beside>>,
}

impl KernelRing {
    /// Makes a ring for the calling thread, with the best flags that the kernel grants.
    ///
    /// # Errors
    /// - [`RingError::Forbidden`], [`RingError::Missing`], [`RingError::TooOld`]: io_uring is
    ///   not to be had here; another backend is (F31).
    /// - [`RingError::QueueDepth`], [`RingError::Files`], [`RingError::Memory`]: not of this
    ///   size, or not now.
    /// - [`RingError::Os`]: anything else.
    pub fn new(config: &KernelConfig) -> Result<Self, RingError> {
        let (ring, mut features) = setup::build(config)?;
        let files = FileTable::new(&ring.submitter(), config.files_max, &mut features);
        let wake = Wake::new().map_err(|errno| match errno {
            Errno::EMFILE | Errno::ENFILE => RingError::Files { errno },
            errno => RingError::Os { call: "eventfd", errno },
        })?;
        let params = ring.params();
        let no_iowait =
            if params.is_feature_no_iowait() { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() };
        let sqpoll = config.sqpoll.is_some();
        let limits = Limits {
            sq_entries: params.sq_entries() >> u32::from(sqpoll),
            cq_entries: params.cq_entries().saturating_sub(INTERNAL_CQES).max(1),
            transfer_bytes_max: TRANSFER_BYTES_MAX,
        };
        let ring = OwnedRing::new(ring);
        let submitter = ring.get().submitter();
        let gate = Gate::new(ring.get());
        if gate.is_registered() {
            features.in_use.push("registered ring fd");
        }
        // SAFETY: lifetime: `sq` is a field beside `ring`, used only through it and never dropped,
        // so nothing of it is looked at once `ring` has gone. Aliasing: this is the only
        // submission queue ever made of this ring.
        let sq = ManuallyDrop::new(unsafe { ring.get().submission_shared() });
        let unsent = u32::try_from(sq.len()).unwrap_or(0);
        Ok(Self {
            sq,
            submitter,
            gate,
            ring,
            ops_taken: 0,
            ops_reaped: 0,
            ops_on_sockets: 0,
            taken: 0,
            published: 0,
            sqpoll,
            // A NOP of the setup that the kernel would not take.
            internal_at: (1..=unsent).collect(),
            wake,
            no_iowait,
            files,
            buffers: BufferTable::new(sys::is_memlock_exempt()),
            features,
            limits,
            stats: KernelStats::default(),
            room: limits.sq_entries,
            staged: None,
            inline_done: None,
            beside: None,
        })
    }
}

impl Ring for KernelRing {
    type Waker = KernelWaker;

    fn now_ns(&self) -> u64 {
        crate::sys::now_ns()
    }

    #[inline]
    fn reserve(&mut self, count: u32) -> bool {
        // Without SQPOLL the kernel takes entries in `enter` alone, which has looked.
        if self.room >= self.queued() + count {
            return true;
        }
        cold_path();
        self.sqpoll && self.reserve_sqpoll(count)
    }

    #[inline(always)]
    fn room(&mut self) -> u32 {
        if self.sqpoll {
            cold_path();
            return u32::from(self.reserve(1));
        }
        self.room.saturating_sub(self.queued())
    }

    #[inline(always)]
    fn push(&mut self, op: Op, tag: Tag) {
        debug_assert!(self.staged.is_none(), "a staged op is unstaged before the next push");
        if let FileRef::Beside(index) = op.file {
            return self.push_beside(op, tag, index);
        }
        self.push_sqe(&Sqe::of(&op, tag));
    }

    #[inline(always)]
    fn push_transfer(
        &mut self,
        kind: OpKind,
        file: FileRef,
        offset_bytes: u64,
        memory: MemRange,
        tag: Tag,
    ) {
        debug_assert!(self.staged.is_none(), "a staged op is unstaged before the next push");
        match sqe::transfer(kind, file, offset_bytes, memory, tag) {
            Some(entry) => self.push_entry(&entry),
            None => self.push(Op::transfer(kind, file, offset_bytes, memory), tag),
        }
    }

    fn head(&self, kind: OpKind, file: FileRef) -> Option<Head> {
        fixed::head(kind, file)
    }

    #[inline(always)]
    fn push_fixed(
        &mut self,
        head: Head,
        _of: (OpKind, FileRef),
        offset_bytes: u64,
        bytes: FixedBytes,
        tag: Tag,
    ) {
        debug_assert!(self.staged.is_none(), "a staged op is unstaged before the next push");
        self.push_entry(&fixed::entry(head, offset_bytes, bytes, tag));
    }

    fn stage(&mut self, op: Op, tag: Tag, how: Inline) {
        if !self.keep_aside(op, tag, how) {
            self.queue_staged();
            self.push(op, tag);
        }
    }

    #[inline]
    fn unstage(&mut self) {
        if self.staged.is_some() {
            self.queue_staged();
        }
    }

    #[inline(always)]
    fn transfer_inline(
        &mut self,
        kind: OpKind,
        file: FileRef,
        offset_bytes: u64,
        memory: MemRange,
        how: Inline,
    ) -> Option<i32> {
        self.call(kind, file, offset_bytes, memory, how)
    }

    fn inline_ops(&self) -> u64 {
        self.stats.inline_ops
    }

    /// As the trait says, and: a wake ends a wait by being one of its `min` completions, which
    /// [`Ring::reap`] then swallows. So it ends a wait for 1 at once; a wait for more ends one
    /// completion early, and thus as soon as the ops that are in flight allow. A shard that
    /// must answer within a time gives a deadline, or waits for 1.
    #[inline]
    fn enter(&mut self, wait: Wait) -> Result<u32, Errno> {
        if self.staged.is_some() && self.run_staged() {
            return Ok(1);
        }
        if self.beside.is_some() {
            return self.enter_beside(wait);
        }
        if wait.min == 0 && self.wake.is_watched() {
            self.wake.hush();
        }
        self.enter_plain(wait)
    }

    fn is_straight(&self) -> bool {
        self.is_main_alone()
    }

    #[inline(always)]
    fn enter_straight(&mut self, min: u32) -> Result<u32, Errno> {
        self.enter_alone(min)
    }

    #[inline]
    fn reap(&mut self, into: &mut Vec<Completion>) {
        let _none_settled = self.reap_rest(into, |_| false);
    }

    #[inline]
    fn reap_rest(
        &mut self,
        into: &mut Vec<Completion>,
        settle: impl FnMut(Completion) -> bool,
    ) -> u32 {
        if self.beside.is_some() {
            self.reap_beside(into);
        }
        self.reap_main(into, settle)
    }

    fn register_buffers(&mut self, region: &Region) {
        self.buffers.arena(&self.submitter, region, &mut self.features);
    }

    fn register_first(&mut self, region: &Region, bytes: usize) -> bool {
        self.buffers.first(&self.submitter, region, bytes, &mut self.features)
    }

    fn register_rest(&mut self, region: &Region) {
        if let Some(span) = self.buffers.rest(&self.submitter, region, &mut self.features) {
            self.add_buffers_beside(region, span);
        }
    }

    fn add_region(&mut self, region: &Region) -> Option<FixedSpan> {
        let span = self.buffers.add(&self.submitter, region, &mut self.features);
        if let Some(span) = span {
            self.add_buffers_beside(region, span);
        }
        span
    }

    fn remove_region(&mut self, span: FixedSpan) {
        self.empty_buffers_beside(span);
        self.buffers.remove(&self.submitter, span);
    }

    fn register_file(&mut self, fd: i32) -> FileRef {
        self.files.add(&self.submitter, fd, &mut self.features)
    }

    fn register_namespace(&mut self, fd: i32, space: Space, poll: Poll) -> Option<FileRef> {
        self.add_namespace(fd, space, poll)
    }

    fn register_polled(&mut self, fd: i32, poll: Poll) -> Option<FileRef> {
        self.add_polled(fd, poll)
    }

    fn register_flagged(&mut self, fd: i32, transfers: Transfers) -> Option<FileRef> {
        Some(self.add_flagged(fd, transfers))
    }

    fn unregister_file(&mut self, file: FileRef) {
        match file {
            FileRef::Beside(index) => self.remove_beside(index),
            file => self.files.remove(&self.submitter, file),
        }
    }

    fn device_status(&self, tag: Tag) -> Option<u16> {
        self.status_beside(tag)
    }

    fn cancel(&mut self, tag: Tag) -> bool {
        self.queue_staged();
        if self.beside.is_some() && self.cancel_beside(tag) {
            return true;
        }
        if !self.reserve(1) {
            return false;
        }
        self.push_internal(&Sqe::cancel(tag, Tag::INTERNAL));
        true
    }

    fn nowhere(&self) -> Option<FileRef> {
        Some(FileRef::Beside(NOWHERE))
    }

    fn waker(&self) -> KernelWaker {
        self.wake.waker()
    }

    fn features(&self) -> &Features {
        &self.features
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn supports(&self, kind: OpKind) -> bool {
        let needs = match kind {
            OpKind::Truncate => setup::FTRUNCATE,
            OpKind::DiscardDevice => setup::URING_CMD,
            kind if kind.is_range() => setup::FALLOCATE,
            _ => return true,
        };
        self.features.in_use.contains(&needs)
    }

    /// An eventfd registered with the ring, because the ring's own descriptor does not tell of
    /// work that `DEFER_TASKRUN` has left to the next `enter`.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.wake.host().map(AsFd::as_fd)
    }

    fn watch(&mut self) {
        if let Some(host) = self.wake.host()
            && !self.wake.is_watched()
            && self.submitter.register_eventfd(host.as_raw_fd()).is_ok()
        {
            self.wake.watch();
            self.tell_of_commands(true);
        }
    }

    fn dropped_completions(&self) -> u32 {
        // SAFETY: lifetime: it is dropped in this function. Aliasing: `&self`, and no method
        // keeps a completion queue.
        unsafe { self.ring.get().completion_shared() }.overflow()
    }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;

#[cfg(test)]
mod fact_tests;
#[cfg(test)]
mod fork_tests;
#[cfg(test)]
mod seccomp_tests;
#[cfg(test)]
mod stance_tests;
#[cfg(test)]
mod storm_tests;
