//! Cuts the next op off a view: what one SQE can carry of it, and whether it must be bounced.
//!
//! Pure: no state, no allocation. Data flow: offset, length, address and geometry → [`Cut`] →
//! the shard makes an op of it and comes back with the rest.
//!
//! Not here: saying it in kernel words (`ring`), what became of it (`complete`).

use mfio_core::ErrorKind;

/// What a target demands of ops. Alignments are powers of two, in bytes; 1 is no demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demands {
    /// Of offsets and lengths.
    pub offset_align: u32,
    /// Of memory addresses.
    pub mem_align: u32,
    /// The longest op, a multiple of `offset_align`.
    pub transfer_bytes_max: u32,
    /// The longest op that goes through a bounce buffer, a multiple of `offset_align`.
    pub bounce_bytes_max: u32,
}

/// One op's share of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of the view, from its start, that this op covers. At least 1.
    pub take_bytes: u32,
    /// Where the op starts on the target: at most `offset_align - 1` before the view.
    pub op_offset: u64,
    /// Length of the op; more than `take_bytes` where edges had to be rounded out.
    pub op_bytes: u32,
    /// The op's bytes before the view's first.
    pub lead_bytes: u32,
    /// The op cannot use the view's own memory.
    pub bounce: bool,
}

/// The length of the one op that covers all of a view in place, `None` where it takes more, or
/// a bounce buffer, or cannot be: [`first_cut`] then tells. Arguments as there.
#[inline]
pub fn whole_cut(offset: u64, len_bytes: u64, address: usize, demands: Demands) -> Option<u32> {
    // Neither none nor too many, in one comparison.
    let fits = len_bytes.wrapping_sub(1) < u64::from(demands.transfer_bytes_max);
    let offset_mask = u64::from(demands.offset_align) - 1;
    let mem_mask = demands.mem_align as usize - 1;
    let aligned = (offset | len_bytes) & offset_mask == 0 && address & mem_mask == 0;
    // The sum of 2^63 - 1 and a length is no more than 64 bits.
    let in_range = (offset | offset.wrapping_add(len_bytes)) <= i64::MAX as u64;
    #[allow(clippy::cast_possible_truncation, reason = "no more than `transfer_bytes_max`")]
    let len = len_bytes as u32;
    (aligned && in_range && fits).then_some(len)
}

/// What nearly every view of a target is like that is one op in its own memory: all of it as
/// aligned as the stricter of the demands, at an offset below 2^62.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit {
    /// Bits that neither an offset nor a length nor an address has.
    clear: u64,
    bytes_max: u64,
}

impl Fit {
    /// Fits nothing.
    pub(crate) const NONE: Self = Self { clear: u64::MAX, bytes_max: 0 };

    pub(crate) const fn of(demands: Demands) -> Self {
        // Alignments are powers of two.
        let unaligned = (demands.offset_align - 1) | (demands.mem_align - 1);
        // Two numbers without the upper bits have a sum within 2^63 - 1.
        let clear = unaligned as u64 | 3 << 62;
        Self { clear, bytes_max: demands.transfer_bytes_max as u64 }
    }

    /// As [`whole_cut`], which has to be asked where this says no.
    #[inline(always)]
    pub(crate) fn whole(&self, offset: u64, len_bytes: u64, address: usize) -> Option<u32> {
        if (offset | len_bytes | address as u64) & self.clear != 0 {
            return None;
        }
        let fits = len_bytes.wrapping_sub(1) < self.bytes_max;
        #[allow(clippy::cast_possible_truncation, reason = "no more than `bytes_max`")]
        let len = len_bytes as u32;
        fits.then_some(len)
    }
}

/// Cuts the first op off `len_bytes` bytes at `offset`. `address` is where they are in memory,
/// `None` if they have no usable address (a caller's stack).
///
/// A read that is not aligned is rounded out and bounced. A write that is not aligned is
/// refused: rounding it out would need the neighbours' bytes, and whoever writes those at the
/// same time would lose them.
///
/// # Errors
/// [`ErrorKind::OutOfRange`] where the range ends beyond 2^63 - 1 (offsets are signed in the
/// kernel, and -1 means "current position", F18); [`ErrorKind::Misaligned`] as said above.
#[inline]
pub fn first_cut(
    is_read: bool,
    offset: u64,
    len_bytes: u64,
    address: Option<usize>,
    demands: Demands,
) -> Result<Cut, ErrorKind> {
    let in_range = offset.checked_add(len_bytes).is_some_and(|end| end <= i64::MAX as u64);
    if !in_range {
        return Err(ErrorKind::OutOfRange);
    }
    let mask = u64::from(demands.offset_align) - 1;
    let aligned = (offset | len_bytes) & mask == 0;
    let usable = address.is_some_and(|at| at & (demands.mem_align as usize - 1) == 0);
    if aligned && usable {
        let take_bytes = clip(len_bytes, demands.transfer_bytes_max);
        return Ok(Cut {
            take_bytes,
            op_offset: offset,
            op_bytes: take_bytes,
            lead_bytes: 0,
            bounce: false,
        });
    }
    bounced_cut(is_read, offset, len_bytes, aligned, address, demands)
}

#[cold]
fn bounced_cut(
    is_read: bool,
    offset: u64,
    len_bytes: u64,
    aligned: bool,
    address: Option<usize>,
    demands: Demands,
) -> Result<Cut, ErrorKind> {
    if !aligned && !is_read {
        return Err(ErrorKind::Misaligned);
    }
    let mask = u64::from(demands.offset_align) - 1;
    if let Some(cut) = aligned_middle(offset, len_bytes, address, demands) {
        return Ok(cut);
    }
    let lead = offset & mask;
    let room = demands.bounce_bytes_max.min(demands.transfer_bytes_max);
    let covered = lead.saturating_add(len_bytes).saturating_add(mask) & !mask;
    let op_bytes = clip(covered, room);
    let lead_bytes = clip(lead, u32::MAX);
    let Some(usable) = op_bytes.checked_sub(lead_bytes).filter(|&bytes| bytes > 0) else {
        return Err(ErrorKind::Misaligned);
    };
    let take_bytes = clip(len_bytes.min(edge_bytes(offset, address, demands)), usable);
    let op_bytes = clip((lead + u64::from(take_bytes) + mask) & !mask, op_bytes);
    Ok(Cut { take_bytes, op_offset: offset - lead, op_bytes, lead_bytes, bounce: true })
}

/// The aligned middle of a read whose end is not aligned: only edges are worth a copy.
fn aligned_middle(
    offset: u64,
    len_bytes: u64,
    address: Option<usize>,
    demands: Demands,
) -> Option<Cut> {
    let mask = u64::from(demands.offset_align) - 1;
    let usable = address.is_some_and(|at| at & (demands.mem_align as usize - 1) == 0);
    let middle = len_bytes & !mask;
    if offset & mask != 0 || !usable || middle == 0 {
        return None;
    }
    let take_bytes = clip(middle, demands.transfer_bytes_max);
    let (op_offset, op_bytes) = (offset, take_bytes);
    Some(Cut { take_bytes, op_offset, op_bytes, lead_bytes: 0, bounce: false })
}

/// Bytes up to the point from which the view's own memory can be used; all of them if there
/// is no such point.
fn edge_bytes(offset: u64, address: Option<usize>, demands: Demands) -> u64 {
    let align = u64::from(demands.offset_align);
    let edge = offset.wrapping_neg() & (align - 1);
    let fits = address
        .is_some_and(|at| (at as u64).wrapping_add(edge) & (u64::from(demands.mem_align) - 1) == 0);
    if fits && edge > 0 { edge } else { u64::MAX }
}

/// `bytes`, but no more than `max`.
#[inline]
fn clip(bytes: u64, max: u32) -> u32 {
    u32::try_from(bytes).map_or(max, |bytes| bytes.min(max))
}

/// Where an op resumes after its first `reached_bytes` bytes are through: the last aligned
/// point at or before, because a rest must be as aligned as a whole (F11).
///
/// `unaligned` is [`Plant::UnalignedRest`](crate::ring::Plant::UnalignedRest), false in every
/// product.
#[must_use]
pub fn resume_at(reached_bytes: u32, demands: Demands, unaligned: bool) -> u32 {
    if unaligned {
        return reached_bytes;
    }
    // Offsets and memory both step by `reached`, so both alignments bind.
    let align = demands.offset_align.max(demands.mem_align);
    reached_bytes & !(align - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIRECT: Demands = Demands {
        offset_align: 512,
        mem_align: 512,
        transfer_bytes_max: 128 << 10,
        bounce_bytes_max: 64 << 10,
    };
    const BUFFERED: Demands = Demands { offset_align: 1, mem_align: 1, ..DIRECT };

    #[test]
    fn aligned_view_is_one_op_without_a_copy() {
        let cut = first_cut(true, 4096, 4096, Some(0x10000), DIRECT).unwrap();
        let expected =
            Cut { take_bytes: 4096, op_offset: 4096, op_bytes: 4096, lead_bytes: 0, bounce: false };
        assert_eq!(cut, expected);
    }

    #[test]
    fn f44_unaligned_read_is_rounded_out_and_unaligned_write_is_refused() {
        let cut = first_cut(true, 1000, 100, Some(0x10000), DIRECT).unwrap();
        assert_eq!((cut.op_offset, cut.op_bytes, cut.lead_bytes), (512, 1024, 488));
        assert_eq!((cut.take_bytes, cut.bounce), (100, true));
        let refused = first_cut(false, 1000, 100, Some(0x10000), DIRECT);
        assert_eq!(refused, Err(ErrorKind::Misaligned));
        assert!(!first_cut(false, 1000, 100, Some(0x10001), BUFFERED).unwrap().bounce);
    }

    #[test]
    fn f09_four_gibibytes_are_cut_and_not_truncated() {
        let max = 0x7fff_f000;
        let huge = Demands { transfer_bytes_max: max, ..DIRECT };
        for len in [1_u64 << 31, (1 << 32) - 512, 1 << 32, (1 << 32) + 512] {
            let cut = first_cut(true, 0, len, Some(0), huge).unwrap();
            assert_eq!(cut.take_bytes, max);
        }
    }

    #[test]
    fn f18_ranges_beyond_the_signed_offsets_are_refused() {
        for (offset, len) in [(u64::MAX, 1), (u64::MAX, 0), (i64::MAX as u64, 1), (1, u64::MAX)] {
            let refused = first_cut(true, offset, len, Some(0), BUFFERED);
            assert_eq!(refused, Err(ErrorKind::OutOfRange), "{offset} + {len}");
        }
    }

    proptest! {
        /// Cutting until nothing is left covers every byte once, in order, and every op obeys
        /// the demands.
        #[test]
        fn cuts_tile_the_view(
            offset in 0_u64..1 << 20,
            len in 1_u64..1 << 20,
            address in proptest::option::of(0_usize..1 << 20),
            align_log2 in 0_u32..13,
        ) {
            let align = 1 << align_log2;
            let demands = Demands { offset_align: align, mem_align: align, ..DIRECT };
            let (mut at, end) = (offset, offset + len);
            while at < end {
                let here = address.map(|a| a + usize::try_from(at - offset).unwrap());
                let cut = first_cut(true, at, end - at, here, demands).unwrap();
                let mask = u64::from(align) - 1;
                prop_assert_eq!((cut.op_offset | u64::from(cut.op_bytes)) & mask, 0);
                prop_assert!(cut.op_bytes <= demands.transfer_bytes_max);
                prop_assert!(!cut.bounce || cut.op_bytes <= demands.bounce_bytes_max);
                prop_assert_eq!(cut.op_offset + u64::from(cut.lead_bytes), at);
                prop_assert!(cut.take_bytes > 0);
                prop_assert!(cut.lead_bytes + cut.take_bytes <= cut.op_bytes);
                if !cut.bounce {
                    prop_assert_eq!((cut.take_bytes, cut.lead_bytes), (cut.op_bytes, 0));
                    prop_assert!(here.is_some_and(|a| a & (align as usize - 1) == 0));
                }
                at += u64::from(cut.take_bytes);
            }
            prop_assert_eq!(at, end);
        }

        /// A rest never starts beyond what is through, and is aligned.
        #[test]
        fn f11_rest_resumes_aligned_and_without_a_gap(
            reached in 0_u32..1 << 20, log2 in 0_u32..13,
        ) {
            let align = 1 << log2;
            let demands = Demands { offset_align: align, mem_align: 1, ..DIRECT };
            let resumed = resume_at(reached, demands, false);
            prop_assert!(resumed <= reached && reached - resumed < align);
            prop_assert_eq!(resumed % align, 0);
        }
    }

    proptest! {
        /// One op in place, found the short way, exactly where the long way finds it.
        #[test]
        fn whole_cut_is_the_first_cut_that_leaves_nothing(
            offset in prop_oneof![0..1_u64 << 20, i64::MAX as u64 - 4096..=u64::MAX],
            len in prop_oneof![0..1_u64 << 18, u64::from(u32::MAX) - 4096..u64::from(u32::MAX) * 2],
            address in 1_usize << 20..1 << 21,
            masks in prop::array::uniform3(prop::sample::select(vec![0_u64, 511, 4095])),
            direct: bool,
        ) {
            let demands = if direct { DIRECT } else { BUFFERED };
            let (offset, len) = (offset & !masks[0], len & !masks[1]);
            let address = address & !usize::try_from(masks[2]).unwrap();
            let whole = first_cut(true, offset, len.max(1), Some(address), demands)
                .ok()
                .filter(|cut| u64::from(cut.take_bytes) == len && !cut.bounce);
            let expected = whole.map(|cut| cut.op_bytes);
            prop_assert_eq!(whole_cut(offset, len, address, demands), expected);
            if let Some(fitting) = Fit::of(demands).whole(offset, len, address) {
                prop_assert_eq!(Some(fitting), expected);
            } else {
                let all = offset | len | address as u64;
                let aligned = all & u64::from(demands.offset_align.max(demands.mem_align) - 1) == 0;
                prop_assert!(expected.is_none() || !aligned || offset >= 1 << 62);
            }
            prop_assert!(Fit::NONE.whole(offset, len, address).is_none());
        }
    }
}
