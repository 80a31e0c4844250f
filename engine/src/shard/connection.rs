//! The handle of a socket: where its packets are sent.
//!
//! Data flow: packet → [`Connection`] → the shard's core, as of a [`File`](super::File). Calls
//! that do not wait are made on the descriptor itself.
//!
//! Not here: addresses and the traits of networks (`net`).

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mfio_core::{PacketId, View, Write};
use nix::errno::Errno;
use socket2::Socket as Descriptor;

use super::Shard;
use super::core::{Core, Ending};
use super::lanes::{Lane, Lanes, SocketId};
use crate::ring::Ring;

/// An open socket of a shard. Dropped, it is closed, behind what of it is in the ring.
pub(crate) struct Connection<R: Ring> {
    shard: Shard<R>,
    id: SocketId,
    descriptor: Rc<Descriptor>,
}

impl<R: Ring> Shard<R> {
    /// Whether the ring has ops for sockets.
    pub(crate) fn has_sockets(&self) -> bool {
        self.inner.core.borrow().ring.has_sockets()
    }

    /// Takes in a socket in blocking mode, of which `connects` says what is waited for by
    /// [`Connection::ready`]; `None` where the shard accepts nothing more.
    pub(crate) fn connection(&self, socket: Descriptor, connects: bool) -> Option<Connection<R>> {
        let descriptor = Rc::new(socket);
        let id = self.inner.core.borrow_mut().add_socket(&descriptor, connects)?;
        Some(Connection { shard: self.clone(), id, descriptor })
    }
}

#[allow(private_bounds, reason = "a direction is named as `Read` or `Write` outside")]
impl<R: Ring> Connection<R> {
    pub(crate) fn shard(&self) -> &Shard<R> {
        &self.shard
    }

    /// For calls that do not wait.
    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Whether the shard accepts nothing more.
    pub(crate) fn is_refused(&self) -> bool {
        self.shard.inner.core.borrow().refuses
    }

    pub(crate) fn send<D: Lanes>(&self, view: View<D>, whole: bool) -> Option<View<D>> {
        self.with(|core| core.send_to_socket(self.id, view, whole))
    }

    pub(crate) fn abandon<D: Lanes>(&self, packet: PacketId) {
        self.with(|core| core.abandon_in_socket::<D>(self.id, packet));
    }

    pub(crate) fn poll_room<D: Lanes>(&self, cx: &Context<'_>) -> Poll<()> {
        self.wait_unless::<D>(cx, Lane::has_room)
    }

    pub(crate) fn reserve<D: Lanes>(&self, views: usize) -> bool {
        let mut core = self.shard.inner.core.borrow_mut();
        core.sockets.find(self.id).is_some_and(|socket| D::lane(socket).reserve(views))
    }

    pub(crate) fn release<D: Lanes>(&self, views: usize) {
        self.with(|core| {
            let Core { sockets, endings, .. } = core;
            let Some(socket) = sockets.find(self.id) else { return };
            let lane = D::lane(socket);
            lane.reserved = lane.reserved.saturating_sub(views);
            endings.extend(lane.waiting.drain(..).map(Ending::Wake));
        });
    }

    /// Waits until everything that was sent has its result.
    pub(crate) async fn idle(&self) {
        poll_fn(|cx| self.wait_unless::<Write>(cx, Lane::is_idle)).await;
    }

    /// The next connection to be taken: `ECANCELED` where the shard accepts nothing more.
    pub(crate) async fn accept(&self) -> Result<OwnedFd, Errno> {
        poll_fn(|cx| {
            let mut waker = Some(cx.waker().clone());
            self.with(|core| core.poll_accept(self.id, &mut waker))
        })
        .await
    }

    /// Waits once until the connection may be made or refused, or this is polled again.
    pub(crate) async fn ready(&self) {
        let mut asked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            let waker = cx.waker().clone();
            self.with(|core| core.watch_socket(self.id, waker));
            Poll::Pending
        })
        .await;
    }

    fn wait_unless<D: Lanes>(&self, cx: &Context<'_>, ready: fn(&Lane<D>) -> bool) -> Poll<()> {
        // Cloned while nothing is borrowed: that may run anything.
        let waker: Waker = cx.waker().clone();
        let mut core = self.shard.inner.core.borrow_mut();
        let Some(socket) = core.sockets.find(self.id) else { return Poll::Ready(()) };
        let lane = D::lane(socket);
        if ready(lane) {
            drop(core);
            return Poll::Ready(());
        }
        if !lane.waiting.iter().any(|waiting| waiting.will_wake(&waker)) {
            lane.waiting.push(waker);
        }
        Poll::Pending
    }

    /// Changes the state of the shard, and tells what has come of it.
    fn with<T>(&self, change: impl FnOnce(&mut Core<R>) -> T) -> T {
        let mut core = self.shard.inner.core.borrow_mut();
        let changed = change(&mut core);
        let news = core.has_news();
        drop(core);
        if news {
            self.shard.inner.deliver();
        }
        changed
    }
}

impl<R: Ring> Drop for Connection<R> {
    fn drop(&mut self) {
        self.with(|core| core.close_socket(self.id));
    }
}
