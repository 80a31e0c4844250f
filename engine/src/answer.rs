//! One answer, told on one thread and awaited or waited for on another.
//!
//! Data flow: [`ask`] → [`Teller`] (who works) and [`Asked`] (who waits). A teller that is
//! dropped tells what it was told to say then, so nobody waits for ever.
//!
//! Not here: results inside one shard (`shard::join`). Locks: never once per I/O.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::sync::{Condvar, Mutex, MutexGuard};

enum State<T> {
    Open(Option<Waker>),
    Told(T),
    Taken,
}

struct Cell<T> {
    state: Mutex<State<T>>,
    told: Condvar,
}

impl<T> Cell<T> {
    /// No code panics while it holds the lock, so a poisoned state is still a whole one.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question; the teller says `if_dropped()` where it is dropped without an answer.
pub(crate) fn ask<T>(if_dropped: fn() -> T) -> (Teller<T>, Asked<T>) {
    let cell = Arc::new(Cell { state: Mutex::new(State::Open(None)), told: Condvar::new() });
    (Teller { cell: Some(Arc::clone(&cell)), if_dropped }, Asked { cell })
}

/// The end that answers.
pub(crate) struct Teller<T> {
    /// `None` once it has answered.
    cell: Option<Arc<Cell<T>>>,
    if_dropped: fn() -> T,
}

impl<T> Teller<T> {
    /// Answers.
    pub(crate) fn tell(mut self, answer: T) {
        if let Some(cell) = self.cell.take() {
            Self::put(&cell, answer);
        }
    }

    fn put(cell: &Cell<T>, answer: T) {
        let old = std::mem::replace(&mut *cell.lock(), State::Told(answer));
        cell.told.notify_all();
        // Called outside the lock: it may run anything.
        if let State::Open(Some(waker)) = old {
            waker.wake();
        }
    }
}

impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            Self::put(&cell, (self.if_dropped)());
        }
    }
}

impl<T> fmt::Debug for Teller<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teller")
    }
}

/// The end that waits.
pub(crate) struct Asked<T> {
    cell: Arc<Cell<T>>,
}

impl<T> Asked<T> {
    /// Blocks the thread until there is an answer.
    pub(crate) fn wait(self) -> T {
        let mut state = self.cell.lock();
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Told(answer) => return answer,
                State::Open(waker) => *state = State::Open(waker),
                State::Taken => unreachable!("an answer is taken once"),
            }
            state = self.cell.told.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Future for Asked<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Cloned before and dropped after the lock: either may run anything.
        let mut waker = Some(cx.waker().clone());
        let polled = {
            let mut state = self.cell.lock();
            match &mut *state {
                State::Open(waiting) => {
                    std::mem::swap(waiting, &mut waker);
                    Poll::Pending
                }
                State::Told(_) => match std::mem::replace(&mut *state, State::Taken) {
                    State::Told(answer) => Poll::Ready(answer),
                    State::Open(_) | State::Taken => unreachable!("seen under the same lock"),
                },
                State::Taken => panic!("an answer was polled after it was taken"),
            }
        };
        drop(waker);
        polled
    }
}

impl<T> fmt::Debug for Asked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked")
    }
}
