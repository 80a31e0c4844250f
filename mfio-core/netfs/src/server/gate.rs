//! Futures of one set, polled as often as they have something to do.
//!
//! Data flow: future wakes → [`Gate`] → whoever polls the set. A set asks for another poll
//! whenever it has polled all that were ready, in case they are ready again; whether they are is
//! looked at here at once, instead of by another turn of everything.
//!
//! Not here: what the futures do (`session`), which there are (`server`).

use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::Future;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

/// Rounds of one poll: one for what is ready; one for what was done while it was polled, and has
/// woken it without need; one that finds nothing.
const ROUNDS_MAX: usize = 3;

/// What the futures of a set wake.
struct Gate {
    /// Somebody wakes, and it must be passed on: the set is not being polled.
    open: AtomicBool,
    told: AtomicBool,
    /// Counted, so that nobody's code runs under the lock: a waker's clone may run anything.
    behind: Mutex<Option<Arc<Waker>>>,
}

impl Gate {
    fn behind(&self) -> MutexGuard<'_, Option<Arc<Waker>>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stand_before(&self, waker: &Waker) {
        let known = self.behind().as_ref().is_some_and(|known| known.will_wake(waker));
        if !known {
            let new = Arc::new(waker.clone());
            let old = self.behind().replace(new);
            drop(old);
        }
    }
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.told.store(true, Ordering::SeqCst);
        // Loaded after that: whoever opens looks whether it was told.
        if self.open.load(Ordering::SeqCst) {
            let behind = self.behind().clone();
            if let Some(behind) = behind {
                behind.wake_by_ref();
            }
        }
    }
}

/// One set's gate.
pub(super) struct Attendance {
    gate: Arc<Gate>,
    waker: Waker,
}

impl Attendance {
    pub(super) fn new() -> Self {
        let (open, told) = (AtomicBool::new(false), AtomicBool::new(false));
        let gate = Arc::new(Gate { open, told, behind: Mutex::new(None) });
        let waker = Waker::from(Arc::clone(&gate));
        Self { gate, waker }
    }

    /// Polls what is ready of `set`, and hands over what is done. `cx` is woken when more may be
    /// ready.
    pub(super) fn poll<F: Future>(
        &self,
        cx: &Context<'_>,
        set: &mut FuturesUnordered<F>,
        mut done: impl FnMut(F::Output),
    ) {
        let gate = &self.gate;
        gate.open.store(false, Ordering::SeqCst);
        gate.stand_before(cx.waker());
        for _ in 0..ROUNDS_MAX {
            gate.told.store(false, Ordering::SeqCst);
            let mut inner = Context::from_waker(&self.waker);
            while let Poll::Ready(Some(output)) = set.poll_next_unpin(&mut inner) {
                done(output);
            }
            if !gate.told.load(Ordering::SeqCst) {
                break;
            }
        }
        gate.open.store(true, Ordering::SeqCst);
        if gate.told.load(Ordering::SeqCst) {
            cx.waker().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::boxed::Box;
    use core::cell::{Cell, RefCell};
    use core::future::poll_fn;
    use core::pin::Pin;
    use core::sync::atomic::AtomicU32;

    #[derive(Default)]
    struct Counted(AtomicU32);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    type Futures<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = u32> + 'a>>>;

    #[test]
    fn one_that_waits_is_polled_once_and_wakes_nobody_until_it_is_woken() {
        let counted = Arc::new(Counted::default());
        let waker = Waker::from(Arc::clone(&counted));
        let cx = Context::from_waker(&waker);
        let (polls, inner) = (Cell::new(0), RefCell::new(None::<Waker>));
        let mut set = Futures::new();
        set.push(Box::pin(poll_fn(|cx| {
            polls.set(polls.get() + 1);
            *inner.borrow_mut() = Some(cx.waker().clone());
            if polls.get() == 2 { Poll::Ready(7) } else { Poll::Pending }
        })));
        let attendance = Attendance::new();
        attendance.poll(&cx, &mut set, |_| panic!("it is not done"));
        assert_eq!((polls.get(), counted.0.load(Ordering::SeqCst)), (1, 0));
        inner.take().expect("it was polled").wake();
        assert_eq!(counted.0.load(Ordering::SeqCst), 1);
        let mut done = 0;
        attendance.poll(&cx, &mut set, |output| done += output);
        assert_eq!((polls.get(), done), (2, 7));
        attendance.poll(&cx, &mut set, |_| panic!("there is nobody"));
        assert_eq!(counted.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn one_that_always_wants_more_gives_others_a_turn() {
        let counted = Arc::new(Counted::default());
        let waker = Waker::from(Arc::clone(&counted));
        let cx = Context::from_waker(&waker);
        let polls = Cell::new(0);
        let mut set = Futures::new();
        set.push(Box::pin(poll_fn(|cx| {
            polls.set(polls.get() + 1);
            cx.waker().wake_by_ref();
            Poll::Pending
        })));
        let attendance = Attendance::new();
        attendance.poll(&cx, &mut set, |_| panic!("it is not done"));
        assert_eq!((polls.get(), counted.0.load(Ordering::SeqCst)), (3, 1));
    }
}
