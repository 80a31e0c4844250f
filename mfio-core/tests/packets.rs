//! Packets from the outside: ownership, back-pressure, threads.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};

use mfio_core::mem::Mem;
use mfio_core::{
    BackendBusy, CompletionBatch, CompletionQueue, Error, ErrorKind, FailedRange, IoRead, IoWrite,
    Packet, PacketId, PacketIo, PacketIoExt, Read, Refused, View, Write, block_on,
};

/// Takes every view and keeps it, so that a test decides what becomes of it.
#[derive(Default)]
struct Keeper {
    views: RefCell<Vec<View<Read>>>,
    abandoned: RefCell<Vec<PacketId>>,
}

impl PacketIo<Read, ()> for Keeper {
    fn send_io(&self, (): (), view: View<Read>) -> Result<(), Refused<Read, ()>> {
        self.views.borrow_mut().push(view);
        Ok(())
    }

    fn abandon(&self, packet: PacketId) {
        self.abandoned.borrow_mut().push(packet);
    }
}

impl Keeper {
    fn take(&self) -> View<Read> {
        self.views.borrow_mut().pop().expect("a view was sent")
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// C3: what a backend forgets is a failure.
#[test]
fn c03_dropped_view_is_aborted_and_not_success() {
    let keeper = Keeper::default();
    let mut future = pin!(keeper.io((), Packet::<Read, _>::new(vec![0; 8])));
    assert!(poll_once(future.as_mut()).is_pending());
    drop(keeper.take());
    let Poll::Ready(done) = poll_once(future) else { panic!("the view is gone") };
    assert_eq!(done.result(), Err(Error::new(ErrorKind::Aborted)));
    assert_eq!(done.bytes(), b"");
}

/// C1: the buffer belongs to the operation, not to the future.
#[test]
fn c01_view_outlives_the_future_that_was_dropped() {
    let keeper = Keeper::default();
    let mut future = Box::pin(keeper.io((), Packet::<Read, _>::new(vec![0; 4096])));
    assert!(poll_once(future.as_mut()).is_pending());
    drop(future);
    let view = keeper.take();
    assert_eq!(*keeper.abandoned.borrow(), [view.packet_id()]);
    let mut lent = view.try_alloc(1).unwrap();
    lent.as_mut_slice().fill(9);
    lent.done();
}

#[test]
fn value_of_a_caller_that_left_is_not_written_and_has_no_address() {
    let keeper = Keeper::default();
    let mut future = Box::pin(keeper.read_value::<u64>(()));
    assert!(poll_once(future.as_mut()).is_pending());
    let view = keeper.take().try_alloc(1).expect_err("a stack has no address to lend");
    drop(future);
    assert_eq!(keeper.abandoned.borrow().len(), 1);
    assert!(view.fill_from(&[1; 8]).is_none());
}

/// C4: a value is whole or an error.
#[test]
fn c04_value_beyond_the_end_is_an_error() {
    let target = Mem::from(vec![1, 2, 3]);
    let result = block_on(&target, target.read_value::<u64>(0)).unwrap();
    assert_eq!(result, Err(Error::new(ErrorKind::UnexpectedEof)));
}

/// C6: each half of a split write takes its own bytes.
#[test]
fn c06_split_write_delivers_the_right_halves() {
    struct Halves<'a>(&'a Mem);
    impl PacketIo<Write, u64> for Halves<'_> {
        fn send_io(&self, at: u64, view: View<Write>) -> Result<(), Refused<Write>> {
            let middle = view.len() / 2;
            let (left, right) = view.split_at(middle);
            self.0.send_io(at + middle, right).unwrap();
            self.0.send_io(at, left)
        }
    }
    let target = Mem::from(vec![0xee; 10]);
    let data = vec![1, 2, 3, 4, 5, 6, 7, 8];
    let (result, _) = block_on(&target, Halves(&target).write_exact(1, data)).unwrap();
    assert_eq!(result, Ok(()));
    assert_eq!(target.snapshot(), [0xee, 1, 2, 3, 4, 5, 6, 7, 8, 0xee]);
}

/// C7: a waker is dropped when it has served.
#[test]
fn c07_awaited_packets_leak_no_waker() {
    struct Count;
    impl Wake for Count {
        fn wake(self: Arc<Self>) {}
    }
    let count = Arc::new(Count);
    let waker = Waker::from(Arc::clone(&count));
    let keeper = Keeper::default();
    for round in 0..100 {
        let mut future = pin!(keeper.io((), Packet::<Read, _>::new(vec![0; 8])));
        let mut cx = Context::from_waker(&waker);
        assert!(future.as_mut().poll(&mut cx).is_pending());
        assert!(future.as_mut().poll(&mut cx).is_pending());
        if round % 2 == 0 {
            keeper.take().filled();
            assert!(future.as_mut().poll(&mut cx).is_ready());
        } else {
            drop(keeper.take());
        }
    }
    drop(keeper);
    drop(waker);
    assert_eq!(Arc::strong_count(&count), 1);
}

/// C20: partial success is neither success nor nothing.
#[test]
fn c20_half_a_write_is_an_error_of_the_other_half() {
    let target = Mem::from(vec![0; 4]);
    let packet = Packet::<Write, _>::new(vec![7; 8]);
    let done = block_on(&target, target.io(0, packet)).unwrap();
    let error = Error::new(ErrorKind::OutOfRange);
    assert_eq!(done.failed_ranges(), [FailedRange { start: 4, end: 8, error }]);
    assert_eq!(done.contiguous_bytes(), 4);
    assert_eq!(target.snapshot(), [7; 4]);
    let (some, end, _) = block_on(&target, target.read_some(2, vec![0; 8])).unwrap();
    assert_eq!((some, end), (2, None));
}

#[test]
fn full_backend_hands_the_packet_back_and_awaiting_waits_for_room() {
    let target = Mem::polled(vec![3; 64], 1);
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    queue.send(&target, 0, Packet::new(vec![0; 4]), 1).unwrap();
    let unsent = queue.send(&target, 8, Packet::new(vec![0; 4]), 2).unwrap_err();
    assert_eq!((unsent.param, queue.in_flight()), (8, 1));
    assert_eq!(unsent.packet.into_buffer(), [0; 4]);

    // Awaiting drives the target, which makes room, which wakes.
    let (result, bytes) = block_on(&target, target.read_exact(60, vec![0; 4])).unwrap();
    assert_eq!((result, bytes), (Ok(()), vec![3; 4]));
    assert_eq!(queue.pop().map(|(tag, done)| (tag, done.is_ok())), Some((1, true)));
}

#[test]
fn reserved_room_is_all_or_nothing_and_kept_from_others() {
    let target = Mem::polled(vec![0; 64], 3);
    let reserve = |views| PacketIo::<Read, u64>::reserve(&target, views);
    assert!(reserve(2) && !reserve(2));
    assert!(reserve(1) && !reserve(1));
    PacketIo::<Read, u64>::release(&target, 1);
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    for tag in 0..3 {
        queue.send(&target, 0, Packet::new(vec![0; 4]), tag).unwrap();
    }
    assert!(queue.send(&target, 0, Packet::new(vec![0; 4]), 3).is_err());
}

#[test]
fn completions_come_in_order_and_the_packets_can_be_sent_again() {
    let target = Mem::from((0..=255).collect::<Vec<u8>>());
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    for at in 0..16 {
        queue.send(&target, at, Packet::new(vec![0; 1]), at).unwrap();
    }
    for expected in 0..64 {
        let (tag, done) = queue.pop().unwrap();
        let byte = u8::try_from(expected).unwrap();
        assert_eq!((tag, done.bytes()), (expected, &[byte][..]));
        queue.send(&target, expected + 16, done.into_packet(), expected + 16).unwrap();
    }
    assert_eq!(queue.in_flight(), 16);
}

#[test]
fn queue_dropped_with_packets_under_way_leaves_them_to_their_backend() {
    let target = Mem::polled(vec![0; 64], 8);
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    for at in 0..8 {
        queue.send(&target, at, Packet::new(vec![0; 8]), at).unwrap();
    }
    drop(queue);
    block_on(&target, target.read_value::<u8>(0)).unwrap().unwrap();
}

#[test]
fn batch_hands_packets_to_their_queues_in_order_and_frees_those_of_closed_ones() {
    let keeper = Keeper::default();
    let mut one = CompletionQueue::<Read, Vec<u8>>::new();
    let mut other = CompletionQueue::<Read, Vec<u8>>::new();
    let mut closed = CompletionQueue::<Read, Vec<u8>>::new();
    for tag in 0..12 {
        let queue = match tag % 4 {
            2 => &mut other,
            3 => &mut closed,
            _ => &mut one,
        };
        queue.send(&keeper, (), Packet::new(vec![0; 4]), tag).unwrap();
    }
    drop(closed);
    let mut awaited = pin!(keeper.io((), Packet::<Read, _>::new(vec![0; 4])));
    assert!(poll_once(awaited.as_mut()).is_pending());
    let mut batch = CompletionBatch::new();
    for view in keeper.views.take() {
        view.try_alloc(1).unwrap().done_in(&mut batch);
    }
    assert!(poll_once(awaited).is_ready(), "who awaits is told at once");
    drop(batch);
    let tags = |queue: &mut CompletionQueue<Read, Vec<u8>>| {
        std::iter::from_fn(|| queue.pop().map(|(tag, _)| tag)).collect::<Vec<_>>()
    };
    assert_eq!(tags(&mut one), [0, 1, 4, 5, 8, 9]);
    assert_eq!(tags(&mut other), [2, 6, 10]);
}

#[test]
fn queue_takes_its_packets_out_of_a_batch_unless_others_have_come_or_are_waited_for() {
    let keeper = Keeper::default();
    let mut queues = [CompletionQueue::<Read, Vec<u8>>::new(), CompletionQueue::new()];
    let send = |queue: &mut CompletionQueue<Read, Vec<u8>>, tags: std::ops::Range<u64>| {
        for tag in tags {
            queue.send(&keeper, (), Packet::new(vec![0; 4]), tag).unwrap();
        }
        let mut batch = CompletionBatch::new();
        for view in keeper.views.take() {
            view.try_alloc(1).unwrap().done_in(&mut batch);
        }
        batch
    };
    let tags = |queue: &mut CompletionQueue<Read, Vec<u8>>| {
        std::iter::from_fn(|| queue.pop().map(|(tag, _)| tag)).collect::<Vec<_>>()
    };
    let [one, other] = &mut queues;
    let mut batch = send(one, 0..3);
    other.take_from(&mut batch);
    assert!(!batch.is_empty(), "not those of others");
    one.take_from(&mut batch);
    assert!(batch.is_empty(), "nothing is left to be told");
    // Some have not been popped yet: those that come go the usual way.
    let mut more = send(one, 3..5);
    one.take_from(&mut more);
    assert!(!more.is_empty());
    drop(more);
    assert_eq!(tags(one), [0, 1, 2, 3, 4]);
    // Some have arrived already.
    drop(send(one, 5..6));
    let mut more = send(one, 6..8);
    one.take_from(&mut more);
    assert!(!more.is_empty());
    drop(more);
    assert_eq!(tags(one), [5, 6, 7]);
    // Somebody waits, and is woken.
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    one.send(&keeper, (), Packet::new(vec![0; 4]), 8).unwrap();
    let view = keeper.take();
    assert!(one.poll_pop(&mut Context::from_waker(&waker)).is_pending());
    let mut batch = CompletionBatch::new();
    view.try_alloc(1).unwrap().done_in(&mut batch);
    one.take_from(&mut batch);
    assert!(!batch.is_empty());
    drop(batch);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(tags(one), [8]);
    // Nor does an empty batch do anything.
    one.take_from(&mut CompletionBatch::new());
    assert!(one.pop().is_none());
    // What was taken and never popped is freed with its queue.
    let mut batch = send(one, 9..12);
    one.take_from(&mut batch);
    assert!(batch.is_empty());
}

/// C8, C9: completion on another thread, many times over the same header.
#[test]
fn c09_packet_completed_on_another_thread_wakes_and_is_reused() {
    struct Remote(mpsc::Sender<View<Read>>);
    impl PacketIo<Read, ()> for Remote {
        fn send_io(&self, (): (), view: View<Read>) -> Result<(), Refused<Read, ()>> {
            self.0.send(view).expect("the worker is there");
            Ok(())
        }
    }
    impl mfio_core::IoBackend for Remote {
        fn get_backend(&self) -> Result<Option<mfio_core::BackendHandle<'_>>, BackendBusy> {
            Ok(None)
        }
    }
    let rounds = if cfg!(miri) { 20 } else { 20_000 };
    let (sender, receiver) = mpsc::channel::<View<Read>>();
    let worker = std::thread::spawn(move || {
        for view in receiver {
            let middle = view.len() / 2;
            let (left, right) = view.split_at(middle);
            let bytes = vec![5; usize::try_from(middle).unwrap()];
            right.fill_from(&bytes);
            left.fill_from(&bytes);
        }
    });
    let remote = Remote(sender);
    let mut packet = Packet::<Read, _>::new(vec![0; 64]);
    for _ in 0..rounds {
        packet.buffer_mut().fill(0);
        let done = block_on(&remote, remote.io((), packet)).unwrap();
        assert_eq!(done.bytes(), [5; 64]);
        packet = done.into_packet();
    }
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    for tag in 0..64 {
        queue.send(&remote, (), Packet::new(vec![0; 64]), tag).unwrap();
    }
    for _ in 0..rounds {
        let next = std::future::poll_fn(|cx| queue.poll_pop(cx));
        let (tag, done) = block_on(&remote, next).unwrap().expect("64 are under way");
        assert!(done.is_ok());
        queue.send(&remote, (), done.into_packet(), tag).unwrap();
    }
    drop(queue);
    drop(remote);
    worker.join().unwrap();
}

#[test]
fn blocking_inside_a_task_of_the_same_backend_is_an_error() {
    let target = Mem::polled(vec![0; 8], 8);
    let inner = block_on(&target, async { block_on(&target, target.read_value::<u8>(0)) });
    assert_eq!(inner.unwrap().unwrap_err(), BackendBusy);
}

#[test]
fn failures_of_one_packet_do_not_show_on_the_next() {
    let target = Mem::from(vec![1; 4]);
    for _ in 0..3 {
        let (failed, buffer) = block_on(&target, target.read_exact(2, vec![0; 8])).unwrap();
        assert!(failed.is_err());
        let failing = block_on(&target, target.io(0, Packet::<Read, _>::new(buffer))).unwrap();
        assert_eq!(failing.failed_ranges().len(), 1);
        let mut packet = failing.into_packet();
        packet.buffer_mut().truncate(4);
        let done = block_on(&target, target.io(0, packet)).unwrap();
        assert!(done.is_ok() && done.failed_ranges().is_empty());
    }
}

#[test]
fn buffers_of_any_size_come_back_as_they_were() {
    let target = Mem::from(b"packets own their buffers".to_vec());
    let (_, boxed) =
        block_on(&target, target.read_exact(0, vec![0; 7].into_boxed_slice())).unwrap();
    assert_eq!(&boxed[..], b"packets");
    let literal: &'static [u8] = b"PACKETS";
    let (result, _) = block_on(&target, target.write_exact(0, literal)).unwrap();
    assert_eq!(result, Ok(()));
    block_on(&target, target.write_value(8, *b"OWN")).unwrap().unwrap();
    assert_eq!(&target.snapshot()[..11], b"PACKETS OWN");
}

#[test]
fn thousands_of_packets_on_many_threads_free_every_header() {
    let threads = (0..4).map(|_| {
        std::thread::spawn(|| {
            let target = Mem::from(vec![1; 64]);
            for _ in 0..if cfg!(miri) { 10 } else { 2_000 } {
                let (result, _) = block_on(&target, target.read_exact(0, vec![0; 64])).unwrap();
                assert_eq!(result, Ok(()));
            }
        })
    });
    let done = AtomicUsize::new(0);
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
        done.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!(done.into_inner(), 4);
}

/// Runs `action` when dropped, and so whenever the last of its wakers is.
struct OnDrop<F: Fn()>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for OnDrop<F> {
    fn wake(self: Arc<Self>) {}
}

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn waker_whose_drop_completes_a_packet_does_not_deadlock_the_queue() {
    let keeper = Keeper::default();
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    queue.send(&keeper, (), Packet::new(vec![0; 4]), 1).unwrap();
    let view = std::sync::Mutex::new(Some(keeper.take()));
    let waker = Waker::from(Arc::new(OnDrop(move || drop(view.lock().unwrap().take()))));
    assert!(queue.poll_pop(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    // Replaces the waker, whose drop drops the view, which completes the packet.
    let polled = queue.poll_pop(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Some((1, done))) if !done.is_ok()));
}

/// A backend that breaks its contract costs the packet, and nothing else.
#[test]
fn backend_that_panics_or_refuses_a_part_leaves_the_queue_consistent() {
    struct Panics;
    impl PacketIo<Read, ()> for Panics {
        fn send_io(&self, (): (), _view: View<Read>) -> Result<(), Refused<Read, ()>> {
            panic!("a backend")
        }
    }
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        queue.send(&Panics, (), Packet::new(vec![0; 4]), 1).is_ok()
    }));
    assert!(sent.is_err());
    assert!(queue.pop().is_some_and(|(_, done)| !done.is_ok()));
    assert_eq!(queue.in_flight(), 0);

    struct Half(mpsc::Sender<View<Read>>);
    impl PacketIo<Read, ()> for Half {
        fn send_io(&self, param: (), view: View<Read>) -> Result<(), Refused<Read, ()>> {
            let (left, right) = view.split_at(2);
            self.0.send(left).expect("the worker is there");
            Err(Refused { param, view: right })
        }
    }
    let (sender, receiver) = mpsc::channel::<View<Read>>();
    let worker = std::thread::spawn(move || {
        for view in receiver {
            view.fill_from(&[7; 2]);
        }
    });
    let half = Half(sender);
    queue.send(&half, (), Packet::new(vec![0; 4]), 2).unwrap();
    drop(half);
    worker.join().unwrap();
    let (_, done) = queue.pop().expect("both parts have their results");
    assert_eq!(done.bytes(), [7; 2]);
    assert_eq!(done.error(), Some(Error::new(ErrorKind::Aborted)));
}

/// Who is told of a range may panic: the range has ended all the same, once, whoever gives it up.
#[test]
fn output_that_panics_hears_each_range_once_and_its_packet_completes() {
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let keeper = Keeper::default();
    type End = fn(View<Read>);
    let ends: [(End, bool); 3] = [
        (|view| assert!(view.fill_from(&[7; 4]).is_none()), true),
        (|view| view.fail(Error::new(ErrorKind::NoSpace)), false),
        (|view| drop(view), false),
    ];
    for (end, whole) in ends {
        let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
        let mut packet = Packet::<Read, _>::new(vec![0; 4]);
        let told = Arc::clone(&heard);
        packet.set_output(Some(mfio_core::output_fn(move |fragment| {
            told.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(fragment.end);
            panic!("an output")
        })));
        queue.send(&keeper, (), packet, 1).unwrap();
        let view = keeper.take();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| end(view)));
        assert!(ended.is_err(), "the panic goes on");
        let (_, done) = queue.pop().expect("the packet has ended");
        assert_eq!(done.is_ok(), whole);
        assert_eq!(done.failed_ranges().len(), usize::from(!whole));
        let heard = std::mem::take(&mut *heard.lock().unwrap_or_else(|held| held.into_inner()));
        assert_eq!(heard, [4]);
    }
}

#[test]
fn packet_sent_by_the_waker_of_another_is_driven_too() {
    type Sender = (std::rc::Rc<Mem>, CompletionQueue<Read, Vec<u8>>);
    thread_local! {
        static NEXT: RefCell<Option<Sender>> = const { RefCell::new(None) };
    }
    struct SendNext;
    impl Wake for SendNext {
        fn wake(self: Arc<Self>) {
            NEXT.with_borrow_mut(|next| {
                let (target, queue) = next.as_mut().expect("set below");
                queue.send(&**target, 0, Packet::new(vec![0; 1]), 2).unwrap();
            });
        }
    }
    let target = std::rc::Rc::new(Mem::polled(vec![1; 8], 8));
    NEXT.set(Some((std::rc::Rc::clone(&target), CompletionQueue::new())));
    let mut first = CompletionQueue::<Read, Vec<u8>>::new();
    first.send(&*target, 0, Packet::new(vec![0; 1]), 1).unwrap();
    let waker = Waker::from(Arc::new(SendNext));
    assert!(first.poll_pop(&mut Context::from_waker(&waker)).is_pending());
    let second = std::future::poll_fn(|cx| {
        NEXT.with_borrow_mut(|next| match next.as_mut().expect("set above").1.poll_pop(cx) {
            Poll::Ready(Some((tag, _))) => Poll::Ready(tag),
            _ => Poll::Pending,
        })
    });
    assert_eq!(block_on(&*target, second).unwrap(), 2);
}

/// A packet that is sent again need not be asked where its bytes are, unless somebody could have
/// changed them meanwhile: by either way of sending, in any order.
#[test]
fn packet_sent_again_has_the_bytes_that_it_has_now() {
    let target = Mem::from((0..64).collect::<Vec<u8>>());
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    let mut packet = Packet::new(vec![0; 4]);
    for (round, len) in [4_usize, 4, 9, 9, 2, 40, 40].into_iter().enumerate() {
        let at = round as u64;
        if packet.buffer().len() != len {
            // Another length, and most likely another address.
            *packet.buffer_mut() = vec![0; len];
        }
        let done = if round % 3 == 2 {
            block_on(&target, target.io(at, packet)).unwrap()
        } else {
            queue.send(&target, at, packet, at).unwrap();
            let (tag, done) = queue.pop().unwrap();
            assert_eq!(tag, at);
            done
        };
        let expected: Vec<u8> = (0..64).skip(round).take(len).collect();
        assert_eq!(done.bytes(), expected, "round {round}");
        packet = done.into_packet();
    }
}

/// Where the bytes of a packet are is known when it is made, and again when it gets other bytes:
/// of a new packet, and of one made of what another has left, whole or failed, long or short.
#[test]
fn packet_that_is_changed_before_it_is_sent_has_its_new_bytes() {
    let target = Mem::from((0..64).collect::<Vec<u8>>());
    let mut packet = Packet::<Read, _>::new(vec![0; 4]);
    for (round, len) in [9, 3, 70, 3, 64, 1].into_iter().enumerate() {
        if round % 2 == 0 {
            *packet.buffer_mut() = vec![0; len];
        } else {
            packet.buffer_mut().truncate(len);
        }
        let done = block_on(&target, target.io(0, packet)).unwrap();
        assert_eq!(done.is_ok(), len <= 64);
        assert_eq!(done.bytes(), (0..64).take(len).collect::<Vec<u8>>(), "round {round}");
        let (_buffer, spare) = done.take_apart();
        packet = spare.fill(vec![0; 5]);
    }
    let mut written = Packet::<Write, _>::new(vec![1; 4]);
    *written.buffer_mut() = vec![2; 2];
    assert!(block_on(&target, target.io(0, written)).unwrap().is_ok());
    let (_, start) = block_on(&target, target.read_exact(0, vec![0; 4])).unwrap();
    assert_eq!(start, [2, 2, 2, 3]);
}

/// One that has failed is as good as new the next time, and goes to the queue it is sent to.
#[test]
fn packet_sent_again_forgets_its_failure_and_its_queue() {
    let target = Mem::from(vec![7; 8]);
    let mut queues = [CompletionQueue::<Read, Vec<u8>>::new(), CompletionQueue::new()];
    let mut packet = Packet::new(vec![0; 8]);
    for (round, at) in [0, 4, 0, 8, 8, 0, 0].into_iter().enumerate() {
        let queue = &mut queues[round % 2];
        queue.send(&target, at, packet, 0).unwrap();
        let (_, done) = queue.pop().unwrap();
        assert_eq!((done.is_ok(), done.contiguous_bytes()), (at == 0, 8 - at), "round {round}");
        packet = done.into_packet();
    }
    assert!(queues.iter().all(|queue| queue.in_flight() == 0));
}

/// A batch that already goes to another queue, and a packet that has failed in part, are not
/// completed in passing: their views come back whole. Of a packet that is awaited, the waker is
/// shown, and comes back where it was not called.
#[test]
fn view_is_completed_in_passing_only_where_nobody_is_called() {
    let nobody = |_: &Waker| panic!("nobody awaits this packet");
    let keeper = Keeper::default();
    let lent = || keeper.take().try_alloc(1).expect("a Vec has an address");
    let mut queues = [CompletionQueue::<Read, Vec<u8>>::new(), CompletionQueue::new()];
    for queue in &mut queues {
        for tag in 0..2 {
            queue.send(&keeper, (), Packet::new(vec![0; 4]), tag).unwrap();
        }
    }
    let mut batch = CompletionBatch::new();
    assert!(batch.is_empty());
    // The last ones sent are of the second queue.
    assert!(lent().try_done_in(&mut batch, nobody).is_ok_and(|left| left.is_none()));
    assert!(!batch.is_empty());
    assert!(queues[1].pop().is_none(), "told when the batch is dropped");
    assert!(lent().try_done_in(&mut batch, nobody).is_ok_and(|left| left.is_none()));
    let other = lent().try_done_in(&mut batch, nobody).expect_err("another queue");
    other.done();
    drop(batch);
    let tags: Vec<u64> = std::iter::from_fn(|| queues[1].pop()).map(|(tag, _)| tag).collect();
    assert_eq!(tags, [1, 0]);
    assert!(queues[0].pop().unwrap().1.is_ok());

    let mut batch = CompletionBatch::new();
    let (failed, rest) = keeper.take().split_at(1);
    failed.fail(ErrorKind::Aborted);
    let rest = rest.try_alloc(1).expect("a Vec has an address");
    let rest = rest.try_done_in(&mut batch, nobody);
    rest.expect_err("a packet that has failed in part").done();
    assert!(!queues[0].pop().unwrap().1.is_ok());
    let (sent, view) = Packet::<Read, _>::new(vec![0; 8]).send();
    let unawaited = view.try_alloc(1).expect("a Vec has an address");
    assert!(unawaited.try_done_in(&mut batch, nobody).is_ok_and(|left| left.is_none()));
    assert!(sent.into_completed().is_ok_and(|done| done.is_ok()));

    let woken = Arc::new(Woken::default());
    // A clone, as the packet's: a compiler may give the first one another table of functions.
    let waker = Waker::from(Arc::clone(&woken)).clone();
    let mut cx = Context::from_waker(&waker);
    let mut packet = Packet::<Read, _>::new(vec![0; 8]);
    for told in [true, false, true, true] {
        let mut future = pin!(keeper.io((), packet));
        assert!(future.as_mut().poll(&mut cx).is_pending());
        let mut shown = false;
        let left = lent().try_done_in(&mut batch, |its| {
            shown = its.will_wake(&waker);
            told
        });
        assert!(shown, "the waker of whoever awaits the packet");
        let left = left.expect("nothing has failed");
        assert_eq!(left.as_ref().map(|left| left.will_wake(&waker)), (!told).then_some(true));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0, "called by nobody else");
        let Poll::Ready(done) = future.as_mut().poll(&mut cx) else { panic!("it is done") };
        packet = done.into_packet();
        drop(left);
        assert_eq!(Arc::strong_count(&woken), 2 + usize::from(told), "kept where it was told");
    }
    drop(packet);
    assert_eq!(Arc::strong_count(&woken), 2, "freed with the packet");
    assert!(batch.is_empty());
}

/// A waker that counts its calls.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
