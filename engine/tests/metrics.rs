//! What a shard counts, as seen from another thread.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use mfio_core::{CompletionQueue, Packet, Read, block_on};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Ring, Wait};
use mfio_engine::{
    Config, Direction, Durability, LATENCY_CLASSES, OpenOptions, Shard, SyncMethod, SyncSource,
};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 64;

fn kernel_ring() -> Option<KernelRing> {
    KernelRing::new(&KernelConfig::new(64))
        .map_err(|error| println!("SKIP kernel ring: {error}; the thread ring runs the same"))
        .ok()
}

fn thread_ring() -> ThreadRing {
    ThreadRing::new(2, 64).unwrap()
}

/// A file of its own for each test and ring.
struct Scratch(PathBuf);

impl Scratch {
    fn new<R: Ring>(name: &str, shard: &Shard<R>) -> Self {
        let name = format!("metrics-{name}-{}", shard.features().kind);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, vec![1; BLOCK * usize::try_from(BLOCKS).unwrap()]).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// Reads every block at once, writes one durably, flushes: what is counted is known.
fn work<R: Ring>(shard: &Shard<R>, scratch: &Scratch) {
    // Chosen, so that nothing is measured first.
    let method = Some(SyncMethod::LinkedFlush);
    let options = OpenOptions::new().write(true).sync_method(method);
    let file = shard.open(&scratch.0, &options).unwrap();
    let mut reads = CompletionQueue::<Read, _>::new();
    for at in 0..BLOCKS {
        let packet = Packet::new(shard.arena().alloc(BLOCK).unwrap());
        reads.send(&file, at * BLOCK as u64, packet, at).unwrap();
    }
    while reads.in_flight() > 0 {
        // All in one turn, however long the machine takes for each.
        shard.turn(Wait::at_least(u32::try_from(reads.in_flight()).unwrap())).unwrap();
        while let Some((_tag, done)) = reads.pop() {
            assert!(done.is_ok());
        }
    }
    let page = shard.arena().alloc(BLOCK).unwrap();
    let (written, _page) = block_on(shard, file.write_durable_at(0, page)).unwrap();
    written.unwrap();
    block_on(shard, file.sync(Durability::Data)).unwrap().unwrap();
}

fn counters<R: Ring>(ring: R) {
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    work(&shard, &Scratch::new("counters", &shard));
    let metrics = shard.metrics();
    assert_eq!(metrics.read_bytes, BLOCKS * BLOCK as u64);
    assert_eq!(metrics.written_bytes, BLOCK as u64);
    assert_eq!(metrics.durable_acknowledged, 2);
    assert_eq!(metrics.submitted, metrics.ops, "nothing is left in the queue");
    assert!(metrics.flushes >= 2 && metrics.flushes_per_commit() >= 1.0);
    assert!(metrics.turns >= metrics.enters && metrics.enters > 0);
    assert_eq!(metrics.in_flight_max, BLOCKS, "the reads went down together");
    assert!(metrics.sq_ops_max >= 1 && metrics.sq_ops_max <= BLOCKS);
    assert!(metrics.ops_per_enter() > 1.0, "and in batches: {metrics:?}");
}

#[test]
fn counters_say_what_was_done() {
    if let Some(ring) = kernel_ring() {
        counters(ring);
    }
    counters(thread_ring());
}

/// Tells the watcher to stop, also where what it watches panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn watched<R: Ring>(ring: R) {
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let (scratch, reader) = (Scratch::new("watched", &shard), shard.metrics_reader());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let now = reader.metrics();
                assert!(now.submitted <= now.ops, "of one and the same turn");
                if seen.last() != Some(&now.ops) {
                    seen.push(now.ops);
                }
            }
            seen
        });
        let stops = Stop(&stop);
        (0..20).for_each(|_| work(&shard, &scratch));
        drop(stops);
        let seen = watching.join().unwrap();
        assert!(seen.is_sorted(), "{seen:?}");
    });
    assert_eq!(reader.metrics(), shard.metrics(), "the last turn was published");
    assert_eq!(reader.latency(Direction::Read), None, "not asked for");
    let last = shard.metrics();
    drop(shard);
    assert_eq!(reader.metrics().ops, last.ops, "the reader outlives the shard");
}

#[test]
fn reader_on_another_thread_sees_the_shard_work() {
    if let Some(ring) = kernel_ring() {
        watched(ring);
    }
    watched(thread_ring());
}

fn timed<R: Ring>(ring: R) {
    let config = Config { latency: true, ..Config::new() };
    let shard = Shard::with_ring(ring, &config).unwrap();
    work(&shard, &Scratch::new("timed", &shard));
    let (reader, metrics) = (shard.metrics_reader(), shard.metrics());
    let of = |direction| reader.latency(direction).unwrap();
    assert_eq!(of(Direction::Read).count(), BLOCKS);
    assert_eq!(of(Direction::Write).count(), 1);
    assert_eq!(of(Direction::Flush).count(), metrics.flushes);
    let reads = of(Direction::Read);
    assert!(reads.percentile_ns(500) > 0);
    assert!(reads.percentile_ns(500) <= reads.percentile_ns(999));
    assert!(reads.max_ns() < 60_000_000_000, "a minute: {reads:?}");
    let by_class = (0..LATENCY_CLASSES)
        .map(|class| reader.latency_of(class, Direction::Read).unwrap().count());
    assert_eq!(by_class.sum::<u64>(), BLOCKS);
}

#[test]
fn every_op_has_a_latency_where_they_are_asked_for() {
    if let Some(ring) = kernel_ring() {
        timed(ring);
    }
    timed(thread_ring());
}

fn calibrated<R: Ring>(ring: R) {
    let config = Config { latency: true, ..Config::new() };
    let shard = Shard::with_ring(ring, &config).unwrap();
    let scratch = Scratch::new("calibrated", &shard);
    let file = shard.open(&scratch.0, &OpenOptions::new().write(true)).unwrap();
    let page = shard.arena().alloc(BLOCK).unwrap();
    let (written, _page) = block_on(&shard, file.write_durable_at(0, page)).unwrap();
    written.unwrap();
    let report = file.sync_method();
    if report.source != SyncSource::Measured {
        return println!("SKIP: {:?}", report.unmeasured);
    }
    let metrics = shard.metrics();
    assert!(metrics.ops > 32, "the ring had more to do than one write");
    assert_eq!((metrics.written_bytes, metrics.read_bytes), (BLOCK as u64, 0));
    assert_eq!((metrics.durable_acknowledged, metrics.flushes), (1, 1));
    let of = |direction| shard.metrics_reader().latency(direction).unwrap().count();
    assert_eq!((of(Direction::Write), of(Direction::Flush), of(Direction::Read)), (1, 1, 0));
    assert_eq!(metrics.inline_ops, 0, "and nothing of it bypassed the ring");
}

#[test]
fn calibration_is_no_traffic_of_the_users() {
    if let Some(ring) = kernel_ring() {
        calibrated(ring);
    }
    calibrated(thread_ring());
}
