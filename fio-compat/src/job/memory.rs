//! The memory of a job's buffers.
//!
//! Data flow: `options` parses text into these -> the bench's engines allocate accordingly.
//!
//! Not here: which engine can have which memory (the bench's `plan`).

use crate::error::ParseError;

use super::Job;

/// Where buffers come from (`iomem`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryKind {
    /// The allocator, or the engine's own arena.
    #[default]
    Malloc,
    /// Shared memory.
    Shm,
    /// Shared memory on huge pages.
    ShmHuge,
    /// An anonymous private mapping.
    Mmap,
    /// The same on huge pages.
    MmapHuge,
    /// An anonymous shared mapping.
    MmapShared,
}

impl MemoryKind {
    /// fio's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malloc => "malloc",
            Self::Shm => "shm",
            Self::ShmHuge => "shmhuge",
            Self::Mmap => "mmap",
            Self::MmapHuge => "mmaphuge",
            Self::MmapShared => "mmapshared",
        }
    }

    /// Whether it lies on huge pages.
    #[must_use]
    pub const fn is_huge(self) -> bool {
        matches!(self, Self::ShmHuge | Self::MmapHuge)
    }

    /// Whether it is shared, as the kernel sees it.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Shm | Self::ShmHuge | Self::MmapShared)
    }
}

/// The size of huge pages unless the job says otherwise.
const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// Everything above, for one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Where buffers come from.
    pub kind: MemoryKind,
    /// Alignment of every buffer in bytes; 0 is what the engine has (at least 4096 for blocks
    /// of that size).
    pub align_bytes: u64,
    /// Size of a huge page, for the kinds that have them.
    pub huge_page_bytes: u64,
    /// Pin so much memory beside the buffers, per clone.
    pub lock_bytes: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            kind: MemoryKind::Malloc,
            align_bytes: 0,
            huge_page_bytes: HUGE_PAGE_BYTES,
            lock_bytes: 0,
        }
    }
}

impl Job {
    /// Refuses sizes that no memory has.
    pub(super) fn check_memory(&self) -> Result<(), ParseError> {
        let Memory { align_bytes, huge_page_bytes, .. } = self.memory;
        if align_bytes > 0 && !align_bytes.is_power_of_two() || align_bytes > 1 << 30 {
            let message =
                format!("an alignment of {align_bytes} bytes is no power of two up to 1g");
            let error = self.error("iomem_align", message);
            return Err(error.with_remedy("write iomem_align=4k, or another power of two"));
        }
        if !huge_page_bytes.is_power_of_two() || huge_page_bytes < 16 << 10 {
            let message = format!("no huge page has {huge_page_bytes} bytes");
            let error = self.error("hugepage-size", message);
            return Err(error.with_remedy("write hugepage-size=2m or hugepage-size=1g"));
        }
        Ok(())
    }
}
