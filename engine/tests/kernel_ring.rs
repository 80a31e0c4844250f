//! What the engine believes of the kernel's io_uring, through the public trait alone.
//!
//! Not here: transfers, whose memory only a shard can name (unit tests of `ring::kernel`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};

use mfio_core::{CompletionQueue, Packet, PacketIoExt, Read, block_on};
use mfio_engine::buffer::{ArenaBuf, ArenaConfig, SizeClass};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Completion, FileRef, Op, OpKind, Ring, RingKind, RingWaker, Tag, Wait};
use mfio_engine::{Class, Config, Durability, EngineError, Shard};

/// `None`, with the reason printed, where io_uring is not to be had.
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
fn kernel_ring(config: &KernelConfig) -> Option<KernelRing> {
    match KernelRing::new(config) {
        Ok(ring) => Some(ring),
        Err(error) if error.is_unavailable() => {
            eprintln!("SKIP: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn temporary_file() -> File {
    tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn op(kind: OpKind, file: FileRef) -> Op {
    Op::on(kind, file)
}

fn tag(slot: u32) -> Tag {
    Tag { slot, generation: 1 }
}

#[test]
fn f33_features_name_what_is_in_use_and_explain_what_is_not() {
    let Some(ring) = kernel_ring(&KernelConfig::new(100)) else { return };
    let features = ring.features();
    assert_eq!(features.kind, RingKind::Kernel);
    for name in ["SUBMIT_ALL", "SINGLE_ISSUER", "DEFER_TASKRUN", "NO_SQARRAY"] {
        let explained = features.degraded.iter().any(|text| text.starts_with(name));
        assert!(features.in_use.contains(&name) != explained, "{name}: {features:?}");
    }
    let limits = ring.limits();
    assert_eq!(limits.sq_entries, 128);
    assert!(limits.cq_entries > limits.sq_entries);
    assert_eq!(limits.transfer_bytes_max, 0x7fff_f000);
}

#[test]
fn f27_completion_of_a_worker_appears_without_a_wait() {
    let Some(mut ring) = kernel_ring(&KernelConfig::new(4)) else { return };
    let file = temporary_file();
    let target = ring.register_file(file.as_raw_fd());
    ring.push(Op { force_async: true, ..op(OpKind::Fsync, target) }, tag(5));
    assert_eq!(ring.enter(Wait::NONE), Ok(1));
    let mut done = Vec::new();
    let give_up_ns = ring.now_ns() + 5_000_000_000;
    while done.is_empty() && ring.now_ns() < give_up_ns {
        ring.enter(Wait::NONE).unwrap();
        ring.reap(&mut done);
    }
    assert_eq!(done, [Completion { tag: tag(5), result: 0, more: false }]);
}

#[test]
fn f30_kernel_workers_stay_within_their_limit() {
    let mut config = KernelConfig::new(64);
    config.iowq_workers_max = 2;
    let Some(mut ring) = kernel_ring(&config) else { return };
    if !ring.features().in_use.contains(&"IOWQ_MAX_WORKERS") {
        return;
    }
    let file = temporary_file();
    let target = ring.register_file(file.as_raw_fd());
    for slot in 0..64 {
        ring.push(Op { force_async: true, ..op(OpKind::Fsync, target) }, tag(slot));
    }
    let mut done = Vec::new();
    let mut most = 0;
    let own = format!("iou-wrk-{}", own_thread_id());
    while done.len() < 64 {
        ring.enter(Wait::at_least(1)).unwrap();
        ring.reap(&mut done);
        most = most.max(threads_named(&own));
    }
    assert!(most <= 2, "{most} workers");
    assert!(done.iter().all(|done| done.result == 0));
}

#[test]
fn f30_ring_has_a_worker_before_anything_depends_on_one() {
    let workers = |first_worker| {
        let started = std::thread::spawn(move || {
            let mut config = KernelConfig::new(8);
            config.first_worker = first_worker;
            let mut ring = kernel_ring(&config)?;
            let told = ring.features().degraded.iter().any(|text| text.contains("worker:"));
            let mut done = Vec::new();
            ring.reap(&mut done);
            assert!(done.is_empty() && !told, "{done:?} {:?}", ring.features());
            Some(threads_named(&format!("iou-wrk-{}", own_thread_id())))
        });
        started.join().unwrap()
    };
    let (Some(one), Some(none)) = (workers(true), workers(false)) else { return };
    assert_eq!((one, none), (1, 0));
}

fn own_thread_id() -> String {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    link.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Threads of this process whose name starts with `prefix`, as far as 15 characters go.
fn threads_named(prefix: &str) -> usize {
    let prefix = &prefix[..prefix.len().min(15)];
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

/// Chains of nops and failing flushes: who runs, who is cancelled.
fn chains<R: Ring>(mut ring: R) -> Vec<(u32, i32)> {
    let nowhere = FileRef::Plain(-1);
    let linked = |kind| Op { link: true, ..op(kind, nowhere) };
    ring.push(linked(OpKind::Nop), tag(0));
    ring.push(linked(OpKind::Fsync), tag(1));
    ring.push(linked(OpKind::Nop), tag(2));
    ring.push(op(OpKind::Nop, nowhere), tag(3));
    ring.push(op(OpKind::Nop, nowhere), tag(4));
    // The last of a submit: its link leads nowhere (F15).
    ring.push(linked(OpKind::Fsync), tag(5));
    let mut done = Vec::new();
    while done.len() < 6 {
        ring.enter(Wait::at_least(1)).unwrap();
        ring.reap(&mut done);
    }
    ring.push(op(OpKind::Nop, nowhere), tag(6));
    ring.enter(Wait::at_least(1)).unwrap();
    ring.reap(&mut done);
    let mut results: Vec<_> = done.iter().map(|done| (done.tag.slot, done.result)).collect();
    results.sort_unstable();
    results
}

#[test]
fn f15_chains_break_alike_on_kernel_and_threads() {
    let (bad_file, cancelled) = (-9, -125);
    let expected =
        [(0, 0), (1, bad_file), (2, cancelled), (3, cancelled), (4, 0), (5, bad_file), (6, 0)];
    assert_eq!(chains(ThreadRing::new(2, 8).unwrap()), expected);
    let Some(ring) = kernel_ring(&KernelConfig::new(8)) else { return };
    assert_eq!(chains(ring), expected);
}

#[test]
fn storm_of_wakes_is_neither_lost_nor_reported_as_completions() {
    let Some(mut ring) = kernel_ring(&KernelConfig::new(4)) else { return };
    let (ask, asked) = std::sync::mpsc::channel();
    let waker = ring.waker();
    let other = std::thread::spawn(move || {
        for number in 0..20_000_u32 {
            ask.send(number).unwrap();
            waker.wake();
        }
    });
    let mut done = Vec::new();
    let mut next = 0;
    while next < 20_000 {
        // A lost wake would end in this deadline instead of in the message.
        let deadline_ns = ring.now_ns() + 10_000_000_000;
        ring.enter(Wait { min: 1, deadline_ns: Some(deadline_ns) }).unwrap();
        assert!(ring.now_ns() < deadline_ns, "a wake was lost after {next} messages");
        ring.reap(&mut done);
        while let Ok(number) = asked.try_recv() {
            assert_eq!(number, next);
            next += 1;
        }
    }
    other.join().unwrap();
    assert!(done.is_empty());
    assert!(ring.stats().wakes <= 20_000);
    assert_eq!(ring.stats().submitted, 0);
    assert_eq!(ring.dropped_completions(), 0);
}

#[test]
fn idle_ring_sleeps_without_using_the_processor() {
    let Some(mut ring) = kernel_ring(&KernelConfig::new(4)) else { return };
    let before = ring.stats().enters;
    let deadline_ns = Some(ring.now_ns() + 50_000_000);
    ring.enter(Wait { min: 1, deadline_ns }).unwrap();
    assert!(Some(ring.now_ns()) >= deadline_ns);
    assert_eq!(ring.stats().enters, before + 1);
}

/// A shard for eight ops at a time, and its target that is no file; `None` where a nop does not
/// tell its length (before Linux 6.10), or there is no ring.
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
fn nowhere() -> Option<mfio_engine::File<KernelRing>> {
    let mut config = Config::new();
    (config.in_flight_max, config.backlog_max) = (8, 64);
    let ring = kernel_ring(&KernelConfig::new(64))?;
    let file = Shard::with_ring(ring, &config).unwrap().nowhere().unwrap();
    let buffer = file.shard().arena().alloc(4096).unwrap();
    let (result, _) = block_on(file.shard(), file.read_exact_at(0, buffer)).unwrap();
    if result.is_err() {
        eprintln!("SKIP: nops with a result came with Linux 6.10");
        return None;
    }
    Some(file)
}

#[test]
fn packets_on_nothing_are_whole_and_move_nothing() {
    let Some(file) = nowhere() else { return };
    let mut buffer = file.shard().arena().alloc(4096).unwrap();
    buffer.fill(9);
    let before = file.shard().metrics();
    let (read, buffer) = block_on(file.shard(), file.read_exact_at(512, buffer)).unwrap();
    assert!(read.is_ok() && buffer.iter().all(|&byte| byte == 9));
    let (written, buffer) = block_on(file.shard(), file.write_all_at(0, buffer)).unwrap();
    assert!(written.is_ok() && buffer.len() == 4096);
    assert!(block_on(file.shard(), file.sync(Durability::Full)).unwrap().is_ok());
    let after = file.shard().metrics();
    assert_eq!(after.ops - before.ops, 3);
    assert_eq!(after.read_bytes - before.read_bytes, 4096);
}

/// What was seen when one was sent still holds for the next, or is looked at again: slots run
/// out, flushes and other classes come between.
#[test]
fn packets_sent_in_a_row_go_on_where_the_slots_run_out() {
    let Some(file) = nowhere() else { return };
    let (shard, background) = (file.shard(), file.with_class(Class::Background));
    let mut queue = CompletionQueue::<Read, ArenaBuf>::new();
    for round in 0..50_u64 {
        let mut flushes = Vec::new();
        for tag in 0..40_u64 {
            let packet = Packet::new(shard.arena().alloc(4096).unwrap());
            let way = if (tag * round) % 7 == 3 { &background } else { &file };
            queue.send(way, tag * 4096, packet, tag).unwrap();
            if (tag + round) % 9 == 4 {
                flushes.push(file.sync(Durability::Data));
            }
            if (tag + round) % 13 == 12 {
                shard.turn(Wait::NONE).unwrap();
            }
        }
        let mut tags = Vec::new();
        while tags.len() < 40 {
            shard.turn(Wait::at_least(1)).unwrap();
            while let Some((tag, done)) = queue.pop() {
                assert!(done.is_ok());
                tags.push(tag);
            }
        }
        tags.sort_unstable();
        assert_eq!(tags, (0..40).collect::<Vec<_>>());
        for flush in flushes {
            assert!(block_on(shard, flush).unwrap().is_ok());
        }
        assert!(shard.is_idle() && shard.in_flight() == 0);
    }
    assert_eq!(shard.arena().in_use(), 0);
}

/// Completions decide when memory is free. Those of ops that somebody else has pushed would end
/// the first ops of a shard, while the kernel still writes.
#[test]
fn f04_ring_with_ops_of_somebody_else_is_no_shards() {
    let Some(mut ring) = kernel_ring(&KernelConfig::new(8)) else { return };
    ring.push(op(OpKind::Nop, FileRef::Plain(-1)), Tag { slot: 0, generation: 0 });
    let classes = vec![SizeClass { bytes: 4096, count: 4 }];
    let arena = ArenaConfig { poison_released: true, ..ArenaConfig::new(classes) };
    let shard = match Shard::with_ring(ring, &Config { arena, ..Config::new() }) {
        Ok(shard) => shard,
        Err(EngineError::Config { limit: "ring", .. }) => return,
        Err(other) => panic!("{other}"),
    };
    // What it leads to: a read that waits for its pipe ends by the completion of the nop.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let geometry = mfio_engine::Geometry::of(&temporary_file()).unwrap();
    let pipe = shard.adopt("pipe", File::from(OwnedFd::from(reader)), geometry);
    let mut read = Box::pin(pipe.io(0, Packet::<Read, _>::new(shard.arena().alloc(64).unwrap())));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let over = (0..100).any(|_| {
        let over = read.as_mut().poll(&mut cx).is_ready();
        shard.turn(Wait::NONE).unwrap();
        over
    });
    drop(read);
    writer.write_all(&[1; 64]).unwrap();
    // The kernel does it when it is entered for something else.
    let other = shard.adopt("other", temporary_file(), geometry);
    block_on(&shard, other.sync(Durability::Data)).unwrap().unwrap();
    let released = shard.arena().verify_released();
    panic!("over before a byte was sent: {over}; written to behind its release: {released:?}");
}
