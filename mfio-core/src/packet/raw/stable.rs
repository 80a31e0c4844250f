//! Which owners of bytes a packet can be made from.
//!
//! Not here: borrowed bytes; they exist only inside blocking calls.
#![allow(unsafe_code, reason = "implementing the contract for the standard owners")]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::packet::{Lent, Read, ReadWrite, Write};

/// Names a region of memory that a backend has prepared (registered, pinned, mapped). A
/// backend recognises the packets that live in its own region by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegionId(NonZeroU64);

impl RegionId {
    /// An id that no other region of this process has.
    ///
    /// # Panics
    /// After 2^64 calls.
    #[must_use]
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(NonZeroU64::new(id).expect("fewer than 2^64 regions are made"))
    }

    #[inline]
    pub(super) const fn get(self) -> u64 {
        self.0.get()
    }
}

/// Owned, initialised bytes that stay where they are while their owner moves.
///
/// # Safety
/// While the value is owned, however it is moved: `as_ptr` returns the same address for `len`
/// initialised bytes, which nothing but the owner of the value writes.
pub unsafe trait StableBytes: Send + 'static {
    /// The first byte.
    fn as_ptr(&self) -> *const u8;
    /// How many bytes; constant while a packet owns the value.
    fn len(&self) -> usize;
    /// The prepared region that the bytes lie in, if any.
    fn region(&self) -> Option<RegionId> {
        None
    }
    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// [`StableBytes`] that may be written by whoever owns the value.
///
/// # Safety
/// As [`StableBytes`]; `as_mut_ptr` returns the address of `as_ptr`, good for writes.
pub unsafe trait StableBytesMut: StableBytes {
    /// The first byte, writable.
    fn as_mut_ptr(&mut self) -> *mut u8;
}

macro_rules! stable_bytes {
    ($($owner:ty),*) => {$(
        // SAFETY: the bytes are a heap allocation that the owner points at and never moves.
        unsafe impl StableBytes for $owner {
            fn as_ptr(&self) -> *const u8 {
                self[..].as_ptr()
            }
            fn len(&self) -> usize {
                self[..].len()
            }
        }
        // SAFETY: as above, and `&mut` proves that nobody else holds a reference.
        unsafe impl StableBytesMut for $owner {
            fn as_mut_ptr(&mut self) -> *mut u8 {
                self[..].as_mut_ptr()
            }
        }
    )*};
}
stable_bytes!(Vec<u8>, Box<[u8]>, AlignedBuf);

/// A zeroed buffer whose first byte has the alignment that direct I/O asks for.
///
/// ```
/// let buffer = mfio_core::AlignedBuf::new(8192, 4096);
/// assert_eq!(buffer.as_ptr().addr() % 4096, 0);
/// assert_eq!(buffer.len(), 8192);
/// ```
#[derive(Debug)]
pub struct AlignedBuf {
    /// Large enough to hold `len` aligned bytes wherever it begins.
    room: Box<[u8]>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// `len` zero bytes, the first at a multiple of `align` bytes.
    ///
    /// # Panics
    /// If `align` is not a power of two, or the sum of both overflows.
    #[must_use]
    pub fn new(len: usize, align: usize) -> Self {
        assert!(align.is_power_of_two(), "an alignment is a power of two");
        let room = alloc::vec![0; len.checked_add(align - 1).expect("the size overflows")];
        let room = room.into_boxed_slice();
        let start = room.as_ptr().addr().wrapping_neg() & (align - 1);
        Self { room, start, len }
    }
}

impl core::ops::Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.room[self.start..self.start + self.len]
    }
}

impl core::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

// SAFETY: lent bytes stay where their packet has them until the view is completed, and the
// view, which is owned here, is the only one for its range. Nothing writes a `Write` packet.
unsafe impl StableBytes for Lent<Write> {
    fn as_ptr(&self) -> *const u8 {
        Self::as_ptr(self)
    }
    fn len(&self) -> usize {
        self.as_slice().len()
    }
    fn region(&self) -> Option<RegionId> {
        Self::region(self)
    }
}

// SAFETY: as above.
unsafe impl StableBytes for Lent<Read> {
    fn as_ptr(&self) -> *const u8 {
        Self::as_ptr(self)
    }
    fn len(&self) -> usize {
        usize::try_from(Self::len(self)).expect("an addressable view fits in memory")
    }
    fn region(&self) -> Option<RegionId> {
        Self::region(self)
    }
}

// SAFETY: as above; a `Read` packet's bytes are there to be filled.
unsafe impl StableBytesMut for Lent<Read> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        Self::as_ptr(self)
    }
}

// SAFETY: as above; an exchange reads the bytes and fills them, through one view.
unsafe impl StableBytes for Lent<ReadWrite> {
    fn as_ptr(&self) -> *const u8 {
        Self::as_ptr(self)
    }
    fn len(&self) -> usize {
        usize::try_from(Self::len(self)).expect("an addressable view fits in memory")
    }
    fn region(&self) -> Option<RegionId> {
        Self::region(self)
    }
}

// SAFETY: as above.
unsafe impl StableBytesMut for Lent<ReadWrite> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        Self::as_ptr(self)
    }
}

// SAFETY: a static slice never moves and is never written.
unsafe impl StableBytes for &'static [u8] {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }
    fn len(&self) -> usize {
        (**self).len()
    }
}
