//! How both sides wait: the very same poll loop, the very same waker.
//!
//! Data flow: a pending future → its target is driven → the future again. The waker is a
//! counted one, as every real executor's is, so that cloning it costs what it costs there.
//!
//! Not here: parking; nothing here waits for another thread.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

#[derive(Default)]
struct Called(AtomicBool);

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// A waker that notes that it was called.
pub fn waker() -> Waker {
    Waker::from(Arc::new(Called::default()))
}

/// Polls `future` until it is ready, driving in between.
pub fn wait<F: Future>(waker: &Waker, drive: impl Fn(), future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => drive(),
        }
    }
}

/// Polls all futures, drives, and polls those that were pending, in order, until all are ready.
/// The cheapest way to await many: no allocation, no bookkeeping.
pub fn wait_in_order<F: Future + Unpin>(
    waker: &Waker,
    drive: impl Fn(),
    futures: &mut Vec<F>,
    mut each: impl FnMut(F::Output),
) {
    let mut cx = Context::from_waker(waker);
    let mut pending = 0;
    for at in 0..futures.len() {
        match Pin::new(&mut futures[at]).poll(&mut cx) {
            Poll::Ready(output) => each(output),
            Poll::Pending => {
                futures.swap(pending, at);
                pending += 1;
            }
        }
    }
    while pending > 0 {
        drive();
        let mut left = 0;
        for at in 0..pending {
            match Pin::new(&mut futures[at]).poll(&mut cx) {
                Poll::Ready(output) => each(output),
                Poll::Pending => {
                    futures.swap(left, at);
                    left += 1;
                }
            }
        }
        pending = left;
    }
    futures.clear();
}
