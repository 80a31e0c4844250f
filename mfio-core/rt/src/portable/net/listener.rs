//! Taking connections.
//!
//! Data flow: event → whoever waits → `accept` until it would block.
//!
//! Not here: connections (`stream`).

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::net::SocketAddr;
use core::task::{Context, Poll, Waker};
use std::io;

use mfio_core::wakers::wake_all;
use mio::Token;
use mio::net::{TcpListener, TcpStream};

use super::reactor::{Reactor, Ready, Watch};
use super::stream::PortableStream;
use crate::error::{Error, Op};
use crate::lock::Lock;
use crate::net::ListenerHandle;
use crate::portable::errno;

/// Who waits for a connection.
#[derive(Default)]
struct Waiting(Lock<Vec<Waker>>);

impl Watch for Waiting {
    fn told(&self, _ready: Ready) {
        // All of them: the one that was woken alone might have stopped waiting.
        let waiting = self.0.with(core::mem::take);
        wake_all(waiting);
    }
}

/// Takes connections.
pub struct PortableListener {
    listener: TcpListener,
    token: Token,
    waiting: Arc<Waiting>,
    net: Reactor,
}

impl PortableListener {
    pub(super) fn new(net: &Reactor, listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let waiting = Arc::new(Waiting::default());
        let weak = Arc::downgrade(&waiting);
        let token = net.token(weak as Weak<dyn Watch>);
        let listener = TcpListener::from_std(listener);
        let mut made = Self { listener, token, waiting, net: net.clone() };
        net.watch(&mut made.listener, token)?;
        Ok(made)
    }

    pub(in crate::portable) const fn net(&self) -> &Reactor {
        &self.net
    }

    fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let accept = || match self.listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            accepted => Poll::Ready(accepted),
        };
        if let Poll::Ready(accepted) = accept() {
            return Poll::Ready(accepted);
        }
        // Cloned and dropped outside the lock: both may run anything.
        let waker = cx.waker().clone();
        let unused = self.waiting.0.with(|waiting| {
            if waiting.iter().any(|waiting| waiting.will_wake(&waker)) {
                return Some(waker);
            }
            waiting.push(waker);
            None
        });
        drop(unused);
        // There may have been an event just before.
        accept()
    }
}

impl Drop for PortableListener {
    fn drop(&mut self) {
        self.net.forget(&mut self.listener, self.token);
    }
}

impl ListenerHandle for PortableListener {
    type Stream = PortableStream;

    fn local_addr(&self) -> Result<SocketAddr, Error> {
        let address = self.listener.local_addr();
        address.map_err(|error| errno::of(Op::Socket, &error))
    }

    async fn accept(&self) -> Result<(PortableStream, SocketAddr), Error> {
        let made = poll_fn(|cx| self.poll_accept(cx))
            .await
            .and_then(|(socket, from)| Ok((PortableStream::new(self.net.clone(), socket)?, from)));
        made.map_err(|error| errno::of(Op::Accept, &error))
    }
}

impl fmt::Debug for PortableListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PortableListener").field(&self.listener).finish()
    }
}
