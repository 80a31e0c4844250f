//! What a namespace does with its own blocks when it is told to: compares them with memory, and
//! copies them, so that no byte of a copy crosses the bus.
//!
//! Data flow: [`File`] method → checks against what the controller says that it can → a chain of
//! one step per command → one result.
//!
//! Not here: copies through memory, which any target takes ([`File::copy_range_to`]).

use mfio_core::{Error, ErrorKind};

use super::file::File;
use crate::buffer::ArenaBuf;
use crate::chain::What;
use crate::error::IoError;
use crate::nvme::{Cause, Space, Status};
use crate::ring::Ring;
use crate::target::TargetKind;

impl<R: Ring> File<R> {
    /// What the commands of the namespace depend on; `None` where it is none.
    fn space(&self) -> Option<Space> {
        let geometry = self.geometry();
        let nvme = geometry.facts.nvme.filter(|_| geometry.kind == TargetKind::NvmeNamespace);
        nvme.map(|nvme| nvme.space(None))
    }

    fn refused(&self, op: &'static str, at: u64, len: u64, kind: ErrorKind) -> IoError {
        self.io_error(op, at, len, 0, Error::new(kind))
    }

    /// Why `len_bytes` from each of `offsets` on cannot be named by a command, if so.
    fn outside(&self, offsets: &[u64], len_bytes: u64) -> Option<ErrorKind> {
        let geometry = self.geometry();
        let block = u64::from(geometry.offset_align);
        let whole = |at: &u64| at.is_multiple_of(block) && len_bytes.is_multiple_of(block);
        let inside = |at: &u64| at.checked_add(len_bytes).is_some_and(|e| e <= geometry.len_bytes);
        if !offsets.iter().all(inside) {
            return Some(ErrorKind::OutOfRange);
        }
        (!offsets.iter().all(whole)).then_some(ErrorKind::Misaligned)
    }

    /// Whether the namespace holds from byte `offset` on what `buffer` holds. The device
    /// compares: by one command (NVM command set, 3.2.1), so what it says is of one moment.
    ///
    /// # Errors
    /// Before anything is issued: `Unsupported` where the target is no namespace, or its
    /// controller cannot compare; `OutOfRange` where the range ends behind the namespace or is
    /// longer than one transfer ([`Geometry::transfer_bytes_max`]); `Misaligned` where it is not
    /// whole blocks. Else what the device said.
    ///
    /// # Cancel safety
    /// Nothing is changed. The buffer goes back to its arena when the kernel is through with it.
    ///
    /// [`Geometry::transfer_bytes_max`]: crate::target::Geometry::transfer_bytes_max
    pub async fn compare_at(
        &self,
        offset: u64,
        buffer: ArenaBuf,
    ) -> (Result<bool, IoError>, Option<ArenaBuf>) {
        let (op, len) = ("compare", buffer.len() as u64);
        let can = self.space().is_some_and(|space| space.compare);
        let too_long = len > u64::from(self.geometry().transfer_bytes_max);
        let refused = match self.outside(&[offset], len) {
            _ if !can => Some(ErrorKind::Unsupported),
            _ if too_long => Some(ErrorKind::OutOfRange),
            refused => refused,
        };
        if let Some(kind) = refused {
            return (Err(self.refused(op, offset, len, kind)), Some(buffer));
        }
        if len == 0 {
            return (Ok(true), Some(buffer));
        }
        let (done, mut buffers) =
            self.chain().command(What::Compare, offset, buffer).commit().await;
        let status = |error: &Error| error.device_status().map(Status::from_bits);
        let result = match done.map_err(|error| error.io) {
            Ok(()) => Ok(true),
            Err(error) if status(&error.error).map(Status::cause) == Some(Cause::Miscompare) => {
                Ok(false)
            }
            Err(error) => Err(error),
        };
        (result, buffers.take(0))
    }

    /// Has the device copy `len_bytes` bytes of the namespace from `offset` to `to_offset`, in
    /// as many commands (NVM command set, 3.2.2) as it takes, one after the other. The ranges
    /// must not overlap. Not durable before a [`File::sync`].
    ///
    /// # Errors
    /// Before anything is issued: `Unsupported` where the target is no namespace, or its
    /// controller cannot copy ([`File::copy_range_to`] copies between any two targets);
    /// `OutOfRange` where a range ends behind the namespace, or they overlap; `Misaligned` where
    /// they are not whole blocks. Else what the device said; the first `done_bytes` are copied.
    ///
    /// # Cancel safety
    /// Dropping the future leaves any part of the range copied.
    pub async fn copy_within(
        &self,
        offset: u64,
        len_bytes: u64,
        to_offset: u64,
    ) -> Result<(), IoError> {
        let op = "copy";
        let space = self.space().filter(|space| space.copy_blocks_max > 0);
        let Some(space) = space else {
            return Err(self.refused(op, offset, len_bytes, ErrorKind::Unsupported));
        };
        let overlaps = offset.abs_diff(to_offset) < len_bytes;
        let refused = self.outside(&[offset, to_offset], len_bytes);
        if let Some(kind) = refused.or(overlaps.then_some(ErrorKind::OutOfRange)) {
            return Err(self.refused(op, offset, len_bytes, kind));
        }
        let block = self.geometry().offset_align as usize;
        let Some(mut words) = self.shard().arena().alloc(block) else {
            let error = Error::os(nix::errno::Errno::ENOMEM as i32);
            return Err(self.io_error(op, offset, len_bytes, 0, error));
        };
        words.fill(0);
        let most = u64::from(space.copy_blocks_max) << space.block_shift;
        let mut done = 0;
        while done < len_bytes {
            let len = most.min(len_bytes - done);
            let failed = |error| self.io_error(op, offset, len_bytes, done, error);
            let Some(said) = space.copy_words(offset + done, to_offset + done, len) else {
                return Err(failed(ErrorKind::OutOfRange.into()));
            };
            words[..said.len()].copy_from_slice(&said);
            let copy = What::CopyWithin { len_bytes: len };
            let (copied, mut buffers) =
                self.chain().command(copy, to_offset + done, words).commit().await;
            copied.map_err(|error| failed(error.io.error))?;
            let Some(back) = buffers.take(0) else { break };
            words = back;
            done += len;
        }
        Ok(())
    }
}
