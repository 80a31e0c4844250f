//! `OpenOptions::transfers`: flags that all reads and writes of a file carry.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use mfio_core::block_on;
use mfio_engine::ring::Transfers;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::{Config, DirectMode, File, OpenOptions, Shard};

type Error = mfio_engine::IoError;

/// A file of 1 MiB that no page cache holds.
fn cold(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("transfers-{name}"));
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    let file = fs::File::open(&path).unwrap();
    file.sync_all().unwrap();
    let gone = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    nix::fcntl::posix_fadvise(&file, 0, 0, gone).unwrap();
    path
}

fn kernel() -> Option<Shard<KernelRing>> {
    let ring = KernelRing::new(&KernelConfig::new(8)).ok();
    if ring.is_none() {
        writeln!(std::io::stderr().lock(), "skipped: io_uring cannot be used here").unwrap();
    }
    ring.map(|ring| Shard::with_ring(ring, &Config::new()).unwrap())
}

/// One read of 4 KiB.
fn read(shard: &Shard<KernelRing>, file: &File<KernelRing>, at: u64) -> Result<(), Error> {
    let buffer = shard.arena().alloc(4096).unwrap();
    let (read, buffer) = block_on(shard, file.read_exact_at(at, buffer)).unwrap();
    assert!(read.is_err() || buffer.iter().all(|byte| *byte == 7));
    read
}

#[test]
fn nowait_is_answered_at_once_and_not_tried_again() {
    let Some(shard) = kernel() else { return };
    let transfers = Transfers { nowait: true, ..Transfers::USUAL };
    let options = OpenOptions::new().sync_on_open(false).transfers(transfers);
    // A device may answer before the kernel looks, where a virtual machine stands still while its
    // disk reads. The first block may have been looked at when the file was opened.
    let mut tries = (0..50).map(|_| {
        let path = cold("nowait");
        let file = shard.open(&path, &options).unwrap();
        let failed = read(&shard, &file, 512 << 10).err();
        (path, file, failed)
    });
    let waited = tries.find_map(|(path, file, failed)| failed.map(|failed| (path, file, failed)));
    let (path, file, failed) = waited.expect("a read of what is not in the page cache");
    assert!(failed.to_string().contains("EAGAIN"), "{failed}");
    assert_eq!(shard.metrics().retries, 0);
    // In the page cache nothing has to be waited for.
    drop(fs::read(&path).unwrap());
    read(&shard, &file, 512 << 10).unwrap();
}

#[test]
fn forced_transfers_bring_the_same_bytes() {
    let Some(shard) = kernel() else { return };
    let path = cold("forced");
    let transfers = Transfers { async_every: 3, ..Transfers::USUAL };
    let options = OpenOptions::new().sync_on_open(false).transfers(transfers);
    let file = shard.open(&path, &options).unwrap();
    for block in 0..16 {
        read(&shard, &file, block << 12).unwrap();
    }
}

#[test]
fn flags_that_nobody_could_heed_are_refused_at_the_open() {
    let path = cold("refused");
    let threads = Shard::with_ring(ThreadRing::new(1, 4).unwrap(), &Config::new()).unwrap();
    let usual = OpenOptions::new();
    let flagged = |transfers| usual.transfers(transfers);
    let nowait = Transfers { nowait: true, ..Transfers::USUAL };
    let uncached = Transfers { uncached: true, ..Transfers::USUAL };
    let atomic = Transfers { atomic: true, ..Transfers::USUAL };
    let fua = Transfers { read_fua: true, ..Transfers::USUAL };
    let stream = Transfers { stream: 1, ..Transfers::USUAL };
    for (options, expected) in [
        (flagged(nowait), "use io_uring"),
        (flagged(uncached).direct(DirectMode::Direct), "ask for buffered I/O"),
        (flagged(atomic), "ask for direct I/O"),
        (flagged(fua), "ask for FUA only where the target is an NVMe namespace"),
        (flagged(stream), "ask for direct I/O where writes go"),
        (flagged(stream).direct(DirectMode::Direct), "name a block device"),
    ] {
        let said = threads.open(&path, &options).map(drop).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}
