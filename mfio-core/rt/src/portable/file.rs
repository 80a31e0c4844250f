//! File handles on threads.
//!
//! Data flow: packet → [`Transfer`] → queue → a thread's `pread` or `pwrite`, again for what
//! was left out → completed there. A short read of what is in memory is done at once, where the
//! system can say so.
//!
//! Not here: opening (`dir`), locks (`flock`), the calls that systems do not share (`sys`).

use alloc::sync::Arc;
use alloc::vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll};
use std::fs::{File, FileTimes};
use std::io;
use std::time::{Duration, SystemTime};

use mfio_core::stream::Length;
use mfio_core::{Error as ByteError, ErrorKind as ByteKind};
use mfio_core::{PacketId, PacketIo, Read, Refused, View, Write};

use super::errno;
use super::flock::FileLock;
use super::pool::{Job, Pool};
use super::sys;
use crate::error::{Error, ErrorKind, Op};
use crate::fs::FileHandle;
use crate::metadata::{Metadata, Times, Timestamp};
use crate::options::{Allocate, LockKind, OpenOptions, SyncLevel};

/// Bytes copied at a time where a packet lends none.
const PIECE_BYTES: usize = 64 << 10;
/// The longest read that is tried on the caller's thread: to copy so much from memory takes no
/// longer than to wake a thread a few times.
const AT_ONCE_BYTES: u64 = 256 << 10;
/// Where the last transfer ends that a system takes.
const OFFSET_END: u64 = (1 << 63) - 1;

/// An open file.
pub struct PortableFile {
    pub(super) shared: Arc<Shared>,
    pub(super) pool: Pool,
}

pub(super) struct Shared {
    pub(super) file: File,
    // Behind the file: that is closed first.
    pub(super) lock: FileLock,
    direct: bool,
    /// Writes go to the end, so that what they name as their place means nothing.
    append: bool,
    /// Whether the system can read what is in memory without waiting for the rest.
    cached: AtomicBool,
}

/// A packet's bytes, on their way.
pub(super) struct Transfer {
    file: Arc<Shared>,
    at: u64,
    view: Direction,
}

enum Direction {
    Read(View<Read>),
    Write(View<Write>),
}

impl Transfer {
    pub(super) fn is_of(&self, packet: PacketId) -> bool {
        let id = match &self.view {
            Direction::Read(view) => view.packet_id(),
            Direction::Write(view) => view.packet_id(),
        };
        id == packet
    }

    fn cancel(self) {
        match self.view {
            Direction::Read(view) => view.fail(ByteKind::Cancelled),
            Direction::Write(view) => view.fail(ByteKind::Cancelled),
        }
    }

    pub(super) fn run(self) {
        let Self { file, at, view } = self;
        match view {
            Direction::Read(view) => file.read(at, view),
            Direction::Write(view) => file.write(at, view),
        }
    }
}

impl Shared {
    fn error(&self, error: &io::Error) -> ByteError {
        let error_of_bytes = errno::of_bytes(error);
        if self.direct && error.kind() == io::ErrorKind::InvalidInput {
            let errno = error.raw_os_error().unwrap_or(0);
            return ByteError::with_errno(ByteKind::Misaligned, errno);
        }
        error_of_bytes
    }

    /// Fills `to`; how many bytes there were, and what ended it.
    fn read_slice(&self, at: u64, to: &mut [u8]) -> (usize, Option<ByteError>) {
        let mut done = 0;
        loop {
            let from = at.saturating_add(done as u64);
            // Asked even for nothing: a handle that may not read says so.
            match sys::read_at(&self.file, &mut to[done..], from) {
                Ok(0) => return (done, (done < to.len()).then(|| ByteKind::UnexpectedEof.into())),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (done, Some(self.error(&error))),
            }
            if done == to.len() {
                return (done, None);
            }
        }
    }

    fn write_slice(&self, at: u64, from: &[u8]) -> (usize, Option<ByteError>) {
        let mut done = 0;
        loop {
            let to = at.saturating_add(done as u64);
            match sys::write_at(&self.file, &from[done..], to) {
                Ok(0) => return (done, (done < from.len()).then(|| ByteKind::NoSpace.into())),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (done, Some(self.error(&error))),
            }
            if done == from.len() {
                return (done, None);
            }
        }
    }

    /// Reads without waiting for a device: the bytes there were, or the view, untouched in all
    /// that matters, because some of it is not in memory or a thread must say what is wrong.
    fn read_at_once(&self, at: u64, view: View<Read>) -> Result<(u64, View<Read>), View<Read>> {
        let len = view.len();
        let short = (1..=AT_ONCE_BYTES).contains(&len) && at < OFFSET_END - AT_ONCE_BYTES;
        if !short || self.direct || !self.cached.load(Ordering::Relaxed) {
            return Err(view);
        }
        let mut lent = view.try_alloc(1)?;
        let (to, mut done) = (lent.as_mut_slice(), 0);
        while done < to.len() {
            match sys::read_cached(&self.file, &mut to[done..], at + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) => {
                    if error.kind() == io::ErrorKind::Unsupported {
                        self.cached.store(false, Ordering::Relaxed);
                    }
                    return Err(lent.into_view());
                }
            }
        }
        Ok((done as u64, lent.into_view()))
    }

    fn read(&self, at: u64, view: View<Read>) {
        let (at, view, beyond) = addressable(at, view);
        let (done, error, view) = match view.try_alloc(1) {
            Ok(mut lent) => {
                let (done, error) = self.read_slice(at, lent.as_mut_slice());
                (done as u64, error, lent.into_view())
            }
            Err(mut view) => {
                let (done, error) = pieces(view.len(), |done, piece| {
                    let (read, error) = self.read_slice(at + done, piece);
                    view.write_at(done, &piece[..read]);
                    (read, error)
                });
                (done, error, view)
            }
        };
        match error {
            None => view.filled(),
            Some(error) => view.fail_after(done, error).filled(),
        }
        if let Some(beyond) = beyond {
            beyond.fail(ByteKind::UnexpectedEof);
        }
    }

    fn write(&self, at: u64, view: View<Write>) {
        let at = if self.append { 0 } else { at };
        let (at, view, beyond) = addressable(at, view);
        let (done, error, view) = match view.try_alloc(1) {
            Ok(lent) => {
                let (done, error) = self.write_slice(at, lent.as_slice());
                (done as u64, error, lent.into_view())
            }
            Err(view) => {
                let (done, error) = pieces(view.len(), |done, piece| {
                    if view.read_at(done, piece).is_err() {
                        return (0, Some(ByteKind::Aborted.into()));
                    }
                    self.write_slice(at + done, piece)
                });
                (done, error, view)
            }
        };
        match error {
            None => view.written(),
            Some(error) => view.fail_after(done, error).written(),
        }
        if let Some(beyond) = beyond {
            beyond.fail(ByteError::with_errno(ByteKind::OutOfRange, sys::TOO_LARGE));
        }
    }
}

/// What of a view can be addressed, and where; and what cannot.
fn addressable<P: mfio_core::Perms>(at: u64, view: View<P>) -> (u64, View<P>, Option<View<P>>) {
    let room = OFFSET_END.saturating_sub(at);
    if view.len() <= room {
        // An empty view may be anywhere, and is asked of the system all the same.
        return (at.min(OFFSET_END - 1), view, None);
    }
    let (view, beyond) = view.split_at(room);
    (at.min(OFFSET_END - 1), view, Some(beyond))
}

/// Calls `step` for `len` bytes in pieces until one ends it: the bytes done, and why.
fn pieces(
    len: u64,
    mut step: impl FnMut(u64, &mut [u8]) -> (usize, Option<ByteError>),
) -> (u64, Option<ByteError>) {
    let most = usize::try_from(len).unwrap_or(usize::MAX).min(PIECE_BYTES);
    let mut piece = vec![0; most];
    let mut done = 0;
    loop {
        let many = usize::try_from(len - done).unwrap_or(usize::MAX).min(most);
        let (moved, error) = step(done, &mut piece[..many]);
        done += moved as u64;
        if error.is_some() || done == len {
            return (done, error);
        }
    }
}

impl PortableFile {
    pub(super) fn new(pool: Pool, file: File, options: &OpenOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                file,
                lock: FileLock::new(pool.lock_waits()),
                direct: options.direct,
                append: options.append,
                cached: AtomicBool::new(true),
            }),
            pool,
        }
    }

    /// The file itself, to be used elsewhere. While packets are under way, a duplicate of it.
    ///
    /// # Errors
    /// Those of duplicating it.
    pub fn into_file(self) -> io::Result<File> {
        Arc::try_unwrap(self.shared)
            .map_or_else(|shared| shared.file.try_clone(), |shared| Ok(shared.file))
    }

    async fn call<T: Send + 'static>(
        &self,
        op: Op,
        work: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = Arc::clone(&self.shared);
        let done = self.pool.call(op, move || work(&shared.file)).await?;
        done.map_err(|error| errno::of(op, &error))
    }

    fn send(&self, at: u64, view: Direction) -> Result<(), (u64, Direction)> {
        let view = match view {
            Direction::Read(view) => match self.shared.read_at_once(at, view) {
                Ok((done, view)) => {
                    self.pool.use_reserved();
                    let ended = done < view.len();
                    let end = ByteKind::UnexpectedEof;
                    let view = if ended { view.fail_after(done, end) } else { view };
                    view.filled();
                    return Ok(());
                }
                Err(view) => Direction::Read(view),
            },
            view @ Direction::Write(_) => view,
        };
        let transfer = Transfer { file: Arc::clone(&self.shared), at, view };
        match self.pool.push(Job::Transfer(transfer)) {
            Err(Job::Transfer(refused)) => Err((refused.at, refused.view)),
            _ => Ok(()),
        }
    }
}

/// The two directions differ in their name alone.
macro_rules! packet_io {
    ($perms:ident) => {
        impl PacketIo<$perms, u64> for PortableFile {
            fn send_io(&self, param: u64, view: View<$perms>) -> Result<(), Refused<$perms>> {
                match self.send(param, Direction::$perms(view)) {
                    Err((param, Direction::$perms(view))) => Err(Refused { param, view }),
                    _ => Ok(()),
                }
            }

            fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
                self.pool.poll_room(cx)
            }

            fn reserve(&self, views: usize) -> bool {
                self.pool.reserve(views)
            }

            fn release(&self, views: usize) {
                self.pool.release(views);
            }

            fn abandon(&self, packet: PacketId) {
                if let Some(transfer) = self.pool.take_back(packet) {
                    transfer.cancel();
                }
            }
        }
    };
}

packet_io!(Read);
packet_io!(Write);

/// As the system's own type; a time that it cannot say is refused.
pub(super) fn system_time(time: Timestamp) -> io::Result<SystemTime> {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let base = SystemTime::UNIX_EPOCH;
    let base = if time.secs < 0 { base.checked_sub(whole) } else { base.checked_add(whole) };
    let at = base.and_then(|base| base.checked_add(Duration::from_nanos(time.nanos.into())));
    at.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl FileHandle for PortableFile {
    async fn metadata(&self) -> Result<Metadata, Error> {
        self.call(Op::Metadata, sys::file_metadata).await
    }

    async fn sync(&self, level: SyncLevel) -> Result<(), Error> {
        self.call(Op::Sync, move |file| match level {
            SyncLevel::Data => file.sync_data(),
            SyncLevel::All => file.sync_all(),
        })
        .await
    }

    async fn set_len(&self, len: u64) -> Result<(), Error> {
        if len >= OFFSET_END {
            return Err(Error::new(Op::SetLen, ErrorKind::FileTooLarge));
        }
        self.call(Op::SetLen, move |file| file.set_len(len)).await
    }

    async fn allocate(&self, at: u64, len: u64, how: Allocate) -> Result<(), Error> {
        if at.checked_add(len).is_none_or(|end| end >= OFFSET_END) {
            return Err(Error::new(Op::Allocate, ErrorKind::FileTooLarge));
        }
        self.call(Op::Allocate, move |file| sys::allocate(file, at, len, how)).await
    }

    async fn set_permissions(&self, mode: u32) -> Result<(), Error> {
        self.call(Op::SetPermissions, move |file| sys::set_file_mode(file, mode)).await
    }

    async fn set_times(&self, times: Times) -> Result<(), Error> {
        times.check()?;
        self.call(Op::SetTimes, move |file| {
            let mut new = FileTimes::new();
            if let Some(time) = times.accessed {
                new = new.set_accessed(system_time(time)?);
            }
            if let Some(time) = times.modified {
                new = new.set_modified(system_time(time)?);
            }
            file.set_times(new)
        })
        .await
    }

    async fn try_lock(&self, kind: LockKind) -> Result<(), Error> {
        self.change_lock(Some(kind)).await
    }

    async fn lock(&self, kind: LockKind) -> Result<(), Error> {
        self.wait_for_lock(kind).await
    }

    async fn unlock(&self) -> Result<(), Error> {
        self.change_lock(None).await
    }
}

impl Length for PortableFile {
    fn len_bytes(&self) -> Option<u64> {
        self.shared.file.metadata().ok().map(|found| found.len())
    }
}

impl fmt::Debug for PortableFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortableFile({:?})", self.shared.file)
    }
}
