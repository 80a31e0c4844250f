//! Chains on real files: one result, all buffers back, on the kernel ring and the thread ring.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::{Context, Waker};

use mfio_core::{ErrorKind, block_on};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Ring, Wait};
use mfio_engine::{Config, DirectMode, Durability, OpenOptions, STEPS_MAX, Shard};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn kernel_ring(depth: u32) -> Option<KernelRing> {
    KernelRing::new(&KernelConfig::new(depth))
        .map_err(|error| println!("SKIP kernel ring: {error}; the thread ring runs the same"))
        .ok()
}

fn writable(direct: DirectMode) -> OpenOptions {
    OpenOptions { write: true, create: true, direct, ..OpenOptions::default() }
}

fn chains<R: Ring>(ring: R, name: &str, direct: DirectMode) {
    let (one, two) = (path(&format!("{name}-1")), path(&format!("{name}-2")));
    std::fs::write(&one, vec![7; 64 << 10]).unwrap();
    std::fs::write(&two, vec![8; 64 << 10]).unwrap();
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let first = shard.open(&one, &writable(direct)).unwrap();
    let second = shard.open(&two, &writable(direct)).unwrap();
    let page = |byte| {
        let mut page = shard.arena().alloc(4096).unwrap();
        page.fill(byte);
        page
    };
    // Longer than a small ring: launched in pieces.
    let chain = first
        .chain()
        .write_at(0, page(1))
        .write_at(8192, page(2))
        .sync(Durability::Data)
        .write_at(16384, page(3))
        .sync(Durability::Full)
        .read_at(8192, page(0))
        .on(&second)
        .write_from_previous(4096)
        .sync(Durability::Data);
    let (result, mut buffers) = block_on(&shard, chain.commit()).unwrap();
    result.unwrap();
    assert!(buffers.take(5).unwrap().iter().all(|byte| *byte == 2));
    assert!(buffers.take(0).is_some() && buffers.take(0).is_none() && buffers.take(2).is_none());
    drop(buffers);

    // A read that ends inside its buffer fails, and nothing behind it happens.
    let chain = first
        .chain()
        .read_at(60 << 10, shard.arena().alloc(16 << 10).unwrap())
        .sync(Durability::Data);
    let (result, mut buffers) = block_on(&shard, chain.commit()).unwrap();
    let error = result.unwrap_err();
    assert_eq!((error.step, error.io.error.kind()), (0, ErrorKind::UnexpectedEof), "{error}");
    assert_eq!((error.io.op, error.io.done_bytes), ("read", 4096));
    assert!(buffers.take(0).is_some());
    drop(buffers);

    // Refused before anything is issued, with every buffer back.
    let mut long = first.chain();
    for _ in 0..=STEPS_MAX {
        long = long.write_at(0, page(9));
    }
    let (result, mut buffers) = block_on(&shard, long.commit()).unwrap();
    assert_eq!(result.unwrap_err().io.error.kind(), ErrorKind::OutOfRange);
    assert!(buffers.take(STEPS_MAX - 1).is_some());
    drop(buffers);
    let odd = first.chain().write_at(0, page(9)).write_from_previous(0);
    assert_eq!(
        block_on(&shard, odd.commit()).unwrap().0.unwrap_err().io.error.kind(),
        ErrorKind::Unsupported
    );
    let far = first.chain().write_at(0, page(9)).write_at(u64::MAX - 1, page(9));
    let error = block_on(&shard, far.commit()).unwrap().0.unwrap_err();
    assert_eq!((error.step, error.io.error.kind()), (1, ErrorKind::OutOfRange));

    // Dropped at every age.
    for turns in 0..4 {
        let mut chain =
            Box::pin(first.chain().write_at(0, page(1)).sync(Durability::Data).commit());
        let mut context = Context::from_waker(Waker::noop());
        let _pending = chain.as_mut().poll(&mut context);
        for _ in 0..turns {
            shard.turn(Wait::NONE).unwrap();
        }
    }
    assert_eq!(shard.shutdown(), 0);
    let expected = |path: &Path, pages: &[(usize, u8)], rest| {
        let mut bytes = vec![rest; 64 << 10];
        for (at, byte) in pages {
            bytes[*at..at + 4096].fill(*byte);
        }
        assert!(std::fs::read(path).unwrap() == bytes);
    };
    expected(&one, &[(0, 1), (8192, 2), (16384, 3)], 7);
    expected(&two, &[(4096, 2)], 8);
    assert_eq!(shard.arena().in_use(), 0, "every buffer has come back");
    std::fs::remove_file(one).unwrap();
    std::fs::remove_file(two).unwrap();
}

#[test]
fn chains_end_with_one_result_on_both_rings() {
    chains(ThreadRing::new(2, 64).unwrap(), "chains-threads", DirectMode::Buffered);
    if let Some(ring) = kernel_ring(64) {
        chains(ring, "chains-kernel", DirectMode::PreferDirect);
    }
}

#[test]
fn f15_chain_longer_than_the_ring_is_launched_in_pieces() {
    chains(ThreadRing::new(1, 1).unwrap(), "chains-threads-small", DirectMode::Buffered);
    if let Some(ring) = kernel_ring(2) {
        chains(ring, "chains-kernel-small", DirectMode::PreferDirect);
    }
}

#[test]
fn many_chains_share_flushes_and_all_end() {
    let path = path("chains-many");
    std::fs::write(&path, vec![7; 1 << 20]).unwrap();
    let Some(ring) = kernel_ring(16) else { return };
    let config = Config { backlog_max: 4, in_flight_max: 8, ..Config::new() };
    let shard = Shard::with_ring(ring, &config).unwrap();
    let file = shard.open(&path, &writable(DirectMode::PreferDirect)).unwrap();
    let mut under_way: Vec<_> = (0..64)
        .map(|at| {
            let mut page = shard.arena().alloc(4096).unwrap();
            page.fill(at);
            let at = u64::from(at) * 4096;
            Box::pin(file.chain().write_at(at, page).sync(Durability::Data).commit())
        })
        .collect();
    let all = std::future::poll_fn(|cx| {
        under_way.retain_mut(|chain| match pin!(chain).poll(cx) {
            std::task::Poll::Ready((result, _)) => {
                result.unwrap();
                false
            }
            std::task::Poll::Pending => true,
        });
        if under_way.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    block_on(&shard, all).unwrap();
    let metrics = shard.metrics();
    assert_eq!(metrics.chains, 64);
    assert!(metrics.flushes < 64, "{metrics:?}");
    let bytes = std::fs::read(&path).unwrap();
    assert!((0..64_u8).all(|at| bytes[usize::from(at) * 4096] == at));
    std::fs::remove_file(path).unwrap();
}
