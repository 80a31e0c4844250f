//! Futures dropped by the hundred thousand while the device still writes to their buffers.
//!
//! What must hold: every buffer comes back, none is written after that, and the set that was
//! dropped is reaped nearly as fast as a bare loop over the same ring reaps the same reads.
//!
//! Not here: the same with the bug planted, which proves that this can see (`dropped_futures`).

use std::future::Future;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::task::{Context, Waker};

use mfio_core::{Packet, PacketIoExt, Read};

use super::*;
use crate::buffer::{Arena, ArenaConfig, SizeClass};
use crate::ring::OpKind;
use crate::{Config, DirectMode, File, OpenOptions, Shard};

const BLOCK: usize = 4096;
const FILE_BLOCKS: u64 = 16 << 10;
const DEPTH: usize = 256;

/// A file of written blocks: a sparse or cached one would complete inside the submit.
fn written_file() -> PathBuf {
    let binary = std::env::current_exe().unwrap();
    let path = binary.parent().unwrap().join(format!("storm-{}.dat", std::process::id()));
    std::fs::write(&path, vec![0x5a; BLOCK * usize::try_from(FILE_BLOCKS).unwrap()]).unwrap();
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    path
}

/// Offsets in bytes, the same for both loops.
struct Offsets(u64);

impl Iterator for Offsets {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        Some((self.0 >> 33) % FILE_BLOCKS * BLOCK as u64)
    }
}

fn arena() -> ArenaConfig {
    let count = u32::try_from(DEPTH).unwrap();
    ArenaConfig::new(vec![SizeClass { bytes: 4096, count }])
}

/// A bare loop over the ring, which submits sets and reaps them.
struct Bare {
    ring: KernelRing,
    _file: std::fs::File,
    target: FileRef,
    buffers: Vec<crate::buffer::ArenaBuf>,
    done: Vec<Completion>,
    offsets: Offsets,
}

impl Bare {
    fn new(path: &Path) -> Option<Self> {
        let mut ring = KernelRing::new(&KernelConfig::new(512)).ok()?;
        let arena = Arena::new(&arena()).unwrap();
        ring.register_buffers(arena.region());
        let flags = libc::O_DIRECT;
        let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
        let target = ring.register_file(file.as_raw_fd());
        let buffers = (0..DEPTH).map(|_| arena.alloc(BLOCK).unwrap()).collect();
        let done = Vec::with_capacity(1024);
        Some(Self { ring, _file: file, target, buffers, done, offsets: Offsets(7) })
    }

    /// Nanoseconds from the last submit of one set to its last completion.
    fn reap_a_set(&mut self) -> u64 {
        for (slot, buffer) in (0..).zip(&mut self.buffers) {
            let at = self.offsets.next().unwrap();
            let read = Op::transfer(OpKind::Read, self.target, at, buffer.mem_range());
            self.ring.push(read, Tag { slot, generation: 0 });
        }
        self.ring.enter(Wait::NONE).unwrap();
        let started_ns = self.ring.now_ns();
        self.done.clear();
        while self.done.len() < DEPTH {
            self.ring.reap(&mut self.done);
            if self.done.len() < DEPTH {
                self.ring.enter(Wait::at_least(1)).unwrap();
            }
        }
        self.ring.now_ns() - started_ns
    }
}

/// Nanoseconds of dropping one set of futures in flight, and of draining what they left.
fn drop_a_set(file: &File<KernelRing>, offsets: &mut Offsets, early: &mut u64) -> (u64, u64) {
    let shard = file.shard();
    let now_ns = || shard.with_ring_ref(Ring::now_ns);
    let mut cx = Context::from_waker(Waker::noop());
    let mut futures = Vec::with_capacity(DEPTH);
    for at in offsets.take(DEPTH) {
        let page = shard.arena().alloc(BLOCK).expect("all of the last set are back");
        let mut read = Box::pin(file.io(at, Packet::<Read, _>::new(page)));
        assert!(Future::poll(read.as_mut(), &mut cx).is_pending());
        futures.push(read);
    }
    *early += u64::from(shard.turn(Wait::NONE).unwrap());
    let started_ns = now_ns();
    drop(futures);
    let dropped_ns = now_ns();
    while shard.in_flight() > 0 {
        shard.turn(Wait::at_least(1)).unwrap();
    }
    (dropped_ns - started_ns, now_ns() - dropped_ns)
}

#[allow(clippy::print_stdout, reason = "the figures are half of the point")]
fn storm(drops: usize) {
    let path = written_file();
    let Some(mut bare) = Bare::new(&path) else { return };
    let shard = |poison_released| {
        let ring = KernelRing::new(&KernelConfig::new(512)).unwrap();
        let arena = ArenaConfig { poison_released, ..arena() };
        Shard::with_ring(ring, &Config { arena, ..Config::new() }).unwrap()
    };
    let options = OpenOptions { direct: DirectMode::Direct, ..OpenOptions::default() };
    // One that is timed, and one that is looked at: comparing every byte takes longer than
    // reading it.
    let timed = shard(false).open(&path, &options).unwrap();
    let watched = shard(true).open(&path, &options).unwrap();
    let (mut offsets, mut watched_offsets) = (Offsets(7), Offsets(7));
    let (mut bare_ns, mut drop_ns, mut drain_ns, mut early) = (0, 0, 0, 0);
    let (mut released, mut late) = (0, 0);
    for _ in 0..drops.div_ceil(2 * DEPTH) {
        bare_ns += bare.reap_a_set();
        let (dropping, draining) = drop_a_set(&timed, &mut offsets, &mut early);
        (drop_ns, drain_ns) = (drop_ns + dropping, drain_ns + draining);
        let _untimed = drop_a_set(&watched, &mut watched_offsets, &mut early);
        let found = watched.shard().arena().verify_released();
        (released, late) = (released + found.ranges, late + found.changed_at_bytes.len());
    }
    let sets = drops.div_ceil(2 * DEPTH) as u64;
    let dropped = sets * 2 * DEPTH as u64;
    println!(
        "{dropped} futures dropped, {early} of them complete already; per set of {DEPTH}: \
         dropping {} us, draining {} us, bare loop {} us: {:.2}x; {late} of {released} buffers \
         written late",
        drop_ns / sets / 1000,
        drain_ns / sets / 1000,
        bare_ns / sets / 1000,
        drain_ns as f64 / bare_ns as f64,
    );
    assert!(early * 5 <= dropped, "the drops have to be in flight");
    assert_eq!((late, released), (0, dropped / 2));
    for file in [timed, watched] {
        assert_eq!(file.shard().arena().in_use(), 0, "every buffer has come back");
        assert_eq!(file.shard().shutdown(), 0);
    }
    // Ours includes the completions of the cancel requests. Slack for a machine that is busy.
    assert!(drain_ns <= 3 * bare_ns + 50_000_000, "{drain_ns} ns against {bare_ns}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn f01_storm_of_drops_leaks_nothing_and_drains_like_a_bare_loop() {
    storm(20_000);
}

/// `scripts/drop-storm`
#[test]
#[ignore = "takes a minute"]
fn f01_storm_of_a_million_drops() {
    storm(1_000_000);
}
