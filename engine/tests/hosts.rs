//! A shard driven by somebody else's event loop, woken by the ring's descriptor.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use mfio_core::backend::integration::{AsyncIo, Tokio};
use mfio_core::{IoBackend, Packet, PacketIoExt, Read};
use mfio_engine::ring::AutoRing;
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::{Config, DirectMode, Durability, OpenOptions, Outcome, Shard};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

struct Scratch {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn scratch() -> Scratch {
    // Not in /tmp, which may be a tmpfs: reads are to complete later.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("data");
    std::fs::write(&path, vec![3; 1 << 20]).unwrap();
    Scratch { _dir: dir, path }
}

fn shards() -> Vec<Shard> {
    let make = |backend| {
        let ring = AutoRing::new(backend, &AutoConfig::new(8)).unwrap();
        // Small, so that things have to wait.
        let config = Config { in_flight_max: 8, backlog_max: 16, ..Config::new() };
        Shard::with_ring(ring, &config).unwrap()
    };
    vec![make(Backend::Auto), make(Backend::Threads)]
}

fn options() -> OpenOptions {
    OpenOptions::new().write(true).lock(false).direct(DirectMode::PreferDirect)
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn tokio_hosts_a_shard_beside_timers_and_local_tasks() {
    for shard in shards() {
        let scratch = scratch();
        let file = shard.open(&scratch.path, &options()).unwrap();
        let local = tokio::task::LocalSet::new();
        let ran = local.block_on(&current_thread(), async {
            let host = Rc::new(Tokio::new(shard.clone()).unwrap());
            let ticks = Rc::new(AtomicU32::new(0));
            let counting = Rc::clone(&ticks);
            let timer = tokio::task::spawn_local(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    counting.fetch_add(1, Ordering::Relaxed);
                }
            });
            // Several tasks take turns to drive.
            let tasks: Vec<_> = (0..6_u8)
                .map(|task| {
                    let (host, file) = (Rc::clone(&host), file.clone());
                    tokio::task::spawn_local(async move {
                        let work = async {
                            for round in 0..50_u64 {
                                let at = u64::from(task) * (64 << 10) + round % 16 * 4096;
                                let mut page = file.shard().arena().alloc(4096).unwrap();
                                page.fill(task);
                                let (written, mut page) = file.write_all_at(at, page).await;
                                written.unwrap();
                                page.fill(0xff);
                                let (read, page) = file.read_exact_at(at, page).await;
                                read.unwrap();
                                assert!(page.iter().all(|&byte| byte == task));
                            }
                            file.sync(Durability::Data).await.unwrap();
                        };
                        host.run(work).await.unwrap();
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            // Tasks of the shard itself run too, and are woken by Tokio's timer.
            let inner = shard.spawn(async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                11
            });
            let inner = inner.unwrap();
            let value = host.run(inner).await.unwrap().unwrap();
            timer.abort();
            (value, ticks.load(Ordering::Relaxed))
        });
        assert_eq!(ran.0, 11);
        println!("{:?}: {} ticks meanwhile", shard.features().kind, ran.1);
        assert!(ran.1 > 0, "the timer ran beside the I/O");
        assert_eq!(shard.shutdown(), 0);
    }
}

/// A file is a backend too: whoever hosts it is told when its ops are over.
#[test]
fn hosted_file_tells_of_its_completions() {
    for shard in shards() {
        let scratch = scratch();
        let file = shard.open(&scratch.path, &options()).unwrap();
        let page = shard.arena().alloc(4096).unwrap();
        let read = current_thread().block_on(async {
            let host = Tokio::new(&file).unwrap();
            let read = host.run(file.read_exact_at(8192, page));
            tokio::time::timeout(Duration::from_secs(60), read).await
        });
        let (read, page) = read.expect("it is told").unwrap();
        read.unwrap();
        assert!(page.iter().all(|&byte| byte == 3));
    }
}

#[test]
fn async_io_hosts_a_shard() {
    for shard in shards() {
        let scratch = scratch();
        let file = shard.open(&scratch.path, &options()).unwrap();
        let host = AsyncIo::new(shard.clone()).unwrap();
        let work = async {
            for at in 0..64 {
                let page = shard.arena().alloc(4096).unwrap();
                let (read, page) = file.read_exact_at(at * 4096, page).await;
                read.unwrap();
                assert!(page.iter().all(|&byte| byte == 3));
            }
        };
        async_io::block_on(host.run(work)).unwrap();
        assert_eq!(shard.shutdown(), 0);
    }
}

#[test]
fn other_thread_reaches_a_shard_under_tokio() {
    for shard in shards() {
        let scratch = scratch();
        let remote = shard.remote();
        let (sender, mut done) = tokio::sync::oneshot::channel();
        let path = scratch.path.clone();
        let other = std::thread::spawn(move || {
            let open = remote.open(&path, &options());
            let file = mfio_core::block_on(&remote, open).unwrap().unwrap();
            for round in 0..300 {
                let at = round % 16 * 4096;
                let read = mfio_core::block_on(&file, file.read_exact_at(at, vec![0; 4096]));
                let (read, bytes) = read.unwrap();
                read.unwrap();
                assert!(bytes.iter().all(|&byte| byte == 3));
            }
            sender.send(()).unwrap();
        });
        current_thread().block_on(async {
            let host = Tokio::new(shard.clone()).unwrap();
            host.run(&mut done).await.unwrap().unwrap();
        });
        other.join().unwrap();
        assert_eq!(shard.shutdown(), 0);
    }
}

/// Counts the wakes that are not the descriptor's.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// A bare event loop: `poll(2)` on the descriptor and nothing else, but where the drive asked
/// to be called again at once.
fn drive_by_descriptor(shard: &Shard, mut done: impl FnMut() -> bool) {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let fd = shard.as_fd();
    while !done() {
        let before = woken.0.load(Ordering::Acquire);
        shard.get_backend().unwrap().unwrap().poll_drive(&mut cx);
        if done() || woken.0.load(Ordering::Acquire) != before {
            continue;
        }
        let mut watched = [PollFd::new(fd, PollFlags::POLLIN)];
        let ready = poll(&mut watched, PollTimeout::from(5_000_u16)).unwrap();
        assert!(ready > 0, "{:?}: the descriptor said nothing for 5 s", shard.features().kind);
    }
}

#[test]
fn f27_completions_alone_make_the_descriptor_readable() {
    for shard in shards() {
        let scratch = scratch();
        let file = shard.open(&scratch.path, &options()).unwrap();
        for round in 0..40_u64 {
            let reading = file.clone();
            let task = shard.spawn(async move {
                let page = reading.shard().arena().alloc(4096).unwrap();
                reading.read_exact_at(round % 16 * 4096, page).await.0.unwrap();
                reading.sync(Durability::Data).await.unwrap();
            });
            let task = task.unwrap();
            drive_by_descriptor(&shard, || task.is_finished());
        }
        assert_eq!(shard.shutdown(), 0);
    }
}

#[test]
fn wakes_from_elsewhere_make_the_descriptor_readable() {
    for shard in shards() {
        for round in 0..40 {
            let (sender, woken) = tokio::sync::oneshot::channel();
            let task = shard.spawn(async { woken.await.unwrap() }).unwrap();
            let other = std::thread::spawn(move || {
                if round % 2 == 0 {
                    // Late enough that the loop is in its poll.
                    let (_keep, never) = std::sync::mpsc::channel::<()>();
                    let _timeout = never.recv_timeout(Duration::from_millis(3));
                }
                sender.send(round).unwrap();
            });
            drive_by_descriptor(&shard, || task.is_finished());
            other.join().unwrap();
        }
        assert_eq!(shard.shutdown(), 0);
    }
}

/// CPU time of this thread in nanoseconds, as the scheduler counts it.
fn thread_cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse().unwrap()
}

/// How late, in nanoseconds, a timer may fire on a machine that is busy with other things.
const LATE_NS: u64 = 50_000_000;

#[test]
fn timers_fire_under_tokio_without_other_traffic_and_without_spinning() {
    for shard in shards() {
        let kind = shard.features().kind;
        current_thread().block_on(async {
            let host = Tokio::new(shard.clone()).unwrap();
            let cpu_ns = thread_cpu_ns();
            let from_ns = shard.now_ns();
            for ns in [20_000_000_u64, 300_000_000, 1_000_000] {
                let at_ns = shard.now_ns() + ns;
                host.run(shard.sleep_until(at_ns)).await.unwrap();
                let late_ns = shard.now_ns().checked_sub(at_ns).expect("never early");
                assert!(late_ns < LATE_NS, "{kind:?}: {late_ns} ns late");
            }
            // By tasks of the shard too, the later timer set first, and one of them forgotten.
            let sleep = |ns| {
                let there = shard.clone();
                shard.spawn(async move { there.sleep_ns(ns).await }).unwrap()
            };
            let (late, early) = (sleep(200_000_000), sleep(50_000_000));
            let forgotten = sleep(100_000_000);
            let at_ns = shard.now_ns() + 50_000_000;
            host.run(early).await.unwrap().unwrap();
            assert!(shard.now_ns() - at_ns < LATE_NS, "{kind:?}: the later one was in the way");
            forgotten.abort();
            host.run(late).await.unwrap().unwrap();
            let (cpu_ns, ns) = (thread_cpu_ns() - cpu_ns, shard.now_ns() - from_ns);
            println!("{kind:?}: {} µs of CPU in {} µs", cpu_ns / 1000, ns / 1000);
            assert!(cpu_ns < ns / 10, "{kind:?}: {cpu_ns} ns of CPU time while it slept {ns} ns");
        });
        assert_eq!(shard.shutdown(), 0);
    }
}

#[test]
fn f17_deadline_passes_under_tokio_without_other_traffic() {
    for shard in shards() {
        let kind = shard.features().kind;
        // A read of an empty pipe completes never.
        let (reader, _writer) = std::io::pipe().unwrap();
        let scratch = scratch();
        let known = shard.open(&scratch.path, &OpenOptions::new().lock(false)).unwrap();
        let reader = std::fs::File::from(std::os::fd::OwnedFd::from(reader));
        let file = shard.adopt("pipe", reader, known.geometry());
        if kind == mfio_engine::ring::RingKind::Threads {
            // A blocking read cannot be stopped there.
            continue;
        }
        current_thread().block_on(async {
            let host = Tokio::new(shard.clone()).unwrap();
            let at_ns = shard.now_ns() + 30_000_000;
            let read = file.io(0, Packet::<Read, _>::new(vec![0; 64]));
            let ended = host.run(shard.deadline(at_ns, read)).await.unwrap();
            assert_eq!(ended.outcome, Outcome::TimedOut { done_bytes: 0 });
            assert!(shard.now_ns() - at_ns < LATE_NS, "{kind:?}");
        });
        assert_eq!(shard.shutdown(), 0);
    }
}
