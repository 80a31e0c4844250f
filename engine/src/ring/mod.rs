//! The seam between a shard and whatever executes its ops: kernel, threads or simulation.
//!
//! Ops and tags go in, completions come out; the shard above is generic over [`Ring`], so the
//! seam costs no virtual call. Everything a simulation must own (time, limits, faults, planted
//! bugs) comes through this trait and nowhere else.
//!
//! Not here: what an op is for (`shard`), how a transfer is cut (`plan`), what a result means
//! (`complete`).

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use crate::buffer::{FixedBytes, FixedSpan, MemRange, Region};
use crate::nvme::Space;

pub mod auto;
mod features;
mod head;
pub mod kernel;
mod knob;
mod name;
mod op;
mod plant;
#[cfg(any(test, feature = "sim"))]
mod planted;
mod poll;
pub(crate) mod sealed;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod socket;
pub mod threads;
mod transfers;
mod waker;

pub use auto::AutoRing;
pub use features::{Features, Limits, RingKind};
pub use head::Head;
pub use knob::Knob;
pub use name::{NAME_SLOTS_FROM, NAMES_IN_FLIGHT_MAX, NameAnswer, NameEnd, NameKind, NameOp};
pub use name::{Names, Place};
pub use op::{Completion, FileRef, Op, OpKind, Tag};
pub use plant::Plant;
#[cfg(any(test, feature = "sim"))]
pub use planted::Planted;
pub use poll::{Poll, SqPoll};
pub use socket::{SOCKET_SLOTS_FROM, SocketKind, SocketOp, Sockets};
pub use transfers::{Access, Transfers};
pub use waker::RingWaker;

/// How an op that is alone may be executed without the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inline {
    /// Not at all.
    #[default]
    No,
    /// By a call that answers `EAGAIN` where it would block (`RWF_NOWAIT`).
    NoWait,
    /// By a call that may block, on memory only.
    Blocking,
}

/// How long [`Ring::enter`] may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Return when this many completions are ready to reap; 0 does not block.
    pub min: u32,
    /// Return at this time of [`Ring::now_ns`] at the latest, even with fewer completions.
    pub deadline_ns: Option<u64>,
}

impl Wait {
    /// Submit only.
    pub const NONE: Self = Self { min: 0, deadline_ns: None };

    /// Block until `min` completions are ready.
    #[must_use]
    pub const fn at_least(min: u32) -> Self {
        Self { min, deadline_ns: None }
    }
}

/// Executes ops. One thread owns it, and only that thread calls it (F24, F29).
///
/// Sealed: memory safety rests on an implementation's completions being true.
///
/// The contract that makes a shard sound: the memory of a pushed op belongs to the ring from
/// `push` until a completion with its tag and `more == false` has been reaped. A cancel, a
/// failed `enter` or dropping the ring gives nothing back (F02, F03, F05).
pub trait Ring: sealed::Sealed + Sockets + Names {
    /// Wakes the ring's `enter` from another thread.
    type Waker: RingWaker;

    /// Nanoseconds of a monotonic clock with an arbitrary origin.
    fn now_ns(&self) -> u64;

    /// Whether `count` more ops can be pushed before the next `enter`: all of them or none,
    /// so that a chain never straddles a submit (F15).
    fn reserve(&mut self, count: u32) -> bool;

    /// How many ops can be pushed before the next `enter`, one by one, if nothing else is; may be
    /// fewer than there are.
    fn room(&mut self) -> u32 {
        u32::from(self.reserve(1))
    }

    /// Queues one op. Nothing is started before [`Ring::enter`].
    ///
    /// # Panics
    /// When the queue is full: a `reserve` was forgotten.
    fn push(&mut self, op: Op, tag: Tag);

    /// As [`Ring::push`], for [`Op::transfer`] and nothing more, which is what nearly every op is:
    /// said in so few words that they stay in registers. `kind` is a read or a write.
    ///
    /// # Panics
    /// As [`Ring::push`].
    #[inline]
    fn push_transfer(
        &mut self,
        kind: OpKind,
        file: FileRef,
        offset_bytes: u64,
        memory: MemRange,
        tag: Tag,
    ) {
        self.push(Op::transfer(kind, file, offset_bytes, memory), tag);
    }

    /// What a transfer of `kind` on `file` begins with, if it is pushed by [`Ring::push_fixed`];
    /// `None` where it cannot be.
    fn head(&self, kind: OpKind, file: FileRef) -> Option<Head> {
        let _ = (kind, file);
        Some(Head::default())
    }

    /// As [`Ring::push_transfer`], for bytes in a fixed buffer; `head` is of this kind and file.
    ///
    /// # Panics
    /// As [`Ring::push`].
    #[inline]
    fn push_fixed(
        &mut self,
        head: Head,
        (kind, file): (OpKind, FileRef),
        offset_bytes: u64,
        bytes: FixedBytes,
        tag: Tag,
    ) {
        let _ = head;
        self.push_transfer(kind, file, offset_bytes, bytes.memory(), tag);
    }

    /// As [`Ring::push`], for an op with nothing else in flight or queued: the next
    /// [`Ring::enter`] may execute it at once, as `how` says. Call [`Ring::unstage`] before
    /// anything else is pushed. A ring that has nothing to gain pushes it.
    fn stage(&mut self, op: Op, tag: Tag, how: Inline) {
        let _ = how;
        self.push(op, tag);
    }

    /// Queues an op that was staged, so that others can be pushed behind it.
    fn unstage(&mut self) {}

    /// Executes a transfer at once, as `how` says, with nothing in flight, queued or staged; not
    /// beside the main queue. The result is that of a completion; `None` where the op has to be
    /// pushed, because it would block, or because the ring has no such thing.
    #[inline]
    fn transfer_inline(
        &mut self,
        kind: OpKind,
        file: FileRef,
        offset_bytes: u64,
        memory: MemRange,
        how: Inline,
    ) -> Option<i32> {
        let _ = (kind, file, offset_bytes, memory, how);
        None
    }

    /// How many ops were executed without the ring.
    fn inline_ops(&self) -> u64 {
        0
    }

    /// Starts everything pushed so far and waits as told. Returns how many ops were consumed;
    /// fewer than pushed is legal, the rest stays queued for the next call (F22). Passing the
    /// deadline is success.
    ///
    /// # Errors
    /// The errno of the call: `EINTR`, `EAGAIN`, `EBUSY` ask to be retried as the table in
    /// `complete` says. No op was lost or given back by an error (F05).
    fn enter(&mut self, wait: Wait) -> Result<u32, Errno>;

    /// Whether [`Ring::enter_straight`] will do: that is so until anything but plain transfers is
    /// pushed, a completion is left over by [`Ring::reap_rest`], or anything else is asked for.
    #[inline]
    fn is_straight(&self) -> bool {
        false
    }

    /// As [`Ring::enter`] without a deadline and with something in flight, where
    /// [`Ring::is_straight`] says so: there is nothing to be looked at but the queue.
    ///
    /// # Errors
    /// As there.
    #[inline]
    fn enter_straight(&mut self, min: u32) -> Result<u32, Errno> {
        self.enter(Wait::at_least(min))
    }

    /// Appends every completion that is ready to `into`, which has room for `cq_entries`.
    fn reap(&mut self, into: &mut Vec<Completion>);

    /// As [`Ring::reap`], but the ring may first offer a completion to `settle`, and one that it
    /// has dealt with is not appended. Called in the middle of reaping, `settle` calls nobody.
    /// Returns how many it has dealt with.
    #[inline]
    fn reap_rest(
        &mut self,
        into: &mut Vec<Completion>,
        settle: impl FnMut(Completion) -> bool,
    ) -> u32 {
        let _no_offers = settle;
        self.reap(into);
        0
    }

    /// Registers `region` as fixed buffers, all of it or a prefix of it, and records in the
    /// region how much is covered, so that its ranges know whether they are fixed. Failing is
    /// not an error: it is noted in [`Features::degraded`] and ops go unregistered (F32).
    fn register_buffers(&mut self, region: &Region);

    /// As [`Ring::register_buffers`], of the first `bytes` alone, so that
    /// [`Ring::register_rest`] is quick when the pages of the rest have been made. False, and
    /// nothing is registered: the rest might be refused then, which is to be told at once.
    fn register_first(&mut self, region: &Region, bytes: usize) -> bool {
        let _ = (region, bytes);
        false
    }

    /// Registers all of the region of [`Ring::register_first`] in the place of its first bytes.
    /// Ops in flight on those go on. Where it is refused, they stay, and it is noted.
    fn register_rest(&mut self, region: &Region) {
        let _ = region;
    }

    /// Registers another region beside that of the arena, all of it or a prefix; cloned, where
    /// it has been shared by [`kernel::share`] and the kernel can. `None`: not at all, which is
    /// noted in [`Features::degraded`], and its ops go unregistered.
    fn add_region(&mut self, region: &Region) -> Option<FixedSpan> {
        let _ = region;
        None
    }

    /// Forgets a region. The caller makes sure that no op on it is in flight (F08).
    fn remove_region(&mut self, span: FixedSpan) {
        let _ = span;
    }

    /// Makes `fd` known to the ring; falls back to the plain descriptor where the table is
    /// full or unsupported (F36). The caller keeps `fd` open until `unregister_file`.
    fn register_file(&mut self, fd: i32) -> FileRef;

    /// Forgets a file. The caller makes sure that no op on it is in flight.
    fn unregister_file(&mut self, file: FileRef);

    /// Makes the NVMe namespace `fd` known to the ring, which then serves ops on it by commands
    /// of `space`. The caller keeps `fd` open until `unregister_file`. `None`: not by this ring.
    fn register_namespace(&mut self, fd: i32, space: Space, poll: Poll) -> Option<FileRef> {
        let _ = (fd, space, poll);
        None
    }

    /// As [`Ring::register_file`], for reads and writes whose completion is polled for. `None`:
    /// not by this ring, or not on this kernel.
    fn register_polled(&mut self, fd: i32, poll: Poll) -> Option<FileRef> {
        let _ = (fd, poll);
        None
    }

    /// As [`Ring::register_file`], with flags on each transfer. `None`: not by this ring.
    fn register_flagged(&mut self, fd: i32, transfers: Transfers) -> Option<FileRef> {
        let _ = (fd, transfers);
        None
    }

    /// What stands for no file: a read or a write of it is a nop that says it has moved all.
    /// `None`: not with this ring.
    fn nowhere(&self) -> Option<FileRef> {
        None
    }

    /// The status with which a device has failed the op of `tag`, which has just been reaped:
    /// the 15 bits of an NVMe completion. `None` where the errno is all there is.
    fn device_status(&self, tag: Tag) -> Option<u16> {
        let _ = tag;
        None
    }

    /// Asks for the op with `tag` to be cancelled. Only a request: the op's own completion
    /// still comes, with whatever result (F03). Returns false when there was no room to ask.
    fn cancel(&mut self, tag: Tag) -> bool;

    /// A handle with which any thread ends a blocking `enter` early.
    fn waker(&self) -> Self::Waker;

    /// What the ring can do and what it could not have.
    fn features(&self) -> &Features;

    /// The ring's sizes.
    fn limits(&self) -> Limits;

    /// A descriptor for a host's event loop (`epoll(7)`). Once it is [watched](Ring::watch), it
    /// becomes readable when `enter` and `reap` have something to do, a wake included; each
    /// time anew, when they had been called before. `None` where there is no such thing.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// From now on the descriptor tells, which costs a little per `enter` and per completion.
    fn watch(&mut self) {}

    /// Completions the kernel dropped because there was no room. Not 0 is fatal (F20).
    fn dropped_completions(&self) -> u32 {
        0
    }

    /// Whether ops of `kind` can be pushed. Probed; reads, writes, flushes and nops always can.
    fn supports(&self, kind: OpKind) -> bool {
        kind != OpKind::DiscardDevice
    }

    /// A place between two looks of the shard at what others have left for it. Nothing in every
    /// production ring, where others come when they like; a simulation lets them in here.
    #[inline]
    fn interleave(&self) {}

    /// Whether the deliberate bug `plant` is switched on. False in every production ring,
    /// where the branch vanishes.
    #[inline]
    fn plant(&self, plant: Plant) -> bool {
        let _ = plant;
        false
    }

    /// What to choose where the choice is the shard's own: `usual` on every production ring,
    /// where the question vanishes. A simulation may answer otherwise, as [`Knob`] allows.
    #[inline(always)]
    fn knob(&self, knob: Knob, usual: usize) -> usize {
        let _ = knob;
        usual
    }
}
