//! An idle engine costs no processor time. Alone in its process, whose time is measured.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::sync::mpsc::channel;
use std::time::Duration;

use mfio_engine::{Engine, OpenOptions, Shards};

/// CPU time of this process since it started, in clock ticks, of which there are 100 a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The same of all threads, in nanoseconds, as the scheduler counts it.
fn cpu_ns() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("schedstat")).ok())
        .map(|stat| stat.split_whitespace().next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Two open rings, an open file each, tasks that wait, and nothing to do: at most 10 ms of CPU
/// in 10 s, measured over 3 s.
#[test]
fn idle_engine_uses_no_processor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    std::fs::write(&path, [3; 8192]).unwrap();
    let engine = Engine::builder().shards(Shards::Count(2)).build().unwrap();
    let remote = engine.remote();
    for shard in 0..2 {
        let open = remote.open_on(shard, &path, &OpenOptions::new().lock(false));
        let file = mfio_core::block_on(&remote, open).unwrap().unwrap();
        mfio_core::block_on(&file, file.read_exact_at(0, vec![0; 512])).unwrap().0.unwrap();
        drop(engine.spawn_on(shard, |_| std::future::pending::<()>()).unwrap());
        // Kept open until the process ends.
        Box::leak(Box::new(file));
    }
    let (ticks, ns) = (cpu_ticks(), cpu_ns());
    let (_sender, never) = channel::<()>();
    let _timeout = never.recv_timeout(Duration::from_secs(3));
    let (ticks, ns) = (cpu_ticks() - ticks, cpu_ns() - ns);
    println!("idle for 3 s: {} µs of CPU time, {ticks} ticks of 10 ms", ns / 1000);
    assert!(ns <= 3_000_000, "an idle engine used {ns} ns in 3 s");
    assert!(ticks <= 1, "an idle engine used {ticks} ticks of 10 ms in 3 s");
    assert!(engine.shutdown().is_clean());
}
