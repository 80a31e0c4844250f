//! The small value types a job is made of.
//!
//! Data flow: `options` parses text into these -> the bench reads them.
//!
//! Not here: their parsing (`options`) and how they depend on one another (`job::validate`).

/// Direction and pattern of a job's I/O (`rw=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rw {
    /// Sequential reads.
    Read,
    /// Sequential writes.
    Write,
    /// Random reads.
    RandRead,
    /// Random writes.
    RandWrite,
    /// Sequential reads and writes, mixed.
    ReadWrite,
    /// Random reads and writes, mixed.
    RandRw,
}

impl Rw {
    /// Whether the job reads.
    #[must_use]
    pub const fn reads(self) -> bool {
        !matches!(self, Self::Write | Self::RandWrite)
    }

    /// Whether the job writes.
    #[must_use]
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::RandRead)
    }

    /// Whether offsets are random.
    #[must_use]
    pub const fn is_random(self) -> bool {
        matches!(self, Self::RandRead | Self::RandWrite | Self::RandRw)
    }

    /// fio's canonical word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::RandRead => "randread",
            Self::RandWrite => "randwrite",
            Self::ReadWrite => "rw",
            Self::RandRw => "randrw",
        }
    }
}

/// One block size for each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Size of a read.
    pub read_bytes: u64,
    /// Size of a write.
    pub write_bytes: u64,
    /// Size of a trim.
    pub trim_bytes: u64,
}

impl BlockSizes {
    /// The smallest block this pattern issues: the unit regions are rounded to.
    #[must_use]
    pub fn min_bytes(self, rw: Rw) -> u64 {
        match (rw.reads(), rw.writes()) {
            (true, true) => self.read_bytes.min(self.write_bytes),
            (false, _) => self.write_bytes,
            (true, false) => self.read_bytes,
        }
    }
}

/// An amount that may be relative to the size of the file or device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// That many bytes.
    Bytes(u64),
    /// That many percent (1 to 100) of the target's size.
    Percent(u8),
}

impl Extent {
    /// The bytes meant for a target of `whole_bytes`, rounded down to whole `unit_bytes`
    /// where a percentage was given.
    #[must_use]
    pub fn resolve(self, whole_bytes: u64, unit_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => {
                let exact = u128::from(whole_bytes) * u128::from(percent) / 100;
                let bytes = u64::try_from(exact).unwrap_or(u64::MAX);
                bytes - bytes % unit_bytes.max(1)
            }
        }
    }
}

/// Which of our engines runs the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoEngine {
    /// The engine crate on io_uring.
    IoUring,
    /// A bare io_uring loop, the yardstick the engine is measured against.
    RawUring,
    /// One blocking pread or pwrite at a time.
    Psync,
    /// Completes everything without doing anything.
    Null,
}

impl IoEngine {
    /// Whether every I/O completes inside its submission, so that depth and slat do not exist.
    #[must_use]
    pub const fn is_synchronous(self) -> bool {
        matches!(self, Self::Psync)
    }

    /// The canonical name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::RawUring => "raw_uring",
            Self::Psync => "psync",
            Self::Null => "null",
        }
    }
}

/// How written data is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Not at all.
    None,
    /// A header with a CRC-32C of the block.
    Crc32c,
}

impl Verify {
    /// fio's canonical word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Crc32c => "crc32c",
        }
    }
}
