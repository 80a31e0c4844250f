//! Turns one anonymous mapping into owned, aligned byte ranges with stable addresses.
//!
//! Data flow: [`Region`] (mapped once) → [`ArenaBuf`] (exclusive range of it) → [`MemRange`]
//! (address and length in an op, without a lifetime) → CQE → the owner of the buffer.
//!
//! Why a [`MemRange`] may exist without a lifetime: the slot that pushed the op owns the memory
//! and keeps it, unread and unwritten by anybody else, until the *target* CQE (F01). Rings
//! touch a range only between `push` and that CQE. The functions that look through the pointer
//! are therefore `pub(crate)`, and their callers are the rings.
//!
//! Not here: free lists and size classes (`pool`), registration (`ring::kernel`).
#![allow(unsafe_code, reason = "owns the mapping and the pointers that ops carry")]

use core::fmt;
use core::num::NonZeroU32;
use core::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use mfio_core::{RegionId, StableBytesMut};
use nix::errno::Errno;

use super::memory::{FixedSpan, Shared};

mod buf;
mod fixed;
mod frames;
mod mapping;

pub use self::buf::ArenaBuf;
pub use self::fixed::FixedBytes;
pub(crate) use self::fixed::{Extent, Pieces};
pub(crate) use self::frames::Cut;
pub use self::frames::{FrameBuf, Frames};
pub(super) use self::mapping::HUGE_PAGE_BYTES;
use self::mapping::Mapping;
pub use self::mapping::{HugePages, Pages};

/// A region is registered in pieces of this many bytes, the most that the kernel takes as one
/// fixed buffer (`io_uring_register(2)`, `IORING_REGISTER_BUFFERS`). Piece `n` is fixed buffer
/// `n`, and no range of an arena straddles two pieces.
pub const PIECE_BYTES: u64 = 1 << 30;

/// The most bytes that one read or write moves (`MAX_RW_COUNT`, `read(2)`): a longer request is
/// shortened by the kernel, silently.
pub const TRANSFER_BYTES_MAX: u32 = 0x7fff_f000;

/// Memory whose address does not change: a mapping of our own, or memory that its owner has
/// handed over. It goes when this is dropped.
///
/// An arena owns exactly one. It is immutable for its whole life (F08): only the number of
/// registered bytes changes, when the shard's ring registers it, and once more where that was the
/// first of it to begin with.
pub struct Region {
    id: RegionId,
    base: NonNull<u8>,
    len_bytes: usize,
    registered_bytes: AtomicUsize,
    backing: Backing,
    /// Set once, when it is registered for other rings to clone.
    shared: OnceLock<Shared>,
}

/// What keeps the bytes of a region where they are.
enum Backing {
    Mapped(Mapping),
    Owned { _owner: Box<dyn StableBytesMut> },
}

// SAFETY: lifetime: the memory belongs to the process or to an owner that is `Send`, not to a
// thread; every buffer holds its region and a slot holds its buffer until the target CQE, so
// nothing refers to the bytes when it goes. Aliasing: `Region` hands out addresses, and
// dereferencing one needs the exclusive buffer or `MemRange` cut from it. Bounds: nothing about
// them depends on the thread.
unsafe impl Send for Region {}
// SAFETY: as for `Send`; the only field that changes behind a shared reference is atomic, and
// the owner is never looked at again.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `len_bytes` of zeroed memory, which child processes do not inherit (F26).
    ///
    /// # Errors
    /// The errno of `mmap(2)`: `ENOMEM` when the address space, the overcommit limit or the
    /// huge pages are used up; `EINVAL` for a length of 0.
    pub(crate) fn map(len_bytes: usize, huge: HugePages) -> Result<Self, Errno> {
        let mapping = Mapping::new(len_bytes, huge)?;
        Ok(Self::on(mapping.base(), len_bytes, Backing::Mapped(mapping)))
    }

    /// Takes over bytes that somebody owns; `None` when there are none.
    pub(super) fn own(mut owner: Box<dyn StableBytesMut>) -> Option<Self> {
        let len_bytes = owner.len();
        let base = NonNull::new(owner.as_mut_ptr()).filter(|_| len_bytes > 0)?;
        Some(Self::on(base, len_bytes, Backing::Owned { _owner: owner }))
    }

    fn on(base: NonNull<u8>, len_bytes: usize, backing: Backing) -> Self {
        let registered_bytes = AtomicUsize::new(0);
        Self {
            id: RegionId::unique(),
            base,
            len_bytes,
            registered_bytes,
            backing,
            shared: OnceLock::new(),
        }
    }

    /// Which pages back it.
    #[must_use]
    pub const fn pages(&self) -> Pages {
        match &self.backing {
            Backing::Mapped(mapping) => mapping.pages(),
            Backing::Owned { .. } => Pages::Foreign,
        }
    }

    /// Makes the pages of `len_bytes` from `offset_bytes` on, or of what there is of that, and
    /// changes nothing that they hold. False where there is none of it, or no memory to be had.
    pub(super) fn populate(&self, offset_bytes: usize, len_bytes: usize) -> bool {
        match &self.backing {
            Backing::Mapped(mapping) => mapping.populate(offset_bytes, len_bytes).is_ok(),
            Backing::Owned { .. } => false,
        }
    }

    /// Whether this process has mapped it; a child that was forked has not. Memory that was
    /// brought is everybody's who has it. A system call.
    pub(super) fn is_own(&self) -> bool {
        match &self.backing {
            Backing::Mapped(mapping) => mapping.is_own(),
            Backing::Owned { .. } => true,
        }
    }

    /// What names this region among all regions of the process.
    #[must_use]
    pub const fn id(&self) -> RegionId {
        self.id
    }

    /// Length of the mapping in bytes.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// How many bytes from the start are registered as fixed buffers; 0 before
    /// [`Ring::register_buffers`](crate::ring::Ring::register_buffers) and when it was refused.
    /// Of a large arena these are the first 2 MiB to begin with, and all of it a little after the
    /// first op, when its pages have been made; [`Shard::register`](crate::Shard::register) waits
    /// for that.
    #[must_use]
    pub fn registered_bytes(&self) -> usize {
        self.registered_bytes.load(Ordering::Relaxed)
    }

    /// Records that the first `bytes` are now fixed buffers `0..`, in [`PIECE_BYTES`] pieces.
    ///
    /// # Panics
    /// When that is more than the region has.
    pub(crate) fn set_registered_bytes(&self, bytes: usize) {
        assert!(bytes <= self.len_bytes, "a registered prefix is part of its region");
        self.registered_bytes.store(bytes.min(INDEXED_BYTES_MAX), Ordering::Relaxed);
    }

    /// Address of the first byte.
    pub(crate) const fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The registration that other rings can clone, if there is one.
    pub(crate) fn shared(&self) -> Option<&Shared> {
        self.shared.get()
    }

    /// Makes a registration available to other rings; the first one stays.
    pub(crate) fn set_shared(&self, shared: Shared) {
        let _first_stays = self.shared.set(shared);
    }

    /// The fixed buffer that holds all of `[addr, addr + len_bytes)`, if one does.
    #[inline]
    fn buf_index(&self, addr: usize, len_bytes: u32) -> Option<u16> {
        self.piece(addr, len_bytes, self.registered_bytes())
    }

    /// What names the fixed buffers of ranges of this region, as it is registered by now.
    pub(crate) fn pieces(&self) -> Pieces {
        let registered_bytes = self.registered_bytes();
        Pieces { base: self.base.as_ptr().addr(), registered_bytes }
    }

    /// The piece that holds all of `[addr, addr + len_bytes)`, if it is registered.
    #[inline]
    fn piece(&self, addr: usize, len_bytes: u32, registered_bytes: usize) -> Option<u16> {
        let start = addr.wrapping_sub(self.base.as_ptr().addr());
        let last = start.checked_add(len_bytes as usize - 1)?;
        let same_piece = (start as u64 / PIECE_BYTES) == (last as u64 / PIECE_BYTES);
        if last >= registered_bytes || !same_piece {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, reason = "below INDEXED_BYTES_MAX")]
        let index = (start as u64 / PIECE_BYTES) as u16;
        Some(index)
    }

    /// The pointer to `offset_bytes`, from which on there are `len_bytes`.
    ///
    /// # Panics
    /// When they lie outside the region.
    pub(super) fn within(&self, offset_bytes: usize, len_bytes: usize) -> NonNull<u8> {
        let end = offset_bytes.checked_add(len_bytes);
        assert!(end.is_some_and(|end| end <= self.len_bytes), "a range lies in its region");
        // SAFETY: lifetime and aliasing: only an address is computed, nothing is accessed.
        // Bounds: `offset_bytes` is at most the length of the region, checked above.
        unsafe { self.base.add(offset_bytes) }
    }

    /// As [`Region::within`], for a range of the pool.
    pub(super) fn at(&self, offset_bytes: usize, len_bytes: u32) -> NonNull<u8> {
        self.within(offset_bytes, len_bytes as usize)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("id", &self.id)
            .field("len_bytes", &self.len_bytes)
            .field("registered_bytes", &self.registered_bytes())
            .field("pages", &self.pages())
            .finish_non_exhaustive()
    }
}

/// The memory of one op: an address, a length that the kernel can neither truncate nor mistake
/// for end of file (F09), and the fixed buffer it lies in.
///
/// Plain data without a lifetime. The invariant behind every use: the slot that pushed the op
/// owns the memory, and nobody else touches it, until the target CQE.
#[derive(Clone, Copy, Debug)]
pub struct MemRange {
    ptr: NonNull<u8>,
    len: NonZeroU32,
    /// [`UNREGISTERED`] or an index. Not an `Option`: that would be where `Option<MemRange>`
    /// hides its `None`, and every op would pay for telling the two apart.
    buf_index: u16,
    /// 0 where `ptr` is the memory itself; else it points to as many `iovec`s that name it.
    vector_len: u8,
}

/// More than the kernel takes (16,384 fixed buffers).
const UNREGISTERED: u16 = u16::MAX;

/// As far as a piece has an index that is not [`UNREGISTERED`].
#[allow(clippy::cast_possible_truncation, reason = "on 32 bits no memory is that long")]
const INDEXED_BYTES_MAX: usize =
    if usize::BITS < 64 { usize::MAX } else { (UNREGISTERED as u64 * PIECE_BYTES) as usize };

// SAFETY: lifetime and aliasing: the slot that owns the memory is the same whichever thread
// holds the range; a worker of the thread ring has it to itself between push and completion.
// Bounds: they do not depend on the thread.
unsafe impl Send for MemRange {}

impl MemRange {
    /// Names `len` bytes at `ptr`; `None` when that is no memory (null or empty) or more than
    /// [`TRANSFER_BYTES_MAX`]. It is fixed when it lies whole in a registered piece of `region`.
    ///
    /// The caller's slot owns the memory, readable and writable as the op needs it, until the
    /// target CQE. It need not be part of `region`.
    #[inline]
    pub(crate) fn of_raw(ptr: *mut u8, len: u32, region: Option<&Region>) -> Option<Self> {
        let ptr = NonNull::new(ptr)?;
        let len = NonZeroU32::new(len).filter(|len| len.get() <= TRANSFER_BYTES_MAX)?;
        let buf_index = region.and_then(|region| region.buf_index(ptr.addr().get(), len.get()));
        let buf_index = buf_index.unwrap_or(UNREGISTERED);
        Some(Self { ptr, len, buf_index, vector_len: 0 })
    }

    /// As [`MemRange::of_raw`], for bytes of the arena that `pieces` are of, which as such do not
    /// straddle two of them. For others, the kernel would answer `EFAULT`.
    #[inline(always)]
    pub(crate) fn of_arena(ptr: NonNull<u8>, len: u32, pieces: Pieces) -> Option<Self> {
        let plain = Self::of_raw(ptr.as_ptr(), len, None)?;
        let start = ptr.addr().get().wrapping_sub(pieces.base);
        let last = start.checked_add(len as usize - 1)?;
        #[allow(clippy::cast_possible_truncation, reason = "below INDEXED_BYTES_MAX")]
        let index = (start as u64 / PIECE_BYTES) as u16;
        let straddles = start as u64 / PIECE_BYTES != last as u64 / PIECE_BYTES;
        debug_assert!(!straddles || last >= pieces.registered_bytes, "a range lies in one piece");
        let fixed = last < pieces.registered_bytes;
        Some(Self { buf_index: if fixed { index } else { UNREGISTERED }, ..plain })
    }

    /// The same bytes, as if they were not registered.
    pub(crate) const fn unregistered(&self) -> Self {
        Self { buf_index: UNREGISTERED, ..*self }
    }

    /// Names `len` bytes in the `vector_len` pieces that the `iovec`s at `ptr` name.
    ///
    /// The caller's slot owns the array and every piece, and changes neither, until the target
    /// CQE. `buf_index` is the fixed buffer that holds all pieces, if one does.
    pub(super) fn of_vector(
        ptr: *mut libc::iovec,
        vector_len: u8,
        len: u32,
        buf_index: Option<u16>,
    ) -> Option<Self> {
        let (ptr, len) = (NonNull::new(ptr.cast())?, NonZeroU32::new(len)?);
        Some(Self { ptr, len, buf_index: buf_index.unwrap_or(UNREGISTERED), vector_len })
    }

    /// How many `iovec`s [`MemRange::addr`] points to; 0 where it points to the bytes.
    #[inline]
    pub(crate) const fn vector_len(&self) -> u8 {
        self.vector_len
    }

    /// The pieces, in order: the range itself where it is one.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Self> {
        let (whole, count) = (*self, usize::from(self.vector_len));
        let piece = move |at: usize| {
            // SAFETY: only an address is computed; `at` is below the number of entries.
            let entry = unsafe { whole.ptr.cast::<libc::iovec>().add(at) };
            // SAFETY: lifetime: the slot owns the array until the target CQE. Aliasing: nobody
            // writes to it meanwhile. Bounds: it is an entry of the array, initialised.
            let entry = unsafe { entry.read() };
            Self::of_raw(entry.iov_base.cast(), u32::try_from(entry.iov_len).ok()?, None)
        };
        let one = (count == 0).then_some(whole);
        one.into_iter().chain((0..count).filter_map(piece))
    }

    /// This range and `next` as one, where they are neighbours in the same fixed buffer: one
    /// mapping, so one address reaches all of it.
    pub(super) fn joined(&self, next: &Self) -> Option<Self> {
        let end = self.addr().addr().checked_add(self.len.get() as usize)?;
        let fits = self.buf_index != UNREGISTERED && self.buf_index == next.buf_index;
        let len = self.len.checked_add(next.len.get())?;
        (fits && end == next.addr().addr()).then_some(Self { len, ..*self })
    }

    /// As [`MemRange::of_raw`], for memory of a region that the ring knows at `span`.
    pub(crate) fn of_span(
        ptr: *mut u8,
        len: u32,
        region: &Region,
        span: FixedSpan,
    ) -> Option<Self> {
        let plain = Self::of_raw(ptr, len, None)?;
        let registered_bytes = span.registered_bytes.min(INDEXED_BYTES_MAX);
        let piece = region.piece(plain.ptr.addr().get(), len, registered_bytes);
        let index = piece.and_then(|piece| span.first_index.checked_add(piece));
        Some(Self { buf_index: index.unwrap_or(UNREGISTERED), ..plain })
    }

    /// Whether any of it lies in `region`.
    pub(crate) fn touches(&self, region: &Region) -> bool {
        let (start, base) = (self.ptr.addr().get(), region.base.addr().get());
        start < base + region.len_bytes && base < start + self.len.get() as usize
    }

    /// Length in bytes; 1 to [`TRANSFER_BYTES_MAX`].
    #[inline]
    pub(crate) const fn len_bytes(&self) -> u32 {
        self.len.get()
    }

    /// Address of the first byte.
    #[inline]
    pub(crate) const fn addr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// The fixed buffer this range lies in; meaningful only on the ring that registered it.
    #[inline]
    pub(crate) const fn buf_index(&self) -> Option<u16> {
        if self.buf_index == UNREGISTERED { None } else { Some(self.buf_index) }
    }

    /// `len_bytes` bytes of this range from `offset_bytes` on.
    ///
    /// # Panics
    /// When they are none, or not all inside.
    #[inline]
    pub(crate) fn sub(&self, offset_bytes: u32, len_bytes: u32) -> Self {
        self.assert_inside(offset_bytes, len_bytes as usize);
        let len = NonZeroU32::new(len_bytes).expect("a part of a range is not empty");
        // SAFETY: lifetime and aliasing: only an address is computed. Bounds: inside the range,
        // asserted above.
        let ptr = unsafe { self.ptr.add(offset_bytes as usize) };
        Self { ptr, len, buf_index: self.buf_index, vector_len: 0 }
    }

    /// Copies `bytes` into the range from `offset_bytes` on, as the kernel does for a read.
    ///
    /// # Panics
    /// When they do not all fit.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn write_at(&self, offset_bytes: u32, bytes: &[u8]) {
        self.assert_inside(offset_bytes, bytes.len());
        // SAFETY: lifetime and aliasing: only an address is computed. Bounds: asserted above.
        let to = unsafe { self.ptr.as_ptr().add(offset_bytes as usize) };
        // SAFETY: lifetime: the slot owns the memory until the target CQE, which the calling
        // ring has not delivered yet. Aliasing: the slot keeps everybody else away meanwhile,
        // so `bytes` cannot overlap it. Bounds: `bytes.len()` bytes fit, asserted above.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Copies out of the range from `offset_bytes` on, as the kernel does for a write.
    ///
    /// # Panics
    /// When the range ends before `into` is full.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn read_at(&self, offset_bytes: u32, into: &mut [u8]) {
        self.assert_inside(offset_bytes, into.len());
        // SAFETY: lifetime and aliasing: only an address is computed. Bounds: asserted above.
        let from = unsafe { self.ptr.as_ptr().add(offset_bytes as usize) };
        // SAFETY: lifetime: the slot owns the memory until the target CQE. Aliasing: nobody
        // writes to it meanwhile, and `into` is exclusive, so the two do not overlap. Bounds:
        // `into.len()` bytes are there, asserted above. Arena memory starts zeroed and stable
        // bytes are initialised by their contract.
        unsafe { core::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
    }

    /// Sets every byte.
    pub(crate) fn fill(&self, byte: u8) {
        // SAFETY: lifetime, aliasing: as in `write_at`. Bounds: exactly the range.
        unsafe { self.ptr.as_ptr().write_bytes(byte, self.len.get() as usize) };
    }

    /// Offset in bytes of the first byte that is not `byte`; `None` when all are.
    pub(crate) fn first_unlike(&self, byte: u8) -> Option<u32> {
        // SAFETY: lifetime: the slice does not outlive this call, during which the owner holds
        // the memory. Aliasing: nobody is allowed to write to a range its owner inspects; a
        // late write by the kernel is exactly the bug this looks for, in tests. Bounds: exactly
        // the range.
        let bytes =
            unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len.get() as usize) };
        // Block by block, because a comparison of slices is many times faster than one of bytes.
        let expected = [byte; 512];
        let block = bytes.chunks(512).position(|found| found != &expected[..found.len()])?;
        let rest = &bytes[block * 512..];
        let within = rest.iter().position(|&found| found != byte)?;
        u32::try_from(block * 512 + within).ok()
    }

    #[inline]
    fn assert_inside(&self, offset_bytes: u32, len_bytes: usize) {
        assert_eq!(self.vector_len, 0, "only memory in one piece has an address");
        let end = (offset_bytes as usize).checked_add(len_bytes);
        assert!(
            end.is_some_and(|end| end <= self.len.get() as usize),
            "an access stays inside the memory of its op"
        );
    }
}
