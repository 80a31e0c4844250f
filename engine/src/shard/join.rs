//! The result of a task: awaited, abandoned, or never to come.
//!
//! Data flow: future → [`join`] → body (for the slab) and [`JoinHandle`] (for whoever waits),
//! with one cell between them.
//!
//! Not here: polling tasks (`tasks`), results that cross threads (`answer`).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;

use super::tasks::PlaceWaker;
use crate::error::EngineError;

/// What [`Tasks`](super::tasks::Tasks) tell of a task, whatever its result.
pub(super) trait Outcome {
    /// It will not be polled again; with what it panicked, if it did.
    fn over(&self, panic: Option<Box<dyn Any + Send>>);
}

struct Cells<T> {
    result: RefCell<Option<Result<T, EngineError>>>,
    /// Who awaits the handle.
    joiner: RefCell<Option<Waker>>,
    over: Cell<bool>,
}

impl<T> Outcome for Cells<T> {
    fn over(&self, panic: Option<Box<dyn Any + Send>>) {
        self.over.set(true);
        {
            let mut result = self.result.borrow_mut();
            if result.is_none() {
                let why = panic.map_or(EngineError::Cancelled, |panic| panicked(&*panic));
                *result = Some(Err(why));
            }
        }
        let joiner = self.joiner.borrow_mut().take();
        if let Some(joiner) = joiner {
            joiner.wake();
        }
    }
}

/// The error of a panic, with its message where it has one.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> EngineError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    EngineError::Panicked { message: text.unwrap_or_else(|| "no message".to_owned()) }
}

pin_project! {
    /// A future that leaves its result in a cell.
    struct Task<F: Future> {
        #[pin]
        future: F,
        cells: Rc<Cells<F::Output>>,
    }
}

impl<F: Future> Future for Task<F> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let result = ready!(this.future.poll(cx));
        *this.cells.result.borrow_mut() = Some(Ok(result));
        Poll::Ready(())
    }
}

/// The two ends of a task that is woken by `place`.
#[allow(clippy::type_complexity, reason = "taken apart at once, in one place")]
pub(super) fn join<F: Future + 'static>(
    future: F,
    place: Arc<PlaceWaker>,
) -> (Pin<Box<dyn Future<Output = ()>>>, Rc<dyn Outcome>, JoinHandle<F::Output>) {
    let cells = Rc::new(Cells {
        result: RefCell::new(None),
        joiner: RefCell::new(None),
        over: Cell::new(false),
    });
    let body = Box::pin(Task { future, cells: Rc::clone(&cells) });
    let outcome = Rc::clone(&cells);
    (body, outcome, JoinHandle { cells, place })
}

/// Waits for a task of the same shard. Dropping it lets the task run on by itself.
///
/// Resolves to what the task came to, or to [`EngineError::Panicked`] or
/// [`EngineError::Cancelled`].
///
/// # Cancel safety
/// Dropping it loses the result and nothing else.
#[must_use = "dropping it lets the task run on by itself: bind it to `_` to say so"]
pub struct JoinHandle<T> {
    cells: Rc<Cells<T>>,
    place: Arc<PlaceWaker>,
}

impl<T> JoinHandle<T> {
    /// Asks the task to end: it is dropped when the shard comes to it, instead of being polled
    /// again. A result that is there already stays.
    pub fn abort(&self) {
        if !self.cells.over.get() {
            self.place.abort();
        }
    }

    /// Whether the task is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.cells.over.get()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, EngineError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.cells.over.get() {
            let result = self.cells.result.borrow_mut().take();
            return Poll::Ready(result.expect("a task was joined after its result was taken"));
        }
        // Cloned before and dropped after the cell is borrowed: either may run anything.
        let joiner = Some(cx.waker().clone());
        let old = self.cells.joiner.replace(joiner);
        drop(old);
        Poll::Pending
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish()
    }
}
