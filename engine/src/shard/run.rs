//! The loop of a shard, whoever calls it: a thread that belongs to it, or a host.
//!
//! Data flow: mailbox → tasks → one `enter` that submits what they sent and, when nothing can
//! run, waits → completions → tasks. A shard that nobody can wake from elsewhere, and without
//! tasks, pays for neither.
//!
//! Not here: one turn of the ring (`core`), tasks (`tasks`), messages (`intake`).

use std::cell::Cell;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use mfio_core::backend::{Claim, PollSource, PollingHandle};
use mfio_core::{BackendBusy, BackendHandle, Drive, IoBackend};

use super::enter::Stop;
use super::join::JoinHandle;
use super::tasks::inside_a_shard;
use super::{Inner, Shard};
use crate::error::EngineError;
use crate::ring::{Plant, Ring, RingWaker, Wait};

/// How many tasks are polled before the ring gets a turn.
const POLLS_MAX: u32 = 128;

/// How often a drive by a host goes round before the host gets its turn.
const ROUNDS_MAX: u32 = 16;

impl<R: Ring> Shard<R> {
    /// Makes a task of `future`: it runs on this thread whenever the shard is driven, by
    /// [`Shard::block_on`], [`block_on`](mfio_core::block_on) or a host, next to all others.
    ///
    /// A panic of the task ends that task, and is told by its handle. A task that holds a
    /// handle of the shard keeps the shard until it ends; [`Shard::shutdown`] ends all.
    ///
    /// # Errors
    /// [`EngineError::TasksFull`] and [`EngineError::Closed`]; the future is dropped then.
    pub fn spawn<F>(&self, future: F) -> Result<JoinHandle<F::Output>, EngineError>
    where
        F: Future + 'static,
    {
        self.inner.tasks.spawn(future)
    }

    /// Whether [`Shard::spawn`] would take one more.
    pub(crate) fn admits_task(&self) -> Result<(), EngineError> {
        self.inner.tasks.admits()
    }

    /// Runs `future` to its end on this thread, with the shard's tasks and I/O around it.
    ///
    /// Tasks that are not over by then stay as they are until the shard is driven again.
    ///
    /// # Errors
    /// - [`EngineError::WouldDeadlock`]: this is inside a task of a shard. Nothing has run.
    /// - [`EngineError::Ring`]: the ring broke. `future` was dropped; the memory of ops in
    ///   flight stays the kernel's.
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, EngineError> {
        let inner = &*self.inner;
        if inside_a_shard() || inner.delivering.try_borrow_mut().is_err() {
            return Err(EngineError::WouldDeadlock);
        }
        let claim = BackendHandle::acquire(inner, &inner.driven);
        let _claim = claim.map_err(|BackendBusy| EngineError::WouldDeadlock)?;
        inner.block_in_ring();
        let _inside = inner.tasks.enter();
        let waker = inner.tasks.main_waker();
        let mut cx = Context::from_waker(&waker);
        let mut future = pin!(future);
        let mut woken = true;
        loop {
            if woken && let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return Ok(output);
            }
            inner.take_in();
            woken = inner.tasks.run(POLLS_MAX).main;
            if !woken {
                inner.submit_or_sleep()?;
            } else if inner.tasks.any_ready() {
                // Others' I/O goes on although this future never rests.
                inner.turn_io(Wait::NONE)?;
            }
        }
    }
}

impl<R: Ring> Inner<R> {
    /// From now on the shard blocks in its ring, until a host comes. Nothing is borrowed for that
    /// where it is so already: see `cell`.
    fn block_in_ring(&self) {
        if self.core.borrow().timers.is_hosted() {
            self.core.borrow_mut().timers.block();
        }
    }

    /// One turn of the ring. Busy is not lost: ops stay queued, and the next turn tries again.
    fn turn_io(&self, wait: Wait) -> Result<u32, Stop> {
        let mut core = self.core.straight();
        let turned = if core.lone.is_taken() {
            self.turn_lone(core, wait, |_told| {})
        } else {
            let turned = core.turn(wait, |_told| {});
            let news = core.has_news();
            drop(core);
            if news {
                self.deliver();
            }
            turned
        };
        match turned {
            Err(Stop::Busy) => Ok(0),
            other => other,
        }
    }

    /// Whether something waits that a round could take up without a completion first.
    fn any_work(&self) -> bool {
        self.tasks.any_ready() || self.mail_waits()
    }

    /// The turn of a lone op that is kept for it, which does not sleep; `None` where there is
    /// none. Inlined, as far up as may be: see `sys::inline`.
    #[inline(always)]
    fn turn_if_lone(&self) -> Option<Result<u32, Stop>> {
        let core = self.core.straight();
        if !core.lone.is_taken() {
            return None;
        }
        Some(match self.turn_lone(core, Wait::NONE, |_told| {}) {
            Err(Stop::Busy) => Ok(0),
            other => other,
        })
    }

    /// One `enter`: with everything that was sent, and to wait if nothing can run.
    #[inline(always)]
    fn submit_or_sleep(&self) -> Result<u32, Stop> {
        self.turn_if_lone().unwrap_or_else(|| self.enter_or_sleep())
    }

    /// As [`Inner::submit_or_sleep`], where there is no lone op.
    fn enter_or_sleep(&self) -> Result<u32, Stop> {
        if self.any_work() {
            return self.turn_io(Wait::NONE);
        }
        self.core.borrow().ring.interleave();
        let bell = self.tasks.bell();
        bell.sleeping();
        self.core.borrow().ring.interleave();
        // What was published before the bell could tell is seen here (F28).
        let turned = if self.any_work() && !self.forgets_to_look() {
            self.turn_io(Wait::NONE)
        } else {
            let mut core = self.core.straight();
            core.may_idle = true;
            let turned = core.turn(Wait::at_least(1), |_told| {});
            core.may_idle = false;
            let news = core.has_news();
            drop(core);
            bell.awake();
            if news {
                self.deliver();
            }
            turned
        };
        bell.awake();
        match turned {
            Err(Stop::Busy) => Ok(0),
            other => other,
        }
    }

    /// Whether the second look is planted away (F28).
    #[cold]
    fn forgets_to_look(&self) -> bool {
        self.core.borrow().ring.plant(Plant::ParkWithoutRecheck)
    }

    /// Whether anything but the ring can make the shard run.
    fn is_reachable(&self) -> bool {
        self.tasks.alive() > 0 || self.mailbox.get().is_some()
    }

    /// Turns until nothing is queued: a host does not come back for it.
    fn turn_out(&self) -> bool {
        let mut whole = false;
        for _ in 0..ROUNDS_MAX {
            if let Err(Stop::Ring(errno)) = self.turn_io(Wait::NONE)
                && self.core.borrow().in_flight > 0
            {
                panic!("the ring broke ({errno}) with I/O in flight");
            }
            whole = !self.core.borrow_mut().has_unsubmitted();
            if whole {
                break;
            }
        }
        whole
    }

    /// From now on the descriptor tells of everything, a wake included. A thread that blocks
    /// on the shard asks for the descriptor too, and waits in the ring all the same.
    fn watch(&self) {
        let hosted = self.fd.get().is_some() && !self.driven.blocks.get();
        let mut core = self.core.borrow_mut();
        if hosted && !core.watched {
            core.watched = true;
            core.ring.watch();
            self.tasks.bell().watched();
        }
    }
}

impl<R: Ring> Drive for Inner<R> {
    /// As the trait says, with the shard's tasks. While an op waits for the time of its retry
    /// `cx` is woken at once: the back-off is in microseconds.
    ///
    /// # Panics
    /// As [`Drive::park`] here.
    fn poll_drive(&self, cx: &mut Context<'_>) {
        self.watch();
        if !self.is_reachable() {
            let whole = self.turn_out();
            // Without a descriptor, timers have no other way to the host.
            if self.fd.get().is_none() || self.driven.blocks.get() {
                self.tasks.bell().hosted(cx.waker());
            }
            if !whole || !self.leaves_to_host() || self.core.borrow_mut().owes_a_turn() {
                cx.waker().wake_by_ref();
            }
            return;
        }
        let _inside = self.tasks.enter();
        let bell = self.tasks.bell();
        bell.awake();
        let mut whole = false;
        for _ in 0..ROUNDS_MAX {
            self.take_in();
            self.tasks.run(POLLS_MAX);
            whole = self.turn_out();
            if !self.any_work() {
                break;
            }
        }
        bell.hosted(cx.waker());
        let told = self.leaves_to_host();
        if !whole || !told || self.any_work() || self.core.borrow_mut().owes_a_turn() {
            cx.waker().wake_by_ref();
        }
    }

    /// # Panics
    /// When the ring broke: what is in flight will never complete, so neither will its
    /// future. Its memory is quarantined while the panic unwinds.
    fn park(&self) -> bool {
        self.block_in_ring();
        let mut ran = false;
        let result = if self.is_reachable() {
            let _inside = self.tasks.enter();
            self.tasks.bell().awake();
            self.take_in();
            ran = self.tasks.run(POLLS_MAX).any;
            if ran { self.turn_io(Wait::NONE) } else { self.submit_or_sleep() }
        } else {
            self.turn_if_lone().unwrap_or_else(|| self.turn_io(Wait::at_least(1)))
        };
        if let Err(Stop::Ring(errno)) = result {
            panic!("the ring broke ({errno}) with I/O in flight");
        }
        // With nothing in flight and nobody who could wake it, the ring cannot be waited on; a
        // wake from elsewhere can.
        let core = self.core.borrow();
        let pending = core.in_flight > 0 || core.has_work() || !core.timers.is_empty();
        ran || self.is_reachable() || pending || result.is_ok_and(|reaped| reaped > 0)
    }

    fn unpark_waker(&self) -> Option<Waker> {
        self.driven.blocks.set(true);
        Some(Waker::from(Arc::new(Unpark(self.waker.clone()))))
    }
}

/// Whether somebody drives the shard, and how.
#[derive(Debug, Default)]
pub(super) struct Driven {
    taken: Cell<bool>,
    /// By blocking on it: it asked how to end a wait in the ring.
    blocks: Cell<bool>,
}

impl Claim for Driven {
    fn try_claim(&self) -> bool {
        let free = !self.taken.replace(true);
        if free {
            self.blocks.set(false);
        }
        free
    }

    fn release(&self) {
        self.taken.set(false);
    }
}

/// Ends a wait in the ring.
pub(super) struct Unpark<W: RingWaker>(pub(super) W);

impl<W: RingWaker> Wake for Unpark<W> {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake();
    }
}

impl<R: Ring> Shard<R> {
    /// The descriptor that tells of the shard; `None` where the ring has none.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        let inner = &*self.inner;
        if inner.fd.get().is_none() {
            let core = inner.core.borrow();
            let fd = core.ring.poll_fd()?.try_clone_to_owned().ok()?;
            drop(core);
            let _first = inner.fd.set(fd);
        }
        inner.fd.get().map(AsFd::as_fd)
    }

    /// For an event loop of one's own (`epoll(7)`, `poll(2)`): readable when the shard wants
    /// to be driven, by [`Drive::poll_drive`] until that wakes its context no more, or by
    /// [`Shard::turn`]. `None` where the ring has none: a simulated one, or no descriptor left.
    /// Costs a descriptor, and a system call for each turn even where nothing is in flight.
    #[must_use]
    pub fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        let fd = self.descriptor()?;
        self.inner.watch();
        Some(fd)
    }
}

impl AsFd for Shard {
    /// As [`Shard::poll_fd`].
    ///
    /// # Panics
    /// Where the process has no descriptor left to duplicate the ring's.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll_fd().expect("a kernel ring and a thread ring have a descriptor")
    }
}

impl<R: Ring> IoBackend for Shard<R> {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        let source = PollSource::Fd(self.descriptor()?);
        Some(PollingHandle { source, readable: true, writable: false })
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        // Inside a waker that the shard is calling, nothing else would be delivered.
        if self.inner.delivering.try_borrow_mut().is_err() {
            return Err(BackendBusy);
        }
        BackendHandle::acquire(&*self.inner, &self.inner.driven).map(Some)
    }
}
