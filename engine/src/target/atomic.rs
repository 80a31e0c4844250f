//! Which writes a target makes whole or not at all.
//!
//! Data flow: descriptor → `statx(2)` with `STATX_WRITE_ATOMIC` (Linux 6.11) → [`AtomicUnit`].
//!
//! Not here: issuing such writes (`shard::issue`).

use std::fs::File;

use mfio_core::ErrorKind;

use crate::sys;

/// The sizes of writes that survive a power loss as a whole or not at all (`RWF_ATOMIC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomicUnit {
    /// The shortest, in bytes; a power of two.
    pub bytes_min: u32,
    /// The longest, in bytes; a power of two.
    pub bytes_max: u32,
}

impl AtomicUnit {
    /// What `file`, opened past the page cache, says; `None` where it knows no such writes.
    #[must_use]
    pub fn of(file: &File) -> Option<Self> {
        let (bytes_min, bytes_max) = sys::atomic_write_bytes(file)?;
        (bytes_min > 0 && bytes_max >= bytes_min).then_some(Self { bytes_min, bytes_max })
    }

    /// Whether a write of this shape can be one: its length a power of two between the two
    /// limits, its offset a multiple of its length.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for the length, [`ErrorKind::Misaligned`] for the offset.
    pub fn check(self, offset_bytes: u64, len_bytes: u64) -> Result<(), ErrorKind> {
        let range = u64::from(self.bytes_min)..=u64::from(self.bytes_max);
        if !len_bytes.is_power_of_two() || !range.contains(&len_bytes) {
            return Err(ErrorKind::Unsupported);
        }
        if !offset_bytes.is_multiple_of(len_bytes) {
            return Err(ErrorKind::Misaligned);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_at_their_own_multiples_are_atomic() {
        let unit = AtomicUnit { bytes_min: 4096, bytes_max: 65536 };
        assert_eq!(unit.check(8192, 8192), Ok(()));
        assert_eq!(unit.check(4096, 8192), Err(ErrorKind::Misaligned));
        for len in [0, 512, 12288, 131_072] {
            assert_eq!(unit.check(0, len), Err(ErrorKind::Unsupported), "{len}");
        }
    }
}
