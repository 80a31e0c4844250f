//! The shard on real files: the same packets on the kernel ring and on the thread ring, compared
//! with a byte array.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mfio_core::{CompletionQueue, ErrorKind, Packet, Read, Write, block_on};
use mfio_engine::buffer::{ArenaConfig, SizeClass, quarantined};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Ring, Wait};
use mfio_engine::{Config, DirectMode, Durability, Durable, File, OpenOptions, Shard};

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

/// A seed for repeatable choices.
struct Seed(u64);

impl Seed {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

const FILE_BYTES: u64 = 300_000;

/// Runs one seeded workload and checks every result against a byte array; returns the file's
/// bytes at the end and the result of every packet.
fn workload<R: Ring>(ring: R, name: &str, direct: DirectMode) -> (Vec<u8>, Vec<u64>) {
    let path = path(name);
    std::fs::write(&path, vec![0; usize::try_from(FILE_BYTES).unwrap()]).unwrap();
    let config = Config { in_flight_max: 8, backlog_max: 4, ..Config::new() };
    let shard = Shard::with_ring(ring, &config).unwrap();
    let file = shard.open(&path, &writable(direct)).unwrap();
    let align = u64::from(file.geometry().offset_align);
    let (mut seed, mut model, mut results) = (Seed(42), vec![0; 300_000], Vec::new());
    for step in 0..400_u64 {
        let len = seed.below(200_000);
        if step % 3 == 0 {
            let (offset, len) = (seed.below(60_000) / align * align, len / align * align);
            let end = usize::try_from(offset + len).unwrap().min(model.len());
            let start = usize::try_from(offset).unwrap().min(end);
            let len =
                (end - start) / usize::try_from(align).unwrap() * usize::try_from(align).unwrap();
            let data = vec![u8::try_from(step % 251).unwrap() + 1; len];
            model[start..start + len].copy_from_slice(&data);
            let write = async {
                if step % 2 == 0 {
                    file.write_all_at(offset, data).await
                } else {
                    file.write_durable_at(offset, data).await
                }
            };
            let (result, _) = block_on(&shard, write).unwrap();
            result.unwrap();
            results.push(offset);
        } else {
            let offset = seed.below(FILE_BYTES + 10_000);
            let buffer = vec![0xee; usize::try_from(len).unwrap()];
            let (result, buffer) = block_on(&shard, file.read_exact_at(offset, buffer)).unwrap();
            let start = usize::try_from(offset).unwrap().min(model.len());
            let there = (model.len() - start).min(buffer.len());
            assert!(buffer[..there] == model[start..start + there], "{len} bytes at {offset}");
            match result {
                Ok(()) => assert_eq!(there, buffer.len()),
                Err(error) => {
                    assert_eq!(error.error.kind(), ErrorKind::UnexpectedEof);
                    assert_eq!(error.done_bytes, there as u64, "{error}");
                }
            }
            results.push(there as u64);
        }
    }
    block_on(&shard, file.sync(Durability::Data)).unwrap().unwrap();
    assert_eq!(shard.shutdown(), 0);
    drop((file, shard));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    assert!(bytes == model, "the file is what was written");
    (bytes, results)
}

#[test]
fn f12_f44_kernel_and_threads_agree_with_a_byte_array() {
    for direct in [DirectMode::Buffered, DirectMode::PreferDirect] {
        let threads =
            workload(ThreadRing::new(3, 8).unwrap(), &format!("agree-t-{direct:?}"), direct);
        let Some(ring) = kernel_ring(8) else { continue };
        let kernel = workload(ring, &format!("agree-k-{direct:?}"), direct);
        assert!(threads == kernel, "both rings give the same bytes and results");
    }
}

fn every_offset_around_the_end<R: Ring>(ring: R, direct: DirectMode, name: &str) {
    let path = path(name);
    let contents: Vec<u8> = (0..10_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    std::fs::write(&path, &contents).unwrap();
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let options = OpenOptions { direct, ..OpenOptions::default() };
    let file = shard.open(&path, &options).unwrap();
    // Every offset around the end, and around each boundary before and behind it at which a
    // sector or a page begins.
    let around = |at: u64| at.saturating_sub(9)..=at + 9;
    let edges = [0, 8192, 9472, 9728, 10_000, 10_240, 12_288].into_iter().flat_map(around);
    for offset in edges.chain([1 << 40]) {
        for len in [0, 1, 511, 512, 513, 1808, 4096, 16_384] {
            let (result, buffer) =
                block_on(&shard, file.read_exact_at(offset, vec![0; len])).unwrap();
            let start = usize::try_from(offset).unwrap().min(10_000);
            let there = (10_000 - start).min(len);
            assert_eq!(buffer[..there], contents[start..start + there]);
            let done = result.map_or_else(|error| error.done_bytes, |()| len as u64);
            assert_eq!(done, there as u64, "{len} bytes at {offset}");
        }
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn f12_reads_around_the_end_of_a_file_are_exact() {
    for direct in [DirectMode::Buffered, DirectMode::PreferDirect] {
        let threads = ThreadRing::new(1, 8).unwrap();
        every_offset_around_the_end(threads, direct, &format!("eof-threads-{direct:?}"));
        if let Some(kernel) = kernel_ring(8) {
            every_offset_around_the_end(kernel, direct, &format!("eof-kernel-{direct:?}"));
        }
    }
}

#[test]
fn f19_full_shard_refuses_and_takes_again() {
    let path = path("full");
    std::fs::write(&path, vec![7; 65_536]).unwrap();
    let config = Config { in_flight_max: 1, backlog_max: 2, ..Config::new() };
    let shard = Shard::with_ring(ThreadRing::new(1, 2).unwrap(), &config).unwrap();
    let file = shard.open(&path, &OpenOptions::default()).unwrap();
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    let mut refused = 0;
    for tag in 0..64 {
        let mut packet = Packet::new(vec![0; 1024]);
        while let Err(unsent) = queue.send(&file, tag * 1024, packet, tag) {
            refused += 1;
            packet = unsent.packet;
            shard.turn(Wait::at_least(1)).unwrap();
        }
    }
    assert!(refused > 0, "three fit, sixty-four were sent");
    let mut seen = 0;
    while seen < 64 {
        match queue.pop() {
            Some((_, done)) => {
                assert_eq!(done.bytes(), [7; 1024]);
                seen += 1;
            }
            None => assert!(shard.turn(Wait::at_least(1)).is_ok()),
        }
    }
    assert!(shard.is_idle());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn awaiting_more_packets_than_fit_waits_for_room() {
    let path = path("room");
    let config = Config { in_flight_max: 2, backlog_max: 1, ..Config::new() };
    let shard = Shard::with_ring(ThreadRing::new(2, 2).unwrap(), &config).unwrap();
    let file = shard.open(&path, &writable(DirectMode::Buffered)).unwrap();
    let mut writes: Vec<_> = (0..16_u8)
        .map(|at| {
            let file = file.clone();
            Box::pin(
                async move { file.write_durable_at(u64::from(at) * 100, vec![at; 100]).await.0 },
            )
        })
        .collect();
    let all = std::future::poll_fn(|cx| {
        writes.retain_mut(|write| match write.as_mut().poll(cx) {
            std::task::Poll::Pending => true,
            std::task::Poll::Ready(result) => {
                result.unwrap();
                false
            }
        });
        if writes.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    block_on(&shard, all).unwrap();
    let expected: Vec<u8> = (0..16).flat_map(|at| [at; 100]).collect();
    assert_eq!(std::fs::read(&path).unwrap(), expected);
    std::fs::remove_file(path).unwrap();
}

fn send_reads<R: Ring>(
    file: &File<R>,
    queue: &mut CompletionQueue<Read, mfio_engine::buffer::ArenaBuf>,
    count: u64,
    bytes: usize,
) {
    for tag in 0..count {
        let buffer = file.shard().arena().alloc(bytes).expect("one buffer for each read");
        queue.send(file, tag * bytes as u64, Packet::new(buffer), tag).unwrap();
    }
    file.shard().turn(Wait::NONE).unwrap();
}

/// The measured fact behind this: dropping the ring itself returns at once, and the kernel
/// writes into all of the buffers afterwards.
#[test]
#[allow(clippy::disallowed_methods, reason = "waits for what must not happen")]
fn f02_shard_dropped_with_reads_in_flight_leaves_no_late_write() {
    const MIB: usize = 1 << 20;
    const READS: u32 = 128;
    let Some(ring) = kernel_ring(READS) else { return };
    let path = path("dropped-shard");
    std::fs::write(&path, vec![3; READS as usize * MIB]).unwrap();
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    let classes = vec![SizeClass { bytes: 1 << 20, count: READS }];
    let arena = ArenaConfig { poison_released: true, ..ArenaConfig::new(classes) };
    let shard = Shard::with_ring(ring, &Config { arena, ..Config::new() }).unwrap();
    let options = OpenOptions { direct: DirectMode::PreferDirect, ..OpenOptions::default() };
    let file = shard.open(&path, &options).unwrap();
    let arena = shard.arena().clone();
    let mut queue = CompletionQueue::new();
    send_reads(&file, &mut queue, READS.into(), MIB);
    let in_flight = shard.in_flight();
    // Cold and direct, so that the reads are truly under way.
    let direct = file.geometry().direct && !file.geometry().file_system.is_tmpfs();
    assert!(in_flight * 2 > READS || !direct, "{in_flight} in flight");
    let quarantined_before = quarantined();
    drop((queue, file, shard));
    assert_eq!(quarantined(), quarantined_before, "everything was drained");
    // Long enough for a disk to write what a missing drain would have left behind.
    std::thread::sleep(Duration::from_millis(200));
    let released = arena.verify_released();
    println!("{in_flight} reads in flight when the shard was dropped");
    assert_eq!((released.ranges, released.changed_at_bytes), (READS.into(), vec![]));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn wake_from_another_thread_ends_a_blocking_wait() {
    struct Once(std::sync::Mutex<Option<std::task::Waker>>, std::sync::atomic::AtomicBool);
    let shard = Shard::with_ring(ThreadRing::new(1, 4).unwrap(), &Config::new()).unwrap();
    let path = path("wake");
    let file = shard.open(&path, &writable(DirectMode::Buffered)).unwrap();
    let once = Arc::new(Once(std::sync::Mutex::new(None), false.into()));
    let waker_of = Arc::clone(&once);
    let thread = std::thread::spawn(move || {
        loop {
            if let Some(waker) = waker_of.0.lock().unwrap().take() {
                waker_of.1.store(true, std::sync::atomic::Ordering::Release);
                return waker.wake();
            }
            std::thread::yield_now();
        }
    });
    let woken = std::future::poll_fn(|cx| {
        if once.1.load(std::sync::atomic::Ordering::Acquire) {
            return std::task::Poll::Ready(());
        }
        *once.0.lock().unwrap() = Some(cx.waker().clone());
        std::task::Poll::Pending
    });
    block_on(&shard, woken).unwrap();
    thread.join().unwrap();
    let (result, _) = block_on(&file, file.write_all_at(0, vec![1; 10])).unwrap();
    result.unwrap();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn writes_to_a_file_opened_for_reading_fail_with_the_place_and_the_reason() {
    let path = path("read-only");
    std::fs::write(&path, vec![0; 4096]).unwrap();
    let shard = Shard::with_ring(ThreadRing::new(1, 4).unwrap(), &Config::new()).unwrap();
    let file = shard.open(&path, &OpenOptions::default()).unwrap();
    let (result, buffer) = block_on(&shard, file.write_all_at(512, vec![9; 100])).unwrap();
    let message = result.unwrap_err().to_string();
    assert!(message.contains("write of ") && message.contains("read-only"), "{message}");
    assert!(message.contains("at 512 for 100 bytes") && message.contains("EBADF"), "{message}");
    assert_eq!(buffer, vec![9; 100], "the buffer comes back after a failure");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn shard_closed_with_work_queued_fails_it_and_frees_everything() {
    let path = path("closed");
    let config = Config { in_flight_max: 1, backlog_max: 8, ..Config::new() };
    let shard = Shard::with_ring(ThreadRing::new(1, 2).unwrap(), &config).unwrap();
    let file = shard.open(&path, &writable(DirectMode::Buffered)).unwrap();
    let mut queue = CompletionQueue::<Write, Vec<u8>>::new();
    for tag in 0..8 {
        queue.send(&file, Durable(tag * 8), Packet::new(vec![1; 8]), tag).unwrap();
    }
    assert_eq!(shard.shutdown(), 0);
    let mut closed = 0;
    while let Some((_, done)) = queue.pop() {
        closed += u32::from(done.error().is_some_and(|error| error.kind() == ErrorKind::Closed));
    }
    assert!(closed >= 6, "{closed} of 8 had not started");
    assert_eq!(queue.in_flight(), 0, "every packet has its result");
    queue.send(&file, Durable(0), Packet::new(vec![1; 8]), 0).unwrap();
    assert!(queue.pop().is_some_and(|(_, done)| !done.is_ok()));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn blocking_stream_over_a_file_follows_its_growing_end() {
    use std::io::{Read as _, Seek, SeekFrom, Write as _};

    let path = path("stream");
    std::fs::write(&path, b"head").unwrap();
    let shard = Shard::with_ring(ThreadRing::new(1, 8).unwrap(), &Config::new()).unwrap();
    let file = shard.open(&path, &writable(DirectMode::Buffered)).unwrap();
    let mut stream = mfio_core::stream::Seekable::new(file);
    assert_eq!(stream.seek(SeekFrom::End(0)).unwrap(), 4);
    stream.write_all(b" and tail").unwrap();
    stream.flush().unwrap();
    assert_eq!(stream.seek(SeekFrom::End(-4)).unwrap(), 9, "the end is where it is now");
    let mut tail = String::new();
    stream.read_to_string(&mut tail).unwrap();
    assert_eq!(tail, "tail");
    std::fs::remove_file(&path).unwrap();
}
