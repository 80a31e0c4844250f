//! An operation and whoever waits for it.
//!
//! Data flow: [`Pending`] → queue, when first polled → [`Slot`] filled by the driver → result.
//!
//! Not here: what operations mean (`dir`, `file`).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mfio_rt::{Error, ErrorKind, Op};

use super::locks::Locking;
use super::shared::{Control, Opened, User};
use crate::wire::{PATH_BYTES_MAX, Reply, Request};

/// Where the result is put down.
pub(crate) struct Slot {
    state: Mutex<SlotState>,
    /// What is asked about the lock of a file.
    pub(crate) locks: Option<Locking>,
    /// It is given up, and what is asked about that lock later waits for its answer.
    undoing: AtomicBool,
    /// The connection that the answer came by: numbers in it mean nothing to another.
    answered: AtomicU32,
}

#[derive(Default)]
struct SlotState {
    result: Option<Result<Reply, Error>>,
    waker: Option<Waker>,
    abandoned: bool,
}

impl Slot {
    fn new(locks: Option<Locking>, state: SlotState) -> Self {
        let (undoing, answered) = (AtomicBool::new(false), AtomicU32::new(0));
        Self { state: Mutex::new(state), locks, undoing, answered }
    }

    /// Of what is asked for nobody.
    pub(crate) fn abandoned(locks: Option<Locking>) -> Self {
        Self::new(locks, SlotState { abandoned: true, ..SlotState::default() })
    }

    /// Under the lock of the connection. What it was before.
    pub(crate) fn set_undoing(&self, undoing: bool) -> bool {
        self.undoing.swap(undoing, Ordering::Relaxed)
    }

    pub(crate) fn is_undoing(&self) -> bool {
        self.undoing.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers by which connection the answer comes. Before `finish`.
    pub(crate) fn answered_by(&self, epoch: u32) {
        self.answered.store(epoch, Ordering::Release);
    }

    /// Puts the result down; it comes back where nobody waits any more.
    pub(crate) fn finish(&self, result: Result<Reply, Error>) -> Option<Result<Reply, Error>> {
        let mut state = self.lock();
        if state.abandoned {
            return Some(result);
        }
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        None
    }
}

/// An operation under way.
pub(crate) struct Pending {
    user: Arc<User>,
    unsent: Option<Control>,
    slot: Arc<Slot>,
    over: bool,
}

impl Pending {
    /// `request` about the handles `keep`, sent when first polled.
    pub(crate) fn new(request: Request, op: Op, keep: Vec<Arc<Opened>>) -> Option<Self> {
        let user = Arc::clone(&keep.first()?.user);
        let epoch = keep.iter().find_map(|opened| opened.epoch);
        // Handles of two connections have nothing in common.
        let mixed = keep.iter().filter_map(|opened| opened.epoch).any(|one| Some(one) != epoch);
        let epoch = if mixed { Some(0) } else { epoch };
        let slot = Arc::new(Slot::new(Locking::of(&request), SlotState::default()));
        let unsent = Some(Control { request, op, epoch, keep, slot: Some(Arc::clone(&slot)) });
        Some(Self { user, unsent, slot, over: false })
    }
}

impl Future for Pending {
    type Output = Result<Reply, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(control) = this.unsent.take()
            && let Some(refused) = this.user.shared.push(control, cx)
        {
            this.unsent = Some(refused);
            return Poll::Pending;
        }
        // Cloned and dropped outside the lock: both may run anything.
        let mut waker = Some(cx.waker().clone());
        let mut state = this.slot.lock();
        if let Some(result) = state.result.take() {
            this.over = true;
            return Poll::Ready(result);
        }
        core::mem::swap(&mut state.waker, &mut waker);
        Poll::Pending
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.over || self.unsent.is_some() {
            return;
        }
        let (result, waker) = {
            let mut state = self.slot.lock();
            state.abandoned = true;
            (state.result.take(), state.waker.take())
        };
        drop(waker);
        let shared = &self.user.shared;
        match result {
            Some(result) => {
                shared.undo(self.slot.answered.load(Ordering::Acquire), &self.slot, &result);
            }
            None if self.slot.locks.is_some() => shared.cancel(&self.slot),
            None => {}
        }
    }
}

/// Asks, and waits for the answer.
pub(crate) async fn ask(request: Request, op: Op, keep: Vec<Arc<Opened>>) -> Result<Reply, Error> {
    match Pending::new(request, op, keep) {
        Some(pending) => pending.await,
        None => Err(Error::new(op, ErrorKind::BadHandle)),
    }
}

/// As `ask`, about `path`, which is refused where it is too long for a frame.
pub(crate) async fn ask_at(
    request: Request,
    op: Op,
    path: &[u8],
    keep: Vec<Arc<Opened>>,
) -> Result<Reply, Error> {
    if path.len() > PATH_BYTES_MAX {
        return Err(Error::new(op, ErrorKind::NameTooLong).at(path));
    }
    ask(request, op, keep).await.map_err(|error| error.at(path))
}

/// Asks for something to be opened: its handle, of the connection that the answer came by.
pub(crate) async fn ask_to_open(
    request: Request,
    op: Op,
    path: &[u8],
    dir: &Arc<Opened>,
) -> Result<Arc<Opened>, Error> {
    if path.len() > PATH_BYTES_MAX {
        return Err(Error::new(op, ErrorKind::NameTooLong).at(path));
    }
    let pending = Pending::new(request, op, Vec::from([Arc::clone(dir)]));
    let mut pending = pending.ok_or(Error::new(op, ErrorKind::BadHandle))?;
    match (&mut pending).await.map_err(|error| error.at(path))? {
        Reply::Opened { handle } => {
            let epoch = Some(pending.slot.answered.load(Ordering::Acquire));
            Ok(Arc::new(Opened { number: handle, epoch, user: Arc::clone(&dir.user) }))
        }
        _ => Err(strange(op)),
    }
}

/// What a reply of the wrong kind means.
pub(crate) fn strange(op: Op) -> Error {
    Error::new(op, ErrorKind::Unsupported)
}
