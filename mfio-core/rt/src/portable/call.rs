//! One operation on a thread, and the future of its result.
//!
//! Data flow: closure → [`Pool::call`] → thread → slot → waker → result. Dropped before it was
//! begun, it is not done; after that its result is dropped, which closes what it opened.
//!
//! Not here: packets, which carry their own results (`file`).

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

use super::pool::{Job, Pool};
use crate::error::{Error, ErrorKind, Op};
use crate::lock::Lock;

struct Slot<T> {
    result: Option<T>,
    waker: Option<Waker>,
    /// The side that makes the result has gone, with or without one.
    over: bool,
    /// Nobody waits any more.
    abandoned: bool,
}

/// The side that makes the result.
pub(super) struct Maker<T>(Arc<Lock<Slot<T>>>);

/// The side that waits for it.
pub(super) struct Waiter<T>(Arc<Lock<Slot<T>>>);

pub(super) fn slot<T>() -> (Maker<T>, Waiter<T>) {
    let slot = Slot { result: None, waker: None, over: false, abandoned: false };
    let shared = Arc::new(Lock::new(slot));
    (Maker(Arc::clone(&shared)), Waiter(shared))
}

impl<T> Maker<T> {
    pub(super) fn is_wanted(&self) -> bool {
        self.0.with(|slot| !slot.abandoned)
    }

    /// Hands the result over; it comes back where nobody waits.
    pub(super) fn finish(self, result: T) -> Option<T> {
        self.0.with(|slot| {
            if slot.abandoned {
                return Some(result);
            }
            slot.result = Some(result);
            None
        })
    }
}

impl<T> Drop for Maker<T> {
    fn drop(&mut self) {
        let waker = self.0.with(|slot| {
            slot.over = true;
            slot.waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Waiter<T> {
    /// The result; `Ready(None)` where there will be none.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Option<T>> {
        let mut waker = Some(cx.waker().clone());
        let polled = self.0.with(|slot| {
            if slot.over {
                return Poll::Ready(slot.result.take());
            }
            core::mem::swap(&mut slot.waker, &mut waker);
            Poll::Pending
        });
        drop(waker);
        polled
    }
}

impl<T> Drop for Waiter<T> {
    fn drop(&mut self) {
        let left = self.0.with(|slot| {
            slot.abandoned = true;
            (slot.result.take(), slot.waker.take())
        });
        // Outside the lock: closing a file may take long.
        drop(left);
    }
}

impl Pool {
    /// Runs `work` on a thread, waiting for room in the queue if need be.
    pub(super) async fn call<T, W>(&self, op: Op, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        self.call_while_wanted(op, |_| work()).await
    }

    /// As `call`, for work that can see on its way whether anybody waits for it.
    pub(super) async fn call_while_wanted<T, W>(&self, op: Op, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnOnce(&Maker<T>) -> T + Send + 'static,
    {
        let (maker, waiter) = slot();
        let mut job: Option<Job> = Some(Job::Call(Box::new(move || {
            if maker.is_wanted() {
                let result = work(&maker);
                let unwanted = maker.finish(result);
                drop(unwanted);
            }
        })));
        let result = poll_fn(|cx| {
            while let Some(waiting) = job.take() {
                match self.push(waiting) {
                    Ok(()) => break,
                    Err(refused) => job = Some(refused),
                }
                if self.poll_room(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            waiter.poll(cx)
        })
        .await;
        result.ok_or_else(|| Error::new(op, ErrorKind::Cancelled))
    }
}
