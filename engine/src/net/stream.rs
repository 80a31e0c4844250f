//! One connection of a shard.
//!
//! Data flow: packet → the lane of its direction → the ring, or the threads.
//!
//! Not here: the lanes (`shard`), making connections (`net`), taking them (`listener`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use mfio_core::backend::PollingHandle;
use mfio_core::{BackendBusy, BackendHandle, IoBackend, PacketId, PacketIo};
use mfio_core::{Read, Refused, View, Write};
use mfio_rt::portable::{PortableStream, error_of};
use mfio_rt::{Error, ErrorKind, Op, Shutdown, StreamHandle, Whole};
use socket2::{SockAddr, TcpKeepalive};

use crate::ring::{AutoRing, Ring};
use crate::shard::{Connection, Shard};

/// A connection of a shard.
///
/// # Cancel safety
/// A read that is dropped while it waits takes no bytes from the next: what the kernel was putting
/// into its packet is given to that. Only a read that waits for all of its bytes ([`Whole`]) keeps
/// those that it was told of before. One that has completed has taken its bytes, also where its
/// future is dropped before a poll would have told so, as in a `select`; the same goes for reads
/// that are dropped with their [`CompletionQueue`](mfio_core::CompletionQueue), or as a sent
/// packet. Whoever cannot do without them keeps the future, or calls `cancel` on it and awaits it,
/// which tells of either end. A write that is dropped before any of it was sent is not sent, if
/// the kernel can still be stopped; one that is partly sent is sent to its end, with all views of
/// its packet that were accepted. Of a value on the caller's stack up to 64 KiB are copied at a
/// time: where it goes with more than that unsent, no more can be sent, and the peer sees the end
/// of the stream. The memory of either stays the kernel's until that says otherwise, whoever
/// has gone.
pub struct ShardStream<R: Ring = AutoRing> {
    shard: Shard<R>,
    way: Way<R>,
}

enum Way<R: Ring> {
    Ring(Connection<R>),
    Threads(PortableStream),
}

impl<R: Ring> ShardStream<R> {
    pub(super) fn on_ring(connection: Connection<R>) -> Self {
        Self { shard: connection.shard().clone(), way: Way::Ring(connection) }
    }

    pub(super) fn on_threads(shard: &Shard<R>, stream: PortableStream) -> Self {
        Self { shard: shard.clone(), way: Way::Threads(stream) }
    }
}

/// An address of a network; there is none of a Unix socket.
pub(super) fn address_of(address: io::Result<SockAddr>) -> Result<SocketAddr, Error> {
    let address = address.map_err(|error| error_of(Op::Socket, &error))?;
    address.as_socket().ok_or(Error::new(Op::Socket, ErrorKind::Unsupported))
}

/// The kinds of packets differ in their direction, and in how much they wait for.
macro_rules! packet_io {
    ($perms:ident, $place:ty, $whole:literal) => {
        impl<R: Ring> PacketIo<$perms, $place> for ShardStream<R> {
            fn send_io(
                &self,
                param: $place,
                view: View<$perms>,
            ) -> Result<(), Refused<$perms, $place>> {
                match &self.way {
                    Way::Ring(connection) => match connection.send::<$perms>(view, $whole) {
                        None => Ok(()),
                        Some(view) => Err(Refused { param, view }),
                    },
                    Way::Threads(stream) => stream.send_io(param, view),
                }
            }

            fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
                match &self.way {
                    Way::Ring(connection) => connection.poll_room::<$perms>(cx),
                    Way::Threads(stream) => PacketIo::<$perms, $place>::poll_ready(stream, cx),
                }
            }

            fn reserve(&self, views: usize) -> bool {
                match &self.way {
                    Way::Ring(connection) => connection.reserve::<$perms>(views),
                    Way::Threads(stream) => PacketIo::<$perms, $place>::reserve(stream, views),
                }
            }

            fn release(&self, views: usize) {
                match &self.way {
                    Way::Ring(connection) => connection.release::<$perms>(views),
                    Way::Threads(stream) => PacketIo::<$perms, $place>::release(stream, views),
                }
            }

            fn abandon(&self, packet: PacketId) {
                match &self.way {
                    Way::Ring(connection) => connection.abandon::<$perms>(packet),
                    Way::Threads(stream) => PacketIo::<$perms, $place>::abandon(stream, packet),
                }
            }
        }
    };
}

packet_io!(Read, (), false);
packet_io!(Read, Whole, true);
packet_io!(Write, (), true);

impl<R: Ring> StreamHandle for ShardStream<R> {
    fn local_addr(&self) -> Result<SocketAddr, Error> {
        match &self.way {
            Way::Ring(connection) => address_of(connection.descriptor().local_addr()),
            Way::Threads(stream) => stream.local_addr(),
        }
    }

    fn peer_addr(&self) -> Result<SocketAddr, Error> {
        match &self.way {
            Way::Ring(connection) => address_of(connection.descriptor().peer_addr()),
            Way::Threads(stream) => stream.peer_addr(),
        }
    }

    async fn shutdown(&self, what: Shutdown) -> Result<(), Error> {
        let connection = match &self.way {
            Way::Ring(connection) => connection,
            Way::Threads(stream) => return stream.shutdown(what).await,
        };
        if what != Shutdown::Read {
            connection.idle().await;
        }
        let what = match what {
            Shutdown::Read => std::net::Shutdown::Read,
            Shutdown::Write => std::net::Shutdown::Write,
            Shutdown::Both => std::net::Shutdown::Both,
        };
        let ended = connection.descriptor().shutdown(what);
        ended.map_err(|error| error_of(Op::Shutdown, &error))
    }

    fn set_nodelay(&self, on: bool) -> Result<(), Error> {
        match &self.way {
            Way::Ring(connection) => {
                let set = connection.descriptor().set_tcp_nodelay(on);
                set.map_err(|error| error_of(Op::Socket, &error))
            }
            Way::Threads(stream) => stream.set_nodelay(on),
        }
    }

    fn set_keepalive(&self, after: Option<Duration>) -> Result<(), Error> {
        let socket = match &self.way {
            Way::Ring(connection) => connection.descriptor(),
            Way::Threads(stream) => return stream.set_keepalive(after),
        };
        let set = match after {
            None => socket.set_keepalive(false),
            Some(after) => {
                let often = TcpKeepalive::new().with_time(after).with_interval(after);
                socket.set_tcp_keepalive(&often)
            }
        };
        set.map_err(|error| error_of(Op::Socket, &error))
    }
}

impl<R: Ring> IoBackend for ShardStream<R> {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        self.shard.polling_handle()
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.shard.get_backend()
    }
}

impl<R: Ring> fmt::Debug for ShardStream<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardStream").field("peer", &self.peer_addr()).finish_non_exhaustive()
    }
}
