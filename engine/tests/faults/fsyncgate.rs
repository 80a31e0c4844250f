//! F37, F38: writes that the page cache took and the device never gets. The stage is a loop
//! device whose backing file lies on a full tmpfs.
//!
//! The kernel tells each loss once: the first `fsync(2)` says `EIO`, the next one says yes.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use mfio_core::{ErrorKind, block_on};
use mfio_engine::target::OpenError;
use mfio_engine::{DirectMode, Durability, EngineError, OpenOptions, Shard};

use crate::stage::{Skip, device_options, kind, path, shards, stamped_at};
use crate::stamped::{BLOCK, sequence_of};

const MIB: usize = 1 << 20;
const DEVICE_MIB: usize = 32;

/// What a process does that writes, never flushes, and ends.
fn write_without_flush(device: &Path) {
    let mut device = std::fs::OpenOptions::new().write(true).open(device).unwrap();
    for _ in 0..DEVICE_MIB {
        device.write_all(&[0x11; MIB]).unwrap();
    }
}

fn first_flush_fails_and_nothing_is_acknowledged_after(shard: &Shard, device: &Path) {
    let plain_read = OpenOptions::new().lock(false);
    let writer = shard.open(device, &device_options(DirectMode::Buffered)).unwrap();
    let reader = shard.open(device, &plain_read).unwrap();
    for number in 0..DEVICE_MIB {
        let at = (number * MIB) as u64;
        let bytes = stamped_at(at, 1, MIB);
        block_on(shard, writer.write_all_at(at, bytes)).unwrap().0.unwrap();
    }
    let acknowledged = shard.metrics().durable_acknowledged;
    let first = block_on(shard, writer.sync(Durability::Data)).unwrap().unwrap_err();
    assert_eq!(first.error.kind(), ErrorKind::Poisoned, "{first}");
    assert!(writer.is_poisoned() && reader.is_poisoned(), "every handle knows");
    // What makes this dangerous: whoever asks the kernel now hears that all is well.
    std::fs::File::open(device).unwrap().sync_all().expect("the kernel tells a loss once");
    for file in [&writer, &reader, &writer] {
        let again = block_on(shard, file.sync(Durability::Full)).unwrap();
        assert_eq!(kind(&again), Some(ErrorKind::Poisoned));
    }
    let page = || {
        let mut page = shard.arena().alloc(BLOCK).unwrap();
        page.fill(2);
        page
    };
    let (written, _) = block_on(shard, writer.write_all_at(0, page())).unwrap();
    assert_eq!(kind(&written), Some(ErrorKind::Poisoned));
    let (written, _) = block_on(shard, writer.write_durable_at(0, page())).unwrap();
    assert_eq!(kind(&written), Some(ErrorKind::Poisoned));
    let chain = writer.chain().write_at(0, page()).sync(Durability::Data);
    let (committed, _) = block_on(shard, chain.commit()).unwrap();
    assert_eq!(committed.unwrap_err().io.error.kind(), ErrorKind::Poisoned);
    let metrics = shard.metrics();
    assert_eq!((metrics.durable_acknowledged, metrics.flush_failures), (acknowledged, 1));
}

/// How many MiB are not as they were written, asked of the device itself.
fn lost_mib(shard: &Shard, device: &Path) -> usize {
    let direct = OpenOptions::new().direct(DirectMode::Direct);
    let file = shard.open(device, &direct).unwrap();
    let is_lost = |number: &usize| {
        let at = (number * MIB) as u64;
        let page = shard.arena().alloc(BLOCK).unwrap();
        let (read, page) = block_on(shard, file.read_exact_at(at, page)).unwrap();
        read.is_err() || sequence_of(&page, at) != Ok(1)
    };
    (0..DEVICE_MIB).filter(is_lost).count()
}

fn loss_of_an_earlier_process_is_told_once_by_an_open(shard: &Shard, device: &Path) {
    write_without_flush(device);
    let options = device_options(DirectMode::Buffered);
    let refused = shard.open(device, &options).unwrap_err();
    let lost = matches!(refused, EngineError::Open(OpenError::LostData { .. }));
    assert!(lost, "{refused}");
    assert!(refused.to_string().contains("the next open will succeed"), "{refused}");
    let file = shard.open(device, &options).unwrap();
    assert!(!file.is_poisoned());
    // What has its space can be written, flushed and acknowledged again.
    let mut page = shard.arena().alloc(BLOCK).unwrap();
    page.fill(3);
    block_on(shard, file.write_durable_at(0, page)).unwrap().0.unwrap();
    let device = std::fs::File::open(device).unwrap();
    let mut seen = [0; BLOCK];
    device.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(seen, [3; BLOCK]);
}

pub(crate) fn check() -> Result<(), Skip> {
    let device = path();
    for (name, shard) in shards() {
        first_flush_fails_and_nothing_is_acknowledged_after(&shard, &device);
        let lost = lost_mib(&shard, &device);
        assert!(lost > 0, "the stage loses something");
        loss_of_an_earlier_process_is_told_once_by_an_open(&shard, &device);
        println!("{name}: {lost} of {DEVICE_MIB} MiB lost, told, and nothing acknowledged");
    }
    Ok(())
}
