//! Executes a lone op by a plain system call, where that beats the ring.
//!
//! Data flow: [`Ring::stage`](crate::ring::Ring::stage) → kept aside, nothing queued → the next
//! `enter` runs `preadv2(2)` or `pwritev2(2)` → a completion for the next `reap`. A cached page
//! then costs one call without task work; on memory that knows no `RWF_NOWAIT` it costs no
//! hand-over to a kernel worker. Whatever would block goes to the queue as usual.
//!
//! Not here: when an op is alone, and whether it is worth it (`shard::bypass`).

use nix::errno::Errno;

use super::{Completion, FileRef, KernelRing, Op, Sqe, Tag};
use crate::ring::{Inline, OpKind};
use crate::sys;

/// An op that has been neither queued nor executed.
#[derive(Debug)]
pub(super) struct Staged {
    op: Op,
    tag: Tag,
    how: Inline,
}

impl KernelRing {
    /// Keeps `op` aside; false when it has to be queued.
    #[cold]
    pub(super) fn keep_aside(&mut self, op: Op, tag: Tag, how: Inline) -> bool {
        let moves = matches!(op.kind, OpKind::Read | OpKind::Write) && op.memory.is_some();
        let alone = self.staged.is_none() && self.queued() == 0;
        let idle = self.ops_taken == self.ops_reaped;
        let may = how != Inline::No && moves && alone && idle && !op.link && !op.force_async;
        if may {
            self.staged = Some(Staged { op, tag, how });
            self.room -= 1;
        }
        may
    }

    /// Queues what was kept aside.
    #[cold]
    pub(super) fn queue_staged(&mut self) {
        if let Some(Staged { op, tag, .. }) = self.staged.take() {
            self.room += 1;
            self.push_sqe(&Sqe::of(&op, tag));
        }
    }

    /// Executes what was kept aside; false when it had to be queued after all.
    #[cold]
    pub(super) fn run_staged(&mut self) -> bool {
        let Some(Staged { op, tag, how }) = &self.staged else { return false };
        let (tag, memory) = (*tag, op.memory.expect("an op is kept aside with its memory"));
        let fd = match op.file {
            FileRef::Plain(fd) => Some(fd),
            FileRef::Fixed(index) => self.files.descriptor(index),
        };
        let (offset_bytes, is_read) = (op.offset_bytes, op.kind == OpKind::Read);
        let moved = match (fd, how) {
            (None, _) | (_, Inline::No) => Err(Errno::EAGAIN),
            (Some(fd), Inline::NoWait) => sys::transfer_nowait(is_read, fd, memory, offset_bytes),
            (Some(fd), Inline::Blocking) if is_read => sys::pread(fd, memory, offset_bytes),
            (Some(fd), Inline::Blocking) => sys::pwrite(fd, memory, offset_bytes),
        };
        let result = match moved {
            // It would block, or the file system cannot tell.
            Err(Errno::EAGAIN | Errno::EOPNOTSUPP) => {
                self.queue_staged();
                return false;
            }
            Ok(bytes) => i32::try_from(bytes).expect("a transfer is shorter than 2 GiB"),
            Err(errno) => -(errno as i32),
        };
        self.staged = None;
        self.room += 1;
        self.ops_taken = self.ops_taken.wrapping_add(1);
        self.stats.inline_ops += 1;
        self.inline_done = Some(Completion { tag, result, more: false });
        true
    }
}
