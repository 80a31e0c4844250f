//! File handles of a shard, by the words of [`mfio_rt`].
//!
//! Data flow: packet → the shard's [`File`]; flushes, lengths and ranges of space → its ops;
//! facts → an op on names; the rest → a thread, on a duplicate of the descriptor. Writes of a
//! handle that appends go to a thread as well, because the ring has several ops of one packet in
//! flight, and the kernel would append them in the order in which they happen to run.
//!
//! Not here: opening (`dir`), ops on names (`names`).

use std::cell::OnceCell;
use std::fmt;
use std::fs::File as OpenFile;
use std::task::{Context, Poll};

use mfio_core::backend::PollingHandle;
use mfio_core::stream::Length;
use mfio_core::{BackendBusy, BackendHandle, ErrorKind as ByteKind, IoBackend};
use mfio_core::{PacketId, PacketIo, Perms, Read, Refused, View, Write};
use mfio_rt::portable::{Portable, PortableFile, error_of};
use mfio_rt::{Allocate, Error, ErrorKind, FileHandle, LockKind, Metadata};
use mfio_rt::{Op, OpenOptions, SyncLevel, Times};

use super::names::{Miss, look_at};
use crate::error::IoError;
use crate::ring::{AutoRing, Ring};
use crate::shard::{Durability, File, Shard};
use crate::target::Geometry;

/// Where the last transfer ends that the kernel takes, in bytes.
const OFFSET_END: u64 = (1 << 63) - 1;

/// An open file of a shard.
pub struct ShardFile<R: Ring = AutoRing> {
    file: File<R>,
    threads: Portable,
    options: OpenOptions,
    /// What writes of a handle that appends go through.
    appends: Option<PortableFile>,
    /// What locks are asked for by, once any was: it knows which of them is still wanted.
    locks: OnceCell<PortableFile>,
}

impl<R: Ring> ShardFile<R> {
    pub(super) fn of(
        shard: &Shard<R>,
        threads: &Portable,
        path: &[u8],
        opened: OpenFile,
        options: &OpenOptions,
    ) -> Result<Self, Error> {
        let about = |error: std::io::Error| error_of(Op::Open, &error).at(path);
        let geometry = if options.direct {
            Geometry::of(&opened).map_err(|errno| about(errno.into()))?
        } else {
            Geometry::buffered()
        };
        let file = shard.adopt(&String::from_utf8_lossy(path), opened, geometry);
        let mut made = Self {
            file,
            threads: threads.clone(),
            options: *options,
            appends: None,
            locks: OnceCell::new(),
        };
        if options.append {
            made.appends = Some(made.duplicate(Op::Open).map_err(|error| error.at(path))?);
        }
        Ok(made)
    }

    /// The shard's own handle of the file, for what the traits have no words for.
    #[must_use]
    pub fn as_file(&self) -> &File<R> {
        &self.file
    }

    /// Appends by a thread, where no flush of the file has failed (F37).
    #[cold]
    fn append(
        &self,
        appends: &PortableFile,
        param: u64,
        view: View<Write>,
    ) -> Result<(), Refused<Write>> {
        let Some(error) = self.file.poison_error() else { return appends.send_io(param, view) };
        // Room may have been promised to it.
        PacketIo::<Write, u64>::release(appends, 1);
        view.fail(error);
        Ok(())
    }

    /// The same open file for a thread.
    fn duplicate(&self, op: Op) -> Result<PortableFile, Error> {
        let file = self.file.duplicate().map_err(|error| error_of(op, &error))?;
        Ok(self.threads.adopt_file(file, &self.options))
    }

    fn locks(&self) -> Result<&PortableFile, Error> {
        if let Some(locks) = self.locks.get() {
            return Ok(locks);
        }
        let made = self.duplicate(Op::Lock)?;
        Ok(self.locks.get_or_init(|| made))
    }
}

/// What the ring answered to an operation that moves no bytes.
fn failed(op: Op, error: &IoError) -> Error {
    match error.error.errno() {
        Some(errno) if error.error.kind() == ByteKind::Os => {
            error_of(op, &std::io::Error::from_raw_os_error(errno))
        }
        _ => Error::of_bytes(op, error.error),
    }
}

/// Fails what of a view lies where no file reaches; where the rest goes, and the rest.
#[inline]
fn addressable<P: Perms>(at: u64, view: View<P>, beyond: ByteKind) -> (u64, View<P>) {
    let room = OFFSET_END.saturating_sub(at);
    if view.len() <= room {
        return (at.min(OFFSET_END - 1), view);
    }
    let (view, behind) = view.split_at(room);
    behind.fail(beyond);
    (at.min(OFFSET_END - 1), view)
}

impl<R: Ring> PacketIo<Read, u64> for ShardFile<R> {
    #[inline]
    fn send_io(&self, param: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        let (at, view) = addressable(param, view, ByteKind::UnexpectedEof);
        self.file.send_io(at, view)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        PacketIo::<Read, u64>::poll_ready(&self.file, cx)
    }

    fn reserve(&self, views: usize) -> bool {
        PacketIo::<Read, u64>::reserve(&self.file, views)
    }

    fn release(&self, views: usize) {
        PacketIo::<Read, u64>::release(&self.file, views);
    }

    fn abandon(&self, packet: PacketId) {
        PacketIo::<Read, u64>::abandon(&self.file, packet);
    }
}

/// Writes go to the ring, or, in order, to whatever appends.
macro_rules! by_way {
    ($self:ident, $method:ident $(, $argument:expr)*) => {
        match &$self.appends {
            None => PacketIo::<Write, u64>::$method(&$self.file $(, $argument)*),
            Some(appends) => PacketIo::<Write, u64>::$method(appends $(, $argument)*),
        }
    };
}

impl<R: Ring> PacketIo<Write, u64> for ShardFile<R> {
    #[inline]
    fn send_io(&self, param: u64, view: View<Write>) -> Result<(), Refused<Write>> {
        if let Some(appends) = &self.appends {
            return self.append(appends, param, view);
        }
        let (at, view) = addressable(param, view, ByteKind::OutOfRange);
        self.file.send_io(at, view)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        by_way!(self, poll_ready, cx)
    }

    fn reserve(&self, views: usize) -> bool {
        by_way!(self, reserve, views)
    }

    fn release(&self, views: usize) {
        by_way!(self, release, views);
    }

    fn abandon(&self, packet: PacketId) {
        by_way!(self, abandon, packet);
    }
}

impl<R: Ring> FileHandle for ShardFile<R> {
    async fn metadata(&self) -> Result<Metadata, Error> {
        let again = self.file.duplicate().map_err(|error| error_of(Op::Metadata, &error))?;
        match look_at(self.file.shard(), again.into()).await {
            Ok(metadata) => Ok(metadata),
            Err(Miss::Failed(error)) => Err(error_of(Op::Metadata, &error)),
            Err(Miss::Threads) => self.duplicate(Op::Metadata)?.metadata().await,
        }
    }

    async fn sync(&self, level: SyncLevel) -> Result<(), Error> {
        // Also of what threads have appended: it went by a duplicate of the descriptor, so that
        // whatever was lost of it is told here, and poisons every handle of the file (F37).
        let durability = match level {
            SyncLevel::Data => Durability::Data,
            SyncLevel::All => Durability::Full,
        };
        self.file.sync(durability).await.map_err(|error| failed(Op::Sync, &error))
    }

    async fn set_len(&self, len: u64) -> Result<(), Error> {
        if len >= OFFSET_END {
            return Err(Error::new(Op::SetLen, ErrorKind::FileTooLarge));
        }
        self.file.set_len(len).await.map_err(|error| failed(Op::SetLen, &error))
    }

    async fn allocate(&self, at: u64, len: u64, how: Allocate) -> Result<(), Error> {
        if at.checked_add(len).is_none_or(|end| end >= OFFSET_END) {
            return Err(Error::new(Op::Allocate, ErrorKind::FileTooLarge));
        }
        let done = match how {
            // The kernel says what is wrong with nothing, in its own order.
            _ if len == 0 => return self.duplicate(Op::Allocate)?.allocate(at, len, how).await,
            Allocate::Extend => self.file.preallocate(at, len).await,
            Allocate::PunchHole => self.file.punch_hole(at, len).await,
            Allocate::KeepSize => {
                return self.duplicate(Op::Allocate)?.allocate(at, len, how).await;
            }
        };
        done.map_err(|error| failed(Op::Allocate, &error))
    }

    async fn set_permissions(&self, mode: u32) -> Result<(), Error> {
        self.duplicate(Op::SetPermissions)?.set_permissions(mode).await
    }

    async fn set_times(&self, times: Times) -> Result<(), Error> {
        self.duplicate(Op::SetTimes)?.set_times(times).await
    }

    async fn try_lock(&self, kind: LockKind) -> Result<(), Error> {
        self.locks()?.try_lock(kind).await
    }

    async fn lock(&self, kind: LockKind) -> Result<(), Error> {
        self.locks()?.lock(kind).await
    }

    async fn unlock(&self) -> Result<(), Error> {
        self.locks()?.unlock().await
    }
}

impl<R: Ring> Drop for ShardFile<R> {
    fn drop(&mut self) {
        // The ring may keep the file open for a while, and a lock lives as long as that.
        if let Some(locks) = self.locks.get() {
            // An error means that there is no lock to give back.
            drop(locks.unlock_now());
        }
    }
}

impl<R: Ring> IoBackend for ShardFile<R> {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        self.file.polling_handle()
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.file.get_backend()
    }
}

impl<R: Ring> Length for ShardFile<R> {
    fn len_bytes(&self) -> Option<u64> {
        self.file.len_bytes()
    }
}

impl<R: Ring> fmt::Debug for ShardFile<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardFile").field("file", &self.file).finish_non_exhaustive()
    }
}
