//! A block device that a process opens for itself alone, again and again: who has closed it can
//! open it.
//!
//! Needs root for a loop device; says so where there is none.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

#[path = "../src/target/loop_device.rs"]
mod loop_device;

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mfio_core::{AlignedBuf, block_on};
use mfio_engine::ring::Ring;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::{Config, DirectMode, Durability, Engine, OpenOptions, Shard, Shards};

use loop_device::Loop;

fn device(image: &tempfile::NamedTempFile) -> Option<Loop> {
    image.as_file().set_len(1 << 20).unwrap();
    Loop::over(image.path(), &[])
}

fn options() -> OpenOptions {
    OpenOptions::new().write(true).allow_device_write(true).direct(DirectMode::Direct)
}

/// Opens, writes, flushes and closes, `times` times; the shard goes with it or stays.
fn again_and_again<R: Ring>(mut ring: impl FnMut() -> R, device: &Path, shard_stays: bool) {
    let mut kept = shard_stays.then(|| Shard::with_ring(ring(), &Config::new()).unwrap());
    let mut waited_ns = 0;
    for round in 0..200_u64 {
        let shard =
            kept.take().unwrap_or_else(|| Shard::with_ring(ring(), &Config::new()).unwrap());
        let before_ns = shard.now_ns();
        let file = shard.open(device, &options()).unwrap_or_else(|error| {
            panic!("round {round}: {error}");
        });
        waited_ns = waited_ns.max(shard.now_ns() - before_ns);
        let page = AlignedBuf::new(4096, 4096);
        let (written, page) = block_on(&shard, file.write_all_at(0, page)).unwrap();
        written.unwrap();
        block_on(&shard, file.sync(Durability::Data)).unwrap().unwrap();
        drop((page, file));
        if shard_stays {
            kept = Some(shard);
        }
    }
    println!("stays {shard_stays}: longest open took {} us", waited_ns / 1000);
}

/// The handle outlives the engine, so its file is still the ring's when that goes.
#[test]
fn device_is_closed_when_the_engine_has_ended_before_its_handle() {
    let image = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Some(device) = device(&image) else { return };
    for _ in 0..50 {
        let engine = Engine::builder().shards(Shards::Count(1)).queue_depth(8).build().unwrap();
        let remote = engine.remote();
        let file = block_on(&remote, remote.open(device.path(), &options())).unwrap().unwrap();
        let page = AlignedBuf::new(4096, 4096);
        block_on(&remote, file.write_durable_at(0, page)).unwrap().0.unwrap();
        assert!(engine.shutdown().is_clean());
        drop(file);
        // By somebody who does not wait.
        let mut how = std::fs::OpenOptions::new();
        how.read(true).write(true).custom_flags(libc::O_EXCL);
        how.open(device.path()).expect("the kernel still has it open");
    }
}

#[test]
fn device_that_was_closed_is_opened_exclusively_again() {
    let image = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Some(device) = device(&image) else { return };
    let path = device.path();
    for shard_stays in [false, true] {
        again_and_again(|| ThreadRing::new(2, 8).unwrap(), path, shard_stays);
        if let Err(error) = KernelRing::new(&KernelConfig::new(8)) {
            println!("SKIP kernel ring: {error}");
            continue;
        }
        again_and_again(|| KernelRing::new(&KernelConfig::new(8)).unwrap(), path, shard_stays);
    }
}
