//! How fast do two shards of one engine read, each on its own core? 4 KiB reads at random
//! places of a sparse file, past the page cache: the software limit of any file system.
//!
//! `cargo run --release -p mfio-engine --example two_shards -- [FOLDER [SECONDS [SHARDS]]]`
//!
//! Prints I/Os per second of all shards together, CPU time and system calls per I/O. Compare it
//! with as many independent loops without an engine: `mfio-bench --ioengine=raw_uring
//! --numjobs=2`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example that measures says what it measured"
)]

mod outcome;

use std::error::Error;
use std::future::poll_fn;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use mfio_core::{CompletionQueue, Packet, Read};
use mfio_engine::buffer::{ArenaBuf, ArenaConfig, SizeClass};
use mfio_engine::{DirectMode, Engine, EngineError, Metrics, OpenOptions, Shard, Shards};

const BLOCK: usize = 4096;
const FILE_BYTES: u64 = 1 << 30;
const DEPTH: u32 = 128;

/// A generator that costs next to nothing.
struct Random(u64);

impl Random {
    fn offset(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % (FILE_BYTES / BLOCK as u64) * BLOCK as u64
    }
}

/// Reads until it is told to stop. Returns how many I/Os, and the shard's counters of them.
async fn read(
    shard: Shard,
    path: PathBuf,
    stop: Arc<AtomicBool>,
) -> Result<(u64, Metrics), EngineError> {
    let direct = OpenOptions::new().lock(false).direct(DirectMode::PreferDirect);
    let file = shard.open(&path, &direct)?;
    let mut queue = CompletionQueue::<Read, ArenaBuf>::new();
    let mut random = Random(std::process::id().into());
    let mut idle: Vec<Packet<Read, ArenaBuf>> = Vec::new();
    for _ in 0..DEPTH {
        idle.push(Packet::new(shard.arena().alloc(BLOCK).ok_or(EngineError::Busy)?));
    }
    let mut done = 0;
    loop {
        while let Some(packet) = idle.pop() {
            if let Err(refused) = queue.send(&file, random.offset(), packet, 0) {
                idle.push(refused.packet);
                break;
            }
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // All that is there, at least one.
        poll_fn(|cx| {
            let before = done;
            loop {
                match queue.poll_pop(cx) {
                    std::task::Poll::Ready(Some((_, completed))) => {
                        assert!(completed.is_ok(), "{:?}", completed.error());
                        idle.push(completed.into_packet());
                        done += 1;
                    }
                    std::task::Poll::Pending if done == before => {
                        return std::task::Poll::Pending;
                    }
                    _ => return std::task::Poll::Ready(()),
                }
            }
        })
        .await;
    }
    Ok((done, shard.metrics()))
}

/// CPU time of this process in nanoseconds.
fn cpu_ns() -> u64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let of = |path: PathBuf| std::fs::read_to_string(path.join("schedstat")).ok();
    let times = tasks.flatten().filter_map(|task| of(task.path()));
    times.filter_map(|stat| stat.split(' ').next()?.parse::<u64>().ok()).sum()
}

fn main() -> ExitCode {
    outcome::told(try_main())
}

fn try_main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = args.next().map_or(Ok(1), |text| text.parse::<u64>())?;
    let shards = args.next().map_or(Ok(2), |text| text.parse::<usize>())?;
    let file = tempfile::NamedTempFile::new_in(folder)?;
    file.as_file().set_len(FILE_BYTES)?;

    let classes = vec![SizeClass { bytes: 4096, count: DEPTH }];
    let builder = Engine::builder().shards(Shards::Count(shards)).queue_depth(DEPTH);
    let engine = builder.arena(ArenaConfig::new(classes)).build()?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    let before_ns = cpu_ns();
    for shard in 0..engine.shards() {
        let (path, stop) = (file.path().to_owned(), Arc::clone(&stop));
        tasks.push(engine.spawn_on(shard, |shard| read(shard, path, stop))?);
    }
    let (_sender, never) = channel::<()>();
    let _timeout = never.recv_timeout(Duration::from_secs(seconds));
    let used_ns = cpu_ns() - before_ns;
    stop.store(true, Ordering::Relaxed);
    let (mut ios, mut enters) = (0, 0);
    for task in tasks {
        let (done, metrics) = task.join()??;
        ios += done;
        enters += metrics.enters;
    }
    println!(
        "{shards} shards: {} IOPS, {} ns of CPU and {:.4} system calls per I/O",
        ios / seconds,
        used_ns / ios.max(1),
        enters as f64 / ios as f64
    );
    if !engine.shutdown().is_clean() {
        return Err("something was left behind".into());
    }
    Ok(())
}
