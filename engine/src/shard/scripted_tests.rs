//! The shard against a ring that does exactly what a test says: schedules that a kernel makes
//! rarely, and callers' code that runs where it hurts.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use mfio_core::{
    BackendBusy, CompletionQueue, ErrorKind, IoBackend, Packet, PacketIoExt, Read, block_on,
};
use nix::errno::Errno;

use super::*;
use crate::buffer::{ArenaConfig, Region, SizeClass};
use crate::ring::sealed::Sealed;
use crate::ring::{Completion, FileRef, Limits, Op, OpKind, RingKind, RingWaker};
use crate::ring::{SocketOp, Sockets, Tag};
use crate::target::TargetKind;

#[path = "copy_tests.rs"]
mod copy_tests;
#[path = "fault_tests.rs"]
mod fault_tests;
#[path = "seam_tests.rs"]
mod seam_tests;
#[path = "socket_tests.rs"]
mod socket_tests;
#[path = "told_tests.rs"]
mod told_tests;

#[derive(Default)]
struct Script {
    /// Pushed and not consumed by an `enter`.
    queued: VecDeque<(Op, Tag)>,
    /// Consumed and not completed.
    running: Vec<(Op, Tag)>,
    done: Vec<Completion>,
    /// How many ops one `enter` consumes.
    consumes: usize,
    /// What every op completes with as soon as it runs; `None` leaves it running.
    answer: Option<fn(&Op) -> i32>,
    enter_fails: Option<Errno>,
    sq_entries: u32,
    /// The ring has no ops on ranges.
    old: bool,
    cancels: u32,
    now_ns: u64,
    /// What a device says of every op that fails; 0 is nothing.
    status: u16,
    /// A failing `enter` has consumed what it would have.
    fails_late: bool,
    /// Ops on sockets that have not completed.
    sockets: Vec<(SocketOp, Tag)>,
    /// The ring has ops on sockets.
    networked: bool,
    /// One of them takes any number of connections.
    takes_many: bool,
}

/// A ring in the hands of the test.
#[derive(Clone)]
struct Scripted(Rc<RefCell<Script>>, Rc<crate::ring::Features>);

#[derive(Clone)]
struct NoWaker;

impl RingWaker for NoWaker {
    fn wake(&self) {}
}

impl Sealed for Scripted {
    fn is_unused(&self) -> bool {
        self.0.borrow().running.is_empty()
    }
}

impl crate::ring::Names for Scripted {}
impl Sockets for Scripted {
    fn has_sockets(&self) -> bool {
        self.0.borrow().networked
    }
    fn takes_many(&self) -> bool {
        self.0.borrow().takes_many
    }
    fn push_socket(&mut self, op: SocketOp, tag: Tag) {
        self.0.borrow_mut().sockets.push((op, tag));
    }
}

impl Ring for Scripted {
    type Waker = NoWaker;
    fn now_ns(&self) -> u64 {
        let mut script = self.0.borrow_mut();
        script.now_ns += 1_000;
        script.now_ns
    }
    fn reserve(&mut self, count: u32) -> bool {
        let script = self.0.borrow();
        script.queued.len() + count as usize <= script.sq_entries as usize
    }
    fn is_straight(&self) -> bool {
        true
    }
    fn push(&mut self, op: Op, tag: Tag) {
        assert!(self.reserve(1), "pushed without room");
        self.0.borrow_mut().queued.push_back((op, tag));
    }
    fn enter(&mut self, wait: Wait) -> Result<u32, Errno> {
        let mut script = self.0.borrow_mut();
        if let Some(errno) = script.enter_fails.filter(|_| !script.fails_late) {
            return Err(errno);
        }
        script.now_ns = script.now_ns.max(wait.deadline_ns.unwrap_or(0));
        let count = script.consumes.min(script.queued.len());
        for _ in 0..count {
            let (op, tag) = script.queued.pop_front().expect("counted");
            match script.answer {
                Some(answer) => {
                    let result = answer(&op);
                    script.done.push(Completion { tag, result, more: false });
                }
                None => script.running.push((op, tag)),
            }
        }
        script.enter_fails.map_or(Ok(u32::try_from(count).unwrap()), Err)
    }
    fn reap(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.0.borrow_mut().done);
    }
    fn register_buffers(&mut self, _region: &Region) {}
    fn register_file(&mut self, fd: i32) -> FileRef {
        FileRef::Plain(fd)
    }
    fn unregister_file(&mut self, _file: FileRef) {}
    fn device_status(&self, _tag: Tag) -> Option<u16> {
        Some(self.0.borrow().status).filter(|&status| status > 0)
    }
    fn cancel(&mut self, tag: Tag) -> bool {
        let mut script = self.0.borrow_mut();
        script.cancels += 1;
        if let Some(at) = script.running.iter().position(|(_, running)| *running == tag) {
            script.running.remove(at);
            let result = -(Errno::ECANCELED as i32);
            script.done.push(Completion { tag, result, more: false });
        }
        true
    }
    fn supports(&self, kind: OpKind) -> bool {
        !(self.0.borrow().old && kind.is_range())
    }
    fn waker(&self) -> NoWaker {
        NoWaker
    }
    fn features(&self) -> &crate::ring::Features {
        &self.1
    }
    fn limits(&self) -> Limits {
        let sq_entries = self.0.borrow().sq_entries;
        Limits { sq_entries, cq_entries: 64, transfer_bytes_max: 1 << 20 }
    }
}

impl Scripted {
    fn new() -> Self {
        let script = Script { consumes: usize::MAX, sq_entries: 32, ..Script::default() };
        let features = crate::ring::Features::new(RingKind::Sim);
        Self(Rc::new(RefCell::new(script)), Rc::new(features))
    }

    fn answer_all(&self, answer: fn(&Op) -> i32) {
        self.0.borrow_mut().answer = Some(answer);
    }

    /// Completes the running op of that kind.
    fn complete(&self, kind: OpKind, result: i32) {
        let mut script = self.0.borrow_mut();
        let at = script.running.iter().position(|(op, _)| op.kind == kind).expect("it runs");
        let (_, tag) = script.running.remove(at);
        script.done.push(Completion { tag, result, more: false });
    }
}

fn geometry(align: u32) -> Geometry {
    Geometry {
        kind: TargetKind::File,
        len_bytes: 1 << 20,
        direct: align > 1,
        mem_align: align,
        offset_align: align,
        transfer_bytes_max: 1 << 20,
        file_system: crate::target::FileSystem::NONE,
        facts: crate::target::Facts::UNKNOWN,
    }
}

fn shard(ring: &Scripted, align: u32) -> (Shard<Scripted>, File<Scripted>) {
    let classes = vec![SizeClass { bytes: 4096, count: 16 }];
    let config = Config {
        in_flight_max: 8,
        backlog_max: 8,
        arena: ArenaConfig::new(classes),
        drain_ns: 1_000_000,
        bypass: crate::BypassMode::Off,
        ..Config::new()
    };
    let shard = Shard::with_ring(ring.clone(), &config).unwrap();
    let file = shard.adopt_simulated("scripted", 3, geometry(align));
    (shard, file)
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

/// A waker that runs `action`.
fn on_wake(action: impl Fn() + Send + Sync + 'static) -> Waker {
    struct Action<F>(F);
    impl<F: Fn() + Send + Sync> Wake for Action<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }
    Waker::from(Arc::new(Action(action)))
}

const WHOLE: fn(&Op) -> i32 =
    |op| op.memory.map_or(0, |memory| i32::try_from(memory.len_bytes()).unwrap());

#[test]
fn f15_flush_that_was_cut_off_its_write_acknowledges_nothing() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let mut write = pin!(file.write_durable_at(0, vec![1; 64]));
    assert!(poll(write.as_mut(), Waker::noop()).is_pending());
    ring.0.borrow_mut().consumes = 1;
    shard.turn(Wait::NONE).unwrap();
    shard.turn(Wait::NONE).unwrap();
    ring.0.borrow_mut().consumes = usize::MAX;
    // The flush ran alone, before the write was whole.
    ring.complete(OpKind::Fdatasync, 0);
    shard.turn(Wait::NONE).unwrap();
    ring.complete(OpKind::Write, 64);
    shard.turn(Wait::NONE).unwrap();
    assert!(poll(write.as_mut(), Waker::noop()).is_pending(), "no flush has covered it");
    shard.turn(Wait::NONE).unwrap();
    ring.complete(OpKind::Fdatasync, 0);
    shard.turn(Wait::NONE).unwrap();
    assert!(matches!(poll(write, Waker::noop()), Poll::Ready((Ok(()), _))));
}

#[test]
fn panicking_waker_does_not_cost_others_their_results() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    ring.answer_all(WHOLE);
    let bad = on_wake(|| panic!("a caller's waker"));
    let mut first = pin!(file.read_exact_at(0, vec![0; 64]));
    assert!(poll(first.as_mut(), &bad).is_pending());
    let mut second = pin!(file.write_all_at(0, vec![0; 64]));
    assert!(poll(second.as_mut(), Waker::noop()).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| shard.turn(Wait::NONE))).is_err());
    assert!(matches!(poll(second, Waker::noop()), Poll::Ready((Ok(()), _))));
    assert!(matches!(poll(first, Waker::noop()), Poll::Ready((Ok(()), _))));
}

#[test]
fn f02_panic_while_a_shard_drains_frees_nothing_in_flight() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let arena = shard.arena().clone();
    let mut stuck = CompletionQueue::<Read, _>::new();
    stuck.send(&file, 0, Packet::new(arena.alloc(4096).unwrap()), 0).unwrap();
    let mut other = CompletionQueue::<Read, Vec<u8>>::new();
    other.send(&file, 0, Packet::new(vec![0; 4]), 1).unwrap();
    let bad = on_wake(|| panic!("a caller's waker"));
    assert!(other.poll_pop(&mut Context::from_waker(&bad)).is_pending());
    shard.turn(Wait::NONE).unwrap();
    // The second completes during the drain; the first never does, whatever is cancelled.
    let (_, tag) = ring.0.borrow_mut().running.pop().unwrap();
    ring.0.borrow_mut().running.clear();
    ring.0.borrow_mut().done.push(Completion { tag, result: 4, more: false });
    drop((stuck, file));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(shard))).is_err());
    assert_eq!(arena.in_use(), 1, "the buffer of the op in flight is kept");
}

#[test]
fn blocking_inside_a_waker_is_refused_and_does_not_hang() {
    thread_local! {
        static INNER: RefCell<Option<File<Scripted>>> = const { RefCell::new(None) };
        static SEEN: RefCell<Option<BackendBusy>> = const { RefCell::new(None) };
    }
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    ring.answer_all(WHOLE);
    INNER.with(|inner| *inner.borrow_mut() = Some(file.clone()));
    let waker = on_wake(|| {
        let file = INNER.with(|inner| inner.borrow().clone()).unwrap();
        let blocked = block_on(&file, file.read_exact_at(0, vec![0; 8]));
        SEEN.with(|seen| *seen.borrow_mut() = blocked.err());
    });
    let mut read = pin!(file.read_exact_at(0, vec![0; 64]));
    assert!(poll(read.as_mut(), &waker).is_pending());
    shard.turn(Wait::NONE).unwrap();
    assert_eq!(SEEN.with(|seen| seen.borrow_mut().take()), Some(BackendBusy));
    INNER.with(|inner| drop(inner.borrow_mut().take()));
}

#[test]
fn f13_write_that_moves_nothing_ends() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    ring.answer_all(|_| 0);
    let mut write = pin!(file.write_all_at(0, vec![0; 64]));
    assert!(poll(write.as_mut(), Waker::noop()).is_pending());
    for _ in 0..10 {
        shard.turn(Wait::NONE).unwrap();
    }
    let Poll::Ready((Err(error), _)) = poll(write, Waker::noop()) else { panic!("it never ends") };
    assert_eq!(error.error.errno(), Some(Errno::EIO as i32));
    assert!(ring.0.borrow().queued.is_empty() && shard.is_idle());
}

#[test]
fn f23_eagain_is_given_up_after_its_retries() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    ring.answer_all(|_| -(Errno::EAGAIN as i32));
    let mut read = pin!(file.read_exact_at(0, vec![0; 64]));
    assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    let mut turns = 0;
    let result = loop {
        shard.turn(Wait::at_least(1)).unwrap();
        turns += 1;
        if let Poll::Ready((result, _)) = poll(read.as_mut(), Waker::noop()) {
            break result;
        }
        assert!(turns < 1000, "retried for ever");
    };
    assert_eq!(result.unwrap_err().error.errno(), Some(Errno::EAGAIN as i32));
    assert_eq!(shard.metrics().retries, 8);
}

#[test]
fn f23_device_that_is_not_ready_is_asked_again_for_half_a_second() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    // "Namespace not ready", and no word that it will stay so.
    ring.0.borrow_mut().status = 0x0082;
    ring.answer_all(|_| -(Errno::EAGAIN as i32));
    for (in_chain, recovers) in [(false, false), (true, false), (false, true), (true, true)] {
        ring.answer_all(|_| -(Errno::EAGAIN as i32));
        let start_ns = shard.now_ns();
        let retries = shard.metrics().retries;
        let mut done: Pin<Box<dyn Future<Output = _>>> = if in_chain {
            Box::pin(file.write_zeroes(0, 64))
        } else {
            Box::pin(async { file.write_all_at(0, vec![0; 64]).await.0 })
        };
        let mut turns = 0;
        let result = loop {
            if let Poll::Ready(result) = poll(done.as_mut(), Waker::noop()) {
                break result;
            }
            shard.turn(Wait::at_least(1)).unwrap();
            turns += 1;
            assert!(turns < 1000, "retried for ever");
            if recovers && shard.metrics().retries == retries + 3 {
                let whole =
                    |op: &Op| op.memory.map_or(0, |memory| memory.len_bytes().cast_signed());
                ring.answer_all(whole);
            }
        };
        let (retries, took_ns) = (shard.metrics().retries - retries, shard.now_ns() - start_ns);
        if recovers {
            assert_eq!((result, retries), (Ok(()), 3));
            continue;
        }
        let error = result.unwrap_err().error;
        let told = (error.errno(), error.device_status());
        assert_eq!(told, (Some(Errno::EREMOTEIO as i32), Some(0x0082)));
        assert_eq!(retries, 8);
        assert!((510_000_000..1_000_000_000).contains(&took_ns), "{took_ns} ns");
    }
}

#[test]
fn f50_bounced_read_shows_no_byte_of_another_packet() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 512);
    let mut secret = shard.arena().alloc(4096).unwrap();
    secret.fill(0x5e);
    drop(secret);
    ring.answer_all(|_| 0);
    let mut read = pin!(file.read_exact_at(1, vec![0; 100]));
    assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    let Poll::Ready((result, buffer)) = poll(read, Waker::noop()) else { panic!("it is over") };
    assert_eq!(result.unwrap_err().error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(buffer, vec![0; 100], "nothing was read, so nothing is shown");
}

#[test]
fn waker_that_owns_a_file_is_dropped_outside_the_shard() {
    thread_local! {
        static OWNED: RefCell<Option<File<Scripted>>> = const { RefCell::new(None) };
    }
    struct Owner;
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            OWNED.with(|owned| drop(owned.borrow_mut().take()));
        }
    }
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    OWNED.with(|owned| *owned.borrow_mut() = Some(shard.adopt_simulated("y", 4, geometry(1))));
    let mut sync = Box::pin(file.sync(Durability::Data));
    let waker = Waker::from(Arc::new(Owner));
    assert!(poll(sync.as_mut(), &waker).is_pending());
    drop(waker);
    drop(sync);
    assert!(OWNED.with(|owned| owned.borrow().is_none()), "its drop has run");
}

#[test]
fn f28_queued_flush_counts_as_work_and_dropped_ones_do_not_pile_up() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    for _ in 0..1000 {
        drop(file.sync(Durability::Data));
    }
    assert!(shard.has_work() && !shard.is_idle());
    assert!(shard.inner.core.borrow().has_room(), "dropped flushes leave room for I/O");
    ring.answer_all(WHOLE);
    shard.turn(Wait::NONE).unwrap();
    shard.turn(Wait::NONE).unwrap();
    assert!(shard.is_idle());
    assert_eq!(shard.metrics().flushes, 1);
}

#[test]
fn f21_completions_are_delivered_although_enter_fails() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let mut read = pin!(file.read_exact_at(0, vec![0; 8]));
    assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    ring.complete(OpKind::Read, 8);
    ring.0.borrow_mut().enter_fails = Some(Errno::ENOMEM);
    // Another op in flight, so that there is something to enter for.
    let mut second = pin!(file.read_exact_at(0, vec![0; 8]));
    assert!(poll(second.as_mut(), Waker::noop()).is_pending());
    assert!(matches!(shard.turn(Wait::NONE), Err(EngineError::Busy)));
    assert!(matches!(poll(read, Waker::noop()), Poll::Ready((Ok(()), _))));
    // A ring that breaks for good says so to whoever waits for room or sends.
    ring.0.borrow_mut().enter_fails = Some(Errno::EBADF);
    assert!(matches!(shard.turn(Wait::NONE), Err(EngineError::Ring { .. })));
    let mut third = pin!(file.read_exact_at(0, vec![0; 8]));
    let Poll::Ready((Err(error), _)) = poll(third.as_mut(), Waker::noop()) else {
        panic!("a broken ring takes nothing")
    };
    assert_eq!(error.error.kind(), ErrorKind::Closed);
}

#[test]
fn broken_ring_ends_the_blocking_call_and_everything_that_is_sent_later() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let (reading, other) = (file.clone(), shard.remote());
    let task = shard.spawn(async move { reading.read_exact_at(0, vec![0; 8]).await.0 }).unwrap();
    ring.0.borrow_mut().enter_fails = Some(Errno::EBADF);
    let broken = shard.block_on(file.read_exact_at(0, vec![0; 8])).map(drop);
    assert!(matches!(broken, Err(EngineError::Ring { errno: Errno::EBADF })), "{broken:?}");
    let again = shard.block_on(std::future::pending::<()>());
    assert!(matches!(again, Err(EngineError::Ring { errno: Errno::EBADF })), "{again:?}");
    // A host is told as the blocking call of the core is: by a panic.
    let hosted = catch_unwind(AssertUnwindSafe(|| {
        let drive = shard.get_backend().unwrap().unwrap();
        drive.poll_drive(&mut Context::from_waker(Waker::noop()));
    }));
    assert!(hosted.is_err());
    assert_eq!(shard.shutdown(), 2, "what is in flight stays the kernel's");
    assert!(task.is_finished());
    let mut late = pin!(other.open("/", &OpenOptions::new()));
    let late = poll(late.as_mut(), Waker::noop());
    assert!(matches!(late, Poll::Ready(Err(EngineError::Closed))), "{late:?}");
}

#[test]
fn retry_that_waits_for_its_time_is_driven_by_a_host() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let mut read = pin!(file.read_exact_at(0, vec![0; 8]));
    assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    ring.answer_all(|_| -(Errno::EAGAIN as i32));
    let woken = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&woken);
    let waker = on_wake(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let mut cx = Context::from_waker(&waker);
    shard.get_backend().unwrap().unwrap().poll_drive(&mut cx);
    assert_eq!(woken.load(Ordering::Relaxed), 1, "nothing else would call again");
    ring.answer_all(WHOLE);
    while poll(read.as_mut(), Waker::noop()).is_pending() {
        let before = woken.load(Ordering::Relaxed);
        shard.get_backend().unwrap().unwrap().poll_drive(&mut cx);
        let owed = woken.load(Ordering::Relaxed) > before;
        assert!(owed || shard.is_idle(), "nothing else would call again");
    }
}

#[test]
fn cancels_that_found_no_room_are_sent_later() {
    let ring = Scripted::new();
    ring.0.borrow_mut().sq_entries = 2;
    let (shard, file) = shard(&ring, 1);
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    for tag in 0..6 {
        queue.send(&file, 0, Packet::new(vec![0; 4]), tag).unwrap();
        shard.turn(Wait::NONE).unwrap();
    }
    assert_eq!(shard.in_flight(), 6);
    assert_eq!(shard.shutdown(), 0);
    assert_eq!(ring.0.borrow().cancels, 6);
}

#[test]
fn f37_write_in_flight_when_a_flush_fails_is_not_acknowledged_later() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let woken = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&woken);
    let waker = on_wake(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let mut sync = pin!(file.sync(Durability::Data));
    assert!(poll(sync.as_mut(), &waker).is_pending());
    shard.turn(Wait::NONE).unwrap();
    let mut write = pin!(file.write_durable_at(0, vec![1; 64]));
    assert!(poll(write.as_mut(), &waker).is_pending());
    shard.turn(Wait::NONE).unwrap();
    assert_eq!(ring.0.borrow().running.len(), 2, "a second flush is not linked meanwhile");
    ring.complete(OpKind::Write, 64);
    shard.turn(Wait::NONE).unwrap();
    ring.complete(OpKind::Fdatasync, -(Errno::EIO as i32));
    shard.turn(Wait::NONE).unwrap();
    assert_eq!(woken.load(Ordering::Relaxed), 2);
    let Poll::Ready(Err(error)) = poll(sync, &waker) else { panic!("the flush failed") };
    assert_eq!(error.error.kind(), ErrorKind::Poisoned);
    let Poll::Ready((Err(error), _)) = poll(write, &waker) else { panic!("it may be lost") };
    assert_eq!(error.error.kind(), ErrorKind::Poisoned);
    assert!(file.is_poisoned());
    let refused = pin!(file.io(0, Packet::<mfio_core::Write, _>::new(vec![1; 8])));
    assert!(matches!(poll(refused, &waker), Poll::Ready(done) if !done.is_ok()));
}

const CANCELED: i32 = -(Errno::ECANCELED as i32);

/// What is running, in order.
fn kinds(ring: &Scripted) -> Vec<(OpKind, u64, bool)> {
    let script = ring.0.borrow();
    script.running.iter().map(|(op, _)| (op.kind, op.offset_bytes, op.link)).collect()
}

fn page(shard: &Shard<Scripted>) -> crate::buffer::ArenaBuf {
    shard.arena().alloc(4096).unwrap()
}

#[test]
fn f14_chain_relaunches_the_rest_of_a_short_step_and_all_behind_it() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 512);
    let chain = file.chain().write_at(0, page(&shard)).write_at(8192, page(&shard));
    let mut chain = pin!(chain.sync(Durability::Data).commit());
    assert!(poll(chain.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    let launch =
        [(OpKind::Write, 0, true), (OpKind::Write, 8192, true), (OpKind::Fdatasync, 0, false)];
    assert_eq!(kinds(&ring), launch);
    // The flush is told first, and says nothing.
    ring.complete(OpKind::Fdatasync, CANCELED);
    ring.complete(OpKind::Write, 1000);
    shard.turn(Wait::NONE).unwrap();
    assert_eq!(kinds(&ring).len(), 1, "nothing is launched before every completion is there");
    ring.complete(OpKind::Write, CANCELED);
    shard.turn(Wait::NONE).unwrap();
    shard.turn(Wait::NONE).unwrap();
    assert_eq!(kinds(&ring)[0], (OpKind::Write, 512, true), "from an aligned point (F11)");
    assert_eq!(kinds(&ring)[1..], launch[1..]);
    for (kind, result) in [(OpKind::Write, 3584), (OpKind::Write, 4096), (OpKind::Fdatasync, 0)] {
        assert!(poll(chain.as_mut(), Waker::noop()).is_pending());
        ring.complete(kind, result);
        shard.turn(Wait::NONE).unwrap();
    }
    let Poll::Ready((Ok(()), mut buffers)) = poll(chain, Waker::noop()) else { panic!() };
    assert!(buffers.take(0).is_some() && buffers.take(1).is_some());
    assert_eq!(shard.metrics().chains_relaunched, 1);
}

#[test]
fn f16_error_of_a_chain_is_that_of_the_step_which_failed() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let chain = file.chain().write_at(0, page(&shard)).write_at(4096, page(&shard));
    let mut chain = pin!(chain.sync(Durability::Data).commit());
    assert!(poll(chain.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    ring.complete(OpKind::Fdatasync, CANCELED);
    ring.complete(OpKind::Write, 4096);
    ring.complete(OpKind::Write, -(Errno::EIO as i32));
    shard.turn(Wait::NONE).unwrap();
    let Poll::Ready((Err(error), _)) = poll(chain, Waker::noop()) else { panic!() };
    assert_eq!((error.step, error.done_steps), (1, 1));
    assert_eq!((error.io.op, error.io.offset_bytes), ("write", 4096));
    assert_eq!(error.io.error.errno(), Some(Errno::EIO as i32));
    assert!(!file.is_poisoned(), "the flush never ran");
}

#[test]
fn f15_chain_cut_by_a_submit_is_done_again_one_by_one() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let chain = file.chain().write_at(0, page(&shard)).sync(Durability::Data);
    let mut chain = pin!(chain.write_at(4096, page(&shard)).commit());
    assert!(poll(chain.as_mut(), Waker::noop()).is_pending());
    ring.0.borrow_mut().consumes = 1;
    for _ in 0..3 {
        shard.turn(Wait::NONE).unwrap();
    }
    ring.0.borrow_mut().consumes = usize::MAX;
    // Everything has succeeded, in whatever order: the flush proves nothing.
    for (kind, result) in [(OpKind::Fdatasync, 0), (OpKind::Write, 4096), (OpKind::Write, 4096)] {
        ring.complete(kind, result);
    }
    shard.turn(Wait::NONE).unwrap();
    shard.turn(Wait::NONE).unwrap();
    assert_eq!(kinds(&ring), [(OpKind::Fdatasync, 0, false)]);
    ring.complete(OpKind::Fdatasync, 0);
    shard.turn(Wait::NONE).unwrap();
    shard.turn(Wait::NONE).unwrap();
    assert_eq!(kinds(&ring), [(OpKind::Write, 4096, false)]);
    ring.complete(OpKind::Write, 4096);
    shard.turn(Wait::NONE).unwrap();
    assert!(matches!(poll(chain, Waker::noop()), Poll::Ready((Ok(()), _))));
}

#[test]
fn f37_failed_flush_of_a_chain_poisons_even_where_its_write_was_short() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let chain = file.chain().write_at(0, page(&shard)).sync(Durability::Data);
    let mut chain = pin!(chain.commit());
    assert!(poll(chain.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    ring.complete(OpKind::Write, 100);
    ring.complete(OpKind::Fdatasync, -(Errno::EIO as i32));
    shard.turn(Wait::NONE).unwrap();
    assert!(file.is_poisoned());
    shard.turn(Wait::NONE).unwrap();
    ring.complete(OpKind::Write, 3996);
    shard.turn(Wait::NONE).unwrap();
    let Poll::Ready((Err(error), _)) = poll(chain, Waker::noop()) else { panic!() };
    assert_eq!((error.step, error.io.error.kind()), (1, ErrorKind::Poisoned));
}

#[test]
fn f02_chain_that_never_comes_back_keeps_its_buffers() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let arena = shard.arena().clone();
    let mut chain = Box::pin(file.chain().write_at(0, page(&shard)).commit());
    assert!(poll(chain.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    // Lost: no cancel finds it.
    ring.0.borrow_mut().running.clear();
    drop(chain);
    assert_eq!(arena.in_use(), 1, "the kernel may still read it");
    drop((file, shard));
    assert_eq!(arena.in_use(), 1, "and no shutdown proves otherwise");
}

#[test]
fn f33_range_that_the_ring_has_no_op_for_is_changed_on_the_spot() {
    let ring = Scripted::new();
    ring.0.borrow_mut().old = true;
    let (shard, simulated) = shard(&ring, 1);
    let opened = tempfile::tempfile().unwrap();
    let seen = opened.try_clone().unwrap();
    let file = shard.adopt("real", opened, geometry(1));
    let done = pin!(file.set_len(12_345));
    assert!(matches!(poll(done, Waker::noop()), Poll::Ready(Ok(()))));
    assert_eq!(seen.metadata().unwrap().len(), 12_345);
    let done = pin!(file.preallocate(0, 1 << 16));
    assert!(matches!(poll(done, Waker::noop()), Poll::Ready(Ok(()))));
    assert_eq!(seen.metadata().unwrap().len(), 1 << 16);
    assert_eq!(shard.metrics().ops, 0);
    let refused = pin!(simulated.discard(0, 1));
    let Poll::Ready(Err(error)) = poll(refused, Waker::noop()) else { panic!() };
    assert_eq!(error.error.kind(), ErrorKind::Unsupported);
}

#[test]
fn f30_ops_that_the_kernel_never_starts_are_done_by_plain_calls() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, [7; 4096]).unwrap();
    let ring = Scripted::new();
    // As where no worker can be started for them.
    ring.answer_all(|_| CANCELED);
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let file = shard.open(&path, &OpenOptions::new().write(true)).unwrap();
    block_on(&shard, async {
        let mut two = page(&shard);
        two.fill(2);
        file.write_all_at(4096, two).await.0.unwrap();
        let (read, seven) = file.read_exact_at(0, page(&shard)).await;
        read.unwrap();
        assert!(seven.iter().all(|&byte| byte == 7));
        file.sync(Durability::Full).await.unwrap();
        file.write_durable_at(8192, page(&shard)).await.0.unwrap();
        let mut three = page(&shard);
        three.fill(3);
        let chain = file.chain().write_at(0, three).sync(Durability::Data);
        let chain = chain.read_at(4096, page(&shard)).write_from_previous(12288);
        chain.sync(Durability::Data).commit().await.0.unwrap();
        let beyond = file.read_exact_at(1 << 20, page(&shard)).await.0.unwrap_err();
        assert_eq!(beyond.error.kind(), ErrorKind::UnexpectedEof, "{beyond}");
    })
    .unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let at = |page: usize| bytes[page * 4096..][..4096].iter().max().copied();
    assert_eq!((bytes.len(), at(0), at(1), at(3)), (16384, Some(3), Some(2), Some(2)));
    let metrics = shard.metrics();
    assert!(metrics.in_place >= 8 && metrics.flush_failures == 0, "{metrics:?}");
    assert!(!file.is_poisoned());
}
