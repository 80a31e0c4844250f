//! Ops on names whose futures go while the ops are held up: an open for reading of a pipe waits
//! in the kernel until somebody writes.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mfio_core::IoBackend;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;
use crate::Config;
use crate::buffer::quarantined;
use crate::ring::kernel::{KernelConfig, KernelRing};
use crate::ring::{NameAnswer, Place, Wait};

struct Pipe(tempfile::TempDir, Arc<OwnedFd>);

fn pipe() -> Pipe {
    let temp = tempfile::tempdir().unwrap();
    mkfifo(&temp.path().join("pipe"), Mode::from_bits_truncate(0o600)).unwrap();
    let open = File::open(temp.path()).unwrap();
    Pipe(temp, Arc::new(open.into()))
}

impl Pipe {
    fn op(&self, path: &str) -> NameOp {
        // What may have to create is never tried without waiting.
        let flags = libc::O_RDONLY | libc::O_CREAT;
        let place = Place { dir: Arc::clone(&self.1), path: CString::new(path).unwrap() };
        NameOp::Open { place, flags, mode: 0o600, resolve: 0 }
    }

    /// Descriptors of this process that are open on what is in the directory.
    fn open(&self) -> usize {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        targets.filter(|target| target.parent() == Some(self.0.path())).count()
    }
}

fn shard(drain_ns: u64) -> Option<Shard<KernelRing>> {
    let ring = KernelRing::new(&KernelConfig::new(4)).ok()?;
    let shard = Shard::with_ring(ring, &Config { drain_ns, ..Config::new() }).unwrap();
    shard.takes_names(NameKind::Open).then_some(shard)
}

fn settle(shard: &Shard<KernelRing>) {
    while shard.in_flight() > 0 {
        shard.turn(Wait::at_least(1)).unwrap();
    }
}

#[test]
fn f03_op_that_nobody_waits_for_is_asked_to_stop() {
    let (Some(shard), pipe) = (shard(Config::new().drain_ns), pipe()) else { return };
    for turns in 0..3 {
        let future = shard.name(pipe.op("pipe"));
        for _ in 0..turns {
            shard.turn(Wait::NONE).unwrap();
        }
        drop(future);
        assert_eq!(shard.in_flight(), 1, "the kernel has it until it says otherwise");
        settle(&shard);
        assert_eq!(shard.metrics().cancels_sent, turns + 1);
    }
    assert_eq!(Arc::strong_count(&pipe.1), 1);
    assert_eq!(shard.metrics().stale_completions, 0);
    assert_eq!(shard.shutdown(), 0);
}

#[test]
fn open_that_is_done_when_its_future_goes_is_closed() {
    let (Some(shard), pipe) = (shard(Config::new().drain_ns), pipe()) else { return };
    // Done and told; done and not told; in the kernel.
    for turns in [u32::MAX, 1, 0] {
        let mut futures: Vec<_> = (0..40).map(|at| shard.name(pipe.op(&at.to_string()))).collect();
        if turns == u32::MAX {
            settle(&shard);
            assert_eq!(pipe.open(), 40);
        } else if turns > 0 {
            shard.turn(Wait::at_least(1)).unwrap();
        }
        futures.truncate(20);
        drop(futures);
        settle(&shard);
        assert_eq!(pipe.open(), 0);
    }
    assert_eq!(shard.shutdown(), 0);
}

#[test]
fn shutdown_stops_what_is_held_up_and_refuses_what_waits() {
    let (Some(shard), pipe) = (shard(Config::new().drain_ns), pipe()) else { return };
    let futures: Vec<_> = (0..50).map(|_| shard.name(pipe.op("pipe"))).collect();
    shard.turn(Wait::NONE).unwrap();
    assert_eq!(shard.in_flight() as usize, NAMES_IN_FLIGHT_MAX);
    assert_eq!(shard.shutdown(), 0);
    assert!(!shard.takes_names(NameKind::Open));
    for future in futures {
        let end = mfio_core::block_on(&shard, future).unwrap();
        assert!(matches!(end.result, Err(Errno::ECANCELED | Errno::EINTR)), "{end:?}");
    }
    assert_eq!(Arc::strong_count(&pipe.1), 1);
}

#[test]
fn f02_shard_that_cannot_wait_leaves_the_memory_to_the_kernel() {
    let (Some(shard), pipe) = (shard(0), pipe()) else { return };
    let before = quarantined();
    let future = shard.name(pipe.op("pipe"));
    shard.turn(Wait::NONE).unwrap();
    drop(future);
    drop(shard);
    assert!(quarantined() > before);
    assert_eq!(Arc::strong_count(&pipe.1), 2, "the directory stays open too");
}

#[test]
fn places_in_line_are_kept_and_those_who_leave_are_not_served() {
    let (Some(shard), pipe) = (shard(Config::new().drain_ns), pipe()) else { return };
    // All places of the ring are taken, until somebody writes.
    let held: Vec<_> = (0..NAMES_IN_FLIGHT_MAX).map(|_| shard.name(pipe.op("pipe"))).collect();
    let mut waiting: Vec<_> = (0..20).map(|at| shard.name(pipe.op(&at.to_string()))).collect();
    shard.turn(Wait::NONE).unwrap();
    drop(waiting.drain(5..15));
    assert_eq!(shard.in_flight() as usize, NAMES_IN_FLIGHT_MAX);
    let path = pipe.0.path().join("pipe");
    let writer = std::thread::spawn(move || File::options().write(true).open(path).unwrap());
    let all = async {
        for future in held.into_iter().chain(waiting) {
            let end = future.await;
            assert!(matches!(end.result, Ok(NameAnswer::Opened(_))), "{end:?}");
        }
    };
    mfio_core::block_on(&shard, pin!(all)).unwrap();
    drop(writer.join().unwrap());
    for at in 0..20 {
        let made = pipe.0.path().join(at.to_string()).exists();
        assert_eq!(made, !(5..15).contains(&at), "{at}");
    }
    assert_eq!(shard.shutdown(), 0);
}

/// Nanoseconds of processor time that this thread has had.
fn thread_cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse().unwrap()
}

struct Woken(AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn f27_shard_sleeps_while_a_name_is_held_up() {
    let (Some(shard), pipe) = (shard(Config::new().drain_ns), pipe()) else { return };
    let held = shard.name(pipe.op("pipe"));
    // One that has ended, so that what tells of ends has told.
    let ended = shard.name(pipe.op("file"));
    mfio_core::block_on(&shard, ended).unwrap().result.unwrap();
    let (before_ns, from_ns) = (thread_cpu_ns(), shard.now_ns());
    mfio_core::block_on(&shard, shard.sleep_ns(300_000_000)).unwrap();
    let (cpu_ns, ns) = (thread_cpu_ns() - before_ns, shard.now_ns() - from_ns);
    assert!(cpu_ns < ns / 10, "{cpu_ns} ns of processor time in {ns} ns");
    // Driven by a host, its descriptor falls silent, and speaks up at the end.
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let drive = || {
        let mut cx = Context::from_waker(&waker);
        shard.get_backend().unwrap().unwrap().poll_drive(&mut cx);
    };
    drive();
    let fd = shard.poll_fd().unwrap();
    let readable = |ms: u16| {
        let again = woken.0.swap(false, Ordering::AcqRel);
        again || poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(ms)).unwrap() > 0
    };
    let mut rounds = 0;
    while readable(50) {
        drive();
        rounds += 1;
        assert!(rounds < 10, "it is readable for ever");
    }
    let path = pipe.0.path().join("pipe");
    let writer = std::thread::spawn(move || File::options().write(true).open(path).unwrap());
    while shard.in_flight() > 0 {
        assert!(readable(20_000), "the end was not told");
        drive();
    }
    drop(writer.join().unwrap());
    mfio_core::block_on(&shard, held).unwrap().result.unwrap();
    assert_eq!(shard.shutdown(), 0);
}
