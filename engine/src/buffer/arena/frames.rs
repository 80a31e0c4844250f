//! Cuts memory that a caller owns (a database's buffer pool) into frames that ops can use.
//!
//! Data flow: owned bytes → [`Frames`] → [`Shard::register`](crate::Shard::register) pins them
//! once → [`FrameBuf`] (one frame, or several in a row, exclusively) → packet → back.
//! A frame is out at most once, which one bit per frame says; that is what makes it safe to
//! give out buffers of memory that somebody else laid out.
//!
//! Not here: which frame holds what, eviction (the database), registration (`ring::kernel`).

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mfio_core::{RegionId, StableBytes, StableBytesMut};

use super::Region;
use crate::buffer::pool::ArenaError;

/// Memory of the caller in frames of one size. Clones are handles to the same memory, which is
/// dropped when the last handle and the last buffer are gone.
///
/// ```
/// use mfio_core::AlignedBuf;
/// use mfio_engine::buffer::Frames;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let frames = Frames::new(AlignedBuf::new(64 << 10, 4096), 8192)?;
/// let mut frame = frames.frame(3).ok_or("nobody has it")?;
/// frame.fill(7);
/// assert!(frames.frame(3).is_none(), "it is out");
/// drop(frame);
/// assert_eq!(frames.frame(3).ok_or("it is back")?[0], 7);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Frames(Arc<Cut>);

/// The memory, and which of its frames are out.
#[derive(Debug)]
pub(crate) struct Cut {
    region: Region,
    frame_bytes: usize,
    count: usize,
    /// One bit per frame: set while it is out.
    out: Box<[AtomicU64]>,
}

impl Frames {
    /// Takes `memory` over. Bytes behind the last whole frame are not used.
    ///
    /// # Errors
    /// [`ArenaError::FrameBytes`] when not even one frame fits, or `frame_bytes` is 0.
    pub fn new<M: StableBytesMut>(memory: M, frame_bytes: usize) -> Result<Self, ArenaError> {
        let len_bytes = memory.len();
        let refused = ArenaError::FrameBytes { frame_bytes, len_bytes };
        let count = len_bytes.checked_div(frame_bytes).filter(|&count| count > 0);
        let count = count.ok_or(refused)?;
        let region = Region::own(Box::new(memory)).ok_or(refused)?;
        let out = (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self(Arc::new(Cut { region, frame_bytes, count, out })))
    }

    /// How many frames there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count
    }

    /// Bytes of each frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.0.frame_bytes
    }

    /// How many frames are out.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.0.out.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }

    /// Frame `index`, unless it is out or there is no such frame.
    #[must_use]
    #[inline]
    pub fn frame(&self, index: usize) -> Option<FrameBuf> {
        self.run(index, 1)
    }

    /// `count` frames in a row, from `first` on, as one buffer; none of them unless all can be
    /// had.
    #[must_use]
    pub fn run(&self, first: usize, count: usize) -> Option<FrameBuf> {
        let cut = &self.0;
        let end = first.checked_add(count).filter(|&end| count > 0 && end <= cut.count)?;
        for index in first..end {
            if !cut.take(index) {
                (first..index).for_each(|taken| cut.give_back(taken));
                return None;
            }
        }
        let ptr = cut.region.within(first * cut.frame_bytes, count * cut.frame_bytes);
        Some(FrameBuf { ptr, first, count, cut: Arc::clone(cut) })
    }

    pub(crate) const fn shared(&self) -> &Arc<Cut> {
        &self.0
    }
}

impl Cut {
    pub(crate) const fn region(&self) -> &Region {
        &self.region
    }

    #[inline]
    fn take(&self, index: usize) -> bool {
        let bit = 1 << (index % 64);
        // Acquire: this owner sees what the former one did to the bytes.
        self.out[index / 64].fetch_or(bit, Ordering::Acquire) & bit == 0
    }

    #[inline]
    fn give_back(&self, index: usize) {
        let bit = 1 << (index % 64);
        self.out[index / 64].fetch_and(!bit, Ordering::Release);
    }
}

/// One frame, or several in a row, of [`Frames`]. Dropping it, on any thread, gives it back.
pub struct FrameBuf {
    ptr: NonNull<u8>,
    first: usize,
    count: usize,
    cut: Arc<Cut>,
}

// SAFETY: lifetime: `cut` keeps the memory on any thread. Aliasing: a frame is out once, so the
// bytes are as exclusive as those of a `Box<[u8]>`. Bounds: they do not depend on the thread.
unsafe impl Send for FrameBuf {}
// SAFETY: as for `Send`; a shared reference gives only `&[u8]`.
unsafe impl Sync for FrameBuf {}

impl FrameBuf {
    /// The first frame it holds.
    #[must_use]
    pub const fn first_frame(&self) -> usize {
        self.first
    }

    #[inline]
    fn len_bytes(&self) -> usize {
        self.count * self.cut.frame_bytes
    }
}

impl Deref for FrameBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: lifetime: `self.cut` keeps the memory, and the slice borrows `self`. Aliasing:
        // the frames are this buffer's, and the owner of the memory is never asked again.
        // Bounds: whole frames of the region, checked in `run`; initialised, as the owner's
        // `StableBytes` promises.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len_bytes()) }
    }
}

impl DerefMut for FrameBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, behind `&mut self`; the pointer came from `as_mut_ptr`.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len_bytes()) }
    }
}

impl Drop for FrameBuf {
    fn drop(&mut self) {
        (self.first..self.first + self.count).for_each(|index| self.cut.give_back(index));
    }
}

impl fmt::Debug for FrameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBuf")
            .field("first_frame", &self.first)
            .field("len_bytes", &self.len_bytes())
            .finish_non_exhaustive()
    }
}

// SAFETY: lifetime: the pointer comes from the region, which `self.cut` keeps, so moving the
// value does not move the bytes. Aliasing: the frames are exclusive to the value. Bounds: whole
// frames, initialised by the owner's own promise.
unsafe impl StableBytes for FrameBuf {
    #[inline]
    fn as_ptr(&self) -> *const u8 {
        self.ptr.as_ptr()
    }

    #[inline]
    fn len(&self) -> usize {
        self.len_bytes()
    }

    #[inline]
    fn region(&self) -> Option<RegionId> {
        Some(self.cut.region.id())
    }
}

// SAFETY: as for `StableBytes`; the pointer was made with write access.
unsafe impl StableBytesMut for FrameBuf {
    #[inline]
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.ptr.as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_disjoint_and_out_at_most_once() {
        let frames = Frames::new(vec![0_u8; 1000], 100).unwrap();
        assert_eq!((frames.count(), frames.frame_bytes(), frames.in_use()), (10, 100, 0));
        let mut one = frames.frame(3).unwrap();
        let mut run = frames.run(4, 6).unwrap();
        assert_eq!((one.len(), run.len(), run.first_frame()), (100, 600, 4));
        one.fill(1);
        run.fill(2);
        assert!(one.iter().all(|&byte| byte == 1));
        assert_eq!(frames.in_use(), 7);
        // All or none: the frames before the one that is out stay available.
        assert!(frames.run(2, 2).is_none() && frames.frame(9).is_none());
        assert_eq!(frames.in_use(), 7);
        drop(one);
        assert_eq!(frames.run(2, 2).unwrap()[100], 1);
        for (first, count) in [(10, 1), (0, 0), (9, 2), (usize::MAX, 2)] {
            assert!(frames.run(first, count).is_none());
        }
    }

    #[test]
    fn memory_too_small_for_one_frame_is_refused() {
        for (len_bytes, frame_bytes) in [(0, 100), (99, 100), (100, 0), (0, 0)] {
            let refused = Frames::new(vec![0_u8; len_bytes], frame_bytes).unwrap_err();
            assert_eq!(refused, ArenaError::FrameBytes { frame_bytes, len_bytes });
            assert!(!refused.to_string().is_empty());
        }
    }

    #[test]
    fn owner_lives_as_long_as_the_last_buffer() {
        struct Owner {
            bytes: Vec<u8>,
            _witness: Arc<()>,
        }
        // SAFETY: those of the vector, which is not touched while it is owned.
        unsafe impl StableBytes for Owner {
            fn as_ptr(&self) -> *const u8 {
                self.bytes.as_ptr()
            }
            fn len(&self) -> usize {
                self.bytes.len()
            }
        }
        // SAFETY: as above.
        unsafe impl StableBytesMut for Owner {
            fn as_mut_ptr(&mut self) -> *mut u8 {
                self.bytes.as_mut_ptr()
            }
        }
        let witness = Arc::new(());
        let frames =
            Frames::new(Owner { bytes: vec![5; 64], _witness: Arc::clone(&witness) }, 64).unwrap();
        let frame = frames.frame(0).unwrap();
        drop(frames);
        assert_eq!((frame[63], Arc::strong_count(&witness)), (5, 2));
        drop(frame);
        assert_eq!(Arc::strong_count(&witness), 1);
    }
}
