//! A warm packet loop, as the `io_uring` engine of mfio-bench runs it, allocates nothing.
//!
//! The allocator counts, per thread; the loop is warmed up; over the next 100 000 I/Os the count
//! of the loop's thread must not move.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

#[path = "../../engine/tests/counting/mod.rs"]
mod counting;

use std::io::Write as _;
use std::path::Path;

use mfio_core::{CompletionQueue, Packet, Read, Write};
use mfio_engine::buffer::{ArenaBuf, ArenaConfig, SizeClass};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Ring, Wait};
use mfio_engine::{Config, File, OpenOptions, Shard};

const DEPTH: u32 = 64;
const BATCH: u32 = 16;
const BLOCK_BYTES: u64 = 4096;
const BLOCKS: u64 = 256;
const WARM_UP_IOS: u64 = 10_000;
const COUNTED_IOS: u64 = 100_000;

/// What is sent.
#[derive(Clone, Copy)]
enum Mix {
    Reads,
    Writes,
    Both,
}

/// Packets in flight at full depth.
struct Loop<R: Ring> {
    shard: Shard<R>,
    file: File<R>,
    reads: CompletionQueue<Read, ArenaBuf>,
    writes: CompletionQueue<Write, ArenaBuf>,
    idle: Vec<ArenaBuf>,
    block: u64,
}

impl<R: Ring> Loop<R> {
    fn new(ring: R, path: &Path) -> Self {
        let class = SizeClass { bytes: 4096, count: DEPTH };
        let mut config = Config::new();
        config.arena = ArenaConfig::new(vec![class]);
        let shard = Shard::with_ring(ring, &config).unwrap();
        let options = OpenOptions::new().read(true).write(true).create(true);
        let file = shard.open(path, &options).unwrap();
        let idle = (0..DEPTH).map(|_| shard.arena().alloc(4096).unwrap()).collect();
        let (reads, writes) = (CompletionQueue::new(), CompletionQueue::new());
        Self { shard, file, reads, writes, idle, block: 0 }
    }

    fn run(&mut self, ios: u64, mix: Mix) {
        let (mut sent, mut done) = (0, 0);
        while done < ios {
            while sent < ios
                && let Some(buffer) = self.idle.pop()
            {
                self.send(buffer, mix);
                sent += 1;
            }
            self.shard.turn(Wait::at_least(BATCH)).unwrap();
            while let Some((_, completed)) = self.reads.pop() {
                assert!(completed.is_ok());
                self.idle.push(completed.into_buffer());
                done += 1;
            }
            while let Some((_, completed)) = self.writes.pop() {
                assert!(completed.is_ok());
                self.idle.push(completed.into_buffer());
                done += 1;
            }
        }
    }

    fn send(&mut self, buffer: ArenaBuf, mix: Mix) {
        self.block = (self.block * 5 + 3) % BLOCKS;
        let (at, tag) = (self.block * BLOCK_BYTES, self.block);
        let read = match mix {
            Mix::Reads => true,
            Mix::Writes => false,
            Mix::Both => self.block.is_multiple_of(2),
        };
        if read {
            self.reads.send(&self.file, at, Packet::new(buffer), tag).unwrap();
        } else {
            self.writes.send(&self.file, at, Packet::new(buffer), tag).unwrap();
        }
    }
}

fn measure<R: Ring>(name: &str, ring: R, path: &Path) {
    let mut warm = Loop::new(ring, path);
    // Warm means that either direction was once in flight at full depth.
    warm.run(WARM_UP_IOS, Mix::Reads);
    warm.run(WARM_UP_IOS, Mix::Writes);
    let before = counting::of_thread();
    counting::NAMED.set(true);
    warm.run(COUNTED_IOS, Mix::Both);
    counting::NAMED.set(false);
    let allocations = counting::of_thread() - before;
    assert_eq!(allocations, 0, "{allocations} allocations in {COUNTED_IOS} I/Os on {name}");
    assert_eq!(warm.shard.in_flight(), 0);
}

#[test]
fn warm_packet_loop_allocates_nothing() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("allocations.dat");
    std::fs::write(&path, vec![1_u8; usize::try_from(BLOCKS * BLOCK_BYTES).unwrap()]).unwrap();
    match KernelRing::new(&KernelConfig::new(DEPTH)) {
        Ok(ring) => measure("io_uring", ring, &path),
        Err(error) => writeln!(std::io::stderr().lock(), "skipped on io_uring: {error}").unwrap(),
    }
    measure("threads", ThreadRing::new(2, DEPTH).unwrap(), &path);
    std::fs::remove_file(&path).unwrap();
}
