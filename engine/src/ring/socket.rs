//! What a ring does with sockets, besides what it does with files.
//!
//! Data flow: [`SocketOp`] and tag → [`Sockets::push_socket`] → a completion like any other. An
//! op waits in the kernel for as long as the peer likes; its memory stays the ring's until then,
//! as [`Ring`](super::Ring) says. Making a connection is no op, only waiting until one is made: a
//! data ring is restricted to what opens no way out of the process.
//!
//! Not here: the order of packets (`shard::lanes`), rings without such ops, whose shards leave
//! sockets to threads (`net`).

use super::Tag;
use crate::buffer::MemRange;

/// The slots of tags from here on are those of ops on sockets, up to [`Tag::INTERNAL`].
pub const SOCKET_SLOTS_FROM: u32 = 1 << 31;

/// What is done with a socket.
#[derive(Clone, Copy, Debug)]
pub enum SocketKind {
    /// Fills some of the memory with what comes next, once there is something (`recv(2)`).
    Receive(MemRange),
    /// Sends some of the memory, once there is room (`send(2)`, without a `SIGPIPE`).
    Send(MemRange),
    /// Waits until a connection was made or refused (`poll(2)`).
    Writable,
    /// Takes a connection once there is one, or one after the other (`accept4(2)`): the result of
    /// each completion is a descriptor, which is the caller's, closed on `exec`.
    Accept {
        /// Until it is cancelled or fails, with `more` on all completions but the last. Only
        /// where the ring [takes many](Sockets::takes_many).
        many: bool,
    },
}

/// One op on a socket, by its plain descriptor.
#[derive(Clone, Copy, Debug)]
pub struct SocketOp {
    /// What to do.
    pub kind: SocketKind,
    /// On which socket. It must not be in non-blocking mode, where the kernel answers `EAGAIN`
    /// instead of waiting. It stays open until the completion.
    pub fd: i32,
}

/// The part of a ring that serves sockets. All of it is refused unless a ring says otherwise.
pub trait Sockets {
    /// Whether ops on sockets can be pushed. Probed.
    fn has_sockets(&self) -> bool {
        false
    }

    /// Whether one op takes any number of connections (Linux 5.19).
    fn takes_many(&self) -> bool {
        false
    }

    /// As [`Ring::push`](super::Ring::push), with nothing staged, and with a slot from
    /// [`SOCKET_SLOTS_FROM`] on in its tag.
    ///
    /// # Panics
    /// When the queue is full, or the ring [has no such ops](Sockets::has_sockets).
    fn push_socket(&mut self, op: SocketOp, tag: Tag) {
        let _ = (op, tag);
        unreachable!("a ring without ops for sockets is given none");
    }
}

impl Sockets for super::threads::ThreadRing {}
#[cfg(any(test, feature = "sim"))]
impl Sockets for super::sim::SimRing {}
#[cfg(any(test, feature = "sim"))]
impl<R: super::Ring> Sockets for super::Planted<R> {}
