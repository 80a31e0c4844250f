//! Everything at once, for as long as it is told, with every byte verified: reads, writes,
//! durable writes, chains, batches, dropped futures, opens and closes, on the threads of an
//! engine and from outside; and a sampler that looks for what grows or hangs.
//!
//! Data flow: workers, each with blocks of its own → counters and the start of the op under way
//! → every few seconds a sample of memory, descriptors, threads and the oldest op → verdict.
//! `scripts/soak` sets `MFIO_SOAK_SECONDS` (2 if it does not) and `MFIO_SOAK_DIR`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::{Context, Poll};
use std::time::Duration;

use mfio_core::{AlignedBuf, block_on};
use mfio_engine::ring::Ring;
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::{DirectMode, Durability, Engine, File, OpenOptions, RemoteFile, Shard, Shards};

mod stamped;

use stamped::{BLOCK, sequence_of, stamp};

const SHARDS: usize = 2;
/// Blocks of each worker's own.
const OWN: u64 = 512;
const WORKERS: usize = 12;
/// An op that takes longer is stuck.
const OP_NS_MAX: u64 = 5_000_000_000;
/// Growth of memory after the warm-up that a run of any length may show, in bytes, and per hour.
const GROWTH_MAX: f64 = 4.0 * 1_048_576.0;
const GROWTH_PER_HOUR_MAX: f64 = 1_048_576.0;

/// What one worker is doing, for the sampler.
#[derive(Debug, Default)]
struct Progress {
    /// When its op was started; 0 for none.
    since_ns: AtomicU64,
    bytes: AtomicU64,
    ops: AtomicU64,
}

struct Soak {
    stop: AtomicBool,
    workers: Vec<Progress>,
}

impl Soak {
    fn new(workers: usize) -> Arc<Self> {
        let workers = (0..workers).map(|_| Progress::default()).collect();
        Arc::new(Self { stop: AtomicBool::new(false), workers })
    }

    /// Runs one op of worker `number`, which is `now_ns` old then.
    async fn op<T>(
        &self,
        number: usize,
        now_ns: u64,
        bytes: usize,
        op: impl Future<Output = T>,
    ) -> T {
        let progress = &self.workers[number];
        progress.since_ns.store(now_ns, Relaxed);
        let done = op.await;
        progress.since_ns.store(0, Relaxed);
        progress.bytes.fetch_add(bytes as u64, Relaxed);
        progress.ops.fetch_add(1, Relaxed);
        done
    }

    fn total(&self, of: impl Fn(&Progress) -> &AtomicU64) -> u64 {
        self.workers.iter().map(|progress| of(progress).load(Relaxed)).sum()
    }
}

fn next(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

fn options() -> OpenOptions {
    OpenOptions::new().write(true).create(true).direct(DirectMode::PreferDirect)
}

/// Blocks that one worker alone writes, and what is in each.
struct Own {
    number: usize,
    base: u64,
    contents: Vec<u64>,
    sequence: u64,
    seed: u64,
}

impl Own {
    fn new(number: usize, place: u64) -> Self {
        let contents = vec![0; usize::try_from(OWN).unwrap()];
        let base = place * OWN * BLOCK as u64;
        Self { number, base, contents, sequence: 0, seed: number as u64 + 1 }
    }

    /// A range of 1 to 8 blocks: offset, first block, bytes.
    fn range(&mut self) -> (u64, usize, usize) {
        let count = 1 + next(&mut self.seed, 8);
        let first = next(&mut self.seed, OWN - count + 1);
        let (count, index) = (usize::try_from(count).unwrap(), usize::try_from(first).unwrap());
        (self.base + first * BLOCK as u64, index, count * BLOCK)
    }

    fn fill(&mut self, bytes: &mut [u8], at: u64, first: usize) {
        self.sequence += 1;
        stamp(bytes, at, self.sequence);
        self.contents[first..first + bytes.len() / BLOCK].fill(self.sequence);
    }

    fn verify(&self, bytes: &[u8], at: u64, first: usize) {
        let places = (at..).step_by(BLOCK).zip(&self.contents[first..]);
        for (block, (at, expected)) in bytes.chunks_exact(BLOCK).zip(places) {
            if *expected != 0 {
                assert_eq!(sequence_of(block, at), Ok(*expected));
            }
        }
    }
}

/// Lets go of a future after one poll.
async fn poll_once<F: Future>(future: F) {
    let mut future = pin!(future);
    let mut polled = false;
    std::future::poll_fn(|cx: &mut Context<'_>| {
        if !std::mem::replace(&mut polled, true) && future.as_mut().poll(cx).is_pending() {
            // Others run, and it may be in flight by then.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

async fn batch_of(shard: &Shard, file: &File, own: &mut Own) {
    let mut batch = shard.batch::<16, AlignedBuf>();
    let first = usize::try_from(next(&mut own.seed, OWN - 16)).unwrap();
    let mut places = [0; 16];
    for block in first..first + 16 {
        let at = own.base + (block * BLOCK) as u64;
        let mut page = AlignedBuf::new(BLOCK, BLOCK);
        let pushed = if block % 2 == 0 {
            own.fill(&mut page, at, block);
            batch.push_write(file, at, page)
        } else {
            batch.push_read(file, at, page)
        };
        places[pushed.unwrap()] = block;
    }
    batch.run().await;
    while let Some(done) = batch.reap() {
        done.result.unwrap();
        let block = places[done.index];
        own.verify(&done.buffer, own.base + (block * BLOCK) as u64, block);
    }
}

async fn step(shard: &Shard, file: &File, path: &Path, own: &mut Own) -> usize {
    let (at, first, len) = own.range();
    match next(&mut own.seed, 32) {
        0..10 => {
            let mut bytes = AlignedBuf::new(len, BLOCK);
            own.fill(&mut bytes, at, first);
            file.write_all_at(at, bytes).await.0.unwrap();
            len
        }
        10 | 11 => {
            let mut bytes = AlignedBuf::new(len, BLOCK);
            own.fill(&mut bytes, at, first);
            file.write_durable_at(at, bytes).await.0.unwrap();
            len
        }
        12 => {
            let Some(mut page) = shard.arena().alloc(BLOCK) else { return 0 };
            own.fill(&mut page, at, first);
            let chain = file.chain().write_at(at, page).sync(Durability::Data);
            chain.commit().await.0.unwrap();
            BLOCK
        }
        13..15 => {
            batch_of(shard, file, own).await;
            16 * BLOCK
        }
        15..19 => {
            poll_once(file.read_exact_at(at, AlignedBuf::new(len, BLOCK))).await;
            0
        }
        19 => {
            // Another handle that comes and goes, also while its op is in flight.
            let reading = OpenOptions::new().lock(false).sync_on_open(false);
            let other = shard.open(path, &reading.direct(DirectMode::PreferDirect)).unwrap();
            let (read, bytes) = other.read_exact_at(at, AlignedBuf::new(len, BLOCK)).await;
            read.unwrap();
            own.verify(&bytes, at, first);
            poll_once(async move { other.read_exact_at(at, bytes).await }).await;
            len
        }
        20..26 => {
            let Some(page) = shard.arena().alloc(BLOCK) else { return 0 };
            let (read, page) = file.read_exact_at(at, page).await;
            read.unwrap();
            own.verify(&page, at, first);
            BLOCK
        }
        _ => {
            let (read, bytes) = file.read_exact_at(at, AlignedBuf::new(len, BLOCK)).await;
            read.unwrap();
            own.verify(&bytes, at, first);
            len
        }
    }
}

/// All workers of one shard, until it is time.
async fn on_shard(shard: Shard, path: PathBuf, soak: Arc<Soak>, first_worker: usize) {
    let file = shard.open(&path, &options()).unwrap();
    let worker = |number: usize| {
        let (shard, file, path, soak) =
            (shard.clone(), file.clone(), path.clone(), Arc::clone(&soak));
        async move {
            let mut own = Own::new(first_worker + number, number as u64);
            while !soak.stop.load(Relaxed) {
                let number = own.number;
                let from_ns = shard.now_ns();
                let bytes = soak.op(number, from_ns, 0, step(&shard, &file, &path, &mut own)).await;
                soak.workers[number].bytes.fetch_add(bytes as u64, Relaxed);
            }
        }
    };
    let tasks: Vec<_> = (0..WORKERS).map(|number| shard.spawn(worker(number)).unwrap()).collect();
    for task in tasks {
        task.await.unwrap();
    }
    file.sync(Durability::Full).await.unwrap();
}

/// A thread that is no shard, with blocks of its own behind those of the shard's workers.
fn from_outside(file: &RemoteFile, soak: &Soak, number: usize, now_ns: impl Fn() -> u64) {
    let mut own = Own::new(number, WORKERS as u64);
    while !soak.stop.load(Relaxed) {
        let (at, first, len) = own.range();
        let mut bytes = AlignedBuf::new(len, BLOCK);
        own.fill(&mut bytes, at, first);
        let write = soak.op(number, now_ns(), len, file.write_all_at(at, bytes));
        let (written, bytes) = block_on(file, write).unwrap();
        written.unwrap();
        let read = soak.op(number, now_ns(), len, file.read_exact_at(at, bytes));
        let (read, bytes) = block_on(file, read).unwrap();
        read.unwrap();
        own.verify(&bytes, at, first);
    }
}

/// What this process uses.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at_ns: u64,
    rss_bytes: f64,
    descriptors: usize,
    threads: usize,
}

#[allow(clippy::cast_precision_loss, reason = "a regression over small numbers")]
fn sample(at_ns: u64) -> Sample {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let threads = usize::try_from(field("Threads:")).unwrap();
    Sample { at_ns, rss_bytes: field("VmRSS:") as f64 * 1024.0, descriptors, threads }
}

/// Bytes per second by least squares.
#[allow(clippy::cast_precision_loss, reason = "a regression over small numbers")]
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let seconds = |sample: &Sample| (sample.at_ns - samples[0].at_ns) as f64 / 1e9;
    let mean_s = samples.iter().map(seconds).sum::<f64>() / count;
    let mean_b = samples.iter().map(|sample| sample.rss_bytes).sum::<f64>() / count;
    let part = |sample: &Sample| {
        let s = seconds(sample) - mean_s;
        (s * (sample.rss_bytes - mean_b), s * s)
    };
    let (above, below) =
        samples.iter().map(part).fold((0.0, 0.0), |sum, (a, b)| (sum.0 + a, sum.1 + b));
    if below > 0.0 { above / below } else { 0.0 }
}

/// Looks at everything until `seconds` are over. Fails where an op hangs.
fn watch(soak: &Soak, seconds: u64, now_ns: impl Fn() -> u64) -> Vec<Sample> {
    let (_never, sleep) = channel::<()>();
    let (from_ns, period) =
        (now_ns(), Duration::from_millis((seconds * 1000 / 60).clamp(200, 5000)));
    let mut samples = Vec::new();
    while now_ns() - from_ns < seconds * 1_000_000_000 {
        assert_eq!(sleep.recv_timeout(period), Err(RecvTimeoutError::Timeout));
        let at_ns = now_ns();
        for (number, progress) in soak.workers.iter().enumerate() {
            let since_ns = progress.since_ns.load(Relaxed);
            let age_ns = if since_ns == 0 { 0 } else { at_ns.saturating_sub(since_ns) };
            assert!(age_ns < OP_NS_MAX, "an op of worker {number} is {age_ns} ns old");
        }
        samples.push(sample(at_ns));
        if samples.len() % 12 == 0 {
            println!("{:?}, {} ops", samples.last().unwrap(), soak.total(|of| &of.ops));
        }
    }
    samples
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn judge(samples: &[Sample], soak: &Soak, seconds: u64) {
    // The first third warms up: pools, page tables, stacks.
    let warm = &samples[samples.len() / 3..];
    let (first, last) = (warm[0], warm[warm.len() - 1]);
    let per_s = slope(warm);
    let growth = per_s * (last.at_ns - first.at_ns) as f64 / 1e9;
    let spread = |of: fn(&Sample) -> usize| {
        let all = warm.iter().map(of);
        (all.clone().min().unwrap(), all.max().unwrap())
    };
    let (descriptors, threads) = (spread(|s| s.descriptors), spread(|s| s.threads));
    let bytes = soak.total(|of| &of.bytes);
    println!(
        "soak: {seconds} s, {:.2} GiB moved and verified in {} ops; RSS {:.1} MiB, slope {:.1} \
         KiB/min; {descriptors:?} descriptors, {threads:?} threads",
        bytes as f64 / f64::from(1 << 30),
        soak.total(|of| &of.ops),
        last.rss_bytes / 1_048_576.0,
        per_s * 60.0 / 1024.0,
    );
    let hours = seconds as f64 / 3600.0;
    assert!(growth < GROWTH_MAX.max(GROWTH_PER_HOUR_MAX * hours), "memory grows: {growth} bytes");
    // Openers have one each for a moment, and as many again close after their last op.
    let opening = 2 * SHARDS * WORKERS;
    assert!(descriptors.1 - descriptors.0 <= opening, "descriptors: {descriptors:?}");
    let half = warm.len() / 2;
    let least = |part: &[Sample]| part.iter().map(|s| s.descriptors).min().unwrap();
    assert!(least(&warm[half..]) <= least(&warm[..half.max(1)]) + 8, "descriptors stay open");
    assert!(threads.1 <= 64 + 8 * SHARDS, "threads: {threads:?}");
    assert!(bytes > 0);
}

#[test]
fn mixed_load_leaks_nothing_hangs_nowhere_and_reads_what_it_wrote() {
    let seconds =
        std::env::var("MFIO_SOAK_SECONDS").map_or(2, |text| text.parse().expect("seconds"));
    let given = std::env::var_os("MFIO_SOAK_DIR").map(PathBuf::from);
    let directory = given.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    let directory = tempfile::tempdir_in(directory).unwrap();
    let engine = Engine::builder().shards(Shards::Count(SHARDS)).queue_depth(64).build().unwrap();
    let soak = Soak::new(SHARDS * WORKERS + 1);
    let path = |shard: usize| directory.path().join(format!("shard{shard}"));
    for shard in 0..SHARDS {
        let file = std::fs::File::create(path(shard)).unwrap();
        file.set_len((WORKERS as u64 + 1) * OWN * BLOCK as u64).unwrap();
    }
    let running: Vec<_> = (0..SHARDS)
        .map(|number| {
            let (path, soak) = (path(number), Arc::clone(&soak));
            let start = move |shard| on_shard(shard, path, soak, number * WORKERS);
            engine.spawn_on(number, start).unwrap()
        })
        .collect();
    // A file of its own, so that it needs no lock of a shard's.
    let remote = engine.remote();
    let outside = block_on(&remote, remote.open(directory.path().join("outside"), &options()));
    let outside = outside.unwrap().unwrap();
    let beside = std::thread::spawn({
        let soak = Arc::clone(&soak);
        let clock = || ThreadRing::new(1, 1).unwrap();
        move || {
            let clock = clock();
            from_outside(&outside, &soak, SHARDS * WORKERS, || clock.now_ns());
        }
    });
    let clock = ThreadRing::new(1, 1).unwrap();
    let samples = watch(&soak, seconds, || clock.now_ns());
    soak.stop.store(true, Relaxed);
    beside.join().unwrap();
    for shard in running {
        shard.join().unwrap();
    }
    judge(&samples, &soak, seconds);
    drop(remote);
    let report = engine.shutdown();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(mfio_engine::buffer::quarantined(), 0);
}
