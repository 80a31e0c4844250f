//! Whom the end of a connection concerns is told of it, whatever their wakers do.

use alloc::task::Wake;
use alloc::vec;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use mfio_core::Packet;
use mfio_rt::Op;

use super::*;
use crate::client::pending::Pending;
use crate::client::shared::User;
use crate::wire::Limits;

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker: this panic belongs to the test");
    }
}

fn user() -> Arc<User> {
    let limits = Limits { requests: 2, bytes: 1 << 20, idle_ms: 0 };
    Arc::new(User { shared: Arc::new(Shared::new(limits)), net: None })
}

fn ping(user: &Arc<User>) -> Pending {
    let root = Arc::new(Opened { number: 0, epoch: None, user: Arc::clone(user) });
    Pending::new(Request::Ping {}, Op::Connect, Vec::from([root])).expect("there is a handle")
}

fn poll(pending: &mut Pending, waker: &Waker) -> Poll<Result<Reply, Error>> {
    Pin::new(pending).poll(&mut Context::from_waker(waker))
}

/// Two are under way and two wait to be sent; the first of each has a waker that panics.
#[test]
fn connection_that_ends_fails_every_operation_whichever_waker_panics() {
    let user = user();
    let (panics, quiet) = (Waker::from(Arc::new(Panics)), Waker::noop());
    let mut all: Vec<_> = (0..4).map(|_| ping(&user)).collect();
    for (at, pending) in all.iter_mut().enumerate() {
        let waker = if at % 2 == 0 { &panics } else { quiet };
        assert!(poll(pending, waker).is_pending());
        if at < 2 {
            assert!(matches!(user.shared.poll_work(None), Poll::Ready(Work::Send { .. })));
        }
    }
    let cut = catch_unwind(AssertUnwindSafe(|| user.shared.cut(Phase::Down)));
    assert!(cut.is_err());
    for pending in &mut all {
        assert!(poll(pending, quiet).is_ready(), "it is told");
    }
}

/// A driver is dropped because it panics.
#[test]
fn connection_that_ends_by_a_panic_fails_every_operation_whichever_waker_panics() {
    struct Cuts<'a>(&'a Shared);
    impl Drop for Cuts<'_> {
        fn drop(&mut self) {
            self.0.cut(Phase::Down);
        }
    }
    let user = user();
    let panics = Waker::from(Arc::new(Panics));
    let mut all: Vec<_> = (0..3).map(|_| ping(&user)).collect();
    for pending in &mut all {
        assert!(poll(pending, &panics).is_pending());
    }
    let driver = catch_unwind(AssertUnwindSafe(|| {
        let _cuts = Cuts(&user.shared);
        panic!("a driver: this panic belongs to the test");
    }));
    assert!(driver.is_err());
    for pending in &mut all {
        assert!(poll(pending, Waker::noop()).is_ready(), "it is told");
    }
}

/// What is to be done next; from then on there is a driver whose waker panics.
fn work_before_a_panic(user: &User) -> Work {
    let Poll::Ready(work) = user.shared.poll_work(None) else { panic!("there is work") };
    let panics = Waker::from(Arc::new(Panics));
    assert!(user.shared.poll_work(Some(&Context::from_waker(&panics))).is_pending());
    work
}

#[test]
fn operation_is_answered_although_the_driver_panics() {
    let user = user();
    let mut pending = ping(&user);
    assert!(poll(&mut pending, Waker::noop()).is_pending());
    let Work::Send { id, .. } = work_before_a_panic(&user) else { panic!("it is sent") };
    let reply = AssertUnwindSafe(|| user.shared.reply(id, Reply::Done {}));
    assert!(catch_unwind(reply).is_err());
    assert!(matches!(poll(&mut pending, Waker::noop()), Poll::Ready(Ok(Reply::Done {}))));
}

/// A file of the connection that is up.
fn file(user: &Arc<User>) -> Arc<Opened> {
    Arc::new(Opened { number: 1, epoch: Some(1), user: Arc::clone(user) })
}

#[test]
fn read_ends_although_the_driver_panics() {
    let user = user();
    let file = file(&user);
    let (mut sent, view) = Packet::<Read, _>::new(vec![0; 8]).send();
    let transfer = Transfer { file: Arc::clone(&file), at: 0, way: Way::Read(view) };
    assert!(user.shared.send(transfer).is_ok());
    let Work::Send { id, .. } = work_before_a_panic(&user) else { panic!("it is sent") };
    let carve = AssertUnwindSafe(|| user.shared.carve(id, 0, 8).is_ok());
    assert!(catch_unwind(carve).is_err());
    assert!(sent.poll_done(&mut Context::from_waker(Waker::noop())).is_ready());
}

/// The verdict comes before the bytes are said to be out, or after that.
#[test]
fn write_is_answered_although_the_driver_panics() {
    for early in [false, true] {
        let user = user();
        let file = file(&user);
        let (mut sent, view) = Packet::<Write, _>::new(vec![0; 8]).send();
        let transfer = Transfer { file: Arc::clone(&file), at: 0, way: Way::Write(view) };
        assert!(user.shared.send(transfer).is_ok());
        let Work::Write { id, view, .. } = work_before_a_panic(&user) else { panic!("a write") };
        let verdict = || user.shared.reply(id, Reply::Written { failed: Vec::new() });
        let answered = catch_unwind(AssertUnwindSafe(|| {
            if early {
                assert!(verdict().is_ok());
            }
            user.shared.sent(id, view);
            assert!(early || verdict().is_ok());
        }));
        assert!(answered.is_err(), "the driver panics");
        assert!(sent.poll_done(&mut Context::from_waker(Waker::noop())).is_ready());
        assert!(sent.into_completed().is_ok_and(|done| done.is_ok()));
    }
}

/// Comes back to the client when it is woken, and when it is dropped.
struct Returns(Arc<User>, AtomicUsize);

impl Wake for Returns {
    fn wake(self: Arc<Self>) {
        assert!(!self.0.shared.lock().is_unused());
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Returns {
    fn drop(&mut self) {
        drop(self.0.shared.lock());
    }
}

/// A driver is polled by whoever will, with whatever waker.
#[test]
fn waker_of_the_driver_may_come_back_to_the_client() {
    let user = user();
    let (finish, finished) = mpsc::channel();
    std::thread::spawn(move || {
        let returns = Arc::new(Returns(Arc::clone(&user), AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&returns));
        assert!(user.shared.poll_work(Some(&Context::from_waker(&waker))).is_pending());
        let mut pending = ping(&user);
        assert!(poll(&mut pending, Waker::noop()).is_pending());
        assert_eq!(returns.1.load(Ordering::SeqCst), 1, "it is woken");
        assert!(user.shared.poll_work(None).is_ready());
        // And one that is replaced is dropped.
        let other = Waker::from(Arc::new(Returns(Arc::clone(&user), AtomicUsize::new(0))));
        assert!(user.shared.poll_work(Some(&Context::from_waker(&other))).is_pending());
        drop(other);
        assert!(user.shared.poll_work(Some(&Context::from_waker(Waker::noop()))).is_pending());
        finish.send(()).expect("somebody waits");
    });
    let ended = finished.recv_timeout(Duration::from_secs(60));
    assert_eq!(ended, Ok(()), "nobody waits for a lock of his own");
}
