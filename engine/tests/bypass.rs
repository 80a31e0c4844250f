//! Ops that are alone: executed by whatever is faster, with the same outcome.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Waker};

use mfio_core::{ErrorKind, Packet, PacketIoExt, Read, block_on};
use mfio_engine::buffer::ArenaBuf;
use mfio_engine::ring::Wait;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::{BypassMode, Config, Durability, File, Lone, OpenOptions, Shard};

const PAGE: usize = 4096;
const PAGES: u64 = 64;

type Kernel = Shard<KernelRing>;

fn shard(bypass: BypassMode) -> Option<Kernel> {
    match KernelRing::new(&KernelConfig::new(64)) {
        Ok(ring) => Some(Shard::with_ring(ring, &Config { bypass, ..Config::new() }).unwrap()),
        Err(error) => {
            println!("SKIP: {error}");
            None
        }
    }
}

fn open(shard: &Kernel, path: &Path) -> File<KernelRing> {
    let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
    shard.open(path, &options).unwrap()
}

/// A directory in memory, if this machine has one.
fn in_memory() -> Option<tempfile::TempDir> {
    let made = tempfile::tempdir_in("/dev/shm");
    made.inspect_err(|error| println!("SKIP: /dev/shm: {error}")).ok()
}

fn cached() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn write_page(shard: &Kernel, file: &File<KernelRing>, at: u64, byte: u8) {
    let mut page = shard.arena().alloc(PAGE).unwrap();
    page.fill(byte);
    let (written, _) = block_on(shard, file.write_all_at(at * PAGE as u64, page)).unwrap();
    written.unwrap();
}

fn read_page(shard: &Kernel, file: &File<KernelRing>, at: u64) -> ArenaBuf {
    let page = shard.arena().alloc(PAGE).unwrap();
    let (read, page) = block_on(shard, file.read_exact_at(at * PAGE as u64, page)).unwrap();
    read.unwrap();
    page
}

fn settle(shard: &Kernel, file: &File<KernelRing>) {
    for round in 0..4_u8 {
        for at in 0..PAGES {
            write_page(shard, file, at, round + u8::try_from(at).unwrap());
            let page = read_page(shard, file, at);
            assert!(page.iter().all(|&byte| byte == round + u8::try_from(at).unwrap()));
        }
    }
}

#[test]
fn lone_ops_in_memory_bypass_the_ring_and_move_the_same_bytes() {
    let (Some(directory), Some(shard)) = (in_memory(), shard(BypassMode::Auto)) else { return };
    let file = open(&shard, &directory.path().join("file"));
    assert_eq!(file.bypass().read, Lone::Measuring);
    settle(&shard, &file);
    // A hand-over to a kernel worker is slower than a copy on any machine.
    assert_eq!((file.bypass().read, file.bypass().write), (Lone::Inline, Lone::Inline));
    let before = shard.metrics();
    assert!(before.inline_ops > 2 * PAGES, "{before:?}");
    for at in 0..PAGES {
        read_page(&shard, &file, at);
    }
    assert_eq!(shard.metrics().inline_ops, before.inline_ops + PAGES);
    assert_eq!(shard.in_flight(), 0);
}

#[test]
fn lone_ops_on_a_cached_file_are_measured_and_settle() {
    let directory = cached();
    let Some(shard) = shard(BypassMode::Auto) else { return };
    let file = open(&shard, &directory.path().join("file"));
    settle(&shard, &file);
    println!("{:?}, {} inline", file.bypass(), shard.metrics().inline_ops);
    assert!(matches!(file.bypass().read, Lone::Ring | Lone::Inline));
    assert!(matches!(file.bypass().write, Lone::Ring | Lone::Inline));
}

#[test]
fn bypass_off_or_direct_io_leaves_every_op_to_the_ring() {
    let directory = cached();
    let (Some(off), Some(auto)) = (shard(BypassMode::Off), shard(BypassMode::Auto)) else {
        return;
    };
    let file = open(&off, &directory.path().join("file"));
    settle(&off, &file);
    assert_eq!((file.bypass().read, off.metrics().inline_ops), (Lone::RingOnly, 0));
    drop(file);
    let direct = mfio_engine::DirectMode::PreferDirect;
    let options = OpenOptions { write: true, direct, ..OpenOptions::default() };
    let file = auto.open(&directory.path().join("file"), &options).unwrap();
    if file.geometry().direct {
        settle(&auto, &file);
        assert_eq!((file.bypass().write, auto.metrics().inline_ops), (Lone::RingOnly, 0));
    }
}

#[test]
fn f11_short_and_empty_lone_reads_are_judged_like_any_other() {
    let (Some(directory), Some(shard)) = (in_memory(), shard(BypassMode::Auto)) else { return };
    let path = directory.path().join("file");
    let file = open(&shard, &path);
    settle(&shard, &file);
    let end = PAGES * PAGE as u64;
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(end - 100).unwrap();
    let before = shard.metrics();
    let page = shard.arena().alloc(PAGE).unwrap();
    let (read, page) = block_on(&shard, file.read_exact_at(end - PAGE as u64, page)).unwrap();
    let error = read.unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(error.done_bytes, PAGE as u64 - 100);
    let (read, _) = block_on(&shard, file.read_exact_at(end + PAGE as u64, page)).unwrap();
    assert_eq!(read.unwrap_err().error.kind(), ErrorKind::UnexpectedEof);
    assert!(shard.metrics().inline_ops > before.inline_ops, "they did go inline");
}

#[test]
fn f14_durable_writes_never_bypass_the_ring() {
    let (Some(directory), Some(shard)) = (in_memory(), shard(BypassMode::Auto)) else { return };
    let file = open(&shard, &directory.path().join("file"));
    settle(&shard, &file);
    let before = shard.metrics();
    for at in 0..PAGES {
        let page = shard.arena().alloc(PAGE).unwrap();
        let done = block_on(&shard, file.write_durable_at(at * PAGE as u64, page)).unwrap();
        done.0.unwrap();
    }
    assert_eq!(shard.metrics().inline_ops, before.inline_ops);
    // A lone read that is staged, and a durable write with its linked flush behind it.
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        let pages = [(); 2].map(|()| shard.arena().alloc(PAGE).unwrap());
        let [into, from] = pages;
        let mut read = Box::pin(file.read_exact_at(0, into));
        assert!(Future::poll(read.as_mut(), &mut cx).is_pending());
        block_on(&shard, file.write_durable_at(PAGE as u64, from)).unwrap().0.unwrap();
        block_on(&shard, read).unwrap().0.unwrap();
    }
    // A plain write and the flush that covers it: the write is alone when it is sent.
    write_page(&shard, &file, 0, 9);
    let flushes = shard.metrics().flushes;
    block_on(&shard, file.sync(Durability::Data)).unwrap().unwrap();
    assert_eq!(shard.metrics().flushes, flushes + 1);
}

/// One to four ops at a time, so that lone ops meet others at every point of their life.
#[test]
fn ops_that_stop_being_alone_are_queued_in_order_and_lose_nothing() {
    let (Some(directory), Some(shard)) = (in_memory(), shard(BypassMode::Auto)) else { return };
    let file = open(&shard, &directory.path().join("file"));
    settle(&shard, &file);
    let round = 3;
    let mut cx = Context::from_waker(Waker::noop());
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    for _ in 0..5_000 {
        let mut reads: Vec<(u64, Pin<Box<dyn Future<Output = _> + '_>>)> = Vec::new();
        for _ in 0..=next(4) {
            let at = next(PAGES);
            let page = shard.arena().alloc(PAGE).unwrap();
            let packet = Packet::<Read, _>::new(page);
            let mut read = Box::pin(file.io(at * PAGE as u64, packet));
            assert!(Future::poll(read.as_mut(), &mut cx).is_pending());
            reads.push((at, read));
            if next(3) == 0 {
                shard.turn(Wait::NONE).unwrap();
            }
        }
        if next(4) == 0 {
            // Somebody leaves, staged or queued or done.
            let left = usize::try_from(next(reads.len() as u64)).unwrap();
            drop(reads.swap_remove(left));
        }
        for (at, read) in reads {
            let done = block_on(&shard, read).unwrap();
            assert!(done.result().is_ok());
            let expected = round + u8::try_from(at).unwrap();
            assert!(done.into_buffer().iter().all(|&byte| byte == expected));
        }
    }
    while shard.in_flight() > 0 {
        shard.turn(Wait::at_least(1)).unwrap();
    }
    assert_eq!(shard.arena().in_use(), 0);
    assert!(shard.metrics().inline_ops > 1_000);
    assert_eq!(shard.metrics().stale_completions, 0);
}
