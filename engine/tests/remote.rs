//! Files of a shard from other threads: the rules that every target must pass, back-pressure,
//! lost wake-ups, and packets whose callers leave.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use mfio_core::conformance::{Shape, check_shaped};
use mfio_core::layer::stripe::Stripe;
use mfio_core::{
    AlignedBuf, BlockingRead, BlockingWrite, ErrorKind, IoBackend, IoWrite, Packet, PacketIo,
    PacketIoExt, Read, Write, block_on,
};
use mfio_engine::ring::AutoRing;
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::{
    Class, Config, DirectMode, Durability, Durable, Engine, EngineError, OpenOptions, Remote,
    RemoteFile, Shard, Shards, SyncMethod,
};

const BACKENDS: [Backend; 2] = [Backend::Auto, Backend::Threads];

fn writing() -> OpenOptions {
    OpenOptions::new().write(true).lock(false)
}

/// A file of its own with `contents`; unlinked when it has been opened.
fn fresh(remote: &Remote, contents: &[u8]) -> RemoteFile {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("remote-{}-{number}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, contents).unwrap();
    let file = block_on(remote, remote.open(&path, &writing())).unwrap().unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

/// Small limits, so that the rules meet them.
fn small(backend: Backend) -> Engine {
    let config = Config { in_flight_max: 8, backlog_max: 12, mailbox_max: 10, ..Config::new() };
    let mut ring = AutoConfig::new(8);
    ring.workers = 2;
    let builder = Engine::builder().shards(Shards::Count(2)).config(config).ring(ring);
    builder.backend(backend).build().unwrap()
}

const SHAPE: Shape = Shape { len: 21_000, read_align: 1, write_align: 1, grows: true };

#[test]
fn remote_files_conform_on_either_backend() {
    for backend in BACKENDS {
        let engine = small(backend);
        let remote = engine.remote();
        check_shaped(|contents: Vec<u8>| fresh(&remote, &contents), SHAPE);
        let report = engine.shutdown();
        assert!(report.is_clean(), "{report:?}");
    }
}

#[test]
fn stripe_over_files_of_two_shards_conforms() {
    let engine = small(Backend::Auto);
    let remote = engine.remote();
    let make = |contents: Vec<u8>| {
        let files = (0..4).map(|_| fresh(&remote, &[0; 3000])).collect();
        let stripe = Stripe::new(files, 500, 3000);
        let (result, _) = block_on(&stripe, stripe.write_exact(0, contents)).unwrap();
        result.unwrap();
        stripe
    };
    let shape = Shape { len: 12_000, grows: false, ..SHAPE };
    check_shaped(make, shape);
}

#[test]
fn blocking_twins_work_from_any_thread() {
    for backend in BACKENDS {
        let engine = small(backend);
        let file = fresh(&engine.remote(), &[0; 64 << 10]);
        let threads: Vec<_> = (0..4_u8)
            .map(|thread| {
                let file = file.clone();
                std::thread::spawn(move || {
                    for round in 0..200_u64 {
                        let at = (u64::from(thread) << 14) + round % 4 * 4096;
                        let byte = thread + 1;
                        file.blocking_write_exact(at, &[byte; 4096]).unwrap();
                        let mut back = [0; 4096];
                        file.blocking_read_exact(at, &mut back).unwrap();
                        assert!(back.iter().all(|&found| found == byte));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        block_on(&file, file.sync(Durability::Data)).unwrap().unwrap();
        assert!(engine.shutdown().is_clean());
    }
}

/// A file of a shard that nobody drives, with room for `mailbox_max` messages.
fn undriven(mailbox_max: u32) -> (Shard, RemoteFile) {
    let ring = AutoRing::new(Backend::Threads, &AutoConfig::new(4)).unwrap();
    let shard = Shard::with_ring(ring, &Config { mailbox_max, ..Config::new() }).unwrap();
    let remote = shard.remote();
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), [9; 8192]).unwrap();
    let open = remote.open(path.path(), &writing());
    let file = shard.block_on(open).unwrap().unwrap();
    (shard, file)
}

fn read_packet() -> Packet<Read, Vec<u8>> {
    Packet::new(vec![0; 512])
}

#[test]
fn f19_full_mailbox_refuses_and_wakes_when_there_is_room() {
    let (shard, file) = undriven(2);
    let mut cx = Context::from_waker(Waker::noop());
    let mut first = file.io(0, read_packet());
    let mut second = file.io(512, read_packet());
    assert!(Pin::new(&mut first).poll(&mut cx).is_pending());
    assert!(Pin::new(&mut second).poll(&mut cx).is_pending());
    assert!(!PacketIo::<Read, u64>::reserve(&file, 1), "the mailbox is full");
    let third = file.clone();
    let waiting = std::thread::spawn(move || {
        block_on(&third, third.read_exact_at(1024, vec![0; 512])).unwrap()
    });
    let done = shard.block_on(async { (first.await, second.await) }).unwrap();
    assert!(done.0.is_ok() && done.1.is_ok());
    // The third was woken by the room, and needs the shard to be driven.
    while !waiting.is_finished() {
        let drive = shard.get_backend().unwrap().unwrap();
        drive.poll_drive(&mut Context::from_waker(Waker::noop()));
    }
    waiting.join().unwrap().0.unwrap();
}

#[test]
fn messages_of_a_shard_that_is_gone_fail_as_closed() {
    let (shard, file) = undriven(16);
    let mut cx = Context::from_waker(Waker::noop());
    let mut read = file.io(0, read_packet());
    assert!(Pin::new(&mut read).poll(&mut cx).is_pending());
    let mut sync = Box::pin(file.sync(Durability::Full));
    assert!(sync.as_mut().poll(&mut cx).is_pending());
    // Without a shutdown: the last handle goes.
    drop(shard);
    let error = futures_now(read).error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(futures_now(sync).unwrap_err().error.kind(), ErrorKind::Closed);
}

/// The output of a future that is ready.
fn futures_now<F: Future>(future: F) -> F::Output {
    let mut future = Box::pin(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("not ready"),
    }
}

#[test]
fn blocking_on_the_thread_that_owns_the_shard_is_refused_although_it_is_not_driven() {
    let (_shard, file) = undriven(4);
    assert!(block_on(&file, file.read_exact_at(0, vec![0; 8])).is_err());
    let elsewhere = file.clone();
    let allowed =
        std::thread::spawn(move || elsewhere.get_backend().map(|handle| handle.is_none()));
    assert_eq!(allowed.join().unwrap(), Ok(true));
}

#[test]
fn f01_dropped_futures_of_other_threads_lose_nothing() {
    for backend in BACKENDS {
        let engine = small(backend);
        let file = fresh(&engine.remote(), &[7; 64 << 10]);
        for round in 0..2_000_u64 {
            let mut cx = Context::from_waker(Waker::noop());
            let mut read = file.io(round % 8 * 4096, read_packet());
            // In the mailbox, in flight, or refused: whichever it is by now.
            let _maybe = Pin::new(&mut read).poll(&mut cx);
            drop(read);
        }
        let (read, bytes) = block_on(&file, file.read_exact_at(0, vec![0; 4096])).unwrap();
        read.unwrap();
        assert!(bytes.iter().all(|&byte| byte == 7));
        assert!(engine.shutdown().is_clean());
    }
}

#[test]
fn durable_writes_and_errors_read_as_those_of_a_local_file() {
    let engine = small(Backend::Auto);
    let file = fresh(&engine.remote(), &[0; 4096]);
    let (written, bytes) = block_on(&file, file.write_durable_at(0, vec![5; 1024])).unwrap();
    written.unwrap();
    let packet = Packet::<mfio_core::Write, _>::new(bytes);
    assert!(block_on(&file, file.io(Durable(1024), packet)).unwrap().is_ok());
    let (read, _) = block_on(&file, file.read_exact_at(4000, vec![0; 200])).unwrap();
    let error = read.unwrap_err();
    assert_eq!(
        (error.op, error.done_bytes, error.error.kind()),
        ("read", 96, ErrorKind::UnexpectedEof)
    );
    assert!(error.to_string().contains("at 4000 for 200 bytes, 96 bytes done"), "{error}");
}

#[test]
fn task_of_one_shard_awaits_a_file_of_another() {
    for backend in BACKENDS {
        let engine = small(backend);
        let remote = engine.remote();
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), [4; 8192]).unwrap();
        let path = path.path().to_owned();
        let read = engine.spawn_on(0, move |_| async move {
            let file = remote.open_on(1, &path, &writing()).await.unwrap();
            let mut sum = 0_u64;
            for round in 0..500 {
                let (read, bytes) = file.read_exact_at(round % 2 * 4096, vec![0; 64]).await;
                read.unwrap();
                sum += u64::from(bytes[0]);
            }
            sum
        });
        assert_eq!(read.unwrap().join().unwrap(), 2000);
        assert!(engine.shutdown().is_clean());
    }
}

/// One packet at a time from several threads to a shard that sleeps in between: whoever loses
/// a wake-up stops for ever.
#[test]
fn f28_no_wake_up_is_lost_between_threads_and_a_shard_that_sleeps() {
    for backend in BACKENDS {
        let engine = small(backend);
        let file = fresh(&engine.remote(), &[1; 4096]);
        let total = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (file, total) = (file.clone(), Arc::clone(&total));
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 64];
                    for _ in 0..4_000 {
                        let (read, back) = block_on(&file, file.read_exact_at(0, buffer)).unwrap();
                        read.unwrap();
                        buffer = back;
                        total.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(total.load(Ordering::Relaxed), 12_000);
        assert!(engine.shutdown().is_clean());
    }
}

#[test]
fn sync_method_of_the_options_is_honoured_or_refused_also_from_afar() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("data");
    std::fs::write(&path, vec![0; 64 << 10]).unwrap();
    for backend in BACKENDS {
        let engine = small(backend);
        let remote = engine.remote();
        let options = writing().direct(DirectMode::PreferDirect);
        let probe = block_on(&remote, remote.open(&path, &options)).unwrap().unwrap();
        let geometry = probe.geometry();
        let dsync = options.sync_method(Some(SyncMethod::Dsync));
        let opened = block_on(&remote, remote.open_on(0, &path, &dsync)).unwrap();
        if !geometry.direct {
            assert!(matches!(opened.unwrap_err(), EngineError::Open(_)));
            continue;
        }
        let file = opened.unwrap();
        assert_eq!(file.geometry(), geometry);
        let page = AlignedBuf::new(4096, 4096);
        let (written, _page) = block_on(&file, file.write_durable_at(8192, page)).unwrap();
        written.unwrap();
        let flushes = engine.run_on_each(|shard| async move { shard.metrics().flushes });
        assert_eq!(flushes.unwrap(), [0, 0], "the write flushed itself");
        drop((file, probe));
        assert!(engine.shutdown().is_clean());
    }
}

#[test]
fn f19_background_from_afar_leaves_room_to_others_and_a_flush_waits_for_all() {
    for backend in BACKENDS {
        let mut limits = Config::new();
        (limits.in_flight_max, limits.mailbox_max) = (4, 64);
        limits.classes.background_backlog_max = 2;
        limits.classes.background_in_flight_max = 1;
        let builder = Engine::builder().shards(Shards::Count(1)).config(limits).backend(backend);
        let engine = builder.build().unwrap();
        let remote = engine.remote();
        let file = fresh(&remote, &[0; 64 << 10]);
        let scan = file.with_class(Class::Background);
        assert_eq!((file.class(), scan.class()), (Class::Foreground, Class::Background));
        let mut writes: Vec<_> = (0..200_u64)
            .map(|at| scan.io(at % 16 * 4096, Packet::<Write, _>::new(vec![7_u8; 4096])))
            .collect();
        let mut cx = Context::from_waker(Waker::noop());
        // Some may be over already: those are not polled again.
        writes.retain_mut(|write| match Pin::new(write).poll(&mut cx) {
            Poll::Ready(done) => {
                assert!(done.is_ok());
                false
            }
            Poll::Pending => true,
        });
        assert!(!writes.is_empty());
        // One more of another class goes by itself.
        let (read, _bytes) = block_on(&file, file.read_exact_at(0, vec![0; 4096])).unwrap();
        read.unwrap();
        block_on(&file, file.sync(Durability::Data)).unwrap().unwrap();
        for write in writes {
            assert!(block_on(&scan, write).unwrap().is_ok());
        }
        let (read, bytes) = block_on(&file, file.read_exact_at(0, vec![0; 64 << 10])).unwrap();
        read.unwrap();
        assert!(bytes.iter().all(|&byte| byte == 7));
        drop((file, scan));
        assert!(engine.shutdown().is_clean());
    }
}
