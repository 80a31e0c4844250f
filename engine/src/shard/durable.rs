//! Writes with terms: how durable, and whether whole or not at all.
//!
//! Data flow: [`Durability`] and the target's method → [`Promise`] → `issue` → completion →
//! a flush, or (with `RWF_DSYNC`) the acknowledgement itself.
//!
//! Not here: flushes (`flush`), which method a target has (`calibrate`).

use mfio_core::{Buffer, ErrorKind, Packet, PacketIoExt, Write};
use nix::errno::Errno;

use super::core::Core;
use super::file::{Durability, Durable, File};
use super::slot::{Linked, Occupant, Slots};
use crate::error::IoError;
use crate::ring::{Ring, Tag};
use crate::target::{AtomicWrite, SyncMethod, Target, Targets};

/// Where a write goes and what its success means: the parameter of a packet.
///
/// ```
/// use mfio_engine::{Durability, WriteAt};
/// let at = WriteAt::new(4096).durability(Durability::Full);
/// assert_eq!(at.offset_bytes, 4096);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteAt {
    /// The first byte on the target.
    pub offset_bytes: u64,
    /// What must be so before the write is acknowledged.
    pub durability: Durability,
    /// It survives a power loss as a whole or not at all; never split, never bounced.
    pub atomic: bool,
}

impl WriteAt {
    /// A plain write at byte `offset_bytes`.
    #[must_use]
    pub const fn new(offset_bytes: u64) -> Self {
        Self { offset_bytes, durability: Durability::None, atomic: false }
    }

    /// Sets what must be so before it is acknowledged.
    #[must_use]
    pub const fn durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// Makes it one that survives as a whole or not at all.
    #[must_use]
    pub const fn atomic(self) -> Self {
        Self { atomic: true, ..self }
    }
}

impl From<Durable> for WriteAt {
    fn from(durable: Durable) -> Self {
        Self::new(durable.0).durability(Durability::Data)
    }
}

/// What a write on its way owes its caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Promise {
    /// That its bytes were taken.
    #[default]
    Taken,
    /// A flush after it.
    Flushed { all_metadata: bool },
    /// That it has flushed itself.
    Dsync,
    /// As `Taken`, of a write that is not counted.
    Uncounted,
}

/// A write's promise, and whether it is atomic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct How {
    pub(super) promise: Promise,
    pub(super) atomic: bool,
}

impl How {
    pub(super) const PLAIN: Self = Self { promise: Promise::Taken, atomic: false };

    pub(super) fn linked(self) -> Linked {
        match self.promise {
            Promise::Taken | Promise::Uncounted => Linked::No,
            Promise::Flushed { .. } => Linked::Unlinked,
            Promise::Dsync => Linked::Dsync,
        }
    }

    pub(super) fn all_metadata(self) -> bool {
        self.promise == Promise::Flushed { all_metadata: true }
    }
}

/// Whether a flush of the file has to wait: for another, or for a write that flushes itself.
pub(super) fn must_wait(targets: &Targets, slots: &mut Slots, target: u32) -> bool {
    let is_dsync = |occupant: &Occupant| {
        matches!(occupant, Occupant::Transfer(transfer) if transfer.linked == Linked::Dsync
            && targets.are_one_file(transfer.target, target))
    };
    targets.is_flushing(target)
        || (targets.any_handle(target, |handle| handle.dsyncs)
            && slots.iter_mut().any(|(_, occupant)| is_dsync(occupant)))
}

impl<R: Ring> Core<R> {
    /// How a write of `len_bytes` with the terms `at` is made, or why it is not.
    pub(super) fn how(&self, target: u32, at: WriteAt, len_bytes: u64) -> Result<How, ErrorKind> {
        let entry = self.targets.get(target);
        if at.atomic {
            entry.atomic.ok_or(ErrorKind::Unsupported)?.check(at.offset_bytes, len_bytes)?;
        }
        let promise = match at.durability {
            Durability::None if entry.scratch => Promise::Uncounted,
            Durability::None => Promise::Taken,
            Durability::Data if entry.sync.method == SyncMethod::Dsync => Promise::Dsync,
            Durability::Data => Promise::Flushed { all_metadata: false },
            Durability::Full => Promise::Flushed { all_metadata: true },
            Durability::Fua if entry.geometry.direct => Promise::Dsync,
            Durability::Fua => return Err(ErrorKind::Unsupported),
        };
        Ok(How { promise, atomic: at.atomic })
    }

    /// What a write that would flush itself promises when it starts now. Where a flush of the
    /// file is in flight, or waited for, it goes behind one instead: either of the two could
    /// succeed only because the other, which failed, has marked lost pages clean (F37).
    #[cold]
    pub(super) fn dsync_or_flush(&mut self, target: u32) -> Promise {
        let flushed = |handle: &Target| handle.flush_in_flight || !handle.requests.is_empty();
        if self.targets.any_handle(target, flushed) {
            return Promise::Flushed { all_metadata: false };
        }
        self.targets.get_mut(target).dsyncs = true;
        Promise::Dsync
    }

    /// A write with `RWF_DSYNC` has failed. Whether its flush has, the errno does not tell, so
    /// it counts as one that has (F37), except where the kernel refuses before it starts. A
    /// file system that is full is such a case: these writes are direct, and direct writes take
    /// their space first (F42).
    #[cold]
    pub(super) fn dsync_failed(&mut self, tag: Tag, errno: Errno) {
        let refused = [
            Errno::EAGAIN,
            Errno::EINTR,
            Errno::ECANCELED,
            Errno::EINVAL,
            Errno::EBADF,
            Errno::EOPNOTSUPP,
            Errno::EFBIG,
            Errno::ENOSPC,
            Errno::EDQUOT,
        ];
        let Some(transfer) = self.slots.transfer(tag) else { return };
        let target = transfer.target;
        if refused.contains(&errno) {
            return self.fail_transfer(tag, self.error_of(errno));
        }
        self.metrics.flush_failures += 1;
        let error = self.targets.get(target).poison.set(errno, self.device_status);
        self.refuse_flushes(target, error);
        self.fail_transfer(tag, error);
    }
}

impl<R: Ring> File<R> {
    /// Writes all of `buffer` from byte `offset` on, so that a power loss leaves all of it or
    /// nothing. Not durable before a [`File::sync`]: until then, the old bytes may come back.
    ///
    /// # Errors
    /// As [`File::write_all_at`], and before anything is issued: `Unsupported` where the target
    /// makes no such writes ([`File::atomic_unit`]) or not of this length, `Misaligned` where
    /// the offset is no multiple of the length or the memory cannot be used in place.
    ///
    /// # Cancel safety
    /// As [`File::write_all_at`], but all of it or nothing was written.
    pub async fn write_atomic_at<B: Buffer<Write>>(
        &self,
        offset: u64,
        buffer: B,
    ) -> (Result<(), IoError>, B) {
        let len = buffer.byte_len();
        let packet = Packet::<Write, _>::new(buffer);
        let done = self.io(WriteAt::new(offset).atomic(), packet).await;
        self.explain("atomic write", offset, len, done)
    }

    /// The lengths of atomic writes; `None` where the target makes none.
    #[must_use]
    pub fn atomic_unit(&self) -> Option<AtomicWrite> {
        self.shard().inner.core.borrow().targets.get(self.target()).atomic
    }

    /// Says that a simulated target makes atomic writes.
    #[cfg(any(test, feature = "sim"))]
    pub fn assume_atomic(&self, unit: AtomicWrite) {
        let mut core = self.shard().inner.core.borrow_mut();
        core.targets.get_mut(self.target()).atomic = Some(unit);
    }
}
