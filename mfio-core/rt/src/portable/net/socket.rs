//! The socket of a connection: what its lanes do with it.
//!
//! Data flow: packet → lane → `recv` or `send` without blocking → completed; or it waits until
//! there is an event, which puts the lane into the queue of the reactor, or wakes the task that
//! hosts the connection, and there again. Between two events nothing is tried that the last try
//! has shown to be in vain.
//!
//! Not here: order and limits (`lane`), what the traits say (`stream`).

use alloc::sync::{Arc, Weak};
use alloc::task::Wake;
use alloc::vec;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Waker;
use std::io::{self, Read as _, Write as _};

use mfio_core::wakers::tell_all;
use mfio_core::{Error as ByteError, ErrorKind as ByteKind, Read, View, Write};
use mio::Token;
use mio::net::TcpStream;

use super::lane::{Entry, Lane};
use super::reactor::{Reactor, Ready, Watch, Work};
use crate::lock::Lock;
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

/// What the handle, the lanes' wakers and the serving thread share.
pub(super) struct Socket {
    pub(super) tcp: TcpStream,
    token: Token,
    /// Whether a call may do something, for each direction.
    ready: [AtomicBool; 2],
    /// There was an event. What the first one said may have been lost while this was made.
    told: AtomicBool,
    /// What can be read has an end, of which no other event will tell.
    closed: AtomicBool,
    pub(super) reads: Lane<Read>,
    pub(super) writes: Lane<Write>,
    pub(super) readable: Waker,
    pub(super) writable: Waker,
    /// The task that serves the lanes, where one does, and which of them it is to serve.
    pub(super) host: Lock<Option<Arc<Waker>>>,
    pub(super) due: [AtomicBool; 2],
    pub(super) net: Reactor,
}

#[derive(Clone, Copy)]
pub(super) enum Way {
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

/// What the lane fails with if code of the packet's owner panics now: nothing, unless a part of the
/// packet is through or lost, so that what follows would be misunderstood.
type Torn = Cell<Option<ByteError>>;

const ABORTED: ByteError = ByteError::new(ByteKind::Aborted);

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
        for ((told, _), ready) in both.iter().zip(&self.ready) {
            if *told {
                // Before looking, so that a look in vain is followed by another one.
                ready.store(true, Ordering::Release);
            }
        }
        // Each may be handed on to a waker of somebody's.
        let told = both.into_iter().filter(|(told, _)| *told);
        tell_all(told, |(_, waker)| waker.wake_by_ref());
    }
}

fn clip(len: u64, most: usize) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX).min(most)
}

impl Socket {
    pub(super) fn new(net: Reactor, mut tcp: TcpStream) -> io::Result<Arc<Self>> {
        let mut watched = Ok(());
        let socket = Arc::new_cyclic(|socket: &Weak<Self>| {
            let token = net.token(socket.clone() as Weak<dyn Watch>);
            // An event that finds no socket yet is not missed: it is tried first.
            watched = net.watch(&mut tcp, token);
            let waker = |way| {
                let (socket, scheduled) = (socket.clone(), AtomicBool::new(false));
                Waker::from(Arc::new(Alarm { socket, way, scheduled }))
            };
            Self {
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
        watched.map(|()| socket)
    }

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

    fn read_step(&self, view: View<Read>, whole: bool, torn: &Torn) -> Step<Read> {
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
                    torn.set(Some(ABORTED));
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
                torn.set(None);
                view.filled();
                Step::Done
            }
            Answer::Moved(moved) => {
                torn.set(whole.then_some(ABORTED));
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
                torn.set(Some(error));
                view.fail(error);
                Step::Failed(error)
            }
        }
    }

    fn write_step(&self, view: View<Write>, torn: &Torn) -> Step<Write> {
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
                    torn.set(Some(ABORTED));
                    view.fail(ABORTED);
                    return Step::Failed(ABORTED);
                }
                (self.transmit(&piece), view)
            }
        };
        match answer {
            Answer::Moved(0) | Answer::Blocked => Step::Blocked(view),
            Answer::Moved(moved) if moved as u64 == view.len() => {
                torn.set(None);
                view.written();
                Step::Done
            }
            Answer::Moved(moved) => {
                torn.set(Some(ABORTED));
                let (written, rest) = view.split_at(moved as u64);
                written.written();
                Step::More(rest)
            }
            Answer::Failed(error) => {
                torn.set(Some(error));
                view.fail(error);
                Step::Failed(error)
            }
        }
    }

    pub(super) fn serve_reads(&self) {
        let ready = &self.ready[Way::Read as usize];
        serve(&self.reads, &self.readable, ready, |view, whole, torn| {
            self.read_step(view, whole, torn)
        });
    }

    pub(super) fn serve_writes(&self) {
        let ready = &self.ready[Way::Write as usize];
        serve(&self.writes, &self.writable, ready, |view, _whole, torn| {
            self.write_step(view, torn)
        });
    }
}

/// Serves a lane until it is empty or the socket blocks, unless somebody else does.
fn serve<P: mfio_core::Perms>(
    lane: &Lane<P>,
    waker: &Waker,
    ready: &AtomicBool,
    step: impl Fn(View<P>, bool, &Torn) -> Step<P>,
) {
    if !lane.begin() {
        return;
    }
    let mut right = Right { lane, waker, ready, held: true, torn: Cell::new(None) };
    for _ in 0..STEPS_MAX {
        let Some((Entry { view, whole, mut started }, failed)) = lane.next() else {
            right.held = false;
            return lane.finished();
        };
        if let Some(error) = failed {
            view.fail(error);
            lane.finished();
            continue;
        }
        let before = view.len();
        // Cleared before the call: an event during it counts.
        let may = before == 0 || ready.swap(false, Ordering::AcqRel);
        right.torn.set(started.then_some(ABORTED));
        let done = if may { step(view, whole, &right.torn) } else { Step::Blocked(view) };
        right.torn.set(None);
        let (view, blocked) = match done {
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
            right.held = false;
            return;
        }
    }
}

/// The right to serve a lane. Given back with more to do, or because code of somebody's has
/// panicked, it has the lane served again.
struct Right<'a, P: mfio_core::Perms> {
    lane: &'a Lane<P>,
    waker: &'a Waker,
    ready: &'a AtomicBool,
    held: bool,
    torn: Torn,
}

impl<P: mfio_core::Perms> Drop for Right<'_, P> {
    fn drop(&mut self) {
        if self.held {
            if let Some(error) = self.torn.get() {
                self.lane.fail(error);
            }
            // An event may have been taken and not been used up: a look in vain shows that.
            self.ready.store(true, Ordering::Release);
            self.lane.leave();
            tell_all([self.waker], Waker::wake_by_ref);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.net.forget(&mut self.tcp, self.token);
    }
}
