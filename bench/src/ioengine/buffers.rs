//! One aligned buffer per slot, in safe code.
//!
//! A length and a count go in, slices come out that `O_DIRECT` accepts. For engines whose
//! transfers happen inside a call; rings that transfer behind our back own their memory
//! themselves.
//!
//! Not here: registered memory (`raw_uring`, and the arena of `mfio-engine`).

/// Alignment that every block device and file system accepts.
pub(crate) const ALIGN_BYTES: usize = 4096;

/// Page-aligned memory, cut into equal slots.
pub(crate) struct SlotBuffers {
    storage: Vec<u8>,
    first: usize,
    stride: usize,
    len: usize,
}

impl SlotBuffers {
    /// `slots` buffers of `len_bytes` each, zeroed.
    pub(crate) fn new(slots: u32, len_bytes: u32) -> Self {
        let len = len_bytes as usize;
        let stride = len.next_multiple_of(ALIGN_BYTES).max(ALIGN_BYTES);
        let storage = vec![0_u8; stride * slots as usize + ALIGN_BYTES];
        let first = storage.as_ptr().align_offset(ALIGN_BYTES);
        Self { storage, first, stride, len }
    }

    /// The memory of one slot.
    #[inline]
    pub(crate) fn slot(&mut self, slot: u32) -> &mut [u8] {
        let at = self.first + slot as usize * self.stride;
        &mut self.storage[at..at + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_lengths_are_aligned_and_disjoint() {
        let mut buffers = SlotBuffers::new(3, 5000);
        for slot in 0..3 {
            let memory = buffers.slot(slot);
            assert_eq!(memory.len(), 5000);
            assert_eq!(memory.as_ptr().align_offset(ALIGN_BYTES), 0);
            assert!(memory.iter().all(|byte| *byte == 0));
            memory.fill(1 + u8::try_from(slot).unwrap());
        }
        assert!(buffers.slot(0).iter().all(|byte| *byte == 1));
    }
}
