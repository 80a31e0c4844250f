//! Options about the memory of buffers.
//!
//! Data flow: row -> setter -> field of `Memory`.
//!
//! Not here: which engine can have which memory (the bench).

use super::{Choice, Kind, Row, row};
use crate::job::MemoryKind;

pub(super) const ROWS: &[Row] = &[
    row(
        "iomem",
        &["mem"],
        Kind::Choice { choices: KINDS, not_yet: &["cudamalloc"] },
        |job| job.memory.kind.as_str().to_owned(),
        "where buffers come from",
    ),
    row(
        "iomem_align",
        &["mem_align"],
        Kind::Number { min: 0, set: |job, value| job.memory.align_bytes = value },
        |job| job.memory.align_bytes.to_string(),
        "alignment of every buffer; 0 is what the engine has",
    ),
    row(
        "hugepage-size",
        &[],
        Kind::Number { min: 1, set: |job, value| job.memory.huge_page_bytes = value },
        |job| job.memory.huge_page_bytes.to_string(),
        "size of the huge pages of shmhuge and mmaphuge",
    ),
    row(
        "lockmem",
        &[],
        Kind::Number { min: 0, set: |job, value| job.memory.lock_bytes = value },
        |job| job.memory.lock_bytes.to_string(),
        "pin so much memory per clone, as if there were less",
    ),
];

const KINDS: &[Choice] = &[
    ("malloc", |job| job.memory.kind = MemoryKind::Malloc),
    ("shm", |job| job.memory.kind = MemoryKind::Shm),
    ("shmhuge", |job| job.memory.kind = MemoryKind::ShmHuge),
    ("mmap", |job| job.memory.kind = MemoryKind::Mmap),
    ("mmaphuge", |job| job.memory.kind = MemoryKind::MmapHuge),
    ("mmapshared", |job| job.memory.kind = MemoryKind::MmapShared),
];
