//! Futures dropped while the kernel still writes: nothing may reach a buffer after its release.
//!
//! Every released buffer is filled with a pattern and withheld until the ring has drained, then
//! compared whole. The same run with the bug planted must find late writes into nearly all of
//! them, which proves both that the test can see, and that the ops were truly in flight.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::fs::File as StdFile;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Waker};

use mfio_core::{Packet, PacketIoExt, Read};
use mfio_engine::buffer::{ArenaConfig, SizeClass};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::{Plant, Planted, Wait};
use mfio_engine::{Config, DirectMode, File, OpenOptions, Shard};

const BLOCK: usize = 4096;
const FILE_BLOCKS: u64 = 16 << 10;
/// Small enough that the last is submitted before the first has completed.
const BATCH: usize = 8;

/// A file of written blocks: a sparse or cached one would complete inside the submit.
fn written_file() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dropped_futures.dat");
    let mut file = StdFile::create(&path).unwrap();
    let block = [0x5a_u8; BLOCK * 16];
    for _ in 0..FILE_BLOCKS / 16 {
        file.write_all(&block).unwrap();
    }
    file.sync_all().unwrap();
    path
}

struct Outcome {
    dropped_in_flight: u64,
    completed_early: u64,
    late_writes: u64,
    released: u64,
}

fn next_block(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % FILE_BLOCKS
}

/// Starts a batch of reads, drops all of their futures at once, and counts what was in flight.
fn drop_a_batch(file: &File<Planted<KernelRing>>, random: &mut u64, outcome: &mut Outcome) {
    let arena = file.shard().arena();
    let mut cx = Context::from_waker(Waker::noop());
    let mut futures = Vec::with_capacity(BATCH);
    for _ in 0..BATCH {
        let buffer = arena.alloc(BLOCK).expect("verified buffers come back");
        let at = next_block(random) * BLOCK as u64;
        let mut future = Box::pin(file.io(at, Packet::<Read, _>::new(buffer)));
        assert!(Future::poll(Pin::as_mut(&mut future), &mut cx).is_pending());
        futures.push(future);
    }
    let done = file.shard().turn(Wait::NONE).unwrap();
    outcome.completed_early += u64::from(done);
    outcome.dropped_in_flight += BATCH as u64 - u64::from(done);
    drop(futures);
}

fn run(path: &Path, plant: Option<Plant>, drops: usize) -> Option<Outcome> {
    let ring = match KernelRing::new(&KernelConfig::new(64)) {
        Ok(ring) => Planted(ring, plant),
        Err(error) => {
            println!("SKIP: {error}; the simulation covers dropped futures");
            return None;
        }
    };
    let classes = vec![SizeClass { bytes: 4096, count: 1024 }];
    let arena = ArenaConfig { poison_released: true, ..ArenaConfig::new(classes) };
    let shard = Shard::with_ring(ring, &Config { arena, ..Config::new() }).unwrap();
    let options = OpenOptions { direct: DirectMode::PreferDirect, ..OpenOptions::default() };
    let file = shard.open(path, &options).unwrap();
    if !file.geometry().direct {
        println!("SKIP: no O_DIRECT here; the simulation covers dropped futures");
        return None;
    }
    let mut outcome =
        Outcome { dropped_in_flight: 0, completed_early: 0, late_writes: 0, released: 0 };
    let mut random = 7;
    for _ in 0..drops / (BATCH * 64) {
        for _ in 0..64 {
            drop_a_batch(&file, &mut random, &mut outcome);
            while shard.in_flight() > 0 {
                shard.turn(Wait::at_least(1)).unwrap();
            }
        }
        let released = shard.arena().verify_released();
        outcome.released += released.ranges;
        outcome.late_writes += released.changed_at_bytes.len() as u64;
    }
    assert_eq!(shard.arena().in_use(), 0, "every buffer has come back");
    assert_eq!(shard.shutdown(), 0, "a clean shutdown leaves nothing in flight");
    Some(outcome)
}

/// A machine that is so busy proves nothing.
const RUNS_MAX: u32 = 50;

#[test]
fn f01_dropped_futures_leave_nothing_written_after_release() {
    let path = written_file();
    // On a busy machine the thread may be away while ops complete, which are in flight no more when
    // it drops them: as many runs as it takes to drop enough of them in time.
    let mut late_writes = 0;
    for runs in 1.. {
        let Some(planted) = run(&path, Some(Plant::FreeOnDrop), 20_480) else { return };
        late_writes += planted.late_writes;
        println!(
            "free-on-drop planted: {} of {} released buffers were written late",
            planted.late_writes, planted.released
        );
        if late_writes > 16_000 {
            break;
        }
        assert!(runs < RUNS_MAX, "ops are truly in flight: {late_writes} found");
    }

    let (mut dropped_in_flight, mut released) = (0, 0);
    for runs in 1.. {
        let Some(outcome) = run(&path, None, 102_400) else { return };
        println!(
            "{} futures dropped, {} in flight, {} completed before; {} late writes",
            outcome.dropped_in_flight + outcome.completed_early,
            outcome.dropped_in_flight,
            outcome.completed_early,
            outcome.late_writes
        );
        assert_eq!(outcome.late_writes, 0, "nothing reaches a buffer after its release");
        dropped_in_flight += outcome.dropped_in_flight;
        released += outcome.released;
        if dropped_in_flight >= 80_000 && released >= 100_000 {
            break;
        }
        assert!(runs < RUNS_MAX, "{dropped_in_flight} of {released} were dropped in flight");
    }
    std::fs::remove_file(path).unwrap();
}
