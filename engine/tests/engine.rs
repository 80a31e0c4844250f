//! Engines: several shards on threads of their own, and every way in which they end.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::future::{Future, pending};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use mfio_core::ErrorKind;
use mfio_engine::ring::auto::Backend;
use mfio_engine::{
    Config, Durability, Engine, EngineBuilder, EngineError, OpenOptions, RemoteFile, Shards,
};

const BACKENDS: [Backend; 2] = [Backend::Auto, Backend::Threads];

fn two(backend: Backend) -> EngineBuilder {
    Engine::builder().shards(Shards::Count(2)).queue_depth(16).backend(backend)
}

struct Scratch {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn scratch() -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    std::fs::write(&path, [3; 8192]).unwrap();
    Scratch { _dir: dir, path }
}

fn writing() -> OpenOptions {
    OpenOptions::new().write(true).lock(false)
}

fn open(engine: &Engine, scratch: &Scratch) -> RemoteFile {
    let remote = engine.remote();
    mfio_core::block_on(&remote, remote.open(&scratch.path, &writing())).unwrap().unwrap()
}

#[test]
fn every_shard_runs_on_its_own_thread_with_its_own_files() {
    for backend in BACKENDS {
        let engine = two(backend).build().unwrap();
        assert_eq!(engine.shards(), 2);
        let scratch = scratch();
        let path = scratch.path.clone();
        let ran = engine.run_on_each(move |shard| {
            let path = path.clone();
            async move {
                let file = shard.open(&path, &OpenOptions::new().lock(false)).unwrap();
                let (read, bytes) = file.read_exact_at(4096, vec![0; 16]).await;
                read.unwrap();
                (std::thread::current().id(), bytes)
            }
        });
        let ran = ran.unwrap();
        assert_ne!(ran[0].0, ran[1].0);
        assert!(ran.iter().all(|(_, bytes)| bytes == &[3; 16]));
        assert!(engine.shutdown().is_clean());
    }
}

#[test]
fn shards_are_bound_to_their_cores() {
    let engine = Engine::builder().build().unwrap();
    let status = |_shard| async {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let allowed = status.lines().find(|line| line.starts_with("Cpus_allowed_list"));
        allowed.unwrap().split_whitespace().last().unwrap().to_owned()
    };
    let mut cores = engine.run_on_each(status).unwrap();
    assert!(cores.iter().all(|core| core.parse::<usize>().is_ok()), "{cores:?}");
    cores.dedup();
    assert_eq!(cores.len(), engine.shards());
}

#[test]
fn nonsense_is_refused_before_anything_starts() {
    for shards in [Shards::Count(0), Shards::Cores(vec![]), Shards::Cores(vec![0, 0])] {
        let refused = Engine::builder().shards(shards).build().unwrap_err();
        assert!(matches!(refused, EngineError::Config { limit: "shards", .. }), "{refused}");
    }
    let config = Config { tasks_max: 0, ..Config::new() };
    let refused = Engine::builder().config(config).build().unwrap_err();
    assert!(matches!(refused, EngineError::Config { limit: "tasks_max", .. }), "{refused}");
}

#[test]
fn f24_shard_that_does_not_start_fails_the_engine_and_is_named() {
    let failed = Engine::builder().shards(Shards::Cores(vec![0, 1000])).build().unwrap_err();
    let EngineError::Start { shard: 1, source } = &failed else { panic!("{failed}") };
    assert!(matches!(**source, EngineError::Pin { core: 1000, .. }), "{failed}");
    assert!(failed.to_string().contains("shard 1"), "{failed}");
    let failed = two(Backend::RequireRing).queue_depth(1 << 16).build().unwrap_err();
    assert!(matches!(failed, EngineError::Start { shard: 0, .. }), "{failed}");
}

#[test]
fn panic_of_a_task_leaves_the_shard_running() {
    for backend in BACKENDS {
        let engine = two(backend).build().unwrap();
        let bad = engine.spawn_on(1, |_| async { panic!("on purpose") }).unwrap();
        let failed: Result<(), _> = bad.join();
        let Err(EngineError::Panicked { message }) = failed else { panic!("{failed:?}") };
        assert_eq!(message, "on purpose");
        assert_eq!(engine.spawn_on(1, |_| async { 5 }).unwrap().join().unwrap(), 5);
        let refused = engine.spawn_on(2, |_| async {}).unwrap_err();
        assert!(matches!(refused, EngineError::NoShard { shard: 2, shards: 2 }));
        assert!(engine.shutdown().is_clean());
    }
}

/// What `body` comes to, unless that takes for ever.
fn in_time<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(body()));
    receiver.recv_timeout(Duration::from_secs(30)).expect("an answer in time")
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker of somebody's");
    }
}

#[test]
fn panic_of_a_waker_ends_its_shard_and_everything_that_waits_for_it() {
    let scratch = scratch();
    for backend in BACKENDS {
        let builder = Engine::builder().shards(Shards::Count(1)).backend(backend);
        let engine = builder.build().unwrap();
        let file = open(&engine, &scratch);
        let holds = |shard| async move {
            let _holds_the_shard = shard;
            pending::<()>().await;
        };
        let task = engine.spawn_on(0, holds).unwrap();
        let waker = Waker::from(Arc::new(Panics));
        // Until one has not been answered before its waker was there.
        loop {
            let mut sync = Box::pin(file.sync(Durability::Data));
            if sync.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                // Never dropped: the waker must be there when the answer comes.
                let _leaked = Box::leak(Box::new(sync));
                break;
            }
        }
        let ended = in_time(move || task.join());
        assert!(matches!(ended, Err(EngineError::Cancelled)), "{ended:?}");
        let other = file.clone();
        let sent = move || mfio_core::block_on(&other, other.read_exact_at(0, vec![0; 8]));
        let (read, _) = in_time(sent).unwrap();
        assert_eq!(read.unwrap_err().error.kind(), ErrorKind::Closed);
        let report = engine.shutdown();
        assert_eq!((report.ops_left, report.threads_left), (0, 0));
        assert!(report.failures[0].contains("a waker of somebody's"), "{report:?}");
    }
}

#[test]
fn panic_of_a_waker_leaves_openers_for_others() {
    let engine = two(Backend::Threads).build().unwrap();
    let remote = engine.remote();
    let waker = Waker::from(Arc::new(Panics));
    let mut panics = 0;
    for _ in 0..1000 {
        let mut open = Box::pin(remote.open("/nowhere/at/all", &writing()));
        panics += u32::from(open.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        if panics == 8 {
            break;
        }
    }
    let opened = in_time(move || mfio_core::block_on(&remote, remote.open("/nowhere", &writing())));
    assert!(opened.unwrap().is_err());
    assert!(engine.shutdown().is_clean());
}

#[test]
fn blocking_on_a_shards_own_thread_is_refused() {
    let scratch = scratch();
    for backend in BACKENDS {
        let engine = Arc::new(two(backend).build().unwrap());
        let file = open(&engine, &scratch);
        let inside = Arc::downgrade(&engine);
        let task = engine.spawn_on(0, move |shard| async move {
            let engine = inside.upgrade().unwrap();
            let each = engine.run_on_each(|_| async {});
            assert!(matches!(each, Err(EngineError::WouldDeadlock)), "{each:?}");
            let other = engine.spawn_on(1, |_| async {}).unwrap().join();
            assert!(matches!(other, Err(EngineError::WouldDeadlock)), "{other:?}");
            let own = shard.block_on(async {});
            assert!(matches!(own, Err(EngineError::WouldDeadlock)), "{own:?}");
            let read = mfio_core::block_on(&file, file.read_exact_at(0, vec![0; 8]));
            assert!(read.is_err());
            // Awaiting is what one does here.
            file.read_exact_at(0, vec![0; 8]).await.0.unwrap();
        });
        task.unwrap().join().unwrap();
    }
}

/// One way for an engine to end with something under way.
struct Case {
    name: &'static str,
    /// What is under way on each shard.
    tasks: u32,
    io: bool,
    remote_waits: bool,
}

#[test]
fn f25_every_shutdown_ends_in_time_and_answers_everybody() {
    let cases = [
        Case { name: "nothing", tasks: 0, io: false, remote_waits: false },
        Case { name: "tasks that wait for ever", tasks: 3, io: false, remote_waits: false },
        Case { name: "tasks in the middle of I/O", tasks: 3, io: true, remote_waits: false },
        Case { name: "remote packets", tasks: 0, io: false, remote_waits: true },
        Case { name: "everything", tasks: 5, io: true, remote_waits: true },
    ];
    for backend in BACKENDS {
        for case in &cases {
            shut_down(backend, case);
        }
    }
}

fn shut_down(backend: Backend, case: &Case) {
    let scratch = scratch();
    let engine = two(backend).build().unwrap();
    let file = open(&engine, &scratch);
    let begun = Arc::new(AtomicU32::new(0));
    let mut tasks = Vec::new();
    for shard in 0..2 {
        for _ in 0..case.tasks {
            let (path, begun, io) = (scratch.path.clone(), Arc::clone(&begun), case.io);
            let task = engine.spawn_on(shard, move |shard| async move {
                begun.fetch_add(1, Ordering::Relaxed);
                if !io {
                    return pending().await;
                }
                let file = shard.open(&path, &writing()).unwrap();
                loop {
                    file.write_all_at(0, vec![3; 4096]).await.0.unwrap();
                    file.sync(Durability::Data).await.unwrap();
                }
            });
            tasks.push(task.unwrap());
        }
    }
    while begun.load(Ordering::Relaxed) < 2 * case.tasks {
        std::thread::yield_now();
    }
    let remote = file.clone();
    let waits = case.remote_waits;
    let waiting = std::thread::spawn(move || {
        let mut done = 0_u32;
        if !waits {
            return (done, None);
        }
        loop {
            let read = mfio_core::block_on(&remote, remote.read_exact_at(0, vec![0; 512]));
            match read.unwrap().0 {
                Ok(()) => done += 1,
                Err(error) => return (done, Some(error)),
            }
        }
    });
    if waits {
        std::thread::yield_now();
    }
    let report = engine.shutdown();
    assert!(report.is_clean(), "{}: {report:?}", case.name);
    // The one that serves jobs is no task.
    assert_eq!(report.tasks_ended, 2 * case.tasks, "{}", case.name);
    for task in tasks {
        let ended: Result<(), _> = task.join();
        assert!(matches!(ended, Err(EngineError::Cancelled)), "{}: {ended:?}", case.name);
    }
    let (done, error) = waiting.join().unwrap();
    println!("{backend:?}, {}: {done} remote reads before the end", case.name);
    if let Some(error) = error {
        let kind = error.error.kind();
        assert!(matches!(kind, ErrorKind::Closed | ErrorKind::Cancelled), "{error}");
        assert!(error.to_string().starts_with("read of "), "{error}");
    }
    // And after it.
    let late = mfio_core::block_on(&file, file.write_all_at(0, vec![1; 512])).unwrap().0;
    assert_eq!(late.unwrap_err().error.kind(), ErrorKind::Closed, "{}", case.name);
    let late = mfio_core::block_on(&file, file.sync(Durability::Full)).unwrap();
    assert_eq!(late.unwrap_err().error.kind(), ErrorKind::Closed, "{}", case.name);
}

#[test]
fn remote_open_says_what_is_wrong() {
    let engine = two(Backend::Auto).build().unwrap();
    let remote = engine.remote();
    let missing = mfio_core::block_on(&remote, remote.open("/no/such/file", &writing())).unwrap();
    let error = missing.unwrap_err();
    assert!(matches!(error, EngineError::Open(_)), "{error}");
    assert!(error.to_string().contains("/no/such/file"), "{error}");
    let nowhere = mfio_core::block_on(&remote, remote.open_on(7, "/", &writing())).unwrap();
    assert!(matches!(nowhere, Err(EngineError::NoShard { shard: 7, shards: 2 })));
    drop(engine);
    let late = mfio_core::block_on(&remote, remote.open("/", &writing())).unwrap();
    assert!(matches!(late, Err(EngineError::Closed)), "{late:?}");
}

#[test]
fn thread_that_never_yields_is_left_behind_and_reported() {
    let config = Config { drain_ns: 50_000_000, ..Config::new() };
    let engine = two(Backend::Auto).config(config).build().unwrap();
    let stop = Arc::new(AtomicU32::new(0));
    let hog = Arc::clone(&stop);
    let task = engine.spawn_on(0, move |_| async move {
        hog.store(1, Ordering::Release);
        while hog.load(Ordering::Acquire) == 1 {
            std::thread::yield_now();
        }
    });
    while stop.load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
    let report = engine.shutdown();
    assert_eq!(report.threads_left, 1, "{report:?}");
    stop.store(2, Ordering::Release);
    task.unwrap().join().unwrap();
}
