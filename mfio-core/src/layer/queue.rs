//! What waits in a layer: views that are accepted and not yet sent on, and callers for room.
//!
//! Data flow: view → [`Lane`] → the same view, oldest first. One lane for each direction.
//!
//! Not here: sending (`spread`).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::task::{Context, Waker};

use crate::error::ErrorKind;
use crate::packet::{PacketId, Perms, Read, ReadWrite, View, Write};
use crate::wakers::wake_all;

/// The most views that wait in one direction of a layer. All but one of them were promised
/// room by `reserve`.
pub const WAITING_MAX: usize = 256;

/// What layers need to know of a direction.
pub(super) trait Direction: Perms {
    /// Why bytes behind the end of a target fail.
    const PAST_END: ErrorKind;

    /// Completes a view whose bytes have all been transferred.
    fn complete(view: View<Self>);
}

impl Direction for Read {
    const PAST_END: ErrorKind = ErrorKind::UnexpectedEof;

    fn complete(view: View<Self>) {
        view.filled();
    }
}

impl Direction for Write {
    const PAST_END: ErrorKind = ErrorKind::OutOfRange;

    fn complete(view: View<Self>) {
        view.written();
    }
}

impl Direction for ReadWrite {
    /// The bytes of the packet have nowhere to go, as with a write.
    const PAST_END: ErrorKind = ErrorKind::OutOfRange;

    fn complete(view: View<Self>) {
        view.exchanged();
    }
}

/// A view, or what is left of it, and where it starts.
pub(super) struct Rest<P: Perms> {
    pub(super) at: u64,
    pub(super) view: View<P>,
}

/// One direction of a layer. Nothing is borrowed while foreign code runs.
pub(super) struct Lane<P: Perms> {
    rests: RefCell<VecDeque<Rest<P>>>,
    /// Room in `rests` that is promised to somebody.
    promised: Cell<usize>,
    /// Somebody is sending rests; who comes meanwhile must not overtake them.
    sending: Cell<bool>,
    callers: Callers,
}

impl<P: Direction> Lane<P> {
    pub(super) fn new() -> Self {
        Self {
            rests: RefCell::new(VecDeque::new()),
            promised: Cell::new(0),
            sending: Cell::new(false),
            callers: Callers::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rests.borrow().is_empty()
    }

    /// Whether a new view need not queue behind others.
    pub(super) fn is_clear(&self) -> bool {
        !self.sending.get() && self.is_empty()
    }

    pub(super) fn promise(&self, views: usize) -> bool {
        let promised = self.promised.get().saturating_add(views);
        let fits = self.rests.borrow().len().saturating_add(promised) <= WAITING_MAX;
        if fits {
            self.promised.set(promised);
        }
        fits
    }

    /// Takes promises back, used or not. False if there were none.
    pub(super) fn redeem(&self, views: usize) -> bool {
        let promised = self.promised.get();
        self.promised.set(promised.saturating_sub(views));
        promised > 0
    }

    pub(super) fn push_back(&self, rest: Rest<P>) {
        self.rests.borrow_mut().push_back(rest);
    }

    pub(super) fn push_front(&self, rest: Rest<P>) {
        self.rests.borrow_mut().push_front(rest);
    }

    pub(super) fn pop_front(&self) -> Option<Rest<P>> {
        self.rests.borrow_mut().pop_front()
    }

    /// Where the oldest view starts, and its length.
    pub(super) fn front(&self) -> Option<(u64, u64)> {
        self.rests.borrow().front().map(|rest| (rest.at, rest.view.len()))
    }

    /// The right to send rests; `None` while somebody has it.
    pub(super) fn start_sending(&self) -> Option<Sending<'_, P>> {
        // Lazily: a guard that is made and dropped would end what somebody else does.
        (!self.sending.replace(true)).then(|| Sending(self))
    }

    pub(super) fn wait(&self, cx: &Context<'_>) {
        self.callers.add(cx.waker());
    }

    /// Fails what waits of `packet`.
    pub(super) fn cancel(&self, packet: PacketId) {
        let mut found = Vec::new();
        {
            let mut rests = self.rests.borrow_mut();
            let is_wanted = |rest: &Rest<P>| rest.view.packet_id() != packet;
            if rests.iter().all(is_wanted) {
                return;
            }
            let (kept, gone) = rests.drain(..).partition(is_wanted);
            *rests = kept;
            found.extend::<VecDeque<_>>(gone);
        }
        // Failed outside the borrow: the woken may send again.
        for rest in found {
            rest.view.fail(ErrorKind::Cancelled);
        }
        if self.is_clear() {
            self.callers.wake();
        }
    }
}

/// Given back on drop, even by a panic of foreign code.
pub(super) struct Sending<'a, P: Direction>(&'a Lane<P>);

impl<P: Direction> Drop for Sending<'_, P> {
    fn drop(&mut self) {
        self.0.sending.set(false);
        if self.0.is_empty() {
            self.0.callers.wake();
        }
    }
}

/// Callers that wait for room, each once.
#[derive(Default)]
pub(super) struct Callers(RefCell<Vec<Waker>>);

impl Callers {
    pub(super) fn add(&self, waker: &Waker) {
        // Cloned and dropped with nothing borrowed: either may run anything.
        let known = self.0.borrow().iter().any(|waiting| waiting.will_wake(waker));
        if !known {
            let waker = waker.clone();
            self.0.borrow_mut().push(waker);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(super) fn wake(&self) {
        wake_all(self.0.take());
    }
}
