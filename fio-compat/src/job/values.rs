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
    /// Sequential trims.
    Trim,
    /// Random trims.
    RandTrim,
    /// Every block is trimmed and then written, in order.
    TrimWrite,
    /// The same at random.
    RandTrimWrite,
}

impl Rw {
    /// Whether the job reads.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::RandRead | Self::ReadWrite | Self::RandRw)
    }

    /// Whether the job changes its target: writes or trims.
    #[must_use]
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::RandRead)
    }

    /// Whether the job trims.
    #[must_use]
    pub const fn trims(self) -> bool {
        matches!(self, Self::Trim | Self::RandTrim | Self::TrimWrite | Self::RandTrimWrite)
    }

    /// Whether the job writes data: changes its target otherwise than by trimming.
    #[must_use]
    pub const fn writes_data(self) -> bool {
        self.writes() && !matches!(self, Self::Trim | Self::RandTrim)
    }

    /// Whether offsets are random.
    #[must_use]
    pub const fn is_random(self) -> bool {
        matches!(
            self,
            Self::RandRead | Self::RandWrite | Self::RandRw | Self::RandTrim | Self::RandTrimWrite
        )
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
            Self::Trim => "trim",
            Self::RandTrim => "randtrim",
            Self::TrimWrite => "trimwrite",
            Self::RandTrimWrite => "randtrimwrite",
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
        let used = [rw.reads(), rw.writes_data(), rw.trims()];
        let sizes = [self.read_bytes, self.write_bytes, self.trim_bytes];
        let used = used.into_iter().zip(sizes).filter(|(used, _)| *used);
        used.map(|(_, bytes)| bytes).min().unwrap_or(0)
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
    /// The engine crate, each I/O a no-op of io_uring: what the engine costs by itself.
    Nop,
    /// The bare loop, likewise: the yardstick for that.
    RawNop,
}

impl IoEngine {
    /// Whether every I/O completes inside its submission, so that depth and slat do not exist.
    #[must_use]
    pub const fn is_synchronous(self) -> bool {
        matches!(self, Self::Psync)
    }

    /// Whether I/O goes to files at all.
    #[must_use]
    pub const fn moves_data(self) -> bool {
        !matches!(self, Self::Null | Self::Nop | Self::RawNop)
    }

    /// The canonical name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::RawUring => "raw_uring",
            Self::Psync => "psync",
            Self::Null => "null",
            Self::Nop => "nop",
            Self::RawNop => "raw_nop",
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
    /// The same with md5.
    Md5,
    /// The same with crc64.
    Crc64,
    /// The same with crc32.
    Crc32,
    /// The same with crc16.
    Crc16,
    /// The same with crc7.
    Crc7,
    /// The same with sha1.
    Sha1,
    /// The same with sha256.
    Sha256,
    /// The same with sha512.
    Sha512,
    /// The same with sha3-224.
    Sha3_224,
    /// The same with sha3-256.
    Sha3_256,
    /// The same with sha3-384.
    Sha3_384,
    /// The same with sha3-512.
    Sha3_512,
    /// The same with xxhash.
    Xxhash,
    /// A header alone.
    Meta,
    /// The bytes of `verify_pattern`, without a header.
    Pattern,
    /// A header and the bytes of `verify_pattern`.
    PatternHeader,
    /// Reads back and checks nothing.
    Null,
}

impl Verify {
    /// fio's canonical word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Crc32c => "crc32c",
            Self::Md5 => "md5",
            Self::Crc64 => "crc64",
            Self::Crc32 => "crc32",
            Self::Crc16 => "crc16",
            Self::Crc7 => "crc7",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Sha3_224 => "sha3-224",
            Self::Sha3_256 => "sha3-256",
            Self::Sha3_384 => "sha3-384",
            Self::Sha3_512 => "sha3-512",
            Self::Xxhash => "xxhash",
            Self::Meta => "meta",
            Self::Pattern => "pattern",
            Self::PatternHeader => "pattern_hdr",
            Self::Null => "null",
        }
    }
}
