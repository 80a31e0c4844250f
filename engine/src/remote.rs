//! Handles of shards for any thread, any runtime, and code that blocks.
//!
//! Data flow: [`Remote::open`] → a thread of its own opens → the shard adopts → [`RemoteFile`] →
//! packets through the mailbox → the shard → completed there, which wakes whoever waits.
//!
//! Not here: the mailbox (`route`), what the shard does (`shard::intake`).

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use mfio_core::{
    BackendBusy, BackendHandle, Buffer, Completed, Error, ErrorKind, IoBackend, Packet, PacketIo,
    PacketIoExt, Perms, Read, Refused, View, Write,
};
use nix::errno::Errno;

use crate::answer::{Asked, Teller, ask};
use crate::error::{EngineError, IoError};
use crate::route::{Errand, Mailbox, Message};
use crate::shard::{Class, Durability, Durable, WriteAt};
use crate::target::{Geometry, OpenError, OpenOptions, SyncMethod, open};

/// The most threads that open targets at the same time, for one [`Remote`] and its clones.
const OPENERS_MAX: usize = 4;

/// The most opens that wait for one of them.
const OPENS_WAITING_MAX: usize = 1024;

/// A way to one shard or to all shards of an engine, from anywhere. A cheap handle.
///
/// Await what it gives in any runtime, or block on it by [`block_on`](mfio_core::block_on) with
/// the handle itself as the backend: there is one API for both. On the thread of a shard only
/// awaiting is possible; blocking there is [`BackendBusy`], because it would wait for itself.
#[derive(Clone)]
pub struct Remote {
    inner: Arc<Shared>,
}

struct Shared {
    mailboxes: Vec<Arc<Mailbox>>,
    /// Which shard gets the next target.
    next: AtomicUsize,
    opens: Mutex<Opens>,
}

#[derive(Default)]
struct Opens {
    openers: usize,
    waiting: VecDeque<OpenJob>,
}

struct OpenJob {
    path: PathBuf,
    options: OpenOptions,
    mailbox: Arc<Mailbox>,
    teller: Teller<Result<RemoteFile, EngineError>>,
}

impl OpenJob {
    /// Blocks as long as opening does.
    fn run(self) {
        match open(&self.path, &self.options) {
            Err(error) => self.teller.tell(Err(error.into())),
            Ok(opened) => {
                let sync_method = self.options.sync_method;
                if sync_method == Some(SyncMethod::Dsync) && !opened.geometry.direct {
                    return self.teller.tell(Err(OpenError::needs_direct(&self.path).into()));
                }
                let (name, teller) = (self.path.display().to_string(), self.teller);
                let opened = Box::new(opened);
                self.mailbox.send_errand(Errand::Adopt { opened, name, teller, sync_method });
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Opens> {
        // Nothing that could panic runs under the lock.
        self.opens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an opener does: whatever waits, until nothing does.
    fn run_opens(&self) {
        loop {
            let job = {
                let mut opens = self.lock();
                let job = opens.waiting.pop_front();
                if job.is_none() {
                    opens.openers -= 1;
                }
                job
            };
            let Some(job) = job else { return };
            // It tells somebody, whose waker may panic: the others are opened all the same.
            let _contained = catch_unwind(AssertUnwindSafe(|| job.run()));
        }
    }

    /// An opener that was counted could not be started. Others do what waits; without any,
    /// nobody would.
    #[cold]
    fn not_started(&self, errno: Errno) {
        let unopened = {
            let mut opens = self.lock();
            opens.openers -= 1;
            if opens.openers == 0 { std::mem::take(&mut opens.waiting) } else { VecDeque::new() }
        };
        for job in unopened {
            job.teller.tell(Err(EngineError::Thread { errno }));
        }
    }
}

impl Remote {
    pub(crate) fn of(mailboxes: Vec<Arc<Mailbox>>) -> Self {
        let (next, opens) = (AtomicUsize::new(0), Mutex::default());
        Self { inner: Arc::new(Shared { mailboxes, next, opens }) }
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.inner.mailboxes.len()
    }

    /// Opens the file or block device at `path` on one of the shards, each in turn.
    ///
    /// A blocking `open(2)` waits on a thread of its own, not on a shard's and not on the
    /// caller's. It is under way whether or not this is polled.
    ///
    /// # Errors
    /// Resolves to [`EngineError::Open`], [`EngineError::Closed`], [`EngineError::QueueFull`]
    /// when very many are under way, or [`EngineError::Thread`].
    ///
    /// # Cancel safety
    /// Dropping the future closes what has been opened.
    pub fn open(&self, path: impl Into<PathBuf>, options: &OpenOptions) -> RemoteOpen {
        let at = self.inner.next.fetch_add(1, Ordering::Relaxed) % self.shards();
        self.open_on(at, path, options)
    }

    /// As [`Remote::open`], on the shard of that number, from 0.
    pub fn open_on(
        &self,
        shard: usize,
        path: impl Into<PathBuf>,
        options: &OpenOptions,
    ) -> RemoteOpen {
        let (teller, asked) = ask(|| Err(EngineError::Closed));
        let shards = self.shards();
        let Some(mailbox) = self.inner.mailboxes.get(shard) else {
            teller.tell(Err(EngineError::NoShard { shard, shards }));
            return RemoteOpen(asked);
        };
        let (path, mailbox) = (path.into(), Arc::clone(mailbox));
        self.start(OpenJob { path, options: *options, mailbox, teller });
        RemoteOpen(asked)
    }

    fn start(&self, job: OpenJob) {
        if job.mailbox.is_closed() {
            return drop(job);
        }
        {
            let mut opens = self.inner.lock();
            if opens.waiting.len() >= OPENS_WAITING_MAX {
                drop(opens);
                return job.teller.tell(Err(EngineError::QueueFull { queue: "opens" }));
            }
            opens.waiting.push_back(job);
            if opens.openers >= OPENERS_MAX {
                return;
            }
            opens.openers += 1;
        }
        let inner = Arc::clone(&self.inner);
        let thread = std::thread::Builder::new().name("mfio-open".to_owned());
        if let Err(error) = thread.spawn(move || inner.run_opens()) {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN));
            self.inner.not_started(errno);
        }
    }
}

impl IoBackend for Remote {
    /// Nothing to drive: the shards complete by themselves.
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        let busy = self.inner.mailboxes.iter().any(|mailbox| mailbox.would_deadlock());
        if busy { Err(BackendBusy) } else { Ok(None) }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("shards", &self.shards()).finish_non_exhaustive()
    }
}

/// The future of [`Remote::open`].
#[must_use = "an open that is not awaited closes again"]
#[derive(Debug)]
pub struct RemoteOpen(Asked<Result<RemoteFile, EngineError>>);

impl Future for RemoteOpen {
    type Output = Result<RemoteFile, EngineError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// A target of a shard, as other threads see it. The shard closes it when the last handle has
/// gone and the last message that names it has been dealt with.
#[derive(Debug)]
pub(crate) struct RemoteTarget {
    mailbox: Arc<Mailbox>,
    index: u32,
    name: String,
    geometry: Geometry,
}

impl RemoteTarget {
    /// Which target of its shard.
    pub(crate) const fn index(&self) -> u32 {
        self.index
    }
}

impl Drop for RemoteTarget {
    fn drop(&mut self) {
        self.mailbox.send_errand(Errand::Close { target: self.index });
    }
}

/// A target of a shard, for any thread. Cloning copies a pointer.
///
/// Packets wait in the shard's mailbox until the shard takes them in; a full mailbox refuses
/// them, as back-pressure. A packet whose future is dropped is not cancelled but completed, and
/// its buffer freed then: [`PacketIo::abandon`] has no effect here, because by the time the
/// shard learned of it the name of the packet could be that of another one. After the shard was
/// shut down every packet fails as [`ErrorKind::Closed`]. Where the ring of the shard broke,
/// packets that were in flight never complete: their memory is the kernel's.
#[derive(Clone)]
pub struct RemoteFile {
    target: Arc<RemoteTarget>,
    class: Class,
}

impl RemoteFile {
    pub(crate) fn of(mailbox: Arc<Mailbox>, index: u32, name: String, geometry: Geometry) -> Self {
        let target = Arc::new(RemoteTarget { mailbox, index, name, geometry });
        Self { target, class: Class::Foreground }
    }

    /// The same target, for traffic of `class`: the packets of this handle, and of its clones,
    /// wait in the queue of that class, and background ones leave a quarter of the mailbox to
    /// the others. Flushes have no class, and cover the packets of all.
    #[must_use]
    pub fn with_class(&self, class: Class) -> Self {
        Self { target: Arc::clone(&self.target), class }
    }

    /// What the packets of this handle are for.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Alignments and limits of the target, as they were when it was opened.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.target.geometry
    }

    /// The name under which the target was opened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.target.name
    }

    /// Makes every write that this thread has sent, and every write that others had sent before
    /// this is accepted, durable. As [`File::sync`](crate::File::sync).
    ///
    /// # Errors
    /// Of kind `Poisoned` when this or an earlier flush of the target failed, of kind `Closed`
    /// after the shard was shut down.
    ///
    /// # Cancel safety
    /// Once it was polled, dropping the future does not stop the flush.
    pub async fn sync(&self, durability: Durability) -> Result<(), IoError> {
        let (teller, asked) = ask(|| Err(Error::new(ErrorKind::Closed)));
        let target = Arc::clone(&self.target);
        let mut message = Some(Message::Sync { target, durability, teller });
        std::future::poll_fn(|cx| {
            while let Some(unsent) = message.take() {
                match self.mailbox().post(unsent) {
                    Ok(()) => break,
                    Err(refused) => message = Some(refused),
                }
                if self.mailbox().poll_room(cx, Class::Log).is_pending() {
                    return Poll::Pending;
                }
            }
            Poll::Ready(())
        })
        .await;
        let op = if durability == Durability::Full { "fsync" } else { "fdatasync" };
        asked.await.map_err(|error| self.io_error(op, 0, 0, 0, error))
    }

    /// Fills all of `buffer` from byte `offset` on. The buffer comes back in either case.
    ///
    /// # Errors
    /// Resolves to `(Err, buffer)` with what failed, where, and how much was read before it;
    /// a target that ends inside the range is `UnexpectedEof`.
    ///
    /// # Cancel safety
    /// Dropping the future frees the buffer when the shard is through with it.
    pub async fn read_exact_at<B: Buffer<Read>>(
        &self,
        offset: u64,
        buffer: B,
    ) -> (Result<(), IoError>, B) {
        let len = buffer.byte_len();
        self.explain("read", offset, len, self.io(offset, Packet::<Read, _>::new(buffer)).await)
    }

    /// Writes all of `buffer` from byte `offset` on. Not durable before a [`RemoteFile::sync`].
    ///
    /// # Errors
    /// Resolves to `(Err, buffer)` with what failed, where, and how much was written before.
    ///
    /// # Cancel safety
    /// Dropping the future does not undo what was written; any part of it may have been.
    pub async fn write_all_at<B: Buffer<Write>>(
        &self,
        offset: u64,
        buffer: B,
    ) -> (Result<(), IoError>, B) {
        let len = buffer.byte_len();
        let packet = Packet::<Write, _>::new(buffer);
        self.explain("write", offset, len, self.io(offset, packet).await)
    }

    /// Writes all of `buffer` from byte `offset` on and resolves when it survives power loss.
    ///
    /// # Errors
    /// As [`RemoteFile::write_all_at`] and [`RemoteFile::sync`]. After an error nothing is
    /// promised of any part of the range.
    ///
    /// # Cancel safety
    /// As [`RemoteFile::write_all_at`].
    pub async fn write_durable_at<B: Buffer<Write>>(
        &self,
        offset: u64,
        buffer: B,
    ) -> (Result<(), IoError>, B) {
        let len = buffer.byte_len();
        let packet = Packet::<Write, _>::new(buffer);
        let done = self.io(Durable(offset), packet).await;
        self.explain("durable write", offset, len, done)
    }

    fn mailbox(&self) -> &Mailbox {
        &self.target.mailbox
    }

    fn explain<P: Perms, B: Buffer<P>>(
        &self,
        op: &'static str,
        offset_bytes: u64,
        len_bytes: u64,
        done: Completed<P, B>,
    ) -> (Result<(), IoError>, B) {
        let result = done.result().map_err(|error| {
            let done_bytes = done.contiguous_bytes();
            self.io_error(op, offset_bytes, len_bytes, done_bytes, error)
        });
        (result, done.into_buffer())
    }

    fn io_error(
        &self,
        op: &'static str,
        offset_bytes: u64,
        len_bytes: u64,
        done_bytes: u64,
        error: Error,
    ) -> IoError {
        let target = self.target.name.clone();
        IoError { op, target, offset_bytes, len_bytes, done_bytes, error }
    }

    fn send_write(&self, at: WriteAt, view: View<Write>) -> Option<View<Write>> {
        let target = Arc::clone(&self.target);
        match self.mailbox().post(Message::Write { target, at, view, class: self.class }) {
            Err(Message::Write { view, .. }) => Some(view),
            _ => None,
        }
    }
}

/// Room is the mailbox's, whichever way the bytes go.
macro_rules! admission {
    () => {
        fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
            self.mailbox().poll_room(cx, self.class)
        }

        fn reserve(&self, views: usize) -> bool {
            self.mailbox().reserve(views, self.class)
        }

        fn release(&self, views: usize) {
            self.mailbox().release(views);
        }
    };
}

impl PacketIo<Read, u64> for RemoteFile {
    fn send_io(&self, param: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        let target = Arc::clone(&self.target);
        match self.mailbox().post(Message::Read {
            target,
            offset_bytes: param,
            view,
            class: self.class,
        }) {
            Err(Message::Read { view, .. }) => Err(Refused { param, view }),
            _ => Ok(()),
        }
    }

    admission!();
}

impl PacketIo<Write, u64> for RemoteFile {
    fn send_io(&self, param: u64, view: View<Write>) -> Result<(), Refused<Write>> {
        self.send_write(WriteAt::new(param), view)
            .map_or(Ok(()), |view| Err(Refused { param, view }))
    }

    admission!();
}

impl PacketIo<Write, Durable> for RemoteFile {
    fn send_io(&self, param: Durable, view: View<Write>) -> Result<(), Refused<Write, Durable>> {
        self.send_write(param.into(), view).map_or(Ok(()), |view| Err(Refused { param, view }))
    }

    admission!();
}

impl PacketIo<Write, WriteAt> for RemoteFile {
    fn send_io(&self, param: WriteAt, view: View<Write>) -> Result<(), Refused<Write, WriteAt>> {
        self.send_write(param, view).map_or(Ok(()), |view| Err(Refused { param, view }))
    }

    admission!();
}

impl IoBackend for RemoteFile {
    /// Nothing to drive: the shard completes by itself.
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        if self.mailbox().would_deadlock() { Err(BackendBusy) } else { Ok(None) }
    }
}

impl fmt::Debug for RemoteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteFile").field("name", &self.target.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::shard::Bell;

    #[test]
    fn every_open_is_answered_where_no_opener_can_be_started() {
        let bell = Arc::new(Bell::new(Waker::noop().clone()));
        let mailbox = Arc::new(Mailbox::new(1, bell));
        let remote = Remote::of(vec![Arc::clone(&mailbox)]);
        let mut asked = Vec::new();
        for number in 0..3 {
            let (teller, open) = ask(|| Err(EngineError::Closed));
            let (path, mailbox) = (PathBuf::from("/nowhere"), Arc::clone(&mailbox));
            let job = OpenJob { path, options: OpenOptions::new(), mailbox, teller };
            let mut opens = remote.inner.lock();
            opens.waiting.push_back(job);
            // The third found that there are openers enough.
            opens.openers += usize::from(number < 2);
            asked.push(open);
        }
        remote.inner.not_started(Errno::EAGAIN);
        remote.inner.not_started(Errno::EAGAIN);
        for mut open in asked {
            let polled = Pin::new(&mut open).poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Err(error)) = polled else { panic!("{polled:?}") };
            assert!(matches!(error, EngineError::Thread { errno: Errno::EAGAIN }), "{error}");
        }
    }
}
