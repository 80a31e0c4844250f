//! One connection of a server, from its first byte to its last.
//!
//! Data flow: carrier → frame, whole → task → replies, as they are ready → carrier. Requests
//! and bytes are counted until their replies are out; who has too many of them is not listened
//! to until there are fewer.
//!
//! Not here: what is done for a request (`answer`).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use async_io::Timer;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use mfio_core::{Error as ByteError, ErrorKind as ByteKind, FailedRange};
use mfio_core::{Packet, PacketIoExt, Read, Write};
use mfio_rt::{DirHandle, Error, ErrorKind, Op};

use super::answer::told;
use super::handles::{Handles, Node};
use super::{ServerConfig, Task};
use crate::auth::{Side, nonce};
use crate::carrier::{Carrier, Cut, Egress, Head, receive, receive_bytes, receive_header};
use crate::carrier::{receive_hello, verify, within};
use crate::wire::{
    DATA_BYTES_MAX, Flags, Header, Hello, Limits, Reason, Reply, Request, WireError,
};

/// Bytes read and answered at a time.
const FRAGMENT_BYTES: u64 = 256 << 10;
/// The most bytes that one request may ask for.
const READ_BYTES_MAX: u64 = 4 << 20;
/// Up to this length data is copied into the batch of frames.
const COPY_BYTES: usize = 4096;
/// Buffers kept for the next fragments of the same connection.
const BUFFERS_KEPT: usize = 16;
const EBADF: i32 = 9;

/// Says hello, and lets in who knows the secret. Whether frames have checksums.
pub(super) async fn greet<C: Carrier>(
    carrier: &C,
    config: &ServerConfig,
    crowded: bool,
) -> Result<bool, Cut> {
    let theirs = receive_hello(carrier).await?;
    let flags = Flags { checksums: theirs.flags.checksums, secret: config.secret.is_some() };
    let idle_ms = u32::try_from(config.idle_max.as_millis()).unwrap_or(u32::MAX);
    let limits = Limits { requests: config.requests_max, bytes: config.bytes_max, idle_ms };
    let ours = Hello { flags, nonce: nonce().map_err(|_| Cut::Secret)?, limits };
    let mut egress = Egress::new(carrier, false);
    egress.raw(&ours.encode());
    egress.flush().await?;
    let checked = flags.checksums;
    let header = receive_header(carrier, checked).await?;
    if header.data_len != 0 {
        return Err(WireError::Unasked.into());
    }
    let body = receive_bytes(carrier, header.body_len).await?;
    verify(&header, &body, &[])?;
    let Request::Proof { code } = Request::decode(header.kind, &body)? else {
        return Err(WireError::Unasked.into());
    };
    let secret = config.secret.as_ref();
    let proven = secret.is_none_or(|s| s.proves(Side::Client, &theirs, &ours, &code));
    let refusal = match (proven, crowded) {
        (false, _) => Some(Reason::Secret),
        (true, true) => Some(Reason::Crowded),
        (true, false) => None,
    };
    let proof = secret.map(|secret| secret.proof(Side::Server, &theirs, &ours));
    let reply = match refusal {
        Some(reason) => Reply::Goodbye { reason },
        None => Reply::Proven { code: proof.unwrap_or_default() },
    };
    let mut egress = Egress::new(carrier, checked);
    egress.push(Head { kind: reply.kind(), id: 0, place: 0, body: &reply.body() }, &[])?;
    egress.flush().await?;
    refusal.map_or(Ok(checked), |reason| Err(Cut::Goodbye(reason)))
}

/// A reply on its way out.
struct Out {
    id: u64,
    place: u64,
    reply: Reply,
    data: Vec<u8>,
    /// What is not counted any more when it is out.
    requests: u32,
    bytes: u64,
}

/// What a connection has.
pub(super) struct Session<'s, D: DirHandle> {
    config: &'s ServerConfig,
    pub(super) handles: Handles<D>,
    out: RefCell<VecDeque<Out>>,
    out_waker: RefCell<Option<Waker>>,
    requests: Cell<u32>,
    bytes: Cell<u64>,
    room: RefCell<Vec<Waker>>,
    /// Waits for locks, and who is to be woken when they are given up.
    locks: RefCell<BTreeMap<u64, Option<Waker>>>,
    buffers: RefCell<Vec<Vec<u8>>>,
    progress: Cell<u64>,
    /// A frame is partly out: nothing else can be said.
    inside: Cell<bool>,
}

impl<'s, D: DirHandle> Session<'s, D> {
    pub(super) fn new(root: D, config: &'s ServerConfig) -> Self {
        let root = Node { dir: root, path: Some(Vec::new()) };
        Self {
            config,
            handles: Handles::new(root, config.handles_max),
            out: RefCell::default(),
            out_waker: RefCell::default(),
            requests: Cell::new(0),
            bytes: Cell::new(0),
            room: RefCell::default(),
            locks: RefCell::default(),
            buffers: RefCell::default(),
            progress: Cell::new(0),
            inside: Cell::new(false),
        }
    }

    pub(super) async fn run<C: Carrier>(&self, carrier: &C, checked: bool) -> Cut {
        let tasks: RefCell<FuturesUnordered<Task<'_>>> = RefCell::default();
        let cut = {
            let mut ingress = pin!(self.ingress(carrier, checked, &tasks));
            let mut egress = pin!(self.egress(carrier, checked));
            let mut watch = pin!(self.watch());
            poll_fn(|cx| {
                if let Poll::Ready(Err(cut)) = ingress.as_mut().poll(cx) {
                    return Poll::Ready(cut);
                }
                while tasks.borrow_mut().poll_next_unpin(cx) == Poll::Ready(Some(())) {}
                if let Poll::Ready(Err(cut)) = egress.as_mut().poll(cx) {
                    return Poll::Ready(cut);
                }
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

    fn step(&self) {
        self.progress.set(self.progress.get().wrapping_add(1));
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
            self.room.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until `len` bytes fit into the budget, and takes them.
    async fn take_bytes(&self, len: u64) {
        let fits = || self.bytes.get() == 0 || self.bytes.get() + len <= self.config.bytes_max;
        self.wait_for(fits).await;
        self.bytes.set(self.bytes.get() + len);
    }

    fn release(&self, requests: u32, bytes: u64) {
        self.requests.set(self.requests.get().saturating_sub(requests));
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        if requests > 0 || bytes > 0 {
            self.room.take().into_iter().for_each(Waker::wake);
        }
    }

    fn push(&self, out: Out) {
        self.out.borrow_mut().push_back(out);
        if let Some(waker) = self.out_waker.take() {
            waker.wake();
        }
    }

    /// The one reply to a request.
    fn reply(&self, id: u64, reply: Reply, bytes: u64) {
        self.push(Out { id, place: 0, reply, data: Vec::new(), requests: 1, bytes });
    }

    fn buffer(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.buffers.borrow_mut().pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    fn keep(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < BUFFERS_KEPT && buffer.capacity() > COPY_BYTES {
            buffers.push(buffer);
        }
    }

    async fn ingress<'t, C: Carrier>(
        &'t self,
        carrier: &C,
        checked: bool,
        tasks: &RefCell<FuturesUnordered<Task<'t>>>,
    ) -> Result<(), Cut> {
        loop {
            // Those that keep to the window never wait here.
            self.wait_for(|| self.requests.get() <= self.config.requests_max).await;
            let header = receive_header(carrier, checked).await?;
            let body = receive_bytes(carrier, header.body_len).await?;
            self.step();
            let request = Request::decode(header.kind, &body)?;
            let id = header.id;
            if let Request::Write { file, at } = request {
                let task = self.receive_write(carrier, &header, &body, (file, at)).await?;
                tasks.borrow().push(task);
                continue;
            }
            if header.data_len != 0 {
                return Err(WireError::Unasked.into());
            }
            verify(&header, &body, &[])?;
            match request {
                Request::Close { handle } => self.handles.close(handle),
                Request::Cancel { request } => self.give_up(request),
                Request::Proof { .. } => return Err(WireError::Unasked.into()),
                Request::Read { file, at, len } => self.start_read((id, file), at, len, tasks),
                Request::Lock { wait: true, .. } => {
                    self.count();
                    tasks.borrow().push(Box::pin(self.wait_for_lock(id, request)));
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

    fn count(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// A wait for a lock can be given up, and must not fill the whole window.
    async fn wait_for_lock(&self, id: u64, request: Request) {
        let failed = |kind| Reply::Failed { error: Error::new(Op::Lock, kind) };
        let waits_max = (self.config.requests_max / 2).max(1) as usize;
        if self.locks.borrow().len() >= waits_max || self.locks.borrow().contains_key(&id) {
            return self.reply(id, failed(ErrorKind::TooManyOpen), 0);
        }
        self.locks.borrow_mut().insert(id, None);
        let mut answer = Box::pin(self.answer(request));
        let reply = poll_fn(|cx| {
            match self.locks.borrow_mut().get_mut(&id) {
                Some(waker) => *waker = Some(cx.waker().clone()),
                None => return Poll::Ready(None),
            }
            answer.as_mut().poll(cx).map(Some)
        })
        .await;
        drop(answer);
        self.locks.borrow_mut().remove(&id);
        let reply = match reply {
            None => failed(ErrorKind::Cancelled),
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
        carrier: &C,
        header: &Header,
        body: &[u8],
        (file, at): (u64, u64),
    ) -> Result<Task<'t>, Cut> {
        let len = u64::from(header.data_len);
        self.take_bytes(len).await;
        let wanted = usize::try_from(len).unwrap_or(DATA_BYTES_MAX);
        let (result, data) = receive(carrier, self.buffer(wanted)).await;
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

    /// Starts all fragments of a read; each is answered when it is ready.
    fn start_read<'t>(
        &'t self,
        (id, file): (u64, u64),
        at: u64,
        len: u64,
        tasks: &RefCell<FuturesUnordered<Task<'t>>>,
    ) {
        self.count();
        let refused = |error| self.reply(id, Reply::Missing { at: 0, len, error }, 0);
        let Ok(file) = self.handles.file(file, Op::Read) else {
            return refused(ByteError::os(EBADF));
        };
        if len > READ_BYTES_MAX {
            return refused(ByteKind::OutOfRange.into());
        }
        let fragments = len.div_ceil(FRAGMENT_BYTES).max(1);
        let left = Rc::new(Cell::new(fragments));
        for number in 0..fragments {
            let place = number * FRAGMENT_BYTES;
            let len = (len - place).min(FRAGMENT_BYTES);
            let (file, left) = (Rc::clone(&file), Rc::clone(&left));
            tasks.borrow().push(Box::pin(async move {
                self.take_bytes(len).await;
                let buffer = self.buffer(usize::try_from(len).unwrap_or(0));
                let packet = Packet::<Read, _>::new(buffer);
                let done = file.io(at.saturating_add(place), packet).await;
                let failed = done.failed_ranges();
                left.set(left.get() - 1);
                let last = u32::from(left.get() == 0);
                self.answer_fragment((id, place), done.into_buffer(), &failed, last);
            }));
        }
    }

    /// Sends what was read of a fragment, and what was not.
    fn answer_fragment(
        &self,
        (id, base): (u64, u64),
        mut buffer: Vec<u8>,
        failed: &[FailedRange],
        requests: u32,
    ) {
        let len = buffer.len() as u64;
        let first = failed.first().map_or(len, |range| range.start.min(len));
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(buffer.len());
        let mut outs = Vec::new();
        let out = |place, reply, data| Out { id, place, reply, data, requests: 0, bytes: 0 };
        for (at, range) in failed.iter().enumerate() {
            let (start, end) = (range.start.min(len), range.end.min(len));
            let missing = end - start;
            let reply = Reply::Missing { at: base + start, len: missing, error: range.error };
            outs.push(out(0, reply, Vec::new()));
            let next = failed.get(at + 1).map_or(len, |next| next.start.min(len));
            if next > end {
                let between = buffer[index(end)..index(next)].to_vec();
                outs.push(out(base + end, Reply::Data {}, between));
            }
        }
        buffer.truncate(index(first));
        if first > 0 || failed.is_empty() {
            outs.insert(0, out(base, Reply::Data {}, buffer));
        } else {
            self.keep(buffer);
        }
        if let Some(last) = outs.last_mut() {
            (last.requests, last.bytes) = (requests, len);
        }
        outs.into_iter().for_each(|out| self.push(out));
    }

    async fn egress<C: Carrier>(&self, carrier: &C, checked: bool) -> Result<(), Cut> {
        let mut egress = Egress::new(carrier, checked);
        let (mut requests, mut bytes) = (0, 0);
        loop {
            let next = self.out.borrow_mut().pop_front();
            let Some(out) = next else {
                self.inside.set(!egress.is_empty());
                egress.flush().await?;
                self.inside.set(false);
                self.step_if(requests > 0);
                self.release(core::mem::take(&mut requests), core::mem::take(&mut bytes));
                poll_fn(|cx| {
                    if !self.out.borrow().is_empty() {
                        return Poll::Ready(());
                    }
                    *self.out_waker.borrow_mut() = Some(cx.waker().clone());
                    Poll::Pending
                })
                .await;
                continue;
            };
            let body = out.reply.body();
            let (kind, id, place) = (out.reply.kind(), out.id, out.place);
            egress.push(Head { kind, id, place, body: &body }, &out.data)?;
            requests += out.requests;
            bytes += out.bytes;
            self.inside.set(true);
            if out.data.len() > COPY_BYTES {
                egress.flush().await?;
                let (result, data) = egress.send(out.data).await;
                result?;
                self.keep(data);
            } else {
                egress.push_copy(&out.data);
            }
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
