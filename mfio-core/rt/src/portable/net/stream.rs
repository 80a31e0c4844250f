//! One connection, as the traits have it.
//!
//! Data flow: packet → lane of its direction → served at once, as far as the socket goes; the
//! rest by the reactor, or by the task that hosts the connection.
//!
//! Not here: what is done with the socket (`socket`), order and limits (`lane`).

use alloc::sync::Arc;
use core::fmt;
use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::pin;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::io;

use mfio_core::ErrorKind as ByteKind;
use mfio_core::{PacketId, PacketIo, Read, Refused, View, Write};
use mio::net::TcpStream;

use super::lane::Entry;
use super::reactor::Reactor;
use super::socket::{Socket, Way};
use crate::error::{Error, Op};
use crate::net::{Shutdown, StreamHandle, Whole};
use crate::portable::errno;

/// A connection.
pub struct PortableStream(Arc<Socket>);

/// Lanes served by a task, until it ends.
struct Hosted<'a> {
    socket: &'a Socket,
    task: Option<Arc<Waker>>,
}

impl Hosted<'_> {
    fn poll(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            let task = Arc::new(cx.waker().clone());
            self.task = Some(Arc::clone(&task));
            let old = self.socket.host.with(|host| host.replace(task));
            drop(old);
        }
        // After that: what comes up from now on wakes this task.
        self.serve_due();
    }

    fn serve_due(&self) {
        let due = |way| self.socket.due[way as usize].swap(false, Ordering::AcqRel);
        if due(Way::Read) {
            self.socket.serve_reads();
        }
        if due(Way::Write) {
            self.socket.serve_writes();
        }
    }
}

impl Drop for Hosted<'_> {
    fn drop(&mut self) {
        let old = self.socket.host.with(Option::take);
        drop(old);
        // What this task was told and did not come to; from now on the thread is told.
        self.serve_due();
        // A poller that found the host just before may still tell it: then look once more.
        self.socket.readable.wake_by_ref();
        self.socket.writable.wake_by_ref();
    }
}

impl PortableStream {
    pub(super) fn new(net: Reactor, tcp: TcpStream) -> io::Result<Self> {
        Socket::new(net, tcp).map(Self)
    }

    /// Returns when the connection stands, or cannot be made.
    pub(super) async fn connected(&self) -> io::Result<()> {
        let ask = || {
            if let Some(error) = self.tcp().take_error()? {
                return Err(error);
            }
            self.tcp().peer_addr().map(drop)
        };
        let asked = || match ask() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Pending,
            result => Poll::Ready(result),
        };
        poll_fn(|cx| {
            if let Poll::Ready(result) = asked() {
                return Poll::Ready(result);
            }
            self.0.writes.wait_for_visit(cx);
            // There may have been an event just before.
            asked()
        })
        .await
    }

    fn tcp(&self) -> &TcpStream {
        &self.0.tcp
    }

    pub(in crate::portable) fn net(&self) -> &Reactor {
        &self.0.net
    }
}

/// The kinds of packets differ in their lane, and in how much they wait for.
macro_rules! packet_io {
    (
        $perms:ident, $place:ty, $lane:ident, $serve:ident,
        $whole:literal, $cancel_started:literal
    ) => {
        impl PacketIo<$perms, $place> for PortableStream {
            fn send_io(
                &self,
                param: $place,
                view: View<$perms>,
            ) -> Result<(), Refused<$perms, $place>> {
                let entry = Entry { view, whole: $whole, started: false };
                if let Err(refused) = self.0.$lane.push(entry) {
                    return Err(Refused { param, view: refused.view });
                }
                self.0.$serve();
                Ok(())
            }

            fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
                self.0.$lane.poll_room(cx)
            }

            fn reserve(&self, views: usize) -> bool {
                self.0.$lane.reserve(views)
            }

            fn release(&self, views: usize) {
                self.0.$lane.release(views);
            }

            fn abandon(&self, packet: PacketId) {
                self.0.$lane.cancel(packet, $cancel_started);
            }
        }
    };
}

packet_io!(Read, (), reads, serve_reads, false, true);
packet_io!(Read, Whole, reads, serve_reads, true, true);
packet_io!(Write, (), writes, serve_writes, true, false);

impl StreamHandle for PortableStream {
    fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.tcp().local_addr().map_err(|error| errno::of(Op::Socket, &error))
    }

    fn peer_addr(&self) -> Result<SocketAddr, Error> {
        self.tcp().peer_addr().map_err(|error| errno::of(Op::Socket, &error))
    }

    async fn shutdown(&self, what: Shutdown) -> Result<(), Error> {
        use std::net::Shutdown as Std;
        if what != Shutdown::Read {
            poll_fn(|cx| self.0.writes.poll_idle(cx)).await;
        }
        let what = match what {
            Shutdown::Read => Std::Read,
            Shutdown::Write => Std::Write,
            Shutdown::Both => Std::Both,
        };
        self.tcp().shutdown(what).map_err(|error| errno::of(Op::Shutdown, &error))
    }

    fn set_nodelay(&self, on: bool) -> Result<(), Error> {
        self.tcp().set_nodelay(on).map_err(|error| errno::of(Op::Socket, &error))
    }

    fn set_keepalive(&self, after: Option<Duration>) -> Result<(), Error> {
        let socket = socket2::SockRef::from(self.tcp());
        let set = match after {
            None => socket.set_keepalive(false),
            Some(after) => socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(after)),
        };
        set.map_err(|error| errno::of(Op::Socket, &error))
    }

    async fn hosting<F: Future>(&self, future: F) -> F::Output {
        let mut hosted = Hosted { socket: &self.0, task: None };
        let mut future = pin!(future);
        poll_fn(|cx| {
            hosted.poll(cx);
            future.as_mut().poll(cx)
        })
        .await
    }
}

impl Drop for PortableStream {
    fn drop(&mut self) {
        self.0.reads.fail(ByteKind::Closed.into());
        self.0.writes.fail(ByteKind::Closed.into());
        // Fails what waits; or whoever serves does, who finds the error at the next packet.
        self.0.serve_reads();
        self.0.serve_writes();
    }
}

impl fmt::Debug for PortableStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PortableStream").field(&self.tcp()).finish()
    }
}
