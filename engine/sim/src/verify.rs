//! Tells what has become of a sector that was written, by the stamp it bears (F41).
//!
//! Data flow: bytes of a sector, and which write must have left them where → [`verify`] → intact,
//! or the damage by name. The first word of a stamped sector is a code for the number of the
//! write and the number of the sector, the other 63 follow from it: a header with sequence,
//! offset and check words in one.
//!
//! Not here: which of several writes may be seen (`history`).

use core::fmt;

use crate::stamp::{self, SECTOR_BYTES};

/// What is wrong with a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// An earlier write to the same place is there, or none: the expected one was lost.
    Lost {
        /// The number of the write that is there; 0 is none.
        found: u32,
    },
    /// A write to another place is there.
    Misdirected {
        /// The number of that write.
        found: u32,
        /// The sector that it was meant for.
        meant_for: u32,
    },
    /// No write left it so.
    Rotten {
        /// How many bytes differ from what was expected.
        bytes: usize,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { found: 0 } => f.write_str("lost write: nothing was ever written there"),
            Self::Lost { found } => write!(f, "lost write: write #{found} is still there"),
            Self::Misdirected { found, meant_for } => {
                write!(f, "misdirected write: #{found} for sector {meant_for} is there")
            }
            Self::Rotten { bytes } => write!(f, "rotten sector: {bytes} bytes are wrong"),
        }
    }
}

/// Stamps whole sectors: write `sequence`, which is not 0, puts `bytes` at `offset_bytes`.
///
/// # Panics
/// When they are not whole sectors, or farther than 2^41 bytes from the start.
pub fn seal(bytes: &mut [u8], sequence: u32, offset_bytes: usize) {
    let whole = bytes.len().is_multiple_of(SECTOR_BYTES);
    assert!(whole && offset_bytes.is_multiple_of(SECTOR_BYTES), "only whole sectors are sealed");
    stamp::fill(bytes, sequence, offset_bytes);
}

/// Whether `seen` is sector `sector` as write `sequence` left it.
///
/// # Errors
/// What is wrong with it otherwise.
pub fn verify(seen: &[u8; SECTOR_BYTES], sequence: u32, sector: u32) -> Result<(), Damage> {
    let expected = stamp::sector_of(sequence, sector);
    if *seen == expected {
        return Ok(());
    }
    if *seen == [0; SECTOR_BYTES] {
        return Err(Damage::Lost { found: 0 });
    }
    Err(match stamp::writer_of(seen) {
        Some((found, place)) if place == sector => Damage::Lost { found },
        Some((found, meant_for)) => Damage::Misdirected { found, meant_for },
        None => {
            Damage::Rotten { bytes: seen.iter().zip(&expected).filter(|(a, b)| a != b).count() }
        }
    })
}
