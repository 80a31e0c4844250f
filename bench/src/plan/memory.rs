//! Whether the engine of a job can have the memory that the job asks for.
//!
//! Data flow: `Job` -> nothing, or one line.
//!
//! Not here: whether the kernel has such memory (`ioengine`).

use fio_compat::{IoEngine, Job, Memory};

/// The alignment that the engine's arena gives every buffer.
const ARENA_ALIGN_BYTES: u64 = 4096;
/// The huge pages it knows.
const ARENA_HUGE_PAGE_BYTES: u64 = 2 << 20;

/// Refuses what the engine does not have: its arena is private memory that it maps itself.
///
/// # Errors
/// One line.
pub(super) fn check(job: &Job) -> Result<(), String> {
    if job.ioengine != IoEngine::IoUring {
        return Ok(());
    }
    let Memory { kind, align_bytes, huge_page_bytes, .. } = job.memory;
    let engine = &job.ioengine_requested;
    if kind.is_shared() {
        return Err(format!(
            "ioengine={engine} has an arena of private memory, not iomem={}; use iomem=mmap or \
             mmaphuge, or ioengine=raw_uring or psync",
            kind.as_str()
        ));
    }
    if align_bytes > ARENA_ALIGN_BYTES {
        return Err(format!(
            "ioengine={engine} aligns buffers to {ARENA_ALIGN_BYTES} bytes, not \
             iomem_align={align_bytes}; use less, or ioengine=raw_uring or psync"
        ));
    }
    if kind.is_huge() && huge_page_bytes != ARENA_HUGE_PAGE_BYTES {
        return Err(format!(
            "ioengine={engine} knows huge pages of {ARENA_HUGE_PAGE_BYTES} bytes, not \
             hugepage-size={huge_page_bytes}; use ioengine=raw_uring or psync"
        ));
    }
    Ok(())
}
