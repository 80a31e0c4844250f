//! A warm log allocates nothing per append, for one waiter and for many.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

mod counting;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use mfio_core::block_on;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Ring, Wait};
use mfio_engine::wal::{SegmentDir, Wal, WalConfig};
use mfio_engine::{Config, Shard};

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks that append for ever, and a count of what they have appended.
struct Load {
    tasks: Vec<(Work, Arc<Flag>, Waker)>,
    appended: std::rc::Rc<Cell<u64>>,
}

impl Load {
    fn new<R: Ring + 'static>(wal: &Wal<R>, tasks: usize) -> Self {
        let appended = std::rc::Rc::new(Cell::new(0));
        let task = |_| {
            let (wal, appended) = (wal.clone(), appended.clone());
            let work = async move {
                loop {
                    wal.append(&[7; 256]).await.unwrap();
                    appended.set(appended.get() + 1);
                }
            };
            let flag = Arc::new(Flag(AtomicBool::new(true)));
            let waker = Waker::from(Arc::clone(&flag));
            let work: Work = Box::pin(work);
            (work, flag, waker)
        };
        Self { tasks: (0..tasks).map(task).collect(), appended }
    }

    /// Appends `count` records; returns how many allocations that took.
    fn append<R: Ring>(&mut self, shard: &Shard<R>, count: u64) -> u64 {
        let before = counting::of_thread();
        let goal = self.appended.get() + count;
        while self.appended.get() < goal {
            for (work, flag, waker) in &mut self.tasks {
                if flag.0.swap(false, Ordering::Relaxed) {
                    assert!(work.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
                }
            }
            shard.turn(Wait::at_least(1)).unwrap();
        }
        counting::of_thread() - before
    }
}

fn steady_state<R: Ring + 'static>(ring: R, name: &str, records: u64) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let config = WalConfig { segment_bytes: 32 << 20, ..WalConfig::new() };
    let opening = Wal::open(&shard, SegmentDir::new(dir.path()), &config, async |_, _| Ok(()));
    let (wal, _report) = block_on(&shard, opening).unwrap().unwrap();
    for tasks in [1, 100] {
        let mut load = Load::new(&wal, tasks);
        load.append(&shard, records);
        let allocations = load.append(&shard, records);
        println!("{name}, {tasks} tasks: {allocations} allocations for {records} appends");
        assert_eq!(allocations, 0, "{name}: appending allocates nothing once warm");
    }
}

#[test]
fn warm_log_on_the_kernel_ring_allocates_nothing() {
    match KernelRing::new(&KernelConfig::new(64)) {
        Ok(ring) => steady_state(ring, "io_uring", 2_000),
        Err(error) => println!("SKIP: {error}; the thread ring runs the same log"),
    }
}

#[test]
fn warm_log_on_the_thread_ring_allocates_nothing() {
    steady_state(ThreadRing::new(2, 64).unwrap(), "threads", 1_000);
}
