//! A future that is polled by whoever waits for connections.
//!
//! Data flow: woken → queue of the reactor → polled → put back until it is woken again.
//!
//! Not here: whose turn it is (`reactor`).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use super::reactor::{Shared, Work};
use crate::lock::Lock;

/// Polls in a row of what wakes itself: it has sent something that was out at once, and needs no
/// wait of others in between to see that.
const POLLS_MAX: usize = 3;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a task is.
enum Place {
    /// Nobody has anything to do with it.
    Idle(Boxed),
    /// In the queue.
    Queued(Boxed),
    /// Being polled, and whether it was woken meanwhile.
    Polled { again: bool },
    /// Over.
    Gone,
}

pub(super) struct Task {
    reactor: Arc<Shared>,
    place: Lock<Place>,
}

impl Task {
    pub(super) fn spawn(reactor: &Arc<Shared>, future: Boxed) {
        let place = Lock::new(Place::Queued(future));
        let task = Arc::new(Self { reactor: Arc::clone(reactor), place });
        reactor.push(Work::Poll(task));
    }

    pub(super) fn run(self: &Arc<Self>) {
        let taken = self.place.with(|place| {
            match core::mem::replace(place, Place::Polled { again: false }) {
                Place::Queued(future) | Place::Idle(future) => Some(future),
                other => {
                    *place = other;
                    None
                }
            }
        });
        let Some(mut future) = taken else { return };
        // Over where the poll panics, too: what it holds is dropped then.
        let mut over = Over(Some(self));
        let waker = Waker::from(Arc::clone(self));
        for round in 1..=POLLS_MAX {
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            if polled == Poll::Ready(()) {
                return;
            }
            let again = self.place.with(|place| {
                let again = matches!(place, Place::Polled { again: true });
                *place = Place::Polled { again: again && round == POLLS_MAX };
                again
            });
            if !again {
                break;
            }
        }
        over.0 = None;
        let again = self.place.with(|place| {
            let again = matches!(place, Place::Polled { again: true });
            *place = if again { Place::Queued(future) } else { Place::Idle(future) };
            again
        });
        if again {
            self.reactor.push(Work::Poll(Arc::clone(self)));
        }
    }
}

/// Marks a task as over.
struct Over<'a>(Option<&'a Task>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.0 {
            task.place.with(|place| *place = Place::Gone);
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let queued = self.place.with(|place| {
            match core::mem::replace(place, Place::Gone) {
                Place::Idle(future) => {
                    *place = Place::Queued(future);
                    return true;
                }
                Place::Polled { .. } => *place = Place::Polled { again: true },
                other => *place = other,
            }
            false
        });
        if queued {
            self.reactor.push(Work::Poll(Arc::clone(self)));
        }
    }
}
