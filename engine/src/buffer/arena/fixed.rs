//! The memory of nearly every op: bytes of the arena that lie in a fixed buffer.
//!
//! Data flow: address and length → [`Pieces::fixed`] → [`FixedBytes`] → SQE; what a slot keeps of
//! it is an [`Extent`], of which, with the address, comes a [`MemRange`] again.
//!
//! Not here: memory of any other kind, and who owns it (`super`).

use core::ptr::NonNull;

use super::{MemRange, PIECE_BYTES};

/// The registered pieces of a region, copied out of it to be at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces {
    pub(super) base: usize,
    pub(super) registered_bytes: usize,
}

impl Pieces {
    /// Bytes of the region of these pieces, all of which are registered; as such they do not
    /// straddle two of them. For others, the kernel would answer `EFAULT`.
    #[inline(always)]
    pub(crate) fn fixed(&self, ptr: NonNull<u8>, len_bytes: u32) -> FixedBytes {
        let start = ptr.addr().get().wrapping_sub(self.base);
        #[allow(clippy::cast_possible_truncation, reason = "below INDEXED_BYTES_MAX")]
        let buf_index = (start as u64 / PIECE_BYTES) as u16;
        debug_assert!(start + len_bytes as usize <= self.registered_bytes, "a range of the region");
        FixedBytes { ptr, extent: Extent { len_bytes, buf_index } }
    }
}

/// All of a [`MemRange`] but its address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extent {
    /// 1 to [`TRANSFER_BYTES_MAX`](super::TRANSFER_BYTES_MAX).
    pub(crate) len_bytes: u32,
    buf_index: u16,
}

/// A [`MemRange`] in a fixed buffer, in words that need not be looked at to be written down.
#[derive(Clone, Copy, Debug)]
pub struct FixedBytes {
    ptr: NonNull<u8>,
    extent: Extent,
}

impl FixedBytes {
    /// Address of the first byte.
    #[inline(always)]
    pub(crate) fn addr(&self) -> u64 {
        self.ptr.addr().get() as u64
    }

    #[inline(always)]
    pub(crate) const fn extent(&self) -> Extent {
        self.extent
    }

    /// The fixed buffer.
    #[inline(always)]
    pub(crate) const fn buf_index(&self) -> u16 {
        self.extent.buf_index
    }

    /// The same in the words that there are for everything.
    pub(crate) fn memory(&self) -> MemRange {
        MemRange::at(self.ptr.as_ptr(), self.extent)
    }
}

impl MemRange {
    /// The memory at `ptr` that was taken apart into its address and `extent`.
    ///
    /// # Panics
    /// When that is no memory.
    pub(crate) fn at(ptr: *mut u8, extent: Extent) -> Self {
        let plain = Self::of_raw(ptr, extent.len_bytes, None).expect("it was memory before");
        Self { buf_index: extent.buf_index, ..plain }
    }

    /// All of it but its address; of memory in one piece.
    #[inline(always)]
    pub(crate) const fn extent(&self) -> Extent {
        Extent { len_bytes: self.len.get(), buf_index: self.buf_index }
    }
}
