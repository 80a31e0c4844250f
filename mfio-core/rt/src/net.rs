//! The traits of networks: a [`Tcp`] gives connections, which take packets in order.
//!
//! Data flow: address → [`StreamHandle`] → packets: what comes next, what goes next.
//!
//! Not here: names of hosts (a question to a resolver, which may take long), files (`fs`).

use core::future::Future;
use core::net::SocketAddr;
use core::time::Duration;

use mfio_core::{IoBackend, PacketIo, Read, Write};

use crate::error::Error;

/// Makes and takes connections.
#[allow(async_fn_in_trait, reason = "futures are Send where the implementation is")]
pub trait Tcp: IoBackend {
    /// Its connections.
    type Stream: StreamHandle;
    /// What takes connections.
    type Listener: ListenerHandle<Stream = Self::Stream>;

    /// Connects to `address`.
    ///
    /// # Errors
    /// `ConnectionRefused`, `TimedOut`, `Unreachable`, `TooManyOpen`.
    ///
    /// # Cancel safety
    /// The attempt is given up, and its socket closed.
    async fn connect(&self, address: SocketAddr) -> Result<Self::Stream, Error>;

    /// Listens on `address`; port 0 is any free one.
    ///
    /// # Errors
    /// `AddressInUse`, `AddressNotAvailable`, `PermissionDenied`, `Unsupported` for an option
    /// that cannot be honoured here.
    ///
    /// # Cancel safety
    /// Nothing listens.
    async fn bind(
        &self,
        address: SocketAddr,
        options: &ListenOptions,
    ) -> Result<Self::Listener, Error>;
}

/// How to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenOptions {
    /// The most connections that wait to be taken; the system may have a lower limit.
    pub backlog: u32,
    /// Others may listen on the same address, and the system shares the connections out.
    pub reuse_port: bool,
}

impl Default for ListenOptions {
    /// 1024 may wait; the address is ours alone.
    fn default() -> Self {
        Self { backlog: 1024, reuse_port: false }
    }
}

impl ListenOptions {
    /// As `default`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`ListenOptions::backlog`](field@Self::backlog).
    #[must_use]
    pub const fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Sets [`ListenOptions::reuse_port`](field@Self::reuse_port).
    #[must_use]
    pub const fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }
}

/// Takes connections.
#[allow(async_fn_in_trait, reason = "futures are Send where the implementation is")]
pub trait ListenerHandle: IoBackend {
    /// Its connections.
    type Stream: StreamHandle;

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    fn local_addr(&self) -> Result<SocketAddr, Error>;

    /// The next connection, and where it comes from.
    ///
    /// # Errors
    /// `TooManyOpen`, `ConnectionReset` where it was gone again: accept once more.
    ///
    /// # Cancel safety
    /// A connection that was taken and not given to anybody is closed; others wait on.
    async fn accept(&self) -> Result<(Self::Stream, SocketAddr), Error>;
}

/// The place of a packet in a stream that waits until all of it is there.
///
/// With `()` a read completes with what has come, at least one byte, and the rest of the packet
/// fails as `UnexpectedEof`: for code that reacts to whatever arrives. With `Whole` the rest is
/// waited for, and only the end of the stream fails it: for headers and payloads of known
/// length, whose bytes land where they belong. Both kinds take turns in the order they were
/// sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whole;

/// One connection: what was sent first goes first.
///
/// Reads of both kinds ([`Whole`]) and writes each have an order of their own. At the end of
/// the stream a read fails as [`UnexpectedEof`](mfio_core::ErrorKind::UnexpectedEof) with no
/// bytes; a connection that broke fails with the errno, and so does everything after. A write
/// is complete when the system has taken it, whole. Dropping the handle closes the connection:
/// what was not completed fails as [`Closed`](mfio_core::ErrorKind::Closed).
#[allow(async_fn_in_trait, reason = "futures are Send where the implementation is")]
pub trait StreamHandle:
    PacketIo<Read, ()> + PacketIo<Read, Whole> + PacketIo<Write, ()> + IoBackend
{
    /// This end.
    ///
    /// # Errors
    /// The system's.
    fn local_addr(&self) -> Result<SocketAddr, Error>;

    /// The other end.
    ///
    /// # Errors
    /// `NotConnected`, the system's.
    fn peer_addr(&self) -> Result<SocketAddr, Error>;

    /// Ends one direction or both. Ending writes waits for those accepted before.
    ///
    /// # Errors
    /// `NotConnected`, the system's.
    ///
    /// # Cancel safety
    /// Ended or not.
    async fn shutdown(&self, what: Shutdown) -> Result<(), Error>;

    /// Sends small writes at once, instead of waiting for more to send with them.
    ///
    /// # Errors
    /// The system's.
    fn set_nodelay(&self, on: bool) -> Result<(), Error>;

    /// Asks a silent peer, after that long and again, whether it is alive; `None` never asks.
    ///
    /// # Errors
    /// The system's.
    fn set_keepalive(&self, after: Option<Duration>) -> Result<(), Error>;

    /// Runs `future` with this connection served by the same task, where the runtime would
    /// otherwise have another thread for that: what arrives for `future` then wakes one thread
    /// instead of two. Whoever else uses the connection meanwhile waits for this task.
    ///
    /// # Cancel safety
    /// Dropping it drops `future`; the runtime serves the connection again.
    async fn hosting<F: Future>(&self, future: F) -> F::Output {
        future.await
    }
}

/// Which directions to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Nothing more is read.
    Read,
    /// Nothing more is written: the other side reads to the end.
    Write,
    /// Neither.
    Both,
}
