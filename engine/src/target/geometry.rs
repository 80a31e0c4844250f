//! Reads from an open descriptor what transfers on it must respect.
//!
//! Data flow: descriptor → `fstat`, `statfs`, [`Facts`] → [`Geometry`]. Facts of the
//! descriptor only, never of the path: the path may name something else by now (F44).
//!
//! Not here: opening (`open`), cutting transfers by it (`plan`), where the facts come from
//! (`facts`, `sysfs`).

use core::fmt;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::statfs::fstatfs;

use super::facts::{Bytes, Facts, nowait_trial};

/// The longest op that is planned, in bytes: a direct transfer of more than one bio may answer
/// `EAGAIN` to a submit that must not block, and would then start all over in a kernel worker.
const TRANSFER_BYTES_MAX: u32 = 1 << 20;

/// The alignment in bytes that every known device accepts, where none is told.
const ALIGN_UNKNOWN: u32 = 4096;

/// The kinds of target that have positions and can be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetKind {
    /// A regular file.
    File,
    /// A block device.
    BlockDevice,
    /// An NVMe namespace, driven by commands of its own (`/dev/ngXnY`).
    NvmeNamespace,
}

/// The file system that a target lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// `f_type` of `statfs(2)`; 0 for a block device, which is on none.
    pub magic: u64,
}

const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

impl FileSystem {
    /// No file system: a block device.
    pub const NONE: Self = Self { magic: 0 };

    /// Asks which file system `file` is on.
    pub(crate) fn of(file: &File) -> Result<Self, Errno> {
        let magic = fstatfs(file)?.filesystem_type().0;
        // A known magic number has 32 bits; where the type has no more, it may look negative.
        Ok(Self { magic: u64::try_from(magic).unwrap_or(u64::MAX) & 0xffff_ffff })
    }

    /// The usual name, where it is a known one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.magic {
            0 => "none",
            0xef53 => "ext4",
            0x5846_5342 => "xfs",
            0x9123_683e => "btrfs",
            0xf2f5_2010 => "f2fs",
            0xca45_1a4e => "bcachefs",
            0x2fc1_2fc1 => "zfs",
            0x794c_7630 => "overlayfs",
            0x6573_5546 => "fuse",
            0x6969 => "nfs",
            0x0102_1997 => "9p",
            0x7371_7368 => "squashfs",
            0x9584_58f6 => "hugetlbfs",
            TMPFS_MAGIC => "tmpfs",
            RAMFS_MAGIC => "ramfs",
            _ => "unknown",
        }
    }

    /// Whether data lives in memory only. Nothing measured there says anything of a device:
    /// direct I/O has no alignment rules, and every op goes to a kernel worker.
    #[must_use]
    pub const fn is_tmpfs(self) -> bool {
        matches!(self.magic, TMPFS_MAGIC | RAMFS_MAGIC)
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "unknown" => write!(f, "unknown ({:#x})", self.magic),
            name => f.write_str(name),
        }
    }
}

/// What transfers on one open target must respect, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Geometry {
    /// File or device.
    pub kind: TargetKind,
    /// Length in bytes when it was read; a file may grow.
    pub len_bytes: u64,
    /// The descriptor was opened with `O_DIRECT`.
    pub direct: bool,
    /// Memory of an op starts at a multiple of this many bytes, a power of two; 1 if buffered.
    ///
    /// Never less than `offset_align`, though a device may say that it could be: block drivers
    /// exist that then move data to the wrong place and report success.
    pub mem_align: u32,
    /// Offset and length of an op are multiples of this many bytes, a power of two; 1 if
    /// buffered.
    pub offset_align: u32,
    /// The longest op worth issuing, in bytes; a multiple of `offset_align`.
    pub transfer_bytes_max: u32,
    /// Where the data lives.
    pub file_system: FileSystem,
    /// What else is known. Nothing here changes what a transfer must respect.
    pub facts: Facts,
}

impl Geometry {
    /// That of no file: whatever is aligned as most devices ask for.
    pub(crate) const NOWHERE: Self = Self {
        kind: TargetKind::File,
        len_bytes: 1 << 62,
        direct: true,
        mem_align: 512,
        offset_align: 512,
        transfer_bytes_max: 1 << 20,
        file_system: FileSystem::NONE,
        facts: Facts::UNKNOWN,
    };

    /// Reads the geometry of `file`. Costs a few dozen system calls and one block read without
    /// waiting; nothing is written.
    ///
    /// # Errors
    /// `EINVAL` for what is neither a regular file nor a block device, else the errno of the
    /// call that failed (`fstat`, `fcntl`, `fstatfs`, `ioctl`).
    pub fn of(file: &File) -> Result<Self, Errno> {
        Self::of_with(file, Path::new("/sys"))
    }

    /// That of any file which is used through the page cache, without asking what more is known.
    pub(crate) fn buffered() -> Self {
        Self {
            kind: TargetKind::File,
            len_bytes: 0,
            direct: false,
            mem_align: 1,
            offset_align: 1,
            transfer_bytes_max: TRANSFER_BYTES_MAX,
            file_system: FileSystem::NONE,
            facts: Facts::default(),
        }
    }

    /// As [`Geometry::of`], with another root of sysfs.
    pub(crate) fn of_with(file: &File, sys: &Path) -> Result<Self, Errno> {
        let metadata = file.metadata().map_err(|error| errno_of(&error))?;
        let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
        let direct = flags.contains(OFlag::O_DIRECT);
        let (kind, len_bytes, file_system) = if metadata.is_file() {
            (TargetKind::File, metadata.len(), FileSystem::of(file)?)
        } else if metadata.file_type().is_block_device() {
            // `statfs` would speak of the file system that holds the device's node.
            (TargetKind::BlockDevice, crate::sys::device_bytes(file)?, FileSystem::NONE)
        } else {
            return Err(Errno::EINVAL);
        };
        let mut facts = Facts::of(file, sys);
        let (offset_align, mem_align) = if direct { direct_align(kind, &facts) } else { (1, 1) };
        facts.nowait = nowait_trial(file, mem_align);
        Ok(Self {
            kind,
            len_bytes,
            direct,
            mem_align,
            offset_align,
            transfer_bytes_max: transfer_bytes_max(&facts, direct, offset_align),
            file_system,
            facts,
        })
    }
}

/// The alignments of offset and length, and of memory, that direct I/O needs (F44).
fn direct_align(kind: TargetKind, facts: &Facts) -> (u32, u32) {
    // One mask serves reads and writes, and the memory's rule binds the offset as well.
    let told = facts.direct_offset_bytes.map(|bytes| {
        let read = facts.direct_read_offset_bytes.unwrap_or(0);
        bytes.max(read).max(facts.direct_mem_bytes.unwrap_or(0))
    });
    // Where nothing is told, a device's sector is the whole truth about the device; a file
    // system on it may have chosen a greater block.
    let sector = facts.logical_block_bytes.filter(|_| kind == TargetKind::BlockDevice);
    let told = told.filter(|&bytes| bytes > 0).or(sector);
    // A power of two, because the planner masks with it.
    let offset = told.and_then(u32::checked_next_power_of_two).unwrap_or(ALIGN_UNKNOWN);
    let logical = facts.logical_block_bytes.and_then(u32::checked_next_power_of_two);
    (offset, offset.max(logical.unwrap_or(1)))
}

/// The longest op: what the kernel need not split, because it splits nothing for a submit that
/// must not block.
pub(super) fn transfer_bytes_max(facts: &Facts, direct: bool, offset_align: u32) -> u32 {
    let device = facts.device.filter(|_| direct).and_then(|device| device.transfer_bytes_max);
    let device = device.map_or(u32::MAX, |bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
    let most = TRANSFER_BYTES_MAX.min(device) & !(offset_align - 1);
    most.max(offset_align)
}

/// The errno in an error of `std`.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::BlockDevice => "block device",
            Self::NvmeNamespace => "NVMe namespace",
        })
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.kind, Bytes(self.len_bytes))?;
        if self.kind == TargetKind::File {
            write!(f, " on {}", self.file_system)?;
        }
        if self.direct {
            let (offset, memory) = (self.offset_align.into(), self.mem_align.into());
            write!(f, ", direct: offsets {}, memory {}", Bytes(offset), Bytes(memory))?;
        } else {
            f.write_str(", buffered")?;
        }
        let most = self.transfer_bytes_max.into();
        write!(f, ", ops of up to {}; {}", Bytes(most), self.facts)
    }
}

#[cfg(test)]
#[path = "geometry_tests.rs"]
mod tests;
