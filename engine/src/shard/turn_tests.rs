//! Turns that are straight, and what ends them, on a kernel ring. Where there is none, the tests
//! have nothing to look at.

use std::os::unix::fs::FileExt;

use mfio_core::{Packet, Read};

use super::*;
use crate::buffer::{ArenaBuf, ArenaConfig, SizeClass};
use crate::config::Config;
use crate::ring::RingWaker;
use crate::ring::kernel::{KernelConfig, KernelRing};
use crate::shard::{BypassMode, Durability, File};
use crate::{DirectMode, OpenOptions};

const PAGE: u32 = 4096;

/// One read at a time.
struct Lone {
    queue: CompletionQueue<Read, ArenaBuf>,
    file: File<KernelRing>,
    shard: Shard<KernelRing>,
    _directory: tempfile::TempDir,
}

impl Lone {
    fn new() -> Option<Self> {
        let ring = KernelRing::new(&KernelConfig::new(4)).ok()?;
        let mut config = Config::new();
        // A lone op that may go another way has no straight turn.
        config.bypass = BypassMode::Off;
        config.arena = ArenaConfig::new(vec![SizeClass { bytes: PAGE, count: 8 }]);
        let shard = Shard::with_ring(ring, &config).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pages");
        let pages = std::fs::File::create(&path).unwrap();
        pages.write_all_at(&[7; 4 * PAGE as usize], 0).unwrap();
        let options = OpenOptions::new().write(true).direct(DirectMode::Buffered);
        let file = shard.open(&path, &options).unwrap();
        Some(Self { queue: CompletionQueue::new(), file, shard, _directory: directory })
    }

    fn is_straight(&self) -> bool {
        self.shard.inner.core.borrow().undisturbed
    }

    fn now_ns(&self) -> u64 {
        self.shard.inner.core.borrow().ring.now_ns()
    }

    fn send(&mut self) {
        let page = self.shard.arena().alloc(PAGE as usize).unwrap();
        let sent = self.queue.send(&self.file, u64::from(PAGE), Packet::new(page), 1);
        assert!(sent.is_ok());
    }

    fn read(&mut self) {
        self.send();
        let turned = self.shard.turn_into(Wait::at_least(1), &mut self.queue);
        assert_eq!(turned.unwrap(), 1);
        let (tag, done) = self.queue.pop().expect("it was waited for");
        assert!(tag == 1 && done.is_ok());
        assert!(done.into_packet().into_buffer().iter().all(|&byte| byte == 7));
    }

    /// Reads until turns are straight, which they are behind the second at the latest.
    fn settle(&mut self) {
        self.read();
        self.read();
        assert!(self.is_straight());
    }
}

#[test]
fn turns_are_straight_unless_there_is_anything_to_look_after() {
    let Some(mut lone) = Lone::new() else { return };
    lone.read();
    lone.settle();
    let before = lone.shard.metrics();
    for _ in 0..10 {
        lone.read();
        assert!(lone.is_straight());
    }
    let after = lone.shard.metrics();
    let counted = [after.turns - before.turns, after.enters - before.enters];
    let moved = [after.ops - before.ops, after.submitted - before.submitted];
    assert_eq!((counted, moved), ([10; 2], [10; 2]));
    assert_eq!(after.read_bytes - before.read_bytes, 10 * u64::from(PAGE));
    assert_eq!((after.in_flight_max, after.sq_ops_max), (1, 1));
    // Anything else ends it, and has its turn; then it begins again.
    let flushed = lone.shard.block_on(lone.file.sync(Durability::Data)).unwrap();
    assert!(flushed.is_ok());
    lone.settle();
    let soon_ns = lone.now_ns() + 1_000_000;
    lone.shard.block_on(lone.shard.sleep_until(soon_ns)).unwrap();
    assert!(lone.now_ns() >= soon_ns);
    lone.settle();
    // Who reads the metrics is shown every turn.
    let reader = lone.shard.metrics_reader();
    for _ in 0..3 {
        lone.read();
        assert_eq!(reader.metrics().ops, lone.shard.metrics().ops);
        assert!(!lone.is_straight());
    }
}

#[test]
fn turns_of_a_loop_that_never_waits_are_straight_too() {
    let Some(mut lone) = Lone::new() else { return };
    for _ in 0..3 {
        lone.send();
        while lone.queue.pop().is_none() {
            lone.shard.turn_into(Wait::NONE, &mut lone.queue).unwrap();
        }
    }
    assert!(lone.is_straight());
}

#[test]
fn f28_straight_turn_is_ended_by_a_wake() {
    let Some(mut lone) = Lone::new() else { return };
    lone.read();
    lone.settle();
    // The wake is one of the completions that are waited for, and nobody's.
    lone.shard.inner.waker.wake();
    lone.send();
    assert!(lone.is_straight());
    let mut reaped = 0;
    while reaped == 0 {
        reaped += lone.shard.turn_into(Wait::at_least(1), &mut lone.queue).unwrap();
    }
    assert!(lone.queue.pop().is_some_and(|(_, done)| done.is_ok()));
    lone.settle();
}

#[test]
fn f02_shard_that_is_dropped_behind_a_straight_turn_drains() {
    let Some(mut lone) = Lone::new() else { return };
    lone.read();
    lone.settle();
    lone.send();
    assert!(lone.is_straight());
    let Lone { queue, file, shard, _directory } = lone;
    // Its slots panic or quarantine what is in flight when the ring goes.
    drop((file, shard));
    let mut queue = queue;
    assert!(queue.pop().is_some(), "drained, and told");
}
