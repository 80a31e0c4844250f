//! Which options of an open contradict each other, or what is opened.
//!
//! Data flow: [`OpenOptions`] → what they must be instead, or nothing.
//!
//! Not here: the options themselves, and opening (`open`).

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::durability::{SyncMethod, write_through_flags};
use super::geometry::{Geometry, TargetKind};
use super::guard::DeviceWrite;
use super::open::{DirectMode, OpenOptions};
use super::refusal::OpenError;
use crate::ring::{Poll, Transfers};

fn refused(path: &Path, must: &'static str) -> Result<(), OpenError> {
    Err(OpenError::Options { path: path.to_owned(), must })
}

impl OpenOptions {
    /// Sets how reads and writes are asked for.
    #[must_use]
    pub const fn transfers(self, transfers: Transfers) -> Self {
        Self { transfers, ..self }
    }

    /// Looks for what contradicts itself, before anything is touched.
    pub(super) fn validate(&self, path: &Path) -> Result<(), OpenError> {
        let buffered = self.direct == DirectMode::Buffered;
        let must = if path.as_os_str().as_bytes().contains(&0) {
            "name a path without a NUL byte"
        } else if !self.read && !self.write {
            "ask for reading or writing"
        } else if self.create && !self.write {
            "ask for writing where a file is to be made"
        } else if self.device_write != DeviceWrite::Refuse && !self.write {
            "ask for writing where writing to a device is allowed"
        } else if self.sync_method == Some(SyncMethod::Dsync) && buffered {
            "ask for direct I/O where writes flush themselves (RWF_DSYNC)"
        } else if self.poll != Poll::Interrupt && buffered {
            "ask for direct I/O where completions are polled for"
        } else if self.poll != Poll::Interrupt && self.transfers.is_flagged() {
            "ask for completions by interrupt where transfers carry flags"
        } else if self.transfers.uncached && !buffered {
            "ask for buffered I/O where nothing is to stay in the page cache (RWF_DONTCACHE)"
        } else if self.transfers.atomic && buffered {
            "ask for direct I/O where writes are atomic (RWF_ATOMIC)"
        } else if self.transfers.stream > 0 && buffered {
            "ask for direct I/O where writes go to a stream"
        } else if self.mode & !0o7777 != 0 {
            "give permission bits only, at most 0o7777, as the mode"
        } else {
            return Ok(());
        };
        refused(path, must)
    }

    /// Files and block devices take no NVMe commands.
    pub(super) fn check_file(&self, path: &Path) -> Result<(), OpenError> {
        if self.transfers.is_fua() {
            let must = "ask for FUA only where the target is an NVMe namespace (/dev/ngXnY)";
            return refused(path, must);
        }
        Ok(())
    }

    /// Whether the device has the stream that is asked for; a file has none.
    pub(super) fn check_stream(&self, path: &Path, geometry: &Geometry) -> Result<(), OpenError> {
        let device = geometry.facts.device.as_ref();
        let streams = device.and_then(|device| device.write_streams_max).unwrap_or(0);
        if self.transfers.stream == 0 {
            Ok(())
        } else if geometry.kind != TargetKind::BlockDevice || !geometry.direct {
            refused(path, "name a block device that takes direct I/O where writes go to a stream")
        } else if u32::from(self.transfers.stream) > streams {
            refused(path, "ask for a stream that the device has (its queue/max_write_streams)")
        } else {
            Ok(())
        }
    }

    /// Commands know nothing of the flags of an open file.
    pub(super) fn check_namespace(&self, path: &Path) -> Result<(), OpenError> {
        if write_through_flags(self.write_through) != 0 {
            let must = "ask for durability with each write, where the target is an NVMe namespace";
            return refused(path, must);
        }
        if self.transfers.is_flagged() {
            let must = "ask for no flags of transfers, where the target is an NVMe namespace";
            return refused(path, must);
        }
        Ok(())
    }
}

/// The ring has registered a file without the flags that were asked for.
pub(crate) fn not_flagged(path: &Path) -> OpenError {
    let must = "use io_uring: blocking threads know no uncached, nowait, atomic or forced ops";
    OpenError::Options { path: path.to_owned(), must }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::sysfs::Device;

    #[test]
    fn stream_is_one_of_the_device() {
        let stream = |stream| {
            let options = OpenOptions::new().transfers(Transfers { stream, ..Transfers::USUAL });
            move |geometry: &Geometry| options.check_stream(Path::new("d"), geometry).is_ok()
        };
        let mut geometry = Geometry { kind: TargetKind::BlockDevice, ..Geometry::NOWHERE };
        // A queue that does not say, one without streams, and one with four.
        for (max, last) in [(None, 0), (Some(0), 0), (Some(4), 4)] {
            let mut device = Device::named("d");
            device.write_streams_max = max;
            geometry.facts.device = Some(device);
            assert!(stream(last)(&geometry));
            assert!(!stream(last + 1)(&geometry));
        }
        assert!(!stream(1)(&Geometry { kind: TargetKind::File, ..geometry }));
        assert!(!stream(1)(&Geometry { direct: false, ..geometry }));
        assert!(stream(0)(&Geometry { direct: false, kind: TargetKind::File, ..geometry }));
    }
}
