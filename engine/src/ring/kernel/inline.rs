//! Executes a lone op by a plain system call, where that beats the ring.
//!
//! Data flow: [`Ring::stage`](crate::ring::Ring::stage) → kept aside, nothing queued → the next
//! `enter` runs `preadv2(2)` or `pwritev2(2)` → a completion for the next `reap`. A cached page
//! then costs one call without task work; on memory that knows no `RWF_NOWAIT` it costs no
//! hand-over to a kernel worker. Whatever would block goes to the queue as usual. A shard that
//! knows that nothing can happen before the call has it made without all that
//! ([`Ring::transfer_inline`](crate::ring::Ring::transfer_inline)).
//!
//! Not here: when an op is alone, and whether it is worth it (`shard::bypass`).

use nix::errno::Errno;

use super::{Completion, FileRef, KernelRing, Op, Sqe, Tag};
use crate::buffer::MemRange;
use crate::ring::{Inline, OpKind};
use crate::sys;

/// It would block, or the file system cannot tell.
const LATER: [i32; 2] = [-(Errno::EAGAIN as i32), -(Errno::EOPNOTSUPP as i32)];

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
        let moves = moves && !matches!(op.file, FileRef::Beside(_));
        let alone = self.staged.is_none() && self.queued() == 0;
        let idle = self.ops_taken == self.ops_reaped
            && self.beside.as_ref().is_none_or(|beside| beside.is_idle());
        // What the call would not be told.
        let terms = op.link || op.force_async || op.dsync || op.atomic;
        let may = how != Inline::No && moves && alone && idle && !terms;
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

    /// Executes a transfer by a call; `None` where that would block, or the file system cannot
    /// tell.
    #[inline(always)]
    pub(super) fn call(
        &mut self,
        kind: OpKind,
        file: FileRef,
        offset_bytes: u64,
        memory: MemRange,
        how: Inline,
    ) -> Option<i32> {
        let fd = match file {
            FileRef::Plain(fd) => fd,
            FileRef::Fixed(index) => self.files.descriptor(index)?,
            FileRef::Beside(_) => return None,
        };
        let waits = how == Inline::Blocking;
        let result = match (how, kind) {
            (Inline::No, _) => return None,
            (_, OpKind::Read) => sys::read_inline(fd, memory, offset_bytes, waits),
            _ => sys::write_inline(fd, memory, offset_bytes, waits),
        };
        if result < 0 && LATER.contains(&result) {
            return None;
        }
        self.stats.inline_ops += 1;
        Some(result)
    }

    /// Executes what was kept aside; false when it had to be queued after all.
    #[cold]
    pub(super) fn run_staged(&mut self) -> bool {
        let Some(Staged { op, tag, how }) = &self.staged else { return false };
        let (tag, memory) = (*tag, op.memory.expect("an op is kept aside with its memory"));
        let (kind, file, offset_bytes, how) = (op.kind, op.file, op.offset_bytes, *how);
        let Some(result) = self.call(kind, file, offset_bytes, memory, how) else {
            self.queue_staged();
            return false;
        };
        self.staged = None;
        self.room += 1;
        self.ops_taken = self.ops_taken.wrapping_add(1);
        self.inline_done = Some(Completion { tag, result, more: false });
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use super::*;
    use crate::buffer::{Arena, ArenaConfig, SizeClass};
    use crate::ring::kernel::KernelConfig;
    use crate::ring::{Ring, Wait};

    const PAGE: u32 = 4096;

    fn file_of(directory: &Path, pages: u32) -> std::fs::File {
        let file = tempfile::tempfile_in(directory).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![7; (pages * PAGE) as usize], 0)
            .unwrap();
        file
    }

    fn arena() -> Arena {
        Arena::new(&ArenaConfig::new(vec![SizeClass { bytes: PAGE, count: 8 }])).unwrap()
    }

    #[test]
    fn staged_op_keeps_its_place_and_is_executed_once() {
        let Ok(mut ring) = KernelRing::new(&KernelConfig::new(4)) else { return };
        let arena = arena();
        ring.register_buffers(arena.region());
        let file = file_of(&std::env::temp_dir(), 4);
        let target = ring.register_file(file.as_raw_fd());
        let mut pages: Vec<_> = (0..4).map(|_| arena.alloc(PAGE as usize).unwrap()).collect();
        let tag = |slot| Tag { slot, generation: 0 };
        let mut read = |slot: usize| {
            let at = slot as u64 * u64::from(PAGE);
            Op::transfer(OpKind::Read, target, at, pages[slot].mem_range())
        };
        let mut done = Vec::with_capacity(16);
        // Alone: no call of the ring's.
        let enters = ring.stats().enters;
        ring.stage(read(0), tag(0), Inline::Blocking);
        assert!(ring.reserve(3) && !ring.reserve(4), "its entry is kept for it");
        assert_eq!(ring.enter(Wait::at_least(1)), Ok(1));
        ring.reap(&mut done);
        assert_eq!((done.len(), done[0].tag, done[0].result), (1, tag(0), 4096));
        assert_eq!((ring.stats().enters, ring.inline_ops()), (enters, 1));
        assert!(ring.reserve(4));
        // Not alone any more: both go through the queue.
        ring.stage(read(0), tag(1), Inline::Blocking);
        ring.unstage();
        ring.push(read(1), tag(2));
        // And while they are in flight, nothing is kept aside.
        ring.stage(read(2), tag(3), Inline::Blocking);
        assert!(ring.staged.is_none());
        done.clear();
        while done.len() < 3 {
            ring.enter(Wait::at_least(1)).unwrap();
            ring.reap(&mut done);
        }
        assert!(done.iter().all(|done| done.result == 4096));
        assert_eq!((ring.inline_ops(), ring.stats().submitted), (1, 3));
        // Linked, forced and wrong ones are the queue's, as is what has terms of durability.
        for op in [
            Op { link: true, ..read(0) },
            Op { force_async: true, ..read(0) },
            Op { kind: OpKind::Write, dsync: true, ..read(0) },
            Op { kind: OpKind::Write, atomic: true, ..read(0) },
            Op::on(OpKind::Fsync, target),
        ] {
            ring.stage(op, tag(4), Inline::Blocking);
            assert!(ring.staged.is_none());
            ring.enter(Wait::at_least(1)).unwrap();
            ring.reap(&mut done);
        }
        // A cancel queues it first.
        ring.stage(read(0), tag(5), Inline::Blocking);
        assert!(ring.cancel(tag(5)) && ring.staged.is_none());
        done.clear();
        while done.is_empty() {
            ring.enter(Wait::at_least(1)).unwrap();
            ring.reap(&mut done);
        }
        assert_eq!(done[0].tag, tag(5));
        // An error is the op's result; a descriptor that would block is not one.
        let nowhere = Op { file: FileRef::Plain(-1), ..read(0) };
        ring.stage(nowhere, tag(6), Inline::NoWait);
        assert_eq!(ring.enter(Wait::NONE), Ok(1));
        done.clear();
        ring.reap(&mut done);
        assert_eq!((done[0].tag, done[0].result), (tag(6), -(Errno::EBADF as i32)));
        assert_eq!(ring.ops_taken, ring.ops_reaped);
    }

    #[test]
    fn memory_that_knows_no_nowait_sends_the_op_to_the_queue() {
        let shm = Path::new("/dev/shm");
        let Ok(mut ring) = KernelRing::new(&KernelConfig::new(4)) else { return };
        if !shm.exists() {
            return;
        }
        let (arena, file) = (arena(), file_of(shm, 1));
        let mut page = arena.alloc(PAGE as usize).unwrap();
        let target = ring.register_file(file.as_raw_fd());
        let read = Op::transfer(OpKind::Read, target, 0, page.mem_range());
        let tag = Tag { slot: 1, generation: 2 };
        ring.stage(read, tag, Inline::NoWait);
        let mut done = Vec::with_capacity(16);
        while done.is_empty() {
            ring.enter(Wait::at_least(1)).unwrap();
            ring.reap(&mut done);
        }
        assert_eq!((done.len(), done[0].tag, done[0].result), (1, tag, 4096));
        assert_eq!(ring.stats().submitted + ring.inline_ops(), 1);
    }
}
