//! Connections that a poller tells of, and whoever serves those it tells of.
//!
//! Data flow: packet → [`lane`] of its connection → done at once, or when the poller tells of the
//! connection → the same lane. A connection that is stuck has its packets waiting in its own
//! lane, and keeps nobody else.
//!
//! Not here: who asks the poller (`reactor`), the order within a lane (`lane`), system calls
//! (`socket`), what the traits say (`stream`, `listener`).

use core::net::SocketAddr;
use std::io;
use std::net::{TcpListener, TcpStream};

use super::Portable;
use super::errno;
use crate::error::{Error, Op};
use crate::net::{ListenOptions, Tcp};

mod lane;
mod listener;
mod reactor;
mod socket;
mod stream;
mod task;

pub use listener::PortableListener;
pub(super) use reactor::Reactor;
pub use stream::PortableStream;

impl Tcp for Portable {
    type Stream = PortableStream;
    type Listener = PortableListener;

    async fn connect(&self, address: SocketAddr) -> Result<PortableStream, Error> {
        let about = |error: io::Error| errno::of(Op::Connect, &error);
        let socket = mio::net::TcpStream::connect(address).map_err(about)?;
        let stream = PortableStream::new(self.net.clone(), socket).map_err(about)?;
        stream.connected().await.map_err(about)?;
        Ok(stream)
    }

    async fn bind(
        &self,
        address: SocketAddr,
        options: &ListenOptions,
    ) -> Result<PortableListener, Error> {
        let about = |error: io::Error| errno::of(Op::Bind, &error);
        let listener = listen(address, options).map_err(about)?;
        PortableListener::new(&self.net, listener).map_err(about)
    }
}

impl Portable {
    /// A connection that was made elsewhere, to be used here.
    ///
    /// # Errors
    /// The system's, where it cannot be watched.
    pub fn adopt(&self, stream: TcpStream) -> Result<PortableStream, Error> {
        let adopted = stream.set_nonblocking(true).and_then(|()| {
            PortableStream::new(self.net.clone(), mio::net::TcpStream::from_std(stream))
        });
        adopted.map_err(|error| errno::of(Op::Socket, &error))
    }
}

fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // On Windows this would let others take the address over.
    if cfg!(unix) {
        socket.set_reuse_address(true)?;
    }
    if options.reuse_port {
        reuse_port(&socket)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn reuse_port(socket: &socket2::Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn reuse_port(_socket: &socket2::Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
