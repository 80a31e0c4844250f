//! The memory of one op in several pieces: the array of addresses that the kernel is given.
//!
//! Data flow: [`MemRange`]s of the parts of an op → [`IoVecs`] (pieces that lie one behind the
//! other become one) → one [`MemRange`] that names them all → op. The array has an address of
//! its own and belongs to the slot, as the memory does, until the target CQE (F07).
//!
//! Not here: looking through the addresses (`arena`), which parts belong together (`shard`).

use core::fmt;

use super::arena::{MemRange, Region, TRANSFER_BYTES_MAX};

/// The most pieces of one op; far below what the kernel takes (`UIO_MAXIOV` is 1024, F10).
pub(crate) const PIECES_MAX: usize = 16;

/// Up to [`PIECES_MAX`] pieces of memory, at an address that does not change.
pub(crate) struct IoVecs {
    entries: Box<[libc::iovec; PIECES_MAX]>,
    /// The pieces once more, as ranges.
    ranges: [Option<MemRange>; PIECES_MAX],
    count: usize,
    len_bytes: u32,
}

impl IoVecs {
    pub(crate) fn new() -> Self {
        let none = libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };
        Self {
            entries: Box::new([none; PIECES_MAX]),
            ranges: [None; PIECES_MAX],
            count: 0,
            len_bytes: 0,
        }
    }

    /// Forgets every piece. No op may use them any more.
    pub(crate) fn clear(&mut self) {
        self.count = 0;
        self.len_bytes = 0;
    }

    /// Adds `range` behind the others, or to the last one where it follows it in the same
    /// registered buffer.
    ///
    /// # Panics
    /// When that is more than [`PIECES_MAX`] pieces or [`TRANSFER_BYTES_MAX`] bytes.
    pub(crate) fn push(&mut self, range: MemRange) {
        self.len_bytes += range.len_bytes();
        assert!(self.len_bytes <= TRANSFER_BYTES_MAX, "the parts of an op fit in one transfer");
        let last = self.count.checked_sub(1).and_then(|at| self.ranges[at]);
        let (at, range) = match last.and_then(|last| last.joined(&range)) {
            Some(joined) => (self.count - 1, joined),
            None => (self.count, range),
        };
        self.entries[at] =
            libc::iovec { iov_base: range.addr().cast(), iov_len: range.len_bytes() as usize };
        self.ranges[at] = Some(range);
        self.count = at + 1;
    }

    /// Whether any piece lies in `region`.
    pub(crate) fn touches(&self, region: &Region) -> bool {
        self.ranges[..self.count].iter().flatten().any(|range| range.touches(region))
    }

    /// All pieces as the memory of one op: the range itself where there is one piece, else
    /// this array. Fixed where all pieces lie in one registered buffer and `fixed` says that
    /// the ring has ops for that.
    pub(crate) fn range(&self, fixed: bool) -> Option<MemRange> {
        if self.count <= 1 {
            return self.ranges[0].filter(|_| self.count == 1);
        }
        let first = self.ranges[0]?.buf_index();
        let pieces = self.ranges[..self.count].iter().flatten();
        let same = pieces.map(MemRange::buf_index).all(|index| index == first);
        let buf_index = first.filter(|_| fixed && same);
        let pieces = u8::try_from(self.count).ok()?;
        MemRange::of_vector(self.entries.as_ptr().cast_mut(), pieces, self.len_bytes, buf_index)
    }
}

impl fmt::Debug for IoVecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoVecs")
            .field("count", &self.count)
            .field("len_bytes", &self.len_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(any(test, feature = "sim"))]
impl MemRange {
    /// Copies `bytes` in from `offset_bytes` on, over as many pieces as it takes.
    ///
    /// # Panics
    /// When they do not all fit.
    pub(crate) fn scatter(&self, offset_bytes: u32, bytes: &[u8]) {
        let mut rest = bytes;
        self.each_part(offset_bytes, bytes.len(), |piece, from, len| {
            let (now, later) = rest.split_at(len);
            piece.write_at(from, now);
            rest = later;
        });
        assert!(rest.is_empty(), "an access stays inside the memory of its op");
    }

    /// Copies out from `offset_bytes` on, from as many pieces as it takes.
    ///
    /// # Panics
    /// When the memory ends before `into` is full.
    pub(crate) fn gather(&self, offset_bytes: u32, into: &mut [u8]) {
        let mut done = 0;
        self.each_part(offset_bytes, into.len(), |piece, from, len| {
            piece.read_at(from, &mut into[done..done + len]);
            done += len;
        });
        assert_eq!(done, into.len(), "an access stays inside the memory of its op");
    }

    fn each_part(&self, offset: u32, len: usize, mut act: impl FnMut(&Self, u32, usize)) {
        let (mut skip, mut left) = (offset, len);
        for piece in self.pieces() {
            let from = skip.min(piece.len_bytes());
            let here = ((piece.len_bytes() - from) as usize).min(left);
            if here > 0 {
                act(&piece, from, here);
            }
            skip -= from;
            left -= here;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{Arena, ArenaConfig, SizeClass};

    #[test]
    fn pieces_in_a_row_are_one_and_others_are_told_apart() {
        let config = ArenaConfig::new(vec![SizeClass { bytes: 512, count: 8 }]);
        let arena = Arena::new(&config).unwrap();
        arena.region().set_registered_bytes(4096);
        let mut whole: Vec<_> = (0..8).map(|_| arena.alloc(512).unwrap()).collect();
        whole.sort_by_key(|buffer| buffer.as_ptr());
        let ranges: Vec<_> = whole.iter_mut().map(|buffer| buffer.mem_range()).collect();
        let mut vecs = IoVecs::new();
        for range in &ranges[..4] {
            vecs.push(*range);
        }
        let one = vecs.range(true).unwrap();
        assert_eq!((one.vector_len(), one.len_bytes(), one.buf_index()), (0, 2048, Some(0)));
        vecs.push(ranges[6]);
        let two = vecs.range(true).unwrap();
        assert_eq!((two.vector_len(), two.len_bytes(), two.buf_index()), (2, 2560, Some(0)));
        assert_eq!(vecs.range(false).unwrap().buf_index(), None);
        two.scatter(1000, &[9; 1500]);
        let mut back = [0; 1560];
        two.gather(1000, &mut back);
        assert_eq!((&back[..1500], &back[1500..]), (&[9; 1500][..], &[0; 60][..]));
        assert_eq!((whole[6][451], whole[6][452]), (9, 0));
        let mut other = [0_u8; 64];
        vecs.push(MemRange::of_raw(other.as_mut_ptr(), 64, None).unwrap());
        let mixed = vecs.range(true).unwrap();
        assert_eq!((mixed.vector_len(), mixed.buf_index()), (3, None));
        vecs.clear();
        assert!(vecs.range(true).is_none());
    }

    #[test]
    #[should_panic(expected = "inside the memory")]
    fn access_beyond_the_last_piece_panics() {
        let mut bytes = [0_u8; 64];
        MemRange::of_raw(bytes.as_mut_ptr(), 64, None).unwrap().scatter(60, &[1; 5]);
    }
}
