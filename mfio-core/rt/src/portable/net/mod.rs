//! Connections that a poller tells of, and one thread that serves those it tells of.
//!
//! Data flow: packet → [`lane`] of its connection → done at once, or when the poller wakes the
//! lane → thread → the same lane. A connection that is stuck has its packets waiting in its own
//! lane, and keeps nobody else.
//!
//! Not here: the order within a lane (`lane`), what the traits say (`stream`).

use core::net::SocketAddr;
use std::io;
use std::net::{TcpListener, TcpStream};

use async_io::Async;

use super::Portable;
use super::errno;
use super::pool::Pool;
use crate::error::{Error, Op};
use crate::net::{ListenOptions, ListenerHandle, Tcp};

mod lane;
mod stream;

pub use stream::PortableStream;
pub(super) use stream::Serving;

impl Tcp for Portable {
    type Stream = PortableStream;
    type Listener = PortableListener;

    async fn connect(&self, address: SocketAddr) -> Result<PortableStream, Error> {
        let about = |error: io::Error| errno::of(Op::Connect, &error);
        let socket = Async::<TcpStream>::connect(address).await.map_err(about)?;
        Ok(PortableStream::new(self.net.clone(), socket))
    }

    async fn bind(
        &self,
        address: SocketAddr,
        options: &ListenOptions,
    ) -> Result<PortableListener, Error> {
        let about = |error: io::Error| errno::of(Op::Bind, &error);
        let listener = listen(address, options).and_then(Async::new).map_err(about)?;
        Ok(PortableListener { listener, net: self.net.clone() })
    }
}

impl Portable {
    /// A connection that was made elsewhere, to be used here.
    ///
    /// # Errors
    /// The system's, where it cannot be watched.
    pub fn adopt(&self, stream: TcpStream) -> Result<PortableStream, Error> {
        let socket = Async::new(stream).map_err(|error| errno::of(Op::Socket, &error))?;
        Ok(PortableStream::new(self.net.clone(), socket))
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

/// Takes connections.
#[derive(Debug)]
pub struct PortableListener {
    listener: Async<TcpListener>,
    net: Pool,
}

impl ListenerHandle for PortableListener {
    type Stream = PortableStream;

    fn local_addr(&self) -> Result<SocketAddr, Error> {
        let address = self.listener.get_ref().local_addr();
        address.map_err(|error| errno::of(Op::Socket, &error))
    }

    async fn accept(&self) -> Result<(PortableStream, SocketAddr), Error> {
        match self.listener.accept().await {
            Ok((socket, from)) => Ok((PortableStream::new(self.net.clone(), socket), from)),
            Err(error) => Err(errno::of(Op::Accept, &error)),
        }
    }
}
