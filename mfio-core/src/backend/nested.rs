//! One backend on top of another: a protocol over its carrier, a layer over its targets.
//!
//! Data flow: outer backend driven → packets for the inner one → inner backend driven → the
//! outer one woken. Either may be such a nest itself.
//!
//! Not here: several backends side by side ([`BackendHandle::join`]).

use core::task::{Context, Poll, Waker};

use super::{BackendBusy, BackendHandle, IoBackend, PollingHandle};
use crate::io::{PacketIo, Refused};
use crate::packet::{PacketId, Perms, View};

/// Packets go to the outer one; driving drives both, the outer one first.
///
/// A backend that owns its carrier does the same in its own
/// [`get_backend`](IoBackend::get_backend), by [`BackendHandle::over`].
#[derive(Clone, Copy, Debug)]
pub struct Nested<O, I> {
    /// What users talk to. Dropped first.
    pub outer: O,
    /// What the outer one is built on.
    pub inner: I,
}

impl<O, I> Nested<O, I> {
    /// `outer` on top of `inner`.
    #[must_use]
    pub const fn new(outer: O, inner: I) -> Self {
        Self { outer, inner }
    }
}

impl<O: IoBackend, I: IoBackend> Nested<O, I> {
    /// From the outside in. What an outer backend brings along of an inner one counts once.
    fn levels(&self) -> [&dyn IoBackend; 2] {
        [&self.outer, &self.inner]
    }
}

impl<O: IoBackend, I: IoBackend> IoBackend for Nested<O, I> {
    /// The only one; `None` where there are several, see `polling_handles`.
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        let (mut number, mut only) = (0, None);
        self.polling_handles(&mut |handle| {
            number += 1;
            only = Some(handle);
        });
        only.filter(|_| number == 1)
    }

    fn polling_handles<'a>(&'a self, add: &mut dyn FnMut(PollingHandle<'a>)) {
        self.outer.polling_handles(add);
        self.inner.polling_handles(add);
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        BackendHandle::join(self.levels())
    }

    fn poll_backend(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<BackendHandle<'_>>, BackendBusy>> {
        BackendHandle::poll_join(self.levels(), cx)
    }

    fn stop_waiting(&self, waker: &Waker) {
        self.outer.stop_waiting(waker);
        self.inner.stop_waiting(waker);
    }
}

impl<P: Perms, Param, O: PacketIo<P, Param>, I> PacketIo<P, Param> for Nested<O, I> {
    fn send_io(&self, param: Param, view: View<P>) -> Result<(), Refused<P, Param>> {
        self.outer.send_io(param, view)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.outer.poll_ready(cx)
    }

    fn reserve(&self, views: usize) -> bool {
        self.outer.reserve(views)
    }

    fn release(&self, views: usize) {
        self.outer.release(views);
    }

    fn abandon(&self, packet: PacketId) {
        self.outer.abandon(packet);
    }
}
