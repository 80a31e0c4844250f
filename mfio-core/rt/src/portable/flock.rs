//! Locks on files: asked for on threads, waited for on none.
//!
//! Data flow: call → queue → a thread's `flock` that does not wait, one at a time for an open
//! file → result. Whoever waits asks again, when a handle of this runtime has given back a lock
//! of the same file, and every few hundredths of a second: others do not say when they do.
//!
//! A thread that waited inside the system could not be called back. It would take the lock when
//! nobody wants it any more, whatever the handle has locked since, and keep the file open.
//!
//! Not here: the queue (`pool`), other calls of a file (`file`).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::panic::AssertUnwindSafe;
use core::task::{Context, Poll, Waker};
use std::fs::{File, TryLockError};
use std::io;
use std::panic::catch_unwind;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use mfio_core::wakers::wake_all;

use super::errno;
use super::file::{PortableFile, Shared};
use super::sys;
use crate::error::{Error, ErrorKind, Op};
use crate::options::LockKind;

/// How often it is looked whether somebody is to ask again.
const TICK: Duration = Duration::from_millis(10);
/// The longest pause between two questions, in ticks.
const PAUSE_TICKS_MAX: u32 = 5;

/// Device and number of a file, where the system says them.
type Identity = Option<(u64, u64)>;

fn guarded<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No change is left half-way by a panic: a value that was poisoned is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an open file has locked.
#[derive(Default)]
struct Held {
    kind: Option<LockKind>,
    /// Counts what was taken and given back: whether a change is still the last.
    changes: u64,
}

/// The lock of an open file. Kept until the file itself is closed, which gives the lock back.
pub(super) struct FileLock {
    held: Mutex<Held>,
    /// The process that locks by it. One that was forked has the open file too, and what it gave
    /// back would be given back for both.
    owner: u32,
    identity: OnceLock<Identity>,
    waits: Arc<LockWaits>,
}

impl FileLock {
    pub(super) fn new(waits: Arc<LockWaits>) -> Self {
        let owner = std::process::id();
        Self { held: Mutex::default(), owner, identity: OnceLock::new(), waits }
    }

    fn is_own(&self) -> bool {
        self.owner == std::process::id()
    }

    fn identity(&self, file: &File) -> Identity {
        *self.identity.get_or_init(|| sys::file_metadata(file).ok().and_then(|found| found.id))
    }

    /// Takes a lock in the place of that which is held, or gives that back; the number of the
    /// change. Nothing happens where it is not `wanted` any more when its turn comes.
    fn change(
        &self,
        file: &File,
        to: Option<LockKind>,
        wanted: impl FnOnce() -> bool,
    ) -> io::Result<u64> {
        if to.is_some() {
            // Now, because a file that is closed cannot be asked.
            self.identity(file);
        }
        let mut held = guarded(&self.held);
        if !wanted() {
            // Heard by nobody.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let before = held.kind.take();
        let done = match to {
            Some(kind) => take(file, kind, before),
            None => file.unlock(),
        };
        held.kind = to.filter(|_| done.is_ok());
        held.changes += 1;
        let (now, number) = (held.kind, held.changes);
        drop(held);
        if before.is_some() && before != now {
            self.waits.released(self.identity(file));
        }
        done.map(|()| number)
    }

    /// Undoes a change, unless another has taken its place.
    fn undo(&self, file: &File, number: u64) {
        if !self.is_own() {
            return;
        }
        let mut held = guarded(&self.held);
        if held.changes != number {
            return;
        }
        held.changes += 1;
        let before = held.kind.take();
        // An error means that there is no lock to give back.
        drop(file.unlock());
        drop(held);
        if before.is_some() {
            self.waits.released(self.identity(file));
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.is_own() && guarded(&self.held).kind.is_some() {
            self.waits.released(self.identity.get().copied().flatten());
        }
    }
}

/// Takes a lock where nobody stands against it. Refused, there is none: Linux gives up what was
/// held before it looks, and other systems are made to.
fn take(file: &File, kind: LockKind, before: Option<LockKind>) -> io::Result<()> {
    if cfg!(not(unix)) {
        // There a handle can stand in its own way.
        match before {
            Some(before) if before == kind => return Ok(()),
            Some(_) => file.unlock()?,
            None => {}
        }
    }
    let taken = match kind {
        LockKind::Shared => file.try_lock_shared(),
        LockKind::Exclusive => file.try_lock(),
    };
    if taken.is_err() && before.is_some() {
        // An error means that there is no lock to give back.
        drop(file.unlock());
    }
    taken.map_err(|error| match error {
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        TryLockError::Error(error) => error,
    })
}

/// A change that somebody asked for, until they have heard of it.
struct Unclaimed {
    file: Option<Arc<Shared>>,
    number: u64,
}

impl Unclaimed {
    fn claim(mut self) {
        self.file = None;
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(shared) = &self.file {
            shared.lock.undo(&shared.file, self.number);
        }
    }
}

impl PortableFile {
    pub(super) async fn change_lock(&self, to: Option<LockKind>) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let changed = self.pool.call_while_wanted(Op::Lock, move |maker| {
            let number = shared.lock.change(&shared.file, to, || maker.is_wanted())?;
            Ok(Unclaimed { file: Some(shared), number })
        });
        changed.await?.map(Unclaimed::claim).map_err(|error| errno::of(Op::Lock, &error))
    }

    pub(super) async fn wait_for_lock(&self, kind: LockKind) -> Result<(), Error> {
        let locked = |error: &Error| error.kind() == ErrorKind::Locked;
        let refused = |done: &Result<(), Error>| done.as_ref().is_err_and(locked);
        let mut done = self.change_lock(Some(kind)).await;
        if !refused(&done) {
            return done;
        }
        let identity = self.shared.lock.identity(&self.shared.file);
        let wait = self.shared.lock.waits.begin(identity);
        let mut wait = wait.ok_or_else(|| Error::new(Op::Lock, ErrorKind::TooManyOpen))?;
        loop {
            // Before it is asked again: what is given back from here on is heard of.
            wait.begin_pause();
            done = self.change_lock(Some(kind)).await;
            if !refused(&done) {
                return done;
            }
            poll_fn(|cx| wait.poll_pause(cx)).await;
        }
    }

    /// Gives the lock back at once, on this thread, if there is one: for `drop`. Waits of this
    /// handle that have been given up take nothing afterwards. In a process that was forked it
    /// does nothing: the lock is that of the parent.
    ///
    /// # Errors
    /// The system's.
    pub fn unlock_now(&self) -> Result<(), Error> {
        if !self.shared.lock.is_own() {
            return Ok(());
        }
        let done = self.shared.lock.change(&self.shared.file, None, || true);
        done.map(drop).map_err(|error| errno::of(Op::Lock, &error))
    }
}

/// Those who wait for locks, of all files of a runtime.
pub(super) struct LockWaits {
    waits_max: usize,
    state: Mutex<Waits>,
}

#[derive(Default)]
struct Waits {
    waiting: BTreeMap<u64, Waiting>,
    last: u64,
    /// A thread counts the ticks. It ends when nobody waits.
    ticking: bool,
}

struct Waiting {
    identity: Identity,
    /// Until it is time to ask again, whatever was heard.
    ticks: u32,
    waker: Option<Waker>,
}

impl LockWaits {
    pub(super) fn new(waits_max: usize) -> Self {
        Self { waits_max, state: Mutex::default() }
    }

    /// One wait more; `None` where there are as many as there may be, or the system has no
    /// thread to count the time.
    fn begin(self: &Arc<Self>, identity: Identity) -> Option<Wait> {
        let mut state = guarded(&self.state);
        if state.waiting.len() >= self.waits_max {
            return None;
        }
        if !state.ticking {
            let waits = Arc::clone(self);
            let named = thread::Builder::new().name("mfio-rt-lock".into());
            named.spawn(move || while waits.tick() {}).ok()?;
            state.ticking = true;
        }
        state.last += 1;
        let number = state.last;
        state.waiting.insert(number, Waiting { identity, ticks: 0, waker: None });
        drop(state);
        Some(Wait { waits: Arc::clone(self), number, ticks: 0 })
    }

    /// Waits for a tick, and wakes those whose pause ends with it. Whether there are more.
    fn tick(&self) -> bool {
        thread::park_timeout(TICK);
        let mut state = guarded(&self.state);
        if state.waiting.is_empty() {
            state.ticking = false;
            return false;
        }
        let mut woken = Vec::new();
        for waiting in state.waiting.values_mut().filter(|waiting| waiting.ticks > 0) {
            waiting.ticks -= 1;
            if waiting.ticks == 0 {
                woken.extend(waiting.waker.take());
            }
        }
        drop(state);
        wake_quietly(woken);
        true
    }

    /// A lock of a file was given back, or shared: those who wait for it ask again.
    fn released(&self, identity: Identity) {
        let mut woken = Vec::new();
        for waiting in guarded(&self.state).waiting.values_mut() {
            // Where files cannot be told apart, it may have been this one.
            if waiting.identity == identity || identity.is_none() || waiting.identity.is_none() {
                waiting.ticks = 0;
                woken.extend(waiting.waker.take());
            }
        }
        wake_quietly(woken);
    }
}

/// Wakes all of them. A waker is somebody's code: should it panic, that is nothing to who has just
/// unlocked, nor to the thread that ticks.
fn wake_quietly(woken: Vec<Waker>) {
    drop(catch_unwind(AssertUnwindSafe(|| wake_all(woken))));
}

/// One who waits for a lock.
struct Wait {
    waits: Arc<LockWaits>,
    number: u64,
    /// How long the last pause was.
    ticks: u32,
}

impl Wait {
    fn with<T>(&self, work: impl FnOnce(&mut Waiting) -> T) -> Option<T> {
        guarded(&self.waits.state).waiting.get_mut(&self.number).map(work)
    }

    /// Each pause is longer than the one before.
    fn begin_pause(&mut self) {
        self.ticks = (self.ticks * 2).clamp(1, PAUSE_TICKS_MAX);
        self.with(|waiting| waiting.ticks = self.ticks);
    }

    /// Until it is worth while to ask again.
    fn poll_pause(&self, cx: &Context<'_>) -> Poll<()> {
        // Cloned and dropped outside the lock: both may run anything.
        let mut waker = Some(cx.waker().clone());
        let over = self.with(|waiting| {
            core::mem::swap(&mut waiting.waker, &mut waker);
            waiting.ticks == 0
        });
        drop(waker);
        if over.unwrap_or(true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let gone = guarded(&self.waits.state).waiting.remove(&self.number);
        drop(gone);
    }
}
