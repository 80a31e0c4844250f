//! The tasks of a shard: futures that stay on its thread, polled when they were woken.
//!
//! Data flow: [`Tasks::spawn`] → slab → woken → run queue → polled by [`Tasks::run`] → over.
//! A wake on the shard's own thread goes to the run queue with loads and stores alone; one from
//! elsewhere through a lock-free queue and the [`Bell`]. Wakes allocate nothing: a place of the
//! slab keeps its waker for good, and stands in each of the queues at most once, so that they
//! cannot be full. A waker that outlives its task may thus wake the next one in its place, which
//! finds nothing to do.
//!
//! Not here: when tasks run (`run`), their results (`join`), the run queue itself (`ready`).

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, RawWakerVTable, Wake, Waker};

use crossbeam_queue::ArrayQueue;

use super::bell::Bell;
use super::join::{JoinHandle, Outcome, join};
use super::ready::Ready;
use crate::error::EngineError;

/// The place of the future that [`Shard::block_on`](super::Shard::block_on) runs.
const MAIN: u32 = 0;

/// A task, without its result.
type Body = Pin<Box<dyn Future<Output = ()>>>;

/// What any thread can reach of a shard's tasks.
#[derive(Debug)]
struct Woken {
    /// Names the shard in [`OWNER`].
    id: u64,
    /// Woken on the shard's own thread while that is inside; nobody else looks.
    ready: Ready,
    from_elsewhere: ArrayQueue<u32>,
    bell: Arc<Bell>,
}

/// The waker of one place.
#[derive(Debug)]
pub(super) struct PlaceWaker {
    woken: Arc<Woken>,
    place: u32,
    /// Stands in `ready`; the shard's own thread alone looks.
    is_ready: AtomicBool,
    /// The task in this place is dropped instead of being polled; again its own thread alone.
    aborted: AtomicBool,
    /// Stands in `from_elsewhere`.
    queued: AtomicBool,
}

impl PlaceWaker {
    /// Only on the shard's own thread.
    #[inline(always)]
    fn make_ready(&self) {
        if !self.is_ready.load(Ordering::Relaxed) {
            self.is_ready.store(true, Ordering::Relaxed);
            self.woken.ready.push(self.place);
        }
    }

    /// Ends the task that is in this place when the shard comes to it. Only on its own thread, and
    /// while the task is not over.
    pub(super) fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        self.wake_place();
    }

    #[cold]
    #[inline(never)]
    fn wake_from_elsewhere(&self) {
        if ONLY_HERE.replace(false) || self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let pushed = self.woken.from_elsewhere.push(self.place);
        assert!(pushed.is_ok(), "every place stands in the queue at most once");
        self.woken.bell.ring();
    }

    #[inline(always)]
    fn wake_place(&self) {
        if OWNER.get() == self.woken.id {
            self.make_ready();
        } else {
            self.wake_from_elsewhere();
        }
    }
}

impl Wake for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_place();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_place();
    }
}

thread_local! {
    /// The [`Woken::id`] of the shard that this thread is driving at the moment; 0 for none.
    static OWNER: Cell<u64> = const { Cell::new(0) };
    /// The next wake of a place does nothing, and clears this, unless it is one of that shard.
    static ONLY_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a shard: blocking here would stop it.
pub(crate) fn inside_a_shard() -> bool {
    OWNER.get() != 0
}

/// The wakers of places, told from all others: see [`wake_here`].
#[derive(Clone, Copy, Debug)]
pub(super) struct PlaceWakers(*const RawWakerVTable);

impl PlaceWakers {
    /// No waker.
    pub(super) const NONE: Self = Self(std::ptr::null());

    /// Wakes a task of the shard that this thread is inside of, which runs nothing: whoever calls
    /// may have anything borrowed. False, and nothing has happened, where `waker` is another.
    #[inline(always)]
    pub(super) fn wake_here(self, waker: &Waker) -> bool {
        if !std::ptr::eq(waker.vtable(), self.0) {
            return false;
        }
        ONLY_HERE.set(true);
        waker.wake_by_ref();
        ONLY_HERE.replace(false)
    }
}

/// One place of the slab. It never moves, so that a task is polled without anything borrowed.
struct Place {
    /// `None` where there is no task, and while it is being polled or dropped.
    body: Cell<Option<Body>>,
    outcome: Cell<Option<Rc<dyn Outcome>>>,
    wake: Arc<PlaceWaker>,
    waker: Waker,
}

/// The tasks of one shard.
pub(super) struct Tasks {
    woken: Arc<Woken>,
    /// As many as may ever be, each made when it is first needed, and never moved.
    places: Box<[OnceCell<Box<Place>>]>,
    made: Cell<u32>,
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
        let from_elsewhere = ArrayQueue::new(most);
        let woken = Woken { id, ready: Ready::new(most), from_elsewhere, bell };
        let tasks = Self {
            woken: Arc::new(woken),
            places: (0..most).map(|_| OnceCell::new()).collect(),
            made: Cell::new(0),
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

    /// # Panics
    /// When there are as many as may be.
    fn make_place(&self) -> u32 {
        let place = self.made.get();
        let woken = Arc::clone(&self.woken);
        let [is_ready, aborted, queued] = [const { AtomicBool::new(false) }; 3];
        let wake = Arc::new(PlaceWaker { woken, place, is_ready, aborted, queued });
        // A clone, as those that packets keep: a compiler may give the first one another table.
        let waker = Waker::from(Arc::clone(&wake)).clone();
        let (body, outcome) = (Cell::new(None), Cell::new(None));
        let made = self.places[place as usize].set(Box::new(Place { body, outcome, wake, waker }));
        assert!(made.is_ok(), "a place is made once");
        self.made.set(place + 1);
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
        let place = self.place(place);
        let (body, outcome, handle) = join(future, Arc::clone(&place.wake));
        place.outcome.set(Some(outcome));
        place.body.set(Some(body));
        self.alive.set(self.alive.get() + 1);
        place.waker.wake_by_ref();
        Ok(handle)
    }

    #[inline(always)]
    fn place(&self, place: u32) -> &Place {
        self.places[place as usize].get().expect("a place is named when it has been made")
    }

    /// Wakes on this thread are this shard's own until the guard is dropped.
    pub(super) fn enter(&self) -> Inside {
        debug_assert_ne!(OWNER.get(), self.woken.id, "one drive at a time");
        Inside { around: OWNER.replace(self.woken.id) }
    }

    /// The waker of the future that is blocked on.
    pub(super) fn main_waker(&self) -> Waker {
        self.place(MAIN).waker.clone()
    }

    /// Whether `waker` is that of a place.
    #[inline(always)]
    pub(super) fn is_place(&self, waker: &Waker) -> bool {
        std::ptr::eq(waker.vtable(), self.place(MAIN).waker.vtable())
    }

    /// Tells wakers of places from others.
    pub(super) fn place_wakers(&self) -> PlaceWakers {
        PlaceWakers(self.place(MAIN).waker.vtable())
    }

    /// Whether anything was woken. Only inside.
    pub(super) fn any_ready(&self) -> bool {
        !self.woken.ready.is_empty() || !self.woken.from_elsewhere.is_empty()
    }

    /// Behind what is there already, so that neither side starves the other.
    #[cold]
    fn take_from_elsewhere(&self) {
        while let Some(place) = self.woken.from_elsewhere.pop() {
            let wake = &self.place(place).wake;
            // Before the poll, so that a wake during it counts for the next one.
            wake.queued.swap(false, Ordering::AcqRel);
            wake.make_ready();
        }
    }

    /// Polls what was woken, at most `budget` times. Returns whether the future that is
    /// blocked on is among it. Only inside, and with nothing of the shard borrowed.
    pub(super) fn run(&self, budget: u32) -> Ran {
        let mut ran = Ran { main: false, any: false };
        if !self.woken.from_elsewhere.is_empty() {
            self.take_from_elsewhere();
        }
        for _ in 0..budget {
            let Some(at) = self.woken.ready.pop() else { break };
            ran.any = true;
            let place = self.place(at);
            // Before the poll, so that a wake during it counts for the next one.
            place.wake.is_ready.store(false, Ordering::Relaxed);
            let aborted = place.wake.aborted.load(Ordering::Relaxed);
            match place.body.take() {
                Some(body) if aborted => self.end(at, place, body, None),
                Some(body) => self.poll(at, place, body),
                None => ran.main |= at == MAIN,
            }
        }
        ran
    }

    #[inline(always)]
    fn poll(&self, at: u32, place: &Place, mut body: Body) {
        let mut cx = Context::from_waker(&place.waker);
        match catch_unwind(AssertUnwindSafe(|| body.as_mut().poll(&mut cx))) {
            Ok(Poll::Pending) if !self.closed.get() => place.body.set(Some(body)),
            Ok(_) => self.end(at, place, body, None),
            Err(panic) => self.end(at, place, body, Some(panic)),
        }
    }

    /// The task is over, or is to be.
    #[cold]
    #[inline(never)]
    fn end(&self, at: u32, place: &Place, body: Body, panic: Option<Box<dyn Any + Send>>) {
        let outcome = place.outcome.take();
        // Dropping may run anything, panic included: the place is free only afterwards.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(body)));
        let told = catch_unwind(AssertUnwindSafe(|| {
            if let Some(outcome) = &outcome {
                outcome.over(panic.or(dropped.err()));
            }
        }));
        // With it goes a result that nobody waits for.
        let forgotten = catch_unwind(AssertUnwindSafe(|| drop(outcome)));
        drop((told, forgotten));
        place.wake.aborted.store(false, Ordering::Relaxed);
        self.free.borrow_mut().push(at);
        self.alive.set(self.alive.get() - 1);
    }

    /// Ends every task, and accepts none any more. Returns how many there were; one that is
    /// being polled at the moment ends when it yields.
    pub(super) fn close(&self) -> u32 {
        self.closed.set(true);
        let mut ended = 0;
        for at in 0.. {
            // More of them may be made meanwhile.
            if at == self.made.get() {
                break;
            }
            let place = self.place(at);
            if let Some(body) = place.body.take() {
                self.end(at, place, body, None);
                ended += 1;
            }
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
pub(super) struct Inside {
    /// The shard around this one, if any.
    around: u64,
}

impl Drop for Inside {
    fn drop(&mut self) {
        OWNER.set(self.around);
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("alive", &self.alive.get()).finish_non_exhaustive()
    }
}
