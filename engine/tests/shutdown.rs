//! What a shard that is blocked on, idles or is shut down does with everything that can wait.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::cell::Cell;
use std::future::{Future, pending};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use mfio_core::{AlignedBuf, Packet, PacketIoExt, Read};
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::ring::{AutoRing, RingKind};
use mfio_engine::{Class, Config, DirectMode, Durability, File, OpenOptions, Shard};

/// How long a shutdown may drain.
const DRAIN_NS: u64 = 400_000_000;

fn shards() -> Vec<Shard> {
    let make = |backend| {
        let ring = AutoRing::new(backend, &AutoConfig::new(16)).unwrap();
        let config =
            Config { in_flight_max: 4, backlog_max: 8, drain_ns: DRAIN_NS, ..Config::new() };
        Shard::with_ring(ring, &config).unwrap()
    };
    vec![make(Backend::Auto), make(Backend::Threads)]
}

fn page() -> AlignedBuf {
    AlignedBuf::new(4096, 4096)
}

/// Says so when it is dropped.
struct Gone(Rc<Cell<u32>>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

struct Place {
    shard: Shard,
    file: File,
    /// Its reads never complete.
    silent: Option<File>,
}

type Waiting = Pin<Box<dyn Future<Output = ()>>>;
type Start = fn(&Place) -> Waiting;

/// Everything that somebody can wait for, by name.
const KINDS: [(&str, Start); 11] = [
    ("a timer far away", |place| Box::pin(place.shard.sleep_ns(1 << 60))),
    ("nothing at all", |_| Box::pin(pending())),
    ("a read that never completes", |place| silent_read(place, Class::Foreground, None)),
    ("a background read of that kind", |place| silent_read(place, Class::Background, None)),
    ("one with a deadline far away", |place| silent_read(place, Class::Foreground, Some(1 << 60))),
    ("many reads, most of which wait", |place| {
        let reads: Vec<_> = (0..7).map(|_| silent_read(place, Class::Foreground, None)).collect();
        Box::pin(async move {
            let mut reads = reads;
            std::future::poll_fn(|cx| {
                reads.retain_mut(|read| read.as_mut().poll(cx).is_pending());
                if reads.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
        })
    }),
    ("a batch", |place| {
        let (shard, file) = (place.shard.clone(), place.silent.clone());
        let file = file.unwrap_or_else(|| place.file.clone());
        Box::pin(async move {
            let mut batch = shard.batch::<4, AlignedBuf>();
            batch.set_deadline(Some(shard.now_ns() + (1 << 60)));
            for at in 0..4 {
                batch.push_read(&file, at * 4096, page()).unwrap();
            }
            batch.run().await;
            while batch.reap().is_some() {}
        })
    }),
    ("a chain", |place| {
        let buffer = place.shard.arena().alloc(4096).unwrap();
        let chain = place.file.chain().write_at(0, buffer).sync(Durability::Data);
        Box::pin(async move { drop(chain.commit().await) })
    }),
    ("a durable write", |place| {
        let file = place.file.clone();
        Box::pin(async move { drop(file.write_durable_at(0, page()).await) })
    }),
    ("a flush", |place| {
        let sync = place.file.sync(Durability::Data);
        Box::pin(async move { drop(sync.await) })
    }),
    ("a task that waits", |place| {
        let task = place.shard.spawn(pending::<()>()).unwrap();
        Box::pin(async move { drop(task.await) })
    }),
];

fn silent_read(place: &Place, class: Class, deadline_ns: Option<u64>) -> Waiting {
    let (shard, file) = (place.shard.clone(), place.silent.as_ref().unwrap_or(&place.file));
    let file = file.with_class(class);
    Box::pin(async move {
        let read = file.io(0, Packet::<Read, _>::new(page()));
        match deadline_ns {
            Some(ns) => drop(shard.deadline(shard.now_ns() + ns, read).await),
            None => drop(read.await),
        }
    })
}

fn place(shard: &Shard) -> (Place, tempfile::TempDir, std::io::PipeWriter) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("data");
    std::fs::write(&path, vec![3; 64 << 10]).unwrap();
    let options = OpenOptions::new().write(true).lock(false).direct(DirectMode::Buffered);
    let file = shard.open(&path, &options).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    // A thread that reads from a pipe cannot be stopped, as the ring says.
    let silent = (shard.features().kind == RingKind::Kernel).then(|| {
        let reader = std::fs::File::from(OwnedFd::from(reader));
        shard.adopt("pipe", reader, file.geometry())
    });
    (Place { shard: shard.clone(), file, silent }, dir, writer)
}

/// Whether the task was driven before the shutdown, and whether anybody holds its handle.
const HOW: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

#[test]
fn f02_shutdown_is_bounded_and_leaves_nobody_waiting() {
    for (name, start) in KINDS {
        for (driven, held) in HOW {
            for shard in shards() {
                let kind = shard.features().kind;
                let (place, _dir, _writer) = place(&shard);
                let gone = Rc::new(Cell::new(0));
                let (waiting, inside) = (start(&place), Gone(Rc::clone(&gone)));
                let task = shard.spawn(async move {
                    waiting.await;
                    drop(inside);
                });
                let task = Some(task.unwrap()).filter(|_| held);
                drop(place);
                if driven {
                    shard.block_on(shard.sleep_ns(2_000_000)).unwrap();
                }
                let from_ns = shard.now_ns();
                let left = shard.shutdown();
                let took_ns = shard.now_ns() - from_ns;
                assert_eq!(left, 0, "{kind:?}: {name}, driven: {driven}");
                assert_eq!(gone.get(), 1, "{kind:?}: {name} was not dropped");
                assert!(took_ns < DRAIN_NS, "{kind:?}: {name} took {took_ns} ns");
                assert!(shard.is_idle() && !shard.has_work(), "{kind:?}: {name}");
                assert_eq!(shard.tasks(), 0);
                if let Some(task) = task {
                    // Known by now: whoever waits is not left to wait.
                    let _known = shard.block_on(task).unwrap();
                }
                assert_eq!(shard.shutdown(), 0, "again");
            }
        }
    }
}

/// The future is not a task of the shard's but somebody's who lives on.
#[test]
fn f02_futures_that_outlive_the_shutdown_resolve() {
    for (name, start) in KINDS {
        if ["a timer far away", "nothing at all"].contains(&name) {
            continue;
        }
        for shard in shards() {
            let kind = shard.features().kind;
            let (place, _dir, _writer) = place(&shard);
            let mut waiting = start(&place);
            let _first = waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let from_ns = shard.now_ns();
            assert_eq!(shard.shutdown(), 0, "{kind:?}: {name}");
            assert!(shard.now_ns() - from_ns < DRAIN_NS, "{kind:?}: {name}");
            let mut cx = Context::from_waker(Waker::noop());
            let resolved = _first.is_ready() || waiting.as_mut().poll(&mut cx).is_ready();
            assert!(resolved, "{kind:?}: {name} still waits");
        }
    }
}

#[test]
fn timers_wake_a_future_that_is_blocked_on_and_it_sleeps_meanwhile() {
    for shard in shards() {
        let kind = shard.features().kind;
        let cpu_ns = || -> u64 {
            let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
            stat.split_whitespace().next().unwrap().parse().unwrap()
        };
        let (from_ns, before_ns) = (shard.now_ns(), cpu_ns());
        let task = shard.spawn({
            let shard = shard.clone();
            async move { shard.sleep_ns(120_000_000).await }
        });
        let (task, at_ns) = (task.unwrap(), from_ns + 60_000_000);
        shard.block_on(shard.sleep_until(at_ns)).unwrap();
        assert!((at_ns..at_ns + 50_000_000).contains(&shard.now_ns()), "{kind:?}");
        shard.block_on(task).unwrap().unwrap();
        let (cpu_ns, ns) = (cpu_ns() - before_ns, shard.now_ns() - from_ns);
        assert!((120_000_000..170_000_000).contains(&ns), "{kind:?}: {ns}");
        assert!(cpu_ns < ns / 10, "{kind:?}: {cpu_ns} ns of CPU time in {ns} ns");
        assert_eq!(shard.shutdown(), 0);
    }
}
