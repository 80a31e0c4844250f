//! A large arena on the real ring: before all of it is registered, meanwhile, and after.
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use mfio_core::block_on;

use super::*;
use crate::buffer::{ArenaBuf, ArenaConfig, SizeClass};
use crate::config::Config;
use crate::ring::Poll;
use crate::ring::kernel::{KernelConfig, KernelRing};
use crate::shard::{File, Shard};
use crate::target::{DirectMode, OpenOptions};

const PAGE: usize = 4096;
const ARENA_BYTES: usize = 64 << 20;

type Kernel = Shard<KernelRing>;

/// A shard whose arena is registered in part to begin with.
fn shard() -> Option<Kernel> {
    let ring = match KernelRing::new(&KernelConfig::new(64)) {
        Ok(ring) => ring,
        Err(error) => {
            println!("SKIP: {error}");
            return None;
        }
    };
    let count = u32::try_from(ARENA_BYTES / PAGE).unwrap();
    let arena = ArenaConfig::new(vec![SizeClass { bytes: 4096, count }]);
    let shard = Shard::with_ring(ring, &Config { arena, ..Config::new() }).unwrap();
    let registered = shard.arena().region().registered_bytes();
    if crate::sys::is_memlock_exempt() != Some(true) || shard.arena().pages() == Pages::Huge {
        println!("SKIP: {registered} bytes at once: RLIMIT_MEMLOCK, or reserved huge pages");
        return None;
    }
    assert_eq!(registered, FIRST_BYTES, "{:?}", shard.features());
    assert!(shard.features().in_use.contains(&"registered buffers"));
    Some(shard)
}

fn file(shard: &Kernel, directory: &tempfile::TempDir) -> File<KernelRing> {
    let options = OpenOptions::new().write(true).create(true).direct(DirectMode::PreferDirect);
    shard.open(&directory.path().join("file"), &options).unwrap()
}

/// The first buffer of the arena and the last.
fn ends(shard: &Kernel) -> (ArenaBuf, ArenaBuf) {
    let mut all: Vec<_> = std::iter::from_fn(|| shard.arena().alloc(PAGE)).collect();
    all.sort_by_key(|buffer| buffer.as_ptr().addr());
    let last = all.pop().unwrap();
    (all.swap_remove(0), last)
}

fn index(shard: &Kernel, buffer: &mut ArenaBuf) -> Option<u16> {
    shard.fixed_index(buffer.as_mut_ptr(), 4096, Some(shard.arena().id()))
}

/// Writes `buffer` with `byte` everywhere, reads it back, and checks it.
fn round(shard: &Kernel, file: &File<KernelRing>, mut buffer: ArenaBuf, byte: u8) -> ArenaBuf {
    buffer.fill(byte);
    let (written, mut buffer) = block_on(shard, file.write_all_at(0, buffer)).unwrap();
    written.unwrap();
    buffer.fill(!byte);
    let (read, buffer) = block_on(shard, file.read_exact_at(0, buffer)).unwrap();
    read.unwrap();
    assert!(buffer.iter().all(|&read| read == byte));
    buffer
}

#[test]
fn large_arena_works_at_once_and_is_registered_whole_when_its_pages_are_there() {
    let Some(shard) = shard() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = file(&shard, &directory);
    let (mut near, mut far) = ends(&shard);
    assert_eq!((index(&shard, &mut near), index(&shard, &mut far)), (Some(0), None));
    for byte in 0..=u8::MAX {
        near = round(&shard, &file, near, byte);
        far = round(&shard, &file, far, !byte);
        if index(&shard, &mut far) == Some(0) {
            break;
        }
        crate::sys::pause(Duration::from_millis(u64::from(byte)));
    }
    assert_eq!((index(&shard, &mut near), index(&shard, &mut far)), (Some(0), Some(0)));
    let region = shard.arena().region();
    assert_eq!(region.registered_bytes(), region.len_bytes());
    // From here on the handle that was opened before goes straight.
    let (_near, _far) = (round(&shard, &file, near, 1), round(&shard, &file, far, 2));
    assert!(shard.inner.core.borrow().rest.is_none());
    assert!(shard.inner.core.borrow().fixed_id == shard.arena().id());
    assert_eq!(shard.shutdown(), 0);
}

#[test]
fn f08_op_in_flight_keeps_its_memory_when_the_rest_is_registered() {
    for taken_by_the_kernel in [false, true] {
        let Some(shard) = shard() else { return };
        let directory = tempfile::tempdir().unwrap();
        let file = file(&shard, &directory);
        std::fs::write(directory.path().join("file"), [1; PAGE]).unwrap();
        let mut reads: Vec<_> = (0..32)
            .map(|at| {
                // Half of them on what is registered, half on what is not.
                let buffers = std::iter::from_fn(|| shard.arena().alloc(PAGE));
                let nth = if at % 2 == 0 { 0 } else { ARENA_BYTES / PAGE - 100 };
                let mut buffer = buffers.take(nth + 1).last().unwrap();
                buffer.fill(7);
                Box::pin(file.read_exact_at(0, buffer))
            })
            .collect();
        let mut cx = Context::from_waker(Waker::noop());
        for read in &mut reads {
            assert!(Pin::new(read).poll(&mut cx).is_pending());
        }
        if taken_by_the_kernel {
            let _reaped = shard.turn(crate::ring::Wait::NONE).unwrap();
        }
        assert_eq!(shard.register(shard.arena()), ARENA_BYTES);
        for read in reads {
            let (read, buffer) = block_on(&shard, read).unwrap();
            read.unwrap();
            assert!(buffer.iter().all(|&byte| byte == 1));
        }
        assert_eq!(shard.shutdown(), 0);
    }
}

/// The ring of a polled target clones what is registered when it is made.
#[test]
fn target_with_a_ring_of_its_own_is_opened_behind_all_of_the_arena() {
    let Some(shard) = shard() else { return };
    let here = std::env::current_exe().unwrap();
    let directory = tempfile::tempdir_in(here.parent().unwrap()).unwrap();
    let file = file(&shard, &directory);
    if !file.geometry().direct {
        return println!("SKIP: no O_DIRECT here, so nothing is polled");
    }
    drop(file);
    assert_eq!(shard.arena().region().registered_bytes(), FIRST_BYTES);
    let polled = OpenOptions::new().direct(DirectMode::PreferDirect).poll(Poll::Polled);
    let _polled = shard.open(&directory.path().join("file"), &polled).unwrap();
    assert_eq!(shard.arena().region().registered_bytes(), ARENA_BYTES);
    let told = &shard.features().degraded;
    // Not what a kernel says that clones nothing.
    assert!(!told.iter().any(|text| text.contains("registered later")), "{told:?}");
}

#[test]
fn shard_goes_while_the_pages_are_being_made() {
    for reads in 0..8 {
        let Some(shard) = shard() else { return };
        let arena = shard.arena().clone();
        let directory = tempfile::tempdir().unwrap();
        let file = file(&shard, &directory);
        for byte in 0..reads {
            let _back = round(&shard, &file, arena.alloc(PAGE).unwrap(), byte);
        }
        let rest_is_bare = matches!(shard.inner.core.borrow().rest, Some(Rest::Bare));
        assert_eq!(rest_is_bare, reads == 0);
        drop((file, shard));
        // Memory that outlives its shard is as good as any.
        let mut page = arena.alloc(PAGE).unwrap();
        page.fill(1);
    }
}
