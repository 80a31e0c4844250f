//! Backends from the outside: who drives, who waits, and what is left when they have gone.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use mfio_core::backend::{
    Claim, Park, PollSource, Pollable, SpinPark, ThreadPark, Turn, block_on_with, with_backend,
};
use mfio_core::mem::Mem;
use mfio_core::{
    BackendBusy, BackendHandle, Drive, IoBackend, IoRead, Nested, PacketIo, PollingHandle, Read,
    Refused, View, block_on,
};

/// Fills reads with 7, when driven; parks until something is sent.
struct Shared<C> {
    queue: Mutex<VecDeque<View<Read>>>,
    sent: Arc<Signal>,
    claim: C,
    drives: AtomicUsize,
}

#[derive(Default)]
struct Signal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn wait(&self) {
        let set = self.set.lock().unwrap();
        *self.changed.wait_while(set, |set| !*set).unwrap() = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        *self.set.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl<C: Claim + Default> Shared<C> {
    fn new() -> Self {
        Self {
            queue: Mutex::default(),
            sent: Arc::default(),
            claim: C::default(),
            drives: AtomicUsize::new(0),
        }
    }
}

impl<C> PacketIo<Read, u64> for Shared<C> {
    fn send_io(&self, _at: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        self.queue.lock().unwrap().push_back(view);
        Arc::clone(&self.sent).wake();
        Ok(())
    }
}

impl<C> Drive for Shared<C> {
    fn poll_drive(&self, _cx: &mut Context<'_>) {
        self.drives.fetch_add(1, Ordering::Relaxed);
        loop {
            let Some(mut view) = self.queue.lock().unwrap().pop_front() else { return };
            for at in 0..view.len() {
                view.write_at(at, &[7]);
            }
            view.filled();
        }
    }

    fn park(&self) -> bool {
        self.sent.wait();
        self.poll_drive(&mut Context::from_waker(Waker::noop()));
        true
    }

    fn unpark_waker(&self) -> Option<Waker> {
        Some(Waker::from(Arc::clone(&self.sent)))
    }
}

impl IoBackend for Shared<AtomicBool> {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        BackendHandle::acquire(self, &self.claim).map(Some)
    }
}

impl IoBackend for Shared<Turn> {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        BackendHandle::acquire(self, &self.claim).map(Some)
    }

    fn poll_backend(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<BackendHandle<'_>>, BackendBusy>> {
        self.claim.poll_acquire(self, cx).map_ok(Some)
    }

    fn stop_waiting(&self, waker: &Waker) {
        self.claim.stop_waiting(waker);
    }
}

fn rounds(many: usize) -> usize {
    if cfg!(miri) { 6 } else { many }
}

#[test]
fn threads_that_block_on_one_backend_all_get_their_bytes() {
    let backend = Shared::<Turn>::new();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..rounds(5_000) {
                    let read = block_on(&backend, backend.read_value::<u32>(0)).unwrap();
                    assert_eq!(read, Ok(0x0707_0707));
                }
            });
        }
    });
}

#[test]
fn thread_that_waits_drives_on_when_the_driver_leaves() {
    let backend = Shared::<Turn>::new();
    let leave = AtomicBool::new(false);
    let driver_waker = Mutex::new(None);
    let (driving, waiting) = (Barrier::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut told = false;
            let until_told = poll_fn(|cx| {
                *driver_waker.lock().unwrap() = Some(cx.waker().clone());
                if !std::mem::replace(&mut told, true) {
                    driving.wait();
                }
                if leave.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
            });
            block_on(&backend, until_told).unwrap();
        });
        driving.wait();
        // Waits for another thread: an error only without `Turn`.
        assert_eq!(backend.get_backend().unwrap_err(), BackendBusy);
        let follower = scope.spawn(|| {
            let mut first = true;
            let read = async {
                poll_fn(|cx| {
                    waiting.store(true, Ordering::SeqCst);
                    if std::mem::replace(&mut first, false) {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Ready(())
                })
                .await;
                backend.read_value::<u8>(0).await
            };
            assert_eq!(block_on(&backend, read).unwrap(), Ok(7));
            // Once more, surely as the driver now or later.
            assert_eq!(block_on(&backend, backend.read_value::<u8>(0)).unwrap(), Ok(7));
        });
        while !waiting.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        leave.store(true, Ordering::SeqCst);
        driver_waker.lock().unwrap().take().unwrap().wake();
        follower.join().unwrap();
    });
}

#[test]
fn second_thread_on_an_unshared_backend_is_told_and_nothing_panics() {
    let backend = Shared::<AtomicBool>::new();
    let held = backend.get_backend().unwrap();
    thread::scope(|scope| {
        let second = scope.spawn(|| block_on(&backend, backend.read_value::<u8>(0)));
        assert_eq!(second.join().unwrap(), Err(BackendBusy));
    });
    drop(held);
    assert_eq!(block_on(&backend, backend.read_value::<u8>(0)).unwrap(), Ok(7));
}

#[test]
fn waiting_for_oneself_is_an_error_also_on_a_shared_backend() {
    let backend = Shared::<Turn>::new();
    let inner = block_on(&backend, async { block_on(&backend, pending::<()>()) });
    assert_eq!(inner.unwrap(), Err(BackendBusy));
    // Embedded, the right is held only while driving: the same thread can block in between.
    let inner = async { block_on(&backend, backend.read_value::<u8>(0)) };
    let outer = block_on_with(&Mem::default(), &SpinPark, with_backend(&backend, inner));
    assert_eq!(outer.unwrap().unwrap(), Ok(Ok(7)));
}

/// Sends everything on to `below`, when driven.
struct Relay<'a, T: ?Sized> {
    below: &'a T,
    queue: RefCell<Vec<(u64, View<Read>)>>,
    claim: Cell<bool>,
    drives: Cell<usize>,
}

impl<'a, T: ?Sized> Relay<'a, T> {
    fn over(below: &'a T) -> Self {
        Self { below, queue: RefCell::default(), claim: Cell::default(), drives: Cell::default() }
    }
}

impl<T: ?Sized> PacketIo<Read, u64> for Relay<'_, T> {
    fn send_io(&self, at: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        self.queue.borrow_mut().push((at, view));
        Ok(())
    }
}

impl<T: PacketIo<Read, u64> + ?Sized> Drive for Relay<'_, T> {
    fn poll_drive(&self, _cx: &mut Context<'_>) {
        self.drives.set(self.drives.get() + 1);
        for (at, view) in self.queue.take() {
            self.below.send_io(at, view).unwrap();
        }
    }
}

impl<T: PacketIo<Read, u64> + ?Sized> IoBackend for Relay<'_, T> {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        BackendHandle::acquire(self, &self.claim).map(Some)
    }
}

/// C14: every level is driven, and every level is given back.
#[test]
fn c14_nests_of_any_depth_are_driven_and_released_whole() {
    let bottom = Shared::<AtomicBool>::new();
    let third = Relay::over(&bottom);
    let second = Relay::over(&third);
    let first = Relay::over(&second);
    let nest = Nested::new(&second, Nested::new(&third, &bottom));
    let nest = Nested::new(&first, nest);
    for _ in 0..3 {
        // Parks in the innermost; a lost level would block here for ever.
        assert_eq!(block_on(&nest, first.read_value::<u16>(0)).unwrap(), Ok(0x0707));
        let read = with_backend(&nest, first.read_value::<u16>(0));
        assert_eq!(block_on(&Mem::default(), read).unwrap().unwrap(), Ok(0x0707));
        assert_eq!(nest.get_backend().unwrap().unwrap().depth(), 4);
    }
    for relay in [&third.claim, &second.claim, &first.claim] {
        assert!(!relay.get());
    }
    assert!(!bottom.claim.load(Ordering::SeqCst));

    // Busy at the bottom: nothing above stays taken.
    let held = bottom.get_backend().unwrap();
    assert_eq!(nest.get_backend().unwrap_err(), BackendBusy);
    drop(held);
    assert!(nest.get_backend().is_ok());
}

#[test]
fn joined_backends_that_share_a_level_drive_it_once() {
    let (carrier, other) = (Shared::<AtomicBool>::new(), Shared::<AtomicBool>::new());
    let (one, two) = (Relay::over(&carrier), Relay::over(&carrier));
    let nests = [Nested::new(&one, &carrier), Nested::new(&two, &carrier)];
    let backends: [&dyn IoBackend; 5] = [&nests[0], &other, &nests[1], &carrier, &other];
    for _ in 0..2 {
        let joined = BackendHandle::join(backends).unwrap().unwrap();
        assert_eq!(joined.depth(), 4);
        let before = carrier.drives.load(Ordering::SeqCst);
        joined.poll_drive(&mut Context::from_waker(Waker::noop()));
        assert_eq!(carrier.drives.load(Ordering::SeqCst), before + 1);
        assert!(one.drives.get() > 0 && two.drives.get() > 0);
    }
    let held = other.get_backend().unwrap();
    assert_eq!(BackendHandle::join(backends).unwrap_err(), BackendBusy);
    drop(held);
    assert!(backends.iter().all(|backend| backend.get_backend().is_ok()));
    let nothing: [&Mem; 0] = [];
    assert!(BackendHandle::join(nothing).unwrap().is_none());

    // Two that can park: neither is waited in, and both make progress.
    struct Both<'a>([&'a Shared<AtomicBool>; 2]);
    impl IoBackend for Both<'_> {
        fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
            BackendHandle::join(self.0)
        }
    }
    let read = async { (carrier.read_value::<u8>(0).await, other.read_value::<u8>(0).await) };
    assert_eq!(block_on(&Both([&carrier, &other]), read).unwrap(), (Ok(7), Ok(7)));
}

/// A device that completes reads when its interrupt has come, and says so by a custom source.
struct Device {
    queue: RefCell<Vec<View<Read>>>,
    line: Arc<Line>,
    claim: Cell<bool>,
    writable_only: bool,
}

#[derive(Default)]
struct Line {
    raised: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Line {
    fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }
}

impl Pollable for Device {
    fn poll_event(&self, cx: &mut Context<'_>, readable: bool, writable: bool) -> Poll<()> {
        // C15: the events asked for are those of the handle.
        assert_eq!((readable, writable), (!self.writable_only, self.writable_only));
        *self.line.waker.lock().unwrap() = Some(cx.waker().clone());
        if self.line.raised.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl PacketIo<Read, u64> for Device {
    fn send_io(&self, _at: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        self.queue.borrow_mut().push(view);
        let line = Arc::clone(&self.line);
        thread::spawn(move || line.raise());
        Ok(())
    }
}

impl Drive for Device {
    fn poll_drive(&self, _cx: &mut Context<'_>) {
        if self.line.raised.swap(false, Ordering::SeqCst) {
            for view in self.queue.take() {
                let bytes = vec![9; usize::try_from(view.len()).unwrap()];
                view.fill_from(&bytes);
            }
        }
    }
}

impl IoBackend for Device {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        let (readable, writable) = (!self.writable_only, self.writable_only);
        Some(PollingHandle { source: PollSource::Custom(self), readable, writable })
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        BackendHandle::acquire(self, &self.claim).map(Some)
    }
}

fn device(writable_only: bool) -> Device {
    let (queue, line, claim) = (RefCell::default(), Arc::default(), Cell::default());
    Device { queue, line, claim, writable_only }
}

/// C15, C16: a source that is no descriptor works in every way to wait, also for writability.
#[test]
fn c16_custom_source_wakes_every_kind_of_waiter() {
    for device in [device(false), device(true)] {
        for _ in 0..rounds(200) {
            let read = || device.read_value::<u32>(0);
            assert_eq!(block_on(&device, read()).unwrap(), Ok(0x0909_0909));
            let parked = block_on_with(&device, &ThreadPark::new(), read()).unwrap();
            assert_eq!(parked, Ok(0x0909_0909));
            let embedded = with_backend(&device, read());
            assert_eq!(block_on(&Mem::default(), embedded).unwrap().unwrap(), Ok(0x0909_0909));
        }
    }
}

#[test]
fn custom_parker_is_what_waits() {
    struct Counting(ThreadPark, AtomicUsize);
    impl Park for Counting {
        fn park(&self) {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.park();
        }
        fn unparker(&self) -> Waker {
            self.0.unparker()
        }
    }
    let device = device(false);
    let parker = Counting(ThreadPark::new(), AtomicUsize::new(0));
    // Sent while polled the first time; the line is raised by another thread at some time.
    block_on_with(&device, &parker, device.read_value::<u8>(0)).unwrap().unwrap();
    let parks = parker.1.load(Ordering::Relaxed);
    assert!((1..10).contains(&parks), "{parks}");
}

#[test]
fn embedded_future_is_polled_again_at_once_but_not_for_ever() {
    let polls = Cell::new(0_u32);
    let busy = poll_fn(|cx| {
        polls.set(polls.get() + 1);
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    });
    let target = Mem::polled(vec![0; 8], 2);
    let mut embedded = pin!(with_backend(&target, busy));
    let host = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&host));
    assert!(embedded.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!((2..100).contains(&polls.get()));
    assert!(*host.set.lock().unwrap(), "the host knows that there is more to do");

    // A future that waits costs the host one poll: the backend completes it meanwhile.
    let mut read = pin!(with_backend(&target, target.read_value::<u8>(0)));
    assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

/// C22: wakers of a wait that is over wake nobody and harm nothing.
#[test]
fn c22_waker_used_after_its_owner_has_gone_is_harmless() {
    let keep = Mutex::new(Vec::new());
    let once = |waker: &Waker| keep.lock().unwrap().push(waker.clone());
    let grab = || {
        let mut polled = false;
        poll_fn(move |cx| {
            once(cx.waker());
            if std::mem::replace(&mut polled, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    };
    let backend = Shared::<Turn>::new();
    block_on(&backend, grab()).unwrap();
    let parker = ThreadPark::new();
    block_on_with(&backend, &parker, grab()).unwrap();
    let host = Arc::new(Signal::default());
    {
        let waker = Waker::from(Arc::clone(&host));
        let mut embedded = pin!(with_backend(&backend, grab()));
        let polled = embedded.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_ready());
    }
    drop((backend, parker));
    thread::scope(|scope| {
        for waker in keep.into_inner().unwrap() {
            scope.spawn(move || {
                waker.wake_by_ref();
                waker.wake();
            });
        }
    });
    assert!(!*host.set.lock().unwrap(), "the host's task was done: nothing may wake it");
    assert_eq!(Arc::strong_count(&host), 1);
}

#[test]
fn turn_keeps_no_waker_of_those_who_no_longer_wait() {
    let backend = Shared::<Turn>::new();
    let held = backend.get_backend().unwrap();
    let host = Arc::new(Signal::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            let waker = Waker::from(Arc::clone(&host));
            for _ in 0..3 {
                let mut waits = Box::pin(with_backend(&backend, pending::<()>()));
                assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            }
        });
    });
    assert_eq!(Arc::strong_count(&host), 1);
    drop(held);
}
