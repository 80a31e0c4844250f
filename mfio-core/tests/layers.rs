//! Layers against byte-array models, and at their limits: holes, ends, overflow, full targets.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use mfio_core::layer::Target;
use mfio_core::layer::concat::Concat;
use mfio_core::layer::fault::{Fault, Request, Verdict};
use mfio_core::layer::map::{BadExtent, Extent, Map};
use mfio_core::layer::spread::{PIECES_MAX, Piece, Route, Spread, WAITING_MAX};
use mfio_core::layer::stripe::Stripe;
use mfio_core::layer::throttle::{Clock, Rate, Throttle};
use mfio_core::layer::window::Window;
use mfio_core::mem::Mem;
use mfio_core::{
    BackendBusy, Completed, CompletionQueue, Error, ErrorKind, FailedRange, IoRead, IoWrite,
    Packet, PacketIo, PacketIoExt, Read, ReadWrite, Refused, View, Write, block_on,
};
use proptest::prelude::*;

fn mem(bytes: Vec<u8>, depth: usize) -> Mem {
    if depth == 0 { Mem::from(bytes) } else { Mem::polled(bytes, depth) }
}

fn index(from: u64) -> usize {
    usize::try_from(from).unwrap()
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// What became of each byte of a packet.
fn verdicts<P: mfio_core::Perms, B: mfio_core::Buffer<P>>(
    done: &Completed<P, B>,
    len: usize,
) -> Vec<Option<ErrorKind>> {
    let mut verdicts = vec![None; len];
    for range in done.failed_ranges() {
        for verdict in &mut verdicts[index(range.start)..index(range.end)] {
            assert_eq!(*verdict, None, "one result for every byte");
            *verdict = Some(range.error.kind());
        }
    }
    verdicts
}

/// Reads and writes of a layer as the bytes of its targets in a row and, for each byte of the
/// layer, the place there or the errors of reading and writing it.
struct Model {
    places: Vec<Result<usize, (ErrorKind, ErrorKind)>>,
    below: Vec<u8>,
}

const HOLE: (ErrorKind, ErrorKind) = (ErrorKind::OutOfRange, ErrorKind::OutOfRange);
const END: (ErrorKind, ErrorKind) = (ErrorKind::UnexpectedEof, ErrorKind::OutOfRange);

impl Model {
    fn place(&self, at: u64) -> Result<usize, (ErrorKind, ErrorKind)> {
        self.places.get(index(at)).copied().unwrap_or(Err(END))
    }

    fn check<T>(&mut self, layer: &T, steps: &[(u64, u64, Way)])
    where
        T: Target + PacketIo<ReadWrite, u64>,
    {
        for (number, &(at, len, way)) in steps.iter().enumerate() {
            let places: Vec<_> = (at..at + len).map(|at| self.place(at)).collect();
            let errors = |past: fn((ErrorKind, ErrorKind)) -> ErrorKind| {
                places.iter().map(|place| place.err().map(past)).collect::<Vec<_>>()
            };
            let data: Vec<u8> = (0..len).map(|at| (at ^ number as u64).to_le_bytes()[0]).collect();
            let name = format!("{way:?} of {len} at {at}");
            let found = match way {
                Way::Read => {
                    let packet = Packet::<Read, _>::new(data.clone());
                    let done = block_on(layer, layer.io(at, packet)).unwrap();
                    assert_eq!(verdicts(&done, index(len)), errors(|error| error.0), "{name}");
                    done.into_buffer()
                }
                Way::Write => {
                    let packet = Packet::<Write, _>::new(data.clone());
                    let done = block_on(layer, layer.io(at, packet)).unwrap();
                    assert_eq!(verdicts(&done, index(len)), errors(|error| error.1), "{name}");
                    done.into_buffer()
                }
                Way::Exchange => {
                    let packet = Packet::<ReadWrite, _>::new(data.clone());
                    let done = block_on(layer, layer.io(at, packet)).unwrap();
                    assert_eq!(verdicts(&done, index(len)), errors(|error| error.1), "{name}");
                    done.into_buffer()
                }
            };
            for ((before, after), place) in data.into_iter().zip(found).zip(places) {
                let is_there = place.ok().filter(|_| way != Way::Write);
                assert_eq!(after, is_there.map_or(before, |place| self.below[place]), "{name}");
                if let Ok(place) = place
                    && way != Way::Read
                {
                    self.below[place] = before;
                }
            }
        }
    }
}

/// What a step does with the bytes of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Read,
    Write,
    Exchange,
}

fn steps() -> impl Strategy<Value = Vec<(u64, u64, Way)>> {
    let way = (0..3_usize).prop_map(|way| [Way::Read, Way::Write, Way::Exchange][way]);
    let (longest, most) = if cfg!(miri) { (60_u64, 3) } else { (300, 12) };
    prop::collection::vec((0..400_u64, 0..longest, way), 1..most)
}

fn bytes(len: u64, seed: u8) -> Vec<u8> {
    (0..len).map(|at| at.to_le_bytes()[0].wrapping_mul(31) ^ seed).collect()
}

proptest! {
    #[test]
    fn map_is_its_extents(
        parts in prop::collection::vec((0..20_u64, 0..30_u64), 0..25),
        depth in 0..4_usize,
        steps in steps(),
    ) {
        let (mut extents, mut places, mut to) = (Vec::new(), Vec::new(), 500);
        for (hole, len) in parts {
            // A hole without anything behind it is the end.
            if len == 0 { continue; }
            places.extend(vec![Err(HOLE); index(hole)]);
            let from = places.len() as u64;
            to = (to + 500 - len) % 471;
            places.extend((to..to + len).map(|place| Ok(index(place))));
            extents.push(Extent { from, len, to });
        }
        extents.reverse();
        let below = bytes(501, 1);
        let map = Map::new(mem(below.clone(), depth), extents).unwrap();
        // Where extents lead to the same bytes, one view of several pieces writes them twice.
        let reads: Vec<_> =
            steps.into_iter().map(|(at, len, _)| (at, len, Way::Read)).collect();
        Model { places, below }.check(&map, &reads);
    }

    #[test]
    fn map_of_disjoint_extents_takes_writes(
        parts in prop::collection::vec((0..20_u64, 1..30_u64), 1..20),
        depth in 0..4_usize,
        steps in steps(),
    ) {
        let total: u64 = parts.iter().map(|(_, len)| len).sum();
        let (mut extents, mut places, mut end) = (Vec::new(), Vec::new(), total);
        for (hole, len) in parts {
            places.extend(vec![Err(HOLE); index(hole)]);
            let from = places.len() as u64;
            end -= len;
            places.extend((end..end + len).map(|place| Ok(index(place))));
            extents.push(Extent { from, len, to: end });
        }
        let mut model = Model { places, below: bytes(total, 2) };
        let map = Map::new(mem(model.below.clone(), depth), extents).unwrap();
        model.check(&map, &steps);
        prop_assert!(map.targets()[0].snapshot() == model.below);
    }

    #[test]
    fn stripe_is_its_units_in_turn(
        unit in 1..40_u64,
        targets in 1..5_u64,
        rows in 1..6_u64,
        depth in 0..3_usize,
        steps in steps(),
    ) {
        let each = unit * rows;
        let mut model = Model { places: Vec::new(), below: bytes(each * targets, 3) };
        for row in 0..rows {
            for target in 0..targets {
                let start = target * each + row * unit;
                model.places.extend((start..start + unit).map(|place| Ok(index(place))));
            }
        }
        let below = model.below.chunks(index(each)).map(|part| mem(part.to_vec(), depth));
        let stripe = Stripe::new(below.collect(), unit, each + unit - 1);
        model.check(&stripe, &steps);
        let all: Vec<u8> = stripe.targets().iter().flat_map(Mem::snapshot).collect();
        prop_assert!(all == model.below);
    }

    #[test]
    fn concat_is_one_after_another(
        lens in prop::collection::vec(0..60_u64, 0..12),
        depth in 0..3_usize,
        steps in steps(),
    ) {
        let below = bytes(lens.iter().sum(), 4);
        let mut model = Model { places: (0..below.len()).map(Ok).collect(), below };
        let mut rest = &model.below[..];
        let parts = lens.iter().map(|&len| {
            let (part, after) = rest.split_at(index(len));
            rest = after;
            // Longer than is used of it.
            (len, mem([part, &[0xdd; 9]].concat(), depth))
        });
        let concat = Concat::new(parts.collect::<Vec<_>>());
        model.check(&concat, &steps);
        let used = concat.targets().iter().zip(&lens);
        let all: Vec<u8> =
            used.flat_map(|(part, &len)| part.snapshot()[..index(len)].to_vec()).collect();
        prop_assert!(all == model.below);
        prop_assert!(concat.targets().iter().all(|part| part.snapshot().ends_with(&[0xdd; 9])));
    }

    #[test]
    fn window_is_a_part(
        base in 0..200_u64, len in 0..200_u64, depth in 0..3_usize, steps in steps(),
    ) {
        let places = (base..base + len).map(|place| Ok(index(place))).collect();
        let mut model = Model { places, below: bytes(400, 5) };
        let window = Window::new(mem(model.below.clone(), depth), base, len);
        model.check(&window, &steps);
        prop_assert!(window.targets()[0].snapshot() == model.below);
    }

    #[test]
    fn fault_fails_what_it_is_told_and_nothing_else(
        rule in prop::collection::vec((any::<bool>(), 0..50_u64), 0..30),
        depth in 0..3_usize,
        at in 0..100_u64,
        len in 0..if cfg!(miri) { 80 } else { 300_u64 },
    ) {
        let below = bytes(1000, 6);
        let told: Vec<_> = rule.iter().map(|&(passes, len)| {
            if passes { Verdict::Pass(len) } else { Verdict::Fail(len, Error::os(5)) }
        }).collect();
        let mut wanted: Vec<_> = rule.iter().take(PIECES_MAX - 1).flat_map(|&(passes, len)| {
            vec![(!passes).then_some(ErrorKind::Os); index(len)]
        }).collect();
        wanted.resize(index(len), None);
        let fault = Fault::new(mem(below.clone(), depth), |request: Request| {
            if request.is_read { told.clone() } else { Vec::new() }
        });
        let packet = Packet::<Read, _>::new(vec![0xee; index(len)]);
        let done = block_on(&fault, fault.io(at, packet)).unwrap();
        prop_assert_eq!(verdicts(&done, index(len)), wanted.clone());
        for (number, found) in done.into_buffer().into_iter().enumerate() {
            let there = below[index(at) + number];
            prop_assert_eq!(found, if wanted[number].is_some() { 0xee } else { there });
        }
    }
}

#[test]
fn map_of_impossible_extents_says_which() {
    let long = Extent { from: u64::MAX - 3, len: 4, to: 0 };
    let target = || Mem::from(vec![0; 8]);
    assert_eq!(Map::new(target(), vec![long]).unwrap_err(), BadExtent::TooLong(long));
    let far = Extent { from: 0, len: 4, to: u64::MAX - 3 };
    assert_eq!(Map::new(target(), vec![far]).unwrap_err(), BadExtent::TooLong(far));
    let first = Extent { from: 0, len: 4, to: 4 };
    let second = Extent { from: 3, len: 4, to: 0 };
    let error = Map::new(target(), vec![second, first]).unwrap_err();
    assert_eq!(error, BadExtent::Overlaps(second));
    assert!(error.to_string().contains("begins inside another"));
    let last = Extent { from: u64::MAX - 4, len: 4, to: 4 };
    let map = Map::new(target(), vec![last, Extent { len: 0, ..last }]).unwrap();
    let done = block_on(&map, map.io(u64::MAX - 2, Packet::<Read, _>::new(vec![0; 9]))).unwrap();
    assert_eq!((done.contiguous_bytes(), done.failed_ranges().len()), (2, 1));
}

#[test]
fn window_at_the_end_of_the_address_space_is_cut() {
    let window = Window::new(Mem::from(vec![7; 4]), u64::MAX - 2, u64::MAX);
    assert!(block_on(&window, window.read_value::<u32>(0)).unwrap().is_err());
    let whole = Window::new(Mem::from(vec![7; 4]), 0, u64::MAX);
    let done = block_on(&whole, whole.io(u64::MAX - 2, Packet::<Write, _>::new(vec![0; 9])));
    assert_eq!(done.unwrap().error(), Some(ErrorKind::OutOfRange.into()));
    assert_eq!(block_on(&whole, whole.read_value::<u32>(0)).unwrap(), Ok(0x0707_0707));
}

/// A view of several pieces, and targets that never have room for two: taken and done.
#[test]
fn view_of_many_pieces_passes_targets_with_room_for_one() {
    let each = if cfg!(miri) { 20 } else { 500 };
    let below = || Mem::polled(vec![0; index(each)], 1);
    let stripe = Stripe::new(vec![below(), below()], 1, each);
    let data = bytes(2 * each, 9);
    let (result, data) = block_on(&stripe, stripe.write_exact(0, data)).unwrap();
    assert_eq!(result, Ok(()));
    let (result, found) = block_on(&stripe, stripe.read_exact(0, vec![0; data.len()])).unwrap();
    assert_eq!((result, found == data), (Ok(()), true));
}

#[test]
fn layer_that_has_a_view_waiting_refuses_others_unchanged() {
    let stripe = Stripe::new(vec![Mem::polled(vec![1; 64], 1), Mem::polled(vec![2; 64], 1)], 1, 64);
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    queue.send(&stripe, 0, Packet::new(vec![0; 8]), 0).unwrap();
    for len in [1, 8] {
        let unsent = queue.send(&stripe, 3, Packet::new(vec![9; len]), 1).unwrap_err();
        assert_eq!((unsent.param, unsent.packet.into_buffer()), (3, vec![9; len]));
    }
    let (result, found) = block_on(&stripe, stripe.read_exact(0, vec![0; 3])).unwrap();
    assert_eq!((result, found), (Ok(()), vec![1, 2, 1]));
    assert_eq!(queue.pop().map(|(tag, done)| (tag, done.is_ok())), Some((0, true)));
}

#[test]
fn reserved_views_queue_in_the_layer_where_targets_are_full() {
    let stripe = Stripe::new(vec![Mem::polled(vec![1; 64], 1), Mem::polled(vec![2; 64], 1)], 1, 64);
    let reserve = |views| PacketIo::<Read, u64>::reserve(&stripe, views);
    assert!(!reserve(WAITING_MAX + 1) && reserve(WAITING_MAX) && !reserve(1));
    PacketIo::<Read, u64>::release(&stripe, WAITING_MAX - 20);
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    for tag in 0..20 {
        queue.send(&stripe, tag, Packet::new(vec![0; 1 + index(tag % 3)]), tag).unwrap();
    }
    queue.send(&stripe, 0, Packet::new(vec![0; 1]), 99).unwrap_err();
    for _ in 0..20 {
        let next = std::future::poll_fn(|cx| queue.poll_pop(cx));
        let (tag, done) = block_on(&stripe, next).unwrap().unwrap();
        assert_eq!(done.bytes()[0], if tag % 2 == 0 { 1 } else { 2 });
    }
}

#[test]
fn abandoned_packet_does_not_keep_waiting_in_the_layer() {
    let stripe = Stripe::new(vec![Mem::polled(vec![1; 64], 1), Mem::polled(vec![2; 64], 1)], 1, 64);
    let mut long = Box::pin(stripe.io(0, Packet::<Read, _>::new(vec![0; 64])));
    assert!(poll_once(long.as_mut()).is_pending());
    drop(long);
    // Driving completes the two bytes that had been sent, and nothing is left to send.
    let (result, found) = block_on(&stripe, stripe.read_exact(4, vec![0; 2])).unwrap();
    assert_eq!((result, found), (Ok(()), vec![1, 2]));
}

#[test]
fn layer_dropped_with_views_waiting_aborts_them() {
    let stripe = Stripe::new(vec![Mem::polled(vec![1; 64], 2)], 1, 64);
    let window = Concat::new([(3, Mem::polled(vec![1; 3], 1)), (3, Mem::polled(vec![1; 3], 1))]);
    drop(stripe);
    let mut queue = CompletionQueue::<Write, Vec<u8>>::new();
    assert!(PacketIo::<Write, u64>::reserve(&window, 3));
    for tag in 0..3 {
        queue.send(&window, 0, Packet::new(vec![0; 6]), tag).unwrap();
    }
    drop(window);
    for _ in 0..3 {
        let (_, done) = queue.pop().expect("dropped views are results");
        assert_eq!(done.error(), Some(ErrorKind::Aborted.into()));
    }
}

#[test]
fn blocking_on_a_layer_of_a_driven_target_is_an_error() {
    let window = Window::new(Mem::polled(vec![0; 8], 8), 0, 8);
    let inner = block_on(&window, async { block_on(&window, window.read_value::<u8>(0)) });
    assert_eq!(inner.unwrap().unwrap_err(), BackendBusy);
    let below = &window.targets()[0];
    let inner = block_on(below, async { block_on(&window, window.read_value::<u8>(0)) });
    assert_eq!(inner.unwrap().unwrap_err(), BackendBusy);
    assert_eq!(block_on(&window, window.read_value::<u8>(0)).unwrap(), Ok(0));
}

/// A route may say anything; packets get their results all the same.
#[test]
fn senseless_routes_lose_nothing() {
    struct Senseless(Cell<u64>);
    impl Route for Senseless {
        fn first_piece(&self, at: u64, len: u64) -> Piece {
            self.0.set(self.0.get() + 1);
            match self.0.get() % 5 {
                0 => Piece::On { target: 7, at, len: len / 2 },
                1 => Piece::On { target: 0, at: u64::MAX, len: 0 },
                2 => Piece::Hole { len: u64::MAX * (at % 2) },
                3 => Piece::On { target: 0, at, len: u64::MAX },
                _ => Piece::On { target: 0, at, len: 3 },
            }
        }
    }
    let step = if cfg!(miri) { 19 } else { 1 };
    for depth in 0..3 {
        let layer = Spread::over(vec![mem(vec![1; 40], depth)], Senseless(Cell::new(0)));
        for at in (0..60).step_by(step).chain([u64::MAX - 3, u64::MAX]) {
            for len in (0..40).step_by(step) {
                let packet = Packet::<Read, _>::new(vec![0; len]);
                let done = block_on(&layer, layer.io(at, packet)).unwrap();
                assert_eq!(verdicts(&done, len).len(), len);
            }
        }
    }
}

/// Completing wakes, and the woken sends to the same layer.
#[test]
fn waker_may_send_to_the_layer_that_completes() {
    type Layer = Stripe<Mem>;
    type Sender = (Rc<Layer>, CompletionQueue<Read, Vec<u8>>, u64);
    thread_local! {
        static NEXT: RefCell<Option<Sender>> = const { RefCell::new(None) };
    }
    struct SendNext;
    impl Wake for SendNext {
        fn wake(self: Arc<Self>) {
            NEXT.with_borrow_mut(|next| {
                let (layer, queue, sent) = next.as_mut().unwrap();
                if queue.send(&**layer, 0, Packet::new(vec![0; 40]), *sent).is_ok() {
                    *sent += 1;
                }
            });
        }
    }
    let (rounds, len) = if cfg!(miri) { (1, 18) } else { (10, 40) };
    for depth in 0..3 {
        let below = vec![mem(vec![1; 64], depth), mem(vec![1; 64], depth)];
        let layer = Rc::new(Stripe::new(below, 1, 64));
        NEXT.set(Some((Rc::clone(&layer), CompletionQueue::new(), 0)));
        let waker = Waker::from(Arc::new(SendNext));
        for _ in 0..rounds {
            let mut first = CompletionQueue::<Read, Vec<u8>>::new();
            first.send(&*layer, 0, Packet::new(vec![0; len]), 1).unwrap();
            if first.poll_pop(&mut Context::from_waker(&waker)).is_pending() {
                block_on(&*layer, layer.read_value::<u8>(0)).unwrap().unwrap();
                while first.in_flight() > 0 {
                    block_on(&*layer, std::future::poll_fn(|cx| first.poll_pop(cx))).unwrap();
                }
            }
        }
        let (_, mut queue, sent) = NEXT.take().unwrap();
        for _ in 0..sent {
            let done = block_on(&*layer, std::future::poll_fn(|cx| queue.poll_pop(cx)));
            assert!(done.unwrap().unwrap().1.is_ok());
        }
    }
}

/// Time that a test sets.
#[derive(Clone, Default)]
struct Hand(Rc<Cell<u64>>);

impl Clock for Hand {
    fn now_ns(&self) -> u64 {
        self.0.get()
    }
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn throttle_passes_its_rate_and_pays_back_what_was_more() {
    let hand = Hand::default();
    let rate = Rate { bytes: 100, ops: u64::MAX, interval_ns: 10 };
    let throttle = Throttle::new(Mem::from(vec![0; 1000]), rate, hand.clone());
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    let mut send = |len| queue.send(&throttle, 0, Packet::new(vec![0; len]), 0).is_ok();
    assert!(send(60) && send(60) && !send(1));
    hand.0.set(9);
    assert!(!send(1));
    // 20 bytes of this interval are gone already.
    hand.0.set(10);
    assert!(send(79) && send(1) && !send(1));
    // Three intervals for one view.
    hand.0.set(20);
    assert!(send(300));
    hand.0.set(49);
    assert!(!send(1));
    hand.0.set(50);
    assert!(send(1));
    // Idle time is not saved up.
    hand.0.set(1000);
    assert!(send(100) && !send(1));
    // A clock that runs backwards, or very far.
    hand.0.set(3);
    assert!(!send(1));
    hand.0.set(u64::MAX);
    assert!(send(1));
}

#[test]
fn throttle_wakes_who_waits_when_it_is_driven_in_time() {
    let hand = Hand::default();
    let rate = Rate { bytes: u64::MAX, ops: 1, interval_ns: 10 };
    let throttle = Throttle::new(Mem::from(vec![4; 8]), rate, hand.clone());
    assert_eq!(block_on(&throttle, throttle.read_value::<u8>(0)).unwrap(), Ok(4));
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut waiting = pin!(throttle.read_value::<u8>(1));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let drive = || {
        let handle = mfio_core::IoBackend::get_backend(&throttle).unwrap().unwrap();
        handle.drive().poll_drive(&mut Context::from_waker(Waker::noop()));
    };
    drive();
    assert_eq!(count.0.load(Ordering::Relaxed), 0);
    hand.0.set(10);
    drive();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    let Poll::Ready(value) = poll_once(waiting) else { panic!("the budget is back") };
    assert_eq!(value, Ok(4));
}

#[test]
fn throttle_with_a_timer_is_not_polled_meanwhile() {
    struct Timer(Hand, RefCell<Vec<u64>>);
    impl Clock for Timer {
        fn now_ns(&self) -> u64 {
            self.0.now_ns()
        }
        fn wake_at(&self, at_ns: u64, waker: &Waker) -> bool {
            self.1.borrow_mut().push(at_ns);
            // Time flies.
            self.0.0.set(at_ns);
            waker.wake_by_ref();
            true
        }
    }
    let rate = Rate { bytes: u64::MAX, ops: 1, interval_ns: 10 };
    let timer = Timer(Hand::default(), RefCell::default());
    let throttle = Throttle::new(Mem::from(vec![4; 8]), rate, timer);
    for _ in 0..4 {
        assert_eq!(block_on(&throttle, throttle.read_value::<u8>(0)).unwrap(), Ok(4));
    }
    assert_eq!(throttle.target().snapshot(), [4; 8]);
}

#[test]
fn fault_asks_its_rule_once_for_every_view_accepted() {
    let asked = RefCell::new(Vec::new());
    let fault = Fault::new(Mem::polled(vec![0; 64], 1), |request| {
        asked.borrow_mut().push(request);
        vec![Verdict::Pass(1), Verdict::Fail(1, ErrorKind::NoSpace.into())]
    });
    let done = block_on(&fault, fault.io(60, Packet::<Write, _>::new(vec![1; 8]))).unwrap();
    let kinds: Vec<_> = done.failed_ranges().iter().map(|range| range.error.kind()).collect();
    assert_eq!(kinds, [ErrorKind::NoSpace, ErrorKind::OutOfRange]);
    assert_eq!(*asked.borrow(), [Request { is_read: false, is_write: true, at: 60, len: 8 }]);
    assert_eq!(fault.target().snapshot()[58..], [0, 0, 1, 0, 1, 1]);
}

#[test]
fn fault_asks_for_an_exchange_as_a_read_and_a_write() {
    let rule = |request: Request| match request {
        Request { is_read: true, is_write: true, at: 2, len: 6 } => {
            vec![Verdict::Pass(2), Verdict::Fail(3, Error::os(5))]
        }
        _ => panic!("{request:?} was not sent"),
    };
    for depth in 0..3 {
        let fault = Fault::new(mem(vec![1; 8], depth), rule);
        let packet = Packet::<ReadWrite, _>::new(vec![9; 6]);
        let done = block_on(&fault, fault.io(2, packet)).unwrap();
        let error = Error::os(5);
        assert_eq!(done.failed_ranges(), [FailedRange { start: 2, end: 5, error }]);
        assert_eq!(done.into_buffer(), [1, 1, 9, 9, 9, 1]);
        assert_eq!(fault.target().snapshot(), [1, 1, 9, 9, 1, 1, 1, 9]);
    }
}

#[test]
fn throttle_counts_the_bytes_of_an_exchange_both_ways() {
    let hand = Hand::default();
    let rate = Rate { bytes: 100, ops: u64::MAX, interval_ns: 10 };
    let throttle = Throttle::new(Mem::from(vec![1; 100]), rate, hand.clone());
    let mut queue = CompletionQueue::<ReadWrite, Vec<u8>>::new();
    let mut send = |len| queue.send(&throttle, 0, Packet::new(vec![9; len]), 0).is_ok();
    assert!(send(49) && send(1) && !send(1));
    hand.0.set(10);
    assert!(send(75) && !send(1));
    // Half of the next interval is gone.
    hand.0.set(20);
    assert!(send(25) && !send(1));
    assert_eq!(queue.pop().unwrap().1.into_buffer(), [1; 49]);
}

/// What waits of an exchange goes down when the layer is driven, and is aborted with it.
#[test]
fn exchanges_wait_in_a_layer_like_reads_and_writes() {
    let below = || vec![Mem::polled(vec![1; 64], 1), Mem::polled(vec![2; 64], 1)];
    let stripe = Stripe::new(below(), 1, 64);
    let mut queue = CompletionQueue::<ReadWrite, Vec<u8>>::new();
    queue.send(&stripe, 0, Packet::new(vec![9; 8]), 0).unwrap();
    let unsent = queue.send(&stripe, 3, Packet::new(vec![8; 8]), 1).unwrap_err();
    assert_eq!((unsent.param, unsent.packet.into_buffer()), (3, vec![8; 8]));
    let next = std::future::poll_fn(|cx| queue.poll_pop(cx));
    let (_, done) = block_on(&stripe, next).unwrap().unwrap();
    assert_eq!((done.is_ok(), done.into_buffer()), (true, vec![1, 2, 1, 2, 1, 2, 1, 2]));
    assert_eq!(stripe.targets()[1].snapshot()[..5], [9, 9, 9, 9, 2]);
    queue.send(&stripe, 0, Packet::new(vec![7; 8]), 0).unwrap();
    drop(stripe);
    assert_eq!(queue.pop().unwrap().1.error(), Some(ErrorKind::Aborted.into()));
}

/// A target that promises room and refuses all the same costs the packet, and nothing else.
#[test]
fn target_that_breaks_its_promise_costs_the_packet() {
    struct Liar(Mem);
    impl PacketIo<Read, u64> for Liar {
        fn send_io(&self, param: u64, view: View<Read>) -> Result<(), Refused<Read>> {
            Err(Refused { param, view })
        }
    }
    impl PacketIo<Write, u64> for Liar {
        fn send_io(&self, param: u64, view: View<Write>) -> Result<(), Refused<Write>> {
            self.0.send_io(param, view)
        }
    }
    impl mfio_core::IoBackend for Liar {
        fn get_backend(&self) -> Result<Option<mfio_core::BackendHandle<'_>>, BackendBusy> {
            self.0.get_backend()
        }
    }
    let liars = [(2, Liar(Mem::from(vec![0; 2]))), (2, Liar(Mem::from(vec![0; 2])))];
    let concat = Concat::new(liars);
    let (result, _) = block_on(&concat, concat.write_exact(0, vec![1; 4])).unwrap();
    assert_eq!(result, Ok(()));
    let (result, _) = block_on(&concat, concat.read_exact(0, vec![0; 4])).unwrap();
    assert_eq!(result, Err(ErrorKind::Aborted.into()));
}
