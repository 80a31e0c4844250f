//! What can be wrong with a block, by its name.
//!
//! Data flow: a block as it should be and as it is -> [`Fault`] -> one line.
//!
//! Not here: finding out what a block should be (`verify`).

use std::fmt;

/// Writes are torn at multiples of this.
const SECTOR_BYTES: usize = 512;

/// Why a block is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing but zeros.
    Zeroed,
    /// No header of ours.
    Magic { found: u32 },
    /// A header that was changed after it was written.
    Header { expected: u32, received: u32 },
    /// A header whose length is not the block's.
    Length { found: u32 },
    /// One bit differs, at this byte of the block.
    FlippedBit { at: usize, expected: u8, found: u8 },
    /// Whole sectors from this byte on are of another write.
    Torn { at: usize, len: usize },
    /// Bytes differ, the first of them here.
    Changed { at: usize, len: usize },
    /// A valid block that belongs elsewhere.
    Offset { found: u64 },
    /// A valid block of another write: an older one survived, or a foreign one.
    Stale { expected: u64, found: u64 },
    /// A block that was trimmed and does not read as zeros, from this byte on.
    NotTrimmed { at: usize, found: u8 },
    /// A valid block of another run.
    Seed { expected: u64, found: u64 },
}

/// The difference between a block as it should be and as it is; `None` without one.
pub(super) fn difference(whole: &[u8], found: &[u8]) -> Option<Fault> {
    let differs = |at: &usize| whole[*at] != found[*at];
    let first = (0..whole.len()).find(differs)?;
    let last = (0..whole.len()).rev().find(differs).unwrap_or(first);
    let len = last - first + 1;
    if len == 1 && (whole[first] ^ found[first]).count_ones() == 1 {
        let (expected, found) = (whole[first], found[first]);
        return Some(Fault::FlippedBit { at: first, expected, found });
    }
    // A torn write leaves sectors that have hardly a byte in common with what they should be.
    let sectors = first / SECTOR_BYTES..=last / SECTOR_BYTES;
    let foreign = |sector: usize| {
        let from = sector * SECTOR_BYTES;
        let to = (from + SECTOR_BYTES).min(whole.len());
        let equal = (from..to).filter(|at| !differs(at)).count();
        equal * 4 < to - from
    };
    if sectors.into_iter().all(foreign) {
        let at = first / SECTOR_BYTES * SECTOR_BYTES;
        return Some(Fault::Torn { at, len: (last + 1 - at).next_multiple_of(SECTOR_BYTES) });
    }
    Some(Fault::Changed { at: first, len })
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeroed => f.write_str("a zeroed block: nothing but zeros, as if never written"),
            Self::Magic { found } => {
                let wanted = super::MAGIC;
                write!(f, "bad magic header {found:x}, wanted {wanted:x}: a foreign block")
            }
            Self::Header { expected, received } => write!(
                f,
                "the header changed after it was written: CRC {received:08x}, wanted {expected:08x}"
            ),
            Self::Length { found } => write!(f, "bad header length {found}"),
            Self::FlippedBit { at, expected, found } => {
                write!(f, "a flipped bit: byte {at} is {found:02x}, wanted {expected:02x}")
            }
            Self::Torn { at, len } => write!(
                f,
                "a torn block: {len} bytes from byte {at} are not of the write its header names"
            ),
            Self::Changed { at, len } => {
                write!(f, "data changed after it was written: {len} bytes from byte {at}")
            }
            Self::Offset { found } => {
                write!(f, "bad header offset {found}: a misdirected (misplaced) block")
            }
            Self::Stale { expected, found } => {
                let what = "a stale block, its last write was lost";
                write!(f, "bad header sequence {found}, wanted {expected}: {what}")
            }
            Self::NotTrimmed { at, found } => {
                write!(f, "a trimmed block that is not zeros: byte {at} is {found:02x}")
            }
            Self::Seed { expected, found } => {
                let what = "a stale block of another run, its last write was lost";
                write!(f, "bad header seed {found:016x}, wanted {expected:016x}: {what}")
            }
        }
    }
}
