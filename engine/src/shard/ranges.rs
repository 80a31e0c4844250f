//! What a file can have done to a range of it without moving the caller's memory, and copies.
//!
//! Data flow: [`File`] method → checks → a chain of one step, or packets over buffers of the
//! arena → one result. All of them modify data: a flush asked for later covers them, and a
//! poisoned target refuses them.
//!
//! Not here: chains (`chain`, `commit`).

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use mfio_core::{Error, ErrorKind, Packet, PacketIoExt, Read, Write};

use super::file::File;
use crate::error::IoError;
use crate::ring::{OpKind, Ring};
use crate::target::TargetKind;

/// The smallest logical block that a device has.
const SECTOR_BYTES: u64 = 512;

/// Pieces of a copy that are under way at a time.
const COPY_LANES: usize = 4;

/// The longest piece of a copy, and of zeros, in bytes.
const PIECE_BYTES_MAX: u64 = 128 << 10;

impl<R: Ring> File<R> {
    /// Tells the device that the range is not needed. Of a file it becomes a hole, which reads
    /// as zeros: `fallocate(2)` with `PUNCH_HOLE` and `KEEP_SIZE`. Of a device it may read as
    /// anything afterwards ([`File::write_zeroes`] is for zeros): a block device is sent
    /// `BLOCK_URING_CMD_DISCARD` (Linux 6.12), or that `fallocate(2)` where kernel or driver have
    /// no such command; a namespace is sent a deallocate command.
    /// Ranges of a device are multiples of its sector; of a file, any.
    ///
    /// # Errors
    /// `Unsupported` where the file system or device cannot; `OutOfRange` and `Misaligned`
    /// before anything is issued; `Poisoned` (F37); else what the system said.
    ///
    /// # Cancel safety
    /// Dropping the future cancels it if it has not started; else it may or may not be done.
    pub async fn discard(&self, offset: u64, len_bytes: u64) -> Result<(), IoError> {
        let op = "discard";
        if self.takes_discards() {
            match self.range(op, OpKind::DiscardDevice, offset, len_bytes).await {
                // The kernel, or the driver, has no such command.
                Err(error) if error.error.kind() == ErrorKind::Unsupported => {
                    let mut core = self.shard().inner.core.borrow_mut();
                    core.targets.get_mut(self.target()).takes_discards = false;
                }
                Err(error) if error.error.errno() == Some(nix::errno::Errno::EINVAL as i32) => {}
                result => return result,
            }
        }
        self.range(op, OpKind::Discard, offset, len_bytes).await
    }

    /// Makes the range read as zeros, as if they had been written; a file becomes longer where
    /// the range ends behind it. `fallocate(2)` with `ZERO_RANGE`; where file system or device
    /// have no such thing, zeros are written.
    ///
    /// # Errors
    /// As [`File::discard`], and `NoSpace`. After an error any part of the range may be zero.
    ///
    /// # Cancel safety
    /// As [`File::discard`].
    pub async fn write_zeroes(&self, offset: u64, len_bytes: u64) -> Result<(), IoError> {
        let op = "write zeroes";
        match self.range(op, OpKind::WriteZeroes, offset, len_bytes).await {
            Err(error) if error.error.kind() == ErrorKind::Unsupported => {
                self.zeros(op, offset, offset + len_bytes).await
            }
            result => result,
        }
    }

    /// Makes sure that writes to the range find space; a file becomes longer where the range
    /// ends behind it, and what is new reads as zeros. What is there stays. `fallocate(2)` of
    /// mode 0; where the file system has no such thing, zeros are written behind the end of
    /// the file, and holes before it stay holes.
    ///
    /// Such space is marked as unwritten, which the first write to it has to change in the
    /// journal: a log that wants the fastest durable writes writes zeros instead.
    ///
    /// # Errors
    /// As [`File::discard`], and `NoSpace`; `Unsupported` on a block device, which has all of
    /// its space.
    ///
    /// # Cancel safety
    /// As [`File::discard`].
    pub async fn preallocate(&self, offset: u64, len_bytes: u64) -> Result<(), IoError> {
        let op = "preallocate";
        match self.range(op, OpKind::Allocate, offset, len_bytes).await {
            Err(error)
                if error.error.kind() == ErrorKind::Unsupported
                    && self.geometry().kind == TargetKind::File =>
            {
                let len = self.len_now().ok_or(error)?;
                self.zeros(op, offset.max(len), offset + len_bytes).await
            }
            result => result,
        }
    }

    /// Gives the space of the range back; the file keeps its length, and reads of the range
    /// return zeros. `fallocate(2)` with `PUNCH_HOLE` and `KEEP_SIZE`.
    ///
    /// # Errors
    /// As [`File::discard`].
    ///
    /// # Cancel safety
    /// As [`File::discard`].
    pub async fn punch_hole(&self, offset: u64, len_bytes: u64) -> Result<(), IoError> {
        self.range("punch hole", OpKind::PunchHole, offset, len_bytes).await
    }

    /// Cuts the file off at `len_bytes`, or lengthens it with a hole. `IORING_OP_FTRUNCATE`
    /// (Linux 6.9); with an older kernel, the call is made on the spot and blocks the shard
    /// while it lasts, which the ring's features say.
    ///
    /// # Errors
    /// `Unsupported` on a block device; else as [`File::discard`].
    ///
    /// # Cancel safety
    /// As [`File::discard`].
    pub async fn set_len(&self, len_bytes: u64) -> Result<(), IoError> {
        let op = "set length";
        if self.geometry().kind != TargetKind::File {
            return Err(self.range_error(op, 0, len_bytes, ErrorKind::Unsupported));
        }
        let done = self.chain().range(OpKind::Truncate, 0, len_bytes).commit().await.0;
        done.map_err(|error| error.io)
    }

    /// Whether it is a block device that may take discards as commands, and the ring has those.
    fn takes_discards(&self) -> bool {
        let core = self.shard().inner.core.borrow();
        self.geometry().kind == TargetKind::BlockDevice
            && core.ring.supports(OpKind::DiscardDevice)
            && core.targets.get(self.target()).takes_discards
    }

    fn range_error(&self, op: &'static str, at: u64, len: u64, kind: ErrorKind) -> IoError {
        self.io_error(op, at, len, 0, Error::new(kind))
    }

    async fn range(
        &self,
        op: &'static str,
        kind: OpKind,
        at: u64,
        len: u64,
    ) -> Result<(), IoError> {
        let geometry = self.geometry();
        let end = at.checked_add(len).filter(|end| i64::try_from(*end).is_ok());
        let Some(end) = end else {
            return Err(self.range_error(op, at, len, ErrorKind::OutOfRange));
        };
        if geometry.kind != TargetKind::File {
            let sector = u64::from(geometry.offset_align).max(SECTOR_BYTES);
            let refused = match kind {
                OpKind::Allocate | OpKind::PunchHole => Some(ErrorKind::Unsupported),
                _ if end > geometry.len_bytes => Some(ErrorKind::OutOfRange),
                _ if !at.is_multiple_of(sector) || !len.is_multiple_of(sector) => {
                    Some(ErrorKind::Misaligned)
                }
                _ => None,
            };
            if let Some(kind) = refused {
                return Err(self.range_error(op, at, len, kind));
            }
        }
        if len == 0 {
            return Ok(());
        }
        self.chain().range(kind, at, len).commit().await.0.map_err(|error| error.io)
    }

    /// The length of the file now.
    fn len_now(&self) -> Option<u64> {
        let core = self.shard().inner.core.borrow();
        let opened = core.targets.get(self.target()).opened.as_ref()?;
        Some(opened.metadata().ok()?.len())
    }

    /// The longest piece that goes through one buffer of the arena.
    fn piece_bytes(&self) -> u64 {
        let align = u64::from(self.geometry().offset_align);
        let most = (self.shard().arena().len_bytes_max() as u64).min(PIECE_BYTES_MAX);
        (most / align * align).max(align)
    }

    /// Writes zeros, one buffer after the other.
    async fn zeros(&self, op: &'static str, start: u64, end: u64) -> Result<(), IoError> {
        let mut at = start;
        let piece = self.piece_bytes();
        let mut zeros = None;
        while at < end {
            let len = usize::try_from(piece.min(end - at)).expect("as short as a buffer");
            let mut buffer = match zeros.take() {
                Some(buffer) => buffer,
                None => {
                    let Some(mut buffer) = self.shard().arena().alloc(len) else {
                        let error = Error::os(nix::errno::Errno::ENOMEM as i32);
                        return Err(self.io_error(op, start, end - start, at - start, error));
                    };
                    buffer.fill(0);
                    buffer
                }
            };
            // Only the last piece is shorter.
            buffer.set_len_bytes(len);
            let (written, buffer) = self.write_all_at(at, buffer).await;
            if let Err(error) = written {
                let done = at - start + error.done_bytes;
                return Err(self.io_error(op, start, end - start, done, error.error));
            }
            zeros = Some(buffer);
            at += len as u64;
        }
        Ok(())
    }

    /// Copies `len_bytes` bytes from `offset` to byte `to_offset` of `to`, through buffers of
    /// this shard's arena, several pieces at a time. The ranges must not overlap. Returns how
    /// many bytes were copied: fewer than asked for exactly where the source ends before. Not
    /// durable before a [`File::sync`].
    ///
    /// # Errors
    /// The first piece that failed, in the order of the file; `done_bytes` counts from `offset`.
    /// With direct I/O, `Misaligned` where offset and length are no multiples of what the
    /// targets need, or where the source ends inside a block of the destination's.
    ///
    /// # Cancel safety
    /// Dropping the future leaves any part of the range copied.
    pub async fn copy_range_to(
        &self,
        offset: u64,
        len_bytes: u64,
        to: &Self,
        to_offset: u64,
    ) -> Result<u64, IoError> {
        let align = self.geometry().offset_align.max(to.geometry().offset_align);
        let (piece, align) = (self.piece_bytes(), u64::from(align));
        let copy = Copying {
            from: self,
            to,
            offset,
            to_offset,
            len_bytes,
            piece_bytes: (piece / align * align).max(align),
            next: Cell::new(0),
            end: Cell::new(len_bytes),
            failed: Cell::new(None),
        };
        let in_range =
            |at: u64| at.checked_add(len_bytes).is_some_and(|end| end <= i64::MAX as u64);
        if !in_range(offset) || !in_range(to_offset) {
            return Err(self.range_error("copy", offset, len_bytes, ErrorKind::OutOfRange));
        }
        let mut first = pin!(copy.lane(0));
        let mut second = pin!(copy.lane(1));
        let mut third = pin!(copy.lane(2));
        let mut fourth = pin!(copy.lane(3));
        let mut over = [false; COPY_LANES];
        poll_fn(|cx| {
            over[0] = over[0] || first.as_mut().poll(cx).is_ready();
            over[1] = over[1] || second.as_mut().poll(cx).is_ready();
            over[2] = over[2] || third.as_mut().poll(cx).is_ready();
            over[3] = over[3] || fourth.as_mut().poll(cx).is_ready();
            if over == [true; COPY_LANES] { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        match copy.failed.take() {
            Some((at, error)) => Err(IoError { done_bytes: at, ..error }),
            None => Ok(copy.end.get()),
        }
    }
}

/// A copy under way.
struct Copying<'a, R: Ring> {
    from: &'a File<R>,
    to: &'a File<R>,
    offset: u64,
    to_offset: u64,
    len_bytes: u64,
    piece_bytes: u64,
    /// Where the next piece starts, from the beginning of the range.
    next: Cell<u64>,
    /// Where the copy ends: earlier once the source was seen to end there.
    end: Cell<u64>,
    /// The first byte that was not copied, and why.
    failed: Cell<Option<(u64, IoError)>>,
}

impl<R: Ring> Copying<'_, R> {
    /// Takes pieces until none is left: one buffer, from the source to the destination.
    async fn lane(&self, number: usize) {
        if self.len_bytes == 0 {
            return;
        }
        let bytes = self.piece_bytes.min(self.len_bytes);
        let bytes = usize::try_from(bytes).expect("as short as a buffer");
        let Some(mut buffer) = self.from.shard().arena().alloc(bytes) else {
            if number == 0 {
                self.fail(0, Error::os(nix::errno::Errno::ENOMEM as i32), self.from);
            }
            // The lanes that have a buffer do the work.
            return;
        };
        while self.next.get() < self.end.get() {
            let at = self.next.get();
            let len = self.piece_bytes.min(self.len_bytes - at);
            buffer.set_len_bytes(usize::try_from(len).expect("as short as a buffer"));
            self.next.set(at + len);
            let packet = Packet::<Read, _>::new(buffer);
            let read = self.from.io(self.offset + at, packet).await;
            let mut got = len;
            if let Err(error) = read.result() {
                got = read.contiguous_bytes();
                if error.kind() != ErrorKind::UnexpectedEof {
                    return self.fail(at + got, error, self.from);
                }
                self.end.set(self.end.get().min(at + got));
            }
            if got == 0 {
                return;
            }
            buffer = read.into_buffer();
            buffer.set_len_bytes(usize::try_from(got).expect("as short as the buffer"));
            let packet = Packet::<Write, _>::new(buffer);
            let written = self.to.io(self.to_offset + at, packet).await;
            if let Err(error) = written.result() {
                return self.fail(at + written.contiguous_bytes(), error, self.to);
            }
            buffer = written.into_buffer();
        }
    }

    /// Keeps the failure that is first in the file, and lets no piece behind it start.
    fn fail(&self, at: u64, error: Error, file: &File<R>) {
        let error = file.io_error("copy", self.offset, self.len_bytes, at, error);
        let earlier = self.failed.take().filter(|(other, _)| *other <= at);
        self.failed.set(Some(earlier.unwrap_or((at, error))));
        self.end.set(self.end.get().min(at));
    }
}
