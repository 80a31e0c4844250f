//! Models of the packet protocol: completing against awaiting, dropping, revoking and taking from
//! a queue, under every order of steps that two or three threads can take, and every value that
//! the memory model lets them see. Run by `scripts/loom`.
//!
//! A model fails on a panic, a deadlock (a wake-up that got lost), or an access to a cell that
//! does not come after the one before it. Not here: use of freed memory; Miri looks for that.
#![allow(unsafe_code, reason = "models look at memory that the protocol has given back")]

use std::boxed::Box;
use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::mem::{ManuallyDrop, size_of};
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::vec::Vec;
use std::{panic, vec};

use loom::cell::UnsafeCell;
use loom::future::block_on;
use loom::thread::{JoinHandle, spawn};

// The lock itself, not its stand-in.
use super::lock::SpinLock;
use super::{Batch, Handle, Hold, NARROW_BYTES, Queue, StackValue};
use crate::packet::{Absorbed, CompletionQueue, Fragments, Packet, Read, Sink, View};
use crate::{Error, ErrorKind, IoRead, PacketIo, PacketIoExt, Refused};

const BYTES: usize = 2;

/// The bytes of a packet. Loom hears of every access to one, and of the end of all, so that a
/// transfer that does not come before the owner's next look at the bytes fails the model.
struct Landing {
    bytes: [UnsafeCell<u8>; BYTES],
    len: u64,
    _counted: Arc<()>,
}

// SAFETY: that the cells are shared properly is what loom checks.
unsafe impl Send for Landing {}
// SAFETY: as above.
unsafe impl Sync for Landing {}

impl Landing {
    fn read(&self) -> [u8; BYTES] {
        // SAFETY: loom fails the model if anybody writes meanwhile.
        [0, 1].map(|at: usize| self.bytes[at].with(|byte| unsafe { *byte }))
    }
}

impl Sink for Landing {
    fn len(&self) -> u64 {
        self.len
    }
    fn write_at(&self, at: u64, from: &[u8]) {
        for (cell, byte) in self.bytes[usize::try_from(at).unwrap()..].iter().zip(from) {
            // SAFETY: loom fails the model if anybody looks meanwhile.
            cell.with_mut(|to| unsafe { *to = *byte });
        }
    }
}

impl fmt::Debug for Landing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Landing")
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.bytes.iter().for_each(|byte| byte.with_mut(|_| ()));
    }
}

type Bytes = Absorbed<Landing>;

fn landing_of(len: u64) -> (Bytes, Arc<()>) {
    let counted = Arc::new(());
    let bytes = [0, 0].map(UnsafeCell::new);
    (Absorbed(Landing { bytes, len, _counted: Arc::clone(&counted) }), counted)
}

fn landing() -> (Bytes, Arc<()>) {
    landing_of(BYTES as u64)
}

#[track_caller]
fn assert_freed(counted: &Arc<()>) {
    assert_eq!(Arc::strong_count(counted), 1, "the bytes are freed, once");
}

/// A packet that nobody awaits yet, the hold over it, and what is let go of when it is freed.
fn armed() -> (Handle, Hold, Arc<()>) {
    let (bytes, counted) = landing();
    let mut handle = Handle::new();
    handle.put(bytes);
    let hold = handle.arm_sink::<Landing>();
    (handle, hold, counted)
}

/// A packet that goes to `queue`.
fn queued(queue: &Arc<Queue>, tag: u64) -> (Hold, Arc<()>) {
    let (handle, hold, counted) = armed();
    handle.enqueue(&hold, queue, tag);
    (hold, counted)
}

/// Counts how often it is woken; the `Arc` counts who still has it.
#[derive(Default)]
struct Calls(AtomicUsize);

impl Calls {
    fn new() -> (Arc<Self>, Waker) {
        let calls = Arc::new(Self::default());
        (Arc::clone(&calls), Waker::from(calls))
    }
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Keeps every view, so that a model decides which thread completes it.
#[derive(Default)]
struct Keeper(RefCell<Vec<View<Read>>>);

impl PacketIo<Read, ()> for Keeper {
    fn send_io(&self, (): (), view: View<Read>) -> Result<(), Refused<Read, ()>> {
        self.0.borrow_mut().push(view);
        Ok(())
    }
}

impl Keeper {
    fn take(&self) -> Hold {
        self.0.borrow_mut().pop().expect("a view was sent").into_hold()
    }
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Fills the range; false if there is nothing to fill any more.
fn fill_now(mut hold: Hold) -> bool {
    let bytes = vec![7; usize::try_from(hold.len()).unwrap()];
    let filled = hold.fill(0, &bytes);
    hold.done();
    filled
}

fn fill(hold: Hold) -> JoinHandle<bool> {
    spawn(move || fill_now(hold))
}

fn fail(hold: Hold, errno: i32) -> JoinHandle<bool> {
    spawn(move || {
        hold.fail(Error::os(errno));
        false
    })
}

fn abort(hold: Hold) -> JoinHandle<bool> {
    spawn(move || {
        drop(hold);
        false
    })
}

/// Fills the range as a backend does that has something borrowed, which wakes by itself or not.
fn fill_in_passing(mut hold: Hold, wakes: bool) -> JoinHandle<bool> {
    spawn(move || {
        let filled = hold.fill(0, &[7; BYTES]);
        let mut batch = Batch::default();
        let told = hold.try_done_in(&mut batch, |waker| {
            if wakes {
                waker.wake_by_ref();
            }
            wakes
        });
        match told {
            Ok(left) => left.into_iter().for_each(Waker::wake),
            Err(hold) => hold.done(),
        }
        filled
    })
}

fn join<const N: usize>(threads: [JoinHandle<bool>; N]) -> [bool; N] {
    threads.map(|thread| thread.join().unwrap())
}

#[test]
fn awaited_halves_completed_on_two_threads_wake_the_armed_waker() {
    loom::model(|| {
        let keeper = Keeper::default();
        let (bytes, counted) = landing();
        let mut future = Box::pin(keeper.io((), Packet::new(bytes)));
        let mut threads = None;
        let done = block_on(poll_fn(|cx| {
            let polled = future.as_mut().poll(cx);
            threads.get_or_insert_with(|| {
                let (left, right) = keeper.take().split_at(1);
                [fill(left), fail(right, 5)]
            });
            polled
        }));
        let failed = done.failed_ranges();
        assert_eq!((failed.len(), failed[0].start, failed[0].end), (1, 1, 2));
        assert_eq!(done.into_buffer().0.read(), [7, 0]);
        join(threads.unwrap());
        assert_freed(&counted);
    });
}

#[test]
fn awaited_header_is_used_again_while_the_other_thread_leaves_it() {
    loom::model(|| {
        let keeper = Keeper::default();
        let (bytes, counted) = landing();
        let mut future = Box::pin(keeper.io((), Packet::new(bytes)));
        let mut thread = None;
        let done = block_on(poll_fn(|cx| {
            let polled = future.as_mut().poll(cx);
            thread.get_or_insert_with(|| fill(keeper.take()));
            polled
        }));
        assert_eq!(done.packet.buffer().0.read(), [7; BYTES]);
        let mut again = Box::pin(keeper.io((), done.into_packet()));
        assert!(poll_once(again.as_mut()).is_pending());
        drop(keeper.take());
        let Poll::Ready(done) = poll_once(again.as_mut()) else { panic!("every byte failed") };
        assert_eq!(done.error().map(|error| error.kind()), Some(ErrorKind::Aborted));
        drop(done);
        join([thread.unwrap()]);
        assert_freed(&counted);
    });
}

#[test]
fn awaited_last_hold_goes_while_a_waker_is_registered() {
    for halves in [false, true] {
        loom::model(move || {
            let (mut handle, hold, counted) = armed();
            let threads = if halves {
                let (left, right) = hold.split_at(1);
                vec![fill(left), fill(right)]
            } else {
                vec![fill(hold)]
            };
            block_on(poll_fn(|cx| handle.poll_idle(cx)));
            assert!(handle.succeeded());
            assert_eq!(handle.take::<Bytes>().0.read(), [7; BYTES]);
            for thread in threads {
                assert!(thread.join().unwrap());
            }
            assert_freed(&counted);
        });
    }
}

#[test]
fn awaited_packet_is_told_in_passing_and_used_again() {
    for wakes in [false, true] {
        loom::model(move || {
            let keeper = Keeper::default();
            let (bytes, counted) = landing();
            let mut packet = Some(Packet::new(bytes));
            for _again in 0..2 {
                let mut future = Box::pin(keeper.io((), packet.take().unwrap()));
                let mut thread = None;
                let done = block_on(poll_fn(|cx| {
                    let polled = future.as_mut().poll(cx);
                    thread.get_or_insert_with(|| fill_in_passing(keeper.take(), wakes));
                    polled
                }));
                assert_eq!(done.packet.buffer().0.read(), [7; BYTES]);
                packet = Some(done.into_packet());
                join([thread.unwrap()]);
            }
            drop(packet);
            assert_freed(&counted);
        });
    }
}

#[test]
fn awaited_packet_is_told_in_passing_while_another_waker_is_registered() {
    for wakes in [false, true] {
        loom::model(move || {
            let (mut handle, hold, counted) = armed();
            let [(first, one), (last, other)] = [Calls::new(), Calls::new()];
            handle.arm_waker(&hold, &one);
            let thread = fill_in_passing(hold, wakes);
            let polled = handle.poll_idle(&mut Context::from_waker(&other));
            join([thread]);
            let woken = (first.count(), last.count());
            match polled {
                Poll::Pending => assert_eq!(woken, (0, 1)),
                Poll::Ready(()) => assert!(woken == (0, 0) || woken == (1, 0), "{woken:?}"),
            }
            assert!(handle.is_idle());
            assert_eq!(handle.take::<Bytes>().0.read(), [7; BYTES]);
            drop((one, other));
            assert_eq!((Arc::strong_count(&first), Arc::strong_count(&last)), (1, 1));
            assert_freed(&counted);
        });
    }
}

#[test]
fn dropped_while_its_last_hold_goes_in_passing() {
    for (awaited, wakes) in [(false, true), (true, false), (true, true)] {
        loom::model(move || {
            let (mut handle, hold, counted) = armed();
            let (calls, waker) = Calls::new();
            if awaited {
                handle.arm_waker(&hold, &waker);
            }
            let thread = fill_in_passing(hold, wakes);
            drop(handle);
            join([thread]);
            assert_freed(&counted);
            drop(waker);
            assert_eq!(Arc::strong_count(&calls), 1);
        });
    }
}

#[test]
fn awaited_packet_wakes_the_last_registered_waker_once_and_no_other() {
    loom::model(|| {
        let (mut handle, hold, counted) = armed();
        let [(first, one), (last, other)] = [Calls::new(), Calls::new()];
        handle.arm_waker(&hold, &one);
        let (left, right) = hold.split_at(1);
        let threads = [fill(left), fill(right)];
        let polled = handle.poll_idle(&mut Context::from_waker(&other));
        join(threads);
        let woken = (first.count(), last.count());
        match polled {
            Poll::Pending => assert_eq!(woken, (0, 1)),
            Poll::Ready(()) => assert!(woken == (0, 0) || woken == (1, 0), "{woken:?}"),
        }
        assert!(handle.is_idle());
        assert_eq!(handle.take::<Bytes>().0.read(), [7; BYTES]);
        drop((one, other));
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&last)), (1, 1));
        assert_freed(&counted);
    });
}

#[test]
fn awaited_result_is_seen_by_polling_alone() {
    loom::model(|| {
        let (mut handle, hold, counted) = armed();
        let (left, right) = hold.split_at(1);
        let threads = [fill(left), fail(right, 5)];
        if handle.is_idle() {
            assert!(!handle.succeeded());
            assert_eq!(handle.stored::<Bytes>().0.read(), [7, 0]);
            assert_eq!(handle.failed(|failed| failed.len()), 1);
        }
        if handle.poll_armed().is_ready() {
            assert_eq!(handle.stored_mut::<Bytes>().0.read(), [7, 0]);
        }
        join(threads);
        drop(handle);
        assert_freed(&counted);
    });
}

#[test]
fn dropped_while_its_last_hold_goes() {
    for awaited in [false, true] {
        loom::model(move || {
            let (mut handle, hold, counted) = armed();
            let (calls, waker) = Calls::new();
            if awaited {
                handle.arm_waker(&hold, &waker);
            }
            let thread = fill(hold);
            drop(handle);
            join([thread]);
            assert_freed(&counted);
            drop(waker);
            assert_eq!(Arc::strong_count(&calls), 1);
        });
    }
}

#[test]
fn dropped_while_two_threads_complete_its_halves() {
    for awaited in [false, true] {
        loom::model(move || {
            let (mut handle, hold, counted) = armed();
            let (calls, waker) = Calls::new();
            if awaited {
                handle.arm_waker(&hold, &waker);
            }
            let (left, right) = hold.split_at(1);
            let threads = [fill(left), fail(right, 5)];
            drop(handle);
            join(threads);
            assert_freed(&counted);
            drop(waker);
            assert_eq!(Arc::strong_count(&calls), 1);
        });
    }
}

#[test]
fn dropped_while_one_thread_splits_and_the_other_completes() {
    loom::model(|| {
        let (handle, hold, counted) = armed();
        let (left, right) = hold.split_at(1);
        let splitting = spawn(move || {
            let (byte, nothing) = left.split_at(1);
            drop(nothing);
            fill_now(byte)
        });
        let threads = [splitting, fill(right)];
        drop(handle);
        join(threads);
        assert_freed(&counted);
    });
}

#[test]
fn dropped_right_after_another_waker_was_registered() {
    loom::model(|| {
        let (mut handle, hold, counted) = armed();
        let (calls, waker) = Calls::new();
        let (left, right) = hold.split_at(1);
        let threads = [fill(left), fill(right)];
        let polled = handle.poll_idle(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            assert_eq!(handle.stored::<Bytes>().0.read(), [7; BYTES]);
        }
        drop(handle);
        join(threads);
        assert_freed(&counted);
        drop(waker);
        assert_eq!(Arc::strong_count(&calls), 1);
    });
}

#[test]
fn dropped_future_and_cancelled_future_free_the_packet_once() {
    for cancel in [false, true] {
        loom::model(move || {
            let keeper = Keeper::default();
            let (bytes, counted) = landing();
            let mut future = Box::pin(keeper.io((), Packet::new(bytes)));
            assert!(poll_once(future.as_mut()).is_pending());
            let (left, right) = keeper.take().split_at(1);
            let threads = [fill(left), abort(right)];
            if cancel {
                future.cancel();
                let done = block_on(future);
                assert_eq!(done.error().map(|error| error.kind()), Some(ErrorKind::Aborted));
                assert_eq!(done.into_buffer().0.read(), [7, 0]);
            } else {
                drop(future);
            }
            join(threads);
            assert_freed(&counted);
        });
    }
}

/// What a value's place holds once the value is gone.
const SCORCHED: u8 = 0x55;

/// A value whose place outlives it, so that a late copy is seen.
struct Place(Box<ManuallyDrop<StackValue<[u8; BYTES]>>>);

impl Place {
    fn new(value: [u8; BYTES]) -> Self {
        Self(Box::new(ManuallyDrop::new(StackValue::new(value))))
    }

    fn pinned(&mut self) -> Pin<&mut StackValue<[u8; BYTES]>> {
        // SAFETY: in a box, from which it is dropped in place.
        unsafe { Pin::new_unchecked(&mut **self.0) }
    }

    fn arm(&mut self, writable: bool) -> Hold {
        self.pinned().arm(writable, &Context::from_waker(Waker::noop()))
    }

    fn bytes(&mut self) -> &mut [u8] {
        let at = ptr::from_mut(&mut *self.0).cast::<u8>();
        // SAFETY: called when the value is gone and its place has been overwritten.
        unsafe { std::slice::from_raw_parts_mut(at, size_of::<StackValue<[u8; BYTES]>>()) }
    }

    /// Drops the value and uses its place for something else.
    fn leave(&mut self) {
        // SAFETY: called once; the value is not used again.
        unsafe { ManuallyDrop::drop(&mut self.0) };
        let at = ptr::from_mut(&mut *self.0);
        // SAFETY: the place is the box's own, and nothing lives in it any more.
        unsafe { at.write_bytes(SCORCHED, 1) };
    }
}

#[test]
fn revoked_value_is_not_written_any_more() {
    for halves in [false, true] {
        loom::model(move || {
            let mut place = Place::new([0; BYTES]);
            let hold = place.arm(true);
            let threads = if halves {
                let (left, right) = hold.split_at(1);
                vec![fill(left), fill(right)]
            } else {
                vec![fill(hold)]
            };
            place.leave();
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(place.bytes().iter().all(|&byte| byte == SCORCHED));
        });
    }
}

#[test]
fn revoked_value_is_not_read_any_more() {
    loom::model(|| {
        let mut place = Place::new([1; BYTES]);
        let hold = place.arm(false);
        let thread = spawn(move || {
            let mut seen = [0; BYTES];
            let copied = hold.copy_out(0, &mut seen);
            assert_eq!(seen, if copied { [1; BYTES] } else { [0; BYTES] });
            hold.done();
            copied
        });
        place.leave();
        join([thread]);
    });
}

#[test]
fn revoked_value_is_the_futures_own_when_it_is_polled_and_then_dropped() {
    loom::model(|| {
        let mut place = Place::new([0; BYTES]);
        let thread = fill(place.arm(true));
        let (calls, waker) = Calls::new();
        let polled = place.pinned().poll_done(&mut Context::from_waker(&waker));
        if let Poll::Ready(handle) = polled {
            assert!(handle.succeeded());
            assert_eq!(place.pinned().get(), [7; BYTES]);
        }
        place.leave();
        join([thread]);
        assert!(place.bytes().iter().all(|&byte| byte == SCORCHED));
        drop(waker);
        assert_eq!(Arc::strong_count(&calls), 1);
    });
}

#[test]
fn awaited_value_is_whole() {
    loom::model(|| {
        let keeper = Keeper::default();
        let mut future = Box::pin(keeper.read_value::<u32>(()));
        assert!(poll_once(future.as_mut()).is_pending());
        let (left, right) = keeper.take().split_at(1);
        let threads = [fill(left), fill(right)];
        assert_eq!(block_on(future), Ok(0x0707_0707));
        assert_eq!(join(threads), [true; 2]);
    });
}

#[test]
fn queue_filled_by_two_threads_wakes_its_reader_and_loses_nothing() {
    loom::model(|| {
        let keeper = Keeper::default();
        let mut queue = CompletionQueue::<Read, Bytes>::new();
        let counted = [0, 1].map(|tag| {
            let (bytes, counted) = landing();
            queue.send(&keeper, (), Packet::new(bytes), tag).unwrap();
            counted
        });
        let threads = [fill(keeper.take()), fill(keeper.take())];
        let mut tags = [0, 1].map(|_| {
            let (tag, done) = block_on(poll_fn(|cx| queue.poll_pop(cx))).unwrap();
            assert_eq!(done.into_buffer().0.read(), [7; BYTES]);
            tag
        });
        tags.sort_unstable();
        assert_eq!(tags, [0, 1]);
        assert_eq!(block_on(poll_fn(|cx| queue.poll_pop(cx))).map(|(tag, _)| tag), None);
        join(threads);
        counted.iter().for_each(assert_freed);
    });
}

#[test]
fn queue_closed_while_two_threads_fill_it_frees_every_packet() {
    for take_first in [false, true] {
        loom::model(move || {
            let queue = Queue::new();
            let (one, first) = queued(&queue, 1);
            let (other, second) = queued(&queue, 2);
            let threads = [fill(one), fill(other)];
            let mut taken = Vec::new();
            if take_first {
                queue.take_all(&mut taken);
            }
            queue.close();
            drop(queue);
            for (_, handle) in taken {
                assert_eq!(handle.take::<Bytes>().0.read(), [7; BYTES]);
            }
            join(threads);
            assert_freed(&first);
            assert_freed(&second);
        });
    }
}

#[test]
fn queue_gets_a_packet_of_two_halves_once() {
    for fails in [false, true] {
        loom::model(move || {
            let queue = Queue::new();
            let (hold, counted) = queued(&queue, 3);
            let (left, right) = hold.split_at(1);
            let right = if fails { fail(right, 5) } else { fill(right) };
            let threads = [fill(left), right];
            let look = |taken: &[(u64, Handle)]| {
                let (tag, handle) = &taken[0];
                assert_eq!((taken.len(), *tag, handle.succeeded()), (1, 3, !fails));
                assert_eq!(handle.failed(|failed| failed.len()), usize::from(fails));
                let last = if fails { 0 } else { 7 };
                assert_eq!(handle.stored::<Bytes>().0.read(), [7, last]);
            };
            let mut taken = Vec::new();
            queue.take_all(&mut taken);
            // Not only after the threads have ended: then everything they did has come before.
            if !taken.is_empty() {
                look(&taken);
            }
            join(threads);
            queue.take_all(&mut taken);
            look(&taken);
            drop(taken);
            queue.close();
            assert_freed(&counted);
        });
    }
}

#[test]
fn queue_gives_a_packet_to_be_sent_again_at_once() {
    loom::model(|| {
        let queue = Queue::new();
        let (hold, counted) = queued(&queue, 1);
        let thread = fill(hold);
        let mut taken = Vec::new();
        queue.take_all(&mut taken);
        if let Some((_, mut handle)) = taken.pop() {
            let hold = handle.arm_sink::<Landing>();
            handle.enqueue(&hold, &queue, 2);
            assert!(fill_now(hold));
        }
        join([thread]);
        queue.take_all(&mut taken);
        assert_eq!(taken.len(), 1);
        drop(taken);
        assert_freed(&counted);
    });
}

#[test]
fn queue_gets_a_batch_beside_a_packet_of_another_thread() {
    for close in [false, true] {
        loom::model(move || {
            let queue = Queue::new();
            let sent = [0, 1, 2].map(|tag| queued(&queue, tag));
            let counted = [0, 1, 2].map(|tag: usize| Arc::clone(&sent[tag].1));
            let [one, two, three] = sent.map(|(hold, _)| hold);
            let batched = spawn(move || {
                let mut batch = Batch::default();
                for mut hold in [one, two] {
                    assert!(hold.fill(0, &[7; BYTES]));
                    hold.done_in(&mut batch);
                }
                true
            });
            let threads = [batched, fill(three)];
            let mut taken = Vec::new();
            queue.take_all(&mut taken);
            for (_, handle) in &taken {
                assert_eq!(handle.stored::<Bytes>().0.read(), [7; BYTES]);
            }
            if close {
                queue.close();
            }
            join(threads);
            if !close {
                queue.take_all(&mut taken);
                assert_eq!(taken.len(), 3);
                let at = |tag| taken.iter().position(|(other, _)| *other == tag).unwrap();
                assert!(at(1) < at(0), "a batch is taken together, newest first");
            }
            for (_, handle) in taken {
                assert_eq!(handle.take::<Bytes>().0.read(), [7; BYTES]);
            }
            counted.iter().for_each(assert_freed);
        });
    }
}

#[test]
fn queue_wakes_its_taker_for_a_batch() {
    loom::model(|| {
        let keeper = Keeper::default();
        let mut queue = CompletionQueue::<Read, Bytes>::new();
        for tag in 0..2 {
            queue.send(&keeper, (), Packet::new(landing().0), tag).unwrap();
        }
        let views = keeper.0.take();
        let thread = spawn(move || {
            let mut batch = Batch::default();
            views.into_iter().for_each(|view| view.into_hold().done_in(&mut batch));
            true
        });
        for expected in 0..2 {
            let next = block_on(poll_fn(|cx| queue.poll_pop(cx)));
            assert_eq!(next.map(|(tag, _)| tag), Some(expected));
        }
        join([thread]);
    });
}

#[test]
fn lock_keeps_the_failures_of_two_threads() {
    loom::model(|| {
        let (mut handle, hold, counted) = armed();
        let (left, right) = hold.split_at(1);
        let threads = [fail(left, 5), fail(right, 28)];
        block_on(poll_fn(|cx| handle.poll_idle(cx)));
        let failed = handle.failed(|failed| failed.clone());
        let failed: Vec<_> = failed.iter().map(|range| (range.start, range.error)).collect();
        assert_eq!(failed, [(0, Error::os(5)), (1, Error::os(28))]);
        drop(handle);
        join(threads);
        assert_freed(&counted);
    });
}

#[test]
fn lock_keeps_the_bounds_of_wide_holds() {
    loom::model(|| {
        let (bytes, counted) = landing_of(4 * NARROW_BYTES);
        let mut handle = Handle::new();
        handle.put(bytes);
        let (left, right) = handle.arm_sink::<Landing>().split_at(2 * NARROW_BYTES);
        let split = |hold: Hold, start| {
            spawn(move || {
                let (one, other) = hold.split_at(NARROW_BYTES);
                assert_eq!((one.start(), one.len()), (start, NARROW_BYTES));
                assert_eq!((other.start(), other.len()), (start + NARROW_BYTES, NARROW_BYTES));
                one.done();
                other.done();
                true
            })
        };
        let threads = [split(left, 0), split(right, 2 * NARROW_BYTES)];
        join(threads);
        assert!(handle.is_idle() && handle.succeeded());
        drop(handle);
        assert_freed(&counted);
    });
}

#[test]
fn lock_lets_one_thread_in_at_a_time() {
    loom::model(|| {
        let lock = Arc::new(SpinLock::new(0));
        let other = Arc::clone(&lock);
        let thread = spawn(move || other.with(|value| *value += 1));
        assert!(lock.with(|value| core::mem::replace(value, *value + 1)) <= 1);
        thread.join().unwrap();
        let lock = Arc::into_inner(lock).expect("the thread is gone");
        assert_eq!(lock.into_inner(), 2);
    });
}

#[test]
fn output_hears_of_both_halves_before_the_packet_is_complete() {
    loom::model(|| {
        let fragments = Fragments::new();
        let (bytes, counted) = landing();
        let mut handle = Handle::new();
        handle.put(bytes);
        handle.set_output(Some(fragments.output()));
        let (left, right) = handle.arm_sink::<Landing>().split_at(1);
        let threads = [fill(left), fail(right, 5)];
        let mut starts = [0, 1].map(|_| {
            let fragment = block_on(poll_fn(|cx| fragments.poll_next(cx))).unwrap();
            (fragment.start, fragment.error.is_some())
        });
        starts.sort_unstable();
        assert_eq!(starts, [(0, false), (1, true)]);
        drop(handle);
        join(threads);
        assert_freed(&counted);
    });
}
