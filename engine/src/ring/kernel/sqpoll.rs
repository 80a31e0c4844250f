//! A queue that a thread of the kernel takes from, so that submitting costs no system call.
//!
//! Data flow: pushed entries → [`KernelRing::enter_sqpoll`] publishes them, all at once, and
//! wakes the thread where it has gone to sleep (`IORING_SQ_NEED_WAKEUP`) → the thread takes them
//! when it sees them. What is published counts as taken: nothing but the thread delays it, and a
//! chain is never cut in two (F15). The queue has twice the entries that the ring's limits tell,
//! so that a batch has room while the thread still takes the last one.
//!
//! Not here: asking the kernel for it (`setup`).

use io_uring::EnterFlags;
use nix::errno::Errno;

use super::{KernelRing, Wait};

impl KernelRing {
    /// Entries that no `enter` has published.
    #[inline]
    pub(super) fn unpublished(&self) -> u32 {
        self.queued() - self.published
    }

    /// As [`Ring::reserve`](crate::ring::Ring::reserve), where what was known of the queue's
    /// head says that there is no room.
    #[cold]
    pub(super) fn reserve_sqpoll(&mut self, count: u32) -> bool {
        let unpublished = self.unpublished();
        if unpublished == 0 {
            // Publishes nothing, and learns how far the thread has come.
            self.sq.sync();
            self.published = self.queued();
        }
        let free = 2 * self.limits.sq_entries - self.queued();
        self.room >= unpublished + count && free >= count
    }

    /// One `enter` of such a ring; a system call only to wait, or to wake the thread.
    #[cold]
    pub(super) fn enter_sqpoll(&mut self, wait: Wait) -> Result<u32, Errno> {
        let published = self.unpublished();
        self.sq.sync();
        self.published = self.queued();
        // Also where the call below fails: they are the thread's by now (F05).
        self.taken = self.taken.wrapping_add(published);
        let ops = published - self.internal_taken();
        self.ops_taken = self.ops_taken.wrapping_add(ops);
        self.stats.submitted += u64::from(ops);
        let mut flags = EnterFlags::empty();
        if self.sq.need_wakeup() {
            flags |= EnterFlags::SQ_WAKEUP;
        }
        if wait.min > 0 || self.sq.cq_overflow() {
            flags |= EnterFlags::GETEVENTS;
        }
        if flags.is_empty() {
            return Ok(ops);
        }
        self.stats.enters += 1;
        match self.enter_or_limit(0, wait, flags) {
            Ok(_) | Err(Errno::ETIME) => Ok(ops),
            Err(errno) => Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use mfio_core::{AlignedBuf, block_on};

    use super::*;
    use crate::ring::kernel::KernelConfig;
    use crate::ring::{FileRef, Op, OpKind, Ring, RingWaker, SqPoll, Tag};
    use crate::{Config, DirectMode, Durability, OpenOptions, Shard};

    fn ring(entries: u32) -> Option<KernelRing> {
        let sqpoll = Some(SqPoll { idle_ms: 20, cpu: None });
        let ring = KernelRing::new(&KernelConfig { sqpoll, ..KernelConfig::new(entries) });
        ring.ok().filter(|ring| ring.features().in_use.contains(&"SQPOLL"))
    }

    #[test]
    fn f35_thread_that_has_gone_to_sleep_is_woken_and_one_that_has_not_costs_no_call() {
        let Some(mut ring) = ring(8) else { return };
        assert_eq!(ring.limits().sq_entries, 8);
        let (_sender, never) = channel::<()>();
        let mut done = Vec::new();
        for round in 0..6_u32 {
            for slot in 0..8 {
                assert!(ring.reserve(1));
                let nop = Op::on(OpKind::Nop, FileRef::Plain(-1));
                ring.push(nop, Tag { slot, generation: round });
            }
            assert!(!ring.reserve(1), "as deep as it says");
            assert_eq!(ring.enter(Wait::NONE), Ok(8));
            while done.len() < 8 {
                ring.enter(Wait::at_least(1)).unwrap();
                ring.reap(&mut done);
            }
            assert_eq!(done.len(), 8);
            done.clear();
            while !ring.reserve(8) {
                std::thread::yield_now();
            }
            if round % 2 == 1 {
                // Longer than it looks at an empty queue.
                let _timeout = never.recv_timeout(Duration::from_millis(60));
            }
        }
        // A wake ends a wait, and a wait without anything ends in time.
        let waker = ring.waker();
        let woken = std::thread::spawn(move || waker.wake());
        ring.enter(Wait::at_least(1)).unwrap();
        ring.reap(&mut done);
        woken.join().unwrap();
        let start_ns = ring.now_ns();
        ring.enter(Wait { min: 1, deadline_ns: Some(start_ns + 5_000_000) }).unwrap();
        assert_eq!(ring.stats().submitted, 48);
    }

    #[test]
    fn f35_shard_on_such_a_ring_reads_writes_and_flushes() {
        let Some(ring) = ring(4) else { return };
        let config = Config { in_flight_max: 8, ..Config::new() };
        let shard = Shard::with_ring(ring, &config).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let options = OpenOptions::new().write(true).create(true).direct(DirectMode::PreferDirect);
        let file = shard.open(&directory.path().join("file"), &options).unwrap();
        let page = |fill: u8| {
            let mut page = AlignedBuf::new(4096, 4096);
            page.fill(fill);
            page
        };
        for at in 0..64_u8 {
            let offset = u64::from(at) * 4096;
            block_on(&shard, file.write_all_at(offset, page(at))).unwrap().0.unwrap();
        }
        for at in 0..16_u8 {
            let offset = u64::from(at) * 4096;
            block_on(&shard, file.write_durable_at(offset, page(at))).unwrap().0.unwrap();
        }
        block_on(&shard, file.sync(Durability::Full)).unwrap().unwrap();
        let mut batch = shard.batch::<64, AlignedBuf>();
        for at in (0..64).rev() {
            batch.push_read(&file, at * 4096, page(0xee)).unwrap();
        }
        block_on(&shard, batch.run()).unwrap();
        let mut seen = 0_u64;
        while let Some(done) = batch.reap() {
            done.result.unwrap();
            assert!(done.buffer.iter().all(|&byte| byte == done.buffer[0]));
            seen |= 1 << done.buffer[0];
        }
        assert_eq!(seen, u64::MAX);
        assert_eq!(shard.metrics().chains_broken, 0, "no chain was cut");
        assert_eq!(shard.shutdown(), 0);
    }
}
