//! The shard's own executor: tasks, their handles, and what reaches a shard that sleeps.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::ring::{AutoRing, RingKind};
use mfio_engine::{Config, DirectMode, EngineError, OpenOptions, Shard};

fn shards() -> Vec<Shard> {
    [Backend::Auto, Backend::Threads].map(|backend| shard(backend, &Config::new())).into()
}

fn shard(backend: Backend, config: &Config) -> Shard {
    let ring = AutoRing::new(backend, &AutoConfig::new(64)).unwrap();
    Shard::with_ring(ring, config).unwrap()
}

/// Gives way once.
fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    poll_fn(move |cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

#[test]
fn tasks_run_beside_the_future_that_is_blocked_on() {
    for shard in shards() {
        let order = Rc::new(RefCell::new(Vec::new()));
        let task = |name| {
            let order = Rc::clone(&order);
            async move {
                for round in 0..3 {
                    order.borrow_mut().push((round, name));
                    yield_now().await;
                }
                name
            }
        };
        let (one, other) = (shard.spawn(task('a')).unwrap(), shard.spawn(task('b')).unwrap());
        let both = shard.block_on(async { (other.await.unwrap(), one.await.unwrap()) });
        assert_eq!(both.unwrap(), ('b', 'a'));
        let expected = [(0, 'a'), (0, 'b'), (1, 'a'), (1, 'b'), (2, 'a'), (2, 'b')];
        assert_eq!(*order.borrow(), expected);
        assert_eq!(shard.tasks(), 0);
    }
}

#[test]
fn tasks_also_run_under_the_blocking_call_of_the_core() {
    for shard in shards() {
        let task = shard.spawn(async {
            yield_now().await;
            7
        });
        let joined = mfio_core::block_on(&shard, task.unwrap()).unwrap();
        assert_eq!(joined.unwrap(), 7);
    }
}

#[test]
fn task_that_panics_tells_its_handle_and_nobody_else() {
    for shard in shards() {
        let bad = shard.spawn(async { panic!("number {}", 5) }).unwrap();
        let good = shard.spawn(async { 1 }).unwrap();
        let (bad, good) = shard.block_on(async { (bad.await, good.await) }).unwrap();
        let Err(EngineError::Panicked { message }) = bad else { panic!("{bad:?}") };
        assert_eq!((message.as_str(), good.unwrap()), ("number 5", 1));
    }
}

#[test]
fn task_whose_drop_panics_ends_alone() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let shard = shard(Backend::Threads, &Config::new());
    let bomb = Bomb;
    let task = shard.spawn(async move {
        let _bomb = bomb;
        pending::<()>().await;
    });
    let task = task.unwrap();
    shard.block_on(yield_now()).unwrap();
    task.abort();
    let ended = shard.block_on(task).unwrap();
    assert!(matches!(ended, Err(EngineError::Panicked { .. })), "{ended:?}");
    assert_eq!(shard.block_on(async { 3 }).unwrap(), 3);
}

#[test]
fn result_that_nobody_waits_for_may_panic_when_it_is_dropped() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let shard = shard(Backend::Threads, &Config::new());
    drop(shard.spawn(async { Bomb }).unwrap());
    assert_eq!(shard.block_on(async { 3 }).unwrap(), 3);
    shard.block_on(yield_now()).unwrap();
    assert_eq!(shard.tasks(), 0);
}

#[test]
fn task_of_a_shard_that_was_dropped_is_told_as_cancelled() {
    for shard in shards() {
        let mut task = shard.spawn(pending::<()>()).unwrap();
        shard.block_on(yield_now()).unwrap();
        drop(shard);
        let polled = Pin::new(&mut task).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Err(EngineError::Cancelled))), "{polled:?}");
    }
}

#[test]
fn aborted_task_is_dropped_and_told_as_cancelled() {
    for shard in shards() {
        let witness = Rc::new(());
        let held = Rc::clone(&witness);
        let task = shard.spawn(async move {
            let _held = held;
            pending::<()>().await;
        });
        let task = task.unwrap();
        shard.block_on(yield_now()).unwrap();
        task.abort();
        let ended = shard.block_on(task).unwrap();
        assert!(matches!(ended, Err(EngineError::Cancelled)), "{ended:?}");
        assert_eq!(Rc::strong_count(&witness), 1);
    }
}

/// A task is aborted by what is dropped with it, when it ends anyway.
#[test]
fn abort_of_a_task_that_ends_does_not_end_the_next_one_in_its_place() {
    type Handle = Rc<RefCell<Option<mfio_engine::JoinHandle<()>>>>;
    struct Aborts(Handle);
    impl Drop for Aborts {
        fn drop(&mut self) {
            self.0.borrow().as_ref().unwrap().abort();
        }
    }
    for shard in shards() {
        let ends: [Pin<Box<dyn Future<Output = ()>>>; 2] =
            [Box::pin(yield_now()), Box::pin(pending())];
        for end in ends {
            let handle = Handle::default();
            let aborts = Aborts(Rc::clone(&handle));
            let task = shard.spawn(async move {
                let _aborts = aborts;
                end.await;
            });
            *handle.borrow_mut() = Some(task.unwrap());
            shard.block_on(yield_now()).unwrap();
            handle.borrow().as_ref().unwrap().abort();
            let ran = async {
                while !handle.borrow().as_ref().unwrap().is_finished() {
                    yield_now().await;
                }
                shard.spawn(async { 3 }).unwrap().await
            };
            assert_eq!(shard.block_on(ran).unwrap().unwrap(), 3);
            handle.borrow().as_ref().unwrap().abort();
            let next = shard.spawn(async { 4 }).unwrap();
            assert_eq!(shard.block_on(next).unwrap().unwrap(), 4);
        }
    }
}

#[test]
fn dropped_handle_lets_the_task_run_on() {
    let shard = shard(Backend::Auto, &Config::new());
    let done = Rc::new(Cell::new(false));
    let mark = Rc::clone(&done);
    drop(shard.spawn(async move {
        yield_now().await;
        mark.set(true);
    }));
    shard
        .block_on(async {
            while !done.get() {
                yield_now().await
            }
        })
        .unwrap();
}

#[test]
fn more_tasks_than_allowed_are_refused_and_places_are_used_again() {
    let shard = shard(Backend::Threads, &Config { tasks_max: 3, ..Config::new() });
    for _ in 0..5 {
        let tasks: Vec<_> = (0..3).map(|at| shard.spawn(async move { at }).unwrap()).collect();
        let refused = shard.spawn(async {});
        assert!(matches!(refused, Err(EngineError::TasksFull { tasks_max: 3 })), "{refused:?}");
        for (at, task) in tasks.into_iter().enumerate() {
            assert_eq!(shard.block_on(task).unwrap().unwrap(), at);
        }
    }
}

#[test]
fn blocking_inside_a_task_is_refused() {
    for shard in shards() {
        let inner = shard.clone();
        let task = shard.spawn(async move {
            let own = inner.block_on(async {});
            let core = mfio_core::block_on(&inner, async {});
            (own, core)
        });
        let (own, core) = shard.block_on(task.unwrap()).unwrap().unwrap();
        assert!(matches!(own, Err(EngineError::WouldDeadlock)), "{own:?}");
        assert_eq!(core, Err(mfio_core::BackendBusy));
    }
}

#[test]
fn shutdown_ends_tasks_and_takes_no_more() {
    for shard in shards() {
        let held = shard.clone();
        let task = shard.spawn(async move {
            let _held = held;
            pending::<()>().await;
        });
        let task = task.unwrap();
        assert_eq!(shard.shutdown(), 0);
        assert!(task.is_finished());
        assert!(matches!(shard.spawn(async {}), Err(EngineError::Closed)));
        assert_eq!(shard.tasks(), 0);
    }
}

#[test]
fn many_tasks_share_one_enter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hot");
    std::fs::write(&path, vec![7; 1 << 20]).unwrap();
    let shard = shard(Backend::Auto, &Config::new());
    if shard.features().kind != RingKind::Kernel {
        println!("SKIP: no io_uring here; what is counted are its system calls");
        return;
    }
    let options = OpenOptions { direct: DirectMode::Buffered, ..OpenOptions::default() };
    let file = shard.open(&path, &options).unwrap();
    let reads = |rounds: u64| {
        let tasks: Vec<_> = (0..32)
            .map(|task| {
                let file = file.clone();
                let task = shard.spawn(async move {
                    let mut page = file.shard().arena().alloc(4096).unwrap();
                    for round in 0..rounds {
                        let at = (task * 31 + round * 17) % 256 * 4096;
                        let (result, back) = file.read_exact_at(at, page).await;
                        result.unwrap();
                        assert!(back.iter().all(|&byte| byte == 7));
                        page = back;
                    }
                });
                task.unwrap()
            })
            .collect();
        shard
            .block_on(async {
                for task in tasks {
                    task.await.unwrap()
                }
            })
            .unwrap();
    };
    reads(10);
    let before = shard.metrics();
    reads(1000);
    let after = shard.metrics();
    let (ops, enters) = (after.ops - before.ops, after.enters - before.enters);
    println!("{ops} ops in {enters} system calls: {:.1} each", ops as f64 / enters as f64);
    assert_eq!(ops, 32_000);
    assert!(enters * 16 <= ops, "{enters} system calls for {ops} ops at depth 32");
}

/// A value that another thread counts up, and that a task waits for.
#[derive(Default)]
struct Counter {
    value: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Counter {
    /// Waits until it is more than `seen`.
    async fn beyond(&self, seen: u64) -> u64 {
        poll_fn(|cx| {
            *self.waker.lock().unwrap() = Some(cx.waker().clone());
            let value = self.value.load(Ordering::Acquire);
            if value > seen { Poll::Ready(value) } else { Poll::Pending }
        })
        .await
    }

    fn count(&self) {
        self.value.fetch_add(1, Ordering::AcqRel);
        let waker = self.waker.lock().unwrap().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Ping-pong with another thread: whoever loses one wake stops for ever.
fn no_wake_is_lost(run: impl Fn(&Shard, mfio_engine::JoinHandle<u64>) -> u64) {
    const ROUNDS: u64 = 20_000;
    for shard in shards() {
        let (ping, pong) = (Arc::new(Counter::default()), Arc::new(AtomicU64::new(0)));
        let (ping_there, pong_there) = (Arc::clone(&ping), Arc::clone(&pong));
        let stop = Arc::new(AtomicBool::new(false));
        let stop_there = Arc::clone(&stop);
        let other = std::thread::spawn(move || {
            for round in 0..ROUNDS {
                ping_there.count();
                // Sometimes the answer is awaited, so that the shard gets to sleep.
                while round % 3 == 0 && pong_there.load(Ordering::Acquire) <= round {
                    if stop_there.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::yield_now();
                }
            }
        });
        let task = shard.spawn(async move {
            let mut seen = 0;
            while seen < ROUNDS {
                seen = ping.beyond(seen).await;
                pong.store(seen, Ordering::Release);
            }
            seen
        });
        let seen = run(&shard, task.unwrap());
        stop.store(true, Ordering::Relaxed);
        other.join().unwrap();
        assert_eq!(seen, ROUNDS);
    }
}

#[test]
fn f28_wakes_from_another_thread_are_not_lost_under_block_on() {
    no_wake_is_lost(|shard, task| shard.block_on(task).unwrap().unwrap());
}

#[test]
fn f28_wakes_from_another_thread_are_not_lost_under_the_core() {
    no_wake_is_lost(|shard, task| mfio_core::block_on(shard, task).unwrap().unwrap());
}

#[test]
fn f28_wakes_from_another_thread_are_not_lost_under_a_host() {
    no_wake_is_lost(|shard, task| {
        let parker = mfio_core::backend::ThreadPark::new();
        mfio_core::backend::block_on_with(shard, &parker, task).unwrap().unwrap()
    });
}
