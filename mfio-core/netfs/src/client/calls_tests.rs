//! Whom the end of a connection concerns is told of it, whatever their wakers do.

use alloc::task::Wake;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

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
