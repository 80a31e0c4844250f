//! Finds out which way of making writes durable is the fastest on a target.
//!
//! Data flow: first durable write → scratch file in the target's directory (`O_TMPFILE`, never
//! the user's data) → a few writes by each method → [`SyncReport`], kept for the device.
//!
//! Not here: what the methods are (`target::durability`), using them (`durable`).

use std::fs::File as OsFile;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use mfio_core::{Error, ErrorKind, Packet, PacketIoExt, Write};
use nix::errno::Errno;

use super::core::Core;
use super::durable::WriteAt;
use super::file::{Durability, File};
use crate::buffer::ArenaBuf;
use crate::error::IoError;
use crate::ring::Ring;
use crate::target::{Geometry, MethodReport, SyncMethod, SyncReport, TargetKind};

/// Blocks of the scratch space, and the most writes by each method.
const SAMPLES: usize = 32;

/// The length of one write in bytes.
const BLOCK_BYTES: u32 = 4096;

/// No method is measured for longer than this, in nanoseconds, once it has a few samples.
const METHOD_NS_MAX: u64 = 300_000_000;

const SAMPLES_MIN: usize = 4;

/// The name of scratch space in errors.
const SCRATCH: &str = "scratch space";

impl<R: Ring> File<R> {
    /// How durable writes to this target are made durable, and why so.
    #[must_use]
    pub fn sync_method(&self) -> SyncReport {
        self.shard().inner.core.borrow().targets.get(self.target()).sync
    }

    /// Says how durable writes to this target are to be made durable from now on.
    ///
    /// # Errors
    /// `Unsupported`: [`SyncMethod::Dsync`] needs direct I/O.
    pub fn set_sync_method(&self, method: SyncMethod) -> Result<(), IoError> {
        if method == SyncMethod::Dsync && !self.geometry().direct {
            let error = Error::new(ErrorKind::Unsupported);
            return Err(self.io_error("RWF_DSYNC", 0, 0, 0, error));
        }
        let mut core = self.shard().inner.core.borrow_mut();
        core.targets.get_mut(self.target()).choose_sync_method(method);
        Ok(())
    }

    fn set_report(&self, report: SyncReport) {
        let mut core = self.shard().inner.core.borrow_mut();
        let entry = core.targets.get_mut(self.target());
        entry.set_sync(report);
        entry.sync_known = true;
    }

    /// Whether the method of this target is still to be found out.
    pub(crate) fn wants_calibration(&self) -> bool {
        !self.shard().inner.core.borrow().targets.get(self.target()).sync_known
    }

    /// Measures which method is the fastest for this target, unless that is known of its device
    /// already, and uses it from now on. [`File::write_durable_at`] does so by itself the first
    /// time. Takes up to a second; opening the scratch file blocks as any open does.
    ///
    /// A block device is not measured: see [`File::calibrate_on`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves a linked flush as the method.
    pub async fn calibrate(&self) -> SyncReport {
        // Whoever comes meanwhile uses what works everywhere.
        self.set_report(SyncReport::unmeasured("measuring was not finished"));
        let report = match self.scratch() {
            Err(report) => report,
            Ok((key, scratch)) => {
                let report = self.measure(&scratch, 0).await;
                self.shard().inner.core.borrow_mut().targets.keep_report(key, report);
                report
            }
        };
        self.set_report(report);
        report
    }

    /// As [`File::calibrate`], on the range of the target itself that begins at byte `offset`:
    /// 128 KiB there are overwritten.
    ///
    /// # Errors
    /// As [`File::write_all_at`], for the first writes to the range.
    ///
    /// # Cancel safety
    /// As [`File::calibrate`]; the range is lost in any case.
    pub async fn calibrate_on(&self, offset: u64) -> Result<SyncReport, IoError> {
        self.prepare(self, offset).await?;
        let report = self.measure_methods(self, offset).await;
        self.set_report(report);
        Ok(report)
    }

    /// A file of its own in the target's directory, or what is known without one.
    fn scratch(&self) -> Result<((u64, bool), Self), SyncReport> {
        let none = SyncReport::unmeasured;
        let geometry = self.geometry();
        if geometry.kind != TargetKind::File {
            return Err(none("a block device has no scratch space: give a range of it"));
        }
        let (key, opened) = {
            let core = self.shard().inner.core.borrow();
            let found = core.scratch_of(self.target(), geometry.direct);
            let (key, opened) = found.ok_or(none("no file of this system"))?;
            if let Some(report) = core.targets.kept_report(key) {
                return Err(report);
            }
            (key, opened.ok_or(none("its directory takes no O_TMPFILE"))?)
        };
        let geometry = Geometry::of(&opened).map_err(|_| none("the scratch file is odd"))?;
        let scratch = self.shard().adopt(SCRATCH, opened, geometry);
        self.shard().inner.core.borrow_mut().targets.get_mut(scratch.target()).scratch = true;
        Ok((key, scratch))
    }

    async fn measure(&self, scratch: &Self, offset: u64) -> SyncReport {
        match self.prepare(scratch, offset).await {
            Ok(()) => self.measure_methods(scratch, offset).await,
            Err(_) => SyncReport::unmeasured("the scratch space could not be written"),
        }
    }

    /// One block of what is written, for as long as it is needed.
    fn block(&self) -> Option<ArenaBuf> {
        let len = self.geometry().offset_align.max(BLOCK_BYTES);
        let mut buffer = self.shard().arena().alloc(len as usize)?;
        buffer.fill(0x5a);
        Some(buffer)
    }

    /// Writes all of the space once: writing to it again then changes no metadata.
    async fn prepare(&self, scratch: &Self, offset: u64) -> Result<(), IoError> {
        let mut buffer = scratch.block().ok_or_else(|| {
            scratch.io_error("calibration", offset, 0, 0, Error::os(Errno::ENOMEM as i32))
        })?;
        for at in 0..SAMPLES as u64 {
            let (len, at) = (buffer.len() as u64, offset + at * buffer.len() as u64);
            // With terms, because a write without any is counted, and may bypass the ring.
            let done = scratch.io(WriteAt::new(at), Packet::<Write, _>::new(buffer)).await;
            let (written, back) = scratch.explain("calibration", at, len, done);
            written?;
            buffer = back;
        }
        scratch.sync(Durability::Full).await
    }

    async fn measure_methods(&self, scratch: &Self, offset: u64) -> SyncReport {
        let mut reports = [MethodReport::Untried; 3];
        for (report, method) in reports.iter_mut().zip(SyncMethod::ALL) {
            *report = scratch.measure_method(method, offset).await;
        }
        SyncReport::of(reports)
    }

    async fn measure_method(&self, method: SyncMethod, offset: u64) -> MethodReport {
        if self.set_sync_method(method).is_err() {
            return MethodReport::NeedsDirect;
        }
        let Some(mut buffer) = self.block() else { return MethodReport::Failed(Errno::ENOMEM) };
        let now_ns = || self.shard().inner.core.borrow().ring.now_ns();
        let mut samples_ns = [0; SAMPLES];
        let (start_ns, mut taken) = (now_ns(), 0);
        while taken < SAMPLES {
            let at = offset + (taken * buffer.len()) as u64;
            let before_ns = now_ns();
            let at = WriteAt::new(at).durability(Durability::Data);
            let done = self.io(at, Packet::<Write, _>::new(buffer)).await;
            if let Err(error) = done.result() {
                return MethodReport::Failed(Errno::from_raw(error.errno().unwrap_or(libc::EIO)));
            }
            buffer = done.into_buffer();
            let after_ns = now_ns();
            samples_ns[taken] = after_ns.saturating_sub(before_ns);
            taken += 1;
            if taken >= SAMPLES_MIN && after_ns.saturating_sub(start_ns) > METHOD_NS_MAX {
                break;
            }
        }
        MethodReport::of(&mut samples_ns[..taken])
    }
}

impl<R: Ring> Core<R> {
    /// What reports are kept under for the target's device, and a file without a name beside
    /// the target, if its directory takes one.
    fn scratch_of(&self, target: u32, direct: bool) -> Option<((u64, bool), Option<OsFile>)> {
        let opened = self.targets.get(target).opened.as_ref()?;
        let device = opened.metadata().ok()?.dev();
        let path = std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).ok();
        let folder = path.as_deref().and_then(std::path::Path::parent);
        let flags = libc::O_TMPFILE | if direct { libc::O_DIRECT } else { 0 };
        let mut how = std::fs::OpenOptions::new();
        how.read(true).write(true).mode(0o600).custom_flags(flags);
        let scratch = folder.and_then(|folder| how.open(folder).ok());
        let same = |file: &OsFile| file.metadata().is_ok_and(|metadata| metadata.dev() == device);
        Some(((device, direct), scratch.filter(same)))
    }
}
