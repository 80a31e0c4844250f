//! One connection: what its lanes do with the socket.
//!
//! Data flow: packet → lane → `recv` or `send` without blocking → completed; or the poller is
//! asked, its waker puts the lane into the queue of the serving thread, or wakes the task that
//! hosts the connection, and there again.
//!
//! Not here: order and limits (`lane`).

use alloc::sync::{Arc, Weak};
use alloc::task::Wake;
use alloc::vec;
use core::fmt;
use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use async_io::Async;
use mfio_core::{Error as ByteError, ErrorKind as ByteKind};
use mfio_core::{PacketId, PacketIo, Read, Refused, View, Write};

use super::super::errno;
use super::super::pool::{Job, Pool};
use super::lane::{Entry, Lane};
use crate::error::{Error, Op};
use crate::lock::Lock;
use crate::net::{Shutdown, StreamHandle, Whole};

/// Visits to a lane after which others get a turn.
const STEPS_MAX: usize = 64;
/// Bytes moved in one visit.
const STEP_BYTES: usize = 1 << 20;
/// Bytes copied at a time where a packet lends none.
const PIECE_BYTES: usize = 16 << 10;

/// A connection.
pub struct PortableStream(Arc<Socket>);

/// What the handle, the lanes' wakers and the serving thread share.
pub(crate) struct Socket {
    tcp: Async<TcpStream>,
    reads: Lane<Read>,
    writes: Lane<Write>,
    readable: Waker,
    writable: Waker,
    /// The task that serves the lanes, where one does, and which of them it is to serve.
    host: Lock<Option<Arc<Waker>>>,
    due: [AtomicBool; 2],
    net: Pool,
}

#[derive(Clone, Copy)]
enum Way {
    Read,
    Write,
}

/// A lane to be served.
pub(crate) struct Serving {
    alarm: Arc<Alarm>,
    socket: Arc<Socket>,
}

impl Serving {
    pub(crate) fn run(self) {
        // Before looking: what comes up from now on is for the next visit.
        self.alarm.scheduled.store(false, Ordering::Release);
        match self.alarm.way {
            Way::Read => self.socket.serve_reads(),
            Way::Write => self.socket.serve_writes(),
        }
    }
}

/// What the poller wakes. Keeps no socket open.
struct Alarm {
    socket: Weak<Socket>,
    way: Way,
    /// In the queue of the serving thread.
    scheduled: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        let Some(socket) = self.socket.upgrade() else { return };
        if let Some(host) = socket.host.with(|host| host.clone()) {
            socket.due[self.way as usize].store(true, Ordering::Release);
            return host.wake_by_ref();
        }
        if self.scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let net = socket.net.clone();
        // Its queue has room for every lane there is.
        let refused = net.push(Job::Serve(Serving { alarm: self, socket }));
        debug_assert!(refused.is_ok(), "the queue of lanes has no limit");
    }
}

/// How far a packet got in one visit.
enum Step<P: mfio_core::Perms> {
    Done,
    /// There is more to do at once.
    More(View<P>),
    /// The socket has nothing, or no room.
    Blocked(View<P>),
    Failed(ByteError),
}

/// What a socket answered.
enum Answer {
    Moved(usize),
    Blocked,
    Failed(ByteError),
}

fn answer(result: io::Result<usize>) -> Answer {
    match result {
        Ok(moved) => Answer::Moved(moved),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Answer::Blocked,
        Err(error) => Answer::Failed(errno::of_bytes(&error)),
    }
}

fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn clip(len: u64, most: usize) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX).min(most)
}

impl Socket {
    fn receive(&self, to: &mut [u8]) -> Answer {
        answer(uninterrupted(|| self.tcp.get_ref().read(to)))
    }

    fn transmit(&self, from: &[u8]) -> Answer {
        answer(uninterrupted(|| self.tcp.get_ref().write(from)))
    }

    fn read_step(&self, view: View<Read>, whole: bool) -> Step<Read> {
        if view.is_empty() {
            view.filled();
            return Step::Done;
        }
        let (answer, view) = match view.try_alloc(1) {
            Ok(mut lent) => {
                let many = clip(lent.len(), STEP_BYTES);
                let answer = self.receive(&mut lent.as_mut_slice()[..many]);
                (answer, lent.into_view())
            }
            Err(mut view) => {
                let mut piece = vec![0; clip(view.len(), PIECE_BYTES)];
                let answer = self.receive(&mut piece);
                if let Answer::Moved(moved) = answer {
                    view.write_at(0, &piece[..moved]);
                }
                (answer, view)
            }
        };
        match answer {
            Answer::Moved(0) => {
                view.fail(ByteKind::UnexpectedEof);
                Step::Done
            }
            Answer::Moved(moved) if moved as u64 == view.len() => {
                view.filled();
                Step::Done
            }
            Answer::Moved(moved) => {
                let (filled, rest) = view.split_at(moved as u64);
                filled.filled();
                if whole {
                    return Step::More(rest);
                }
                rest.fail(ByteKind::UnexpectedEof);
                Step::Done
            }
            Answer::Blocked => Step::Blocked(view),
            Answer::Failed(error) => {
                view.fail(error);
                Step::Failed(error)
            }
        }
    }

    fn write_step(&self, view: View<Write>) -> Step<Write> {
        if view.is_empty() {
            view.written();
            return Step::Done;
        }
        let (answer, view) = match view.try_alloc(1) {
            Ok(lent) => {
                let many = clip(lent.len(), STEP_BYTES);
                let answer = self.transmit(&lent.as_slice()[..many]);
                (answer, lent.into_view())
            }
            Err(view) => {
                let mut piece = vec![0; clip(view.len(), PIECE_BYTES)];
                if view.read_at(0, &mut piece).is_err() {
                    // Part of it may be through: what follows would be misunderstood.
                    view.fail(ByteKind::Aborted);
                    return Step::Failed(ByteKind::Aborted.into());
                }
                (self.transmit(&piece), view)
            }
        };
        match answer {
            Answer::Moved(0) | Answer::Blocked => Step::Blocked(view),
            Answer::Moved(moved) if moved as u64 == view.len() => {
                view.written();
                Step::Done
            }
            Answer::Moved(moved) => {
                let (written, rest) = view.split_at(moved as u64);
                written.written();
                Step::More(rest)
            }
            Answer::Failed(error) => {
                view.fail(error);
                Step::Failed(error)
            }
        }
    }

    fn serve_reads(&self) {
        serve(
            &self.reads,
            &self.readable,
            |view, whole| self.read_step(view, whole),
            |cx| self.tcp.poll_readable(cx),
        );
    }

    fn serve_writes(&self) {
        serve(
            &self.writes,
            &self.writable,
            |view, _whole| self.write_step(view),
            |cx| self.tcp.poll_writable(cx),
        );
    }
}

/// Serves a lane until it is empty or the socket blocks, unless somebody else does.
fn serve<P: mfio_core::Perms>(
    lane: &Lane<P>,
    waker: &Waker,
    step: impl Fn(View<P>, bool) -> Step<P>,
    poll: impl Fn(&mut Context<'_>) -> Poll<io::Result<()>>,
) {
    if !lane.begin() {
        return;
    }
    for _ in 0..STEPS_MAX {
        let Some((Entry { view, whole, mut started }, failed)) = lane.next() else { return };
        if let Some(error) = failed {
            view.fail(error);
            lane.finished();
            continue;
        }
        let before = view.len();
        let (view, blocked) = match step(view, whole) {
            Step::Done => {
                lane.finished();
                continue;
            }
            Step::Failed(error) => {
                lane.fail(error);
                lane.finished();
                continue;
            }
            Step::More(view) => (view, false),
            Step::Blocked(view) => (view, true),
        };
        started |= view.len() < before;
        lane.put_back(Entry { view, whole, started });
        if !blocked {
            continue;
        }
        match poll(&mut Context::from_waker(waker)) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => lane.fail(errno::of_bytes(&error)),
            Poll::Pending if lane.end() => return,
            Poll::Pending => {}
        }
    }
    lane.leave();
    waker.wake_by_ref();
}

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
    pub(super) fn new(net: Pool, tcp: Async<TcpStream>) -> Self {
        Self(Arc::new_cyclic(|socket: &Weak<Socket>| {
            let waker = |way| {
                let (socket, scheduled) = (socket.clone(), AtomicBool::new(false));
                Waker::from(Arc::new(Alarm { socket, way, scheduled }))
            };
            Socket {
                tcp,
                reads: Lane::new(),
                writes: Lane::new(),
                readable: waker(Way::Read),
                writable: waker(Way::Write),
                host: Lock::new(None),
                due: [AtomicBool::new(false), AtomicBool::new(false)],
                net,
            }
        }))
    }

    fn tcp(&self) -> &TcpStream {
        self.0.tcp.get_ref()
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
