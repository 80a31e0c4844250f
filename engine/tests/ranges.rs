//! Ops on ranges of real files, and copies, on the kernel ring and on the thread ring, compared
//! with a byte array.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

#[path = "../src/target/loop_device.rs"]
mod loop_device;

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use mfio_core::{ErrorKind, block_on};
use mfio_engine::ring::Ring;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::{Config, DirectMode, Durability, File, Geometry, OpenOptions, Shard};
use mfio_engine::{SyncMethod, SyncSource};

use loop_device::Loop;

const KIB: u64 = 1 << 10;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn kernel_ring() -> Option<KernelRing> {
    KernelRing::new(&KernelConfig::new(64))
        .map_err(|error| println!("SKIP kernel ring: {error}; the thread ring runs the same"))
        .ok()
}

fn thread_ring() -> ThreadRing {
    ThreadRing::new(2, 64).unwrap()
}

fn writable(direct: DirectMode) -> OpenOptions {
    OpenOptions { write: true, create: true, direct, ..OpenOptions::default() }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap() + 1).collect()
}

fn ranges<R: Ring>(ring: R, path: &Path, direct: DirectMode) {
    let mut model = pattern(256 << 10);
    std::fs::write(path, &model).unwrap();
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let file = shard.open(path, &writable(direct)).unwrap();
    let run = async {
        file.discard(0, 16 * KIB).await.unwrap();
        model[..16 << 10].fill(0);
        file.punch_hole(64 * KIB, 64 * KIB).await.unwrap();
        model[64 << 10..128 << 10].fill(0);
        // Neither aligned nor inside the file.
        file.write_zeroes(200 * KIB + 512, 64 * KIB).await.unwrap();
        model.resize((264 << 10) + 512, 0);
        model[(200 << 10) + 512..].fill(0);
        file.preallocate(100 * KIB, 400 * KIB).await.unwrap();
        model.resize(500 << 10, 0);
        file.set_len(300 * KIB).await.unwrap();
        model.resize(300 << 10, 0);
        file.set_len(320 * KIB).await.unwrap();
        model.resize(320 << 10, 0);
        for (offset, len) in [(u64::MAX, 1), (1 << 63, 0), (1, u64::MAX)] {
            let refused = file.discard(offset, len).await.unwrap_err();
            assert_eq!(refused.error.kind(), ErrorKind::OutOfRange);
            assert_eq!((refused.op, refused.offset_bytes), ("discard", offset));
        }
        file.discard(0, 0).await.unwrap();
        file.sync(Durability::Full).await.unwrap();
    };
    block_on(&shard, run).unwrap();
    assert_eq!(shard.shutdown(), 0);
    drop((file, shard));
    assert!(std::fs::read(path).unwrap() == model, "the file is what it was made");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn ranges_are_zeroed_allocated_and_cut_off_on_both_rings() {
    for (number, direct) in [(0, DirectMode::Buffered), (1, DirectMode::PreferDirect)] {
        ranges(thread_ring(), &path(&format!("ranges-threads-{number}")), direct);
        if let Some(ring) = kernel_ring() {
            ranges(ring, &path(&format!("ranges-kernel-{number}")), direct);
        }
    }
}

#[test]
fn zeros_are_written_where_the_file_system_cannot_make_them() {
    // A tmpfs has no ZERO_RANGE.
    let place = Path::new("/dev/shm");
    if !place.is_dir() {
        return println!("SKIP: no /dev/shm");
    }
    let name = |ring: &str| place.join(format!("mfio-ranges-{ring}-{}", std::process::id()));
    ranges(thread_ring(), &name("threads"), DirectMode::Buffered);
    if let Some(ring) = kernel_ring() {
        ranges(ring, &name("kernel"), DirectMode::Buffered);
    }
}

#[test]
fn punched_hole_gives_space_back_and_preallocating_takes_it() {
    let path = path("ranges-space");
    std::fs::write(&path, vec![1; 1 << 20]).unwrap();
    let shard = Shard::with_ring(thread_ring(), &Config::new()).unwrap();
    let file = shard.open(&path, &writable(DirectMode::Buffered)).unwrap();
    block_on(&shard, file.sync(Durability::Full)).unwrap().unwrap();
    let blocks = || std::fs::metadata(&path).unwrap().blocks();
    let before = blocks();
    block_on(&shard, file.punch_hole(0, 1 << 19)).unwrap().unwrap();
    let after = blocks();
    block_on(&shard, file.preallocate(0, 1 << 20)).unwrap().unwrap();
    assert!(after <= before - 1000, "{before} blocks, then {after}");
    assert!(blocks() >= before, "{before} blocks, then {}", blocks());
    drop((file, shard));
    std::fs::remove_file(path).unwrap();
}

fn copies<R: Ring>(ring: R, name: &str, direct: DirectMode) {
    let (from, to) = (path(&format!("{name}-from")), path(&format!("{name}-to")));
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let align = usize::try_from(4 * KIB).unwrap();
    for len in [0, align, 1 << 20, (1 << 20) + 3 * align] {
        let bytes = pattern(len);
        std::fs::write(&from, &bytes).unwrap();
        std::fs::write(&to, [9; 100]).unwrap();
        let source = shard.open(&from, &OpenOptions { direct, ..OpenOptions::default() }).unwrap();
        let target = shard.open(&to, &writable(direct)).unwrap();
        // Asked for more than there is.
        let copy = source.copy_range_to(0, 2 << 20, &target, 4 * KIB);
        assert_eq!(block_on(&shard, copy).unwrap(), Ok(len as u64), "{len} bytes");
        let seen = std::fs::read(&to).unwrap();
        if len > 0 {
            assert!(seen[align..] == bytes, "{len} bytes were copied");
        }
        let copy = source.copy_range_to(0, align as u64, &target, 0);
        assert_eq!(block_on(&shard, copy).unwrap(), Ok(len.min(align) as u64));
    }
    std::fs::remove_file(from).unwrap();
    std::fs::remove_file(to).unwrap();
}

#[test]
fn copies_are_whole_and_stop_where_the_source_ends() {
    copies(thread_ring(), "copies-threads", DirectMode::Buffered);
    if let Some(ring) = kernel_ring() {
        copies(ring, "copies-kernel", DirectMode::PreferDirect);
    }
}

#[test]
fn copy_of_a_short_buffered_file_ends_at_its_last_byte() {
    let (from, to) = (path("copy-odd-from"), path("copy-odd-to"));
    std::fs::write(&from, pattern(300_001)).unwrap();
    std::fs::write(&to, []).unwrap();
    let shard = Shard::with_ring(thread_ring(), &Config::new()).unwrap();
    let source = shard.open(&from, &OpenOptions::default()).unwrap();
    let target = shard.open(&to, &writable(DirectMode::Buffered)).unwrap();
    let copied = block_on(&shard, source.copy_range_to(1, 1 << 30, &target, 7)).unwrap();
    assert_eq!(copied, Ok(300_000));
    assert!(std::fs::read(&to).unwrap()[7..] == pattern(300_001)[1..]);
    let refused = block_on(&shard, target.copy_range_to(0, 4096, &source, 0)).unwrap();
    let error = refused.unwrap_err();
    assert_eq!((error.op, error.done_bytes), ("copy", 0));
    std::fs::remove_file(from).unwrap();
    std::fs::remove_file(to).unwrap();
}

/// Calls that are made on the spot where the ring has no such op come out the same.
fn untouched<R: Ring>(file: &File<R>, shard: &Shard<R>) {
    let missing = std::iter::once(file.set_len(1 << 62));
    for call in missing {
        let error = block_on(shard, call).unwrap().unwrap_err();
        assert_eq!(error.op, "set length");
        assert!(error.error.errno().is_some(), "{error}");
    }
}

#[test]
fn length_beyond_what_the_file_system_has_is_an_error_with_its_errno() {
    let path = path("ranges-length");
    std::fs::write(&path, [1]).unwrap();
    let shard = Shard::with_ring(thread_ring(), &Config::new()).unwrap();
    let file = shard.open(&path, &writable(DirectMode::Buffered)).unwrap();
    untouched(&file, &shard);
    if let Some(ring) = kernel_ring() {
        let shard = Shard::with_ring(ring, &Config::new()).unwrap();
        drop(file);
        let file = shard.open(&path, &writable(DirectMode::Buffered)).unwrap();
        untouched(&file, &shard);
    }
    std::fs::remove_file(path).unwrap();
}

fn device_ranges<R: Ring>(ring: R, device: &Path) {
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let opened = std::fs::File::options().read(true).write(true).open(device).unwrap();
    let geometry = Geometry::of(&opened).unwrap();
    let file = shard.adopt(&device.to_string_lossy(), opened, geometry);
    let filled = |byte: u8| vec![byte; 64 << 10];
    let run = async {
        file.write_all_at(0, vec![9_u8; 1 << 20]).await.0.unwrap();
        file.discard(64 * KIB, 64 * KIB).await.unwrap();
        file.write_zeroes(256 * KIB, 64 * KIB).await.unwrap();
        for (offset, byte) in [(0, 9), (64, 0), (128, 9), (256, 0), (320, 9)] {
            let (read, seen) = file.read_exact_at(offset * KIB, filled(1)).await;
            read.unwrap();
            assert!(seen == filled(byte), "at {offset} KiB");
        }
        let kind = |result: Result<(), mfio_engine::IoError>| result.unwrap_err().error.kind();
        assert_eq!(kind(file.discard(100, 512).await), ErrorKind::Misaligned);
        assert_eq!(kind(file.write_zeroes(0, 513).await), ErrorKind::Misaligned);
        assert_eq!(kind(file.discard(4 << 20, 512).await), ErrorKind::OutOfRange);
        assert_eq!(kind(file.preallocate(0, 4096).await), ErrorKind::Unsupported);
        assert_eq!(kind(file.punch_hole(0, 4096).await), ErrorKind::Unsupported);
        assert_eq!(kind(file.set_len(4096).await), ErrorKind::Unsupported);
        // No scratch space, unless some of the device is given for it.
        file.write_durable_at(0, filled(3)).await.0.unwrap();
        let report = file.sync_method();
        assert_eq!((report.source, report.method), (SyncSource::Facts, SyncMethod::LinkedFlush));
        let report = file.calibrate_on(2 << 20).await.unwrap();
        assert_eq!(report.source, SyncSource::Measured, "{report:?}");
        file.sync(Durability::Data).await.unwrap();
    };
    block_on(&shard, run).unwrap();
}

#[test]
fn block_device_discards_and_zeroes_ranges_of_whole_sectors() {
    let image = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    image.as_file().write_all_at(&vec![7; 4 << 20], 0).unwrap();
    let Some(device) = Loop::over(image.path(), &[]) else { return };
    device_ranges(thread_ring(), device.path());
    if let Some(ring) = kernel_ring() {
        device_ranges(ring, device.path());
    }
}
