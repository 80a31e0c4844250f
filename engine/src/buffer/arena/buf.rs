//! An owned range of an arena, as users hold it and as packets carry it.
//!
//! Data flow: free list of the pool → [`ArenaBuf`] → user or slot → dropped → free list.
//!
//! Not here: which range is free (`pool`), the memory of an op (`arena`).
#![allow(unsafe_code, reason = "looks at the mapping through the pointer that ops carry")]

use core::fmt;
use core::num::NonZeroU32;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::sync::Arc;

use mfio_core::{RegionId, StableBytes, StableBytesMut};

use super::MemRange;
use crate::buffer::pool::Pool;

/// An owned range of an [`Arena`](crate::buffer::Arena), at least 512-byte aligned and 4096-byte
/// aligned when its class has 4096 bytes or more. Dropping it, on any thread, gives it back.
///
/// Its address is stable while it lives, also when it is moved. A fresh arena is zeroed, but a
/// range that is handed out again still holds its former bytes: show only what an op has
/// filled (F50).
pub struct ArenaBuf {
    ptr: NonNull<u8>,
    len: NonZeroU32,
    class: u32,
    index: u32,
    pool: Arc<Pool>,
}

// SAFETY: lifetime: the pool it holds keeps the mapping alive on any thread. Aliasing: the free
// list hands out each range once, so the bytes are as exclusive as those of a `Box<[u8]>`.
// Bounds: they do not depend on the thread.
unsafe impl Send for ArenaBuf {}
// SAFETY: as for `Send`; a shared reference gives only `&[u8]`.
unsafe impl Sync for ArenaBuf {}

impl ArenaBuf {
    /// Takes over range `index` of `class`, which the caller has just popped off its free list.
    ///
    /// # Panics
    /// When the range does not lie in the region: the pool's tables are wrong.
    #[inline]
    pub(in crate::buffer) fn adopt(
        pool: Arc<Pool>,
        class: u32,
        index: u32,
        len: NonZeroU32,
    ) -> Self {
        let ptr = pool.locate(class, index, len.get());
        Self { ptr, len, class, index, pool }
    }

    /// How long this buffer can be made with [`ArenaBuf::set_len_bytes`]: the bytes of its
    /// size class.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.pool.class_bytes(self.class) as usize
    }

    /// Makes the buffer `len_bytes` long. Bytes that come into view hold what they held before.
    ///
    /// # Panics
    /// When `len_bytes` is 0 or above [`ArenaBuf::capacity_bytes`].
    pub fn set_len_bytes(&mut self, len_bytes: usize) {
        let len = u32::try_from(len_bytes).ok().and_then(NonZeroU32::new);
        let len = len.filter(|len| len.get() <= self.pool.class_bytes(self.class));
        self.len = len.expect("the length of a buffer is 1 to its capacity");
    }

    /// The arena's region, which the ring of its shard has registered.
    #[must_use]
    pub fn region_id(&self) -> RegionId {
        self.pool.region().id()
    }

    /// All of it as the memory of an op; fixed when the region is registered. The caller moves
    /// the buffer into a slot before it pushes the op.
    pub(crate) fn mem_range(&mut self) -> MemRange {
        MemRange::of_raw(self.ptr.as_ptr(), self.len.get(), Some(self.pool.region()))
            .expect("a buffer is neither null nor empty nor longer than a transfer")
    }
}

impl Deref for ArenaBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: lifetime: `self.pool` keeps the mapping, and the slice borrows `self`.
        // Aliasing: the range is exclusive to this buffer; while an op has it, the buffer sits
        // in a slot that does not look. Bounds: `len` is at most the class's bytes, and the
        // mapping is zero-initialised.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len.get() as usize) }
    }
}

impl DerefMut for ArenaBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: lifetime, bounds: as in `deref`. Aliasing: exclusive range behind `&mut self`.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len.get() as usize) }
    }
}

impl Drop for ArenaBuf {
    #[inline]
    fn drop(&mut self) {
        self.pool.release(self.class, self.index);
    }
}

impl fmt::Debug for ArenaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArenaBuf")
            .field("len_bytes", &self.len)
            .field("capacity_bytes", &self.capacity_bytes())
            .finish_non_exhaustive()
    }
}

// SAFETY: lifetime: the pointer comes from the mapping, which `self.pool` keeps, and not from
// `self`, so moving the value does not move the bytes. Aliasing: the range is exclusive to the
// value. Bounds: `len` bytes of the class, initialised since the mapping was zeroed.
unsafe impl StableBytes for ArenaBuf {
    #[inline]
    fn as_ptr(&self) -> *const u8 {
        self.ptr.as_ptr()
    }

    #[inline]
    fn len(&self) -> usize {
        self.len.get() as usize
    }

    #[inline]
    fn region(&self) -> Option<RegionId> {
        Some(self.region_id())
    }
}

// SAFETY: as for `StableBytes`; the pointer was made with write access to the mapping.
unsafe impl StableBytesMut for ArenaBuf {
    #[inline]
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.ptr.as_ptr()
    }
}
