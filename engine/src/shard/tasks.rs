//! The tasks of a shard: futures that stay on its thread, polled when they were woken.
//!
//! Data flow: [`Tasks::spawn`] → slab → woken → run queue → polled by [`Tasks::run`] → over.
//! A wake on the shard's own thread goes to a plain queue; one from elsewhere through a
//! lock-free queue and the [`Bell`]. Wakes allocate nothing: a place of the slab keeps its waker
//! for good, and stands in the queues at most once, so that they cannot be full. A waker that
//! outlives its task may thus wake the next one in its place, which finds nothing to do.
//!
//! Not here: when tasks run (`run`), their results (`join`).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crossbeam_queue::ArrayQueue;

use super::bell::Bell;
use super::join::{JoinHandle, Outcome, join};
use crate::error::EngineError;

/// The place of the future that [`Shard::block_on`](super::Shard::block_on) runs.
const MAIN: u32 = 0;

/// A task, without its result.
type Body = Pin<Box<dyn Future<Output = ()>>>;

/// What any thread can reach of a shard's tasks.
#[derive(Debug)]
struct Woken {
    /// Names the shard in [`Here::owner`].
    id: u64,
    from_elsewhere: ArrayQueue<u32>,
    bell: Arc<Bell>,
}

/// The waker of one place.
#[derive(Debug)]
struct PlaceWaker {
    woken: Arc<Woken>,
    place: u32,
    /// Stands in one of the queues.
    queued: AtomicBool,
}

impl Wake for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let here = HERE.try_with(|here| {
            let own = here.owner.get() == self.woken.id;
            if own {
                here.ready.borrow_mut().push_back(self.place);
            }
            own
        });
        if here != Ok(true) {
            let pushed = self.woken.from_elsewhere.push(self.place);
            assert!(pushed.is_ok(), "every place stands in the queue at most once");
            self.woken.bell.ring();
        }
    }
}

/// The shard that this thread is driving at the moment.
struct Here {
    /// Its [`Woken::id`]; 0 for none.
    owner: Cell<u64>,
    ready: RefCell<VecDeque<u32>>,
}

thread_local! {
    static HERE: Here =
        const { Here { owner: Cell::new(0), ready: RefCell::new(VecDeque::new()) } };
}

/// Whether this thread is inside a shard: blocking here would stop it.
pub(crate) fn inside_a_shard() -> bool {
    HERE.try_with(|here| here.owner.get() != 0).unwrap_or(false)
}

/// A task that is not over.
struct Task {
    body: Body,
    outcome: Rc<dyn Outcome>,
    waker: Waker,
}

/// What became of one place.
enum Life {
    Free,
    /// Waits to be polled.
    Alive(Task),
    /// Being polled, or dropped, at the moment.
    Away,
}

struct Place {
    life: Life,
    wake: Arc<PlaceWaker>,
    waker: Waker,
}

/// The tasks of one shard.
pub(super) struct Tasks {
    woken: Arc<Woken>,
    /// Woken on this thread, while the shard is not [`Here`].
    ready: RefCell<VecDeque<u32>>,
    places: RefCell<Vec<Place>>,
    free: RefCell<Vec<u32>>,
    tasks_max: u32,
    alive: Cell<u32>,
    closed: Cell<bool>,
}

impl Tasks {
    pub(super) fn new(tasks_max: u32, bell: Arc<Bell>) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let most = tasks_max as usize + 1;
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let woken = Woken { id, from_elsewhere: ArrayQueue::new(most), bell };
        let tasks = Self {
            woken: Arc::new(woken),
            ready: RefCell::new(VecDeque::with_capacity(most)),
            places: RefCell::new(Vec::new()),
            free: RefCell::new(Vec::new()),
            tasks_max,
            alive: Cell::new(0),
            closed: Cell::new(false),
        };
        let main = tasks.make_place();
        debug_assert_eq!(main, MAIN);
        tasks
    }

    pub(super) fn bell(&self) -> &Arc<Bell> {
        &self.woken.bell
    }

    /// Tasks that are not over.
    pub(super) fn alive(&self) -> u32 {
        self.alive.get()
    }

    fn make_place(&self) -> u32 {
        let mut places = self.places.borrow_mut();
        let place = u32::try_from(places.len()).expect("no more than tasks_max");
        let woken = Arc::clone(&self.woken);
        let wake = Arc::new(PlaceWaker { woken, place, queued: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&wake));
        places.push(Place { life: Life::Free, wake, waker });
        place
    }

    /// Whether there may be one more task.
    pub(super) fn admits(&self) -> Result<(), EngineError> {
        if self.closed.get() {
            return Err(EngineError::Closed);
        }
        if self.alive.get() >= self.tasks_max {
            return Err(EngineError::TasksFull { tasks_max: self.tasks_max });
        }
        Ok(())
    }

    /// Makes a task of `future`; it is polled for the first time when the shard runs next.
    pub(super) fn spawn<F>(&self, future: F) -> Result<JoinHandle<F::Output>, EngineError>
    where
        F: Future + 'static,
    {
        self.admits()?;
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| self.make_place());
        let waker = self.places.borrow()[place as usize].waker.clone();
        let (body, outcome, handle) = join(future, waker.clone());
        let task = Task { body, outcome, waker: waker.clone() };
        self.places.borrow_mut()[place as usize].life = Life::Alive(task);
        self.alive.set(self.alive.get() + 1);
        waker.wake();
        Ok(handle)
    }

    /// Wakes on this thread are this shard's own until the guard is dropped.
    pub(super) fn enter(&self) -> Inside<'_> {
        let owner = HERE.with(|here| {
            debug_assert_ne!(here.owner.get(), self.woken.id, "one drive at a time");
            std::mem::swap(&mut *here.ready.borrow_mut(), &mut *self.ready.borrow_mut());
            here.owner.replace(self.woken.id)
        });
        Inside { tasks: self, owner }
    }

    /// The waker of the future that is blocked on.
    pub(super) fn main_waker(&self) -> Waker {
        self.places.borrow()[MAIN as usize].waker.clone()
    }

    /// Whether anything was woken. Only inside.
    pub(super) fn any_ready(&self) -> bool {
        HERE.with(|here| !here.ready.borrow().is_empty()) || !self.woken.from_elsewhere.is_empty()
    }

    fn next_ready(&self) -> Option<u32> {
        HERE.with(|here| here.ready.borrow_mut().pop_front())
    }

    /// Behind what is there already, so that neither side starves the other.
    fn take_from_elsewhere(&self) {
        if !self.woken.from_elsewhere.is_empty() {
            HERE.with(|here| {
                let mut ready = here.ready.borrow_mut();
                ready.extend(std::iter::from_fn(|| self.woken.from_elsewhere.pop()));
            });
        }
    }

    /// Polls what was woken, at most `budget` times. Returns whether the future that is
    /// blocked on is among it. Only inside, and with nothing of the shard borrowed.
    pub(super) fn run(&self, budget: u32) -> Ran {
        let mut ran = Ran { main: false, any: false };
        self.take_from_elsewhere();
        for _ in 0..budget {
            let Some(place) = self.next_ready() else { break };
            ran.any = true;
            let life = {
                let mut places = self.places.borrow_mut();
                let entry = &mut places[place as usize];
                // Before the poll, so that a wake during it counts for the next one.
                entry.wake.queued.swap(false, Ordering::AcqRel);
                match &entry.life {
                    Life::Alive(_) => std::mem::replace(&mut entry.life, Life::Away),
                    Life::Free | Life::Away => Life::Free,
                }
            };
            match life {
                Life::Alive(task) => self.poll(place, task),
                _ => ran.main |= place == MAIN,
            }
        }
        ran
    }

    fn poll(&self, place: u32, mut task: Task) {
        let polled = if task.outcome.is_aborted() {
            Ok(Poll::Ready(()))
        } else {
            let mut cx = Context::from_waker(&task.waker);
            catch_unwind(AssertUnwindSafe(|| task.body.as_mut().poll(&mut cx)))
        };
        match polled {
            Ok(Poll::Pending) if !self.closed.get() => {
                self.places.borrow_mut()[place as usize].life = Life::Alive(task);
            }
            Ok(_) => self.end(place, task, None),
            Err(panic) => self.end(place, task, Some(panic)),
        }
    }

    /// The task is over, or is to be.
    fn end(&self, place: u32, task: Task, panic: Option<Box<dyn Any + Send>>) {
        let Task { body, outcome, waker } = task;
        // Dropping may run anything, panic included: the place is free only afterwards.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(body)));
        let told = catch_unwind(AssertUnwindSafe(|| outcome.over(panic.or(dropped.err()))));
        // With it goes a result that nobody waits for.
        let forgotten = catch_unwind(AssertUnwindSafe(|| drop(outcome)));
        drop((waker, told, forgotten));
        self.places.borrow_mut()[place as usize].life = Life::Free;
        self.free.borrow_mut().push(place);
        self.alive.set(self.alive.get() - 1);
    }

    /// Ends every task, and accepts none any more. Returns how many there were; one that is
    /// being polled at the moment ends when it yields.
    pub(super) fn close(&self) -> u32 {
        self.closed.set(true);
        let mut ended = 0;
        let mut place = 0;
        loop {
            let life = {
                let mut places = self.places.borrow_mut();
                let Some(entry) = places.get_mut(place as usize) else { break };
                match &entry.life {
                    Life::Alive(_) => std::mem::replace(&mut entry.life, Life::Away),
                    Life::Free | Life::Away => Life::Free,
                }
            };
            if let Life::Alive(task) = life {
                self.end(place, task, None);
                ended += 1;
            }
            place += 1;
        }
        ended
    }
}

/// What one call of [`Tasks::run`] came across.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ran {
    /// The future that is blocked on was woken.
    pub(super) main: bool,
    /// Anything was woken.
    pub(super) any: bool,
}

/// This thread drives the shard.
pub(super) struct Inside<'a> {
    tasks: &'a Tasks,
    /// The shard around this one, if any.
    owner: u64,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        HERE.with(|here| {
            std::mem::swap(&mut *here.ready.borrow_mut(), &mut *self.tasks.ready.borrow_mut());
            here.owner.set(self.owner);
        });
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("alive", &self.alive.get()).finish_non_exhaustive()
    }
}
