//! Turns the number of a write and a place in a file into bytes that name both.
//!
//! Data flow: sequence and offset → [`fill`] → the buffer of a write → device → the bytes that
//! a read or a crash shows → [`matches`]. Every sector of a write looks different from that
//! sector of every other write, and from every other sector of the same write.
//!
//! Not here: which write may be seen where (`history`).

use core::ops::Range;

/// Bytes of a sector: the unit of the checker's bookkeeping.
pub(crate) const SECTOR_BYTES: usize = 512;

/// A write with this bit in its number leaves zeros.
pub(crate) const ZEROES: u32 = 1 << 31;

/// What lies between one word of a sector and the next: odd, so that no two are equal.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The first word of sector `sector` as write `sequence` leaves it; the others follow from it.
#[inline]
fn first_word(sequence: u32, sector: u32) -> u64 {
    let mut mixed = (u64::from(sequence) << 32) | u64::from(sector);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The inverse of [`first_word`]: each of its steps can be undone.
fn writer_of_word(word: u64) -> (u32, u32) {
    let mut mixed = unshifted(word, 31).wrapping_mul(0x3196_42b2_d24d_8ec3);
    mixed = unshifted(mixed, 27).wrapping_mul(0x96de_1b17_3f11_9089);
    mixed = unshifted(mixed, 30);
    ((mixed >> 32) as u32, ((mixed << 32) >> 32) as u32)
}

/// The word that, combined with itself shifted to the right, gives `word`.
fn unshifted(word: u64, by: u32) -> u64 {
    let mut found = word;
    for _ in 0..64 / by {
        found = word ^ (found >> by);
    }
    found
}

/// Which write has left a whole sector like `seen`, and at which place; `None` where none has.
pub(crate) fn writer_of(seen: &[u8; SECTOR_BYTES]) -> Option<(u32, u32)> {
    let (words, _) = seen.as_chunks::<8>();
    let (sequence, sector) = writer_of_word(u64::from_le_bytes(words[0]));
    (sequence & ZEROES == 0 && *seen == sector_of(sequence, sector)).then_some((sequence, sector))
}

/// The whole sector `sector` as write `sequence` leaves it.
#[inline]
pub(crate) fn sector_of(sequence: u32, sector: u32) -> [u8; SECTOR_BYTES] {
    let mut bytes = [0; SECTOR_BYTES];
    if sequence & ZEROES != 0 {
        return bytes;
    }
    let mut word = first_word(sequence, sector);
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(STEP);
    }
    bytes
}

/// Whether `seen` is the range `within` of [`sector_of`] these two. Most callers try versions
/// until one fits, so what does not fit is found out at the first word.
#[inline]
pub(crate) fn matches(sequence: u32, sector: u32, within: &Range<usize>, seen: &[u8]) -> bool {
    if sequence & ZEROES != 0 {
        return seen.iter().all(|byte| *byte == 0);
    }
    if !within.start.is_multiple_of(8) || !within.end.is_multiple_of(8) {
        return sector_of(sequence, sector)[within.clone()] == *seen;
    }
    let skipped = (within.start / 8) as u64;
    let mut word = first_word(sequence, sector).wrapping_add(STEP.wrapping_mul(skipped));
    let (chunks, _) = seen.as_chunks();
    if chunks.first().is_some_and(|first| u64::from_le_bytes(*first) != word) {
        return false;
    }
    // What fits at first fits as a rule: without a way out, this is several words at a time.
    let mut different = 0;
    for chunk in chunks {
        different |= u64::from_le_bytes(*chunk) ^ word;
        word = word.wrapping_add(STEP);
    }
    different == 0
}

/// Calls `each` for every sector that `len` bytes from `offset` touch, with the sector's number,
/// the range inside the sector, and the range inside the bytes.
#[inline]
pub(crate) fn for_sectors(
    offset: usize,
    len: usize,
    mut each: impl FnMut(usize, Range<usize>, Range<usize>),
) {
    let mut done = 0;
    while done < len {
        let at = offset + done;
        let within = at % SECTOR_BYTES;
        let count = (SECTOR_BYTES - within).min(len - done);
        each(at / SECTOR_BYTES, within..within + count, done..done + count);
        done += count;
    }
}

/// Fills `bytes`, which write `sequence` puts at `offset`.
pub(crate) fn fill(bytes: &mut [u8], sequence: u32, offset: usize) {
    for_sectors(offset, bytes.len(), |sector, within, part| {
        let sector = u32::try_from(sector).expect("a simulated file has few sectors");
        bytes[part].copy_from_slice(&sector_of(sequence, sector)[within]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_a_write_looks_like_that_part_of_the_whole() {
        let mut whole = vec![0; 2048];
        fill(&mut whole, 7, 0);
        let mut part = vec![0; 700];
        fill(&mut part, 7, 300);
        assert_eq!(part, whole[300..1000]);
    }

    #[test]
    fn every_part_matches_its_own_write_and_no_other() {
        let whole = sector_of(3, 9);
        for within in [0..512, 8..16, 504..512, 1..512, 7..9] {
            let seen = &whole[within.clone()];
            assert!(matches(3, 9, &within, seen));
            assert!(!matches(4, 9, &within, seen) && !matches(3, 8, &within, seen));
        }
        let mut late = whole;
        late[511] ^= 1;
        assert!(!matches(3, 9, &(0..512), &late));
    }

    #[test]
    fn sector_tells_who_wrote_it_and_where() {
        for (sequence, sector) in [(1, 0), (7, 9), (1 << 30, u32::MAX), ((1 << 31) - 1, 12345)] {
            let mut bytes = sector_of(sequence, sector);
            assert_eq!(writer_of(&bytes), Some((sequence, sector)));
            for at in [0, 7, 8, 511] {
                bytes[at] ^= 1;
                assert_eq!(writer_of(&bytes), None);
                bytes[at] ^= 1;
            }
        }
        assert_eq!(writer_of(&[0; SECTOR_BYTES]), None);
    }

    #[test]
    fn sectors_differ_between_writes_and_places() {
        let a = sector_of(1, 1);
        for (sequence, sector) in [(1, 2), (2, 1), (0, 0), (2, 2)] {
            let b = sector_of(sequence, sector);
            let same = a.iter().zip(&b).filter(|(a, b)| a == b).count();
            assert!(same < 32, "{same} equal bytes");
        }
    }
}
