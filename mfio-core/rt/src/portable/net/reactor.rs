//! What waits for connections: one poller, and whoever has the turn to ask it.
//!
//! Data flow: poller → event → [`Watch`] of its token → lanes that are to be served and tasks
//! that are to be polled → done, by the thread that asked. That is a thread of the reactor, or
//! one that blocks on something that uses it: what arrives for such a thread then wakes it, and
//! nobody else.
//!
//! Events come by their edge, once for each change: nothing is said to the system between two
//! waits. Not here: what an event means (`socket`, `listener`), what a task does (`task`).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::task::Wake;
use alloc::vec::Vec;
use core::future::Future;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context, Waker};
use core::time::Duration;
use std::io;
use std::panic::catch_unwind;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;

use mfio_core::BackendHandle;
use mfio_core::backend::{Claim, Drive};
use mio::event::Source;
use mio::{Events, Interest, Poll, Registry, Token};

use super::socket::Serving;
use super::task::Task;
use crate::error::{Error, Op};
use crate::lock::Lock;
use crate::portable::errno;

/// Events taken at a time.
const EVENTS_MAX: usize = 64;
/// A guest that has not asked for so long is busy elsewhere, and no reason not to ask.
const LEASE: Duration = Duration::from_millis(10);
/// Times in a row that a guest's work ends its wait before events were asked for.
const EARLY_MAX: u64 = 16;
/// What ends a wait.
const BELL: Token = Token(usize::MAX);

/// What has come up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ready {
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// There is an end, or an error, behind what can be read.
    pub(super) closed: bool,
}

/// Who is told of events. Nothing that blocks.
pub(super) trait Watch: Send + Sync {
    fn told(&self, ready: Ready);
}

/// What is to be done by whoever has the turn.
pub(super) enum Work {
    Serve(Serving),
    Poll(Arc<Task>),
}

struct Asking {
    poll: Poll,
    events: Events,
}

/// Who is told under which token. Tokens are used again: who is told of an event of the one
/// before him looks in vain.
#[derive(Default)]
struct Watches {
    watched: Vec<Option<Weak<dyn Watch>>>,
    free: Vec<usize>,
}

/// A thread that blocks on something, and asks instead of the thread of the reactor.
#[derive(Default)]
struct Guest {
    /// There is one.
    claimed: AtomicBool,
    /// It has asked, and will ask again.
    present: AtomicBool,
    /// It waits for events at the moment.
    parked: AtomicBool,
    visits: AtomicU64,
    /// Its wait is to be ended, or was before it began.
    unparked: AtomicBool,
    /// Waits in a row that ended before they began.
    early: AtomicU64,
    /// The thread of the reactor sleeps until the guest moves.
    watched: AtomicBool,
}

pub(super) struct Shared {
    registry: Registry,
    bell: mio::Waker,
    asking: Mutex<Asking>,
    watches: Lock<Watches>,
    todo: Lock<VecDeque<Work>>,
    /// Somebody may be waiting for events.
    asleep: AtomicBool,
    guest: Guest,
    closing: Mutex<bool>,
    /// The turn is the thread's again, or it is to end.
    turned: Condvar,
    /// The process whose poller it is.
    owner: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of foreign code happens outside; what is in here is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls what may run foreign code. If that panics, the views it dropped are aborted, and the
/// other connections go on.
fn call(work: impl FnOnce()) {
    drop(catch_unwind(AssertUnwindSafe(work)));
}

impl Shared {
    /// Ends the wait for events, if somebody waits.
    fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.interrupt();
        }
    }

    fn interrupt(&self) {
        let rung = self.bell.wake();
        debug_assert!(rung.is_ok(), "a full counter is emptied and filled again");
    }

    pub(super) fn push(&self, work: Work) {
        self.todo.with(|todo| todo.push_back(work));
        self.ring();
    }

    /// Waits for events, then does what they and others ask for.
    fn turn(&self, mut asking: MutexGuard<'_, Asking>, most: Option<Duration>, guest: bool) {
        self.asleep.store(true, Ordering::SeqCst);
        // Looked at after that: whoever adds something from now on rings.
        let at_once = self.todo.with(|todo| !todo.is_empty())
            || (guest && self.guest.unparked.load(Ordering::SeqCst));
        let Asking { poll, events } = &mut *asking;
        let asked = poll.poll(events, if at_once { Some(Duration::ZERO) } else { most });
        self.asleep.store(false, Ordering::SeqCst);
        let (mut told, mut many) = ([(BELL, Ready::default()); EVENTS_MAX], 0);
        if asked.is_ok() {
            for (place, event) in told.iter_mut().zip(events.iter()) {
                let closed = event.is_read_closed() || event.is_error();
                let (readable, writable) = (event.is_readable(), event.is_writable());
                *place = (event.token(), Ready { readable, writable, closed });
                many += 1;
            }
        }
        // Others may ask while this does what it was told.
        drop(asking);
        for (token, ready) in &told[..many] {
            let watch = self.watches.with(|watches| watches.watched.get(token.0).cloned());
            if let Some(watch) = watch.flatten().and_then(|watch| watch.upgrade()) {
                call(|| watch.told(*ready));
            }
        }
        self.work_off();
    }

    /// Does what there is to do now; not what comes up meanwhile.
    fn work_off(&self) {
        let many = self.todo.with(|todo| todo.len());
        for _ in 0..many {
            let Some(work) = self.todo.with(VecDeque::pop_front) else { return };
            call(|| match work {
                Work::Serve(serving) => serving.run(),
                Work::Poll(task) => task.run(),
            });
        }
    }

    /// The thread of the reactor.
    fn run(&self) {
        while self.wait_for_turn() {
            let asking = lock(&self.asking);
            if !self.guest.present.load(Ordering::SeqCst) {
                self.turn(asking, None, false);
            }
        }
    }

    /// Returns when no guest asks; false at the end.
    fn wait_for_turn(&self) -> bool {
        let guest = &self.guest;
        let mut closing = lock(&self.closing);
        loop {
            if *closing || !guest.present.load(Ordering::SeqCst) {
                return !*closing;
            }
            let seen = guest.visits.load(Ordering::SeqCst);
            let waited = self.turned.wait_timeout(closing, LEASE);
            let timeout;
            (closing, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if !timeout.timed_out() || guest.visits.load(Ordering::SeqCst) != seen {
                continue;
            }
            // It has not moved: it waits, and will for long; or it does something else.
            guest.watched.store(true, Ordering::SeqCst);
            if guest.parked.load(Ordering::SeqCst) {
                let waited = self.turned.wait(closing);
                closing = waited.unwrap_or_else(PoisonError::into_inner);
            } else {
                guest.present.store(false, Ordering::SeqCst);
            }
            guest.watched.store(false, Ordering::SeqCst);
        }
    }

    fn give_turn(&self) {
        let closing = lock(&self.closing);
        self.turned.notify_all();
        drop(closing);
    }
}

impl Claim for Shared {
    fn try_claim(&self) -> bool {
        !self.guest.claimed.swap(true, Ordering::Acquire)
    }

    fn release(&self) {
        let was_present = self.guest.present.swap(false, Ordering::SeqCst);
        self.guest.claimed.store(false, Ordering::Release);
        if was_present {
            self.give_turn();
        }
    }
}

impl Shared {
    fn drive(&self) {
        self.guest.visits.fetch_add(1, Ordering::SeqCst);
        match self.asking.try_lock() {
            Ok(asking) => self.turn(asking, Some(Duration::ZERO), false),
            // Somebody waits for events, and does what they ask for.
            Err(_) => self.work_off(),
        }
    }

    /// Does what the thread of the reactor does otherwise, once.
    fn park(&self) {
        let guest = &self.guest;
        guest.visits.fetch_add(1, Ordering::SeqCst);
        // What the guest has just asked for needs no event, and may be what it waits for. Now and
        // then events are asked for all the same: others wait for theirs.
        self.work_off();
        if guest.early.fetch_add(1, Ordering::Relaxed) < EARLY_MAX
            && guest.unparked.swap(false, Ordering::SeqCst)
        {
            return;
        }
        guest.early.store(0, Ordering::Relaxed);
        guest.present.store(true, Ordering::SeqCst);
        guest.parked.store(true, Ordering::SeqCst);
        let asking = match self.asking.try_lock() {
            Ok(asking) => asking,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.interrupt();
                lock(&self.asking)
            }
        };
        self.turn(asking, None, true);
        guest.unparked.store(false, Ordering::SeqCst);
        guest.parked.store(false, Ordering::SeqCst);
        if guest.watched.load(Ordering::SeqCst) {
            self.give_turn();
        }
    }
}

/// Ends the wait of a guest.
struct Unpark(Weak<Shared>);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(shared) = self.0.upgrade() {
            shared.guest.unparked.store(true, Ordering::SeqCst);
            shared.ring();
        }
    }
}

/// What a guest drives.
struct Seat {
    shared: Arc<Shared>,
    unpark: Waker,
}

impl Drive for Seat {
    fn poll_drive(&self, _cx: &mut Context<'_>) {
        self.shared.drive();
    }

    fn park(&self) -> bool {
        self.shared.park();
        true
    }

    fn unpark_waker(&self) -> Option<Waker> {
        Some(self.unpark.clone())
    }

    fn is_driven_elsewhere(&self) -> bool {
        true
    }
}

/// Ends the thread when the last handle goes.
struct Owner(Seat);

impl Drop for Owner {
    fn drop(&mut self) {
        *lock(&self.0.shared.closing) = true;
        self.0.shared.give_turn();
        self.0.shared.interrupt();
    }
}

/// The poller; clones share it.
#[derive(Clone)]
pub(in crate::portable) struct Reactor(Arc<Owner>);

impl Reactor {
    pub(in crate::portable) fn start() -> Result<Self, Error> {
        let failed = |error: io::Error| errno::of(Op::Start, &error);
        let poll = Poll::new().map_err(failed)?;
        let shared = Arc::new(Shared {
            registry: poll.registry().try_clone().map_err(failed)?,
            bell: mio::Waker::new(poll.registry(), BELL).map_err(failed)?,
            asking: Mutex::new(Asking { poll, events: Events::with_capacity(EVENTS_MAX) }),
            watches: Lock::default(),
            todo: Lock::default(),
            asleep: AtomicBool::new(false),
            guest: Guest::default(),
            closing: Mutex::new(false),
            turned: Condvar::new(),
            owner: std::process::id(),
        });
        let unpark = Waker::from(Arc::new(Unpark(Arc::downgrade(&shared))));
        let owner = Owner(Seat { shared: Arc::clone(&shared), unpark });
        let named = thread::Builder::new().name("mfio-rt-net".into());
        named.spawn(move || shared.run()).map_err(failed)?;
        Ok(Self(Arc::new(owner)))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.0.shared
    }

    /// The right to wait instead of the thread of the reactor; `None` where somebody has it, or
    /// there is nothing to wait for.
    pub(in crate::portable) fn seat(&self) -> Option<BackendHandle<'_>> {
        let seat = &self.0.0;
        let watched = seat.shared.watches.with(|all| all.watched.len() > all.free.len());
        let taken = watched.then(|| BackendHandle::acquire(seat, &*seat.shared));
        taken.and_then(Result::ok)
    }

    /// A token for `watch`.
    pub(super) fn token(&self, watch: Weak<dyn Watch>) -> Token {
        Token(self.shared().watches.with(|watches| {
            let place = watches.free.pop().unwrap_or(watches.watched.len());
            if place == watches.watched.len() {
                watches.watched.push(None);
            }
            watches.watched[place] = Some(watch);
            place
        }))
    }

    /// From now on there are events of `socket`, the first of them at once if it is ready.
    pub(super) fn watch(&self, socket: &mut impl Source, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.shared().registry.register(socket, token, interest)
    }

    /// There are no events of `socket` any more. A process that was forked shares the poller, and
    /// what it forgot its parent would hear of no more.
    pub(super) fn forget(&self, socket: &mut impl Source, token: Token) {
        if self.shared().owner != std::process::id() {
            return;
        }
        // It may never have been watched.
        let _unknown = self.shared().registry.deregister(socket);
        self.shared().watches.with(|watches| {
            watches.watched[token.0] = None;
            watches.free.push(token.0);
        });
    }

    /// Runs `future` by whoever has the turn. Nothing that blocks.
    pub(in crate::portable) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        Task::spawn(self.shared(), Box::pin(future));
    }
}
