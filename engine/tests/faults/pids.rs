//! F30: no further thread may be started, for anybody. The stage is a pids cgroup around this
//! process, `MFIO_FAULT_GROUP`, which it closes behind itself when the kernel has a worker.

use std::path::Path;

use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::ring::{AutoRing, RingKind};
use mfio_engine::{Config, DirectMode, Engine, Shard, Shards};

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
    drop(file);
    std::fs::remove_file(name).unwrap();
}

pub(crate) fn check() -> Result<(), Skip> {
    let shard = Shard::with_ring(ring(Backend::Auto), &Config::new()).unwrap();
    if shard.features().kind != RingKind::Kernel {
        return Err(Skip("no io_uring, so the kernel needs no workers".into()));
    }
    // Flushes always go to a worker, and the last one stays.
    everything_completes(&shard, &path().join("before"), DirectMode::Buffered);
    close(Path::new(&told("MFIO_FAULT_GROUP")));
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
