//! What is known of a target beyond what the planner needs: hints, limits and capabilities.
//!
//! Data flow: descriptor → `statx`, `ioctl`, sysfs, one trial read → [`Facts`]. Everything is
//! an `Option`: what is not told is not guessed, and nothing here fails an open.
//!
//! Not here: the rules that transfers must follow (`geometry`), judging them (`doctor`).

use core::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mfio_core::ErrorKind;
use nix::errno::Errno;
use nix::sys::stat::{major, minor};

use super::nvme::NvmeFacts;
use super::sysfs::Device;
use crate::sys;

/// A write that is kept or lost as a whole when the power fails (`RWF_ATOMIC`, Linux 6.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomicWrite {
    /// The least length in bytes, a power of two.
    pub min_bytes: u32,
    /// The greatest length in bytes, a power of two.
    pub max_bytes: u32,
    /// The most pieces of memory that it may be gathered from.
    pub segments_max: u32,
}

impl AtomicWrite {
    /// Whether a write of this shape can be one: its length a power of two between the two
    /// limits, its offset a multiple of its length.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for the length, [`ErrorKind::Misaligned`] for the offset.
    pub fn check(self, offset_bytes: u64, len_bytes: u64) -> Result<(), ErrorKind> {
        let range = u64::from(self.min_bytes)..=u64::from(self.max_bytes);
        if !len_bytes.is_power_of_two() || !range.contains(&len_bytes) {
            return Err(ErrorKind::Unsupported);
        }
        if !offset_bytes.is_multiple_of(len_bytes) {
            return Err(ErrorKind::Misaligned);
        }
        Ok(())
    }
}

/// What is known of a target. `None`: neither the kernel nor the file system says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// Alignment of memory for direct I/O as the file system tells it, in bytes
    /// (`STATX_DIOALIGN`, Linux 6.1). The planner may demand more.
    pub direct_mem_bytes: Option<u32>,
    /// Alignment of offset and length of direct writes, and of reads where
    /// `direct_read_offset_bytes` says nothing else.
    pub direct_offset_bytes: Option<u32>,
    /// Alignment of offset and length of direct reads, where it differs
    /// (`STATX_DIO_READ_ALIGN`, Linux 6.14).
    pub direct_read_offset_bytes: Option<u32>,
    /// The unit of addressing of the device, in bytes (`BLKSSZGET`, or its queue).
    pub logical_block_bytes: Option<u32>,
    /// What the device writes without reading first, in bytes (`BLKPBSZGET`, or its queue).
    pub physical_block_bytes: Option<u32>,
    /// Writes that can be atomic (`STATX_WRITE_ATOMIC`, Linux 6.11); `None` also where it is
    /// told that there are none.
    pub atomic_write: Option<AtomicWrite>,
    /// Reads can be submitted without blocking. Where they cannot, io_uring hands every op to
    /// a kernel worker: it is punted. Found out by reading the first block with `RWF_NOWAIT`;
    /// `None` where the target is not open for reading, or the trial proved nothing.
    ///
    /// Of an empty or sparse file it tells about the file system alone.
    pub nowait: Option<bool>,
    /// The file is memory that is mapped (`STATX_ATTR_DAX`).
    pub dax: Option<bool>,
    /// The disk below; `None` for a file system without one, or of several.
    pub device: Option<Device>,
    /// What the namespace says of itself, where it is driven by NVMe commands.
    pub nvme: Option<NvmeFacts>,
}

impl Facts {
    /// Nothing is known: a simulated target.
    pub const UNKNOWN: Self = Self {
        direct_mem_bytes: None,
        direct_offset_bytes: None,
        direct_read_offset_bytes: None,
        logical_block_bytes: None,
        physical_block_bytes: None,
        atomic_write: None,
        nowait: None,
        dax: None,
        device: None,
        nvme: None,
    };

    /// Asks the kernel, and `sys`, which is `/sys` except in tests, about all but `nowait`.
    /// Costs about twenty small reads in sysfs.
    pub(crate) fn of(file: &File, sys: &Path) -> Self {
        let told = sys::statx(file);
        let metadata = file.metadata().ok();
        let device = metadata.and_then(|metadata| {
            let is_device = sys::sector_bytes(file).is_ok();
            let number = if is_device { metadata.rdev() } else { metadata.dev() };
            Device::read(sys, major(number), minor(number))
        });
        let queue = |of: fn(&Device) -> Option<u32>| device.as_ref().and_then(of);
        let logical = sys::sector_bytes(file).ok();
        let physical = sys::physical_block_bytes(file).ok();
        Self {
            direct_mem_bytes: told.direct.map(|direct| direct.mem_bytes),
            direct_offset_bytes: told.direct.map(|direct| direct.offset_bytes),
            direct_read_offset_bytes: told.read_offset_bytes.filter(|&bytes| bytes > 0),
            logical_block_bytes: logical.or_else(|| queue(|device| device.logical_block_bytes)),
            physical_block_bytes: physical.or_else(|| queue(|device| device.physical_block_bytes)),
            atomic_write: told.atomic.filter(|atomic| atomic.max_bytes > 0).map(|atomic| {
                AtomicWrite {
                    min_bytes: atomic.min_bytes,
                    max_bytes: atomic.max_bytes,
                    segments_max: atomic.segments_max,
                }
            }),
            nowait: None,
            dax: told.dax,
            device,
            nvme: None,
        }
    }

    /// Whether io_uring must be expected to punt every op; `None` where it is not known.
    #[must_use]
    pub fn punts(&self) -> Option<bool> {
        self.nowait.map(|nowait| !nowait)
    }

    /// Whether completed writes may be lost with the power until they are flushed. `None`
    /// where no single device could be asked: then assume it.
    #[must_use]
    pub fn volatile_cache(&self) -> Option<bool> {
        let told = self.nvme.map(|nvme| nvme.volatile_cache);
        told.or_else(|| self.device.and_then(|device| device.volatile_cache))
    }

    /// Whether a single write can be made durable without flushing all others.
    #[must_use]
    pub fn fua(&self) -> Option<bool> {
        // Every write command has the bit.
        let told = self.nvme.map(|_| true);
        told.or_else(|| self.device.and_then(|device| device.fua))
    }
}

/// Reads the first `align` bytes of `file` without waiting. An answer of any kind but "not
/// supported" shows that the kernel can; an error that has other causes shows nothing.
pub(super) fn nowait_trial(file: &File, align: u32) -> Option<bool> {
    let align = align.max(512) as usize;
    let mut memory = vec![0_u8; 2 * align];
    let start = memory.as_ptr().align_offset(align);
    let block = memory.get_mut(start..start + align)?;
    match sys::read_nowait(file, block) {
        Ok(_) | Err(Errno::EAGAIN) => Some(true),
        Err(Errno::EOPNOTSUPP) => Some(false),
        Err(_) => None,
    }
}

/// A number of bytes with the greatest binary unit that divides it.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let divides = |&(unit, _): &(u64, &str)| self.0 >= unit && self.0.is_multiple_of(unit);
        match units.into_iter().find(divides) {
            Some((unit, name)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = "unknown";
        let nowait = match self.nowait {
            Some(true) => "ops need not be punted",
            Some(false) => "every op is punted",
            None => "punting unknown",
        };
        f.write_str(nowait)?;
        if let Some(atomic) = self.atomic_write {
            let (min, max) = (atomic.min_bytes.into(), atomic.max_bytes.into());
            write!(f, ", atomic writes of {} to {}", Bytes(min), Bytes(max))?;
        }
        let Some(device) = self.device else { return f.write_str(", no single device") };
        write!(f, ", device {}", device.name)?;
        if let Some(model) = device.model {
            write!(f, " ({model})")?;
        }
        let cache = match device.volatile_cache {
            Some(true) => "volatile cache",
            Some(false) => "no volatile cache",
            None => "cache unknown",
        };
        let fua = if device.fua == Some(true) { " with FUA" } else { "" };
        let scheduler = device.scheduler.as_ref().map_or(unknown, |label| label.as_str());
        write!(f, ": {cache}{fua}, scheduler {scheduler}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_at_their_own_multiples_are_atomic() {
        let unit = AtomicWrite { min_bytes: 4096, max_bytes: 65536, segments_max: 1 };
        assert_eq!(unit.check(8192, 8192), Ok(()));
        assert_eq!(unit.check(4096, 8192), Err(ErrorKind::Misaligned));
        for len in [0, 512, 12288, 131_072] {
            assert_eq!(unit.check(0, len), Err(ErrorKind::Unsupported), "{len}");
        }
    }
}
