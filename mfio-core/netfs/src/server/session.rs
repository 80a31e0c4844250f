//! One connection of a server, once it is let in.
//!
//! Data flow: carrier → frame, whole → task → replies, as they are ready → carrier. Requests
//! and bytes are counted until their replies are out; who has too many of them is not listened
//! to until there are fewer.
//!
//! Not here: who is let in (`door`), what is done for a request (`answer`).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use async_io::Timer;
use futures_util::stream::FuturesUnordered;
use mfio_core::wakers::wake_all;
use mfio_core::{Error as ByteError, FailedRange, Packet, PacketIoExt, Write};
use mfio_rt::{DirHandle, Error, ErrorKind, Op};

use super::answer::told;
use super::gate::Attendance;
use super::handles::{Handles, Node, Places};
use super::reads::Fragment;
use super::{ServerConfig, Task};
use crate::carrier::{BATCH_BYTES, Carrier, Cut, Egress, Head, Ingress, Progress, verify, within};
use crate::wire::{DATA_BYTES_MAX, HEADER_BYTES, Header, Reason, Reply, Request, WireError};

/// Bytes answered at a time.
pub(super) const FRAGMENT_BYTES: u64 = 1 << 20;
/// Bytes that were read and are not out, from which on no more are read: they go out first, so
/// that their reader works beside this; a few buffers then go round in the processor's cache, and
/// a peer that takes nothing costs no more. What waits for a disk is not counted.
const UNSENT_BYTES: u64 = 128 << 10;
/// Rounds of reading and sending after which other connections have a turn.
const ROUNDS_MAX: usize = 16;
/// Up to this length data is copied into the batch of frames: that is cheaper than a call.
const COPY_BYTES: usize = 16 << 10;
/// Buffers kept for the next fragments of the same connection, and how long they are at least.
const BUFFERS_KEPT: usize = 16;
const KEPT_BYTES: usize = 1 << 10;
/// Locks that one connection waits for at most: as many connections as there are by default may
/// have so many each with a portable runtime.
const LOCK_WAITS_MAX: u32 = 64;
pub(super) const EBADF: i32 = 9;
/// Bytes of requests in a turn, and what a request counts at least: one that asks for nothing is
/// work as well. What is done for them in the turn is bounded by that, too.
const TURN_BYTES: u64 = 256 << 10;
const FRAME_COST: u64 = 4 << 10;

/// A reply on its way out.
pub(super) struct Out {
    pub(super) id: u64,
    pub(super) place: u64,
    pub(super) reply: Reply,
    /// With room for the header in front; or nothing at all.
    pub(super) data: Vec<u8>,
    /// What is not counted any more when it is out.
    pub(super) requests: u32,
    pub(super) bytes: u64,
    pub(super) unsent: u64,
}

/// What a connection has.
pub(super) struct Session<'s, D: DirHandle> {
    config: &'s ServerConfig,
    pub(super) handles: Handles<'s, D>,
    out: RefCell<VecDeque<Out>>,
    requests: Cell<u32>,
    bytes: Cell<u64>,
    /// Bytes that were read and are not out.
    pub(super) unsent: Cell<u64>,
    /// Fragments that are to be read.
    pub(super) reads: RefCell<VecDeque<Fragment<D>>>,
    /// A write waits for room: nothing more is read until it has it.
    write_waits: Cell<bool>,
    /// What was received in this turn.
    turn: Cell<u64>,
    room: RefCell<Vec<Waker>>,
    /// Waits for locks, and who is to be woken when they are given up.
    locks: RefCell<BTreeMap<u64, Option<Waker>>>,
    buffers: RefCell<Vec<Vec<u8>>>,
    progress: Arc<Progress>,
    /// A frame is partly out: nothing else can be said.
    inside: Cell<bool>,
}

impl<'s, D: DirHandle> Session<'s, D> {
    pub(super) fn new(root: D, config: &'s ServerConfig, places: &'s Places) -> Self {
        let root = Node { dir: root, path: Some(Vec::new()) };
        Self {
            config,
            handles: Handles::new(root, config.handles_max, places),
            out: RefCell::default(),
            requests: Cell::new(0),
            bytes: Cell::new(0),
            unsent: Cell::new(0),
            reads: RefCell::default(),
            write_waits: Cell::new(false),
            turn: Cell::new(0),
            room: RefCell::default(),
            locks: RefCell::default(),
            buffers: RefCell::default(),
            progress: Arc::default(),
            inside: Cell::new(false),
        }
    }

    pub(super) async fn run<C: Carrier>(&self, carrier: &C, checked: bool) -> Cut {
        let tasks: RefCell<FuturesUnordered<Task<'_>>> = RefCell::default();
        let cut = {
            let mut ingress = pin!(self.ingress(carrier, checked, &tasks));
            let mut egress = pin!(self.egress(carrier, checked));
            let mut watch = pin!(self.watch());
            let attendance = Attendance::new();
            poll_fn(|cx| {
                self.turn.set(0);
                for _ in 0..ROUNDS_MAX {
                    if let Poll::Ready(Err(cut)) = ingress.as_mut().poll(cx) {
                        return Poll::Ready(cut);
                    }
                    // One after another: what is read at once tells whether there is room for more.
                    loop {
                        attendance.poll(cx, &mut tasks.borrow_mut(), |()| {});
                        // A batch is full: the peer works on it while more is read.
                        if self.unsent.get() >= BATCH_BYTES as u64
                            && let Poll::Ready(Err(cut)) = egress.as_mut().poll(cx)
                        {
                            return Poll::Ready(cut);
                        }
                        if !self.begin_read(&tasks) {
                            break;
                        }
                    }
                    if let Poll::Ready(Err(cut)) = egress.as_mut().poll(cx) {
                        return Poll::Ready(cut);
                    }
                    // What went out has made room to read. What the carrier does not take now, it
                    // wakes for.
                    if !self.may_read() {
                        return watch.as_mut().poll(cx);
                    }
                }
                // Others have a turn now.
                cx.waker().wake_by_ref();
                watch.as_mut().poll(cx)
            })
            .await
        };
        let reason = match cut {
            Cut::Wire(_) => Some(Reason::Protocol),
            Cut::Silent => Some(Reason::Idle),
            _ => None,
        };
        if let Some(reason) = reason.filter(|_| !self.inside.get()) {
            let reply = Reply::Goodbye { reason };
            let mut egress = Egress::new(carrier, checked);
            let head = Head { kind: reply.kind(), id: 0, place: 0, body: &reply.body() };
            if egress.push(head, &[]).is_ok() {
                // Whether it arrives or not, this was the last.
                let _told = within(Duration::from_millis(200), egress.flush()).await;
            }
        }
        cut
    }

    /// Waits for the next turn, where this one's bytes have been received.
    async fn wait_for_turn(&self) {
        poll_fn(|cx: &mut Context<'_>| {
            if self.turn.get() < TURN_BYTES {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    fn step(&self) {
        self.progress.step();
    }

    /// Returns when nothing has come or gone for too long.
    async fn watch(&self) -> Cut {
        let (mut last, mut silent) = (0, 0);
        let never = self.config.idle_max.is_zero();
        let round = if never { Duration::from_secs(60) } else { self.config.idle_max / 4 };
        let interval = round.max(Duration::from_millis(5));
        loop {
            Timer::after(interval).await;
            silent = if self.progress.get() == last { silent + 1 } else { 0 };
            last = self.progress.get();
            if silent >= 4 && !never {
                return Cut::Silent;
            }
        }
    }

    async fn wait_for(&self, there_is_room: impl Fn() -> bool) {
        poll_fn(|cx: &mut Context<'_>| {
            if there_is_room() {
                return Poll::Ready(());
            }
            // Cloned and dropped with nothing borrowed: both may run anything.
            let waker = cx.waker().clone();
            let mut room = self.room.borrow_mut();
            if !room.iter().any(|waiting| waiting.will_wake(&waker)) {
                room.push(waker);
            }
            Poll::Pending
        })
        .await;
    }

    /// Whether `len` more bytes fit into the budget.
    pub(super) fn fits(&self, len: u64) -> bool {
        self.bytes.get() == 0 || self.bytes.get() + len <= self.config.bytes_max
    }

    /// Takes them.
    pub(super) fn take_bytes(&self, len: u64) {
        self.bytes.set(self.bytes.get() + len);
    }

    /// Whether a fragment that waits may be read now.
    pub(super) fn may_read(&self) -> bool {
        let next = self.reads.borrow().front().map(|fragment| fragment.len);
        let little = self.unsent.get() < UNSENT_BYTES && !self.write_waits.get();
        next.is_some_and(|len| little && self.fits(len))
    }

    fn release(&self, requests: u32, bytes: u64) {
        self.requests.set(self.requests.get().saturating_sub(requests));
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        if requests > 0 || bytes > 0 {
            wake_all(self.room.take());
        }
    }

    pub(super) fn push(&self, out: Out) {
        // Whoever sends is polled after whoever pushes, in the same turn of `run`.
        self.out.borrow_mut().push_back(out);
    }

    /// The one reply to a request.
    pub(super) fn reply(&self, id: u64, reply: Reply, bytes: u64) {
        let data = Vec::new();
        self.push(Out { id, place: 0, reply, data, requests: 1, bytes, unsent: 0 });
    }

    pub(super) fn buffer(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.buffers.borrow_mut().pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    pub(super) fn keep(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < BUFFERS_KEPT && buffer.capacity() >= KEPT_BYTES {
            buffers.push(buffer);
        }
    }

    async fn ingress<'t, C: Carrier>(
        &'t self,
        carrier: &C,
        checked: bool,
        tasks: &RefCell<FuturesUnordered<Task<'t>>>,
    ) -> Result<(), Cut> {
        let mut ingress = Ingress::new(carrier, checked, Arc::clone(&self.progress));
        loop {
            // Those that keep to the window never wait here.
            self.wait_for(|| self.requests.get() <= self.config.requests_max).await;
            self.wait_for_turn().await;
            let header = ingress.header().await?;
            let long = u64::from(header.body_len) + u64::from(header.data_len);
            self.turn.set(self.turn.get() + FRAME_COST.max(long));
            let body = ingress.body(&header).await?;
            self.step();
            let request = Request::decode(header.kind, body)?;
            let id = header.id;
            if let Request::Write { file, at } = request {
                let body = body.to_vec();
                let task = self.receive_write(&mut ingress, &header, &body, (file, at)).await?;
                tasks.borrow().push(task);
                continue;
            }
            if header.data_len != 0 {
                return Err(WireError::Unasked.into());
            }
            verify(&header, body, &[])?;
            match request {
                Request::Close { handle } => self.handles.close(handle),
                Request::Cancel { request } => self.give_up(request),
                Request::Proof { .. } => return Err(WireError::Unasked.into()),
                Request::Read { file, at, len } => self.start_read((id, file), at, len),
                Request::Lock { wait: true, .. } => {
                    self.count();
                    if self.begin_wait(id) {
                        tasks.borrow().push(Box::pin(self.wait_for_lock(id, request)));
                    }
                }
                request => {
                    self.count();
                    tasks.borrow().push(Box::pin(async move {
                        let reply = self.answer(request).await;
                        self.reply(id, reply.unwrap_or_else(|error| Reply::Failed { error }), 0);
                    }));
                }
            }
        }
    }

    pub(super) fn count(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// A wait for a lock must not fill the whole window, nor many of them take all that the file
    /// system can have. It can be given up from now on. Whether there is room for it.
    fn begin_wait(&self, id: u64) -> bool {
        let waits_max = (self.config.requests_max / 2).clamp(1, LOCK_WAITS_MAX) as usize;
        let mut locks = self.locks.borrow_mut();
        if locks.len() < waits_max && !locks.contains_key(&id) {
            locks.insert(id, None);
            return true;
        }
        drop(locks);
        let error = Error::new(Op::Lock, ErrorKind::TooManyOpen);
        self.reply(id, Reply::Failed { error }, 0);
        false
    }

    async fn wait_for_lock(&self, id: u64, request: Request) {
        let mut answer = Box::pin(self.answer(request));
        let reply = poll_fn(|cx| {
            let mut waker = Some(cx.waker().clone());
            match self.locks.borrow_mut().get_mut(&id) {
                Some(known) => core::mem::swap(known, &mut waker),
                None => return Poll::Ready(None),
            }
            drop(waker);
            answer.as_mut().poll(cx).map(Some)
        })
        .await;
        drop(answer);
        self.locks.borrow_mut().remove(&id);
        let reply = match reply {
            None => Reply::Failed { error: Error::new(Op::Lock, ErrorKind::Cancelled) },
            Some(reply) => reply.unwrap_or_else(|error| Reply::Failed { error }),
        };
        self.reply(id, reply, 0);
    }

    fn give_up(&self, request: u64) {
        let waker = self.locks.borrow_mut().remove(&request);
        if let Some(waker) = waker.flatten() {
            waker.wake();
        }
    }

    /// Receives all of a write before anything of it is done.
    async fn receive_write<'t, C: Carrier>(
        &'t self,
        ingress: &mut Ingress<'_, C>,
        header: &Header,
        body: &[u8],
        (file, at): (u64, u64),
    ) -> Result<Task<'t>, Cut> {
        let len = u64::from(header.data_len);
        self.write_waits.set(true);
        self.wait_for(|| self.fits(len)).await;
        self.write_waits.set(false);
        self.take_bytes(len);
        let wanted = usize::try_from(len).unwrap_or(DATA_BYTES_MAX);
        let mut data = self.buffer(wanted);
        let ahead = ingress.ahead(&mut data);
        let (result, data) = ingress.data(data, ahead).await;
        result?;
        self.step();
        verify(header, body, &data)?;
        self.count();
        let id = header.id;
        Ok(Box::pin(async move {
            let failed = match self.handles.file(file, Op::Write) {
                Err(_) => {
                    let error = ByteError::os(EBADF);
                    Vec::from([FailedRange { start: 0, end: len, error }])
                }
                Ok(file) => {
                    let done = file.io(at, Packet::<Write, _>::new(data)).await;
                    let failed = done.failed_ranges();
                    self.keep(done.into_buffer());
                    told(failed, len)
                }
            };
            self.reply(id, Reply::Written { failed }, len);
        }))
    }

    async fn egress<C: Carrier>(&self, carrier: &C, checked: bool) -> Result<(), Cut> {
        let mut egress = Egress::new(carrier, checked).counted(Arc::clone(&self.progress));
        let (mut requests, mut bytes) = (0, 0);
        loop {
            let next = self.out.borrow_mut().pop_front();
            let Some(mut out) = next else {
                self.inside.set(!egress.is_empty());
                egress.flush().await?;
                self.inside.set(false);
                self.step_if(requests > 0);
                self.release(core::mem::take(&mut requests), core::mem::take(&mut bytes));
                let is_empty = || self.out.borrow().is_empty();
                poll_fn(|_| if is_empty() { Poll::Pending } else { Poll::Ready(()) }).await;
                continue;
            };
            let body = out.reply.body();
            let head = Head { kind: out.reply.kind(), id: out.id, place: out.place, body: &body };
            requests += out.requests;
            bytes += out.bytes;
            self.inside.set(true);
            if out.data.len() > COPY_BYTES + HEADER_BYTES {
                egress.flush().await?;
                // In front of the data, so that both go out by one call.
                egress.head_into(head, &mut out.data)?;
                let (result, data) = egress.send(out.data).await;
                result?;
                self.keep(data);
            } else {
                let data = out.data.get(HEADER_BYTES..).unwrap_or_default();
                egress.push(head, data)?;
                egress.push_copy(data);
                self.keep(out.data);
            }
            self.unsent.set(self.unsent.get().saturating_sub(out.unsent));
            if egress.is_full() || out_is_long(bytes) {
                egress.flush().await?;
                self.step();
                self.release(core::mem::take(&mut requests), core::mem::take(&mut bytes));
            }
        }
    }

    fn step_if(&self, progress: bool) {
        if progress {
            self.step();
        }
    }
}

/// Whether so much is out that others should know.
const fn out_is_long(bytes: u64) -> bool {
    bytes >= FRAGMENT_BYTES
}
