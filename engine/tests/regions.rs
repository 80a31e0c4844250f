//! Memory that a shard did not make: a database's pool, and another shard's arena.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use mfio_core::{AlignedBuf, block_on};
use mfio_engine::buffer::Frames;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing, share};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Ring, Wait};
use mfio_engine::{Config, DirectMode, EngineError, OpenOptions, Shard};

const PAGE: usize = 4096;

fn kernel_shard() -> Option<Shard<KernelRing>> {
    match KernelRing::new(&KernelConfig::new(64)) {
        Ok(ring) => Some(Shard::with_ring(ring, &Config::new()).unwrap()),
        Err(error) => {
            println!("SKIP: {error}");
            None
        }
    }
}

fn options() -> OpenOptions {
    let direct = DirectMode::PreferDirect;
    OpenOptions { write: true, create: true, direct, ..OpenOptions::default() }
}

/// Writes every frame of a pool and reads it back into other frames of it.
fn pool_script<R: Ring>(shard: &Shard<R>) -> usize {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = shard.open(&directory.path().join("pool"), &options()).unwrap();
    let pool = Frames::new(AlignedBuf::new(64 * PAGE, PAGE), PAGE).unwrap();
    let registered = shard.register(&pool);
    assert_eq!(shard.register(&pool), registered, "a second time changes nothing");
    for round in 0..2 {
        for at in 0..32_u8 {
            let mut frame = pool.frame(at.into()).unwrap();
            frame.fill(at + round);
            let offset = u64::from(at) * PAGE as u64;
            let (written, _) = block_on(shard, file.write_all_at(offset, frame)).unwrap();
            written.unwrap();
        }
        // Four frames in a row are one buffer.
        for at in (0..32_u8).step_by(4) {
            let run = pool.run(32 + usize::from(at), 4).unwrap();
            let offset = u64::from(at) * PAGE as u64;
            let (read, run) = block_on(shard, file.read_exact_at(offset, run)).unwrap();
            read.unwrap();
            for (page, number) in run.chunks(PAGE).zip(at..) {
                assert!(page.iter().all(|&byte| byte == number + round));
            }
        }
        // The second round goes unregistered, and nobody can tell.
        shard.unregister(&pool).unwrap();
    }
    assert_eq!(pool.in_use(), 0);
    registered
}

#[test]
fn pool_of_the_caller_is_registered_and_works_without() {
    let threads = Shard::with_ring(ThreadRing::new(2, 16).unwrap(), &Config::new()).unwrap();
    assert_eq!(pool_script(&threads), 0);
    let Some(shard) = kernel_shard() else { return };
    let registered = pool_script(&shard);
    println!("{registered} bytes were registered: {:?}", shard.features());
    assert!(registered == 64 * PAGE || !shard.features().degraded.is_empty());
    // Again and again: the table does not run out.
    for _ in 0..2000 {
        let pool = Frames::new(AlignedBuf::new(PAGE, PAGE), PAGE).unwrap();
        assert_eq!(shard.register(&pool), if registered > 0 { PAGE } else { 0 });
        shard.unregister(&pool).unwrap();
    }
}

#[test]
fn f08_memory_with_ops_in_flight_is_not_unregistered() {
    let Some(shard) = kernel_shard() else { return };
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = shard.open(&directory.path().join("busy"), &options()).unwrap();
    let pool = Frames::new(AlignedBuf::new(2 * PAGE, PAGE), PAGE).unwrap();
    if shard.register(&pool) == 0 {
        return;
    }
    let mut write = pin!(file.write_all_at(0, pool.frame(0).unwrap()));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(write.as_mut().poll(&mut cx).is_pending());
    let refused = shard.unregister(&pool).unwrap_err();
    assert!(matches!(refused, EngineError::RegionInUse { ops: 1 }), "{refused}");
    while shard.in_flight() > 0 {
        shard.turn(Wait::at_least(1)).unwrap();
    }
    shard.unregister(&pool).unwrap();
    let (written, _) = block_on(&shard, write).unwrap();
    written.unwrap();
}

#[test]
fn arena_of_one_shard_is_fixed_for_another_on_its_own_thread() {
    let Some(first) = kernel_shard() else { return };
    let arena = first.arena().clone();
    let shared = share(&arena).unwrap();
    let path = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let target = path.path().join("shared");
    let other = std::thread::spawn(move || {
        let second = kernel_shard().unwrap();
        let registered = second.register(&arena);
        println!("{:?}", second.features());
        let file = second.open(&target, &options()).unwrap();
        let mut page = arena.alloc(PAGE).unwrap();
        page.fill(0x5a);
        let (written, page) = block_on(&second, file.write_all_at(0, page)).unwrap();
        written.unwrap();
        // Its own arena is where it was.
        let own = second.arena().alloc(PAGE).unwrap();
        let (read, own) = block_on(&second, file.read_exact_at(0, own)).unwrap();
        read.unwrap();
        assert_eq!(own[..], page[..]);
        registered
    });
    assert_eq!(other.join().unwrap(), shared);
}
