//! File handles of the in-memory file system.
//!
//! Data flow: packet → bytes lent by it, or pieces copied out of it → pages, under the lock of
//! the file → completed, with no lock held.
//!
//! Not here: pages (`sparse`), lock holders (`flock`).

use alloc::sync::Arc;
use core::fmt;

use mfio_core::stream::Length;
use mfio_core::{Error as ByteError, ErrorKind as ByteKind};
use mfio_core::{PacketIo, Read, Refused, View, Write};

use super::FILE_BYTES_MAX;
use super::dir;
use super::inode::{Body, Inode, Volume};
use super::sparse::Sparse;
use crate::error::{Error, ErrorKind, Op};
use crate::fs::FileHandle;
use crate::metadata::{Metadata, Times};
use crate::options::{Allocate, LockKind, OpenOptions, SyncLevel};

/// As Linux numbers it: the handle was not opened for that.
const EBADF: i32 = 9;
/// As Linux numbers it: a file cannot become that long.
const EFBIG: i32 = 27;
/// Bytes copied at a time where a packet lends none.
const PIECE_BYTES: usize = 1024;

/// An open file of a [`VirtFs`](super::VirtFs).
///
/// A write whose bytes have an address happens in one step; one that makes up its bytes or
/// stands on a caller's stack, in pieces of 1 KiB.
pub struct VirtFile {
    inode: Arc<Inode>,
    /// Names this handle to the file's lock.
    token: u64,
    reads: bool,
    writes: bool,
    append: bool,
    volume: Arc<Volume>,
}

impl VirtFile {
    pub(super) fn new(volume: Arc<Volume>, inode: Arc<Inode>, options: &OpenOptions) -> Self {
        Self {
            token: volume.next_number(),
            inode,
            reads: options.read,
            writes: options.writes(),
            append: options.append,
            volume,
        }
    }

    /// The bytes, alone.
    fn bytes<R>(&self, work: impl FnOnce(&mut Sparse) -> R) -> R {
        match &self.inode.body {
            Body::File(bytes) => bytes.with(work),
            // `names::open_file` gives out nothing else.
            _ => unreachable!("a handle of a file is a file's"),
        }
    }

    /// Where a write goes.
    fn place(&self, at: u64, bytes: &Sparse) -> u64 {
        if self.append { bytes.len() } else { at }
    }

    fn write_slice(&self, at: u64, from: &[u8]) -> (u64, usize, Result<(), ByteError>) {
        self.bytes(|bytes| {
            let at = self.place(at, bytes);
            let room = usize::try_from(FILE_BYTES_MAX.saturating_sub(at)).unwrap_or(usize::MAX);
            let fitting = &from[..from.len().min(room)];
            match bytes.write(at, fitting) {
                Err((done, _full)) => (at, done, Err(ByteKind::NoSpace.into())),
                Ok(()) if fitting.len() < from.len() => {
                    let error = ByteError::with_errno(ByteKind::OutOfRange, EFBIG);
                    (at, fitting.len(), Err(error))
                }
                Ok(()) => (at, fitting.len(), Ok(())),
            }
        })
    }

    /// Writes a view that has no address, piece by piece: how many bytes, and what ended it.
    fn write_pieces(&self, at: u64, view: &View<Write>) -> (u64, Result<(), ByteError>) {
        let mut piece = [0; PIECE_BYTES];
        let (mut at, mut done) = (at, 0);
        while done < view.len() {
            let many = usize::try_from(view.len() - done).unwrap_or(usize::MAX).min(PIECE_BYTES);
            // Outside the lock: the bytes may be made up by somebody's code.
            if view.read_at(done, &mut piece[..many]).is_err() {
                return (done, Err(ByteKind::Aborted.into()));
            }
            let (start, written, result) = self.write_slice(at, &piece[..many]);
            done += written as u64;
            at = start + written as u64;
            if result.is_err() {
                return (done, result);
            }
        }
        (done, Ok(()))
    }

    fn read_pieces(&self, at: u64, view: &mut View<Read>) -> u64 {
        let mut piece = [0; PIECE_BYTES];
        let mut done = 0;
        while done < view.len() {
            let many = usize::try_from(view.len() - done).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let Some(from) = at.checked_add(done) else { break };
            let read = self.bytes(|bytes| bytes.read(from, &mut piece[..many]));
            view.write_at(done, &piece[..read]);
            done += read as u64;
            if read < many {
                break;
            }
        }
        done
    }

    /// The contents have changed.
    fn touch(&self) {
        let now = self.volume.now();
        self.inode.facts.with(|facts| facts.touch(now));
    }
}

impl PacketIo<Read, u64> for VirtFile {
    fn send_io(&self, param: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        if !self.reads {
            view.fail(ByteError::os(EBADF));
            return Ok(());
        }
        let (done, view) = match view.try_alloc(1) {
            Ok(mut lent) => {
                let read = self.bytes(|bytes| bytes.read(param, lent.as_mut_slice()));
                (read as u64, lent.into_view())
            }
            Err(mut view) => (self.read_pieces(param, &mut view), view),
        };
        if done < view.len() {
            view.fail_after(done, ByteKind::UnexpectedEof).filled();
        } else {
            view.filled();
        }
        Ok(())
    }
}

impl PacketIo<Write, u64> for VirtFile {
    fn send_io(&self, param: u64, view: View<Write>) -> Result<(), Refused<Write>> {
        if !self.writes {
            view.fail(ByteError::os(EBADF));
            return Ok(());
        }
        let (done, result, view) = match view.try_alloc(1) {
            Ok(lent) => {
                let (_, done, result) = self.write_slice(param, lent.as_slice());
                (done as u64, result, lent.into_view())
            }
            Err(view) => {
                let (done, result) = self.write_pieces(param, &view);
                (done, result, view)
            }
        };
        if done > 0 {
            self.touch();
        }
        match result {
            Ok(()) => view.written(),
            Err(error) => view.fail_after(done, error).written(),
        }
        Ok(())
    }
}

impl FileHandle for VirtFile {
    async fn metadata(&self) -> Result<Metadata, Error> {
        Ok(self.inode.metadata())
    }

    async fn sync(&self, _level: SyncLevel) -> Result<(), Error> {
        Ok(())
    }

    async fn set_len(&self, len: u64) -> Result<(), Error> {
        // A length that no file can have is told as such whatever the handle may do.
        if !self.writes && len < i64::MAX.cast_unsigned() {
            return Err(Error::new(Op::SetLen, ErrorKind::InvalidInput));
        }
        if len > FILE_BYTES_MAX {
            return Err(Error::new(Op::SetLen, ErrorKind::FileTooLarge));
        }
        self.bytes(|bytes| bytes.set_len(len));
        self.touch();
        Ok(())
    }

    async fn allocate(&self, at: u64, len: u64, how: Allocate) -> Result<(), Error> {
        let refused = |kind| Err(Error::new(Op::Allocate, kind));
        if len == 0 {
            return refused(ErrorKind::InvalidInput);
        }
        if !self.writes {
            return refused(ErrorKind::BadHandle);
        }
        let Some(end) = at.checked_add(len).filter(|&end| end <= FILE_BYTES_MAX) else {
            return refused(ErrorKind::FileTooLarge);
        };
        let done = self.bytes(|bytes| {
            if how == Allocate::PunchHole {
                bytes.zero(at, len);
                return Ok(());
            }
            bytes.allocate(at, len)?;
            if how == Allocate::Extend && bytes.len() < end {
                bytes.set_len(end);
            }
            Ok(())
        });
        if done.is_err_and(|_: super::sparse::Full| true) {
            return refused(ErrorKind::NoSpace);
        }
        self.touch();
        Ok(())
    }

    async fn set_permissions(&self, mode: u32) -> Result<(), Error> {
        dir::set_permissions(&self.volume, &self.inode, mode);
        Ok(())
    }

    async fn set_times(&self, times: Times) -> Result<(), Error> {
        times.check()?;
        dir::set_times(&self.volume, &self.inode, times);
        Ok(())
    }

    async fn try_lock(&self, kind: LockKind) -> Result<(), Error> {
        if self.inode.lock.try_take(self.token, kind) {
            return Ok(());
        }
        Err(Error::new(Op::Lock, ErrorKind::Locked))
    }

    async fn lock(&self, kind: LockKind) -> Result<(), Error> {
        self.inode.lock.wait(self.token, kind).await;
        Ok(())
    }

    async fn unlock(&self) -> Result<(), Error> {
        self.inode.lock.give_back(self.token);
        Ok(())
    }
}

impl Length for VirtFile {
    fn len_bytes(&self) -> Option<u64> {
        Some(self.bytes(|bytes| bytes.len()))
    }
}

impl Drop for VirtFile {
    fn drop(&mut self) {
        self.inode.lock.give_back(self.token);
    }
}

impl fmt::Debug for VirtFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtFile({})", self.inode.id)
    }
}
