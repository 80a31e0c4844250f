//! The straight way of lone ops: who goes it, and what becomes of those who set out on it.
#![allow(clippy::print_stdout, reason = "a test says why it did not run")]

use std::cell::Cell;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use mfio_core::{BackendBusy, CompletionQueue, ErrorKind, IoBackend, Packet, PacketIo};
use mfio_core::{PacketIoExt, Read, Sent, Write, block_on};

use crate::buffer::{ArenaBuf, quarantined};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::ring::Wait;
use crate::ring::kernel::{KernelConfig, KernelRing};
use crate::shard::{BypassMode, Durability, File, Lone, Shard};
use crate::{DirectMode, OpenOptions};

#[path = "lone_together_tests.rs"]
mod together;

const PAGE: usize = 4096;
const PAGES: usize = 16;

type Kernel = Shard<KernelRing>;

/// A shard and a file of [`PAGES`], page n full of n, in `directory`.
struct Fixture {
    shard: Kernel,
    file: File<KernelRing>,
    directory: tempfile::TempDir,
}

fn fixture_in(directory: &Path, bypass: BypassMode) -> Option<Fixture> {
    fixture_with(directory, &Config { bypass, ..Config::new() })
}

fn fixture_with(directory: &Path, config: &Config) -> Option<Fixture> {
    let ring = KernelRing::new(&KernelConfig::new(8));
    let ring = ring.inspect_err(|error| println!("SKIP: {error}")).ok()?;
    let directory = tempfile::tempdir_in(directory);
    let directory = directory.inspect_err(|error| println!("SKIP: {error}")).ok()?;
    let path = directory.path().join("file");
    let bytes: Vec<u8> = (0..PAGES * PAGE).map(|at| u8::try_from(at / PAGE).unwrap()).collect();
    std::fs::write(&path, bytes).unwrap();
    let shard = Shard::with_ring(ring, config).unwrap();
    let options = OpenOptions::new().write(true).direct(DirectMode::Buffered);
    let file = shard.open(&path, &options).unwrap();
    Some(Fixture { shard, file, directory })
}

/// In memory, with lone ops settled to bypass the ring `left` times.
fn settled(left: u32) -> Option<Fixture> {
    let fixture = fixture_in(Path::new("/dev/shm"), BypassMode::Auto)?;
    fixture.settle(left);
    Some(fixture)
}

impl Fixture {
    fn settle(&self, left: u32) {
        let target = self.file.target();
        let mut core = self.shard.inner.core.borrow_mut();
        core.targets.get_mut(target).courses.as_mut().unwrap().settle(left);
        drop(core);
        self.open_way();
    }

    /// A turn that finds nothing to do.
    fn open_way(&self) {
        assert_eq!(self.shard.turn(Wait::NONE).unwrap(), 0);
        assert!(self.shard.inner.core.borrow().lone.is_open());
    }

    fn page(&self) -> ArenaBuf {
        self.shard.arena().alloc(PAGE).unwrap()
    }

    /// Sends a read of page `at`.
    fn read(&self, at: usize) -> Sent<Read, ArenaBuf> {
        let (sent, view) = Packet::<Read, _>::new(self.page()).send();
        self.file.send_io((at * PAGE) as u64, view).unwrap();
        sent
    }

    /// Sends a write of page `at`, full of `byte`.
    fn write(&self, at: usize, byte: u8) -> Sent<Write, ArenaBuf> {
        let mut page = self.page();
        page.fill(byte);
        let (sent, view) = Packet::<Write, _>::new(page).send();
        self.file.send_io((at * PAGE) as u64, view).unwrap();
        sent
    }

    /// Whether there is an op that has no slot.
    fn is_taken(&self) -> bool {
        let core = self.shard.inner.core.borrow();
        let taken = core.lone.is_taken();
        assert!(!taken || (core.slots.occupied() == 0 && core.in_flight == 1));
        taken
    }

    /// What `work` adds to ops, enters, submitted, inline ops, bytes read and written.
    fn counts(&self, work: impl FnOnce()) -> [u64; 6] {
        let now = || {
            let Metrics { ops, enters, submitted, inline_ops, .. } = self.shard.metrics();
            let Metrics { read_bytes, written_bytes, .. } = self.shard.metrics();
            [ops, enters, submitted, inline_ops, read_bytes, written_bytes]
        };
        let before = now();
        work();
        let after = now();
        std::array::from_fn(|at| after[at] - before[at])
    }

    fn is_over(&self) {
        while !self.shard.is_idle() {
            self.shard.turn(Wait::at_least(1)).unwrap();
        }
        assert_eq!((self.shard.in_flight(), self.shard.arena().in_use()), (0, 0));
        assert_eq!(self.shard.metrics().stale_completions, 0);
    }
}

#[test]
fn lone_ops_have_no_slot_and_are_counted_as_others_are() {
    let Some(fixture) = settled(100) else { return };
    for at in 0..PAGES {
        let counts = fixture.counts(|| {
            let read = fixture.read(at);
            assert!(fixture.is_taken() && !read.is_done() && !fixture.shard.is_idle());
            assert_eq!(fixture.shard.turn(Wait::at_least(1)).unwrap(), 1);
            assert!(read.is_done());
            let page = read.into_completed().unwrap().into_buffer();
            assert!(page.iter().all(|&byte| usize::from(byte) == at));
        });
        assert_eq!(counts, [1, 1, 1, 1, PAGE as u64, 0]);
        let counts = fixture.counts(|| {
            let written = fixture.write(at, 77);
            assert!(fixture.is_taken());
            // Also a turn that does not wait.
            assert_eq!(fixture.shard.turn(Wait::NONE).unwrap(), 1);
            assert!(written.into_completed().unwrap().is_ok());
        });
        assert_eq!(counts, [1, 1, 1, 1, 0, PAGE as u64]);
    }
    let bytes = std::fs::read(fixture.directory.path().join("file")).unwrap();
    assert!(bytes.len() == PAGES * PAGE && bytes.iter().all(|&byte| byte == 77));
    fixture.is_over();
}

#[test]
fn lone_ops_are_straight_however_they_are_awaited() {
    let Some(fixture) = settled(1000) else { return };
    let Fixture { shard, file, .. } = &fixture;
    // In turns of the caller's, into a queue; by a future that the shard blocks on, or another.
    let mut queue = CompletionQueue::<Read, ArenaBuf>::new();
    queue.send(file, 0, Packet::new(fixture.page()), 5).unwrap();
    assert!(fixture.is_taken());
    assert_eq!(shard.turn_into(Wait::at_least(1), &mut queue).unwrap(), 1);
    let (tag, done) = queue.pop().unwrap();
    assert!(tag == 5 && done.is_ok());
    drop((done, queue));
    let awaited = async {
        let mut page = fixture.page();
        let mut straight = 0;
        for at in 0..10 {
            let mut read = pin!(file.read_exact_at(at * PAGE as u64, page));
            let (result, back) = std::future::poll_fn(|cx| {
                let polled = read.as_mut().poll(cx);
                straight += u32::from(polled.is_pending() && fixture.is_taken());
                polled
            })
            .await;
            result.unwrap();
            page = back;
        }
        straight
    };
    assert_eq!(block_on(shard, awaited).unwrap(), 10);
    let awaited = async {
        let mut straight = 0;
        for at in 0..10 {
            let packet = Packet::<Read, _>::new(fixture.page());
            let mut read = pin!(file.io(at * PAGE as u64, packet));
            let done = std::future::poll_fn(|cx| {
                let polled = read.as_mut().poll(cx);
                straight += u32::from(polled.is_pending() && fixture.is_taken());
                polled
            })
            .await;
            assert!(done.is_ok());
        }
        straight
    };
    assert_eq!(shard.block_on(awaited).unwrap(), 10);
    fixture.is_over();
}

#[test]
fn f11_short_and_failed_calls_are_judged_like_any_completion() {
    let Some(fixture) = settled(100) else { return };
    let path = fixture.directory.path().join("file");
    let end = (PAGES * PAGE) as u64 - 100;
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(end).unwrap();
    fixture.open_way();
    let read = fixture.read(PAGES - 1);
    assert!(fixture.is_taken());
    assert_eq!(fixture.shard.turn(Wait::at_least(1)).unwrap(), 1);
    // The rest has to be asked for, which finds the end.
    assert!(!read.is_done());
    while !read.is_done() {
        fixture.shard.turn(Wait::at_least(1)).unwrap();
    }
    let done = read.into_completed().unwrap();
    assert_eq!(done.contiguous_bytes(), PAGE as u64 - 100);
    assert_eq!(done.result().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    drop(done);
    assert_eq!(fixture.shard.metrics().short_transfers, 1);
    // An error of the call: nothing reads beyond the greatest file.
    fixture.open_way();
    let (read, view) = Packet::<Read, _>::new(fixture.page()).send();
    fixture.file.send_io(i64::MAX as u64 - PAGE as u64, view).unwrap();
    assert!(fixture.is_taken());
    fixture.shard.turn(Wait::at_least(1)).unwrap();
    while !read.is_done() {
        fixture.shard.turn(Wait::at_least(1)).unwrap();
    }
    assert!(!read.into_completed().unwrap().is_ok());
    // An errno: the file was opened for reading alone.
    let path = fixture.directory.path().join("file");
    let options = OpenOptions::new().direct(DirectMode::Buffered);
    let Fixture { shard, file, directory } = fixture;
    // Its lock goes with it.
    drop(file);
    let file = shard.open(&path, &options).unwrap();
    let fixture = Fixture { shard, file, directory };
    fixture.settle(100);
    let counts = fixture.counts(|| {
        let written = fixture.write(0, 1);
        assert!(fixture.is_taken());
        assert_eq!(fixture.shard.turn(Wait::at_least(1)).unwrap(), 1);
        let done = written.into_completed().unwrap();
        assert_eq!(done.result().unwrap_err().errno(), Some(nix::errno::Errno::EBADF as i32));
    });
    assert_eq!(counts, [1, 1, 1, 1, 0, 0]);
    fixture.is_over();
}

/// On a real file system, whose pages may not be there.
#[test]
fn call_that_would_block_is_left_to_the_ring() {
    let directory = std::env::current_exe().unwrap();
    let Some(fixture) = fixture_in(directory.parent().unwrap(), BypassMode::Auto) else { return };
    if fixture.file.bypass().read == Lone::RingOnly {
        println!("SKIP: this file system leaves lone ops no other way");
        return;
    }
    let path = fixture.directory.path().join("file");
    let data = std::fs::File::open(&path).unwrap();
    data.sync_all().unwrap();
    let mut waited = 0;
    for at in 0..PAGES {
        let gone = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        nix::fcntl::posix_fadvise(&data, 0, 0, gone).unwrap();
        fixture.settle(100);
        let counts = fixture.counts(|| {
            let read = fixture.read(at);
            assert!(fixture.is_taken());
            while !read.is_done() {
                fixture.shard.turn(Wait::at_least(1)).unwrap();
            }
            let page = read.into_completed().unwrap().into_buffer();
            assert!(page.iter().all(|&byte| usize::from(byte) == at));
        });
        let [ops, _enters, submitted, inline_ops, read_bytes, _] = counts;
        assert_eq!((ops, submitted, read_bytes), (1, 1, PAGE as u64));
        waited += u32::from(inline_ops == 0);
    }
    fixture.is_over();
    if waited == 0 {
        println!("SKIP: the pages of this file system never go");
    }
}

#[test]
fn readers_of_metrics_keep_the_way_closed_and_see_every_op() {
    let Some(fixture) = settled(100) else { return };
    let reader = fixture.shard.metrics_reader();
    for at in 0..PAGES {
        let read = fixture.read(at);
        assert!(!fixture.is_taken());
        fixture.shard.turn(Wait::at_least(1)).unwrap();
        assert!(read.is_done());
    }
    assert_eq!(reader.metrics(), fixture.shard.metrics());
    assert!(reader.metrics().inline_ops >= PAGES as u64);
}

#[test]
fn f01_caller_that_leaves_before_the_turn_leaves_its_buffer_until_the_op_is_over() {
    let Some(fixture) = settled(100) else { return };
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..4 {
        fixture.open_way();
        {
            let packet = Packet::<Read, _>::new(fixture.page());
            let mut read = pin!(fixture.file.io(0, packet));
            assert!(read.as_mut().poll(&mut cx).is_pending());
            assert!(fixture.is_taken());
        }
        assert!(!fixture.is_taken());
        assert_eq!((fixture.shard.in_flight(), fixture.shard.arena().in_use()), (1, 1));
        fixture.is_over();
    }
    assert_eq!(fixture.shard.metrics().cancels, 4);
}

#[test]
fn file_and_shard_that_go_before_the_turn_lose_no_op() {
    let Some(fixture) = settled(100) else { return };
    // The file, of which the op is the last user.
    let Fixture { shard, file, directory } = fixture;
    let (read, view) = Packet::<Read, _>::new(shard.arena().alloc(PAGE).unwrap()).send();
    file.send_io(0, view).unwrap();
    assert!(shard.inner.core.borrow().lone.is_taken());
    drop(file);
    while !read.is_done() {
        shard.turn(Wait::at_least(1)).unwrap();
    }
    assert!(read.into_completed().unwrap().is_ok() && shard.is_idle());
    drop((shard, directory));
    // Both.
    let Some(fixture) = settled(100) else { return };
    let before = quarantined();
    let read = fixture.read(0);
    assert!(fixture.is_taken());
    let Fixture { shard, file, directory: _in_use } = fixture;
    drop((file, shard));
    assert!(read.is_done(), "read, or cancelled");
    drop(read);
    assert_eq!(quarantined(), before);
    // And a shutdown.
    let Some(fixture) = settled(100) else { return };
    let read = fixture.read(0);
    assert!(fixture.is_taken());
    assert_eq!(fixture.shard.shutdown(), 0);
    assert!(read.is_done());
    drop(read);
    fixture.is_over();
}

#[test]
fn trial_is_repeated_when_the_settled_ops_are_used_up() {
    let Some(fixture) = settled(10) else { return };
    for left in (0..10).rev() {
        assert_eq!(fixture.file.bypass().read, Lone::Inline);
        drop(fixture.read(left));
        assert!(fixture.is_taken());
        fixture.shard.turn(Wait::at_least(1)).unwrap();
    }
    // The next one is timed, on the general way.
    let read = fixture.read(0);
    assert!(!fixture.is_taken());
    assert_eq!(fixture.file.bypass().read, Lone::Measuring);
    assert_eq!(fixture.file.bypass().write, Lone::Inline, "decided apart");
    while !read.is_done() {
        fixture.shard.turn(Wait::at_least(1)).unwrap();
    }
    drop(read);
    for _ in 0..1000 {
        if fixture.file.bypass().read != Lone::Measuring {
            break;
        }
        let read = fixture.read(1);
        while !read.is_done() {
            fixture.shard.turn(Wait::at_least(1)).unwrap();
        }
    }
    assert_eq!(fixture.file.bypass().read, Lone::Inline, "a copy beats a worker");
    drop(fixture.read(1));
    assert!(fixture.is_taken());
    fixture.is_over();
}

#[test]
fn poisoned_target_and_closed_bypass_are_respected() {
    let Some(fixture) = settled(100) else { return };
    let target = fixture.file.target();
    fixture
        .shard
        .inner
        .core
        .borrow_mut()
        .targets
        .get_mut(target)
        .poison
        .set(nix::errno::Errno::EIO, 0);
    fixture.open_way();
    let written = fixture.write(0, 9);
    assert!(!fixture.is_taken() && written.is_done());
    assert!(!written.into_completed().unwrap().is_ok());
    let Some(off) = fixture_in(Path::new("/dev/shm"), BypassMode::Off) else { return };
    let _nothing = off.shard.turn(Wait::NONE);
    let read = off.read(3);
    assert!(!off.is_taken());
    while !read.is_done() {
        off.shard.turn(Wait::at_least(1)).unwrap();
    }
    assert_eq!(off.shard.metrics().inline_ops, 0);
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static MOST: Cell<u32> = const { Cell::new(0) };
    static WAKES: Cell<u32> = const { Cell::new(0) };
    static SHARED: std::cell::RefCell<Option<Fixture>> = const { std::cell::RefCell::new(None) };
}

/// Sends another read and turns the shard, each time it is woken.
struct Reentering;

impl Wake for Reentering {
    fn wake(self: Arc<Self>) {
        DEPTH.set(DEPTH.get() + 1);
        MOST.set(MOST.get().max(DEPTH.get()));
        WAKES.set(WAKES.get() + 1);
        SHARED.with_borrow(|fixture| {
            let fixture = fixture.as_ref().unwrap();
            assert!(matches!(fixture.shard.get_backend(), Err(BackendBusy)));
            if WAKES.get() < 20 {
                let packet = Packet::<Read, _>::new(fixture.page());
                let mut read = Box::pin(fixture.file.io(0, packet));
                let waker = Waker::from(Arc::clone(&self));
                let polled = read.as_mut().poll(&mut Context::from_waker(&waker));
                assert!(polled.is_pending());
                fixture.shard.turn(Wait::at_least(1)).unwrap();
                // Over, though nobody has been told.
                assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
            }
        });
        DEPTH.set(DEPTH.get() - 1);
    }
}

#[test]
fn wakers_that_turn_the_shard_are_called_one_after_the_other() {
    let Some(fixture) = settled(100) else { return };
    SHARED.set(Some(fixture));
    SHARED.with_borrow(|fixture| {
        let fixture = fixture.as_ref().unwrap();
        let waker = Waker::from(Arc::new(Reentering));
        let mut read = pin!(fixture.file.io(0, Packet::<Read, _>::new(fixture.page())));
        let mut cx = Context::from_waker(&waker);
        assert!(read.as_mut().poll(&mut cx).is_pending());
        assert!(fixture.is_taken());
        assert_eq!(fixture.shard.turn(Wait::at_least(1)).unwrap(), 1);
        let Poll::Ready(done) = read.as_mut().poll(&mut cx) else { panic!("over") };
        assert!(done.is_ok());
        drop(done);
        assert_eq!((WAKES.get(), MOST.get()), (20, 1), "each, and none within another");
        fixture.is_over();
    });
    SHARED.set(None);
}
