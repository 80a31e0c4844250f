//! What handles and the driver of a connection share: what waits, what is under way.
//!
//! Data flow: call or packet → queue → [`Work`], within the window that the server granted →
//! table of calls → reply → whoever waits. All queues have a limit; whoever meets it waits.
//!
//! Wakers are called, and views completed, outside the lock.
//!
//! Not here: answers (`calls`), bytes on the connection (`session`).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::task::{Context, Poll, Waker};
use std::sync::{Mutex, PoisonError};

use mfio_core::wakers::{tell_all, wake_all};
use mfio_core::{BackendBusy, BackendHandle, IoBackend};
use mfio_core::{Error as ByteError, ErrorKind as ByteKind, FailedRange, PacketId};
use mfio_core::{Read, View, Write};
use mfio_rt::portable::Portable;
use mfio_rt::{Error, ErrorKind, Op};

use super::locked::{Locked, call};
use super::locks::Undoing;
use super::pending::Slot;
use crate::wire::{Limits, Request};

/// Packets that wait for the window.
const TRANSFERS_MAX: usize = 1024;
/// Operations that wait for the window.
const CONTROLS_MAX: usize = 1024;

pub(crate) const ENOTCONN: i32 = 107;
pub(crate) const ECONNRESET: i32 = 104;
pub(crate) const ESTALE: i32 = 116;

/// What bytes fail with when the connection is cut under them.
pub(crate) const CUT: ByteError = ByteError::with_errno(ByteKind::Aborted, ECONNRESET);

/// A handle at the server.
pub(crate) struct Opened {
    pub(crate) number: u64,
    /// The connection that it belongs to; `None` for the exported directory.
    pub(crate) epoch: Option<u32>,
    pub(crate) user: Arc<User>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(epoch) = self.epoch {
            self.user.shared.notify(epoch, Request::Close { handle: self.number });
        }
    }
}

/// Held by whatever can still ask for something.
pub(crate) struct User {
    pub(crate) shared: Arc<Shared>,
    /// What serves the connection, where that is known.
    pub(crate) net: Option<Portable>,
}

impl IoBackend for User {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.net.as_ref().map_or(Ok(None), IoBackend::get_backend)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.unused = true;
        state.wake_driver();
    }
}

/// An operation that waits to be sent.
pub(crate) struct Control {
    pub(crate) request: Request,
    pub(crate) op: Op,
    /// The connection it is for.
    pub(crate) epoch: Option<u32>,
    /// Handles that must stay open until it is sent.
    pub(crate) keep: Vec<Arc<Opened>>,
    pub(crate) slot: Option<Arc<Slot>>,
}

/// A packet's bytes on their way.
pub(crate) enum Way {
    Read(View<Read>),
    Write(View<Write>),
}

pub(crate) struct Transfer {
    pub(crate) file: Arc<Opened>,
    pub(crate) at: u64,
    pub(crate) way: Way,
}

impl Transfer {
    pub(crate) fn fail(self, error: ByteError) {
        match self.way {
            Way::Read(view) => view.fail(error),
            Way::Write(view) => view.fail(error),
        }
    }

    fn is_of(&self, packet: PacketId) -> bool {
        match &self.way {
            Way::Read(view) => view.packet_id() == packet,
            Way::Write(view) => view.packet_id() == packet,
        }
    }
}

/// What has been sent and not answered to the end.
pub(super) enum Call {
    Control {
        op: Op,
        slot: Option<Arc<Slot>>,
    },
    Read {
        pieces: BTreeMap<u64, View<Read>>,
        left: u64,
        empty: bool,
    },
    /// Both are there when it is over: the view, when its bytes have gone out; the verdict.
    Write {
        view: Option<View<Write>>,
        verdict: Option<Vec<FailedRange>>,
        len: u64,
    },
}

/// What the driver sends next. `keep` is let go when it is sent.
pub(crate) enum Work {
    Send { id: u64, request: Request, keep: Vec<Arc<Opened>> },
    Write { id: u64, request: Request, view: View<Write>, keep: Arc<Opened> },
    Finished,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Up,
    /// Between two connections.
    Between,
    Down,
}

pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) epoch: u32,
    pub(crate) limits: Limits,
    pub(super) notices: VecDeque<Request>,
    pub(super) controls: VecDeque<Control>,
    pub(super) undoing: Undoing,
    pub(super) transfers: VecDeque<Transfer>,
    reserved: usize,
    pub(super) calls: BTreeMap<u64, Call>,
    next_id: u64,
    pub(super) bytes: u64,
    unused: bool,
    pub(super) driver: Option<Waker>,
    pub(super) wakes_driver: bool,
    room: Vec<Waker>,
}

impl State {
    /// The driver is woken as soon as this is unlocked.
    pub(super) fn wake_driver(&mut self) {
        self.wakes_driver = true;
    }

    /// Has `waker` woken when there is room; false where it has to be `cloned` for that first,
    /// with nothing locked.
    fn wait_for_room(&mut self, waker: &Waker, cloned: &mut Option<Waker>) -> bool {
        let known = self.room.iter().any(|waiting| waiting.will_wake(waker));
        known || cloned.take().map(|cloned| self.room.push(cloned)).is_some()
    }

    pub(super) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

pub(crate) struct Shared(Mutex<State>);

impl Shared {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(Mutex::new(State {
            phase: Phase::Up,
            epoch: 1,
            limits,
            notices: VecDeque::new(),
            controls: VecDeque::new(),
            undoing: Undoing::default(),
            transfers: VecDeque::new(),
            reserved: 0,
            calls: BTreeMap::new(),
            next_id: 0,
            bytes: 0,
            unused: false,
            driver: None,
            wakes_driver: false,
            room: Vec::new(),
        }))
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked::new(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn wake_room(&self) {
        let room = core::mem::take(&mut self.lock().room);
        wake_all(room);
    }

    /// Queues something that is not answered, for the connection it is about.
    pub(crate) fn notify(&self, epoch: u32, request: Request) {
        let mut state = self.lock();
        if state.epoch == epoch && state.phase == Phase::Up {
            state.notices.push_back(request);
            state.wake_driver();
        }
    }

    /// Queues an operation; it comes back where there is no room, and `cx` is woken.
    pub(crate) fn push(&self, control: Control, cx: &Context<'_>) -> Option<Control> {
        let mut cloned = None;
        loop {
            let mut state = self.lock();
            if state.phase == Phase::Down {
                drop(state);
                refuse(control, ErrorKind::NotConnected, ENOTCONN);
                return None;
            }
            if state.controls.len() < CONTROLS_MAX {
                state.controls.push_back(control);
                state.wake_driver();
                return None;
            }
            if state.wait_for_room(cx.waker(), &mut cloned) {
                return Some(control);
            }
            drop(state);
            cloned = Some(cx.waker().clone());
        }
    }

    /// The answer to `slot`, about a lock, is not wanted any more: what waits is not sent, a
    /// wait for a lock ends.
    pub(crate) fn cancel(&self, slot: &Arc<Slot>) {
        let mut state = self.lock();
        let same = |other: &Option<Arc<Slot>>| other.as_ref().is_some_and(|s| Arc::ptr_eq(s, slot));
        let waiting = state.controls.iter().position(|control| same(&control.slot));
        let removed = waiting.and_then(|at| state.controls.remove(at));
        let under_way = state.calls.iter().find(|(_, call)| match call {
            Call::Control { slot, .. } => same(slot),
            _ => false,
        });
        if let Some(request) = under_way.map(|(id, _)| *id) {
            state.undoing.begin(slot);
            if slot.locks.is_some_and(|locking| locking.waits) {
                state.notices.push_back(Request::Cancel { request });
                state.wake_driver();
            }
        }
        drop(state);
        drop(removed);
    }

    pub(crate) fn send(&self, transfer: Transfer) -> Result<(), Transfer> {
        let mut state = self.lock();
        if state.phase == Phase::Down {
            drop(state);
            transfer.fail(ByteError::with_errno(ByteKind::Closed, ENOTCONN));
            return Ok(());
        }
        if state.reserved > 0 {
            state.reserved -= 1;
        } else if state.transfers.len() >= TRANSFERS_MAX {
            return Err(transfer);
        }
        state.transfers.push_back(transfer);
        state.wake_driver();
        Ok(())
    }

    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut cloned = None;
        loop {
            let mut state = self.lock();
            let full = state.transfers.len() + state.reserved >= TRANSFERS_MAX;
            if !full || state.phase == Phase::Down {
                return Poll::Ready(());
            }
            if state.wait_for_room(cx.waker(), &mut cloned) {
                return Poll::Pending;
            }
            drop(state);
            cloned = Some(cx.waker().clone());
        }
    }

    pub(crate) fn reserve(&self, views: usize) -> bool {
        let mut state = self.lock();
        let wanted = state.reserved.saturating_add(views);
        let fits = state.transfers.len().saturating_add(wanted) <= TRANSFERS_MAX;
        if fits {
            state.reserved = wanted;
        }
        fits
    }

    pub(crate) fn release(&self, views: usize) {
        {
            let mut state = self.lock();
            state.reserved = state.reserved.saturating_sub(views);
        }
        self.wake_room();
    }

    /// Takes back what of a packet has not been sent.
    pub(crate) fn abandon(&self, packet: PacketId) {
        let found: Vec<Transfer> = {
            let mut state = self.lock();
            let all = core::mem::take(&mut state.transfers);
            let (found, kept) = all.into_iter().partition(|transfer| transfer.is_of(packet));
            state.transfers = kept;
            Vec::from_iter::<VecDeque<Transfer>>(found)
        };
        if !found.is_empty() {
            let found = found.into_iter().map(Some).chain([None]);
            tell_all(found, |transfer| match transfer {
                Some(transfer) => transfer.fail(ByteKind::Cancelled.into()),
                None => self.wake_room(),
            });
        }
    }

    /// What is to be sent next, if anything is and may be.
    pub(crate) fn poll_work(&self, cx: Option<&Context<'_>>) -> Poll<Work> {
        let mut cloned = None;
        loop {
            let mut state = self.lock();
            let window = state.limits.requests.max(1) as usize;
            if let Some(request) = state.notices.pop_front() {
                let id = state.id();
                return Poll::Ready(Work::Send { id, request, keep: Vec::new() });
            }
            if state.calls.len() < window
                && let Some(control) = state.next_control()
            {
                if control.epoch.is_some_and(|epoch| epoch != state.epoch) {
                    drop(state);
                    call(|| refuse(control, ErrorKind::NotConnected, ESTALE));
                    continue;
                }
                let id = state.id();
                let Control { request, op, keep, slot, .. } = control;
                state.calls.insert(id, Call::Control { op, slot });
                drop(state);
                call(|| self.wake_room());
                return Poll::Ready(Work::Send { id, request, keep });
            }
            // Operations have some of the window to themselves.
            let apart = (window / 4).min(16);
            if state.calls.len() < window - apart
                && let Some(transfer) = state.transfers.pop_front()
            {
                if transfer.file.epoch != Some(state.epoch) {
                    drop(state);
                    let stale = ByteError::with_errno(ByteKind::Closed, ESTALE);
                    call(|| transfer.fail(stale));
                    continue;
                }
                match state.start(transfer) {
                    Ok(work) => {
                        drop(state);
                        call(|| self.wake_room());
                        return Poll::Ready(work);
                    }
                    Err(transfer) => state.transfers.push_front(transfer),
                }
            }
            if state.unused && state.is_idle() {
                return Poll::Ready(Work::Finished);
            }
            let known = |cx: &&Context<'_>| {
                state.driver.as_ref().is_some_and(|known| known.will_wake(cx.waker()))
            };
            let Some(cx) = cx.filter(|cx| !known(cx)) else { return Poll::Pending };
            // Cloned and dropped with nothing locked: both may run anything.
            if cloned.is_some() {
                core::mem::swap(&mut state.driver, &mut cloned);
                return Poll::Pending;
            }
            drop(state);
            cloned = Some(cx.waker().clone());
        }
    }

    /// The driver is about to look what is to be sent: nobody needs to wake it for that.
    pub(crate) fn driver_looks(&self) {
        let waker = self.lock().driver.take();
        drop(waker);
    }

    /// A new connection is there.
    pub(crate) fn up(&self, limits: Limits) {
        let mut state = self.lock();
        state.phase = Phase::Up;
        state.epoch += 1;
        state.limits = limits;
    }

    /// Asks the server for a sign of life.
    pub(crate) fn ping(&self) {
        let mut state = self.lock();
        let (request, op) = (Request::Ping {}, Op::Connect);
        state.controls.push_front(Control {
            request,
            op,
            epoch: None,
            keep: Vec::new(),
            slot: None,
        });
        state.wake_driver();
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.notices.is_empty()
            && self.controls.is_empty()
            && self.transfers.is_empty()
            && self.calls.is_empty()
    }

    /// Whether anything is under way: only then silence means something.
    pub(crate) fn waits(&self) -> bool {
        !self.calls.is_empty()
    }

    pub(crate) const fn is_unused(&self) -> bool {
        self.unused
    }
}

/// Tells whoever waits that an operation was not even sent.
pub(super) fn refuse(control: Control, kind: ErrorKind, errno: i32) {
    if let Some(slot) = &control.slot {
        drop(slot.finish(Err(Error::new(control.op, kind).with_errno(errno))));
    }
}

/// A path as it is sent.
pub(crate) fn path_of(path: &[u8]) -> Box<[u8]> {
    path.into()
}
