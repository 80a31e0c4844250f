//! An open target, for any thread.
//!
//! Data flow: packet → [`RemoteFile`] → message in the shard's mailbox → completed by the shard,
//! which wakes whoever waits.
//!
//! Not here: opening (`remote`), the mailbox (`route`).

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use mfio_core::{
    BackendBusy, BackendHandle, Buffer, Completed, Error, ErrorKind, IoBackend, Packet, PacketIo,
    PacketIoExt, Perms, Read, Refused, View, Write,
};

use crate::answer::ask;
use crate::error::{IoError, explain};
use crate::process::Process;
use crate::route::{Errand, Mailbox, Message};
use crate::shard::{Class, Durability, Durable, WriteAt};
use crate::target::Geometry;

/// A target of a shard, as other threads see it. The shard closes it when the last handle has
/// gone and the last message that names it has been dealt with.
#[derive(Debug)]
pub(crate) struct RemoteTarget {
    mailbox: Arc<Mailbox>,
    index: u32,
    name: String,
    geometry: Geometry,
    /// The one that has the shard.
    process: Process,
}

impl RemoteTarget {
    /// Which target of its shard.
    pub(crate) const fn index(&self) -> u32 {
        self.index
    }
}

impl Drop for RemoteTarget {
    fn drop(&mut self) {
        if !self.process.is_current() {
            // The shard and its mailbox are the parent's (F26).
            return;
        }
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
        let target =
            Arc::new(RemoteTarget { mailbox, index, name, geometry, process: Process::current() });
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
        explain(done, |done_bytes, error| {
            self.io_error(op, offset_bytes, len_bytes, done_bytes, error)
        })
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
