//! What takes connections.
//!
//! Data flow: an op of the ring that takes one connection after the other → whoever asks next.
//!
//! Not here: listening (`net`), connections (`stream`).

use std::fmt;
use std::net::SocketAddr;

use mfio_core::backend::PollingHandle;
use mfio_core::{BackendBusy, BackendHandle, IoBackend};
use mfio_rt::portable::{PortableListener, error_of};
use mfio_rt::{Error, ErrorKind, ListenerHandle, Op};
use nix::errno::Errno;
use socket2::Socket;

use super::stream::{ShardStream, address_of};
use crate::ring::{AutoRing, Ring};
use crate::shard::{Connection, Shard};

/// Takes connections for a shard.
pub struct ShardListener<R: Ring = AutoRing> {
    shard: Shard<R>,
    way: Way<R>,
}

enum Way<R: Ring> {
    Ring(Connection<R>),
    Threads(PortableListener),
}

impl<R: Ring> ShardListener<R> {
    pub(super) fn on_ring(connection: Connection<R>) -> Self {
        Self { shard: connection.shard().clone(), way: Way::Ring(connection) }
    }

    pub(super) fn on_threads(shard: &Shard<R>, listener: PortableListener) -> Self {
        Self { shard: shard.clone(), way: Way::Threads(listener) }
    }

    /// The next connection, of whatever family: of a Unix socket, nobody knows where from.
    ///
    /// # Errors
    /// As [`ListenerHandle::accept`].
    ///
    /// # Cancel safety
    /// As [`ListenerHandle::accept`].
    pub async fn accept_stream(&self) -> Result<ShardStream<R>, Error> {
        match &self.way {
            Way::Ring(connection) => Ok(ShardStream::on_ring(self.take(connection).await?)),
            Way::Threads(listener) => {
                let (stream, _from) = listener.accept().await?;
                Ok(ShardStream::on_threads(&self.shard, stream))
            }
        }
    }

    async fn take(&self, connection: &Connection<R>) -> Result<Connection<R>, Error> {
        let socket = match connection.accept().await {
            Ok(socket) => Socket::from(socket),
            Err(Errno::ECANCELED) => return Err(super::closed(Op::Accept)),
            Err(errno) => return Err(error_of(Op::Accept, &errno.into())),
        };
        let taken = self.shard.connection(socket, false);
        taken.ok_or_else(|| super::closed(Op::Accept))
    }
}

impl<R: Ring> ListenerHandle for ShardListener<R> {
    type Stream = ShardStream<R>;

    fn local_addr(&self) -> Result<SocketAddr, Error> {
        match &self.way {
            Way::Ring(connection) => address_of(connection.descriptor().local_addr()),
            Way::Threads(listener) => listener.local_addr(),
        }
    }

    async fn accept(&self) -> Result<(ShardStream<R>, SocketAddr), Error> {
        match &self.way {
            Way::Ring(connection) => {
                let taken = self.take(connection).await?;
                let gone = |_| Error::new(Op::Accept, ErrorKind::ConnectionReset);
                let from = taken.descriptor().peer_addr().map_err(gone)?.as_socket();
                let from = from.ok_or(Error::new(Op::Accept, ErrorKind::Unsupported))?;
                Ok((ShardStream::on_ring(taken), from))
            }
            Way::Threads(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok((ShardStream::on_threads(&self.shard, stream), from))
            }
        }
    }
}

impl<R: Ring> IoBackend for ShardListener<R> {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        self.shard.polling_handle()
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.shard.get_backend()
    }
}

impl<R: Ring> fmt::Debug for ShardListener<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardListener").field("at", &self.local_addr()).finish_non_exhaustive()
    }
}
