//! Requests about locks that nobody waits for any more, until the server has answered them.
//!
//! Data flow: future dropped → [`Undoing`]: what is asked about the lock of the same file
//! afterwards is not sent yet → the answer, and that of an `Unlock` where a lock was taken for
//! nobody → it is sent. So the undoing never meets a lock that was taken later, although a
//! server does what it is sent in any order.
//!
//! Not here: answers (`calls`), other operations (`shared`).

use alloc::sync::Arc;
use alloc::vec::Vec;

use mfio_rt::{Error, Op};

use super::pending::Slot;
use super::shared::{Control, Phase, Shared, State};
use crate::wire::{Reply, Request};

/// What a request about the lock of a file means.
#[derive(Clone, Copy)]
pub(crate) struct Locking {
    pub(crate) file: u64,
    /// Answered, there is a lock to be given back.
    takes: bool,
    /// It may not be answered for long.
    pub(crate) waits: bool,
}

impl Locking {
    pub(crate) const fn of(request: &Request) -> Option<Self> {
        match *request {
            Request::Lock { file, wait, .. } => Some(Self { file, takes: true, waits: wait }),
            Request::Unlock { file } => Some(Self { file, takes: false, waits: false }),
            _ => None,
        }
    }
}

/// The files whose locks are being given up on this connection, once for each request.
#[derive(Default)]
pub(crate) struct Undoing(Vec<u64>);

impl Undoing {
    /// Nobody waits for the answer to `slot` any more.
    pub(super) fn begin(&mut self, slot: &Slot) {
        if let Some(locking) = slot.locks
            && !slot.set_undoing(true)
        {
            self.0.push(locking.file);
        }
    }

    /// It has come.
    fn end(&mut self, slot: &Slot) {
        if let Some(locking) = slot.locks
            && slot.set_undoing(false)
            && let Some(at) = self.0.iter().position(|&file| file == locking.file)
        {
            self.0.swap_remove(at);
        }
    }

    fn holds_back(&self, control: &Control) -> bool {
        let Some(slot) = &control.slot else { return false };
        slot.locks.is_some_and(|locking| self.0.contains(&locking.file)) && !slot.is_undoing()
    }
}

impl State {
    /// The next operation that may be sent.
    pub(super) fn next_control(&mut self) -> Option<Control> {
        if self.undoing.0.is_empty() {
            return self.controls.pop_front();
        }
        let may = |control: &Control| !self.undoing.holds_back(control);
        let at = self.controls.iter().position(may)?;
        self.controls.remove(at)
    }
}

impl Shared {
    /// A request about a lock was answered when nobody waited any more.
    pub(super) fn undo_lock(&self, epoch: u32, slot: &Slot, unwanted: &Result<Reply, Error>) {
        let Some(Locking { file, takes, .. }) = slot.locks else { return };
        let mut state = self.lock();
        if state.epoch != epoch || state.phase != Phase::Up {
            // The lock went with its connection.
            return;
        }
        if takes && matches!(unwanted, Ok(Reply::Done {})) {
            let request = Request::Unlock { file };
            let slot = Arc::new(Slot::abandoned(Locking::of(&request)));
            state.undoing.begin(&slot);
            let (epoch, keep, slot) = (Some(epoch), Vec::new(), Some(slot));
            state.controls.push_front(Control { request, op: Op::Lock, epoch, keep, slot });
        }
        state.undoing.end(slot);
        state.wake_driver();
    }
}
