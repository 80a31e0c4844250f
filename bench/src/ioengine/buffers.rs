//! One aligned buffer per slot, in safe code.
//!
//! A length and a count go in, slices come out that `O_DIRECT` accepts, in memory of the kind
//! that the job asks for. For engines whose transfers happen inside a call; rings that transfer
//! behind our back own their memory themselves.
//!
//! Not here: registered memory (`raw_uring`, and the arena of `mfio-engine`).

use std::io;

use fio_compat::{Memory, MemoryKind};

use super::raw_uring::Mapping;

/// Alignment that every block device and file system accepts.
pub(crate) const ALIGN_BYTES: usize = 4096;

/// The alignment of every buffer of a job.
pub(crate) fn align_bytes(memory: &Memory) -> usize {
    usize::try_from(memory.align_bytes).unwrap_or(usize::MAX).max(ALIGN_BYTES)
}

/// Where the bytes are.
enum Storage {
    Heap(Vec<u8>),
    Mapped(Mapping),
}

/// Aligned memory, cut into equal slots.
pub(crate) struct SlotBuffers {
    storage: Storage,
    first: usize,
    stride: usize,
    len: usize,
}

impl SlotBuffers {
    /// `slots` buffers of `len_bytes` each, zeroed.
    ///
    /// # Errors
    /// There is no such memory; the text says what to do.
    pub(crate) fn new(slots: u32, len_bytes: u32, memory: &Memory) -> io::Result<Self> {
        let (len, align) = (len_bytes as usize, align_bytes(memory));
        let stride = len.next_multiple_of(align).max(align);
        let whole = stride.checked_mul(slots as usize).and_then(|bytes| bytes.checked_add(align));
        let whole = whole.ok_or(io::ErrorKind::OutOfMemory)?;
        let mut storage = match memory.kind {
            MemoryKind::Malloc => Storage::Heap(vec![0_u8; whole]),
            _ => Storage::Mapped(Mapping::new(whole, memory)?),
        };
        let first = storage.bytes().as_ptr().align_offset(align);
        Ok(Self { storage, first, stride, len })
    }

    /// The memory of one slot.
    #[inline]
    pub(crate) fn slot(&mut self, slot: u32) -> &mut [u8] {
        let at = self.first + slot as usize * self.stride;
        let end = at + self.len;
        &mut self.storage.bytes()[at..end]
    }
}

impl Storage {
    #[inline]
    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(mapping) => mapping.bytes(),
        }
    }
}

/// Memory that is pinned and used for nothing (`lockmem`).
pub(crate) struct Locked(
    #[allow(dead_code, reason = "it is pinned until it is dropped")] Option<Mapping>,
);

impl Locked {
    /// So many bytes; 0 pins nothing.
    ///
    /// # Errors
    /// The system refuses to pin them; the text says what to raise.
    pub(crate) fn new(bytes: u64) -> io::Result<Self> {
        if bytes == 0 {
            return Ok(Self(None));
        }
        let refused = |error: io::Error| {
            let reason = crate::plan::reason(&error);
            io::Error::other(format!(
                "lockmem={bytes}: {reason}; raise the limit (ulimit -l, RLIMIT_MEMLOCK) or \
                 lock less"
            ))
        };
        let len = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut mapping = Mapping::new(len, &Memory::default()).map_err(refused)?;
        mapping.lock().map_err(refused)?;
        Ok(Self(Some(mapping)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iomem_align_holds_for_every_buffer_of_every_iomem() {
        let kinds = [MemoryKind::Malloc, MemoryKind::Shm, MemoryKind::Mmap, MemoryKind::MmapShared];
        for (kind, align) in kinds.into_iter().flat_map(|kind| [(kind, 0_u64), (kind, 1 << 16)]) {
            let memory = Memory { kind, align_bytes: align, ..Memory::default() };
            let mut buffers = SlotBuffers::new(3, 5000, &memory).unwrap();
            let align = usize::try_from(align).unwrap().max(ALIGN_BYTES);
            for slot in 0..3 {
                let bytes = buffers.slot(slot);
                assert_eq!(bytes.len(), 5000);
                assert_eq!(bytes.as_ptr().align_offset(align), 0, "{kind:?} {align}");
                assert!(bytes.iter().all(|byte| *byte == 0));
                bytes.fill(1 + u8::try_from(slot).unwrap());
            }
            assert!(buffers.slot(0).iter().all(|byte| *byte == 1));
        }
    }

    #[test]
    fn hugepage_size_that_the_kernel_does_not_have_is_named() {
        let sizes = [(1_u64 << 34, "has no huge pages of 16777216 KiB"), (16 << 10, "16 KiB")];
        for (huge_page_bytes, told) in sizes {
            let kind = MemoryKind::MmapHuge;
            let memory = Memory { kind, huge_page_bytes, ..Memory::default() };
            let error = SlotBuffers::new(1, 4096, &memory).err().unwrap().to_string();
            assert!(error.contains(told) && error.contains("iomem=mmap"), "{error}");
        }
    }
}
