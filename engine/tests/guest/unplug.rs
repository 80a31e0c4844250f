//! A controller that is taken out while ops are in flight. The device is gone afterwards:
//! `scripts/guest/smoke` runs this last.

use std::cell::{Cell, RefCell};
use std::path::Path;

use mfio_core::{ErrorKind, block_on};
use mfio_engine::{DirectMode, Durability, IoError};

use crate::device::{Guest, Random, Work, all, destructive, kernel_shard, page};

const WORKERS: u64 = 32;
const BLOCKS: u64 = 16 << 10;
/// From when the kernel has removed the device until the last op must be over.
const AFTERWARDS_NS_MAX: u64 = 5_000_000_000;
const PAUSE_NS: u64 = 5_000_000;
/// Long after that nobody would wait any more.
const PATIENCE_NS: u64 = 60_000_000_000;

#[test]
fn f47_device_that_is_removed_under_load_ends_every_op_and_nothing_else() {
    let Some(guest) = Guest::alone() else { return };
    let Some(path) = guest.device("MFIO_NVME512") else { return };
    let Some(other) = guest.device("MFIO_NVME4K") else { return };
    let unplug = std::env::var_os("MFIO_UNPLUG").unwrap();
    let in_sysfs = Path::new("/sys/block").join(path.file_name().unwrap());
    let shard = kernel_shard();
    let file = shard.open(&path, &destructive(DirectMode::Direct)).unwrap();
    let neighbour = shard.open(&other, &destructive(DirectMode::Direct)).unwrap();
    let (done, at_work) = (Cell::new(0_u64), Cell::new(WORKERS));
    let (removed_ns, last_ns) = (Cell::new(0), Cell::new(0));
    let errors = RefCell::new(Vec::<IoError>::new());

    let worker = |number: u64| {
        let (file, shard) = (&file, &shard);
        let (done, at_work, last_ns, errors) = (&done, &at_work, &last_ns, &errors);
        async move {
            let mut random = Random(number);
            loop {
                let at = random.below(BLOCKS) * 4096;
                let result = match number % 4 {
                    0 => file.write_all_at(at, page(1)).await.0,
                    1 => file.write_durable_at(at, page(2)).await.0,
                    _ => file.read_exact_at(at, page(3)).await.0,
                };
                last_ns.set(shard.now_ns());
                if let Err(error) = result {
                    errors.borrow_mut().push(error);
                    at_work.set(at_work.get() - 1);
                    return;
                }
                done.set(done.get() + 1);
            }
        }
    };
    let hand = async {
        while done.get() < 500 {
            shard.sleep_ns(PAUSE_NS).await;
        }
        std::fs::write(&unplug, "nvme512\n").unwrap();
        let from_ns = shard.now_ns();
        while in_sysfs.exists() {
            assert!(shard.now_ns() - from_ns < PATIENCE_NS, "the kernel has removed nothing");
            shard.sleep_ns(PAUSE_NS).await;
        }
        removed_ns.set(shard.now_ns());
        while at_work.get() > 0 {
            let since_ns = shard.now_ns() - removed_ns.get();
            assert!(since_ns < AFTERWARDS_NS_MAX, "{} workers still wait", at_work.get());
            shard.sleep_ns(PAUSE_NS).await;
        }
    };
    let beside = async {
        let mut random = Random(99);
        while at_work.get() > 0 {
            let at = random.below(BLOCKS) * 4096;
            neighbour.write_all_at(at, page(5)).await.0.unwrap();
            let (read, bytes) = neighbour.read_exact_at(at, page(0)).await;
            read.unwrap();
            assert!(bytes.iter().all(|&byte| byte == 5));
        }
    };
    let mut works: Vec<Work<'_>> = (0..WORKERS).map(|n| Box::pin(worker(n)) as Work<'_>).collect();
    works.push(Box::pin(hand));
    works.push(Box::pin(beside));
    shard.block_on(all(works)).unwrap();

    let errors = errors.into_inner();
    println!(
        "{} ops before; the last op was over {} ms after the removal; first error: {}",
        done.get(),
        last_ns.get().saturating_sub(removed_ns.get()) / 1_000_000,
        errors[0]
    );
    assert_eq!(errors.len() as u64, WORKERS);
    let name = path.display().to_string();
    for error in &errors {
        assert_eq!((error.target.as_str(), error.len_bytes), (name.as_str(), 4096), "{error}");
        // Not the end of a file, nor a lack of space: what the kernel says of length 0.
        assert!(matches!(error.error.kind(), ErrorKind::Os | ErrorKind::Poisoned), "{error}");
    }
    // What comes later fails at once, also the flush; and the device is not found again.
    let read = block_on(&shard, file.read_exact_at(0, page(0))).unwrap().0;
    println!("a read afterwards: {}", read.unwrap_err());
    let flush = block_on(&shard, file.sync(Durability::Data)).unwrap().unwrap_err();
    println!("a flush afterwards: {flush}");
    assert_eq!(flush.error.kind(), ErrorKind::Poisoned);
    println!(
        "an open afterwards: {}",
        shard.open(&path, &destructive(DirectMode::Direct)).unwrap_err()
    );
    let (written, _) = block_on(&shard, neighbour.write_durable_at(0, page(6))).unwrap();
    written.unwrap();
    assert!(!neighbour.is_poisoned());
    drop((file, neighbour));
    assert_eq!((shard.in_flight(), shard.shutdown()), (0, 0));
    assert_eq!(mfio_engine::buffer::quarantined(), 0);
}
