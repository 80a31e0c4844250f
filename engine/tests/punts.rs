//! Punts are counted op by op, where the kernel lets us.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::path::Path;
use std::process::Command;

use mfio_core::block_on;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::{BypassMode, Config, OpenOptions, Shard};

const READS: u64 = 32;

/// Reads a file block by block; returns how many ops were punted for it, and how many reads
/// never went to the ring.
fn punts_of_reads(path: &Path, bypass: BypassMode) -> Option<(u64, u64)> {
    std::fs::write(path, vec![1; 4096]).unwrap();
    let config = Config { count_punts: true, bypass, ..Config::new() };
    let ring = KernelRing::new(&KernelConfig::new(8)).ok()?;
    let shard = Shard::with_ring(ring, &config).unwrap();
    let file = shard.open(path, &OpenOptions::new()).unwrap();
    let reader = shard.metrics_reader();
    let before = reader.punts().ops?;
    for _ in 0..READS {
        let page = shard.arena().alloc(4096).unwrap();
        let (read, _page) = block_on(&shard, file.read_exact_at(0, page)).unwrap();
        read.unwrap();
    }
    // On another thread, because a counter is of the thread that made it and not of its reader.
    let after = std::thread::spawn(move || reader.punts());
    let after = after.join().unwrap();
    std::fs::remove_file(path).unwrap();
    let inline = shard.metrics().inline_ops;
    println!("{}, {bypass:?}: {after:?}, {before} before, {inline} inline", path.display());
    after.ops.map(|after| (after - before, inline))
}

/// Runs alone below, with tracefs where nobody else sees it.
#[test]
#[ignore = "started by the other test of this file"]
fn inner() {
    let in_memory = Path::new("/dev/shm/mfio-punts");
    let every = punts_of_reads(in_memory, BypassMode::Off);
    assert_eq!(every, Some((READS, 0)), "every op on a tmpfs is punted, once");
    let (punted, inline) = punts_of_reads(in_memory, BypassMode::Auto).unwrap();
    assert!(inline > 0 && punted > 0, "lone ops are being measured, one way and the other");
    assert_eq!(punted + inline, READS, "what bypasses the ring is not punted");
    let cached = Path::new(env!("CARGO_TARGET_TMPDIR")).join("punts");
    let cached = punts_of_reads(&cached, BypassMode::Off);
    assert_eq!(cached, Some((0, 0)), "none on a file that can be read without waiting");
}

#[test]
fn every_punt_is_counted_and_nothing_else() {
    let mount = "mount -t tracefs none /sys/kernel/tracing";
    let probe = Command::new("unshare").args(["-m", "sh", "-c", mount]).status();
    let mounts = probe.is_ok_and(|status| status.success());
    if !mounts || KernelRing::new(&KernelConfig::new(8)).is_err() {
        println!("SKIP: no privilege to mount tracefs, or no io_uring");
        return;
    }
    let script = format!("{mount} && exec \"$0\" --ignored --exact inner");
    let me = std::env::current_exe().unwrap();
    let output =
        Command::new("unshare").args(["-m", "sh", "-c", &script]).arg(me).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
}

#[test]
fn without_asking_only_the_workers_are_seen() {
    let punts = mfio_engine::punts();
    assert_eq!(punts.ops, None);
}
