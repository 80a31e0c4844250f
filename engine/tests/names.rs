//! Ops on names of a shard's file system go by a ring, and come to what they come to on threads.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::future::{Future, poll_fn};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use mfio_core::{IoBackend, IoRead, block_on};
use mfio_engine::fs::ShardFs;
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::{AutoRing, SqPoll, Wait};
use mfio_engine::{Config, Shard};
use mfio_rt::conformance::names;
use mfio_rt::portable::Portable;
use mfio_rt::{DirHandle, Error, FileHandle, Follow, Fs, Metadata, OpenOptions};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;

const READ: OpenOptions = OpenOptions::new().read(true);
const BOTH: OpenOptions = OpenOptions::new().read(true).write(true).create(true);

/// On io_uring, with these entries; `None` where that, or the ring for names, is not to be had.
fn shard(kernel: KernelConfig) -> Option<Shard> {
    let mut config = AutoConfig::new(1);
    config.kernel = kernel;
    let ring = match AutoRing::new(Backend::RequireRing, &config) {
        Ok(ring) => ring,
        Err(error) => {
            println!("SKIP: {error}");
            return None;
        }
    };
    let config = Config { in_flight_max: 8, backlog_max: 16, ..Config::new() };
    let shard = Shard::with_ring(ring, &config).unwrap();
    let (fs, _temp) = files(&shard);
    now(&fs, fs.current_dir().sync()).unwrap();
    let served = shard.features().in_use.contains(&"names ring");
    if !served {
        println!("SKIP: {:?}", shard.features().degraded);
    }
    served.then_some(shard)
}

fn files(shard: &Shard) -> (ShardFs, tempfile::TempDir) {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    (ShardFs::at(shard, temp.path()).unwrap(), temp)
}

fn now<T>(backend: &impl IoBackend, future: impl Future<Output = T>) -> T {
    block_on(backend, future).unwrap()
}

/// Ops on names that the ring was given so far.
fn by_ring(shard: &Shard) -> u64 {
    shard.with_ring_ref(|ring| match ring {
        AutoRing::Kernel(ring) => ring.stats().names,
        AutoRing::Threads(_) => 0,
    })
}

/// Polls it once, for nobody.
fn poke<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// All of them at once; what they come to, in order.
async fn all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    let mut ended: Vec<Option<T>> = running.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, ended) in running.iter_mut().zip(&mut ended) {
            let Some(runs) = future else { continue };
            if let Poll::Ready(value) = runs.as_mut().poll(cx) {
                (*future, *ended) = (None, Some(value));
            }
        }
        if running.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    ended.into_iter().map(Option::unwrap).collect()
}

/// What of this process is open below `root`.
fn open_below(root: &Path) -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    targets.filter(|target| target.starts_with(root)).count()
}

#[test]
fn each_op_that_the_ring_has_goes_by_it() {
    let Some(shard) = shard(KernelConfig::new(32)) else { return };
    let (fs, temp) = files(&shard);
    std::fs::write(temp.path().join("file"), "text").unwrap();
    let confined = now(&fs, fs.current_dir().confined()).unwrap();
    // A confined directory opens the way to a name first, and what it is to look at.
    for (dir, more) in [(fs.current_dir(), 0), (&confined, 1)] {
        let went = |ops: u64, what: &str, did: &mut dyn FnMut()| {
            let before = by_ring(&shard);
            did();
            assert_eq!(by_ring(&shard) - before, ops, "{what}, {more} more if below");
        };
        let run = |future: Pin<&mut dyn Future<Output = Result<(), Error>>>| {
            now(&fs, future).unwrap();
        };
        went(1, "make", &mut || run(pin!(dir.create_dir("d", 0o755))));
        went(1 + more, "make below", &mut || run(pin!(dir.create_dir("d/e", 0o755))));
        went(1, "open", &mut || drop(now(&fs, dir.open_file("file", &READ)).unwrap()));
        went(1, "create", &mut || drop(now(&fs, dir.open_file("d/new", &BOTH)).unwrap()));
        went(1, "open dir", &mut || drop(now(&fs, dir.open_dir("d/e")).unwrap()));
        went(1 + more, "look", &mut || {
            let metadata = now(&fs, dir.metadata("file", Follow::Yes)).unwrap();
            assert_eq!(metadata.len, 4);
        });
        went(1 + 2 * more, "rename", &mut || run(pin!(dir.rename("d/new", dir, "d/old"))));
        let link = 1 + 2 * more;
        went(link, "link", &mut || run(pin!(dir.hard_link("file", dir, "d/hard"))));
        went(1 + more, "symlink", &mut || run(pin!(dir.symlink("old", "d/soft"))));
        for name in ["d/soft", "d/hard", "d/old"] {
            went(1 + more, "remove", &mut || run(pin!(dir.remove_file(name))));
        }
        went(1 + more, "remove dir", &mut || run(pin!(dir.remove_dir("d/e"))));
        went(1, "remove dir", &mut || run(pin!(dir.remove_dir("d"))));
        went(1, "sync", &mut || run(pin!(dir.sync())));
        let file = now(&fs, dir.open_file("file", &READ)).unwrap();
        went(1, "look at a handle", &mut || {
            assert_eq!(now(&fs, file.metadata()).unwrap().len, 4);
        });
        // Those that there are no ops for.
        went(0, "permissions", &mut || run(pin!(dir.set_permissions("file", 0o644))));
    }
    assert_eq!(shard.shutdown(), 0);
}

/// In every shape of the ring, rules that every file system keeps.
#[test]
fn every_shape_of_the_ring_serves_names() {
    let (mut free, mut polled) = (KernelConfig::new(2), KernelConfig::new(8));
    free.restricted = false;
    polled.sqpoll = Some(SqPoll { idle_ms: 5, cpu: None });
    for kernel in [KernelConfig::new(1), free, polled] {
        let Some(shard) = shard(kernel) else { continue };
        let rules = async |fs: &ShardFs| {
            names::dirs_equal(fs).await;
        };
        let (fs, _temp) = files(&shard);
        now(&fs, rules(&fs));
        let (fs, _temp) = files(&shard);
        shard.block_on(rules(&fs)).unwrap();
        let before = by_ring(&shard);
        assert!(before > 10, "{before}");
        assert_eq!(shard.shutdown(), 0);
    }
}

struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// A bare event loop, with nothing but the shard's descriptor to wake it.
#[test]
fn f27_ends_of_ops_on_names_make_the_descriptor_readable() {
    let Some(shard) = shard(KernelConfig::new(8)) else { return };
    let (fs, _temp) = files(&shard);
    let dir = fs.current_dir().clone();
    let work = async move {
        for round in 0..40 {
            let name = format!("d{round}");
            dir.create_dir(&name, 0o755).await.unwrap();
            let opens = (0..3).map(|_| dir.open_dir(&name)).collect();
            for opened in all(opens).await {
                opened.unwrap();
            }
            let file = dir.open_file(format!("{name}/f"), &BOTH).await.unwrap();
            assert_eq!(file.metadata().await.unwrap().len, 0);
        }
    };
    let task = shard.spawn(work).unwrap();
    let woken = Arc::new(Woken(AtomicU32::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let fd = shard.as_fd();
    while !task.is_finished() {
        let before = woken.0.load(Ordering::Acquire);
        shard.get_backend().unwrap().unwrap().poll_drive(&mut cx);
        if task.is_finished() || woken.0.load(Ordering::Acquire) != before {
            continue;
        }
        let mut watched = [PollFd::new(fd, PollFlags::POLLIN)];
        let ready = poll(&mut watched, PollTimeout::from(20_000_u16)).unwrap();
        assert!(ready > 0, "the descriptor said nothing for 20 s");
    }
    now(&shard, task).unwrap();
    assert_eq!(shard.shutdown(), 0);
}

/// More than the queue of names, or all queues, can hold.
#[test]
fn thousand_opens_at_once_wait_and_none_is_lost() {
    for entries in [1, 32] {
        let Some(shard) = shard(KernelConfig::new(entries)) else { return };
        let (fs, temp) = files(&shard);
        for len in 0..1000_usize {
            std::fs::write(temp.path().join(len.to_string()), vec![7; len]).unwrap();
        }
        let before = (by_ring(&shard), open_below(temp.path()));
        let fs = &fs;
        let look = async |len: usize| {
            let file = fs.current_dir().open_file(len.to_string(), &READ).await?;
            file.metadata().await?;
            let (read, bytes) = file.read_exact(0, vec![0; len]).await;
            read.unwrap();
            assert_eq!(bytes, vec![7; len]);
            file.metadata().await
        };
        let looks = (0..1000).map(look).collect();
        let lens: Vec<_> = now(fs, all(looks)).into_iter().map(|look| look.unwrap().len).collect();
        assert_eq!(lens, (0..1000).collect::<Vec<_>>());
        assert_eq!((by_ring(&shard), open_below(temp.path())), (before.0 + 3000, before.1));
        assert_eq!(shard.shutdown(), 0);
    }
}

#[test]
fn dropped_opens_leave_nothing_open() {
    let Some(shard) = shard(KernelConfig::new(32)) else { return };
    let (fs, temp) = files(&shard);
    let dir = fs.current_dir();
    let before = (by_ring(&shard), open_below(temp.path()));
    for round in 0..200_u32 {
        let name = format!("f{}", round % 7);
        let mut opens = Vec::new();
        for _ in 0..round % 50 {
            let mut open = Box::pin(dir.open_file(&name, &BOTH));
            assert!(poke(open.as_mut()).is_pending());
            let mut look = Box::pin(dir.metadata(&name, Follow::No));
            assert!(poke(look.as_mut()).is_pending());
            opens.push((open, look));
        }
        // Some are only queued, some are in the kernel, some are done and not told.
        for _ in 0..round % 3 {
            shard.turn(Wait::NONE).unwrap();
        }
        if round % 2 == 0 {
            opens.reverse();
        }
        drop(opens);
    }
    while shard.in_flight() > 0 {
        shard.turn(Wait::at_least(1)).unwrap();
    }
    assert!(by_ring(&shard) > before.0 + 200, "{before:?}");
    assert_eq!(open_below(temp.path()), before.1);
    // The shard is as good as before; whether an open that was dropped has made the file is open.
    drop(now(&fs, dir.open_file("f1", &BOTH)).unwrap());
    assert_eq!(shard.shutdown(), 0);
}

/// What was under way goes on by threads where the ring has not done it: nothing is done twice.
#[test]
fn shutdown_with_names_under_way_loses_none_and_does_none_twice() {
    for turns in 0..4 {
        let Some(shard) = shard(KernelConfig::new(32)) else { return };
        let (fs, temp) = files(&shard);
        let dir = fs.current_dir();
        let mut made: Vec<_> =
            (0..100).map(|at| Box::pin(dir.create_dir(format!("d{at}"), 0o755))).collect();
        for future in &mut made {
            assert!(poke(future.as_mut()).is_pending());
        }
        for _ in 0..turns {
            shard.turn(Wait::NONE).unwrap();
        }
        assert_eq!(shard.shutdown(), 0);
        for made in now(&fs, all(made)) {
            made.unwrap();
        }
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 100);
    }
}

#[test]
fn shard_that_goes_with_names_under_way_waits_for_them() {
    let Some(shard) = shard(KernelConfig::new(32)) else { return };
    let (fs, temp) = files(&shard);
    {
        let dir = fs.current_dir();
        let mut opens: Vec<_> =
            (0..50).map(|at| Box::pin(dir.open_file(format!("f{at}"), &BOTH))).collect();
        for open in &mut opens {
            assert!(poke(open.as_mut()).is_pending());
        }
        shard.turn(Wait::NONE).unwrap();
    }
    drop((fs, shard));
    assert_eq!(open_below(temp.path()), 0);
}

#[test]
fn task_that_panics_with_names_under_way_leaves_nothing_open() {
    let Some(shard) = shard(KernelConfig::new(8)) else { return };
    let (fs, temp) = files(&shard);
    let before = open_below(temp.path());
    let dir = fs.current_dir().clone();
    let task = shard.spawn(async move {
        let opens: Vec<_> = (0..40).map(|at| dir.open_file(format!("f{at}"), &BOTH)).collect();
        let mut opens = pin!(all(opens));
        poll_fn(|cx| {
            assert!(opens.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        panic!("on purpose");
    });
    assert!(now(&shard, task.unwrap()).is_err());
    while shard.in_flight() > 0 {
        shard.turn(Wait::at_least(1)).unwrap();
    }
    assert_eq!(open_below(temp.path()), before);
    assert_eq!(shard.shutdown(), 0);
}

/// The directory's handle goes before the op that starts from it.
#[test]
fn directory_stays_open_until_its_ops_are_over() {
    let Some(shard) = shard(KernelConfig::new(8)) else { return };
    let (fs, temp) = files(&shard);
    now(&fs, fs.current_dir().create_dir("d", 0o755)).unwrap();
    for round in 0..50 {
        let dir = now(&fs, fs.current_dir().open_dir("d")).unwrap();
        let name = format!("f{round}");
        let task = {
            let mut open = Box::pin(async move { dir.open_file(name, &BOTH).await.map(drop) });
            assert!(poke(open.as_mut()).is_pending());
            open
        };
        // Other descriptors take the numbers that have become free.
        let others: Vec<_> = (0..4).map(|_| std::fs::File::open(temp.path()).unwrap()).collect();
        now(&fs, task).unwrap();
        drop(others);
    }
    assert_eq!(std::fs::read_dir(temp.path().join("d")).unwrap().count(), 50);
    assert_eq!(shard.shutdown(), 0);
}

#[test]
fn facts_are_those_that_threads_tell() {
    let Some(shard) = shard(KernelConfig::new(8)) else { return };
    let (fs, temp) = files(&shard);
    let at = |name: &str| temp.path().join(name);
    std::fs::write(at("file"), vec![1; 10_000]).unwrap();
    std::fs::hard_link(at("file"), at("again")).unwrap();
    std::fs::create_dir(at("dir")).unwrap();
    symlink("file", at("link")).unwrap();
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let threads = Portable::at(temp.path()).unwrap();
    let confined = now(&fs, fs.current_dir().confined()).unwrap();
    for name in ["file", "again", "dir", "link", "pipe", "socket", "missing", "", "/dev/null"] {
        for follow in [Follow::Yes, Follow::No] {
            let expected = block_on(&threads, threads.current_dir().metadata(name, follow));
            let seen = now(&fs, fs.current_dir().metadata(name, follow));
            assert_eq!(seen, expected.unwrap(), "{name} {follow:?}");
            if !name.starts_with('/') {
                assert_eq!(now(&fs, confined.metadata(name, follow)), seen, "{name} {follow:?}");
            }
        }
    }
    let file = now(&fs, fs.current_dir().open_file("file", &READ)).unwrap();
    let by_std = std::fs::metadata(at("file")).unwrap();
    let seen = now(&fs, file.metadata()).unwrap();
    assert_eq!(seen.id, Some((by_std.dev(), by_std.ino())));
    assert_eq!((seen.len, seen.links), (10_000, Some(2)));
    assert_eq!(shard.shutdown(), 0);
}

const PATHS: [&str; 17] = [
    "a", "b", "d", "d/x", "d/y/z", "d/../a", "../up", "", "d/", "l", "l/x", "l/..", ".", "..",
    "d/.", "a/b", "loop",
];
const TARGETS: [&str; 6] = ["a", "d", "..", "/dev/null", "loop", "../up"];

/// What an op comes to, as far as it must be the same in two places.
fn same(metadata: &Metadata) -> (mfio_rt::FileKind, u64, u32, Option<u64>) {
    let len = if metadata.is_dir() { 0 } else { metadata.len };
    (metadata.kind, len, metadata.mode, metadata.links)
}

async fn step<D: DirHandle>(dir: &D, step: (u8, usize, usize)) -> Result<String, Error> {
    let (op, at, to) = step;
    let (path, other) = (PATHS[at % PATHS.len()], PATHS[to % PATHS.len()]);
    let exclusive = OpenOptions::new().write(true).create_new(true);
    match op {
        0 | 1 => dir.create_dir(path, 0o755).await?,
        2 => drop(dir.open_file(path, &BOTH).await?),
        3 => drop(dir.open_file(path, &READ).await?),
        4 => drop(dir.open_file(path, &exclusive.nofollow(true)).await?),
        5 => dir.remove_file(path).await?,
        6 => dir.remove_dir(path).await?,
        7 => dir.rename(path, dir, other).await?,
        8 => dir.hard_link(path, dir, other).await?,
        9 | 10 => dir.symlink(TARGETS[to % TARGETS.len()], path).await?,
        11 => return Ok(format!("{:?}", same(&dir.metadata(path, Follow::Yes).await?))),
        12 => return Ok(format!("{:?}", same(&dir.metadata(path, Follow::No).await?))),
        _ => drop(dir.open_dir(path).await?),
    }
    Ok(String::new())
}

/// Every name below, with what it is.
fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        found.push(format!("{name} {kind:?}"));
        if kind.is_dir() {
            found.extend(tree(&path).into_iter().map(|below| format!("{name}/{below}")));
        }
    }
    found.sort();
    found
}

/// The same calls on a ring and on threads: the same answers, to the errno, and the same tree.
/// Confined or not, with links that lead out and in circles.
#[test]
fn ring_and_threads_come_to_the_same() {
    let Some(shard) = shard(KernelConfig::new(4)) else { return };
    let calls = prop::collection::vec((0..14_u8, 0..PATHS.len(), 0..PATHS.len()), 1..40);
    proptest!(ProptestConfig::with_cases(200), |(confined: bool, steps in calls)| {
        let roots = [(); 2].map(|()| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        let inside = roots.each_ref().map(|root| {
            // Deeper than any chain of links here leads out, so that the two never meet.
            let inside = root.path().join("1/2/3/4/inside");
            std::fs::create_dir_all(&inside).unwrap();
            symlink("loop", inside.join("loop")).unwrap();
            inside
        });
        let (ring, threads) =
            (ShardFs::at(&shard, &inside[0]).unwrap(), Portable::at(&inside[1]).unwrap());
        let (mut by_ring, mut by_threads) =
            (ring.current_dir().clone(), threads.current_dir().clone());
        if confined {
            by_ring = now(&ring, by_ring.confined()).unwrap();
            by_threads = block_on(&threads, by_threads.confined()).unwrap().unwrap();
        }
        for at in steps {
            let expected = block_on(&threads, step(&by_threads, at)).unwrap();
            let seen = now(&ring, step(&by_ring, at));
            prop_assert_eq!(seen, expected, "{:?} on {} and {}", at, PATHS[at.1], PATHS[at.2]);
        }
        prop_assert_eq!(tree(roots[0].path()), tree(roots[1].path()));
    });
    assert_eq!(shard.shutdown(), 0);
}

/// The ring that reads and writes can still do nothing to names.
#[test]
fn data_ring_stays_as_restricted_as_it_was() {
    let Ok(ring) = KernelRing::new(&KernelConfig::new(8)) else { return };
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let fs = ShardFs::at(&shard, temp.path()).unwrap();
    now(&fs, fs.current_dir().create_dir("d", 0o755)).unwrap();
    let features = shard.features();
    println!("{:?}", features.in_use);
    assert!(features.in_use.contains(&"RESTRICTIONS") || !features.degraded.is_empty());
}
