//! F30: no further thread may be started, for anybody. The stage is a pids cgroup around this
//! process, `MFIO_FAULT_GROUP`, which it closes behind itself when it has rings: one that has
//! had a worker from the start, and on another thread one that has none.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, channel};

use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::ring::{AutoRing, RingKind};
use mfio_engine::{Config, DirectMode, Durability, Engine, Shard, Shards};

use crate::stage::{Skip, file_options, path, ring, told, verified_work};

/// No more than there are now.
fn close(group: &Path) {
    let current = std::fs::read_to_string(group.join("pids.current")).unwrap();
    println!("limit: {} threads", current.trim());
    std::fs::write(group.join("pids.max"), current).unwrap();
    let thread = std::thread::Builder::new().spawn(|| {});
    assert!(thread.is_err(), "the stage allows no further thread");
}

fn refused_by_name_where_threads_are_needed() {
    let text = Engine::builder().shards(Shards::Count(2)).build().unwrap_err().to_string();
    assert!(text.contains("raise the limit on processes"), "{text}");
    let text = AutoRing::new(Backend::Threads, &AutoConfig::new(8)).unwrap_err().to_string();
    assert!(text.contains("raise the limit on processes"), "{text}");
}

fn everything_completes(shard: &Shard, name: &Path, direct: DirectMode) {
    let file = shard.open(name, &file_options(direct)).unwrap();
    shard.block_on(verified_work(&file, 64)).unwrap();
    let metrics = shard.metrics();
    println!("{}: {} ops, {} retries", name.display(), metrics.ops, metrics.retries);
    assert!(!file.is_poisoned() && metrics.flush_failures == 0, "{metrics:?}");
    assert_eq!(metrics.in_place, 0, "the worker does them, one after the other");
    drop(file);
    std::fs::remove_file(name).unwrap();
}

static WAITS: AtomicBool = AtomicBool::new(false);

/// A ring that the kernel has started no worker for, when none can be started any more.
fn completes_without_a_worker(closed: &Receiver<()>) {
    let mut config = AutoConfig::new(64);
    config.kernel.first_worker = false;
    let ring = AutoRing::new(Backend::RequireRing, &config).unwrap();
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    WAITS.store(true, Relaxed);
    let _closed = closed.recv();
    let name = path().join("without");
    let file = shard.open(&name, &file_options(DirectMode::Buffered)).unwrap();
    shard.block_on(file.write_all_at(0, vec![1; 4096])).unwrap().0.unwrap();
    // The kernel takes its time over each refusal.
    shard.block_on(file.sync(Durability::Data)).unwrap().unwrap();
    let metrics = shard.metrics();
    println!("no worker: {} retries, {} in place", metrics.retries, metrics.in_place);
    assert!(metrics.in_place > 0 && metrics.flush_failures == 0, "{metrics:?}");
}

pub(crate) fn check() -> Result<(), Skip> {
    let shard = Shard::with_ring(ring(Backend::Auto), &Config::new()).unwrap();
    if shard.features().kind != RingKind::Kernel {
        return Err(Skip("no io_uring, so the kernel needs no workers".into()));
    }
    let (closed, told_closed) = channel::<()>();
    let without = std::thread::spawn(move || completes_without_a_worker(&told_closed));
    // It has its ring when it waits.
    while !WAITS.load(Relaxed) {
        std::thread::yield_now();
    }
    close(Path::new(&told("MFIO_FAULT_GROUP")));
    drop(closed);
    without.join().unwrap();
    everything_completes(&shard, &path().join("direct"), DirectMode::PreferDirect);
    everything_completes(&shard, &path().join("buffered"), DirectMode::Buffered);
    // In memory, every op goes to a worker.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        let name = memory.join(format!("mfio-faults-{}", std::process::id()));
        everything_completes(&shard, &name, DirectMode::Buffered);
    }
    assert_eq!(shard.shutdown(), 0);
    refused_by_name_where_threads_are_needed();
    Ok(())
}
