//! No heap allocation once warm: for wakes of tasks, and for packets from other threads.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

mod counting;

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::Poll;

use mfio_core::block_on;
use mfio_engine::ring::auto::Backend;
use mfio_engine::{Engine, File, OpenOptions, Shards};

fn allocations() -> u64 {
    counting::OF_PROCESS.load(Ordering::Relaxed)
}

/// Gives way once.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn read_often(file: &File, rounds: u64) {
    let mut page = file.shard().arena().alloc(4096).unwrap();
    for round in 0..rounds {
        let (read, back) = file.read_exact_at(round % 16 * 4096, page).await;
        read.unwrap();
        page = back;
        yield_now().await;
    }
}

/// One test, because the count is of the whole process.
#[test]
fn warm_tasks_and_remote_packets_allocate_nothing() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![1; 64 << 10]).unwrap();
    for backend in [Backend::Auto, Backend::Threads] {
        let engine = Engine::builder().shards(Shards::Count(1)).backend(backend).build().unwrap();
        let path = file.path().to_owned();
        let in_tasks = engine.spawn_on(0, move |shard| async move {
            let file = shard.open(&path, &OpenOptions::new().lock(false)).unwrap();
            read_often(&file, 100).await;
            // Those of the shard's thread: the one that waits for it allocates to do so.
            let before = counting::of_thread();
            read_often(&file, 10_000).await;
            counting::of_thread() - before
        });
        let in_tasks = in_tasks.unwrap().join().unwrap();

        let remote = engine.remote();
        let open = remote.open(file.path(), &OpenOptions::new().lock(false));
        let remote_file = block_on(&remote, open).unwrap().unwrap();
        let work = async {
            let mut page = vec![0; 4096];
            let mut before = 0;
            for round in 0..10_000_u64 {
                if round == 1_000 {
                    before = allocations();
                }
                let (read, back) = remote_file.read_exact_at(round % 16 * 4096, page).await;
                read.unwrap();
                page = back;
            }
            allocations() - before
        };
        let from_elsewhere = block_on(&remote_file, work).unwrap();
        println!("{backend:?}: {in_tasks} in tasks, {from_elsewhere} from another thread");
        assert_eq!(in_tasks, 0, "{backend:?}");
        assert_eq!(from_elsewhere, 0, "{backend:?}");
        assert!(engine.shutdown().is_clean());
    }
}
