//! How all transfers of one file are asked for, besides their place.
//!
//! Data flow: [`OpenOptions::transfers`](crate::OpenOptions) → the ring, where the file is
//! registered → flags of each SQE, or of each NVMe command. What is usual costs nothing: a file
//! with flags is one that is served beside the main queue's files.
//!
//! Not here: durability and priority of single ops (`Op`).

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// `RWF_DONTCACHE` of `<linux/fs.h>` (Linux 6.14).
const RWF_DONTCACHE: i32 = 0x80;

/// In which order a file is going to be read, for the read-ahead of the page cache
/// (`posix_fadvise(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Front to back: more is read ahead.
    Sequential,
    /// In no order: nothing is read ahead.
    Random,
}

/// How the reads and writes of a file are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfers {
    /// What the page cache is told of the reads to come; `None` tells it nothing. Advice: a file
    /// system that does not take it reads as it always does.
    pub access: Option<Access>,
    /// What goes through the page cache does not stay there (`RWF_DONTCACHE`, Linux 6.14). A
    /// file system without it answers `EOPNOTSUPP`. Not with direct I/O.
    pub uncached: bool,
    /// A transfer that would have to wait ends with `EAGAIN`, at once (`RWF_NOWAIT`). What has
    /// been moved until then has been. Some file systems refuse such writes (`EOPNOTSUPP`).
    pub nowait: bool,
    /// A write is kept or lost as a whole (`RWF_ATOMIC`, Linux 6.11): the kernel refuses those
    /// that it cannot promise this of (`EINVAL`, `EOPNOTSUPP`).
    pub atomic: bool,
    /// Every so many transfers go straight to a worker of the kernel (`IOSQE_ASYNC`); 0 is none.
    pub async_every: u32,
    /// Which writes the device keeps together, and apart from those of other streams: data that
    /// will be discarded at the same time, so that nothing has to be moved when it is (flexible
    /// data placement; Linux 6.16). From 1 to `queue/max_write_streams`; 0 names none. Of block
    /// devices, with direct I/O.
    pub stream: u8,
    /// Reads of an NVMe namespace come from its medium (FUA).
    pub read_fua: bool,
    /// Writes to an NVMe namespace complete on its medium (FUA).
    pub write_fua: bool,
}

impl Transfers {
    /// As usual.
    pub const USUAL: Self = Self {
        access: None,
        uncached: false,
        nowait: false,
        atomic: false,
        async_every: 0,
        stream: 0,
        read_fua: false,
        write_fua: false,
    };

    /// Whether SQEs carry something on account of this.
    #[must_use]
    pub const fn is_flagged(&self) -> bool {
        self.uncached || self.nowait || self.atomic || self.async_every > 0 || self.stream > 0
    }

    /// Whether NVMe commands do.
    #[must_use]
    pub const fn is_fua(&self) -> bool {
        self.read_fua || self.write_fua
    }

    /// The flags of `preadv2(2)` for a read, or of `pwritev2(2)` for a write.
    pub(crate) const fn flags(&self, is_read: bool) -> i32 {
        let uncached = if self.uncached { RWF_DONTCACHE } else { 0 };
        let nowait = if self.nowait { libc::RWF_NOWAIT } else { 0 };
        let atomic = if self.atomic && !is_read { libc::RWF_ATOMIC } else { 0 };
        uncached | nowait | atomic
    }

    /// Gives the page cache its advice.
    pub(crate) fn advise(&self, file: &std::fs::File) {
        let advice = match self.access {
            None => return,
            Some(Access::Random) => PosixFadviseAdvice::POSIX_FADV_RANDOM,
            Some(Access::Sequential) => PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL,
        };
        let _advice = posix_fadvise(file, 0, 0, advice);
    }
}
