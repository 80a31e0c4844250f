//! Handles of shards for any thread, any runtime, and code that blocks.
//!
//! Data flow: [`Remote::open`] → a thread of its own opens → the shard adopts → [`RemoteFile`] →
//! packets through the mailbox → the shard → completed there, which wakes whoever waits.
//!
//! Not here: I/O on what was opened (`file`), the mailbox (`route`), what the shard does
//! (`shard::intake`).

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use mfio_core::{BackendBusy, BackendHandle, IoBackend};
use nix::errno::Errno;

use crate::answer::{Asked, Teller, ask};
use crate::error::EngineError;
use crate::route::{Errand, Mailbox};
use crate::target::{OpenError, OpenOptions, SyncMethod, open};

mod file;

pub use self::file::RemoteFile;
pub(crate) use self::file::RemoteTarget;

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
