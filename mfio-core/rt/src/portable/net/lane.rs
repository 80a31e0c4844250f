//! One direction of a connection: packets in the order they were sent.
//!
//! Data flow: view → [`Lane`] → whoever serves it, one at a time → the socket → completed, or
//! put back in front until there is an event.
//!
//! Not here: system calls (`socket`).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::task::{Context, Poll, Waker};

use mfio_core::wakers::wake_all;
use mfio_core::{Error as ByteError, ErrorKind as ByteKind};
use mfio_core::{PacketId, Perms, View};

use crate::lock::Lock;

/// The most packets that wait in one direction of a connection.
const WAITING_MAX: usize = 64;

/// A packet in a lane.
pub(super) struct Entry<P: Perms> {
    pub(super) view: View<P>,
    /// Waits until all of it is there.
    pub(super) whole: bool,
    /// Some of its bytes are through.
    pub(super) started: bool,
}

struct State<P: Perms> {
    entries: VecDeque<Entry<P>>,
    reserved: usize,
    waiting: Vec<Waker>,
    /// Somebody serves it.
    busy: bool,
    /// Something has come up for whoever serves it.
    again: bool,
    /// What everything fails with from now on.
    error: Option<ByteError>,
}

pub(super) struct Lane<P: Perms>(Lock<State<P>>);

impl<P: Perms> Lane<P> {
    pub(super) fn new() -> Self {
        Self(Lock::new(State {
            entries: VecDeque::new(),
            reserved: 0,
            waiting: Vec::new(),
            busy: false,
            again: false,
            error: None,
        }))
    }

    /// Queues a packet; it comes back where there is no room.
    pub(super) fn push(&self, entry: Entry<P>) -> Result<(), Entry<P>> {
        self.0.with(|state| {
            if state.reserved > 0 {
                state.reserved -= 1;
            } else if state.entries.len() >= WAITING_MAX {
                return Err(entry);
            }
            state.entries.push_back(entry);
            Ok(())
        })
    }

    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        self.wait_unless(cx, |state| state.entries.len() + state.reserved < WAITING_MAX)
    }

    /// Ready when everything that was queued has its result.
    pub(super) fn poll_idle(&self, cx: &Context<'_>) -> Poll<()> {
        self.wait_unless(cx, |state| state.entries.is_empty() && !state.busy)
    }

    /// Wakes `cx` when somebody has found nothing to serve.
    pub(super) fn wait_for_visit(&self, cx: &Context<'_>) {
        let _never = self.wait_unless(cx, |_| false);
    }

    fn wait_unless(&self, cx: &Context<'_>, ready: impl Fn(&State<P>) -> bool) -> Poll<()> {
        // Cloned and dropped outside the lock: both may run anything.
        let waker = cx.waker().clone();
        let (polled, unused) = self.0.with(|state| {
            if ready(state) {
                return (Poll::Ready(()), Some(waker));
            }
            if state.waiting.iter().any(|waiting| waiting.will_wake(&waker)) {
                return (Poll::Pending, Some(waker));
            }
            state.waiting.push(waker);
            (Poll::Pending, None)
        });
        drop(unused);
        polled
    }

    pub(super) fn reserve(&self, views: usize) -> bool {
        self.0.with(|state| {
            let wanted = state.reserved.saturating_add(views);
            let fits = state.entries.len().saturating_add(wanted) <= WAITING_MAX;
            if fits {
                state.reserved = wanted;
            }
            fits
        })
    }

    pub(super) fn release(&self, views: usize) {
        self.0.with(|state| state.reserved = state.reserved.saturating_sub(views));
        self.wake();
    }

    fn wake(&self) {
        let woken = self.0.with(|state| core::mem::take(&mut state.waiting));
        wake_all(woken);
    }

    /// The right to serve. Where somebody has it, he is told to look again.
    pub(super) fn begin(&self) -> bool {
        self.0.with(|state| {
            state.again = state.busy;
            !core::mem::replace(&mut state.busy, true)
        })
    }

    /// The next packet and, where the connection has failed, why. `None` ends the right to
    /// serve, and then everything is [`finished`](Self::finished).
    pub(super) fn next(&self) -> Option<(Entry<P>, Option<ByteError>)> {
        self.0.with(|state| {
            let next = state.entries.pop_front().map(|entry| (entry, state.error));
            state.busy = next.is_some();
            next
        })
    }

    /// A packet has its result, or all have.
    pub(super) fn finished(&self) {
        self.wake();
    }

    /// Puts back what cannot be served to the end now.
    pub(super) fn put_back(&self, entry: Entry<P>) {
        self.0.with(|state| state.entries.push_front(entry));
    }

    /// Gives the right to serve back, unless there is something new to look at.
    pub(super) fn end(&self) -> bool {
        self.0.with(|state| {
            let again = core::mem::replace(&mut state.again, false) || state.error.is_some();
            state.busy = again && !state.entries.is_empty();
            !state.busy
        })
    }

    /// Gives the right to serve back, whatever there is.
    pub(super) fn leave(&self) {
        self.0.with(|state| state.busy = false);
    }

    /// From now on everything fails with `error`, or with what it failed with before.
    pub(super) fn fail(&self, error: ByteError) {
        self.0.with(|state| {
            state.error.get_or_insert(error);
        });
    }

    /// Takes a packet out. One that is partly written stays: what follows it would be
    /// misunderstood.
    pub(super) fn cancel(&self, packet: PacketId, even_started: bool) {
        let found = self.0.with(|state| {
            let wanted = |entry: &Entry<P>| {
                entry.view.packet_id() == packet && (even_started || !entry.started)
            };
            let at = state.entries.iter().position(wanted)?;
            state.entries.remove(at)
        });
        if let Some(entry) = found {
            entry.view.fail(ByteKind::Cancelled);
            self.wake();
        }
    }
}
