//! Connections on a shard: the traits of [`mfio_rt::net`], whose bytes go by the shard's ring.
//!
//! Data flow: address → [`ShardNet`] → [`ShardStream`] → packets in order → one op of each
//! direction in the ring, straight from and to the packet's own memory → completed.
//!
//! ```
//! use mfio_core::{IoRead, IoWrite, block_on};
//! use mfio_engine::net::ShardNet;
//! use mfio_engine::{Config, Shard, ring::threads::ThreadRing};
//! use mfio_rt::{ListenOptions, ListenerHandle, Tcp, Whole};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // `KernelRing` where io_uring is allowed; the same code runs on threads.
//! let shard = Shard::with_ring(ThreadRing::new(2, 64)?, &Config::new())?;
//! let net = ShardNet::new(&shard)?;
//! let listener = block_on(&net, net.bind("127.0.0.1:0".parse()?, &ListenOptions::new()))??;
//! let address = listener.local_addr()?;
//! let peer = std::thread::spawn(move || std::net::TcpStream::connect(address));
//! let (stream, _from) = block_on(&net, listener.accept())??;
//! drop(peer.join());
//! let (read, _) = block_on(&net, stream.read_exact(Whole, vec![0; 4]))?;
//! assert!(read.is_err(), "the peer has gone");
//! # Ok(())
//! # }
//! ```
//!
//! What goes where, on io_uring: bytes by `IORING_OP_RECV` and `IORING_OP_SEND`; connections are
//! taken by `IORING_OP_ACCEPT`, from Linux 5.19 on one op for all of them, of which up to 64 are
//! taken before anybody asks; whether one is made is told by `IORING_OP_POLL_ADD`. `socket(2)`,
//! `bind(2)`, `connect(2)` and `shutdown(2)` are plain calls, which do not wait: a data ring is
//! [restricted](crate::ring::kernel) to what opens no way out of the process.
//!
//! A read is one op, into the memory of its packet, and not a shot of one for all of them into
//! buffers that the ring shares out (`IORING_RECV_MULTISHOT`). What these save, beside single
//! ops, of the processor time of a server with 64 connections on a bare ring (Linux 6.18, the
//! loopback, buffers of 4 KiB; of 16 KiB, the last figure is -3 to 11 %):
//!
//! | messages of | answered each | alone, not answered | 16 at once |
//! |---|---|---|---|
//! | 64 bytes | -3 to 11 % | 0 to 7 % | 27 to 46 % |
//! | 512 bytes | -2 to 10 % | -2 to 7 % | 30 to 38 % |
//! | 4 KiB | -3 to 7 % | -9 to 3 % | -5 to -13 % |
//!
//! The last column is not theirs: single ops that read 4 KiB at a time, from which messages are
//! copied, differ from them by less than the rounds among themselves. So a caller has it for a
//! larger packet: with a shard, each of 16 messages of 64 bytes costs 1.5 times as much if it is
//! read by itself as by `read_some` of 4 KiB, of 512 bytes 1.7 times, of 4 KiB 0.9 times. The
//! first two columns do not pay for memory of the ring that slow readers would hold: their better
//! ends are those of a loop that has the caches to itself. (On one core:
//! `cargo run --release -p mfio-engine --example receive`, and for the bare ring
//! `cargo test -p mfio-engine --lib -- --ignored --nocapture shots_save`.)
//!
//! Connections have plain descriptors, and their ops go by these, where an accept could leave
//! them in the ring's table alone (`IORING_FILE_INDEX_ALLOC`). A connection that is accepted,
//! answers 64 bytes and is closed takes 14 % less processor time on a bare ring so. But 12 % less
//! it takes by a plain one too, if it is closed by an op and nobody asks for the peer's address;
//! with 10 answers it is 5 % against 2 %, with 100 it is 1 %. Plain descriptors that are
//! registered as well cost 6 % more with one answer, and save 1 % with 100. Against that, both
//! addresses, `set_nodelay`, `set_keepalive` and `shutdown` are calls on a descriptor, and an op
//! that closes could close any other of the process, which the ring is denied.
//!
//! On a ring without such ops, which is the one on threads and a simulated one, connections are
//! those of [`mfio_rt::portable`]: a poller tells of them, and one thread serves them.
//!
//! What files pay for connections beside them: while something waits in the ring for a peer, an
//! op on a file that is alone goes by the ring too, and not by a plain call
//! ([`Bypass`](crate::Bypass)); and where the ring polls for completions (`IOPOLL`), each round
//! of that enters the ring of the connections as well.
//!
//! Each connection has up to two ops in the ring, and a listener one, which may all complete at
//! once. What the completion queue has no room for is kept by the kernel, in memory that it
//! allocates for each, and costs a call more to be fetched: with many connections that speak at
//! once, give the ring at least twice as many entries as there are of them
//! ([`KernelConfig::cq_entries`](field@crate::ring::kernel::KernelConfig::cq_entries)).
//!
//! Not here: the order of packets and their ops (`shard`), names of hosts
//! ([`Portable::resolve`]).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use mfio_core::backend::PollingHandle;
use mfio_core::{BackendBusy, BackendHandle, IoBackend};
use mfio_rt::portable::{Portable, error_of};
use mfio_rt::{Error, ErrorKind, ListenOptions, Op, Tcp};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::ring::{AutoRing, Ring};
use crate::shard::{Connection, Shard};

mod listener;
mod stream;

pub use listener::ShardListener;
pub use stream::ShardStream;

/// Connections on a shard; see the [module](self).
///
/// Like the shard's own handles it stays on the shard's thread. Whatever drives the shard
/// drives it: [`block_on`](mfio_core::block_on), a task of the shard, a host.
pub struct ShardNet<R: Ring = AutoRing> {
    shard: Shard<R>,
    /// Where the ring has no ops for sockets.
    threads: Option<Portable>,
}

impl<R: Ring> ShardNet<R> {
    /// The network of this machine. Starts threads where the ring has no ops for sockets, and
    /// only there.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn new(shard: &Shard<R>) -> Result<Self, Error> {
        let threads = if shard.has_sockets() { None } else { Some(Portable::new()?) };
        Ok(Self { shard: shard.clone(), threads })
    }

    /// As [`ShardNet::new`], on the threads of `threads` whatever the ring can.
    #[must_use]
    pub fn with_threads(shard: &Shard<R>, threads: &Portable) -> Self {
        Self { shard: shard.clone(), threads: Some(threads.clone()) }
    }

    /// The shard whose ring moves the bytes.
    #[must_use]
    pub fn shard(&self) -> &Shard<R> {
        &self.shard
    }

    /// Whether bytes go by the ring, and not by threads.
    #[must_use]
    pub fn is_on_ring(&self) -> bool {
        self.threads.is_none()
    }

    /// A connection that was made elsewhere, a TCP or a Unix stream, to be used here. Its mode
    /// is changed to blocking, as the ring needs it, and again whenever another holder of it has
    /// changed it back; where that goes on, its packets fail with `EAGAIN`.
    ///
    /// The connection is this process's from now on: when the stream is dropped, or the shard
    /// ends, with packets under way, it is shut down for every other holder of it too. A child
    /// that was forked shuts down nothing.
    ///
    /// # Errors
    /// The system's, and `Closed` where the shard accepts nothing more.
    pub fn adopt(&self, stream: impl Into<OwnedFd>) -> Result<ShardStream<R>, Error> {
        let stream = stream.into();
        if let Some(threads) = &self.threads {
            // It takes a descriptor for what its calls are, which are those of any stream.
            let stream = threads.adopt(std::net::TcpStream::from(stream))?;
            return Ok(ShardStream::on_threads(&self.shard, stream));
        }
        let socket = Socket::from(stream);
        socket.set_nonblocking(false).map_err(|error| error_of(Op::Socket, &error))?;
        Ok(ShardStream::on_ring(self.connection(Op::Socket, socket, false)?))
    }

    /// Connects to the Unix stream socket at `path`, which does not wait for anybody.
    ///
    /// # Errors
    /// The system's: `ConnectionRefused` where nobody listens, `Locked` (`EAGAIN`) where more
    /// wait to be taken than the listener allows.
    pub fn connect_unix(&self, path: &Path) -> Result<ShardStream<R>, Error> {
        let about = |error: io::Error| error_of(Op::Connect, &error);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(about)?;
        socket.set_nonblocking(true).map_err(about)?;
        SockAddr::unix(path).and_then(|address| socket.connect(&address)).map_err(about)?;
        self.adopt(socket)
    }

    /// Listens at `path`, which must not exist, as a Unix stream socket. The name stays when the
    /// listener is closed.
    ///
    /// # Errors
    /// The system's: `AddressInUse` where there is something of that name. `Unsupported` without
    /// ops for sockets.
    pub fn bind_unix(&self, path: &Path, backlog: u32) -> Result<ShardListener<R>, Error> {
        let about = |error: io::Error| error_of(Op::Bind, &error);
        if self.threads.is_some() {
            return Err(Error::new(Op::Bind, ErrorKind::Unsupported));
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(about)?;
        SockAddr::unix(path).and_then(|address| socket.bind(&address)).map_err(about)?;
        self.listener(socket, backlog)
    }

    fn listener(&self, socket: Socket, backlog: u32) -> Result<ShardListener<R>, Error> {
        let about = |error: io::Error| error_of(Op::Bind, &error);
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(about)?;
        Ok(ShardListener::on_ring(self.connection(Op::Bind, socket, false)?))
    }

    fn connection(&self, op: Op, socket: Socket, connects: bool) -> Result<Connection<R>, Error> {
        let taken = self.shard.connection(socket, connects);
        taken.ok_or_else(|| closed(op))
    }
}

/// Waits until a connection is made.
async fn established<R: Ring>(connection: &Connection<R>) -> Result<(), Error> {
    let about = |error: io::Error| error_of(Op::Connect, &error);
    loop {
        // Polled for another reason, a wait may be over before there is an answer.
        connection.ready().await;
        if let Some(error) = connection.descriptor().take_error().map_err(about)? {
            return Err(about(error));
        }
        match connection.descriptor().peer_addr() {
            Ok(_) => return Ok(()),
            Err(_) if connection.is_refused() => return Err(closed(Op::Connect)),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Err(error) => return Err(about(error)),
        }
    }
}

/// The shard accepts nothing more.
fn closed(op: Op) -> Error {
    Error::of_bytes(op, mfio_core::ErrorKind::Closed.into())
}

impl<R: Ring> Tcp for ShardNet<R> {
    type Stream = ShardStream<R>;
    type Listener = ShardListener<R>;

    async fn connect(&self, address: SocketAddr) -> Result<ShardStream<R>, Error> {
        if let Some(threads) = &self.threads {
            let stream = threads.connect(address).await?;
            return Ok(ShardStream::on_threads(&self.shard, stream));
        }
        let about = |error: io::Error| error_of(Op::Connect, &error);
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(about)?;
        socket.set_nonblocking(true).map_err(about)?;
        let waits = match socket.connect(&address.into()) {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => true,
            Err(error) => return Err(about(error)),
        };
        // From now on the kernel is to wait, where something has to be waited for.
        socket.set_nonblocking(false).map_err(about)?;
        let connection = self.connection(Op::Connect, socket, true)?;
        if waits {
            established(&connection).await?;
        }
        Ok(ShardStream::on_ring(connection))
    }

    async fn bind(
        &self,
        address: SocketAddr,
        options: &ListenOptions,
    ) -> Result<ShardListener<R>, Error> {
        if let Some(threads) = &self.threads {
            let listener = threads.bind(address, options).await?;
            return Ok(ShardListener::on_threads(&self.shard, listener));
        }
        let about = |error: io::Error| error_of(Op::Bind, &error);
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(about)?;
        socket.set_reuse_address(true).map_err(about)?;
        if options.reuse_port {
            socket.set_reuse_port(true).map_err(about)?;
        }
        socket.bind(&address.into()).map_err(about)?;
        self.listener(socket, options.backlog)
    }
}

impl<R: Ring> IoBackend for ShardNet<R> {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        self.shard.polling_handle()
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.shard.get_backend()
    }
}

impl<R: Ring> fmt::Debug for ShardNet<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardNet").field("on_ring", &self.is_on_ring()).finish_non_exhaustive()
    }
}
