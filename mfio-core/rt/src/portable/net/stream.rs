//! One connection: what its lanes do with the socket.
//!
//! Data flow: packet → lane → `recv` or `send` without blocking → completed; or it waits until
//! there is an event, which puts the lane into the queue of the reactor, or wakes the task that
//! hosts the connection, and there again. Between two events nothing is tried that the last try
//! has shown to be in vain.
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

use mfio_core::{Error as ByteError, ErrorKind as ByteKind};
use mfio_core::{PacketId, PacketIo, Read, Refused, View, Write};
use mio::Token;
use mio::net::TcpStream;

use super::lane::{Entry, Lane};
use super::reactor::{Reactor, Ready, Watch, Work};
use crate::error::{Error, Op};
use crate::lock::Lock;
use crate::net::{Shutdown, StreamHandle, Whole};
use crate::portable::errno;

/// Visits to a lane after which others get a turn.
const STEPS_MAX: usize = 64;
/// Bytes moved in one visit.
const STEP_BYTES: usize = 1 << 20;
/// Bytes copied at a time where a packet lends none.
const PIECE_BYTES: usize = 16 << 10;
/// Whether a short read has taken all there was, so that there is an event when more comes: see
/// epoll(7). Others want to be asked in vain.
const SHORT_IS_ALL: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// A connection.
pub struct PortableStream(Arc<Socket>);

/// What the handle, the lanes' wakers and the serving thread share.
struct Socket {
    tcp: TcpStream,
    token: Token,
    /// Whether a call may do something, for each direction.
    ready: [AtomicBool; 2],
    /// There was an event. What the first one said may have been lost while this was made.
    told: AtomicBool,
    /// What can be read has an end, of which no other event will tell.
    closed: AtomicBool,
    reads: Lane<Read>,
    writes: Lane<Write>,
    readable: Waker,
    writable: Waker,
    /// The task that serves the lanes, where one does, and which of them it is to serve.
    host: Lock<Option<Arc<Waker>>>,
    due: [AtomicBool; 2],
    net: Reactor,
}

#[derive(Clone, Copy)]
enum Way {
    Read,
    Write,
}

/// A lane to be served.
pub(super) struct Serving {
    alarm: Arc<Alarm>,
    socket: Arc<Socket>,
}

impl Serving {
    pub(super) fn run(self) {
        // Before looking: what comes up from now on is for the next visit.
        self.alarm.scheduled.store(false, Ordering::Release);
        match self.alarm.way {
            Way::Read => self.socket.serve_reads(),
            Way::Write => self.socket.serve_writes(),
        }
    }
}

/// What has a lane served. Keeps no socket open.
struct Alarm {
    socket: Weak<Socket>,
    way: Way,
    /// In the queue of the reactor.
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
        net.shared().push(Work::Serve(Serving { alarm: self, socket }));
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

impl Watch for Socket {
    fn told(&self, event: Ready) {
        if event.closed {
            self.closed.store(true, Ordering::Release);
        }
        self.told.store(true, Ordering::Release);
        let ended = event.closed;
        let both = [(event.readable || ended, &self.readable), (event.writable, &self.writable)];
        for ((told, waker), ready) in both.into_iter().zip(&self.ready) {
            if told {
                // Before looking, so that a look in vain is followed by another one.
                ready.store(true, Ordering::Release);
                waker.wake_by_ref();
            }
        }
    }
}

fn clip(len: u64, most: usize) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX).min(most)
}

impl Socket {
    fn receive(&self, to: &mut [u8]) -> Answer {
        let answer = answer(uninterrupted(|| (&self.tcp).read(to)));
        let more = match answer {
            Answer::Moved(moved) => moved == to.len() || !self.tells_of_more(),
            Answer::Blocked => false,
            Answer::Failed(_) => true,
        };
        self.may_be_ready(Way::Read, more);
        answer
    }

    fn transmit(&self, from: &[u8]) -> Answer {
        let answer = answer(uninterrupted(|| (&self.tcp).write(from)));
        self.may_be_ready(Way::Write, !matches!(answer, Answer::Blocked));
        answer
    }

    /// Whether there will be an event for whatever comes after a short read.
    fn tells_of_more(&self) -> bool {
        let told = self.told.load(Ordering::Acquire);
        SHORT_IS_ALL && told && !self.closed.load(Ordering::Acquire)
    }

    fn may_be_ready(&self, way: Way, ready: bool) {
        if ready {
            self.ready[way as usize].store(true, Ordering::Release);
        }
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
            &self.ready[Way::Read as usize],
            |view, whole| self.read_step(view, whole),
        );
    }

    fn serve_writes(&self) {
        serve(
            &self.writes,
            &self.writable,
            &self.ready[Way::Write as usize],
            |view, _whole| self.write_step(view),
        );
    }
}

/// Serves a lane until it is empty or the socket blocks, unless somebody else does.
fn serve<P: mfio_core::Perms>(
    lane: &Lane<P>,
    waker: &Waker,
    ready: &AtomicBool,
    step: impl Fn(View<P>, bool) -> Step<P>,
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
        // Cleared before the call: an event during it counts.
        let may = before == 0 || ready.swap(false, Ordering::AcqRel);
        let (view, blocked) = match if may { step(view, whole) } else { Step::Blocked(view) } {
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
        if blocked && lane.end() {
            return;
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

impl Drop for Socket {
    fn drop(&mut self) {
        self.net.forget(&mut self.tcp, self.token);
    }
}

impl PortableStream {
    pub(super) fn new(net: Reactor, mut tcp: TcpStream) -> io::Result<Self> {
        let mut watched = Ok(());
        let socket = Arc::new_cyclic(|socket: &Weak<Socket>| {
            let token = net.token(socket.clone() as Weak<dyn Watch>);
            // An event that finds no socket yet is not missed: it is tried first.
            watched = net.watch(&mut tcp, token);
            let waker = |way| {
                let (socket, scheduled) = (socket.clone(), AtomicBool::new(false));
                Waker::from(Arc::new(Alarm { socket, way, scheduled }))
            };
            Socket {
                tcp,
                token,
                ready: [AtomicBool::new(true), AtomicBool::new(true)],
                told: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                reads: Lane::new(),
                writes: Lane::new(),
                readable: waker(Way::Read),
                writable: waker(Way::Write),
                host: Lock::new(None),
                due: [AtomicBool::new(false), AtomicBool::new(false)],
                net,
            }
        });
        watched.map(|()| Self(socket))
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
